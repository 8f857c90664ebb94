// Hands in scans that a device could not send but saved as a file: the organizer agrees that they are recorded.

import { element, find } from "../shared/dom.js";
import { onSubmit } from "./form.js";
import { explainAll } from "../shared/problem.js";
import { LONG, call, session } from "./session.js";
import { dayAndTime, isolated, number, text } from "../shared/text.js";

/** As many per batch as a gate sends, but few enough refused codes that a gate with the same key can go on working. */
const BATCH = { most: 200, wrong: 30 };
const MINUTE = 60_000;
const form = find("#hand-in");
const told = find("#handed");
let chosen = null;

export function show() {
  form.reset();
  choose(null);
  told.replaceChildren();
}

function choose(file) {
  chosen = file;
  find("#hand-in-told").replaceChildren(...(file ? [describe(file)] : []));
  find("button", form).disabled = !file;
}

form.elements.file.onchange = async ({ target }) => {
  const [file] = target.files;
  told.replaceChildren();
  choose(null);
  if (!file) return;
  const read = understood(await file.text());
  if (read) choose(read);
  else told.replaceChildren(element("p", { className: "bad", role: "alert" }, text("organizer.hand_in_not_one")));
};

/** Parses such a file; null if it is none. Whether it is true, the service checks scan by scan. */
function understood(content) {
  try {
    const { key_id, event, name, gate, scans } = JSON.parse(content);
    const read = scans.map(({ scan, proof }) => ({ scan, proof, said: JSON.parse(scan) }));
    return key_id && event && read.length > 0 ? { key_id, event, name, gate, scans: read } : null;
  } catch {
    return null;
  }
}

function describe({ event, name, gate, scans }) {
  const times = scans.map(({ said }) => said.scanned_at).sort();
  const moment = (time) => dayAndTime(time, session.event.time_zone);
  const admitted = scans.filter(({ said }) => said.offline_result === "accepted").length;
  return element("p", {}, text("organizer.hand_in_holds", {
    scans: number(scans.length), admitted: number(admitted), from: moment(times[0]), to: moment(times.at(-1)),
    who: [name, gate, event].filter(Boolean).map(isolated).join(" · "),
  }));
}

/** Splits the scans into batches, admissions and other scans with a right code first. */
function* batches(scans) {
  const isWrong = ({ said }) => /(wrong|stale)_code/.test(said.offline_result);
  const waiting = [...scans.filter((scan) => !isWrong(scan)), ...scans.filter(isWrong)];
  while (waiting.length > 0) {
    const batch = [];
    let wrong = 0;
    while (waiting.length > 0 && batch.length < BATCH.most && wrong < BATCH.wrong) {
      wrong += Number(isWrong(waiting[0]));
      batch.push(waiting.shift());
    }
    yield { batch, pause: wrong === BATCH.wrong && waiting.length > 0 };
  }
}

onSubmit(form, async () => {
  const { key_id, event, scans } = chosen;
  const bar = element("progress", { max: scans.length, value: 0, "aria-label": text("organizer.hand_in") });
  const said = element("p", { role: "status" });
  told.replaceChildren(bar, said);
  const counts = { recorded: 0, known: 0, conflicts: 0, refused: 0 };
  const reasons = new Map();
  for (const { batch, pause } of batches(scans)) {
    const json = { event, scans: batch.map(({ scan, proof }) => ({ scan, proof })) };
    const { results } = await call("POST", `/api/keys/${key_id}/scans`, { json, timeout: LONG });
    results.forEach((result, place) => count(result, batch[place], counts, reasons));
    bar.value += batch.length;
    said.textContent = text("organizer.hand_in_progress", { sent: number(bar.value), scans: number(scans.length) });
    if (pause) await new Promise((resolve) => setTimeout(resolve, MINUTE));
  }
  bar.remove();
  said.className = "good";
  said.textContent = text("organizer.hand_in_done", Object.fromEntries(Object.entries(counts).map(([name, value]) => [name, number(value)])));
  told.append(...[...reasons.values()].map((why) => element("p", { className: "bad" }, ...why)));
  choose(null);
  form.reset();
});

/** Counts a result: recorded now or before, as the gate decided or as a conflict; or refused by the service. */
function count(result, { said }, counts, reasons) {
  if (result.result === undefined) {
    counts.refused += 1;
    reasons.set(`${result.code} ${JSON.stringify(result.errors)}`, explainAll(result));
    return;
  }
  const isConflict = said.offline_result === "accepted" && !["accepted", "undone"].includes(result.result);
  if (result.replayed) counts.known += 1;
  else counts[isConflict ? "conflicts" : "recorded"] += 1;
}
