-- Events that are committed and not yet published (vesta_common.events.outbox). Rows are deleted after the broker's acknowledgement.
CREATE TABLE outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),   -- commit-safe order: see outbox.py
    topic   text NOT NULL,
    key     text NOT NULL,
    headers jsonb NOT NULL,
    value   bytea NOT NULL
);
CREATE INDEX outbox_in_order ON outbox (xid, id);
