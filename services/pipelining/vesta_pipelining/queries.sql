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
INSERT INTO streams (name, pipeline, display_name, paused, uncertain_per_minute_max, window_start, create_time, update_time)
VALUES (:name, :pipeline, :display_name, :paused, :uncertain_per_minute_max, :now, :now, :now);

-- name: update_stream!
UPDATE streams SET
    display_name = :display_name, paused = :paused, uncertain_per_minute_max = :uncertain_per_minute_max, update_time = :now
WHERE name = :name;

-- name: find_stream^
SELECT * FROM streams WHERE name = :name;

-- name: lock_stream^
SELECT * FROM streams WHERE name = :name FOR UPDATE;

-- name: list_streams
SELECT * FROM streams WHERE pipeline = :pipeline AND name > :after ORDER BY name LIMIT :limit;

-- name: delete_stream!
DELETE FROM streams WHERE name = :name;

-- name: find_stream_settings^
-- How the frames of a stream are processed.
SELECT pipelines.body, streams.paused, streams.uncertain_per_minute_max FROM streams JOIN pipelines ON pipelines.name = streams.pipeline
WHERE streams.name = :name;

-- name: count_frames!
-- Adds to a stream's counts. The lag does not change if no frame was observed.
UPDATE streams SET
    observed_count = observed_count + :observed, dropped_count = dropped_count + :dropped,
    rejected_count = rejected_count + :rejected, lag_seconds = coalesce(CAST(:lag_seconds AS double precision), lag_seconds),
    last_frame_time = :last_frame_time, window_start = :window_start, window_count = :window_count
WHERE name = :name;

-- name: insert_observation!
INSERT INTO observations (name, stream, body, label, labels, uncertain, frame_time, create_time)
VALUES (:name, :stream, :body, :label, :labels, :uncertain, :frame_time, :now);

-- name: insert_uncertain_frame!
INSERT INTO uncertain_frames (observation, stream, source, event_id, data, content_type, frame_time, create_time)
VALUES (:observation, :stream, :source, :event_id, :data, :content_type, :frame_time, :now);

-- name: count_uncertain_frames$
SELECT count(*) FROM uncertain_frames WHERE stream = :stream;

-- name: delete_uncertain_frame!
DELETE FROM uncertain_frames WHERE observation = :observation;

-- name: set_item!
UPDATE observations SET item = :item WHERE name = :name;

-- name: count_uncertain!
UPDATE streams SET uncertain_count = uncertain_count + 1 WHERE name = :name;

-- name: find_observation^
SELECT body, item FROM observations WHERE name = :name;

-- name: prune_observations!
DELETE FROM observations WHERE ctid IN (
    SELECT ctid FROM observations WHERE create_time < :before ORDER BY create_time LIMIT :limit);
