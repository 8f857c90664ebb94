// The page's texts, in the language that the service chose for it.

const texts = JSON.parse(document.getElementById("texts").textContent);
export const language = document.documentElement.lang;
/** How this user writes times and numbers: in the page's language, with their country's conventions. */
export const locale = navigator.languages.find((tag) => tag.split("-")[0] === language) ?? language;
const HALF_A_YEAR = 182 * 86_400_000;

/**
 * A text by its name, with `{name}` replaced by `values.name`; lists are joined by commas. If a value ends with a full stop, as
 * "8:00 a.m.", none follows it.
 */
export function text(name, values = {}) {
  return (texts[name] ?? name).replace(/\{(\w+)\}(\.(?!\.))?/g, (_, value, stop = "") => {
    const told = [values[value] ?? `{${value}}`].flat().join(", ");
    return told.endsWith(".") ? told : told + stop;
  });
}

const plural = new Intl.PluralRules(language);

/** The text for a count, `{count}`: `NAME_one` where the language's plural rule says so, else `NAME_other`. */
export function counted(name, count, values = {}) {
  const form = `${name}_${plural.select(count)}`;
  return text(form in texts ? form : `${name}_other`, { count: number(count), ...values });
}

/** Whether the page has a text of this name. */
export const hasText = (name) => name in texts;

const formats = new Map();

function format(options) {
  const id = JSON.stringify(options);
  if (!formats.has(id)) formats.set(id, new Intl.DateTimeFormat(locale, options));
  return formats.get(id);
}

/** Hour and minute of a moment (anything that `Date` takes), in an IANA time zone or the device's own. */
export const timeOfDay = (moment, timeZone) => format({ timeStyle: "short", timeZone }).format(new Date(moment));

/** Day, hour and minute. */
export const dayAndTime = (moment, timeZone) =>
  format({ dateStyle: "medium", timeStyle: "short", timeZone }).format(new Date(moment));

/** Hour and minute, with the day if it differs from that of `now`, and with the year if it is far away. */
export function timeAndOtherDay(moment, timeZone, now) {
  const day = format({ dateStyle: "short", timeZone });
  if (day.format(new Date(moment)) === day.format(now)) return timeOfDay(moment, timeZone);
  const year = Math.abs(Date.parse(moment) - now) > HALF_A_YEAR ? "numeric" : undefined;
  const named = { weekday: "short", day: "numeric", month: "short", year };
  return format({ ...named, hour: "numeric", minute: "2-digit", timeZone }).format(new Date(moment));
}

const numbers = new Intl.NumberFormat(locale);
export const number = (value) => numbers.format(value);

/** Currencies by the number of digits of their smallest unit, per ISO 4217; all others have two. Browsers disagree on these. */
const DIGITS = ["BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF", "", "", "BHD IQD JOD KWD LYD OMR TND", "CLF UYW"];

/** How many digits of an amount belong to the smallest unit. */
export function digitsOf(currency) {
  const digits = DIGITS.findIndex((codes) => codes.includes(currency));
  return digits < 0 ? 2 : digits;
}

/** An amount in a currency's smallest unit, formatted for people. */
export function money(sum, currency) {
  const maximumFractionDigits = digitsOf(currency);
  return new Intl.NumberFormat(locale, { style: "currency", currency, maximumFractionDigits }).format(sum / 10 ** maximumFractionDigits);
}

const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto" });

/** "3 minutes ago", for an age in milliseconds. */
export function ago(age) {
  const seconds = Math.max(0, Math.round(age / 1000));
  if (seconds < 60) return relative.format(-seconds, "second");
  if (seconds < 3600) return relative.format(-Math.round(seconds / 60), "minute");
  if (seconds < 2 * 86_400) return relative.format(-Math.round(seconds / 3600), "hour");
  return relative.format(-Math.round(seconds / 86_400), "day");
}

const UNITS = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]];

/** A duration in whole seconds, in units whose symbols are the same in every language: "95 s", "1 h", "90 min". */
export function duration(seconds) {
  // Quarters of an hour are shown exactly.
  const fits = ([, length]) => seconds >= length && (seconds % length === 0 || (seconds >= 5 * length && seconds % 900 !== 0));
  const [symbol, length] = UNITS.find(fits) ?? UNITS.at(-1);
  return `${number(Math.round(seconds / length))} ${symbol}`;
}

/** Isolates foreign text within ours: whatever its direction, ours keeps its own. */
export const isolated = (foreign) => `\u2068${foreign.replace(/[\u2066-\u2069]/g, "")}\u2069`;
