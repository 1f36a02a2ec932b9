-- Alerts: rules on the events of the feed, their state, and the notices for their targets.
-- depends: 0021.view

CREATE TABLE outfeed_alert (
    name TEXT PRIMARY KEY,
    query TEXT NOT NULL,  -- in the query language of the log
    condition TEXT NOT NULL,  -- any, count, absence
    threshold INTEGER NOT NULL,  -- more matching events than this raise an alert; 0 unless the condition is count
    window_secs INTEGER NOT NULL,  -- 0 if the condition is any
    pause_secs INTEGER NOT NULL,  -- between two raised alerts
    targets TEXT NOT NULL,  -- names with commas between
    is_paused INTEGER NOT NULL,
    after_seq INTEGER NOT NULL,  -- the head when the rule was added, changed or resumed; it watches later events
    state TEXT NOT NULL,  -- ok, raised, uncertain
    progress TEXT,  -- JSON: what the condition needs to know, of bounded size; NULL: the rule begins
    raises INTEGER NOT NULL,  -- alerts so far
    raised_at TEXT,  -- the time of the last one, NULL before the first
    created_at TEXT NOT NULL
);

-- The evaluation of all rules. Its position is the checkpoint `alerts:rules`, and it is the only row.
CREATE TABLE outfeed_alert_evaluation (
    id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,  -- raised by each change of a rule
    epoch TEXT,  -- the position again: a checkpoint that a command moved differs from it
    seq INTEGER,
    timeline TEXT  -- JSON: time that no clock step moves; NULL before the first evaluation
);

INSERT INTO outfeed_alert_evaluation (id, revision) VALUES (1, 0);

-- A notice for one target. It is in the transaction of its event, and has no copy of the events that it is about.
CREATE TABLE outfeed_alert_notice (
    id INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,  -- of the event alert.raised, alert.cleared or alert.uncertain; the idempotency key
    rule TEXT NOT NULL,
    target TEXT NOT NULL,
    kind TEXT NOT NULL,  -- raised, cleared, uncertain
    title TEXT NOT NULL,
    matches INTEGER NOT NULL,  -- matching events that it reports
    matched_id TEXT,  -- the id of the newest matching event
    occurred_at TEXT NOT NULL,
    state TEXT NOT NULL,  -- waiting, delivered, failed
    attempts INTEGER NOT NULL,  -- that failed, of this notice or of one before it
    last_error TEXT,
    tried_at TEXT
);

-- Serves the sender, which looks for waiting notices of each target each second.
CREATE INDEX outfeed_alert_notice_waiting ON outfeed_alert_notice (target, id) WHERE state = 'waiting';

-- Serves the page of a rule.
CREATE INDEX outfeed_alert_notice_rule ON outfeed_alert_notice (rule, id);
