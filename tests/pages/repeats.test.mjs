// Which of the times that a camera sees a code mean another scan, without a camera.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Repeats } from "../../src/pages/gate/repeats.js";

const CODE = "RT1.AaH_jANhdgS9MNtGNGvKPw.777235";

/** A ticket that was admitted, whose verdict is put away; `after` looks at it that many milliseconds later. */
function admitted(t) {
  let time = 10_000;
  t.mock.method(performance, "now", () => time);
  const repeats = new Repeats();
  const after = (milliseconds, seen) => {
    time += milliseconds;
    repeats.looks();
    return seen && repeats.sees(CODE);
  };
  after(0, false);
  repeats.asked(CODE);
  repeats.decided(CODE, { result: "accepted" });
  repeats.dismissed();
  return after;
}

test("a ticket that a busy phone did not look at has not gone", (t) => {
  const after = admitted(t);
  for (const pause of [100, 3000, 9000, 25_000]) assert.ok(after(pause, true), `${pause} ms`);
});

test("a ticket that looks missed for four seconds has gone, and is another scan when it comes again", (t) => {
  const after = admitted(t);
  assert.ok(after(200, true));
  for (let look = 0; look < 21; look += 1) after(200, false);
  assert.equal(after(200, true), null);
});

test("after a long pause nobody knows who left", (t) => {
  assert.equal(admitted(t)(60_000, true), null);
});
