// One ticket: its data, and what can be done with it.

import { element, find } from "../shared/dom.js";
import { alarm, attempt, bdi, confirm, explain, onSubmit, open, tell, wrongField } from "./form.js";
import { sendAgain } from "./mails.js";
import { prepare } from "./print.js";
import { all, call, here, session } from "./session.js";
import { holderOf, placed, showLink, showLinkOf, takeBack } from "./share.js";
import { dayAndTime, isolated, money, text } from "../shared/text.js";
import { localOf, momentOf } from "./zone.js";

const dialog = find("#ticket-dialog");
const holderDialog = find("#holder-dialog");
const holderForm = find("form", holderDialog);
const history = find("#ticket-history");
const details = find("#ticket-details");
const detailsForm = find("form", details);
const VALIDITY = ["valid_from", "valid_until"];
/** Called after a change, so that the list is reloaded. */
let changed = () => {};

export function openTicket(ticket, onChange) {
  changed = onChange;
  find("#ticket-title").textContent = text("organizer.seat_at_gate", placed(ticket));
  const moment = (time) => (time ? dayAndTime(time, session.event.time_zone) : null);
  const facts = {
    holder: ticket.full_name && ticket.username ? `${isolated(ticket.full_name)} (${ticket.username})` : ticket.full_name ?? ticket.username ?? text("organizer.nobody"),
    walk_up: ticket.walk_up ? text("organizer.at_the_door") : null,
    paid: ticket.paid === null ? null : money(ticket.paid, session.event.currency),
    status: text(`organizer.status_${stateOf(ticket)}`),
    reference: ticket.reference,
    category: ticket.category,
    note: ticket.note,
    valid_from: moment(ticket.valid_from),
    valid_until: moment(ticket.valid_until),
    registered_at: moment(ticket.registered_at),
    mailed_at: moment(ticket.mailed_at),
    used_at: moment(ticket.used_at),
    entered_at: ticket.entered_at === ticket.used_at ? null : moment(ticket.entered_at),
    now: ticket.used_at ? text(ticket.inside ? "organizer.is_inside" : "organizer.is_outside") : null,
  };
  find("#ticket-facts").replaceChildren(...Object.entries(facts).filter(([, value]) => value).flatMap(([name, value]) =>
    [element("dt", {}, text(`organizer.${name}`)), element("dd", {}, bdi(value))]));
  find("#ticket-actions").replaceChildren(...actions(ticket).map(([name, work]) =>
    element("button", { type: "button", className: name === "revoke" ? "danger" : "", onclick: () => work(ticket) }, text(`organizer.${name}`))));
  for (const told of dialog.querySelectorAll(".problem")) told.remove();
  fillDetails(ticket);
  history.open = false;
  history.ontoggle = () => history.open && attempt(() => showHistory(ticket));
  open(dialog);
}

/** Fills in the ticket's details, which can be corrected in any state. */
function fillDetails(ticket) {
  const { time_zone: zone } = session.event;
  const shown = { category: ticket.category ?? "", note: ticket.note ?? "" };
  for (const time of VALIDITY) shown[time] = ticket[time] ? localOf(ticket[time], zone) : "";
  for (const [name, value] of Object.entries(shown)) detailsForm.elements[name].value = value;
  details.open = false;
  corrected = async (values) => {
    const json = { category: values.category || null, note: values.note || null };
    for (const time of VALIDITY) {
      // An untouched time keeps its seconds.
      if (values[time] !== shown[time]) json[time] = values[time] ? new Date(momentOf(values[time], zone)).toISOString() : null;
    }
    await call("PATCH", `/api/tickets/${ticket.ticket_id}`, { json });
    finish({}, "organizer.change_details_done");
  };
}

/** The ticket being corrected. */
let corrected;
onSubmit(detailsForm, (values) => corrected(values));

/** Shows the ticket's history, oldest first, with the key behind each entry. */
async function showHistory(ticket) {
  const list = find("ol", history);
  list.replaceChildren();
  const done = await all(`/api/tickets/${ticket.ticket_id}/actions`, "actions");
  list.replaceChildren(...done.map(({ at, action, key_name: key }) =>
    element("li", {}, text("organizer.done_by", {
      time: dayAndTime(at, session.event.time_zone),
      action: text(`organizer.action_${action}`),
      key: isolated(key ?? text("organizer.no_key")),
    }))));
}

/** Its status, or `free` if it has no holder yet. */
export const stateOf = ({ status, username }) => (status === "valid" && !username ? "free" : status);

/** Whether it has a link that admits somebody, possibly again. */
export const hasLink = ({ status, username }) =>
  Boolean(username) && (status === "valid" || (status === "used" && session.event.reentry !== "none"));

/** The actions that a ticket's state allows, also by whether its holder belongs to the event. */
function actions(ticket) {
  const mayCorrect = ticket.username && (!session.isBound || ticket.holder_event);
  const mayMail = ticket.mailed_at && hasLink(ticket);
  return [...ofTicket(ticket), ...(mayMail ? [["mails_again", mailAgain]] : []), ...(mayCorrect ? [["correct", correct]] : [])];
}

function ofTicket(ticket) {
  const { status, username, walk_up: atTheDoor } = ticket;
  // It was made at the door and has no holder.
  if (atTheDoor) return status === "revoked" ? [] : [["revoke", revoke]];
  if (status === "revoked") return [["reissue", reissue]];
  if (!username) return [["register", register], ["revoke", revoke]];
  if (status === "used") return hasLink(ticket) ? [["link_title", link], ["revoke", revoke]] : [["revoke", revoke]];
  return [["link_title", link], ["print_code", printCode], ["transfer", transfer], ["reissue", reissue], ["revoke", revoke]];
}

const link = (ticket) => showLinkOf(ticket, find("#ticket-actions"));

async function mailAgain(ticket) {
  const why = await sendAgain(ticket);
  if (why) return find("#ticket-actions").after(alarm(why));
  finish({}, "organizer.mails_again_done");
}

/** After a change: reloads the list and shows the new link, which no other answer contains. */
function finish(ticket, told) {
  for (const each of [dialog, holderDialog]) each.close();
  if (ticket.provisioning) takeBack(ticket);
  if (ticket.provisioning && ticket.username) showLink(ticket, ticket.provisioning.ticket_url, { done: text(told) });
  else tell(text(told));
  attempt(changed);
}

function ask(ticket, name, words) {
  confirm({
    title: text(`organizer.${name}_title`, placed(ticket)),
    words: words.map((each) => text(`organizer.${each}`, { holder: holderOf(ticket) })),
    action: text(`organizer.${name}`),
    async work() {
      const after = await call("POST", `/api/tickets/${ticket.ticket_id}/${name}`);
      finish(after, `organizer.${name}_done`);
    },
  });
}

const used = (ticket, words) => (ticket.used_at ? [words] : []);
const revoke = (ticket) => ask(ticket, "revoke", [ticket.username ? "revoke_dies" : "revoke_free", "revoke_back", ...used(ticket, "revoke_used")]);
const reissue = (ticket) => ask(ticket, "reissue", [
  ...(ticket.status === "revoked" ? ["reissue_revives", "reissue_dies"] : ["reissue_dies", "reissue_send"]),
  ...used(ticket, "reissue_used"),
]);

function printCode(ticket) {
  confirm({
    title: text("organizer.print_code"),
    words: [text("organizer.print_codes_told", { tickets: 1 }), text("organizer.paper_admits")],
    action: text("organizer.go_on"),
    async work() {
      prepare("codes", [ticket]);
      dialog.close();
      location.hash = `#print/${session.event.slug}`;
    },
  });
}

/** What the form for a person is used for this time. */
let purpose;

/** `person` is an existing one, to be corrected. */
function askHolder({ title, words, action, withPlace, person, work }) {
  holderForm.reset();
  for (const [name, value] of Object.entries(person ?? {})) {
    const field = holderForm.elements.namedItem(name);
    if (field) field.value = value ?? "";
  }
  holderForm.elements.username.readOnly = Boolean(person);
  find("#holder-title").textContent = title;
  find("#holder-told").replaceChildren(...words.map((each) => element("p", {}, each)));
  find("#place-fields").hidden = find("#place-fields").disabled = !withPlace;
  holderForm.elements.username.required = !withPlace;
  find("#holder-go").textContent = action;
  purpose = work;
  open(holderDialog);
}

onSubmit(holderForm, (values) => purpose(values));

function register(ticket) {
  askHolder({
    title: text("organizer.register_title", placed(ticket)),
    words: [text("organizer.register_how")],
    action: text("organizer.register"),
    async work(values) {
      await registerTo(await findOrMake(values), ticket);
    },
  });
}

async function registerTo({ username, event }, { seat, gate }) {
  const ticket = await call("POST", of(event, `/api/users/${encodeURIComponent(username)}/tickets`), { json: { seat, gate, event: session.event.slug } });
  finish(ticket, "organizer.register_done");
}

function transfer(ticket) {
  askHolder({
    title: text("organizer.transfer_title", placed(ticket)),
    words: [text("organizer.transfer_dies", { holder: holderOf(ticket) }), text("organizer.register_how")],
    action: text("organizer.transfer"),
    async work(values) {
      const { username, event } = await findOrMake(values);
      const after = await call("POST", of(event, `/api/tickets/${ticket.ticket_id}/transfer`), { json: { username } });
      finish(after, "organizer.transfer_done");
    },
  });
}

export function newTicket(onChange) {
  changed = onChange;
  askHolder({
    title: text("organizer.new_ticket"),
    words: [text("organizer.new_ticket_how")],
    action: text("organizer.create"),
    withPlace: true,
    async work(values) {
      const { seat, gate, username } = values;
      const person = username && (await findOrMake(values));
      await call("POST", here("/tickets"), { json: { seat, gate } });
      if (person) return registerTo(person, { seat, gate });
      finish({}, "organizer.created");
    },
  });
}

/** Corrects the name and address of a ticket's holder. */
async function correct(ticket) {
  const path = of(ticket.holder_event, `/api/users/${encodeURIComponent(ticket.username)}`);
  let person;
  try {
    person = await call("GET", path);
  } catch (problem) {
    return find("#ticket-actions").after(alarm(explain(problem)));
  }
  const words = [text("organizer.correct_how")];
  if (ticket.full_name !== person.full_name) words.push(text("organizer.correct_not_this", { name: isolated(ticket.full_name) }));
  askHolder({
    title: text("organizer.correct_title", { username: isolated(person.username) }),
    words,
    action: text("organizer.save"),
    person,
    async work({ full_name: name, email }) {
      await call("PATCH", path, { json: { full_name: name || null, email: email || null } });
      finish({}, "organizer.correct_done");
    },
  });
}

/** The path for an event's own people; without an event, for the people of the key's scope. */
const of = (event, path) => (event ? `${path}?event=${event}` : path);

/**
 * Creates the person, or checks that the one with this username is the one meant. A key for all events may find one
 * among the event's own people and one among the installation's; if names or addresses can tell them apart, the user
 * must choose.
 */
async function findOrMake({ username, full_name: name, email }) {
  const path = `/api/users/${encodeURIComponent(username)}`;
  const own = session.isBound ? null : await findPerson(of(session.event.slug, path));
  const known = [own, await findPerson(path)].filter(Boolean);
  if (known.length === 0) {
    const details = Object.entries({ username, full_name: name, email }).filter(([, value]) => value);
    return call("POST", "/api/users", { json: Object.fromEntries(details) });
  }
  const [person, another] = known.filter((each) => !differs(name, each.full_name) && !differs(email, each.email));
  if (!person) throw wrongField("username", "another_person");
  if (another && [person, another].every((each) => each.full_name || each.email)) throw wrongField("username", "two_people");
  return person;
}

const findPerson = (path) => call("GET", path).catch((problem) => {
  if (problem.status !== 404) throw problem;
  return null;
});

const differs = (typed, known) => typed && typed.toLowerCase() !== (known ?? "").toLowerCase();
