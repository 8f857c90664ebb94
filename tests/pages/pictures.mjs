// Hard pictures of codes, as cameras at a gate take them: drawn, not photographed, and the same for a seed everywhere.
import jpeg from "jpeg-js";
import { encodeQR } from "../../src/pages/shared/vendor/qr.js";

/** Widths and heights of camera pictures. */
const SIZES = [[640, 480], [1280, 720]];
/** Samples of the scene per pixel, across and down. */
const FINE = 3;
const DARK = 25;
const LIGHT = 235;

/**
 * What makes a picture hard. Each function returns, at random, how it differs from a plain picture: `module` is the width of a
 * module in pixels; blur, motion and cracks are measured in modules, so that they are as hard at each size.
 */
const KINDS = {
  plain: () => ({}),
  small: (chance) => ({ module: chance.from(1.3, 2.4), blur: 0.2 }),
  rotated: (chance) => ({ angle: chance.from(-Math.PI, Math.PI), module: chance.from(2.2, 5) }),
  perspective: (chance) => ({ tilt: chance.from(0.7, 1.1), towards: chance.from(0, 7), module: chance.from(4, 7) }),
  blurred: (chance) => ({ blur: chance.from(0.35, 0.62) }),
  cracked: (chance) => ({ cracks: 2 + Math.floor(chance.from(0, 4)), crackWidth: chance.from(0.15, 0.5) }),
  glare: (chance) => ({ glare: chance.from(3, 7), glareLight: chance.from(120, 270) }),
  inverted: (chance) => ({ inverted: true, module: chance.from(2.5, 6) }),
  moving: (chance) => ({ motion: chance.from(0.7, 1.5), motionAngle: chance.from(0, Math.PI) }),
  dim: (chance) => ({ gain: chance.from(0.11, 0.3), noise: chance.from(3, 8) }),
  pale: (chance) => ({ gain: chance.from(0.05, 0.18), offset: chance.from(30, 190), noise: chance.from(0.6, 1.3) }),
  aside: (chance) => ({ aside: chance.from(0.8, 1), module: chance.from(2.2, 5) }),
  two: (chance) => ({ second: true, module: chance.from(2.4, 3.6) }),
  moire: (chance) => ({ moire: chance.from(0.08, 0.3), moirePitch: chance.from(1.9, 2.4) }),
  jpeg: (chance) => ({ quality: Math.round(chance.from(4, 16)), module: chance.from(2.4, 5) }),
  darkmode: (chance) => ({ quiet: chance.from(0.6, 2.5), screen: chance.from(8, 30), angle: chance.from(-0.5, 0.5) }),
  near: (chance, height) => ({ module: (chance.from(0.5, 0.9) * height) / 29, quiet: 2 }),
};

/** The kinds of hard pictures, by name. */
export const NAMES = Object.keys(KINDS);

/** Random numbers that are the same for a seed everywhere (mulberry32). */
class Chance {
  #state;

  constructor(seed) {
    this.#state = seed | 0;
  }

  next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  from(least, most) {
    return least + this.next() * (most - least);
  }

  /** Roughly normal, with a standard deviation of 1. */
  normal() {
    return (this.next() + this.next() + this.next() + this.next() - 2) * Math.sqrt(3);
  }
}

/** The text of a random ticket's QR. */
function ticketCode(chance) {
  const id = Buffer.from(Array.from({ length: 16 }, () => Math.floor(chance.next() * 256))).toString("base64url");
  return `RT1.${id}.${String(Math.floor(chance.next() * 1e6)).padStart(6, "0")}`;
}

/**
 * Draws picture `number` of a kind, at `frame` of the second in which somebody holds it there: each frame is slightly moved,
 * with its own noise. Returns `{width, height, data}` as a canvas would, and `text`, that of the code nearest the middle.
 * `texts` replaces the random codes; null leaves one out.
 */
export function picture({ kind, number, frame = 0, seed = 1, texts }) {
  const chance = new Chance(seed * 1_000_003 + NAMES.indexOf(kind) * 10_007 + number * 101);
  const [width, height] = SIZES[number % SIZES.length];
  const spec = {
    ...{ angle: chance.from(-0.15, 0.15), tilt: chance.from(0, 0.3), towards: chance.from(0, 7), module: chance.from(2.6, 5) },
    ...{ blur: 0.25, motion: 0, motionAngle: 0, quiet: 4, screen: LIGHT, gain: 0.8, offset: 5, noise: 1.5, quality: 88 },
    ...KINDS[kind](chance, height),
  };
  const code = { text: ticketCode(chance), ...place(chance, spec, width, height) };
  const codes = spec.second ? [code, { ...code, text: ticketCode(chance), ...beside(chance, code, spec, width, height) }] : [code];
  for (const [at, text] of (texts ?? []).entries()) codes[at].text = text;
  const scratches = cracks(chance, spec);
  const light = { x: chance.from(6, 22), y: chance.from(6, 22) };
  const canvas = wall(chance, width, height);
  const moment = new Chance(seed * 7919 + number * 31 + frame * 1_299_709 + 5);
  for (const one of codes.filter(({ text }) => text)) drawPhone(canvas, held(one, moment, frame, width), spec, { scratches, light, moment, frame });
  return { ...developed(canvas, spec, moment, frame), text: code.text };
}

/** Chooses the position of the code, leaving room for a second one. */
function place(chance, { aside, second, module }, width, height) {
  const [x, y] = [width / 2, height / 2];
  if (second) return { x: x + chance.from(-0.08, 0.08) * width, y: y + chance.from(-0.1, 0.1) * height };
  // A code that fills the picture is not cut off.
  const within = (middle) => Math.max(0, Math.min(0.24 * middle, middle - 16 * module));
  if (!aside) return { x: x + chance.from(-1, 1) * within(x), y: y + chance.from(-1, 1) * within(y) };
  const room = 18 * module;
  const [signX, signY] = [chance.next() < 0.5 ? -1 : 1, chance.next() < 0.5 ? -1 : 1];
  return { x: x + signX * aside * Math.max(0, x - room), y: y + signY * chance.from(0.4, 1) * Math.max(0, y - room) };
}

/** The position of a second phone: beside the first, further from the middle. */
function beside(chance, { x }, { module }, width, height) {
  const side = x > width / 2 ? -1 : 1; // where there is more room
  return { x: x + side * module * chance.from(48, 54), y: height / 2 + side * chance.from(0.12, 0.2) * height };
}

/** The same code in another frame: a hand is never quite still. */
function held(code, moment, frame, width) {
  if (frame === 0) return code;
  const shift = 0.012 * width;
  return { ...code, x: code.x + shift * moment.normal(), y: code.y + shift * moment.normal(), turned: 0.03 * moment.normal(), nearer: 1 + 0.03 * moment.normal() };
}

function cracks(chance, { cracks = 0 }) {
  const [x, y] = [chance.from(0, 29), chance.from(0, 29)];
  return Array.from({ length: cracks }, () => {
    let direction = chance.from(0, 7);
    const points = [[x, y]];
    for (let step = 0; step < 7; step++) {
      direction += chance.from(-0.5, 0.5);
      const [lastX, lastY] = points.at(-1);
      const length = chance.from(3, 7);
      points.push([lastX + length * Math.cos(direction), lastY + length * Math.sin(direction)]);
    }
    return points;
  });
}

/** The background: a wall, people, objects with edges. */
function wall(chance, width, height) {
  const light = new Float32Array(width * height);
  const [base, across, down] = [chance.from(60, 170), chance.from(-60, 60), chance.from(-60, 60)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) light[y * width + x] = base + across * (x / width - 0.5) + down * (y / height - 0.5);
  }
  for (let thing = 0; thing < 40; thing++) {
    const [left, top] = [Math.floor(chance.from(-0.1, 1) * width), Math.floor(chance.from(-0.1, 1) * height)];
    const right = Math.min(width, left + Math.floor(chance.from(0.01, 0.2) * width));
    const bottom = Math.min(height, top + Math.floor(chance.from(0.02, 0.3) * height));
    const [shade, stripes] = [chance.from(15, 230), chance.next() < 0.3 ? Math.ceil(chance.from(3, 20)) : 0];
    for (let y = Math.max(0, top); y < bottom; y++) {
      for (let x = Math.max(0, left); x < right; x++) {
        light[y * width + x] = stripes && Math.floor(x / stripes) % 2 ? 255 - shade : shade;
      }
    }
  }
  return { width, height, light };
}

/** Maps pixels to the plane of the phone, whose unit is a module and whose origin is the code's corner. */
function projection({ x, y, turned = 0, nearer = 1 }, { angle, tilt, towards, module }, size) {
  const far = 4 * size; // how far the camera is from the phone
  const [cosA, sinA] = [Math.cos(angle + turned), Math.sin(angle + turned)];
  const [cosT, sinT] = [Math.cos(towards), Math.sin(towards)];
  const [cosZ, sinZ] = [Math.cos(tilt), Math.sin(tilt)];
  return (px, py) => {
    const [u, v] = [(px - x) / (module * nearer), (py - y) / (module * nearer)];
    const [a, b] = [u * cosT + v * sinT, -u * sinT + v * cosT];
    const c = (a * far) / (far * cosZ - a * sinZ); // the phone is tilted about the axis across `towards`
    const d = (b * (far + c * sinZ)) / far;
    const [e, f] = [c * cosT - d * sinT, c * sinT + d * cosT];
    return [e * cosA + f * sinA + size / 2, -e * sinA + f * cosA + size / 2];
  };
}

function drawPhone(canvas, code, spec, { scratches, light, moment, frame }) {
  const rows = encodeQR(code.text, "raw", { ecc: "medium", border: 1 }).slice(1, -1).map((row) => row.slice(1, -1));
  const toPlane = projection(code, spec, rows.length);
  const shine = frame ? { x: light.x + 2 * moment.normal(), y: light.y + 2 * moment.normal() } : light;
  const shades = { rows, spec, scratches, shine };
  for (let y = 0; y < canvas.height; y++) {
    for (let x = 0; x < canvas.width; x++) {
      const [u, v] = toPlane(x + 0.5, y + 0.5);
      if (u < -12 || v < -24 || u > rows.length + 12 || v > rows.length + 30) continue;
      let sum = 0;
      for (let part = 0; part < FINE * FINE; part++) {
        const [a, b] = toPlane(x + ((part % FINE) + 0.5) / FINE, y + (Math.floor(part / FINE) + 0.5) / FINE);
        sum += shade(a, b, shades);
      }
      canvas.light[y * canvas.width + x] = sum / FINE ** 2;
    }
  }
}

/** The brightness of the phone at a point of its plane. */
function shade(u, v, { rows, spec, scratches, shine }) {
  const size = rows.length;
  let value = spec.screen;
  const [outU, outV] = [Math.max(-u, u - size), Math.max(-v, v - size)];
  if (outU > 10 || v < -22 || v > size + 28) value = 12; // its frame
  else if (outU < 0 && outV < 0) value = rows[Math.floor(v)][Math.floor(u)] ? DARK : LIGHT;
  else if (outU <= spec.quiet && outV <= spec.quiet) value = LIGHT;
  else if (v > size + 6 && v % 3 < 1.2 && Math.floor(u * 1.7 + v) % 5 > 1) value = 255 - spec.screen; // lines of text
  if (spec.inverted && outU <= 10) value = 255 - value;
  for (const points of scratches) {
    for (let at = 1; at < points.length; at++) {
      if (isNear(u, v, points[at - 1], points[at], spec.crackWidth / 2)) value = at % 2 ? 190 : 60;
    }
  }
  if (spec.glare) value += spec.glareLight * Math.exp(-(((u - shine.x) / spec.glare) ** 2 + ((v - shine.y) / spec.glare / 1.6) ** 2));
  return value;
}

/** Whether a point is closer than `reach` to a line between two points. */
function isNear(x, y, [x1, y1], [x2, y2], reach) {
  if (x < Math.min(x1, x2) - reach || x > Math.max(x1, x2) + reach || y < Math.min(y1, y2) - reach || y > Math.max(y1, y2) + reach) return false;
  const along = ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / ((x2 - x1) ** 2 + (y2 - y1) ** 2);
  const part = Math.min(1, Math.max(0, along));
  return (x - x1 - part * (x2 - x1)) ** 2 + (y - y1 - part * (y2 - y1)) ** 2 < reach ** 2;
}

/** Applies lens, sensor and compression to the light. */
function developed({ width, height, light }, spec, moment, frame) {
  let seen = blurred(light, width, height, spec.blur * spec.module);
  // A moving hand also stops.
  const motion = spec.motion * spec.module * (frame ? Math.abs(Math.cos(frame + moment.next())) : 1);
  if (motion) seen = smeared(seen, width, height, motion, spec.motionAngle);
  const data = new Uint8ClampedArray(4 * width * height);
  const tone = 2 * Math.PI / (spec.moirePitch ?? 1);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) {
      let value = seen[at];
      // Stripes about as fine as the sensor's pixels, and the slow waves that the two make together.
      if (spec.moire) value *= 1 + spec.moire * (Math.sin(tone * x + 0.06 * y + frame) * 0.6 + Math.sin(0.11 * x + 0.05 * y + frame) * 0.5);
      value = Math.min(255, value) * spec.gain + spec.offset + spec.noise * moment.normal();
      data[4 * at] = data[4 * at + 1] = data[4 * at + 2] = value;
      data[4 * at + 3] = 255;
    }
  }
  const compressed = jpeg.encode({ data, width, height }, spec.quality).data;
  return { width, height, data: new Uint8ClampedArray(jpeg.decode(compressed, { formatAsRGBA: true, useTArray: true }).data.buffer) };
}

function blurred(light, width, height, deviation) {
  const reach = Math.ceil(2.5 * deviation);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, at) => Math.exp(-((at - reach) ** 2) / (2 * deviation ** 2)));
  const total = weights.reduce((sum, weight) => sum + weight);
  const once = (from, step, stride, line, lines) => {
    const to = new Float32Array(from.length);
    for (let row = 0; row < lines; row++) {
      for (let along = 0; along < line; along++) {
        let sum = 0;
        for (let k = -reach; k <= reach; k++) {
          const at = Math.min(line - 1, Math.max(0, along + k));
          sum += weights[k + reach] * from[row * stride + at * step];
        }
        to[row * stride + along * step] = sum / total;
      }
    }
    return to;
  };
  return once(once(light, 1, width, width, height), width, 1, height, width);
}

function smeared(light, width, height, length, angle) {
  const steps = Math.max(2, Math.ceil(2 * length));
  const to = new Float32Array(light.length);
  for (let step = 0; step < steps; step++) {
    const along = length * (step / (steps - 1) - 0.5);
    const [dx, dy] = [Math.round(along * Math.cos(angle)), Math.round(along * Math.sin(angle))];
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const fromX = Math.min(width - 1, Math.max(0, x + dx));
        const fromY = Math.min(height - 1, Math.max(0, y + dy));
        to[y * width + x] += light[fromY * width + fromX] / steps;
      }
    }
  }
  return to;
}
