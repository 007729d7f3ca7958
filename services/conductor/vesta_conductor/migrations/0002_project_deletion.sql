-- How far the deletion of each project is. A deleted project keeps its row, so that its id is never used again.
ALTER TABLE projects
    ADD COLUMN state       text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'DELETING', 'DELETED')),
    ADD COLUMN delete_time timestamptz,
    ADD COLUMN message     text NOT NULL DEFAULT '',   -- what is left while it is DELETING
    ADD COLUMN due_time    timestamptz,                -- of the next pass while it is DELETING
    ADD COLUMN failures    integer NOT NULL DEFAULT 0; -- passes in a row that failed
CREATE INDEX projects_deleting ON projects (due_time) WHERE state = 'DELETING';
