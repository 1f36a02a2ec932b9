-- Write-only addresses: URLs that accept events without a token.
-- depends: 0018.partial-indexes

CREATE TABLE outfeed_address (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,  -- SHA-256 of the secret in its URL, which has 256 random bits
    topic TEXT NOT NULL,
    source TEXT NOT NULL,
    types TEXT NOT NULL,        -- separated by commas: backups.*,deploy.done; empty: all
    mapping TEXT,               -- NULL: text, a form or JSON
    signing_secret TEXT,        -- NULL: requests need no signature
    created_at TEXT NOT NULL,
    last_used_at TEXT
);
