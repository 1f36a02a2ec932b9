// The first event: copies the lines that send one, and waits for it.

import { setText } from "./event-feed/elements.js";
import { ROOT } from "./event-feed/root.js";

const EVERY_MS = 2_000;
const ANSWER_MS = 10_000;
const COPIED_MS = 2_000;

const element = document.querySelector(".first");
element.querySelector(".waiting").hidden = false;

for (const button of element.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard; // a page without TLS has none, unless it is on this machine
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      setText(button, "Copied");
    } catch {
      setText(button, "Select and copy");
      getSelection().selectAllChildren(button.previousElementSibling);
    }
    setTimeout(() => setText(button, "Copy"), COPIED_MS);
  };
}

// The live page shows the event by its feed. Another page is loaded again once there is an event.
if (!element.closest("event-feed")) setTimeout(look, EVERY_MS);

async function look() {
  setTimeout(look, EVERY_MS);
  if (document.hidden) return;
  try {
    const answer = await fetch(`${ROOT}api/events?limit=1`, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    if ((await answer.json()).events?.length) location.reload();
  } catch {
    // The server is down: the next look may find it again.
  }
}
