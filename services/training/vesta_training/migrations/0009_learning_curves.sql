-- The learning curve of a run is measured after its success, by a claim of its own.

ALTER TABLE training_runs
    ADD COLUMN curve_state text NOT NULL DEFAULT '';  -- of the measurement: PENDING, RUNNING, or empty if there is none to do
CREATE INDEX training_runs_to_measure ON training_runs (end_time, name) WHERE curve_state <> '';
