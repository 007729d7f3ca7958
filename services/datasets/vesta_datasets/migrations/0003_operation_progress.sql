-- The furthest that any attempt at an operation came: a worse one does not count as progress.

ALTER TABLE operations ADD COLUMN reached_count bigint NOT NULL DEFAULT 0;
