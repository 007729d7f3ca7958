-- What outlives deleted models and versions.

-- How far a deleted model has counted its versions: a later one of its name goes on from there, so that a name means one version for ever.
CREATE TABLE retired_models (
    name   text PRIMARY KEY,
    latest integer NOT NULL
);

-- Files of deleted versions, until they are deleted too.
CREATE TABLE files_of_deleted_versions (
    object_key    text NOT NULL,
    model_version text NOT NULL,
    retry_time    timestamptz NOT NULL,
    PRIMARY KEY (object_key, model_version)
);
CREATE INDEX files_of_deleted_versions_to_do ON files_of_deleted_versions (retry_time);
