-- What pruning and the mending of triggers must remember.
-- depends: 0007.swarm

-- When an event came in whose own timestamp is no date, kept once its outbox row is pruned: its age is known from nothing
-- else. Ids as they stand in the log, also BLOBs.
CREATE TABLE outfeed_arrival (
    event_id PRIMARY KEY,
    created_at TEXT
) WITHOUT ROWID;

-- The newest row that was there before the feed: mending adds none of those up to it.
INSERT INTO outfeed_meta (key, value)
SELECT 'adopted', id FROM event_log
WHERE id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM outbox) ORDER BY rowid DESC LIMIT 1;

-- What the indexes must be: tools that rebuild a table drop them with the triggers.
INSERT INTO outfeed_meta (key, value)
SELECT 'index:' || name, sql FROM sqlite_master
WHERE type = 'index' AND tbl_name IN ('event_log', 'outbox') AND sql IS NOT NULL
    AND name IN ('event_log_task_id', 'event_log_agent_id', 'event_log_timestamp', 'event_log_event_type',
        'event_log_source', 'outbox_event_id');
