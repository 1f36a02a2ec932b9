-- Facts that pruning and the repair of triggers need later.
-- depends: 0007.swarm

-- The arrival time of each event whose own timestamp is not a date, kept after its outbox row is pruned: its age can be
-- calculated from nothing else. Ids are as in the log, also BLOBs.
CREATE TABLE outfeed_arrival (
    event_id PRIMARY KEY,
    created_at TEXT
) WITHOUT ROWID;

-- The newest row from before the feed. A repair adds no row up to it.
INSERT INTO outfeed_meta (key, value)
SELECT 'adopted', id FROM event_log
WHERE id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM outbox) ORDER BY rowid DESC LIMIT 1;

-- The texts that the indexes must have. Tools that rebuild a table drop its indexes with its triggers.
INSERT INTO outfeed_meta (key, value)
SELECT 'index:' || name, sql FROM sqlite_master
WHERE type = 'index' AND tbl_name IN ('event_log', 'outbox') AND sql IS NOT NULL
    AND name IN ('event_log_task_id', 'event_log_agent_id', 'event_log_timestamp', 'event_log_event_type',
        'event_log_source', 'outbox_event_id');
