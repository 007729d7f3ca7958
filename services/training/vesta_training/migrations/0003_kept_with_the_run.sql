-- A run is trained by the recipe as it was when it was asked for, and a study compares runs by what they held out of learning.

ALTER TABLE training_runs
    ADD COLUMN recipe_yaml       text NOT NULL DEFAULT '',  -- empty for a run that is older than this column
    ADD COLUMN held_out_accuracy bytea;                     -- vesta.training.v1.Estimate; of a run that held something out
