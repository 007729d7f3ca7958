-- A snapshot shares the parts of the previous one (its base) in which no item has changed. Triggers record the changes, in the
-- transaction of the change: rows are only added, so that transactions neither wait for each other nor deadlock. A snapshot deletes the
-- changes that it contains; a change that was not committed at its point in time stays for the next one.

CREATE TABLE snapshot_bases (
    dataset      text PRIMARY KEY REFERENCES datasets ON DELETE CASCADE,
    version      bigint NOT NULL,            -- increases with each replacement
    manifest_key text NOT NULL
);

CREATE TABLE item_changes (
    dataset    text NOT NULL,
    first_item text NOT NULL,                -- the changed items are in this range of names, which includes both
    last_item  text NOT NULL,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX item_changes_by_dataset ON item_changes (dataset);

-- The objects of their snapshots are deleted later.
CREATE TABLE deleted_datasets (
    name        text NOT NULL,
    delete_time timestamptz NOT NULL
);

CREATE FUNCTION record_item_changes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_changes (dataset, first_item, last_item)
    SELECT dataset, min(changed.name), max(changed.name) FROM changed GROUP BY dataset
    HAVING EXISTS (SELECT FROM datasets WHERE datasets.name = changed.dataset);   -- not if the dataset is being deleted
    RETURN NULL;
END $$;
CREATE TRIGGER record_added_items AFTER INSERT ON items REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION record_item_changes();
CREATE TRIGGER record_deleted_items AFTER DELETE ON items REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION record_item_changes();

-- By row, because predictions update most items, and a condition is cheaper than the rows of each statement.
CREATE FUNCTION record_item_change() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_changes (dataset, first_item, last_item) VALUES (NEW.dataset, NEW.name, NEW.name);
    RETURN NULL;
END $$;
CREATE TRIGGER record_updated_item AFTER UPDATE ON items FOR EACH ROW WHEN (
    OLD.accepted IS DISTINCT FROM NEW.accepted
    OR OLD.labels IS DISTINCT FROM NEW.labels
    OR OLD.labelled IS DISTINCT FROM NEW.labelled
    OR OLD.split IS DISTINCT FROM NEW.split
    OR OLD.straddles IS DISTINCT FROM NEW.straddles
    OR OLD.sha256 IS DISTINCT FROM NEW.sha256
    OR OLD.media IS DISTINCT FROM NEW.media
) EXECUTE FUNCTION record_item_change();
