// Reads the service's own CSV, in which every field is quoted: its answer with ticket links.

/** The rows as objects, named by the first row. */
export function records(text) {
  const rows = [[]];
  for (const [, field, end] of text.replace(/^\ufeff/, "").matchAll(/"((?:[^"]|"")*)"(,|\n|$)/g)) {
    rows.at(-1).push(field.replaceAll('""', '"'));
    if (end !== ",") rows.push([]);
  }
  const [names, ...lines] = rows.filter((row) => row.length > 0);
  return lines.map((row) => Object.fromEntries(names.map((name, place) => [name, plain(row[place] ?? "")])));
}

/**
 * Removes the apostrophe that the service puts before anything a spreadsheet in any language would run as a formula.
 */
const plain = (field) =>
  field
    .replace(/^'('*)(?=[\t\r\n])/, "$1")
    .replace(/((?:^|[,;\t|،؛\r\n"])[\s\u200b-\u200f\u2060\ufeff]*)'('*)(?=[=+\-@＝＋－＠])/g, "$1$2");
