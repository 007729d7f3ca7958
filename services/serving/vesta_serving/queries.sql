-- name: insert_deployment$
INSERT INTO deployments (name, parent, body, wanted, state, create_time, update_time, use_time)
VALUES (:name, :parent, :body, :wanted, 'LOADING', :now, :now, :now)
RETURNING generation;

-- name: find_deployment^
SELECT * FROM deployments WHERE name = :name;

-- name: lock_deployment^
SELECT * FROM deployments WHERE name = :name FOR UPDATE;

-- name: list_deployments
SELECT * FROM deployments WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: list_all_deployments
-- All deployments, to determine the models that Triton must have loaded.
SELECT * FROM deployments ORDER BY name;

-- name: list_deployments_of_dataset
SELECT DISTINCT deployment FROM passes WHERE dataset = :dataset;

-- name: set_use_time!
UPDATE deployments SET use_time = :now WHERE name = :name;

-- name: update_deployment!
UPDATE deployments SET body = :body, wanted = :wanted, state = :state, error = :error, update_time = :now WHERE name = :name;

-- name: delete_predictions!
DELETE FROM predictions WHERE deployment = :deployment;

-- name: delete_deployment!
DELETE FROM deployments WHERE name = :name;

-- name: find_unloaded^
-- The oldest deployment whose wanted version is not stable, has not failed, and is not in backoff.
SELECT * FROM deployments
WHERE wanted <> stable AND state <> 'FAILED'
  AND NOT EXISTS (SELECT FROM backoffs WHERE deployment = deployments.name AND dataset = '' AND retry_time > :now)
ORDER BY update_time LIMIT 1;

-- name: promote^
-- Makes the version stable, unless another version is wanted by now.
UPDATE deployments SET
    previous = CASE WHEN stable = '' THEN '' ELSE stable END,
    stable = :version, state = 'READY', error = '', generation = nextval('generations'), update_time = :now, use_time = :now
WHERE name = :name AND wanted = :version AND stable <> :version
RETURNING *;

-- name: roll_back^
UPDATE deployments SET
    stable = previous, previous = stable, wanted = previous, state = 'READY', error = '',
    generation = nextval('generations'), update_time = :now, use_time = :now
WHERE name = :name AND previous <> ''
RETURNING *;

-- name: fail^
UPDATE deployments SET state = 'FAILED', error = :error, update_time = :now
WHERE name = :name AND wanted = :version AND stable <> :version
RETURNING *;

-- name: next_generation^
-- Increments the generation when predictions change but the version does not, such as after a change of policy.
UPDATE deployments SET generation = nextval('generations'), update_time = :now WHERE name = :name RETURNING *;

-- name: put_version!
INSERT INTO versions (name, body) VALUES (:name, :body) ON CONFLICT DO NOTHING;

-- name: find_version^
SELECT body FROM versions WHERE name = :name;

-- name: find_parts^
SELECT triton_name, head FROM versions WHERE name = :name AND triton_name <> '';

-- name: put_parts!
UPDATE versions SET triton_name = :triton_name, head = :head WHERE name = :name;

-- name: drop_version!
DELETE FROM versions WHERE name = :name;

-- name: put_deleted_model!
INSERT INTO deleted_models (triton_name, model_version) VALUES (:triton_name, :model_version) ON CONFLICT DO NOTHING;

-- name: list_deleted_models
SELECT DISTINCT triton_name FROM deleted_models ORDER BY triton_name;

-- name: lock_deleted_model
SELECT model_version FROM deleted_models WHERE triton_name = :triton_name FOR UPDATE;

-- name: drop_deleted_model!
DELETE FROM deleted_models WHERE triton_name = :triton_name;

-- name: put_pass!
-- Restarts a pass. A worker that holds its lease loses it.
INSERT INTO passes (deployment, dataset, generation, embeds) VALUES (:deployment, :dataset, :generation, :embeds)
ON CONFLICT (deployment, dataset) DO UPDATE SET
    generation = excluded.generation, embeds = excluded.embeds, page_token = '', scored_count = 0, item_count = 1, done = false,
    lease_expire_time = NULL, fencing_token = passes.fencing_token + 1;

-- name: drop_other_passes!
DELETE FROM passes WHERE deployment = :deployment AND NOT dataset = ANY(:datasets);

-- name: list_passes
SELECT * FROM passes WHERE deployment = ANY(:deployments);

-- name: advance_pass!
-- Records a page of the pass and releases its lease, so that any worker can claim the next page.
UPDATE passes SET
    page_token = :page_token, scored_count = scored_count + :scored_count, done = :done,
    item_count = CASE WHEN :done THEN scored_count + :scored_count ELSE :item_count END, lease_expire_time = NULL
WHERE deployment = :deployment AND dataset = :dataset;

-- name: count_unfinished_passes$
SELECT count(*) FROM passes WHERE deployment = :deployment AND NOT done;

-- name: put_arrival!
INSERT INTO arrivals (deployment, item, object_key, sha256, traceparent)
VALUES (:deployment, :item, :object_key, :sha256, :traceparent)
ON CONFLICT DO NOTHING;

-- name: count_arrivals
-- By whether a worker is scoring them; at most 100,000.
SELECT CASE WHEN lease_expire_time > now() THEN 'SCORING' ELSE 'WAITING' END AS state, count(*) AS count
FROM (SELECT lease_expire_time FROM arrivals LIMIT 100000) AS arrived GROUP BY 1;

-- name: delete_arrivals!
-- Deletes scored items.
DELETE FROM arrivals WHERE deployment = :deployment AND item = ANY(:items);

-- name: count_failure$
-- Counts one more consecutive failure. Returns no row if the deployment was deleted.
INSERT INTO backoffs (deployment, dataset, failure_count, retry_time)
SELECT name, :dataset, 1, :now FROM deployments WHERE name = :deployment
ON CONFLICT (deployment, dataset) DO UPDATE SET failure_count = backoffs.failure_count + 1
RETURNING failure_count;

-- name: set_retry_time!
UPDATE backoffs SET retry_time = :retry_time WHERE deployment = :deployment AND dataset = :dataset;

-- name: delete_backoffs!
DELETE FROM backoffs WHERE deployment = :deployment;

-- name: delete_backoff!
DELETE FROM backoffs WHERE deployment = :deployment AND dataset = :dataset;

-- name: find_prediction^
-- An entry of an existing deployment, not of an earlier one of the same name.
SELECT predictions.* FROM predictions JOIN deployments ON deployments.name = deployment
WHERE predictions.name = :name AND predictions.create_time >= deployments.create_time;

-- name: prune_predictions!
DELETE FROM predictions WHERE ctid IN (
    SELECT ctid FROM predictions WHERE create_time < :before ORDER BY create_time LIMIT :limit);
