-- Displays: how an event of each type reads, where it was set.
-- depends: 0016.watch

CREATE TABLE outfeed_type (
    name TEXT PRIMARY KEY,  -- the event type
    icon TEXT,
    label TEXT,
    level TEXT NOT NULL,    -- info, warning, error
    made_by TEXT NOT NULL   -- command, watch
);

-- Moves with each change of a display. Heartbeats carry it, so that an open page loads the change.
INSERT INTO outfeed_meta (key, value) VALUES ('types', '0');

CREATE TRIGGER outfeed_type_added AFTER INSERT ON outfeed_type
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'types';
END;

CREATE TRIGGER outfeed_type_changed AFTER UPDATE ON outfeed_type
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'types';
END;

CREATE TRIGGER outfeed_type_removed AFTER DELETE ON outfeed_type
BEGIN
    UPDATE outfeed_meta SET value = value + 1 WHERE key = 'types';
END;
