// Codes and values derived from their keys, as in src/totp.rs. WebCrypto needs a secure context (HTTPS, localhost).

/** How long a code lasts, in milliseconds. */
export const STEP = 30_000;

/** The step of a moment in milliseconds since 1970. */
export const stepAt = (moment) => Math.floor(moment / STEP);

/** The bytes of base32 without padding (RFC 4648, section 6). */
function base32Bytes(text) {
  const bytes = [];
  let bits = 0;
  let held = 0;
  for (const character of text) {
    bits = (bits << 5) | "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(character);
    held += 5;
    if (held >= 8) {
      held -= 8;
      bytes.push((bits >> held) & 0xff);
    }
  }
  return new Uint8Array(bytes);
}

/** A key for `code`, from base32. */
export const importKey = (base32) =>
  crypto.subtle.importKey("raw", base32Bytes(base32), { name: "HMAC", hash: "SHA-1" }, false, ["sign"]);

/** The code of a step: six digits (RFC 6238; RFC 4226, section 5.3). */
export async function code(key, step) {
  const counter = new DataView(new ArrayBuffer(8));
  counter.setBigUint64(0, BigInt(step));
  const mac = new DataView(await crypto.subtle.sign("HMAC", key, counter.buffer));
  const number = mac.getUint32(mac.getUint8(19) & 0xf) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

/** HKDF-SHA256 (RFC 5869) of a base32 key, without salt: the proof of a printed ticket. */
export async function derive(base32, info, length) {
  const key = await crypto.subtle.importKey("raw", base32Bytes(base32), "HKDF", false, ["deriveBits"]);
  const how = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(), info: new TextEncoder().encode(info) };
  return new Uint8Array(await crypto.subtle.deriveBits(how, key, length * 8));
}

/** Base64url without padding (RFC 4648, section 5). */
export const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
