-- First answers of requests that carry a request_id (vesta_common.resources.idempotency).
CREATE TABLE request_log (
    method         text NOT NULL,           -- full name of the request message, and the parent or resource it concerns
    request_id     text NOT NULL,
    request_digest bytea NOT NULL,          -- SHA-256 of the request
    response       bytea,
    create_time    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (method, request_id)
);
CREATE INDEX request_log_by_time ON request_log (create_time);
