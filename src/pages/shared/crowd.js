// How full the place is, for those at the gates and for organizers.

import { number, text } from "./text.js";

/** The share of its capacity from which on it is nearly full. */
const NEARLY = 0.9;

/** What to say of so many people inside, as `{isFull, words}`; null where there is room, or nobody knows how much. */
export function crowd({ inside, capacity }) {
  if (!capacity || inside < capacity * NEARLY) return null;
  const isFull = inside >= capacity;
  return { isFull, words: text(isFull ? "crowd.full" : "crowd.nearly", { inside: number(inside), capacity: number(capacity) }) };
}
