-- What was said, in brief, so that agreement is measured without reading whole answers; and tasks by when they were accepted.

ALTER TABLE submissions ADD COLUMN answer_key bytea;  -- equal for answers that say the same; NULL where it is older than this column
ALTER TABLE tasks ADD COLUMN accepted_key bytea;      -- the same of what was accepted

CREATE INDEX tasks_accepted ON tasks (campaign, update_time) WHERE state = 'ACCEPTED';
CREATE INDEX tasks_of_control ON tasks (campaign, create_time) WHERE control;
