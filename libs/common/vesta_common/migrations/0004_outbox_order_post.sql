-- Events are published in order of id: see outbox.py.
DROP INDEX outbox_in_order;
ALTER TABLE outbox DROP COLUMN xid;
