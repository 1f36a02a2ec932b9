-- The swarm: agents, tasks and bids. Every change is an event in the log, written in the same transaction.
-- depends: 0006.webhook

-- Times are wall times as in the log (UTC, ISO 8601, milliseconds, Z), so that they compare as text. `number` is the
-- order in which rows were created, independent of the clock.
CREATE TABLE outfeed_agent (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('idle', 'busy', 'left')),
    joined_at TEXT NOT NULL,
    seen_at TEXT NOT NULL,  -- the last call of the agent
    left_at TEXT,
    reason TEXT  -- the reason for leaving
);

-- Serves "which agents are overdue" and "which agents are present".
CREATE INDEX outfeed_agent_present ON outfeed_agent (seen_at) WHERE state <> 'left';

-- Serves lists of one state, newest first.
CREATE INDEX outfeed_agent_state ON outfeed_agent (state, number);

CREATE TABLE outfeed_task (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('bidding', 'assigned', 'started', 'completed', 'failed')),
    created_at TEXT NOT NULL,
    closes_at TEXT NOT NULL,  -- the end of the auction
    agent_id TEXT REFERENCES outfeed_agent (id),  -- the winner
    bid_sats INTEGER,  -- the winner's price
    assigned_at TEXT,
    started_at TEXT,
    ended_at TEXT,
    result TEXT,  -- JSON
    reason TEXT  -- the reason for the failure
);

-- Serves "which auctions are due".
CREATE INDEX outfeed_task_auction ON outfeed_task (closes_at) WHERE state = 'bidding';

-- Serves "which tasks does this agent hold".
CREATE INDEX outfeed_task_held ON outfeed_task (agent_id) WHERE state IN ('assigned', 'started');

-- Serves lists and counts of one state, newest first.
CREATE INDEX outfeed_task_state ON outfeed_task (state, number);

CREATE TABLE outfeed_bid (
    number INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL REFERENCES outfeed_task (id),
    agent_id TEXT NOT NULL REFERENCES outfeed_agent (id),
    bid_sats INTEGER NOT NULL,
    created_at TEXT NOT NULL
);

-- An agent bids once for a task.
CREATE UNIQUE INDEX outfeed_bid_once ON outfeed_bid (task_id, agent_id);

-- Serves "which bid wins": the lowest, and of equal bids the earliest.
CREATE INDEX outfeed_bid_lowest ON outfeed_bid (task_id, bid_sats, number);
