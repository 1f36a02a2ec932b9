// The rows of each panel, and their words and numbers, as `Board` in web/dashboard.py has them. Knows no DOM.

import { MAX_COUNTED, latestOf } from "./state.js";

// --- the rows --------------------------------------------------------------------------------------------------------

export function rowsOf(swarm, now, timeoutSecs) {
  const { auctions, work, ended } = swarm;
  const doing = new Map(work.toReversed().map((task) => [task.agent_id, task]));
  return {
    agents: [...swarm.agents.values()].map((agent) => ({
      key: agent.id,
      state: agent.state,
      name: agent.name,
      doing: doing.has(agent.id) ? cut(doing.get(agent.id).description) : "waits for work",
      seen: seenText(agent.seen_at, now, timeoutSecs),
      seen_at: agent.seen_at,
    })),
    auctions: auctions.map((task) => {
      const left = (Date.parse(task.closes_at) - now) / 1000;
      return {
        key: task.id,
        description: cut(task.description),
        bids: bidsText(task.bid_count, task.lowest_bid_sats),
        left: left > 0 ? lengthText(Math.ceil(left)) : "closing",
        whole_secs: Math.max(1, Math.round((Date.parse(task.closes_at) - Date.parse(task.created_at)) / 1000)),
        left_secs: Math.max(0, Math.round(left)),
      };
    }),
    work: work.map(taskRow),
    ended: ended.map(taskRow),
  };
}

function taskRow(task) {
  const outcomes = { completed: resultText(task.result), failed: task.reason ?? "" };
  const outcome = outcomes[task.state] ?? `${NUMBER.format(task.bid_sats)} sats`;
  return {
    key: task.id,
    state: task.state,
    description: cut(task.description),
    about: [task.state, task.agent_name, cut(outcome)].filter(Boolean).map(isolated).join(" · "),
    at: latestOf(task),
  };
}

// --- words and numbers -----------------------------------------------------------------------------------------------

const MAX_TEXT_CHARS = 200;
const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
export const NUMBER = new Intl.NumberFormat("en-GB");

function cut(text) {
  const chars = [...text];
  return chars.length <= MAX_TEXT_CHARS ? text : `${chars.slice(0, MAX_TEXT_CHARS).join("")}…`;
}

/** *text* so that it moves nothing beside it, where it runs from the right. */
function isolated(text) {
  return RIGHT_TO_LEFT.test(text) ? `\u2068${text}\u2069` : text;
}

function lengthText(secs) {
  return secs < 120 ? `${secs} s` : `${Math.floor(secs / 60)} min`;
}

/** Beats leave no event; but who is still there was heard of in time. */
function seenText(at, now, timeoutSecs) {
  const secs = Math.max(0, Math.floor((now - Date.parse(at)) / 1000));
  return secs >= timeoutSecs ? `< ${lengthText(Math.floor(timeoutSecs))} ago` : `${lengthText(secs)} ago`;
}

function bidsText(count, lowest) {
  if (!count) return "no bid yet";
  return `${NUMBER.format(count)} bid${count === 1 ? "" : "s"}, lowest ${NUMBER.format(lowest)} sats`;
}

export function countText(count) {
  return count > MAX_COUNTED ? `${NUMBER.format(MAX_COUNTED)}+` : NUMBER.format(count);
}

function resultText(result) {
  if (result === null || result === undefined) return "";
  return typeof result === "string" ? result : JSON.stringify(result);
}
