-- Projects that are being deleted or were: they have no members, and nothing new is created in them.
CREATE TABLE closed_project (
    project    text PRIMARY KEY,
    close_time timestamptz NOT NULL
);
