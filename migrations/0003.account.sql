-- Credentials: users, tokens for programs, and the credentials that expire: sign-in codes, sessions, tickets.
-- depends: 0002.outbox

CREATE TABLE outfeed_user (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,      -- viewer, producer or operator
    password TEXT,           -- its scrypt hash; NULL: no password yet, only a sign-in link
    is_disabled INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
);

-- Tokens, codes, session keys and tickets are 256 random bits, so a plain SHA-256 is enough to find them by.
CREATE TABLE outfeed_token (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,    -- separated by commas: read,write,admin
    types TEXT NOT NULL,     -- separated by commas: task.*,bid.submitted; empty: all
    created_at TEXT NOT NULL,
    expires_at TEXT,
    last_used_at TEXT
);

CREATE TABLE outfeed_sign_in_code (
    hash TEXT PRIMARY KEY,
    user TEXT,               -- NULL: the first operator
    expires_at TEXT NOT NULL
);

-- Stored here and not only in the cookie, so that signing out ends the session for every copy of the cookie.
CREATE TABLE outfeed_session (
    hash TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);

CREATE TABLE outfeed_ticket (
    hash TEXT PRIMARY KEY,
    rests_on TEXT NOT NULL,  -- the grant of the requesting principal: token:… or session:…
    expires_at TEXT NOT NULL
);

-- The counters change when a permission may have been revoked, and when events were erased. Each server process reads
-- them continually.
INSERT INTO outfeed_meta (key, value) VALUES ('rights', '0'), ('erasures', '0');

-- Count every change of permissions, by any writer, so that connected clients are checked again.
CREATE TRIGGER outfeed_token_removed AFTER DELETE ON outfeed_token
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights';
END;

CREATE TRIGGER outfeed_token_changed AFTER UPDATE OF hash, scopes, types, expires_at ON outfeed_token
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights';
END;

CREATE TRIGGER outfeed_session_removed AFTER DELETE ON outfeed_session
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights';
END;

CREATE TRIGGER outfeed_session_changed AFTER UPDATE ON outfeed_session
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights';
END;

CREATE TRIGGER outfeed_user_removed AFTER DELETE ON outfeed_user
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights';
END;

CREATE TRIGGER outfeed_user_changed AFTER UPDATE OF name, role, is_disabled ON outfeed_user
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'rights';
END;
