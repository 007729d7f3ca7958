-- `published_prediction_count` and `publish_time` replaced the columns that only replicas of the previous version use.

DROP TRIGGER copy_published_progress ON datasets;
DROP FUNCTION copy_published_progress;
ALTER TABLE datasets DROP COLUMN told_prediction_count, DROP COLUMN told_time;
