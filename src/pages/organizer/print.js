// Sheets to print, for people without a phone: QR codes of ticket links, or tickets that admit by themselves.

import { element, find, say } from "../shared/dom.js";
import { inOrder } from "../shared/fold.js";
import { bdi, explain } from "./form.js";
import { records } from "./links.js";
import { call, download, here, session } from "./session.js";
import { qrSvg } from "../shared/qr.js";
import { dayAndTime, number, text } from "../shared/text.js";

const sheet = find("#sheet");
const told = find("#sheet-told");
const perPage = find("#per-page");
let wanted = null;
let cards = [];
/** What the sheets leave out and why, each a list of nodes. */
let missing = [];

/**
 * Sets what to print: `links` or `codes`, of these tickets or, without them, of all. `leftOut` counts chosen tickets
 * that cannot be printed. The view shows the sheet.
 */
export const prepare = (kind, tickets, leftOut = 0) => { wanted = { kind, tickets, leftOut }; };

export async function show() {
  find("#print").disabled = true;
  sheet.replaceChildren();
  if (!wanted) {
    location.replace(`#tickets/${session.event.slug}`);
    return;
  }
  told.textContent = text("organizer.loading");
  const mine = wanted;
  try {
    const { kind, tickets, leftOut } = mine;
    missing = leftOut ? [[text("organizer.left_out", { tickets: number(leftOut) })]] : [];
    const made = kind === "codes" ? await codes(tickets) : await links(tickets);
    // The user left or wants another sheet by now.
    if (mine !== wanted) return;
    // In the order in which people look for them, not in which they were made.
    cards = made.sort((one, other) => inOrder(one.gate, other.gate) || inOrder(one.seat, other.seat));
    layOut();
  } catch (problem) {
    if (mine === wanted) say(told, explain(problem));
  }
}

export function hide() {
  wanted = null;
  cards = [];
  sheet.replaceChildren();
}

async function links(tickets) {
  const all = records(await (await download(here("/links.csv"))).text());
  const place = ({ seat, gate }) => JSON.stringify([seat, gate]);
  const chosen = tickets && new Set(tickets.map(place));
  return all.filter((each) => !chosen || chosen.has(place(each)))
    .map((each) => ({ ...each, holder: each.full_name || each.username, code: each.ticket_url, how: text("organizer.sheet_link") }));
}

/**
 * Makes the codes one after the other: each makes its paper valid at the door. Lists the tickets that cannot have one.
 */
async function codes(tickets) {
  const made = [];
  const how = text(session.event.reentry === "once_a_day" ? "organizer.sheet_code_daily" : "organizer.sheet_code");
  for (const { ticket_id: id, seat } of tickets) {
    if (wanted?.tickets !== tickets) return [];
    told.textContent = text("organizer.printing", { done: number(made.length), all: number(tickets.length) });
    try {
      const ticket = await call("POST", `/api/tickets/${id}/print`);
      made.push({ ...ticket, holder: ticket.full_name ?? ticket.username, code: ticket.printed_code, how });
    } catch (problem) {
      if (problem.status !== 409) throw problem;
      missing.push([`${seat}: `, explain(problem)]);
    }
  }
  return made;
}

function layOut() {
  const size = Number(perPage.value);
  const pages = [];
  for (let at = 0; at < cards.length; at += size) {
    pages.push(element("div", { className: `paper of-${size}` }, ...cards.slice(at, at + size).map(card)));
  }
  sheet.replaceChildren(...pages);
  find("#print").disabled = cards.length === 0;
  const words = cards.length ? text("organizer.sheet_told", { tickets: number(cards.length), pages: number(pages.length) }) : text("organizer.sheet_empty");
  say(told, words, ...missing.flatMap((why) => [" ", ...why]));
}

function card({ seat, gate, holder, code, how }) {
  const { name, starts_at: starts, time_zone: timeZone } = session.event;
  return element("article", { className: "ticket" }, qrSvg(code, text("organizer.sheet_qr")), element("div", {},
    element("p", { className: "name" }, bdi(name)),
    element("p", {}, starts ? dayAndTime(starts, timeZone) : ""),
    element("p", { className: "seat" }, bdi(seat)),
    element("p", {}, `${text("organizer.gate")} `, bdi(gate)),
    element("p", {}, bdi(holder)),
    element("p", { className: "how" }, how)));
}

perPage.onchange = layOut;
find("#print").onclick = () => print();
