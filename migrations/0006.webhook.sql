-- Webhooks: where the server posts events by itself, and how that goes.
-- depends: 0005.checkpoint

-- How far each is delivered stands in its checkpoint, named `webhook:` and its name: no client can claim a name with
-- a colon.
CREATE TABLE outfeed_webhook (
    name TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    types TEXT NOT NULL,  -- with commas between: task.*,system.error; empty is all
    secret TEXT NOT NULL,  -- itself, not its hash: signing needs it
    batch INTEGER NOT NULL,  -- events in a post at most; 0 is one a post, and not in a list
    batch_end INTEGER NOT NULL,  -- seq of the last event of the newest batch: sent again, it must be the same batch
    state TEXT NOT NULL,  -- active, paused
    created_at TEXT NOT NULL,
    failing_since TEXT,  -- NULL while all is well
    last_status INTEGER,  -- HTTP status of the last answer, NULL where there was none
    last_error TEXT,  -- why the last post failed, NULL where it did not
    last_tried_at TEXT,
    delivered INTEGER NOT NULL,  -- events
    failures INTEGER NOT NULL,  -- posts
    revision INTEGER NOT NULL  -- raised by commands, so that whoever delivers asks anew
);
