-- Watches: tables of the program whose changes become events.
-- depends: 0014.webhook-log

CREATE TABLE outfeed_watch (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- its triggers: outfeed_watch_<number>_…
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,  -- the table
    type TEXT NOT NULL UNIQUE,  -- the first part of its types
    options TEXT NOT NULL,  -- JSON: the rest of the definition, the words that hide columns, the limit of an event
    made_by TEXT NOT NULL,  -- command, file
    generator INTEGER NOT NULL,  -- the version that wrote the triggers
    state TEXT NOT NULL,  -- active, paused, waiting (there is no such table), removed (its days still count)
    created_at TEXT NOT NULL,
    checked_at TEXT,  -- when all triggers were present
    last_key INTEGER,  -- the highest INTEGER PRIMARY KEY seen
    snapshot TEXT  -- JSON: the key that was reached, and the last one
);

-- Notes of the triggers: rows that a REPLACE may remove. No constraint that could fail.
CREATE TABLE outfeed_replaced (
    watch,  -- its number; negative while the notes of one new row are being read
    new_key,  -- the rowid of the new row, 0 if the table has none
    new_uniques,  -- JSON: the UNIQUE values of the new row
    identity,  -- the rowid of the noted row, or its key as JSON
    is_same,  -- whether it has the key of the new row
    updated,  -- the type of the event if it is replaced by the new row
    was,  -- JSON members
    cut,  -- JSON members
    deleted,  -- the type of the event if it is removed
    data,  -- JSON: the data of that event
    source,
    task_id,
    agent_id
);
-- For the notes of one new row.
CREATE INDEX outfeed_replaced_new ON outfeed_replaced (watch, new_key, new_uniques);
-- For the notes of one deleted row.
CREATE INDEX outfeed_replaced_identity ON outfeed_replaced (watch, identity);
