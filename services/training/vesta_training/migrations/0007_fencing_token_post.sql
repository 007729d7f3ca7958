-- Replicas of the previous version, whose claims did not increment the fencing token, have ended.

DROP TRIGGER raise_fencing_token ON training_runs;
DROP FUNCTION raise_fencing_token;
