// What the organizer's page computes by itself, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bars, running } from "../../src/pages/organizer/chart.js";
import { records } from "../../src/pages/organizer/links.js";
import { isTimeZone, localOf, momentOf } from "../../src/pages/organizer/zone.js";

// What a page's texts need, in German.
globalThis.document = { getElementById: () => ({ textContent: "{}" }), documentElement: { lang: "de" } };
Object.defineProperty(globalThis, "navigator", { value: { languages: ["de-DE"] }, configurable: true });
const { amount, sumOf } = await import("../../src/pages/organizer/price.js");

test("what the service writes is read, whatever it is", () => {
  assert.deepEqual(records('\ufeff"seat","name"\n"A, ""1""\nx",""\n'), [{ seat: 'A, "1"\nx', name: "" }]);
  assert.deepEqual(records('"seat","name"\n'), []);
});

test("the apostrophe that keeps a spreadsheet from running a field is taken away", () => {
  assert.deepEqual(records(`"seat","name"\n"'=1","'Tis"\n"''=1","x"\n`), [{ seat: "=1", name: "'Tis" }, { seat: "'=1", name: "x" }]);
  assert.deepEqual(records(`"seat","name"\n"A; '=1","Ana ""'-"" Roe, '＝x"\n`), [{ seat: "A; =1", name: 'Ana "-" Roe, ＝x' }]);
});

test("a local time is a moment of the event's zone, also on the days the clocks change", () => {
  for (const { local, zone, moment } of [
    { local: "2027-01-15T20:00", zone: "UTC", moment: "2027-01-15T20:00Z" },
    { local: "2027-01-15T20:00", zone: "Europe/Madrid", moment: "2027-01-15T19:00Z" },
    { local: "2027-07-15T20:00", zone: "Europe/Madrid", moment: "2027-07-15T18:00Z" },
    { local: "2027-07-15T20:00", zone: "Asia/Kolkata", moment: "2027-07-15T14:30Z" },
    { local: "2027-03-28T02:30", zone: "Europe/Madrid", moment: "2027-03-28T01:30Z" }, // skipped: 03:30 that day
    { local: "2027-10-31T02:30", zone: "Europe/Madrid", moment: "2027-10-31T00:30Z" }, // occurs twice: the first
    { local: "2027-10-31T03:30", zone: "Europe/Madrid", moment: "2027-10-31T02:30Z" },
  ]) {
    assert.equal(new Date(momentOf(local, zone)).toISOString(), new Date(moment).toISOString(), `${local} ${zone}`);
  }
  assert.equal(localOf(Date.parse("2027-07-15T18:00Z"), "Europe/Madrid"), "2027-07-15T20:00");
  assert.ok(isTimeZone("America/Mexico_City"));
  assert.ok(!isTimeZone("Nowhere/City"));
});

test("bars are of as few minutes as the room allows, and lose nobody", () => {
  const minute = 60_000;
  const arrivals = [0, 7, 7, 599].map((at) => ({ minute: at * minute, admitted: 2 }));
  const hour = bars(arrivals, 0, 60 * minute, 60);
  assert.equal(hour.step, 1);
  assert.equal(hour.bars.length, 60);
  assert.deepEqual(hour.bars[7], { at: 7 * minute, admitted: 4 });
  const night = bars(arrivals, 0, 600 * minute, 60);
  assert.equal(night.step, 10);
  assert.equal(night.bars.length, 60);
  assert.equal(night.bars.reduce((sum, bar) => sum + bar.admitted, 0), 8);
});

test("a price is read as people write it, with the digits of its currency", () => {
  for (const [typed, currency, sum] of [
    ["12", "EUR", 1200],
    ["12,5", "EUR", 1250],
    ["12.50", "EUR", 1250],
    ["0,05", "EUR", 5],
    ["1.200", "EUR", 120_000],
    ["1.200,00", "EUR", 120_000],
    ["1,200.5", "EUR", 120_050],
    ["1 200", "JPY", 1200],
    ["1’200", "JPY", 1200],
    ["1.2", "KWD", 1200],
    ["1.200", "KWD", 1200],
    ...["", "abc", "-5", "1.2.3", "12,345,6", "1.200,000.5", "5 €"].map((typed) => [typed, "EUR", null]),
    ["12.5", "JPY", null],
    ["12.000", "COP", 1_200_000],
    ["12,5", "COP", 1250],
  ]) {
    assert.equal(sumOf(typed, currency), sum, `${typed} ${currency}`);
  }
  for (const [sum, currency, typed] of [[1200, "EUR", "12,00"], [1_250_050, "EUR", "12500,50"], [1200, "JPY", "1200"], [1200, "KWD", "1,200"], [1_200_000, "COP", "12000,00"]]) {
    assert.equal(amount(sum, currency), typed);
    assert.equal(sumOf(typed, currency), sum, "it is parsed back");
  }
});

test("the running total goes by the hour, never down, and ends with all", () => {
  const minute = 60_000;
  const arrivals = [3, 59, 61, 179].map((at) => ({ minute: at * minute, admitted: 2 }));
  const { step, bars: hours } = running(arrivals, 0, 180 * minute);
  assert.equal(step, 60);
  assert.deepEqual(hours.map(({ admitted }) => admitted), [4, 6, 8]);
  const days = running([...arrivals, { minute: 9_999 * minute, admitted: 1 }], 0, 10_000 * minute);
  assert.ok(days.step > 60 && days.bars.length <= 60);
  assert.deepEqual([days.bars.at(-1).admitted, days.bars.at(-1).until], [9, 10_000 * minute]);
});
