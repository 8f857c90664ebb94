// Importing a file of tickets: what is in it is shown before it is sent.

import { element, find } from "../shared/dom.js";
import { alarm, bdi, explain, onSubmit } from "./form.js";
import { parse } from "./csv.js";
import { explainField } from "../shared/problem.js";
import { LONG, call, here } from "./session.js";
import { number, text } from "../shared/text.js";

const COLUMNS = ["seat", "gate", "username", "full_name", "email"];
const SHOWN = 5;
const form = find("#import");
const preview = find("#preview");
const result = find("#imported");

export function show() {
  form.reset();
  empty();
  result.replaceChildren();
}

function empty() {
  preview.hidden = true;
  find("button", form).disabled = true;
}

form.elements.file.onchange = async ({ target }) => {
  empty();
  result.replaceChildren();
  const [file] = target.files;
  if (!file) return;
  const { rows: [names = [], ...rows], separator } = parse(await file.text());
  preview.replaceChildren(...describe(names, rows, separator));
  preview.hidden = false;
  find("button", form).disabled = rows.length === 0 || missing(names).length > 0;
};

const missing = (names) => ["seat", "gate"].filter((column) => !names.some((name) => name.toLowerCase() === column));

function describe(names, rows, separator) {
  const known = names.map((name) => name.toLowerCase());
  const holders = known.indexOf("username");
  const unknown = names.filter((name) => !COLUMNS.includes(name.toLowerCase()));
  const told = [
    element("p", {}, element("strong", {}, text("organizer.rows", { rows: number(rows.length) })), " ",
      text("organizer.rows_with", { holders: number(rows.filter((row) => row[holders]).length), separator })),
  ];
  if (missing(names).length) told.push(warning(text("organizer.columns_missing", { columns: missing(names).join(", ") })));
  if (unknown.length) told.push(warning(text("organizer.columns_unknown", { columns: unknown.join(", ") })));
  if (rows.length) told.push(table(names, rows.slice(0, SHOWN)));
  if (rows.length > SHOWN) told.push(element("p", { className: "quiet" }, text("organizer.first_rows", { rows: SHOWN })));
  return told;
}

/** No `.problem`, which goes when the form is sent: the file is still chosen. */
const warning = (words) => element("p", { className: "bad", role: "alert" }, words);

function table(names, rows) {
  const made = element("table", {},
    element("caption", { className: "visually-hidden" }, text("organizer.preview")),
    element("thead", {}, element("tr", {}, ...names.map((name) => {
      const isKnown = COLUMNS.includes(name.toLowerCase());
      return element("th", { scope: "col", className: isKnown ? "good" : "bad" }, `${isKnown ? "✓" : "✗"} `, bdi(name));
    }))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((field) => element("td", {}, bdi(field)))))));
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": text("organizer.preview") }, made);
}

onSubmit(form, async ({ file }) => {
  result.replaceChildren();
  try {
    const created = await call("POST", here("/tickets"), { csv: file, timeout: LONG });
    form.reset();
    empty();
    result.replaceChildren(
      element("p", { className: "card good", role: "status" }, text("organizer.imported", {
        created: number(created.created), registered: number(created.registered), users: number(created.users_created),
      })),
      element("a", { className: "button primary", href: location.hash.replace("import", "tickets") }, text("organizer.to_tickets")));
  } catch (problem) {
    result.replaceChildren(...refusal(problem));
    result.focus();
  }
});

/** All or nothing: what is wrong, line by line. */
function refusal(problem) {
  const lines = (problem.errors ?? []).map((error) => element("tr", {},
    element("th", { scope: "row" }, error.field.replace(/^line /, `${text("organizer.line")} `)),
    element("td", {}, explainField(error))));
  if (lines.length === 0) return [alarm(explain(problem))];
  return [
    alarm(text("organizer.nothing_imported", { lines: number(lines.length) })),
    element("table", {}, element("caption", { className: "visually-hidden" }, text("organizer.wrong_lines")), element("tbody", {}, ...lines)),
  ];
}
