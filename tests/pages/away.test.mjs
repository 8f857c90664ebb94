// Something between a page and the service answers in its place: a restarting proxy, a network that asks for a
// password, a broken connection. Each page goes on with what it knows, and can be opened again.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { AWAY, behindProxy, desktop, eventually, phone } from "./harness.mjs";
import { Gate, Holder, Organizer, en } from "./people.mjs";

const CSV = "seat,gate\nA-1,North\nA-2,North\nA-3,North\n";

/** A service behind a proxy, with two tickets that have holders. */
async function house(t) {
  const { tickets, proxy } = await behindProxy(t);
  await tickets.api("POST", "/api/events/default/tickets", CSV);
  const ana = await tickets.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe" });
  const bob = await tickets.register({ seat: "A-2", gate: "North", username: "bob", full_name: "Bob Poe" });
  const by = { page: (t, _, options) => phone(t, proxy, options) };
  return { tickets, proxy, ana, bob, by };
}

/** Tells the page that the network is back, so that it asks at once. */
const asks = (page) => page.evaluate(() => dispatchEvent(new Event("online")));

/** Waits until the proxy gets a request for `path` while `act` runs. */
async function during(proxy, path, act) {
  const before = proxy.asked.length;
  await act();
  await eventually(() => assert.ok(proxy.asked.slice(before).some((asked) => asked.includes(path)), `${path} was asked for`));
}

const keptPages = (page) => page.evaluate(() => caches.keys());

async function showsCode(holder, tickets, ticket) {
  await eventually(async () => assert.equal(await holder.digits(), tickets.code(ticket).slice(-6)));
}

/** A ticket's page that is ready for use without a network. */
async function readyHolder(t) {
  const { tickets, proxy, ana, by } = await house(t);
  const holder = await Holder.at(t, tickets, ana.provisioning.ticket_url, by);
  await holder.isKept();
  await showsCode(holder, tickets, ana);
  return { tickets, proxy, ana, holder };
}

for (const does of AWAY) {
  test(`a ticket goes on with its code, open and opened anew, when the proxy answers with ${does}`, async (t) => {
    const { tickets, proxy, ana, holder } = await readyHolder(t);
    const path = new URL(ana.provisioning.ticket_url).pathname;
    proxy.does = does;
    await during(proxy, path, () => asks(holder.page));
    if (does !== "nothing") await holder.sees(en("ticket.offline"));
    await showsCode(holder, tickets, ana);
    for (let times = 0; times < 2; times += 1) {
      await during(proxy, path, () => holder.page.reload());
      await showsCode(holder, tickets, ana);
      assert.deepEqual(await keptPages(holder.page), [`page:${path}`]);
    }
    // From another page, as when the holder opens the link again.
    await holder.page.goto("about:blank");
    await holder.page.goto(`${ana.provisioning.ticket_url}`);
    await showsCode(holder, tickets, ana);

    proxy.does = null;
    const scan_id = randomUUID();
    await tickets.api("POST", "/api/events/default/scans", { scan_id, code: tickets.code(ana), at_gate: "North" });
    await asks(holder.page);
    await holder.sees(en("ticket.used"));
    await tickets.api("POST", `/api/scans/${scan_id}/undo`);
    await tickets.api("POST", `/api/tickets/${ana.ticket_id}/reissue`);
    await asks(holder.page);
    await holder.sees(en("gone.title"));
    await eventually(async () => assert.deepEqual(await keptPages(holder.page), []), "but the service's word counts");
  });

  test(`a gate decides, open and opened anew, and sends later, when the proxy answers with ${does}`, async (t) => {
    const { tickets, proxy, ana, bob, by } = await house(t);
    const gate = await Gate.at(t, tickets, by);
    await gate.readyForOffline("3");
    proxy.does = does;
    const verdict = await gate.reads(tickets.code(ana));
    assert.equal(await gate.kind(), "accepted", verdict);
    assert.ok(verdict.includes(en("gate.tag_offline")), verdict);
    await gate.goesOn();
    await gate.sees(en("gate.queued", { n: 1 }));
    await during(proxy, "/gate", () => gate.page.reload());
    await gate.sees(en("gate.queued", { n: 1 }));
    assert.match(await gate.reads(tickets.code(bob)), new RegExp(en("result.accepted")));
    await gate.goesOn();
    // Which of the two texts is shown depends on how long that took.
    const again = `${en("result.already_used")}|${en("result.just_admitted")}`;
    assert.match(await gate.reads(tickets.code(bob, 30)), new RegExp(again));
    await gate.goesOn();
    assert.deepEqual(await keptPages(gate.page), ["page:/gate"]);

    proxy.does = null;
    await asks(gate.page);
    await eventually(async () => {
      const scans = await tickets.rows("/api/events/default/scans.csv");
      assert.deepEqual(scans.map(({ result }) => result).sort(), ["accepted", "accepted", "already_used"]);
    });
    await gate.sees(en("gate.online"));
  });

  test(`whoever enrols is told to try again when the proxy answers with ${does}`, async (t) => {
    const { tickets, proxy, by } = await house(t);
    const page = await by.page(t);
    await page.goto("/gate");
    const field = page.getByLabel(en("gate.enrol_link"), { exact: true });
    await field.waitFor();
    await page.evaluate(() => (AbortSignal.timeout = ((real) => (most) => real.call(AbortSignal, Math.min(most, 1000)))(AbortSignal.timeout)));
    const { enrol_url } = await tickets.enrolment();
    proxy.does = does;
    await field.fill(enrol_url);
    await page.getByRole("button", { name: en("gate.enrol_submit") }).click();
    await page.getByRole("alert").getByText(en("gate.enrol_away")).waitFor();
    proxy.does = null;
    await field.fill(enrol_url);
    await page.getByRole("button", { name: en("gate.enrol_submit") }).click();
    await page.getByRole("button", { name: en("gate.offer_accept") }).click();
    await page.getByRole("heading", { name: "North" }).waitFor();
  });

  test(`an organizer's page says that the service is away, and shows nothing else, when the proxy answers with ${does}`, async (t) => {
    const { tickets, proxy } = await house(t);
    const organizer = await Organizer.at(t, tickets, { page: (t, _, options) => desktop(t, proxy, options) });
    await organizer.open("tickets");
    await organizer.sees("A-1");
    await organizer.page.evaluate(() => (AbortSignal.timeout = ((real) => (most) => real.call(AbortSignal, Math.min(most, 1000)))(AbortSignal.timeout)));
    proxy.does = does;
    await organizer.open("gates");
    await organizer.sees(en("problem.away"));
    proxy.does = null;
    await organizer.open("tickets");
    await organizer.sees("A-2");
  });
}

test("the time is that of the service's mark, whatever Date a proxy writes", async (t) => {
  const { tickets, proxy, ana, by } = await house(t);
  proxy.does = "an hour's wrong Date";
  const holder = await Holder.at(t, tickets, ana.provisioning.ticket_url, by);
  await holder.isKept();
  await during(proxy, "/t/", () => asks(holder.page));
  await showsCode(holder, tickets, ana);
  assert.equal(await holder.page.locator(".clock").innerText(), "");
  const gate = await Gate.at(t, tickets, by);
  await gate.readyForOffline("3");
  await tickets.stop();
  assert.match(await gate.reads(tickets.code(ana)), new RegExp(en("result.accepted")));
});

/** The asset path of another release, as the proxy writes it. */
const OTHER = "0123456789abcdef";

test("a new release that comes with half of its files opens as the old one, and as itself when all are there", async (t) => {
  const { tickets, proxy, ana, by } = await house(t);
  const gate = await Gate.at(t, tickets, by);
  await gate.readyForOffline("3");
  const release = (page) => page.evaluate(() => /assets.([0-9a-f]+)/.exec(document.querySelector("script[src]").src)[1]);
  const before = await release(gate.page);
  proxy.rewrites = { from: before, to: OTHER, lacks: "core.js" };
  await during(proxy, "core.js", () => gate.page.reload());
  await gate.page.getByRole("heading", { name: "North" }).waitFor();
  assert.equal(await release(gate.page), before);
  proxy.rewrites = { from: before, to: OTHER };
  await gate.page.reload();
  await gate.page.getByRole("heading", { name: "North" }).waitFor();
  assert.equal(await release(gate.page), OTHER);
  proxy.does = "nothing";
  await gate.page.reload();
  assert.match(await gate.reads(tickets.code(ana)), new RegExp(en("result.accepted")));
  assert.equal(await release(gate.page), OTHER);
});

test("a file that a network put in the browser's cache is asked for again", async (t) => {
  const { tickets, proxy, ana, by } = await house(t);
  const gate = await Gate.at(t, tickets, by);
  await gate.readyForOffline("3");
  proxy.does = "200 HTML";
  await gate.page.evaluate(async () => {
    const file = document.querySelector("link[rel=icon]").href.replace("icon.svg", "qr.js");
    await fetch(file).catch(() => {});
  });
  proxy.does = null;
  await gate.page.goto(ana.provisioning.ticket_url);
  await showsCode(new Holder(gate.page), tickets, ana);
});

test("an address of the gate with a slash too many opens without a network, too", async (t) => {
  const { tickets, proxy, by } = await house(t);
  const gate = await Gate.at(t, tickets, by);
  await gate.readyForOffline("3");
  proxy.does = "nothing";
  await gate.page.goto("/gate/");
  await gate.page.getByRole("heading", { name: "North" }).waitFor();
  assert.equal(new URL(gate.page.url()).pathname, "/gate");
});
