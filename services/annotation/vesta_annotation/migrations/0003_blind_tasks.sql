-- Which tasks are blind beside those of the control arm, found by their item; and how long answers took.

ALTER TABLE tasks ADD COLUMN blind boolean NOT NULL DEFAULT false;  -- on the test side; the control arm's have their own column
ALTER TABLE submissions ADD COLUMN time_spent interval;             -- NULL where nobody said, or where it is older than this column

CREATE INDEX tasks_blind ON tasks (item) WHERE (blind OR control) AND state IN ('OPEN', 'IN_REVIEW');
