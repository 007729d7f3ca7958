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

-- name: insert_run!
INSERT INTO training_runs (name, parent, snapshot, recipe, recipe_yaml, model, state, body, create_time)
VALUES (:name, :parent, :snapshot, :recipe, :recipe_yaml, :model, 'QUEUED', :body, :now);

-- name: find_run^
SELECT * FROM training_runs WHERE name = :name;

-- name: lock_run^
SELECT * FROM training_runs WHERE name = :name FOR UPDATE;

-- name: list_trial_runs
SELECT name, state, end_time, held_out_accuracy FROM training_runs WHERE name = ANY(:names);

-- name: list_places
-- How many runs a worker takes before each of these.
SELECT name, before FROM (
    SELECT name, row_number() OVER (ORDER BY create_time, name) - 1 AS before
    FROM training_runs WHERE state IN ('QUEUED', 'RUNNING')) AS line
WHERE name = ANY(:names);

-- name: claim_run^
-- The oldest run that no worker holds: new ones, those given back, and those whose worker died.
UPDATE training_runs SET
    state = 'RUNNING', attempt_count = attempt_count + 1, lease_expire_time = :lease_expire_time,
    waiting_reason = CASE WHEN state = 'RUNNING' THEN '' ELSE waiting_reason END,
    death_count = death_count + (state = 'RUNNING')::int, start_time = coalesce(start_time, :now)
WHERE name = (
    SELECT name FROM training_runs
    WHERE state IN ('QUEUED', 'RUNNING') AND (lease_expire_time IS NULL OR lease_expire_time < :now)
    ORDER BY create_time, name FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING *;

-- name: heartbeat^
-- Keeps the run; no row where it was taken over, ended or deleted.
UPDATE training_runs SET lease_expire_time = :lease_expire_time, progress = coalesce(:progress, progress)
WHERE name = :name AND state = 'RUNNING' AND attempt_count = :attempt_count
RETURNING cancel_requested;

-- name: release_run!
-- Gives a run back, for the next worker; `died` counts against it.
UPDATE training_runs SET
    state = 'QUEUED', lease_expire_time = NULL, waiting_reason = :reason, death_count = death_count + (:died)::int
WHERE name = :name AND state = 'RUNNING' AND attempt_count = :attempt_count;

-- name: end_run^
-- Ends a run for the worker that holds it. No row where another one has taken it over.
UPDATE training_runs SET
    state = :state, body = :body, held_out_accuracy = :held_out_accuracy, end_time = :now, lease_expire_time = NULL
WHERE name = :name AND state = 'RUNNING' AND attempt_count = :attempt_count
RETURNING *;

-- name: request_cancel^
-- A run that no worker holds ends at once; a running one is told.
UPDATE training_runs SET
    cancel_requested = true,
    end_time = CASE WHEN state = 'QUEUED' THEN :now ELSE end_time END,
    state = CASE WHEN state = 'QUEUED' THEN 'CANCELLED' ELSE state END
WHERE name = :name AND state IN ('QUEUED', 'RUNNING')
RETURNING *;

-- name: list_open_runs
-- Those that have not ended.
SELECT name FROM training_runs WHERE state IN ('QUEUED', 'RUNNING');

-- name: delete_run!
DELETE FROM training_runs WHERE name = :name;

-- name: put_model!
INSERT INTO models (name, parent, create_time, update_time) VALUES (:name, :parent, :now, :now) ON CONFLICT DO NOTHING;

-- name: next_version$
UPDATE models SET latest = latest + 1, update_time = :now WHERE name = :name RETURNING latest;

-- name: find_model^
SELECT * FROM models WHERE name = :name;

-- name: lock_model^
SELECT * FROM models WHERE name = :name FOR UPDATE;

-- name: list_models
SELECT * FROM models WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_model!
UPDATE models SET display_name = :display_name, update_time = :now WHERE name = :name;

-- name: insert_version!
INSERT INTO model_versions (name, model, number, training_run, body, create_time)
VALUES (:name, :model, :number, :training_run, :body, :now);

-- name: find_version^
SELECT body FROM model_versions WHERE name = :name;

-- name: find_version_of_run$
-- By the run's name, which may have been deleted since.
SELECT name FROM model_versions WHERE training_run = :training_run;

-- name: list_versions
SELECT body, number FROM model_versions WHERE model = :model AND number < :before ORDER BY number DESC LIMIT :limit;

-- name: insert_study!
INSERT INTO studies (name, parent, body, create_time) VALUES (:name, :parent, :body, :now);

-- name: find_study^
SELECT * FROM studies WHERE name = :name;

-- name: cancel_study!
UPDATE studies SET cancelled = true WHERE name = :name;

-- name: list_studies
SELECT * FROM studies WHERE parent = :parent AND (create_time, name) < (:before_time, :before_name)
ORDER BY create_time DESC, name DESC LIMIT :limit;
