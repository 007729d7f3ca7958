-- Pipelines, their streams, what was observed, and uncertain frames on their way to the dataset.

CREATE TABLE pipelines (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    body        bytea NOT NULL,              -- vesta.pipelining.v1.Pipeline
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX pipelines_by_parent ON pipelines (parent, name);

CREATE TABLE streams (
    name            text PRIMARY KEY,
    pipeline        text NOT NULL REFERENCES pipelines ON DELETE CASCADE,
    display_name    text NOT NULL,
    observed_count  bigint NOT NULL DEFAULT 0,
    dropped_count   bigint NOT NULL DEFAULT 0,
    refused_count   bigint NOT NULL DEFAULT 0,
    uncertain_count bigint NOT NULL DEFAULT 0,
    lag_seconds     double precision,
    last_frame_time timestamptz,
    create_time     timestamptz NOT NULL
);
CREATE INDEX streams_by_pipeline ON streams (pipeline, name);

CREATE TABLE observations (
    name        text PRIMARY KEY,
    stream      text NOT NULL REFERENCES streams ON DELETE CASCADE,
    label       text NOT NULL,               -- the best label that holds; empty where none does
    uncertain   boolean NOT NULL,
    frame_time  timestamptz NOT NULL,
    body        bytea NOT NULL,              -- vesta.pipelining.v1.Observation without its item
    item        text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL
);
CREATE INDEX observations_by_stream ON observations (stream, name DESC);
CREATE INDEX observations_by_time ON observations (create_time);

CREATE TABLE uncertain_frames (
    observation text PRIMARY KEY REFERENCES observations ON DELETE CASCADE,
    stream      text NOT NULL,
    source      text NOT NULL,
    event_id    text NOT NULL,
    frame_time  timestamptz NOT NULL,
    data        bytea NOT NULL,
    create_time timestamptz NOT NULL
);
CREATE INDEX uncertain_frames_by_stream ON uncertain_frames (stream, create_time);
