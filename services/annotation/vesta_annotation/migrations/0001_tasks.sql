-- Campaigns, tasks, answers and reviews.

CREATE TABLE campaigns (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    state       text NOT NULL,              -- a name of vesta.annotation.v1.Campaign.State
    body        bytea NOT NULL,             -- vesta.annotation.v1.Campaign, but for what has a column or is counted
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX campaigns_by_parent ON campaigns (parent, name);

-- All that decides who may have a task next lies in its own row, so that a row that is locked is the truth.
CREATE TABLE tasks (
    name             text PRIMARY KEY,      -- ends in a ULID, so that names sort by time of creation
    campaign         text NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    item             text NOT NULL,
    state            text NOT NULL,         -- a name of vesta.annotation.v1.Task.State
    priority         double precision NOT NULL,
    control          boolean NOT NULL,
    body             bytea NOT NULL,        -- vesta.annotation.v1.Task, but for what has a column
    leases           jsonb NOT NULL DEFAULT '{}',  -- who keeps it: member → end of the lease; past ones count as not there
    annotators       text[] NOT NULL DEFAULT '{}', -- who has answered in this round
    rejection_count  integer NOT NULL DEFAULT 0,   -- each begins another round
    submission_total integer NOT NULL DEFAULT 0,   -- answers of all rounds
    create_time      timestamptz NOT NULL,
    update_time      timestamptz NOT NULL   -- leases do not change it
);
CREATE INDEX tasks_in_order ON tasks (campaign, name);
CREATE INDEX tasks_to_do ON tasks (campaign, state, priority DESC, name) WHERE state IN ('OPEN', 'IN_REVIEW');
CREATE INDEX tasks_to_count ON tasks (campaign) INCLUDE (state, rejection_count, submission_total);
-- An item has one undecided task in a campaign.
CREATE UNIQUE INDEX tasks_undecided ON tasks (campaign, item) WHERE state IN ('OPEN', 'IN_REVIEW');

CREATE TABLE submissions (
    name      text PRIMARY KEY,             -- ends in a ULID
    task      text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    round     integer NOT NULL,             -- from 1
    annotator text NOT NULL,
    body      bytea NOT NULL,               -- vesta.annotation.v1.Submission
    UNIQUE (task, round, annotator)
);

CREATE TABLE reviews (
    name text PRIMARY KEY,                  -- ends in a ULID
    task text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    body bytea NOT NULL                     -- vesta.annotation.v1.Review
);
CREATE INDEX reviews_by_task ON reviews (task, name);
