// The service's time, which decides. A device's clock may be wrong, and anyone may set it at any moment. So the time is
// computed from the service's answers with two clocks: the device's, and one that nobody can set (`performance.now()`), which
// on many systems stops while the device sleeps. While the page is visible, the device does not sleep.

import { recall, remember } from "./memory.js";

const KEPT = "clock-offset";
/** When the page was last visible, in the service's time: stored across visits. */
const LEFT = "clock-left";
/** A change in the difference between the two clocks of this many milliseconds is a jump of one, or sleep. */
const JUMP = 1000;
const LOOK_EVERY = 1000;

// How far the service's clock is ahead of the device's, in milliseconds: between these two bounds.
let least = -Infinity;
let most = Infinity;
let offset = Number(recall(KEPT));
/** The device's clock minus the other one at the last look, and whether the page was hidden at that time. */
let apart = Date.now() - performance.now();
let hidden = document.visibilityState === "hidden";
/**
 * Since the service's latest time: how far the clock was set, and how far it advanced, or was set, while the page was hidden.
 */
const left = Number(recall(LEFT));
const since = { set: 0, unseen: left ? Math.max(0, Date.now() + offset - left) : 0 };
let changes = 0;

/** Compares the two clocks. */
function look() {
  const now = Date.now() - performance.now();
  const jump = now - apart;
  apart = now;
  if (Math.abs(jump) >= JUMP) jumped(jump);
  hidden = document.visibilityState === "hidden";
}

function jumped(jump) {
  changes += 1;
  if (jump > 0 && hidden) {
    since.unseen += jump;
    return;
  }
  since.set += jump;
  least -= jump;
  most -= jump;
  offset -= jump;
  remember(KEPT, offset);
}

document.addEventListener("visibilitychange", () => {
  look();
  if (hidden) remember(LEFT, now());
});
setInterval(look, LOOK_EVERY);

/** A moment on the device, for `observe`. */
export function stamp() {
  look();
  return { at: Date.now(), changes };
}

/** Learns the service's `time` from its answer to a request sent at that `stamp`. */
export function observe(time, sent) {
  const { at: received, changes: now } = stamp();
  // The device's clock was set during the request, or the device slept.
  if (!time || now !== sent.changes || received < sent.at) return;
  const low = time - received;
  const high = time - sent.at;
  // The bounds do not overlap: the clock was set since, and only the newest answer counts.
  const changed = low > most || high < least;
  least = changed ? low : Math.max(least, low);
  most = changed ? high : Math.min(most, high);
  offset = least <= 0 && most >= 0 ? 0 : Math.round((least + most) / 2);
  Object.assign(since, { set: 0, unseen: 0 });
  remember(KEPT, offset);
}

/** The service's time, in milliseconds since 1970. */
export function now() {
  look();
  return Date.now() + offset;
}

/** How many seconds the device's clock is behind the service's; negative if it is ahead. */
export const secondsSlow = () => Math.round(offset / 1000);

/**
 * What happened to the device's clock since the service's latest time, in milliseconds: how far it was `set`, which is
 * accounted for, and how far it advanced `unseen`: the device slept, or the clock was set ahead meanwhile.
 */
export const clockSince = () => ({ ...since });
