-- How many batches of predictions came for a dataset, and up to which one its counts have been told.

ALTER TABLE datasets
    ADD COLUMN prediction_count      bigint NOT NULL DEFAULT 0,
    ADD COLUMN told_prediction_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN told_time             timestamptz NOT NULL DEFAULT 'epoch';
