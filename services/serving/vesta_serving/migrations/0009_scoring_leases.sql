-- Each claim of a pass or of an arrival has a fencing token. Until the post migration, the trigger also increments the token of a pass
-- that a replica of the previous version restarts or advances, so that a worker of this version that holds it records nothing.

ALTER TABLE passes
    ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0,    -- counts claims and restarts: only the last one's worker may write
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0;
ALTER TABLE arrivals
    ADD COLUMN fencing_token bigint NOT NULL DEFAULT 0,
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0;

CREATE FUNCTION count_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.generation <> OLD.generation OR NEW.page_token <> OLD.page_token THEN
        NEW.fencing_token := OLD.fencing_token + 1;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER count_change BEFORE UPDATE ON passes FOR EACH ROW EXECUTE FUNCTION count_change();
