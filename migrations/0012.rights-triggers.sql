-- Protects the triggers of 0003 like those of the log. Without them, connected clients would keep revoked permissions.
-- depends: 0011.search

INSERT INTO outfeed_meta (key, value)
SELECT 'trigger:' || name, sql FROM sqlite_master WHERE type = 'trigger' AND name IN (
    'outfeed_token_removed', 'outfeed_token_changed', 'outfeed_session_removed', 'outfeed_session_changed', 'outfeed_user_removed', 'outfeed_user_changed'
);
