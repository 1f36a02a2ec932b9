-- Who may: tokens for programs, and the one-time codes that sign an operator in.
-- depends: 0002.outbox

-- Tokens are 256 random bits, so a plain SHA-256 is enough to look them up by.
CREATE TABLE token (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,
    created_at TEXT NOT NULL
);

CREATE TABLE sign_in_code (
    hash TEXT PRIMARY KEY,
    expires_at TEXT NOT NULL
);
