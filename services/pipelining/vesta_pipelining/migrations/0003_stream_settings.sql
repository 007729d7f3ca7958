-- What can be set for one stream.

ALTER TABLE streams
    ADD COLUMN paused                   boolean NOT NULL DEFAULT false,
    ADD COLUMN uncertain_per_minute_max integer,                        -- null where the pipeline's holds
    ADD COLUMN update_time              timestamptz NOT NULL DEFAULT now();
