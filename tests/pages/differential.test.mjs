// Random tickets, scans and codes: the service decides each exactly as the gate's page does from the service's list.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { decide, parse, proof, shownCode, subjectOf, trimmed, written } from "../../src/pages/gate/admission.js";
import { base64url, code, importKey, stepAt } from "../../src/pages/shared/totp.js";
import { forBothDatabases } from "./harness.mjs";

const SEATS = 30;
/** How many rounds of scans each event has at least, and at most until all required results have occurred. */
const ROUNDS = { least: 3, most: 30 };
/** Results that every run must contain: a page and service that always refuse would agree too. */
const MUST_BE_TOLD = ["accepted", "already_used", "unknown_ticket"];
const HOUR = 3_600_000;
const TIMES = [-HOUR, -1, 0, HOUR];
/** Fixed by default, so that a failure is due to the change under test. */
const SEED = Number(process.env.SEED ?? 1);
/** How many steps a code may be off; valid offsets are more frequent. */
const AWAY = [-1, 0, 0, 0, 0, 0, 0, 1, 2, -2, -20, 21, 120, -690];
/** What a scanner may add around a code, or break it with. */
const AROUND = ["", "", "", " ", "\r\n", "\ufeff", "\u0085", "\u0000", "\u200b"];

/** A seeded generator (mulberry32), so that a failure can be reproduced. */
function drawing(seed) {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const oneOf = (values) => values[next() % values.length];
  return { next, oneOf, chance: (percent) => next() % 100 < percent };
}

const time = (moment) => new Date(moment).toISOString();

/** An event with tickets in all states that an organizer can set. */
async function event(service, { oneOf, chance }, reentry) {
  const slug = reentry.replaceAll("_", "-");
  const now = Date.now();
  const moment = () => (chance(20) ? time(now + oneOf(TIMES)) : null);
  const doors = chance(50) ? { opens_at: time(now - HOUR), closes_at: time(now + oneOf([1, HOUR])) } : {};
  await service.api("POST", "/api/events", { slug, name: slug, reentry, ...doors });
  const line = (_, seat) => {
    const [from, until] = [moment(), moment()];
    const ordered = from === null || until === null || from < until;
    return [seat, oneOf(["North", "South"]), chance(90) ? `${slug}-${seat}` : "", from ?? "", (ordered && until) || ""].join(",");
  };
  const lines = Array.from({ length: SEATS }, line);
  await service.api("POST", `/api/events/${slug}/tickets`, `seat,gate,username,valid_from,valid_until\n${lines.join("\n")}\n`);
  const { tickets } = await service.api("GET", `/api/events/${slug}/tickets?limit=100`);
  for (const { ticket_id, username } of tickets) {
    if (username && chance(30)) await service.api("POST", `/api/tickets/${ticket_id}/print`);
    if (chance(10)) await service.api("POST", `/api/tickets/${ticket_id}/revoke`);
  }
  return slug;
}

/** What somebody shows of a ticket, as fields of a scan. */
async function shown(ticket, now, { next, oneOf, chance }) {
  const key = ticket.key ?? "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
  const digits = chance(10) ? String(next() % 1_000_000).padStart(6, "0") : await code(await importKey(key), stepAt(now) + oneOf(AWAY));
  const { seat, gate } = ticket;
  if (chance(10)) return { seat, gate, manual: true, note: "drawn" };
  if (chance(20)) return { seat, gate, totp_code: digits };
  const forged = base64url(Uint8Array.from({ length: 10 }, () => next() & 0xff));
  const paper = chance(80) ? await proof(key) : forged;
  const rest = chance(70) ? `RT1.${written(ticket.ticket_id)}.${digits}` : `RP1.${written(ticket.ticket_id)}.${paper}`;
  return { code: oneOf(AROUND) + rest + oneOf(AROUND) };
}

/** The page's decision on a scan, by the service's list. */
async function decided(ticket, { event, codes }, { at_gate, direction, scanned_at, manual, ...shown }) {
  const now = Date.parse(scanned_at);
  const qr = shown.code === undefined ? null : parse(shown.code);
  if (shown.code !== undefined && !qr) return decide(null, {}, now, codes);
  const read = manual ? null : (qr?.code ?? { digits: shown.totp_code });
  const presented = { code: shownCode(ticket, read, now, codes), vouched: Boolean(manual), at_gate, direction, offline: true, tells_future: false };
  return decide(subjectOf(ticket, event), presented, now, codes);
}

/** Scans each ticket once; the page decides, then the service as of the same moment. */
async function round(service, slug, draw, told) {
  // A new key each round, because too many wrong codes block a key.
  const { key } = await service.api("POST", "/api/keys", { name: "Any door", role: "supervisor", event: slug, offline: true });
  const manifest = await service.api("GET", `/api/events/${slug}/manifest`, undefined, key);
  const scans = [];
  const verdicts = [];
  for (const ticket of manifest.tickets) {
    const now = Date.now();
    const scan = {
      ...{ scan_id: randomUUID(), scanned_at: time(now), offline_result: "accepted", at_gate: draw.oneOf(["North", "South", "north ", null]) },
      ...{ direction: draw.oneOf(["entry", "entry", "exit"]), ...(await shown(ticket, now, draw)) },
    };
    verdicts.push(await decided(ticket, manifest, scan));
    scans.push(scan);
  }
  const { results } = await service.api("POST", `/api/events/${slug}/scans/batch`, { scans }, key);
  const moment = (time) => time && Date.parse(time);
  for (const [index, answer] of results.entries()) {
    const { result, seconds_off, opens_at, closed_at } = answer;
    const about = `${told}: ${JSON.stringify([scans[index], manifest.tickets[index], answer])}`;
    const own = verdicts[index];
    assert.deepEqual([result, seconds_off, moment(opens_at), moment(closed_at)], [own.result, own.seconds_off, own.opens_at, own.closed_at], about);
  }
  return results.map(({ result }) => result);
}

forBothDatabases("whatever is shown of whatever ticket, the page decides as the service does", async (_, service) => {
  const draw = drawing(SEED);
  const seen = new Set();
  const missing = () => MUST_BE_TOLD.filter((result) => !seen.has(result));
  for (const reentry of ["after_exit", "once_a_day", "none"]) {
    const slug = await event(service, draw, reentry);
    for (let number = 0; number < ROUNDS.least || (reentry === "none" && missing().length > 0 && number < ROUNDS.most); number += 1) {
      for (const result of await round(service, slug, draw, `SEED=${SEED}`)) seen.add(result);
    }
  }
  assert.deepEqual(missing(), [], `SEED=${SEED} draws too little: ${[...seen]}`);
});

forBothDatabases("whatever a scanner sends around a code, the service takes off what the page does", async (_, service) => {
  await service.api("POST", "/api/events/default/tickets", "seat,gate\n1,North\n");
  const { tickets: [{ ticket_id }] } = await service.api("GET", "/api/events/default/tickets");
  const draw = drawing(SEED);
  const qr = `RT1.${written(ticket_id)}.000000`;
  for (let number = 0; number < 100; number += 1) {
    const character = () => String.fromCharCode(draw.next() % draw.oneOf([0x21, 0x100, 0x3001, 0xd800]));
    const around = () => Array.from({ length: draw.next() % 3 }, character).join("") + draw.oneOf(["", "\ufeff"]);
    const shown = around() + qr + around();
    const { result } = await (await service.scan({ event: "default" }, shown)).json();
    assert.equal(result, trimmed(shown) === qr ? "not_registered" : "unknown_ticket", `SEED=${SEED}: ${JSON.stringify(shown)}`);
  }
});
