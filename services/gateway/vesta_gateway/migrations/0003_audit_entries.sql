-- Who changed what, when and from where. Rows are only ever added; after their retention they may be deleted.
CREATE TABLE audit_entries (
    id             text PRIMARY KEY,          -- a ULID, so that ids sort by time
    create_time    timestamptz NOT NULL,
    project        text NOT NULL,             -- its id; empty where a call is about none
    caller         text NOT NULL,
    api_key        text NOT NULL,
    role           text NOT NULL,
    method         text NOT NULL,
    resource       text NOT NULL,
    update_mask    text[] NOT NULL,
    request_sha256 text NOT NULL,
    code           text NOT NULL,
    reason         text NOT NULL,
    address        text NOT NULL,
    door           text NOT NULL,
    request_id     text NOT NULL
);
CREATE INDEX audit_entries_by_project ON audit_entries (project, id DESC);
CREATE INDEX audit_entries_by_time ON audit_entries (create_time);

-- Whoever writes to the table, the services' own user included, cannot change what is there. 90 days is the shortest retention.
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.create_time < now() - interval '90 days' THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_entries_stay BEFORE UPDATE OR DELETE ON audit_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_audit_change();
CREATE TRIGGER audit_entries_stay_together BEFORE TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change();
