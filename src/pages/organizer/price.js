// Prices, as people type them.

import { digitsOf, locale } from "../shared/text.js";

/** An amount in a currency's smallest unit, formatted as somebody would type it. */
export function amount(sum, currency) {
  const digits = digitsOf(currency);
  return new Intl.NumberFormat(locale, { minimumFractionDigits: digits, useGrouping: false }).format(sum / 10 ** digits);
}

/** The typed amount in the smallest unit, or null if it is ambiguous: `12.5`, `12,50`, `1.200,00`. */
export function sumOf(typed, currency) {
  const digits = digitsOf(currency);
  const plain = typed.replace(/[\s'’]/g, "");
  const [, whole, sign = "", rest = ""] = new RegExp(digits ? `^(.*?)(?:([.,])(\\d{1,${digits}}))?$` : "^(.*)$").exec(plain);
  const isNumber = /^(\d+|\d{1,3}([.,])\d{3}(\2\d{3})*)$/.test(whole) && !(sign && whole.includes(sign));
  return isNumber ? Number(whole.replace(/[.,]/g, "") + rest.padEnd(digits, "0")) : null;
}
