-- What is left of daemons that were forgotten: if one comes back, it goes on where it was, and
-- nothing that it used or told is counted twice.

CREATE TABLE forgotten_daemons (
    daemon_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    epoch bigint NOT NULL,  -- none of its streams has it, or a later one
    spoken_epoch bigint NOT NULL,
    sequence bigint NOT NULL,
    usage_sequence bigint NOT NULL,
    forgotten_ns bigint NOT NULL
);
CREATE INDEX forgotten_daemons_by_time ON forgotten_daemons (forgotten_ns, daemon_id);
