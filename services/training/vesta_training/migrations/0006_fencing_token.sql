-- `fencing_token` replaces `attempt_count` as what rejects the writes of a worker whose run was taken over, as in all services. Until
-- the post migration, the trigger also raises it for a claim by a replica of the previous version, which counts the attempt alone.

ALTER TABLE training_runs ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0;   -- counts claims: only the last one's worker may write
UPDATE training_runs SET fencing_token = attempt_count;

CREATE FUNCTION raise_fencing_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.fencing_token := greatest(NEW.fencing_token, NEW.attempt_count);
    RETURN NEW;
END $$;
CREATE TRIGGER raise_fencing_token BEFORE UPDATE ON training_runs FOR EACH ROW EXECUTE FUNCTION raise_fencing_token();
