// A ticket's journey in other makers' browsers. Their limits here: neither has a camera, so the page itself draws a film in
// its place, and WebKitGTK's windows are at least 450 pixels wide.

import assert from "node:assert/strict";
import { test } from "node:test";
import { eventually, service } from "./harness.mjs";
import { Gate, Holder, en, fromTheImportToTheDoor } from "./people.mjs";

const SEATS = "seat,gate,username,full_name,email\n";

for (const engine of ["firefox", "webkit"]) {
  test(`from the import to the door, in ${engine}`, async (t) => fromTheImportToTheDoor(t, await service(t), { engine }));

  test(`a gate without a network, in ${engine}`, async (t) => {
    const tickets = await service(t);
    await tickets.api("POST", "/api/events/default/tickets", `${SEATS}A-1,North,,,\n`);
    const ana = await tickets.register({ seat: "A-1", gate: "North", username: "ana" });
    const holder = await Holder.at(t, tickets, ana.provisioning.ticket_url, { engine });
    await holder.isKept();
    const enlarge = holder.page.getByRole("button", { name: en("ticket.enlarge") });
    for (const large of ["true", "false"]) {
      await enlarge.click();
      await eventually(async () => assert.equal(await enlarge.getAttribute("aria-pressed"), large));
    }
    const gate = await Gate.at(t, tickets, { engine });
    await gate.readyForOffline(1);

    await tickets.stop();
    await holder.page.reload();
    await holder.sees(en("ticket.offline"));
    assert.equal(await holder.digits(), tickets.code(ana).slice(-6));
    await gate.page.reload();
    await gate.sees(en("gate.offline"));
    assert.match(await gate.reads(tickets.code(ana)), new RegExp(en("result.accepted")));
    await gate.goesOn();
    assert.match(await gate.types("A-1", tickets.code(ana)), new RegExp(en("result.just_admitted")));
    await gate.goesOn();
    await gate.sees(en("gate.queued", { n: 2 }));

    await tickets.start();
    await gate.sees(en("gate.online"));
    const scans = await eventually(async () => {
      const rows = await tickets.rows("/api/events/default/scans.csv");
      assert.equal(rows.length, 2);
      return rows.map(({ result, offline_result }) => `${offline_result} ${result}`).sort();
    });
    assert.deepEqual(scans, ["accepted accepted", "already_used already_used"]);
  });
}
