// Which of the many sightings of a code are new scans, with a clock that only the test moves.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Repeats } from "../../src/pages/gate/repeats.js";

const CODE = "RT1.ABEiM0RVZneImaq7zN3u_w.050471";
const NEXT = "RT1.ABEiM0RVZneImaq7zN3u_w.266759";
const OTHER = "RT1.-_yzYZqQwWaAmMxX-_-_-w.678901";
const ACCEPTED = { result: "accepted" };

/** A `Repeats` and a scanner: `looks` some milliseconds later, and returns whether the code it sees is a new scan. */
function door(t) {
  let moment = 0;
  t.mock.method(performance, "now", () => moment);
  const repeats = new Repeats();
  const looks = (after, codes = []) => {
    moment += after;
    repeats.looks(codes);
  };
  const isScan = (after, code = CODE, others = []) => {
    looks(after, [code, ...others]);
    return repeats.sees(code) === null;
  };
  const shows = (verdict, code = CODE) => {
    repeats.asked(code);
    repeats.decided(code, verdict);
    repeats.dismissed();
  };
  return { repeats, looks, isScan, shows };
}

test("a ticket that never left the picture is no second scan, however seldom a busy phone looks", (t) => {
  const { looks, isScan, shows } = door(t);
  assert.ok(isScan(0));
  shows(ACCEPTED);
  for (const after of [30, 3_900, 5_000, 12_000, 29_000]) assert.ok(!isScan(after), `a look after ${after} ms`);
  assert.ok(!isScan(20_000, NEXT), "whichever of its codes it shows");
  looks(25_000);
  looks(25_000);
  assert.ok(!isScan(25_000), "two slow pictures without it count for two seconds");
});

test("a ticket that the scanner did not see for 4 s of looking has gone, and comes again", (t) => {
  const { looks, isScan, shows } = door(t);
  assert.ok(isScan(0));
  shows(ACCEPTED);
  for (let passed = 0; passed < 3_900; passed += 30) looks(30);
  assert.ok(!isScan(30));
  for (let passed = 0; passed < 4_020; passed += 30) looks(30);
  assert.ok(isScan(30));
});

test("slow looks that do not see a ticket add up until it has gone", (t) => {
  const { looks, isScan, shows } = door(t);
  assert.ok(isScan(0));
  shows(ACCEPTED);
  for (let look = 0; look < 4; look += 1) looks(5_000);
  assert.ok(isScan(5_000));
});

test("what is before the camera after 30 s in which nobody looked is another scan", (t) => {
  for (const [after, isNew] of [[30_000, false], [30_001, true]]) {
    const { isScan, shows } = door(t);
    assert.ok(isScan(0));
    shows(ACCEPTED);
    assert.equal(isScan(after), isNew, `${after} ms`);
    t.mock.reset();
  }
});

test("what stays in the picture beside the one that is meant has not gone", (t) => {
  const { looks, isScan, shows } = door(t);
  assert.ok(isScan(0));
  shows(ACCEPTED);
  for (let look = 0; look < 20; look += 1) isScan(500, OTHER, [CODE]);
  assert.ok(!isScan(500));
  for (let look = 0; look < 10; look += 1) looks(500, [OTHER]);
  isScan(500, OTHER, [CODE]);
  assert.ok(isScan(500), "it had gone, and came back beside another");
});

test("while its verdict is on the screen a ticket is answered by it, also after a pause", (t) => {
  const { repeats, looks } = door(t);
  looks(0, [CODE]);
  repeats.asked(CODE);
  repeats.decided(CODE, { result: "already_used" });
  looks(60_000, [CODE]);
  assert.deepEqual(repeats.sees(CODE), { verdict: { result: "already_used" }, shown: true, twice: false });
});

test("that a code was not taken is told once, for as long as it stays in the picture of a busy phone", (t) => {
  const { repeats, looks } = door(t);
  looks(0, [CODE]);
  assert.ok(repeats.tellsMissed(CODE));
  for (const after of [3_000, 5_000, 25_000]) {
    looks(after, [CODE]);
    assert.ok(!repeats.tellsMissed(CODE));
  }
  for (let look = 0; look < 5; look += 1) looks(1_000);
  assert.ok(repeats.tellsMissed(CODE));
});
