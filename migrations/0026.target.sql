-- Targets: where the notices of alerts are sent.
-- depends: 0025.alert

CREATE TABLE outfeed_alert_target (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,        -- webhook, slack, discord, teams, ntfy, email, apprise
    settings TEXT NOT NULL,    -- a JSON object of strings, with secrets: never shown
    created_at TEXT NOT NULL,
    changed_at TEXT NOT NULL
);
