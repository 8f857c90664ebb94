// Chooses which code in a picture is meant: the one that somebody points the camera at.

import { parse } from "./admission.js";

/** A code seen only beside another is forgotten after this many looks without it. */
const GONE = 16;
/** Two codes are equally near if their distances differ by less than this part of the nearer one's side. */
const CLEARLY = 0.25;

/** Whether a code lies across the middle of the picture. */
export function isAcross({ x, y, side }, width, height) {
  return Math.hypot(x - width / 2, y - height / 2) < side * 0.75;
}

/** A ticket's code changes; the ticket does not. */
const ticketOf = (text) => parse(text)?.ticket_id ?? text;

export class Aim {
  /** Codes seen in a picture with a nearer one, and how many looks have missed each since. */
  #beside = new Map();
  /** The ticket that was nearest in the last look. */
  #nearest = null;

  /**
   * Returns the code that is meant, given all `codes` (each with `text`, `x`, `y`, `side`) and those that were `unread`; or
   * `unsure` if nothing tells; or neither without codes. A code off centre is meant only when two looks in a row found none
   * nearer, as one of them may have missed it. A code once seen beside another is not meant until somebody points at it, or it
   * has been out of view.
   */
  choose({ codes, unread }, width, height) {
    const gap = ({ x, y }) => Math.hypot(x - width / 2, y - height / 2);
    const [nearest, ...others] = codes.sort((a, b) => gap(a) - gap(b));
    const ticket = nearest ? ticketOf(nearest.text) : null;
    const again = this.#nearest === ticket;
    this.#nearest = ticket;
    if (!nearest) {
      this.#seen([]);
      return {};
    }
    const second = others.find(({ text }) => ticketOf(text) !== ticket);
    const clear = gap(nearest) + CLEARLY * nearest.side;
    const unsure = (second && gap(second) < clear) || unread.some((one) => gap(one) < clear);
    const across = isAcross(nearest, width, height);
    const waits = this.#beside.has(ticket) && !across;
    this.#seen(codes.map(({ text }) => ticketOf(text)));
    // Of two equally near codes, neither becomes the one that is meant just because the other has gone.
    for (const { text } of unsure && second ? codes : others) this.#beside.set(ticketOf(text), 0);
    if (unsure || waits) return { unsure: true };
    this.#beside.delete(ticket);
    return across || again ? { text: nearest.text } : {};
  }

  #seen(tickets) {
    for (const [ticket, missed] of this.#beside) {
      if (tickets.includes(ticket)) this.#beside.set(ticket, 0);
      else if (missed + 1 < GONE) this.#beside.set(ticket, missed + 1);
      else this.#beside.delete(ticket);
    }
  }
}
