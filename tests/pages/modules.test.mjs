// Every name that a module imports is exported: if one is missing, a browser runs nothing of the page.

import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";

const PAGES = new URL("../../src/pages/", import.meta.url);
const modules = fs.readdirSync(PAGES, { recursive: true }).filter((file) => file.endsWith(".js") && !file.includes("vendor"));
const source = (url) => fs.readFileSync(url, "utf8");

/** The names that a module exports. The vendored ones list theirs at the end. */
function given(text) {
  const declared = [...text.matchAll(/^export (?:async )?(?:const|let|class|function\*?) (\w+)/gm)].map(([, name]) => name);
  const listed = [...text.matchAll(/export\s*\{([^}]*)\}/g)].flatMap(([, names]) => names.split(",").map((name) => name.trim().split(" as ").at(-1)));
  return new Set([...declared, ...listed]);
}

test("every name that a module takes from another is given there", () => {
  let taken = 0;
  for (const file of modules) {
    const url = new URL(file, PAGES);
    for (const [, names, from] of source(url).matchAll(/^import \{([^}]*)\} from "([^"]+)";/gm)) {
      const gives = given(source(new URL(from, url)));
      for (const name of names.split(",").map((name) => name.trim().split(" as ")[0]).filter(Boolean)) {
        assert.ok(gives.has(name), `${file} takes ${name} from ${from}, which does not give it`);
        taken += 1;
      }
    }
  }
  assert.ok(taken > 100, `${taken} names were looked at`);
});

/** The paths of a module and of everything it loads, at once or later. */
function loads(file, known = new Set()) {
  const url = new URL(file, PAGES);
  const path = url.href.slice(PAGES.href.length);
  if (known.has(path)) return known;
  known.add(path);
  for (const [, from] of source(url).matchAll(/(?:^import [^"]*|import\()"(\.[^"]+)"/gm)) loads(new URL(from, url).href, known);
  return known;
}

// The browser's own cache would hide a missing file for a while.
for (const page of ["gate", "ticket"]) {
  test(`the ${page}'s page names every module that it loads, since without a network it has no others`, () => {
    const named = [...source(new URL(`${page}/${page}.html`, PAGES)).matchAll(/(?:modulepreload" href|module" src)="\{\{assets\}\}\/([^"]+)"/g)];
    assert.deepEqual(named.map(([, path]) => path).sort(), [...loads(`${page}/${page}.js`)].sort());
  });
}

test("the card for the night says what the pages say, in its two languages", () => {
  const cards = { en: ["card.md", /"([^"]+)"/g], es: ["card.es.md", /«([^»]+)»/g] };
  for (const [language, [file, quote]] of Object.entries(cards)) {
    const card = source(new URL(`../../docs/${file}`, import.meta.url));
    const texts = Object.values(JSON.parse(source(new URL(`text/${language}.json`, PAGES))));
    const quoted = [...card.matchAll(quote)].map(([, words]) => words);
    assert.ok(quoted.length >= 9, `${language}: ${quoted}`);
    for (const words of quoted) {
      const [begin, end] = words.split("…").map((part) => part.trim());
      const isSaid = (text) => (end === undefined ? text === words : text.startsWith(begin) && text.includes(end));
      assert.ok(texts.some((text) => typeof text === "string" && isSaid(text)), `${language}: no page says “${words}”`);
    }
  }
});
