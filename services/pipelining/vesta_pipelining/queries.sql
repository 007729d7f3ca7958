-- name: insert_pipeline!
INSERT INTO pipelines (name, parent, body, create_time, update_time) VALUES (:name, :parent, :body, :now, :now);

-- name: find_pipeline^
SELECT * FROM pipelines WHERE name = :name;

-- name: lock_pipeline^
SELECT * FROM pipelines WHERE name = :name FOR UPDATE;

-- name: list_pipelines
SELECT * FROM pipelines WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_pipeline!
UPDATE pipelines SET body = :body, update_time = :now WHERE name = :name;

-- name: delete_pipeline!
DELETE FROM pipelines WHERE name = :name;

-- name: insert_stream!
INSERT INTO streams (name, pipeline, display_name, create_time) VALUES (:name, :pipeline, :display_name, :now);

-- name: find_stream^
SELECT * FROM streams WHERE name = :name;

-- name: list_streams
SELECT * FROM streams WHERE pipeline = :pipeline AND name > :after ORDER BY name LIMIT :limit;

-- name: delete_stream!
DELETE FROM streams WHERE name = :name;

-- name: find_routes
-- The streams of these names, with their pipelines.
SELECT streams.name, pipelines.body FROM streams JOIN pipelines ON pipelines.name = streams.pipeline
WHERE streams.name = ANY(:names);

-- name: count_sent$
-- Uncertain frames that a stream has sent on since.
SELECT count(*) FROM observations WHERE stream = :stream AND create_time > :since AND uncertain
    AND (item <> '' OR EXISTS (SELECT 1 FROM uncertain_frames WHERE observation = observations.name));

-- name: insert_observation!
INSERT INTO observations (name, stream, label, uncertain, frame_time, body, create_time)
VALUES (:name, :stream, :label, :uncertain, :frame_time, :body, :now);

-- name: put_uncertain!
INSERT INTO uncertain_frames (observation, stream, source, event_id, frame_time, data, create_time)
VALUES (:observation, :stream, :source, :event_id, :frame_time, :data, :now);

-- name: advance_stream!
UPDATE streams SET
    observed_count = observed_count + :observed_count, dropped_count = dropped_count + :dropped_count,
    refused_count = refused_count + :refused_count,
    lag_seconds = coalesce(:lag_seconds, lag_seconds), last_frame_time = greatest(last_frame_time, :last_frame_time)
WHERE name = :name;

-- name: take_uncertain
-- The next frames to send; others that are being sent just now are passed over.
SELECT * FROM uncertain_frames ORDER BY create_time FOR UPDATE SKIP LOCKED LIMIT :limit;

-- name: drop_uncertain!
DELETE FROM uncertain_frames WHERE observation = :observation;

-- name: set_item!
UPDATE observations SET item = :item WHERE name = :name;

-- name: count_uncertain!
UPDATE streams SET uncertain_count = uncertain_count + 1 WHERE name = :name;

-- name: find_observation^
SELECT * FROM observations WHERE name = :name;

-- name: prune_observations!
DELETE FROM observations WHERE create_time < :before
    AND NOT EXISTS (SELECT 1 FROM uncertain_frames WHERE observation = observations.name);
