-- Versions that were deleted from the registry, until they are removed from Triton's repository and from `versions` too.

CREATE TABLE deleted_models (
    triton_name   text NOT NULL,
    model_version text NOT NULL,
    PRIMARY KEY (triton_name, model_version)
);
