-- Items outlive their dataset until they are purged; only replicas of the previous version need the cascade.
ALTER TABLE items DROP CONSTRAINT items_dataset_fkey;
