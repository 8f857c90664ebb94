// What a hand-held scanner may have meant, for every pair of keyboard layouts: the scanner's and the device's.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { parse } from "../../src/pages/gate/admission.js";
import { KEYBOARDS, american, folded, readingsOf } from "../../src/pages/gate/readings.js";

const pairs = Object.keys(KEYBOARDS).flatMap((scanner) => Object.keys(KEYBOARDS).map((device) => [scanner, device]));
const CODES = [
  "RT1.ABEiM0RVZneImaq7zN3u_w.050471",
  "RT1.-_yzYZqQwWaAmMxX-_-_-w.678901",
  "RP1.ABEiM0RVZneImaq7zN3u_w.w0xILhNKkY2UbQ",
  ...Array.from({ length: 1 }, () => `RT1.${randomBytes(16).toString("base64url")}.${String(randomBytes(4).readUInt32BE()).padStart(6, "0").slice(-6)}`),
];

/** What a device with one layout reads from a scanner with another. `change` maps a key's shift. */
function typed(code, scanner, device, change = (shift) => shift) {
  return [...code].map((character) => {
    const shift = KEYBOARDS[scanner][0].includes(character) ? 0 : 1;
    const key = KEYBOARDS[scanner][shift].indexOf(character);
    assert.ok(key >= 0, `${scanner} types ${character}`);
    const read = KEYBOARDS[device];
    return read[change(shift, read[0][key], read[1][key])][key];
  }).join("");
}

const capsLock = (shift, plain, shifted) => (plain.toUpperCase() === shifted ? 1 - shift : shift);

test("every keyboard has the same keys, each character once", () => {
  for (const [name, [plain, shifted]] of Object.entries(KEYBOARDS)) {
    assert.equal(plain.length, KEYBOARDS.american[0].length, name);
    assert.equal(shifted.length, plain.length, name);
    assert.equal(new Set(plain).size, plain.length, name);
    assert.equal(new Set(shifted).size, shifted.length, name);
  }
});

test("whatever keyboard the scanner and the device think of, what the scanner meant is among the readings", () => {
  for (const code of CODES) {
    for (const [scanner, device] of pairs) {
      const { readings } = readingsOf(typed(code, scanner, device), "");
      assert.ok(readings.includes(code), `${code}, typed as ${scanner}, read as ${device}: ${readings}`);
    }
  }
});

test("with Caps Lock, too, and with a lock of all shifts", () => {
  for (const code of CODES) {
    for (const [scanner, device] of pairs) {
      for (const lock of [capsLock, (shift) => 1 - shift]) {
        const keys = typed(code, scanner, device, lock);
        assert.ok(readingsOf(keys, "").readings.includes(code), `${code}, typed as ${scanner}, read as ${device}: ${keys}`);
      }
    }
  }
});

test("without any shift the ticket is known but for its shifts", () => {
  for (const code of CODES) {
    for (const [scanner, device] of pairs) {
      // On these, `-` and `_` are on the keys of 6 and 8, so nothing can tell them apart.
      if (["french", "belgian"].includes(scanner) && /[-_]/.test(code)) continue;
      const { loose } = readingsOf(typed(code, scanner, device, () => 0), "");
      assert.ok(loose.includes(folded(code)), `${code}, typed as ${scanner}, read as ${device}: ${loose}`);
    }
  }
});

test("of keys whose positions are known nothing else has to be", () => {
  const code = CODES[1];
  for (const scanner of Object.keys(KEYBOARDS)) {
    const positions = typed(code, scanner, "american");
    assert.ok(readingsOf("#".repeat(positions.length), positions).readings.includes(code), scanner);
  }
  assert.equal(american({ code: "KeyZ", shiftKey: true }), "Z");
  assert.equal(american({ code: "Slash", shiftKey: true }), "?");
  assert.equal(american({ code: "Numpad7", shiftKey: false }), "7");
  assert.equal(american({ code: "", shiftKey: false }), "");
});

test("a scanner that is set to the device's language is read as it types, and each reading is a ticket's QR", () => {
  for (const code of CODES) {
    const { readings, loose } = readingsOf(`] ${code}`, code);
    assert.equal(readings[0], code);
    assert.deepEqual(loose, []);
    for (const reading of readings) assert.ok(parse(reading), reading);
    assert.ok(readings.length <= 12, `${readings.length}`);
  }
  assert.deepEqual(readingsOf("https://example.org/#enrol=abc", ""), { readings: [], loose: [] });
  assert.deepEqual(readingsOf("4006381333931", "4006381333931"), { readings: [], loose: [] });
});
