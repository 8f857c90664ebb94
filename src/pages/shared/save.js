// Files for a person to keep.

import { element } from "./dom.js";

/** Hands the browser a file to keep. */
export function save(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
