-- What daemons may still use is summed for operators without reading what is used up. A stored
-- column, and not the index's own condition, so that a change of amounts touches no index unless
-- it flips. This writes all shares once, while leases wait: some six seconds for a million.

ALTER TABLE shares ADD COLUMN has_unused boolean NOT NULL
    GENERATED ALWAYS AS (amount - reserved > settled) STORED;
CREATE INDEX shares_unused ON shares (counter_key, daemon_id) WHERE has_unused;
