// Script of every page: keys, the user menu, and buttons that copy. Each part works without it, or is hidden.

const keys = document.getElementById("keys");
const PAGES = { l: "swarm/live", e: "swarm/events" };
const NEIGHBOURS = { "[": "prev", ArrowLeft: "prev", "]": "next", ArrowRight: "next" };
const STEPS = { j: 1, k: -1 };
const ROWS = "main :is(.event, .listing > li, .admin-list tbody tr, .admin-group li, .hits > li)";
const HANDLES = "summary, a, button"; // the first one of a row has the focus
const PREFIX_MS = 1_500;
const SHOWN_MS = 2_000;

let prefixAt = -Infinity; // time of the last "g"

// Keys

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || keys.open || isTyping(event)) return;
  if (event.key === "Escape") return closeMenus(true);
  if (event.key === "?") return act(event, showKeys);
  const wasPrefix = event.timeStamp - prefixAt < PREFIX_MS;
  prefixAt = event.key === "g" ? event.timeStamp : -Infinity;
  if (wasPrefix && PAGES[event.key]) return act(event, () => location.assign(home() + PAGES[event.key]));
  if (event.key in STEPS && moveToRow(STEPS[event.key])) return event.preventDefault();
  const link = isArrowTaken(event) ? null : document.querySelector(`a[rel="${NEIGHBOURS[event.key]}"]`);
  if (link) act(event, () => link.click());
});

function act(event, action) {
  event.preventDefault();
  action();
}

function isTyping(event) {
  return event.composedPath()[0].matches?.("input, textarea, select, [contenteditable]");
}

/** Whether the focused element itself uses the arrow keys, to scroll or to move. */
function isArrowTaken({ key }) {
  return key.startsWith("Arrow") && document.activeElement.matches("[tabindex], event-feed, summary");
}

/** Move the focus by *step* rows of the page's lists. Return whether the page has any. */
function moveToRow(step) {
  const rows = [...document.querySelectorAll(ROWS)].filter(isReachable);
  const handles = rows.map((row) => row.querySelector(HANDLES));
  const here = rows.findLastIndex((row) => row.contains(document.activeElement)); // of a group, the opened member
  const first = handles.findIndex((handle) => handle.getBoundingClientRect().top >= 0);
  const next = here < 0 ? Math.max(0, first) : Math.max(0, Math.min(rows.length - 1, here + step));
  handles[next]?.focus();
  return rows.length > 0;
}

function isReachable(row) {
  return row.querySelector(HANDLES) && !row.parentElement.closest("details:not([open]), [hidden], event-feed");
}

function home() {
  return document.querySelector(".brand").href;
}

function showKeys() {
  closeMenus();
  keys.showModal();
}

// The user menu

const menus = document.querySelectorAll("details.menu");

document.addEventListener("click", ({ target }) => {
  for (const menu of menus) if (!menu.contains(target)) menu.open = false;
});
document.getElementById("show-keys").addEventListener("click", (event) => act(event, showKeys));

function closeMenus(returnsFocus = false) {
  for (const menu of menus) {
    if (!menu.open) continue;
    menu.open = false;
    if (returnsFocus) menu.querySelector("summary").focus();
  }
}

// Copying

/** Show the buttons that copy in *root*, and make them work: a button copies `data-copy`, or the text of `data-copies`. */
export function enableCopying(root) {
  if (!navigator.clipboard) return; // without TLS, except on this machine
  for (const button of root.querySelectorAll("button[data-copy], button[data-copies]")) {
    button.hidden = false;
    button.addEventListener("click", () => copy(button));
  }
}

async function copy(button) {
  const { copy: text, copies } = button.dataset;
  try {
    await navigator.clipboard.writeText(text ?? document.getElementById(copies).textContent);
    report(button, "Copied");
  } catch {
    report(button, "Not copied");
  }
}

function report(button, text) {
  const before = (button.dataset.label ??= button.textContent);
  button.textContent = text;
  setTimeout(() => (button.textContent = before), SHOWN_MS);
}

enableCopying(document);
