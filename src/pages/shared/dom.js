// Elements without HTML strings: text from the database stays text.

/** The first element that matches a selector. */
export const find = (selector, within = document) => within.querySelector(selector);

/**
 * A new element. `properties` are set as properties (`className`, `textContent`, `hidden`, `onclick`), or as attributes
 * if their names have a dash or are `role`; children are nodes or strings.
 */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** The same for SVG, where everything is an attribute. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Sets a text if it differs: anything with `role="status"` or `role="alert"` is read aloud each time it is set. */
export function say(place, ...words) {
  const said = element("span", {}, ...words);
  if (place.textContent !== said.textContent) place.replaceChildren(...said.childNodes);
}
