// Posts a task by the form without leaving the page. The form appears with the first agent or task.

import { setText } from "./event-feed/elements.js";
import { ROOT } from "./event-feed/root.js";

const ANSWER_MS = 10_000;

const form = document.querySelector("form.post");
const problem = form.querySelector("[role=alert]");

form.onsubmit = async (event) => {
  event.preventDefault();
  if (form.getAttribute("aria-busy") === "true") return;
  const { description } = form.elements;
  form.setAttribute("aria-busy", "true");
  const { value } = description;
  setText(problem, await post(value, form.elements.csrf_token?.value));
  form.setAttribute("aria-busy", "false");
  if (!problem.textContent && description.value === value) form.reset();
  description.focus();
};

document.addEventListener("event-feed:state", ({ detail }) => detail.state === "live" && setText(problem, ""));
document.addEventListener("live:board", () => (form.hidden &&= !document.querySelector(".side[data-key=swarm]")));

/** Return the error for the user; an empty text after a success. */
async function post(description, token) {
  const headers = { "Content-Type": "application/json", ...(token && { "X-CSRFToken": token }) };
  const body = JSON.stringify({ description });
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    const answer = await fetch(`${ROOT}api/swarm/tasks`, { method: "POST", headers, body, signal });
    if (answer.status === 401) return "Your session ended. Sign in and post the task again.";
    return answer.ok ? "" : (await answer.json()).detail;
  } catch {
    return "The server didn't respond. Check whether the task was posted before you try again.";
  }
}
