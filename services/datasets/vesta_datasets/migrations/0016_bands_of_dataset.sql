-- Near-duplicates are searched within a dataset, so that the items of other datasets with the same bands are not read. Replaces
-- items_by_bands.
CREATE FUNCTION bands_of_dataset(dataset text, bands integer[]) RETURNS bigint[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT array_agg(hashtextextended(dataset, band)) FROM unnest(bands) AS band
$$;
CREATE INDEX items_by_bands_of_dataset ON items USING gin (bands_of_dataset(dataset, bands));
