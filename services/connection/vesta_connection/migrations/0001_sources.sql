-- Sources, their syncs, and which file of a source became what.

CREATE TABLE sources (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,              -- vesta.connection.v1.Source without its secret
    secret      text NOT NULL DEFAULT '',    -- the bucket's secret access key
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX sources_by_parent ON sources (parent, name);

CREATE TABLE syncs (
    name             text PRIMARY KEY,
    source           text NOT NULL REFERENCES sources ON DELETE CASCADE,
    state            text NOT NULL,          -- a name of vesta.connection.v1.Sync.State
    found_count      bigint NOT NULL DEFAULT 0,
    listed           boolean NOT NULL DEFAULT false,
    added_count      bigint NOT NULL DEFAULT 0,
    unchanged_count  bigint NOT NULL DEFAULT 0,
    duplicate_count  bigint NOT NULL DEFAULT 0,
    refused_count    bigint NOT NULL DEFAULT 0,
    refusals         jsonb NOT NULL DEFAULT '[]',
    error            text NOT NULL DEFAULT '',
    cancel_requested boolean NOT NULL DEFAULT false,
    lease_expire_time timestamptz,           -- until when a worker holds it; a killed worker's sync is taken over after
    create_time      timestamptz NOT NULL,
    start_time       timestamptz,
    end_time         timestamptz
);
CREATE INDEX syncs_by_source ON syncs (source, create_time DESC);
CREATE INDEX syncs_to_do ON syncs (create_time) WHERE state IN ('QUEUED', 'RUNNING');

-- What a file was when it was last handled, so that it is not read again while it stays so.
CREATE TABLE source_files (
    source      text NOT NULL REFERENCES sources ON DELETE CASCADE,
    file_name   text NOT NULL,
    fingerprint text NOT NULL,               -- the store's etag, or size and time of change
    sync        text NOT NULL,               -- the sync that handled it: a resumed sync counts it no second time
    item        text NOT NULL DEFAULT '',    -- empty where the file was refused
    PRIMARY KEY (source, file_name)
);
