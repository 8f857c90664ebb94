// The gate's page decides as the service does: both run one table of cases. Also, how it reads a QR.
import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import fs from "node:fs";
import { test } from "node:test";
import { decide, parse, shownCode, told } from "../../src/pages/gate/admission.js";
import { inOrder, place, samePlace, words } from "../../src/pages/shared/fold.js";
import { code, importKey, stepAt } from "../../src/pages/shared/totp.js";

globalThis.crypto ??= webcrypto; // Node 18

const read = (name) => JSON.parse(fs.readFileSync(new URL(`../suite/${name}`, import.meta.url), "utf8"));
const table = read("admission_cases.json");
/** The `codes` of every manifest. */
const codes = read("codes.json");

/** Merges a case's values into those that all cases share. */
const over = (base, stated) => {
  if (stated === undefined) return base;
  return stated === null || typeof stated !== "object" ? stated : { ...base, ...stated };
};

const cases = table.cases.map((stated) => {
  const common = Object.entries(table.base).map(([name, base]) => [name, over(base, stated[name])]);
  return { name: stated.name, ...Object.fromEntries(common) };
});

/** Decides as the gate does, matching the shown code against the ticket's. */
const decided = (ticket, presented, now) =>
  decide(ticket, { ...presented, code: shownCode({ key: ticket?.key_base32 }, presented.code, now, codes) }, now, codes);

for (const { name, ticket, presented, now, expected } of cases) {
  test(`${name}, on the device too`, async () => {
    assert.deepEqual(await decided(ticket, presented, now), expected);
  });
}

for (const { name, ticket, presented, now, expected } of cases) {
  if (!["not_registered", "revoked"].includes(expected.result)) continue;
  test(`${name}, also without the key, which a manifest does not have`, async () => {
    assert.deepEqual(await decided({ ...ticket, key_base32: undefined }, presented, now), expected);
  });
}

test("without the key no code is decided on", async () => {
  const ticket = { ...table.base.ticket, key_base32: undefined };
  await assert.rejects(decided(ticket, table.base.presented, table.base.now));
});

test("where the browser does not know the event's time zone, nobody is let in on another day", async () => {
  const ticket = { ...table.base.ticket, status: "used", reentry: "once_a_day", entered_at: 0, time_zone: "nowhere" };
  await assert.rejects(decided(ticket, table.base.presented, table.base.now), RangeError);
});

test("the digits in the table are those of their step, as the device makes them", async () => {
  for (const { name, ticket, presented, now } of cases) {
    if (!ticket || typeof presented.code?.step_offset !== "number") continue;
    const key = await importKey(ticket.key_base32);
    assert.equal(await code(key, stepAt(now) + presented.code.step_offset), presented.code.digits, name);
  }
});

test("of another gate's ticket a device knows only where it belongs", async () => {
  const presented = { code: { digits: "050471" }, at_gate: "North", direction: "entry", offline: true, tells_future: true };
  const decision = await decided({ ticket_id: "1", seat: "A1", gate: "South" }, presented, table.base.now);
  assert.equal(decision.result, "wrong_gate");
});

test("a device tells of a ticket what the service tells, whoever has it", () => {
  for (const [result, { gate, supervisor }] of Object.entries(table.told)) {
    assert.deepEqual([told(result, false), told(result, true)], [gate, supervisor], result);
  }
});

for (const [text, code] of Object.entries(table.qr)) {
  test(`a QR is our mark, the ticket, and digits or a proof: ${text}`, () => {
    const shown = { ticket_id: "00112233-4455-6677-8899-aabbccddeeff", code };
    assert.deepEqual(parse(text), shown);
    for (const around of table.around_a_qr) assert.deepEqual(parse(around + text + around), shown, JSON.stringify(around));
    for (const other of table.not_around_a_qr) {
      assert.equal(parse(other + text), null, `${JSON.stringify(other)} before it`);
      assert.equal(parse(text + other), null, `${JSON.stringify(other)} after it`);
    }
  });
}

for (const text of table.no_qr) {
  test(`what is not of our form is no QR: ${JSON.stringify(text)}`, () => assert.equal(parse(text), null));
}

const folds = read("fold_cases.json");

test("a seat and a gate are compared as the service compares them", () => {
  for (const [text, folded] of folds.place) assert.equal(place(text), folded, JSON.stringify(text));
  assert.ok(samePlace("Entrada \u00danica", "ENTRADA UNICA") && !samePlace("\u00d1", "N"));
  // A device bound to no gate is at none of them.
  for (const none of [null, undefined, ""]) assert.ok(!samePlace("North", none));
});

test("a guest is found by the words that the service finds them by", () => {
  for (const [text, found] of folds.words) assert.deepEqual(words(text), found, JSON.stringify(text));
});

test("people find a place in the order that the service has, but for the alphabet of their language", () => {
  const latin = folds.order.filter((text) => !/[\u0400-\u04ff]/.test(text));
  assert.deepEqual([...latin].reverse().sort(inOrder), latin);
});
