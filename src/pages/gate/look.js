// The QR codes in a picture, for browsers that read none by themselves.

import { BitMatrix, Decoder, Detector } from "../shared/vendor/qr-decode.js";

/**
 * The ways to look at a picture, each good for other troubles: halved, it costs a quarter; smooth, noise is gone; sharp, blur
 * is; over a narrow surrounding, uneven light is. `reach` is how far the surroundings of a point go, in points.
 */
const HALF = { halve: true, smooth: false, sharpen: 3, reach: 12 };
const FULL = [
  { halve: false, smooth: false, sharpen: 2, reach: 20 },
  { halve: false, smooth: true, sharpen: 3, reach: 12 },
  { halve: false, smooth: true, sharpen: 3, reach: 20 },
  { halve: false, smooth: false, sharpen: 2, reach: 12 },
  { halve: false, smooth: true, sharpen: 0, reach: 20 },
];
/** A picture of so many points across is looked at halved first. */
const LARGE = 800;

/** Looks at one picture after another. */
export class Looker {
  #detector = new Detector();
  #decoder = new Decoder();
  #turn = 0;

  /**
   * What it finds in a picture, as a canvas gives it, within about so many milliseconds: `codes`, each with its text, the place
   * of its middle and the length of its side; `unread`, the same of what looks like a code and could not be read. It looks twice at
   * least, unless a code lies across the middle. In the next picture it goes on with the ways that it did not come to.
   */
  look(picture, budget = 60) {
    const end = performance.now() + budget;
    const { width, height } = picture;
    const found = { codes: [], unread: [] };
    const full = { light: lightOf(picture), width, height };
    const first = this.#turn;
    const ways = [...(width > LARGE ? [HALF] : []), FULL[0], ...FULL.slice(1).map((_, at, { length }) => FULL[1 + ((first + at) % length)])];
    for (const [at, way] of ways.entries()) {
      if (at > 1 && performance.now() > end) break;
      if (way !== HALF && way !== FULL[0]) this.#turn += 1;
      this.#search(full, way, end, found);
      if (found.codes.length > 0 && (at > 0 || found.codes.some((code) => isAcross(code, width, height)))) break;
    }
    found.unread = found.unread.filter((one) => found.codes.every((code) => Math.hypot(one.x - code.x, one.y - code.y) > code.side));
    return found;
  }

  /** Adds what one way of looking finds, dark on light and light on dark. */
  #search(full, { halve, smooth, sharpen, reach }, end, found) {
    let { light, width, height } = halve ? halved(full) : full;
    const scale = full.width / width;
    if (smooth) light = smoothed(light, width, height);
    if (sharpen) light = sharpened(light, width, height, sharpen);
    const around = means(light, width, height, reach);
    const margin = Math.max(1, noiseOf(light, width, height));
    for (const sign of [1, -1]) {
      const bits = new BitMatrix(width, height);
      for (let y = 0, at = 0; y < height; y++) {
        for (let x = 0; x < width; x++, at++) if ((around[at] - light[at]) * sign > margin) bits.set(x, y);
      }
      this.#detect(bits, scale, end, found);
    }
  }

  #detect(bits, scale, end, { codes, unread }) {
    const taken = new Set();
    const missed = [];
    const detected = this.#detector.detect(bits);
    for (let next = detected.next(); !next.done; ) {
      const place = placeOf(next.value, scale);
      const text = this.#decode(next.value.matrix);
      const { topLeft, topRight, bottomLeft } = next.value.finder;
      if (text) for (const corner of [topLeft, topRight, bottomLeft]) taken.add(corner);
      else missed.push({ ...place, corners: [topLeft, topRight, bottomLeft] });
      if (text && !codes.some((code) => code.text === text && Math.hypot(code.x - place.x, code.y - place.y) < code.side)) {
        codes.push({ text, ...place });
      }
      if (performance.now() > end && codes.length > 0) break;
      next = detected.next(Boolean(text));
    }
    // Three corners of two codes look like a third.
    for (const { corners, ...place } of missed) if (!corners.some((corner) => taken.has(corner))) unread.push(place);
  }

  #decode(matrix) {
    try {
      return this.#decoder.decode(matrix).content;
    } catch {
      return ""; // So it says that it could not.
    }
  }
}

/** Whether a code lies across the middle of the picture. */
export function isAcross({ x, y, side }, width, height) {
  return Math.hypot(x - width / 2, y - height / 2) < side * 0.75;
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

/** Each point as a mean of itself and its neighbours, which count less. */
function smoothed(light, width, height) {
  const rows = new Uint16Array(light.length);
  for (let y = 0, at = 0; y < height; y++) {
    for (let x = 0; x < width; x++, at++) rows[at] = light[x ? at - 1 : at] + 2 * light[at] + light[x + 1 < width ? at + 1 : at];
  }
  const smooth = new Uint8Array(light.length);
  for (let y = 0, at = 0; y < height; y++) {
    const [above, below] = [y ? -width : 0, y + 1 < height ? width : 0];
    for (let x = 0; x < width; x++, at++) smooth[at] = (rows[at + above] + 2 * rows[at] + rows[at + below] + 8) >> 4;
  }
  return smooth;
}

function sharpened(light, width, height, strength) {
  const smooth = smoothed(smoothed(light, width, height), width, height);
  const sharp = new Uint8ClampedArray(light.length);
  for (let at = 0; at < light.length; at++) sharp[at] = light[at] + strength * (light[at] - smooth[at]);
  return sharp;
}

/** How light it is around each point: the mean of a square that goes so many points to each side. */
function means(light, width, height, reach) {
  const columns = new Uint32Array(width);
  const around = new Uint8Array(light.length);
  let rows = 0;
  const count = (y, sign) => {
    rows += sign;
    for (let x = 0, at = y * width; x < width; x++, at++) columns[x] += sign * light[at];
  };
  for (let y = 0; y < Math.min(reach, height); y++) count(y, 1);
  for (let y = 0, at = 0; y < height; y++) {
    if (y + reach < height) count(y + reach, 1);
    if (y > reach) count(y - reach - 1, -1);
    let [sum, number] = [0, 0];
    for (let x = -reach; x < width; x++) {
      if (x + reach < width) [sum, number] = [sum + columns[x + reach], number + 1];
      if (x > reach) [sum, number] = [sum - columns[x - reach - 1], number - 1];
      if (x >= 0) around[at++] = sum / (number * rows);
    }
  }
  return around;
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
