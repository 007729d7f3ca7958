-- `rejected_count` and `rejections` replaced the columns that only replicas of the previous version use.

DROP TRIGGER copy_rejections ON syncs;
DROP FUNCTION copy_rejections;
ALTER TABLE syncs DROP COLUMN refused_count, DROP COLUMN refusals;
