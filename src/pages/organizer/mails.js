// Sending tickets by mail: what there is to send, a preview of the first mail, then all of them in batches.

import { element, find } from "../shared/dom.js";
import { alarm, attempt, bdi, explain, onSubmit, open } from "./form.js";
import { handOut } from "./share.js";
import { LONG, call, here, isCurrent, session } from "./session.js";
import { isolated, number, text } from "../shared/text.js";

const dialog = find("#mails-dialog");
const form = find("form", dialog);
const told = find("#mails-told");
const outcome = find("#mails-outcome");
const button = find("button.primary", form);
/** What there is to send, as of when the dialog was opened or last sent something. */
let outbox;
/** Called after something was sent, so that the list is reloaded. */
let changed = () => {};

export function openMails(onChange = () => {}) {
  changed = onChange;
  outcome.replaceChildren();
  open(dialog);
  attempt(look);
}

/** Shows what there is to send. */
async function look() {
  button.disabled = true;
  told.replaceChildren(element("p", { role: "status" }, text("organizer.loading")));
  outbox = await call("GET", here("/mails"));
  const { from, unmailed, unmailed_people: people, mailed, without_address: without } = outbox;
  if (from === null) {
    const walk = element("button", { type: "button", className: "primary", onclick: () => attempt(handOut) }, text("organizer.give_open"));
    return told.replaceChildren(element("p", {}, text("organizer.mails_off")), walk);
  }
  const counts = { unmailed: number(unmailed), people: number(people), mailed: number(mailed), without: number(without) };
  const first = unmailed > 0 ? await preview() : [element("p", { className: "good" }, text("organizer.mails_none"))];
  told.replaceChildren(element("p", {}, text("organizer.mails_counts", counts)), ...first);
  button.disabled = unmailed === 0;
}

async function preview() {
  const { preview: first } = await post(outbox.tickets, { dry_run: true });
  if (!first) return [];
  return [element("details", {},
    element("summary", {}, text("organizer.mails_first")),
    element("dl", { className: "facts" },
      ...fact("from", address(outbox.from)), ...fact("to", address(first.to)), ...fact("subject", bdi(first.subject))),
    element("p", { className: "card letter", dir: "auto" }, first.text),
    element("p", { className: "quiet" }, text("organizer.mails_hidden_links")))];
}

const fact = (name, told) => [element("dt", {}, text(`organizer.mails_${name}`)), element("dd", {}, told)];

/** An address that may wrap, but not within a word. */
const address = (words) => element("bdi", {}, ...words.match(/[^@.]+[@.]*/g).flatMap((part) => [part, element("wbr")]));

const post = (tickets, how = {}) =>
  call("POST", here("/mails"), { json: { tickets: tickets.map(({ ticket_id: id }) => id), ...how }, timeout: LONG });

/** Why a ticket was not sent. */
function reason({ result, smtp_code: code, smtp_status: status }) {
  return text(`organizer.mail_${result}`, { code: [code, status].filter(Boolean).join(" ") });
}

onSubmit(form, async () => {
  const { event } = session;
  const bar = element("progress", { max: outbox.unmailed, value: 0, "aria-label": text("organizer.mails_title") });
  const count = element("p", { role: "status" });
  const failed = element("ul", { className: "plain" });
  outcome.replaceChildren(bar, count, failed);
  let [sent, done, stopped] = [0, 0, false];
  try {
    for (let page = await call("GET", here("/mails")); page.tickets.length > 0;) {
      const { results } = await post(page.tickets);
      const broken = results.filter(({ result }) => result !== "sent");
      sent += results.length - broken.length;
      done += results.length;
      bar.value = done;
      count.textContent = text("organizer.mails_progress", { done: number(done), all: number(Math.max(done, outbox.unmailed)) });
      failed.append(...broken.map((each) => line(page.tickets.find(({ ticket_id: id }) => id === each.ticket_id), each)));
      stopped = broken.some(({ result }) => result === "unreachable");
      if (stopped || !page.next || !dialog.open || !isCurrent(event)) break;
      page = await call("GET", here(`/mails?after=${encodeURIComponent(page.next)}`));
    }
    const words = [text("organizer.mails_done", { sent: number(sent) })];
    if (done > sent) words.push(text("organizer.mails_failed", { failed: number(done - sent) }));
    count.textContent = words.join(" ");
    count.className = done > sent ? "bad" : "good";
    if (stopped) count.after(alarm(text("organizer.mails_stopped")));
  } finally {
    bar.remove();
    if (isCurrent(event)) await Promise.all([look(), changed()]);
  }
});

const line = ({ seat, gate, full_name: name, username }, outcome) =>
  element("li", {}, element("strong", {}, bdi(name ?? username)), ` ${text("organizer.seat_at_gate", { seat: isolated(seat), gate: isolated(gate) })}: ${reason(outcome)}`);

/** Sends one ticket again. Returns why that failed, or null. */
export async function sendAgain(ticket) {
  try {
    const { results: [outcome] } = await post([ticket], { again: true });
    return outcome.result === "sent" ? null : reason(outcome);
  } catch (problem) {
    return explain(problem);
  }
}
