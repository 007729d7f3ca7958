-- `lease_expire_time` replaced the due time of projects, which only replicas of the previous version use.

DROP TRIGGER copy_due_time ON projects;
DROP FUNCTION copy_due_time;
ALTER TABLE projects DROP COLUMN due_time;
