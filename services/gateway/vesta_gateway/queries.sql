-- name: insert_member^
-- Adds a member. Returns no row if the id is taken.
INSERT INTO member (project, member, display_name, role, create_time, update_time)
VALUES (:project, :member, :display_name, :role, :now, :now)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: insert_first_owner!
-- Adds the member `owner` to a project without members.
INSERT INTO member (project, member, display_name, role, create_time, update_time)
SELECT :project, :member, '', :role, :now, :now
WHERE NOT EXISTS (SELECT FROM member WHERE project = :project)
    AND NOT EXISTS (SELECT FROM closed_project WHERE project = :project)
ON CONFLICT DO NOTHING;

-- name: find_member^
SELECT * FROM member WHERE project = :project AND member = :member;

-- name: lock_members
-- Returns the members of a project and locks them until the transaction ends, so that two owners cannot remove each other.
SELECT * FROM member WHERE project = :project ORDER BY member FOR UPDATE;

-- name: has_members$
SELECT EXISTS (SELECT FROM member WHERE project = :project);

-- name: close_project!
INSERT INTO closed_project (project, close_time) VALUES (:project, :now) ON CONFLICT DO NOTHING;

-- name: list_closed_projects
SELECT project FROM closed_project;

-- name: delete_members!
-- Deletes all members of a project and their keys.
DELETE FROM member WHERE project = :project;

-- name: list_projects_with_members
SELECT DISTINCT project FROM member;

-- name: list_members
SELECT * FROM member
WHERE project = :project AND member > :after
ORDER BY member
LIMIT :limit;

-- name: update_member^
UPDATE member SET display_name = :display_name, role = :role, update_time = :now
WHERE project = :project AND member = :member
RETURNING *;

-- name: delete_member!
-- Deletes a member and its keys.
DELETE FROM member WHERE project = :project AND member = :member;

-- name: insert_api_key^
-- Adds a key. Returns no row if the id is taken.
INSERT INTO api_key (project, api_key, member, display_name, secret_sha256, prefix, expire_time, create_time)
VALUES (:project, :api_key, :member, :display_name, :secret_sha256, :prefix, :expire_time, :now)
ON CONFLICT (project, api_key) DO NOTHING
RETURNING *;

-- name: find_api_key^
SELECT * FROM api_key WHERE project = :project AND api_key = :api_key;

-- name: list_api_keys
SELECT * FROM api_key
WHERE project = :project AND api_key > :after
ORDER BY api_key
LIMIT :limit;

-- name: delete_api_key!
DELETE FROM api_key WHERE project = :project AND api_key = :api_key;

-- name: find_caller^
-- Returns the member and role of a key, by the digest of its secret.
SELECT k.project, k.api_key, k.member, k.secret_sha256, k.expire_time, k.last_use_time, m.role
FROM api_key AS k JOIN member AS m USING (project, member)
WHERE k.secret_sha256 = :secret_sha256;

-- name: touch_api_key!
-- Records the use of a key.
UPDATE api_key SET last_use_time = :now WHERE project = :project AND api_key = :api_key;

-- name: insert_audit_entry*!
INSERT INTO audit_entries (
    id, create_time, project, caller, api_key, role, method, resource, update_mask, request_sha256, code, reason, address,
    protocol, request_id)
VALUES (
    :id, :create_time, :project, :caller, :api_key, :role, :method, :resource, :update_mask, :request_sha256, :code, :reason, :address,
    :protocol, :request_id);

-- name: list_audit_entries
-- Newest first. `before` is the last id of the previous page, empty for the first page. Empty and NULL parameters do not filter.
SELECT * FROM audit_entries
WHERE (:project::text IS NULL OR project = :project)
  AND (:before = '' OR id < :before)
  AND (:caller = '' OR caller = :caller)
  AND (:resource_prefix = '' OR starts_with(resource, :resource_prefix))
  AND (:method = '' OR method = :method)
  AND (:code = '' OR code = :code)
  AND (:start_time::timestamptz IS NULL OR create_time >= :start_time)
  AND (:end_time::timestamptz IS NULL OR create_time < :end_time)
ORDER BY id DESC LIMIT :limit;

-- name: delete_old_audit_entries!
DELETE FROM audit_entries WHERE id IN (SELECT id FROM audit_entries WHERE create_time < :before ORDER BY create_time LIMIT :limit);
