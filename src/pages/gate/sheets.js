// What opens over the camera: typed input, the last scans, the counts, and everything that is rarely needed.

import { Problem } from "../shared/api.js";
import { now } from "../shared/clock.js";
import { crowd } from "../shared/crowd.js";
import { element, find, say, svg } from "../shared/dom.js";
import { samePlace, words } from "../shared/fold.js";
import { kindOf, nameOf, seatOf, sumOf, tagsOf, wordOf } from "./verdict.js";
import { isMuted, mute } from "./sound.js";
import { explainAll } from "../shared/problem.js";
import { ago, counted, dayAndTime, money, number, text, timeOfDay } from "../shared/text.js";

/** Somebody who has not typed for this many milliseconds wants to see the results. */
const TYPED = 200;

for (const close of document.querySelectorAll(".sheet .close")) {
  close.addEventListener("click", () => close.closest("dialog").close());
}

/** Whether anything but a verdict is open over the camera. */
export const isSheetOpen = () => find(".sheet[open]") !== null;

/** Asks for confirmation of something that cannot be undone. */
export function confirmed(title, question, yes) {
  const dialog = find("#confirm");
  find("#confirm-title").textContent = title;
  find("#confirm-text").textContent = question;
  find("#confirm-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Typing a seat with its six digits or, for supervisors, with a reason instead. Calls `presented(typed)`. */
export class TypeSheet {
  #dialog = find("#type-sheet");
  #manual = false;

  constructor(presented) {
    find("#with-code").addEventListener("click", () => this.#setManual(false));
    find("#without-code").addEventListener("click", () => this.#setManual(true));
    find("#type-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      const typed = this.#typed();
      if (this.#manual && !(await this.#isSure(typed))) return;
      this.#dialog.close();
      presented(typed);
    });
  }

  open({ gate, gates, isSupervisor }) {
    find("#type-form").reset();
    find("#type-gate").value = gate ?? "";
    find("#type-gates").replaceChildren(...gates.map((value) => element("option", { value })));
    find("#type-mode").hidden = !isSupervisor;
    this.#setManual(false);
    this.#dialog.showModal();
    find(gate ? "#type-seat" : "#type-gate").focus();
  }

  #setManual(manual) {
    this.#manual = manual;
    find("#with-code").setAttribute("aria-pressed", !manual);
    find("#without-code").setAttribute("aria-pressed", manual);
    find("#type-digits").hidden = manual;
    find("#type-reason").hidden = !manual;
    find("#type-code").required = !manual;
    find("#type-code").disabled = manual;
    find("#type-note").required = manual;
    find("#type-submit").textContent = text(manual ? "gate.admit" : "gate.check");
  }

  #typed() {
    const value = (id) => find(id).value.trim();
    const place = { seat: value("#type-seat"), gate: value("#type-gate") };
    if (this.#manual) return { ...place, manual: true, note: value("#type-note") };
    return { ...place, totp_code: value("#type-code").replace(/\s/g, "") };
  }

  #isSure({ seat, gate, note }) {
    return confirmed(text("gate.manual_title"), text("gate.manual_sure", { seat, gate, note }), text("gate.admit"));
  }
}

/**
 * Finding a guest by name, for supervisors, to admit them without a code. Calls `presented(chosen)` with the guest and the
 * reason.
 */
export class GuestSheet {
  #dialog = find("#guest-sheet");
  #name = find("#guest-name");
  #gate;
  #timer = 0;
  /** Counts the searches: only the newest answer is shown. */
  #asked = 0;
  #chosen = null;

  constructor(gate, presented) {
    this.#gate = gate;
    this.#name.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.#look(), TYPED);
    });
    find("#guest-find").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#look();
    });
    find("#guest-back").addEventListener("click", () => this.#choose(null));
    find("#guest-reasons").addEventListener("click", ({ target }) => {
      if (target.matches("button")) find("#guest-reason").value = target.textContent;
    });
    find("#guest-admit").addEventListener("submit", (event) => {
      event.preventDefault();
      const { seat, gate } = this.#chosen;
      this.#dialog.close();
      presented({ seat, gate, manual: true, note: find("#guest-reason").value.trim() });
    });
    this.#dialog.addEventListener("close", () => {
      this.#asked += 1;
      this.#show([]);
      gate.closeGuests();
    });
  }

  open() {
    this.#name.value = "";
    this.#show([]);
    this.#choose(null);
    this.#dialog.showModal();
    this.#name.focus();
  }

  async #look() {
    clearTimeout(this.#timer);
    this.#asked += 1;
    const asked = this.#asked;
    const text = this.#name.value.trim();
    if (words(text).join("").length < this.#name.minLength) return this.#show([]);
    this.#say("gate.checking");
    try {
      const { guests } = await this.#gate.guests(text);
      if (asked === this.#asked) this.#show(guests, text);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (asked === this.#asked) this.#show([], text, error);
    }
  }

  #show(guests, text = "", problem = null) {
    find("#guests").replaceChildren(...guests.map((guest) =>
      element("li", {}, element("button", { type: "button", onclick: () => this.#choose(guest) }, ...guestLine(guest)))));
    if (problem) return this.#say(problem.isAway ? "gate.blind_notice" : null, ...explainAll(problem));
    if (guests.length >= this.#gate.limits.guests) return this.#say("gate.guest_more");
    if (text && guests.length > 0) return this.#say(null);
    return this.#say(text ? "gate.guest_none" : "gate.guest_hint");
  }

  #say(name, ...words) {
    say(find("#guest-told"), ...(name ? [text(name)] : words));
  }

  #choose(guest) {
    this.#chosen = guest;
    find("#guest-find").hidden = guest !== null;
    find("#guest-admit").hidden = guest === null;
    if (!guest) return;
    find("#guest-chosen").replaceChildren(...guestLine(guest));
    find("#guest-reason").value = text("gate.reason_phone");
    find("#guest-yes").focus();
  }
}

/** A guest in one line: name, seat and gate, category, and what prevents admission. */
function guestLine({ full_name, username, seat, gate, category, note, status, used_at }) {
  const kept = status === "revoked" ? "result.revoked" : used_at && "gate.guest_used";
  return [
    element("b", {}, element("bdi", {}, full_name ?? username)), " ",
    element("span", {}, element("bdi", { className: "seat" }, seat), " ", element("bdi", { className: "gate" }, gate)), " ",
    ...[category, note].filter(Boolean).flatMap((word) => ["· ", element("bdi", {}, word), " "]),
    ...(kept ? [element("em", {}, text(kept))] : []),
  ];
}

/** Admitting people without a ticket, for supervisors. Calls `presented` with how many, at which gate, and what each pays. */
export class DoorSheet {
  #dialog = find("#door-sheet");
  #count = 1;
  #counts;

  constructor(presented) {
    find("#door-fewer").addEventListener("click", () => this.#set(this.#count - 1));
    find("#door-more").addEventListener("click", () => this.#set(this.#count + 1));
    find("#door-form").addEventListener("submit", (event) => {
      event.preventDefault();
      // Stays open until the verdict is there, so that a second tap hits nothing else.
      find("#door-form").inert = true;
      const value = (name) => find(`#door-${name}`).value.trim() || undefined;
      const [at_gate, full_name, category, note] = ["gate", "name", "category", "note"].map(value);
      presented({ at_gate, walk_up: { count: this.#count, paid: this.#counts.walk_up_price ?? undefined, full_name, category, note } });
    });
  }

  open(gate, counts) {
    this.#counts = counts;
    find("#door-form").reset();
    find("#door-form").inert = false;
    find("#door-gate").value = gate ?? (counts.gates.length === 1 ? counts.gates[0].gate : "");
    find("#door-place").hidden = Boolean(find("#door-gate").value);
    find("#type-gates").replaceChildren(...counts.gates.map(({ gate: value }) => element("option", { value })));
    const categories = counts.categories.flatMap(({ category }) => category ?? []);
    find("#door-category").replaceChildren(...["", ...categories].map((name) => new Option(name)));
    find("#door-kind").hidden = categories.length === 0;
    this.#set(1);
    this.#dialog.showModal();
    find("#door-admit").focus();
  }

  #set(count) {
    const { most } = find("#door-count").dataset;
    this.#count = Math.min(Math.max(count, 1), Number(most));
    find("#door-count").textContent = number(this.#count);
    const { walk_up_price: paid, currency } = this.#counts;
    say(find("#door-sum"), sumOf({ count: this.#count, paid }, currency));
    find("#door-admit").textContent = counted("gate.door_admit", this.#count);
  }
}

/** The last scans, and how to undo one of them. */
export class ScansSheet {
  #gate;
  #timeZone;
  #wasAway = false;

  constructor(gate) {
    this.#gate = gate;
    // "Nobody answered" is no longer true once the service does.
    gate.addEventListener("state", () => this.#wasAway && gate.state.online && this.#say());
  }

  open(timeZone) {
    this.#timeZone = timeZone;
    this.#say();
    this.refresh();
    find("#scans-sheet").showModal();
  }

  refresh() {
    const scans = this.#gate.recent.map((verdict) => this.#row(verdict));
    find("#scans").replaceChildren(...(scans.length ? scans : [element("li", { className: "quiet" }, text("gate.no_scans"))]));
  }

  #row(verdict) {
    const row = element("li", { className: "scan" }, ...scanLine(verdict, this.#timeZone));
    row.dataset.kind = kindOf(verdict);
    if (this.#canUndo(verdict)) {
      const label = `${text("gate.undo")}: ${nameOf(verdict)}, ${verdict.ticket.seat}`;
      const undo = () => this.#undo(verdict);
      row.append(element("button", { type: "button", "aria-label": label, onclick: undo }, text("gate.undo")));
    }
    return row;
  }

  /** Whether the service lets a supervisor undo this: only a ticket's newest admission, and only for a while. */
  #canUndo(verdict) {
    const { scan_id, ticket, undone_at, scanned_at } = verdict;
    if (!this.#gate.supervises || verdict.result !== "accepted" || undone_at || !ticket) return false;
    const ofTicket = ({ result, ticket: other }) => result === "accepted" && other?.ticket_id === ticket.ticket_id;
    const window = this.#gate.device.limits.undo_seconds * 1000;
    return now() - Date.parse(scanned_at) < window && this.#gate.recent.find(ofTicket).scan_id === scan_id;
  }

  async #undo(verdict) {
    const who = { name: nameOf(verdict), seat: verdict.ticket.seat, word: wordOf(verdict) };
    if (!(await confirmed(text("gate.undo_title"), text("gate.undo_sure", who), text("gate.undo")))) return;
    try {
      await this.#gate.undo(verdict.scan_id);
      this.#say();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#say(...(error.isAway ? [text("gate.undo_away")] : explainAll(error)));
      this.#wasAway = error.isAway;
    }
    this.refresh();
  }

  #say(...words) {
    this.#wasAway = false;
    find("#scans-problem").replaceChildren(...words);
    find("#scans-problem").hidden = words.length === 0;
  }
}

/** One scan in one line: its symbol, its result, who, seat and gate, time. */
export function scanLine(verdict, timeZone) {
  return [
    svg("svg", { class: "shape", "aria-hidden": "true" }, svg("use", { href: `#shape-${kindOf(verdict)}` })),
    element("span", { className: "what" },
      element("b", {}, wordOf(verdict)), " ", element("bdi", { className: "who" }, nameOf(verdict)), " ", ...seatOf(verdict),
      ...tagsOf(verdict).map((tag) => element("em", {}, ` ${tag}`))),
    element("time", { dateTime: verdict.scanned_at }, timeOfDay(verdict.scanned_at, timeZone)),
  ];
}

/** Shows how many came, by gate. */
export function openCounts(counts, ownGate) {
  const row = ({ gate, admitted, expected, inside }, own) => element("tr", own ? { className: "own" } : {},
    element("th", { scope: "row" }, element("bdi", {}, gate)),
    ...[admitted, expected, inside].map((value) => element("td", { className: "number" }, number(value))));
  const rows = counts.gates.map((gate) => row(gate, samePlace(gate.gate, ownGate)));
  find("#counts-rows").replaceChildren(...rows, row({ ...counts, gate: text("gate.all_gates") }));
  const full = crowd(counts);
  Object.assign(find("#crowd"), { textContent: full?.words ?? "", className: full?.isFull ? "bad" : "warn", hidden: !full });
  const { takes_walk_ups: hasDoor, walk_ups: walkUps, cash, currency } = counts;
  find("#counts-door").hidden = !hasDoor && !walkUps;
  find("#counts-door").textContent = text("gate.door_counts", { n: number(walkUps), cash: currency ? money(cash, currency) : "–" });
  find("#counts-note").textContent = text(counts.offline ? "gate.counts_offline" : "gate.counts_online");
  find("#counts-sheet").showModal();
}

/** What this device knows of the tickets, or why it knows nothing. */
function list({ offline }, { refreshedAt, tooOld, tickets }, timeZone) {
  const time = refreshedAt && timeOfDay(refreshedAt, timeZone);
  if (refreshedAt) return text("gate.list_of", { tickets: number(tickets), time, ago: ago(now() - refreshedAt) });
  if (tooOld) return text("gate.list_too_old");
  if (!offline) return text("gate.list_never");
  return text(isSecureContext ? "gate.list_none" : "gate.list_insecure");
}

/** Opens the sheet for everything that is rarely needed. */
export function openMore(gate, timeZone) {
  const { device, state } = gate;
  const facts = [
    ["gate.fact_key", device.name],
    ["gate.fact_role", text(`gate.role_${device.role}`)],
    ["gate.fact_until", device.expires_at && dayAndTime(device.expires_at, timeZone)],
    ["gate.fact_list", list(device, state, timeZone)],
    ["gate.fact_unsent", number(state.queued)],
  ];
  find("#facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) =>
    [element("dt", {}, text(name)), element("dd", {}, element("bdi", {}, value))]));
  showRefused(gate);
  find("#send-now").hidden = find("#save-unsent").hidden = state.queued === 0;
  find("#change-gate").hidden = device.gate !== null;
  find("#sound").setAttribute("aria-pressed", !isMuted());
  find("#more-sheet").showModal();
}

/** Shows the scans that the service refused for good, until somebody has seen each. */
function showRefused(gate) {
  const seen = async (scan_id) => {
    await gate.dismiss(scan_id);
    showRefused(gate);
  };
  const { refused } = gate.state;
  find("#refused").hidden = refused.length === 0;
  find("#refused-list").replaceChildren(...refused.map(({ scan_id, ...problem }) =>
    element("li", { className: "scan" }, element("span", { className: "what" }, ...explainAll(problem)),
      element("button", { type: "button", onclick: () => seen(scan_id) }, text("gate.seen")))));
}

find("#sound").addEventListener("click", ({ currentTarget }) => {
  mute(!isMuted());
  currentTarget.setAttribute("aria-pressed", !isMuted());
});
