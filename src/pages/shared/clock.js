// What time it is at the service, which decides. A phone's own clock may be minutes off.

import { recall, remember } from "./memory.js";

const KEPT = "clock-offset";
// How far the service's clock is ahead of the device's, in milliseconds: surely between these two.
let least = -Infinity;
let most = Infinity;
let offset = Number(recall(KEPT));

/** Learns from an answer of the service; `sent` and `received` are what `Date.now()` said then. */
export function observe(response, sent, received) {
  const date = Date.parse(response.headers.get("date") ?? "");
  // Somebody set the device's clock while we waited.
  if (Number.isNaN(date) || received < sent) return;
  // The header is cut to whole seconds: the service's clock was in [date, date + 1 s) at some time in between.
  const low = date - received;
  const high = date + 1000 - sent;
  // No time is in both: the device's clock was set since, and only the newest answer counts.
  const changed = low > most || high < least;
  least = changed ? low : Math.max(least, low);
  most = changed ? high : Math.min(most, high);
  offset = least <= 0 && most >= 0 ? 0 : Math.round((least + most) / 2);
  remember(KEPT, offset);
}

/** The service's time, in milliseconds since 1970. */
export const now = () => Date.now() + offset;

/** How many seconds the device's clock is behind the service's; negative when it is ahead. */
export const secondsSlow = () => Math.round(offset / 1000);
