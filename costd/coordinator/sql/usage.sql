-- Usage events by day, and their sums by hour.

-- name: copy_events!
COPY usage_events (
    day, daemon_id, sequence, reservation_id, ask_id, task_class, labels, tier, provider, model,
    cost_kind, prompt_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
    units, cost_nusd, hold_nusd, admitted_ns, settled_ns, duration_ns, outcome, retry_count, reason,
    price, closed_as, calls_count, verdict
) FROM STDIN;

-- name: add_hourly!
-- Sums stop at 2^62 - 1, so that adding two never fails: one absurd figure must not block the rest.
INSERT INTO usage_hourly AS old (
    hour_ns, tag, daemon_id, org, project, team, "user", agent, agent_type, run, stage, role,
    feature, task_class, provider, model, tier, cost_kind, verdict, outcome, closed_as,
    calls_count, cost_nusd, prompt_tokens, cached_tokens, cache_write_tokens, output_tokens,
    reasoning_tokens, retry_count
)
SELECT
    new.hour_ns, decode(new.tag, 'base64'), new.daemon_id, new.org, new.project, new.team,
    new."user", new.agent, new.agent_type, new.run, new.stage, new.role, new.feature,
    new.task_class, new.provider, new.model, new.tier, new.cost_kind, new.verdict, new.outcome,
    new.closed_as, new.calls_count, new.cost_nusd, new.prompt_tokens, new.cached_tokens,
    new.cache_write_tokens, new.output_tokens, new.reasoning_tokens, new.retry_count
FROM json_to_recordset(:rows::json) AS new (
    hour_ns bigint, tag text, daemon_id text, org text, project text, team text, "user" text,
    agent text, agent_type text, run text, stage text, role text, feature text, task_class text,
    provider text, model text, tier text, cost_kind text, verdict smallint, outcome smallint,
    closed_as text, calls_count bigint, cost_nusd bigint, prompt_tokens bigint,
    cached_tokens bigint, cache_write_tokens bigint, output_tokens bigint,
    reasoning_tokens bigint, retry_count bigint
)
ON CONFLICT (hour_ns, tag) DO UPDATE SET
    calls_count = least(4611686018427387903, greatest(-4611686018427387903, old.calls_count + excluded.calls_count)),
    cost_nusd = least(4611686018427387903, greatest(-4611686018427387903, old.cost_nusd + excluded.cost_nusd)),
    prompt_tokens = least(4611686018427387903, greatest(-4611686018427387903, old.prompt_tokens + excluded.prompt_tokens)),
    cached_tokens = least(4611686018427387903, greatest(-4611686018427387903, old.cached_tokens + excluded.cached_tokens)),
    cache_write_tokens = least(4611686018427387903, greatest(-4611686018427387903, old.cache_write_tokens + excluded.cache_write_tokens)),
    output_tokens = least(4611686018427387903, greatest(-4611686018427387903, old.output_tokens + excluded.output_tokens)),
    reasoning_tokens = least(4611686018427387903, greatest(-4611686018427387903, old.reasoning_tokens + excluded.reasoning_tokens)),
    retry_count = least(4611686018427387903, greatest(-4611686018427387903, old.retry_count + excluded.retry_count));

-- name: list_events
SELECT
    daemon_id, sequence, reservation_id, ask_id, task_class, labels, tier, provider, model,
    cost_kind, prompt_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
    units, cost_nusd, hold_nusd, admitted_ns, settled_ns, duration_ns, outcome, retry_count, reason,
    price, closed_as, calls_count, verdict
FROM usage_events
WHERE day BETWEEN :since_day::date AND :until_day::date
    AND settled_ns >= :since_ns AND settled_ns < :until_ns
ORDER BY day DESC, settled_ns DESC, daemon_id DESC, sequence DESC
LIMIT :limit_count;

-- name: list_partitions
SELECT child.relname
FROM pg_inherits
JOIN pg_class AS child ON child.oid = pg_inherits.inhrelid
WHERE pg_inherits.inhparent = 'usage_events'::regclass
ORDER BY child.relname;
