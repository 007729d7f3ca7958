-- `rejected_count` and `rejections` replace `refused_count` and `refusals`. Until the post migration, the trigger copies what replicas of
-- one version write to the columns of the other version. Both values only grow.

ALTER TABLE syncs
    ADD COLUMN rejected_count bigint NOT NULL DEFAULT 0,
    ADD COLUMN rejections     jsonb NOT NULL DEFAULT '[]';   -- the first hundred
UPDATE syncs SET rejected_count = refused_count, rejections = refusals;

CREATE FUNCTION copy_rejections() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.rejected_count := greatest(NEW.rejected_count, NEW.refused_count);
    NEW.refused_count := NEW.rejected_count;
    IF jsonb_array_length(NEW.refusals) > jsonb_array_length(NEW.rejections) THEN
        NEW.rejections := NEW.refusals;
    END IF;
    NEW.refusals := NEW.rejections;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_rejections BEFORE UPDATE ON syncs FOR EACH ROW EXECUTE FUNCTION copy_rejections();
