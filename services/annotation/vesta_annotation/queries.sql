-- name: insert_campaign!
INSERT INTO campaigns (name, parent, state, body, create_time, update_time)
VALUES (:name, :parent, :state, :body, :now, :now) ON CONFLICT DO NOTHING;

-- name: find_campaign^
SELECT * FROM campaigns WHERE name = :name;

-- name: lock_campaign^
SELECT * FROM campaigns WHERE name = :name FOR UPDATE;

-- name: list_campaigns
SELECT * FROM campaigns WHERE parent = :parent AND name > :after ORDER BY name LIMIT :limit;

-- name: update_campaign!
UPDATE campaigns SET state = :state, body = :body, update_time = :now WHERE name = :name;

-- name: delete_campaign!
-- Cascades to the campaign's tasks, their answers and their reviews.
DELETE FROM campaigns WHERE name = :name;

-- name: count_tasks
-- Counts of tasks and answers per campaign, without campaigns that have no tasks. An index-only scan suffices.
SELECT
    campaign,
    count(*) FILTER (WHERE state = 'OPEN') AS open_count,
    count(*) FILTER (WHERE state = 'IN_REVIEW') AS in_review_count,
    count(*) FILTER (WHERE state = 'ACCEPTED') AS accepted_count,
    count(*) FILTER (WHERE state = 'CANCELLED') AS cancelled_count,
    sum(submission_total) AS submission_count,
    sum(rejection_count) AS rejection_count
FROM tasks WHERE campaign = ANY (:campaigns) GROUP BY campaign;

-- name: insert_tasks*!
INSERT INTO tasks (name, campaign, item, state, priority, control, blind, body, create_time, update_time)
VALUES (:name, :campaign, :item, 'OPEN', :priority, :control, :blind, :body, :now, :now);

-- name: list_blind_items
-- Those of the items that have an undecided blind task in any campaign.
SELECT DISTINCT item FROM tasks WHERE item = ANY (:items) AND (blind OR control) AND state IN ('OPEN', 'IN_REVIEW');

-- name: find_undecided
-- The undecided tasks of these items.
SELECT name, item FROM tasks WHERE campaign = :campaign AND item = ANY (:items) AND state IN ('OPEN', 'IN_REVIEW');

-- name: find_tasks
SELECT * FROM tasks WHERE name = ANY (:names);

-- name: lock_task^
SELECT * FROM tasks WHERE name = :name FOR UPDATE;

-- name: lease_to_annotate
-- Leases open tasks to the caller: tasks that need more answers than they have answers and leases of other annotators, and that the
-- caller has not answered in this round. Includes tasks that the caller already leases, so that a retry is safe. Skips rows that
-- another transaction has locked. PostgreSQL evaluates the condition again for a row that was changed before it was locked.
WITH next AS MATERIALIZED (
    SELECT name FROM tasks
    WHERE campaign = :campaign AND state = 'OPEN' AND :caller <> ALL (annotators)
        AND :annotators_per_task > cardinality(annotators) + (
            SELECT count(*) FROM jsonb_each_text(leases) AS lease (holder, expire_time)
            WHERE holder <> :caller AND expire_time::timestamptz > :now)
    ORDER BY priority DESC, name LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE tasks SET leases = leases || jsonb_build_object(:caller::text, :expire_time::timestamptz)
FROM next WHERE tasks.name = next.name RETURNING tasks.*;

-- name: lease_to_review
-- Leases tasks in review to the caller: tasks without a lease of another member that, unless `own_too`, the caller has not answered.
WITH next AS MATERIALIZED (
    SELECT name FROM tasks
    WHERE campaign = :campaign AND state = 'IN_REVIEW' AND (:own_too OR :caller <> ALL (annotators))
        AND NOT EXISTS (
            SELECT FROM jsonb_each_text(leases) AS lease (holder, expire_time)
            WHERE holder <> :caller AND expire_time::timestamptz > :now)
    ORDER BY priority DESC, name LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE tasks SET leases = leases || jsonb_build_object(:caller::text, :expire_time::timestamptz)
FROM next WHERE tasks.name = next.name RETURNING tasks.*;

-- name: renew_lease^
UPDATE tasks SET leases = leases || jsonb_build_object(:caller::text, :expire_time::timestamptz)
WHERE name = :name RETURNING *;

-- name: drop_lease^
UPDATE tasks SET leases = leases - :caller::text WHERE name = :name RETURNING *;

-- name: add_answer!
-- Records that the annotator has answered, and deletes their lease.
UPDATE tasks SET
    annotators = annotators || :annotator::text, leases = leases - :annotator::text, submission_total = submission_total + 1,
    update_time = :now
WHERE name = :name;

-- name: settle_task^
-- Sets the state of a task to IN_REVIEW, ACCEPTED or CANCELLED, and deletes all its leases.
UPDATE tasks SET state = :state, body = :body, accepted_key = :accepted_key, leases = '{}', update_time = :now
WHERE name = :name RETURNING *;

-- name: begin_round!
-- Reopens a task for another round of answers.
UPDATE tasks SET
    state = 'OPEN', body = :body, annotators = '{}', leases = '{}', rejection_count = rejection_count + 1, update_time = :now
WHERE name = :name;

-- name: cancel_tasks
-- Cancels every undecided task of a campaign.
UPDATE tasks SET state = 'CANCELLED', leases = '{}', update_time = :now
WHERE campaign = :campaign AND state IN ('OPEN', 'IN_REVIEW') RETURNING name, item;

-- name: insert_submission!
INSERT INTO submissions (name, task, round, annotator, body, answer_key, time_spent)
VALUES (:name, :task, :round, :annotator, :body, :answer_key, :time_spent);

-- name: has_answered$
SELECT EXISTS (SELECT FROM tasks WHERE name = :task AND :annotator = ANY (annotators));

-- name: find_submission^
SELECT body FROM submissions WHERE name = :name;

-- name: list_submissions
SELECT body FROM submissions
WHERE task = :task AND name > :after AND (:annotator = '' OR annotator = :annotator)
ORDER BY name LIMIT :limit;

-- name: list_round
SELECT body FROM submissions WHERE task = :task AND round = :round ORDER BY name;

-- name: list_answers
-- All answers of a campaign, with the state of the task, the accepted answer's key, and whether the answer's round was rejected. Returns
-- bodies only for rows without a key, and only for `tasks_max` random tasks, always the same (all if it is NULL).
SELECT
    submissions.task, annotator, state, round <= rejection_count AS rejected, answer_key, accepted_key, time_spent,
    CASE WHEN answer_key IS NULL AND measured.name IS NOT NULL THEN submissions.body END AS body,
    CASE WHEN accepted_key IS NULL AND state = 'ACCEPTED' AND measured.name IS NOT NULL THEN tasks.body END AS task_body
FROM tasks JOIN submissions ON submissions.task = tasks.name LEFT JOIN (
    SELECT name FROM tasks WHERE campaign = :campaign AND submission_total > 0 ORDER BY md5(name) LIMIT :tasks_max::bigint
) AS measured ON measured.name = tasks.name
WHERE campaign = :campaign;

-- name: list_keyed_answers
-- One answer for each key of a campaign's answers.
SELECT key, submissions.body FROM (
    SELECT answer_key AS key, min(submissions.name) AS name FROM tasks JOIN submissions ON submissions.task = tasks.name
    WHERE campaign = :campaign AND answer_key IS NOT NULL GROUP BY answer_key
) AS given JOIN submissions ON submissions.name = given.name;

-- name: list_keyed_decisions
-- One task for each key of accepted annotations that no answer has: those that reviewers wrote.
SELECT key, tasks.body FROM (
    SELECT accepted_key AS key, min(name) AS name FROM tasks
    WHERE campaign = :campaign AND accepted_key IS NOT NULL AND NOT accepted_key = ANY(:known) GROUP BY accepted_key
) AS decided JOIN tasks ON tasks.name = decided.name;

-- name: count_undecided_tasks
SELECT state, count(*) AS count FROM tasks WHERE state IN ('OPEN', 'IN_REVIEW') GROUP BY state;

-- name: insert_review!
INSERT INTO reviews (name, task, body) VALUES (:name, :task, :body);

-- name: find_review^
SELECT body FROM reviews WHERE name = :name;

-- name: list_reviews
SELECT body FROM reviews WHERE task = :task AND name > :after ORDER BY name LIMIT :limit;
