// A row: the event in one line, and opened, all that it holds.

import { NUMBER, clockOf, linkTo, make, momentOf, setText } from "./elements.js";

const MAX_ID_CHARS = 20; // a longer id says nothing to a reader, and the opened row has it

/** Return a closed row with the event's time, as in `_event.html`. `paint` adds the rest. */
export function rowOf(event) {
  const icon = make("span", "icon");
  icon.setAttribute("aria-hidden", "true");
  const summary = make("summary", "", icon, make("span", "sentence"), timeOf(event.timestamp), make("span", "meta"));
  summary.tabIndex = -1;
  const row = make("li", "event", make("details", "", summary));
  if (event.seq) row.dataset.seq = event.seq;
  return row;
}

/** Set icon, sentence, source and ids, and the attributes that decide the colours. */
export function paint(row, event, { kind, colour, icon, level, parts }) {
  Object.assign(row.dataset, { kind, colour, level });
  setText(row.querySelector(".icon"), icon);
  row.querySelector(".sentence").replaceChildren(...parts.map(partOf));
  row.querySelector(".meta").replaceChildren(...metaOf(event, parts));
}

function partOf([text, role]) {
  if (role === "name") return make("b", "", text);
  return role === "type" ? make("code", "type", text) : text;
}

function timeOf(timestamp) {
  const text = String(timestamp ?? "");
  const moment = momentOf(text);
  const time = make("time", "", moment ? clockOf(moment) : text);
  time.title = text;
  if (moment) time.dateTime = moment.toISOString();
  return time;
}

/** Return the source and the ids that the sentence does not contain, without long ids: as `Row.meta` in log/live.py. */
function metaOf(event, parts) {
  const said = new Set(parts.filter(([, role]) => role === "name").map(([text]) => text));
  return ["source", "task_id", "agent_id"].flatMap((field) => {
    const value = String(event[field] ?? "");
    if (!value || said.has(value) || (field !== "source" && [...value].length > MAX_ID_CHARS)) return [];
    const item = make("span", field, value);
    item.title = `${field} ${value}`;
    return [item];
  });
}

// --- an opened row ---------------------------------------------------------------------------------------------------

const MAX_NAME_CHARS = 200; // the limit of a filter's value
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._:@~-]*$/; // names that are safe in a path, as in http/addresses.py
// For each field, its parameter in the log's address, and its own pages beside the log, if any.
const LINKS = {
  id: ["id", "./"],
  event_type: ["type"],
  source: ["source"],
  task_id: ["task", "../tasks/"],
  agent_id: ["agent", "../agents/"],
};

/** Return all fields of the event, with links to the log, as `Row.fields` in log/live.py does. */
export function detailsOf({ data, omitted_bytes: omitted, ...fields }, logHref) {
  const list = make("dl");
  for (const [name, value] of Object.entries(fields)) {
    if (value) list.append(make("div", "", make("dt", "", name), make("dd", "", shown(name, String(value), logHref))));
  }
  const left = omitted ? `${NUMBER.format(omitted)} bytes of data are too large to show here.` : null;
  const details = make("div", "more", list);
  if (left || data !== null) details.append(make("pre", "", left ?? JSON.stringify(data, null, 2)));
  return details;
}

function shown(name, value, logHref) {
  if (!Object.hasOwn(LINKS, name) || [...value].length > MAX_NAME_CHARS) return value;
  const [parameter, pages] = LINKS[name];
  const log = new URL(logHref, document.baseURI);
  const query = `${log.pathname}?${new URLSearchParams({ [parameter]: value })}`;
  const address = pages && PLAIN.test(value) ? `${log.pathname}/${pages}${value}` : query;
  return linkTo(new URL(address, log).href, value);
}
