// Requests to the service.

import { observe, stamp } from "./clock.js";

/**
 * What every answer of the service has as a header, with the time of the service, and every page as the name of a `<meta>` that
 * tells its kind.
 */
const MARK = "register-ticket-api";

/** In which header an answer says which database knows the key or the link of a request, or does not know it. */
const DATABASE = "register-ticket-database";

/** The database that an answer is of, or null. */
export const databaseOf = (response) => response.headers.get(DATABASE);

/**
 * Whether an answer that refuses for good is none: it is of another database than the one that is `known`, if any is. Somebody has
 * put that in the place of the right one, such as an empty file at a wrong path.
 */
export const isOfAnother = (response, known) => Boolean(known) && databaseOf(response) !== known;

/** What the service refused, as it told it (RFC 9457), or that it could not be reached: then `status` is 0. */
export class Problem extends Error {
  constructor(status, { code = "", detail = "", errors = [] } = {}) {
    super(detail || code || String(status));
    Object.assign(this, { status, code, detail, errors });
  }

  /** Nobody answered, or only something before the service did: it may or may not have happened. */
  get isAway() {
    return this.status === 0 || this.status >= 500;
  }
}

/**
 * Sends a request and returns the `Response`, whatever its status. Throws a `Problem` when none comes within `timeout`
 * milliseconds, or until `signal` ends it. `json` is sent as JSON, `csv` as it is.
 */
export async function send(method, path, { key, json, csv, timeout = 15000, headers = {}, signal } = {}) {
  const sent = stamp();
  const all = new Headers(headers);
  if (key) all.set("authorization", `Bearer ${key}`);
  if (json !== undefined) all.set("content-type", "application/json");
  if (csv !== undefined) all.set("content-type", "text/csv");
  const body = json === undefined ? csv : JSON.stringify(json);
  let response;
  try {
    response = await fetch(path, {
      method, headers: all, body, cache: "no-store", credentials: "omit", redirect: "error",
      signal: signal ?? AbortSignal.timeout(timeout),
    });
  } catch {
    throw new Problem(0);
  }
  // What is not the service's own is no answer: a proxy that restarts, a network that asks for a password.
  if (!response.headers.has(MARK)) throw new Problem(0);
  observe(Number(response.headers.get(MARK)), sent);
  return response;
}

/** The same, for whoever wants success only: returns the parsed body, or null where there is none. */
export async function ask(method, path, options) {
  const response = await send(method, path, options);
  const body = await parsed(response);
  if (response.ok && (body || response.status === 204)) return body;
  // Something else than the service says that all is well, in its own way.
  throw new Problem(response.ok ? 0 : response.status, body ?? {});
}

/** The page of an answer, if it is whole and of one of these kinds. Throws a `Problem` otherwise. */
export async function pageOf(response, ...kinds) {
  const html = await response.text().catch(() => "");
  const page = new DOMParser().parseFromString(html, "text/html");
  const kind = page.querySelector(`meta[name="${MARK}"]`)?.content;
  if (!html.includes("</html>") || !kinds.includes(kind)) throw new Problem(0);
  return { page, kind };
}

/** The JSON of an answer, or null. */
export async function parsed(response) {
  if (!response.headers.get("content-type")?.includes("json")) return null;
  try {
    return await response.json();
  } catch {
    throw new Problem(0);
  }
}
