// Requests to the service.

import { observe, stamp } from "./clock.js";

/** The header with the service's time in each of its answers, and the name of the `<meta>` that tells the kind of each page. */
const MARK = "register-ticket-api";

/** The header that names the database that knows the request's key or link, or does not know it. */
const DATABASE = "register-ticket-database";

/** The database an answer comes from, or null. */
export const databaseOf = (response) => response.headers.get(DATABASE);

/**
 * Whether a final refusal is void because it comes from another database than the `known` one, if any. Somebody has put that in
 * place of the right one, such as an empty file at a wrong path.
 */
export const isOfAnother = (response, known) => Boolean(known) && databaseOf(response) !== known;

/** A refusal by the service (RFC 9457) or, with `status` 0, a failure to reach it. */
export class Problem extends Error {
  constructor(status, { code = "", detail = "", errors = [] } = {}) {
    super(detail || code || String(status));
    Object.assign(this, { status, code, detail, errors });
  }

  /** Whether nobody answered, or only something before the service did: the request may or may not have taken effect. */
  get isAway() {
    return this.status === 0 || this.status >= 500;
  }
}

/**
 * Sends a request and returns the `Response`, whatever its status. Throws a `Problem` if none comes within `timeout`
 * milliseconds or before `signal` aborts it. `json` is sent as JSON, `csv` unchanged.
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
  // An answer not from the service is none: a restarting proxy, or a network that asks for a password.
  if (!response.headers.has(MARK)) throw new Problem(0);
  observe(Number(response.headers.get(MARK)), sent);
  return response;
}

/** Sends a request and returns the parsed body, or null if there is none. Throws a `Problem` unless it succeeds. */
export async function ask(method, path, options) {
  const response = await send(method, path, options);
  const body = await parsed(response);
  if (response.ok && (body || response.status === 204)) return body;
  // Something other than the service reports success.
  throw new Problem(response.ok ? 0 : response.status, body ?? {});
}

/** The page in an answer. Throws a `Problem` if it is incomplete or of none of these kinds. */
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
