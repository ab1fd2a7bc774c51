-- What a fleet's coordinators remember. Amounts are in the budget's unit, times in ns since 1970 UTC.

CREATE TABLE coordinators (
    instance_id text COLLATE "C" PRIMARY KEY,
    release text NOT NULL,
    schema_number integer NOT NULL,  -- the newest migration that this instance knows
    address text NOT NULL DEFAULT '',
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);

-- Numbers that rise in the order of commits: whoever takes one holds its row until he commits.
CREATE TABLE versions (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL
);
INSERT INTO versions VALUES ('kills', 0), ('policy', 0);

CREATE TABLE daemons (
    daemon_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL DEFAULT '',
    version text NOT NULL DEFAULT '',
    boot_id text NOT NULL DEFAULT '',
    epoch bigint NOT NULL DEFAULT 0,
    enrolled_ns bigint NOT NULL DEFAULT 0,
    seen_ns bigint NOT NULL DEFAULT 0,
    tenure_ends_ns bigint NOT NULL DEFAULT 0,
    spoken_epoch bigint NOT NULL DEFAULT 0,
    sequence bigint NOT NULL DEFAULT 0,
    policy_number bigint NOT NULL DEFAULT 0,
    policy_problem text NOT NULL DEFAULT '',
    clock_offset_ns bigint NOT NULL DEFAULT 0,
    outbox_count bigint NOT NULL DEFAULT 0,
    overspend_bound_nusd bigint NOT NULL DEFAULT 0,
    clients_count bigint NOT NULL DEFAULT 0,
    kills_version bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);  -- room beside each row, so that a change touches no index

-- How far each daemon's usage events are stored: a row of its own, so that storing many of them
-- holds up nobody's leases.
CREATE TABLE outboxes (
    daemon_id text COLLATE "C" PRIMARY KEY,
    usage_sequence bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE pools (
    counter_key bytea PRIMARY KEY,  -- window end, budget tag, `per` values
    settled bigint NOT NULL DEFAULT 0,
    reserved bigint NOT NULL DEFAULT 0,
    reserve_settled bigint NOT NULL DEFAULT 0,
    reserve_reserved bigint NOT NULL DEFAULT 0,
    overrun bigint NOT NULL DEFAULT 0,
    granted bigint NOT NULL DEFAULT 0,
    lowered bigint NOT NULL DEFAULT 0,
    late bigint NOT NULL DEFAULT 0,
    unadmitted bigint NOT NULL DEFAULT 0,
    shadow bigint NOT NULL DEFAULT 0,
    taken bigint NOT NULL DEFAULT 0,
    reserve_taken bigint NOT NULL DEFAULT 0,
    daemons_count bigint NOT NULL DEFAULT 0,
    "limit" bigint NOT NULL DEFAULT -1,
    topped_up bigint NOT NULL DEFAULT 0,
    alerted_bp bigint NOT NULL DEFAULT 0,
    burn_alerted_bp bigint NOT NULL DEFAULT 0,
    start_ns bigint NOT NULL DEFAULT 0,
    changed_ns bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE shares (
    counter_key bytea NOT NULL,
    daemon_id text COLLATE "C" NOT NULL,
    amount bigint NOT NULL,
    reserve_amount bigint NOT NULL,
    settled bigint NOT NULL,
    reserved bigint NOT NULL,
    reserve_settled bigint NOT NULL,
    reserve_reserved bigint NOT NULL,
    overrun bigint NOT NULL,
    granted bigint NOT NULL,
    lowered bigint NOT NULL,
    late_stated bigint NOT NULL,  -- `late` of the daemon's own stand
    unadmitted bigint NOT NULL,
    shadow bigint NOT NULL,
    version bigint NOT NULL,  -- of the newest grant
    epoch bigint NOT NULL,
    is_reclaimed boolean NOT NULL,
    lost bigint NOT NULL,
    reserve_lost bigint NOT NULL,
    late bigint NOT NULL,
    PRIMARY KEY (counter_key, daemon_id)
) WITH (fillfactor = 50);
CREATE INDEX shares_by_daemon ON shares (daemon_id, counter_key);

CREATE TABLE usage_events (
    day date NOT NULL,  -- of settled_ns, UTC; of when it was stored where that is years off
    daemon_id text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    reservation_id text NOT NULL,
    ask_id text NOT NULL,
    task_class text NOT NULL,
    labels jsonb NOT NULL,
    tier text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    cost_kind text NOT NULL,
    prompt_tokens bigint,
    cached_tokens bigint,
    cache_write_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    units jsonb,  -- null: nobody measured
    cost_nusd bigint NOT NULL,
    hold_nusd bigint NOT NULL,
    admitted_ns bigint NOT NULL,
    settled_ns bigint NOT NULL,
    duration_ns bigint NOT NULL,
    outcome smallint NOT NULL,
    retry_count integer NOT NULL,
    reason smallint NOT NULL,
    price jsonb,
    closed_as text NOT NULL,
    calls_count bigint NOT NULL,
    verdict smallint NOT NULL,
    PRIMARY KEY (day, settled_ns, daemon_id, sequence)
) PARTITION BY RANGE (day);

CREATE TABLE usage_hourly (
    hour_ns bigint NOT NULL,  -- when the hour began
    tag bytea NOT NULL,  -- a hash of what follows, down to `closed_as`
    daemon_id text COLLATE "C" NOT NULL,
    org text NOT NULL,  -- labels; '' where an event had none
    project text NOT NULL,
    team text NOT NULL,
    "user" text NOT NULL,
    agent text NOT NULL,
    agent_type text NOT NULL,
    run text NOT NULL,
    stage text NOT NULL,
    role text NOT NULL,
    feature text NOT NULL,
    task_class text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    tier text NOT NULL,
    cost_kind text NOT NULL,
    verdict smallint NOT NULL,
    outcome smallint NOT NULL,
    closed_as text NOT NULL,
    calls_count bigint NOT NULL,
    cost_nusd bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    retry_count bigint NOT NULL,
    PRIMARY KEY (hour_ns, tag)
) WITH (fillfactor = 70);

CREATE TABLE policies (
    number bigint PRIMARY KEY,
    revision text NOT NULL,
    yaml text NOT NULL,
    actor text NOT NULL,
    published_ns bigint NOT NULL,
    note text NOT NULL
);

CREATE TABLE kills (
    kill_id text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,  -- of the list, when this one last changed
    scope jsonb NOT NULL,
    mode text NOT NULL,
    reason text NOT NULL,
    actor text NOT NULL,
    engaged_ns bigint NOT NULL,
    max_tier text NOT NULL,
    releases_ns bigint NOT NULL,
    releases_steady_ns bigint NOT NULL,
    released_ns bigint NOT NULL,
    released_by text NOT NULL
);
CREATE INDEX kills_by_time ON kills (engaged_ns);

CREATE TABLE alerts (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    raised_ns bigint NOT NULL,
    kind text NOT NULL,
    rule text NOT NULL,
    message text NOT NULL,
    key text NOT NULL,
    threshold_bp bigint NOT NULL,
    utilisation_bp bigint NOT NULL,
    amount_nusd bigint NOT NULL
);
CREATE INDEX alerts_by_time ON alerts (raised_ns, sequence);

CREATE TABLE audit (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_ns bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL,
    count bigint NOT NULL,
    task_class text NOT NULL,
    reason bigint NOT NULL
);
CREATE INDEX audit_by_time ON audit (at_ns, sequence);

CREATE TABLE top_ups (
    top_up_id text COLLATE "C" PRIMARY KEY,
    counter_key bytea NOT NULL,
    amount bigint NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    at_ns bigint NOT NULL
);
CREATE INDEX top_ups_by_counter ON top_ups (counter_key, at_ns);

-- Only written where replicas poll instead of listening.
CREATE TABLE recalls (
    counter_key bytea PRIMARY KEY,
    at timestamptz NOT NULL
);
CREATE INDEX recalls_by_time ON recalls (at);
