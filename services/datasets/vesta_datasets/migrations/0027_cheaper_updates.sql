-- Updates of items in about half of the time. An update changes every index of `items`, because indexed columns change with each label and
-- each prediction. What the indexes of near-duplicates contain never changes, so that they move to a table of their own, or shrink.

-- The bands of items, which replace items_by_bands_of_dataset. Triggers maintain it. Items are inserted with the row of their dataset
-- locked, so that the numbers of a dataset are in the order of the commits: what has a greater number than all that a transaction has seen
-- was added later.
CREATE TABLE item_bands (
    item    text PRIMARY KEY,
    dataset text NOT NULL,
    bands   integer[] NOT NULL,      -- as those of the item
    number  bigint GENERATED ALWAYS AS IDENTITY
);

CREATE FUNCTION put_bands_of_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_bands (item, dataset, bands) SELECT name, dataset, bands FROM inserted;
    RETURN NULL;
END $$;
CREATE TRIGGER put_bands_of_inserted AFTER INSERT ON items REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION put_bands_of_inserted();

-- The planner expects a thousand items, and would read the whole table instead.
CREATE FUNCTION delete_bands_of_deleted() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    DELETE FROM item_bands USING deleted WHERE item_bands.item = deleted.name;
    RETURN NULL;
END $$;
CREATE TRIGGER delete_bands_of_deleted AFTER DELETE ON items REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION delete_bands_of_deleted();

-- The triggers' locks stop writers until the end of this transaction, so that no item is missed.
INSERT INTO item_bands (item, dataset, bands) SELECT name, dataset, bands FROM items;
CREATE INDEX item_bands_of_dataset ON item_bands USING gin (bands_of_dataset(dataset, bands));
CREATE INDEX item_bands_in_order ON item_bands (dataset, number);

-- The few items that joined a group of near-duplicates. Replaces items_by_group, which has the items that founded theirs too.
CREATE INDEX items_in_groups ON items (group_name) WHERE group_name <> name;

-- Records the changes of a statement at once.
CREATE FUNCTION record_updated_items() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_changes (dataset, first_item, last_item)
    SELECT inserted.dataset, inserted.name, inserted.name
    FROM inserted JOIN deleted ON deleted.name = inserted.name
    WHERE inserted.accepted IS DISTINCT FROM deleted.accepted
        OR inserted.labels IS DISTINCT FROM deleted.labels
        OR inserted.labelled IS DISTINCT FROM deleted.labelled
        OR inserted.split IS DISTINCT FROM deleted.split
        OR inserted.straddles IS DISTINCT FROM deleted.straddles
        OR inserted.sha256 IS DISTINCT FROM deleted.sha256
        OR inserted.media IS DISTINCT FROM deleted.media;
    RETURN NULL;
END $$;
DROP TRIGGER record_updated_item ON items;
DROP FUNCTION record_item_change;
CREATE TRIGGER record_updated_items AFTER UPDATE ON items REFERENCING OLD TABLE AS deleted NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION record_updated_items();
