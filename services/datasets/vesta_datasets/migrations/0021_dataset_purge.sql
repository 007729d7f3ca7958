-- The items of a deleted dataset are deleted in the background; `purged` is false until then. Replicas of the previous version delete
-- them in the transaction that deletes the dataset.
ALTER TABLE deleted_datasets ADD COLUMN purged boolean NOT NULL DEFAULT true;
ALTER TABLE deleted_datasets ADD COLUMN purged_until text NOT NULL DEFAULT '';   -- the last item that was deleted
CREATE INDEX deleted_datasets_to_purge ON deleted_datasets (delete_time) WHERE NOT purged;
