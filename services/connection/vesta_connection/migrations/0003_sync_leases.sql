-- Each claim of a sync has a fencing token. Until the post migration, the trigger also increments it for a claim by a replica of the
-- previous version, which sets the start time and the lease in one statement, so that it rejects the writes of the worker before.

ALTER TABLE syncs
    ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0,    -- counts claims: only the last one's worker may write
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0;   -- claims, without those that ended because the service stopped

CREATE FUNCTION count_claim() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.lease_expire_time IS DISTINCT FROM OLD.lease_expire_time THEN
        NEW.fencing_token := OLD.fencing_token + 1;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER count_claim BEFORE UPDATE OF start_time ON syncs FOR EACH ROW EXECUTE FUNCTION count_claim();
