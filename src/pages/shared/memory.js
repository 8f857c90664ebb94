// What a page remembers between visits. If the browser stores nothing for a site, it throws, and things last one visit.

const here = new Map();

export function recall(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return here.get(name) ?? null;
  }
}

export function remember(name, value) {
  here.set(name, String(value));
  try {
    localStorage.setItem(name, value);
  } catch {
    // It has to be learned again at the next visit.
  }
}

export function forget(name) {
  here.delete(name);
  try {
    localStorage.removeItem(name);
  } catch {
    // Nothing was stored.
  }
}
