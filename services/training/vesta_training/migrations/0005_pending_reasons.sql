-- A run that a worker holds may wait still, such as for a place in the cluster.

ALTER TABLE training_runs
    ADD COLUMN pending_reason text NOT NULL DEFAULT '';  -- in the words of the place where it is to be trained
