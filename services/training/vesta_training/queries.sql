-- name: insert_recipe!
INSERT INTO recipes (name, parent, body, create_time, update_time) VALUES (:name, :parent, :body, :now, :now);

-- name: find_recipe^
SELECT * FROM recipes WHERE name = :name;

-- name: lock_recipe^
SELECT * FROM recipes WHERE name = :name FOR UPDATE;

-- name: list_recipes
SELECT * FROM recipes WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_recipe!
UPDATE recipes SET body = :body, update_time = :now WHERE name = :name;

-- name: delete_recipe!
DELETE FROM recipes WHERE name = :name;

-- name: count_unfinished_runs
SELECT state, count(*) AS count, extract(epoch FROM now() - min(create_time))::double precision AS age_seconds
FROM training_runs WHERE state IN ('QUEUED', 'RUNNING') GROUP BY state;

-- name: insert_run!
INSERT INTO training_runs (name, parent, snapshot, recipe, recipe_yaml, model, state, body, create_time)
VALUES (:name, :parent, :snapshot, :recipe, :recipe_yaml, :model, 'QUEUED', :body, :now);

-- name: find_run^
SELECT * FROM training_runs WHERE name = :name;

-- name: list_trial_runs
SELECT name, state, end_time, held_out_accuracy FROM training_runs WHERE name = ANY(:names);

-- name: list_places
-- Position in the queue: the number of runs that are claimed before each run.
SELECT name, before FROM (
    SELECT name, row_number() OVER (ORDER BY create_time, name) - 1 AS before
    FROM training_runs WHERE state IN ('QUEUED', 'RUNNING')) AS line
WHERE name = ANY(:names);

-- name: start_run^
-- Marks a run as running, or as being measured, that a worker has just claimed. If it was before, the lease of its worker has expired.
-- Attempts at the measurement are not attempts of the run.
UPDATE training_runs SET
    state = CASE WHEN curve_state = '' THEN 'RUNNING' ELSE state END,
    curve_state = CASE WHEN curve_state = '' THEN '' ELSE 'RUNNING' END,
    attempt_count = attempt_count - (curve_state <> '')::int,
    waiting_reason = CASE WHEN 'RUNNING' IN (state, curve_state) THEN '' ELSE waiting_reason END,
    death_count = death_count + ('RUNNING' IN (state, curve_state) AND :dies_with_worker)::int,
    start_time = coalesce(start_time, :now)
WHERE name = :name
RETURNING *;

-- name: training_waits$
-- Whether a training waits for a worker that was created before a time.
SELECT EXISTS (
    SELECT FROM training_runs
    WHERE state = 'QUEUED' AND create_time < :created_before AND (lease_expire_time IS NULL OR lease_expire_time <= :now)
);

-- name: put_progress$
-- Returns whether cancellation was requested.
UPDATE training_runs SET progress = coalesce(:progress, progress), pending_reason = :pending_reason WHERE name = :name
RETURNING cancel_requested;

-- name: requeue_run!
-- Returns a run to state QUEUED, or its measurement to PENDING. `died` increments the death count.
UPDATE training_runs SET
    state = CASE WHEN curve_state = '' THEN 'QUEUED' ELSE state END,
    curve_state = CASE WHEN curve_state = '' THEN '' ELSE 'PENDING' END, waiting_reason = :reason, pending_reason = '', death_count = death_count + (:died)::int
WHERE name = :name;

-- name: end_run!
UPDATE training_runs SET
    state = :state, body = :body, held_out_accuracy = :held_out_accuracy, end_time = :now, lease_expire_time = NULL,
    curve_state = :curve_state, waiting_reason = '', pending_reason = '', death_count = 0
WHERE name = :name;

-- name: end_measurement!
UPDATE training_runs SET body = :body, curve_state = '', pending_reason = '', lease_expire_time = NULL WHERE name = :name;

-- name: request_cancel^
-- Cancels a queued run immediately; for a running one and for a measurement, sets the request that its worker reads.
UPDATE training_runs SET
    cancel_requested = true,
    end_time = CASE WHEN state = 'QUEUED' THEN :now ELSE end_time END,
    state = CASE WHEN state = 'QUEUED' THEN 'CANCELLED' ELSE state END
WHERE name = :name AND (state IN ('QUEUED', 'RUNNING') OR curve_state <> '')
RETURNING *;

-- name: list_open_runs
-- Unfinished runs, and those that are to be measured.
SELECT name, create_time, curve_state FROM training_runs WHERE state IN ('QUEUED', 'RUNNING') OR curve_state <> '';

-- name: delete_run!
DELETE FROM training_runs WHERE name = :name;

-- name: put_model!
INSERT INTO models (name, parent, latest, create_time, update_time)
VALUES (:name, :parent, coalesce((SELECT latest FROM retired_models WHERE name = :name), 0), :now, :now)
ON CONFLICT DO NOTHING;

-- name: next_version$
UPDATE models SET latest = latest + 1, update_time = :now WHERE name = :name RETURNING latest;

-- name: find_model^
SELECT *, (SELECT max(number) FROM model_versions WHERE model = models.name) AS newest FROM models WHERE name = :name;

-- name: lock_model^
SELECT *, (SELECT max(number) FROM model_versions WHERE model = models.name) AS newest FROM models WHERE name = :name
FOR UPDATE;

-- name: list_models
SELECT *, (SELECT max(number) FROM model_versions WHERE model = models.name) AS newest FROM models
WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: touch_model!
UPDATE models SET update_time = :now WHERE name = :name;

-- name: delete_model!
-- The versions are deleted before. retired_models preserves the version counter, so that numbers are not reused.
WITH gone AS (DELETE FROM models WHERE name = :name RETURNING name, latest)
INSERT INTO retired_models (name, latest) SELECT name, latest FROM gone
ON CONFLICT (name) DO UPDATE SET latest = excluded.latest;

-- name: update_model!
UPDATE models SET display_name = :display_name, update_time = :now WHERE name = :name;

-- name: insert_version!
INSERT INTO model_versions (name, model, number, training_run, body, create_time)
VALUES (:name, :model, :number, :training_run, :body, :now);

-- name: find_version^
SELECT body FROM model_versions WHERE name = :name;

-- name: lock_version^
SELECT body FROM model_versions WHERE name = :name FOR UPDATE;

-- name: share_version^
-- Prevents the deletion of a version until the end of the transaction.
SELECT name FROM model_versions WHERE name = :name FOR SHARE;

-- name: lock_versions
SELECT body FROM model_versions WHERE model = :model ORDER BY number FOR UPDATE;

-- name: delete_version!
DELETE FROM model_versions WHERE name = :name;

-- name: list_open_run_bodies
-- Unfinished runs of a project.
SELECT body FROM training_runs WHERE parent = :parent AND state IN ('QUEUED', 'RUNNING') ORDER BY create_time, name;

-- name: put_file_of_deleted!
INSERT INTO files_of_deleted_versions (object_key, model_version, retry_time) VALUES (:object_key, :model_version, :now)
ON CONFLICT DO NOTHING;

-- name: list_files_of_deleted
-- Files that are due. `versions` are all deleted versions that had the file.
SELECT object_key, array_agg(model_version ORDER BY model_version) AS versions FROM files_of_deleted_versions
GROUP BY object_key HAVING max(retry_time) <= :now ORDER BY max(retry_time), object_key LIMIT :limit;

-- name: lock_file^
-- Until the end of the transaction, no other transaction can register a version with this file or delete the file.
SELECT pg_advisory_xact_lock(hashtextextended(:object_key, 0));

-- name: take_file_of_deleted!
DELETE FROM files_of_deleted_versions WHERE object_key = :object_key;

-- name: postpone_file_of_deleted!
UPDATE files_of_deleted_versions SET retry_time = :retry_time WHERE object_key = :object_key;

-- name: is_file_in_use$
-- Of a version, whose serialised body contains the key as plain bytes, or of a pretrained detector.
SELECT EXISTS (SELECT FROM model_versions WHERE position(convert_to(:object_key, 'UTF8') IN body) > 0)
    OR EXISTS (SELECT FROM pretrained_detectors WHERE object_key = :object_key);

-- name: find_version_of_run$
-- By the name of the run, which can be deleted.
SELECT name FROM model_versions WHERE training_run = :training_run;

-- name: list_versions
SELECT body, number FROM model_versions WHERE model = :model AND number < :before ORDER BY number DESC LIMIT :limit;

-- name: insert_study!
INSERT INTO studies (name, parent, body, create_time) VALUES (:name, :parent, :body, :now);

-- name: find_study^
SELECT * FROM studies WHERE name = :name;

-- name: delete_study!
DELETE FROM studies WHERE name = :name;

-- name: cancel_study!
UPDATE studies SET cancelled = true WHERE name = :name;

-- name: list_studies
SELECT * FROM studies WHERE parent = :parent AND (create_time, name) < (:before_time, :before_name)
ORDER BY create_time DESC, name DESC LIMIT :limit;

-- name: insert_pretrained_detector!
INSERT INTO pretrained_detectors (name, parent, object_key, body, create_time)
VALUES (:name, :parent, :object_key, :body, :now);

-- name: find_pretrained_detector^
SELECT * FROM pretrained_detectors WHERE name = :name;

-- name: find_newest_pretrained_detector^
SELECT * FROM pretrained_detectors WHERE parent = :parent ORDER BY create_time DESC, name DESC LIMIT 1;

-- name: list_pretrained_detectors
SELECT * FROM pretrained_detectors WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: delete_pretrained_detector^
DELETE FROM pretrained_detectors WHERE name = :name RETURNING object_key;
