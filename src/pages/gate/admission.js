// Decides a scan at the gate exactly as src/admission.rs does: both run tests/suite/admission_cases.json.

import { samePlace } from "../shared/fold.js";
import { STEP, base64url, code, derive, importKey, stepAt } from "../shared/totp.js";

/** In seconds, as src/totp.rs has them. */
const QUARTER = 900;
const PERIOD = STEP / 1000;

/** What a code proves that is valid now but leaves no step to remember: somebody vouches, or it is the ticket's paper. */
const VOUCHED = { step: null, seconds_off: null };
const PAPER = { ...VOUCHED, paper: true };

const refuse = (result) => ({ result, step: null, seconds_off: null, opens_at: null, closed_at: null });

/**
 * Decides one scan as of `now`; all times here are in milliseconds. `ticket` is null if the event has no such ticket, else
 * `{gate, status, registered, inside, printed, last_step, refusals, newest_accepted_at, reentry, entered_at, valid_from,
 * valid_until}` plus `time_zone`, `opens_at` and `closes_at` of its event. `presented` is `{code, vouched, at_gate, direction,
 * offline, tells_future}`: `code` comes from `shownCode`, or is null when somebody vouches; `vouched` says whether that is a
 * supervisor, and `tells_future` whether the person at the gate may learn that a code is from the future. `codes` are the
 * manifest's limits: at how many refused codes in the last minute the next one is no longer checked (`attempts`), from how many
 * on a future code is called wrong (`future_told`), and the hour at which an event's day begins (`day_turns`).
 */
export async function decide(ticket, presented, now, codes) {
  if (!ticket) return refuse("unknown_ticket");
  // A device knows only the gate of another gate's ticket. Of its own gate's tickets it has no key for those refused below.
  if (!ticket.status) return refuse("wrong_gate");
  if (!ticket.registered) return refuse("not_registered");
  if (ticket.status === "revoked") return refuse("revoked");
  if (presented.at_gate !== null && !samePlace(presented.at_gate, ticket.gate)) return refuse("wrong_gate");
  const { code } = presented;
  if (code?.guessable && ticket.refusals > codes.attempts && !presented.offline) return refuse("too_many_attempts");
  const proven = code ? await code.proves() : VOUCHED;
  const isTold = proven && (!(proven.seconds_off > 0) || (presented.tells_future && ticket.refusals < codes.future_told));
  if (!isTold || (proven.paper && !ticket.printed)) return refuse("wrong_code");
  const { step, seconds_off } = proven;
  if (seconds_off !== null) return { ...refuse(step === null ? "wrong_code" : "stale_code"), seconds_off };
  const late = ticket.newest_accepted_at !== null && now < ticket.newest_accepted_at;
  const entry = presented.direction === "entry";
  const wrongTime = entry && !presented.vouched && untimely(ticket, now);
  if (wrongTime) return wrongTime;
  if (entry && (late || !mayEnter(ticket, proven, now, codes))) return refuse("already_used");
  if (!entry && (late || !ticket.inside)) return refuse("not_inside");
  if (step !== null && ticket.last_step !== null && step < ticket.last_step + (entry ? 1 : 0)) {
    return refuse("stale_code");
  }
  return { ...refuse("accepted"), step };
}

/** Builds a decision's subject from a listed ticket and its event. A ticket entered once has that as its last entry too. */
export function subjectOf(ticket, { time_zone, reentry, opens_at, closes_at }) {
  const { used_at, entered_at = used_at, valid_from, valid_until } = ticket;
  const times = Object.entries({ entered_at, valid_from, valid_until, opens_at, closes_at });
  const moments = Object.fromEntries(times.map(([name, time]) => [name, time ? Date.parse(time) : null]));
  return { ...ticket, refusals: 0, newest_accepted_at: null, time_zone, reentry, ...moments };
}

/** The results that need the right code or a supervisor who vouches. */
const PROVEN = ["accepted", "already_used", "not_inside", "stale_code", "too_early", "too_late", "undone"];

/** How much of the ticket a verdict shows: its `place` (seat and gate), also the `holder`, or `everything`. */
export function told(result, supervises) {
  if (PROVEN.includes(result)) return "everything";
  return supervises ? "holder" : "place";
}

/** The refusal of somebody too early or too late, or null. Nobody who is too late is asked to come back. */
function untimely({ opens_at, closes_at, valid_from, valid_until }, now) {
  const given = (times) => times.filter((time) => time !== null);
  const end = Math.min(...given([closes_at, valid_until]));
  const start = Math.max(...given([opens_at, valid_from]));
  if (now >= end) return { ...refuse("too_late"), closed_at: end };
  return now < start ? { ...refuse("too_early"), opens_at: start } : null;
}

/** Whether a ticket, under its event's `reentry` rule, admits somebody who has `proven` this. */
function mayEnter(ticket, { paper }, now, { day_turns }) {
  if (ticket.status !== "used") return ticket.status === "valid";
  if (ticket.reentry === "once_a_day") {
    const day = (moment) => eventDay(moment, ticket.time_zone, day_turns);
    return ticket.entered_at !== null && day(now) > day(ticket.entered_at);
  }
  // Paper can be copied and given to somebody outside: it admits once.
  return ticket.reentry === "after_exit" && !ticket.inside && !paper;
}

/**
 * The day of an event that a moment belongs to, as a number: in the event's time zone, with days beginning at hour `turns`.
 * Throws if the browser does not know the time zone.
 */
function eventDay(moment, timeZone, turns) {
  const numeric = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric" };
  const format = new Intl.DateTimeFormat("en", { ...numeric, calendar: "gregory", numberingSystem: "latn", hourCycle: "h23", timeZone });
  const parts = format.formatToParts(moment).map(({ type, value }) => [type, Number(value)]);
  const { year, month, day, hour } = Object.fromEntries(parts);
  return Date.UTC(year, month - 1, hour < turns ? day - 1 : day);
}

/**
 * Wraps a code, `{digits}` or `{printed}`, for a decision: whether it may have been guessed, and what it proves, which is
 * computed only if the verdict depends on it.
 */
export const shownCode = (ticket, code, now, codes) =>
  code && { guessable: code.digits !== undefined, proves: () => recognise(ticket.key, code, now, codes) };

/** Returns what a code proves of the ticket with this key, in the form of `find`, or null. */
export async function recognise(base32, { digits, printed }, now, codes) {
  if (digits !== undefined) return find(base32, digits, now, codes);
  return printed === (await proof(base32)) ? PAPER : null;
}

/**
 * Searches the steps around `now` for these digits: `{step, seconds_off}`, or null. `seconds_off` is null for a code valid now
 * and negative for one from the past. `step` is null for a code that would be valid in another time zone. The manifest's
 * `codes` give the steps a clock may be off (`drift`), how far to search for a refused code (`stale_window`), and the number of
 * quarter hours to try (`zones`, absent in lists of 0.1.0).
 */
export async function find(base32, digits, now, { drift, stale_window, zones = 0 }) {
  const key = await importKey(base32);
  const current = stepAt(now);
  // Nearest first, and the past before the future: a code valid now must never count as stale.
  for (let away = 0; away <= stale_window; away += 1) {
    for (const step of away ? [current - away, current + away] : [current]) {
      if (step >= 0 && (await code(key, step)) === digits) {
        return { step, seconds_off: away <= drift ? null : secondsOff(step, now) };
      }
    }
  }
  const drifts = Array.from({ length: 2 * drift + 1 }, (_, index) => index - drift);
  for (let quarters = 1; quarters <= zones; quarters += 1) {
    for (const seconds_off of [-quarters * QUARTER, quarters * QUARTER]) {
      const steps = drifts.map((away) => current + seconds_off / PERIOD + away).filter((step) => step >= 0);
      const codes = await Promise.all(steps.map((step) => code(key, step)));
      if (codes.includes(digits)) return { step: null, seconds_off };
    }
  }
  return null;
}

function secondsOff(step, now) {
  const second = Math.floor(now / 1000);
  const begins = step * 30;
  return second >= begins + 30 ? begins + 30 - second : begins - second;
}

/** The proof that only a ticket's paper shows. */
export const proof = async (base32) => base64url(await derive(base32, "print", 10));

/** The forms of a ticket's QR, as in src/totp.rs: the prefix, and how to read the last part. */
const FORMS = {
  RT1: (digits) => /^[0-9]{6}$/.test(digits) && { digits },
  RP1: (printed) => bytes(printed)?.length === 10 && { printed },
};

/** What scanners add around a code, spaces and byte order marks, as in src/totp.rs. */
const AROUND = /^[\p{White_Space}\ufeff]+|[\p{White_Space}\ufeff]+$/gu;

/** Removes what scanners add around a code. */
export const trimmed = (text) => text.replace(AROUND, "");

/** Finds a ticket's QR at the end of a text, whatever was typed before it. */
export const QR = new RegExp(`(${Object.keys(FORMS).join("|")})\\.([\\w-]{22})\\.([\\w-]+)$`);

/**
 * Parses a ticket's QR: `{ticket_id, code}`, or null for anything but `RT1.<ticket_id>.<six digits>` or, on paper,
 * `RP1.<ticket_id>.<proof>`, with id and proof in base64url.
 */
export function parse(text) {
  const [whole, form, name, rest] = QR.exec(trimmed(text)) ?? [];
  const id = whole === trimmed(text) && bytes(name);
  const code = id && FORMS[form](rest);
  return code ? { ticket_id: uuid(id), code } : null;
}

/** Returns the ticket id in a text of our form, whatever its code. */
export const ticketIn = (text) => uuid(bytes(text.split(".")[1]));

/** Writes 16 bytes as a UUID. */
export function uuid(bytes) {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Returns the 16 bytes of a UUID. */
export const bytesOf = (id) => Uint8Array.from(id.replaceAll("-", "").match(/../g), (byte) => Number.parseInt(byte, 16));

/** Writes a UUID the way a QR has it. */
export const written = (id) => base64url(bytesOf(id));

/** Decodes base64url. Returns null unless it is the one canonical spelling of its bytes. */
function bytes(text) {
  if (text.length % 4 === 1) return null;
  const decoded = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
  return base64url(decoded) === text ? decoded : null;
}
