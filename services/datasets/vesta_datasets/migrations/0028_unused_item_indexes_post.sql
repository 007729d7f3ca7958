-- Replicas of the previous version use these indexes; see 0027_cheaper_updates.sql. Of items_by_hash, the index of a dataset's hashes is left.
DROP INDEX items_by_bands_of_dataset;
DROP INDEX items_by_group;
DROP INDEX items_by_hash;
