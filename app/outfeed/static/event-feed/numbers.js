// JSON whose integers stay as they were written: a double rounds those beyond 2 ** 53.

const LONG = /[:,[]\s*-?\d{16}/; // found in few texts; the others are parsed as fast as the browser can
const INTEGER = /^-?\d+$/;

/** Counts as the nearest number, and is written, as text and as JSON, with all its digits. */
class LongInteger extends Number {
  #digits;

  constructor(digits) {
    super(digits);
    this.#digits = digits;
  }

  toString() {
    return this.#digits;
  }

  toJSON() {
    return JSON.rawJSON(this.#digits); // baseline: guarded
  }
}

/** As JSON.parse; a browser that doesn't say what was written (before 2025) rounds as that does. */
export function parse(text) {
  // baseline: guarded
  return JSON.rawJSON && LONG.test(text) ? JSON.parse(text, keep) : JSON.parse(text);
}

function keep(_, value, { source }) {
  const isLong = typeof value === "number" && !Number.isSafeInteger(value) && INTEGER.test(source);
  return isLong ? new LongInteger(source) : value;
}
