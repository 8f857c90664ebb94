// The QR codes in a picture, for browsers that read none by themselves.

import { isAcross } from "./aim.js";
import { Decoder, Detector } from "../shared/vendor/qr-decode.js";

/**
 * The ways to look at a picture, each good for other troubles: halved so many times, it costs a quarter each time, and what
 * fills the picture is seen whole; smooth, noise is gone; sharp, blur is; over a narrow surrounding, uneven light is. `reach`
 * is how far the surroundings of a point go, in points: a code is found whose modules are narrower than half of that.
 */
const COARSE = { halve: 1, smooth: false, sharpen: 0, reach: 20 };
const COARSER = { ...COARSE, halve: 2 };
const HALF = { halve: 1, smooth: false, sharpen: 3, reach: 12 };
const SHARP = { halve: 0, smooth: false, sharpen: 2, reach: 20 };
const SMOOTH = { halve: 0, smooth: true, sharpen: 0, reach: 20 };
const OTHERS = [
  { halve: 0, smooth: true, sharpen: 3, reach: 12 },
  { halve: 0, smooth: true, sharpen: 3, reach: 20 },
  { halve: 0, smooth: false, sharpen: 2, reach: 12 },
];
/** With more noise than that, a deviation, it is smoothed first. */
const NOISY = 2.5;
/** One search that takes longer, in a picture full of what looks like codes, is given up; a slow phone needs 150. */
const LONGEST = 400;
/** A picture of so many points across is looked at halved first. */
const LARGE = 800;

/** Looks at one picture after another. */
export class Looker {
  #detector = new Detector();
  #decoder = new Decoder();
  #turn = 0;
  #clock;

  /** `clock` gives milliseconds. */
  constructor(clock = () => performance.now()) {
    this.#clock = clock;
  }

  /**
   * What it finds in a picture, as a canvas gives it, within about so many milliseconds: `codes`, each with its text, the place
   * of its middle and the length of its side; `unread`, the same of what looks like a code and could not be read. After a
   * coarse look it looks twice at least, unless a code lies across the middle. In the next picture it goes on with the ways
   * that it did not come to.
   */
  look(picture, budget = 60) {
    const end = this.#clock() + budget;
    const { width, height } = picture;
    const found = { codes: [], unread: [] };
    const views = new Views(picture);
    for (const [at, way] of this.#ways(views).entries()) {
      if (at > 2 && this.#clock() > end) break;
      if (OTHERS.includes(way)) this.#turn += 1;
      const cut = this.#search(views, way, found);
      // What is nearer may not have been come to.
      if (cut) found.codes = found.codes.filter((code) => isAcross(code, width, height));
      if (cut) break;
      if (found.codes.length > 0 && (at > 1 || found.codes.some((code) => isAcross(code, width, height)))) break;
    }
    found.unread = found.unread.filter((one) => found.codes.every((code) => Math.hypot(one.x - code.x, one.y - code.y) > code.side));
    return found;
  }

  /** All ways, the likeliest first; which of the others comes next changes from picture to picture. */
  #ways(views) {
    const { light, width, height } = views.get();
    const noisy = noiseOf(light, width, height) > NOISY;
    const first = this.#turn % OTHERS.length;
    const others = [...OTHERS.slice(first), ...OTHERS.slice(0, first)];
    return [...(width > LARGE ? [COARSER, HALF] : [COARSE]), ...(noisy ? [SMOOTH, SHARP, ...others] : [SHARP, ...others, SMOOTH])];
  }

  /** Adds what one way of looking finds, dark on light and, among the first ways, light on dark. Returns what `#detect` does. */
  #search(views, way, found) {
    const { halve, smooth, sharpen, reach } = way;
    const { light, width, height } = views.get(halve, smooth, sharpen);
    const around = means(light, width, height, reach);
    const margin = Math.max(1, noiseOf(light, width, height));
    for (const sign of OTHERS.includes(way) ? [1] : [1, -1]) {
      const cells = new Cells(light, around, width, height, sign, margin);
      if (this.#detect(cells, views.width / width, found)) return true;
    }
    return false;
  }

  /** Adds what is in some cells, and returns whether it gave up before it came to the end. */
  #detect(cells, scale, { codes, unread }) {
    const last = this.#clock() + LONGEST;
    const taken = new Set();
    const missed = [];
    const detected = this.#detector.detect(cells);
    for (let next = detected.next(); !next.done; ) {
      const place = placeOf(next.value, scale);
      const text = this.#decode(next.value.matrix);
      const { topLeft, topRight, bottomLeft } = next.value.finder;
      if (text) for (const corner of [topLeft, topRight, bottomLeft]) taken.add(corner);
      else missed.push({ ...place, corners: [topLeft, topRight, bottomLeft] });
      if (text && !codes.some((code) => code.text === text && Math.hypot(code.x - place.x, code.y - place.y) < code.side)) {
        codes.push({ text, ...place });
      }
      if (this.#clock() > last) return true;
      next = detected.next(Boolean(text));
    }
    // Three corners of two codes look like a third.
    for (const { corners, ...place } of missed) if (!corners.some((corner) => taken.has(corner))) unread.push(place);
    return false;
  }

  #decode(matrix) {
    try {
      return this.#decoder.decode(matrix).content;
    } catch {
      return ""; // So it says that it could not.
    }
  }
}

/** Which points are dark, or light where `sign` is -1, for their surroundings: what the detector takes for a matrix of bits. */
class Cells {
  #cells;

  constructor(light, around, width, height, sign, margin) {
    this.width = width;
    this.height = height;
    const cells = new Uint8Array(light.length);
    for (let at = 0; at < cells.length; at++) cells[at] = (around[at] - light[at]) * sign > margin ? 1 : 0;
    this.#cells = cells;
  }

  get(x, y) {
    return x < 0 || x >= this.width ? 0 : this.#cells[(y | 0) * this.width + (x | 0)] | 0;
  }
}

/** A picture in brightness, and what was made of it so far. */
class Views {
  #made = new Map();

  constructor(picture) {
    this.width = picture.width;
    this.#made.set("", { light: lightOf(picture), width: picture.width, height: picture.height });
  }

  get(halve, smooth, sharpen) {
    let view = this.#made.get("");
    for (let times = 1; times <= halve; times++) view = this.#kept(`${times}`, () => halved(view));
    if (smooth) view = this.#kept(`${halve} smooth`, () => ({ ...view, light: smoothed(view.light, view.width) }));
    if (!sharpen) return view;
    return this.#kept(`${halve} ${smooth} ${sharpen}`, () => ({ ...view, light: sharpened(view.light, view.width, sharpen) }));
  }

  #kept(name, make) {
    if (!this.#made.has(name)) this.#made.set(name, make());
    return this.#made.get(name);
  }
}

function placeOf(detected, scale) {
  const { size, moduleSize } = detected;
  const { x, y } = detected.mapping(size / 2, size / 2);
  return { x: x * scale, y: y * scale, side: size * moduleSize * scale };
}

function lightOf({ data, width, height }) {
  const light = new Uint8Array(width * height);
  for (let at = 0, from = 0; at < light.length; at++, from += 4) light[at] = (data[from] + 2 * data[from + 1] + data[from + 2]) >> 2;
  return light;
}

function halved({ light, width, height }) {
  const [across, down] = [width >> 1, height >> 1];
  const half = new Uint8Array(across * down);
  for (let y = 0, at = 0; y < down; y++) {
    for (let x = 0, from = 2 * y * width; x < across; x++, at++, from += 2) {
      half[at] = (light[from] + light[from + 1] + light[from + width] + light[from + width + 1] + 2) >> 2;
    }
  }
  return { light: half, width: across, height: down };
}

/** Each point as a mean of itself and its neighbours, which count less. The outermost points stay as they are. */
function smoothed(light, width) {
  const rows = new Uint16Array(light.length);
  for (let at = 1; at < light.length - 1; at++) rows[at] = light[at - 1] + 2 * light[at] + light[at + 1];
  const smooth = light.slice();
  for (let at = width; at < light.length - width; at++) {
    smooth[at] = (rows[at - width] + 2 * rows[at] + rows[at + width] + 8) >> 4;
  }
  return smooth;
}

/** How each point differs from its wider neighbourhood, so many times more. */
function sharpened(light, width, strength) {
  const rows = new Uint16Array(light.length);
  for (let at = 2; at < light.length - 2; at++) {
    rows[at] = light[at - 2] + light[at + 2] + 4 * (light[at - 1] + light[at + 1]) + 6 * light[at];
  }
  const sharp = new Uint8ClampedArray(light);
  for (let at = 2 * width; at < light.length - 2 * width; at++) {
    const near = rows[at - 2 * width] + rows[at + 2 * width] + 4 * (rows[at - width] + rows[at + width]) + 6 * rows[at];
    sharp[at] = light[at] + strength * (light[at] - (near >> 8));
  }
  return sharp;
}

/** How light it is around each point: the mean of a square that goes so many points to each side. */
function means(light, width, height, reach) {
  const columns = new Int32Array(width);
  const around = new Uint8Array(light.length);
  let rows = 0;
  for (let y = -reach; y < height; y++) {
    const [enters, leaves] = [(y + reach) * width, (y - reach - 1) * width];
    if (y + reach < height) for (let x = 0; x < width; x++) columns[x] += light[enters + x];
    if (y > reach) for (let x = 0; x < width; x++) columns[x] -= light[leaves + x];
    rows += (y + reach < height ? 1 : 0) - (y > reach ? 1 : 0);
    if (y >= 0) meansOfRow(columns, rows, reach, around.subarray(y * width, (y + 1) * width));
  }
  return around;
}

function meansOfRow(columns, rows, reach, around) {
  const width = columns.length;
  let sum = 0;
  for (let x = -reach; x < width; x++) {
    if (x + reach < width) sum += columns[x + reach];
    if (x > reach) sum -= columns[x - reach - 1];
    if (x >= 0) around[x] = sum / (rows * (Math.min(x + reach + 1, width) - Math.max(0, x - reach)));
  }
}

/** About the deviation of what the sensor adds: of how points differ from the mean of their neighbours, the median. */
function noiseOf(light, width, height) {
  const counts = new Uint32Array(512);
  let all = 0;
  for (let y = 1; y < height; y += 5) {
    for (let x = 1, at = y * width + 1; x + 1 < width; x += 3, at += 3, all++) {
      counts[Math.min(511, Math.abs(2 * light[at] - light[at - 1] - light[at + 1]))] += 1;
    }
  }
  let value = 0;
  for (let seen = counts[0]; seen < all / 2; seen += counts[value]) value += 1;
  return value / 1.65; // what the median of such differences is to the deviation
}
