-- Which change of which deployment `scored_by` comes from: an older one of the same deployment changes nothing.

ALTER TABLE datasets
    ADD COLUMN scored_deployment text NOT NULL DEFAULT '',
    ADD COLUMN scored_generation bigint NOT NULL DEFAULT 0;
