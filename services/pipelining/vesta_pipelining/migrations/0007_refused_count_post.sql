-- `rejected_count` replaced `refused_count`, which only replicas of the previous version use.

DROP TRIGGER copy_rejected_count ON streams;
DROP FUNCTION copy_rejected_count;
ALTER TABLE streams DROP COLUMN refused_count;
