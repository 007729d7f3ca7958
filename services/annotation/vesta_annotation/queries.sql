-- name: insert_campaign!
INSERT INTO campaigns (name, parent, body, state, create_time, update_time)
VALUES (:name, :parent, :body, :state, :now, :now);

-- name: find_campaign^
SELECT * FROM campaigns WHERE name = :name;

-- name: lock_campaign^
SELECT * FROM campaigns WHERE name = :name FOR UPDATE;

-- name: list_campaigns
SELECT * FROM campaigns WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_campaign!
UPDATE campaigns SET body = :body, state = :state, update_time = :now WHERE name = :name;

-- name: delete_campaign!
DELETE FROM campaigns WHERE name = :name;

-- name: count_tasks^
SELECT
    count(*) FILTER (WHERE state = 'OPEN') AS open_count,
    count(*) FILTER (WHERE state = 'IN_REVIEW') AS in_review_count,
    count(*) FILTER (WHERE state = 'ACCEPTED') AS accepted_count,
    count(*) FILTER (WHERE state = 'CANCELLED') AS cancelled_count,
    coalesce(sum(rejection_count), 0)::bigint AS rejection_count,
    (SELECT count(*) FROM submissions JOIN tasks AS answered ON answered.name = submissions.task
        WHERE answered.campaign = :campaign) AS submission_count
FROM tasks WHERE campaign = :campaign;

-- name: find_undecided
SELECT name, item FROM tasks WHERE campaign = :campaign AND item = ANY(:items) AND state IN ('OPEN', 'IN_REVIEW');

-- name: insert_task!
INSERT INTO tasks (name, campaign, item, state, priority, control, body, create_time, update_time)
VALUES (:name, :campaign, :item, 'OPEN', :priority, :control, :body, :now, :now);

-- name: find_task^
SELECT * FROM tasks WHERE name = :name;

-- name: lock_task^
SELECT * FROM tasks WHERE name = :name FOR UPDATE;

-- name: find_tasks
SELECT * FROM tasks WHERE name = ANY(:names) ORDER BY priority DESC, name;

-- name: list_leases
SELECT task, holder, expire_time FROM leases WHERE task = ANY(:tasks) AND expire_time > :now ORDER BY expire_time, holder;

-- name: lease_to_annotate
-- The caller's next tasks: open, with room for one more answer in this round, and not answered by the caller in it.
-- What the caller holds already counts as theirs. Tasks that another call is looking at just now are passed over.
SELECT tasks.name FROM tasks
WHERE campaign = :campaign AND state = 'OPEN'
  AND NOT EXISTS (SELECT 1 FROM submissions WHERE submissions.task = tasks.name AND submissions.round = tasks.round
      AND annotator = :caller)
  AND :replicas > submission_count + (SELECT count(*) FROM leases WHERE leases.task = tasks.name AND expire_time > :now
      AND holder <> :caller)
ORDER BY priority DESC, name LIMIT :limit FOR UPDATE SKIP LOCKED;

-- name: lease_to_review
-- Tasks in review that nobody else holds; the caller's own answers come last, and only where nobody else could decide.
SELECT tasks.name FROM tasks
WHERE campaign = :campaign AND state = 'IN_REVIEW'
  AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.task = tasks.name AND expire_time > :now AND holder <> :caller)
  AND (:own_too OR NOT EXISTS (SELECT 1 FROM submissions WHERE submissions.task = tasks.name
      AND submissions.round = tasks.round AND annotator = :caller))
ORDER BY priority DESC, name LIMIT :limit FOR UPDATE SKIP LOCKED;

-- name: put_lease!
INSERT INTO leases (task, holder, expire_time) VALUES (:task, :holder, :expire_time)
ON CONFLICT (task, holder) DO UPDATE SET expire_time = excluded.expire_time;

-- name: drop_lease!
DELETE FROM leases WHERE task = :task AND holder = :holder;

-- name: drop_leases!
DELETE FROM leases WHERE task = :task;

-- name: find_lease^
SELECT expire_time FROM leases WHERE task = :task AND holder = :holder AND expire_time > :now;

-- name: update_task!
UPDATE tasks SET
    state = :state, body = :body, round = :round, submission_count = :submission_count, rejection_count = :rejection_count,
    accept_time = :accept_time, update_time = :now
WHERE name = :name;

-- name: cancel_tasks
-- Cancels every undecided task of a campaign.
UPDATE tasks SET state = 'CANCELLED', update_time = :now WHERE campaign = :campaign AND state IN ('OPEN', 'IN_REVIEW')
RETURNING name, item;

-- name: insert_submission!
INSERT INTO submissions (name, task, round, annotator, body, create_time)
VALUES (:name, :task, :round, :annotator, :body, :now);

-- name: has_answered$
SELECT EXISTS (SELECT 1 FROM submissions WHERE task = :task AND round = :round AND annotator = :annotator);

-- name: find_submission^
SELECT body FROM submissions WHERE name = :name;

-- name: list_submissions
SELECT body FROM submissions WHERE task = :task AND name > :after ORDER BY name LIMIT :limit;

-- name: list_round
-- The answers of one round, in order of time.
SELECT body FROM submissions WHERE task = :task AND round = :round ORDER BY create_time, name;

-- name: list_answers
-- Every answer of a campaign's latest rounds, with what was accepted.
SELECT tasks.name AS task, tasks.state, tasks.body AS task_body, submissions.annotator, submissions.body
FROM submissions JOIN tasks ON tasks.name = submissions.task AND tasks.round = submissions.round
WHERE tasks.campaign = :campaign ORDER BY tasks.name, submissions.name;

-- name: insert_review!
INSERT INTO reviews (name, task, body, create_time) VALUES (:name, :task, :body, :now);

-- name: find_review^
SELECT body FROM reviews WHERE name = :name;

-- name: list_reviews
SELECT body FROM reviews WHERE task = :task AND name > :after ORDER BY name LIMIT :limit;
