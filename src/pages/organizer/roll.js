// Lists of people for paper: for the door when nothing else works, of those yet to come, and of those inside.

import { now } from "../shared/clock.js";
import { element, find, say } from "../shared/dom.js";
import { inOrder, samePlace } from "../shared/fold.js";
import { attempt, bdi, explain } from "./form.js";
import { all, call, here, isCurrent, session } from "./session.js";
import { personOf } from "./share.js";
import { dayAndTime, number, text, timeAndOtherDay } from "../shared/text.js";

const paper = find("#roll");
const told = find("#roll-told");
const kind = find("#roll-kind");
const gate = find("#roll-gate");
/** The value of the option that gives each gate its own pages; no gate has this name. */
const EACH = "\n";
let tickets = null;
let asked = 0;
let eventShown = null;

/** Which tickets each list has. Tickets without a holder are in none. */
const LISTS = {
  door: ({ status }) => status !== "revoked",
  missing: ({ status }) => status === "valid",
  inside: ({ inside }) => inside,
};

export async function show() {
  if (eventShown !== session.event.slug) {
    eventShown = session.event.slug;
    gate.replaceChildren();
  }
  find("#roll-print").disabled = true;
  paper.replaceChildren();
  told.textContent = text("organizer.loading");
  try {
    await load();
  } catch (problem) {
    say(told, explain(problem));
  }
}

export function hide() {
  asked++;
  tickets = null;
  paper.replaceChildren();
}

async function load() {
  const mine = ++asked;
  const { event } = session;
  // The listed tickets can only have this status.
  const status = { missing: "&status=valid", inside: "&status=used" }[kind.value] ?? "";
  const found = await all(here("/tickets"), "tickets", status);
  if (mine !== asked || !isCurrent(event)) return false;
  tickets = found.filter((ticket) => ticket.username && LISTS[kind.value](ticket));
  fillGates();
  layOut();
  return true;
}

function fillGates() {
  const before = gate.value;
  const gates = [];
  for (const ticket of tickets) if (!gates.some((each) => samePlace(each, ticket.gate))) gates.push(ticket.gate);
  gates.sort(inOrder);
  const each = gates.length > 1 ? [new Option(text("organizer.list_each_gate"), EACH)] : [];
  gate.replaceChildren(new Option(text("organizer.all"), ""), ...each, ...gates.map((name) => new Option(name)));
  gate.value = [...gate.options].some(({ value }) => value === before) ? before : "";
}

function layOut() {
  const at = (name) => tickets.filter((ticket) => samePlace(ticket.gate, name));
  const names = [...gate.options].map(({ value }) => value).filter((value) => value && value !== EACH);
  const rolls = gate.value === EACH ? names.map((name) => [name, at(name)]) : [[gate.value, gate.value ? at(gate.value) : tickets]];
  const sizes = {};
  for (const ticket of tickets) sizes[personOf(ticket)] = (sizes[personOf(ticket)] ?? 0) + 1;
  paper.replaceChildren(...rolls.map(([name, those]) => roll(name, those, sizes)));
  const count = rolls.reduce((sum, [, those]) => sum + those.length, 0);
  told.textContent = text("organizer.of_tickets", { tickets: number(count) });
  find("#roll-print").disabled = count === 0;
}

/** One list, with its heading repeated on each page. `sizes` counts each person's tickets at all gates. */
function roll(name, those, sizes) {
  const { event } = session;
  const title = [event.name, text(`organizer.list_${kind.value}`), ...(name ? [`${text("organizer.gate")} ${name}`] : [])].join(" · ");
  const printed = `${text("organizer.of_tickets", { tickets: number(those.length) })} · ${text("organizer.list_printed_at", { time: dayAndTime(now(), event.time_zone) })}`;
  const columns = ["holder", "seat", "gate", "category", "note"];
  const rows = those.map((ticket) => [ticket.full_name ?? ticket.username, ticket]).sort(([a, one], [b, other]) => inOrder(a, b) || inOrder(one.seat, other.seat));
  const came = ({ used_at: used, entered_at: entered }) => (used ? timeAndOtherDay(entered ?? used, event.time_zone, now()) : "");
  return element("div", { className: "roll" }, element("table", {},
    element("caption", { className: "visually-hidden" }, title),
    element("thead", {},
      element("tr", {}, element("td", { colSpan: columns.length + 3 }, element("strong", {}, bdi(title)), element("span", {}, printed))),
      element("tr", {}, element("th", { scope: "col" }, element("span", { className: "visually-hidden" }, text("organizer.list_tick"))),
        ...columns.map((column) => element("th", { scope: "col" }, text(`organizer.${column === "note" ? "list_note" : column}`))),
        element("th", { scope: "col", className: "number" }, text("organizer.tickets")),
        element("th", { scope: "col" }, text("organizer.list_came")))),
    element("tbody", {}, ...rows.map(([holder, ticket]) => element("tr", {},
      element("td", { className: "box" }, ticket.used_at && kind.value === "door" ? "☒" : "☐"),
      element("th", { scope: "row" }, bdi(holder)),
      ...[ticket.seat, ticket.gate, ticket.category ?? "", ticket.note ?? ""].map((value) => element("td", {}, bdi(value))),
      element("td", { className: "number" }, number(sizes[personOf(ticket)])),
      element("td", {}, came(ticket)))))));
}

/** Opens a list, from whichever view has its button. */
function open(name) {
  kind.value = name;
  const address = `#list/${session.event.slug}`;
  if (location.hash === address) attempt(show);
  else location.hash = address;
}

kind.onchange = () => attempt(show);
gate.onchange = layOut;
find("#roll-print").onclick = () => attempt(async () => {
  // Reported before the tickets are read: any later change is missing on the paper.
  if (kind.value === "door") await call("POST", here("/printed"));
  if (await load()) print();
});
for (const button of document.querySelectorAll("[data-list]")) button.onclick = () => open(button.dataset.list);
