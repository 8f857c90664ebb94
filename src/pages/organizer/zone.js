// Local times of a time zone, as `<input type="datetime-local">` has them: 2026-05-01T18:00.

/** Year to second, in digits: the format that Swedish uses. */
const shown = (moment, timeZone) => new Date(moment).toLocaleString("sv", { timeZone }).replace(" ", "T");

const offsetAt = (moment, timeZone) => Date.parse(`${shown(moment, timeZone)}Z`) - Math.floor(moment / 1000) * 1000;

export const localOf = (moment, timeZone) => shown(moment, timeZone).slice(0, 16);

/**
 * When clocks in the zone show this time, in milliseconds. If clocks are turned back, the first of the two; if they
 * skip this time, as if they had not yet been turned forward.
 */
export function momentOf(local, timeZone) {
  const asUtc = Date.parse(`${local}Z`);
  const day = 24 * 60 * 60 * 1000;
  const moments = [-day, day].map((away) => asUtc - offsetAt(asUtc + away, timeZone));
  return moments.find((moment) => localOf(moment, timeZone) === local.slice(0, 16)) ?? moments[0];
}

export function isTimeZone(name) {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
