// Tickets shown again after their use, and scans that were undone: which, when, where and by whom.

import { element, find } from "../shared/dom.js";
import { attempt, bdi } from "./form.js";
import { call, here, isCurrent, session } from "./session.js";
import { dayAndTime, isolated, text } from "../shared/text.js";

const view = find("#incidents");
const list = find("ul", view);
const more = find("button", view);
let next = null;

/**
 * Describes an action: its time, its gate if known (a device for every gate reports none), and whose key did it. `name`
 * selects the text.
 */
export const done = (name, moment, where, who) => text(`organizer.${name}${where ? "" : "_anywhere"}`,
  { time: dayAndTime(moment, session.event.time_zone), gate: isolated(where ?? ""), key: isolated(who ?? text("organizer.unknown_key")) });

/** Closes it: its rows are of another event, or old. */
export function close() {
  view.open = false;
  list.replaceChildren();
}

/** Loads the newest, or those after the ones already shown. */
async function load(after = null) {
  const { event } = session;
  const page = await call("GET", here(`/incidents?limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`));
  if (!isCurrent(event)) return;
  if (!after) list.replaceChildren();
  list.append(...page.incidents.map(item));
  if (!list.children.length) list.append(element("li", { className: "empty" }, text("organizer.no_conflicts")));
  next = page.next;
  more.hidden = !next;
}

function item(incident) {
  const { ticket, at_gate: gate, key_name: key, scanned_at: at, undone_at: undone, undone_key_name: undoer } = incident;
  const { first_used_at: firstAt, first_used_gate: firstGate, first_key_name: firstKey } = incident;
  const holder = ticket?.full_name ?? ticket?.username;
  const words = undone
    ? [done("incident_scan", at, gate, key), done("incident_undone", undone, null, undoer)]
    : [...(firstAt ? [done("conflict_first", firstAt, firstGate, firstKey)] : []), done("incident_again", at, gate, key)];
  return element("li", { className: "card" },
    element("h3", {}, ticket ? text("organizer.seat_at_gate", { seat: isolated(ticket.seat), gate: isolated(ticket.gate) }) : text("result.unknown_ticket")),
    holder ? element("p", {}, bdi(holder)) : "",
    ...words.map((line) => element("p", {}, line)));
}

view.ontoggle = () => view.open && attempt(load);
more.onclick = () => attempt(() => load(next));
