// The check before the doors open: what would go wrong tonight, and what to do about it now.

import { parsed, send } from "../shared/api.js";
import { now, secondsSlow } from "../shared/clock.js";
import { element, find } from "../shared/dom.js";
import { samePlace } from "../shared/fold.js";
import { explain } from "./form.js";
import { isGood, isOfADevice, isOurs } from "./devices.js";
import { all, call, here, session } from "./session.js";
import { dayAndTime, isolated, number, text, timeOfDay } from "../shared/text.js";

const HOUR = 3_600_000;
/** Backups are daily; a slightly late one is no reason to worry. */
const BACKUP_AGE = 26 * HOUR;
/** A key that ends within this many days should be replaced in time. */
const SOON_DAYS = 14;
/** How many people without an address are named. */
const NAMED = 10;
const ORDER = { wrong: 0, look: 1, ok: 2 };
const SIGN = { wrong: "✗", look: "!", ok: "✓" };

let asked = 0;

export async function show() {
  const mine = ++asked;
  const told = find("#check-told");
  told.textContent = text("organizer.loading");
  const answers = await Promise.all([service, secret, backups, eventTimes, tickets, mails, keys, printed, links, page].map((check) => check().catch(failed)));
  if (mine !== asked || !session.event) return;
  const checks = answers.flat().sort((a, b) => ORDER[a.state] - ORDER[b.state]);
  find("#checks").replaceChildren(...checks.map(item));
  const bad = checks.filter((check) => check.state !== "ok").length;
  const time = timeOfDay(now(), session.event.time_zone);
  told.textContent = bad ? text("organizer.check_some", { count: number(bad), time }) : text("organizer.check_all", { time });
}

/** One result: `name` stands for two texts, `…_ok` and `…_look` or `…_wrong`. */
const line = (state, name, values) => ({ state, words: text(`organizer.check_${name}_${state}`, values) });
const failed = (problem) => ({ state: "wrong", words: explain(problem) });

function item({ state, words }) {
  return element("li", { className: `card check ${state}` },
    element("span", { className: "sign", "aria-hidden": "true" }, SIGN[state]),
    element("div", {}, element("strong", {}, text(`organizer.state_${state}`)), element("p", {}, words)));
}

/** The database, migrations and clocks, as the service itself reports them. */
async function service() {
  const health = (await parsed(await send("GET", "/health?full=1"))) ?? {};
  const known = ["database", "migrations", "clock", "writable", "secret"].filter((name) => health[name] !== "unchecked");
  const lines = known.map((name) => line(health[name] === "ok" ? "ok" : "wrong", name));
  const slow = secondsSlow();
  lines.push(line(Math.abs(slow) < 15 ? "ok" : "look", "device_clock", { seconds: Math.abs(slow) }));
  return lines;
}

/** Whether TICKET_SECRET is set: the organizer of a single event has to ask those who run the service to set it. */
async function secret() {
  const { ticket_secret_set: has } = await call("GET", here());
  return [line(has ? "ok" : "look", "ticket_secret")];
}

/** Backups: only a key for all events may ask about them. */
async function backups() {
  if (session.isBound) return [];
  const response = await send("GET", "/metrics", { key: session.key });
  return response.ok ? [backup(/^backup_last_success (\d+)/m.exec(await response.text()))] : [];
}

/** When the newest backup was made. */
function backup(newest) {
  if (!newest) return line("look", "no_backups");
  const age = now() - Number(newest[1]);
  if (newest[1] === "0") return line("wrong", "backup_none");
  return line(age > BACKUP_AGE ? "wrong" : "ok", "backup", { hours: number(Math.max(0, Math.round(age / HOUR))) });
}

async function eventTimes() {
  const { starts_at: start, ends_at: end } = session.event;
  if (!start || !end) return [line("look", "times")];
  return [Date.parse(end) < now() ? { state: "look", words: text("organizer.check_over") } : line("ok", "times")];
}

/** Tickets without a holder, and for each gate a key that lasts until the end. */
async function tickets() {
  const [stats, keys] = await Promise.all([call("GET", here("/stats")), all("/api/keys", "keys")]);
  if (stats.tickets === 0) return [line("wrong", "tickets")];
  const free = stats.tickets - stats.registered;
  const ours = keys.filter((key) => isOfADevice(key) && isGood(key) && isOurs(key));
  const end = Date.parse(session.event.ends_at ?? "");
  const lasting = ours.filter((key) => !(Date.parse(key.expires_at) < end));
  const lines = [line(free ? "look" : "ok", "holders", { free: number(free), tickets: number(stats.tickets) })];
  for (const { gate } of stats.gates) {
    const serves = (key) => !key.gate || samePlace(key.gate, gate);
    const values = { gate: isolated(gate) };
    if (!ours.some(serves)) lines.push(line("wrong", "gate", values));
    else if (!lasting.some(serves)) lines.push({ state: "wrong", words: text("organizer.check_gate_ends", values) });
    else if (!lasting.some((key) => serves(key) && key.newest_scan_at)) lines.push(line("look", "gate", values));
    else lines.push(line("ok", "gate", values));
  }
  return lines;
}

/** The people the service can mail, if it can mail at all: how many have no address, and how many were not mailed. */
async function mails() {
  const { from, mailed, unmailed, without_address: without, tickets } = await call("GET", here("/mails?list=without_address"));
  if (from === null || mailed + unmailed + without === 0) return [];
  const names = [...new Set(tickets.map(({ full_name: name, username }) => isolated(name ?? username)))].slice(0, NAMED);
  if (without > NAMED) names.push("…");
  return [
    line(unmailed ? "look" : "ok", "mails", { unmailed: number(unmailed), mailed: number(mailed) }),
    line(without ? "look" : "ok", "addresses", { tickets: number(without), names }),
  ];
}

/** Whether the door list was printed, and whether it is still correct. */
async function printed() {
  const { printed_at: at, changes } = await call("GET", here("/printed"));
  if (!at) return [line("look", "printed")];
  const time = dayAndTime(at, session.event.time_zone);
  return [changes ? { state: "look", words: text("organizer.check_printed_changed", { time, changes: number(changes) }) } : line("ok", "printed", { time })];
}

/** Keys that end soon, without devices' keys if the event has an end: their gates' lines cover those. */
async function keys() {
  const ours = (await all("/api/keys", "keys")).filter((key) => isGood(key) && isOurs(key));
  const lines = ours.filter((key) => !isOfADevice(key) || !session.event.ends_at).map(lifeOf).filter(Boolean);
  return lines.length ? lines : [line("ok", "keys", { days: SOON_DAYS })];
}

function lifeOf(key) {
  const name = isolated(key.name);
  if (!key.expires_at) return { state: "look", words: text("organizer.check_key_endless", { name }) };
  if (Date.parse(key.expires_at) - now() > SOON_DAYS * 24 * HOUR) return null;
  const time = dayAndTime(key.expires_at, session.event.time_zone);
  return { state: "look", words: text(key.yours ? "organizer.check_key_yours_ends" : "organizer.check_key_ends", { name, time }) };
}

/** Where the links sent to people lead: PUBLIC_URL, which can only be read from a link. */
async function links() {
  const found = await call("GET", here("/tickets?status=valid&limit=100"));
  const ticket = found.tickets.find((each) => each.username);
  if (!ticket) return [];
  const address = new URL((await call("GET", `/api/tickets/${ticket.ticket_id}/link`)).ticket_url);
  const values = { origin: address.origin };
  if (address.origin !== location.origin) return [line("wrong", "links", values)];
  return [line(address.protocol === "https:" ? "ok" : "look", "links", values)];
}

/** Cameras, and codes without a network, need a secure context. */
const page = async () => [line(isSecureContext ? "ok" : "wrong", "secure")];

find("#check-again").onclick = show;
