-- Finds the near-duplicates of an item that is deleted.

CREATE INDEX items_by_group ON items (group_name);
