// The preview of a display: it follows the fields. Without this script, the button "Preview" asks the server.

import { make } from "./event-feed/elements.js";
import { Sentences } from "./event-feed/sentences.js";

const form = document.querySelector(".display-form");
const preview = document.getElementById("preview");
const { type, sample } = preview.dataset;
const sentences = new Sentences();

function show() {
  const { icon, label, level } = Object.fromEntries(new FormData(form));
  sentences.displays = { [type]: { icon: icon || undefined, label: label || undefined, level } };
  const event = sample ? JSON.parse(sample) : madeUp(label);
  const look = sentences.lookOf(event);
  const row = preview.querySelector(".event") ?? preview.appendChild(emptyRow());
  Object.assign(row.dataset, { kind: look.kind, colour: look.colour, level: look.level });
  row.querySelector(".icon").textContent = look.icon;
  row.querySelector(".sentence").replaceChildren(...look.parts.map(partOf));
}

/** An event whose values are the names of the label's places, as `_made_up` in types/pages.py. */
function madeUp(label) {
  const names = [...label.matchAll(/\{([^{}]*)\}/g)].map(([, place]) => place.replace(/:\d+$/, "").split("|")[0]);
  const data = Object.fromEntries(names.map((name) => [name.replace(/^was\./, ""), name]));
  return { event_type: type, source: "source", data: names.length ? data : null };
}

function emptyRow() {
  const icon = make("span", "icon");
  icon.setAttribute("aria-hidden", "true");
  return make("li", "event", make("div", "preview-line", icon, make("span", "sentence")));
}

function partOf([text, role]) {
  if (role === "name") return make("b", "", text);
  return role === "type" ? make("code", "type", text) : text;
}

form.addEventListener("input", show);
form.querySelector('button[value="preview"]').hidden = true;
show();
