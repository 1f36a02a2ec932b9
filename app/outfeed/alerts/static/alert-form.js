// Tries the rule in the form on the past: at once after a change, and without a new page for the button. Without this
// module the button submits the form, and the page shows the result.

import "./shell.js";

for (const trial of document.querySelectorAll(".trial")) watch(trial.closest("form"));

function watch(form) {
  let last = null; // the newest request; the others are cancelled
  const update = async () => {
    last?.abort();
    const own = (last = new AbortController());
    const result = await tried(form, own.signal);
    if (own === last && result) form.querySelector(".trial [role=status]").replaceChildren(...result);
  };
  form.addEventListener("change", (event) => {
    if (event.target.name !== "name" && event.target.name !== "targets") update();
  });
  form.querySelector("[name=try]").addEventListener("click", (event) => {
    event.preventDefault();
    update();
  });
}

/** Return the nodes of the result; null if the request was cancelled. */
async function tried(form, signal) {
  try {
    const fields = new FormData(form);
    fields.set("try", "yes");
    const answer = await fetch(form.action, { method: "POST", body: fields, signal });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const result = page.querySelector(".trial [role=status]");
    const errors = [...page.querySelectorAll(".field .error")].map((each) => each.textContent);
    return answer.ok && result ? result.childNodes : [errors.join(" ") || "The trial failed. Try again."];
  } catch {
    return signal.aborted ? null : ["The server can't be reached. Try again."];
  }
}
