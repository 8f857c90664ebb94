// The ticket page: shows the code of the moment, and asks the service now and then what became of the ticket. A link that was made for
// one person has all of their tickets, of which one is on the screen.

import { Problem, isOfAnother, pageOf, send } from "../shared/api.js";
import { now, secondsSlow } from "../shared/clock.js";
import { find, say } from "../shared/dom.js";
import { forgetOffline } from "../shared/offline.js";
import { qrSvg } from "../shared/qr.js";
import { duration, number, text } from "../shared/text.js";
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
/** Pixels from which on a finger swipes. */
const SWIPE = 50;

// Without a secure context the browser makes no codes: then they come from the service, one by one.
const makesCodes = Boolean(globalThis.crypto?.subtle);
const easing = matchMedia("(prefers-reduced-motion: reduce)").matches ? "steps(30)" : "linear";

let online = true;
/** How the page is kept for when there is no network, as soon as that is known. */
let kept = null;

/** One ticket of the page. */
class Ticket {
  #key;
  #step = makesCodes ? null : stepAt(now());

  constructor(root) {
    this.root = root;
    this.enlarge = find(".enlarge", root);
    this.ring = find(".ring", root);
    this.turning = find(".left", this.ring).animate({ strokeDashoffset: [0, 100] }, { duration: STEP, iterations: Infinity, easing });
    this.ring.removeAttribute("hidden");
    this.enlarge.disabled = false;
    this.enlarge.addEventListener("click", () => setLarge(!this.isLarge));
  }

  get isLarge() {
    return this.root.classList.contains("large");
  }

  set isLarge(large) {
    this.root.classList.toggle("large", large);
    this.enlarge.setAttribute("aria-pressed", large);
  }

  /** Whether it still needs its code: an event with re-entry asks for it at the exit, and again at the next entry. */
  get needsCode() {
    const { status, reentry } = this.root.dataset;
    return status === "valid" || (status === "used" && reentry !== "none");
  }

  /** The code of the moment, and how long it lasts. */
  update() {
    if (!this.needsCode) return;
    const moment = now();
    const left = Math.ceil((STEP - (moment % STEP)) / 1000);
    this.turning.currentTime = moment % STEP;
    find("text", this.ring).textContent = left;
    this.ring.classList.toggle("soon", left <= SOON);
    if (stepAt(moment) !== this.#step) this.#showCode(stepAt(moment));
  }

  async #showCode(step) {
    this.#step = step;
    if (!makesCodes) return poll();
    const { key, ticket } = this.root.dataset;
    this.#key ??= await importKey(key);
    this.#show(await code(this.#key, step), (digits) => qrSvg(`RT1.${ticket}.${digits}`));
  }

  #show(digits, picture) {
    find(".digits", this.root).textContent = `${digits.slice(0, 3)} ${digits.slice(3)}`;
    this.enlarge.replaceChildren(picture(digits));
  }

  /** Takes over what changed. Returns whether that is more than words. */
  take(fresh) {
    const before = JSON.stringify(this.root.dataset);
    Object.assign(this.root.dataset, fresh.dataset);
    for (const field of this.root.querySelectorAll("[data-field]")) {
      const known = find(`[data-field="${field.dataset.field}"]`, fresh);
      Object.assign(field.dataset, known.dataset);
      say(field, known.textContent);
    }
    if (!makesCodes && this.needsCode) {
      this.#step = stepAt(now());
      this.#show(find(".digits", fresh).textContent, () => document.adoptNode(find(".enlarge svg", fresh)));
    }
    return JSON.stringify(this.root.dataset) !== before;
  }

  /** The link does not open it any more: it has another one now, or another person. */
  end() {
    const { dataset } = this.root;
    if (dataset.status === "gone") return false;
    Object.assign(dataset, { status: "gone", key: "" });
    for (const part of this.root.querySelectorAll("details, .alone, .wallet")) part.remove();
    return true;
  }

  /** Says what there is to tell. */
  tell() {
    this.root.classList.toggle("stale", !makesCodes && !online);
    say(find(".connection", this.root), this.needsCode ? connection() : "");
    say(find(".clock", this.root), this.needsCode ? clock() : "");
  }
}

const page = find("#tickets");
const tickets = [...page.querySelectorAll(".ticket")].map((root) => new Ticket(root));
/** The one on the screen. */
let current = tickets.find((ticket) => ticket.needsCode) ?? tickets[0];

/** Once a second, on the service's second. */
function tick() {
  current.update();
  setTimeout(tick, 1000 - (now() % 1000));
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
  current.update();
  tell();
}

/** Asks for this page again and takes over what changed. */
async function refresh() {
  const response = await send("GET", location.pathname, { timeout: POLL });
  const { page: fresh, kind } = await pageOf(response, "ticket", "gone");
  if (kind === "gone" && isOfAnother(response, page.dataset.database)) throw new Problem(0);
  const changes = tickets.map((ticket) => {
    const known = fresh.querySelector(`.ticket[data-ticket="${ticket.root.dataset.ticket}"]`);
    return known ? ticket.take(known) : ticket.end();
  });
  if (changes.includes(true)) changed();
  if (kind === "gone") await forgetOffline();
}

function changed() {
  shrink();
  stayAwake();
  keep();
}

async function keep() {
  if (tickets.every(({ root }) => root.dataset.status === "gone")) return;
  kept = await keeping();
  tell();
}

// What there is to tell.

const tell = () => tickets.forEach((ticket) => ticket.tell());

function connection() {
  if (!online) return text(makesCodes ? "ticket.offline" : "ticket.offline_no_code");
  return kept ? text(`ticket.kept_${kept}`) : "";
}

function clock() {
  const slow = secondsSlow();
  if (!makesCodes || Math.abs(slow) < CLOCK_IS_RIGHT) return "";
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
    if (!current.needsCode) await awake?.release();
    else if (!awake || awake.released) awake = await navigator.wakeLock.request("screen");
  } catch {
    // No such thing here, or the battery is low: the screen goes dark as it always does.
  }
}

/** All white, and the whole screen where the browser gives it. */
function setLarge(large) {
  current.isLarge = large;
  find("#bright").media = large ? "all" : "not all";
  const screen = large ? document.documentElement.requestFullscreen?.({ navigationUI: "hide" }) : document.fullscreenElement && document.exitFullscreen();
  screen?.catch?.(() => {}); // Then it is as large as the page.
}

const shrink = () => setLarge(false);

document.addEventListener("fullscreenchange", () => document.fullscreenElement || shrink());

// Several tickets.

function show(ticket) {
  const wasLarge = current.isLarge;
  current.isLarge = false;
  current = ticket;
  for (const each of tickets) each.root.hidden = each !== current;
  if (wasLarge) setLarge(current.needsCode);
  const place = tickets.indexOf(current);
  say(find("#which"), text("ticket.which", { n: number(place + 1), count: number(tickets.length) }));
  find("#before").disabled = place === 0;
  find("#next").disabled = place === tickets.length - 1;
  current.update();
  stayAwake();
}

function turn(by) {
  const ticket = tickets[tickets.indexOf(current) + by];
  if (ticket) show(ticket);
}

/** Where a finger was put down: one alone, on a page that nobody has enlarged. */
let finger = null;

const KEYS = { ArrowLeft: () => turn(-1), ArrowRight: () => turn(1), Escape: shrink };

document.addEventListener("keydown", ({ key, altKey, ctrlKey, metaKey }) => altKey || ctrlKey || metaKey || KEYS[key]?.());
document.addEventListener("touchstart", ({ touches }) => {
  finger = touches.length === 1 && !(globalThis.visualViewport?.scale > 1) ? touches[0] : null;
}, { passive: true });
document.addEventListener("touchend", ({ changedTouches: [lifted] }) => {
  const [across, down] = finger ? [lifted.clientX - finger.clientX, lifted.clientY - finger.clientY] : [0, 0];
  finger = null;
  if (Math.abs(across) > Math.max(SWIPE, 2 * Math.abs(down))) turn(across < 0 ? 1 : -1);
}, { passive: true });
find("#before").addEventListener("click", () => turn(-1));
find("#next").addEventListener("click", () => turn(1));

document.addEventListener("visibilitychange", () => {
  current.update();
  stayAwake();
  poll();
});
addEventListener("online", poll);
addEventListener("offline", () => {
  online = false;
  tell();
});

find("nav").hidden = tickets.length === 1;
show(current);
tick();
poll();
keep();
