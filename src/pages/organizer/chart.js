// A bar chart of arrivals, drawn at its displayed size, so that its text is as large as the page's.

import { svg } from "../shared/dom.js";

const MINUTE = 60_000;
const LEFT = 34;
const BOTTOM = 24;
const TOP = 12;
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 240, 480, 1440];

/**
 * Counts arrivals from `from` to `to` in at most `most` bars of equal length, each at least `least` minutes. `arrivals`
 * are `{minute: milliseconds, admitted}`, without the minutes in which nobody came.
 */
export function bars(arrivals, from, to, most, least = 1) {
  const minutes = Math.max(1, Math.round((to - from) / MINUTE));
  const step = STEPS.find((each) => each >= least && minutes / each <= most) ?? Math.ceil(minutes / most);
  const counts = new Array(Math.ceil(minutes / step)).fill(0);
  for (const { minute, admitted } of arrivals) {
    const place = Math.floor((minute - from) / MINUTE / step);
    if (place >= 0 && place < counts.length) counts[place] += admitted;
  }
  return { step, bars: counts.map((admitted, place) => ({ at: from + place * step * MINUTE, admitted })) };
}

/**
 * The running total in bars of an hour or longer; each counts everybody who came before its end, the last one before
 * `to`.
 */
export function running(arrivals, from, to) {
  const { step, bars: each } = bars(arrivals, from, to, 60, 60);
  let all = 0;
  return { step, bars: each.map(({ at, admitted }) => ({ at, until: Math.min(at + step * MINUTE, to), admitted: all += admitted })) };
}

/**
 * Draws the bars as an `<svg>`. `time` formats a moment; a line marks the `limit`, if any; `label` is the caller's text
 * alternative.
 */
export function draw(all, { width, height, label, time, limit = null }) {
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  const top = niceTop(Math.max(limit ?? 0, ...all.map((bar) => bar.admitted)));
  const high = height - TOP - BOTTOM;
  const each = (width - LEFT) / all.length;
  for (const share of [0, 0.5, 1]) {
    const y = TOP + high * (1 - share);
    chart.append(svg("line", { x1: LEFT, x2: width, y1: y, y2: y }));
    chart.append(svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, top * share));
  }
  const tall = (bar) => (bar.admitted / top) * high;
  const path = all.map((bar, place) =>
    bar.admitted ? `M${LEFT + place * each} ${TOP + high}v${-tall(bar)}h${Math.max(each - 1, each * 0.7)}v${tall(bar)}z` : "");
  chart.append(svg("path", { d: path.join("") }));
  if (limit) {
    const y = TOP + high * (1 - limit / top);
    chart.append(svg("line", { class: "limit", x1: LEFT, x2: width, y1: y, y2: y }));
  }
  const apart = Math.ceil(all.length / Math.floor((width - LEFT) / 64));
  for (let place = 0; place + apart / 2 < all.length; place += apart) {
    chart.append(svg("text", { x: LEFT + place * each, y: height - 6 }, time(all[place].at)));
  }
  return chart;
}

/** The top of the scale: an even number, so that half of it is whole, and little more than the largest bar. */
function niceTop(largest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(largest, 1)));
  return [2, 4, 6, 10].map((factor) => factor * power).find((top) => top >= largest);
}
