-- Deployments, the versions they point at, how far their scoring is, and the prediction log.

CREATE TABLE deployments (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,             -- vesta.serving.v1.Deployment: what was asked for
    wanted      text NOT NULL,              -- the version that should answer
    stable      text NOT NULL DEFAULT '',   -- the version that answers
    previous    text NOT NULL DEFAULT '',   -- the version that a roll-back returns to
    state       text NOT NULL,              -- a name of vesta.serving.v1.Deployment.State
    error       text NOT NULL DEFAULT '',
    generation  bigint NOT NULL DEFAULT 0,  -- counts every change of what the deployment answers
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX deployments_by_parent ON deployments (parent, name);

-- Versions as the registry described them; they never change.
CREATE TABLE versions (
    name text PRIMARY KEY,
    body bytea NOT NULL                     -- vesta.training.v1.ModelVersion
);

-- One pass over one dataset with what the deployment answers in one generation.
CREATE TABLE passes (
    deployment        text NOT NULL REFERENCES deployments ON DELETE CASCADE,
    dataset           text NOT NULL,
    generation        bigint NOT NULL,
    embeds            boolean NOT NULL,     -- false where the items bear embeddings of the same space already
    page_token        text NOT NULL DEFAULT '',
    scored_count      bigint NOT NULL DEFAULT 0,
    item_count        bigint NOT NULL DEFAULT 1,   -- items to score, as far as is known
    done              boolean NOT NULL DEFAULT false,
    lease_expire_time timestamptz,
    PRIMARY KEY (deployment, dataset)
);

-- Items that arrived while a deployment looks after their dataset.
CREATE TABLE arrivals (
    deployment text NOT NULL REFERENCES deployments ON DELETE CASCADE,
    item       text NOT NULL,
    object_key text NOT NULL,
    sha256     text NOT NULL,
    PRIMARY KEY (deployment, item)
);

CREATE TABLE predictions (
    name          text PRIMARY KEY,
    deployment    text NOT NULL,
    item          text NOT NULL,
    sha256        text NOT NULL,
    model_version text NOT NULL,
    label         text NOT NULL,            -- the best concept
    score         double precision NOT NULL,
    uncertain     boolean NOT NULL,
    scores        bytea NOT NULL,           -- vesta.common.v1.ImageScores
    create_time   timestamptz NOT NULL
);
CREATE INDEX predictions_by_deployment ON predictions (deployment, name DESC);
CREATE INDEX predictions_by_time ON predictions (create_time);
