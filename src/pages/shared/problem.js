// The service's errors in the page's language: their codes are translated, their messages never parsed.

import { element } from "./dom.js";
import { hasText, text } from "./text.js";

/** The service's own message, in English: a newer service may have codes that this page does not know. */
const english = (words) => element("span", { lang: "en" }, words);

/** An element that explains why a request was refused. */
export function explain({ status, code, detail }) {
  const name = `problem.${status === 0 ? "away" : code}`;
  if (!hasText(name) && detail) return english(detail);
  return element("span", {}, hasText(name) ? text(name) : text("problem.status", { status }));
}

/** The same, plus the wrong fields, if any, as a list of nodes. */
export function explainAll(problem) {
  const errors = problem.errors ?? [];
  return errors.length ? errors.flatMap((error) => [`${error.field}: `, explainField(error), " "]) : [explain(problem)];
}

/** An element that explains what is wrong with a field, or with a column of a line. */
export function explainField({ code, params = {}, message }) {
  const name = `field.${code}`;
  if (!hasText(name)) return english(message);
  return element("span", {}, params.column ? `${params.named ?? params.column}: ` : "", text(name, params));
}
