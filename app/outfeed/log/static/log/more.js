// "Load more": the next page of the log below the shown rows. After the first click each further page loads when the
// reader comes near the end of the list. A reload, and a return from another page, show the same rows at the same place.

import { localise } from "../page.js";

const MAX_PAGES = 10; // for a longer list the link "Older" opens a page of its own
const AHEAD_PX = 600;
const TIMEOUT_MS = 10_000;
const PLACE = /^([\d,]+)–[\d,]+ of/;

export class MoreRows {
  #arrange;
  #button = document.querySelector(".more-rows");
  #observer = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && this.#load(), {
    rootMargin: `0px 0px ${AHEAD_PX}px`,
  });
  #pages = 0;
  #isLoading = false;
  #isFollowing = false; // the end of the list loads the next page

  /** Handle the button of the page. `arrange` puts the rows of a list below days. */
  constructor(arrange) {
    this.#arrange = arrange;
    this.#button.onclick = () => this.#begin();
    addEventListener("pagehide", () => this.#keep());
    this.refresh();
    this.#restore();
  }

  /** Adapt the button and the place to the rows and the links of the page. */
  refresh() {
    this.#button.hidden = !this.#older || this.#pages >= MAX_PAGES || !list();
    if (!this.#pages) return;
    const last = list().querySelectorAll(".event[data-id]").length;
    for (const place of document.querySelectorAll(".place")) {
      place.textContent = place.textContent.replace(PLACE, (_, first) => `${first}–${textOf(numberIn(first) - 1 + last)} of`);
    }
  }

  /** Forget the loaded pages: the list is a new one. */
  reset() {
    this.#pages = 0;
    this.#isFollowing = false;
    this.#observer.disconnect();
    this.refresh();
  }

  get #older() {
    return document.querySelector(".paging .older");
  }

  #begin() {
    this.#isFollowing = true;
    this.#observer.disconnect();
    this.#observer.observe(this.#button); // reports at once, and later only changes
  }

  async #load() {
    if (this.#isLoading || this.#button.hidden) return;
    this.#isLoading = true;
    this.#button.textContent = "Loading…";
    try {
      const answer = await fetch(this.#older.href, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!answer.ok || answer.redirected) throw new Error(`GET ${answer.url}: ${answer.status}`);
      this.#append(new DOMParser().parseFromString(await answer.text(), "text/html"));
      this.#button.textContent = "Load more";
    } catch {
      this.#isFollowing = false;
      this.#observer.disconnect();
      this.#button.textContent = "Not loaded. Try again";
    }
    this.#isLoading = false;
    if (this.#isFollowing) this.#begin();
  }

  #append(page) {
    localise(page);
    const known = new Set(Array.from(list().querySelectorAll(".event"), idOf));
    const rows = Array.from(page.querySelectorAll("#rows > .event")).filter((row) => !known.has(idOf(row)));
    list().append(...rows);
    this.#arrange(list());
    const older = page.querySelector(".paging .older");
    if (older) this.#older.href = older.href;
    else this.#older.remove();
    this.#pages += 1;
    this.refresh();
    document.getElementById("news").textContent = `${rows.length} more rows`;
  }

  // The way back

  #keep() {
    history.replaceState({ ...history.state, rows: { pages: this.#pages, y: scrollY } }, "");
  }

  async #restore() {
    const [page] = performance.getEntriesByType("navigation");
    const kept = history.state?.rows;
    if (!kept?.pages || !["back_forward", "reload"].includes(page?.type)) return;
    while (this.#pages < kept.pages && !this.#button.hidden) {
      const before = this.#pages;
      await this.#load();
      if (this.#pages === before) return;
    }
    scrollTo(0, kept.y);
    this.#begin();
  }
}

function list() {
  return document.getElementById("rows");
}

function idOf({ dataset }) {
  return dataset.id ?? dataset.group;
}

/** Return *number* as the server writes it. */
function textOf(number) {
  return number.toLocaleString("en");
}

function numberIn(text) {
  return Number(text.replaceAll(",", ""));
}
