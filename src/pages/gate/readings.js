// What a hand-held scanner may have meant. It types with one country's keyboard layout, and the device reads it with another:
// keys are swapped, Caps Lock inverts the case, some scanners lose the shifts. Each reading is a possible spelling of what was
// typed; the list or the service knows which one is a ticket.

import { QR, parse, trimmed } from "./admission.js";

/**
 * Keyboard layouts: each key without and with shift, in the order of the American keys from `1` to `=`, `q` to `]`, `a` to `'`,
 * `z` to `/`, and the extra key beside the left shift.
 */
export const KEYBOARDS = {
  american: ["1234567890-=qwertyuiop[]asdfghjkl;'zxcvbnm,./\\", '!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"ZXCVBNM<>?|'],
  german: ["1234567890ß´qwertzuiopü+asdfghjklöäyxcvbnm,.-<", '!"§$%&/()=?`QWERTZUIOPÜ*ASDFGHJKLÖÄYXCVBNM;:_>'],
  swiss: ["1234567890'^qwertzuiopü¨asdfghjklöäyxcvbnm,.-<", '+"*ç%&/()=?`QWERTZUIOPè!ASDFGHJKLéàYXCVBNM;:_>'],
  spanish: ["1234567890'¡qwertyuiop`+asdfghjklñ´zxcvbnm,.-<", '!"·$%&/()=?¿QWERTYUIOP^*ASDFGHJKLÑ¨ZXCVBNM;:_>'],
  latin: ["1234567890'¿qwertyuiop´+asdfghjklñ{zxcvbnm,.-<", '!"#$%&/()=?¡QWERTYUIOP¨*ASDFGHJKLÑ[ZXCVBNM;:_>'],
  french: ["&é\"'(-è_çà)=azertyuiop^$qsdfghjklmùwxcvbn,;:!<", "1234567890°+AZERTYUIOP¨£QSDFGHJKLM%WXCVBN?./§>"],
  belgian: ["&é\"'(§è!çà)-azertyuiop^$qsdfghjklmùwxcvbn,;:=<", "1234567890°_AZERTYUIOP¨*QSDFGHJKLM%WXCVBN?./+>"],
  italian: ["1234567890'ìqwertyuiopè+asdfghjklòàzxcvbnm,.-<", '!"£$%&/()=?^QWERTYUIOPé*ASDFGHJKLç°ZXCVBNM;:_>'],
  portuguese: ["1234567890'«qwertyuiop+´asdfghjklçºzxcvbnm,.-<", '!"#$%&/()=?»QWERTYUIOP*`ASDFGHJKLÇªZXCVBNM;:_>'],
  brazilian: ["1234567890-=qwertyuiop´[asdfghjklç~zxcvbnm,.;\\", '!@#$%¨&*()_+QWERTYUIOP`{ASDFGHJKLÇ^ZXCVBNM<>:|'],
  swedish: ["1234567890+´qwertyuiopå¨asdfghjklöäzxcvbnm,.-<", '!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÖÄZXCVBNM;:_>'],
  danish: ["1234567890+´qwertyuiopå¨asdfghjklæøzxcvbnm,.-<", '!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÆØZXCVBNM;:_>'],
  norwegian: ["1234567890+\\qwertyuiopå¨asdfghjkløæzxcvbnm,.-<", '!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLØÆZXCVBNM;:_>'],
  czech: ["+ěščřžýáíé=´qwertzuiopú)asdfghjklů§yxcvbnm,.-\\", '1234567890%ˇQWERTZUIOP/(ASDFGHJKL"!YXCVBNM?:_|'],
  slovak: ["+ľščťžýáíé=´qwertzuiopúäasdfghjklô§yxcvbnm,.-&", '1234567890%ˇQWERTZUIOP/(ASDFGHJKL"!YXCVBNM?:_*'],
};
const ALL = Object.values(KEYBOARDS);
/** The positions of these keys in the same order, named as in `KeyboardEvent.code`. */
const POSITIONS = [
  ..."1234567890".split("").map((digit) => `Digit${digit}`), "Minus", "Equal",
  ..."QWERTYUIOP".split("").map((letter) => `Key${letter}`), "BracketLeft", "BracketRight",
  ..."ASDFGHJKL".split("").map((letter) => `Key${letter}`), "Semicolon", "Quote",
  ..."ZXCVBNM".split("").map((letter) => `Key${letter}`), "Comma", "Period", "Slash", "IntlBackslash",
];
/** What a numeric pad types, whatever the layout. */
const PAD = { NumpadDecimal: ".", NumpadSubtract: "-" };

/** What a key types on an American keyboard, or "" if the system does not say which key it was. */
export function american({ code, shiftKey }) {
  if (/^Numpad\d$/.test(code)) return code.at(-1);
  return PAD[code] ?? KEYBOARDS.american[Number(shiftKey)][POSITIONS.indexOf(code)] ?? "";
}

const turn = (letter) => (letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase());
/** How Caps Lock changes letters: all of them on some systems; on others only those without a second character. */
const turned = (text) => [/\p{L}/gu, /[a-z]/gi].map((letters) => text.replace(letters, turn));

/** A text with every shift lost. */
export const folded = (text) => text.toLowerCase().replaceAll("_", "-");

/** Maps what a device reads to what a scanner meant: with shifts as they came, with all inverted, and with all lost. */
function table(device, scanner) {
  const [kept, locked, lost] = [new Map(), new Map(), new Map()];
  for (let key = 0; key < device[0].length; key += 1) {
    for (const level of [1, 0]) {
      kept.set(device[level][key], scanner[level][key]);
      locked.set(device[level][key], scanner[1 - level][key]);
    }
    // French scanners type digits and the full stop with shift.
    const [plain, shifted] = [scanner[0][key], scanner[1][key]];
    const isShifted = scanner[0][0] !== "1" && /[0-9.]/.test(shifted);
    lost.set(device[0][key], folded(isShifted ? shifted : plain));
  }
  return { kept, locked, lost };
}

let tables = null;

/** All pairs of layouts: the device's and the scanner's. */
const pairs = () => (tables ??= ALL.flatMap((device) => ALL.map((scanner) => table(device, scanner))));

const through = (map, text) => {
  let meant = "";
  for (const one of text) meant += map.get(one) ?? " ";
  return meant;
};

const LOOSE = new RegExp(QR.source, "i");

/**
 * Returns what `keys`, typed at these `positions`, may mean: `readings` in the form of a ticket's QR, likeliest first, and, if
 * every shift may have been lost, `loose`: what the QR may be apart from its shifts.
 */
export function readingsOf(keys, positions) {
  const readings = new Set();
  const add = (text) => {
    const [found] = QR.exec(text) ?? [];
    if (found && !readings.has(found) && parse(found)) readings.add(found);
  };
  const ways = [keys, ...turned(keys)];
  for (const text of [keys, positions, ...ways]) add(trimmed(text));
  const byPosition = pairs().slice(0, ALL.length);
  for (const { kept } of byPosition) add(through(kept, positions));
  for (const { kept, locked } of pairs()) {
    for (const text of ways) add(through(kept, text));
    add(through(locked, keys));
  }
  if (keys !== keys.toLowerCase()) return { readings: [...readings], loose: [] };
  const lost = pairs().map((pair) => LOOSE.exec(through(pair.lost, keys.toLowerCase()))?.[0]).filter(Boolean);
  return { readings: [...readings], loose: [...new Set(lost)] };
}
