// Keeps /status up to date: requests the page again while it is visible, and replaces the changed sections. If a
// request fails, it greys the sections and shows the reason and their time.

import { clockOf } from "./event-feed/elements.js";
import { showConnection } from "./favicon.js";
import { enableCopying } from "./shell.js";

const EVERY_MS = 5_000;
const ANSWER_MS = 10_000;

const vitals = document.querySelector(".vitals");
const outage = document.getElementById("outage");
const time = document.querySelector(".head time");
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return; // a request follows as soon as the page is visible
  showOutage(await fetchPage());
  timer = setTimeout(refresh, EVERY_MS);
}

/** Show the current page, or return why it is not available. */
async function fetchPage() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (answer.redirected || answer.status === 401) return "signed-out";
    const text = await answer.text();
    if (!answer.ok) return detailIn(text) ?? `server error (${answer.status})`;
    show(new DOMParser().parseFromString(text, "text/html"));
    return "";
  } catch {
    return "unreached";
  }
}

/** Return the reason in a problem (RFC 9457); null for the answer of a proxy. */
function detailIn(text) {
  try {
    return JSON.parse(text).detail;
  } catch {
    return null;
  }
}

function show(page) {
  for (const fresh of page.querySelectorAll(".vitals > section")) {
    const shown = document.getElementById(fresh.id);
    if (!shown || shown.isEqualNode(fresh) || isSelected(shown)) continue;
    const hasFocus = shown.contains(document.activeElement);
    if (shown.querySelector("details[open]")) openSame(shown, fresh);
    if (shown.isEqualNode(fresh)) continue;
    enableCopying(fresh);
    shown.replaceWith(fresh);
    if (hasFocus) fresh.querySelector("[tabindex], summary")?.focus({ preventScroll: true });
  }
  time.dateTime = time.title = page.querySelector(".head time").dateTime;
  time.textContent = clockOf(new Date(time.dateTime));
}

/** Open the explanations in *fresh* that are open in *shown*. */
function openSame(shown, fresh) {
  const open = new Set(Array.from(shown.querySelectorAll("details[open] > summary"), (each) => each.textContent));
  for (const each of fresh.querySelectorAll("details > summary")) each.parentElement.open = open.has(each.textContent);
}

/** Whether text in the section is selected. It is replaced later then. */
function isSelected(section) {
  const selection = getSelection();
  return !selection.isCollapsed && section.contains(selection.anchorNode);
}

/** Show why the figures are old, in place of the feed's health; hide it if they are current. */
function showOutage(reason) {
  if (outage.dataset.reason === reason) return; // the same text would be announced again
  outage.dataset.reason = reason;
  outage.hidden = !reason;
  showConnection(reason ? "stale" : "live");
  vitals.classList.toggle("is-stale", !outage.hidden);
  if (!reason) return;
  const since = clockOf(new Date(time.dateTime));
  outage.querySelector("h2").textContent = TITLES[reason] ?? reason.charAt(0).toUpperCase() + reason.slice(1);
  outage.querySelector("p").textContent = `Showing data from ${since}. `
    + (reason === "signed-out" ? "Sign in to update it." : "Retrying…");
  outage.querySelector("a").hidden = reason !== "signed-out";
}

const TITLES = { "signed-out": "You are signed out", unreached: "The server doesn't respond" };

document.addEventListener("visibilitychange", refresh);
timer = setTimeout(refresh, EVERY_MS);
