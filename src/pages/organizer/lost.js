// A gate's phone is lost: revokes its key and renews the tickets whose codes it can make, in batches.

import { element, find } from "../shared/dom.js";
import { bdi, onSubmit, open } from "./form.js";
import { records } from "./links.js";
import { save } from "../shared/save.js";
import { LONG, all, call, download, session } from "./session.js";
import { dayAndTime, isolated, number, text } from "../shared/text.js";
import { momentOf } from "./zone.js";

const dialog = find("#lost-dialog");
const form = find("form", dialog);
const result = find("#lost-result");
let lost = null;

/** Asks first, in a dialog that then shows the progress and the result. */
export function ask(key) {
  lost = key;
  form.reset();
  result.replaceChildren();
  find("#lost-title").textContent = text("organizer.lost_title", { name: isolated(key.name) });
  open(dialog);
}

onSubmit(form, async ({ since }) => {
  const key = lost;
  await renew(key);
  const links = await download(`/api/keys/${key.key_id}/links.csv`);
  const changed = records(await links.text()).length;
  const scans = since ? await scannedSince(key, momentOf(since, session.event.time_zone)) : [];
  const said = changed ? text("organizer.lost_done", { links: number(changed) }) : text("organizer.lost_none");
  result.replaceChildren(element("p", { className: "good", role: "status" }, said), ...scans);
  if (changed) find("p", result).after(element("button", {
    type: "button",
    onclick: () => save(links, `${session.event.slug}-changed-links.csv`),
  }, text("organizer.lost_links")));
});

/** Renewed tickets stay renewed: after an interruption, the organizer presses again. */
async function renew({ key_id }) {
  const bar = element("progress", { "aria-label": text("organizer.lost") });
  const told = element("p", { role: "status" });
  result.replaceChildren(bar, told);
  let done = 0;
  try {
    for (let left = 1; left > 0; ) {
      const { renewed, remaining } = await call("POST", `/api/keys/${key_id}/lost`, { timeout: LONG });
      done += renewed;
      left = remaining;
      Object.assign(bar, { max: done + left || 1, value: left ? done : done || 1 });
      told.textContent = text("organizer.lost_progress", { renewed: number(done), remaining: number(left) });
    }
  } catch (problem) {
    told.textContent = text("organizer.lost_broke_off");
    throw problem;
  }
}

async function scannedSince({ key_id }, since) {
  const scans = await all(`/api/keys/${key_id}/scans`, "scans", `&since=${new Date(since).toISOString()}`);
  if (scans.length === 0) return [element("p", {}, text("organizer.lost_no_scans"))];
  const verdict = ({ result, direction }) => text(`result.${result === "accepted" && direction === "exit" ? "left" : result}`);
  const row = ({ received_at, seat, gate, undone_at, ...scan }) => element("tr", {},
    element("th", { scope: "row" }, dayAndTime(received_at, session.event.time_zone)),
    element("td", {}, bdi(seat ?? "–"), " · ", bdi(gate ?? "–")),
    element("td", {}, undone_at ? text("organizer.action_undone") : verdict(scan)));
  const table = element("table", { id: "lost-scans" },
    element("caption", {}, text("organizer.lost_scans")), element("tbody", {}, ...scans.map(row)));
  return [element("div", { className: "scroll low", tabIndex: 0, role: "region", "aria-label": text("organizer.lost_scans") }, table)];
}
