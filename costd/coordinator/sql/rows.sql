-- The rows of one transaction. Whoever changes one holds its lock: daemons in order of their ids,
-- then outboxes likewise, then pools in order of their keys; missing ones are inserted first, so that they can be locked.
-- Who inserts holds no lock yet that another inserter could wait for, so nobody waits in a circle.

-- name: begin!
BEGIN ISOLATION LEVEL READ COMMITTED;

-- name: add_missing_daemons
-- One that was forgotten goes on where it was; nothing of a stream that it had is heard.
INSERT INTO daemons (daemon_id, name, epoch, spoken_epoch, sequence)
SELECT
    asked.daemon_id, coalesce(old.name, ''), coalesce(old.epoch, 0), coalesce(old.spoken_epoch, 0),
    coalesce(old.sequence, 0)
FROM unnest(:daemon_ids::text[]) AS asked (daemon_id)
LEFT JOIN LATERAL (
    SELECT name, epoch, spoken_epoch, sequence FROM forgotten_daemons
    WHERE forgotten_daemons.daemon_id = asked.daemon_id COLLATE "C" LIMIT 1
) AS old ON true
WHERE NOT EXISTS (SELECT FROM daemons WHERE daemons.daemon_id = asked.daemon_id COLLATE "C")
ORDER BY asked.daemon_id COLLATE "C"
ON CONFLICT DO NOTHING
RETURNING daemon_id, epoch;

-- name: lock_daemons
SELECT
    daemon_id, name, version, boot_id, epoch, enrolled_ns, seen_ns, tenure_ends_ns,
    spoken_epoch, sequence, policy_number, policy_problem, clock_offset_ns, outbox_count,
    overspend_bound_nusd, clients_count, kills_version
FROM daemons WHERE daemon_id = ANY (:daemon_ids::text[])
ORDER BY daemon_id
FOR UPDATE;

-- name: add_missing_outboxes!
INSERT INTO outboxes (daemon_id, usage_sequence)
SELECT asked.daemon_id, coalesce(old.usage_sequence, 0)
FROM unnest(:daemon_ids::text[]) AS asked (daemon_id)
LEFT JOIN LATERAL (
    SELECT usage_sequence FROM forgotten_daemons
    WHERE forgotten_daemons.daemon_id = asked.daemon_id COLLATE "C" LIMIT 1
) AS old ON true
WHERE NOT EXISTS (SELECT FROM outboxes WHERE outboxes.daemon_id = asked.daemon_id COLLATE "C")
ORDER BY asked.daemon_id COLLATE "C"
ON CONFLICT DO NOTHING;

-- name: lock_outboxes
SELECT daemon_id, usage_sequence, epoch FROM outboxes WHERE daemon_id = ANY (:daemon_ids::text[])
ORDER BY daemon_id
FOR UPDATE;

-- name: add_missing_pools
INSERT INTO pools (counter_key)
SELECT asked.counter_key FROM unnest(:keys::bytea[]) AS asked (counter_key)
WHERE NOT EXISTS (SELECT FROM pools WHERE pools.counter_key = asked.counter_key)
ORDER BY asked.counter_key
ON CONFLICT DO NOTHING
RETURNING counter_key;

-- name: lock_pools
SELECT
    counter_key, settled, reserved, reserve_settled, reserve_reserved, overrun, granted,
    lowered, late, unadmitted, shadow, taken, reserve_taken, daemons_count, "limit", topped_up,
    alerted_bp, burn_alerted_bp, start_ns, changed_ns
FROM pools WHERE counter_key = ANY (:keys::bytea[])
ORDER BY counter_key
FOR UPDATE;

-- name: open_share_keys
SELECT DISTINCT counter_key FROM shares
WHERE daemon_id = ANY (:daemon_ids::text[])
    AND (
        amount > settled OR reserved > 0
        OR reserve_amount > reserve_settled OR reserve_reserved > 0 OR is_reclaimed
        OR daemon_id = ANY (:closed_of::text[])
    );

-- name: read_shares
SELECT
    shares.counter_key, shares.daemon_id, amount, reserve_amount, settled, reserved,
    reserve_settled, reserve_reserved, overrun, granted, lowered, late_stated, unadmitted,
    shadow, version, epoch, is_reclaimed, lost, reserve_lost, late
FROM unnest(:keys::bytea[]) AS key (counter_key)
CROSS JOIN unnest(:daemon_ids::text[]) AS daemon (daemon_id)
JOIN shares
    ON shares.counter_key = key.counter_key AND shares.daemon_id = daemon.daemon_id COLLATE "C";

-- name: drop_unused_daemons!
DELETE FROM daemons WHERE daemon_id = ANY (:daemon_ids::text[]);

-- name: drop_unused_pools!
DELETE FROM pools WHERE counter_key = ANY (:keys::bytea[]);

-- name: write_daemons!
UPDATE daemons SET
    name = new.name, version = new.version, boot_id = new.boot_id, epoch = new.epoch,
    enrolled_ns = new.enrolled_ns, seen_ns = new.seen_ns, tenure_ends_ns = new.tenure_ends_ns,
    spoken_epoch = new.spoken_epoch, sequence = new.sequence, policy_number = new.policy_number,
    policy_problem = new.policy_problem, clock_offset_ns = new.clock_offset_ns,
    outbox_count = new.outbox_count, overspend_bound_nusd = new.overspend_bound_nusd,
    clients_count = new.clients_count, kills_version = new.kills_version
FROM json_to_recordset(:rows::json) AS new (
    daemon_id text, name text, version text, boot_id text, epoch bigint, enrolled_ns bigint,
    seen_ns bigint, tenure_ends_ns bigint, spoken_epoch bigint, sequence bigint, policy_number bigint,
    policy_problem text, clock_offset_ns bigint, outbox_count bigint, overspend_bound_nusd bigint,
    clients_count bigint, kills_version bigint
)
WHERE daemons.daemon_id = new.daemon_id COLLATE "C";

-- name: write_outboxes!
UPDATE outboxes SET usage_sequence = new.usage_sequence, epoch = new.epoch
FROM json_to_recordset(:rows::json)
    AS new (daemon_id text, usage_sequence bigint, epoch bigint)
WHERE outboxes.daemon_id = new.daemon_id COLLATE "C";

-- name: write_pools!
UPDATE pools SET
    settled = new.settled, reserved = new.reserved, reserve_settled = new.reserve_settled,
    reserve_reserved = new.reserve_reserved, overrun = new.overrun, granted = new.granted,
    lowered = new.lowered, late = new.late, unadmitted = new.unadmitted, shadow = new.shadow,
    taken = new.taken, reserve_taken = new.reserve_taken, daemons_count = new.daemons_count,
    "limit" = new."limit", topped_up = new.topped_up, alerted_bp = new.alerted_bp,
    burn_alerted_bp = new.burn_alerted_bp, start_ns = new.start_ns, changed_ns = new.changed_ns
FROM json_to_recordset(:rows::json) AS new (
    counter_key text, settled bigint, reserved bigint, reserve_settled bigint,
    reserve_reserved bigint, overrun bigint, granted bigint, lowered bigint, late bigint,
    unadmitted bigint, shadow bigint, taken bigint, reserve_taken bigint, daemons_count bigint,
    "limit" bigint, topped_up bigint, alerted_bp bigint, burn_alerted_bp bigint, start_ns bigint,
    changed_ns bigint
)
WHERE pools.counter_key = decode(new.counter_key, 'base64');

-- name: write_shares!
INSERT INTO shares (
    counter_key, daemon_id, amount, reserve_amount, settled, reserved, reserve_settled,
    reserve_reserved, overrun, granted, lowered, late_stated, unadmitted, shadow, version, epoch,
    is_reclaimed, lost, reserve_lost, late
)
SELECT
    decode(new.counter_key, 'base64'), new.daemon_id, new.amount, new.reserve_amount, new.settled,
    new.reserved, new.reserve_settled, new.reserve_reserved, new.overrun, new.granted,
    new.lowered, new.late_stated, new.unadmitted, new.shadow, new.version, new.epoch,
    new.is_reclaimed, new.lost, new.reserve_lost, new.late
FROM json_to_recordset(:rows::json) AS new (
    counter_key text, daemon_id text, amount bigint, reserve_amount bigint, settled bigint,
    reserved bigint, reserve_settled bigint, reserve_reserved bigint, overrun bigint,
    granted bigint, lowered bigint, late_stated bigint, unadmitted bigint, shadow bigint,
    version bigint, epoch bigint, is_reclaimed boolean, lost bigint, reserve_lost bigint, late bigint
)
ON CONFLICT (counter_key, daemon_id) DO UPDATE SET
    amount = excluded.amount, reserve_amount = excluded.reserve_amount,
    settled = excluded.settled, reserved = excluded.reserved,
    reserve_settled = excluded.reserve_settled, reserve_reserved = excluded.reserve_reserved,
    overrun = excluded.overrun, granted = excluded.granted, lowered = excluded.lowered,
    late_stated = excluded.late_stated, unadmitted = excluded.unadmitted,
    shadow = excluded.shadow, version = excluded.version, epoch = excluded.epoch, is_reclaimed = excluded.is_reclaimed,
    lost = excluded.lost, reserve_lost = excluded.reserve_lost, late = excluded.late;

-- name: notify
SELECT pg_notify('costd', notice) FROM unnest(:notices::text[]) AS told (notice);

-- name: note_recalls!
INSERT INTO recalls (counter_key, at)
SELECT counter_key, now() FROM unnest(:keys::bytea[]) AS recalled (counter_key)
ORDER BY counter_key
ON CONFLICT (counter_key) DO UPDATE SET at = excluded.at;

-- name: commit!
COMMIT;
