-- Events whose effect is committed (vesta_common.events.inbox).
CREATE TABLE inbox (
    consumer    text NOT NULL,
    event_id    text NOT NULL,
    handle_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_by_time ON inbox (handle_time);
