-- What is forgotten, at most so many rows at a time: no statement may run into its timeout, however
-- much there is.

-- name: forget_shares!
WITH old AS MATERIALIZED (
    SELECT counter_key, daemon_id FROM shares WHERE counter_key < :before_key
    ORDER BY counter_key, daemon_id LIMIT :limit_count
)
DELETE FROM shares USING old
WHERE shares.counter_key = old.counter_key AND shares.daemon_id = old.daemon_id
    AND shares.counter_key < :before_key;

-- name: forget_pools!
DELETE FROM pools WHERE counter_key = ANY (ARRAY(
    SELECT counter_key FROM pools WHERE counter_key < :before_key
    ORDER BY counter_key LIMIT :limit_count
));

-- name: forget_top_ups!
DELETE FROM top_ups WHERE top_up_id = ANY (ARRAY(
    SELECT top_up_id FROM top_ups WHERE counter_key < :before_key
    ORDER BY counter_key, at_ns LIMIT :limit_count
));

-- name: forget_hours!
WITH old AS MATERIALIZED (
    SELECT hour_ns, tag FROM usage_hourly WHERE hour_ns < :before_ns
    ORDER BY hour_ns, tag LIMIT :limit_count
)
DELETE FROM usage_hourly USING old
WHERE usage_hourly.hour_ns = old.hour_ns AND usage_hourly.tag = old.tag
    AND usage_hourly.hour_ns < :before_ns;

-- name: forget_alerts!
DELETE FROM alerts WHERE sequence = ANY (ARRAY(
    SELECT sequence FROM alerts WHERE raised_ns < :before_ns
    ORDER BY raised_ns, sequence LIMIT :limit_count
));

-- name: forget_audit!
DELETE FROM audit WHERE sequence = ANY (ARRAY(
    SELECT sequence FROM audit WHERE at_ns < :before_ns
    ORDER BY at_ns, sequence LIMIT :limit_count
));

-- name: forget_kills!
DELETE FROM kills WHERE released_ns > 0 AND released_ns < :before_ns;

-- name: forget_recalls!
DELETE FROM recalls WHERE at < now() - make_interval(secs => :older_s);

-- name: forget_tombstones!
DELETE FROM forgotten_daemons WHERE daemon_id = ANY (ARRAY(
    SELECT daemon_id FROM forgotten_daemons WHERE forgotten_ns < :before_ns
    ORDER BY forgotten_ns, daemon_id LIMIT :limit_count
));

-- name: walk_daemons
SELECT daemon_id, seen_ns < :heard_before_ns AND tenure_ends_ns < :heard_before_ns AS is_unheard
FROM daemons WHERE daemon_id > :after_id ORDER BY daemon_id LIMIT :limit_count;

-- name: lock_unheard_daemons
SELECT daemon_id FROM daemons
WHERE daemon_id = ANY (:daemon_ids::text[])
    AND seen_ns < :heard_before_ns AND tenure_ends_ns < :heard_before_ns
ORDER BY daemon_id
FOR UPDATE;

-- name: without_holdings
-- Whose locks are held: their shares cannot change.
SELECT asked.daemon_id FROM unnest(:daemon_ids::text[]) AS asked (daemon_id)
CROSS JOIN LATERAL (
    SELECT coalesce(bool_or(
        amount - reserved > settled OR reserve_amount - reserve_reserved > reserve_settled
        OR lost <> 0 OR reserve_lost <> 0
    ), false) AS holds
    FROM shares WHERE shares.daemon_id = asked.daemon_id COLLATE "C"
) AS held
WHERE NOT holds;

-- name: bury_daemons!
INSERT INTO forgotten_daemons (
    daemon_id, name, epoch, spoken_epoch, sequence, usage_sequence, forgotten_ns
)
SELECT
    daemons.daemon_id, name, daemons.epoch + (sequence >= 0)::int, spoken_epoch,
    CASE WHEN sequence >= 0 THEN -1 - sequence ELSE sequence END, coalesce(usage_sequence, 0),
    :at_ns
FROM daemons LEFT JOIN outboxes ON outboxes.daemon_id = daemons.daemon_id
WHERE daemons.daemon_id = ANY (:daemon_ids::text[])
ON CONFLICT (daemon_id) DO UPDATE SET
    name = excluded.name, epoch = excluded.epoch, spoken_epoch = excluded.spoken_epoch,
    sequence = excluded.sequence, forgotten_ns = excluded.forgotten_ns,
    -- Forgotten a second time before it told of its usage, it has no outbox.
    usage_sequence = greatest(forgotten_daemons.usage_sequence, excluded.usage_sequence);

-- name: drop_outboxes!
DELETE FROM outboxes WHERE daemon_id = ANY (:daemon_ids::text[]);

-- name: drop_empty_shares!
-- Of which nothing is in any sum.
DELETE FROM shares
WHERE daemon_id = ANY (:daemon_ids::text[])
    AND amount = 0 AND reserve_amount = 0 AND settled = 0 AND reserved = 0
    AND reserve_settled = 0 AND reserve_reserved = 0 AND overrun = 0 AND granted = 0
    AND late_stated = 0 AND unadmitted = 0 AND shadow = 0
    AND lost = 0 AND reserve_lost = 0 AND late = 0;

-- name: lock_idle_pools
SELECT counter_key FROM pools
WHERE counter_key = ANY (:keys::bytea[]) AND changed_ns BETWEEN 1 AND :changed_before_ns - 1
    AND taken - reserved = settled AND reserve_taken - reserve_reserved = reserve_settled
ORDER BY counter_key
FOR UPDATE;

-- name: drop_shares_of_pools!
DELETE FROM shares WHERE counter_key = ANY (:keys::bytea[]);

-- name: drop_top_ups_of_pools!
DELETE FROM top_ups WHERE counter_key = ANY (:keys::bytea[]);

-- name: miscounted_pools
-- Read without a lock: `recount_daemons` leaves alone what changed since.
SELECT counter_key, was_count, is_count FROM (
    SELECT
        pools.counter_key, pools.daemons_count AS was_count, counted.count AS is_count
    FROM pools CROSS JOIN LATERAL (
        SELECT count(*) AS count FROM shares CROSS JOIN LATERAL (
            SELECT FROM daemons
            WHERE daemons.daemon_id = shares.daemon_id AND seen_ns >= :heard_after_ns LIMIT 1
        ) AS live
        WHERE shares.counter_key = pools.counter_key
    ) AS counted
    WHERE pools.counter_key = ANY (:keys::bytea[])
) AS compared
WHERE is_count <> was_count
ORDER BY counter_key;

-- name: recount_daemons!
-- Another replica may have counted the same, or a daemon may have joined; the next pass sees.
UPDATE pools SET daemons_count = is_count
FROM unnest(:keys::bytea[], :was_counts::bigint[], :is_counts::bigint[])
    AS counted (counter_key, was_count, is_count)
WHERE pools.counter_key = counted.counter_key AND daemons_count = was_count;
