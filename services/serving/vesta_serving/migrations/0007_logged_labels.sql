-- Every label that was predicted, of which a multi-label model may have several or none; null in older lines, which have the best concept.

ALTER TABLE predictions ADD COLUMN labels text[];
