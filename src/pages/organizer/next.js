// The next step, from the list to the doors: one line above each view, with a link to where it is done.

import { Problem } from "../shared/api.js";
import { now } from "../shared/clock.js";
import { element, find, say } from "../shared/dom.js";
import { samePlace } from "../shared/fold.js";
import { isGood, isOfADevice, isOurs } from "./devices.js";
import { someGiven } from "./share.js";
import { all, call, here, isCurrent, session } from "./session.js";
import { isolated, number, text, timeAndOtherDay } from "../shared/text.js";

/** How many milliseconds after the last of several changes to look again. */
const SETTLED = 500;
const place = find("#next");
let view = null;
let told = null;
let asked = 0;
let waiting;

/** Shows the step above a view; nothing while it is unknown or when nothing is left to do. */
export async function show(shown) {
  clearTimeout(waiting);
  const mine = ++asked;
  const { event } = session;
  view = shown;
  // A step of another event does not apply to this one.
  if (told !== event) hide();
  const found = await look(event).catch((problem) => {
    // The view itself shows that the service is away.
    if (!(problem instanceof Problem)) throw problem;
  });
  if (mine !== asked || !isCurrent(event)) return;
  told = event;
  draw(found);
}

export function hide() {
  clearTimeout(waiting);
  place.hidden = true;
  place.replaceChildren();
}

function draw(found) {
  const isHere = found?.view === view;
  place.hidden = !found || view === "first" || (isHere && view === "board");
  if (place.hidden) return place.replaceChildren();
  const { name, view: target, values } = found;
  const link = element("a", { className: "button", href: `#${target}/${session.event.slug}` }, text("organizer.go_on"));
  say(place, element("span", {}, text(`organizer.next_${name}`, values)), ...(isHere ? [] : [link]));
}

/** Finds the first open step: the `name` of its text with `values`, and the `view` in which it is done. */
async function look(event) {
  const { starts_at: start, ends_at: end, time_zone: zone } = event;
  if (!start || !end) return { name: "times", view: "events" };
  if (Date.parse(end) < now()) return null;
  const [stats, outbox, keys] = await Promise.all([call("GET", here("/stats")), call("GET", here("/mails")), all("/api/keys", "keys")]);
  if (stats.tickets === 0) return { name: "list", view: "import" };
  const doors = event.opens_at ?? start;
  if (Date.parse(doors) <= now()) return { name: "board", view: "board" };
  if (outbox.from !== null && outbox.unmailed > 0) return { name: "mails", view: "tickets", values: { tickets: number(outbox.unmailed) } };
  const isNobodys = outbox.from === null && stats.expected > 0 && !someGiven();
  const devices = keys.filter((key) => isOfADevice(key) && isGood(key) && isOurs(key));
  // Without a mail server nobody knows what was sent in other ways: an organizer who made devices has finished that
  // step.
  if (isNobodys && devices.length === 0) return { name: "hand", view: "tickets" };
  const bare = stats.gates.find(({ gate }) => !devices.some((key) => !key.gate || samePlace(key.gate, gate)));
  if (bare) return { name: "gate", view: "gates", values: { gate: isolated(bare.gate) } };
  const unused = devices.find((key) => key.event && !key.heard_at);
  if (unused) return { name: "device", view: "gates", values: { key: isolated(unused.name) } };
  return { name: "check", view: "check", values: { time: timeAndOtherDay(doors, zone, now()) } };
}

session.onChange = () => {
  clearTimeout(waiting);
  if (session.event) waiting = setTimeout(() => session.event && show(view), SETTLED);
};
