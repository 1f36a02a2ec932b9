// Filters of several elements: the one that covers all, and what each of them matches. As `Filter` on the server.

const FIELDS = ["source", "task_id", "agent_id"];
const MAX_TYPES = 100; // the protocol's limit

/** Return the narrowest filter that matches everything that one of *filters* matches, as far as one filter can. */
export function union(filters) {
  const wide = {};
  const types = [...new Set(filters.flatMap((filter) => filter.types ?? []))];
  if (filters.every((filter) => filter.types) && types.length <= MAX_TYPES) wide.types = types;
  for (const field of FIELDS) {
    const values = new Set(filters.map((filter) => filter[field]));
    const [value] = values;
    if (values.size === 1 && value !== undefined) wide[field] = value;
  }
  return wide;
}

/** Whether *wide* matches everything that *narrow* matches. */
export function covers(wide, narrow) {
  const hasTypes = !wide.types || (narrow.types?.every((type) => wide.types.some((pattern) => isBelow(type, pattern))) ?? false);
  return hasTypes && FIELDS.every((field) => wide[field] === undefined || wide[field] === narrow[field]);
}

export function matches(filter, event) {
  const isWanted = !filter.types || filter.types.some((pattern) => isBelow(String(event.event_type), pattern));
  return isWanted && FIELDS.every((field) => filter[field] === undefined || filter[field] === event[field]);
}

function isBelow(type, pattern) {
  return pattern.endsWith(".*") ? type.startsWith(pattern.slice(0, -1)) : type === pattern;
}
