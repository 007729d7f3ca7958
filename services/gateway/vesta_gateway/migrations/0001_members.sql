-- Who may do what in a project. Ids are the last parts of names: projects/{project}/members/{member}.
CREATE TABLE member (
    project      text NOT NULL,
    member       text NOT NULL,
    display_name text NOT NULL DEFAULT '',
    role         smallint NOT NULL CHECK (role BETWEEN 1 AND 5),   -- vesta.gateway.v1.Role
    create_time  timestamptz NOT NULL,
    update_time  timestamptz NOT NULL,
    PRIMARY KEY (project, member)
);

-- What a member comes with. Of the secret only the hash is kept.
CREATE TABLE api_key (
    project       text NOT NULL,
    api_key       text NOT NULL,
    member        text NOT NULL,
    display_name  text NOT NULL DEFAULT '',
    secret_sha256 bytea NOT NULL UNIQUE CHECK (length(secret_sha256) = 32),
    prefix        text NOT NULL,
    expire_time   timestamptz,
    last_use_time timestamptz,
    create_time   timestamptz NOT NULL,
    PRIMARY KEY (project, api_key),
    FOREIGN KEY (project, member) REFERENCES member ON DELETE CASCADE
);
CREATE INDEX api_key_by_member ON api_key (project, member);
