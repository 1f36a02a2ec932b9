// Changes an element of the page into a newer rendering. Equal nodes stay untouched, and so do the focus, scroll
// positions, selections and open details.

import { setText } from "../event-feed/elements.js";

const LOCAL = new Set(["class", "open"]); // attributes that the page changes

/** Make *shown* equal to *fresh*, except elements with `data-local`. Text beside elements must be equal. */
export function patch(shown, fresh) {
  if ("local" in shown.dataset || shown.isEqualNode(fresh)) return;
  const focused = document.activeElement;
  patchAttributes(shown, fresh);
  if (fresh.firstElementChild) patchChildren(shown, fresh);
  else setText(shown, fresh.textContent);
  if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true }); // after a move
}

function patchAttributes(shown, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (!LOCAL.has(name) && shown.getAttribute(name) !== value) shown.setAttribute(name, value);
  }
  for (const { name } of Array.from(shown.attributes)) {
    if (!LOCAL.has(name) && !fresh.hasAttribute(name)) shown.removeAttribute(name);
  }
}

/** Match a child with a `data-key` by its key, any other child by its position. */
export function patchChildren(shown, fresh) {
  const all = Array.from(fresh.children); // a copy: insertBefore removes children of *fresh*
  const keys = new Set(all.map(keyOf));
  for (const child of Array.from(shown.children)) {
    if (keyOf(child) && !keys.has(keyOf(child))) child.remove();
  }
  const keyed = new Map(Array.from(shown.children, (child) => [keyOf(child), child]));
  all.forEach((wanted, index) => {
    const place = shown.children[index] ?? null;
    const key = keyOf(wanted);
    const found = key ? keyed.get(key) : place?.localName === wanted.localName && place;
    if (found) patch(found, wanted);
    else if (key) wanted.classList.add("new");
    if (!found || found !== place) shown.insertBefore(found || wanted, place);
  });
  while (shown.childElementCount > all.length) shown.lastElementChild.remove();
}

function keyOf(element) {
  return element.dataset.key;
}
