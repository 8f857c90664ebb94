// Elements without HTML strings: whatever comes from the database is text, and stays text.

/** The first element that a selector finds. */
export const find = (selector, within = document) => within.querySelector(selector);

/**
 * A new element. `properties` are set as properties (`className`, `textContent`, `hidden`, `onclick`), or as attributes
 * where their names have a dash or begin with `aria`; children are nodes or strings.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role" || name === "for") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}
