// The sound and vibration of a verdict. Each kind has its own pitch and rhythm, so that nobody has to look.

import { recall, remember } from "../shared/memory.js";

const MUTED = "gate-muted";
// Tones are [hertz, start, length] in seconds; vibrations are milliseconds on and off.
const KINDS = {
  accepted: { tones: [[880, 0, 0.1], [1320, 0.1, 0.16]], wave: "sine", buzz: [70] },
  left: { tones: [[1320, 0, 0.1], [880, 0.1, 0.16]], wave: "sine", buzz: [70] },
  attention: { tones: [[440, 0, 0.14], [440, 0.22, 0.14], [440, 0.44, 0.14]], wave: "square", buzz: [120, 80, 120, 80, 120] },
  refused: { tones: [[130, 0, 0.55]], wave: "sawtooth", buzz: [450] },
  undecided: { tones: [[330, 0, 0.2], [220, 0.25, 0.35]], wave: "square", buzz: [200, 100, 200] },
};

let context = null;
let changed = () => {};

/** Browsers play nothing until somebody has touched the page. */
function unlock() {
  context ??= new AudioContext();
  context.onstatechange = changed;
  if (context.state !== "running") context.resume();
}
for (const touch of ["pointerup", "keydown"]) addEventListener(touch, unlock, { capture: true });

export const isMuted = () => recall(MUTED) === "yes";
export const mute = (on) => remember(MUTED, on ? "yes" : "no");
/** Whether somebody must touch the page before sounds can play. */
export const isLocked = () => !isMuted() && context?.state !== "running";
/** Calls back whenever that has changed. */
export const onLocked = (act) => (changed = act);

/** Plays and vibrates a kind of verdict: `accepted`, `left`, `attention`, `refused` or `undecided`. */
export function signal(kind) {
  const { tones, wave, buzz } = KINDS[kind];
  navigator.vibrate?.(buzz);
  if (isMuted() || isLocked()) return;
  for (const [pitch, start, length] of tones) tone(pitch, wave, context.currentTime + start, length);
}

function tone(pitch, wave, start, length) {
  const oscillator = new OscillatorNode(context, { type: wave, frequency: pitch });
  const volume = new GainNode(context, { gain: 0 });
  volume.gain.setValueAtTime(0, start);
  volume.gain.linearRampToValueAtTime(0.6, start + 0.01);
  volume.gain.setValueAtTime(0.6, start + length - 0.03);
  volume.gain.linearRampToValueAtTime(0, start + length);
  oscillator.connect(volume).connect(context.destination);
  oscillator.start(start);
  oscillator.stop(start + length);
}
