// Shows the verdict as large as the screen: colour, shape, words, sound.

import { now } from "../shared/clock.js";
import { element, find } from "../shared/dom.js";
import { explainAll } from "../shared/problem.js";
import { signal } from "./sound.js";
import { ago, counted, dayAndTime, duration, hasText, isolated, money, number, text, timeAndOtherDay, timeOfDay } from "../shared/text.js";

/** How long an admission is shown, in milliseconds; everything else stays until somebody has read it. */
const SHOWN = 1500;
/** The least time for it, even if the next scan waits, so that it can be seen. */
const SEEN = 400;
const DAY = 24 * 60 * 60 * 1000;
/** The look and sound of each result. With `attention`, the holder may come in after the step that the detail names. */
const KINDS = {
  accepted: "accepted",
  already_used: "refused",
  wrong_code: "refused",
  stale_code: "attention",
  wrong_gate: "attention",
  too_early: "attention",
  too_late: "refused",
  not_registered: "refused",
  not_inside: "refused",
  revoked: "refused",
  unknown_ticket: "refused",
  too_many_attempts: "attention",
  undone: "refused",
  // Not from the service.
  not_a_code: "attention",
  not_taken: "undecided",
};

/** Which of the five looks and sounds a verdict has. An unknown result admits nobody. */
export function kindOf({ undecided, result, direction }) {
  if (undecided) return "undecided";
  if (result === "accepted" && direction === "exit") return "left";
  return KINDS[result] ?? "refused";
}

/** Its title: "Admitted". */
export function wordOf(verdict) {
  if (verdict.undecided) return text("result.undecided");
  if (verdict.just) return text("result.just_admitted");
  return text(`result.${kindOf(verdict) === "left" ? "left" : verdict.result}`);
}

export const nameOf = ({ ticket, walk_up }) => {
  const name = ticket?.full_name ?? ticket?.username ?? (walk_up ? text("gate.door") : "");
  return walk_up ? `${name} × ${number(walk_up.count)}` : name;
};

/** What people without a ticket pay: `3 × €12.00 = €36.00`. */
export function sumOf({ count, paid = null }, currency) {
  if (paid === null || !currency) return "";
  const sum = money(count * paid, currency);
  return count > 1 ? `${number(count)} × ${money(paid, currency)} = ${sum}` : sum;
}

/** Texts for how the verdict differs from one that the service gave just now. */
export function tagsOf(verdict) {
  const { offline, offline_result: here, result, replayed, undone_at } = verdict;
  const tags = { offline, corrected: here && here !== result, replayed: replayed && !here, undone: undone_at };
  const word = here && wordOf({ ...verdict, undecided: false, result: here });
  return Object.keys(tags).filter((tag) => tags[tag]).map((tag) => text(`gate.tag_${tag}`, { word }));
}

/** The result of admitting several tickets at once. */
function togetherOf({ together }) {
  if (!together) return [];
  const left = together.left.map(({ seat }) => isolated(seat));
  return [text("gate.party_admitted", { n: number(together.admitted) }), ...(left.length > 0 ? [text("gate.party_left", { seats: left })] : [])];
}

function detailOf(verdict, timeZone) {
  const { result, seconds_off: off, presented } = verdict;
  if (verdict.undecided) return undecidedDetail(verdict.problem);
  if (result === "already_used") return usedDetail(verdict, timeZone);
  if (result === "stale_code" && off) {
    return text(off < 0 ? "result.stale_code_slow" : "result.stale_code_fast", { seconds: Math.abs(off) });
  }
  if (result === "unknown_ticket" && presented?.seat) {
    return text("result.unknown_seat", { seat: isolated(presented.seat), gate: isolated(presented.gate) });
  }
  if (result === "wrong_code" && off) {
    return text(off < 0 ? "result.wrong_code_slow" : "result.wrong_code_fast", { amount: duration(Math.abs(off)) });
  }
  if (result === "unknown_ticket" && presented?.loose?.length > 0) return text("result.unknown_keys");
  const name = `result.${result}_detail`;
  return hasText(name) ? text(name) : "";
}

function undecidedDetail(problem) {
  if (["list_too_old", "storage_full"].includes(problem?.code)) return [text(`gate.${problem.code}`)];
  if (!problem || problem.isAway) return [text("result.undecided_detail")];
  return [text("result.undecided_why"), " ", ...explainAll(problem)];
}

function usedDetail({ first_used_at: at, first_used_gate: gate }, timeZone) {
  if (!at) return "";
  const age = now() - Date.parse(at);
  const time = age > DAY ? dayAndTime(at, timeZone) : timeOfDay(at, timeZone);
  const values = { time, ago: ago(age), gate: isolated(gate ?? "") };
  return text(gate ? "result.already_used_detail" : "result.already_used_somewhere", values);
}

function orderOf({ result, right_gate: gate, opens_at: opens, closed_at: closed, ticket, walk_up, currency }, timeZone) {
  if (result === "accepted" && walk_up) return sumOf(walk_up, currency);
  if (result === "wrong_gate" && gate) return text("result.wrong_gate_order", { gate: isolated(gate) });
  const turn = { too_early: opens, too_late: closed }[result];
  if (!turn) return "";
  const whose = [ticket?.valid_from, ticket?.valid_until].includes(turn) ? "ticket" : "doors";
  return text(`result.${result}_${whose}`, { time: timeAndOtherDay(turn, timeZone, now()) });
}

/**
 * The dialog that shows verdicts. Calls `closed()` when one is gone, `retry(verdict)` to ask for it again, and `admit(verdict,
 * tickets)` for tickets of its `party`.
 */
export class VerdictDialog {
  /** The verdict on the screen, or null. */
  shown = null;
  #dialog = find("#verdict");
  #timer = 0;
  #since = 0;
  #closed;
  #admit;

  constructor({ closed, retry, admit }) {
    this.#closed = closed;
    this.#admit = admit;
    this.#dialog.addEventListener("click", ({ target }) => {
      if (target.id === "verdict-retry") retry(this.shown);
      // A tap that misses a party button must not dismiss the verdict.
      else if (!target.closest("#party")) this.close();
    });
    // The Escape key closed it. The event may arrive only when the next verdict is already shown.
    this.#dialog.addEventListener("close", () => this.#dialog.open || this.close());
  }

  /** Whether no other verdict may replace this one: it is undecided, or a refusal that nobody can have read yet. */
  get blocks() {
    return Boolean(this.shown) && (kindOf(this.shown) === "undecided" || this.givesIn > 0);
  }

  /** In how many milliseconds a refusal may be replaced by the next scan; 0 if at once, or never. */
  get givesIn() {
    const isRefusal = this.shown && !this.#isAdmission && kindOf(this.shown) !== "undecided";
    return isRefusal ? Math.max(0, SHOWN - this.#age) : 0;
  }

  /** How many more milliseconds an admission must be shown before the next verdict may replace it. */
  get needs() {
    return this.#isAdmission ? Math.max(0, SEEN - this.#age) : 0;
  }

  get #isAdmission() {
    return Boolean(this.shown) && this.shown.result === "accepted" && !this.shown.undecided;
  }

  get #age() {
    return performance.now() - this.#since;
  }

  /** `offered` is for how many milliseconds the verdict may vouch for its `party`. */
  show(verdict, timeZone, offered = 0) {
    const kind = kindOf(verdict);
    this.shown = verdict;
    this.#since = performance.now();
    this.#dialog.dataset.kind = kind;
    find("#verdict-shape").setAttribute("href", `#shape-${kind}`);
    find("#verdict-word").textContent = wordOf(verdict);
    find("#verdict-order").textContent = orderOf(verdict, timeZone);
    find("#verdict-name").textContent = nameOf(verdict);
    find("#verdict-seat").replaceChildren(...seatOf(verdict));
    const category = find("#verdict-category");
    category.textContent = verdict.ticket?.category ?? "";
    category.dataset.colour = verdict.ticket?.category_colour ?? "";
    find("#verdict-note").textContent = verdict.ticket?.note ?? "";
    find("#verdict-detail").replaceChildren(...[detailOf(verdict, timeZone)].flat());
    find("#verdict-tags").replaceChildren(...[...togetherOf(verdict), ...tagsOf(verdict)].map((tag) => element("li", {}, tag)));
    const party = offered > 0 ? verdict.party : [];
    this.#showParty(verdict, party);
    find("#verdict-retry").hidden = !verdict.undecided;
    if (!this.#dialog.open) this.#dialog.showModal();
    signal(kind);
    clearTimeout(this.#timer);
    if (this.#isAdmission) this.#timer = setTimeout(() => this.close(), party.length > 0 ? offered : SHOWN);
  }

  /** Offers to admit the holder's other tickets: all of them, or one. */
  #showParty(verdict, party) {
    const offer = (tickets) => () => {
      find("#party").inert = true;
      clearTimeout(this.#timer);
      this.#admit(verdict, tickets);
    };
    find("#party").hidden = party.length === 0;
    find("#party").inert = false;
    find("#party-all").textContent = counted("gate.party_all", party.length, { name: isolated(nameOf(verdict.voucher ?? verdict)) });
    find("#party-all").onclick = offer(party);
    // A single ticket has only the button for all.
    const ones = party.map((ticket) => element("li", {}, party.length > 1
      ? element("button", { type: "button", onclick: offer([ticket]) }, partyLine(ticket)) : element("p", {}, partyLine(ticket))));
    find("#party-ones").replaceChildren(...ones);
    this.#dialog.scrollTop = 0;
  }

  close() {
    clearTimeout(this.#timer);
    const wasShown = this.shown !== null;
    this.shown = null;
    this.#dialog.close();
    if (wasShown) this.#closed();
  }
}

/** A ticket of a party in one line: seat, name, category and note. */
const partyLine = ({ seat, full_name, category, note }) =>
  element("span", {}, element("bdi", { className: "seat" }, seat), ...[full_name, category, note].filter(Boolean).flatMap((word) => [" · ", element("bdi", {}, word)]));

/** Seat and gate as nodes, each isolated because either may be written right to left. */
export function seatOf({ ticket }) {
  if (!ticket) return [];
  return [element("bdi", { className: "seat" }, ticket.seat), " ", element("bdi", { className: "gate" }, ticket.gate)];
}
