-- Who scores an arrival holds a lease on it instead of a transaction.

ALTER TABLE arrivals
    ADD COLUMN dataset text NOT NULL GENERATED ALWAYS AS (split_part(item, '/items/', 1)) STORED,
    ADD COLUMN lease_expire_time timestamptz;
CREATE INDEX arrivals_by_dataset ON arrivals (deployment, dataset, item);
