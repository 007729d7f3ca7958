-- A Loop's due time is its schedule, and its lease is that of the worker that reconciles it. A project's deletion is leased too; the
-- lease, or the time of the next pass, replaces the due time of projects. Until the post migration, the trigger copies what replicas of
-- one version write to the column of the other version, and what the previous version writes rejects the writes of a worker of this one.

ALTER TABLE loop_queue
    ADD COLUMN lease_expire_time timestamptz,
    ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0,    -- counts claims: only the last one's worker may write
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0;
ALTER TABLE projects
    ADD COLUMN lease_expire_time timestamptz,              -- of the worker that deletes it, or the time of the next pass
    ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0,
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0;
UPDATE projects SET lease_expire_time = due_time WHERE state = 'DELETING';
CREATE INDEX projects_to_delete ON projects (coalesce(lease_expire_time, delete_time)) WHERE state = 'DELETING';

CREATE FUNCTION copy_due_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.due_time IS DISTINCT FROM OLD.due_time THEN   -- a replica of the previous version
        NEW.lease_expire_time := NEW.due_time;
        NEW.fencing_token := OLD.fencing_token + 1;
    ELSIF NEW.state = 'DELETING' THEN
        NEW.due_time := coalesce(NEW.lease_expire_time, NEW.delete_time);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_due_time BEFORE UPDATE ON projects FOR EACH ROW EXECUTE FUNCTION copy_due_time();
