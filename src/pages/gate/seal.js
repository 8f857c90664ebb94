// How what a gate keeps is sealed: with AES-GCM, under a key that the browser uses for this page and hands out to nobody, not
// even to the page. Without the key, which IndexedDB keeps, the rest is noise. WebCrypto needs a secure context.

const CIPHER = { name: "AES-GCM", length: 256 };
const IV = 12;

/** Whether this browser can seal anything here. */
export const canSeal = () => Boolean(globalThis.crypto?.subtle);

export const newCipher = () => crypto.subtle.generateKey(CIPHER, false, ["encrypt", "decrypt"]);

/** Seals anything that JSON can say: a nonce, never used twice, and what it made of the text. */
export async function seal(cipher, value) {
  const iv = crypto.getRandomValues(new Uint8Array(IV));
  const text = new TextEncoder().encode(JSON.stringify(value));
  const made = new Uint8Array(await crypto.subtle.encrypt({ ...CIPHER, iv }, cipher, text));
  const sealed = new Uint8Array(IV + made.length);
  sealed.set(iv);
  sealed.set(made, IV);
  return sealed;
}

/** What was sealed. Throws for what this key has not sealed. */
export async function unseal(cipher, sealed) {
  const how = { ...CIPHER, iv: sealed.subarray(0, IV) };
  return JSON.parse(new TextDecoder().decode(await crypto.subtle.decrypt(how, cipher, sealed.subarray(IV))));
}

/** Tells sealed things apart, without opening them. */
export const nonceOf = (sealed) => sealed.subarray(0, IV).join();

/** What makes pseudonyms: a key of the browser's, as that which seals. */
export const newPseudonyms = () => crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256", length: 256 }, false, ["sign"]);

/** By which somebody is known again on this device, and is not found out, however short the name. */
export async function pseudonym(key, name) {
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(name))).subarray(0, IV).join();
}

/** By which a secret of many random bits is known again, and not found out. */
export async function fingerprint(secret) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(secret))).subarray(0, IV).join();
}

/** Proves that whoever has this key of a device wrote a text: as `proves` in src/auth.rs wants it, in base64url. */
export async function prove(key, text) {
  const bytes = Uint8Array.from(atob(key.replace("rtk_", "").replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
  const hash = await crypto.subtle.digest("SHA-256", bytes);
  const mac = await crypto.subtle.importKey("raw", hash, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const made = new Uint8Array(await crypto.subtle.sign("HMAC", mac, new TextEncoder().encode(text)));
  return btoa(String.fromCharCode(...made)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
