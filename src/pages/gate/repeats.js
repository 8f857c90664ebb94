// A camera sees the same code many times. Which of those times mean another scan?

import { parse } from "./admission.js";

/** Out of sight for so long, in milliseconds, a ticket has gone; seen again, it has come again. */
const GONE = 4000;
/** A look at the camera's picture stands for no more time than this: a busy phone looks seldom, and sees nobody go meanwhile. */
const LOOK = 1000;
/** When nobody looked for so long, whoever is there now may be another, with a copy: everything counts anew. */
const PAUSE = 30_000;
/** A ticket that was refused and stays is asked about again so long after its verdict was put away. */
const REFUSED = 4000;
/** A hand-held scanner may read a code several times for one pull of its trigger, this close together. */
const TWICE = 700;
/** These may become an admission with the ticket's next code, at once. */
const NEXT_CODE_HELPS = new Set(["stale_code", "wrong_code"]);
/** So many tickets are remembered: more than are in sight within `GONE`. */
const MOST = 50;

/** The ticket of a QR, whichever of its codes it shows; anything else is what it is. */
const ticketOf = (code) => parse(code)?.ticket_id ?? code;

export class Repeats {
  /**
   * By ticket, the newest last: its `code`, when it was `readAt`, since when it is out of sight (`seenAt`, by the time that was
   * looked: nobody looks past a verdict), the `verdict` on it, and `until` when that holds.
   */
  #known = new Map();
  /** By ticket, when it was seen last of those that were not taken, by the time that was looked. */
  #missed = new Map();
  /** For how long the scanner has looked, and when it did so last. */
  #looked = 0;
  #lookedAt = performance.now();

  /** The scanner has looked at a picture, and read these codes in it, whichever of them is meant. */
  looks(codes) {
    const moment = performance.now();
    const passed = moment - this.#lookedAt;
    this.#looked += passed > PAUSE ? passed : Math.min(passed, LOOK);
    this.#lookedAt = moment;
    for (const code of codes) {
      const known = this.#known.get(ticketOf(code));
      // Of one that had gone it is for `sees` to say that it has come again.
      if (known && this.#looked - known.seenAt <= GONE) known.seenAt = this.#looked;
    }
  }

  /** A code is being asked about. */
  asked(code) {
    this.#keep(ticketOf(code), { code, verdict: null, until: Infinity, readAt: performance.now() });
  }

  /** What was decided about a code, or about a ticket that was typed, which is on the screen from now on. */
  decided(code, verdict) {
    this.#putAway(0);
    const ticket = code === null ? verdict.ticket?.ticket_id : ticketOf(code);
    if (ticket) this.#keep(ticket, { code, verdict, until: Infinity, readAt: this.#known.get(ticket)?.readAt ?? 0 });
  }

  /** No verdict is shown any more. */
  dismissed() {
    this.#putAway(REFUSED);
  }

  /** A code was not taken after all. */
  drop(code) {
    this.#known.delete(ticketOf(code));
  }

  /** From now on every code counts. */
  forget() {
    this.#known.clear();
    this.#missed.clear();
  }

  /**
   * Takes note of a code that is seen now. Gives null when that is a scan. Otherwise it is one that was taken already,
   * and this is what is known of it: `verdict`, null while it is asked for; whether that is `shown` now; and whether it was
   * read `twice`, by one pull of a trigger.
   *
   * An admitted ticket that never left the picture is no other scan, whichever of its codes it shows by now: the same person
   * is standing there. Somebody holds a hand-held scanner: what it reads is meant, unless the answer is on the screen.
   */
  sees(code, { handHeld = false } = {}) {
    const known = this.#known.get(ticketOf(code));
    if (!known) return null;
    const moment = performance.now();
    const unseen = this.#looked - known.seenAt;
    const twice = moment - known.readAt < TWICE;
    Object.assign(known, { seenAt: this.#looked, readAt: moment });
    const { verdict, until } = known;
    const isOpen = until === Infinity;
    const told = { verdict, shown: verdict !== null && isOpen, twice };
    const isAdmitted = verdict?.result === "accepted";
    // A green screen does not say to whoever is next that the same code, scanned once more, admits nobody.
    if (handHeld) return code === known.code && (isAdmitted ? twice : isOpen) ? told : null;
    if (code !== known.code && (verdict?.undecided || NEXT_CODE_HELPS.has(verdict?.result))) return null;
    if (isOpen) return told;
    if (unseen > GONE) return null;
    return isAdmitted || moment < until ? told : null;
  }

  /** Whether somebody has to be told that this code was not taken: once, for as long as it stays in the picture. */
  tellsMissed(code) {
    const ticket = ticketOf(code);
    const isNew = !(this.#looked - this.#missed.get(ticket) < GONE);
    if (isNew) for (const [other, at] of this.#missed) if (this.#looked - at >= GONE) this.#missed.delete(other);
    this.#missed.set(ticket, this.#looked);
    return isNew;
  }

  #keep(ticket, known) {
    this.#known.delete(ticket);
    this.#known.set(ticket, { ...known, seenAt: this.#looked });
    if (this.#known.size > MOST) this.#known.delete(this.#known.keys().next().value);
  }

  /** What was on the screen holds for so long from now on. Nobody looked meanwhile. */
  #putAway(holds) {
    const moment = performance.now();
    for (const known of this.#known.values()) {
      if (known.verdict && known.until === Infinity) Object.assign(known, { until: moment + holds, seenAt: this.#looked });
    }
  }
}
