// How a device becomes a gate: with the link that the organizer shows as a QR code.

import { Problem } from "../shared/api.js";
import { find } from "../shared/dom.js";
import { explainAll } from "../shared/problem.js";
import { text } from "../shared/text.js";

/** The token in an enrolment link, or undefined. */
export const tokenIn = (link) => /(?:#enrol=|^)([\w-]{43})$/.exec(link.trim())?.[1];

/** The token in the page's own address, from where it disappears at once: it is a secret. */
export function takeToken() {
  const token = tokenIn(location.hash);
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** Enrols; says on the page what went wrong. */
export async function enrol(gate, token) {
  sayEnrolProblem();
  if (!token) return sayEnrolProblem(text("gate.enrol_not_a_link"));
  document.body.dataset.busy = "";
  try {
    await gate.enrol(token);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    sayEnrolProblem(...(error.isAway ? [text("gate.enrol_away")] : explainAll(error)));
  } finally {
    delete document.body.dataset.busy;
  }
}

/** Says above the form why this device is no gate, or nothing more. */
export function sayEnrolProblem(...words) {
  find("#enrol-problem").replaceChildren(...words);
  find("#enrol-problem").hidden = words.length === 0;
}
