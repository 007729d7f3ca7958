-- `lease_expire_time` and `attempt_count` replaced `try_time` and `attempts`, which only replicas of the previous version use.

DROP TRIGGER copy_lease ON uncertain_frames;
DROP FUNCTION copy_lease;
ALTER TABLE uncertain_frames DROP COLUMN try_time, DROP COLUMN attempts;
