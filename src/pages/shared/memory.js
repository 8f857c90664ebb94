// What a page remembers from one visit to the next. A browser that keeps nothing for a site throws: then it lasts one visit.

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
    // Then it is learned anew at the next visit.
  }
}

export function forget(name) {
  here.delete(name);
  try {
    localStorage.removeItem(name);
  } catch {
    // There is nothing.
  }
}
