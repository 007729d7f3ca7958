-- Campaigns, tasks with their leases, answers and reviews.

CREATE TABLE campaigns (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,             -- vesta.annotation.v1.Campaign without its counts
    state       text NOT NULL,              -- a name of vesta.annotation.v1.Campaign.State
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX campaigns_by_parent ON campaigns (parent, name);

CREATE TABLE tasks (
    name             text PRIMARY KEY,
    campaign         text NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    item             text NOT NULL,
    state            text NOT NULL,         -- a name of vesta.annotation.v1.Task.State
    priority         double precision NOT NULL,
    control          boolean NOT NULL,
    body             bytea NOT NULL,        -- vesta.annotation.v1.Task: what it was created with, and what was accepted
    round            integer NOT NULL DEFAULT 1,  -- a rejection begins the next one
    submission_count integer NOT NULL DEFAULT 0,  -- answers of this round
    rejection_count  integer NOT NULL DEFAULT 0,
    accept_time      timestamptz,
    create_time      timestamptz NOT NULL,
    update_time      timestamptz NOT NULL
);
CREATE INDEX tasks_in_order ON tasks (campaign, name);
CREATE INDEX tasks_to_do ON tasks (campaign, state, priority DESC, name) WHERE state IN ('OPEN', 'IN_REVIEW');
-- An item has one undecided task in a campaign.
CREATE UNIQUE INDEX tasks_undecided ON tasks (campaign, item) WHERE state IN ('OPEN', 'IN_REVIEW');

-- A task kept for a person; what has expired counts as not there.
CREATE TABLE leases (
    task        text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    holder      text NOT NULL,
    expire_time timestamptz NOT NULL,
    PRIMARY KEY (task, holder)
);

CREATE TABLE submissions (
    name        text PRIMARY KEY,
    task        text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    round       integer NOT NULL,
    annotator   text NOT NULL,
    body        bytea NOT NULL,             -- vesta.annotation.v1.Submission
    create_time timestamptz NOT NULL,
    UNIQUE (task, round, annotator)
);

CREATE TABLE reviews (
    name        text PRIMARY KEY,
    task        text NOT NULL REFERENCES tasks ON DELETE CASCADE,
    body        bytea NOT NULL,             -- vesta.annotation.v1.Review
    create_time timestamptz NOT NULL
);
CREATE INDEX reviews_by_task ON reviews (task, name);
