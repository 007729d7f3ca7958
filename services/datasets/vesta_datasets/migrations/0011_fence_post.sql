-- `fencing_token` replaced `fence`, which only replicas of the previous version use.

DROP TRIGGER copy_fencing_token ON operations;
DROP FUNCTION copy_fencing_token;
ALTER TABLE operations DROP COLUMN fence;
