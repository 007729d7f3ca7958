-- Taxonomies, datasets, items with what is accepted and what the model says, snapshots, and the operations on archives.

CREATE TABLE taxonomies (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,              -- vesta.datasets.v1.Taxonomy
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX taxonomies_by_parent ON taxonomies (parent, name);

CREATE TABLE datasets (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    taxonomy    text NOT NULL REFERENCES taxonomies,
    body        bytea NOT NULL,              -- vesta.datasets.v1.Dataset without its counts
    scored_by   text NOT NULL DEFAULT '',    -- the model version whose predictions came last
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX datasets_by_parent ON datasets (parent, name);

CREATE TABLE items (
    name              text PRIMARY KEY,
    dataset           text NOT NULL REFERENCES datasets ON DELETE CASCADE,
    sha256            text NOT NULL,
    media             bytea NOT NULL,        -- vesta.common.v1.Media
    file_name         text NOT NULL,
    source            text NOT NULL,
    metadata          jsonb NOT NULL,
    split             text NOT NULL,         -- TRAIN, VALIDATION or TEST, for ever
    group_name        text NOT NULL,         -- the item that founded its group of near-duplicates
    duplicate_of      text NOT NULL,         -- empty where it founded its group
    straddles         boolean NOT NULL,      -- nearly repeats items of two sides: takes part in nothing
    perceptual_hash   bigint NOT NULL,       -- the 64 bits, as a signed number
    bands             integer[] NOT NULL,    -- see duplicates.py
    accepted          bytea,                 -- vesta.datasets.v1.AcceptedAnnotations; null until someone decided
    labels            text[] NOT NULL DEFAULT '{}',
    reviewed          boolean NOT NULL DEFAULT false,
    control           boolean NOT NULL DEFAULT false,
    scores            bytea,                 -- vesta.common.v1.ImageScores; null until a model said something
    scored_by         text NOT NULL DEFAULT '',
    scored_deployment text NOT NULL DEFAULT '',
    scored_generation bigint NOT NULL DEFAULT 0,
    predicted         text NOT NULL DEFAULT '',
    score             real NOT NULL DEFAULT 0,
    margin            real NOT NULL DEFAULT 0,
    uncertain         boolean NOT NULL DEFAULT false,
    create_time       timestamptz NOT NULL,
    update_time       timestamptz NOT NULL,
    UNIQUE (dataset, sha256)
);
CREATE INDEX items_in_order ON items (dataset, name);
CREATE INDEX items_by_hash ON items (sha256);
CREATE INDEX items_by_bands ON items USING gin (bands);
CREATE INDEX items_by_labels ON items USING gin (labels);

-- Beside the items, for they are large and seldom read.
CREATE TABLE embeddings (
    item      text PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    dataset   text NOT NULL,
    space     text NOT NULL,                 -- digest of the embedding model: only vectors of one space compare
    embedding vector NOT NULL                -- unit length
);
CREATE INDEX embeddings_by_dataset ON embeddings (dataset, space);

CREATE TABLE snapshots (
    name        text PRIMARY KEY,
    dataset     text NOT NULL REFERENCES datasets ON DELETE CASCADE,
    body        bytea NOT NULL,              -- vesta.datasets.v1.Snapshot
    create_time timestamptz NOT NULL
);
CREATE INDEX snapshots_by_dataset ON snapshots (dataset, create_time DESC, name DESC);

CREATE TABLE operations (
    name              text PRIMARY KEY,
    kind              text NOT NULL,         -- import or export
    request           bytea NOT NULL,
    done_count        bigint NOT NULL DEFAULT 0,
    total_count       bigint NOT NULL DEFAULT 0,
    done              boolean NOT NULL DEFAULT false,
    response          bytea,
    error             text NOT NULL DEFAULT '',
    lease_expire_time timestamptz,
    create_time       timestamptz NOT NULL
);
CREATE INDEX operations_to_do ON operations (create_time) WHERE NOT done;
