-- Logs, policies, kill switches, instances, and what operators list.

-- name: append_alerts!
INSERT INTO alerts (
    raised_ns, kind, rule, message, key, threshold_bp, utilisation_bp, amount_nusd
)
SELECT
    new.raised_ns, new.kind, new.rule, new.message, new.key, new.threshold_bp, new.utilisation_bp,
    new.amount_nusd
FROM json_to_recordset(:rows::json) AS new (
    raised_ns bigint, kind text, rule text, message text, key text, threshold_bp bigint,
    utilisation_bp bigint, amount_nusd bigint
);

-- name: list_alerts
SELECT
    sequence, raised_ns, kind, rule, message, key, threshold_bp, utilisation_bp, amount_nusd
FROM alerts WHERE raised_ns >= :since_ns
ORDER BY raised_ns DESC, sequence DESC LIMIT :limit_count;

-- name: append_audit!
INSERT INTO audit (
    at_ns, actor, action, subject, detail, count, task_class, reason
)
SELECT
    new.at_ns, new.actor, new.action, new.subject, new.detail, new.count, new.task_class,
    new.reason
FROM json_to_recordset(:rows::json) AS new (
    at_ns bigint, actor text, action text, subject text, detail text, count bigint,
    task_class text, reason bigint
);

-- name: list_audit
SELECT sequence, at_ns, actor, action, subject, detail, count, task_class, reason
FROM audit WHERE at_ns >= :since_ns
ORDER BY at_ns DESC, sequence DESC LIMIT :limit_count;

-- name: next_version
UPDATE versions SET version = version + 1 WHERE name = :name RETURNING version;

-- name: raise_version!
INSERT INTO versions (name, version) VALUES (:name, :version)
ON CONFLICT (name) DO UPDATE SET version = greatest(versions.version, excluded.version);

-- name: read_versions
SELECT name, version FROM versions;

-- name: put_kill!
-- Of two states of one switch the later counts.
INSERT INTO kills (
    kill_id, version, scope, mode, reason, actor, engaged_ns, max_tier, releases_ns,
    releases_steady_ns, released_ns, released_by
) VALUES (
    :kill_id, :version, :scope::jsonb, :mode, :reason, :actor, :engaged_ns, :max_tier, :releases_ns,
    :releases_steady_ns, :released_ns, :released_by
)
ON CONFLICT (kill_id) DO UPDATE SET
    version = excluded.version, scope = excluded.scope, mode = excluded.mode,
    reason = excluded.reason, actor = excluded.actor, engaged_ns = excluded.engaged_ns,
    max_tier = excluded.max_tier, releases_ns = excluded.releases_ns,
    releases_steady_ns = excluded.releases_steady_ns, released_ns = excluded.released_ns,
    released_by = excluded.released_by
WHERE greatest(kills.engaged_ns, kills.released_ns)
    <= greatest(excluded.engaged_ns, excluded.released_ns);

-- name: list_kills
SELECT
    versions.version, kill_id, scope, mode, reason, actor, engaged_ns, max_tier, releases_ns,
    releases_steady_ns, released_ns, released_by
FROM versions
LEFT JOIN kills ON :include_released::boolean OR kills.released_ns = 0
WHERE versions.name = 'kills'
ORDER BY engaged_ns DESC, kill_id;

-- name: add_policy!
INSERT INTO policies (number, revision, yaml, actor, published_ns, note)
VALUES (:number, :revision, :yaml, :actor, :published_ns, :note);

-- name: current_policy
SELECT number, revision, yaml, actor, published_ns, note
FROM policies ORDER BY number DESC LIMIT 1;

-- name: read_policy
SELECT number, revision, yaml, actor, published_ns, note FROM policies WHERE number = :number;

-- name: policy_history
SELECT number, revision, '' AS yaml, actor, published_ns, note
FROM policies WHERE number < :before_number ORDER BY number DESC LIMIT :limit_count;

-- name: add_top_up
INSERT INTO top_ups (top_up_id, counter_key, amount, actor, reason, at_ns)
VALUES (:top_up_id, :counter_key, :amount, :actor, :reason, :at_ns)
ON CONFLICT (top_up_id) DO NOTHING
RETURNING amount;

-- name: raise_pool!
UPDATE pools SET topped_up = topped_up + :amount, changed_ns = greatest(changed_ns, :at_ns)
WHERE counter_key = :counter_key;

-- name: read_top_up
SELECT top_up_id, counter_key, amount, actor, reason, at_ns
FROM top_ups WHERE top_up_id = :top_up_id;

-- name: list_top_ups
SELECT top_up_id, counter_key, amount, actor, reason, at_ns
FROM top_ups WHERE counter_key = :counter_key ORDER BY at_ns DESC LIMIT :limit_count;

-- name: list_daemons
SELECT
    daemon_id, name, version, boot_id, epoch, enrolled_ns, seen_ns, tenure_ends_ns,
    spoken_epoch, sequence, policy_number, policy_problem, clock_offset_ns, outbox_count,
    overspend_bound_nusd, clients_count, kills_version
FROM daemons WHERE daemon_id > :after_id ORDER BY daemon_id LIMIT :limit_count;

-- name: list_pools
SELECT
    counter_key, settled, reserved, reserve_settled, reserve_reserved, overrun, granted, lowered,
    late, unadmitted, shadow, taken, reserve_taken, daemons_count, "limit", topped_up, alerted_bp,
    burn_alerted_bp, start_ns, changed_ns
FROM pools WHERE counter_key > :after_key ORDER BY counter_key LIMIT :limit_count;

-- name: list_shares_of_daemon
SELECT
    counter_key, daemon_id, amount, reserve_amount, settled, reserved, reserve_settled,
    reserve_reserved, overrun, granted, lowered, late_stated, unadmitted, shadow, version, epoch,
    is_reclaimed, lost, reserve_lost, late
FROM shares WHERE daemon_id = :daemon_id AND counter_key > :after_key
ORDER BY counter_key LIMIT :limit_count;

-- name: list_shares_of_pool
SELECT
    counter_key, daemon_id, amount, reserve_amount, settled, reserved, reserve_settled,
    reserve_reserved, overrun, granted, lowered, late_stated, unadmitted, shadow, version, epoch,
    is_reclaimed, lost, reserve_lost, late
FROM shares WHERE counter_key = :counter_key AND daemon_id > :after_id
ORDER BY daemon_id LIMIT :limit_count;

-- name: list_shares
SELECT
    counter_key, daemon_id, amount, reserve_amount, settled, reserved, reserve_settled,
    reserve_reserved, overrun, granted, lowered, late_stated, unadmitted, shadow, version, epoch,
    is_reclaimed, lost, reserve_lost, late
FROM shares WHERE (counter_key, daemon_id) > (:after_key::bytea, :after_id::text COLLATE "C")
ORDER BY counter_key, daemon_id LIMIT :limit_count;

-- name: sum_unused
-- Of the next so many shares; how far that is, the last key of each daemon says.
WITH slice AS (
    SELECT counter_key, daemon_id, amount - settled - reserved AS unused
    FROM shares
    WHERE has_unused AND (counter_key, daemon_id) > (:after_key, :after_id)
    ORDER BY counter_key, daemon_id LIMIT :limit_count
)
SELECT
    daemon_id, count(*), max(counter_key),
    coalesce(sum(unused) FILTER (
        WHERE substring(counter_key FROM 9 FOR 8) = ANY (:tags::bytea[])
    ), 0)::bigint
FROM slice GROUP BY daemon_id;

-- name: overdue_holders
SELECT shares.daemon_id, shares.counter_key
FROM unnest(:keys::bytea[]) AS asked (counter_key)
JOIN shares ON shares.counter_key = asked.counter_key AND amount > settled
JOIN daemons USING (daemon_id)
WHERE tenure_ends_ns < :ended_before_ns
ORDER BY shares.daemon_id, shares.counter_key LIMIT 100;

-- name: fresh_recalls
SELECT counter_key, (extract(epoch FROM at) * 1000000)::bigint AS at_us
FROM recalls WHERE at > now() - make_interval(secs => :within_s);

-- name: beat
-- Written four times in the minute that it is believed for; most beats only read.
WITH written AS (
    UPDATE coordinators SET seen_at = now()
    WHERE instance_id = :instance_id AND seen_at < now() - interval '15 s'
)
SELECT instance_id FROM coordinators WHERE instance_id = :instance_id;

-- name: list_instances
SELECT
    instance_id, release, schema_number, address,
    extract(epoch FROM started_at)::float8, extract(epoch FROM seen_at)::float8
FROM coordinators WHERE seen_at > now() - make_interval(secs => :within_s)
ORDER BY started_at, instance_id;

-- name: leave!
DELETE FROM coordinators
WHERE instance_id = :instance_id OR seen_at < now() - interval '1 day';
