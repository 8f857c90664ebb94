// A camera sees the same code many times. Which of those times mean another scan?

import { parse } from "./admission.js";

/** After a refusal was put away, its code is looked at again only so much later, in milliseconds. */
const REFUSED = 4000;
/** After an admission the phone often stays before the camera, and shows its next code. */
const ADMITTED = 10_000;
/** These may become an admission with the ticket's next code, at once. */
const NEXT_CODE_HELPS = new Set(["stale_code", "wrong_code"]);

/** A QR up to its last part, which changes; anything else whole. */
const ticketOf = (code) => (parse(code) ? code.slice(0, code.lastIndexOf(".")) : code);

export class Repeats {
  #code = null;
  #until = 0;
  #seenAt = 0;
  #wholeCode = false;

  /** What was decided about a code last. It is not asked again as long as the verdict is shown, nor shortly after. */
  decided(code, { result, undecided }) {
    this.#code = code;
    this.#wholeCode = NEXT_CODE_HELPS.has(result) || undecided;
    this.#until = Infinity;
  }

  /** The verdict is no longer shown. */
  dismissed({ result }) {
    this.#seenAt = Date.now(); // Nobody looked meanwhile.
    this.#until = Date.now() + (result === "accepted" ? ADMITTED : REFUSED);
  }

  /** From now on every code counts. */
  forget() {
    this.#code = null;
  }

  /**
   * Whether a code that is seen now is one just decided. One that was gone for a while has come again. Somebody holds a
   * hand-held scanner: what it reads after the verdict was put away, and any other code, is meant as another scan.
   */
  has(code, { handHeld = false } = {}) {
    if (handHeld) return code === this.#code && this.#until === Infinity;
    const same = this.#wholeCode ? code === this.#code : ticketOf(code) === ticketOf(this.#code ?? "");
    if (!same) return false;
    const gone = Date.now() - this.#seenAt > REFUSED && this.#until !== Infinity;
    this.#seenAt = Date.now();
    return Date.now() < this.#until && !gone;
  }
}
