-- The deletion of a dataset deletes its terms at once, instead of looking up those of each item.
DROP TRIGGER delete_terms_of_deleted ON items;
CREATE TRIGGER delete_terms_of_deleted AFTER DELETE ON items REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT WHEN (coalesce(current_setting('vesta.deletes_dataset', true), '') <> 'true')
    EXECUTE FUNCTION delete_terms_of_deleted();
