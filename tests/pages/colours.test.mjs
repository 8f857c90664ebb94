// Colours other than the pages' own: browsers that darken every page, and systems that choose the colours.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, browser, desktop, eventually, phone, service } from "./harness.mjs";
import { Gate, Organizer, en } from "./people.mjs";

/** A page that Chromium darkens, as a setting of Android's Chromium does with every page. */
async function darkened(t, tickets, options) {
  const context = await (await browser()).newContext({ baseURL: tickets.url, viewport: { width: 390, height: 844 }, ...options });
  t.after(() => context.close());
  const page = await context.newPage();
  await (await context.newCDPSession(page)).send("Emulation.setAutoDarkModeOverride", { enabled: true });
  return page;
}

/** Reads screenshots in a page of its own: the codes in them, and the brightness of their corner. */
async function reader(t, tickets) {
  const page = await desktop(t, tickets);
  await page.goto("/organizer");
  return async (screenshot) => page.evaluate(async (png) => {
    const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt());
    const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
    context.drawImage(image, 0, 0);
    const { Looker } = await import(new URL("../gate/look.js", document.querySelector("script[src]").src));
    const { codes } = new Looker().look(context.getImageData(0, 0, image.width, image.height), 5000);
    const [red, green, blue] = context.getImageData(3, 3, 1, 1).data;
    return { texts: codes.map(({ text }) => text), corner: Math.min(red, green, blue), blackest: blackest(context, image) };

    function blackest(context, { width, height }) {
      const { data } = context.getImageData(0, 0, width, height);
      let least = 255;
      for (let at = 0; at < data.length; at += 4) least = Math.min(least, Math.max(data[at], data[at + 1], data[at + 2]));
      return least;
    }
  }, screenshot.toString("base64"));
}

/** A screenshot of an element. Retried, because its code may just be replaced by the next. */
const picture = (place) => eventually(() => place.screenshot());

async function registered(t) {
  const tickets = await service(t);
  await tickets.api("POST", "/api/events/default/tickets", { seat: "A-1", gate: "North" });
  const ana = await tickets.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe" });
  return { tickets, ana };
}

for (const colorScheme of ["light", "dark"]) {
  test(`a code is black on white where the browser darkens all pages, ${colorScheme}`, async (t) => {
    const { tickets, ana } = await registered(t);
    const read = await reader(t, tickets);
    const isCode = async (place, expected) => {
      const { texts, corner, blackest } = await read(await picture(place));
      assert.equal(texts.length, 1);
      assert.match(texts[0], expected);
      assert.ok(corner > 240 && blackest < 32, `${blackest} on ${corner}`);
    };
    const plain = await darkened(t, tickets, { colorScheme });
    await plain.setContent("<body style='background: #fff'>");
    assert.ok((await read(await plain.screenshot())).corner < 64, "this browser does darken pages");

    for (const javaScriptEnabled of [true, false]) {
      const ticket = await darkened(t, tickets, { colorScheme, javaScriptEnabled });
      await ticket.goto(ana.provisioning.ticket_url);
      await isCode(ticket.locator(".enlarge .qr"), /^RT1\./);
      await ticket.getByText(en("ticket.authenticator"), { exact: true }).click();
      await isCode(ticket.locator(".otpauth .qr"), /^otpauth:/);
    }
    const organizer = await Organizer.at(t, tickets, { page: darkened, colorScheme });
    await organizer.open("tickets");
    await organizer.press("A-1");
    await organizer.press(en("organizer.link_title"));
    await isCode(organizer.page.locator("#link-qr .qr"), /\/t\//);
    await organizer.press(en("organizer.close"), organizer.dialog(en("organizer.link_how")));
    await organizer.press(en("organizer.close"));
    await organizer.page.getByText(en("organizer.hand_out"), { exact: true }).click();
    await organizer.press(en("organizer.print_all"));
    await isCode(organizer.page.locator("#sheet .qr"), /\/t\//);
  });
}

test("where the system chooses the colours, what is chosen looks chosen, and a verdict keeps its own", async (t) => {
  const { tickets, ana } = await registered(t);
  const gate = await Gate.at(t, tickets, { forcedColors: "active" });
  const ground = (id) => gate.page.locator(id).evaluate((button) => getComputedStyle(button).backgroundColor);
  for (const [chosen, other] of [["entry", "exit"], ["exit", "entry"]]) {
    await gate.press(en(`gate.${chosen}`));
    assert.notEqual(await ground(`#${chosen}`), await ground(`#${other}`), `${chosen} is seen to be chosen`);
  }
  await accessible(gate.page);
  await gate.press(en("gate.entry"));
  await gate.reads(tickets.code(ana).replace(/\d{6}$/, "000000"));
  assert.equal(await ground("#verdict"), "rgb(168, 17, 42)");
});

test("a code keeps its colours where the system chooses them", async (t) => {
  const { tickets, ana } = await registered(t);
  const read = await reader(t, tickets);
  const ticket = await phone(t, tickets, { forcedColors: "active", colorScheme: "dark", deviceScaleFactor: 1 });
  await ticket.goto(ana.provisioning.ticket_url);
  const { texts, corner } = await read(await picture(ticket.locator(".enlarge .qr")));
  assert.equal(texts.length, 1);
  assert.ok(corner > 240);
});
