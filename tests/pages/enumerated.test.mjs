// The gate's page decides every combination of a decision's inputs as the service does: see src/admission/enumerated.rs.
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import fs from "node:fs";
import { test } from "node:test";
import { decide, proof, recognise } from "../../src/pages/gate/admission.js";
import { base64url, code, importKey, stepAt } from "../../src/pages/shared/totp.js";

globalThis.crypto ??= webcrypto; // Node 18

const read = (name) => JSON.parse(fs.readFileSync(new URL(`../suite/${name}`, import.meta.url), "utf8"));
const { now: NOW, tables } = read("decisions.json");
/** The `codes` of every manifest. */
const codes = read("codes.json");

const DAY = 24 * 3_600_000;
const STEP = stepAt(NOW);

/** FNV-1a, 32 bits, of an ASCII text. */
const checksum = (text) => [...text].reduce((sum, one) => Math.imul(sum ^ one.charCodeAt(0), 0x01000193), 0x811c9dc5);

const sums = new Map();

/** The checksum of a frequent text, cached. */
function known(text) {
  if (!sums.has(text)) sums.set(text, checksum(text));
  return sums.get(text);
}

/** Mixes a verdict with the number of its combination. */
function mixed(verdict, number) {
  let mixed = Math.imul(verdict ^ number, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca77);
  return mixed ^ (mixed >>> 13);
}

/**
 * Tries all combinations of a table, the last input varying fastest. `verdict` returns the checksum of the verdict on a combination,
 * given the index `at` of each input's value.
 */
async function tries(table, verdict) {
  const { combinations, inputs } = tables[table];
  const values = inputs.map(([, values]) => values);
  const sums = values.map((values) => new Uint32Array(values.length));
  const at = inputs.map(() => 0);
  let number = 0;
  for (let turning = 0; turning >= 0; number += 1) {
    const sum = mixed(await verdict(at), number);
    for (let input = 0; input < at.length; input += 1) sums[input][at[input]] += sum;
    turning = at.findLastIndex((value, input) => value + 1 < values[input].length);
    if (turning >= 0) at.fill(0, turning + 1)[turning] += 1;
  }
  assert.equal(number, combinations);
  const differing = inputs.flatMap(([input, values], index) =>
    values.filter(([, sum], value) => sum !== sums[index][value]).map(([value]) => `${input} is ${value}`),
  );
  assert.deepEqual(differing, [], "the page and the service decide differently");
}

/** Maps the values of a table's inputs to their meanings, by their names in the file; `meanings` may be in any order. */
function meant(table, meanings) {
  const { inputs } = tables[table];
  assert.deepEqual(Object.keys(meanings).sort(), inputs.map(([input]) => input).sort());
  return inputs.map(([input, values]) =>
    values.map(([value]) => {
      assert.ok(value in meanings[input], `${input}: ${value}`);
      return meanings[input][value];
    }),
  );
}

const text = ({ result, step, seconds_off, opens_at, closed_at }) => `${result} ${step} ${seconds_off} ${opens_at} ${closed_at}`;
const YES = { yes: true, no: false };
const DIRECTIONS = { entry: "entry", exit: "exit" };

/** A valid ticket with a holder, in an event without door times. */
const TICKET = {
  ...{ gate: "North", status: "valid", registered: true, inside: false, printed: false, last_step: null, refusals: 0 },
  ...{ newest_accepted_at: null, reentry: "none", entered_at: null, time_zone: "UTC", opens_at: null, closes_at: null },
  ...{ valid_from: null, valid_until: null },
};
const PRESENTED = { code: null, vouched: false, at_gate: null, direction: "entry", offline: false, tells_future: true };

const shown = (guessable, proven) => ({ guessable, proves: async () => proven });
const CURRENT = shown(true, { step: STEP, seconds_off: null });
const REFUSABLE = {
  none: null,
  paper: shown(false, { step: null, seconds_off: null, paper: true }),
  "forged paper": shown(false, null),
  "wrong digits": shown(true, null),
  "stale, past": shown(true, { step: STEP - 4, seconds_off: -95 }),
  "stale, future": shown(true, { step: STEP + 4, seconds_off: 95 }),
  "zone, past": shown(true, { step: null, seconds_off: -3600 }),
  "zone, future": shown(true, { step: null, seconds_off: 3600 }),
};

test("every combination is decided as the service decides it", async () => {
  const values = meant("decision", {
    registered: YES,
    status: { valid: "valid", used: "used", revoked: "revoked" },
    code: {
      ...Object.fromEntries(Object.entries(REFUSABLE).map(([name, code]) => [name, [code, STEP + 1]])),
      "current, the first": [CURRENT, null],
      "current, of a later step than the last": [CURRENT, STEP - 1],
      "current, of the same step": [CURRENT, STEP],
      "current, of an earlier step": [CURRENT, STEP + 1],
    },
    refusals: { 2: 2, 3: 3, 10: 10, 11: 11 },
    offline: YES,
    vouched: YES,
    tells_future: YES,
    direction: DIRECTIONS,
    printed: YES,
    inside: YES,
    reentry: {
      none: ["none", NOW - DAY],
      after_exit: ["after_exit", NOW - DAY],
      "once_a_day, never in": ["once_a_day", null],
      "once_a_day, in today": ["once_a_day", NOW],
      "once_a_day, in yesterday": ["once_a_day", NOW - DAY],
    },
    newest_accepted: { none: null, now: NOW, later: NOW + 1 },
    time: { good: [NOW, NOW + 1], early: [NOW + 1, null], late: [null, NOW] },
  });
  const ticket = { ...TICKET };
  const presented = { ...PRESENTED, at_gate: "North" };
  await tries("decision", async (at) => {
    ticket.registered = values[0][at[0]];
    ticket.status = values[1][at[1]];
    [presented.code, ticket.last_step] = values[2][at[2]];
    ticket.refusals = values[3][at[3]];
    presented.offline = values[4][at[4]];
    presented.vouched = values[5][at[5]];
    presented.tells_future = values[6][at[6]];
    presented.direction = values[7][at[7]];
    ticket.printed = values[8][at[8]];
    ticket.inside = values[9][at[9]];
    [ticket.reentry, ticket.entered_at] = values[10][at[10]];
    ticket.newest_accepted_at = values[11][at[11]];
    [ticket.opens_at, ticket.closes_at] = values[12][at[12]];
    return known(text(await decide(ticket, presented, NOW, codes)));
  });
});

test("at each gate is decided what the service decides there", async () => {
  const values = meant("gates", {
    ...{ registered: YES, status: { valid: "valid", used: "used", revoked: "revoked" }, code: REFUSABLE },
    ...{ refusals: { 2: 2, 11: 11 }, direction: DIRECTIONS, vouched: YES, offline: YES },
    at_gate: { none: null, "its own": "North", "its own, as people read it": " N\u00d3RTH\u3000", another: "South", "another, longer": "North 2" },
  });
  await tries("gates", async (at) => {
    const [registered, status, at_gate, code, refusals, direction, vouched, offline] = at.map((value, input) => values[input][value]);
    const ticket = { ...TICKET, printed: true, registered, status, refusals };
    return known(text(await decide(ticket, { ...PRESENTED, at_gate, code, direction, vouched, offline }, NOW, codes)));
  });
});

test("doors and validity of every order are told as the service tells them", async () => {
  const times = { none: null, "-2000": NOW - 2000, "-1": NOW - 1, 0: NOW, 1: NOW + 1, 2000: NOW + 2000 };
  const values = meant("hours", {
    ...{ direction: DIRECTIONS, vouched: YES, code: { ...REFUSABLE, current: CURRENT }, status: { valid: "valid", used: "used" } },
    ...{ opens_at: times, closes_at: times, valid_from: times, valid_until: times },
  });
  await tries("hours", async (at) => {
    const [direction, vouched, code, status, opens_at, closes_at, valid_from, valid_until] = at.map((value, input) => values[input][value]);
    const ticket = { ...TICKET, status, inside: status === "used", opens_at, closes_at, valid_from, valid_until };
    return known(text(await decide(ticket, { ...PRESENTED, direction, vouched, code }, NOW, codes)));
  });
});

test("a day turns when it does for the service, in all zones, also where clocks are put forward or back", async () => {
  const [zones, entries, moments] = tables.days.inputs.map(([, values]) => values.map(([value]) => value));
  await tries("days", async ([zone, entered, now]) => {
    const ticket = { ...TICKET, status: "used", reentry: "once_a_day", entered_at: Date.parse(entries[entered]), time_zone: zones[zone] };
    return known(text(await decide(ticket, PRESENTED, Date.parse(moments[now]), codes)));
  });
});

/** Pseudo-random numbers, identical on both sides: mulberry32. */
function draw(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

function base32(bytes) {
  const bits = Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0")).join("");
  return bits.replace(/.{5}/g, (five) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[Number.parseInt(five, 2)]);
}

test("what a code proves is what it proves to the service, with keys, moments and codes of all kinds", async () => {
  const [seeds, kinds] = tables.codes.inputs.map(([, values]) => values.map(([value]) => value));
  await tries("codes", async ([seed, kind]) => {
    const next = draw(Number(seeds[seed]));
    const bytes = (length) => Uint8Array.from({ length }, () => next() & 0xff);
    const raw = bytes(20);
    const now = next() * 900 + (next() % 900);
    const digits = String(next() % 1_000_000).padStart(6, "0");
    const forged = base64url(bytes(10));
    const [key, other] = [base32(raw), base32(raw.map((byte) => byte ^ 1))];
    const ofStep = async (key, step) => ({ digits: await code(await importKey(key), step) });
    const shown = {
      "any digits": () => ({ digits }),
      "of another key": () => ofStep(other, stepAt(now)),
      paper: async () => ({ printed: await proof(key) }),
      "forged paper": () => ({ printed: forged }),
    };
    const away = kinds[kind];
    const proven = await recognise(key, await (shown[away] ?? (() => ofStep(key, stepAt(now) + Number(away))))(), now, codes);
    if (!proven) return known("none");
    if (proven.paper) return known("paper");
    if (proven.seconds_off === null) return known(`current ${proven.step}`);
    return known(`${proven.step === null ? "zone" : "stale"} ${proven.seconds_off}`);
  });
});
