// Files for the user to save.

import { element } from "./dom.js";

/** Saves a file through the browser. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
