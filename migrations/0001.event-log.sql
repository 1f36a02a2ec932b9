-- The log: ADR 017's table, unchanged. An existing table is adopted as it is.

CREATE TABLE IF NOT EXISTS event_log (
    id TEXT PRIMARY KEY,
    event_type TEXT NOT NULL,
    source TEXT NOT NULL,
    task_id TEXT,
    agent_id TEXT,
    data TEXT,  -- JSON
    timestamp TEXT NOT NULL
);

-- Newest first means rowid order, so each index serves its filter sorted. The index on timestamp serves pruning and
-- "the last N minutes".
CREATE INDEX IF NOT EXISTS event_log_task_id ON event_log (task_id);

CREATE INDEX IF NOT EXISTS event_log_agent_id ON event_log (agent_id);

CREATE INDEX IF NOT EXISTS event_log_timestamp ON event_log (timestamp);

CREATE INDEX IF NOT EXISTS event_log_event_type ON event_log (event_type);

CREATE INDEX IF NOT EXISTS event_log_source ON event_log (source);
