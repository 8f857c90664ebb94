// Keeps a page for when there is no network: worker.js opens it from here. Without a secure context it does nothing.

const KEPT = `page:${location.pathname}`;
/** Where the files of this release are. */
const ASSETS = new URL("..", import.meta.url).href;

/** The files that the page names and those that it has loaded so far. */
function assets() {
  const named = [...document.querySelectorAll("link[href], script[src]")].map((node) => node.href || node.src);
  const loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  return [...new Set([...named, ...loaded])].filter((url) => url.startsWith(ASSETS));
}

/** Keeps the page as the service has it now, with its files. Resolves to whether it is kept. */
export async function keepOffline() {
  try {
    await navigator.serviceWorker.register("/worker.js");
    const page = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(15_000) });
    const html = await page.clone().text();
    // Of another release, which has other files: then what is kept stays, whole, until this page is opened anew.
    if (page.ok && html.includes(new URL(ASSETS).pathname)) await keep(page);
  } catch {
    // No network, no secure context, no room: what is kept stays.
  }
  try {
    return await caches.has(KEPT);
  } catch {
    return false;
  }
}

async function keep(page) {
  const cache = await caches.open(KEPT);
  const wanted = assets();
  const had = await cache.keys();
  const missing = wanted.filter((url) => !had.some((request) => request.url === url));
  await cache.addAll(missing);
  await cache.put(location.pathname, page);
  const old = had.filter(({ url }) => url.includes("/assets/") && !url.startsWith(ASSETS));
  await Promise.all(old.map((request) => cache.delete(request)));
}

/** Forgets the page: its link is dead. */
export async function forgetOffline() {
  await globalThis.caches?.delete(KEPT);
}
