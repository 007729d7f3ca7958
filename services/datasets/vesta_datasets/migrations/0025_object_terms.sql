-- Terms of the figures of objects, so that lists find them by an index: object_count:…, predicted_area_min:…, predicted_count.van:… and so
-- on, each with the number of the range that contains the value (three digits, in order). An item has a term for each figure but 0 and NULL.

-- Figures of the predicted objects of each concept: {"van": [count, smallest area, largest area]}. NULL without objects, and for items that
-- were scored before.
ALTER TABLE items ADD COLUMN predicted_figures jsonb;

-- The number of lower bounds that a value reaches. items/figure_terms.py has the same bounds.
CREATE FUNCTION figure_range(value double precision) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT width_bucket(value, ARRAY[
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160,
        192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 3584, 4096, 5120,
        6144, 7168, 8192, 9216, 10240, 12288, 14336, 16384, 20480, 24576, 28672, 32768, 40960, 49152, 57344, 65536,
        81920, 98304, 114688, 131072, 163840, 196608, 229376, 262144, 327680, 393216, 458752, 524288, 655360, 786432,
        917504, 1048576, 1310720, 1572864, 1835008, 2097152, 2621440, 3145728, 3670016, 4194304, 5242880, 6291456,
        7340032, 8388608, 10485760, 12582912, 14680064, 16777216, 20971520, 25165824, 29360128, 33554432, 41943040,
        50331648, 58720256, 67108864, 83886080, 100663296, 117440512, 134217728, 167772160, 201326592, 234881024
    ]::double precision[])
$$;

CREATE FUNCTION item_terms_of(
    labels text[], shape_concepts text[], predicted_labels text[], source text, object_count integer, duplicate_object_count integer,
    object_area_min real, object_area_max real, predicted_count integer, predicted_area_min real, predicted_area_max real,
    predicted_figures jsonb
) RETURNS SETOF text LANGUAGE sql IMMUTABLE SET search_path FROM CURRENT AS $$
    SELECT item_terms_of(labels, shape_concepts, predicted_labels, source)
    UNION ALL
    SELECT figure || ':' || lpad(figure_range(value)::text, 3, '0') FROM (VALUES
        ('object_count', nullif(object_count, 0)::double precision),
        ('duplicate_object_count', nullif(duplicate_object_count, 0)),
        ('object_area_min', object_area_min),
        ('object_area_max', object_area_max),
        ('predicted_count', nullif(predicted_count, 0)),
        ('predicted_area_min', predicted_area_min),
        ('predicted_area_max', predicted_area_max)
    ) AS figures (figure, value) WHERE value IS NOT NULL
    UNION ALL
    SELECT 'predicted_count.' || key || ':' || lpad(figure_range((value ->> 0)::double precision)::text, 3, '0')
    FROM jsonb_each(predicted_figures)
$$;

CREATE OR REPLACE FUNCTION put_terms_of_inserted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO item_terms (dataset, term, facets, create_time, name)
    SELECT dataset, term, facets, create_time, name
    FROM inserted CROSS JOIN LATERAL item_terms_of(
        labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
        object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
    ) AS term;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION put_terms_of_updated() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM item_terms USING (
        SELECT dataset, term, facets, create_time, name
        FROM deleted CROSS JOIN LATERAL item_terms_of(
            labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
            object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
        ) AS term
        EXCEPT
        SELECT dataset, term, facets, create_time, name
        FROM inserted CROSS JOIN LATERAL item_terms_of(
            labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
            object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
        ) AS term
    ) AS gone
    WHERE item_terms.dataset = gone.dataset AND item_terms.term = gone.term AND item_terms.facets = gone.facets
        AND item_terms.create_time = gone.create_time AND item_terms.name = gone.name;
    INSERT INTO item_terms (dataset, term, facets, create_time, name)
    SELECT dataset, term, facets, create_time, name
    FROM inserted CROSS JOIN LATERAL item_terms_of(
        labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
        object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
    ) AS term
    EXCEPT
    SELECT dataset, term, facets, create_time, name
    FROM deleted CROSS JOIN LATERAL item_terms_of(
        labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
        object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
    ) AS term;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION delete_terms_of_deleted() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM item_terms USING (
        SELECT dataset, term, facets, create_time, name
        FROM deleted CROSS JOIN LATERAL item_terms_of(
            labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
            object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
        ) AS term
    ) AS gone
    WHERE item_terms.dataset = gone.dataset AND item_terms.term = gone.term AND item_terms.facets = gone.facets
        AND item_terms.create_time = gone.create_time AND item_terms.name = gone.name;
    RETURN NULL;
END $$;

LOCK TABLE items IN SHARE ROW EXCLUSIVE MODE;   -- an item that changes meanwhile could miss its new terms
INSERT INTO item_terms (dataset, term, facets, create_time, name)
SELECT dataset, term, facets, create_time, name
FROM items CROSS JOIN LATERAL item_terms_of(
    labels, shape_concepts, predicted_labels, source, object_count, duplicate_object_count, object_area_min,
    object_area_max, predicted_count, predicted_area_min, predicted_area_max, predicted_figures
) AS term
WHERE object_count > 0 OR predicted_count > 0
ON CONFLICT DO NOTHING;
