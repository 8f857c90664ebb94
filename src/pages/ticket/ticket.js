// The ticket page: shows the code of the moment, and asks the service now and then what became of the ticket.

import { Problem, isOfAnother, pageOf, send } from "../shared/api.js";
import { now, secondsSlow } from "../shared/clock.js";
import { find, say } from "../shared/dom.js";
import { forgetOffline } from "../shared/offline.js";
import { qrSvg } from "../shared/qr.js";
import { duration, text } from "../shared/text.js";
import { STEP, code, importKey, stepAt } from "../shared/totp.js";
import { keeping } from "./keeping.js";

const POLL = 10_000;
const SLOWEST_POLL = 60_000;
/** Less wrong than this, a clock is not worth a word, in seconds. */
const CLOCK_IS_RIGHT = 5;
/** In seconds. */
const QUARTER = 900;
/** The last seconds of a code, in which a gate may just miss it. */
const SOON = 5;

const ticket = find("#ticket");
const ring = find("#ring");
const enlarge = find("#enlarge");
// Without a secure context the browser makes no codes: then they come from the service, one by one.
const makesCodes = Boolean(globalThis.crypto?.subtle);

let key;
let shown = makesCodes ? null : stepAt(now());
let online = true;
/** How the page is kept for when there is no network, as soon as that is known. */
let kept = null;

/** Whether the ticket still needs its code: an event with re-entry asks for it at the exit, and again at the next entry. */
function needsCode() {
  const { status, reentry } = ticket.dataset;
  return status === "valid" || (status === "used" && reentry !== "none");
}

// Codes.

async function showCode(step) {
  shown = step;
  if (!makesCodes) return poll();
  key ??= await importKey(ticket.dataset.key);
  show(await code(key, step), (digits) => qrSvg(`RT1.${ticket.dataset.ticket}.${digits}`));
}

function show(digits, picture) {
  find("#code").textContent = `${digits.slice(0, 3)} ${digits.slice(3)}`;
  enlarge.replaceChildren(picture(digits));
}

const turning = find(".left", ring).animate(
  { strokeDashoffset: [0, 100] },
  { duration: STEP, iterations: Infinity, easing: matchMedia("(prefers-reduced-motion: reduce)").matches ? "steps(30)" : "linear" },
);

/** Once a second, on the service's second. */
function tick() {
  update();
  setTimeout(tick, 1000 - (now() % 1000));
}

function update() {
  if (!needsCode()) return;
  const moment = now();
  const left = Math.ceil((STEP - (moment % STEP)) / 1000);
  turning.currentTime = moment % STEP;
  find("text", ring).textContent = left;
  ring.classList.toggle("soon", left <= SOON);
  if (stepAt(moment) !== shown) showCode(stepAt(moment));
}

// What the service knows.

let timer;
let pause = POLL;

async function poll() {
  clearTimeout(timer);
  if (document.visibilityState === "hidden") return;
  try {
    await refresh();
    online = true;
    pause = POLL;
    if (kept === "not") keep();
  } catch {
    online = false;
    pause = Math.min(pause * 2, SLOWEST_POLL);
  }
  clearTimeout(timer);
  timer = setTimeout(poll, pause);
  update();
  tell();
}

/** Asks for this page again and takes over what changed. */
async function refresh() {
  const response = await send("GET", location.pathname, { timeout: POLL });
  const { page, kind } = await pageOf(response, "ticket", "gone");
  if (kind === "gone" && isOfAnother(response, ticket.dataset.database)) throw new Problem(0);
  if (kind === "gone") return end();
  const fresh = page.getElementById("ticket");
  const before = JSON.stringify(ticket.dataset);
  Object.assign(ticket.dataset, fresh.dataset);
  for (const field of ticket.querySelectorAll("[data-field]")) {
    const known = find(`[data-field="${field.dataset.field}"]`, fresh);
    Object.assign(field.dataset, known.dataset);
    say(field, known.textContent);
  }
  if (!makesCodes && needsCode()) {
    shown = stepAt(now());
    show(find("#code", fresh).textContent, () => document.adoptNode(find("#enlarge svg", fresh)));
  }
  if (JSON.stringify(ticket.dataset) !== before) changed();
}

/** The link is dead: the ticket has another one now, or another person. */
async function end() {
  ticket.dataset.status = "gone";
  ticket.dataset.key = "";
  changed();
  await forgetOffline();
}

function changed() {
  shrink();
  stayAwake();
  keep();
}

async function keep() {
  if (ticket.dataset.status === "gone") return;
  kept = await keeping();
  tell();
}

// What there is to tell.

function tell() {
  ticket.classList.toggle("stale", !makesCodes && !online);
  say(find("#connection"), connection());
  say(find("#clock"), clock());
}

function connection() {
  if (!needsCode()) return "";
  if (!online) return text(makesCodes ? "ticket.offline" : "ticket.offline_no_code");
  return kept ? text(`ticket.kept_${kept}`) : "";
}

function clock() {
  const slow = secondsSlow();
  if (!makesCodes || !needsCode() || Math.abs(slow) < CLOCK_IS_RIGHT) return "";
  const told = text(slow > 0 ? "ticket.clock_slow" : "ticket.clock_fast", { amount: duration(Math.abs(slow)) });
  return isOfAnotherZone(Math.abs(slow)) ? `${told} ${text("ticket.clock_zone")}` : told;
}

/** Somebody set the time of a phone by hand, in the wrong time zone: it is quarters of an hour off, but for a minute. */
function isOfAnotherZone(seconds) {
  const quarters = Math.round(seconds / QUARTER);
  return quarters > 0 && Math.abs(seconds - quarters * QUARTER) <= 60;
}

// The screen.

let awake;

/** Keeps the screen on while there is a code on it. The browser lets go of it whenever the page is hidden. */
async function stayAwake() {
  if (document.visibilityState === "hidden") return;
  try {
    if (!needsCode()) await awake?.release();
    else if (!awake || awake.released) awake = await navigator.wakeLock.request("screen");
  } catch {
    // No such thing here, or the battery is low: the screen goes dark as it always does.
  }
}

/** All white, and the whole screen where the browser gives it. */
function setLarge(large) {
  ticket.classList.toggle("large", large);
  enlarge.setAttribute("aria-pressed", large);
  find("#bright").media = large ? "all" : "not all";
  const screen = large ? document.documentElement.requestFullscreen?.({ navigationUI: "hide" }) : document.fullscreenElement && document.exitFullscreen();
  screen?.catch?.(() => {}); // Then it is as large as the page.
}

const shrink = () => setLarge(false);

enlarge.disabled = false;
enlarge.addEventListener("click", () => setLarge(!ticket.classList.contains("large")));
document.addEventListener("keydown", (event) => event.key === "Escape" && shrink());
document.addEventListener("fullscreenchange", () => document.fullscreenElement || shrink());

document.addEventListener("visibilitychange", () => {
  update();
  stayAwake();
  poll();
});
addEventListener("online", poll);
addEventListener("offline", () => {
  online = false;
  tell();
});

ring.removeAttribute("hidden");
tick();
stayAwake();
poll();
keep();
