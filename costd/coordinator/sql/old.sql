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
