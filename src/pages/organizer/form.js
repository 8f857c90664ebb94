// Forms and dialogs: an error from the service is shown beside the field it is about.

import { Problem } from "../shared/api.js";
import { element, find } from "../shared/dom.js";
import * as shared from "../shared/problem.js";
import { text } from "../shared/text.js";

/** Returns an element that explains a problem. Anything else is a bug in the page and is thrown again. */
export function explain(problem) {
  if (!(problem instanceof Problem)) throw problem;
  return shared.explain(problem);
}

/** A paragraph that screen readers announce at once. */
export const alarm = (...words) => element("p", { className: "problem", role: "alert" }, ...words);

/** Runs `work` with the form's values on submit, one run at a time, and shows what it throws. */
export function onSubmit(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.hasAttribute("aria-busy")) return;
    form.setAttribute("aria-busy", "true");
    clear(form);
    try {
      await work(Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim?.() ?? value])));
    } catch (problem) {
      show(form, problem);
    } finally {
      form.removeAttribute("aria-busy");
    }
  });
}

export function clear(form) {
  for (const told of form.querySelectorAll(".problem")) told.remove();
  for (const control of form.elements) {
    if (!control.hasAttribute("aria-invalid")) continue;
    control.removeAttribute("aria-invalid");
    describe(control, (id) => !id.startsWith("problem-"));
  }
}

function show(form, problem) {
  const rest = [];
  for (const error of problem.errors ?? []) {
    const control = form.elements.namedItem(error.field);
    if (control instanceof HTMLElement) mark(control, error);
    else rest.push(`\n${error.field}: `, shared.explainField(error));
  }
  const marked = find("[aria-invalid]", form);
  if (!marked || rest.length > 0) {
    find(".actions, button.primary", form).before(alarm(explain(problem), ...rest));
  }
  marked?.focus();
}

/** Marks a field as wrong. */
function mark(control, error) {
  const id = `problem-${control.id}`;
  control.after(element("p", { id, className: "problem" }, shared.explainField(error)));
  control.setAttribute("aria-invalid", "true");
  describe(control, () => true, id);
}

function describe(control, keeps, ...more) {
  const ids = (control.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id && keeps(id));
  control.setAttribute("aria-describedby", [...ids, ...more].join(" "));
}

/** Makes the page's own error for a field, with one of the service's codes that have a text. */
export const wrongField = (field, code, params = {}) => new Problem(422, { errors: [{ field, code, params }], code: "invalid_payload" });

/** Opens a dialog without its previous problems. */
export function open(dialog) {
  for (const form of dialog.querySelectorAll("form")) clear(form);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

/** What the confirmation dialog will do. */
let confirmed;

/**
 * Asks for confirmation of something that cannot be undone. Runs `work` with the dialog still open, so that it can show
 * a failure. `typed` must be typed to go on.
 */
export function confirm({ title, words, action, typed = "", work }) {
  const dialog = find("#confirm-dialog");
  find("#confirm-title").textContent = title;
  find("#confirm-text").replaceChildren(...words.map((each) => element("p", {}, each)));
  find("#confirm-go").textContent = action;
  find("#confirm-typed").hidden = !typed;
  find("#confirm-typed label").textContent = text("organizer.type_this", { typed });
  const field = find("#typed");
  field.value = "";
  confirmed = async () => {
    if (field.value.trim() !== typed) throw wrongField("typed", "not_typed");
    await work();
    dialog.close();
  };
  open(dialog);
}

let fading;

/** Shows a short message about what was done for a while, announced to screen readers too. */
export function tell(words) {
  const told = find("#told");
  // Elements outside an open dialog are covered by it.
  [...document.querySelectorAll("main, dialog[open]")].at(-1).append(told);
  told.replaceChildren(words);
  clearTimeout(fading);
  fading = setTimeout(() => { told.textContent = ""; }, 5000);
}

/** Runs something outside a form and shows what went wrong. */
export const attempt = (work) => work().catch((problem) => tell(explain(problem)));

/** Wires what all dialogs share: buttons that close them or copy a field, and the confirmation dialog. */
export function wireDialogs() {
  onSubmit(find("#confirm-dialog form"), () => confirmed());
  document.addEventListener("close", () => find("main").append(find("#told")), true);
  document.addEventListener("click", async ({ target }) => {
    const button = target.closest("[data-close], [data-copy]");
    if (button?.hasAttribute("data-close")) button.closest("dialog").close();
    if (button?.dataset.copy) await copy(document.getElementById(button.dataset.copy), button);
  });
}

/** Without a secure context there is no clipboard: then the text is selected, to be copied by hand. */
async function copy(field, button) {
  field.select();
  try {
    await navigator.clipboard.writeText(field.value);
    const before = text("organizer.copy");
    button.textContent = text("organizer.copied");
    setTimeout(() => { button.textContent = before; }, 2000);
  } catch {
    field.focus();
  }
}

/** Wraps a text from the database, so that its direction marks cannot affect the text around it. */
export const bdi = (words) => element("bdi", {}, words);
