// The look of an event, by the same rules as display.py: tests/looks.json holds both to one table. Uses no DOM.

const MAX_VALUE_CHARS = 80;
const MAX_PAIRS = 4; // of a type without a label
const MISSING = "–";
export const OTHER = "other";
const COLOURS = 12;
export const KINDS = ["task", "agent", "bid", "tool", "system", OTHER]; // those with a colour of their own
const EVENT_FIELDS = new Set(["id", "event_type", "source", "task_id", "agent_id", "timestamp"]);
const SAID = ["message", "description", "name", "title", "reason", "error"];
const ICONS = { info: "", warning: "🔶", error: "❌" }; // of a type that has no icon
const CHANGE = ["op", "table", "key"]; // what a watched table writes
const FAILURE = /^(?:.*[._])?(?:failed|error|captured)$/s;
// Matches the separators of Python's str.split(), which differ from \s: the page and the terminal show the same text.
export const SPACES = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/** Looks by two tables: that of Outfeed's own types, and the displays that were set. */
export class Sentences {
  #own = {};
  #displays = new Map();

  /** The content of `event-types.json`. */
  set own(table) {
    this.#own = table;
  }

  /** The `displays` in the answer of GET /api/types. */
  set displays(table) {
    this.#displays = new Map(Object.entries(table));
  }

  /** Return {kind, colour, icon, level, parts} of *event*; each part is [text, role]: text, name or type. */
  lookOf(event) {
    const type = typeof event.event_type === "string" ? event.event_type : "";
    if (Object.hasOwn(this.#own, type)) return ownLook(this.#own[type], event);
    const display = this.#displays.get(type);
    const level = display?.level ?? levelOf(type, event);
    const parts = display?.label ? fill(parsed(display.label), event) : plain(type, event);
    const kind = kindOf(type);
    return { kind, colour: colourOf(kind), icon: display?.icon || ICONS[level], level, parts };
  }
}

function ownLook({ kind, icon, level, parts }, event) {
  return { kind, colour: colourOf(kind), icon, level, parts: fill(parts, event) };
}

function kindOf(type) {
  const [word] = type.split(".", 1);
  return /^[a-z][a-z0-9_]{0,62}$/.test(word) ? word : OTHER;
}

/** The kind's own colour, or one of twelve by its FNV-1a hash. */
export function colourOf(kind) {
  if (KINDS.includes(kind)) return kind;
  let number = 2166136261;
  for (const char of kind) number = Math.imul(number ^ char.codePointAt(0), 16777619) >>> 0;
  return `kind-${number % COLOURS}`;
}

function levelOf(type, { data }) {
  const said = members(data).level;
  if (typeof said === "string" && Object.hasOwn(ICONS, said.toLowerCase())) return said.toLowerCase();
  return FAILURE.test(type) ? "error" : "info";
}

// --- labels ----------------------------------------------------------------------------------------------------------

/** A label as text and slots: `{a|b:20}` is the first filled of a and b, cut at 20 characters. */
function parsed(label) {
  const split = label.split(/\{([^{}]*)\}/);
  return split.map((text, index) => (index % 2 ? slotOf(text) : text)).filter(Boolean);
}

function slotOf(text) {
  const [, names, chars] = /^(.*):([0-9]{1,3})$/s.exec(text) ?? [null, text, MAX_VALUE_CHARS];
  return { names: names.split("|"), fallback: MISSING, before: "", after: "", chars: Number(chars) };
}

function fill(parts, event) {
  return parts.flatMap((part) => {
    if (typeof part === "string") return [[part, "text"]];
    const text = firstFilled(part.names.map((name) => () => valueOf(name, event))) || part.fallback;
    if (!text) return [];
    const around = [[part.before, "text"], [cut(text, part.chars), "name"], [part.after, "text"]];
    return around.filter(([found]) => found);
  });
}

/** The first of `data.name`, `data.row.name` and the event's own field that is filled; empty without one. */
function valueOf(name, event) {
  const data = members(event.data);
  if (name.startsWith("was.")) return textOf(own(members(own(data, "was")), name.slice(4)));
  return firstFilled([
    () => textOf(own(data, name)),
    () => textOf(own(members(own(data, "row")), name)),
    () => (EVENT_FIELDS.has(name) ? textOf(event[name]) : ""),
  ]);
}

function firstFilled(asks) {
  for (const ask of asks) {
    const text = ask();
    if (text) return text;
  }
  return "";
}

function own(object, name) {
  return Object.hasOwn(object, name) ? object[name] : null;
}

function members(value) {
  return value instanceof Object && !Array.isArray(value) && !(value instanceof Number) ? value : {};
}

/** A scalar as text on one line; empty for null, an object or an array. */
function textOf(value) {
  if (!["string", "number", "boolean"].includes(typeof value) && !(value instanceof Number)) return "";
  return String(value).split(SPACES).filter(Boolean).join(" ");
}

function cut(text, most) {
  if (text.length <= most) return text;
  const chars = [...text];
  return chars.length <= most ? text : `${chars.slice(0, most - 1).join("")}…`;
}

// --- a type without a label ------------------------------------------------------------------------------------------

/** The type, then what the data says: a sentence, the change of a row, or its first scalars. */
function plain(type, event) {
  const data = members(event.data);
  const head = [cut(textOf(type) || MISSING, MAX_VALUE_CHARS), "type"];
  const said = firstFilled(SAID.map((name) => () => textOf(own(data, name)))) || textOf(event.data);
  if (said) return [head, [" ", "text"], [cut(said, MAX_VALUE_CHARS), "name"]];
  if (!CHANGE.every((name) => Object.hasOwn(data, name))) return [head, ...pairs(data)];
  const [row, was, key] = ["row", "was", "key"].map((name) => members(own(data, name)));
  if (data.op === "update" && Object.keys(was).length) return [head, ...pairs(key), ...changes(was, row)];
  return [head, ...pairs([row, key].find((found) => Object.keys(found).length) ?? data)];
}

function pairs(object) {
  const filled = Object.entries(object).map(([name, value]) => [name, textOf(value)]).filter(([, text]) => text);
  return filled.slice(0, MAX_PAIRS).flatMap(([name, text]) => [keyOf(name), [cut(text, MAX_VALUE_CHARS), "name"]]);
}

function changes(was, row) {
  return Object.entries(was).slice(0, MAX_PAIRS).flatMap(([name, old]) => [
    keyOf(name),
    [cut(textOf(old) || MISSING, MAX_VALUE_CHARS), "name"],
    [" → ", "text"],
    [cut(textOf(own(row, name)) || MISSING, MAX_VALUE_CHARS), "name"],
  ]);
}

function keyOf(name) {
  return [` ${cut(textOf(name), MAX_VALUE_CHARS)}=`, "text"];
}
