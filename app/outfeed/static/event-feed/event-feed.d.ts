/** Types of <event-feed>. Importing the module registers the element. */

/** An event of the feed. A field that its writer omitted is null. */
export interface FeedEvent {
  seq: number;
  id: string | null;
  event_type: string | null;
  source: string | null;
  task_id: string | null;
  agent_id: string | null;
  timestamp: string | null;
  data: unknown;
  /** Size of the data, if it was too large to send. */
  omitted_bytes?: number;
  /** Whether `data` is the JSON text of a value that is nested too deeply. */
  flattened?: boolean;
}

export interface ReceivedEvent {
  event: FeedEvent;
  seq: number;
  /** Whether the event is older than the connection, so that it needs no notification. */
  replayed: boolean;
}

export type FeedState =
  | "connecting"
  | "live"
  | "polling"
  | "catching-up"
  | "paused"
  | "reconnecting"
  | "stale"
  | "signed-out"
  | "refused";

export interface StateDetail {
  state: FeedState;
  /** Number of seqs between the last received event and the newest one. */
  behind: number;
  /** Number of events that are received but not in the list. */
  waiting: number;
  /** The last seq in the list. */
  cursor: number;
  /** Whether so many events wait that no more are received. */
  held: boolean;
  /** Why the server can't read its database, in the state "stale". */
  reason: string | null;
}

export interface VerdictDetail {
  channel: "events";
  verdict: "live" | "resumed" | "gap" | "reset";
  epoch: string;
  after: number;
  head: number;
  /** The pruned events, with the verdict "gap". */
  missing?: { from: number; to: number };
  /** Opaque, and equal for connections with one credential and the same permissions. */
  principal?: string;
  erasures?: number;
  types?: number;
}

/** The filter of the list: the kinds of the pressed chips, and the text. */
export interface Filter {
  kinds: string[];
  text: string;
}

export interface EventFeedEventMap {
  "event-feed:received": CustomEvent<{ events: ReceivedEvent[] }>;
  "event-feed:event": CustomEvent<ReceivedEvent>;
  "event-feed:verdict": CustomEvent<VerdictDetail>;
  "event-feed:erased": CustomEvent<Record<string, never>>;
  "event-feed:types": CustomEvent<Record<string, never>>;
  "event-feed:filter": CustomEvent<Filter>;
  "event-feed:state": CustomEvent<StateDetail>;
}

/** The attributes of the tag. */
export interface EventFeedAttributes {
  src?: string;
  types?: string;
  source?: string;
  "task-id"?: string;
  "agent-id"?: string;
  limit?: number | `${number}`;
  batch?: "true" | "false";
  audit?: boolean | "";
  theme?: "light" | "dark" | "auto";
  controls?: "compact" | "none";
  columns?: string;
  "log-href"?: string;
  "login-href"?: string;
  "ticket-url"?: string;
}

export interface EventFeedElement extends HTMLElement {
  readonly state: FeedState | "";
  readonly cursor: number;
  readonly waiting: number;
  filter: Filter;
  /** The kinds that the page counts: their chips show the counts. */
  kinds: { kind: string; colour: string; count: string }[];
  pause(): void;
  resume(): void;
  /** Show the waiting events, from the top. */
  showNew(): void;
  /** Focus the filter's text field. */
  focusFilter(): void;
  /** Move the focus by `step` rows, as the arrow keys do in the list. */
  moveFocus(step: number): void;

  addEventListener<K extends keyof EventFeedEventMap>(
    type: K,
    listener: (this: EventFeedElement, event: EventFeedEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener<K extends keyof HTMLElementEventMap>(
    type: K,
    listener: (this: EventFeedElement, event: HTMLElementEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "event-feed": EventFeedElement;
  }
  interface DocumentEventMap extends EventFeedEventMap {}
}
