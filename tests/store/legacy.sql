BEGIN TRANSACTION;
CREATE TABLE "_yoyo_log" (
            "id" VARCHAR(36),
            "migration_hash" VARCHAR(64),
            "migration_id" VARCHAR(255),
            "operation" VARCHAR(10),
            "username" VARCHAR(255),
            "hostname" VARCHAR(255),
            "comment" VARCHAR(255),
            "created_at_utc" TIMESTAMP,
            PRIMARY KEY ("id")
        );
INSERT INTO "_yoyo_log" VALUES('1af8300f-8df8-4909-9a8b-1ba5f6b809d2','d856cfbff7d289f0bf84b61a8ca59c7d45ad1af9765bab5a7bfd52b6de8c8499','0001.event-log','mark','0','vm',NULL,'2026-11-30T04:29:19.855Z');
INSERT INTO "_yoyo_log" VALUES('cd6c2b23-ea30-4199-9e0f-92250eb7286c','b86064f70e0bd014294d801691259df31cd32936a623bf5712d95f818db54503','0002.outbox','mark','0','vm',NULL,'2026-11-30T04:29:19.856Z');
INSERT INTO "_yoyo_log" VALUES('8f03d1b7-7dbc-48e7-a5cc-cd2f9d17f4eb','1638a4f4644d1d3c7101ec04bceca65c93712f84ccb884bc5cb23302176d5a95','0003.account','mark','0','vm',NULL,'2026-11-30T04:29:19.857Z');
INSERT INTO "_yoyo_log" VALUES('a1dcae07-b573-4a83-9c9a-ad988a346e0b','ae5db4ebdda2660267426cfc028db22802340c20568e445be9e271f88f188d1e','0005.checkpoint','mark','0','vm',NULL,'2026-11-30T04:29:19.858Z');
INSERT INTO "_yoyo_log" VALUES('38b9f1f7-2b57-409b-a44c-a83ac4dd7144','46e51d73cefd58e9cdcead229a9b943c542d5e4e37897115a9236b438f1289b2','0006.webhook','mark','0','vm',NULL,'2026-11-30T04:29:19.858Z');
INSERT INTO "_yoyo_log" VALUES('4ff7c73e-3c63-4722-bec1-d963e1c80a4f','727754fd28c116c963a24227196dc0e897e6a9e66e8d10955c30eef2b96f1494','0007.swarm','mark','0','vm',NULL,'2026-11-30T04:29:19.859Z');
INSERT INTO "_yoyo_log" VALUES('83e7cd40-5110-4f32-ab7c-8612f5d7d1d9','03923978808d2df5fbf62eabbddb739e77f9725e6bbd4efef2145d2341bb6408','0010.keeping','mark','0','vm',NULL,'2026-11-30T04:29:19.859Z');
INSERT INTO "_yoyo_log" VALUES('a9ed3dbb-004e-49ae-a670-34863b07961e','903b6cbab04731bbc0399da023189257dce1ec24bd93d1612bfbbb055f4edc87','0011.search','mark','0','vm',NULL,'2026-11-30T04:29:19.859Z');
INSERT INTO "_yoyo_log" VALUES('67c033c8-2c39-4398-966e-a34adb9f0df6','ed023a9f3342308d51e1776ce994ac40dbab677a0f8f0a3dcfb57a447c94bbcb','0012.rights-triggers','mark','0','vm',NULL,'2026-11-30T04:29:19.860Z');
CREATE TABLE "_yoyo_migration" (
            "migration_hash" VARCHAR(64),
            "migration_id" VARCHAR(255),
            "applied_at_utc" TIMESTAMP,
            PRIMARY KEY ("migration_hash")
        );
INSERT INTO "_yoyo_migration" VALUES('d856cfbff7d289f0bf84b61a8ca59c7d45ad1af9765bab5a7bfd52b6de8c8499','0001.event-log','2026-11-30T04:29:19.855219');
INSERT INTO "_yoyo_migration" VALUES('b86064f70e0bd014294d801691259df31cd32936a623bf5712d95f818db54503','0002.outbox','2026-11-30T04:29:19.856875');
INSERT INTO "_yoyo_migration" VALUES('1638a4f4644d1d3c7101ec04bceca65c93712f84ccb884bc5cb23302176d5a95','0003.account','2026-11-30T04:29:19.857704');
INSERT INTO "_yoyo_migration" VALUES('ae5db4ebdda2660267426cfc028db22802340c20568e445be9e271f88f188d1e','0005.checkpoint','2026-11-30T04:29:19.857945');
INSERT INTO "_yoyo_migration" VALUES('46e51d73cefd58e9cdcead229a9b943c542d5e4e37897115a9236b438f1289b2','0006.webhook','2026-11-30T04:29:19.858294');
INSERT INTO "_yoyo_migration" VALUES('727754fd28c116c963a24227196dc0e897e6a9e66e8d10955c30eef2b96f1494','0007.swarm','2026-11-30T04:29:19.859131');
INSERT INTO "_yoyo_migration" VALUES('03923978808d2df5fbf62eabbddb739e77f9725e6bbd4efef2145d2341bb6408','0010.keeping','2026-11-30T04:29:19.859462');
INSERT INTO "_yoyo_migration" VALUES('903b6cbab04731bbc0399da023189257dce1ec24bd93d1612bfbbb055f4edc87','0011.search','2026-11-30T04:29:19.859825');
INSERT INTO "_yoyo_migration" VALUES('ed023a9f3342308d51e1776ce994ac40dbab677a0f8f0a3dcfb57a447c94bbcb','0012.rights-triggers','2026-11-30T04:29:19.860006');
CREATE TABLE "_yoyo_version" (
            "version" INT NOT NULL PRIMARY KEY,
            "installed_at_utc" TIMESTAMP
        );
INSERT INTO "_yoyo_version" VALUES(2,'2026-11-30T04:29:19.836640');
CREATE TABLE agent (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('idle', 'busy', 'left')),
    joined_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,  -- the last call that it made
    left_at TEXT,
    reason TEXT  -- why it left
);
INSERT INTO "agent" VALUES(1,'agent-a31c1aefc3b27252','Forge','idle','2026-11-30T04:29:19.869Z','2026-11-30T04:29:19.870Z',NULL,NULL);
CREATE TABLE arrival (
    event_id PRIMARY KEY,
    created_at TEXT
) WITHOUT ROWID;
INSERT INTO "arrival" VALUES('odd','2024-01-15T10:30:00.000Z');
CREATE TABLE bid (
    number INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES task (id),
    agent_id TEXT NOT NULL REFERENCES agent (id),
    bid_sats INTEGER NOT NULL,
    created_at TEXT NOT NULL
);
INSERT INTO "bid" VALUES(1,'task-c9fd2711e56ef0c4','agent-a31c1aefc3b27252',50,'2026-11-30T04:29:19.870Z');
CREATE TABLE checkpoint (
    name TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    seq INTEGER NOT NULL,  -- everything up to there is acknowledged
    reset_epoch TEXT,  -- the epoch in which it was told of a reset that it has not acknowledged yet,
    reset_seq INTEGER,  -- and the head then: what followed is still owed
    generation INTEGER NOT NULL,  -- counts connections; only the newest may acknowledge
    is_protected INTEGER NOT NULL,  -- pruning waits for it
    created_at TEXT NOT NULL,
    seen_at TEXT NOT NULL  -- when it last connected or acknowledged
);
INSERT INTO "checkpoint" VALUES('billing','9208237fc3749dd9a7b9da3805b2949e',0,NULL,NULL,0,1,'2026-11-30T04:29:19.865Z','2026-11-30T04:29:19.865Z');
INSERT INTO "checkpoint" VALUES('webhook:ops','9208237fc3749dd9a7b9da3805b2949e',0,NULL,NULL,1,1,'2026-11-30T04:29:19.866Z','2026-11-30T04:29:19.866Z');
CREATE TABLE event_log (
    id TEXT PRIMARY KEY,
    event_type TEXT NOT NULL,
    source TEXT NOT NULL,
    task_id TEXT,
    agent_id TEXT,
    data TEXT,  -- JSON
    timestamp TEXT NOT NULL
);
INSERT INTO "event_log" VALUES('first','task.created','ci','t',NULL,'{"description":"Write"}','2026-11-30T04:29:19.868Z');
INSERT INTO "event_log" VALUES('01a22ab6-e87d-7bab-a319-aaf99a0759c2','agent.joined','coordinator',NULL,'agent-a31c1aefc3b27252','{"name":"Forge"}','2026-11-30T04:29:19.869Z');
INSERT INTO "event_log" VALUES('01a22ab6-e87e-7a64-a6e8-1fecf2c1c9ac','task.created','coordinator','task-c9fd2711e56ef0c4',NULL,'{"description":"Write the docs"}','2026-11-30T04:29:19.869Z');
INSERT INTO "event_log" VALUES('01a22ab6-e87e-701e-b049-a4c08c7ac057','task.bidding','coordinator','task-c9fd2711e56ef0c4',NULL,'{"description":"Write the docs","auction_secs":15.0,"closes_at":"2026-11-30T04:29:34.869Z"}','2026-11-30T04:29:19.869Z');
INSERT INTO "event_log" VALUES('01a22ab6-e87e-74b9-b76f-c0ad6919ab7c','bid.submitted','coordinator','task-c9fd2711e56ef0c4','agent-a31c1aefc3b27252','{"name":"Forge","bid_sats":50}','2026-11-30T04:29:19.870Z');
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
INSERT INTO "meta" VALUES('epoch','9208237fc3749dd9a7b9da3805b2949e');
INSERT INTO "meta" VALUES('trigger:event_log_guard_insert','CREATE TRIGGER event_log_guard_insert BEFORE INSERT ON event_log
BEGIN
    SELECT RAISE(ABORT, ''event_log: id must not be NULL'') WHERE NEW.id IS NULL;
    SELECT CASE
        WHEN event_type IS NEW.event_type AND source IS NEW.source AND task_id IS NEW.task_id
            AND agent_id IS NEW.agent_id AND data IS NEW.data
        THEN RAISE(IGNORE)
        ELSE RAISE(ABORT, ''event_log: this id is known with other content; the log is append-only'')
    END FROM event_log WHERE id = NEW.id;
    SELECT RAISE(ABORT, ''event_log: this rowid is taken; the log is append-only'')
    FROM event_log WHERE rowid = NEW.rowid AND NEW.rowid <> -1;
END');
INSERT INTO "meta" VALUES('trigger:event_log_guard_update','CREATE TRIGGER event_log_guard_update BEFORE UPDATE ON event_log
BEGIN
    SELECT RAISE(ABORT, ''event_log: the log is append-only, rows can not be changed'');
END');
INSERT INTO "meta" VALUES('trigger:event_log_outbox','CREATE TRIGGER event_log_outbox AFTER INSERT ON event_log
BEGIN
    INSERT INTO outbox (event_id, payload, created_at) VALUES (
        NEW.id,
        json_object(
            ''id'', CASE typeof(NEW.id) WHEN ''blob'' THEN hex(NEW.id) ELSE NEW.id END,
            ''event_type'', CASE typeof(NEW.event_type) WHEN ''blob'' THEN hex(NEW.event_type) ELSE NEW.event_type END,
            ''source'', CASE typeof(NEW.source) WHEN ''blob'' THEN hex(NEW.source) ELSE NEW.source END,
            ''task_id'', CASE typeof(NEW.task_id) WHEN ''blob'' THEN hex(NEW.task_id) ELSE NEW.task_id END,
            ''agent_id'', CASE typeof(NEW.agent_id) WHEN ''blob'' THEN hex(NEW.agent_id) ELSE NEW.agent_id END,
            ''timestamp'', CASE typeof(NEW.timestamp) WHEN ''blob'' THEN hex(NEW.timestamp) ELSE NEW.timestamp END,
            ''data'', json(CASE
                WHEN typeof(NEW.data) = ''blob'' THEN json_quote(hex(NEW.data))
                WHEN json_valid(NEW.data) THEN NEW.data
                ELSE json_quote(NEW.data)
            END)
        ),
        strftime(''%Y-%m-%dT%H:%M:%fZ'', ''now'')
    );
END');
INSERT INTO "meta" VALUES('rights','0');
INSERT INTO "meta" VALUES('erasures','0');
INSERT INTO "meta" VALUES('index:event_log_task_id','CREATE INDEX event_log_task_id ON event_log (task_id)');
INSERT INTO "meta" VALUES('index:event_log_agent_id','CREATE INDEX event_log_agent_id ON event_log (agent_id)');
INSERT INTO "meta" VALUES('index:event_log_timestamp','CREATE INDEX event_log_timestamp ON event_log (timestamp)');
INSERT INTO "meta" VALUES('index:event_log_event_type','CREATE INDEX event_log_event_type ON event_log (event_type)');
INSERT INTO "meta" VALUES('index:event_log_source','CREATE INDEX event_log_source ON event_log (source)');
INSERT INTO "meta" VALUES('index:outbox_event_id','CREATE INDEX outbox_event_id ON outbox (event_id)');
INSERT INTO "meta" VALUES('trigger:event_log_stale','CREATE TRIGGER event_log_stale AFTER DELETE ON event_log
BEGIN
    UPDATE search_stale SET deletions = deletions + 1 WHERE block = OLD.rowid >> 16;
    INSERT INTO search_stale (block, deletions)
    SELECT OLD.rowid >> 16, 1 WHERE NOT EXISTS (SELECT 1 FROM search_stale WHERE block = OLD.rowid >> 16);
END');
INSERT INTO "meta" VALUES('renumberings','0');
INSERT INTO "meta" VALUES('trigger:token_removed','CREATE TRIGGER token_removed AFTER DELETE ON token
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = ''rights'';
END');
INSERT INTO "meta" VALUES('trigger:token_changed','CREATE TRIGGER token_changed AFTER UPDATE OF hash, scopes, types, expires_at ON token
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = ''rights'';
END');
INSERT INTO "meta" VALUES('trigger:session_removed','CREATE TRIGGER session_removed AFTER DELETE ON session
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = ''rights'';
END');
INSERT INTO "meta" VALUES('trigger:session_changed','CREATE TRIGGER session_changed AFTER UPDATE ON session
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = ''rights'';
END');
INSERT INTO "meta" VALUES('trigger:user_removed','CREATE TRIGGER user_removed AFTER DELETE ON user
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = ''rights'';
END');
INSERT INTO "meta" VALUES('trigger:user_changed','CREATE TRIGGER user_changed AFTER UPDATE OF name, role, is_disabled ON user
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = ''rights'';
END');
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id,
    payload,
    created_at
);
INSERT INTO "outbox" VALUES(1,'first','{"id":"first","event_type":"task.created","source":"ci","task_id":"t","agent_id":null,"timestamp":"2026-11-30T04:29:19.868Z","data":{"description":"Write"}}','2026-11-30T04:29:19.868Z');
INSERT INTO "outbox" VALUES(2,'gone','{"id":"gone","event_type":"job.done","source":"cron","task_id":null,"agent_id":null,"timestamp":"2026-11-30T04:29:19.868Z","data":null}','2026-11-30T04:29:19.868Z');
INSERT INTO "outbox" VALUES(3,'01a22ab6-e87d-7bab-a319-aaf99a0759c2','{"id":"01a22ab6-e87d-7bab-a319-aaf99a0759c2","event_type":"agent.joined","source":"coordinator","task_id":null,"agent_id":"agent-a31c1aefc3b27252","timestamp":"2026-11-30T04:29:19.869Z","data":{"name":"Forge"}}','2026-11-30T04:29:19.869Z');
INSERT INTO "outbox" VALUES(4,'01a22ab6-e87e-7a64-a6e8-1fecf2c1c9ac','{"id":"01a22ab6-e87e-7a64-a6e8-1fecf2c1c9ac","event_type":"task.created","source":"coordinator","task_id":"task-c9fd2711e56ef0c4","agent_id":null,"timestamp":"2026-11-30T04:29:19.869Z","data":{"description":"Write the docs"}}','2026-11-30T04:29:19.870Z');
INSERT INTO "outbox" VALUES(5,'01a22ab6-e87e-701e-b049-a4c08c7ac057','{"id":"01a22ab6-e87e-701e-b049-a4c08c7ac057","event_type":"task.bidding","source":"coordinator","task_id":"task-c9fd2711e56ef0c4","agent_id":null,"timestamp":"2026-11-30T04:29:19.869Z","data":{"description":"Write the docs","auction_secs":15.0,"closes_at":"2026-11-30T04:29:34.869Z"}}','2026-11-30T04:29:19.870Z');
INSERT INTO "outbox" VALUES(6,'01a22ab6-e87e-74b9-b76f-c0ad6919ab7c','{"id":"01a22ab6-e87e-74b9-b76f-c0ad6919ab7c","event_type":"bid.submitted","source":"coordinator","task_id":"task-c9fd2711e56ef0c4","agent_id":"agent-a31c1aefc3b27252","timestamp":"2026-11-30T04:29:19.870Z","data":{"name":"Forge","bid_sats":50}}','2026-11-30T04:29:19.871Z');
CREATE TABLE search_stale (
    block INTEGER PRIMARY KEY,
    deletions INTEGER NOT NULL
);
INSERT INTO "search_stale" VALUES(0,1);
CREATE TABLE session (
    hash TEXT PRIMARY KEY,
    user TEXT NOT NULL,
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
INSERT INTO "session" VALUES('b5d7c12a687e9b95fd2550a2e362af5cd5a25d2f21a5aefcfa48d34ac8a71539','ann','2026-11-30T04:29:19.865Z','2026-12-01T04:29:19.865Z');
CREATE TABLE sign_in_code (
    hash TEXT PRIMARY KEY,
    user TEXT,               -- NULL: whoever is the first operator
    expires_at TEXT NOT NULL
);
INSERT INTO "sign_in_code" VALUES('a957ca1619becf4f49e987044553fd75117863bd763b50a1c275a8b380617dec','ben','2026-12-01T04:29:19.864Z');
CREATE TABLE task (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('bidding', 'assigned', 'started', 'completed', 'failed')),
    created_at TEXT NOT NULL,
    closes_at TEXT NOT NULL,  -- when its auction is over
    agent_id TEXT REFERENCES agent (id),  -- the winner
    bid_sats INTEGER,  -- the winner's price
    assigned_at TEXT,
    started_at TEXT,
    ended_at TEXT,
    result TEXT,  -- JSON
    reason TEXT  -- why it failed
);
INSERT INTO "task" VALUES(1,'task-c9fd2711e56ef0c4','Write the docs','bidding','2026-11-30T04:29:19.869Z','2026-11-30T04:29:34.869Z',NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE ticket (
    hash TEXT PRIMARY KEY,
    rests_on TEXT NOT NULL,  -- the grant of who asked for it: token:… or session:…
    expires_at TEXT NOT NULL
);
INSERT INTO "ticket" VALUES('0f','token:bot','2030-01-01T00:00:00.000Z');
CREATE TABLE token (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    scopes TEXT NOT NULL,    -- with commas between: read,write,admin
    types TEXT NOT NULL,     -- with commas between: task.*,bid.submitted; none: all
    created_at TEXT NOT NULL,
    expires_at TEXT,
    last_used_at TEXT
);
INSERT INTO "token" VALUES('bot','9633c9cbb950d0a7189b07066d2efbc79c6b204bb8ed4e164561705e0b01d7e2','read,write','task.*','2026-11-30T04:29:19.864Z',NULL,NULL);
CREATE TABLE user (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,      -- viewer, producer or operator
    password TEXT,           -- its scrypt hash; NULL: none yet, a sign-in link lets in
    is_disabled INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
);
INSERT INTO "user" VALUES('ann','operator','scrypt:not-a-real-hash',0,'2026-11-30T04:29:19.862Z');
INSERT INTO "user" VALUES('ben','viewer',NULL,0,'2026-11-30T04:29:19.864Z');
CREATE TABLE webhook (
    name TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    types TEXT NOT NULL,  -- with commas between: task.*,system.error; empty is all
    secret TEXT NOT NULL,  -- itself, not its hash: signing needs it
    batch INTEGER NOT NULL,  -- events in a post at most; 0 is one a post, and not in a list
    batch_end INTEGER NOT NULL,  -- seq of the last event of the newest batch: sent again, it must be the same batch
    state TEXT NOT NULL,  -- active, paused
    created_at TEXT NOT NULL,
    failing_since TEXT,  -- NULL while all is well
    last_status INTEGER,  -- HTTP status of the last answer, NULL where there was none
    last_error TEXT,  -- why the last post failed, NULL where it did not
    last_tried_at TEXT,
    delivered INTEGER NOT NULL,  -- events
    failures INTEGER NOT NULL,  -- posts
    revision INTEGER NOT NULL  -- raised by commands, so that whoever delivers asks anew
);
INSERT INTO "webhook" VALUES('ops','https://ops.example/hook','task.*','whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw',0,0,'paused','2026-11-30T04:29:19.866Z',NULL,NULL,NULL,NULL,0,0,0);
CREATE INDEX event_log_task_id ON event_log (task_id);
CREATE INDEX event_log_agent_id ON event_log (agent_id);
CREATE INDEX event_log_timestamp ON event_log (timestamp);
CREATE INDEX event_log_event_type ON event_log (event_type);
CREATE INDEX event_log_source ON event_log (source);
CREATE INDEX outbox_event_id ON outbox (event_id);
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
CREATE TRIGGER token_removed AFTER DELETE ON token
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rights';
END;
CREATE TRIGGER token_changed AFTER UPDATE OF hash, scopes, types, expires_at ON token
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rights';
END;
CREATE TRIGGER session_removed AFTER DELETE ON session
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rights';
END;
CREATE TRIGGER session_changed AFTER UPDATE ON session
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rights';
END;
CREATE TRIGGER user_removed AFTER DELETE ON user
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rights';
END;
CREATE TRIGGER user_changed AFTER UPDATE OF name, role, is_disabled ON user
BEGIN
    UPDATE meta SET value = value + 1 WHERE key = 'rights';
END;
CREATE INDEX agent_present ON agent (seen_at) WHERE state <> 'left';
CREATE INDEX agent_state ON agent (state, number);
CREATE INDEX task_auction ON task (closes_at) WHERE state = 'bidding';
CREATE INDEX task_held ON task (agent_id) WHERE state IN ('assigned', 'started');
CREATE INDEX task_state ON task (state, number);
CREATE UNIQUE INDEX bid_once ON bid (task_id, agent_id);
CREATE INDEX bid_lowest ON bid (task_id, bid_sats, number);
CREATE TRIGGER event_log_stale AFTER DELETE ON event_log
BEGIN
    UPDATE search_stale SET deletions = deletions + 1 WHERE block = OLD.rowid >> 16;
    INSERT INTO search_stale (block, deletions)
    SELECT OLD.rowid >> 16, 1 WHERE NOT EXISTS (SELECT 1 FROM search_stale WHERE block = OLD.rowid >> 16);
END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('outbox',6);
COMMIT;
