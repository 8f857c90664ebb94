// Finds QR codes in a picture, for browsers without their own decoder.

import { isAcross } from "./aim.js";
import { Decoder, Detector } from "../shared/vendor/qr-decode.js";

/**
 * The ways to look at a picture, each good against other troubles. Each halving costs a quarter as much and finds codes that
 * fill the picture; smoothing removes noise, sharpening blur, and a narrow neighbourhood uneven light. `reach` is how far that
 * neighbourhood extends, in pixels: it finds codes with modules narrower than half of it.
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
/** A picture with more noise than this standard deviation is smoothed first. */
const NOISY = 2.5;
/**
 * A search that takes longer than this many milliseconds, in a picture full of code-like shapes, is abandoned; a slow phone
 * needs 150.
 */
const LONGEST = 400;
/** A picture at least this many pixels wide is first looked at halved. */
const LARGE = 800;

/** Looks at one picture after another. */
export class Looker {
  #detector = new Detector();
  #decoder = new Decoder();
  #turn = 0;
  #clock;

  /** `clock` returns milliseconds. */
  constructor(clock = () => performance.now()) {
    this.#clock = clock;
  }

  /**
   * Searches a picture (canvas image data) for about `budget` milliseconds. Returns `codes`, each with its text, centre and
   * side length, and `unread`, the same for shapes that look like a code but could not be read. After a coarse look it looks at
   * least twice more, unless a code lies across the middle. The next picture continues with the ways that there was no time
   * for.
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
      // There may be nearer codes that the search did not reach.
      if (cut) found.codes = found.codes.filter((code) => isAcross(code, width, height));
      if (cut) break;
      if (found.codes.length > 0 && (at > 1 || found.codes.some((code) => isAcross(code, width, height)))) break;
    }
    found.unread = found.unread.filter((one) => found.codes.every((code) => Math.hypot(one.x - code.x, one.y - code.y) > code.side));
    return found;
  }

  /** Returns all ways, likeliest first; which of the others comes next changes with each picture. */
  #ways(views) {
    const { light, width, height } = views.get();
    const noisy = noiseOf(light, width, height) > NOISY;
    const first = this.#turn % OTHERS.length;
    const others = [...OTHERS.slice(first), ...OTHERS.slice(0, first)];
    return [...(width > LARGE ? [COARSER, HALF] : [COARSE]), ...(noisy ? [SMOOTH, SHARP, ...others] : [SHARP, ...others, SMOOTH])];
  }

  /** Adds what one way finds, dark on light and, among the first ways, light on dark. Returns `#detect`'s result. */
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

  /** Adds the codes found in these cells. Returns whether it gave up before the end. */
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
    // Corners of two codes can look like a third one.
    for (const { corners, ...place } of missed) if (!corners.some((corner) => taken.has(corner))) unread.push(place);
    return false;
  }

  #decode(matrix) {
    try {
      return this.#decoder.decode(matrix).content;
    } catch {
      return ""; // The decoder throws if it cannot read the code.
    }
  }
}

/** Which pixels are darker than their surroundings, or lighter if `sign` is -1: the bit matrix for the detector. */
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

/** A picture's brightness, and the versions derived from it so far. */
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

/** Averages each pixel with its neighbours, which weigh less. The outermost pixels stay unchanged. */
function smoothed(light, width) {
  const rows = new Uint16Array(light.length);
  for (let at = 1; at < light.length - 1; at++) rows[at] = light[at - 1] + 2 * light[at] + light[at + 1];
  const smooth = light.slice();
  for (let at = width; at < light.length - width; at++) {
    smooth[at] = (rows[at - width] + 2 * rows[at] + rows[at + width] + 8) >> 4;
  }
  return smooth;
}

/** Amplifies each pixel's difference from its wider neighbourhood. */
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

/** The brightness around each pixel: the mean of a square that extends `reach` pixels to each side. */
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

/**
 * Estimates the standard deviation of the sensor's noise: by the median difference of pixels from the mean of their neighbours.
 */
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
  return value / 1.65; // ratio of this median to the standard deviation
}
