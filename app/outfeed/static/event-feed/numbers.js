// JSON parser that keeps integers as written: a double rounds integers beyond 2 ** 53.

const LONG = /[:,[]\s*-?\d{16}/; // occurs in few texts; the browser's own parser is faster for the others
const INTEGER = /^-?\d+$/;

/** An integer that calculates as the nearest number, and prints all its digits as text and as JSON. */
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

/** As JSON.parse. A browser without access to the source text (before 2025) rounds as JSON.parse does. */
export function parse(text) {
  // baseline: guarded
  return JSON.rawJSON && LONG.test(text) ? JSON.parse(text, keep) : JSON.parse(text);
}

function keep(_, value, { source }) {
  const isLong = typeof value === "number" && !Number.isSafeInteger(value) && INTEGER.test(source);
  return isLong ? new LongInteger(source) : value;
}
