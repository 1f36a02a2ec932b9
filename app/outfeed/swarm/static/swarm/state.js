// Agents, tasks and counts, as a snapshot had them and the events since have changed them. Knows no DOM.

export const SHOWN = { agents: 50, auctions: 50, work: 50, ended: 20 }; // more tasks that have ended are not kept
export const MAX_COUNTED = 10_000; // more are "10,000+", and are counted no further
const OURS = /^(task|agent)-[0-9a-f]{16}$/; // the coordinator's own: others may log such types as well
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

export class Swarm {
  seq = 0;
  epoch = null;
  counts = {};
  agents = new Map();
  tasks = new Map();

  load({ epoch, seq, agents, tasks, counts }) {
    Object.assign(this, { epoch, seq, counts: { ...counts } });
    this.agents = new Map(agents.map((agent) => [agent.id, { ...agent }]));
    this.tasks = new Map(Object.values(tasks).flat().map((task) => [task.id, { ...task }]));
  }

  /** Take in what the event says; false where it speaks of what is not known here. */
  apply(event, seq) {
    if (seq <= this.seq) return true;
    this.seq = seq;
    const change = Object.hasOwn(CHANGES, event.event_type) ? CHANGES[event.event_type] : null;
    const ids = [event.task_id, event.agent_id].filter(Boolean);
    if (!change || event.source !== "coordinator" || !ids.every((id) => OURS.test(id))) return true;
    const about = /^(task|bid)\./.test(event.event_type) ? event.task_id : event.agent_id;
    if (!about || !isMoment(event.timestamp)) return true;
    const data = event.data ?? {};
    if (HEARD.has(event.event_type)) this.#hear(event);
    return change(this, { event, data, task: this.tasks.get(event.task_id), agent: this.agents.get(event.agent_id) });
  }

  #hear({ agent_id: id, timestamp }) {
    const agent = this.agents.get(id);
    if (agent && timestamp > agent.seen_at) agent.seen_at = timestamp;
  }

  add(task) {
    this.tasks.set(task.id, task);
    this.#count(task.state, 1);
  }

  move(task, state, changes) {
    if (!task) return false;
    if (task.state !== state) {
      this.#count(task.state, -1);
      this.#count(state, 1);
    }
    Object.assign(task, { state, ...changes });
    return true;
  }

  end(task, state, changes) {
    const isKnown = this.move(task, state, changes);
    for (const { id } of this.ended.slice(SHOWN.ended)) this.tasks.delete(id);
    return isKnown;
  }

  #count(state, by) {
    if (this.counts[state] <= MAX_COUNTED) this.counts[state] = Math.max(0, this.counts[state] + by);
  }

  /** The first to close first. */
  get auctions() {
    return this.#in("bidding").sort((one, other) => compare(one.closes_at, other.closes_at));
  }

  get work() {
    return this.#latest("started", "assigned");
  }

  get ended() {
    return this.#latest("completed", "failed");
  }

  #latest(...states) {
    return this.#in(...states).sort((one, other) => compare(latestOf(other), latestOf(one)));
  }

  #in(...states) {
    return [...this.tasks.values()].filter(({ state }) => states.includes(state));
  }
}

export function latestOf(task) {
  return task.ended_at ?? task.started_at ?? task.assigned_at ?? task.created_at;
}

function compare(one, other) {
  return one < other ? -1 : Number(one > other);
}

function isMoment(text) {
  return TIMESTAMP.test(text) && !Number.isNaN(Date.parse(text));
}

// Whoever did these was there: the coordinator takes them for a heartbeat.
const HEARD = new Set([
  "agent.joined", "bid.submitted", "task.started", "task.completed", "tool.called", "tool.completed", "tool.failed",
]);

// What each type changes; false where something is missing.
const CHANGES = {
  "agent.joined": ({ agents }, { event, data }) => {
    const { agent_id: id, timestamp } = event;
    agents.set(id, { id, name: String(data.name), state: "idle", joined_at: timestamp, seen_at: timestamp });
    return true;
  },
  "agent.left": ({ agents }, { event }) => agents.delete(event.agent_id) || true,
  "agent.status_changed": (_, { agent, data }) => Boolean(agent && Object.assign(agent, { state: data.status })),
  "task.bidding": (swarm, { event, data, task }) => {
    if (!task && isMoment(data.closes_at)) {
      const { task_id: id, timestamp } = event;
      const { description, closes_at } = data;
      const auction = { bid_count: 0, lowest_bid_sats: null, agent_id: null, created_at: timestamp, closes_at };
      swarm.add({ id, description: String(description), state: "bidding", ...auction });
    }
    return true;
  },
  "bid.submitted": (_, { data, task }) => {
    if (!task) return false;
    if (!Number.isFinite(data.bid_sats)) return true;
    task.bid_count += 1;
    task.lowest_bid_sats = Math.min(task.lowest_bid_sats ?? Infinity, data.bid_sats);
    return true;
  },
  "task.assigned": (swarm, { event, data, task }) => swarm.move(task, "assigned", {
    agent_id: event.agent_id, agent_name: data.name, bid_sats: Number(data.bid_sats) || 0, assigned_at: event.timestamp,
  }),
  "task.started": (swarm, { event, task }) => swarm.move(task, "started", { started_at: event.timestamp }),
  "task.completed": (swarm, { event, data, task }) => swarm.end(task, "completed", {
    ended_at: event.timestamp, result: data.result,
  }),
  "task.failed": (swarm, { event, data, task }) => swarm.end(task, "failed", {
    ended_at: event.timestamp, reason: String(data.reason ?? ""),
  }),
  "tool.called": () => true,
  "tool.completed": () => true,
  "tool.failed": () => true,
};
