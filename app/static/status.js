// Keeps /status current: asks for the page again while somebody looks, and puts what has changed in its place.

const EVERY_MS = 5_000;
const ANSWER_MS = 10_000;

let timer = 0;

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return; // looked at again, it asks at once
  say(await ask());
  timer = setTimeout(refresh, EVERY_MS);
}

/** Return what there is to say of the attempt, before the time of what is shown. */
async function ask() {
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if (answer.redirected || answer.status === 401) return "Signed out; as of";
    if (!answer.ok) return `The server answers ${answer.status}; as of`;
    show(new DOMParser().parseFromString(await answer.text(), "text/html"));
    return "As of";
  } catch {
    return "Not reached, trying again; as of";
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
  const time = document.querySelector(".head time");
  time.dateTime = time.title = page.querySelector(".head time").dateTime;
  time.textContent = new Date(time.dateTime).toLocaleTimeString(undefined, { hourCycle: "h23" });
}

/** Whether somebody has selected text in there: it waits for the next time. */
function isSelected(section) {
  const selection = getSelection();
  return !selection.isCollapsed && section.contains(selection.anchorNode);
}

function say(text) {
  const place = document.getElementById("freshness");
  if (place.textContent !== text) place.textContent = text;
  place.classList.toggle("bad", text !== "As of");
}

document.addEventListener("visibilitychange", refresh);
timer = setTimeout(refresh, EVERY_MS);
