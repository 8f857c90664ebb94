// Who is signed in, and what they may see. The key is only in this page's memory: browsers write their storages, even a
// tab's, to the disk. After opening the page again, users sign in again; a password manager may store the key for them.

import { Problem, ask, send, parsed } from "../shared/api.js";
import { now } from "../shared/clock.js";

/** Timeout for a large file, in milliseconds. */
export const LONG = 120_000;
const DAY = 86_400_000;

export const session = {
  key: null,
  /** The events, and the current one. */
  events: [],
  event: null,
  /** Whether the key is bound to one event. */
  isBound: false,
  /** Called when the key is no longer valid. */
  onEnd() {},
  /** Called after a change. */
  onChange() {},
};

try {
  // Release 0.1.0 stored it here.
  sessionStorage.removeItem("organizer-key");
} catch {
  // This browser has no storages.
}

export async function signIn(key) {
  session.key = key;
  try {
    await loadEvents();
  } catch (problem) {
    // Without a network the key may still be valid.
    if (!problem.isAway) signOut();
    throw problem;
  }
}

export function signOut() {
  session.key = null;
  session.events = [];
  session.event = null;
}

/**
 * Sends a request with the key. If the service no longer knows the key, the session ends. Calls `onChange` after
 * anything that may change data.
 */
export async function call(method, path, options) {
  try {
    const answer = await ask(method, path, { key: session.key, ...options });
    if (method !== "GET") session.onChange();
    return answer;
  } catch (problem) {
    if (problem.status === 401 && session.event) session.onEnd();
    throw problem;
  }
}

/** Loads a whole list, page by page. `query` continues with `&`. */
export async function all(path, name, query = "") {
  const found = [];
  let next = "";
  do {
    const page = await call("GET", `${path}?limit=500${query}${next && `&after=${encodeURIComponent(next)}`}`);
    found.push(...page[name]);
    next = page.next;
  } while (next);
  return found;
}

/** Downloads a file from the service. The key goes in the header, never in an address. */
export async function download(path) {
  const response = await send("GET", path, { key: session.key, timeout: LONG });
  if (!response.ok) throw new Problem(response.status, (await parsed(response)) ?? {});
  return response.blob().catch(() => {
    throw new Problem(0); // It was cut off.
  });
}

/** Whether an event is the current one. Each `loadEvents` makes new objects. */
export const isCurrent = (event) => session.event?.slug === event.slug;

/** The API path of the current event. */
export const here = (rest = "") => `/api/events/${session.event.slug}${rest}`;

export async function loadEvents() {
  const { key } = session;
  let isBound = false;
  const events = await all("/api/events", "events").catch(async (problem) => {
    if (problem.status !== 403) throw problem;
    isBound = true;
    return [await onlyEvent()];
  });
  if (key !== session.key) return; // The user signed out meanwhile.
  Object.assign(session, { events, isBound });
  const slug = session.event?.slug;
  session.event = session.events.find((event) => event.slug === slug) ?? likeliest(session.events);
}

/**
 * The event running now, else the next, else the newest, else one without a time. Without an end, an event lasts a day.
 */
function likeliest(events) {
  const dated = events.filter((event) => event.starts_at).sort((a, b) => Date.parse(a.starts_at) - Date.parse(b.starts_at));
  const begun = dated.filter((event) => Date.parse(event.starts_at) <= now());
  const running = begun.reverse().find((event) => (event.ends_at ? Date.parse(event.ends_at) : Date.parse(event.starts_at) + DAY) > now());
  return running ?? dated[begun.length] ?? dated.at(-1) ?? events[0];
}

/** The event of a key bound to one, taken from the list of its event's keys, which includes the key itself. */
async function onlyEvent() {
  const { keys } = await call("GET", "/api/keys?limit=1");
  return call("GET", `/api/events/${keys[0].event}`);
}
