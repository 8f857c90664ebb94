// Events: creating, changing and deleting them.

import { element, find } from "../shared/dom.js";
import { attempt, bdi, confirm, onSubmit, open, tell, wrongField } from "./form.js";
import { amount, sumOf } from "./price.js";
import { call, here, isCurrent, loadEvents, session } from "./session.js";
import { dayAndTime, isolated, language, text } from "../shared/text.js";
import { isTimeZone, localOf, momentOf } from "./zone.js";

const dialog = find("#event-dialog");
const form = find("form", dialog);
const { name, slug, time_zone: zone } = form.elements;
const firstForm = find("#first");
const TIMES = ["starts_at", "ends_at", "opens_at", "closes_at"];
const NUMBERS = ["capacity", "forget_after_days"];
let changed = null;

export function show() {
  find("#new-event").hidden = session.isBound;
  find("#events").replaceChildren(...session.events.map(card));
}

function card(event) {
  const isHere = isCurrent(event);
  return element("li", { className: isHere ? "card here" : "card" },
    element("h2", {}, bdi(event.name)),
    element("p", { className: "quiet" }, when(event)),
    element("p", { className: "quiet" }, `${event.slug} · ${event.time_zone} · ${text(`organizer.reentry_${event.reentry}`)}`),
    ...forgetting(event).map((words) => element("p", { className: "quiet" }, words)),
    element("div", { className: "row" },
      element("a", { className: isHere ? "button primary" : "button", href: `#board/${event.slug}` }, text("organizer.open_event")),
      element("button", { type: "button", onclick: () => edit(event) }, text("organizer.edit")),
      // This event always exists.
      event.slug === "default" ? "" : element("button", { type: "button", className: "danger", onclick: () => remove(event) }, text("organizer.delete"))));
}

function when({ starts_at: start, ends_at: end, time_zone: timeZone }) {
  if (!start && !end) return text("organizer.no_times");
  return [start, end].map((time) => (time ? dayAndTime(time, timeZone) : "…")).join(" – ");
}

/** When the data of an event's people is or was deleted. */
function forgetting({ forgotten_at: forgotten, forget_after_days: days, ends_at: end, starts_at: start, time_zone: timeZone }) {
  if (forgotten) return [text("organizer.forgotten_at", { time: dayAndTime(forgotten, timeZone) }), text("organizer.forgotten_backups")];
  if (!days) return [];
  if (!end && !start) return [text("organizer.forgets_never")];
  const at = new Date(end ?? start);
  at.setUTCDate(at.getUTCDate() + days);
  return [text("organizer.forgets_at", { time: dayAndTime(at.toISOString(), timeZone) })];
}

function edit(event) {
  changed = event;
  form.reset();
  find("#event-title").textContent = text(event ? "organizer.edit_event" : "organizer.new_event");
  slug.readOnly = Boolean(event);
  slug.dataset.typed = "";
  zone.value = event?.time_zone ?? zoneHere();
  if (event) {
    Object.assign(name, { value: event.name });
    Object.assign(slug, { value: event.slug });
    form.elements.reentry.value = event.reentry;
    for (const field of NUMBERS) form.elements[field].value = event[field] ?? "";
    form.elements.location.value = event.location ?? "";
    form.elements.walk_ups.checked = event.walk_ups;
    form.elements.currency.value = event.currency ?? "";
    form.elements.walk_up_price.value = event.walk_up_price === null ? "" : amount(event.walk_up_price, event.currency);
    for (const time of TIMES) form.elements[time].value = event[time] ? localOf(event[time], event.time_zone) : "";
  }
  fillLanguages(event ? event.language ?? "en" : language);
  fillZones();
  fillCurrencies();
  showCash();
  open(dialog);
}

/** Asks for the price at the door only if the event admits people without a ticket. */
function showCash() {
  find("#event-cash").hidden = !form.elements.walk_ups.checked;
}

form.elements.walk_ups.onchange = showCash;

function fillCurrencies() {
  const currencies = find("#currencies");
  const names = new Intl.DisplayNames([language], { type: "currency" });
  if (!currencies.children.length) currencies.append(...(Intl.supportedValuesOf?.("currency") ?? []).map((each) => new Option(names.of(each), each)));
}

/** This device's time zone, which is probably the event's. */
const zoneHere = () => Intl.DateTimeFormat().resolvedOptions().timeZone;

function fillZones() {
  const zones = find("#zones");
  if (!zones.children.length) zones.append(...(Intl.supportedValuesOf?.("timeZone") ?? []).map((each) => new Option(each)));
}

/** The languages of the pages, each in its own name. */
function fillLanguages(chosen) {
  const choice = form.elements.language;
  const nameOf = (tag) => new Intl.DisplayNames([tag], { type: "language" }).of(tag);
  if (!choice.children.length) choice.append(...choice.dataset.languages.split(" ").map((tag) => new Option(nameOf(tag), tag)));
  choice.value = chosen;
}

function remove(event) {
  confirm({
    title: text("organizer.delete_event", { name: isolated(event.name) }),
    words: [text("organizer.delete_event_dies"), text("organizer.no_way_back")],
    typed: event.slug,
    action: text("organizer.delete"),
    async work() {
      await call("DELETE", `/api/events/${event.slug}?confirm=${event.slug}`);
      tell(text("organizer.deleted"));
      attempt(() => refresh(session.event.slug));
    },
  });
}

/** Redraws the page and the bar above, which lists the events too. */
async function refresh(slug) {
  const from = location.hash;
  await loadEvents();
  // Anyone who has navigated on meanwhile stays there.
  const address = location.hash === from ? `#events/${slug}` : location.hash;
  if (location.hash === address) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = address;
}

find("#new-event").onclick = () => edit(null);
slug.oninput = () => { slug.dataset.typed = "yes"; };
name.oninput = () => { if (!changed && !slug.dataset.typed) slug.value = slugOf(name.value); };

/** Proposes a slug: the name in the characters that a slug may have. */
const slugOf = (words) => words.normalize("NFKD").toLowerCase().replace(/\p{M}/gu, "").replace(/[^a-z0-9]+/g, "-").slice(0, 64).replace(/^-|-$/g, "");

/** The price at the door, parsed by the currency typed with it. */
function priceOf({ walk_up_price: typed = "", currency: letters = "" }) {
  const currency = letters.toUpperCase() || null;
  if (!typed) return { walk_up_price: null, currency };
  if (!currency) throw wrongField("currency", "required");
  const price = sumOf(typed, currency);
  if (price === null) throw wrongField("walk_up_price", "not_an_amount", { example: amount(1250, currency) });
  return { walk_up_price: price, currency };
}

/** The event from the form's values. Fields that the form does not show get the event's defaults. */
function read(values) {
  if (!isTimeZone(values.time_zone)) throw wrongField("time_zone", "not_a_time_zone");
  const moment = (local) => (local ? new Date(momentOf(local, values.time_zone)).toISOString() : null);
  const numbers = Object.fromEntries(NUMBERS.map((field) => [field, values[field] ? Number(values[field]) : null]));
  const times = Object.fromEntries(TIMES.map((time) => [time, moment(values[time])]));
  const door = { walk_ups: "walk_ups" in values, ...priceOf(values) };
  const event = { ...values, ...numbers, location: values.location || null, ...times, ...door };
  for (const [start, end] of [["starts_at", "ends_at"], ["opens_at", "closes_at"], ["opens_at", "ends_at"]]) {
    if (event[start] && event[end] && event[end] <= event[start]) throw wrongField(end, "ends_before_start");
  }
  return event;
}

onSubmit(form, async (values) => {
  const { slug: newSlug, ...event } = read(values);
  if (changed) await call("PATCH", `/api/events/${changed.slug}`, { json: event });
  else await call("POST", "/api/events", { json: { slug: newSlug, ...event } });
  dialog.close();
  tell(text("organizer.saved_event"));
  await attempt(() => refresh(newSlug));
});

/** The view before the first event. */
export const first = {
  show() {
    fillZones();
    firstForm.elements.time_zone.value ||= zoneHere();
  },
  hide: () => firstForm.reset(),
};

/** Whether the only event is the one that always exists, and nobody has used it. */
export async function isFirstMinute() {
  const [event, ...others] = session.events;
  if (session.isBound || others.length || event.slug !== "default" || event.starts_at || event.ends_at) return false;
  return (await call("GET", here("/tickets?limit=1"))).tickets.length === 0;
}

onSubmit(firstForm, async (values) => {
  const event = read(values);
  const wanted = slugOf(event.name) || "event";
  const slug = session.events.some((each) => each.slug === wanted) ? `${wanted.slice(0, 62)}-2` : wanted;
  await call("POST", "/api/events", { json: { slug, language, ...event } });
  tell(text("organizer.saved_event"));
  await attempt(loadEvents);
  location.hash = `#import/${slug}`;
});
