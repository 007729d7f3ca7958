-- name: insert_project!
INSERT INTO projects (name, display_name, create_time, update_time) VALUES (:name, :display_name, :now, :now)
ON CONFLICT DO NOTHING;

-- name: find_project^
SELECT * FROM projects WHERE name = :name AND state <> 'DELETED';

-- name: lock_project^
SELECT * FROM projects WHERE name = :name AND state <> 'DELETED' FOR UPDATE;

-- name: list_projects
-- All projects if `names` is empty.
SELECT * FROM projects
WHERE name > :after AND (cardinality(:names::text[]) = 0 OR name = ANY (:names::text[]))
    AND (:show_deleted OR state <> 'DELETED')
ORDER BY name LIMIT :limit;

-- name: begin_deletion!
UPDATE projects SET state = 'DELETING', delete_time = :now, message = :message, update_time = :now
WHERE name = :name AND state = 'ACTIVE';

-- name: put_deletion!
UPDATE projects SET message = :message, failures = :failures WHERE name = :name;

-- name: end_deletion!
UPDATE projects SET state = 'DELETED', display_name = '', message = '', update_time = :now WHERE name = :name;

-- name: delete_loops_of_project!
DELETE FROM loops WHERE project = :project;

-- name: forget_deleted_loops_of_project!
DELETE FROM deleted_loops WHERE starts_with(name, :project || '/');

-- name: count_loops$
SELECT count(*) FROM loops WHERE project = :project;

-- name: update_project!
UPDATE projects SET display_name = :display_name, update_time = :now WHERE name = :name;

-- name: insert_loop!
INSERT INTO loops (name, uid, project, dataset, display_name, policy, paused, policy_revision, status, create_time, update_time)
VALUES (:name, :uid, :project, :dataset, :display_name, :policy, :paused, 1, :status, :now, :now)
ON CONFLICT DO NOTHING;

-- name: find_loop^
SELECT * FROM loops WHERE name = :name;

-- name: lock_loop^
SELECT * FROM loops WHERE name = :name FOR UPDATE;

-- name: list_loops
SELECT * FROM loops WHERE project = :project AND name > :after ORDER BY name LIMIT :limit;

-- name: update_loop!
UPDATE loops SET display_name = :display_name, policy = :policy, paused = :paused,
    policy_revision = policy_revision + :changed::int, update_time = :now
WHERE name = :name;

-- name: update_status!
UPDATE loops SET status = :status WHERE name = :name AND uid = :uid;

-- name: delete_loop!
DELETE FROM loops WHERE name = :name;

-- name: remember_last_round!
INSERT INTO deleted_loops (name, last_round) SELECT :name, coalesce(max(number), 0) FROM rounds WHERE loop = :name
ON CONFLICT (name) DO UPDATE SET last_round = excluded.last_round;

-- name: last_round_of_deleted$
SELECT last_round FROM deleted_loops WHERE name = :name;

-- name: list_rounds
SELECT * FROM rounds WHERE loop = ANY (:loops::text[]) ORDER BY loop, number;

-- name: list_newest_rounds
-- The newest rounds of each loop, oldest first.
SELECT loop, round FROM (
    SELECT *, row_number() OVER (PARTITION BY loop ORDER BY number DESC) AS age FROM rounds WHERE loop = ANY (:loops::text[])
) AS aged WHERE age <= :limit ORDER BY loop, number;

-- name: put_round!
INSERT INTO rounds (loop, number, round, outcome, label_time, policy_revision)
VALUES (:loop, :number, :round, :outcome, :label_time, :policy_revision)
ON CONFLICT (loop, number) DO UPDATE SET round = excluded.round, outcome = excluded.outcome,
    label_time = excluded.label_time, policy_revision = excluded.policy_revision;

-- name: insert_decision!
-- A repeated command is recorded once.
INSERT INTO decisions (loop, request_id, action, reason, resource, round, decide_time)
VALUES (:loop, :request_id, :action, :reason, :resource, :round, :now) ON CONFLICT DO NOTHING;

-- name: list_decisions
-- Newest first, with a sequence smaller than `before`.
SELECT * FROM decisions WHERE loop = :loop AND sequence < :before ORDER BY sequence DESC LIMIT :limit;

-- name: list_decisions_of_round
SELECT request_id, decide_time FROM decisions WHERE loop = :loop AND round = :round;

-- name: put_pending!
INSERT INTO pending_commands (loop, request_id, action, reason, resource, request_type, request, round, label_time)
VALUES (:loop, :request_id, :action, :reason, :resource, :request_type, :request, :round, :label_time)
ON CONFLICT (loop) DO UPDATE SET request_id = excluded.request_id, action = excluded.action, reason = excluded.reason,
    resource = excluded.resource, request_type = excluded.request_type, request = excluded.request,
    round = excluded.round, label_time = excluded.label_time;

-- name: find_pending^
SELECT * FROM pending_commands WHERE loop = :loop;

-- name: delete_pending!
DELETE FROM pending_commands WHERE loop = :loop AND request_id = :request_id;

-- name: delete_pending_of_loop!
DELETE FROM pending_commands WHERE loop = :loop;

-- name: queue_loop!
INSERT INTO loop_queue (loop, due_time) VALUES (:loop, :due_time)
ON CONFLICT (loop) DO UPDATE SET due_time = least(loop_queue.due_time, excluded.due_time),
    generation = loop_queue.generation + 1, failures = 0;

-- name: queue_loops_of_project!
UPDATE loop_queue SET due_time = least(due_time, :due_time), generation = generation + 1
FROM loops WHERE loops.name = loop_queue.loop AND loops.project = :project;

-- name: queue_loops_of_dataset!
UPDATE loop_queue SET due_time = least(due_time, :due_time), generation = generation + 1
FROM loops WHERE loops.name = loop_queue.loop AND loops.dataset = :dataset;

-- name: schedule_loop!
UPDATE loop_queue SET due_time = :due_time WHERE loop = :loop;

-- name: requeue_loop!
-- If an event arrived since the claim, the event's due time applies.
UPDATE loop_queue SET failures = :failures,
    due_time = CASE WHEN generation = :generation THEN :due_time ELSE least(due_time, :due_time) END
WHERE loop = :loop;
