// Unsent scans. They are sent automatically: with a valid key once the device is online, with an ended one once an organizer
// agrees. Or a person saves them as a file for the organizer to hand in.

import { element, find } from "../shared/dom.js";
import { save } from "../shared/save.js";
import { confirmed } from "./sheets.js";
import { number, text } from "../shared/text.js";

/** The numbers of the scans already saved to a file, by key. */
const saved = new Map();

/** Shows how many there are, on every screen. */
export function showStranded({ state }) {
  const scans = state.stranded.reduce((sum, { unsent }) => sum + unsent, 0);
  find("#stranded").hidden = scans === 0;
  find("#stranded").textContent = text("gate.stranded", { n: number(scans) });
}

export function openStranded(gate) {
  fill(gate);
  find("#stranded-send").onclick = async () => {
    await gate.sendStranded();
    fill(gate);
  };
  if (!find("#stranded-sheet").open) find("#stranded-sheet").showModal();
}

function fill(gate) {
  const { stranded, waiting } = gate.state;
  find("#stranded-hint").hidden = stranded.length === 0;
  find("#unsent-hint").hidden = waiting.length === 0;
  find("#stranded-list").replaceChildren(...stranded.map((key) => row(gate, key, true)), ...waiting.map((key) => row(gate, key, false)));
  if (stranded.length + waiting.length === 0) find("#stranded-sheet").close();
}

function row(gate, { key_id, event, event_name, name, gate: place, unsent }, hasEnded) {
  const words = [name, place, event_name ?? event].filter(Boolean).map((word) => [element("bdi", {}, word), " "]).flat();
  const button = (name, onclick, disabled = false) => element("button", { type: "button", onclick, disabled }, text(name));
  const keep = async () => {
    const { numbers, file } = await gate.stranded(key_id);
    saved.set(key_id, numbers);
    save(new Blob([JSON.stringify(file)], { type: "application/json" }), `${event ?? "default"}-scans.json`);
    fill(gate);
  };
  const remove = async () => {
    if (!(await confirmed(text("gate.stranded_remove"), text("gate.stranded_sure"), text("gate.stranded_remove")))) return;
    await gate.discard(saved.get(key_id));
    saved.delete(key_id);
    fill(gate);
  };
  return element("li", { className: "scan" }, element("span", { className: "what" }, element("b", {}, number(unsent)), ...words),
    button("gate.stranded_save", keep),
    // Only an ended key's scans can be removed. A valid key still sends its saved scans; they are recorded once.
    ...(hasEnded ? [button("gate.stranded_remove", remove, !saved.has(key_id))] : []));
}
