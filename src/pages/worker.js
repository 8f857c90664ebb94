// The service worker: it opens the ticket page and the gate without a network, from what `shared/offline.js` kept.
"use strict";

/** Milliseconds after which a page that is kept opens without waiting for the service. */
const PATIENCE = 2500;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== location.origin) return;
  if (pathname.startsWith("/assets/")) event.respondWith(fromCacheFirst(request));
  // Only when the page is opened: what a page asks for itself, it wants from the service.
  else if (request.mode === "navigate" && /^\/(gate$|t\/)/.test(pathname)) event.respondWith(fromServiceFirst(request));
});

/** The languages and encodings that an answer was chosen by are those of this browser too. */
const kept = (request) => caches.match(request, { ignoreVary: true, ignoreSearch: true });

async function fromCacheFirst(request) {
  return (await kept(request)) ?? fetch(request);
}

async function ask(request) {
  const answer = await fetch(request);
  // The link is dead, and so is what it showed.
  if (answer.status === 404) await caches.delete(`page:${new URL(request.url).pathname}`);
  return answer;
}

async function fromServiceFirst(request) {
  const page = await kept(request);
  if (!page) return fetch(request);
  const asked = ask(request).then((answer) => (answer.status < 500 ? answer : page), () => page);
  return Promise.race([asked, new Promise((resolve) => setTimeout(resolve, PATIENCE, page))]);
}
