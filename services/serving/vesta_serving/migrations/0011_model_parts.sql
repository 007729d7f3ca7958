-- How Triton serves a version: the name of its model there, which versions with the same backbone share, and the version's head. A version
-- that no replica has divided yet has no name. The previous version of this service does not use them.

ALTER TABLE versions
    ADD COLUMN triton_name text NOT NULL DEFAULT '',
    ADD COLUMN head        bytea;                    -- ONNX; null if Triton returns all outputs

-- When a deployment last predicted, to the minute. Triton unloads the models of deployments that are not used.
ALTER TABLE deployments ADD COLUMN use_time timestamptz NOT NULL DEFAULT now();
