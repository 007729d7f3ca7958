-- What counts against a run is that its process died, not that somebody else was away; and a run given back says why it waits.

ALTER TABLE training_runs
    ADD COLUMN death_count    integer NOT NULL DEFAULT 0,
    ADD COLUMN waiting_reason text NOT NULL DEFAULT '';
