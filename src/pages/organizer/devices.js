// The state of the devices at the gates: when each was last heard, what it has yet to send, and how old its list is.

import { now } from "../shared/clock.js";
import { element, find } from "../shared/dom.js";
import { bdi } from "./form.js";
import { session } from "./session.js";
import { ago, dayAndTime, number, text } from "../shared/text.js";

const MINUTE = 60_000;
/** A device asks every 15 seconds, and that is recorded within a minute: after this long in silence it is away. */
const SILENT = 2 * MINUTE;
/** Recent times are shown as an age, older ones as a time. */
const RECENT = 90 * MINUTE;
/** The roles whose keys are for devices, as in src/model.rs; a test compares them. */
const DEVICES = ["supervisor", "gate"];

export const isOfADevice = ({ role }) => DEVICES.includes(role);
export const isGood = (key) => !key.revoked_at && !(Date.parse(key.expires_at) <= now());
/** Whether a key is for the current event or for all. */
export const isOurs = ({ event }) => event === null || event === session.event.slug;

/** When something happened, the way people say it. */
export function when(time) {
  const age = now() - Date.parse(time);
  return age < RECENT ? ago(age) : dayAndTime(time, session.event.time_zone);
}

/** Whether the doors are open: then every device should be online. */
function isOpen({ opens_at: opens, starts_at: starts, closes_at: closes, ends_at: ends }) {
  const [from, until] = [opens ?? starts, closes ?? ends].map((time) => (time ? Date.parse(time) : NaN));
  return from <= now() && !(until <= now());
}

/** What needs attention at a device, in words. */
export function troubles({ heard_at: heard, unsent, manifest_at: listed }) {
  const { event } = session;
  const time = (moment) => dayAndTime(moment, event.time_zone);
  const age = (moment) => now() - Date.parse(moment);
  const isTooOld = listed && age(listed) > Number(find("#devices").dataset.listHours) * 60 * MINUTE;
  return [
    isOpen(event) && !heard && text("organizer.device_unheard"),
    isOpen(event) && heard && age(heard) > SILENT && text("organizer.device_silent", { time: time(heard) }),
    unsent > 0 && text("organizer.device_unsent", { scans: number(unsent) }),
    isTooOld && text("organizer.device_list_old", { time: time(listed) }),
  ].filter(Boolean);
}

/** Draws the event's devices on the board; those that need attention come first. */
export function draw(keys) {
  const ours = keys.filter((key) => isOfADevice(key) && isGood(key) && isOurs(key)).map((key) => [key, troubles(key)]);
  const rows = ours.sort(([, some], [, others]) => others.length - some.length).map(([key, all]) =>
    element("tr", {}, element("th", { scope: "row" }, bdi(key.name), ...all.map((trouble) => element("p", { className: "warn" }, trouble))),
      element("td", {}, key.heard_at ? when(key.heard_at) : text("organizer.heard_never")),
      element("td", { className: "number" }, key.unsent === null ? "–" : number(key.unsent))));
  find("#devices").hidden = rows.length === 0;
  find("#devices tbody").replaceChildren(...rows);
}
