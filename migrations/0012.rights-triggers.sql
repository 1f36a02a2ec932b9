-- The triggers of 0003 are looked after as those of the log are: without them what is revoked stays with who is connected.
-- depends: 0011.search

INSERT INTO outfeed_meta (key, value)
SELECT 'trigger:' || name, sql FROM sqlite_master WHERE type = 'trigger' AND name IN (
    'outfeed_token_removed', 'outfeed_token_changed', 'outfeed_session_removed', 'outfeed_session_changed', 'outfeed_user_removed', 'outfeed_user_changed'
);
