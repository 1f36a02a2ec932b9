-- Durable consumers: the acknowledged position of each.
-- depends: 0003.account

CREATE TABLE outfeed_checkpoint (
    name TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,  -- everything up to this seq is acknowledged
    reset_epoch TEXT,  -- the epoch of a reset that the consumer was told of and has not acknowledged,
    reset_seq INTEGER,  -- and the head at that time: later events have not been delivered yet
    generation INTEGER NOT NULL,  -- counts connections; only the newest may acknowledge
    is_protected INTEGER NOT NULL,  -- pruning waits for it
    created_at TEXT NOT NULL,
    seen_at TEXT NOT NULL  -- the time of the last connection or acknowledgement
);
