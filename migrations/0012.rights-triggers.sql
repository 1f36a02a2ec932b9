-- The triggers of 0003 are looked after as those of the log are: without them what is revoked stays with who is connected.
-- depends: 0011.search

INSERT INTO meta (key, value)
SELECT 'trigger:' || name, sql FROM sqlite_master WHERE type = 'trigger' AND name IN (
    'token_removed', 'token_changed', 'session_removed', 'session_changed', 'user_removed', 'user_changed'
);
