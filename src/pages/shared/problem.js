// What the service refuses, in the words of the page: its codes are translated, its sentences never read.

import { element } from "./dom.js";
import { hasText, text } from "./text.js";

/** The service's own words, which are English: a newer service may have codes that this page does not know. */
const english = (words) => element("span", { lang: "en" }, words);

/** Why a request was refused, as an element. */
export function explain({ status, code, detail }) {
  const name = `problem.${status === 0 ? "away" : code}`;
  if (!hasText(name) && detail) return english(detail);
  return element("span", {}, hasText(name) ? text(name) : text("problem.status", { status }));
}

/** The same with the fields that are wrong, where it is about fields, as a list of nodes. */
export function explainAll(problem) {
  const errors = problem.errors ?? [];
  return errors.length ? errors.flatMap((error) => [`${error.field}: `, explainField(error), " "]) : [explain(problem)];
}

/** What is wrong with one field, or with one column of a line, as an element. */
export function explainField({ code, params = {}, message }) {
  const name = `field.${code}`;
  if (!hasText(name)) return english(message);
  return element("span", {}, params.column ? `${params.named ?? params.column}: ` : "", text(name, params));
}
