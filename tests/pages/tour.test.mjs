// Every page in every state, on a phone and a desktop, light and dark: accessible, and no wider than the screen. With
// SCREENSHOTS=DIRECTORY each is saved as a picture.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { accessible, desktop, phone, rawTexts, service, walletIssuer } from "./harness.mjs";
import { allLookedAt, fits } from "./layout.mjs";
import { mailServer } from "./mail-server.mjs";
import { Gate, Holder, Organizer, en, linkToAll } from "./people.mjs";

const SHOTS = process.env.SCREENSHOTS;
const CSV = `seat,gate,username,full_name,email
A-1,North,ana,Ana Roe,ana@example.org
A-2,North,ben,Ben Okafor,ben@example.org
A-3,North,carla,Carla Méndez,carla@example.org
A-4,North,,,
A-5,North,dev,Dev Patel,dev@example.org
B-1,South,emma,Emma Lind,emma@example.org
B-2,South,farid,Farid Haddad,nobody@example.org
B-3,South,,,
A-6,North,gil,Gil Sanz,gil@example.org
A-7,North,gil,Iris Sanz,gil@example.org
A-8,North,gil,Noa Sanz,gil@example.org
`;
const PEOPLE = { ana: "A-1", ben: "A-2", carla: "A-3", dev: "A-5", emma: "B-1", gil: "A-6" };

const DEVICES = {
  phone: (t, service, options) => phone(t, service, { deviceScaleFactor: 1.5, ...options }), // small pictures
  desktop,
};
const LOOKS = [["phone", "light"], ["desktop", "dark"], ["phone", "dark"], ["desktop", "light"]];

// Two looks cover both sizes and both themes; pictures are taken of all.
for (const [device, colorScheme] of SHOTS ? LOOKS : LOOKS.slice(0, 2)) {
  const page = (t, service, options) => DEVICES[device](t, service, { colorScheme, ...options });
  const measures = device === "phone" && !SHOTS;
  const look = async (page, state) => {
    await lookAt(page, `${state}-${device}-${colorScheme}`);
    if (measures) await fits(page, state);
  };
  look.all = (page) => measures && allLookedAt(page);
  test(`the ticket, ${device}, ${colorScheme}`, async (t) => holder(t, page, look));
  test(`the gate, ${device}, ${colorScheme}`, async (t) => gate(t, page, look));
  test(`the organizer, ${device}, ${colorScheme}`, async (t) => organizer(t, page, look));
}

async function lookAt(page, name) {
  await accessible(page);
  const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(content <= screen, `${name} is ${content} wide on a screen of ${screen}`);
  if (SHOTS) await page.screenshot({ path: path.join(SHOTS, `${name}.png`) });
}

/** An event with a few tickets, and some of their holders' registrations by name. */
async function gala(t) {
  const mails = [];
  const mail = await mailServer({ kept: (mail) => mails.push(mail) });
  t.after(() => mail.close());
  const settings = { SMTP_URL: `smtp://localhost:${mail.port}`, MAIL_FROM: "Spring Gala <gala@example.org>", ...walletIssuer().settings };
  const tickets = await service(t, { settings });
  const soon = (hours) => new Date(Date.now() + hours * 3_600_000).toISOString();
  const event = { slug: "gala", name: "Spring Gala", time_zone: "Europe/Madrid", starts_at: soon(1), ends_at: soon(5), reentry: "after_exit" };
  await tickets.api("POST", "/api/events", event);
  await tickets.api("POST", "/api/events/gala/tickets", CSV);
  const issued = (await tickets.api("GET", "/api/events/gala/tickets")).tickets;
  const people = {};
  for (const [username, seat] of Object.entries(PEOPLE)) {
    const { ticket_id } = issued.find((ticket) => ticket.seat === seat);
    people[username] = await tickets.api("POST", `/api/tickets/${ticket_id}/reissue`); // the only way to know its secret
  }
  return { service: tickets, people, issued, mails };
}

async function holder(t, page, look) {
  const { service, people, mails } = await gala(t);
  const ana = await Holder.at(t, service, people.ana.provisioning.ticket_url, { page });
  const ticket = ana.page;
  await ana.isKept();
  await look(ticket, "ticket");
  await ticket.locator(".enlarge").click();
  await look(ticket, "ticket-large");
  await ticket.locator(".enlarge").click();
  await service.stop();
  await ticket.reload();
  await ticket.getByText(en("ticket.offline")).waitFor();
  await look(ticket, "ticket-offline");
  await service.start();
  await service.scan(people.ana, service.code(people.ana));
  await ticket.reload();
  await ticket.getByText(en("ticket.used"), { exact: true }).waitFor();
  await look(ticket, "ticket-used");
  await ticket.goto(people.ben.provisioning.ticket_url);
  const reissued = await service.api("POST", `/api/tickets/${people.ben.ticket_id}/reissue`);
  await ticket.evaluate(() => dispatchEvent(new Event("online")));
  await ticket.getByText(en("gone.title")).waitFor();
  await look(ticket, "ticket-reissued");
  await ticket.goto(reissued.provisioning.ticket_url);
  await service.api("POST", `/api/tickets/${people.ben.ticket_id}/revoke`);
  await ticket.reload();
  await ticket.getByText(en("ticket.revoked"), { exact: true }).waitFor();
  await look(ticket, "ticket-revoked");
  await look.all(ticket);
  await service.api("POST", "/api/events/gala/mails", { tickets: [people.gil.ticket_id] });
  await ticket.goto(linkToAll(mails.at(-1)));
  await ana.isKept();
  await ticket.keyboard.press("ArrowRight");
  await look(ticket, "tickets");
  await ticket.goto("/t/no-such-ticket");
  await ticket.getByText(en("gone.title")).waitFor();
  await look(ticket, "ticket-gone");
}

/** The tour event's rules for people without a ticket. */
const DOOR = { walk_ups: true, walk_up_price: 1200, currency: "EUR" };

async function gate(t, page, look) {
  const { service, people, issued } = await gala(t);
  await service.api("PATCH", "/api/events/gala", DOOR);
  const newcomer = await page(t, service);
  await newcomer.goto("/gate");
  await newcomer.getByText(en("gate.enrol_title")).waitFor();
  await look(newcomer, "gate-enrol");

  await newcomer.goto((await service.enrolment({ event: "gala", gate: null })).enrol_url);
  await newcomer.getByRole("button", { name: en("gate.offer_accept") }).click();
  await newcomer.getByRole("button", { name: "North" }).waitFor();
  await look(newcomer, "gate-choose");

  const gate = await Gate.at(t, service, { page, key: { event: "gala", role: "supervisor" } });
  const shows = async (code, state) => {
    await gate.reads(code);
    await look(gate.page, `gate-${state}`);
    await gate.goesOn();
  };
  await gate.readyForOffline(issued.length);
  await look(gate.page, "gate");
  await shows(service.code(people.ana), "accepted");
  await shows(service.code(people.gil), "party");
  await gate.types("A-1", service.code(people.ana));
  await look(gate.page, "gate-already-used");
  await gate.goesOn();
  await shows(service.code(people.ben, -95), "stale-code");
  await shows(service.code(people.ben).replace(/\d{6}$/, "000000"), "wrong-code");
  await shows(service.code(people.emma), "wrong-gate");
  await shows(`RT1.${Buffer.from(issued[3].ticket_id.replaceAll("-", ""), "hex").toString("base64url")}.000000`, "not-registered");
  await shows("https://example.org/menu", "not-a-code");
  await shows(`RT1.${"A".repeat(22)}.123456`, "unknown-ticket");
  await service.api("POST", `/api/tickets/${people.carla.ticket_id}/revoke`);
  await shows(service.code(people.carla), "revoked");
  await gate.press(en("gate.exit"));
  await look(gate.page, "gate-exit");
  await shows(service.code(people.ana, 30), "left");
  await shows(service.code(people.ben), "not-inside");
  await gate.press(en("gate.entry"));
  const guess = service.code(people.ben).replace(/\d{6}$/, "000000");
  for (let guesses = 0; guesses < 11; guesses += 1) await service.scan(people.ben, guess);
  await shows(service.code(people.ben), "too-many-attempts");
  await gate.press(en("gate.guest"));
  await gate.page.getByLabel(en("gate.guest_name"), { exact: true }).fill("sanz");
  await gate.page.locator("#guests").getByText("Noa Sanz").waitFor();
  await look(gate.page, "gate-guests");
  await gate.page.locator("#guests").getByText("Noa Sanz").click();
  await look(gate.page, "gate-guest");
  await gate.press(en("gate.cancel"), gate.page.locator("#guest-sheet"));
  await gate.page.keyboard.press("Escape");
  await gate.press(en("gate.door"));
  for (let more = 1; more < 20; more += 1) await gate.press(en("gate.door_more"));
  await look(gate.page, "gate-door");
  await gate.press(en("gate.cancel"));
  await gate.press(en("gate.type"));
  await look(gate.page, "gate-type");
  await gate.press(en("gate.without_code"));
  await look(gate.page, "gate-manual");
  await gate.press(en("gate.cancel"));
  await gate.page.locator("#last").click();
  await look(gate.page, "gate-scans");
  await gate.press(en("gate.close"));
  await gate.page.locator("#counts").click();
  await look(gate.page, "gate-counts");
  await gate.press(en("gate.close"));
  await gate.press(en("gate.more"));
  await look(gate.page, "gate-more");
  await gate.page.evaluate((link) => (location.href = link), (await service.enrolment({ name: "South door", event: "gala", gate: "South" })).enrol_url);
  await gate.page.locator("#offer-accept:enabled").waitFor();
  await look(gate.page, "gate-offer");
  await gate.press(en("gate.cancel"));

  const online = await Gate.at(t, service, { page, key: { event: "gala", offline: false } });
  await service.stop();
  await online.reads(service.code(people.dev));
  await look(online.page, "gate-undecided");
  await shows(service.code(people.dev), "accepted-offline");
  await look(gate.page, "gate-offline");
  await gate.press(en("gate.more"));
  await look(gate.page, "gate-more-offline");
  await gate.press(en("gate.save_unsent"));
  await gate.page.locator("#stranded-hint").evaluate((hint) => (hint.hidden = false)); // as of a key that has ended
  await look(gate.page, "gate-unsent");
  await gate.press(en("gate.close"), gate.page.locator("#stranded-sheet"));
  await gate.press(en("gate.leave"));
  await look(gate.page, "gate-leave");
  await look.all(gate.page);
}

/** Every verdict, with the longest texts it can have: shown at once, for as long as the test looks at it. */
test("every verdict fits", async (t) => {
  const { service } = await gala(t);
  const gate = await Gate.at(t, service, { key: { event: "gala" } });
  const { ScanResult } = JSON.parse(fs.readFileSync(new URL("../../src/openapi.json", import.meta.url), "utf8")).components.schemas;
  const results = ScanResult.enum;
  const person = { full_name: "María del Carmen Fernández de la Vega", seat: "Block 104, row 12, seat 7", gate: "North" };
  Object.assign(person, { category: "Reduced, under 12 years, with an adult", category_colour: "pink", note: "Walks with a stick. ".repeat(10).trim() });
  const more = { ticket: person, right_gate: "South", first_used_at: new Date().toISOString(), first_used_gate: "North", seconds_off: -95, opens_at: "2127-09-29T16:00:00.000Z", closed_at: "2025-09-24T21:30:00.000Z", offline: true };
  const verdicts = [...results.map((result) => ({ ...more, result })), { ...more, result: "not_a_code" }];
  verdicts.push({ ...more, result: "accepted", direction: "exit" }, { undecided: true, problem: { isAway: true } });
  verdicts.push({ result: "unknown_ticket", presented: person }, { ...more, result: "already_used", offline_result: "accepted" });
  const party = ["Under 12", "Over 65", "VIP"].map((category) => ({ ...person, ticket_id: category, category, note: "Walks with a stick, and knows the way" }));
  verdicts.push({ ...more, result: "accepted", party }, { ...more, result: "accepted", party: party.slice(1, 2) });
  verdicts.push({ ...more, result: "revoked", party: [], together: { admitted: 2, left: party } });
  for (const verdict of verdicts) {
    await gate.page.evaluate(showForLong, verdict);
    await fits(gate.page, JSON.stringify(verdict));
  }
});

const PAGES = new URL("../../src/pages/", import.meta.url);
const source = (name) => fs.readFileSync(new URL(name, PAGES), "utf8");

/** These texts in English, with their placeholders filled. */
function told(names) {
  const gaps = { n: "1,250", tickets: "48,000", time: "10:45 pm", ago: "3 hours ago", amount: "90 min", period: "30", status: "503", places: "Row 12, seat 7, Row 12, seat 8, Row 14, seat 31, …" };
  return names.map((name) => rawTexts("en")[name].replace(/\{(?:limit\.)?(\w+)\}/g, (_, gap) => gaps[gap] ?? "48"));
}

const named = (pattern) => Object.keys(rawTexts("en")).filter((name) => pattern.test(name));

test("every banner of the gate fits", async (t) => {
  const { service } = await gala(t);
  const { page } = await Gate.at(t, service, { key: { event: "gala" } });
  const written = /function showNotices[^]*?\nfunction openScans/.exec(source("gate/gate.js"))[0];
  const notices = told([...written.matchAll(/text\([^"]*?"(gate\.\w+)"(?: : "(gate\.\w+)")?/g)].flatMap(([, ...names]) => names.filter(Boolean)));
  assert.ok(notices.length > 12, notices.join());
  for (const notice of notices) {
    await page.evaluate((notice) => document.querySelector("#notices").replaceChildren(Object.assign(document.createElement("button"), { className: "bad", textContent: notice })), notice);
    await fits(page, notice);
  }
  // As many as appear together when things go wrong.
  const some = told(["gate.offline_notice", "gate.queued", "gate.refused", "gate.page_not_kept", "gate.clock_set_ahead"]);
  await page.evaluate((some) => document.querySelector("#notices").replaceChildren(...some.map((notice) =>
    Object.assign(document.createElement("p"), { className: "warn", textContent: notice }))), some);
  await fits(page, "five banners");
  for (const why of told(named(/^gate\.camera_(?!again)/))) {
    await page.evaluate((why) => {
      document.querySelector("#camera-problem-text").textContent = why;
      document.querySelector("#camera-problem").hidden = false;
    }, why);
    await fits(page, why);
  }
  for (const id of ["enrol-problem", "stranded"]) {
    await page.evaluate(([id, words]) => Object.assign(document.getElementById(id), { hidden: false, textContent: words }), [id, ...told(["gate.stranded"])]);
    await fits(page, `#${id} of a gate`);
  }
  await page.evaluate(() => {
    for (const id of ["camera-problem", "enrol-problem", "stranded"]) document.getElementById(id).hidden = true;
    document.querySelector("#notices").replaceChildren();
    document.querySelector("#missed").hidden = false;
  });
  for (const why of told(named(/^gate\.missed_/))) {
    await page.evaluate(([word, why]) => {
      const bold = Object.assign(document.createElement("b"), { textContent: word });
      document.querySelector("#missed").replaceChildren(bold, " ", why);
    }, [...told(["result.not_taken"]), why]);
    await fits(page, why);
  }
});

test("whatever is wrong with enrolling fits", async (t) => {
  const { service } = await gala(t);
  const page = await phone(t, service);
  await page.goto("/gate");
  await page.getByText(en("gate.enrol_title")).waitFor();
  for (const why of told(["gate.enrol_away", "gate.enrol_ended", "gate.enrol_not_a_link", "gate.stranded", "gate.enrol_unsent"])) {
    await page.evaluate((why) => {
      for (const id of ["enrol-problem", "stranded", "enrol-unsent"]) {
        document.getElementById(id).textContent = why;
        document.getElementById(id).hidden = false;
      }
    }, why);
    await fits(page, why);
  }
});

test("whatever a ticket says of connection and clock fits", async (t) => {
  const { service, people } = await gala(t);
  const ana = await Holder.at(t, service, people.ana.provisioning.ticket_url);
  const { page } = ana;
  await ana.isKept();
  const [zone] = told(["ticket.clock_zone"]);
  for (const clock of told(["ticket.clock_fast", "ticket.clock_slow"])) {
    for (const connection of told(["ticket.offline", "ticket.offline_no_code", "ticket.kept_loosely", "ticket.kept_in_app", "ticket.kept_not"])) {
      await page.evaluate((lines) => lines.forEach(([line, words]) => document.querySelector(line).replaceChildren(...words)),
        [[".connection", [connection]], [".clock", [clock, " ", zone]]]);
      await fits(page, `${connection} ${clock}`);
    }
  }
});

/** Pages that are the same for everybody, rendered as the service does it: one for each file without a script. */
test("every page that only says something fits", async (t) => {
  const { service } = await gala(t);
  const page = await phone(t, service);
  await page.goto("/");
  const [, assets] = /href="([^"]*)\/shared\/base\.css"/.exec(await page.content());
  const files = fs.readdirSync(PAGES, { recursive: true }).filter((file) => file.endsWith(".html"));
  const plain = files.filter((file) => !source(file).includes("<script"));
  assert.deepEqual(plain.map((file) => path.basename(file, ".html")).sort(), ["away", "gone", "home", "refused"]);
  for (const file of plain) {
    for (const [title, why] of [["nothing.title", "nothing.why"], ["refused.title", "refused.why"]]) {
      const values = { assets, lang: "en", retry: "600", status: "405", detail: "The method PATCH is not allowed for /api/events/spring-gala/tickets." };
      const fill = (_, name) => values[name] ?? told([{ title, why }[name] ?? name])[0];
      const body = source(file).replace(/\{\{([\w.]+)\}\}/g, fill);
      await page.route("**/said", (route) => route.fulfill({ contentType: "text/html", body }));
      await page.goto("/said");
      await fits(page, `${file}, ${title}`);
      await page.unroute("**/said");
    }
  }
});

/** Runs in the gate's page. */
async function showForLong(verdict) {
  const { VerdictDialog } = await import(new URL("verdict.js", document.querySelector("script[src]").src));
  const { setTimeout } = globalThis;
  globalThis.setTimeout = () => 0; // so that it does not disappear by itself
  new VerdictDialog({ closed() {}, retry() {}, admit() {} }).show(verdict, "Europe/Madrid", verdict.party?.length);
  globalThis.setTimeout = setTimeout;
}

async function organizer(t, page, look) {
  const { service, people } = await gala(t);
  const visitor = await page(t, service);
  await visitor.goto("/");
  await look(visitor, "home");
  await visitor.goto("/organizer");
  await visitor.getByLabel(en("organizer.key"), { exact: true }).waitFor();
  await look(visitor, "organizer-sign-in");

  const organizer = await Organizer.at(t, service, { page });
  await organizer.page.getByLabel(en("organizer.event"), { exact: true }).selectOption("gala");
  await organizer.sees(en("organizer.no_arrivals"));
  await organizer.open("events");
  await organizer.sees("Spring Gala");
  await look(organizer.page, "organizer-events");
  await organizer.press(en("organizer.new_event"));
  await organizer.page.getByLabel(en("organizer.walk_ups_allow")).check();
  await look(organizer.page, "organizer-event");
  await organizer.press(en("organizer.cancel"));
  await organizer.page.evaluate(() => (location.hash = "#first/gala")); // as without an event
  await organizer.sees(en("organizer.first_title"));
  await look(organizer.page, "organizer-first");

  await organizer.open("tickets");
  await organizer.sees("Ana Roe");
  await look(organizer.page, "organizer-tickets");
  await organizer.press(en("organizer.mails_open"));
  await organizer.page.getByText(en("organizer.mails_first")).click();
  await look(organizer.page, "organizer-mails");
  await organizer.press(en("organizer.mails_go"));
  await organizer.sees(en("organizer.mails_done", { sent: 8 }));
  await look(organizer.page, "organizer-mailed");
  await organizer.press(en("organizer.close"));
  await organizer.press("A-1");
  await organizer.sees(en("organizer.mailed_at"));
  await look(organizer.page, "organizer-ticket");
  await organizer.press(en("organizer.link_title"));
  await organizer.sees(en("organizer.link_how"));
  await look(organizer.page, "organizer-link");
  await organizer.press(en("organizer.close"), organizer.dialog(en("organizer.link_how")));
  await organizer.press(en("organizer.close"));
  await organizer.press("A-4");
  await organizer.press(en("organizer.register"));
  await look(organizer.page, "organizer-holder");
  await organizer.press(en("organizer.cancel"));
  await organizer.press(en("organizer.close"));
  await organizer.chooses("seat,gate,username\nC-1,East,gus\nA-1,North,hana\n");
  await organizer.sees(en("organizer.wrong_one", { count: 1 }));
  await look(organizer.page, "organizer-import");
  await organizer.open("tickets");
  await organizer.page.getByText(en("organizer.hand_out"), { exact: true }).click();
  await organizer.press(en("organizer.print_all"));
  await organizer.sees(en("organizer.sheet_link"));
  await look(organizer.page, "organizer-print");

  await service.api("PATCH", "/api/events/gala", DOOR);
  await service.api("POST", "/api/events/gala/walk-ups", { scan_id: crypto.randomUUID(), gate: "North", count: 2 });
  await organizer.open("gates");
  await organizer.press(en("organizer.new_key"));
  await look(organizer.page, "organizer-key");
  await organizer.press(en("organizer.cancel"));
  await organizer.makesGateKey({ name: "North door", gate: "North" });
  await organizer.sees(en("organizer.no_scan"));
  await look(organizer.page, "organizer-gates");
  await organizer.press(en("organizer.enrol"));
  await organizer.sees(en("organizer.enrol_how"));
  await look(organizer.page, "organizer-enrol");
  await organizer.press(en("organizer.close"));
  await organizer.press(en("organizer.lost"));
  await look(organizer.page, "organizer-lost");
  await organizer.press(en("organizer.close"));
  await organizer.press(en("organizer.revoke"));
  await look(organizer.page, "organizer-confirm");
  await organizer.press(en("organizer.cancel"));

  await service.scan(people.ana, service.code(people.ana));
  await service.scan(people.ana, service.code(people.ana));
  await service.scan(people.emma, service.code(people.emma, -120));
  await organizer.page.route("**/stats", evening);
  await organizer.open("board");
  await organizer.sees(en("result.stale_code"));
  await look(organizer.page, "organizer-board");
  await organizer.press(en("organizer.whole_hours"));
  await organizer.page.getByText(en("organizer.incidents")).click();
  await organizer.page.locator("#incidents li").first().waitFor();
  await look(organizer.page, "organizer-incidents");
  await organizer.open("check");
  await organizer.sees(en("organizer.check_database_ok"));
  await look(organizer.page, "organizer-check");
  await organizer.press(en("organizer.list_print"));
  await organizer.sees("Ana Roe");
  await look(organizer.page, "organizer-list");
  await look.all(organizer.page);
}

/** Statistics of an event, which a test cannot produce in a minute. */
async function evening(route) {
  const response = await route.fetch();
  const now = Date.now();
  const arrivals = Array.from({ length: 60 }, (_, age) => ({
    minute: new Date(now - (now % 60_000) - (59 - age) * 60_000).toISOString(),
    admitted: Math.round(9 * Math.exp(-(((age - 38) / 14) ** 2)) + ((age * 7) % 5) / 2),
  }));
  const admitted = arrivals.reduce((sum, minute) => sum + minute.admitted, 0);
  const south = { gate: "South", tickets: 160, registered: 148, admitted: 97, expected: 51, inside: 97, walk_ups: 0, cash: 0 };
  const north = { gate: "North", tickets: 240, registered: 231, admitted: admitted - 97, expected: 328 - admitted, inside: admitted - 100, walk_ups: 2, cash: 2_400 };
  const gates = [north, south];
  const sum = (name) => gates.reduce((total, gate) => total + gate[name], 0);
  const counts = Object.fromEntries(["tickets", "registered", "admitted", "expected", "inside", "walk_ups", "cash"].map((name) => [name, sum(name)]));
  const refused = { already_used: 6, stale_code: 4, wrong_gate: 3 };
  const stats = { ...(await response.json()), ...counts, gates, refused, undone: 1, arrivals };
  await route.fulfill({ response, json: stats });
}
