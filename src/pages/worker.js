// The service worker: it keeps the ticket page and the gate, whole, and opens them when the service does not answer. Whatever
// else answers is no answer: a proxy that restarts, a network that asks for a password, a page that breaks off.
"use strict";

/** What every answer of the service has as a header, and every page as the name of a `<meta>` that tells its kind. */
const MARK = "register-ticket-api";
/** In which header an answer says which database knows a link, or does not know it. */
const DATABASE = "register-ticket-database";
/** Milliseconds after which a page that is kept opens without waiting for the service. */
const PATIENCE = 2500;
/** How long it may take to load a page with its files, to be kept. */
const LOADING = 60_000;
/** The pages that are kept, by their paths, with their kinds. */
const KEPT = [[/^\/gate$/, "gate"], [/^\/t\/[^/]+$/, "ticket"]];

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname, search } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (pathname.startsWith("/assets/")) event.respondWith(fromCacheFirst(request));
  // Only when the page is opened: what a page asks for itself, it wants from the service.
  if (request.mode !== "navigate") return;
  const page = pathname.replace(/\/$/, "");
  if (!kindAt(page)) return;
  // The service would say so, too.
  if (page !== pathname) event.respondWith(Response.redirect(page + search, 308));
  else fromServiceFirst(event, page);
});

/** A page asks for its being kept, and is told whether it is. */
self.addEventListener("message", (event) => {
  const { keep: page } = event.data ?? {};
  if (!kindAt(page)) return;
  const request = new Request(page, { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(LOADING) });
  const asked = fresh(request, page).catch(() => {}); // What is kept stays.
  // Who loaded the page past the worker is under it from now on.
  const claimed = self.clients.claim().catch(() => {});
  event.waitUntil(Promise.all([asked, claimed]).then(() => kept(page)).then((found) => event.ports[0]?.postMessage(Boolean(found))));
});

const kindAt = (path) => KEPT.find(([form]) => form.test(path))?.[1];

/** The languages and encodings that an answer was chosen by are those of this browser too. */
const kept = (request) => caches.match(request, { ignoreVary: true, ignoreSearch: true }).catch(() => undefined);

async function fromCacheFirst(request) {
  return (await kept(request)) ?? load(request);
}

async function fromServiceFirst(event, page) {
  const opened = kept(page).then((known) => {
    // Somebody may have to sign in to the network first.
    if (!known) return fetch(event.request);
    const asked = fresh(event.request, page).then((answer) => answer ?? known, () => known);
    event.waitUntil(asked);
    return Promise.race([asked, new Promise((resolve) => setTimeout(resolve, PATIENCE, known))]);
  });
  event.respondWith(opened);
}

/** A page as the service has it now, with its files, and kept; or that its link is dead. Undefined is no answer. */
async function fresh(request, page) {
  const answer = await fetch(request);
  if (!answer.headers.has(MARK)) return undefined;
  const html = await answer.clone().text();
  const kind = html.includes("</html>") ? new RegExp(`<meta name="${MARK}" content="(\\w+)">`).exec(html)?.[1] : null;
  if (answer.status === 404 && kind === "gone") {
    // Of another database than that of the page that is kept, it says nothing of this link.
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

/** A file that a page names. Throws where it is not the service's, or not whole. */
async function load(file) {
  // The browser may have kept what something else answered under this address.
  for (const cache of ["default", "reload"]) {
    const answer = await fetch(file, { cache, redirect: "error", signal: AbortSignal.timeout(LOADING) });
    if (answer.ok && answer.headers.has(MARK)) return new Response(await answer.blob(), { headers: answer.headers });
  }
  throw new TypeError("this is not the service's file");
}

/** The page comes last, so that it is never kept without its files. Those of the page before may be on a screen still. */
async function keep(page, answer, files) {
  const cache = await caches.open(`page:${page}`);
  const before = await (await cache.match(page))?.text();
  const had = new Set((await cache.keys()).map(({ url }) => new URL(url).pathname));
  await Promise.all([...files].filter(([path]) => !had.has(path)).map(([path, file]) => cache.put(path, file)));
  await cache.put(page, answer);
  const named = new Set([page, ...files.keys(), ...filesOf(before ?? "")]);
  await Promise.all([...had].filter((path) => !named.has(path)).map((path) => cache.delete(path)));
}
