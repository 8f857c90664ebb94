// Which of the codes in a picture is meant: the one that somebody points the camera at.

import { parse } from "./admission.js";

/** A code that was only beside another one is forgotten when so many looks did not see it. */
const GONE = 16;
/** Two codes are equally near when the difference is less than this part of the nearer one's side. */
const CLEARLY = 0.25;

/** Whether a code lies across the middle of the picture. */
export function isAcross({ x, y, side }, width, height) {
  return Math.hypot(x - width / 2, y - height / 2) < side * 0.75;
}

/** The codes of a ticket change, the ticket does not. */
const ticketOf = (text) => parse(text)?.ticket_id ?? text;

export class Aim {
  /** Codes that were in a picture with a nearer one: how many looks have missed each since. */
  #beside = new Map();
  /** The ticket that was nearest in the last look. */
  #nearest = null;

  /**
   * The code that is meant, of all `codes` (each with `text`, `x`, `y`, `side`) and of what is there but `unread`; or
   * `unsure` where nobody can tell. Without codes it is neither. A code aside is meant when two looks in turn found none that is
   * nearer, as one of them may have missed it. One that was beside another is not meant until somebody points at it, or
   * it has been out of sight.
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
    // Where two are equally near, neither is meant later because the other one has gone.
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
