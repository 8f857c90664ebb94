// The ticket page: shows the current code, and polls the service for changes to the ticket. A link made for one person has all
// their tickets, of which one is on the screen.

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
/** An error of the clock below this many seconds is not worth a note. */
const CLOCK_IS_RIGHT = 5;
/** In seconds. */
const QUARTER = 900;
/** The last seconds of a code, in which a gate may just miss it. */
const SOON = 5;
/** The distance in pixels from which a touch is a swipe. */
const SWIPE = 50;

// Without a secure context the browser cannot make codes: the service sends them one by one.
const makesCodes = Boolean(globalThis.crypto?.subtle);
const easing = matchMedia("(prefers-reduced-motion: reduce)").matches ? "steps(30)" : "linear";

let online = true;
/** How well the page is stored for use without a network; null until known. */
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

  /** Whether it still needs its code: an event with re-entry asks for it at the exit and at the next entry. */
  get needsCode() {
    const { status, reentry } = this.root.dataset;
    return status === "valid" || (status === "used" && reentry !== "none");
  }

  /** Shows the current code and how long it lasts. */
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

  /** Applies changes. Returns whether more than texts changed. */
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

  /** Ends the ticket: this link no longer opens it, because it has a new link or another holder. */
  end() {
    const { dataset } = this.root;
    if (dataset.status === "gone") return false;
    Object.assign(dataset, { status: "gone", key: "" });
    for (const part of this.root.querySelectorAll("details, .alone, .wallet")) part.remove();
    return true;
  }

  /** Shows the notes about the connection and the clock. */
  tell() {
    this.root.classList.toggle("stale", !makesCodes && !online);
    say(find(".connection", this.root), this.needsCode ? connection() : "");
    say(find(".clock", this.root), this.needsCode ? clock() : "");
  }
}

const page = find("#tickets");
const tickets = [...page.querySelectorAll(".ticket")].map((root) => new Ticket(root));
/** The ticket on the screen. */
let current = tickets.find((ticket) => ticket.needsCode) ?? tickets[0];

/** Runs once a second, on the service's second. */
function tick() {
  current.update();
  setTimeout(tick, 1000 - (now() % 1000));
}

// Polling the service.

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

/** Loads this page again and applies what changed. */
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

// Notes.

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

/** A phone set by hand to the time of another zone is off by quarter hours, give or take a minute. */
function isOfAnotherZone(seconds) {
  const quarters = Math.round(seconds / QUARTER);
  return quarters > 0 && Math.abs(seconds - quarters * QUARTER) <= 60;
}

// The screen.

let awake;

/** Keeps the screen on while it shows a code. The browser releases the lock whenever the page is hidden. */
async function stayAwake() {
  if (document.visibilityState === "hidden") return;
  try {
    if (!current.needsCode) await awake?.release();
    else if (!awake || awake.released) awake = await navigator.wakeLock.request("screen");
  } catch {
    // Not supported, or the battery is low: the screen turns off as usual.
  }
}

/** Makes the page all white, and full screen if the browser allows it. */
function setLarge(large) {
  current.isLarge = large;
  find("#bright").media = large ? "all" : "not all";
  const screen = large ? document.documentElement.requestFullscreen?.({ navigationUI: "hide" }) : document.fullscreenElement && document.exitFullscreen();
  screen?.catch?.(() => {}); // Then it fills only the page.
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

/** Where a finger touched down, if it is the only one and the page is not zoomed. */
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
