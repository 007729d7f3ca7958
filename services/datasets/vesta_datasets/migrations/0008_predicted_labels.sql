-- Every label that the model predicts, of which a multi-label model may have several or none. `predicted` is not written any more.

ALTER TABLE items ADD COLUMN predicted_labels text[] NOT NULL DEFAULT '{}';
UPDATE items SET predicted_labels = ARRAY[predicted] WHERE predicted <> '';
