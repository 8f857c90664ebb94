// The decision at the gate, the same as src/admission.rs: tests/suite/admission_cases.json is run against both.

import { samePlace } from "../shared/fold.js";
import { STEP, base64url, code, derive, importKey, stepAt } from "../shared/totp.js";

/** In seconds, as src/totp.rs has them. */
const QUARTER = 900;
const PERIOD = STEP / 1000;

/** What a code proves that is good now, and leaves no step to remember: that somebody vouches, and the ticket's paper. */
const VOUCHED = { step: null, seconds_off: null };
const PAPER = { ...VOUCHED, paper: true };

const refuse = (result) => ({ result, step: null, seconds_off: null, opens_at: null, closed_at: null });

/**
 * Decides one scan as of `now`, in milliseconds, as all times here are. `ticket` is null when there is no such ticket in this event:
 * `{gate, status, registered, inside, printed, last_step, refusals, newest_accepted_at, reentry, entered_at, valid_from,
 * valid_until}`, and of its event `time_zone`, `opens_at` and `closes_at`. `presented` is `{code, vouched, at_gate, direction,
 * offline, tells_future}`, its code as `shownCode` gives it, or null when somebody vouches; `vouched` says whether that is a
 * supervisor, and `tells_future` whether whoever showed it may learn that a code is one of the future. `codes` are those of the
 * manifest: of the refused codes of the last minute how many let the next be looked at (`attempts`), from how many on a code of the
 * future is called wrong all the same (`future_told`), and by which hour a day of the event begins (`day_turns`).
 */
export async function decide(ticket, presented, now, codes) {
  if (!ticket) return refuse("unknown_ticket");
  // All that a device of another gate is told of a ticket is where to go. Of its own gate it has no key of what is refused below.
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

/** A ticket of the list as a decision takes it, with what its event says. Where it has come in once, that was the last time too. */
export function subjectOf(ticket, { time_zone, reentry, opens_at, closes_at }) {
  const { used_at, entered_at = used_at, valid_from, valid_until } = ticket;
  const times = Object.entries({ entered_at, valid_from, valid_until, opens_at, closes_at });
  const moments = Object.fromEntries(times.map(([name, time]) => [name, time ? Date.parse(time) : null]));
  return { ...ticket, refusals: 0, newest_accepted_at: null, time_zone, reentry, ...moments };
}

/** What only the right code, or a supervisor who vouches, comes to. */
const PROVEN = ["accepted", "already_used", "not_inside", "stale_code", "too_early", "too_late", "undone"];

/** How much a verdict tells of its ticket: its `place`, with it the `holder`, or `everything`. */
export function told(result, supervises) {
  if (PROVEN.includes(result)) return "everything";
  return supervises ? "holder" : "place";
}

/** The refusal of whoever comes too early or too late, or null. Nobody who is too late is told to come back. */
function untimely({ opens_at, closes_at, valid_from, valid_until }, now) {
  const given = (times) => times.filter((time) => time !== null);
  const end = Math.min(...given([closes_at, valid_until]));
  const start = Math.max(...given([opens_at, valid_from]));
  if (now >= end) return { ...refuse("too_late"), closed_at: end };
  return now < start ? { ...refuse("too_early"), opens_at: start } : null;
}

/** Whether a ticket, with its event's `reentry`, lets in whoever has `proven` so much. */
function mayEnter(ticket, { paper }, now, { day_turns }) {
  if (ticket.status !== "used") return ticket.status === "valid";
  if (ticket.reentry === "once_a_day") {
    const day = (moment) => eventDay(moment, ticket.time_zone, day_turns);
    return ticket.entered_at !== null && day(now) > day(ticket.entered_at);
  }
  // Paper can be copied, and stays outside when its holder goes in: it admits once.
  return ticket.reentry === "after_exit" && !ticket.inside && !paper;
}

/**
 * The day of an event to which a moment belongs, as a number: by the clocks of its time zone, and from the hour `turns` on. Throws
 * where the browser does not know the zone.
 */
function eventDay(moment, timeZone, turns) {
  const numeric = { year: "numeric", month: "numeric", day: "numeric", hour: "numeric" };
  const format = new Intl.DateTimeFormat("en", { ...numeric, calendar: "gregory", numberingSystem: "latn", hourCycle: "h23", timeZone });
  const parts = format.formatToParts(moment).map(({ type, value }) => [type, Number(value)]);
  const { year, month, day, hour } = Object.fromEntries(parts);
  return Date.UTC(year, month - 1, hour < turns ? day - 1 : day);
}

/**
 * A code, `{digits}` or `{printed}`, as a decision takes it: whether somebody may have guessed it, and what it proves, which is asked
 * only where the verdict depends on it.
 */
export const shownCode = (ticket, code, now, codes) =>
  code && { guessable: code.digits !== undefined, proves: () => recognise(ticket.key, code, now, codes) };

/** What a code proves of the ticket with this key, as `find` tells it, or null. */
export async function recognise(base32, { digits, printed }, now, codes) {
  if (digits !== undefined) return find(base32, digits, now, codes);
  return printed === (await proof(base32)) ? PAPER : null;
}

/**
 * Looks for digits in the steps around `now`: `{step, seconds_off}`, or null. `seconds_off` is null for a code that is
 * good now, negative for one from the past. `step` is null for a code that would be good in another time zone. Of the manifest's `codes`
 * come the steps that a clock may be off (`drift`), and those around a refused code in which it is looked for (`stale_window`), or
 * the quarters of an hour (`zones`, which lists of 0.1.0 lack).
 */
export async function find(base32, digits, now, { drift, stale_window, zones = 0 }) {
  const key = await importKey(base32);
  const current = stepAt(now);
  // Nearest first, the past before the future: a code that is good now must never be taken for a stale one.
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

/** What only the paper of a ticket shows. */
export const proof = async (base32) => base64url(await derive(base32, "print", 10));

/** The forms of a ticket's QR, as src/totp.rs has them: what it begins with, and how its last part is read. */
const FORMS = {
  RT1: (digits) => /^[0-9]{6}$/.test(digits) && { digits },
  RP1: (printed) => bytes(printed)?.length === 10 && { printed },
};

/** What scanners send around a code, spaces and byte order marks, as src/totp.rs has it. */
const AROUND = /^[\p{White_Space}\ufeff]+|[\p{White_Space}\ufeff]+$/gu;

/** A text without what scanners send around it. */
export const trimmed = (text) => text.replace(AROUND, "");

/** Finds one at the end of a text, whatever was typed before it. */
export const QR = new RegExp(`(${Object.keys(FORMS).join("|")})\\.([\\w-]{22})\\.([\\w-]+)$`);

/**
 * What a ticket's QR shows, understood: `{ticket_id, code}`. Null is what is not of our form: `RT1.<ticket_id>.<six
 * digits>`, or on paper `RP1.<ticket_id>.<proof>`, both parts base64url.
 */
export function parse(text) {
  const [whole, form, name, rest] = QR.exec(trimmed(text)) ?? [];
  const id = whole === trimmed(text) && bytes(name);
  const code = id && FORMS[form](rest);
  return code ? { ticket_id: uuid(id), code } : null;
}

/** The ticket that a text of our form names, whatever its code. */
export const ticketIn = (text) => uuid(bytes(text.split(".")[1]));

/** 16 bytes as a UUID is written. */
export function uuid(bytes) {
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** The 16 bytes that a UUID is. */
export const bytesOf = (id) => Uint8Array.from(id.replaceAll("-", "").match(/../g), (byte) => Number.parseInt(byte, 16));

/** A UUID as a QR has it. */
export const written = (id) => base64url(bytesOf(id));

/** The bytes of base64url, or null when it is not the one spelling that they have. */
function bytes(text) {
  if (text.length % 4 === 1) return null;
  const decoded = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
  return base64url(decoded) === text ? decoded : null;
}
