-- Facts about the log that the full-text index, a file of its own, cannot read from the outbox.
-- depends: 0010.keeping

-- Blocks of 65,536 rowids in which events were deleted after they were indexed: their words are still in the index. A
-- row is removed when its block has been indexed again and no deletion has followed.
CREATE TABLE outfeed_search_stale (
    block INTEGER PRIMARY KEY,
    deletions INTEGER NOT NULL
);

-- Notes every deletion, by any writer, for the index. No clause of the trigger can conflict.
CREATE TRIGGER event_log_stale AFTER DELETE ON event_log
BEGIN
    UPDATE outfeed_search_stale SET deletions = deletions + 1 WHERE block = OLD.rowid >> 16;
    INSERT INTO outfeed_search_stale (block, deletions)
    SELECT OLD.rowid >> 16, 1 WHERE NOT EXISTS (SELECT 1 FROM outfeed_search_stale WHERE block = OLD.rowid >> 16);
END;

INSERT INTO outfeed_meta (key, value)
SELECT 'trigger:' || name, sql FROM sqlite_master WHERE type = 'trigger' AND name = 'event_log_stale';

-- Changes when that trigger was restored: a tool that rebuilt the table may have given its rows other rowids.
INSERT INTO outfeed_meta (key, value) VALUES ('renumberings', '0');
