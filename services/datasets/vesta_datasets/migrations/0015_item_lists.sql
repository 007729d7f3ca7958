-- Indexes in the order of lists (creation time, name), so that a page of a filtered list is read from the beginning of a range.

CREATE INDEX items_by_facets ON items (dataset, facets, create_time, name);
CREATE INDEX items_by_create_time ON items (dataset, create_time, name);
CREATE INDEX items_by_update_time ON items (dataset, update_time);   -- for the few items that changed last
CREATE INDEX items_by_file_name ON items (dataset, file_name, create_time, name);

-- Which items have a term: a label, the concept of a shape, a predicted label, or a source. Triggers maintain it.
CREATE TABLE item_terms (
    dataset     text NOT NULL,
    term        text NOT NULL,          -- label:…, shape:…, predicted:… or source:…
    facets      smallint NOT NULL,      -- as the item
    create_time timestamptz NOT NULL,   -- as the item
    name        text NOT NULL,
    PRIMARY KEY (dataset, term, facets, create_time, name)
);

CREATE FUNCTION item_terms_of(labels text[], shape_concepts text[], predicted_labels text[], source text) RETURNS SETOF text
LANGUAGE sql IMMUTABLE AS $$
    SELECT 'label:' || value FROM unnest(labels) AS value
    UNION SELECT 'shape:' || value FROM unnest(shape_concepts) AS value
    UNION SELECT 'predicted:' || value FROM unnest(predicted_labels) AS value
    UNION SELECT 'source:' || source WHERE source <> ''
$$;

CREATE FUNCTION put_terms_of_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_terms (dataset, term, facets, create_time, name)
    SELECT dataset, term, facets, create_time, name
    FROM inserted CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term;
    RETURN NULL;
END $$;

CREATE FUNCTION put_terms_of_updated() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM item_terms USING (
        SELECT dataset, term, facets, create_time, name
        FROM deleted CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term
        EXCEPT
        SELECT dataset, term, facets, create_time, name
        FROM inserted CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term
    ) AS gone
    WHERE item_terms.dataset = gone.dataset AND item_terms.term = gone.term AND item_terms.facets = gone.facets
        AND item_terms.create_time = gone.create_time AND item_terms.name = gone.name;
    INSERT INTO item_terms (dataset, term, facets, create_time, name)
    SELECT dataset, term, facets, create_time, name
    FROM inserted CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term
    EXCEPT
    SELECT dataset, term, facets, create_time, name
    FROM deleted CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term;
    RETURN NULL;
END $$;

CREATE FUNCTION delete_terms_of_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM item_terms USING (
        SELECT dataset, term, facets, create_time, name
        FROM deleted CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term
    ) AS gone
    WHERE item_terms.dataset = gone.dataset AND item_terms.term = gone.term AND item_terms.facets = gone.facets
        AND item_terms.create_time = gone.create_time AND item_terms.name = gone.name;
    RETURN NULL;
END $$;

CREATE TRIGGER put_terms_of_inserted AFTER INSERT ON items REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION put_terms_of_inserted();
CREATE TRIGGER put_terms_of_updated AFTER UPDATE ON items REFERENCING OLD TABLE AS deleted NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION put_terms_of_updated();
CREATE TRIGGER delete_terms_of_deleted AFTER DELETE ON items REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION delete_terms_of_deleted();

INSERT INTO item_terms (dataset, term, facets, create_time, name)
SELECT dataset, term, facets, create_time, name
FROM items CROSS JOIN LATERAL item_terms_of(labels, shape_concepts, predicted_labels, source) AS term;
