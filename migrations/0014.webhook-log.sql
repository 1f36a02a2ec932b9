-- The answers of each webhook's target, the handling of rejected events, and a replaced secret.
-- depends: 0013.consumer-owner

ALTER TABLE outfeed_webhook ADD COLUMN on_rejection TEXT NOT NULL DEFAULT 'retry';  -- retry, skip
ALTER TABLE outfeed_webhook ADD COLUMN skips INTEGER NOT NULL DEFAULT 0;  -- posts skipped since one was accepted
ALTER TABLE outfeed_webhook ADD COLUMN old_secret TEXT;  -- also signs, until the time in the next column
ALTER TABLE outfeed_webhook ADD COLUMN old_secret_until TEXT;

-- Posts, bounded in rows for each webhook and in bytes for each row.
CREATE TABLE outfeed_webhook_log (
    id INTEGER PRIMARY KEY,
    webhook TEXT NOT NULL,
    posted_at TEXT NOT NULL,
    message_id TEXT NOT NULL,  -- epoch:seq, the header webhook-id
    events INTEGER NOT NULL,  -- in the post
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    millis INTEGER NOT NULL,  -- from the post to its answer
    status INTEGER,  -- HTTP status, NULL if there was no answer
    error TEXT,  -- the reason if there was no answer
    event_digests BLOB NOT NULL,  -- 8 bytes for each event id; an erasure finds the row by them
    request TEXT NOT NULL,  -- the first bytes of the body, redacted
    answer TEXT NOT NULL  -- the first bytes of the body, redacted
);
-- Serves the log of one webhook, and the removal of its oldest rows.
CREATE INDEX outfeed_webhook_log_webhook ON outfeed_webhook_log (webhook, id);
