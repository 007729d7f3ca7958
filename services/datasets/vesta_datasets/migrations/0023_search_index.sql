-- The search index: binary codes of the embeddings of a dataset and embedding space, in segments. It is derived from the embeddings:
-- without its row in search_indexes it is built again. Triggers record which embeddings are added, in the transaction of the change;
-- nothing is locked, and a search computes the distances of recorded items exactly until the index has them.

CREATE TABLE search_indexes (
    dataset text NOT NULL,
    space   text NOT NULL,
    PRIMARY KEY (dataset, space)
);

CREATE TABLE search_segments (
    number     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset    text NOT NULL,
    space      text NOT NULL,
    item_count integer NOT NULL,
    item_ids   bytea NOT NULL,    -- the last parts of the items' names, one per line
    thresholds bytea NOT NULL,    -- float32; see search/codes.py
    codes      bytea NOT NULL,    -- uint64
    FOREIGN KEY (dataset, space) REFERENCES search_indexes ON DELETE CASCADE
);
ALTER TABLE search_segments ALTER COLUMN codes SET STORAGE EXTERNAL, ALTER COLUMN thresholds SET STORAGE EXTERNAL;   -- do not compress
CREATE INDEX search_segments_by_dataset ON search_segments (dataset, space, number);

CREATE TABLE embedding_changes (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset text NOT NULL,
    space   text NOT NULL,
    items   text[] NOT NULL       -- have a new embedding; at most 1,024
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
CREATE INDEX embedding_changes_by_dataset ON embedding_changes (dataset, space, number);

CREATE FUNCTION record_embedding_changes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO embedding_changes (dataset, space, items)
    SELECT dataset, space, array_agg(item)
    FROM (SELECT dataset, space, item, row_number() OVER (PARTITION BY dataset, space) / 1024 AS part FROM changed) AS numbered
    GROUP BY dataset, space, part;
    RETURN NULL;
END $$;
CREATE TRIGGER record_inserted AFTER INSERT ON embeddings REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION record_embedding_changes();
CREATE TRIGGER record_updated AFTER UPDATE ON embeddings REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION record_embedding_changes();
