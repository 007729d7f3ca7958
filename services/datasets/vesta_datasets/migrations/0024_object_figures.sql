-- Figures of the accepted and the predicted objects of an item, for filters. 0 for items that were annotated or scored before, until they
-- are annotated or scored again. Areas are in pixels, and NULL without an object that has an area.

ALTER TABLE items
    ADD COLUMN object_count           integer NOT NULL DEFAULT 0,
    ADD COLUMN duplicate_object_count integer NOT NULL DEFAULT 0,   -- boxes that repeat another one; items/objects.py
    ADD COLUMN object_area_min        real,
    ADD COLUMN object_area_max        real,
    ADD COLUMN predicted_count        integer NOT NULL DEFAULT 0,
    ADD COLUMN predicted_area_min     real,
    ADD COLUMN predicted_area_max     real;
