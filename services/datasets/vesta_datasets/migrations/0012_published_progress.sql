-- `published_prediction_count` and `publish_time` replace `told_prediction_count` and `told_time`. Until the post migration, the trigger
-- copies what replicas of one version write to the columns of the other version.

ALTER TABLE datasets
    ADD COLUMN published_prediction_count bigint NOT NULL DEFAULT 0,   -- the prediction_count of the last published progress
    ADD COLUMN publish_time               timestamptz NOT NULL DEFAULT 'epoch';
UPDATE datasets SET published_prediction_count = told_prediction_count, publish_time = told_time;

CREATE FUNCTION copy_published_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.published_prediction_count := greatest(NEW.published_prediction_count, NEW.told_prediction_count);
    NEW.told_prediction_count := NEW.published_prediction_count;
    NEW.publish_time := greatest(NEW.publish_time, NEW.told_time);
    NEW.told_time := NEW.publish_time;
    RETURN NEW;
END $$;
CREATE TRIGGER copy_published_progress BEFORE UPDATE ON datasets FOR EACH ROW EXECUTE FUNCTION copy_published_progress();
