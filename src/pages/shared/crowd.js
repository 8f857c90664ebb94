// How full the venue is, for the gates and for organizers.

import { number, text } from "./text.js";

/** The share of the capacity at which it is nearly full. */
const NEARLY = 0.9;

/** What to say about this many people inside, `{isFull, words}`; null if there is room or the capacity is unknown. */
export function crowd({ inside, capacity }) {
  if (!capacity || inside < capacity * NEARLY) return null;
  const isFull = inside >= capacity;
  return { isFull, words: text(isFull ? "crowd.full" : "crowd.nearly", { inside: number(inside), capacity: number(capacity) }) };
}
