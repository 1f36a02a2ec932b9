-- Webhooks: the URLs that the server posts events to, and the state of each delivery.
-- depends: 0005.checkpoint

-- The delivered position of a webhook is its checkpoint, named `webhook:` and its name. No client can claim a name with
-- a colon.
CREATE TABLE outfeed_webhook (
    name TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    types TEXT NOT NULL,  -- separated by commas: task.*,system.error; empty: all
    secret TEXT NOT NULL,  -- the secret itself, because signing needs it
    batch INTEGER NOT NULL,  -- maximum number of events in a post; 0: one event a post, not in a list
    batch_end INTEGER NOT NULL,  -- seq of the last event of the newest batch; a retry must send the same batch
    state TEXT NOT NULL,  -- active, paused
    created_at TEXT NOT NULL,
    failing_since TEXT,  -- NULL unless posts fail
    last_status INTEGER,  -- HTTP status of the last answer, NULL if there was no answer
    last_error TEXT,  -- the error of the last post, NULL if it succeeded
    last_tried_at TEXT,
    delivered INTEGER NOT NULL,  -- events
    failures INTEGER NOT NULL,  -- posts
    revision INTEGER NOT NULL  -- raised by commands, so that the delivering worker reads the row again
);
