-- What the full-text index, a file of its own, must know of the log beside what the outbox tells it.
-- depends: 0010.keeping

-- Blocks of 65,536 rowids of which events were deleted since they were indexed: their words are still in the index. A row
-- goes when its block was made anew and no deletion has come since.
CREATE TABLE outfeed_search_stale (
    block INTEGER PRIMARY KEY,
    deletions INTEGER NOT NULL
);

-- Promises that the index forgets what was deleted, whoever did it. No clause here that could conflict.
CREATE TRIGGER event_log_stale AFTER DELETE ON event_log
BEGIN
    UPDATE outfeed_search_stale SET deletions = deletions + 1 WHERE block = OLD.rowid >> 16;
    INSERT INTO outfeed_search_stale (block, deletions)
    SELECT OLD.rowid >> 16, 1 WHERE NOT EXISTS (SELECT 1 FROM outfeed_search_stale WHERE block = OLD.rowid >> 16);
END;

INSERT INTO outfeed_meta (key, value)
SELECT 'trigger:' || name, sql FROM sqlite_master WHERE type = 'trigger' AND name = 'event_log_stale';

-- Moves when that trigger had to be put back: a tool that rebuilt the table may have given its rows other rowids.
INSERT INTO outfeed_meta (key, value) VALUES ('renumberings', '0');
