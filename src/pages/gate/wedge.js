// Hand-held scanners that type what they read and end with Enter.

import { QR } from "./admission.js";

// After so many milliseconds without a key, what was typed before was none of a scanner's.
const PAUSE = 1000;
const SHORTEST = 8;

/** Calls `scanned(text)` for whatever a scanner types while no field has the focus. */
export function onScannerTyping(scanned) {
  let keys = "";
  let positions = "";
  let newest = 0;
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, textarea, select") || event.ctrlKey || event.metaKey || event.isComposing) return;
    if (event.timeStamp - newest > PAUSE) keys = positions = "";
    newest = event.timeStamp;
    if (event.key === "Enter" && keys.length >= SHORTEST) {
      event.preventDefault(); // It is not meant for the button that has the focus.
      event.stopPropagation();
      scanned(understood(keys, positions));
      keys = positions = "";
    } else if (event.key.length === 1) {
      if (keys) event.preventDefault(); // A space would press that button too.
      keys += event.key;
      positions += typedOnUsKeyboard(event);
    }
  }, { capture: true });
}

/**
 * Scanners leave the factory as American keyboards. On a phone set to another layout their `-` and `_` become other
 * characters (Spanish: `'` and `?`), which the position of the key tells, where the system knows it.
 */
function understood(keys, positions) {
  const spanish = keys.replaceAll("'", "-").replaceAll("?", "_");
  const [ours] = [keys, positions, spanish].map((text) => QR.exec(text)).filter(Boolean);
  return ours?.[0] ?? keys;
}

function typedOnUsKeyboard({ code, shiftKey }) {
  if (code.startsWith("Key")) return shiftKey ? code[3] : code[3].toLowerCase();
  if (/^(Digit|Numpad)\d$/.test(code)) return code.at(-1);
  if (code === "Minus") return shiftKey ? "_" : "-";
  return { Period: ".", NumpadDecimal: ".", NumpadSubtract: "-" }[code] ?? "";
}
