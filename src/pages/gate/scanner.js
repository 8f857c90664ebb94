// The camera, and choosing the QR code in its picture.

import { recall, remember } from "../shared/memory.js";
import { Aim } from "./aim.js";

const CAMERA = "gate-camera";
// Milliseconds between two looks at the picture: while codes come, and after a while without any.
const BUSY = 30;
const IDLE = 200;
const IDLE_AFTER = 30_000;
// The widest picture the vendored decoder gets, in pixels; larger ones are scaled down.
const WIDEST = 1280;

/**
 * Both decoders return, for what the video shows: `codes`, each with its text, centre and side length; `unread`, the same for
 * codes that could not be read; and the `width` and `height` that these coordinates refer to.
 */

/** The browser's own QR decoder, or null if it has none. */
async function nativeDecoder() {
  try {
    if (!(await BarcodeDetector.getSupportedFormats()).includes("qr_code")) return null;
    const detector = new BarcodeDetector({ formats: ["qr_code"] });
    return async (video) => {
      const { videoWidth: width, videoHeight: height } = video;
      const all = (await detector.detect(video)).map(({ rawValue: text, boundingBox: box }) => {
        return { text, x: box.x + box.width / 2, y: box.y + box.height / 2, side: Math.max(box.width, box.height) };
      });
      return { codes: all.filter(({ text }) => text), unread: all.filter(({ text }) => !text), width, height };
    };
  } catch {
    return null;
  }
}

/** The vendored decoder, for browsers without their own. */
async function vendoredDecoder() {
  const { Looker } = await import("./look.js");
  const looker = new Looker();
  const canvas = document.createElement("canvas");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  return (video) => {
    const scale = Math.min(1, WIDEST / Math.max(video.videoWidth, video.videoHeight));
    const [width, height] = [Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.drawImage(video, 0, 0, width, height);
    return { ...looker.look(context.getImageData(0, 0, width, height)), width, height };
  };
}

const end = (stream) => stream?.getTracks().forEach((track) => track.stop());

/**
 * Shows the camera in a `<video>`. Calls `looked(texts)` with all codes of every picture it looks at, then `seen(text)` for the
 * one that is meant, or `unsure()` if nothing tells which one is; and `lost()` when the camera goes away by itself.
 */
export class Scanner {
  #video;
  #looked;
  #seen;
  #unsure;
  #lost;
  #aim = new Aim();
  #stream = null;
  #decode = null;
  #failures = 0;
  #newest = 0;
  #stops = 0;

  constructor(video, { looked, seen, unsure, lost }) {
    this.#video = video;
    this.#looked = looked;
    this.#seen = seen;
    this.#unsure = unsure;
    this.#lost = lost;
  }

  get running() {
    return this.#stream !== null;
  }

  /**
   * Starts the camera used last, or else one facing away from the screen. Throws what `getUserMedia` throws, and an
   * `AbortError` if it was stopped or restarted before the camera was ready.
   */
  async start(deviceId = recall(CAMERA)) {
    this.stop();
    if (!navigator.mediaDevices) throw new DOMException("", "NotSupportedError");
    const stops = this.#stops;
    const stream = await this.#open(deviceId);
    if (stops !== this.#stops) {
      end(stream);
      throw new DOMException("", "AbortError");
    }
    this.#stream = stream;
    this.#video.srcObject = stream;
    this.#video.classList.toggle("mirrored", this.#track.getSettings().facingMode === "user");
    this.#track.addEventListener("ended", () => {
      if (this.#stream !== stream) return;
      this.stop();
      this.#lost();
    });
    await this.#video.play();
    this.#decode ??= (await nativeDecoder()) ?? (await vendoredDecoder());
    this.#newest = Date.now();
    this.#look(stream);
  }

  async #open(deviceId) {
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
    const open = (video) => navigator.mediaDevices.getUserMedia({ video: { ...size, ...video }, audio: false });
    if (!deviceId) return open({ facingMode: "environment" });
    try {
      return await open({ deviceId: { exact: deviceId } });
    } catch (error) {
      if (error.name === "NotAllowedError") throw error;
      return open({ facingMode: "environment" }); // That camera is gone: take another.
    }
  }

  stop() {
    this.#stops += 1;
    end(this.#stream);
    this.#stream = null;
    this.#video.srcObject = null;
  }

  get #track() {
    return this.#stream?.getVideoTracks()[0];
  }

  get hasTorch() {
    return Boolean(this.#track?.getCapabilities?.().torch);
  }

  get torch() {
    return Boolean(this.#track?.getSettings().torch);
  }

  setTorch(on) {
    return this.#track.applyConstraints({ advanced: [{ torch: on }] });
  }

  async cameras() {
    return (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  }

  /** Switches to the next camera, remembers it and returns its name. */
  async nextCamera() {
    const cameras = await this.cameras();
    const current = cameras.findIndex((camera) => camera.deviceId === this.#track?.getSettings().deviceId);
    const next = cameras[(current + 1) % cameras.length];
    remember(CAMERA, next.deviceId);
    await this.start(next.deviceId);
    return next.label;
  }

  async #look(stream) {
    while (this.#stream === stream) {
      await this.#picture();
      const { texts, text, unsure } = await this.#read();
      if (this.#stream !== stream) continue;
      if (texts) this.#looked(texts);
      if (text || unsure) this.#newest = Date.now();
      if (text) this.#seen(text);
      else if (unsure) this.#unsure();
    }
  }

  /** Waits for the next picture to look at. A page in the background gets none. */
  async #picture() {
    const idle = Date.now() - this.#newest > IDLE_AFTER;
    await new Promise((resolve) => setTimeout(resolve, idle ? IDLE : BUSY));
    await new Promise((resolve) => {
      if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(resolve);
      else requestAnimationFrame(resolve);
    });
  }

  async #read() {
    try {
      const { codes, unread, width, height } = await this.#decode(this.#video);
      this.#failures = 0;
      return { texts: codes.map(({ text }) => text), ...this.#aim.choose({ codes, unread }, width, height) };
    } catch {
      // Some phones claim to read codes and then never do.
      this.#failures += 1;
      if (this.#failures % 5 === 0) this.#decode = await vendoredDecoder().catch(() => this.#decode);
      return {};
    }
  }
}
