// The service worker: stores the ticket page and the gate with all their files, and opens them when the service does not
// answer. An answer from anything else is none: a restarting proxy, a network that asks for a password, a page that is cut off.
"use strict";

/** The header of each of the service's answers, and the name of the `<meta>` that tells the kind of each page. */
const MARK = "register-ticket-api";
/** The header that names the database that knows a link, or does not know it. */
const DATABASE = "register-ticket-database";
/** After how many milliseconds a stored page opens without waiting for the service. */
const PATIENCE = 2500;
/** How long loading a page with its files, to store it, may take. */
const LOADING = 60_000;
/** The pages that are stored, by path, with their kinds. */
const KEPT = [[/^\/gate$/, "gate"], [/^\/t\/[^/]+$/, "ticket"]];

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname, search } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (pathname.startsWith("/assets/")) event.respondWith(fromCacheFirst(request));
  // Only when a page is opened: a page's own requests are for the service.
  if (request.mode !== "navigate") return;
  const page = pathname.replace(/\/$/, "");
  if (!kindAt(page)) return;
  // The service would redirect it too.
  if (page !== pathname) event.respondWith(Response.redirect(page + search, 308));
  else fromServiceFirst(event, page);
});

/** Stores a page on its request, and answers whether it is stored. */
self.addEventListener("message", (event) => {
  const { keep: page } = event.data ?? {};
  if (!kindAt(page)) return;
  const request = new Request(page, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(LOADING) });
  const asked = fresh(request, page).catch(() => {}); // The stored page stays.
  // A page loaded past the worker is controlled by it from now on.
  const claimed = self.clients.claim().catch(() => {});
  event.waitUntil(Promise.all([asked, claimed]).then(() => kept(page)).then((found) => event.ports[0]?.postMessage(Boolean(found))));
});

const kindAt = (path) => KEPT.find(([form]) => form.test(path))?.[1];

/** An answer's language and encoding were chosen for this same browser, so `Vary` can be ignored. */
const kept = (request) => caches.match(request, { ignoreVary: true, ignoreSearch: true }).catch(() => undefined);

async function fromCacheFirst(request) {
  return (await kept(request)) ?? load(request);
}

async function fromServiceFirst(event, page) {
  const opened = kept(page).then((known) => {
    // The user may have to sign in to the network first.
    if (!known) return fetch(event.request);
    const asked = fresh(event.request, page).then((answer) => answer ?? known, () => known);
    event.waitUntil(asked);
    return Promise.race([asked, new Promise((resolve) => setTimeout(resolve, PATIENCE, known))]);
  });
  event.respondWith(opened);
}

/** Loads and stores the service's current page with its files, or learns that its link is dead. Undefined means no answer. */
async function fresh(request, page) {
  const answer = await fetch(request);
  if (!answer.headers.has(MARK)) return undefined;
  const html = await answer.clone().text();
  const kind = html.includes("</html>") ? new RegExp(`<meta name="${MARK}" content="(\\w+)">`).exec(html)?.[1] : null;
  if (answer.status === 404 && kind === "gone") {
    // If it comes from another database than the stored page, it says nothing about this link.
    const known = (await kept(page))?.headers.get(DATABASE);
    if (known && answer.headers.get(DATABASE) !== known) return undefined;
    await caches.delete(`page:${page}`);
    return answer;
  }
  if (answer.status !== 200 || kind !== kindAt(page)) return undefined;
  const files = new Map(await Promise.all(filesOf(html).map(async (path) => [path, (await kept(path)) ?? (await load(path))])));
  await keep(page, answer.clone(), files).catch(() => {}); // There may be no room.
  return answer;
}

const filesOf = (html) => [...new Set(html.match(/\/assets\/[\w./-]+/g))];

/** Loads a file that a page names. Throws if it is not the service's or not complete. */
async function load(file) {
  // The browser may have cached something else's answer under this address.
  for (const cache of ["default", "reload"]) {
    const answer = await fetch(file, { cache, redirect: "error", signal: AbortSignal.timeout(LOADING) });
    if (answer.ok && answer.headers.has(MARK)) return new Response(await answer.blob(), { headers: answer.headers });
  }
  throw new TypeError("this is not the service's file");
}

/**
 * Stores the page last, so that it is never stored without its files. Files of the previous page stay: it may still be on a
 * screen.
 */
async function keep(page, answer, files) {
  const cache = await caches.open(`page:${page}`);
  const before = await (await cache.match(page))?.text();
  const had = new Set((await cache.keys()).map(({ url }) => new URL(url).pathname));
  await Promise.all([...files].filter(([path]) => !had.has(path)).map(([path, file]) => cache.put(path, file)));
  await cache.put(page, answer);
  const named = new Set([page, ...files.keys(), ...filesOf(before ?? "")]);
  await Promise.all([...had].filter((path) => !named.has(path)).map((path) => cache.delete(path)));
}
