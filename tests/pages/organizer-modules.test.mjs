// What the organizer's page works out by itself, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bars } from "../../src/pages/organizer/chart.js";
import { records } from "../../src/pages/organizer/links.js";
import { isTimeZone, localOf, momentOf } from "../../src/pages/organizer/zone.js";

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
    { local: "2027-10-31T02:30", zone: "Europe/Madrid", moment: "2027-10-31T00:30Z" }, // comes twice: the first
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
