// Importing a list of tickets: the service shows how it reads the file and what it would do, before it does it.

import { element, find } from "../shared/dom.js";
import { alarm, attempt, bdi, explain, onSubmit } from "./form.js";
import { openMails } from "./mails.js";
import { explainField } from "../shared/problem.js";
import { LONG, call, here, session } from "./session.js";
import { counted, isolated, text } from "../shared/text.js";

/** Names of the file's encoding, where it has one. */
const FORMS = { "utf-8": "UTF-8", "utf-16": "UTF-16", "windows-1252": "Windows-1252", macintosh: "Mac Roman", xlsx: "Excel (.xlsx)" };
const COUNTS = ["created", "registered", "users_created", "updated", "skipped"];
const form = find("#import");
const preview = find("#preview");
const result = find("#imported");
const button = find("button.primary", form);
/** What each column is, as chosen; until then the service recognises them. */
let columns = null;
/** Whether the user said that the first line is already a ticket. */
let noHeader = false;
let asked = 0;

export function show() {
  form.reset();
  empty();
  result.replaceChildren();
}

export const hide = show;

function empty() {
  asked++;
  columns = null;
  noHeader = false;
  preview.hidden = true;
  preview.replaceChildren();
  button.disabled = true;
}

function query(more = {}) {
  const all = new URLSearchParams({ existing: form.elements.existing.value, ...more });
  if (columns) all.set("columns", columns.join(","));
  if (noHeader) all.set("header", false);
  return here(`/tickets?${all}`);
}

/** The bytes of the file; null if it is no longer the chosen one. */
async function bytes(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    return null;
  }
}

/** Sends the file to the service and shows what it would do. */
async function look() {
  const [file] = form.elements.file.files;
  if (!file) return;
  const mine = ++asked;
  button.disabled = true;
  result.replaceChildren();
  preview.hidden = false;
  if (!columns) preview.replaceChildren(element("p", { role: "status" }, text("organizer.reading")));
  const told = await read(file);
  if (mine !== asked) return;
  const active = document.activeElement?.id;
  preview.replaceChildren(...told.nodes);
  if (active && preview.querySelector(`#${active}`)) find(`#${active}`).focus();
  button.disabled = !told.isGood;
}

async function read(file) {
  const csv = await bytes(file);
  if (!csv) return { nodes: [warning(text("organizer.file_changed"))] };
  try {
    const seen = await call("POST", query({ dry_run: true }), { csv, timeout: LONG });
    return { nodes: describe(seen), isGood: seen.errors.length === 0 };
  } catch (problem) {
    return { nodes: refusal(problem) };
  }
}

function describe(seen) {
  const form = FORMS[seen.encoding] ?? seen.encoding;
  const told = [element("p", {}, element("strong", {}, counted("organizer.read_lines", seen.lines, { form })),
    ...(seen.sheet === null ? [] : [" ", text("organizer.read_sheet", { sheet: isolated(seen.sheet) })]))];
  told.push(...notices(seen), table(seen));
  if (seen.rows.length < seen.lines) told.push(element("p", { className: "quiet" }, counted("organizer.first_rows", seen.rows.length)));
  if (columns || noHeader || seen.columns.some(({ known }) => !known)) {
    const box = element("input", { type: "checkbox", id: "first-line", checked: noHeader, onchange: choose });
    told.push(element("p", {}, element("label", {}, box, " ", text("organizer.first_line_is_ticket"))));
  }
  if (seen.columns.some(({ known }) => !known)) {
    told.push(element("button", { type: "button", id: "leave-unknown", onclick: choose }, text("organizer.leave_unknown")));
  }
  const what = [...done(seen.counts),
    ...(seen.numbered ? [counted("organizer.will_number", seen.numbered)] : [])];
  if (seen.errors.length === 0) told.push(element("p", { id: "will", role: "status" }, `${what.join(", ") || text("organizer.nothing_new")}.`));
  else told.push(warning(counted("organizer.wrong", seen.wrong)), faults(seen.errors));
  return told;
}

/** Findings that are not wrong but should be known. */
const notices = ({ notices: all = [] }) => all.map((notice) => element("p", { className: "bad notice" }, explainField(notice)));

/** What was or would be done, in words. */
const done = (counts) => COUNTS.filter((name) => counts[name] > 0).map((name) => counted(`organizer.will_${name}`, counts[name]));

/** Without the class `problem`, which is removed when the form is sent: the file is still chosen. */
const warning = (words) => element("p", { className: "bad", role: "alert" }, words);

/** The first lines, under the recognised columns, which can be changed. */
function table({ columns: names, fields, rows }) {
  const heads = names.map(({ name: written, field, known }, place) => {
    // Named as in a spreadsheet.
    const name = written || String.fromCharCode(65 + place % 26);
    const menu = element("select", { id: `column-${place}`, "aria-label": text("organizer.column_is", { name: isolated(name) }), onchange: choose },
      ...["", ...fields].map((each) => new Option(text(`organizer.column_${each || "none"}`), each)));
    menu.value = field ?? "";
    return element("th", { scope: "col", className: known ? "good" : "bad" }, `${known ? "✓" : "✗"} `, bdi(name), menu);
  });
  const made = element("table", {},
    element("caption", { className: "visually-hidden" }, text("organizer.preview")),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((field) => element("td", {}, bdi(field)))))));
  return element("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": text("organizer.preview") }, made);
}

/** Takes the columns from the menus. */
function choose() {
  columns = [...preview.querySelectorAll("select")].map((menu) => menu.value);
  noHeader = find("#first-line", preview)?.checked ?? false;
  attempt(look);
}

form.elements.file.onchange = () => {
  empty();
  attempt(look);
};
form.elements.existing.onchange = () => attempt(look);

const section = form.closest("section");
section.ondragover = (event) => event.preventDefault();
section.ondrop = (event) => {
  event.preventDefault();
  if (event.dataTransfer.files.length === 0) return;
  form.elements.file.files = event.dataTransfer.files;
  form.elements.file.onchange();
};

onSubmit(form, async ({ file }) => {
  result.replaceChildren(element("progress", { "aria-label": text("organizer.import") }));
  const { slug } = session.event;
  const csv = await bytes(file);
  if (!csv) return result.replaceChildren(alarm(text("organizer.file_changed")));
  try {
    const imported = await call("POST", query(), { csv, timeout: LONG });
    form.reset();
    empty();
    const what = done(imported).join(", ") || text("organizer.nothing_new");
    result.replaceChildren(
      element("p", { className: "card good", role: "status" }, text("organizer.imported", { what })),
      ...notices(imported),
      element("div", { className: "row" },
        element("a", { className: "button primary", href: `#tickets/${slug}` }, text("organizer.to_tickets")),
        element("button", { type: "button", onclick: () => openMails() }, text("organizer.hand_out"))));
  } catch (problem) {
    result.replaceChildren(...refusal(problem));
    result.focus();
  }
});

/** All or nothing: what is wrong, line by line. */
function refusal(problem) {
  const { errors = [] } = problem;
  if (errors.length === 0) return [alarm(explain(problem))];
  const more = errors.find(({ code }) => code === "more_faults")?.params.more;
  return [alarm(counted("organizer.nothing_imported", more ? errors.length - 1 + more : errors.length)), faults(errors)];
}

function faults(errors) {
  const place = (field) => (field.startsWith("line ") ? field.replace("line", text("organizer.line")) : text("organizer.whole_file"));
  const lines = errors.map((error) => {
    const params = error.params?.known && { ...error.params, known: error.params.known.map((field) => text(`organizer.column_${field}`)) };
    return element("tr", {}, element("th", { scope: "row" }, place(error.field)), element("td", {}, explainField({ ...error, params: params ?? error.params })));
  });
  return element("table", { className: "faults" }, element("caption", { className: "visually-hidden" }, text("organizer.wrong_lines")), element("tbody", {}, ...lines));
}
