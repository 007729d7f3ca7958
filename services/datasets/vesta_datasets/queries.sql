-- name: insert_taxonomy!
INSERT INTO taxonomies (name, parent, body, create_time, update_time) VALUES (:name, :parent, :body, :now, :now);

-- name: find_taxonomy^
SELECT * FROM taxonomies WHERE name = :name;

-- name: lock_taxonomy^
SELECT * FROM taxonomies WHERE name = :name FOR UPDATE;

-- name: list_taxonomies
SELECT * FROM taxonomies WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_taxonomy!
UPDATE taxonomies SET body = :body, update_time = :now WHERE name = :name;

-- name: delete_taxonomy!
DELETE FROM taxonomies WHERE name = :name;

-- name: list_used_labels
-- Concepts of image labels and shapes of all items in the datasets that use a taxonomy. Reads one entry per term of an index.
WITH RECURSIVE terms AS (
    SELECT name AS dataset, (SELECT min(term) FROM item_terms WHERE dataset = datasets.name) AS term
    FROM datasets WHERE taxonomy = :taxonomy
    UNION ALL
    SELECT dataset, (SELECT min(term) FROM item_terms WHERE item_terms.dataset = terms.dataset AND item_terms.term > terms.term)
    FROM terms WHERE term IS NOT NULL
)
SELECT DISTINCT substr(term, 7) AS label FROM terms WHERE term LIKE 'label:%%' OR term LIKE 'shape:%%';

-- name: list_dataset_labels
-- As list_used_labels, for one dataset.
WITH RECURSIVE terms AS (
    SELECT min(term) AS term FROM item_terms WHERE dataset = :dataset
    UNION ALL
    SELECT (SELECT min(term) FROM item_terms WHERE dataset = :dataset AND item_terms.term > terms.term) FROM terms WHERE term IS NOT NULL
)
SELECT DISTINCT substr(term, 7) AS label FROM terms WHERE term LIKE 'label:%%' OR term LIKE 'shape:%%';

-- name: insert_dataset!
INSERT INTO datasets (name, parent, taxonomy, body, create_time, update_time)
VALUES (:name, :parent, :taxonomy, :body, :now, :now);

-- name: find_dataset^
SELECT * FROM datasets WHERE name = :name;

-- name: lock_dataset^
-- Serialises batches of new items, because the split and the group of an item depend on earlier items.
SELECT * FROM datasets WHERE name = :name FOR UPDATE;

-- name: list_datasets
SELECT * FROM datasets WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_dataset!
UPDATE datasets SET body = :body, taxonomy = :taxonomy, update_time = :now WHERE name = :name;

-- name: delete_dataset!
-- Before 0022_dataset_purge_post.sql, this deletes the items too, and leaves their terms to purge_terms; see 0018_dataset_deletion.sql.
WITH mark AS (SELECT set_config('vesta.deletes_dataset', 'true', true)) DELETE FROM datasets USING mark WHERE name = :name;

-- name: insert_deleted_dataset!
INSERT INTO deleted_datasets (name, delete_time, purged) SELECT name, :now, false FROM datasets WHERE name = :name;

-- name: is_being_purged$
SELECT EXISTS (SELECT FROM deleted_datasets WHERE name = :name AND NOT purged);

-- name: lock_purge^
SELECT name, purged_until FROM deleted_datasets WHERE name = :name AND NOT purged FOR UPDATE;

-- name: claim_purge^
-- The next deleted dataset with items. Skips those that another replica is purging.
SELECT name, purged_until FROM deleted_datasets WHERE NOT purged ORDER BY delete_time LIMIT 1 FOR UPDATE SKIP LOCKED;

-- name: list_purgeable
SELECT name FROM items WHERE dataset = :dataset AND name > :after ORDER BY name LIMIT :limit;

-- name: purge_items!
-- As delete_dataset, leaves the terms of the items; purge_terms is several times as fast for many.
WITH mark AS (SELECT set_config('vesta.deletes_dataset', 'true', true)) DELETE FROM items USING mark WHERE name = ANY(:names);

-- name: set_purged_until!
UPDATE deleted_datasets SET purged_until = :last_item WHERE name = :dataset AND NOT purged;

-- name: purge_terms!
-- Runs after purge_items, so that no item can get another term.
DELETE FROM item_terms WHERE ctid = ANY(ARRAY(SELECT ctid FROM item_terms WHERE dataset = :dataset LIMIT :limit));

-- name: set_purged!
UPDATE deleted_datasets SET purged = true WHERE name = :dataset AND NOT purged;

-- name: list_deleted_datasets
-- Purged datasets whose last deletion is old enough and whose name is not in use again.
SELECT name, max(delete_time) AS delete_time FROM deleted_datasets
WHERE NOT EXISTS (SELECT FROM datasets WHERE datasets.name = deleted_datasets.name)
GROUP BY name HAVING max(delete_time) < :before AND bool_and(purged);

-- name: forget_deleted_dataset!
DELETE FROM deleted_datasets WHERE name = :name AND delete_time <= :delete_time;

-- name: count_items
-- Counts of several datasets, from the maintained counts. Items that straddle two splits are counted in neither, as in snapshots.
-- The bits of `facets` are those of items/facets.py.
SELECT
    datasets.name AS dataset,
    datasets.scored_by AS scored_model_version,
    coalesce(sum(cell.count), 0)::bigint AS item_count,
    coalesce(sum(cell.count) FILTER (WHERE annotated), 0)::bigint AS annotated_count,
    coalesce(sum(cell.count) FILTER (WHERE labelled), 0)::bigint AS labelled_count,
    coalesce(sum(cell.count) FILTER (WHERE labelled AND train AND NOT straddles), 0)::bigint AS train_labelled_count,
    coalesce(sum(cell.count) FILTER (WHERE test AND NOT straddles), 0)::bigint AS test_item_count,
    coalesce(sum(cell.count) FILTER (WHERE labelled AND test AND NOT straddles), 0)::bigint AS test_labelled_count,
    coalesce(sum(cell.count) FILTER (WHERE duplicate), 0)::bigint AS duplicate_count,
    coalesce(sum(cell.count) FILTER (WHERE pool), 0)::bigint AS pool_count,
    coalesce(sum(cell.count) FILTER (WHERE scored), 0)::bigint AS scored_count,
    coalesce(sum(cell.count) FILTER (WHERE pool AND scored), 0)::bigint AS pool_scored_count,
    coalesce(sum(cell.count) FILTER (WHERE pool AND scored AND NOT uncertain), 0)::bigint AS pool_certain_count,
    (SELECT coalesce(sum(count), 0)::bigint FROM embedding_counts WHERE embedding_counts.dataset = datasets.name) AS embedded_count
FROM datasets
LEFT JOIN LATERAL (
    SELECT
        count, facets & 3 = 0 AS train, facets & 3 = 2 AS test, facets & 4 <> 0 AS labelled, facets & 8 <> 0 AS annotated,
        facets & 16 <> 0 AS duplicate, facets & 32 <> 0 AS straddles, facets & 64 <> 0 AS uncertain,
        facets & (3 | 4 | 16) = 0 AS pool, item_counts.scored_by = datasets.scored_by AND datasets.scored_by <> '' AS scored
    FROM item_counts WHERE item_counts.dataset = datasets.name
) AS cell ON true
WHERE datasets.name = ANY(:datasets) GROUP BY datasets.name;

-- name: list_unfolded
-- Datasets whose counts consist of many changes.
SELECT dataset FROM (
    SELECT dataset FROM item_counts WHERE NOT folded
    UNION ALL
    SELECT dataset FROM embedding_counts WHERE NOT folded
) AS changed
GROUP BY dataset HAVING count(*) >= :changes_min;

-- name: fold_item_counts!
-- Replaces the changes of each count of a dataset, and the count, by their sum. Skips rows that another replica is replacing.
WITH replaced AS (
    DELETE FROM item_counts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM item_counts WHERE dataset = :dataset FOR UPDATE SKIP LOCKED
    ))
    RETURNING facets, scored_by, count
)
INSERT INTO item_counts (dataset, facets, scored_by, count, folded)
SELECT :dataset, facets, scored_by, sum(count), true FROM replaced GROUP BY facets, scored_by HAVING sum(count) <> 0;

-- name: fold_embedding_counts!
-- As fold_item_counts.
WITH replaced AS (
    DELETE FROM embedding_counts WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM embedding_counts WHERE dataset = :dataset FOR UPDATE SKIP LOCKED
    ))
    RETURNING space, count
)
INSERT INTO embedding_counts (dataset, space, count, folded)
SELECT :dataset, space, sum(count), true FROM replaced GROUP BY space HAVING sum(count) <> 0;

-- name: set_scored_by!
-- As put_scores: ignores an older generation of the same deployment.
UPDATE datasets SET
    scored_by = :scored_by, scored_deployment = :deployment, scored_generation = :generation,
    prediction_count = prediction_count + 1
WHERE name = :name AND (scored_deployment <> :deployment OR scored_generation <= :generation);

-- name: list_unpublished_progress
SELECT name, scored_by, prediction_count FROM datasets
WHERE published_prediction_count < prediction_count AND publish_time <= :published_before;

-- name: set_published_progress!
UPDATE datasets SET published_prediction_count = :prediction_count, publish_time = :now WHERE name = :name AND published_prediction_count < :prediction_count;

-- name: lock_items_by_hash
-- Locks the rows until the end of the transaction, so that concurrently accepted annotations are not overwritten.
SELECT name, sha256, duplicate_of, split, accepted, control FROM items WHERE dataset = :dataset AND sha256 = ANY(:hashes)
ORDER BY name FOR UPDATE;

-- name: list_items_by_file
-- Items by the hash of their file. `original_sha256` is empty if the stored image equals the file.
SELECT sha256 AS file_sha256, media FROM items WHERE dataset = :dataset AND sha256 = ANY(:hashes)
UNION ALL
SELECT original_sha256, media FROM items WHERE dataset = :dataset AND original_sha256 = ANY(:hashes) AND original_sha256 <> '';

-- name: list_known_media
SELECT DISTINCT ON (sha256) sha256, media FROM items
WHERE dataset = ANY(ARRAY(SELECT name FROM datasets WHERE parent = :parent)) AND sha256 = ANY(:hashes)
ORDER BY sha256, name;

-- name: list_known_hashes
SELECT sha256 FROM items WHERE dataset = :dataset AND sha256 = ANY(:hashes);

-- name: find_last_number$
-- Items that are added to a dataset later have greater numbers; see 0027_cheaper_updates.sql.
SELECT coalesce(max(number), 0) FROM item_bands WHERE dataset = :dataset;

-- name: list_added
SELECT name, perceptual_hash, group_name, split FROM item_bands JOIN items ON items.name = item_bands.item
WHERE item_bands.dataset = :dataset AND item_bands.number > :number;

-- name: list_placed
SELECT name, group_name, split FROM items WHERE name = ANY(:names);

-- name: find_candidates
-- Items that share a band with one of the probes. No other item can be a near-duplicate.
SELECT name, perceptual_hash FROM item_bands JOIN items ON items.name = item_bands.item
WHERE bands_of_dataset(item_bands.dataset, item_bands.bands) && bands_of_dataset(:dataset, :probes::integer[])
    AND item_bands.dataset = :dataset AND item_bands.bands && :probes::integer[];

-- name: find_item^
-- As the next two statements, ignores items of a deleted dataset, which are purged later.
SELECT * FROM items WHERE name = :name AND EXISTS (SELECT FROM datasets WHERE datasets.name = items.dataset);

-- name: find_items
SELECT * FROM items WHERE name = ANY(:names) AND EXISTS (SELECT FROM datasets WHERE datasets.name = items.dataset);

-- name: lock_items
SELECT name, media, accepted, control FROM items
WHERE name = ANY(:names) AND EXISTS (SELECT FROM datasets WHERE datasets.name = items.dataset) ORDER BY name FOR UPDATE;

-- name: update_metadata!
UPDATE items SET metadata = :metadata, update_time = :now WHERE name = :name;

-- name: refound_group!
-- Runs before an item is deleted: the oldest remaining item becomes the first of the group, and near-duplicates refer to it.
WITH gone AS (
    SELECT group_name FROM items WHERE name = :name
), rest AS (
    SELECT name, straddles FROM items WHERE name = (SELECT group_name FROM gone) AND group_name = name
    UNION ALL
    SELECT name, straddles FROM items WHERE group_name = (SELECT group_name FROM gone) AND group_name <> name
), heir AS (
    SELECT min(name) AS name FROM rest WHERE name <> :name AND NOT straddles
)
UPDATE items SET
    group_name = CASE WHEN items.group_name = :name THEN heir.name ELSE items.group_name END,
    duplicate_of = CASE
        WHEN items.name = heir.name THEN ''
        WHEN items.duplicate_of = :name THEN heir.name
        ELSE items.duplicate_of END,
    update_time = :now
FROM heir
WHERE items.name IN (SELECT name FROM rest) AND items.name <> :name AND heir.name IS NOT NULL
    AND :name IN (items.group_name, items.duplicate_of);

-- name: delete_item!
DELETE FROM items WHERE name = :name;

-- name: put_accepted!
-- Stores the accepted annotations that apply. The caller determines them with the rows locked. `answers` has the number of each item's
-- annotations, from 0.
UPDATE items SET
    accepted = new.accepted, labels = ARRAY(SELECT jsonb_array_elements_text(new.labels)),
    shape_concepts = ARRAY(SELECT jsonb_array_elements_text(new.shape_concepts)), reviewed = new.reviewed,
    control = items.control OR new.control, update_time = :now, object_count = new.object_count,
    duplicate_object_count = new.duplicate_count, object_area_min = new.area_min, object_area_max = new.area_max
FROM unnest(:names::text[], :answers::integer[]) AS given (name, answer)
JOIN unnest(
    :accepted::bytea[], :labels::jsonb[], :shape_concepts::jsonb[], :reviewed::boolean[], :control::boolean[],
    :object_counts::integer[], :duplicate_counts::integer[], :area_mins::real[], :area_maxs::real[]
) WITH ORDINALITY
    AS new (accepted, labels, shape_concepts, reviewed, control, object_count, duplicate_count, area_min, area_max, number)
ON new.number = given.answer + 1
WHERE items.name = given.name;

-- name: lock_scored
-- Locks the items of a batch in order of name, so that two batches do not wait for each other.
SELECT name FROM items WHERE name = ANY(:names) ORDER BY name FOR NO KEY UPDATE;

-- name: put_scores!
-- Stores the scores of a batch in one statement, so that the counts change once. Skips items with scores of a newer generation of the
-- same deployment.
UPDATE items SET
    scores = new.scores, scored_by = :scored_by, scored_deployment = :deployment, scored_generation = :generation,
    predicted_labels = ARRAY(SELECT jsonb_array_elements_text(new.predicted)), score = new.score, margin = new.margin,
    uncertain = new.uncertain, predicted_count = new.object_count, predicted_area_min = new.area_min, predicted_area_max = new.area_max,
    predicted_figures = new.figures
FROM unnest(
    :names::text[], :scores::bytea[], :predicted::jsonb[], :top_scores::real[], :margins::real[], :uncertain::boolean[],
    :object_counts::integer[], :area_mins::real[], :area_maxs::real[], :figures::jsonb[]
) AS new (name, scores, predicted, score, margin, uncertain, object_count, area_min, area_max, figures)
WHERE items.name = new.name AND (scored_deployment <> :deployment OR scored_generation <= :generation);

-- name: put_embeddings!
-- Runs after put_scores, which stores the generation in the row of the item.
INSERT INTO embeddings (item, dataset, space, embedding)
SELECT items.name, :dataset, :space, new.embedding FROM unnest(:names::text[], :embeddings::vector[]) AS new (name, embedding)
JOIN items ON items.name = new.name
WHERE scored_deployment <> :deployment OR scored_generation <= :generation
ORDER BY items.name
ON CONFLICT (item) DO UPDATE SET space = excluded.space, embedding = excluded.embedding
WHERE embeddings.space <> excluded.space OR embeddings.embedding <> excluded.embedding;   -- a new head on the same backbone changes none

-- name: find_embeddings
SELECT item, space, embedding FROM embeddings WHERE item = ANY(:items);

-- name: find_space$
-- The embedding space of most items of a dataset.
SELECT space FROM embedding_counts WHERE dataset = :dataset GROUP BY space HAVING sum(count) > 0 ORDER BY sum(count) DESC, space LIMIT 1;

-- name: find_dimension$
SELECT vector_dims(embedding) FROM embeddings WHERE dataset = :dataset AND space = :space LIMIT 1;

-- name: lock_search_indexing$
-- Until the end of the transaction, no other replica changes search indexes. False if another one does.
SELECT pg_try_advisory_xact_lock(:key, hashtext(current_schema()));

-- name: insert_search_indexes
-- For each dataset and space with many embeddings.
INSERT INTO search_indexes (dataset, space)
SELECT dataset, space FROM embedding_counts WHERE EXISTS (SELECT FROM datasets WHERE name = dataset)
GROUP BY dataset, space HAVING sum(count) >= :count_min
ON CONFLICT DO NOTHING RETURNING dataset, space;

-- name: delete_search_indexes!
-- Of each dataset and space with few embeddings, and of each deleted dataset. Deletes the segments too.
DELETE FROM search_indexes WHERE NOT EXISTS (SELECT FROM datasets WHERE name = dataset) OR NOT EXISTS (
    SELECT FROM embedding_counts AS counts WHERE counts.dataset = search_indexes.dataset AND counts.space = search_indexes.space
    HAVING sum(count) >= :count_min
);

-- name: record_all_embeddings!
-- As the triggers do for embeddings that are added.
INSERT INTO embedding_changes (dataset, space, items)
SELECT :dataset, :space, array_agg(item)
FROM (SELECT item, row_number() OVER () / 1024 AS part FROM embeddings WHERE dataset = :dataset AND space = :space) AS numbered
GROUP BY part;

-- name: delete_unindexed_changes!
-- Those of embeddings without an index; each later one is built from all embeddings.
DELETE FROM embedding_changes WHERE NOT EXISTS (
    SELECT FROM search_indexes WHERE search_indexes.dataset = embedding_changes.dataset AND search_indexes.space = embedding_changes.space
);

-- name: list_embedding_changes
-- The first changes of the dataset and space that has the fewest, so that a large dataset does not delay a small one.
SELECT number, dataset, space, items FROM embedding_changes WHERE (dataset, space) = (
    SELECT dataset, space FROM embedding_changes GROUP BY dataset, space ORDER BY count(*), dataset, space LIMIT 1
) ORDER BY number LIMIT :limit;

-- name: delete_embedding_changes!
DELETE FROM embedding_changes WHERE number = ANY(:numbers);

-- name: list_embeddings_of_space
SELECT item, embedding FROM embeddings WHERE item = ANY(:items) AND dataset = :dataset AND space = :space;

-- name: find_last_segment^
SELECT * FROM search_segments WHERE dataset = :dataset AND space = :space ORDER BY number DESC LIMIT 1;

-- name: find_segment^
SELECT * FROM search_segments WHERE number = :number;

-- name: insert_segment!
INSERT INTO search_segments (dataset, space, item_count, item_ids, thresholds, codes)
VALUES (:dataset, :space, :item_count, :item_ids, :thresholds, :codes);

-- name: delete_segment!
DELETE FROM search_segments WHERE number = :number;

-- name: record_embedding_changes!
INSERT INTO embedding_changes (dataset, space, items) VALUES (:dataset, :space, :items);

-- name: find_bloated_index^
-- An index of which a third of the entries are of embeddings that were deleted or replaced.
SELECT dataset, space FROM search_segments GROUP BY dataset, space HAVING sum(item_count) > :margin + 1.5 * (
    SELECT sum(count) FROM embedding_counts AS counts WHERE counts.dataset = search_segments.dataset AND counts.space = search_segments.space
) ORDER BY sum(item_count) DESC LIMIT 1;

-- name: list_segments
-- Without their codes.
SELECT number, item_ids FROM search_segments WHERE dataset = :dataset AND space = :space ORDER BY number;

-- name: find_search_index^
-- The segments of an index, and items that it does not have yet.
SELECT
    ARRAY(
        SELECT number FROM search_segments
        WHERE search_segments.dataset = search_indexes.dataset AND search_segments.space = search_indexes.space ORDER BY number
    ) AS numbers,
    ARRAY(
        SELECT item FROM embedding_changes CROSS JOIN unnest(items) AS item
        WHERE embedding_changes.dataset = search_indexes.dataset AND embedding_changes.space = search_indexes.space LIMIT :pending_max
    ) AS pending
FROM search_indexes WHERE dataset = :dataset AND space = :space;

-- name: count_pool^
-- The training split without near-duplicates: unlabelled items, items that are labelled or in a task, and the embedding dimension.
SELECT
    count(*) FILTER (WHERE NOT labelled AND NOT name = ANY(:excluded)) AS free_count,
    count(*) FILTER (WHERE labelled OR name = ANY(:excluded)) AS held_count,
    (SELECT vector_dims(embedding) FROM embeddings
        WHERE embeddings.dataset = :dataset AND space = :space LIMIT 1) AS dimension
FROM items WHERE dataset = :dataset AND split = 'TRAIN' AND duplicate_of = '';

-- name: list_pool
-- The candidates of a selection, labelled and unlabelled. If there are more than the limits allow, a random sample by seed.
SELECT drawn.name, drawn.held, items.scores, CASE WHEN items.labelled THEN items.accepted END AS accepted, embeddings.embedding
FROM (
    SELECT name, held, row_number() OVER (PARTITION BY held ORDER BY hashtextextended(name, :seed), name) AS place
    FROM (
        SELECT name, labelled OR name = ANY(:excluded) AS held FROM items
        WHERE dataset = :dataset AND split = 'TRAIN' AND duplicate_of = ''
    ) AS side
) AS drawn
JOIN items ON items.name = drawn.name
LEFT JOIN embeddings ON embeddings.item = drawn.name AND embeddings.space = :space
WHERE drawn.place <= CASE WHEN drawn.held THEN :held_max ELSE :free_max END
ORDER BY drawn.name;

-- name: count_drawable$
-- Items of a split that are neither labelled nor excluded. The bits of `facets` are those of items/facets.py.
SELECT (
    SELECT coalesce(sum(count), 0) FROM item_counts WHERE dataset = :dataset AND facets & :facets_mask = :facets
) - (
    SELECT count(*) FROM items WHERE name = ANY(:excluded) AND dataset = :dataset AND facets & :facets_mask = :facets
);

-- name: draw_items
-- A uniform random sample by seed of the items that count_drawable counts, from the entries of an index.
SELECT items.name FROM items
WHERE dataset = :dataset AND NOT items.name = ANY(:excluded)
    AND facets = ANY(ARRAY(SELECT facets FROM item_counts WHERE dataset = :dataset AND facets & :facets_mask = :facets))
ORDER BY hashtextextended(items.name, :seed), items.name LIMIT :limit;

-- name: visible_transactions$
SELECT pg_current_snapshot()::text;

-- name: list_for_snapshot
SELECT name, sha256, media, split, labelled, labels, accepted FROM items
WHERE dataset = :dataset AND name > :after AND NOT straddles ORDER BY name;

-- name: find_snapshot_base^
SELECT version, manifest_key FROM snapshot_bases WHERE dataset = :dataset;

-- name: replace_snapshot_base!
-- Replaces the version that the caller has seen, and no other.
INSERT INTO snapshot_bases (dataset, version, manifest_key) VALUES (:dataset, :seen_version + 1, :manifest_key)
ON CONFLICT (dataset) DO UPDATE SET version = excluded.version, manifest_key = excluded.manifest_key
WHERE snapshot_bases.version = :seen_version;

-- name: list_changed_parts
-- A range that starts with the last item of a part starts in this part, and any other range in the part after.
SELECT DISTINCT
    first_bucket - coalesce(((:last_items::text[])[first_bucket] = first_item)::integer, 0) AS first_part,
    last_bucket - coalesce(((:last_items::text[])[last_bucket] = last_item)::integer, 0) AS last_part
FROM (
    SELECT
        first_item, width_bucket(first_item, :last_items::text[]) AS first_bucket,
        last_item, width_bucket(last_item, :last_items::text[]) AS last_bucket
    FROM item_changes WHERE dataset = :dataset
) AS change;

-- name: delete_item_changes!
-- Changes of transactions that were not visible yet are kept for the next snapshot.
DELETE FROM item_changes WHERE dataset = :dataset AND pg_visible_in_snapshot(xid, :visible::pg_snapshot);

-- name: merge_item_changes!
-- The merged change is a new one, so that a snapshot that is being created does not delete it. Changes of deleted datasets are deleted.
WITH merged AS (
    DELETE FROM item_changes WHERE dataset IN (
        SELECT dataset FROM item_changes GROUP BY dataset
        HAVING count(*) > :changes_max OR NOT EXISTS (SELECT FROM datasets WHERE name = dataset)
    ) RETURNING dataset, first_item, last_item
)
INSERT INTO item_changes (dataset, first_item, last_item)
SELECT dataset, min(first_item), max(last_item) FROM merged GROUP BY dataset
HAVING EXISTS (SELECT FROM datasets WHERE name = dataset);

-- name: insert_snapshot!
INSERT INTO snapshots (name, dataset, body, create_time) VALUES (:name, :dataset, :body, :now);

-- name: find_snapshot^
SELECT * FROM snapshots WHERE name = :name;

-- name: list_snapshots
SELECT * FROM snapshots WHERE dataset = :dataset AND (create_time, name) < (:before_time, :before_name)
ORDER BY create_time DESC, name DESC LIMIT :limit;

-- name: insert_operation!
INSERT INTO operations (name, kind, request, caller, create_time) VALUES (:name, :kind, :request, :caller, :now);

-- name: find_operation^
SELECT * FROM operations WHERE name = :name;

-- name: advance_operation!
-- Stores the progress and the partial response. Resets the attempts only if more items are processed than ever before.
UPDATE operations SET
    done_count = :done_count, total_count = :total_count, response = :response,
    reached_count = greatest(reached_count, :done_count),
    attempt_count = CASE WHEN :done_count > reached_count THEN 0 ELSE attempt_count END
WHERE name = :name;

-- name: put_operation_error!
-- Stores the error that ended an attempt.
UPDATE operations SET last_error = :last_error WHERE name = :name;

-- name: complete_operation!
UPDATE operations SET
    done = true, response = :response, error = :error, error_code = :error_code, lease_expire_time = NULL
WHERE name = :name;

-- name: delete_operations!
DELETE FROM operations WHERE done AND create_time < :before;

-- name: find_oldest_to_do$
SELECT min(create_time) FROM operations WHERE NOT done;
