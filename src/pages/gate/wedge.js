// Hand-held scanners that type what they read and end with Enter, Tab or nothing.

import { american, readingsOf } from "./readings.js";

// After this many milliseconds without a key, earlier keys did not come from the scanner,
const PAUSE = 1000;
/** and after this many, a ticket's code without an end key is complete. */
const SILENCE = 300;
const SHORTEST = 8;
const FIELDS = "input, textarea, select";

/**
 * Calls `scanned({code, readings, loose})` for everything a scanner types: `code` as it came, and its possible meanings (see
 * `readingsOf`). In a field of the page, only a ticket's code counts; it is removed from the field again. Calls `broken()` for
 * a code that never ended.
 */
export function onScannerTyping({ scanned, broken }) {
  let typed = nothing();
  let timer = 0;

  function end() {
    clearTimeout(timer);
    const { keys, positions, field, before } = typed;
    const meant = readingsOf(keys, positions);
    typed = nothing();
    const isTicket = meant.readings.length > 0 || meant.loose.length > 0;
    if (field && isTicket) field.value = before;
    if (!field || isTicket) scanned({ code: meant.readings[0] ?? keys, ...meant });
  }

  /** Handles the silence after the last key. */
  function fellSilent() {
    const { keys, positions, field } = typed;
    if (readingsOf(keys, positions).readings.length > 0) return end();
    timer = setTimeout(() => {
      typed = nothing();
      if (!field) broken();
    }, PAUSE - SILENCE);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.isComposing) return;
    const field = event.target.closest?.(FIELDS) ?? null;
    if (event.timeStamp - typed.newest > PAUSE || field !== typed.field) typed = { ...nothing(), field, before: field?.value };
    typed.newest = event.timeStamp;
    clearTimeout(timer);
    if (isEnd(event, typed)) {
      event.preventDefault(); // The key is not meant for the focused button or form.
      event.stopPropagation();
      end();
      return;
    }
    if (event.key.length === 1 || event.key === "Dead") {
      if (typed.keys && !field) event.preventDefault(); // A space would press the focused button.
      typed.keys += event.key.length === 1 ? event.key : "";
      typed.positions += american(event);
    }
    if (typed.keys.length >= SHORTEST) timer = setTimeout(fellSilent, SILENCE);
  }, { capture: true });
}

const nothing = () => ({ keys: "", positions: "", newest: 0, field: null, before: "" });

/** Whether a key ends the input: Enter, or Tab after a ticket's code. In a field, either counts only after a ticket's code. */
function isEnd({ key }, { keys, positions, field }) {
  if (keys.length < SHORTEST || !["Enter", "Tab"].includes(key)) return false;
  if (key === "Enter" && !field) return true;
  const { readings, loose } = readingsOf(keys, positions);
  return readings.length > 0 || loose.length > 0;
}
