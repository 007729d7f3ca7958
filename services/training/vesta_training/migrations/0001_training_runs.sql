-- Recipes, training runs with their leases, the registry of models, studies.

CREATE TABLE recipes (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,              -- vesta.training.v1.Recipe
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX recipes_by_parent ON recipes (parent, name);

CREATE TABLE training_runs (
    name              text PRIMARY KEY,
    parent            text NOT NULL,
    snapshot          text NOT NULL,
    recipe            text NOT NULL,
    model             text NOT NULL,
    state             text NOT NULL,         -- a name of vesta.training.v1.TrainingRun.State
    body              bytea NOT NULL,        -- vesta.training.v1.TrainingRun: what was asked for, and what came out
    progress          bytea,                 -- vesta.training.v1.TrainingProgress
    attempt_count     integer NOT NULL DEFAULT 0,
    cancel_requested  boolean NOT NULL DEFAULT false,
    lease_expire_time timestamptz,           -- until when a worker holds it; a killed worker's run is taken over after
    create_time       timestamptz NOT NULL,
    start_time        timestamptz,
    end_time          timestamptz
);
CREATE INDEX training_runs_by_parent ON training_runs (parent, create_time DESC, name DESC);
CREATE INDEX training_runs_to_do ON training_runs (create_time, name) WHERE state IN ('QUEUED', 'RUNNING');

CREATE TABLE models (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    display_name text NOT NULL DEFAULT '',
    latest      integer NOT NULL DEFAULT 0,  -- number of the newest version
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX models_by_parent ON models (parent, name);

CREATE TABLE model_versions (
    name         text PRIMARY KEY,
    model        text NOT NULL REFERENCES models,
    number       integer NOT NULL,
    training_run text NOT NULL UNIQUE,       -- a run makes one version, however often it is started
    body         bytea NOT NULL,             -- vesta.training.v1.ModelVersion
    create_time  timestamptz NOT NULL,
    UNIQUE (model, number)
);

CREATE TABLE studies (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,              -- vesta.training.v1.Study: what was asked for, and its trials' runs
    cancelled   boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL
);
CREATE INDEX studies_by_parent ON studies (parent, create_time DESC, name DESC);
