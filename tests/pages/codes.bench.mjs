// How many hard pictures of codes each decoder reads: `scripts/bench codes`. Prints the tables of docs/benchmarks.md.
import fs from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import zxing from "@zxing/library";
import jsQR from "jsqr";
import { prepareZXingModule, readBarcodes } from "zxing-wasm/reader";
import { Looker } from "../../src/pages/gate/look.js";
import { NAMES, picture } from "./pictures.mjs";

const [seed, each] = [Number(process.argv[2] ?? 1), Number(process.argv[3] ?? 10)];
/** How many looks a camera's second has time for. */
const LOOKS = 5;

/** Milliseconds of this process's own CPU time, so that other programs do not count. */
const clock = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const require = createRequire(import.meta.url);
const wasm = require.resolve("zxing-wasm/reader/zxing_reader.wasm");
prepareZXingModule({ overrides: { wasmBinary: fs.readFileSync(wasm).buffer } });

/** Each returns a function for one second of pictures, which returns the text of the code nearest the middle, or undefined. */
const DECODERS = {
  ours: () => {
    const looker = new Looker(clock);
    return (shown) => nearest(looker.look(shown).codes, shown);
  },
  "zxing-wasm": () => async (shown) => {
    const found = await readBarcodes(shown, { formats: ["QRCode"], tryHarder: true, maxNumberOfSymbols: 8 });
    const codes = found.filter(({ isValid }) => isValid).map(({ text, position: { topLeft, bottomRight } }) => {
      return { text, x: (topLeft.x + bottomRight.x) / 2, y: (topLeft.y + bottomRight.y) / 2 };
    });
    return nearest(codes, shown);
  },
  jsQR: () => ({ data, width, height }) => jsQR(data, width, height)?.data,
  "@zxing/library": () => ({ data, width, height }) => {
    const light = new Uint8ClampedArray(data.filter((_, at) => at % 4 === 0));
    const bitmap = new zxing.BinaryBitmap(new zxing.HybridBinarizer(new zxing.RGBLuminanceSource(light, width, height)));
    try {
      return new zxing.QRCodeReader().decode(bitmap, new Map([[zxing.DecodeHintType.TRY_HARDER, true]])).getText();
    } catch {
      return undefined;
    }
  },
};

/** The text of the code nearest the middle. */
function nearest(codes, { width, height }) {
  const gap = ({ x, y }) => Math.hypot(x - width / 2, y - height / 2);
  return codes.sort((a, b) => gap(a) - gap(b))[0]?.text;
}

const results = Object.fromEntries(Object.keys(DECODERS).map((name) => [name, []]));

for (const kind of NAMES) {
  for (let number = 0; number < each; number++) await measure(kind, number);
  process.stderr.write(`${kind} `);
}

/** Measures one picture; decoders that could not read it get the rest of its second. */
async function measure(kind, number) {
  const frames = [];
  for (const [name, start] of Object.entries(DECODERS)) {
    const decode = start();
    const result = { kind, frames: 0, wrong: false, time: 0, size: 0, large: number % 2 === 1 };
    for (let frame = 0; frame < LOOKS && !result.frames; frame++) {
      frames[frame] ??= picture({ kind, number, frame, seed });
      const started = clock();
      const text = await decode(frames[frame]);
      if (frame === 0) result.time = clock() - started;
      if (text === frames[frame].text) result.frames = frame + 1;
      else if (text !== undefined) result.wrong = true;
    }
    results[name].push(result);
  }
}

const share = (some, all) => `${((100 * some.length) / all.length).toFixed(1)} %`;
const sorted = (times) => times.map(({ time }) => time).sort((a, b) => a - b);
const part = (times, which) => `${sorted(times)[Math.floor(times.length * which)].toFixed(0)} ms`;
const first = ({ frames }) => frames === 1;

const table = (head, ...rows) => [head, head.map((_, at) => (at ? "---:" : "---")), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

const names = Object.keys(DECODERS);
const summary = table(
  ["", ...names],
  ["one picture, one look", ...names.map((name) => share(results[name].filter(first), results[name]))],
  ["640 × 480", ...names.map((name) => share(results[name].filter((one) => first(one) && !one.large), results[name].filter(({ large }) => !large)))],
  ["1280 × 720", ...names.map((name) => share(results[name].filter((one) => first(one) && one.large), results[name].filter(({ large }) => large)))],
  [`within one second of ${LOOKS} looks`, ...names.map((name) => share(results[name].filter(({ frames }) => frames > 0), results[name]))],
  ["another code was told", ...names.map((name) => results[name].filter(({ wrong }) => wrong).length)],
  ["processor time of a look, median", ...names.map((name) => part(results[name], 0.5))],
  ["of 95 in 100 at most", ...names.map((name) => part(results[name], 0.95))],
);
const kinds = table(
  ["one look", ...names],
  ...NAMES.map((kind) => [kind, ...names.map((name) => results[name].filter((one) => one.kind === kind && first(one)).length)]),
);

console.log(`| | |
|---|---|
| date | ${new Date().toISOString().slice(0, 10)} |
| CPU | ${os.cpus().length} × ${os.cpus()[0].model} |
| Node | ${process.versions.node} |
| pictures | ${results.ours.length}, ${each} of each kind, seed ${seed} |
| command | \`scripts/bench codes\` |

${summary}

Of ${each} pictures of each kind:

${kinds}`);
