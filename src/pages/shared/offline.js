// Keeps the page for when there is no network: worker.js does, and opens it. Without a secure context there is no such thing.

/** How long the worker may take, in milliseconds. */
const PATIENCE = 90_000;

/** Has the page kept as the service has it now, with its files. Resolves to whether it is kept, now or from before. */
export async function keepOffline() {
  try {
    await navigator.serviceWorker.register("/worker.js");
    // One of another release knows nothing of this, and gives way.
    const changed = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
    return await Promise.race([ask(), changed.then(ask)]);
  } catch {
    return false; // No network, no secure context.
  }
}

async function ask() {
  const { active } = await navigator.serviceWorker.ready;
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => resolve(data);
    setTimeout(resolve, PATIENCE, false);
    active.postMessage({ keep: location.pathname }, [port2]);
  });
}

/** Forgets the page: its link is dead. */
export async function forgetOffline() {
  await globalThis.caches?.delete(`page:${location.pathname}`);
}
