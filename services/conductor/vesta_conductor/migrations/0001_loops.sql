-- Projects, Loops, what each Loop did, and when it is to be looked at next.

CREATE TABLE projects (
    name         text PRIMARY KEY,
    display_name text NOT NULL,
    create_time  timestamptz NOT NULL,
    update_time  timestamptz NOT NULL
);

CREATE TABLE loops (
    name            text PRIMARY KEY,
    uid             text NOT NULL UNIQUE,     -- heads its request_ids; another one when the name is used again
    project         text NOT NULL REFERENCES projects,
    dataset         text NOT NULL,
    display_name    text NOT NULL,
    policy          bytea NOT NULL,           -- vesta.conductor.v1.LoopPolicy as its owner wrote it
    paused          boolean NOT NULL,
    policy_revision integer NOT NULL,         -- counts the changes of policy and paused
    status          bytea NOT NULL,           -- vesta.conductor.v1.LoopStatus without its rounds
    create_time     timestamptz NOT NULL,
    update_time     timestamptz NOT NULL
);
CREATE INDEX loops_by_project ON loops (project, name);
CREATE INDEX loops_by_dataset ON loops (dataset);

-- The last round of a Loop that was deleted: one of the same name counts on from it, for its snapshots and runs stay.
CREATE TABLE deleted_loops (
    name       text PRIMARY KEY,
    last_round integer NOT NULL
);

CREATE TABLE rounds (
    loop            text NOT NULL REFERENCES loops ON DELETE CASCADE,
    number          integer NOT NULL,
    round           bytea NOT NULL,           -- vesta.conductor.v1.Round
    outcome         text NOT NULL,            -- a value of vesta_conductor.reconciliation.state.Outcome
    label_time      timestamptz,              -- when the last label came that it learnt from
    policy_revision integer NOT NULL,         -- by which it ended
    PRIMARY KEY (loop, number)
);

CREATE TABLE decisions (
    loop        text NOT NULL REFERENCES loops ON DELETE CASCADE,
    request_id  text NOT NULL,
    sequence    bigint GENERATED ALWAYS AS IDENTITY,
    action      text NOT NULL,
    reason      text NOT NULL,
    resource    text NOT NULL,
    round       integer NOT NULL,
    decide_time timestamptz NOT NULL,
    PRIMARY KEY (loop, request_id)
);
CREATE INDEX decisions_newest ON decisions (loop, sequence DESC);

-- The command that was given and whose answer is not known yet: whoever comes next gives it again, unchanged.
CREATE TABLE pending_commands (
    loop         text PRIMARY KEY REFERENCES loops ON DELETE CASCADE,
    request_id   text NOT NULL,
    action       text NOT NULL,
    reason       text NOT NULL,
    resource     text NOT NULL,
    request_type text NOT NULL,
    request      bytea NOT NULL,
    round        bytea NOT NULL,              -- vesta.conductor.v1.Round as it is once the command is obeyed
    label_time   timestamptz
);

-- When each Loop is to be looked at. Anything that happens brings the time forward and raises the generation.
CREATE TABLE loop_queue (
    loop       text PRIMARY KEY REFERENCES loops ON DELETE CASCADE,
    due_time   timestamptz NOT NULL,
    generation bigint NOT NULL DEFAULT 0,
    failures   integer NOT NULL DEFAULT 0     -- looks in a row that came to nothing
);
CREATE INDEX loop_queue_due ON loop_queue (due_time);
