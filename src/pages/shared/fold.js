// Compares text the way people read it, exactly as src/fold.rs: both run tests/suite/fold_cases.json.

const INVISIBLE = /\u00ad|[\u200b-\u200f]|[\u202a-\u202e]|[\u2060-\u2069]|[\ufe00-\ufe0f]|\ufeff/g;
const ACCENTS = /[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0670]/g;
/** Letters whose accent is part of them. */
const LETTERS = { ø: "o", ł: "l", đ: "d", ð: "d", ħ: "h", ı: "i", æ: "ae", œ: "oe", þ: "th" };

/** Longer texts are compared unchanged. */
const LONGEST_PLACE = 200;

const BETWEEN_WORDS = /[\p{White_Space}\p{Cc}!-/:-@[-`{-~«»¡¿·\u2000-\u206f\u3000-\u303f]+/u;

/** A text decomposed and in lower case, without invisible characters, with one kind of dash and of apostrophe. */
const plain = (text) =>
  text
    .normalize("NFKD")
    .replace(INVISIBLE, "")
    .toLowerCase()
    .replace(/[\u2010-\u2015\u2212]/g, "-")
    .replace(/[\u2018\u2019\u02bc]/g, "'")
    .replace(/ς/g, "σ")
    .replace(/ß/g, "ss")
    .normalize("NFD");

const unaccented = (word) => word.replace(ACCENTS, "").replace(/[øłđðħıæœþ]/g, (letter) => LETTERS[letter]);

/**
 * The form in which seats and gates are compared: the same for texts that differ only in case, accents, width, spaces or
 * dashes. In a word of one or two letters, accents count: row Ñ is not row N.
 */
export function place(text) {
  const folded = plain(text).replace(/[\p{Alphabetic}\p{M}]+/gu, (word) =>
    word.replace(/\p{M}/gu, "").match(/./gsu)?.length > 2 ? unaccented(word) : word,
  );
  const is = [...folded].length > LONGEST_PLACE ? text.normalize("NFC") : folded;
  return is.replace(/\p{White_Space}+/gu, " ").trim();
}

/** The words by which a text is found: in lower case, without accents. */
export const words = (text) => unaccented(plain(text).replace(/['`]/g, "").normalize("NFD")).split(BETWEEN_WORDS).filter(Boolean);

/** Whether people read both as the same seat or gate. */
export const samePlace = (one, other) => one === other || (!!one && !!other && place(one) === place(other));

const { compare } = new Intl.Collator(globalThis.document?.documentElement.lang || undefined, { numeric: true });

/** The order in which people look for a seat, gate or name, in the alphabet of the page's language. */
export const inOrder = compare;
