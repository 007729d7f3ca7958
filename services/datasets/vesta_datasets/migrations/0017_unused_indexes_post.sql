-- items_by_bands_of_dataset and item_terms replaced these indexes, which only replicas of the previous version use.
DROP INDEX items_by_bands;
DROP INDEX items_by_labels;
