// Makes a page work offline: worker.js stores and opens it. Without a secure context this is impossible.

/** How long the worker may take, in milliseconds. */
const PATIENCE = 90_000;

/** Stores the page as the service has it now, with its files. Resolves to whether it is stored, from now or before. */
export async function keepOffline() {
  try {
    await navigator.serviceWorker.register("/worker.js");
    // A worker of another release may not know this message; this release's worker then replaces it.
    const changed = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
    return await Promise.race([ask(), changed.then(ask)]);
  } catch {
    return false; // No network, or no secure context.
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

/** Deletes the stored page: its link is dead. */
export async function forgetOffline() {
  await globalThis.caches?.delete(`page:${location.pathname}`);
}
