-- Durable consumers: how far each has acknowledged.
-- depends: 0003.account

CREATE TABLE outfeed_checkpoint (
    name TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,  -- everything up to there is acknowledged
    reset_epoch TEXT,  -- the epoch in which it was told of a reset that it has not acknowledged yet,
    reset_seq INTEGER,  -- and the head then: what followed is still owed
    generation INTEGER NOT NULL,  -- counts connections; only the newest may acknowledge
    is_protected INTEGER NOT NULL,  -- pruning waits for it
    created_at TEXT NOT NULL,
    seen_at TEXT NOT NULL  -- when it last connected or acknowledged
);
