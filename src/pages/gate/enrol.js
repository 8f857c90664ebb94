// How a device becomes a gate: with the link that the organizer shows as a QR code, and only when the person holding the device
// agrees. Opening an address is no consent: any page can open any address.

import { Problem } from "../shared/api.js";
import { element, find } from "../shared/dom.js";
import { explainAll } from "../shared/problem.js";
import { dayAndTime, isolated, number, text } from "../shared/text.js";

/** A press within this many milliseconds was meant for what was on the screen before. */
const UNREAD = 700;

/** Returns the token in an enrolment link, or undefined. */
export const tokenIn = (link) => /(?:#enrol=|^)([\w-]{43})$/.exec(link.trim())?.[1];

/** Returns the token in the page's own address and removes it from there at once, because it is a secret. */
export function takeToken() {
  const token = tokenIn(location.hash);
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

/** Runs a request to the service. Shows on the page what went wrong and resolves to null if it fails. */
async function attempt(work) {
  sayEnrolProblem();
  document.body.dataset.busy = "";
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    sayEnrolProblem(...(error.isAway ? [text("gate.enrol_away")] : explainAll(error)));
    return null;
  } finally {
    delete document.body.dataset.busy;
  }
}

/** Returns what a token would make of this device, or null. */
export async function readOffer(gate, token) {
  if (token) return attempt(() => gate.offer(token));
  sayEnrolProblem(text("gate.enrol_not_a_link"));
  return null;
}

/** Enrols as that gate. Resolves to whether it worked. */
export const enrol = (gate, token) => attempt(async () => {
  await gate.enrol(token);
  return true;
});

const facts = (place, pairs) => place.replaceChildren(...pairs.filter(([, value]) => value).flatMap(([name, value]) =>
  [element("dt", {}, text(name)), element("dd", {}, element("bdi", {}, value))]));

/** Shows what the device would become, and what it would stop being. */
export function showOffer(offer, { device, state }) {
  facts(find("#offer-facts"), [
    ["gate.fact_event", offer.event_name ? `${offer.event_name} · ${offer.event}` : text("gate.all_events")],
    ["gate.gate", offer.gate ?? text("gate.all_gates")],
    ["gate.fact_role", text(`gate.role_${offer.role}`)],
    ["gate.fact_key", offer.name],
    ["gate.fact_service", location.host],
    ["gate.fact_until", offer.expires_at && dayAndTime(offer.expires_at, offer.time_zone ?? undefined)],
  ]);
  const now = device && [device.gate ?? text("gate.all_gates"), device.event_name ?? text("gate.all_events"), device.name];
  say("#offer-instead", now && text("gate.offer_instead", { gate: now.map(isolated) }));
  say("#offer-unsent", state.queued && text("gate.enrol_unsent", { n: number(state.queued) }));
  arm();
}

function say(place, words) {
  find(place).textContent = words || "";
  find(place).hidden = !words;
}

let arming = 0;

/** A person about to press something else, such as in a double click, has not read this yet. */
function arm() {
  clearTimeout(arming);
  find("#offer-accept").disabled = true;
  arming = setTimeout(() => (find("#offer-accept").disabled = false), UNREAD);
}
addEventListener("focus", arm);

/** Shows at the top why this device is no gate, or clears that. */
export function sayEnrolProblem(...words) {
  find("#enrol-problem").replaceChildren(...words);
  find("#enrol-problem").hidden = words.length === 0;
}
