-- Views of the log: queries that users saved by name.
-- depends: 0020.note

-- A view whose owner no longer exists is not shown, and the next retention run deletes it.
CREATE TABLE outfeed_view (
    id INTEGER PRIMARY KEY,
    owner TEXT NOT NULL,         -- user:NAME or token:NAME
    name TEXT NOT NULL,
    query TEXT NOT NULL,         -- in the query language of the log
    is_shared INTEGER NOT NULL,  -- 1: every principal sees it
    created_at TEXT NOT NULL,
    UNIQUE (owner, name)
);
