-- A stream's budget for uncertain frames, leases and pauses of those that send them, and every label of an observation.

ALTER TABLE streams
    ADD COLUMN window_start timestamptz NOT NULL DEFAULT now(),   -- the minute of the budget
    ADD COLUMN window_count integer NOT NULL DEFAULT 0;

ALTER TABLE observations ADD COLUMN labels text[] NOT NULL DEFAULT '{}';

ALTER TABLE uncertain_frames
    ADD COLUMN content_type text NOT NULL DEFAULT 'image/jpeg',
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN try_time timestamptz NOT NULL DEFAULT now();       -- when somebody may take it next
CREATE INDEX uncertain_frames_by_try_time ON uncertain_frames (try_time);
-- Frames are JPEG: compressing them again costs time and saves nothing.
ALTER TABLE uncertain_frames ALTER COLUMN data SET STORAGE EXTERNAL;
