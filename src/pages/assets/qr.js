// QR codes as pictures.

import { encodeQR } from "./vendor/qr.js";

const SVG = "http://www.w3.org/2000/svg";

/** A QR code as `<svg class="qr">` with the quiet zone of 4 modules that the standard asks for; `ecc` is its error correction. */
export function qrSvg(text, { ecc = "medium" } = {}) {
  const rows = encodeQR(text, "raw", { ecc, border: 4 });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "qr");
  svg.setAttribute("viewBox", `0 0 ${rows.length} ${rows.length}`);
  // So that neighbouring modules have no hairline between them.
  svg.setAttribute("shape-rendering", "crispEdges");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", rows.map(runs).join(""));
  svg.append(path);
  return svg;
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
