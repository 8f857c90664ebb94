// What every page must satisfy on small screens and with large text: nothing cut off, nothing overlapping, no word broken, no sideways
// scrolling, every control large enough for a thumb.

import assert from "node:assert/strict";
import { LANGUAGES, rawTexts } from "./harness.mjs";

const SIZES = [[360, 640], [390, 844], [844, 390]];
/** The size of 16 pixels under a browser's text setting: unchanged, and at 200 %. */
const FONTS = [16, 32];

const english = rawTexts("en");
/**
 * The pages' texts in each language, and in words a third longer than the English. One string, because passing thousands to the
 * browser takes longer than measuring them.
 */
const WORDS = JSON.stringify({ english, translations: [...LANGUAGES.filter((language) => language !== "en").map(rawTexts), longer(english)] });

function longer(known) {
  const long = (text) => text.replace(/\S+/g, (word, at) => (word.includes("{") || at % 3 ? word : `${word} ${word}`));
  return Object.fromEntries(Object.entries(known).map(([name, text]) => [name, long(text)]));
}

/** The parts of each page that were passed to `fits`, by the page's own name. */
const looked = new Map();

/**
 * Runs in the page: returns its name, all parts that appear and disappear as a whole, and those visible now. Anything behind a dialog
 * is not.
 */
function partsOf() {
  const parts = [...document.querySelectorAll("dialog, section")];
  const nameOf = (part) => part.id || part.dataset.view || part.className;
  const open = parts.filter((part) => part.open).slice(-1);
  const shown = open.length > 0 ? open : parts.filter((part) => part.checkVisibility());
  const name = document.querySelector("meta[name=register-ticket-api]").content;
  return { name, all: parts.map(nameOf), shown: shown.map(nameOf) };
}

/** Fails unless every dialog, sheet, view and notice of a page was passed to `fits`, on any page of that name. */
export async function allLookedAt(page) {
  const { name, all } = await page.evaluate(partsOf);
  assert.deepEqual(all.filter((part) => !looked.get(name)?.has(part)), [], `all parts of the page ${name} were checked`);
}

/** Fails if what an English page on a phone shows does not fit, at some size or in some language. Restores the page. */
export async function fits(page, name) {
  const { name: kind, shown } = await page.evaluate(partsOf);
  looked.set(kind, new Set([...(looked.get(kind) ?? []), ...shown]));
  // Stays attached: the emulated size would end with it.
  const devtools = await page.context().newCDPSession(page);
  const deviceScaleFactor = await page.evaluate(() => devicePixelRatio);
  // Playwright cannot resize a page that fills the screen, in the headless shell.
  const resize = (size) => devtools.send("Emulation.setDeviceMetricsOverride", { ...size, deviceScaleFactor, mobile: true });
  const words = await page.evaluateHandle(dictionary, WORDS);
  const faults = [];
  for (const [width, height] of SIZES) {
    await resize({ width, height });
    for (const standard of FONTS) {
      await devtools.send("Page.setFontSizes", { fontSizes: { standard, fixed: (standard * 13) / 16 } });
      const found = await page.evaluate(measure, words);
      faults.push(...found.map((fault) => `${width} × ${height}, ${(standard / 16) * 100} %: ${fault}`));
    }
  }
  await devtools.send("Page.setFontSizes", { fontSizes: { standard: 16, fixed: 13 } });
  await resize(page.viewportSize());
  await words.dispose();
  assert.deepEqual([...new Set(faults)], [], `${name} fits`);
}

/**
 * Runs in the page: returns `plain`, a text without superfluous spaces, and for each translation a function that translates what the
 * page says, or returns undefined if it is none of the pages' texts.
 */
function dictionary(words) {
  const { english, translations } = JSON.parse(words);
  const plain = (text) => text.replace(/\s+/g, " ").trim();
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const GAP = /\{[\w.]+\}/g;
  /** The texts with placeholders. One with hardly any other words could match anything. */
  const patterns = Object.entries(english)
    .filter(([, text]) => text.search(GAP) >= 0 && /\p{L}{3}/u.test(text.replace(GAP, "")))
    .map(([name, text]) => [name, text.match(GAP), new RegExp(`^${text.split(GAP).map(escaped).join("(.+?)")}$`, "s")]);

  /** The same text in another language, with its placeholders filled. */
  function filled(data, others) {
    for (const [name, gaps, pattern] of patterns) {
      const match = pattern.exec(data);
      if (match) return gaps.reduce((text, gap, at) => text.replace(gap, match[at + 1]), others[name]);
    }
    return undefined;
  }

  const translators = translations.map((others) => {
    const known = new Map(Object.entries(english).map(([name, text]) => [plain(text), others[name]]));
    return (said) => {
      const data = plain(said);
      if (!known.has(data)) known.set(data, filled(data, others));
      return known.get(data);
    };
  });
  return { plain, translators };
}

/** Runs in the page: returns what does not fit, with its own texts and with others in their place. */
function measure({ plain, translators }) {
  const DEVIATION = 1.5; // pixels, of rounding
  const THUMB = 44;
  const box = (left, top, right, bottom) => ({ left, top, right, bottom });
  const nameOf = (element) => {
    const who = element.id ? `#${element.id}` : `${element.tagName.toLowerCase()}${element.className?.split ? `.${element.className}` : ""}`;
    return `${who} “${plain(element.textContent).slice(0, 40)}”`;
  };
  const dialogs = [...document.querySelectorAll("dialog[open]")];
  const root = dialogs.at(-1) ?? document.body;
  const styles = new Map();
  const styleOf = (element) => {
    if (!styles.has(element)) styles.set(element, getComputedStyle(element));
    return styles.get(element);
  };
  const isShown = (element) =>
    element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true }) && !element.closest(".visually-hidden, svg, noscript");
  const ancestors = function* (element) {
    for (let at = element; at; at = at.parentElement) yield at;
  };
  const isApart = (element) => ["fixed", "sticky"].includes(styleOf(element).position);
  const layerOf = (element) => [...ancestors(element)].find((at) => isApart(at) || at === root) ?? root;
  /** The element's scroll container: beyond its edge the element is not visible. */
  const frameOf = (element) => [...ancestors(element)].find((at) => at === root || /auto|scroll/.test(styleOf(at).overflowY)) ?? root;
  const isCutOnPurpose = (element) =>
    [...ancestors(element)].some((at) => styleOf(at).webkitLineClamp !== "none" || styleOf(at).textOverflow === "ellipsis");

  /** Where an element can be seen, scrolling if possible: sideways only where that is intended. */
  function room(element) {
    const room = box(0, 0, innerWidth, innerHeight);
    let fixed = false;
    for (const at of ancestors(element)) {
      if (styleOf(at).position === "fixed") fixed = true;
      const { overflowX, overflowY } = styleOf(at);
      const scrolls = /auto|scroll/;
      if (scrolls.test(overflowX) && at !== root && at.tabIndex >= 0) Object.assign(room, { left: -Infinity, right: Infinity });
      if (scrolls.test(overflowY) && at !== document.body && at.clientHeight > THUMB) return Object.assign(room, { top: -Infinity, bottom: Infinity });
    }
    const { overflowY } = styleOf(document.body);
    if (!fixed && overflowY !== "hidden") Object.assign(room, { top: -scrollY, bottom: Infinity });
    return room;
  }

  /** What hides the overflowing part of an element. */
  function cutBy(element, rect) {
    const { left, top, right, bottom } = room(element);
    if (rect.left < left - DEVIATION || rect.right > right + DEVIATION) return "the screen's side";
    if (rect.top < top - DEVIATION || rect.bottom > bottom + DEVIATION) return "the screen's end";
    for (const at of ancestors(element)) {
      const { overflowX, overflowY, position } = styleOf(at);
      if (position === "fixed") break; // nothing around it clips it
      if (at === element) continue;
      if (at === document.documentElement || at === document.body) break;
      const outer = at.getBoundingClientRect();
      // In a scroll container, everything can be reached except what lies before its start.
      if (/auto|scroll/.test(overflowY) && at.clientHeight > THUMB) return rect.top < outer.top - at.scrollTop - DEVIATION ? nameOf(at) : null;
      if (/hidden|clip/.test(overflowX) && (rect.left < outer.left - DEVIATION || rect.right > outer.right + DEVIATION)) return nameOf(at);
      if (/hidden|clip/.test(overflowY) && (rect.top < outer.top - DEVIATION || rect.bottom > outer.bottom + DEVIATION)) return nameOf(at);
    }
    return null;
  }

  const faults = new Set();
  const fault = (what, element, more = "") => faults.add(`${what}: ${nameOf(element)} ${more}`.trim());

  function texts() {
    const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode;
      if (plain(node.data) && isShown(node.parentElement)) found.push(node);
    }
    return found;
  }

  function checkTexts(nodes) {
    for (const node of nodes) {
      const element = node.parentElement;
      if (["OPTION", "SCRIPT", "STYLE", "TEXTAREA"].includes(element.tagName) || isCutOnPurpose(element)) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const cut = cutBy(element, range.getBoundingClientRect());
      if (cut) fault("cut", element, `by ${cut}`);
      for (const { 0: word, index } of node.data.matchAll(/[\p{L}\p{M}_]+/gu)) {
        if (word.length > 24 || word.includes("_")) continue; // a name, such as a setting's, not a word
        // Where a word is broken at a soft hyphen, the hyphen is drawn in the box of the next part.
        range.setStart(node, node.data[index - 1] === "\u00ad" ? index + 1 : index);
        range.setEnd(node, index + word.length);
        const parts = [...range.getClientRects()].filter(({ width }) => width > 0);
        if (parts.some(({ top, height }) => top > parts[0].top + height / 2)) fault("broken word", element, word);
      }
    }
  }

  const ownerOf = (node) => (node.nodeType === Node.TEXT_NODE ? node.parentElement : node);

  /** Finds overlapping texts and fields. Elements that stay while the rest scrolls below them form a layer of their own. */
  function checkOverlaps(nodes) {
    const boxes = nodes.filter((node) => !isCutOnPurpose(node.parentElement)).flatMap((node) => {
      const range = document.createRange();
      range.selectNodeContents(node);
      return [...range.getClientRects()].map((rect) => ({ node, rect, layer: layerOf(node.parentElement), frame: frameOf(node.parentElement) }));
    });
    for (const field of root.querySelectorAll("input, select, textarea")) {
      if (isShown(field) && field.type !== "checkbox") boxes.push({ node: field, rect: field.getBoundingClientRect(), layer: layerOf(field), frame: frameOf(field) });
    }
    boxes.sort((a, b) => a.rect.top - b.rect.top);
    boxes.forEach((one, at) => {
      for (let next = at + 1; next < boxes.length && boxes[next].rect.top < one.rect.bottom - 3; next += 1) {
        const other = boxes[next];
        const wide = Math.min(one.rect.right, other.rect.right) - Math.max(one.rect.left, other.rect.left);
        const high = Math.min(one.rect.bottom, other.rect.bottom) - other.rect.top;
        const lines = Math.min(one.rect.height, other.rect.height);
        if (one.node !== other.node && one.layer === other.layer && one.frame === other.frame && wide > 2 && high > lines * 0.3) {
          fault("overlaps", ownerOf(one.node), nameOf(ownerOf(other.node)));
        }
      }
    });
  }

  function checkTargets() {
    const css = "a[href], a[data-view], button, input, select, textarea, summary, [tabindex='0']";
    for (const target of root.querySelectorAll(css)) {
      if (!isShown(target)) continue;
      const rect = target.getBoundingClientRect();
      const cut = cutBy(target, rect);
      if (cut && target.tabIndex >= 0 && !target.matches("[role=region]")) fault("cut", target, `by ${cut}`);
      if (target.matches("[role=region]") || (target.tagName === "A" && styleOf(target).display === "inline")) continue;
      const area = target.matches("[type=checkbox], [type=radio]") ? withSurroundings(target) : rect;
      if (area.width < THUMB - 0.5 || area.height < THUMB - 0.5) {
        fault("small", target, `${Math.round(area.width)} × ${Math.round(area.height)}`);
      }
    }
  }

  /** A checkbox is small; together with its label and margin it is not. */
  function withSurroundings(box) {
    const { marginTop, marginBottom, marginLeft, marginRight } = styleOf(box);
    const { width, height } = box.getBoundingClientRect();
    const [label] = box.labels;
    const beside = label?.getBoundingClientRect() ?? { width: 0, height: 0 };
    return {
      width: Math.max(width + parseFloat(marginLeft) + parseFloat(marginRight), width + beside.width),
      height: Math.max(height + parseFloat(marginTop) + parseFloat(marginBottom), beside.height),
    };
  }

  /** Fixed elements must leave room for what scrolls. */
  function checkLayers() {
    const staying = [...root.querySelectorAll("*")].filter((element) => isShown(element) && isApart(element) && element.innerText.trim());
    const heights = staying.filter((element) => !staying.some((other) => other !== element && other.contains(element))).map((element) => element.getBoundingClientRect().height);
    // One that covers everything is a page of its own.
    const total = heights.filter((height) => height < innerHeight - 1).reduce((sum, height) => sum + height, 0);
    if (total > innerHeight / 2 && root.scrollHeight > innerHeight) faults.add(`what stays takes ${Math.round(total)} of ${innerHeight}`);
  }

  function check() {
    styles.clear();
    const { scrollWidth, clientWidth } = document.documentElement;
    if (scrollWidth > clientWidth) {
      const wide = [...root.querySelectorAll("*")].filter((element) => element.getBoundingClientRect().right > clientWidth + 1);
      faults.add(`the page is ${scrollWidth} wide, by ${wide.slice(0, 3).map(nameOf).join(", ")}`);
    }
    if (root !== document.body && root.scrollWidth > root.clientWidth) fault(`${root.scrollWidth} wide`, root);
    const nodes = texts();
    checkTexts(nodes);
    checkOverlaps(nodes);
    checkTargets();
    checkLayers();
  }

  /** Replaces texts, runs `during`, and restores them. */
  function inOtherWords(translated, during) {
    const said = new Map(texts().map((node) => [node, node.data]));
    for (const [node, data] of said) node.data = translated(data) ?? data;
    during();
    for (const [node, data] of said) node.data = data;
  }

  check();
  for (const translated of translators) inOtherWords(translated, check);
  return [...faults];
}
