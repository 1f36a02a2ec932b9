// Keeps /status current: asks for the page again while somebody looks, and puts what has changed in its place. What it
// can't renew it greys, and says why and since when.

import { clockOf } from "./event-feed/elements.js";

const EVERY_MS = 5_000;
const ANSWER_MS = 10_000;

const vitals = document.querySelector(".vitals");
const outage = document.getElementById("outage");
const time = document.querySelector(".head time");
let timer = 0;

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return; // looked at again, it asks at once
  tell(await ask());
  timer = setTimeout(refresh, EVERY_MS);
}

/** Show the page of now, or return why there is none. */
async function ask() {
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

/** The reason in a problem (RFC 9457); null in what a proxy says. */
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
    if (shown.isEqualNode(fresh) || isSelected(shown)) continue;
    const hasFocus = shown.contains(document.activeElement);
    shown.replaceWith(fresh);
    if (hasFocus) fresh.querySelector("[tabindex]")?.focus({ preventScroll: true });
  }
  time.dateTime = time.title = page.querySelector(".head time").dateTime;
  time.textContent = clockOf(new Date(time.dateTime));
}

/** Whether somebody has selected text in there: it waits for the next time. */
function isSelected(section) {
  const selection = getSelection();
  return !selection.isCollapsed && section.contains(selection.anchorNode);
}

/** Say why the figures are old, in the place of what was said of the feed's health; nothing where they are not. */
function tell(reason) {
  if (outage.dataset.reason === reason) return; // what is told again would be announced anew
  outage.dataset.reason = reason;
  outage.hidden = !reason;
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
