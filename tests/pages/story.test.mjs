// A ticket's whole journey, from the import to the door, as the people who use the pages make
// it.

import assert from "node:assert/strict";
import { test } from "node:test";
import { LANGUAGES, accessible, eventually, forBothDatabases, service, texts } from "./harness.mjs";
import { DECODERS, Gate, Holder, Organizer, en, fromTheImportToTheDoor } from "./people.mjs";

const SEATS = "seat,gate,username,full_name,email\n";

forBothDatabases("from the import to the door", fromTheImportToTheDoor);

for (const [decoder, script] of Object.entries(DECODERS)) {
  test(`the camera reads a ticket with ${decoder}`, async (t) => {
    const tickets = await service(t);
    await tickets.api("POST", "/api/events/default/tickets", `${SEATS}A-1,North,,,\n`);
    const { provisioning } = await tickets.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe" });
    const holder = await Holder.at(t, tickets, provisioning.ticket_url);
    await holder.sees("Ana Roe");
    const gate = await Gate.at(t, tickets, { script });
    assert.match(await gate.scans(await holder.code()), new RegExp(en("result.accepted")));
    const detected = await gate.page.evaluate(() => globalThis.detected ?? 0);
    assert.equal(detected > 0, decoder === "the browser's detector", "it was read with the intended decoder");
  });
}

forBothDatabases("a gate without a network", async (t, service) => {
  await service.api("POST", "/api/events/default/tickets", `${SEATS}A-1,North,,,\nA-2,North,,,\nA-3,North,,,\n`);
  const [ana, bob, eve] = await Promise.all(
    ["ana", "bob", "eve"].map((username, at) => service.register({ seat: `A-${at + 1}`, gate: "North", username })),
  );
  const holder = await Holder.at(t, service, ana.provisioning.ticket_url);
  await holder.isKept();
  const gate = await Gate.at(t, service);
  await gate.readyForOffline(3);

  await service.stop();
  await holder.page.reload();
  await holder.sees(en("ticket.offline"));
  const first = await gate.scans(await holder.code());
  assert.match(first, new RegExp(`${en("result.accepted")}[^]*ana[^]*${en("gate.tag_offline")}`));
  await gate.goesOn();
  assert.match(await gate.types("A-1", service.code(ana)), new RegExp(en("result.just_admitted")));
  await gate.goesOn();

  await gate.page.reload();
  await gate.sees(en("gate.offline"));
  assert.match(await gate.reads(service.code(bob)), new RegExp(`${en("result.accepted")}[^]*bob`));
  await gate.goesOn();
  assert.match(await gate.types("A-2", service.code(bob)), new RegExp(en("result.just_admitted")));
  await gate.goesOn();
  await gate.sees(en("gate.queued", { n: 4 }));
  assert.match(await gate.reads("no code of ours"), new RegExp(en("result.unknown_ticket")));
  await gate.goesOn();

  await service.start();
  await gate.sees(en("gate.online"));
  const verdicts = await eventually(async () => {
    const scans = await service.rows("/api/events/default/scans.csv");
    assert.equal(scans.length, 5);
    return scans.sort((a, b) => a.scanned_at.localeCompare(b.scanned_at));
  });
  assert.deepEqual(
    verdicts.map(({ seat, result, offline_result }) => ({ seat, result, offline_result })),
    [
      { seat: "A-1", result: "accepted", offline_result: "accepted" },
      { seat: "A-1", result: "already_used", offline_result: "already_used" },
      { seat: "A-2", result: "accepted", offline_result: "accepted" },
      { seat: "A-2", result: "already_used", offline_result: "already_used" },
      { seat: "", result: "unknown_ticket", offline_result: "unknown_ticket" },
    ],
  );
  assert.match(await gate.reads(service.code(eve)), new RegExp(en("result.accepted")));
  const stats = await service.api("GET", "/api/events/default/stats");
  assert.equal(stats.admitted, 3);
});

forBothDatabases("one ticket at two gates without a network is a conflict that the organizer sees", async (t, service) => {
  await service.api("POST", "/api/events/default/tickets", `${SEATS}A-1,North,,,\n`);
  const ana = await service.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe" });
  const gates = [];
  for (const name of ["Left door", "Right door"]) gates.push(await Gate.at(t, service, { key: { name } }));
  for (const gate of gates) await gate.readyForOffline(1);
  await service.kill();
  for (const gate of gates) {
    assert.match(await gate.reads(service.code(ana)), new RegExp(en("result.accepted")));
    await gate.goesOn();
  }
  await service.start();
  const conflict = await eventually(async () => {
    const { conflicts } = await service.api("GET", "/api/events/default/conflicts");
    assert.equal(conflicts.length, 1);
    return conflicts[0];
  });
  assert.equal(conflict.offline_result, "accepted");
  assert.equal(conflict.result, "already_used");
  const organizer = await Organizer.at(t, service);
  await organizer.open("board");
  await organizer.sees("Ana Roe");
  await organizer.sees(conflict.key_name);
  await accessible(organizer.page);
});

forBothDatabases("a ticket without JavaScript", async (t, service) => {
  await service.api("POST", "/api/events/default/tickets", `${SEATS}A-1,North,,,\n`);
  const { provisioning } = await service.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe" });
  const holder = await Holder.at(t, service, provisioning.ticket_url, { javaScriptEnabled: false });
  await holder.sees("Ana Roe");
  const refresh = await holder.page.locator("meta[http-equiv=refresh]").getAttribute("content");
  assert.ok(Number(refresh) >= 1 && Number(refresh) <= 31, `the page reloads with the next code, in ${refresh} s`);
  const gate = await Gate.at(t, service);
  assert.match(await gate.scans(await holder.code()), new RegExp(en("result.accepted")));
  await holder.page.reload();
  await holder.sees(en("ticket.used"));
});

for (const language of LANGUAGES) {
  test(`every page speaks to a visitor from Colombia in ${language}`, async (t) => {
    const tickets = await service(t);
    const text = texts(language);
    await tickets.api("POST", "/api/events/default/tickets", `${SEATS}A-1,Norte,,,\n`);
    const { provisioning } = await tickets.register({ seat: "A-1", gate: "Norte", username: "ana" });
    const holder = await Holder.at(t, tickets, provisioning.ticket_url, { locale: `${language}-CO` });
    for (const [path, says] of [
      [provisioning.ticket_url, text("ticket.authenticator")],
      ["/", text("home.gate")],
      ["/gate", text("gate.enrol_title")],
      ["/organizer", text("organizer.sign_in")],
      ["/t/nothing", text("gone.title")],
    ]) {
      await holder.page.goto(path);
      await holder.sees(says);
      assert.equal(await holder.page.locator("html").getAttribute("lang"), language);
      const shown = await holder.page.locator("body").innerText();
      assert.doesNotMatch(shown, /\b(home|gate|ticket|gone|organizer|result)\.[a-z_]+\b/, "no text is missing");
    }
  });
}

test("a hostile name is shown as what it is and breaks nothing", async (t) => {
  const tickets = await service(t);
  const name = `<img src=x onerror=alert(1)>\u202e\u2067${"Wolfeschlegelsteinhausenbergerdorff ".repeat(6)}`.slice(0, 199).trim();
  await tickets.api("POST", "/api/events/default/tickets", `${SEATS}A-1,North,,,\n`);
  const ana = await tickets.register({ seat: "A-1", gate: "North", username: "ana", full_name: name });
  const holder = await Holder.at(t, tickets, ana.provisioning.ticket_url);
  const gate = await Gate.at(t, tickets);
  const organizer = await Organizer.at(t, tickets, { viewport: { width: 390, height: 844 } });
  await gate.reads(tickets.code(ana));
  await organizer.open("tickets");
  for (const { page } of [holder, gate, organizer]) {
    await page.getByText("<img src=x onerror=alert(1)>").filter({ visible: true }).first().waitFor();
    const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(content <= screen, `${page.url()} is ${content} wide on a screen of ${screen}`);
    assert.equal(await page.locator("img[src=x]").count(), 0);
    await accessible(page);
  }
});
