-- The leases of uncertain frames have the columns that leases have in all services. `lease_expire_time` replaces `try_time`, and
-- `attempt_count` replaces `attempts`. Until the post migration, the trigger copies what replicas of one version write to the columns
-- of the other version, and their claims reject the writes of a worker of this version.

ALTER TABLE uncertain_frames
    ADD COLUMN lease_expire_time timestamptz,                -- of the worker that uploads it, or the time of the next attempt
    ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0,      -- counts claims: only the last one's worker may write
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0;
UPDATE uncertain_frames SET lease_expire_time = try_time, attempt_count = attempts;
CREATE INDEX uncertain_frames_to_upload ON uncertain_frames (coalesce(lease_expire_time, create_time));

CREATE FUNCTION copy_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.try_time <> OLD.try_time OR NEW.attempts <> OLD.attempts THEN   -- a replica of the previous version
        NEW.lease_expire_time := NEW.try_time;
        NEW.fencing_token := OLD.fencing_token + NEW.attempts - OLD.attempts;
        NEW.attempt_count := NEW.attempts;
    ELSE
        NEW.try_time := coalesce(NEW.lease_expire_time, now());
        NEW.attempts := NEW.attempt_count;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_lease BEFORE UPDATE ON uncertain_frames FOR EACH ROW EXECUTE FUNCTION copy_lease();
