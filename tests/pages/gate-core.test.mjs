// The gate without its page: what it decides, stores and sends, in a real browser, with the real service.
import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { CLOCK, SCANS, admitted, device, gist, offline, online, recorded, tickets, undecided } from "./gate-core-harness.mjs";
import { eventually, forBothDatabases, marked, service } from "./harness.mjs";

forBothDatabases("what is decided without the service is what the service says later", async (t, service) => {
  const [first, second] = await tickets(service, "A1", "A2");
  const tab = await (await device(t, service)).enrolled(service);
  assert.deepEqual(gist(await tab.scan(service.code(first))), online("accepted"));

  await service.stop();
  assert.deepEqual(gist(await tab.scan(service.code(first, 30))), offline("already_used"), "it was admitted before the service went away");
  const verdict = await tab.scan(service.code(second));
  assert.deepEqual(gist(verdict), offline("accepted"));
  assert.equal(verdict.ticket.full_name, "Holder of A2");
  assert.equal((await tab.state()).online, false);
  assert.deepEqual(gist(await tab.scan(service.code(second, 30))), offline("already_used"));
  assert.deepEqual(gist(await tab.scan(service.code(second), "exit")), offline("accepted"));
  assert.deepEqual(gist(await tab.scan("https://example.org/")), offline("unknown_ticket"));
  assert.equal((await tab.state()).queued, 5);

  await service.start();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.deepEqual(await recorded(service), [
    "accepted",
    "accepted, offline accepted",
    "accepted, offline accepted",
    "already_used, offline already_used",
    "already_used, offline already_used",
    "unknown_ticket, offline unknown_ticket",
  ]);
  assert.equal(await admitted(service), 2);
  assert.deepEqual((await tab.recent()).map(({ offline }) => offline), Array(6).fill(false), "the service has all of them");
});

/** Issues tickets at the gate North, all held by one person. Returns their registrations. */
async function family(service, ...seats) {
  await service.api("POST", "/api/events/default/tickets", `seat,gate\n${seats.map((seat) => `${seat},North\n`).join("")}`);
  const held = [];
  for (const seat of seats) held.push(await service.register({ seat, gate: "North", username: "ana", full_name: "Ana Roe" }));
  return held;
}

/** The scan of a ticket that an earlier admission vouches for. */
const vouched = ({ ticket_id }, { scan_id }) => ({ ticket_id, vouched_by: scan_id });
const seatsOf = ({ party }) => party.map(({ seat }) => seat);

forBothDatabases("one code lets a family in without the service as with it, and the service says so later", async (t, service) => {
  const held = await family(service, "A1", "A2", "A3", "A4", "A5", "A6");
  const [stranger] = await tickets(service, "B1");
  const tab = await (await device(t, service)).enrolled(service);
  const first = await tab.scan(service.code(held[0]));
  assert.deepEqual(seatsOf(first), ["A2", "A3", "A4", "A5", "A6"]);
  assert.deepEqual(gist(await tab.scan(vouched(held[1], first))), online("accepted"));

  await service.stop();
  assert.deepEqual(gist(await tab.scan(vouched(held[2], first))), offline("accepted"), "an admission from before the outage vouches too");
  const second = await tab.scan(service.code(held[3]));
  assert.deepEqual(second.party.map(({ seat, gate, full_name }) => [seat, gate, full_name]), [["A5", "North", "Ana Roe"], ["A6", "North", "Ana Roe"]]);
  const third = await tab.scan(vouched(held[4], second));
  assert.deepEqual([gist(third), seatsOf(third)], [offline("accepted"), []]);
  assert.deepEqual(gist(await tab.scan(vouched(held[4], second))), offline("already_used"));
  // It vouches for nobody else, and a vouched admission does not vouch.
  for (const scan of [vouched(stranger, second), vouched(held[5], third), vouched(held[5], { scan_id: randomUUID() })]) {
    const verdict = await tab.scan(scan);
    assert.deepEqual(gist(verdict), undecided);
    assert.equal(verdict.problem.errors[0].code, "not_vouched");
  }

  await service.start();
  await tab.drained();
  assert.deepEqual([await tab.corrected(), (await tab.state()).refused], [[], []]);
  const rows = await service.rows(SCANS);
  assert.deepEqual(
    rows.filter(({ result }) => result === "accepted").map(({ seat, vouched_by }) => [seat, vouched_by]).sort(),
    [["A1", ""], ["A2", first.scan_id], ["A3", first.scan_id], ["A4", ""], ["A5", second.scan_id]],
  );
  assert.equal(await admitted(service), 5);
});

test("who was let in without the service speaks to the service only once it knows of that", async (t) => {
  const host = await service(t);
  const held = await family(host, "A1", "A2", "A3");
  const tab = await (await device(t, host)).enrolled(host);
  await tab.page.route("**/scans**", (route) => route.abort());
  const first = await tab.scan(host.code(held[0]));
  assert.deepEqual(gist(first), offline("accepted"));
  // The service is back but does not have the first scan.
  await tab.page.route("**/scans/batch", (route) => route.abort());
  await tab.page.unroute("**/scans**");
  assert.deepEqual(gist(await tab.scan(vouched(held[1], first))), offline("accepted"));
  await tab.page.unroute("**/scans/batch");
  await tab.drained();
  assert.deepEqual(gist(await tab.scan(vouched(held[2], first))), online("accepted"));
  assert.deepEqual(await recorded(host), ["accepted", "accepted, offline accepted", "accepted, offline accepted"]);
});

test("of a family whose first scan reached the service late the others are on record all the same", async (t) => {
  const host = await service(t);
  const held = await family(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  // The first request reaches the service so late that its code is refused; the gate had admitted long before.
  let late;
  await tab.page.route("**/scans**", (route) => {
    late ??= route.request().postDataJSON();
    return route.abort();
  });
  const first = await tab.scan(host.code(held[0]));
  assert.deepEqual(gist(first), offline("accepted"));
  assert.deepEqual(gist(await tab.scan(vouched(held[1], first))), offline("accepted"));
  await host.ask("POST", "/api/events/default/scans", { ...late, code: late.code.replace(/\d{6}$/, "000000") });
  await tab.page.unroute("**/scans**");
  await tab.drained();
  const rows = await host.rows(SCANS);
  const came = rows.find(({ seat, result }) => seat === "A1" && result === "accepted");
  assert.notEqual(came.scan_id, first.scan_id, "under a new id");
  assert.equal(rows.find(({ seat }) => seat === "A2").vouched_by, came.scan_id);
  assert.deepEqual([(await tab.state()).refused, await admitted(host)], [[], 2]);
});

test("a device that goes by its clock offers and admits nobody for whom the admission speaks no more", async (t) => {
  const host = await service(t);
  const held = await family(host, "A1", "A2", "A3");
  const tab = await (await device(t, host, { script: CLOCK })).enrolled(host);
  await host.stop();
  const first = await tab.scan(host.code(held[0]));
  await tab.passes(119_000);
  assert.deepEqual(gist(await tab.scan(vouched(held[1], first))), offline("accepted"));
  await tab.passes(121_000);
  assert.deepEqual(gist(await tab.scan(vouched(held[2], first))), undecided);
});

test("a tab that is closed, and one that dies in the middle of a scan, lose nothing", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host);
  const tab = await phone.enrolled(host);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  await tab.page.close();

  const again = await phone.open();
  assert.equal((await again.state()).queued, 1);
  assert.deepEqual((await again.recent()).map(gist), [offline("accepted")]);
  assert.deepEqual(gist(await again.scan(host.code(first, 30))), offline("already_used"));
  again.scan(host.code(second)).catch(() => {});
  await again.page.close();

  const last = await phone.open();
  const { result } = await last.scan(host.code(second, 30));
  const { queued } = await last.state();
  await host.start();
  await last.drained();
  assert.equal(await admitted(host), 2);
  const rows = await host.rows(SCANS);
  assert.equal(rows.length, queued);
  // Whether or not the dying tab had written its verdict, the ticket has admitted once.
  assert.equal(rows.filter(({ seat, result }) => seat === "A2" && result === "accepted").length, 1);
  assert.ok(["accepted", "already_used"].includes(result));
});

test("two devices that were offline with one ticket: the service keeps one, and the other is told", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const one = await (await device(t, host)).enrolled(host, { name: "one" });
  const other = await (await device(t, host)).enrolled(host, { name: "other" });
  await host.stop();
  assert.deepEqual(gist(await one.scan(host.code(ticket))), offline("accepted"));
  assert.deepEqual(gist(await other.scan(host.code(ticket))), offline("accepted"));
  await host.start();
  await Promise.all([one.drained(), other.drained()]);
  // Either may reach the service first.
  const told = await Promise.all([one, other].map(async (tab) => ({ tab, corrected: await tab.corrected() })));
  const [late, ...more] = told.filter(({ corrected }) => corrected.length > 0);
  assert.equal(more.length, 0);
  assert.equal(late.corrected[0].result, "already_used");
  assert.equal(late.corrected[0].offline_result, "accepted");
  assert.deepEqual(gist((await late.tab.recent())[0]), online("already_used"));
  assert.equal(await admitted(host), 1);
  assert.deepEqual(await recorded(host), ["accepted, offline accepted", "already_used, offline accepted"]);
});

test("two tabs of one device admit once", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host);
  const one = await phone.enrolled(host);
  const other = await phone.open();
  const both = (ticket) => Promise.all([one.scan(host.code(ticket)), other.scan(host.code(ticket))]);
  const results = async (ticket) => (await both(ticket)).map(({ result }) => result).sort();
  assert.deepEqual(await results(first), ["accepted", "already_used"]);
  await host.stop();
  assert.deepEqual(await results(second), ["accepted", "already_used"]);
  await eventually(async () => assert.equal((await one.state()).queued, (await other.state()).queued));
  await host.start();
  await Promise.all([one.drained(), other.drained()]);
  assert.deepEqual([...(await one.corrected()), ...(await other.corrected())], []);
  assert.equal((await host.rows(SCANS)).length, 4);
  assert.equal(await admitted(host), 2);
});

test("a service that is slow has decided all the same: the late verdict is the same scan", async (t) => {
  const host = await service(t);
  const [first] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host);
  const release = await tab.hold();
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  assert.equal((await host.rows(SCANS)).length, 1, "the service has admitted, its answer is pending");
  assert.deepEqual(gist(await tab.scan(host.code(first, 30))), offline("already_used"));
  release();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.equal(await admitted(host), 1);
});

test("an answer that was overtaken on its way brings no old news", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const phone = await device(t, host);
  const one = await phone.enrolled(host);
  const other = await phone.open();
  await one.waitsForEver();
  const release = await one.hold();
  const refused = one.scan(host.code(ticket, -120));
  await eventually(async () => assert.equal((await host.rows(SCANS)).length, 1));
  assert.deepEqual(gist(await other.scan(host.code(ticket))), online("accepted"));
  release();
  assert.deepEqual(gist(await refused), online("stale_code"));
  await host.stop();
  assert.deepEqual(gist(await other.scan(host.code(ticket, 30))), offline("already_used"));
});

test("a scan that reaches the service after it was decided here is written down as what happened", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host);
  // The request leaves the device and arrives long afterwards.
  let late;
  await tab.page.route("**/scans", (route) => (late = route.request()));
  await tab.page.route("**/scans/batch", (route) => route.abort());
  assert.deepEqual(gist(await tab.scan(host.code(ticket))), offline("accepted"));
  const other = await (await device(t, host)).enrolled(host);
  assert.deepEqual(gist(await other.scan(host.code(ticket, 30))), online("accepted"));
  const answer = await fetch(late.url(), { method: "POST", headers: await late.allHeaders(), body: late.postData() });
  assert.equal((await answer.json()).result, "already_used");

  await tab.page.unroute("**/scans/batch");
  await tab.drained();
  const [corrected, ...more] = await tab.corrected();
  assert.equal(more.length, 0);
  assert.equal(corrected.result, "already_used");
  assert.equal(corrected.offline_result, "accepted");
  assert.equal((await recorded(host)).filter((scan) => scan === "already_used, offline accepted").length, 1);
});

test("whoever came in here while the service was away does not come in again when it is back", async (t) => {
  const host = await service(t);
  const [first] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host);
  await tab.page.route("**/scans/batch", (route) => route.abort());
  await tab.page.route("**/scans", (route) => route.abort());
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  await tab.page.unroute("**/scans");
  // The service answers again but does not know of it yet, and neither does a manifest downloaded now.
  await host.api("PATCH", "/api/events/default", { name: "Another name" });
  await tab.sync();
  assert.deepEqual(gist(await tab.scan(host.code(first, 30))), offline("already_used"));
  await tab.page.unroute("**/scans/batch");
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.equal(await admitted(host), 1);
});

test("what answers in the place of the service is not the service: the gate decides by itself", async (t) => {
  const others = [
    { status: 200, contentType: "text/html", body: "<h1>Accept our terms</h1>" },
    { status: 200, json: { result: "accepted" } },
    { status: 401, contentType: "text/html", body: "no" },
    { status: 429, body: "" },
    { status: 503, contentType: "application/problem+json", body: '{"code":"database_unavailable"}' },
    // In exactly the service's form: only its mark is missing.
    { status: 401, contentType: "application/problem+json", body: '{"code":"unauthenticated"}' },
    { status: 403, contentType: "application/problem+json", body: '{"code":"manifest_closed"}' },
    { status: 429, contentType: "application/problem+json", headers: { "retry-after": "60" }, body: '{"code":"busy"}' },
  ];
  const host = await service(t);
  const registrations = await tickets(host, ...others.map((_, seat) => `A${seat}`));
  const tab = await (await device(t, host)).enrolled(host);
  for (const [seat, answer] of others.entries()) {
    await tab.page.route(/\/(api|health)/, (route) => route.fulfill(answer));
    assert.deepEqual(gist(await tab.scan("RT1.AAAAAAAAAAAAAAAAAAAAAA.123456")), offline("unknown_ticket"));
    assert.deepEqual(gist(await tab.scan(host.code(registrations[seat]))), offline("accepted"));
    assert.equal((await tab.state()).online, false);
    await tab.page.unroute(/\/(api|health)/);
    await tab.drained();
    assert.equal((await tab.state()).online, true);
  }
  assert.deepEqual(await tab.corrected(), []);
  assert.deepEqual((await tab.state()).refused, []);
  assert.equal(await admitted(host), others.length);
});

test("another database in the place of the right one ends no gate: it decides by its list until the right one is back", async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "pages-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const place = path.join(directory, "volume");
  const host = await service(t, { settings: { DATABASE_URL: `sqlite:${place}/tickets.db` } });
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host);
  const tab = await phone.enrolled(host);
  await host.stop();
  fs.renameSync(place, `${place} elsewhere`);
  await host.start();
  assert.equal((await host.api("GET", "/api/events/default/tickets")).tickets.length, 0, "an empty one");
  await tab.sync();
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  // A reopened tab does not fall for it either: which database knows the key is stored.
  const anew = await phone.open();
  await anew.sync();
  const { online, offlineReady, queued, stranded } = await anew.state();
  assert.deepEqual({ online, offlineReady, queued, stranded }, { online: false, offlineReady: true, queued: 1, stranded: [] });
  await host.stop();
  fs.rmSync(place, { recursive: true });
  fs.renameSync(`${place} elsewhere`, place);
  await host.start();
  await anew.drained();
  assert.equal(await admitted(host), 1);
  assert.equal((await anew.scan(host.code(second))).result, "accepted");
  // A refusal by its own database counts.
  await host.api("DELETE", `/api/keys/${tab.key_id}`);
  assert.equal((await anew.scan(host.code(second, 30))).problem.code, "unauthenticated");
  assert.equal(await anew.page.evaluate(() => globalThis.gate.device), null);
});

test("a key that was revoked opens nothing more, and what it let in is not lost", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host);
  const tab = await phone.enrolled(host);
  await tab.page.route("**/api/**", (route) => route.abort());
  await tab.scan(host.code(first));
  await host.api("DELETE", `/api/keys/${tab.key_id}`);
  await tab.page.unroute("**/api/**");
  const verdict = await tab.scan(host.code(second));
  assert.deepEqual(gist(verdict), undecided);
  assert.equal(verdict.problem.code, "unauthenticated");
  assert.equal(await tab.page.evaluate(() => globalThis.gate.device), null);
  assert.deepEqual((await tab.recent()).map(gist), [undecided], "no names are left");
  assert.deepEqual(gist(await tab.scan(host.code(second))), undecided);
  await eventually(async () => {
    await tab.sync();
    assert.equal((await tab.state()).stranded.length, 1);
  });
  const { queued, offlineReady, tickets: known } = await (await phone.open()).state();
  assert.deepEqual({ queued, offlineReady, known }, { queued: 0, offlineReady: false, known: 0 });

  // Another key does not send these scans, and still nobody is admitted twice.
  await tab.enrol((await host.enrolment()).enrol_url);
  await tab.ready();
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("already_used"));
  await tab.drained();
  const [{ key_id, unsent, gate }] = (await tab.state()).stranded;
  assert.deepEqual([key_id, unsent, gate], [tab.key_id, 1, "North"]);

  // The organizer hands the file in.
  const { numbers, file } = await tab.strandedFile(key_id);
  for (const secret of ["Holder of", "rtk_", "RT1.", "code"]) {
    assert.ok(!JSON.stringify(file).includes(secret), `the file names the ticket but contains no ${secret}`);
  }
  const { event, scans } = file;
  const { results } = await host.api("POST", `/api/keys/${file.key_id}/scans`, { event, scans });
  assert.deepEqual(results.map(({ result }) => result), ["accepted"]);
  assert.equal(await admitted(host), 1);
  await tab.discard(numbers);
  assert.deepEqual((await tab.state()).stranded, []);
  assert.ok(!(tab.key_id in (await tab.kept()).stores.keys), "and the key is forgotten");
});

test("what a revoked key let in goes out by itself once an organizer agrees, also after the ticket was renewed", async (t) => {
  const host = await service(t);
  const [first] = await tickets(host, "A1");
  const phone = await device(t, host);
  const tab = await phone.enrolled(host);
  // Blocked until the key is revoked, so that nothing already on its way arrives first.
  await tab.page.route("**/api/**", (route) => route.abort());
  await tab.scan(host.code(first));
  await host.api("POST", `/api/keys/${tab.key_id}/lost`);
  await tab.page.unroute("**/api/**");
  await eventually(async () => {
    await tab.sync();
    assert.equal((await tab.state()).stranded.length, 1);
  });
  assert.equal(await admitted(host), 0);
  // Meanwhile the device becomes another gate, and stays that gate.
  await tab.enrol((await host.enrolment()).enrol_url);
  await tab.ready();
  await host.api("POST", `/api/keys/${tab.key_id}/take`);
  await eventually(async () => {
    await tab.page.evaluate(() => globalThis.gate.sendStranded());
    assert.deepEqual((await tab.state()).stranded, []);
  });
  assert.equal(await admitted(host), 1);
  assert.ok((await tab.state()).offlineReady, "the new key still works");
  assert.ok(!(tab.key_id in (await tab.kept()).stores.keys), "the old one is forgotten");
  const scanned = await host.api("GET", `/api/keys/${tab.key_id}/scans`);
  assert.deepEqual(scanned.scans.map(({ result, seat }) => [result, seat]), [["accepted", "A1"]]);
});

test("a second device with the same key strands nothing of the first", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const before = await (await device(t, host)).enrolled(host);
  await before.page.route("**/api/**", (route) => route.abort());
  await before.scan(host.code(first));
  const { enrol_url } = await host.api("POST", `/api/keys/${before.key_id}/enrol`);
  const after = await (await device(t, host)).open();
  await after.enrol(enrol_url);
  await after.ready();
  await before.page.unroute("**/api/**");
  await eventually(async () => {
    await before.sync();
    assert.equal((await before.state()).stranded.length, 1);
  });
  await host.api("POST", `/api/keys/${before.key_id}/take`);
  await eventually(async () => {
    await before.page.evaluate(() => globalThis.gate.sendStranded());
    assert.deepEqual((await before.state()).stranded, []);
  });
  assert.equal(await admitted(host), 1);
  assert.deepEqual(gist(await after.scan(host.code(first))), online("already_used"));
  assert.deepEqual(gist(await after.scan(host.code(second))), online("accepted"));
});

test("an expired key's scans go out by themselves", async (t) => {
  const host = await service(t);
  const [first] = await tickets(host, "A1");
  const expires_at = new Date(Date.now() + 20_000).toISOString();
  const tab = await (await device(t, host)).enrolled(host, { expires_at });
  await tab.page.route("**/api/**", (route) => route.abort());
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  await eventually(async () => assert.ok(Date.now() > Date.parse(expires_at)), 40_000);
  await tab.page.unroute("**/api/**");
  await eventually(async () => {
    await tab.sync();
    assert.deepEqual([(await tab.state()).stranded, (await tab.state()).queued], [[], 0]);
  });
  assert.equal(await admitted(host), 1);
});

forBothDatabases("a device that becomes another gate sends what it has under the key that it was made with", async (t, service) => {
  const [ticket] = await tickets(service, "A1");
  await service.api("POST", "/api/events", { slug: "other", name: "Other" });
  const phone = await device(t, service);
  const tab = await phone.enrolled(service);
  await tab.page.route("**/scans/batch", (route) => route.abort());
  await tab.page.route("**/scans", (route) => route.abort());
  assert.deepEqual(gist(await tab.scan(service.code(ticket))), offline("accepted"));
  const { key_id, enrol_url } = await service.enrolment({ event: "other", gate: null });
  await tab.enrol(enrol_url);
  assert.equal((await tab.state()).queued, 1);
  await tab.page.close();
  const later = await phone.open();
  await later.drained();
  assert.deepEqual(await recorded(service), ["accepted, offline accepted"]);
  const { keys } = await service.api("GET", "/api/keys");
  assert.deepEqual(keys.filter(({ newest_scan_at }) => newest_scan_at).map(({ key_id }) => key_id), [tab.key_id]);
  assert.deepEqual(Object.keys((await later.kept()).stores.keys), [key_id], "the old key is forgotten when it has sent everything");
  assert.deepEqual(await later.corrected(), []);
});

test("whoever gives a gate up has its scans sent, and nothing else is left of it", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const phone = await device(t, host);
  const tab = await phone.enrolled(host);
  await host.stop();
  await tab.scan(host.code(ticket));
  await tab.leave();
  const { stores } = await tab.kept();
  assert.deepEqual([Object.keys(stores.kept).sort(), Object.keys(stores.tickets)], [["own", "tick"], []]);
  await host.start();
  await tab.page.close();
  const later = await phone.open();
  await later.drained();
  assert.equal(await admitted(host), 1);
  const left = (await later.kept()).stores;
  assert.deepEqual(left, { kept: { tick: left.kept.tick }, keys: {}, queue: {}, tickets: {} });
});

test("the same key enrolled anew sends what the device had before", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host);
  await host.stop();
  await tab.scan(host.code(ticket));
  await host.start();
  const { enrol_url } = await host.api("POST", `/api/keys/${tab.key_id}/enrol`);
  await tab.enrol(enrol_url);
  await tab.drained();
  assert.deepEqual((await tab.state()).stranded, []);
  assert.equal(await admitted(host), 1);
});

test("of names, keys and codes nothing is kept in clear, and no cipher can be taken out", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  const key = await tab.page.evaluate(async () => {
    const sent = new Promise((resolve) => {
      const real = globalThis.fetch;
      globalThis.fetch = (path, options) => {
        resolve(options.headers.get("authorization")?.replace("Bearer ", ""));
        return real(path, options);
      };
    });
    globalThis.gate.counts();
    return sent;
  });
  assert.match(key, /^rtk_/);
  await tab.scan(host.code(first));
  await host.stop();
  const code = host.code(second);
  assert.deepEqual(gist(await tab.scan(code)), offline("accepted"));
  const { stores, text } = await tab.kept();
  const secrets = [first, second].flatMap(({ provisioning, full_name }) => [provisioning.secret, full_name ?? "Holder of"]);
  for (const secret of [...secrets, key, code, code.slice(-6), "Holder of", "holder-A1"]) {
    assert.ok(!text.includes(secret), `${secret} is in clear`);
  }
  const { list, own, holders } = stores.kept;
  assert.deepEqual([list.cipher, own.cipher, holders.cipher], ["AES-GCM, shut", "AES-GCM, shut", "HMAC, shut"]);
  const nonces = [...Object.values(stores.tickets), ...Object.values(stores.queue), ...stores.kept.recent].map(({ sealed }) => sealed.slice(0, 12));
  assert.equal(nonces.length, 5);
  assert.equal(new Set(nonces).size, nonces.length, "each with a nonce of its own");
});

/** A device without a network, with one ticket's scan unsent and another ticket to admit. */
async function alone(t, key) {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host, { script: CLOCK });
  const tab = await phone.enrolled(host, key);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  return { host, phone, tab, second };
}

/** Fails unless the device has erased its list with all names and admits nobody, but still has its unsent scan. */
async function erased(tab, host, ticket, ahead) {
  const verdict = await tab.scan(host.code(ticket, ahead / 1000));
  assert.deepEqual(gist(verdict), undecided);
  const { queued, offlineReady, tickets: known } = await tab.state();
  assert.deepEqual({ queued, offlineReady, known }, { queued: 1, offlineReady: false, known: 0 });
  const { kept, tickets } = (await tab.kept()).stores;
  assert.deepEqual([tickets, kept.manifest, kept.recent?.length ?? 1], [{}, undefined, 1], "only that verdict is left, without a name");
  return verdict;
}

test("of 10,000 names the list is opened without the page standing still, and forgotten when nobody looks any more", async (t) => {
  const host = await service(t);
  const rows = Array.from({ length: 10_000 }, (_, place) => `${place},North,u${place},Guest ${place}\n`);
  await host.api("POST", "/api/events/default/tickets", `seat,gate,username,full_name\n${rows.join("")}`);
  const tab = await (await device(t, host)).enrolled(host, { role: "supervisor" });
  await host.stop();
  const { guests, longest, whole, again } = await tab.page.evaluate(async () => {
    let longest = 0;
    const begun = performance.now();
    let before = begun;
    let looking = true;
    const watch = async () => {
      while (looking) {
        await new Promise((resolve) => setTimeout(resolve));
        longest = Math.max(longest, performance.now() - before);
        before = performance.now();
      }
    };
    const watched = watch();
    const { guests } = await globalThis.gate.guests("guest 9999");
    const whole = performance.now() - begun;
    looking = false;
    await watched;
    const again = await globalThis.gate.guests("GUEST");
    globalThis.gate.closeGuests();
    return { guests, longest, whole, again: again.guests.length };
  });
  assert.deepEqual(guests.map(({ seat, full_name, status }) => [seat, full_name, status]), [["9999", "Guest 9999", "valid"]]);
  assert.equal(again, 10, "as many as the service returns");
  // A busy machine causes pauses too, so no fixed number of milliseconds would hold everywhere.
  assert.ok(longest < whole / 2, `it was blocked for ${longest} ms of ${whole}`);
});

const HOUR = 3_600_000;

test("a list that is older than 48 hours is erased and admits nobody, until the service is there again", async (t) => {
  const { host, phone, tab, second } = await alone(t);
  await tab.passes(48 * HOUR - 60_000);
  assert.deepEqual(gist(await tab.scan(host.code(second, 48 * 3600 - 60), "exit")), offline("not_inside"), "not before");
  await tab.passes(48 * HOUR + 60_000);
  const verdict = await tab.scan(host.code(second, 48 * 3600 + 60));
  assert.deepEqual([gist(verdict), verdict.problem.code], [undecided, "list_too_old"]);
  await tab.page.close();
  const later = await phone.open();
  const { tooOld, queued, offlineReady } = await later.state();
  assert.deepEqual({ tooOld, queued, offlineReady }, { tooOld: true, queued: 2, offlineReady: false });
  assert.deepEqual((await later.kept()).stores.tickets, {});

  await host.start();
  await later.ready();
  await later.drained();
  assert.equal((await later.state()).tooOld, false);
  assert.equal(await admitted(host), 1);
});

test("nothing has to happen for a list to be erased but that its time has come", async (t) => {
  for (const ahead of [49 * HOUR, 60 * 24 * HOUR]) {
    const { host, tab, second } = await alone(t);
    await tab.passes(ahead);
    await tab.sync();
    assert.deepEqual((await tab.kept()).stores.tickets, {});
    await erased(tab, host, second, ahead);
  }
});

test("a clock that is set back does not make a list younger", async (t) => {
  const { host, phone, tab, second } = await alone(t);
  await tab.sync();
  await tab.setClock(-HOUR);
  assert.equal((await tab.state()).offlineReady, true, "the page knows how far it was set back");
  await tab.passes(49 * HOUR);
  assert.equal((await erased(tab, host, second, 0)).problem.code, "list_too_old");

  await tab.setClock(0);
  await tab.passes(0);
  await tab.page.close();
  const later = await phone.open();
  await host.start();
  await later.ready();
  await host.stop();
  // The clock is set back while the page is closed.
  await later.passes(40 * HOUR);
  await later.sync();
  await later.page.close();
  await phone.setClock(-40 * HOUR);
  const last = await phone.open();
  assert.equal((await last.state()).offlineReady, false);
  assert.equal((await last.scan(host.code(second))).problem.code, "list_too_old");
});

for (const [name, ahead] of [["an hour ahead", HOUR], ["an hour back", -HOUR], ["five hours and a half ahead", 5.5 * HOUR], ["a year back", -365 * 24 * HOUR]]) {
  test(`a clock that somebody sets ${name} changes nothing at a gate without the service, nor when the page is opened anew`, async (t) => {
    const host = await service(t);
    const [first, second, third] = await tickets(host, "A1", "A2", "A3");
    const phone = await device(t, host, { script: CLOCK });
    const tab = await phone.enrolled(host);
    await host.stop();
    assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
    await tab.setClock(ahead);
    assert.deepEqual(gist(await tab.scan(host.code(second))), offline("accepted"));
    assert.equal((await tab.scan(host.code(second, 30))).first_used_at.slice(0, 13), new Date().toISOString().slice(0, 13));
    await tab.page.close();
    const later = await phone.open();
    assert.deepEqual(gist(await later.scan(host.code(third))), offline("accepted"));
    await host.start();
    await later.drained();
    assert.deepEqual(await later.corrected(), []);
    assert.deepEqual((await later.state()).refused, []);
    assert.equal(await admitted(host), 3);
  });
}

test("a batch waits until the service has told the time: what was scanned by a wrong clock is not refused for good", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const { printed_code: qr } = await host.api("POST", `/api/tickets/${ticket.ticket_id}/print`);
  const phone = await device(t, host, { script: CLOCK });
  await (await phone.enrolled(host)).page.close();
  await host.stop();
  await phone.setClock(HOUR);
  const tab = await phone.open();
  const answered = [];
  tab.page.on("response", (response) => answered.push(new URL(response.url()).pathname));
  assert.deepEqual(gist(await tab.scan(qr)), offline("accepted"));
  await host.start();
  // No request was made yet: this one is also decided here, and starts sending the queue.
  assert.deepEqual(gist(await tab.scan(qr)), offline("already_used"));
  await eventually(async () => assert.equal((await tab.state()).queued, 0));
  const first = answered.find((path) => path === "/health" || path.endsWith("/batch"));
  assert.equal(first, "/health", answered.join());
  assert.deepEqual((await tab.state()).refused, []);
  assert.equal(await admitted(host), 1);
});

/** A storage without any room while `full` is set in the page. */
const STORAGE = `for (const name of ["put", "add"]) {
  const real = IDBObjectStore.prototype[name];
  IDBObjectStore.prototype[name] = function (...all) {
    if (globalThis.full) throw new DOMException("", "QuotaExceededError");
    return real.apply(this, all);
  };
}`;
const setFull = (tab, full) => tab.page.evaluate((full) => (globalThis.full = full), full);

test("a storage that is full for a while admits nobody meanwhile, says so, and is tried again", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host, { script: STORAGE })).enrolled(host);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(first))), offline("accepted"));
  await setFull(tab, true);
  const verdict = await tab.scan(host.code(second));
  assert.deepEqual([gist(verdict), verdict.problem.code], [undecided, "storage_full"]);
  await tab.sync();
  const { full, offlineReady } = await tab.state();
  assert.deepEqual({ full, offlineReady }, { full: true, offlineReady: true }, "the failed write does not affect admission");
  await setFull(tab, false);
  assert.deepEqual(gist(await tab.retry(verdict)), offline("accepted"));
  assert.equal((await tab.state()).full, false);
  assert.deepEqual((await tab.recent()).map(gist), [offline("accepted"), offline("accepted")]);
  await host.start();
  await tab.drained();
  assert.equal(await admitted(host), 2);
});

test("what the service said while the storage was full is kept when there is room, and until then nobody is let in by the list", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host, { script: STORAGE });
  const tab = await phone.enrolled(host);
  await setFull(tab, true);
  assert.deepEqual(gist(await tab.scan(host.code(first))), online("accepted"));
  await host.stop();
  for (const each of [tab, await phone.open()]) {
    assert.deepEqual(gist(await each.scan(host.code(first, 30))), undecided, "in no tab");
    assert.deepEqual(gist(await each.scan(host.code(second))), undecided);
  }
  assert.ok((await tab.recent()).some(({ result, offline }) => result === "accepted" && !offline), "it is still shown");
  await setFull(tab, false);
  assert.deepEqual(gist(await tab.scan(host.code(first, 30))), offline("already_used"));
  assert.deepEqual(gist(await tab.scan(host.code(second))), offline("accepted"));
});

test("what a tab could not keep before it died the service says again", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const phone = await device(t, host, { script: STORAGE });
  const tab = await phone.enrolled(host);
  await setFull(tab, true);
  assert.deepEqual(gist(await tab.scan(host.code(first))), online("accepted"));
  await host.stop();
  await tab.page.close();
  const later = await phone.open();
  assert.deepEqual(gist(await later.scan(host.code(second))), undecided);
  await host.start();
  await later.ready();
  await host.stop();
  assert.deepEqual(gist(await later.scan(host.code(first, 30))), offline("already_used"));
  assert.deepEqual(gist(await later.scan(host.code(second))), offline("accepted"));
});

test("a page that stays open counts the hours itself", async (t) => {
  const { host, tab, second } = await alone(t);
  await tab.page.evaluate(() => {
    const real = performance.now.bind(performance);
    performance.now = () => real() + 49 * 3_600_000;
  });
  await erased(tab, host, second, 0);
});

test("a key that has ended takes its list with it", async (t) => {
  const expires_at = new Date(Date.now() + HOUR).toISOString();
  const { host, tab, second } = await alone(t, { expires_at });
  await tab.passes(HOUR + 1000);
  await tab.sync();
  await erased(tab, host, second, HOUR + 1000);
});

test("an event that is over takes its list with it", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  await host.api("PATCH", "/api/events/default", { ends_at: new Date(Date.now() + HOUR).toISOString() });
  const tab = await (await device(t, host, { script: CLOCK })).enrolled(host);
  await host.stop();
  await tab.passes(7 * HOUR + 1000);
  await tab.sync();
  assert.equal((await tab.state()).ended, true);
  assert.deepEqual((await tab.kept()).stores.tickets, {});
  assert.deepEqual(gist(await tab.scan(host.code(ticket, 7 * 3600))), undecided);
});

test("what release 0.1.0 kept in clear is sealed or deleted, and its unsent scans are sent", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const { enrol_url } = await host.enrolment();
  const enrolled = await host.api("POST", "/api/enrol", { token: new URL(enrol_url).hash.replace("#enrol=", "") }, "");
  const scan = (event, registration) => ({
    ...{ event, names: [registration.ticket_id], step: 1 },
    body: {
      ...{ scan_id: crypto.randomUUID(), code: host.code(registration), direction: "entry", at_gate: "North" },
      ...{ scanned_at: new Date().toISOString(), offline_result: "accepted" },
    },
  });
  const queue = [scan("default", first), scan("gone", second)];
  const phone = await device(t, host);
  const old = await phone.context.newPage();
  await old.goto("/core/page");
  await old.evaluate(async ([device, queue, ticket]) => {
    const request = indexedDB.open("gate", 1);
    request.onupgradeneeded = () => {
      const { result: database } = request;
      const kept = database.createObjectStore("kept");
      const tickets = database.createObjectStore("tickets", { keyPath: "ticket_id" });
      tickets.createIndex("place", ["seat", "gate"]);
      const store = database.createObjectStore("queue", { keyPath: "number", autoIncrement: true });
      store.createIndex("names", "names", { multiEntry: true });
      store.createIndex("refusal", "refusal");
      kept.put(device, "device");
      kept.put({ ready: true, as_of: 1 }, "manifest");
      kept.put([{ scan_id: "1", ticket }], "recent");
      tickets.put(ticket);
      for (const item of queue) store.add(item);
    };
    await new Promise((resolve) => (request.onsuccess = resolve));
    request.result.close();
  }, [enrolled, queue, { ticket_id: first.ticket_id, seat: "A1", gate: "North", key: first.provisioning.secret, full_name: "Holder of A1" }]);
  await old.close();

  const tab = await phone.open();
  const { text, stores } = await tab.kept();
  for (const secret of [enrolled.key, first.provisioning.secret, "Holder of", ...queue.map(({ body }) => body.code)]) {
    assert.ok(!text.includes(secret), `${secret} is in clear`);
  }
  assert.deepEqual([stores.tickets, Object.keys(stores.queue).length], [{}, 2]);
  await tab.ready();
  await tab.drained();
  assert.equal(await admitted(host), 1);
  const [lost] = (await tab.state()).stranded;
  assert.deepEqual([lost.event, lost.unsent], ["gone", 1], "its gate is long forgotten");
  assert.deepEqual((await tab.strandedFile(lost.key_id)).file.scans, [queue[1].body]);
});

test("where the browser seals nothing a gate works with the service, and nothing is kept", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const script = 'Object.defineProperty(crypto, "subtle", { value: undefined });';
  const phone = await device(t, host, { script });
  const old = await phone.context.newPage();
  await old.goto("/core/page");
  await old.evaluate(() => new Promise((resolve) => {
    const request = indexedDB.open("gate", 1);
    request.onsuccess = () => resolve(request.result.close());
  }));
  const tab = await phone.open();
  await tab.enrol((await host.enrolment()).enrol_url);
  assert.deepEqual(gist(await tab.scan(host.code(first))), online("accepted"));
  const { storage, offlineReady } = await tab.state();
  assert.deepEqual({ storage, offlineReady }, { storage: false, offlineReady: false });
  await eventually(async () => assert.deepEqual(await tab.page.evaluate(() => indexedDB.databases()), []));
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(second))), undecided);
  assert.equal(await (await phone.open()).page.evaluate(() => globalThis.gate.device), null);
});

test("a key that may not is told so, and admits nobody", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  await host.api("POST", "/api/events", { slug: "other", name: "Other", starts_at: "2099-01-01T00:00:00Z" });
  const { enrol_url } = await host.enrolment({ event: "other", gate: null });
  const tab = await (await device(t, host)).open();
  await tab.enrol(enrol_url);
  await eventually(async () => assert.equal((await tab.state()).problem?.code, "forbidden"));
  assert.equal((await tab.state()).offlineReady, false);
  assert.deepEqual(gist(await tab.scan(host.code(ticket))), online("unknown_ticket"));
  const manual = await tab.scan({ seat: "A1", gate: "North", manual: true, note: "known" });
  assert.deepEqual(gist(manual), undecided);
  assert.equal(manual.problem.code, "forbidden");
});

test("without a manifest nobody is admitted while the service is away, and the same scan counts when it is back", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const tab = await (await device(t, host)).open();
  await tab.enrol((await host.enrolment({ offline: false })).enrol_url);
  await host.stop();
  const verdict = await tab.scan(host.code(ticket));
  assert.deepEqual(gist(verdict), undecided);
  assert.equal(verdict.problem.isAway, true);
  const [kept] = await tab.recent();
  await host.start();
  const again = await tab.retry(kept);
  assert.deepEqual(gist(again), online("accepted"));
  assert.equal(again.scan_id, verdict.scan_id);
  assert.equal((await tab.recent()).length, 1);
});

test("an answer that was lost is asked for again with the same scan", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const tab = await (await device(t, host)).open();
  await tab.enrol((await host.enrolment({ offline: false })).enrol_url);
  await tab.page.route("**/scans", async (route) => {
    await route.fetch();
    await route.abort();
  });
  const verdict = await tab.scan(host.code(ticket));
  assert.deepEqual(gist(verdict), undecided);
  await tab.page.unroute("**/scans");
  const again = await tab.retry(verdict);
  assert.deepEqual(gist(again), online("accepted"));
  assert.equal(again.replayed, true);
  assert.equal((await host.rows(SCANS)).length, 1);
});

test("too many attempts are the service's own refusal", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host);
  const code = host.code(ticket);
  const wrong = code.replace(/\d{6}$/, (digits) => String((Number(digits) + 1) % 1_000_000).padStart(6, "0"));
  for (let attempt = 0; attempt <= 10; attempt += 1) await tab.scan(wrong);
  assert.deepEqual(gist(await tab.scan(code)), online("too_many_attempts"));
});

/** A ticket's code with digits that are wrong, almost certainly. */
const wrong = (code, by = 1) => code.replace(/\d{6}$/, (digits) => String((Number(digits) + by) % 1_000_000).padStart(6, "0"));

test("an answer without the right code names nobody, here as at the service, and a supervisor is told the holder", async (t) => {
  const host = await service(t);
  const [ticket, other] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  const supervisor = await (await device(t, host)).enrolled(host, { role: "supervisor" });
  const refused = async (tab) => (await tab.scan(wrong(host.code(ticket)))).ticket;
  const hidden = async () => {
    const { seat, gate, status, used_at, inside, username, full_name } = await refused(tab);
    assert.deepEqual({ seat, gate }, { seat: "A1", gate: "North" });
    assert.deepEqual([status, used_at, inside, username, full_name].filter((told) => told ?? null), []);
    const told = await refused(supervisor);
    assert.equal(told.full_name, "Holder of A1");
    assert.deepEqual([told.status, told.used_at, told.inside].filter((told) => told ?? null), []);
  };
  await hidden();
  await host.stop();
  await hidden();
  // The details that the service withheld are still stored here.
  const admitted = await tab.scan(host.code(ticket));
  assert.deepEqual(gist(admitted), offline("accepted"));
  assert.equal(admitted.ticket.full_name, "Holder of A1");
  await host.start();
  await tab.drained();
  await host.api("POST", `/api/tickets/${other.ticket_id}/revoke`);
  assert.deepEqual(gist(await tab.scan(host.code(other))), online("revoked"));
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(other))), offline("revoked"), "its result implies its state");
});

/** Moves the page's own clock a minute ahead. */
const aMinuteLater = (tab) => tab.page.evaluate(() => {
  const real = performance.now.bind(performance);
  performance.now = () => real() + 61_000;
});

test("a queue of wrong codes goes out in parts, and leaves some to those who stand there", async (t) => {
  const host = await service(t);
  const [ticket, last] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  await host.stop();
  const code = host.code(ticket);
  for (let by = 1; by <= 50; by += 1) await tab.scan(wrong(code, by));
  assert.deepEqual(gist(await tab.scan(host.code(last))), offline("accepted"));
  await host.start();
  for (let again = 0; again < 3; again += 1) {
    await tab.sync();
    assert.equal((await tab.state()).queued, 21, "at most 30 wrong codes a minute");
  }
  assert.deepEqual(gist(await tab.scan(host.code(ticket, -120))), online("stale_code"), "a live scan is still decided");
  await aMinuteLater(tab);
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.deepEqual((await tab.state()).refused, []);
  assert.equal(await admitted(host), 1);
});

test("a queue that the service wants later is kept as it is, and sent when the time has come", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  await host.stop();
  for (const ticket of [first, second]) assert.deepEqual(gist(await tab.scan(host.code(ticket))), offline("accepted"));
  let batches = 0;
  let isThere = false;
  const json = { type: "about:blank", title: "", status: 429, code: "too_many_wrong_codes", detail: "" };
  // Installed before the service is back, because the page also tries by itself.
  await tab.page.route("**/scans/batch", (route) => {
    if (!isThere) return route.abort();
    batches += 1;
    return route.fulfill({ status: 429, contentType: "application/problem+json", headers: { ...marked(), "retry-after": "60" }, json });
  });
  await host.start();
  isThere = true;
  for (let again = 0; again < 3; again += 1) await tab.sync();
  const { queued, refused, problem } = await tab.state();
  assert.deepEqual({ queued, refused, code: problem.code, batches }, { queued: 2, refused: [], code: json.code, batches: 1 });
  await tab.page.unroute("**/scans/batch");
  await aMinuteLater(tab);
  await tab.drained();
  assert.equal((await tab.state()).problem, null);
  assert.deepEqual(await recorded(host), ["accepted, offline accepted", "accepted, offline accepted"]);
});

test("a key of which too many codes were refused admits nobody by digits, and says why", async (t) => {
  const host = await service(t);
  const [right, ...guessed] = await tickets(host, "A1", "A2", "A3", "A4", "A5", "A6", "A7");
  const { printed_code } = await host.api("POST", `/api/tickets/${right.ticket_id}/print`);
  const tab = await (await device(t, host)).enrolled(host);
  for (const ticket of guessed) {
    for (let by = 1; by <= 10; by += 1) assert.ok(!(await tab.scan(wrong(host.code(ticket), by))).undecided);
  }
  const verdict = await tab.scan(host.code(right));
  assert.deepEqual(gist(verdict), undecided);
  assert.equal(verdict.problem.code, "too_many_wrong_codes");
  assert.deepEqual(gist(await tab.scan(printed_code)), online("accepted"));
});

test("a scan that was taken back while it was on its way stays taken back", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const { printed_code } = await host.api("POST", `/api/tickets/${ticket.ticket_id}/print`);
  const tab = await (await device(t, host)).enrolled(host);
  await tab.sync();
  const release = await tab.hold();
  await tab.page.route("**/scans/batch", (route) => route.abort());
  const verdict = await tab.scan(printed_code);
  assert.deepEqual(gist(verdict), offline("accepted"));
  await host.api("POST", `/api/scans/${verdict.scan_id}/undo`);
  release();
  await tab.page.unroute("**/scans/batch");
  await tab.drained();
  const [corrected, ...more] = await tab.corrected();
  assert.deepEqual([corrected.result, corrected.offline_result, more.length], ["undone", "accepted", 0]);
  assert.equal((await host.rows(SCANS)).length, 1, "it was not sent again as another scan");
  assert.equal(await admitted(host), 0);
  // On the device too, the ticket is as good as new.
  assert.deepEqual(gist(await tab.scan(printed_code)), online("accepted"));
});

test("texts that are no tickets, however long, do not hold up the queue", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host);
  await host.stop();
  const long = "x".repeat(2900);
  for (let scan = 0; scan < 199; scan += 1) await tab.scan(`${long}${scan}`);
  assert.deepEqual(gist(await tab.scan(`${" ".repeat(60)}${host.code(ticket)} \n`)), offline("accepted"));
  await host.start();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.deepEqual((await tab.state()).refused, []);
  assert.equal(await admitted(host), 1);
  assert.equal((await host.rows(SCANS)).length, 200);
});

test("a device whose clock is off decides by the service's time", async (t) => {
  const host = await service(t);
  const registrations = await tickets(host, "A1", "A2", "A3");
  const devices = [];
  for (const seconds of [-95, 95]) {
    const script = `{ const real = Date.now; Date.now = () => real() + ${seconds * 1000}; }`;
    const phone = await device(t, host, { script });
    await (await phone.enrolled(host)).page.close();
    devices.push(phone);
  }
  await host.stop();
  const tabs = [];
  for (const [index, phone] of devices.entries()) {
    const tab = await phone.open();
    assert.deepEqual(gist(await tab.scan(host.code(registrations[index]))), offline("accepted"));
    const stale = await tab.scan(host.code(registrations[2], -95));
    assert.deepEqual(gist(stale), offline("stale_code"));
    assert.ok(stale.seconds_off < 0);
    tabs.push(tab);
  }
  await host.start();
  for (const tab of tabs) {
    await tab.drained();
    assert.deepEqual(await tab.corrected(), []);
    assert.deepEqual((await tab.state()).refused, []);
  }
  assert.equal(await admitted(host), 2);
});

test("a gate knows of other gates' tickets where they belong, and of its own what a person types", async (t) => {
  const host = await service(t);
  const [ticket, revoked] = await tickets(host, "A1", "A2", "A3");
  await host.api("POST", `/api/tickets/${revoked.ticket_id}/revoke`);
  await host.api("POST", "/api/events/default/tickets", "seat,gate\nB1,South\n");
  const south = await host.register({ seat: "B1", gate: "South", username: "south" });
  const tab = await (await device(t, host)).enrolled(host, { role: "supervisor" });
  await host.stop();
  const verdict = await tab.scan(host.code(south));
  assert.deepEqual(gist(verdict), offline("wrong_gate"));
  assert.equal(verdict.right_gate, "South");
  const totp_code = host.code(ticket).slice(-6);
  assert.deepEqual(gist(await tab.scan({ seat: "A1", gate: "North", totp_code: "000" })), offline("wrong_code"));
  const asRead = { seat: "\uff21\u00ad1", gate: " NORTH", totp_code: "000" };
  assert.deepEqual(gist(await tab.scan(asRead)), offline("wrong_code"), "as people read it");
  assert.deepEqual(gist(await tab.scan({ seat: "A1", gate: "North", totp_code })), offline("accepted"));
  const manual = { seat: "A1", gate: "North", manual: true, note: "known" };
  assert.deepEqual(gist(await tab.scan(manual)), offline("already_used"));
  assert.deepEqual(gist(await tab.scan(manual, "exit")), offline("accepted"));
  const { gates, ...counts } = await tab.counts();
  assert.equal(gates.length, 1);
  for (const [name, count] of Object.entries({ tickets: 3, admitted: 1, expected: 1, inside: 0, offline: true })) {
    assert.equal(counts[name], count, name);
  }
  await host.start();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.deepEqual((await tab.state()).refused, []);
});

test("a device has the key of a ticket only while its holder could be admitted, and decides as the service without it", async (t) => {
  const host = await service(t);
  const [revoked, valid] = await tickets(host, "A1", "A2");
  await host.api("POST", "/api/events/default/tickets", "seat,gate\nB1,North\n");
  const tab = await (await device(t, host)).enrolled(host);
  const keys = async () => {
    const { tickets } = await (await host.ask("GET", "/api/events/default/manifest")).json();
    return tickets.filter(({ key }) => key).map(({ seat }) => seat);
  };
  assert.deepEqual(await keys(), ["A1", "A2"]);
  await host.api("POST", `/api/tickets/${revoked.ticket_id}/revoke`);
  await tab.sync();
  assert.deepEqual(await keys(), ["A2"]);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(revoked))), offline("revoked"));
  const free = { seat: "B1", gate: "North", totp_code: "123456" };
  assert.deepEqual(gist(await tab.scan(free)), offline("not_registered"));
  await host.start();
  await tab.drained();
  const sold = await host.register({ seat: "B1", gate: "North", username: "late" });
  await tab.sync();
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(sold))), offline("accepted"));
  assert.deepEqual(gist(await tab.scan(host.code(valid))), offline("accepted"));
});

test("paper admits once, with the service and without", async (t) => {
  const host = await service(t);
  const [first, second, third] = await tickets(host, "A1", "A2", "A3");
  const paper = async ({ ticket_id }) => (await host.api("POST", `/api/tickets/${ticket_id}/print`)).printed_code;
  const [one, other] = [await paper(first), await paper(second)];
  const tab = await (await device(t, host)).enrolled(host);
  assert.deepEqual(gist(await tab.scan(one)), online("accepted"));
  const unheard = await paper(third);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(one)), offline("already_used"));
  assert.deepEqual(gist(await tab.scan(other)), offline("accepted"));
  assert.deepEqual(gist(await tab.scan(other)), offline("already_used"));
  assert.deepEqual(gist(await tab.scan(unheard)), offline("wrong_code"), "this device does not know that it was printed");
  await host.start();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
  assert.equal(await admitted(host), 2);
});

test("what changes at the service reaches the device, and an undone scan admits again", async (t) => {
  const host = await service(t);
  const [first] = await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host, { role: "supervisor" });
  const [second] = await tickets(host, "A2");
  const code = host.code(first);
  const { scan_id } = await tab.scan(code);
  await host.api("PATCH", "/api/events/default", { reentry: "after_exit" });
  await tab.sync();
  assert.equal((await tab.state()).tickets, 2);
  const undone = await tab.undo(scan_id);
  assert.ok(undone.undone_at);
  assert.equal((await tab.recent())[0].undone_at, undone.undone_at);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(code)), offline("stale_code"), "an undone entry's code stays used");
  assert.deepEqual(gist(await tab.scan(host.code(first, 30))), offline("accepted"));
  assert.deepEqual(gist(await tab.scan(host.code(second))), offline("accepted"));
  assert.deepEqual(gist(await tab.scan(host.code(second), "exit")), offline("accepted"));
  assert.deepEqual(gist(await tab.scan(host.code(second))), offline("stale_code"));
  assert.deepEqual(gist(await tab.scan(host.code(second, 30))), offline("accepted"), "this event allows re-entry");
  await host.start();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), []);
});

test("who comes at the wrong time, or twice on a day, is refused without the service too", async (t) => {
  const host = await service(t);
  const HOUR = 3_600_000;
  const [first, second] = await tickets(host, "A1", "A2");
  const [opens_at, valid_until] = [1, -1].map((hours) => new Date(Date.now() + hours * HOUR).toISOString());
  await host.api("POST", "/api/events/default/tickets?existing=update", `seat,gate,valid_until\nA2,North,${valid_until}\n`);
  await host.api("PATCH", "/api/events/default", { opens_at });
  const tab = await (await device(t, host, { script: CLOCK })).enrolled(host, { role: "supervisor" });
  await host.stop();
  const early = await tab.scan(host.code(first));
  assert.deepEqual(gist(early), offline("too_early"));
  assert.deepEqual([early.opens_at, early.closed_at, early.ticket.status], [opens_at, null, "valid"]);
  const late = await tab.scan(host.code(second));
  assert.deepEqual(gist(late), offline("too_late"));
  assert.deepEqual([late.opens_at, late.closed_at, late.ticket.valid_until], [null, valid_until, valid_until]);
  assert.deepEqual(gist(await tab.scan({ seat: "A2", gate: "North", manual: true, note: "one of the band" })), offline("accepted"));
  await host.start();
  await tab.drained();
  assert.deepEqual(await tab.corrected(), [], "the service says the same");

  await host.api("PATCH", "/api/events/default", { opens_at: null, reentry: "once_a_day" });
  await tab.sync();
  const { ticket } = await tab.scan(host.code(first));
  await tab.sync();
  await host.stop();
  const again = await tab.scan(host.code(first, 30));
  assert.deepEqual(gist(again), offline("already_used"));
  assert.equal(again.first_used_at, ticket.entered_at);
  await tab.passes(24 * HOUR);
  const next = await tab.scan(host.code(first, 24 * 3600));
  assert.deepEqual(gist(next), offline("accepted"), "another day");
  assert.deepEqual([next.ticket.used_at, next.ticket.entered_at], [ticket.used_at, next.scanned_at]);
  const twice = await tab.scan(host.code(first, 24 * 3600 + 30));
  assert.deepEqual(gist(twice), offline("already_used"));
  assert.equal(twice.first_used_at, next.scanned_at, "of this day");
});

test("a device that has a ticket otherwise than the service says which, and goes by the service", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  const answer = await tab.scan(host.code(first));
  await tab.sync();
  assert.deepEqual((await tab.state()).differing, []);

  // As if the database had lost a scan it acknowledged: the service knows neither the scan nor any change.
  await tab.page.route("**/scans", (route) => {
    const { scan_id } = route.request().postDataJSON();
    const { ticket_id, seat } = second;
    return route.fulfill({ headers: marked(), json: { ...answer, scan_id, ticket: { ...answer.ticket, ticket_id, seat } } });
  });
  assert.deepEqual(gist(await tab.scan(host.code(second))), online("accepted"));
  await tab.page.unroute("**/scans");
  await tab.sync(); // now its list is as new as that verdict
  await tab.sync();
  assert.deepEqual((await tab.state()).differing, [{ seat: "A2", gate: "North" }]);
  const { admitted, inside } = await tab.counts();
  assert.deepEqual({ admitted, inside }, { admitted: 1, inside: 1 });
  const asked = [];
  tab.page.on("request", (request) => request.url().includes("manifest") && asked.push(request.url()));
  await tab.sync();
  assert.equal(asked.length, 1, "the two lists agree now");
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(second, 30))), offline("accepted"));
  await tab.seenDiffering();
  assert.deepEqual((await tab.state()).differing, []);
});

test("of a code that is read in several ways, all of one ticket, the service says what is wrong", async (t) => {
  const host = await service(t);
  const [ticket] = await tickets(host, "A1");
  const { printed_code } = await host.api("POST", `/api/tickets/${ticket.ticket_id}/print`);
  await host.api("POST", `/api/tickets/${ticket.ticket_id}/reissue`);
  const tab = await (await device(t, host)).enrolled(host);
  const other = printed_code.replace(/.$/, (last) => (last === "A" ? "Q" : "A"));
  assert.deepEqual(gist(await tab.scan({ readings: [printed_code, other] })), online("wrong_code"));
});

test("a browser that keeps nothing works with the service, and says that it cannot without", async (t) => {
  const host = await service(t);
  const [first, second] = await tickets(host, "A1", "A2");
  const script = "IDBFactory.prototype.open = () => { throw new DOMException('no', 'SecurityError'); };";
  const tab = await (await device(t, host, { script })).open();
  await tab.enrol((await host.enrolment()).enrol_url);
  assert.deepEqual(gist(await tab.scan(host.code(first))), online("accepted"));
  assert.deepEqual((await tab.recent()).map(gist), [online("accepted")]);
  const { storage, offlineReady } = await tab.state();
  assert.deepEqual({ storage, offlineReady }, { storage: false, offlineReady: false });
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(second))), undecided);
  await host.start();
  assert.deepEqual(gist(await tab.retry((await tab.recent())[0])), online("accepted"));
});

test("too early by the service's clock keeps the list, and of a whole list what is not in it goes", async (t) => {
  const host = await service(t);
  const [stays, goes] = await tickets(host, "A1", "A2");
  const tab = await (await device(t, host)).enrolled(host);
  const instead = async (answer) => {
    await tab.page.unroute("**/manifest**");
    await tab.page.route("**/manifest**", async (route) => {
      const response = await route.fetch({ url: route.request().url().split("?")[0], headers: { ...route.request().headers(), "if-none-match": "" } });
      await route.fulfill({ response, ...(await answer(response)) });
    });
    await tab.sync();
  };
  const early = { status: 403, title: "Forbidden", type: "about:blank", detail: "Too early.", code: "forbidden" };
  await instead((response) => ({
    status: 403,
    headers: { ...response.headers(), "retry-after": "3600", "content-type": "application/problem+json" },
    body: JSON.stringify(early),
  }));
  assert.deepEqual([(await tab.state()).problem?.code, (await tab.state()).offlineReady, (await tab.state()).tickets], ["forbidden", true, 2]);

  // As after a restore: the second ticket was never issued, and the first has admitted nobody.
  const before = await host.api("GET", "/api/events/default/manifest");
  assert.deepEqual(gist(await tab.scan(host.code(stays, -30))), online("accepted"));
  await tab.page.unroute("**/manifest**");
  await tab.sync();
  await instead(async (response) => {
    const manifest = await response.json();
    return { body: JSON.stringify({ ...manifest, tickets: before.tickets.filter(({ seat }) => seat === "A1") }) };
  });
  await eventually(async () => assert.equal((await tab.state()).tickets, 1));
  assert.deepEqual((await tab.state()).differing.map(({ seat }) => seat), ["A1", "A2"]);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(goes))), offline("unknown_ticket"));
  assert.deepEqual(gist(await tab.scan(host.code(stays))), offline("accepted"));
});

test("a manifest that breaks off is none, and one of 20,000 tickets does not hold up a scan", async (t) => {
  const host = await service(t);
  const seats = Array.from({ length: 20_000 }, (_, seat) => `S${seat},North\n`).join("");
  await host.api("POST", "/api/events/default/tickets", `seat,gate\n${seats}`);
  const ticket = await host.register({ seat: "S19999", gate: "North", username: "last" });
  const tab = await (await device(t, host)).open();
  await tab.page.route("**/manifest**", async (route) => {
    const answer = await route.fetch();
    const text = await answer.text();
    await route.fulfill({ response: answer, body: text.slice(0, text.length / 2) });
  });
  await tab.enrol((await host.enrolment()).enrol_url);
  await tab.sync();
  assert.equal((await tab.state()).offlineReady, false);
  await tab.page.unroute("**/manifest**");
  const longest = tab.standstill();
  await tab.ready();
  t.diagnostic(`the page stood still for ${Math.round(await longest)} ms at most`);
  assert.equal((await tab.state()).tickets, 20_000);
  await host.stop();
  assert.deepEqual(gist(await tab.scan(host.code(ticket))), offline("accepted"));
  const counts = await tab.counts();
  assert.equal(counts.tickets, 20_000);
  assert.equal(counts.admitted, 1);
  await tab.leave();
  const { queued, tickets: known } = await tab.state();
  assert.deepEqual({ queued, known }, { queued: 1, known: 0 });
});

/** Adds other people's tickets to a manifest until it has this many, each with a holder and a key. */
function grown(manifest, tickets) {
  const others = Array.from({ length: tickets - manifest.tickets.length }, (_, seat) => ({
    ...manifest.tickets[0],
    ...{ ticket_id: randomUUID(), seat: `O${seat}`, username: `other-${seat}`, full_name: `Person Number ${seat}` },
    key: Array.from(randomBytes(32), (byte) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[byte % 32]).join(""),
  }));
  const inOrder = [...others, ...manifest.tickets].sort((one, other) => (one.ticket_id < other.ticket_id ? -1 : 1));
  return { ...manifest, counts: { ...manifest.counts, tickets }, tickets: inOrder };
}

/** A device with a list of this many tickets, and the milliseconds from the answer until it was ready. */
async function heldBy(t, host, tickets) {
  const tab = await (await device(t, host)).open();
  let begun;
  await tab.page.route("**/manifest", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, json: grown(await response.json(), tickets) });
    // The time that the test needs to build the list does not count.
    begun = performance.now();
  });
  await tab.enrol((await host.enrolment()).enrol_url);
  const longest = tab.standstill();
  await tab.ready();
  const ready = performance.now() - begun;
  t.diagnostic(`${tickets} tickets: ready after ${Math.round(ready)} ms; the page stood still for ${Math.round(await longest)} ms at most`);
  return { tab, ready };
}

test("a device is ready in a time that grows with its tickets, and decides with 50,000 as fast as with few, whatever was decided before", async (t) => {
  const host = await service(t);
  const registrations = await tickets(host, ...Array.from({ length: 40 }, (_, seat) => `A${seat}`));
  const few = await heldBy(t, host, 5_000);
  await few.tab.page.close();
  const { tab, ready } = await heldBy(t, host, 50_000);
  // Not quadratic, which would be a hundred times as long for ten times as many.
  assert.ok(ready < 40 * few.ready, `${ready} ms, and ${few.ready} ms with a tenth of them`);
  assert.equal((await tab.state()).tickets, 50_000);
  const medians = {};
  const measure = async (where, some) => {
    const times = [];
    for (const code of some.map((registration) => host.code(registration))) {
      const [result, took] = await tab.page.evaluate(async (code) => {
        const begun = performance.now();
        const { result } = await globalThis.gate.scan({ code });
        const took = performance.now() - begun;
        globalThis.gate.counts(); // As the page does while the next one is scanned.
        return [result, took];
      }, code);
      assert.equal(result, "accepted");
      times.push(Math.round(took));
    }
    times.sort((one, other) => one - other);
    medians[where] = times[times.length / 2];
    t.diagnostic(`milliseconds for a verdict ${where}: median ${medians[where]}, longest ${times.at(-1)}`);
  };
  await tab.scan("no ticket");
  await measure("online", registrations.slice(0, 20));
  await host.stop();
  await tab.scan("no ticket");
  await measure("offline", registrations.slice(20));
  const { tickets: all, admitted } = await tab.counts();
  assert.deepEqual({ all, admitted }, { all: 50_000, admitted: 40 });
  // Far above the usual time, as this machine may be busy, and far below what reading every ticket would take.
  for (const [where, median] of Object.entries(medians)) assert.ok(median < 100, `${where}: ${median} ms`);
});

test("people without a ticket are counted where there is no network, sent once, and have the ids that the service gives them", async (t) => {
  const host = await service(t);
  await host.api("PATCH", "/api/events/default", { walk_ups: true, walk_up_price: 1200, currency: "EUR" });
  await tickets(host, "A1");
  const tab = await (await device(t, host)).enrolled(host, { role: "supervisor" });
  await host.stop();
  const people = { walk_up: { count: 3, paid: 1200, full_name: "Ana Roe", note: "Regulars" } };
  const verdict = await tab.scan(people, "exit");
  assert.deepEqual(gist(verdict), offline("accepted"));
  assert.deepEqual([verdict.direction, verdict.ticket.full_name, verdict.walk_up.count], ["entry", "Ana Roe", 3]);
  await tab.scan({ walk_up: { count: 1 } });
  const { gates: [north], ...counts } = await tab.counts();
  const expected = { tickets: 5, registered: 1, admitted: 4, expected: 1, inside: 4, walk_ups: 4, cash: 3600 };
  for (const [name, count] of Object.entries(expected)) assert.deepEqual([counts[name], north[name]], [count, count], name);
  assert.deepEqual([counts.takes_walk_ups, counts.walk_up_price, counts.currency], [true, 1200, "EUR"]);
  const { text } = await tab.kept();
  assert.ok(!text.includes("Ana Roe") && !text.includes("Regulars"), "names are sealed");
  const { file } = await tab.strandedFile(tab.key_id);
  const written = file.scans.map(({ scan }) => JSON.parse(scan).walk_up);
  assert.deepEqual(written, [{ count: 3, paid: 1200, note: "Regulars" }, { count: 1 }], "a file has no names");

  await host.start();
  await tab.drained();
  const stats = await host.api("GET", "/api/events/default/stats");
  assert.deepEqual([stats.walk_ups, stats.cash, stats.inside], [4, 4800, 4]);
  assert.deepEqual([await tab.corrected(), (await tab.state()).refused], [[], []]);
  const ids = await tab.page.evaluate(async (scan_id) => (await import("/core/gate/device.js")).walkUpIds(scan_id, 3), verdict.scan_id);
  const rows = await host.rows(SCANS);
  assert.deepEqual(ids.filter((id) => !rows.some(({ scan_id }) => scan_id === id)), []);
  await tab.undo(verdict.scan_id);
  assert.equal((await host.api("GET", "/api/events/default/stats")).walk_ups, 1);
  // The list has the same counts.
  await tab.ready();
  await host.stop();
  const { walk_ups, cash, inside } = await tab.counts();
  assert.deepEqual({ walk_ups, cash, inside }, { walk_ups: 1, cash: 1200, inside: 1 });
});

test("a gate lets nobody in without a ticket where its role or its event does not", async (t) => {
  const host = await service(t);
  await tickets(host, "A1");
  const supervisor = await (await device(t, host)).enrolled(host, { role: "supervisor" });
  await host.api("PATCH", "/api/events/default", { walk_ups: true });
  const gate = await (await device(t, host)).enrolled(host);
  await host.stop();
  for (const [tab, code] of [[supervisor, "walk_ups_not_allowed"], [gate, "forbidden"]]) {
    const verdict = await tab.scan({ walk_up: { count: 1 } });
    assert.deepEqual([gist(verdict), verdict.problem.code], [undecided, code]);
    assert.equal((await tab.state()).queued, 0);
  }
});
