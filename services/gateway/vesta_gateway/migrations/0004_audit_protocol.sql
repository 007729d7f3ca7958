-- `protocol` replaces `door`. Until the post migration, the trigger copies what replicas of one version insert to the column of the
-- other version. Existing entries get the column here; nothing else may update them.

ALTER TABLE audit_entries
    ADD COLUMN protocol text NOT NULL DEFAULT '',   -- rest or grpc
    ALTER COLUMN door SET DEFAULT '';
ALTER TABLE audit_entries DISABLE TRIGGER audit_entries_stay;
UPDATE audit_entries SET protocol = door;
ALTER TABLE audit_entries ENABLE TRIGGER audit_entries_stay;

CREATE FUNCTION copy_audit_protocol() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.protocol = '' THEN
        NEW.protocol := NEW.door;
    END IF;
    NEW.door := NEW.protocol;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_audit_protocol BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION copy_audit_protocol();
