// How the gate's stored data is sealed: with AES-GCM, under a key that the browser uses for this page but never exports, not
// even to the page. Without that key, which IndexedDB holds, the rest is noise. WebCrypto needs a secure context.

const CIPHER = { name: "AES-GCM", length: 256 };
const IV = 12;

/** Whether this browser can seal anything here. */
export const canSeal = () => Boolean(globalThis.crypto?.subtle);

export const newCipher = () => crypto.subtle.generateKey(CIPHER, false, ["encrypt", "decrypt"]);

/** Seals any JSON value: returns a nonce, never used twice, followed by the ciphertext. */
export async function seal(cipher, value) {
  const iv = crypto.getRandomValues(new Uint8Array(IV));
  const text = new TextEncoder().encode(JSON.stringify(value));
  const made = new Uint8Array(await crypto.subtle.encrypt({ ...CIPHER, iv }, cipher, text));
  const sealed = new Uint8Array(IV + made.length);
  sealed.set(iv);
  sealed.set(made, IV);
  return sealed;
}

/** Opens a sealed value. Throws if another key sealed it. */
export async function unseal(cipher, sealed) {
  const how = { ...CIPHER, iv: sealed.subarray(0, IV) };
  return JSON.parse(new TextDecoder().decode(await crypto.subtle.decrypt(how, cipher, sealed.subarray(IV))));
}

/** Identifies a sealed value without opening it. */
export const nonceOf = (sealed) => sealed.subarray(0, IV).join();

/** Creates the key for pseudonyms, which, like a cipher's, never leaves the browser. */
export const newPseudonyms = () => crypto.subtle.generateKey({ name: "HMAC", hash: "SHA-256", length: 256 }, false, ["sign"]);

/** A pseudonym that recognises a person on this device but does not reveal the name, however short it is. */
export async function pseudonym(key, name) {
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(name))).subarray(0, IV).join();
}

/** A fingerprint that recognises a secret of many random bits but does not reveal it. */
export async function fingerprint(secret) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(secret))).subarray(0, IV).join();
}

/** Proves that the holder of a device's key wrote a text, in base64url, as `proves` in src/auth.rs expects. */
export async function prove(key, text) {
  const bytes = Uint8Array.from(atob(key.replace("rtk_", "").replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
  const hash = await crypto.subtle.digest("SHA-256", bytes);
  const mac = await crypto.subtle.importKey("raw", hash, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const made = new Uint8Array(await crypto.subtle.sign("HMAC", mac, new TextEncoder().encode(text)));
  return btoa(String.fromCharCode(...made)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
