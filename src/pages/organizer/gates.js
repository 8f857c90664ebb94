// The devices at the gates: their keys, and the QR codes that give devices their own.

import { now } from "../shared/clock.js";
import { element, find } from "../shared/dom.js";
import { isGood, isOfADevice, isOurs, troubles, when } from "./devices.js";
import { attempt, bdi, confirm, onSubmit, open, tell } from "./form.js";
import * as handin from "./handin.js";
import * as lost from "./lost.js";
import { all, call, here, isCurrent, session } from "./session.js";
import { qrSvg } from "../shared/qr.js";
import { dayAndTime, isolated, text } from "../shared/text.js";

const keyForm = find("#key-dialog form");
const enrolDialog = find("#enrol-dialog");

export async function show() {
  const { event } = session;
  const [keys, { gates }] = await Promise.all([all("/api/keys", "keys"), call("GET", here("/stats"))]);
  if (!isCurrent(event)) return;
  handin.show();
  const ours = keys.filter(isOurs).reverse();
  const card = (key) => cardOf(key, keys);
  const good = ours.filter(isGood);
  const old = ours.filter((key) => !isGood(key));
  find("#keys").replaceChildren(...good.map(card));
  if (good.length === 0) find("#keys").append(element("li", { className: "empty" }, text("organizer.no_keys")));
  const oldKeys = find("#old-keys");
  oldKeys.hidden = old.length === 0;
  find("summary", oldKeys).textContent = text("organizer.old_keys", { keys: old.length });
  find("ul", oldKeys).replaceChildren(...old.map(card));
  // With only one gate, preselect it: a device with a key for any gate asks which one it is at.
  const choices = gates.map(({ gate }) => new Option(gate, gate, gates.length === 1));
  find("#key-gate").replaceChildren(new Option(text("organizer.any_gate"), ""), ...choices);
}

/** The keys that end when this one is revoked: those it made, those they made, and so on. */
const madeBy = ({ key_id: maker }, keys) =>
  keys.filter((key) => key.created_by === maker).flatMap((key) => [key, ...madeBy(key, keys)]);

function cardOf(key, keys) {
  const isDevice = isOfADevice(key);
  const moment = (time) => dayAndTime(time, session.event.time_zone);
  const place = key.gate ? text("organizer.at_gate", { gate: isolated(key.gate) }) : text("organizer.any_gate");
  const facts = [
    text(`organizer.role_${key.role}`),
    isDevice ? place : null,
    key.offline ? text("organizer.works_offline") : null,
    key.event ? null : text("organizer.any_event"),
  ];
  const end = key.revoked_at ? "revoked_at" : "expires_at";
  const maker = keys.find(({ key_id: id }) => id === key.created_by);
  const life = [
    key.yours ? text("organizer.key_yours") : null,
    maker ? text("organizer.key_made_by", { name: isolated(maker.name) }) : null,
    key.newest_scan_at || isDevice ? newest(key) : null,
    isDevice && key.heard_at ? text("organizer.heard_when", { when: when(key.heard_at) }) : null,
    isDevice && key.manifest_at ? text("organizer.listed_when", { when: when(key.manifest_at) }) : null,
    key[end] ? text(`organizer.key_${end}`, { time: moment(key[end]) }) : null,
    key.replaced_at ? text("organizer.key_replaced_at", { time: moment(key.replaced_at) }) : null,
    key.taken_at ? text("organizer.key_taken_at", { time: moment(key.taken_at) }) : null,
  ];
  return element("li", { className: "card" },
    element("h2", {}, bdi(key.name)),
    element("p", {}, facts.filter(Boolean).join(" · ")),
    element("p", { className: "quiet" }, life.filter(Boolean).join(" · ")),
    ...(isDevice && isGood(key) ? troubles(key) : []).map((trouble) => element("p", { className: "warn" }, trouble)),
    element("div", { className: "row" }, ...actions(key, keys)));
}

function actions(key, keys) {
  const button = (name, onclick, className = "") => element("button", { type: "button", className, onclick }, text(`organizer.${name}`));
  return [
    isGood(key) && isOfADevice(key) && button("enrol", () => attempt(() => enrol(key))),
    isGood(key) && button("revoke", () => revoke(key, madeBy(key, keys).filter(isGood)), "danger"),
    isOfADevice(key) && key.offline && (!isGood(key) || key.replaced_at) && button("take", () => take(key)),
    // Also for a revoked or ended key: the device may know codes.
    isOfADevice(key) && button("lost", () => lost.ask(key), "danger"),
  ].filter(Boolean);
}

const newest = ({ newest_scan_at: time }) => (time ? text("organizer.newest_scan", { when: when(time) }) : text("organizer.no_scan"));

/** Agrees to accept the scans of devices that no longer have the key. They send them automatically then. */
function take(key) {
  confirm({
    title: text("organizer.take_title", { name: isolated(key.name) }),
    words: ["take_what", "take_who", "take_until", "take_file"].map((name) => text(`organizer.${name}`)),
    action: text("organizer.take"),
    async work() {
      await call("POST", `/api/keys/${key.key_id}/take`);
      tell(text("organizer.take_done"));
      attempt(show);
    },
  });
}

/** `made` are the keys that end with it. */
function revoke(key, made) {
  const words = (isOfADevice(key) ? ["revoke_key_dies", "revoke_key_unsent"] : ["revoke_key_person"]).map((name) => text(`organizer.${name}`));
  if (made.length) words.push(text("organizer.revoke_key_made", { names: made.map(({ name }) => isolated(name)).join(", ") }));
  if ([key, ...made].some(({ yours }) => yours)) words.push(text("organizer.revoke_key_yours"));
  confirm({
    title: text("organizer.revoke_key_title", { name: isolated(key.name) }),
    words,
    action: text("organizer.revoke"),
    async work() {
      await call("DELETE", `/api/keys/${key.key_id}`);
      tell(text("organizer.revoke_key_done"));
      attempt(show);
    },
  });
}

find("#new-key").onclick = () => {
  keyForm.reset();
  open(find("#key-dialog"));
};

onSubmit(keyForm, async ({ name, role, gate, offline }) => {
  const wanted = { name, role, event: session.event.slug, offline: Boolean(offline), ...(gate && { gate }) };
  // The secret is not shown: the device gets its own when it is enrolled.
  const key = await call("POST", "/api/keys", { json: wanted });
  find("#key-dialog").close();
  await attempt(() => enrol(key));
  await attempt(show);
});

let enrolled = null;
let timer;

/** Shows a code that gives this key to a device. It replaces the previous code. */
async function enrol(key) {
  const { enrol_url: address, expires_at: end } = await call("POST", `/api/keys/${key.key_id}/enrol`);
  enrolled = key;
  find("#enrol-title").textContent = text("organizer.enrol_title", { name: isolated(key.name) });
  find("#enrol-qr").replaceChildren(qrSvg(address, text("organizer.enrol_qr")));
  find("#enrol-link").value = address;
  clearInterval(timer);
  timer = setInterval(count, 1000, Date.parse(end));
  count(Date.parse(end));
  open(enrolDialog);
}

function count(end) {
  const seconds = Math.max(0, Math.round((end - now()) / 1000));
  const left = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  find("#enrol-left").textContent = seconds ? text("organizer.enrol_left", { left }) : text("organizer.enrol_over");
  if (seconds === 0) forget();
}

/** Drops the code as soon as it is out of view: anyone who reads it can become the gate. */
function forget() {
  clearInterval(timer);
  find("#enrol-qr").replaceChildren();
  find("#enrol-link").value = "";
}

find("#enrol-again").onclick = () => attempt(() => enrol(enrolled));
enrolDialog.addEventListener("close", forget);
find("#lost-dialog").addEventListener("close", () => attempt(show));
