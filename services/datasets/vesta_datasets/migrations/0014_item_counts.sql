-- Counts of items and embeddings per dataset, maintained by triggers, so that no statement can change items without them. A change adds
-- rows and updates none: writers of one dataset never wait for each other. The rows of a key add up to its count; `fold_item_counts`
-- replaces them by one row.

-- What is counted and filtered most, in one number. items/facets.py has the same bits.
ALTER TABLE items SET (fillfactor = 90);   -- leaves space for updates in the page of the row
ALTER TABLE items ADD COLUMN facets smallint NOT NULL GENERATED ALWAYS AS ((
    CASE split WHEN 'TRAIN' THEN 0 WHEN 'VALIDATION' THEN 1 ELSE 2 END
    + CASE WHEN accepted IS NOT NULL AND (labels <> '{}' OR shape_concepts = '{}') THEN 4 ELSE 0 END   -- labelled
    + CASE WHEN accepted IS NOT NULL THEN 8 ELSE 0 END     -- annotated
    + CASE WHEN duplicate_of <> '' THEN 16 ELSE 0 END      -- duplicate
    + CASE WHEN straddles THEN 32 ELSE 0 END
    + CASE WHEN uncertain THEN 64 ELSE 0 END
    + CASE WHEN reviewed THEN 128 ELSE 0 END
    + CASE WHEN control THEN 256 ELSE 0 END
    + CASE WHEN scores IS NOT NULL THEN 512 ELSE 0 END     -- scored
)::smallint) STORED;

CREATE TABLE item_counts (
    dataset   text NOT NULL,
    facets    smallint NOT NULL,
    scored_by text NOT NULL,
    count     bigint NOT NULL,                 -- or a change of it, which may be negative
    folded    boolean NOT NULL DEFAULT false   -- the row replaces others
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX item_counts_by_dataset ON item_counts (dataset, facets);
CREATE INDEX item_counts_to_fold ON item_counts (dataset) WHERE NOT folded;

CREATE TABLE embedding_counts (
    dataset text NOT NULL,
    space   text NOT NULL,
    count   bigint NOT NULL,
    folded  boolean NOT NULL DEFAULT false
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX embedding_counts_by_dataset ON embedding_counts (dataset, space);
CREATE INDEX embedding_counts_to_fold ON embedding_counts (dataset) WHERE NOT folded;

CREATE FUNCTION count_inserted_items() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_counts (dataset, facets, scored_by, count)
    SELECT dataset, facets, scored_by, count(*) FROM inserted GROUP BY dataset, facets, scored_by;
    RETURN NULL;
END $$;

CREATE FUNCTION count_updated_items() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_counts (dataset, facets, scored_by, count)
    SELECT dataset, facets, scored_by, sum(change)
    FROM (
        SELECT dataset, facets, scored_by, 1 AS change FROM inserted
        UNION ALL
        SELECT dataset, facets, scored_by, -1 AS change FROM deleted
    ) AS changed
    GROUP BY dataset, facets, scored_by HAVING sum(change) <> 0;
    RETURN NULL;
END $$;

CREATE FUNCTION count_deleted_items() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_counts (dataset, facets, scored_by, count)
    SELECT dataset, facets, scored_by, -count(*) FROM deleted GROUP BY dataset, facets, scored_by;
    RETURN NULL;
END $$;

CREATE FUNCTION count_inserted_embeddings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO embedding_counts (dataset, space, count)
    SELECT dataset, space, count(*) FROM inserted GROUP BY dataset, space;
    RETURN NULL;
END $$;

CREATE FUNCTION count_updated_embeddings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO embedding_counts (dataset, space, count)
    SELECT dataset, space, sum(change)
    FROM (
        SELECT dataset, space, 1 AS change FROM inserted
        UNION ALL
        SELECT dataset, space, -1 AS change FROM deleted
    ) AS changed
    GROUP BY dataset, space HAVING sum(change) <> 0;
    RETURN NULL;
END $$;

CREATE FUNCTION count_deleted_embeddings() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO embedding_counts (dataset, space, count)
    SELECT dataset, space, -count(*) FROM deleted GROUP BY dataset, space;
    RETURN NULL;
END $$;

CREATE TRIGGER count_inserted AFTER INSERT ON items REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_items();
CREATE TRIGGER count_updated AFTER UPDATE ON items REFERENCING OLD TABLE AS deleted NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION count_updated_items();
CREATE TRIGGER count_deleted AFTER DELETE ON items REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_items();
CREATE TRIGGER count_inserted AFTER INSERT ON embeddings REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_embeddings();
CREATE TRIGGER count_updated AFTER UPDATE ON embeddings REFERENCING OLD TABLE AS deleted NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION count_updated_embeddings();
CREATE TRIGGER count_deleted AFTER DELETE ON embeddings REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_embeddings();

-- The triggers' locks stop writers until the end of this transaction, so that nothing is counted twice or missed.
INSERT INTO item_counts (dataset, facets, scored_by, count, folded)
SELECT dataset, facets, scored_by, count(*), true FROM items GROUP BY dataset, facets, scored_by;
INSERT INTO embedding_counts (dataset, space, count, folded)
SELECT dataset, space, count(*), true FROM embeddings GROUP BY dataset, space;

-- The differences between the counts and the rows, which `vesta-admin check` reads and repairs.
CREATE VIEW item_count_differences AS
SELECT dataset, facets, scored_by, sum(counted)::bigint AS counted, sum(existing)::bigint AS existing
FROM (
    SELECT dataset, facets, scored_by, count AS counted, 0 AS existing FROM item_counts
    UNION ALL
    SELECT dataset, facets, scored_by, 0, count(*) FROM items GROUP BY dataset, facets, scored_by
) AS both_counts
GROUP BY dataset, facets, scored_by HAVING sum(counted) <> sum(existing);

CREATE VIEW embedding_count_differences AS
SELECT dataset, space, sum(counted)::bigint AS counted, sum(existing)::bigint AS existing
FROM (
    SELECT dataset, space, count AS counted, 0 AS existing FROM embedding_counts
    UNION ALL
    SELECT dataset, space, 0, count(*) FROM embeddings GROUP BY dataset, space
) AS both_counts
GROUP BY dataset, space HAVING sum(counted) <> sum(existing);

-- Adds the differences to the counts, while items change: one statement sees counts and rows at the same time.
CREATE FUNCTION repair_counts() RETURNS void LANGUAGE sql SET search_path FROM CURRENT AS $$
    INSERT INTO item_counts (dataset, facets, scored_by, count)
    SELECT dataset, facets, scored_by, existing - counted FROM item_count_differences;
    INSERT INTO embedding_counts (dataset, space, count)
    SELECT dataset, space, existing - counted FROM embedding_count_differences;
$$;
