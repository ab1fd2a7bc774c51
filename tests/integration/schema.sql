CREATE TABLE public.alerts (
    sequence bigint NOT NULL,
    raised_ns bigint NOT NULL,
    kind text NOT NULL,
    rule text NOT NULL,
    message text NOT NULL,
    key text NOT NULL,
    threshold_bp bigint NOT NULL,
    utilisation_bp bigint NOT NULL,
    amount_nusd bigint NOT NULL
);
ALTER TABLE public.alerts ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.alerts_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.audit (
    sequence bigint NOT NULL,
    at_ns bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL,
    detail text NOT NULL,
    count bigint NOT NULL,
    task_class text NOT NULL,
    reason bigint NOT NULL
);
ALTER TABLE public.audit ALTER COLUMN sequence ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.audit_sequence_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.coordinators (
    instance_id text NOT NULL COLLATE pg_catalog."C",
    release text NOT NULL,
    schema_number integer NOT NULL,
    address text DEFAULT ''::text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE public.daemons (
    daemon_id text NOT NULL COLLATE pg_catalog."C",
    name text DEFAULT ''::text NOT NULL,
    version text DEFAULT ''::text NOT NULL,
    boot_id text DEFAULT ''::text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    enrolled_ns bigint DEFAULT 0 NOT NULL,
    seen_ns bigint DEFAULT 0 NOT NULL,
    tenure_ends_ns bigint DEFAULT 0 NOT NULL,
    spoken_epoch bigint DEFAULT 0 NOT NULL,
    sequence bigint DEFAULT 0 NOT NULL,
    policy_number bigint DEFAULT 0 NOT NULL,
    policy_problem text DEFAULT ''::text NOT NULL,
    clock_offset_ns bigint DEFAULT 0 NOT NULL,
    outbox_count bigint DEFAULT 0 NOT NULL,
    overspend_bound_nusd bigint DEFAULT 0 NOT NULL,
    clients_count bigint DEFAULT 0 NOT NULL,
    kills_version bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.forgotten_daemons (
    daemon_id text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    epoch bigint NOT NULL,
    spoken_epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    usage_sequence bigint NOT NULL,
    forgotten_ns bigint NOT NULL
);
CREATE TABLE public.kills (
    kill_id text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
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
CREATE TABLE public.migrations (
    number integer NOT NULL,
    phase text NOT NULL,
    name text NOT NULL,
    release text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT migrations_phase_check CHECK ((phase = ANY (ARRAY['expand'::text, 'contract'::text])))
);
CREATE TABLE public.outboxes (
    daemon_id text NOT NULL COLLATE pg_catalog."C",
    usage_sequence bigint DEFAULT 0 NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.policies (
    number bigint NOT NULL,
    revision text NOT NULL,
    yaml text NOT NULL,
    actor text NOT NULL,
    published_ns bigint NOT NULL,
    note text NOT NULL
);
CREATE TABLE public.pools (
    counter_key bytea NOT NULL,
    settled bigint DEFAULT 0 NOT NULL,
    reserved bigint DEFAULT 0 NOT NULL,
    reserve_settled bigint DEFAULT 0 NOT NULL,
    reserve_reserved bigint DEFAULT 0 NOT NULL,
    overrun bigint DEFAULT 0 NOT NULL,
    granted bigint DEFAULT 0 NOT NULL,
    lowered bigint DEFAULT 0 NOT NULL,
    late bigint DEFAULT 0 NOT NULL,
    unadmitted bigint DEFAULT 0 NOT NULL,
    shadow bigint DEFAULT 0 NOT NULL,
    taken bigint DEFAULT 0 NOT NULL,
    reserve_taken bigint DEFAULT 0 NOT NULL,
    daemons_count bigint DEFAULT 0 NOT NULL,
    "limit" bigint DEFAULT '-1'::integer NOT NULL,
    topped_up bigint DEFAULT 0 NOT NULL,
    alerted_bp bigint DEFAULT 0 NOT NULL,
    burn_alerted_bp bigint DEFAULT 0 NOT NULL,
    start_ns bigint DEFAULT 0 NOT NULL,
    changed_ns bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.recalls (
    counter_key bytea NOT NULL,
    at timestamp with time zone NOT NULL
);
CREATE TABLE public.shares (
    counter_key bytea NOT NULL,
    daemon_id text NOT NULL COLLATE pg_catalog."C",
    amount bigint NOT NULL,
    reserve_amount bigint NOT NULL,
    settled bigint NOT NULL,
    reserved bigint NOT NULL,
    reserve_settled bigint NOT NULL,
    reserve_reserved bigint NOT NULL,
    overrun bigint NOT NULL,
    granted bigint NOT NULL,
    lowered bigint NOT NULL,
    late_stated bigint NOT NULL,
    unadmitted bigint NOT NULL,
    shadow bigint NOT NULL,
    version bigint NOT NULL,
    epoch bigint NOT NULL,
    is_reclaimed boolean NOT NULL,
    lost bigint NOT NULL,
    reserve_lost bigint NOT NULL,
    late bigint NOT NULL,
    has_unused boolean GENERATED ALWAYS AS (((amount - reserved) > settled)) STORED NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE public.top_ups (
    top_up_id text NOT NULL COLLATE pg_catalog."C",
    counter_key bytea NOT NULL,
    amount bigint NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    at_ns bigint NOT NULL
);
CREATE TABLE public.usage_events (
    day date NOT NULL,
    daemon_id text NOT NULL COLLATE pg_catalog."C",
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
    units jsonb,
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
    verdict smallint NOT NULL
)
PARTITION BY RANGE (day);
CREATE TABLE public.usage_hourly (
    hour_ns bigint NOT NULL,
    tag bytea NOT NULL,
    daemon_id text NOT NULL COLLATE pg_catalog."C",
    org text NOT NULL,
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
    retry_count bigint NOT NULL
)
WITH (fillfactor='70');
CREATE TABLE public.versions (
    name text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL
);
ALTER TABLE ONLY public.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (sequence);
ALTER TABLE ONLY public.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (sequence);
ALTER TABLE ONLY public.coordinators
    ADD CONSTRAINT coordinators_pkey PRIMARY KEY (instance_id);
ALTER TABLE ONLY public.daemons
    ADD CONSTRAINT daemons_pkey PRIMARY KEY (daemon_id);
ALTER TABLE ONLY public.forgotten_daemons
    ADD CONSTRAINT forgotten_daemons_pkey PRIMARY KEY (daemon_id);
ALTER TABLE ONLY public.kills
    ADD CONSTRAINT kills_pkey PRIMARY KEY (kill_id);
ALTER TABLE ONLY public.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (number, phase);
ALTER TABLE ONLY public.outboxes
    ADD CONSTRAINT outboxes_pkey PRIMARY KEY (daemon_id);
ALTER TABLE ONLY public.policies
    ADD CONSTRAINT policies_pkey PRIMARY KEY (number);
ALTER TABLE ONLY public.pools
    ADD CONSTRAINT pools_pkey PRIMARY KEY (counter_key);
ALTER TABLE ONLY public.recalls
    ADD CONSTRAINT recalls_pkey PRIMARY KEY (counter_key);
ALTER TABLE ONLY public.shares
    ADD CONSTRAINT shares_pkey PRIMARY KEY (counter_key, daemon_id);
ALTER TABLE ONLY public.top_ups
    ADD CONSTRAINT top_ups_pkey PRIMARY KEY (top_up_id);
ALTER TABLE ONLY public.usage_events
    ADD CONSTRAINT usage_events_pkey PRIMARY KEY (day, settled_ns, daemon_id, sequence);
ALTER TABLE ONLY public.usage_hourly
    ADD CONSTRAINT usage_hourly_pkey PRIMARY KEY (hour_ns, tag);
ALTER TABLE ONLY public.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (name);
CREATE INDEX alerts_by_time ON public.alerts USING btree (raised_ns, sequence);
CREATE INDEX audit_by_time ON public.audit USING btree (at_ns, sequence);
CREATE INDEX forgotten_daemons_by_time ON public.forgotten_daemons USING btree (forgotten_ns, daemon_id);
CREATE INDEX kills_by_time ON public.kills USING btree (engaged_ns);
CREATE INDEX recalls_by_time ON public.recalls USING btree (at);
CREATE INDEX shares_by_daemon ON public.shares USING btree (daemon_id, counter_key);
CREATE INDEX shares_unused ON public.shares USING btree (counter_key, daemon_id) WHERE has_unused;
CREATE INDEX top_ups_by_counter ON public.top_ups USING btree (counter_key, at_ns);
