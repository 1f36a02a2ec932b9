// The look of the feed: colours from the page's custom properties, light and dark from its color-scheme, or without one
// from its background. The rows look as in outfeed.css. It uses constructable stylesheets: `style-src 'self'` allows
// them, and no further file is needed.

// --- colours ---------------------------------------------------------------------------------------------------------

// Each in light and in dark. A page sets --event-feed-surface, or --surface if no other part of it has that name.
const COLOURS = {
  surface: ["#fff", "#161b22"],
  ink: ["#1b2430", "#e3e8ef"],
  muted: ["#5c6878", "#93a0b1"],
  line: ["#e6eaef", "#252d38"],
  hover: ["#f6f8fa", "#1b222b"],
  accent: ["#2a5fd0", "#7aa7ff"],
  good: ["#128253", "#3fcf8e"],
  warn: ["#9a5b00", "#f0b849"],
  "warn-ground": ["#fdf6e7", "#2a2314"],
  error: ["#bf2c2c", "#ff8a80"],
  "error-ground": ["#fdf0ef", "#2d1a1c"],
  field: ["#8a94a3", "#5d6a7a"],
  task: ["#3b74e0", "#6ea0ff"],
  agent: ["#14957a", "#37c2a2"],
  bid: ["#d19a1c", "#e5b445"],
  tool: ["#8458d4", "#b08cf5"],
  system: ["#5d6b7d", "#8794a6"],
  other: ["#98a2b0", "#6b7685"],
  "kind-0": ["#af4803", "#e67339"],
  "kind-1": ["#8f5d03", "#c9850e"],
  "kind-2": ["#746703", "#a6930b"],
  "kind-3": ["#4f700b", "#76a320"],
  "kind-4": ["#0b7643", "#10ae65"],
  "kind-5": ["#117367", "#13a998"],
  "kind-6": ["#06707e", "#19a4b7"],
  "kind-7": ["#076e9d", "#019ddf"],
  "kind-8": ["#3a61c4", "#6490f7"],
  "kind-9": ["#7154bf", "#9d82f1"],
  "kind-10": ["#9346a4", "#c374d5"],
  "kind-11": ["#aa3c7d", "#e06dae"],
};

const LIGHT = palette((light) => light);
const DARK = palette((_, dark) => dark);
// With this, a browser follows a change of the page's color-scheme. baseline: guarded
const EITHER = CSS.supports("color", "light-dark(#000, #fff)") ? palette((...both) => `light-dark(${both})`) : null;
const SYSTEM = matchMedia("(prefers-color-scheme: dark)");

function palette(pick) {
  const lines = Object.entries(COLOURS).map(([name, both]) => `--_${name}: var(--event-feed-${name}, var(--${name}, ${pick(...both)}));`);
  return sheetOf(`:host { ${lines.join(" ")} }`);
}

function sheetOf(text) {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(text);
  return sheet;
}

/** Give *root* the style, in light or dark by *host*, its page and the system. Return a function that chooses again. */
export function applyStyle(root, host, signal) {
  let chosen = null;
  const choose = () => {
    root.adoptedStyleSheets = [STYLE]; // contains the color-scheme of a theme
    const isOnDark = getComputedStyle(host).colorScheme === "normal" && isOnDarkGround(host);
    root.adoptedStyleSheets = isOnDark ? [STYLE, ON_DARK] : [STYLE];
    root.adoptedStyleSheets.push(EITHER ?? (isDark(host) ? DARK : LIGHT));
    chosen = groundsOf(host);
  };
  const follow = () => groundsOf(host) !== chosen && choose();
  const observer = new MutationObserver(follow); // a page changes its theme by an attribute of one of these
  for (const node of [document.documentElement, document.body]) observer.observe(node, { attributes: true });
  signal.addEventListener("abort", () => observer.disconnect());
  addEventListener("load", follow, { signal }); // a stylesheet may be loaded after this module
  SYSTEM.addEventListener("change", choose, { signal });
  choose();
  return choose;
}

/** Whether the color-scheme of *host* is dark. If it allows both, the system decides. */
function isDark(host) {
  const schemes = getComputedStyle(host).colorScheme.split(" ");
  return schemes.includes("dark") && (SYSTEM.matches || !schemes.includes("light"));
}

// --- the page's background -------------------------------------------------------------------------------------------

const ON_DARK = sheetOf(":host { color-scheme: dark; }");
const MIN_ALPHA = 0.5;

function isOnDarkGround(host) {
  return lightnessOf(groundOf(host)) < 0.5;
}

/** The colour-scheme and background around *host*, as text: if it is the same, so is the choice. */
function groundsOf(host) {
  return `${getComputedStyle(parentOf(host) ?? host).colorScheme} ${groundOf(host)}`;
}

/** Return the background of the nearest element around *host* that has one; white without one. */
function groundOf(host) {
  for (let node = parentOf(host); node instanceof Element; node = parentOf(node)) {
    const { backgroundColor } = getComputedStyle(node);
    if (partsOf(backgroundColor).alpha >= MIN_ALPHA) return backgroundColor;
  }
  return "rgb(255, 255, 255)";
}

function parentOf(node) {
  const parent = node.assignedSlot ?? node.parentNode;
  return parent instanceof ShadowRoot ? parent.host : parent;
}

/** Return the numbers of a computed colour, like rgb(0, 0, 0) or color(srgb 0 0 0 / 0.5). */
function partsOf(colour) {
  const [, space, text] = /^([a-z]+)\((.*)\)$/.exec(colour) ?? [null, "", ""];
  const [numbers, alpha = "1"] = text.replace(/^[a-z][a-z0-9-]* /, "").split("/");
  const parts = numbers.split(/[\s,]+/).filter(Boolean).map(Number);
  return { space, parts: parts.slice(0, 3), alpha: parts.length > 3 ? parts[3] : Number(alpha) };
}

/** Return the lightness from 0 to 1, roughly. */
function lightnessOf(colour) {
  const { space, parts: [first, second, third] } = partsOf(colour);
  if (space.startsWith("ok")) return first;
  if (space.startsWith("l")) return first / 100; // lab and lch
  return (0.299 * first + 0.587 * second + 0.114 * third) / (space === "color" ? 1 : 255);
}

const KINDS = ["task", "agent", "bid", "tool", "system", "other", ...Array.from({ length: 12 }, (_, index) => `kind-${index}`)]
  .map((name) => `[data-colour="${name}"] { --_kind: var(--_${name}); }`).join("\n");

// --- the stylesheet --------------------------------------------------------------------------------------------------

const STYLE = sheetOf(`
:host {
  --_mono: var(--event-feed-mono, var(--mono, ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace));
  display: flex;
  flex-direction: column;
  min-height: 12rem;
  min-width: min(100%, 16rem);
  max-height: var(--event-feed-height, 70vh);
  overflow: hidden;
  border: 1px solid var(--_line);
  border-radius: 10px;
  background: var(--_surface);
  color: var(--_ink);
  font: var(--event-feed-font, 0.875rem/1.4 -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif);
}
@media (max-height: 30rem) { :host { min-height: 20rem; } } /* in a zoomed window the bar alone may need 12rem */
:host([hidden]), [hidden] { display: none !important; }
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([theme="auto"]) { color-scheme: light dark; }
* { box-sizing: border-box; }
:focus-visible { outline: 2px solid var(--_accent); outline-offset: -2px; }
a { color: var(--_accent); }

::slotted([slot="title"]) { margin: 0; }
:host([controls="none"]) :is(.filter, .find, .pause) { display: none; }
:host([controls="compact"]) { min-height: 8rem; }

.head { container-type: inline-size; }
.bar {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.5rem 1rem;
  min-height: 3rem;
  padding: 0.5rem 0.625rem 0.5rem 1rem;
  border-bottom: 1px solid var(--_line);
}
.chip {
  display: inline-flex;
  align-items: center;
  gap: 0.5rem;
  color: var(--_muted);
  font-variant-numeric: tabular-nums;
}
.dot { flex: none; width: 0.5rem; height: 0.5rem; border-radius: 50%; background: var(--_state); }
.bar { --_state: var(--_muted); }
.bar[data-state="live"] { --_state: var(--_good); }
.bar[data-state="live"] .dot { box-shadow: 0 0 0 3px color-mix(in srgb, var(--_state) 20%, transparent); }
.bar:is([data-state="catching-up"], [data-state="polling"]) { --_state: var(--_accent); }
.bar:is([data-state="reconnecting"], [data-state="paused"]) { --_state: var(--_warn); }
.bar:is([data-state="stale"], [data-state="signed-out"], [data-state="refused"]) { --_state: var(--_error); }
.bar:is([data-state="reconnecting"], [data-state="connecting"]) .dot {
  background: none;
  border: 2px solid var(--_state);
}
.bar[data-state="paused"] .dot { border-radius: 1px; }
.bar:is([data-state="reconnecting"], [data-state="paused"], [data-state="stale"]) .label { color: var(--_state); }
.bar:is([data-state="signed-out"], [data-state="refused"]) .label { color: var(--_state); }

button {
  min-height: 2rem;
  padding: 0 0.75rem;
  border: 1px solid var(--_line);
  border-radius: 6px;
  background: var(--_surface);
  color: inherit;
  font: inherit;
  cursor: pointer;
}
button:hover { background: var(--_hover); }
.gap {
  border-color: color-mix(in srgb, var(--_warn) 45%, transparent);
  background: var(--_warn-ground);
  color: var(--_warn);
}
.pause { display: inline-flex; align-items: center; gap: 0.5rem; margin-left: auto; }

.find { display: none; width: 2.25rem; padding: 0; }
.find::before {
  content: "";
  width: 0.5625rem;
  height: 0.5625rem;
  border: 2px solid currentcolor;
  border-radius: 50%;
  box-sizing: content-box;
}
.find::after {
  content: "";
  align-self: center;
  width: 0.4375rem;
  height: 2px;
  margin: 0.75rem 0 0 -0.125rem;
  background: currentcolor;
  transform: rotate(45deg);
}
.find[aria-expanded="true"] { border-color: var(--_accent); color: var(--_accent); }

.filter { display: flex; flex: 1 1 9rem; align-items: center; justify-content: flex-end; gap: 0.5rem; min-width: 0; }
.filter + .pause { margin-left: 0; }
.chips {
  display: flex;
  min-width: 0;
  padding: 3px 0 3px 3px;
  overflow-x: auto;
  scrollbar-width: none;
}
.chips::after {
  content: "";
  position: sticky;
  right: 0;
  flex: none;
  width: 1.25rem;
  background: linear-gradient(to right, transparent, var(--_surface));
  pointer-events: none;
}
.chips::-webkit-scrollbar { display: none; }
.chips button {
  display: inline-flex;
  flex: none;
  align-items: center;
  gap: 0.375rem;
  min-height: 1.75rem;
  padding: 0 0.5rem;
  border-color: transparent;
  background: none;
  color: var(--_muted);
  font-size: 0.8125rem;
}
.chips button::before { content: ""; width: 0.5rem; height: 0.5rem; border-radius: 2px; background: var(--_kind); }
.chips .number { color: var(--_muted); font-size: 0.75rem; font-variant-numeric: tabular-nums; }
.chips .number:empty { display: none; }
.chips button:hover { background: var(--_hover); color: var(--_ink); }
.chips button[aria-pressed="true"] {
  border-color: var(--_kind);
  background: color-mix(in srgb, var(--_kind) 12%, transparent);
  color: var(--_ink);
}
.count { color: var(--_muted); font-size: 0.8125rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.count:empty { display: none; }
input {
  flex: 0 1 13rem;
  min-width: 7rem;
  min-height: 2rem;
  padding: 0 0.625rem;
  border: 1px solid var(--_field);
  border-radius: 6px;
  background: var(--_surface);
  color: inherit;
  font: inherit;
}
@media (pointer: coarse) { input { font-size: max(1rem, 16px); } } /* iOS zooms into inputs with smaller text */
input::placeholder { color: var(--_muted); opacity: 1; }
.nothing { margin: 0; padding: 2.5rem 1rem; color: var(--_muted); text-align: center; }
.nothing button { margin-left: 0.5rem; color: var(--_ink); }
.past { margin: 0; padding: 0.625rem 1rem; color: var(--_muted); text-align: center; }
.past:empty { display: none; }
.past button { color: var(--_ink); }
@container (max-width: 44rem) {
  .filter { flex: 1 1 100%; order: 1; justify-content: flex-start; }
  .filter + .pause { margin-left: auto; }
  .chips { flex: 1 1 0; margin-left: -0.5rem; }
}
@container (max-width: 30rem) {
  .filter { flex-wrap: wrap; }
  .chips { flex-basis: 100%; }
  input { flex: 1 1 8rem; }
  .chip { flex: 1 1 0; flex-wrap: wrap; row-gap: 0; min-width: 8rem; }
  .label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .bar:is([data-state="stale"], [data-state="refused"]) .label { white-space: normal; }
  .gap { order: 1; }
  .bar { column-gap: 0.5rem; }
  .retry, .pill { padding: 0 0.625rem; }
  .bar[data-crowded="true"] slot { display: none; }
  .pause { gap: 0; width: 2.25rem; padding: 0; justify-content: center; font-size: 0; }
}
@container (max-width: 20rem) { .chips:not([data-pressed="true"]) { display: none; } }
/* One line: title, state, and buttons without text. */
:host([controls="compact"]) .bar { flex-wrap: wrap; gap: 0.375rem; min-height: 2.5rem; padding: 0.25rem 0.375rem 0.25rem 0.75rem; }
:host([controls="compact"]) .chip { flex: 1 1 0; min-width: 3.5rem; }
:host([controls="compact"]) .label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
:host([controls="compact"]) .bar:is([data-state="stale"], [data-state="refused"]) .label { white-space: normal; }
:host([controls="compact"]) .find { display: inline-flex; align-items: center; justify-content: center; }
:host([controls="compact"]) .chips { display: none; }
:host([controls="compact"]) .filter { flex: 1 1 100%; order: 1; margin: 0; }
:host([controls="compact"]) .filter:not([data-open="true"]) { display: none; }
:host([controls="compact"]) .pause { gap: 0; width: 2.25rem; margin: 0; padding: 0; justify-content: center; font-size: 0; }
.pause::before {
  content: "";
  width: 0.25rem;
  height: 0.6875rem;
  border: solid currentcolor;
  border-width: 0 0.1875rem;
  box-sizing: content-box;
}
.pause[data-paused="true"]::before {
  width: 0;
  height: 0;
  border: solid transparent;
  border-width: 0.3125rem 0 0.3125rem 0.5625rem;
  border-left-color: currentcolor;
}

.scroller {
  flex: 1;
  min-width: 0;
  overflow: hidden auto;
  overflow-anchor: none;
  container-type: inline-size;
  scrollbar-width: thin;
  scrollbar-color: var(--_line) transparent;
}
.pill {
  border: 0;
  border-radius: 1rem;
  background: var(--_accent);
  color: var(--_surface);
  font-weight: 600;
  font-variant-numeric: tabular-nums;
}
.pill::before { content: "↑ "; }
.pill:hover { background: color-mix(in srgb, var(--_accent) 88%, var(--_ink)); }
.pill:focus-visible { outline-offset: 2px; }

.rows { --_times: 4.25rem; --_row-space: var(--event-feed-row-space, 0.375rem); margin: 0; padding: 0; list-style: none; }
.rows[data-times="date"] { --_times: 7.5rem; }
.rows[data-times="year"] { --_times: 9.75rem; }
.rows[data-times="long"] { --_times: 11rem; }
li { border-bottom: 1px solid var(--_line); }
.members { margin: 0; padding: 0 0 0 1rem; border-top: 1px solid var(--_line); list-style: none; }
.members .event:last-child { border-bottom: 0; }
.many {
  padding: 0.0625rem 0.375rem;
  border-radius: 4px;
  background: color-mix(in srgb, var(--_kind) 22%, transparent);
  color: var(--_ink);
  font-weight: 600;
}
.event { border-left: 3px solid var(--_kind); content-visibility: auto; contain-intrinsic-size: auto 2.125rem; }
${KINDS}
summary {
  display: grid;
  grid-template-columns: var(--_times) 1.375rem minmax(0, 1fr) auto;
  align-items: baseline;
  gap: 0 0.75rem;
  padding: var(--_row-space) 1rem var(--_row-space) 0.8125rem;
  line-height: var(--event-feed-row-line, 1.25rem); /* rows of whole pixels: a line between two rows at half a pixel is not drawn */
  list-style: none;
  cursor: pointer;
}
summary::-webkit-details-marker { display: none; }
summary:hover { background: var(--_hover); }
time, .meta, dl, pre { font-family: var(--_mono); font-size: 0.78125rem; font-variant-numeric: tabular-nums; }
time {
  grid-area: 1 / 1;
  max-width: 11rem;
  overflow: hidden;
  color: var(--_muted);
  text-overflow: ellipsis;
  white-space: nowrap;
}
.icon { grid-area: 1 / 2; text-align: center; line-height: 1; }
.icon:empty::before { content: ""; display: inline-block; width: 0.5rem; height: 0.5rem; border-radius: 2px; background: var(--_kind); }
.sentence { grid-area: 1 / 3; overflow: hidden; color: var(--_muted); text-overflow: ellipsis; white-space: nowrap; }
b { color: var(--_ink); font-weight: 500; }
b, .meta span, dd, dd a { unicode-bidi: plaintext; text-align: left; } /* the first letter decides the direction */
.meta { display: flex; grid-area: 1 / 4; gap: 0.875rem; color: var(--_muted); white-space: nowrap; }
details[open] > summary .sentence { white-space: normal; overflow-wrap: anywhere; }
details[open] > summary { background: var(--_hover); }
.type {
  padding: 0.0625rem 0.375rem;
  border-radius: 4px;
  background: color-mix(in srgb, var(--_kind) 14%, transparent);
  color: var(--_ink);
  font: 0.78125rem var(--_mono);
}
.event[data-level="warning"] { --_kind: var(--_warn); background: var(--_warn-ground); }
.event[data-level="error"] { --_kind: var(--_error); background: var(--_error-ground); }
:is([data-level="warning"], [data-level="error"]) :is(.sentence, b, .type, .many) { color: var(--_kind); }
:is([data-level="warning"], [data-level="error"]) :is(.type, .many) { background: var(--_surface); }
[data-level="error"] b { font-weight: 600; }
:is([data-level="warning"], [data-level="error"]) :is(summary:hover, [open] > summary) { background: color-mix(in srgb, var(--_kind) 8%, transparent); }
.more { padding: 0.25rem 1rem 0.875rem 0.8125rem; background: var(--_hover); }
:is([data-level="warning"], [data-level="error"]) .more { background: none; }
dl { display: grid; gap: 0.125rem; margin: 0; line-height: 1.5rem; }
dd a { display: inline-block; } /* 24 px, for touch */
dl div { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: 0.75rem; }
dt { color: var(--_muted); }
dd { margin: 0; overflow-wrap: anywhere; }
pre {
  max-height: 20rem;
  margin: 0.625rem 0 0;
  padding: 0.625rem 0.75rem;
  overflow: auto;
  border: 1px solid var(--_line);
  border-radius: 6px;
  background: var(--_surface);
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
.notice {
  padding: 0.625rem 1rem 0.625rem 0.8125rem;
  border-left: 3px solid var(--_warn);
  background: var(--_warn-ground);
}
.notice b { color: var(--_warn); font-weight: 600; }

.new { animation: arrive 1.2s ease-out; }
@keyframes arrive { from { background-color: color-mix(in srgb, var(--_ink) 8%, transparent); } }
@media (prefers-reduced-motion: reduce) { .new { animation: none; } }

@container (max-width: 44rem) {
  .event { contain-intrinsic-size: auto 3.4375rem; }
  summary {
    grid-template-columns: 1.375rem auto minmax(0, 1fr);
    gap: 0.0625rem 0.625rem;
    padding-inline: 0.625rem 0.75rem;
    padding-block: calc(var(--_row-space) + 0.125rem);
  }
  .icon { grid-area: 1 / 1; }
  .sentence { grid-area: 1 / 2 / auto / -1; }
  [data-level="error"] .sentence {
    display: -webkit-box;
    white-space: normal;
    overflow-wrap: anywhere;
    -webkit-box-orient: vertical;
    -webkit-line-clamp: 2;
  }
  [open] > summary .sentence { display: block; }
  time { grid-area: 2 / 2; }
  .meta { grid-area: 2 / 3; gap: 0.625rem; min-width: 0; overflow: hidden; }
  .meta span { min-width: 0; overflow: hidden; text-overflow: ellipsis; }
  time, .meta { font-size: 0.75rem; line-height: 1.0625rem; }
}
/* The columns that the attribute leaves out. */
.rows[data-columns]:not([data-columns~="time"]) time,
.rows[data-columns]:not([data-columns~="icon"]) .icon,
.rows[data-columns]:not([data-columns~="source"]) .source,
.rows[data-columns]:not([data-columns~="task_id"]) .task_id,
.rows[data-columns]:not([data-columns~="agent_id"]) .agent_id { display: none; }
.rows[data-columns]:not([data-columns~="time"]) summary { grid-template-columns: 0 1.375rem minmax(0, 1fr) auto; column-gap: 0.375rem; }
.rows[data-columns]:not([data-columns~="icon"]) summary { grid-template-columns: var(--_times) 0 minmax(0, 1fr) auto; column-gap: 0.375rem; }
.rows[data-columns]:not([data-columns~="time"], [data-columns~="icon"]) summary { grid-template-columns: 0 0 minmax(0, 1fr) auto; }
@container (max-width: 44rem) {
  .rows[data-columns]:not([data-columns~="time"]) summary { grid-template-columns: 1.375rem 0 minmax(0, 1fr); }
  .rows[data-columns]:not([data-columns~="icon"]) summary { grid-template-columns: 0 auto minmax(0, 1fr); }
  .rows[data-columns]:not([data-columns~="time"], [data-columns~="icon"]) summary { grid-template-columns: 0 0 minmax(0, 1fr); }
}
@media (forced-colors: active) {
  .dot, .chips button::before { forced-color-adjust: none; }
  .chips button[aria-pressed="true"] {
    forced-color-adjust: none;
    border-color: Highlight;
    background: Highlight;
    color: HighlightText;
  }
  .pause::before { color: ButtonText; forced-color-adjust: none; } /* a triangle's other borders must stay invisible */
  .pill { border: 1px solid; }
}
@media print {
  :host { display: block; max-height: none; overflow: visible; border: 0; }
  .scroller { overflow: visible; }
  .pause, .retry, .pill, .past, .filter, .chip a { display: none; }
  .event { content-visibility: visible; break-inside: avoid; }
  .event, .dot { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .sentence, [data-level="error"] .sentence { display: block; white-space: normal; overflow-wrap: anywhere; }
}
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`);
