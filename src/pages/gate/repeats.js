// Tells which sightings of a code are new scans: a camera sees the same code many times.

import { parse } from "./admission.js";

/** A ticket out of view for this long, in milliseconds, has gone; if seen again, it has come back. */
const GONE = 4000;
/** One look at the picture counts for at most this long: a busy phone looks rarely, and sees nobody leave meanwhile. */
const LOOK = 1000;
/** After a pause this long, the person now in view may be another, with a copy: everything counts as new. */
const PAUSE = 30_000;
/** A refused ticket still in view is checked again this long after its verdict was dismissed. */
const REFUSED = 4000;
/** A hand-held scanner may read a code several times per trigger pull, this close together. */
const TWICE = 700;
/** Results that the ticket's next code may turn into an admission: that code is checked at once. */
const NEXT_CODE_HELPS = new Set(["stale_code", "wrong_code"]);
/** How many tickets are remembered: more than come into view within `GONE`. */
const MOST = 50;

/** The ticket of a QR, whichever of its codes it shows; any other text stands for itself. */
const ticketOf = (code) => parse(code)?.ticket_id ?? code;

export class Repeats {
  /**
   * By ticket, newest last: its `code`, when it was read (`readAt`), when it was last in view (`seenAt`, in looking time, which
   * stops while a verdict is shown), its `verdict`, and how long that holds (`until`).
   */
  #known = new Map();
  /** By ticket that was not taken, when it was last in view, in looking time. */
  #missed = new Map();
  /** How long the scanner has been looking, and when it last looked. */
  #looked = 0;
  #lookedAt = performance.now();

  /** Notes that the scanner looked at a picture and read these codes in it, whichever is meant. */
  looks(codes) {
    const moment = performance.now();
    const passed = moment - this.#lookedAt;
    this.#looked += passed > PAUSE ? passed : Math.min(passed, LOOK);
    this.#lookedAt = moment;
    for (const code of codes) {
      const known = this.#known.get(ticketOf(code));
      // If it had gone, `sees` reports that it has come back.
      if (known && this.#looked - known.seenAt <= GONE) known.seenAt = this.#looked;
    }
  }

  /** Notes that a code is being checked. */
  asked(code) {
    this.#keep(ticketOf(code), { code, verdict: null, until: Infinity, readAt: performance.now() });
  }

  /** Notes the verdict on a code, or on a typed ticket, which is on the screen from now on. */
  decided(code, verdict) {
    this.#putAway(0);
    const ticket = code === null ? verdict.ticket?.ticket_id : ticketOf(code);
    if (ticket) this.#keep(ticket, { code, verdict, until: Infinity, readAt: this.#known.get(ticket)?.readAt ?? 0 });
  }

  /** Notes that the verdict is off the screen. */
  dismissed() {
    this.#putAway(REFUSED);
  }

  /** Forgets a code that was not taken after all. */
  drop(code) {
    this.#known.delete(ticketOf(code));
  }

  /** Forgets everything: from now on every code counts. */
  forget() {
    this.#known.clear();
    this.#missed.clear();
  }

  /**
   * Notes a code in view. Returns null if it is a new scan. Otherwise it was already taken, and this says what is known: its
   * `verdict`, null while it is being checked; whether that is `shown` now; and whether one trigger pull read it `twice`.
   *
   * An admitted ticket that never left the view is no new scan, whichever code it shows by now: the same person is standing
   * there. A hand-held scanner is aimed by a person: what it reads is meant, unless its answer is on the screen.
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
    // Scanned again for the next person, this code must be refused: the green screen still up would look like an admission.
    if (handHeld) return code === known.code && (isAdmitted ? twice : isOpen) ? told : null;
    if (code !== known.code && (verdict?.undecided || NEXT_CODE_HELPS.has(verdict?.result))) return null;
    if (isOpen) return told;
    if (unseen > GONE) return null;
    return isAdmitted || moment < until ? told : null;
  }

  /** Whether to report that this code was not taken: once, as long as it stays in view. */
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

  /** Lets the verdict that was on the screen hold for this long from now. Nobody looked meanwhile. */
  #putAway(holds) {
    const moment = performance.now();
    for (const known of this.#known.values()) {
      if (known.verdict && known.until === Infinity) Object.assign(known, { until: moment + holds, seenAt: this.#looked });
    }
  }
}
