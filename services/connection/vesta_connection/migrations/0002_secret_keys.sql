-- Secrets are encrypted. Until the service has done so with a row, its secret is in `secret`, as it is.

ALTER TABLE sources
    ADD COLUMN secret_key_id text NOT NULL DEFAULT '',   -- the key of `secret_token`; see vesta_connection.vault
    ADD COLUMN secret_token  text NOT NULL DEFAULT '';   -- the bucket's secret access key, encrypted
