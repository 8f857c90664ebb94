// Who is signed in, and what they may see. The key is in this page's memory and nowhere else: browsers write their storages,
// a tab's too, to the disk. Who opens the page again signs in again; a password manager may keep the key, if they want it to.

import { Problem, ask, send, parsed } from "../shared/api.js";
import { now } from "../shared/clock.js";

/** How long a large file may take. */
export const LONG = 120_000;
const DAY = 86_400_000;

export const session = {
  key: null,
  /** The events, and the one that is looked at. */
  events: [],
  event: null,
  /** Whether the key is of one event only. */
  isBound: false,
  /** Called when the key is no longer good. */
  onEnd() {},
  /** Called when something was done. */
  onChange() {},
};

try {
  // Where release 0.1.0 kept it.
  sessionStorage.removeItem("organizer-key");
} catch {
  // A browser without storages.
}

export async function signIn(key) {
  session.key = key;
  try {
    await loadEvents();
  } catch (problem) {
    // Without a network the key may still be good.
    if (!problem.isAway) signOut();
    throw problem;
  }
}

export function signOut() {
  session.key = null;
  session.events = [];
  session.event = null;
}

/** Asks with the key. A key that the service no longer knows ends the session. `onChange` hears of what may have changed. */
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

/** All of a list, page after page. `query` goes on with `&`. */
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

/** A file of the service; the key goes in the header and never into an address. */
export async function download(path) {
  const response = await send("GET", path, { key: session.key, timeout: LONG });
  if (!response.ok) throw new Problem(response.status, (await parsed(response)) ?? {});
  return response.blob().catch(() => {
    throw new Problem(0); // It broke off.
  });
}

/** Whether an event is the one that is looked at. Its object is another one after each `loadEvents`. */
export const isCurrent = (event) => session.event?.slug === event.slug;

/** The address of the event that is looked at. */
export const here = (rest = "") => `/api/events/${session.event.slug}${rest}`;

export async function loadEvents() {
  const { key } = session;
  let isBound = false;
  const events = await all("/api/events", "events").catch(async (problem) => {
    if (problem.status !== 403) throw problem;
    isBound = true;
    return [await onlyEvent()];
  });
  if (key !== session.key) return; // They signed out meanwhile.
  Object.assign(session, { events, isBound });
  const slug = session.event?.slug;
  session.event = session.events.find((event) => event.slug === slug) ?? likeliest(session.events);
}

/** The event that runs now, else the next, else the newest, else one without a time. Without an end it runs for a day. */
function likeliest(events) {
  const dated = events.filter((event) => event.starts_at).sort((a, b) => Date.parse(a.starts_at) - Date.parse(b.starts_at));
  const begun = dated.filter((event) => Date.parse(event.starts_at) <= now());
  const running = begun.reverse().find((event) => (event.ends_at ? Date.parse(event.ends_at) : Date.parse(event.starts_at) + DAY) > now());
  return running ?? dated[begun.length] ?? dated.at(-1) ?? events[0];
}

/** The event of a key that is bound to one: it may list the keys of that event, of which it is one itself. */
async function onlyEvent() {
  const { keys } = await call("GET", "/api/keys?limit=1");
  return call("GET", `/api/events/${keys[0].event}`);
}
