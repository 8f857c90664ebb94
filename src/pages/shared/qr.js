// QR codes as pictures.

import { svg } from "./dom.js";
import { encodeQR } from "./vendor/qr.js";

/**
 * A QR code as `<svg class="qr">`, black on its own white background with the quiet zone of 4 modules that the standard
 * requires; `label` is its text alternative.
 */
export function qrSvg(text, label) {
  const rows = encodeQR(text, "raw", { ecc: "medium", border: 4 });
  // So that no hairlines appear between neighbouring modules.
  const crisp = { "shape-rendering": "crispEdges" };
  const told = label ? { role: "img", "aria-label": label } : {};
  const { length } = rows;
  return svg("svg", { class: "qr", viewBox: `0 0 ${length} ${length}`, ...crisp, ...told },
    svg("rect", { width: length, height: length, fill: "#fff" }), svg("path", { d: rows.map(runs).join(""), fill: "#000" }));
}

/** The dark runs of one row, each a rectangle. */
function runs(row, y) {
  let path = "";
  for (let x = 0; x < row.length; x++) {
    if (!row[x]) continue;
    const start = x;
    while (row[x + 1]) x++;
    path += `M${start} ${y}h${x + 1 - start}v1H${start}z`;
  }
  return path;
}
