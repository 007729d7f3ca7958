-- name: insert_source!
-- Inserts a source. Fails with UniqueViolation if the name is taken.
INSERT INTO sources (name, parent, body, secret_key_id, secret_token, create_time, update_time)
VALUES (:name, :parent, :body, :secret_key_id, :secret_token, :now, :now);

-- name: find_source^
SELECT name, body, secret, secret_key_id, secret_token, create_time, update_time FROM sources WHERE name = :name;

-- name: lock_source^
SELECT name, body, secret, secret_key_id, secret_token, create_time, update_time FROM sources WHERE name = :name FOR UPDATE;

-- name: list_sources
SELECT name, body, create_time, update_time FROM sources
WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_source!
UPDATE sources SET body = :body, secret = :secret, secret_key_id = :secret_key_id, secret_token = :secret_token, update_time = :now
WHERE name = :name;

-- name: list_sources_to_encrypt
-- Sources whose secret is not encrypted with this key.
SELECT name FROM sources
WHERE secret <> '' OR (secret_token <> '' AND secret_key_id <> :secret_key_id)
ORDER BY name;

-- name: encrypt_source!
-- Changes no field that clients see.
UPDATE sources SET secret = '', secret_key_id = :secret_key_id, secret_token = :secret_token WHERE name = :name;

-- name: delete_source!
DELETE FROM sources WHERE name = :name;

-- name: count_unfinished_syncs
SELECT state, count(*) AS count, extract(epoch FROM now() - min(create_time))::double precision AS age_seconds
FROM syncs WHERE state IN ('QUEUED', 'RUNNING') GROUP BY state;

-- name: insert_sync!
INSERT INTO syncs (name, source, state, create_time) VALUES (:name, :source, 'QUEUED', :now);

-- name: find_sync^
SELECT * FROM syncs WHERE name = :name;

-- name: list_syncs
-- Newest first, after the (create_time, name) of `before`.
SELECT * FROM syncs
WHERE source = :source AND (create_time, name) < (:before_time, :before_name)
ORDER BY create_time DESC, name DESC LIMIT :limit;

-- name: count_running_syncs$
SELECT count(*) FROM syncs WHERE source = :source AND state IN ('QUEUED', 'RUNNING');

-- name: start_sync^
-- Marks a sync as running that a worker has just claimed.
UPDATE syncs SET state = 'RUNNING', start_time = coalesce(start_time, :now) WHERE name = :name RETURNING *;

-- name: record_listing!
UPDATE syncs SET found_count = :found_count, unchanged_count = :unchanged_count, listed = :listed WHERE name = :name;

-- name: record_batch^
-- Records the results of one batch, with the first hundred rejections.
UPDATE syncs SET
    added_count = added_count + :added_count,
    duplicate_count = duplicate_count + :duplicate_count,
    rejected_count = rejected_count + :rejected_count,
    rejections = CASE WHEN jsonb_array_length(rejections) < 100 THEN rejections || :rejections ELSE rejections END
WHERE name = :name
RETURNING *;

-- name: end_sync^
UPDATE syncs SET state = :state, error = :error, end_time = :now, lease_expire_time = NULL WHERE name = :name RETURNING *;

-- name: request_cancel^
-- Ends a queued sync; requests the cancellation of a running one.
UPDATE syncs SET
    cancel_requested = true,
    end_time = CASE WHEN state = 'QUEUED' THEN :now ELSE end_time END,
    state = CASE WHEN state = 'QUEUED' THEN 'CANCELLED' ELSE state END
WHERE name = :name AND state IN ('QUEUED', 'RUNNING')
RETURNING *;

-- name: list_files
-- The files of a source that earlier syncs processed.
SELECT file_name, fingerprint, sync FROM source_files WHERE source = :source;

-- name: put_file*!
INSERT INTO source_files (source, file_name, fingerprint, sync, item)
VALUES (:source, :file_name, :fingerprint, :sync, :item)
ON CONFLICT (source, file_name)
DO UPDATE SET fingerprint = excluded.fingerprint, sync = excluded.sync, item = excluded.item;
