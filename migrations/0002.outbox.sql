-- The outbox and the triggers that fill it in the transaction of each writer.
-- depends: 0001.event-log

-- No constraint that can fail: the outer statement's OR clause would override the trigger's and lose the row.
-- AUTOINCREMENT: a seq is never used again, even after all rows were pruned.
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id,
    payload,
    created_at
);

-- Serves "which seq has this event": the answer to a writer, and the repair of dropped triggers.
CREATE INDEX outbox_event_id ON outbox (event_id);

-- Facts about this database, one a row: `epoch`, and the text of each trigger as it was created.
CREATE TABLE outfeed_meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

INSERT INTO outfeed_meta (key, value) VALUES ('epoch', lower(hex(randomblob(16))));

-- Keeps history unchanged. An identical row is ignored, also under OR REPLACE and UPSERT. A known id or a known rowid
-- with other content is refused. -1 is the rowid of a row that names none.
CREATE TRIGGER event_log_guard_insert BEFORE INSERT ON event_log
BEGIN
    SELECT RAISE(ABORT, 'event_log: id must not be NULL') WHERE NEW.id IS NULL;
    SELECT CASE
        WHEN event_type IS NEW.event_type AND source IS NEW.source AND task_id IS NEW.task_id
            AND agent_id IS NEW.agent_id AND data IS NEW.data
        THEN RAISE(IGNORE)
        ELSE RAISE(ABORT, 'event_log: this id is known with other content; the log is append-only')
    END FROM event_log WHERE id = NEW.id;
    SELECT RAISE(ABORT, 'event_log: this rowid is taken; the log is append-only')
    FROM event_log WHERE rowid = NEW.rowid AND NEW.rowid <> -1;
END;

CREATE TRIGGER event_log_guard_update BEFORE UPDATE ON event_log
BEGIN
    SELECT RAISE(ABORT, 'event_log: the log is append-only, rows can not be changed');
END;

-- Adds one outbox row for each row of the log without failing the writer: BLOBs become hex, invalid JSON a string. The
-- trigger runs on the writer's SQLite, so it uses only old functions. `data` is last, so that a truncated payload keeps
-- the other fields.
CREATE TRIGGER event_log_outbox AFTER INSERT ON event_log
BEGIN
    INSERT INTO outbox (event_id, payload, created_at) VALUES (
        NEW.id,
        json_object(
            'id', CASE typeof(NEW.id) WHEN 'blob' THEN hex(NEW.id) ELSE NEW.id END,
            'event_type', CASE typeof(NEW.event_type) WHEN 'blob' THEN hex(NEW.event_type) ELSE NEW.event_type END,
            'source', CASE typeof(NEW.source) WHEN 'blob' THEN hex(NEW.source) ELSE NEW.source END,
            'task_id', CASE typeof(NEW.task_id) WHEN 'blob' THEN hex(NEW.task_id) ELSE NEW.task_id END,
            'agent_id', CASE typeof(NEW.agent_id) WHEN 'blob' THEN hex(NEW.agent_id) ELSE NEW.agent_id END,
            'timestamp', CASE typeof(NEW.timestamp) WHEN 'blob' THEN hex(NEW.timestamp) ELSE NEW.timestamp END,
            'data', json(CASE
                WHEN typeof(NEW.data) = 'blob' THEN json_quote(hex(NEW.data))
                WHEN json_valid(NEW.data) THEN NEW.data
                ELSE json_quote(NEW.data)
            END)
        ),
        strftime('%Y-%m-%dT%H:%M:%fZ', 'now')
    );
END;

-- The texts that the triggers must have. Readiness checks and repairs compare with them.
INSERT INTO outfeed_meta (key, value)
SELECT 'trigger:' || name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'event_log'
    AND name IN ('event_log_guard_insert', 'event_log_guard_update', 'event_log_outbox');
