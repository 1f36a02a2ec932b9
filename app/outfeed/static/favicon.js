// The icon of the tab: a failed connection, else new events that came while the tab was hidden.

const FAILED = ["reconnecting", "signed-out", "refused", "stale"]; // states of <event-feed>

const icon = document.querySelector("link[rel=icon]");
let isFailed = false;
let isUnread = false;

/** Show in the icon whether *state*, one of <event-feed>, is a failed connection. */
export function showConnection(state) {
  isFailed = FAILED.includes(state);
  show();
}

/** Show in the icon whether there are unseen events. A failed connection takes precedence. */
export function showUnread(isSo) {
  isUnread = isSo;
  show();
}

function show() {
  const name = isFailed ? "favicon-failed.svg" : isUnread ? "favicon-unread.svg" : "favicon.svg";
  icon.href = icon.href.replace(/favicon(-\w+)?\.svg$/, name);
}
