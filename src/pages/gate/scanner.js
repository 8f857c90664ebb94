// The camera, and QR codes in its picture.

import { recall, remember } from "../shared/memory.js";

const CAMERA = "gate-camera";
// Between two looks at the picture, in milliseconds: when codes come, and when none came for a while.
const BUSY = 60;
const IDLE = 200;
const IDLE_AFTER = 30_000;
// What the vendored decoder gets to see: the middle of the picture, by turns all of it and a closer look at half of it.
const SIDE = 640;
const PARTS = [1, 0.5];

/** Whether the browser reads QR codes by itself; then its decoder, otherwise null. */
async function nativeDecoder() {
  try {
    if (!(await BarcodeDetector.getSupportedFormats()).includes("qr_code")) return null;
    const detector = new BarcodeDetector({ formats: ["qr_code"] });
    return async (video) => nearestToMiddle(await detector.detect(video), video)?.rawValue;
  } catch {
    return null;
  }
}

function nearestToMiddle(codes, video) {
  const distance = ({ boundingBox: { x, y, width, height } }) =>
    Math.hypot(x + width / 2 - video.videoWidth / 2, y + height / 2 - video.videoHeight / 2);
  return codes.sort((a, b) => distance(a) - distance(b))[0];
}

/** The decoder that we bring, for browsers without one. */
async function vendoredDecoder() {
  const { decodeQR } = await import("../shared/vendor/qr-decode.js");
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let turn = 0;
  return (video) => {
    const { videoWidth: width, videoHeight: height } = video;
    const part = Math.min(width, height) * PARTS[turn++ % PARTS.length];
    context.drawImage(video, (width - part) / 2, (height - part) / 2, part, part, 0, 0, SIDE, SIDE);
    try {
      return decodeQR(context.getImageData(0, 0, SIDE, SIDE));
    } catch {
      return undefined; // It throws when there is no code in the picture.
    }
  };
}

const end = (stream) => stream?.getTracks().forEach((track) => track.stop());

/**
 * Shows the camera in a `<video>` and calls `seen(text)` for every code in every picture that it looks at, and `lost()`
 * when the camera went away by itself.
 */
export class Scanner {
  paused = false;
  #video;
  #seen;
  #lost;
  #stream = null;
  #decode = null;
  #failures = 0;
  #newest = 0;
  #stops = 0;

  constructor(video, { seen, lost }) {
    this.#video = video;
    this.#seen = seen;
    this.#lost = lost;
  }

  get running() {
    return this.#stream !== null;
  }

  /**
   * Starts with the camera used last, or else one that looks away from the screen. Throws what `getUserMedia` throws, and an
   * `AbortError` when it was stopped, or started anew, before the camera was there.
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
      return open({ facingMode: "environment" }); // That camera is gone.
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

  /** Goes on with the next camera, remembers it and returns its name. */
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
      if (this.paused || this.#stream !== stream) continue;
      const text = await this.#read();
      if (!text || this.paused) continue;
      this.#newest = Date.now();
      this.#seen(text);
    }
  }

  /** Waits for the next picture worth looking at. A page in the background gets none. */
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
      const text = await this.#decode(this.#video);
      this.#failures = 0;
      return text;
    } catch {
      // Some phones say that they read codes and then never do.
      this.#failures += 1;
      if (this.#failures % 5 === 0) this.#decode = await vendoredDecoder().catch(() => this.#decode);
      return undefined;
    }
  }
}
