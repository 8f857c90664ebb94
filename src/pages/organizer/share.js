// A ticket's link and the ways to give it to its holder without a mail server: one ticket, or one holder after another.

import { element, find } from "../shared/dom.js";
import { inOrder } from "../shared/fold.js";
import { recall, remember } from "../shared/memory.js";
import { alarm, attempt, explain, open, tell } from "./form.js";
import { all, call, here, session } from "./session.js";
import { qrSvg } from "../shared/qr.js";
import { isolated, number, text } from "../shared/text.js";

const dialog = find("#link-dialog");
const ways = find("#link-ways");
const walk = find("#link-walk");
/** Where this browser stores the ids of tickets given by hand: nobody else knows of them. */
const GIVEN = "given-tickets";
/** How many are stored at most. */
const KEPT = 5_000;
const given = new Set(read());
/** The holders still to go, each a list of their tickets, and how many there were; null outside `handOut`. */
let rest = null;
let whole = 0;

function read() {
  try {
    return JSON.parse(recall(GIVEN) ?? "[]");
  } catch {
    return []; // Something else was stored there.
  }
}

function keep() {
  remember(GIVEN, JSON.stringify([...given].slice(-KEPT)));
}

/** Whether a ticket was given by hand on this device. */
export const wasGiven = ({ ticket_id: id }) => given.has(id);

/** Whether any ticket was. */
export const someGiven = () => given.size > 0;

/** Forgets that a ticket was given: it has a new link, which must be given again. */
export function takeBack({ ticket_id: id }) {
  if (given.delete(id)) keep();
}

/** Identifies a holder: of two people with one username, one belongs to the event. */
export const personOf = ({ holder_event: own, username }) => `${own} ${username}`;

export const placed = ({ seat, gate }) => ({ seat: isolated(seat), gate: isolated(gate) });
export const holderOf = ({ full_name: name, username }) => isolated(name ?? username ?? text("organizer.nobody"));

/**
 * The message for a ticket's holder: its link and a text in the event's language or, with `all`, the links of all their
 * tickets.
 */
const messageOf = ({ ticket_id: id }, all = false) => call("GET", `/api/tickets/${id}/link?all=${all}`);

/**
 * Shows a ticket's link and how to give it. `done` says what has just made the link; `message` is its message, if
 * already loaded.
 */
export function showLink(ticket, address, { done = "", message = null } = {}) {
  find("#link-done").textContent = done;
  find("#link-done").hidden = !done;
  find("#link-told").textContent = text("organizer.link_of", { ...placed(ticket), holder: holderOf(ticket) });
  find("#link-qr").replaceChildren(qrSvg(address, text("organizer.link_qr")));
  find("#link").value = address;
  if (message) showWays(message);
  else ways.replaceChildren(element("button", { type: "button", onclick: () => attempt(async () => showWays(await messageOf(ticket))) }, text("organizer.share")));
  walk.hidden = !rest;
  for (const told of dialog.querySelectorAll(".problem")) told.remove();
  open(dialog);
}

/** Buttons to send a message. Nothing is sent until the organizer presses one, and then in the way they chose. */
function showWays({ subject, text: body }) {
  const [title, words] = [subject, body].map(encodeURIComponent);
  const way = (name, href) => element("a", { className: "button", href, target: "_blank", rel: "noopener noreferrer" }, name);
  ways.replaceChildren(
    ...(navigator.share ? [element("button", { type: "button", onclick: () => share(subject, body) }, text("organizer.share_system"))] : []),
    way(text("organizer.share_mail"), `mailto:?subject=${title}&body=${words.replaceAll("%0A", "%0D%0A")}`),
    way("WhatsApp", `https://wa.me/?text=${words}`));
}

async function share(title, body) {
  try {
    await navigator.share({ title, text: body });
  } catch (error) {
    // Closing the system's sheet is a change of mind, not an error.
    if (error.name !== "AbortError") throw error;
  }
}

/** Loads a ticket's link and shows it. Shows a failure beside the pressed button. */
export async function showLinkOf(ticket, beside) {
  try {
    const message = await messageOf(ticket);
    showLink(ticket, message.ticket_url, { message });
  } catch (problem) {
    beside.after(alarm(explain(problem)));
  }
}

/** Goes through the holders, by name, whose tickets were not yet given. */
export async function handOut() {
  const tickets = (await all(here("/tickets"), "tickets", "&status=valid")).filter((ticket) => ticket.username && !wasGiven(ticket));
  const holders = new Map();
  for (const ticket of tickets) {
    const person = personOf(ticket);
    holders.set(person, [...(holders.get(person) ?? []), ticket]);
  }
  const name = ([{ full_name: full, username }]) => full ?? username;
  rest = [...holders.values()].sort((one, other) => inOrder(name(one), name(other)));
  whole = rest.length;
  await next();
}

async function next() {
  if (rest.length === 0) {
    dialog.close();
    return tell(text("organizer.give_none"));
  }
  const [ticket] = rest[0];
  const message = await messageOf(ticket, true);
  // The dialog was closed meanwhile.
  if (!rest) return;
  find("#link-walk p").textContent = text("organizer.mails_progress", { done: number(whole - rest.length + 1), all: number(whole) });
  showLink(ticket, message.ticket_url, { message });
}

find("#give-next").onclick = () => attempt(async () => {
  for (const { ticket_id: id } of rest.shift()) given.add(id);
  keep();
  session.onChange();
  await next();
});
find("#give-skip").onclick = () => attempt(async () => {
  rest.shift();
  await next();
});
dialog.addEventListener("close", () => { rest = null; });
