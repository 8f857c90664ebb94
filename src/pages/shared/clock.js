// What time it is at the service, which decides. A device's own clock may be off, and somebody may set it at any moment. So
// the time is reckoned from the service's answers by two clocks: the device's, and one that nobody sets
// (`performance.now()`), which on many systems stands still while the device sleeps. A page that is seen does not sleep.

import { recall, remember } from "./memory.js";

const KEPT = "clock-offset";
/** When the page was seen last, by the service's time: also before it was opened anew. */
const LEFT = "clock-left";
/** A difference between the two clocks of so many milliseconds since the last look is a jump, or sleep. */
const JUMP = 1000;
const LOOK_EVERY = 1000;

// How far the service's clock is ahead of the device's, in milliseconds: surely between these two.
let least = -Infinity;
let most = Infinity;
let offset = Number(recall(KEPT));
/** The device's clock minus the other one at the last look, and whether the page was out of sight since. */
let apart = Date.now() - performance.now();
let hidden = document.visibilityState === "hidden";
/** Since the service told the time: by how much the clock was set, and by how much it went on, or was set, out of sight. */
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

/** Learns the `time` of the service when it answered to what was sent at that `stamp`. */
export function observe(time, sent) {
  const { at: received, changes: now } = stamp();
  // Somebody set the device's clock while we waited, or it slept.
  if (!time || now !== sent.changes || received < sent.at) return;
  const low = time - received;
  const high = time - sent.at;
  // No time is in both: the device's clock was set since, and only the newest answer counts.
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

/** How many seconds the device's clock is behind the service's; negative when it is ahead. */
export const secondsSlow = () => Math.round(offset / 1000);

/**
 * What happened to the device's clock since the service told the time, in milliseconds: by how much it was `set`, which is
 * reckoned with, and by how much it went on while nobody could look, `unseen`: the device slept, or it was set ahead.
 */
export const clockSince = () => ({ ...since });
