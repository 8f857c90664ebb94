// What a hand-held scanner may have meant. It types as a keyboard of one country, and the device reads it as that of another:
// keys change places, Caps Lock turns the letters over, some lose the shift. Each reading is only another spelling of what was
// typed; which of them is a ticket, the list or the service knows.

import { QR, parse, trimmed } from "./admission.js";

/**
 * Keyboards: what their keys give alone, and with shift, in the order of the American keys from `1` to `=`, `q` to `]`, `a` to
 * `'`, `z` to `/`, and the one that others have beside the left shift.
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
/** The keys by their positions, as `KeyboardEvent.code` names them, in the same order. */
const POSITIONS = [
  ..."1234567890".split("").map((digit) => `Digit${digit}`), "Minus", "Equal",
  ..."QWERTYUIOP".split("").map((letter) => `Key${letter}`), "BracketLeft", "BracketRight",
  ..."ASDFGHJKL".split("").map((letter) => `Key${letter}`), "Semicolon", "Quote",
  ..."ZXCVBNM".split("").map((letter) => `Key${letter}`), "Comma", "Period", "Slash", "IntlBackslash",
];
/** What a numeric pad gives, whatever the keyboard. */
const PAD = { NumpadDecimal: ".", NumpadSubtract: "-" };

/** What a key would have typed on an American keyboard, or "" where the system does not know which key it was. */
export function american({ code, shiftKey }) {
  if (/^Numpad\d$/.test(code)) return code.at(-1);
  return PAD[code] ?? KEYBOARDS.american[Number(shiftKey)][POSITIONS.indexOf(code)] ?? "";
}

const turn = (letter) => (letter === letter.toUpperCase() ? letter.toLowerCase() : letter.toUpperCase());
/** What Caps Lock does to letters: on some systems to all of them, on others only to those that have no second character. */
const turned = (text) => [/\p{L}/gu, /[a-z]/gi].map((letters) => text.replace(letters, turn));

/** How a text looks when every shift is lost. */
export const folded = (text) => text.toLowerCase().replaceAll("_", "-");

/** By what a device reads, what a scanner meant: with shifts as they came, with all of them turned over, and with none. */
function table(device, scanner) {
  const [kept, locked, lost] = [new Map(), new Map(), new Map()];
  for (let key = 0; key < device[0].length; key += 1) {
    for (const level of [1, 0]) {
      kept.set(device[level][key], scanner[level][key]);
      locked.set(device[level][key], scanner[1 - level][key]);
    }
    // A French scanner types its digits and its stop with shift.
    const [plain, shifted] = [scanner[0][key], scanner[1][key]];
    const isShifted = scanner[0][0] !== "1" && /[0-9.]/.test(shifted);
    lost.set(device[0][key], folded(isShifted ? shifted : plain));
  }
  return { kept, locked, lost };
}

let tables = null;

/** All pairs of keyboards: what the device reads as, and what the scanner types as. */
const pairs = () => (tables ??= ALL.flatMap((device) => ALL.map((scanner) => table(device, scanner))));

const through = (map, text) => {
  let meant = "";
  for (const one of text) meant += map.get(one) ?? " ";
  return meant;
};

const LOOSE = new RegExp(QR.source, "i");

/**
 * What `keys` may mean, which lie at these `positions`: the `readings` that have the form of a ticket's QR, the likeliest first, and,
 * where every shift may have been lost, what the QR may be but for its shifts (`loose`).
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
