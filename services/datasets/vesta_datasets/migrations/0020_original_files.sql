-- The hash of the file of an item, if the stored image differs from it, so that an import recognises files that were ingested before.
-- Empty for items that a previous version adds; their files are ingested again.

ALTER TABLE items ADD COLUMN original_sha256 text NOT NULL DEFAULT '';
CREATE INDEX items_by_original ON items (dataset, original_sha256) WHERE original_sha256 <> '';
