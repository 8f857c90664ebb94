// Tickets: finding them, and choosing some to print.

import { element, find } from "../shared/dom.js";
import { attempt, bdi, confirm, tell } from "./form.js";
import { openMails } from "./mails.js";
import { prepare } from "./print.js";
import { call, here, isCurrent, session } from "./session.js";
import { hasLink, newTicket, openTicket, stateOf } from "./ticket.js";
import { number, text, timeOfDay } from "../shared/text.js";

const filter = find("#filter");
const body = find("#tickets tbody");
const selected = new Map();
let shown = [];
let next = null;
let asked = 0;
let eventShown = null;

export async function show() {
  if (eventShown !== session.event.slug) {
    eventShown = session.event.slug;
    selected.clear();
    shown = [];
    filter.reset();
  }
  await Promise.all([load(), loadGates()]);
}

async function loadGates() {
  const { event } = session;
  const { gates } = await call("GET", here("/stats"));
  if (!isCurrent(event)) return;
  const choice = filter.elements.gate;
  const before = choice.value;
  choice.replaceChildren(new Option(text("organizer.all"), ""), ...gates.map(({ gate }) => new Option(gate)));
  choice.value = gates.some(({ gate }) => gate === before) ? before : "";
  find("#gate-names").replaceChildren(...gates.map(({ gate }) => new Option(gate)));
}

/** Loads the tickets that match, or the page after those shown. Only the latest request is answered. */
async function load(after = null) {
  const mine = ++asked;
  const query = new URLSearchParams([...new FormData(filter)].filter(([, value]) => value));
  const isFiltered = query.toString() !== "";
  query.set("limit", 50);
  if (after) query.set("after", after);
  const page = await call("GET", here(`/tickets?${query}`));
  if (mine !== asked) return;
  shown = after ? [...shown, ...page.tickets] : page.tickets;
  next = page.next;
  body.replaceChildren(...shown.map(row));
  find("#tickets").hidden = shown.length === 0;
  find("#more").hidden = !next;
  find("#tickets-told").textContent = shown.length ? text(next ? "organizer.shown_more" : "organizer.shown_all", { tickets: number(shown.length) }) : "";
  const none = find("#no-tickets");
  none.hidden = shown.length > 0;
  none.replaceChildren(element("p", {}, text(isFiltered ? "organizer.none_found" : "organizer.no_tickets")));
  if (!isFiltered) none.append(element("a", { className: "button primary", href: `#import/${eventShown}` }, text("organizer.import_first")));
  showSelection();
}

function row(ticket) {
  const tick = element("input", {
    type: "checkbox", checked: selected.has(ticket.ticket_id), "aria-label": `${ticket.seat}, ${ticket.gate}`,
    onchange() {
      if (tick.checked) selected.set(ticket.ticket_id, ticket);
      else selected.delete(ticket.ticket_id);
      showSelection();
    },
  });
  return element("tr", {},
    element("td", { className: "tick" }, tick),
    element("th", { scope: "row" },
      element("button", { type: "button", className: "link", onclick: () => openTicket(ticket, reload) }, bdi(ticket.seat)),
      element("span", { className: "quiet" }, bdi(ticket.gate))),
    element("td", {}, ...holder(ticket)),
    element("td", { className: "state" }, state(ticket)));
}

function holder({ username, full_name: name, walk_up: atTheDoor }) {
  if (atTheDoor) return [name ? bdi(name) : "", element("span", { className: "quiet" }, text("organizer.at_the_door"))];
  if (!username) return [element("span", { className: "quiet" }, text("organizer.nobody"))];
  return name ? [bdi(name), element("span", { className: "quiet" }, username)] : [bdi(username)];
}

/** A word and a symbol, so that the colour is not the only distinction. */
function state(ticket) {
  const { status, used_at: usedAt, inside } = ticket;
  const name = stateOf(ticket);
  const word = element("span", { className: `badge ${name}` }, text(`organizer.status_${name}`));
  if (status !== "used") return word;
  const where = text(inside ? "organizer.is_inside" : "organizer.is_outside");
  return element("div", {}, word, element("span", { className: "quiet" }, `${timeOfDay(usedAt, session.event.time_zone)} · ${where}`));
}

function showSelection() {
  find("#selection").hidden = selected.size === 0;
  find("#selected").textContent = text("organizer.selected", { tickets: number(selected.size) });
  const all = find("#tick-all");
  // Ticked before the list is there, it would select nothing.
  all.disabled = shown.length === 0;
  all.checked = shown.length > 0 && shown.every((ticket) => selected.has(ticket.ticket_id));
  all.indeterminate = !all.checked && selected.size > 0;
}

async function reload() {
  selected.clear();
  await show();
}

let typing;
filter.oninput = () => {
  clearTimeout(typing);
  typing = setTimeout(() => attempt(load), 250);
};
filter.onsubmit = (event) => event.preventDefault();
find("#more").onclick = () => attempt(() => load(next));
find("#new-ticket").onclick = () => newTicket(reload);
find("#open-mails").onclick = () => openMails(reload);
find("#tick-all").onchange = ({ target }) => {
  for (const ticket of shown) {
    if (target.checked) selected.set(ticket.ticket_id, ticket);
    else selected.delete(ticket.ticket_id);
  }
  body.replaceChildren(...shown.map(row));
  showSelection();
};
find("#unselect").onclick = () => {
  selected.clear();
  body.replaceChildren(...shown.map(row));
  showSelection();
};

for (const button of document.querySelectorAll("[data-print]")) {
  button.onclick = () => {
    const kind = button.dataset.print;
    const canBe = kind === "links" ? hasLink : (ticket) => stateOf(ticket) === "valid";
    const tickets = kind === "all" ? null : [...selected.values()].filter(canBe);
    if (tickets?.length === 0) return tell(text("organizer.none_to_print"));
    const go = () => {
      prepare(kind === "codes" ? "codes" : "links", tickets, tickets ? selected.size - tickets.length : 0);
      location.hash = `#print/${session.event.slug}`;
    };
    if (kind !== "codes") return go();
    confirm({
      title: text("organizer.print_codes"),
      words: [text("organizer.print_codes_told", { tickets: number(tickets.length) }), text("organizer.paper_admits")],
      action: text("organizer.go_on"),
      async work() { go(); },
    });
  };
}
