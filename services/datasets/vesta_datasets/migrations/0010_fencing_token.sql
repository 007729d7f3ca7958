-- `fencing_token` replaces `fence`, so that the columns of a lease have the same names in all services. Until the post migration, the
-- trigger keeps both columns equal: a claim by a replica of either version rejects the writes of a worker of the other version.

ALTER TABLE operations ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0;   -- counts claims: only the last one's worker may write
UPDATE operations SET fencing_token = fence;

CREATE FUNCTION copy_fencing_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.fencing_token := greatest(NEW.fencing_token, NEW.fence);
    NEW.fence := NEW.fencing_token;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_fencing_token BEFORE UPDATE ON operations FOR EACH ROW EXECUTE FUNCTION copy_fencing_token();
