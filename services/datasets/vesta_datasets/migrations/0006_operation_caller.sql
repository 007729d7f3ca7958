-- Who asked for an operation: what an import brings is theirs.

ALTER TABLE operations ADD COLUMN caller text NOT NULL DEFAULT '';
