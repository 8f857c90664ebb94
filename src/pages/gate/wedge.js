// Hand-held scanners that type what they read, and end with Enter, with Tab, or with nothing.

import { american, readingsOf } from "./readings.js";

// After so many milliseconds without a key, what was typed before was none of a scanner's,
const PAUSE = 1000;
/** and after so many a ticket's code that ends with nothing is whole. */
const SILENCE = 300;
const SHORTEST = 8;
const FIELDS = "input, textarea, select";

/**
 * Calls `scanned({code, readings, loose})` for whatever a scanner types: `code` as it came, and what it may mean, as `readingsOf`
 * tells it. In a field of the page that is a ticket's code only, which is taken out of there again. Calls `broken()` for a code of
 * which the end never came.
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

  /** No more keys came. */
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
      event.preventDefault(); // It is not meant for the button, or the form, that has the focus.
      event.stopPropagation();
      end();
      return;
    }
    if (event.key.length === 1 || event.key === "Dead") {
      if (typed.keys && !field) event.preventDefault(); // A space would press that button too.
      typed.keys += event.key.length === 1 ? event.key : "";
      typed.positions += american(event);
    }
    if (typed.keys.length >= SHORTEST) timer = setTimeout(fellSilent, SILENCE);
  }, { capture: true });
}

const nothing = () => ({ keys: "", positions: "", newest: 0, field: null, before: "" });

/** Whether a key ends what was typed: Enter, and of a ticket's code Tab as well. Of a field both are the person's. */
function isEnd({ key }, { keys, positions, field }) {
  if (keys.length < SHORTEST || !["Enter", "Tab"].includes(key)) return false;
  if (key === "Enter" && !field) return true;
  const { readings, loose } = readingsOf(keys, positions);
  return readings.length > 0 || loose.length > 0;
}
