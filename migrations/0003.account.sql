-- Who may: tokens for programs, the one-time codes that sign an operator in, and the sessions that these open.
-- depends: 0002.outbox

-- Tokens, codes and session keys are 256 random bits, so a plain SHA-256 is enough to look them up by.
CREATE TABLE token (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,  -- with commas between: read,write,admin
    created_at TEXT NOT NULL
);

CREATE TABLE sign_in_code (
    hash TEXT PRIMARY KEY,
    expires_at TEXT NOT NULL
);

-- Kept here, not in the cookie alone, so that signing out ends the session for whoever holds a copy.
CREATE TABLE session (
    hash TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
