// The event live: numbers, arrivals, refusals, and tickets that two gates admitted without knowing of each other.

import { bars, draw, running } from "./chart.js";
import { now } from "../shared/clock.js";
import { crowd } from "../shared/crowd.js";
import { element, find, say } from "../shared/dom.js";
import * as devices from "./devices.js";
import { attempt, bdi, explain } from "./form.js";
import { samePlace } from "../shared/fold.js";
import * as incidents from "./incidents.js";
import { all, call, here, isCurrent, session } from "./session.js";
import { hasText, isolated, money, number, text, timeOfDay } from "../shared/text.js";

const EVERY = 5_000;
const STALE = 15_000;
const MINUTE = 60_000;
/** How often to load the rest, which changes rarely or is long to read. */
const REST_EVERY = 30_000;
/** As in src/model.rs; a test compares them. */
const COLOURS = ["blue", "violet", "pink", "brown", "teal", "grey", "black", "white"];

let timer;
let isShown = false;
let newest = null;
let seenAt = null;
let restAt = 0;
let span = "60";

export async function show() {
  if (newest?.event !== session.event.slug) {
    newest = seenAt = null;
    incidents.close();
    restAt = 0;
  }
  isShown = true;
  await poll();
}

export function hide() {
  isShown = false;
  clearTimeout(timer);
}

/** Polls while the page is visible. */
async function poll() {
  clearTimeout(timer);
  if (!isShown || document.hidden) return;
  const { event } = session;
  try {
    const stats = await call("GET", here("/stats"), { timeout: EVERY * 2 });
    if (!isShown || !isCurrent(event)) return;
    newest = stats;
    // For a large event the service repeats an answer for a while.
    seenAt = Date.parse(stats.as_of);
    drawAll();
    if (now() - restAt > REST_EVERY) await loadRest();
    tellAge();
  } catch (problem) {
    if (!session.event) return;
    tellAge(problem);
  }
  clearTimeout(timer);
  if (isShown) timer = setTimeout(poll, EVERY);
}

/** Shows how old the numbers are, and warns when they are too old to be trusted. */
function tellAge(problem) {
  const zone = session.event.time_zone;
  find("#as-of").textContent = seenAt ? text("organizer.as_of", { time: timeOfDay(seenAt, zone) }) : "";
  const stale = find("#stale");
  const isStale = Boolean(problem) && (!seenAt || now() - seenAt > STALE);
  const words = isStale ? [explain(problem), " ", seenAt ? text("organizer.stale", { time: timeOfDay(seenAt, zone) }) : ""] : [];
  say(stale, ...words);
  stale.hidden = !isStale;
  find("#numbers").classList.toggle("stale", isStale);
}

function drawAll() {
  const { admitted, expected, inside, registered, tickets, refused, undone, gates, walk_ups: walkUps } = newest;
  const refusals = Object.entries(refused).sort((a, b) => b[1] - a[1]);
  const numbers = {
    admitted: [admitted, walkUps > 0 ? text("organizer.with_ticket", { admitted: number(admitted - walkUps), registered: number(registered) })
      : text("organizer.of_expected", { registered: number(registered) })],
    ...(hasDoor() && { walk_ups: [walkUps, cashOf(newest)] }),
    inside: [inside, ""],
    expected: [expected, text("organizer.of_tickets", { tickets: number(tickets) })],
    refused: [refusals.reduce((sum, [, count]) => sum + count, 0), ""],
    undone: [undone, ""],
  };
  find("#numbers").replaceChildren(...Object.entries(numbers).map(([name, [count, rest]]) =>
    element("div", { className: "card" }, element("dt", {}, text(`organizer.${name}`)),
      element("dd", {}, element("strong", {}, number(count)), rest && element("span", { className: "quiet" }, rest)))));
  find('[data-list="missing"] b').textContent = number(expected);
  find('[data-list="inside"] b').textContent = number(inside);
  for (const column of document.querySelectorAll("#by-gate .door")) column.hidden = !hasDoor();
  fill("#by-gate", gates.map(({ gate, ...each }) =>
    [bdi(gate), each.admitted, each.inside, each.expected, ...(hasDoor() ? [each.walk_ups, cashOf(each)] : [])]), "organizer.no_tickets");
  drawCrowd();
  drawCategories();
  fill("#refused", refusals.map(([reason, count]) => [reasonText(reason), count]), "organizer.none_refused");
  drawGuessing();
  drawChart();
}

/** Whether people without a ticket are or were admitted. */
const hasDoor = () => newest.takes_walk_ups || newest.walk_ups > 0;

const cashOf = ({ cash }) => (newest.currency ? money(cash, newest.currency) : "");

function drawCrowd() {
  const full = crowd(newest);
  Object.assign(find("#crowd"), { className: full?.isFull ? "problem" : "warn", hidden: !full });
  say(find("#crowd"), full?.words ?? "");
}

function drawCategories() {
  const { categories } = newest;
  find("#categories").hidden = categories.length === 0;
  // Do not interrupt somebody who is choosing a colour.
  if (find("#by-category").contains(document.activeElement)) return;
  fill("#by-category", categories.map(({ category, ...each }) =>
    [category === null ? text("organizer.no_category") : bdi(category), each.admitted, each.inside, each.expected]), "organizer.no_tickets");
  for (const [row, { category }] of categories.entries()) {
    find("#by-category tbody").rows[row].append(element("td", {}, category === null ? "" : colourMenu(category)));
  }
}

/** A menu to choose a category's colour. */
function colourMenu(category) {
  const { category_colours: colours, slug } = session.event;
  const known = Object.keys(colours).find((name) => samePlace(name, category));
  const menu = element("select", {
    "aria-label": text("organizer.colour_of", { category: isolated(category) }),
    onchange: () => attempt(async () => {
      const changed = { ...session.event.category_colours };
      delete changed[known];
      if (menu.value) changed[category] = menu.value;
      Object.assign(session.event, await call("PATCH", `/api/events/${slug}`, { json: { category_colours: changed } }));
    }),
  }, ...["", ...COLOURS].map((colour) => new Option(text(`organizer.colour_${colour || "none"}`), colour)));
  menu.value = colours[known] ?? "";
  return menu;
}

/** Shows the keys with which somebody seems to be guessing codes. */
function drawGuessing() {
  const told = newest.guessing.map(({ name, gate, refused_codes: n, limited }) => {
    const values = { key: isolated(name ?? text("organizer.unknown_key")), gate: isolated(gate ?? ""), n: number(n) };
    return element("p", { className: "problem" }, text(gate ? "organizer.guessing_gate" : "organizer.guessing", values), " ",
      text("organizer.guessing_do"), limited ? ` ${text("organizer.guessing_limited")}` : "");
  });
  say(find("#guessing"), ...told);
}

const reasonText = (reason) => (hasText(`result.${reason}`) ? text(`result.${reason}`) : reason);

/**
 * Fills a table: each row a header cell and cells with numbers, formatted here, or nodes; or one row saying there are
 * none.
 */
function fill(table, rows, none) {
  const made = rows.map(([name, ...counts]) => element("tr", {}, element("th", { scope: "row" }, name),
    ...counts.map((count) => element("td", { className: "number" }, typeof count === "number" ? number(count) : count))));
  find(table).tHead.hidden = made.length === 0;
  find(`${table} tbody`).replaceChildren(...(made.length ? made : [element("tr", {}, element("td", { className: "quiet" }, text(none)))]));
}

function drawChart() {
  const place = find("#chart");
  const arrivals = newest.arrivals.map(({ minute, admitted }) => ({ minute: Date.parse(minute), admitted }));
  const time = (moment) => timeOfDay(moment, session.event.time_zone);
  const to = Math.floor(now() / MINUTE) * MINUTE + MINUTE;
  const first = arrivals[0]?.minute ?? to - 60 * MINUTE;
  const last = arrivals.at(-1)?.minute ?? to;
  const isSum = span === "sum";
  const [from, until] = span === "60" ? [to - 60 * MINUTE, to] : [first, last + MINUTE];
  const shown = isSum ? running(arrivals, from, until) : bars(arrivals, from, until, 60);
  const most = shown.bars.reduce((a, b) => (b.admitted > a.admitted ? b : a));
  const title = shown.step === 1 ? text("organizer.arrivals") : text("organizer.arrivals_each", { minutes: shown.step });
  find("#chart-title").textContent = isSum ? text("organizer.running") : title;
  if (most.admitted === 0) {
    place.replaceChildren(element("p", { className: "empty" }, text(arrivals.length ? "organizer.no_arrivals_now" : "organizer.no_arrivals")));
  } else {
    const label = isSum ? runningLabel(shown.bars.at(-1), time) : text("organizer.chart_label", { from: time(from), to: time(until), most: number(most.admitted), at: time(most.at) });
    const limit = isSum ? newest.capacity : null;
    place.replaceChildren(draw(shown.bars, { width: Math.max(280, place.clientWidth), height: 200, label, time, limit }),
      element("p", { className: "quiet" }, label));
  }
  find("#arrivals thead th:last-child").textContent = text(isSum ? "organizer.in_all" : "organizer.admitted");
  const rows = shown.bars.filter((bar) => bar.admitted).reverse();
  fill("#arrivals", rows.map((bar) => [time(bar.until ?? bar.at), bar.admitted]), "organizer.no_arrivals");
}

function runningLabel({ until, admitted }, time) {
  const values = { at: time(until), admitted: number(admitted) };
  return newest.capacity ? text("organizer.running_of", { ...values, capacity: number(newest.capacity) }) : text("organizer.running_label", values);
}

async function loadRest() {
  const { event } = session;
  const [conflicts, keys] = await Promise.all([all(here("/conflicts"), "conflicts"), all("/api/keys", "keys")]);
  if (!isCurrent(event)) return;
  restAt = now();
  devices.draw(keys);
  conflicts.sort((a, b) => b.received_at.localeCompare(a.received_at));
  find("#conflicts").replaceChildren(...(conflicts.length ? conflicts.map(conflict)
    : [element("li", { className: "empty" }, text("organizer.no_conflicts"))]));
}

function conflict({ ticket, at_gate: gate, key_name: key, scanned_at: at, result, first_used_at: firstAt, first_used_gate: firstGate, first_key_name: firstKey }) {
  const title = ticket ? text("organizer.seat_at_gate", { seat: isolated(ticket.seat), gate: isolated(ticket.gate) }) : text("result.unknown_ticket");
  const holder = ticket && (ticket.full_name ?? ticket.username);
  return element("li", { className: "card conflict" },
    element("h3", {}, title),
    holder ? element("p", {}, bdi(holder)) : "",
    firstAt ? element("p", {}, incidents.done("conflict_first", firstAt, firstGate, firstKey)) : "",
    element("p", {}, incidents.done("conflict_offline", at, gate, key)),
    element("p", { className: "quiet" }, text("organizer.conflict_result", { result: reasonText(result) })));
}

document.addEventListener("visibilitychange", poll);
addEventListener("resize", () => { if (isShown && newest) drawChart(); });
for (const button of document.querySelectorAll("[data-span]")) {
  button.onclick = () => {
    span = button.dataset.span;
    for (const each of document.querySelectorAll("[data-span]")) each.setAttribute("aria-pressed", String(each === button));
    if (newest) drawChart();
  };
}
