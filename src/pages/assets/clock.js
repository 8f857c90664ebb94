// What time it is at the service, which decides. A phone's own clock may be minutes off.

const KEPT = "clock-offset";
// How far the service's clock is ahead of the device's, in milliseconds, and how sure that is, each way.
let offset = Number(localStorage.getItem(KEPT) ?? 0);
let doubt = Infinity;

/** Learns from an answer of the service; `sent` and `received` are what `Date.now()` said then. */
export function observe(response, sent, received) {
  const date = Date.parse(response.headers.get("date") ?? "");
  if (Number.isNaN(date)) return;
  // The header is cut to whole seconds: the service's clock was in [date, date + 1 s) at some time in between.
  const least = date - received;
  const most = date + 1000 - sent;
  if ((most - least) / 2 >= doubt) return;
  doubt = (most - least) / 2;
  offset = Math.abs((least + most) / 2) <= doubt ? 0 : Math.round((least + most) / 2);
  localStorage.setItem(KEPT, offset);
}

/** The service's time, in milliseconds since 1970. */
export const now = () => Date.now() + offset;

/** How many seconds the device's clock is behind the service's; negative when it is ahead. */
export const secondsSlow = () => Math.round(offset / 1000);
