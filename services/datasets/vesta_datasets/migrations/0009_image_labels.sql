-- `labels` holds image labels alone: a box or another shape says nothing of the image as a whole. Its concept is in
-- `shape_concepts`, so that a taxonomy keeps what items bear.

ALTER TABLE items ADD COLUMN shape_concepts text[] NOT NULL DEFAULT '{}';

-- Reads vesta.datasets.v1.AcceptedAnnotations as protobuf lays it out, for the rows that are there already: each field is a
-- key (number * 8 + wire type) and its value; wire type 0 is a varint, 2 a length and so many bytes, 5 four bytes, 1 eight bytes.
CREATE FUNCTION pg_temp.varint(message bytea, INOUT place integer, OUT value bigint) LANGUAGE plpgsql AS $$
DECLARE
    part integer;
    shift integer := 0;
BEGIN
    value := 0;
    LOOP
        part := get_byte(message, place);
        place := place + 1;
        value := value | ((part & 127)::bigint << shift);
        EXIT WHEN part < 128 OR shift > 49;
        shift := shift + 7;
    END LOOP;
END $$;

CREATE FUNCTION pg_temp.fields_of(message bytea) RETURNS TABLE (number bigint, content bytea) LANGUAGE plpgsql AS $$
DECLARE
    place integer := 0;
    key bigint;
    size bigint;
BEGIN
    WHILE place < length(message) LOOP
        SELECT found.place, found.value INTO place, key FROM pg_temp.varint(message, place) AS found;
        number := key >> 3;
        content := NULL;
        CASE key & 7
            WHEN 0 THEN SELECT found.place INTO place FROM pg_temp.varint(message, place) AS found;
            WHEN 1 THEN place := place + 8;
            WHEN 2 THEN
                SELECT found.place, found.value INTO place, size FROM pg_temp.varint(message, place) AS found;
                content := substring(message FROM place + 1 FOR size::integer);
                place := place + size::integer;
            WHEN 5 THEN place := place + 4;
        END CASE;
        RETURN NEXT;
    END LOOP;
END $$;

UPDATE items SET labels = told.labels, shape_concepts = told.shape_concepts
FROM (
    SELECT
        annotated.name,
        coalesce(array_agg(DISTINCT annotation.concept) FILTER (WHERE annotation.of_image), '{}') AS labels,
        coalesce(array_agg(DISTINCT annotation.concept) FILTER (WHERE NOT annotation.of_image), '{}') AS shape_concepts
    FROM items AS annotated
    CROSS JOIN LATERAL pg_temp.fields_of(annotated.accepted) AS field
    CROSS JOIN LATERAL (
        SELECT
            convert_from(max(part.content) FILTER (WHERE part.number = 1), 'UTF8') AS concept,
            bool_or(part.number = 2) AS of_image
        FROM pg_temp.fields_of(field.content) AS part
    ) AS annotation
    WHERE annotated.labels <> '{}' AND field.number = 1
    GROUP BY annotated.name
) AS told
WHERE items.name = told.name AND told.shape_concepts <> '{}';

DROP FUNCTION pg_temp.fields_of;
DROP FUNCTION pg_temp.varint;

-- Whether it is decided what the image as a whole shows: by image labels, or by an answer without any annotation.
ALTER TABLE items ADD COLUMN labelled boolean NOT NULL
    GENERATED ALWAYS AS (accepted IS NOT NULL AND (labels <> '{}' OR shape_concepts = '{}')) STORED;
