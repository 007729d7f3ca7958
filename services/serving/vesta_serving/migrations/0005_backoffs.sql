-- Work that failed and waits, for every replica alike.

CREATE TABLE backoffs (
    deployment    text NOT NULL REFERENCES deployments ON DELETE CASCADE,
    dataset       text NOT NULL,             -- whose items could not be scored; empty where a version could not be loaded
    failure_count integer NOT NULL,          -- in a row
    retry_time    timestamptz NOT NULL,
    PRIMARY KEY (deployment, dataset)
);
