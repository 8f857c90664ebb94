// What the browser writes to a device's disk during work, as anyone who gets the device could find it.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { chromium } from "playwright-core";
import { LAUNCH, service } from "./harness.mjs";
import { Gate, Organizer, en } from "./people.mjs";

/** A text that is certainly on the disk; otherwise the tests look in the wrong place. */
const MARK = "a mark for whoever looks";

/**
 * A browser with a profile on the disk. `closed` closes it and returns which of the texts are in which files.
 */
async function profile(t, { url }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "profile-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  const context = await chromium.launchPersistentContext(folder, { ...LAUNCH, baseURL: url, locale: "en-GB", permissions: ["camera"] });
  t.after(() => context.close());
  const closed = async (...texts) => {
    await page.evaluate((mark) => {
      localStorage.setItem("mark", mark);
      sessionStorage.setItem("mark", mark);
      return new Promise((resolve) => {
        const request = indexedDB.open("mark");
        request.onupgradeneeded = () => request.result.createObjectStore("mark").put(mark, 1);
        request.onsuccess = resolve;
      });
    }, MARK);
    await context.close();
    const places = filesWith(folder, MARK).map((file) => file.split(path.sep)[1]);
    assert.deepEqual([...new Set(places)].sort(), ["IndexedDB", "Local Storage", "Session Storage"]);
    return texts.flatMap((text) => filesWith(folder, text).map((file) => `${text} in ${file}`));
  };
  const page = await context.newPage();
  return { page, closed };
}

/** The files that contain a text, in either encoding that Chromium writes. */
function filesWith(folder, text) {
  const forms = [Buffer.from(text, "utf8"), Buffer.from(text, "utf16le")];
  const files = fs.readdirSync(folder, { recursive: true }).filter((file) => fs.statSync(path.join(folder, file)).isFile());
  return files.filter((file) => {
    const bytes = fs.readFileSync(path.join(folder, file));
    return forms.some((form) => bytes.includes(form));
  });
}

test("the organizer's key is nowhere on the disk", async (t) => {
  const tickets = await service(t);
  const { page, closed } = await profile(t, tickets);
  await Organizer.at(t, tickets, { page: () => page });
  await page.locator("#bar").waitFor();
  assert.deepEqual(await closed(tickets.key), []);
});

test("neither names nor keys nor codes of a gate are on the disk, online or offline", async (t) => {
  const tickets = await service(t);
  await tickets.api("POST", "/api/events/default/tickets", "seat,gate\nA-1,North\nA-2,North\n");
  const ana = await tickets.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe Quintana" });
  const bob = await tickets.register({ seat: "A-2", gate: "North", username: "bob", full_name: "Bob Poe Balboa" });
  const { page, closed } = await profile(t, tickets);
  let key = null;
  page.on("request", (request) => (key = /rtk_.*/.exec(request.headers().authorization ?? "")?.[0] ?? key));
  const gate = await Gate.at(t, tickets, { page: () => page });
  await gate.readyForOffline("2");
  const codes = [tickets.code(ana), tickets.code(bob)];
  await gate.reads(codes[0]);
  await gate.goesOn();
  await tickets.stop();
  await gate.reads(codes[1]);
  await gate.goesOn();
  await gate.sees(en("gate.queued", { n: 1 }));
  assert.match(key, /^rtk_/);
  const people = ["Ana Roe Quintana", "Bob Poe Balboa"];
  assert.deepEqual(await closed(key, ...people, ana.provisioning.secret, bob.provisioning.secret, ...codes), []);
});
