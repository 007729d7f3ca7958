-- `rejected_count` replaces `refused_count`. Until the post migration, the trigger copies what replicas of one version write to the
-- column of the other version. The count only grows.

ALTER TABLE streams ADD COLUMN rejected_count bigint NOT NULL DEFAULT 0;
UPDATE streams SET rejected_count = refused_count;

CREATE FUNCTION copy_rejected_count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.rejected_count := greatest(NEW.rejected_count, NEW.refused_count);
    NEW.refused_count := NEW.rejected_count;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_rejected_count BEFORE UPDATE ON streams FOR EACH ROW EXECUTE FUNCTION copy_rejected_count();
