-- Detectors that were trained elsewhere, from whose weights trainings can start.

CREATE TABLE pretrained_detectors (
    name        text PRIMARY KEY,
    parent      text NOT NULL,
    object_key  text NOT NULL,               -- of the ONNX file
    body        bytea NOT NULL,              -- vesta.training.v1.PretrainedDetector
    create_time timestamptz NOT NULL
);
CREATE INDEX pretrained_detectors_by_parent ON pretrained_detectors (parent, name);
CREATE INDEX pretrained_detectors_by_age ON pretrained_detectors (parent, create_time DESC, name DESC);
CREATE INDEX pretrained_detectors_by_file ON pretrained_detectors (object_key);
