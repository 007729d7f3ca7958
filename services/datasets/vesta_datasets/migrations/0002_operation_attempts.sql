-- Who works on an operation, how often it was begun without getting further, and why it failed.

ALTER TABLE operations
    ADD COLUMN fence         bigint NOT NULL DEFAULT 0,   -- counts claims: only the last one's worker may write
    ADD COLUMN attempt_count integer NOT NULL DEFAULT 0,  -- claims since it last got further
    ADD COLUMN last_error    text NOT NULL DEFAULT '',    -- what ended the last attempt
    ADD COLUMN error_code    text NOT NULL DEFAULT 'INVALID_ARGUMENT';  -- a name of google.rpc.Code
