-- `protocol` replaced `door`, which only replicas of the previous version use.

DROP TRIGGER copy_audit_protocol ON audit_entries;
DROP FUNCTION copy_audit_protocol;
ALTER TABLE audit_entries DROP COLUMN door;
