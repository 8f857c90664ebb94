// Reads CSV (RFC 4180) as the service does, for a preview of what will be sent and for the links it answers with.

/** Rows of fields without the spaces around them, and what separates them: `;` where the first line has no `,`. */
export function parse(text) {
  const content = text.replace(/^\ufeff/, "");
  const [header] = content.split("\n", 1);
  const separator = header.includes(";") && !header.includes(",") ? ";" : ",";
  const field = new RegExp(`(?:"([^"]*(?:""[^"]*)*)(?:"|$))?([^${separator}\\r\\n]*)(${separator}|\\r?\\n|\\r|$)`, "y");
  const rows = [];
  let row = [];
  while (field.lastIndex < content.length) {
    const [, quoted = "", plain, end] = field.exec(content);
    row.push((quoted.replaceAll('""', '"') + plain).trim());
    if (end === separator && field.lastIndex < content.length) continue;
    if (end === separator) row.push("");
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  }
  return { rows, separator };
}

/** Objects by the names in the first row, of a file that the service wrote. */
export function records(text) {
  const [names, ...rows] = parse(text).rows;
  // The service puts an apostrophe before what a spreadsheet of any language would run as a formula.
  const plain = (field) =>
    field
      .replace(/^'(?=[\t\r\n])/, "")
      .replace(/((?:^|[,;\t|،؛\r\n"])[\s\u200b-\u200f\u2060\ufeff]*)'(?=[=+\-@＝＋－＠])/g, "$1");
  return rows.map((row) => Object.fromEntries(names.map((name, place) => [name, plain(row[place] ?? "")])));
}
