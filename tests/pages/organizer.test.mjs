// What an organizer does on the page, and what the page must never do.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import { test } from "node:test";
import { LANGUAGES, accessible, desktop, eventually, forBothDatabases, marked, phone, service, texts } from "./harness.mjs";

const en = texts("en");
const HOSTILE = ["<img src=x onerror=alert(1)>", "\u202Eright-to-left \u200F\u05D0", "W".repeat(200)];
const VIEWS = ["events", "tickets", "import", "gates", "board", "check"];

/** A signed-in organizer, who presses and finds things by their texts. */
async function signedIn(t, tickets, { key = tickets.key, view = "", device = desktop, text = en, ...options } = {}) {
  const page = await device(t, tickets, options);
  await page.goto(`/organizer${view && `#${view}`}`);
  await signIn(page, key, text);
  return page;
}

async function signIn(page, key, text = en) {
  await page.getByLabel(text("organizer.key"), { exact: true }).fill(key);
  await page.getByRole("button", { name: text("organizer.sign_in") }).click();
  await page.locator("#bar").waitFor();
}

const press = (page, name, values) => page.getByRole("button", { name: en(`organizer.${name}`, values), exact: true }).click();
const sees = (page, text) => page.getByText(text).filter({ visible: true }).first().waitFor();
const inDialog = (page) => page.getByRole("dialog").last();
const field = (page, name) => inDialog(page).getByLabel(en(`organizer.${name}`), { exact: true });
const pressInDialog = (page, name) => press(inDialog(page), name);

async function withTickets(t, csv = "seat,gate,username,full_name\nA-1,North,ana,Ana Roe\nA-2,North,bob,Bob Poe\nB-1,South,,\n") {
  const tickets = await service(t);
  await tickets.api("POST", "/api/events/default/tickets", csv);
  return tickets;
}

/** Admits somebody. */
async function use(tickets, username) {
  const [{ ticket_id }] = (await tickets.api("GET", `/api/events/default/tickets?q=${username}`)).tickets;
  const { printed_code: code } = await tickets.api("POST", `/api/tickets/${ticket_id}/print`);
  await tickets.api("POST", "/api/events/default/scans", { scan_id: crypto.randomUUID(), code });
}

test("a key opens the page until it is loaded again, and is nowhere else", async (t) => {
  const tickets = await service(t);
  const page = await desktop(t, tickets);
  const addresses = [];
  page.on("request", (request) => addresses.push(request.url()));
  await page.goto("/organizer");
  await accessible(page);
  await page.getByLabel(en("organizer.key"), { exact: true }).fill("rtk_not-a-key");
  await press(page, "sign_in");
  await sees(page, en("problem.unauthenticated"));
  const gate = await tickets.api("POST", "/api/keys", { name: "North", role: "gate", event: "default" });
  await page.getByLabel(en("organizer.key"), { exact: true }).fill(gate.key);
  await press(page, "sign_in");
  await sees(page, en("problem.forbidden"));

  await signIn(page, tickets.key);
  assert.ok(!addresses.some((address) => address.includes(tickets.key)));
  assert.deepEqual(await page.context().cookies(), []);
  const kept = await page.evaluate(async () => ({
    ...{ local: { ...localStorage }, session: { ...sessionStorage }, state: history.state, name: globalThis.name },
    ...{ databases: await indexedDB.databases(), caches: await caches.keys(), fields: [...document.querySelectorAll("input")].map(({ value }) => value) },
  }));
  assert.ok(!JSON.stringify(kept).includes(tickets.key), JSON.stringify(kept));
  assert.deepEqual([kept.session, kept.databases, kept.caches], [{}, [], []]);

  await page.reload();
  await page.locator("#signin").waitFor();
  await signIn(page, tickets.key);
  await press(page, "sign_out");
  await page.locator("#signin").waitFor();
});

test("a password manager finds a name and the key in the form that asks for it", async (t) => {
  const page = await desktop(t, await service(t));
  await page.goto("/organizer");
  const fields = page.locator("#signin form input").evaluateAll((all) => all.map(({ type, autocomplete }) => [type, autocomplete]));
  assert.deepEqual(await fields, [["text", "username"], ["password", "current-password"]]);
});

test("the key that release 0.1.0 left in the tab's storage is taken out of it", async (t) => {
  const page = await desktop(t, await service(t));
  await page.goto("/organizer");
  await page.evaluate(() => sessionStorage.setItem("organizer-key", "rtk_old"));
  await page.reload();
  await page.locator("#signin").waitFor();
  assert.deepEqual(await page.evaluate(() => ({ ...sessionStorage })), {});
});

test("nothing that a dialog asks about one event is done to another that an address brings", async (t) => {
  const tickets = await service(t);
  await tickets.api("POST", "/api/events", { slug: "other", name: "Other" });
  const page = await signedIn(t, tickets, { view: "gates/default" });
  await press(page, "new_key");
  await page.locator("dialog[open]").waitFor();
  await page.evaluate(() => (location.hash = "#gates/other"));
  await page.waitForFunction(() => document.querySelector("#event").value === "other");
  assert.equal(await page.locator("dialog[open]").count(), 0);
});

/** A time some hours from now, in the format of a time field in this zone. */
const inHours = (hours, timeZone) => new Date(Date.now() + hours * 3_600_000).toLocaleString("sv", { timeZone }).replace(" ", "T").slice(0, 16);

forBothDatabases("whoever has no event makes one first, and is told what comes next until the doors are open", async (t, tickets) => {
  const page = await signedIn(t, tickets, { view: "board", timezoneId: "America/Mexico_City" });
  await sees(page, en("organizer.first_title"));
  await accessible(page);
  const first = page.locator("#first");
  const fill = (name, value) => first.getByLabel(en(`organizer.${name}`), { exact: true }).fill(value);
  assert.equal(await first.getByLabel(en("organizer.time_zone"), { exact: true }).inputValue(), "America/Mexico_City");
  await fill("name", "Default");
  await fill("time_zone", "Europe/Madrid");
  await press(page, "first_go");
  assert.equal((await tickets.api("GET", "/api/events")).events.length, 1, "an event without its times is not made");
  await fill("starts", inHours(3, "Europe/Madrid"));
  await fill("ends", inHours(2, "Europe/Madrid"));
  await press(page, "first_go");
  await sees(page, en("field.ends_before_start"));
  await accessible(page);
  await fill("ends", inHours(6, "Europe/Madrid"));
  await fill("opens", inHours(2, "Europe/Madrid"));
  await press(page, "first_go");
  await sees(page, en("organizer.import_how"));
  const event = (await tickets.api("GET", "/api/events/default-2"));
  assert.deepEqual([event.name, event.time_zone, event.language], ["Default", "Europe/Madrid", "en"]);
  assert.equal(Date.parse(event.starts_at) - Date.parse(event.opens_at), 3_600_000);

  const next = page.locator("#next");
  const says = (name, values) => next.getByText(en(`organizer.next_${name}`, values)).waitFor();
  await says("list");
  assert.equal(await next.getByRole("link").count(), 0, "no link to the current view");
  await tickets.api("POST", "/api/events/default-2/tickets", "seat,gate,username\nA-1,North,ana\n");
  await page.getByRole("link", { name: en("organizer.check"), exact: true }).click();
  await says("hand");
  await accessible(page);
  await tickets.api("POST", "/api/keys", { name: "Foyer", role: "gate", event: "default-2", gate: "Foyer" });
  await next.getByRole("link").click();
  await says("gate", { gate: "\u2068North\u2069" });
  await next.getByRole("link").click();
  await press(page, "new_key");
  await field(page, "name").fill("North door");
  await pressInDialog(page, "make_key");
  await pressInDialog(page, "close");
  await says("device", { key: "\u2068Foyer\u2069" });
  await tickets.api("PATCH", "/api/events/default-2", { opens_at: null, starts_at: new Date(Date.now() - 60_000).toISOString() });
  await press(page, "sign_out");
  await signIn(page, tickets.key);
  await says("board");
  await next.getByRole("link").click();
  await next.waitFor({ state: "hidden" });
});

test("whoever has tickets in the event that always exists is not asked for another", async (t) => {
  const page = await signedIn(t, await withTickets(t));
  await sees(page, en("organizer.no_arrivals"));
  await page.locator("#next").getByText(en("organizer.next_times")).waitFor();
});

test("an event's times are those of its zone; only its typed name deletes it", async (t) => {
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { view: "events" });
  await press(page, "new_event");
  await field(page, "name").fill("Fête d'été");
  assert.equal(await field(page, "slug").inputValue(), "fete-d-ete");
  await field(page, "time_zone").fill("America/Mexico_City");
  await field(page, "starts").fill("2027-07-15T20:00");
  await field(page, "ends").fill("2027-07-15T19:00");
  await pressInDialog(page, "save");
  await sees(page, en("field.ends_before_start"));
  await accessible(page);
  await field(page, "ends").fill("2027-07-15T23:00");
  await field(page, "opens").fill("2027-07-15T19:00");
  await field(page, "closes").fill("2027-07-15T19:00");
  await pressInDialog(page, "save");
  await sees(page, en("field.ends_before_start"));
  await field(page, "closes").fill("2027-07-15T22:30");
  await pressInDialog(page, "save");
  await sees(page, en("organizer.saved_event"));
  const event = await tickets.api("GET", "/api/events/fete-d-ete");
  assert.equal(event.starts_at, "2027-07-16T02:00:00.000Z");
  assert.equal(event.ends_at, "2027-07-16T05:00:00.000Z");
  assert.equal(event.opens_at, "2027-07-16T01:00:00.000Z");
  assert.equal(event.closes_at, "2027-07-16T04:30:00.000Z");

  const card = page.locator("#events .here");
  await press(card, "edit");
  assert.equal(await field(page, "starts").inputValue(), "2027-07-15T20:00");
  assert.equal(await field(page, "opens").inputValue(), "2027-07-15T19:00");
  await field(page, "closes").fill("");
  await field(page, "reentry").selectOption("once_a_day");
  await pressInDialog(page, "save");
  await eventually(async () => assert.equal((await tickets.api("GET", "/api/events/fete-d-ete")).reentry, "once_a_day"));
  assert.equal((await tickets.api("GET", "/api/events/fete-d-ete")).closes_at, null);

  await tickets.api("POST", "/api/events/fete-d-ete/tickets", { seat: "A-1", gate: "North" });
  await press(card, "delete");
  await page.locator("#typed").fill("fete");
  await pressInDialog(page, "delete");
  await sees(page, en("field.not_typed"));
  await page.locator("#typed").fill("fete-d-ete");
  await pressInDialog(page, "delete");
  await sees(page, en("organizer.deleted"));
  assert.equal((await tickets.ask("GET", "/api/events/fete-d-ete")).status, 404);
});

test("the times of an event that runs are not moved away, and the form says so", async (t) => {
  const tickets = await service(t);
  const hours = (away) => new Date(Math.trunc(Date.now() / 60_000) * 60_000 + away * 3_600_000).toISOString();
  await tickets.api("POST", "/api/events", { slug: "gala", name: "Gala", time_zone: "UTC", starts_at: hours(-1), ends_at: hours(3) });
  const page = await signedIn(t, tickets, { view: "events/gala" });
  await press(page.locator("#events .here"), "edit");
  await field(page, "starts").fill(hours(24).slice(0, 16));
  await field(page, "ends").fill(hours(30).slice(0, 16));
  await pressInDialog(page, "save");
  await sees(inDialog(page), en("field.gates_at_work"));
  assert.equal(await field(page, "starts").getAttribute("aria-invalid"), "true");
  assert.equal((await tickets.api("GET", "/api/events/gala")).version, 1);
});

/** What an import did or would do, in words. */
const counts = (words, ...told) => told.map(([name, count]) => words(`organizer.will_${name}_${count === 1 ? "one" : "other"}`, { count })).join(", ");

test("a file is shown before it is sent, and goes in as a whole or not at all", async (t) => {
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { view: "import" });
  const file = page.getByLabel(en("organizer.file"));
  const choose = (csv) => file.setInputFiles({ name: "t.csv", mimeType: "text/csv", buffer: Buffer.from(csv) });
  const go = page.getByRole("button", { name: en("organizer.import_now") });
  const menu = (name) => page.getByLabel(en("organizer.column_is", { name: `\u2068${name}\u2069` }));
  await choose("seat;gate;username;shoes\nA-1;North;ana;1\n");
  await sees(page, en("field.unknown_column", { columns: "shoes" }));
  assert.ok(await go.isDisabled());
  await accessible(page);
  await press(page, "leave_unknown");
  await page.locator("#will").waitFor();
  assert.equal(await page.locator("#will").innerText(), `${counts(en, ["created", 1], ["registered", 1], ["users_created", 1])}.`);
  assert.ok(await go.isEnabled());

  // Whatever the columns are called, the organizer can say what they are.
  await choose("Wer?;Wie viele?\nAna;2\nBo;1\n");
  await sees(page, en("field.unknown_column", { columns: "Wer?, Wie viele?" }));
  await menu("Wer?").selectOption("full_name");
  await sees(page, counts(en, ["created", 2], ["registered", 2], ["users_created", 2]));
  await menu("Wie viele?").focus();
  await menu("Wie viele?").selectOption("quantity");
  await sees(page, counts(en, ["created", 3], ["registered", 3], ["users_created", 2], ["number", 3]));
  assert.ok(await menu("Wie viele?").evaluate((element) => element === document.activeElement), "the menu is still at hand");

  // A list of names has no header.
  await choose("Cy\nDee\n");
  await menu("Cy").selectOption("full_name");
  await sees(page, counts(en, ["created", 1], ["registered", 1], ["users_created", 1], ["number", 1]));
  await page.getByLabel(en("organizer.first_line_is_ticket")).check();
  await sees(page, counts(en, ["created", 2], ["registered", 2], ["users_created", 2], ["number", 2]));

  await choose("name,status\nCy,paid\nDee,refunded\nTotal,\n");
  await sees(page, en("field.lines_left_out", { count: 1 }));
  await sees(page, en("field.sums_left_out", { lines: 4 }));

  await choose(Buffer.from("seat;gate;full_name\r\nA-1;North;Sof\xeda\r\n", "latin1"));
  await sees(page, en("organizer.read_lines_one", { count: 1, form: "Windows-1252" }));
  await sees(page, en("field.guessed_letters"));
  await sees(page, "Sofía");
  await choose("%PDF-1.7");
  await sees(page, en("field.pdf"));
  assert.ok(await go.isDisabled());
  await file.setInputFiles(new URL("../suite/lists/guests.xlsx", import.meta.url).pathname);
  await sees(page, en("organizer.read_sheet", { sheet: "\u2068Gäste\u2069" }));

  await choose("\ufeffseat;gate;username\r\nA-1;North;ana\r\nA-2;;\r\nA-3;North;not a name\r\nA-3;North;\r\n");
  await sees(page, en("organizer.read_lines_other", { count: 4, form: "UTF-8" }));
  await sees(page, en("organizer.wrong_one", { count: 1 }));
  await sees(page, /^Line 4$/);
  assert.equal((await tickets.api("GET", "/api/events/default/stats")).tickets, 0);
  await choose("seat;gate;username\nA-1;North;ana\nA-2;South;\n");
  await press(page, "import_now");
  await sees(page, en("organizer.imported", { what: counts(en, ["created", 2], ["registered", 1], ["users_created", 1]) }));
  assert.equal((await tickets.api("GET", "/api/events/default/stats")).tickets, 2);

  // The list comes again with one more ticket.
  await choose("seat;gate;username\nA-1;North;ana\nA-2;South;\nA-4;South;\n");
  await sees(page, en("field.seat_taken"));
  await page.getByLabel(en("organizer.existing")).selectOption("skip");
  await sees(page, counts(en, ["created", 1], ["skipped", 2]));
  await press(page, "import_now");
  await sees(page, en("organizer.imported", { what: counts(en, ["created", 1], ["skipped", 2]) }));
});

test("a file that was changed after it was chosen says so", async (t) => {
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { view: "import" });
  const path = `${await fs.promises.mkdtemp(`${os.tmpdir()}/list-`)}/list.csv`;
  t.after(() => fs.promises.rm(path));
  await fs.promises.writeFile(path, "seat,gate\nA-1,North\n");
  await page.getByLabel(en("organizer.file")).setInputFiles(path);
  await page.locator("#will").waitFor();
  await fs.promises.writeFile(path, "seat,gate\nA-1,North\nA-2,North\nA-3,North\n");
  await press(page, "import_now");
  await sees(page, en("organizer.file_changed"));
  assert.equal((await tickets.api("GET", "/api/events/default/stats")).tickets, 0);
});

test("a file can be dropped on the page", async (t) => {
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { view: "import" });
  const dropped = await page.evaluateHandle(() => {
    const transfer = new DataTransfer();
    transfer.items.add(new File(["name\nAna\n"], "list.csv", { type: "text/csv" }));
    return transfer;
  });
  await page.locator("section[data-view=import]").dispatchEvent("drop", { dataTransfer: dropped });
  await sees(page, counts(en, ["created", 1], ["registered", 1], ["users_created", 1], ["number", 1]));
});

test("what is wrong with a line is told in the page's language", async (t) => {
  const es = texts("es");
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "import", text: es, locale: "es" });
  const reading = async (csv) => {
    await page.getByLabel(es("organizer.file")).setInputFiles({ name: "t.csv", mimeType: "text/csv", buffer: Buffer.from(csv) });
    await page.locator("#preview .faults").waitFor();
    return (await page.locator("#preview .faults tr").allInnerTexts()).map((row) => row.replace(/\s+/g, " ").trim());
  };
  const line = (number, code, values, column) => `${es("organizer.line")} ${number} ${column ? `${column}: ` : ""}${es(`field.${code}`, values)}`;
  const lines = [`${"n".repeat(65)},North,,,`, '"C\n3",North,,,', "C-4,North,not a name,,", "C-5,North,attendance,,", "C-6,North,,,",
    "C-6,North,,,", "C-7,North,cy,,nobody", "C-8,North,,,a@b.example c@d.example", "C-9,North,,,,x"];
  assert.deepEqual(await reading(`seat,gate,username,full_name,email\n${lines.join("\n")}\n`), [
    line(2, "too_long", { most: 64 }, "seat"),
    line(3, "bad_characters", {}, "seat"),
    line(5, "not_a_username", { most: 64 }, "username"),
    line(6, "reserved", {}, "username"),
    line(8, "seat_twice", { line: 7 }),
    line(9, "not_an_email", { most: 254 }, "email"),
    line(10, "two_emails", {}, "email"),
    line(11, "wrong_field_count", { expected: 5, found: 6 }),
  ]);
  assert.deepEqual(await reading("seat,gate\nA-1,North\n"), [line(2, "seat_taken")]);
  assert.deepEqual(await reading("seat,gate,shoes\nD-1,North,1\n"), [line(1, "unknown_column", { columns: "shoes" })]);
  assert.deepEqual(await reading("seat,gate,Seat\nD-1,North,1\n"), [line(1, "column_twice", {}, "seat")]);
  assert.deepEqual(await reading("<!doctype html><html>"), [`${es("organizer.whole_file")} ${es("field.web_page")}`]);
  assert.equal(await page.locator("#preview [lang=en]").count(), 0, "every error is translated");

  const newer = { status: 422, code: "newer", detail: "2 things.", errors: [{ field: "line 2", code: "newest", params: {}, message: "is news" }] };
  await page.route("**/tickets?*", (route) => route.fulfill({ status: 422, contentType: "application/problem+json", headers: marked(), json: newer }));
  assert.deepEqual(await reading("seat,gate\nD-1,North\n"), [`${es("organizer.line")} 2 is news`]);
  assert.equal(await page.locator("#preview [lang=en]").innerText(), "is news", "an unknown code is explained in English");
});

test("what is wrong with a field is told beside it, in the page's language", async (t) => {
  const es = texts("es");
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { view: "events", text: es, locale: "es" });
  await page.getByRole("button", { name: es("organizer.new_event") }).click();
  const name = inDialog(page).getByLabel(es("organizer.name"), { exact: true });
  const save = () => inDialog(page).getByRole("button", { name: es("organizer.save") }).click();
  // The page itself limits how much can be typed.
  await name.evaluate((input) => input.removeAttribute("maxlength"));
  await name.fill("n".repeat(201));
  await save();
  await sees(inDialog(page), es("field.too_long", { most: 200 }));
  assert.equal(await name.getAttribute("aria-invalid"), "true");
  await name.fill("Feria");
  await inDialog(page).getByLabel(es("organizer.slug"), { exact: true }).fill("default");
  await save();
  await sees(inDialog(page), es("problem.event_exists"));
  assert.equal(await page.locator(".problem[lang=en], .problem [lang=en]").count(), 0);
});

test("a time that ends with a full stop ends a sentence", async (t) => {
  const es = texts("es");
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { text: es, locale: "es-CO" });
  const told = await page.evaluate(async () => {
    const { text, timeOfDay } = await import(new URL("../shared/text.js", document.querySelector("script[type=module]").src));
    const at = (name) => text(name, { time: timeOfDay("2027-01-15T08:00Z", "UTC"), name: "Ana", count: 3 });
    return ["organizer.stale", "organizer.check_key_ends", "organizer.check_some"].map(at);
  });
  assert.match(told[0], /8:00\s?a\.\s?m\.$/);
  assert.match(told[1], /a\.\s?m\. Cree/);
  assert.match(told[2], /a\.\s?m\. Por revisar: 3$/);
});

test("tickets are found by a part of a name, a gate or a status, page after page", async (t) => {
  const rows = Array.from({ length: 120 }, (_, at) => `S-${at},${at % 2 ? "North" : "South"},p${at},Person ${at}`);
  const tickets = await withTickets(t, `seat,gate,username,full_name\n${rows.join("\n")}\n`);
  const page = await signedIn(t, tickets, { view: "tickets" });
  const shown = page.locator("#tickets tbody tr");
  await page.evaluate(() => delete URLSearchParams.prototype.size); // Safari 16.4 has none
  await sees(page, en("organizer.shown_more", { tickets: 50 }));
  await press(page, "more");
  await sees(page, en("organizer.shown_more", { tickets: 100 }));
  await press(page, "more");
  await sees(page, en("organizer.shown_all", { tickets: 120 }));
  assert.equal(new Set(await shown.locator("th").allInnerTexts()).size, 120);
  await page.getByLabel(en("organizer.search"), { exact: true }).fill("person 11");
  await sees(page, en("organizer.shown_all", { tickets: 11 }));
  await page.locator("#filter-gate").selectOption("North");
  await sees(page, en("organizer.shown_all", { tickets: 6 }));
  await page.locator("#filter-status").selectOption("revoked");
  await sees(page, en("organizer.none_found"));
});

forBothDatabases("a ticket is given, transferred, reissued and revoked, and each old link dies", async (t, tickets) => {
  await tickets.api("POST", "/api/events/default/tickets", "seat,gate\nA-1,North\n");
  const page = await signedIn(t, tickets, { view: "tickets" });
  const links = [];
  const opens = () => page.locator("#tickets").getByRole("button", { name: "A-1" }).click();
  const closesLink = async () => {
    links.push(await field(page, "link").inputValue());
    await pressInDialog(page, "close");
  };

  await opens();
  await pressInDialog(page, "register");
  await field(page, "username").fill("ana");
  await field(page, "full_name").fill("Ana Roe");
  await pressInDialog(page, "register");
  await page.locator("#link-dialog[open]").waitFor();
  await sees(inDialog(page), en("organizer.register_done"));
  await accessible(page);
  await closesLink();

  await opens();
  await pressInDialog(page, "transfer");
  await field(page, "username").fill("ana");
  await field(page, "full_name").fill("Ann Other");
  await pressInDialog(page, "transfer");
  await sees(page, en("field.another_person"));
  await field(page, "username").fill("bob");
  await field(page, "full_name").fill("Bob Poe");
  await pressInDialog(page, "transfer");
  await page.locator("#link-dialog[open]").waitFor();
  await closesLink();
  await sees(page, "Bob Poe");

  await opens();
  await pressInDialog(page, "reissue");
  await pressInDialog(page, "reissue");
  await page.locator("#link-dialog[open]").waitFor();
  await sees(inDialog(page), en("organizer.reissue_done"));
  await closesLink();
  assert.equal(new Set(links).size, 3);

  await opens();
  await pressInDialog(page, "link_title");
  assert.ok(await inDialog(page).getByText(en("organizer.reissue_done")).isHidden(), "nothing was changed this time");
  assert.equal(await field(page, "link").inputValue(), links[2], "the same link again");
  await page.keyboard.press("Escape");
  await pressInDialog(page, "revoke");
  await pressInDialog(page, "revoke");
  await sees(page, en("organizer.revoke_done"));
  assert.equal((await tickets.api("GET", "/api/events/default/tickets")).tickets[0].status, "revoked");
});

test("of two people with one username the ticket is given to the one whose name is typed", async (t) => {
  const tickets = await withTickets(t, "seat,gate,username,full_name\nA-1,North,luz,Luz Own\nA-2,North,,\n");
  const { key } = await tickets.api("POST", "/api/keys", { name: "Office", role: "organizer", event: "default" });
  await tickets.api("POST", "/api/users", { username: "luz", full_name: "Luz Other" }, key);
  const page = await signedIn(t, tickets, { view: "tickets" });
  await page.locator("#tickets").getByRole("button", { name: "A-2" }).click();
  await pressInDialog(page, "register");
  await field(page, "username").fill("luz");
  await pressInDialog(page, "register");
  await sees(page, en("field.two_people"));
  await field(page, "full_name").fill("Luz Own");
  await pressInDialog(page, "register");
  await page.locator("#link-dialog[open]").waitFor();
  const held = (await tickets.api("GET", "/api/users/luz/tickets")).tickets.map(({ seat }) => seat);
  assert.deepEqual(held, ["A-1", "A-2"]);
});

test("whoever reissues a ticket that was used is told that it lets somebody in once more", async (t) => {
  const tickets = await withTickets(t, "seat,gate,username\nA-1,North,ana\n");
  await tickets.api("POST", "/api/events/default/scans", { seat: "A-1", gate: "North", manual: true, note: "dead phone", scan_id: crypto.randomUUID() });
  const page = await signedIn(t, tickets, { view: "tickets" });
  const opens = () => page.locator("#tickets").getByRole("button", { name: "A-1" }).click();
  await opens();
  await pressInDialog(page, "revoke");
  await sees(inDialog(page), en("organizer.revoke_used"));
  await pressInDialog(page, "revoke");
  await sees(page, en("organizer.revoke_done"));
  await opens();
  await pressInDialog(page, "reissue");
  await sees(inDialog(page), en("organizer.reissue_used"));
});

test("a person's name and address are corrected at a ticket of theirs", async (t) => {
  const tickets = await withTickets(t, "seat,gate,username,full_name,email\nA-1,North,ana,Anna Roe,anna@example.org\nA-2,North,ana,Ben Roe,\n");
  const page = await signedIn(t, tickets, { view: "tickets" });
  await page.getByRole("button", { name: "A-1" }).first().click();
  await pressInDialog(page, "correct");
  assert.equal(await field(page, "username").inputValue(), "ana");
  assert.ok(await field(page, "username").evaluate((input) => input.readOnly));
  assert.equal(await field(page, "email").inputValue(), "anna@example.org");
  await field(page, "full_name").fill("Ana Roe");
  await field(page, "email").fill("");
  await accessible(page);
  await pressInDialog(page, "save");
  await sees(page, en("organizer.correct_done"));
  const ana = await tickets.api("GET", "/api/users/ana");
  assert.deepEqual([ana.full_name, ana.email], ["Ana Roe", null]);
  await sees(page, "Ana Roe");

  await page.getByRole("button", { name: "A-2" }).first().click();
  await pressInDialog(page, "correct");
  await sees(inDialog(page), en("organizer.correct_not_this", { name: "\u2068Ben Roe\u2069" }));
  assert.equal(await field(page, "full_name").inputValue(), "Ana Roe");
});

test("whose people a username means: the event's own before those of the installation", async (t) => {
  const tickets = await withTickets(t, "seat,gate,username\nA-1,North,ana\n");
  await tickets.api("POST", "/api/events", { slug: "gala", name: "Gala" });
  const seats = ["A-1", "A-2", "A-3"].map((seat) => ({ seat, gate: "North" }));
  await tickets.api("POST", "/api/events/gala/tickets", seats);
  await tickets.api("POST", "/api/users/ana/tickets", { event: "gala", seat: "A-3", gate: "North" });
  const { key } = await tickets.api("POST", "/api/keys", { name: "Co", role: "organizer", event: "gala" });
  const gives = async (page, seat) => {
    await page.getByRole("button", { name: seat }).first().click();
    await pressInDialog(page, "register");
    await field(page, "username").fill("ana");
    await pressInDialog(page, "register");
    await page.locator("#link-dialog[open]").waitFor();
    await pressInDialog(page, "close");
  };
  const bound = await signedIn(t, tickets, { key, view: "tickets/gala" });
  await gives(bound, "A-1");
  const own = await tickets.api("GET", "/api/users/ana?event=gala");
  assert.equal(own.event, "gala");
  await bound.getByRole("button", { name: "A-3" }).first().click();
  await inDialog(bound).getByRole("button", { name: en("organizer.transfer") }).waitFor();
  assert.equal(await inDialog(bound).getByRole("button", { name: en("organizer.correct") }).count(), 0, "not theirs to correct");

  const page = await signedIn(t, tickets, { view: "tickets/gala" });
  await gives(page, "A-2");
  const held = await tickets.api("GET", "/api/users/ana/tickets?event=gala");
  assert.deepEqual(held.tickets.map((ticket) => ticket.seat), ["A-1", "A-2"]);
  await page.getByRole("button", { name: "A-2" }).first().click();
  await pressInDialog(page, "correct");
  await field(page, "full_name").fill("Ana of the gala");
  await pressInDialog(page, "save");
  await sees(page, en("organizer.correct_done"));
  assert.equal((await tickets.api("GET", "/api/users/ana?event=gala")).full_name, "Ana of the gala");
  assert.equal((await tickets.api("GET", "/api/users/ana")).full_name, null);
});

test("a ticket's sheet tells what was done to it, and by which key", async (t) => {
  const tickets = await withTickets(t);
  const [ticket] = (await tickets.api("GET", "/api/events/default/tickets?q=ana")).tickets;
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/print`);
  const page = await signedIn(t, tickets, { view: "tickets" });
  await page.getByRole("button", { name: "A-1" }).first().click();
  await inDialog(page).getByText(en("organizer.history")).click();
  const lines = inDialog(page).locator("#ticket-history li");
  await eventually(async () => assert.equal(await lines.count(), 2));
  const told = await lines.allInnerTexts();
  for (const [line, action] of [[told[0], "issued"], [told[1], "printed"]]) {
    assert.ok(line.includes(en(`organizer.action_${action}`)) && line.includes(en("organizer.no_key")), line);
  }
  await accessible(page);
});

test("the link of a used ticket is given again where its holder may come back", async (t) => {
  const tickets = await withTickets(t);
  await tickets.api("PATCH", "/api/events/default", { reentry: "after_exit" });
  await use(tickets, "ana");
  const page = await signedIn(t, tickets, { view: "tickets" });
  const opens = () => page.locator("#tickets").getByRole("button", { name: "A-1" }).click();
  await opens();
  await sees(inDialog(page), en("organizer.now"));
  await pressInDialog(page, "link_title");
  assert.match(await field(page, "link").inputValue(), /\/t\//);

  await tickets.api("PATCH", "/api/events/default", { reentry: "none" });
  await page.reload();
  await signIn(page, tickets.key);
  await opens();
  await inDialog(page).getByRole("button", { name: en("organizer.revoke") }).waitFor();
  assert.equal(await inDialog(page).getByRole("button", { name: en("organizer.link_title") }).count(), 0);
});

test("category, note and times of a ticket are corrected on its sheet, also of one that is used", async (t) => {
  const tickets = await withTickets(t);
  await use(tickets, "ana");
  const page = await signedIn(t, tickets, { view: "tickets" });
  const opens = async () => {
    await page.locator("#tickets").getByRole("button", { name: "A-1" }).click();
    await inDialog(page).getByText(en("organizer.change_details"), { exact: true }).click();
  };
  await opens();
  await field(page, "category").fill("Under 12");
  await field(page, "note").fill("comes with her grandmother");
  await field(page, "valid_from").fill("2030-05-01T18:00");
  await field(page, "valid_until").fill("2030-05-01T17:00");
  await pressInDialog(page, "save");
  await sees(inDialog(page), en("field.ends_before_start"));
  await accessible(page);
  await field(page, "valid_until").fill("");
  await pressInDialog(page, "save");
  await sees(page, en("organizer.change_details_done"));
  const { tickets: [ticket] } = await tickets.api("GET", "/api/events/default/tickets?q=ana");
  assert.deepEqual([ticket.category, ticket.note, ticket.valid_from], ["Under 12", "comes with her grandmother", "2030-05-01T18:00:00.000Z"]);
  await opens();
  await field(page, "note").fill("");
  await pressInDialog(page, "save");
  await sees(page, en("organizer.change_details_done"));
  const { tickets: [after] } = await tickets.api("GET", "/api/events/default/tickets?q=ana");
  assert.deepEqual([after.category, after.note, after.valid_from], ["Under 12", null, "2030-05-01T18:00:00.000Z"]);
});

test("whoever prints the links of some tickets is told which are left out", async (t) => {
  const tickets = await withTickets(t);
  await use(tickets, "ana");
  const page = await signedIn(t, tickets, { view: "tickets" });
  const printing = async (told) => {
    await page.getByLabel(en("organizer.select_shown")).check();
    await press(page, "print_links");
    await sees(page, told);
  };
  const sheet = (count) => en("organizer.sheet_told", { tickets: count, pages: 1 });
  await printing(`${sheet(1)} ${en("organizer.left_out", { tickets: 2 })}`);
  await page.getByLabel(en("organizer.per_page")).selectOption("10");
  await sees(page, `${sheet(1)} ${en("organizer.left_out", { tickets: 2 })}`);

  await tickets.api("PATCH", "/api/events/default", { reentry: "after_exit" });
  await page.goto("/organizer#tickets");
  await page.reload();
  await signIn(page, tickets.key);
  await printing(`${sheet(2)} ${en("organizer.left_out", { tickets: 1 })}`);
});

test("paper tickets come ten on a page, and each admits once", async (t) => {
  const rows = Array.from({ length: 12 }, (_, at) => `S-${at},North,p${at}`);
  const tickets = await withTickets(t, `seat,gate,username\n${rows.join("\n")}\n`);
  const page = await signedIn(t, tickets, { view: "tickets" });
  await page.getByLabel(en("organizer.select_shown")).check();
  await press(page, "print_codes");
  const answer = page.waitForResponse((response) => response.url().endsWith("/print"));
  await pressInDialog(page, "go_on");
  const { printed_code: code } = await (await answer).json();
  await sees(page, en("organizer.sheet_told", { tickets: 12, pages: 2 }));
  await page.getByLabel(en("organizer.per_page")).selectOption("10");
  await eventually(async () => assert.deepEqual(await page.locator(".paper").evaluateAll((all) => all.map((each) => each.children.length)), [10, 2]));
  await accessible(page);
  const scan = () => tickets.ask("POST", "/api/events/default/scans", { scan_id: crypto.randomUUID(), code, at_gate: "North" });
  assert.equal((await (await scan()).json()).result, "accepted");
  assert.equal((await (await scan()).json()).result, "already_used");
  assert.equal((await page.pdf({ preferCSSPageSize: true })).toString("latin1").match(/\/Type \/Page\b/g).length, 2);

  await page.goto("/organizer#tickets");
  await page.getByText(en("organizer.hand_out"), { exact: true }).click();
  await press(page, "print_all");
  await sees(page, en("organizer.sheet_told", { tickets: 12, pages: 2 }));
});

test("a gate's key is enrolled by a code, replaced with one press, and revoked", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "gates" });
  await sees(page, en("organizer.no_keys"));
  await press(page, "new_key");
  await field(page, "name").fill("North door");
  await field(page, "gate").selectOption("North");
  await accessible(page);
  await pressInDialog(page, "make_key");
  await page.locator("#enrol-dialog[open]").waitFor();
  await accessible(page);
  const first = await field(page, "link").inputValue();
  await pressInDialog(page, "enrol_again");
  await eventually(async () => assert.notEqual(await field(page, "link").inputValue(), first));
  const enrol = (link) => tickets.ask("POST", "/api/enrol", { token: new URL(link).hash.replace("#enrol=", "") }, "");
  const second = await field(page, "link").inputValue();
  assert.equal((await enrol(first)).status, 410);
  const { key } = await (await enrol(second)).json();
  assert.ok(key);
  await pressInDialog(page, "close");
  // A dialog reports its closing a moment later.
  await eventually(async () => assert.equal(await page.locator("#enrol-link").inputValue(), "", "the code is dropped"));

  await tickets.api("POST", "/api/events/default/scans", { scan_id: crypto.randomUUID(), code: "RT1.x" }, key).catch(() => {});
  await page.reload();
  await signIn(page, tickets.key);
  await sees(page, /Newest scan/);
  await press(page.locator("#keys"), "revoke");
  await pressInDialog(page, "revoke");
  await sees(page, en("organizer.revoke_key_done"));
  await sees(page, en("organizer.old_keys", { keys: 1 }));
});

for (const language of LANGUAGES) {
  test(`a lost phone is reported with one button: key, links and scans, in ${language}`, async (t) => {
    const text = texts(language);
    const rows = Array.from({ length: 130 }, (_, seat) => `${seat + 1},North,ana`);
    const tickets = await withTickets(t, `seat,gate,username\n${rows.join("\n")}\n`);
    const lost = await tickets.api("POST", "/api/keys", { name: "Door", role: "gate", event: "default", offline: true });
    await tickets.ask("GET", "/api/events/default/manifest", undefined, lost.key);
    await tickets.ask("POST", "/api/events/default/scans", { scan_id: crypto.randomUUID(), code: "no ticket" }, lost.key);
    const page = await signedIn(t, tickets, { view: "gates", text, locale: language });
    // The answer to the first try is lost.
    let reports = 0;
    await page.route("**/lost", async (route) => {
      reports += 1;
      if (reports > 1) return route.continue();
      await route.fetch();
      return route.abort();
    });
    const dialog = page.locator("#lost-dialog");
    const go = () => dialog.getByRole("button", { name: text("organizer.lost_go") }).click();
    await page.locator("#keys").getByRole("button", { name: text("organizer.lost") }).click();
    await dialog.getByLabel(text("organizer.lost_since")).fill("2020-01-01T00:00");
    await accessible(page);
    await go();
    await sees(dialog, text("organizer.lost_broke_off"));
    await go();
    await sees(dialog, text("organizer.lost_done", { links: 130 }));
    assert.equal(reports, 2);
    await accessible(page);
    const download = page.waitForEvent("download");
    await dialog.getByRole("button", { name: text("organizer.lost_links") }).click();
    const file = await download;
    assert.equal(file.suggestedFilename(), "default-changed-links.csv");
    const links = fs.readFileSync(await file.path(), "utf8").trim().split("\n").slice(1);
    assert.equal(new Set(links.map((line) => line.split(",").at(-1))).size, 130, "with those made before the interruption");
    await sees(dialog.locator("#lost-scans"), text("result.unknown_ticket"));
    await dialog.getByRole("button", { name: text("organizer.close") }).click();
    await sees(page, text("organizer.old_keys", { keys: 1 }));
    assert.equal((await tickets.ask("GET", "/api/events/default/manifest", undefined, lost.key)).status, 401);
  });
}

test("unsent scans of a key that ended are agreed to, or handed in from the device's file", async (t) => {
  const tickets = await withTickets(t);
  const key = await tickets.api("POST", "/api/keys", { name: "North 1", role: "gate", event: "default", gate: "North", offline: true });
  const { tickets: all } = await tickets.api("GET", "/api/events/default/tickets");
  const secret = Buffer.from(key.key.replace("rtk_", ""), "base64url");
  const hash = crypto.createHash("sha256").update(secret).digest();
  const written = (ticket, offline_result = "accepted") => {
    const { ticket_id } = ticket;
    const scan = JSON.stringify({ scan_id: crypto.randomUUID(), ticket_id, direction: "entry", scanned_at: new Date().toISOString(), offline_result });
    const proof = crypto.createHmac("sha256", hash).update(["unsent scan", key.key_id, "default", scan].join("\n")).digest("base64url");
    return { scan, proof };
  };
  const [ana, bob, nobody] = all.sort((one, other) => (one.seat < other.seat ? -1 : 1));
  const scans = [written(ana), written(bob), written(nobody), { ...written(bob), proof: "A".repeat(43) }];
  const file = { key_id: key.key_id, event: "default", name: "North 1", gate: "North", scans };
  await use(tickets, "bob");
  await tickets.api("DELETE", `/api/keys/${key.key_id}`);

  const page = await signedIn(t, tickets, { view: "gates" });
  await page.locator("#old-keys summary").click();
  await press(page, "take");
  await sees(inDialog(page), en("organizer.take_who"));
  await accessible(page);
  await pressInDialog(page, "take");
  await sees(page, en("organizer.take_done"));
  await eventually(async () => {
    const [{ taken_at }] = (await tickets.api("GET", "/api/keys")).keys.filter(({ key_id }) => key_id === key.key_id);
    assert.ok(taken_at);
  });

  const chosen = page.getByLabel(en("organizer.hand_in_file"));
  await chosen.setInputFiles({ name: "x.json", mimeType: "application/json", buffer: Buffer.from("{}") });
  await sees(page, en("organizer.hand_in_not_one"));
  assert.ok(await page.locator("#hand-in button").isDisabled());
  const again = [{ recorded: 1, known: 0, conflicts: 2, refused: 1 }, { recorded: 0, known: 3, conflicts: 0, refused: 1 }];
  for (const counts of again) {
    await chosen.setInputFiles({ name: "default-scans.json", mimeType: "application/json", buffer: Buffer.from(JSON.stringify(file)) });
    await page.locator("#hand-in-told").getByText("North 1").waitFor();
    await press(page, "hand_in_go");
    await sees(page, en("organizer.hand_in_done", counts));
    await sees(page, en("field.not_of_this_key"));
  }
  await accessible(page);
  const { conflicts } = await tickets.api("GET", "/api/events/default/conflicts");
  assert.deepEqual(conflicts.map(({ result }) => result).sort(), ["already_used", "not_registered"]);
});

test("whoever revokes a key is told which others end with it, and whether it is their own", async (t) => {
  const tickets = await withTickets(t);
  const made = (key, body) => tickets.api("POST", "/api/keys", body, key);
  const head = await made(undefined, { name: "Head office", role: "organizer" });
  await made(head.key, { name: "North door", role: "gate", event: "default" });
  const page = await signedIn(t, tickets, { key: head.key, view: "gates" });
  await sees(page, en("organizer.key_made_by", { name: "\u2068Head office\u2069" }));
  await sees(page, en("organizer.key_yours"));
  await press(page.locator("#keys li").filter({ has: page.getByRole("heading", { name: "Head office" }) }), "revoke");
  await sees(inDialog(page), en("organizer.revoke_key_made", { names: "\u2068North door\u2069" }));
  await sees(inDialog(page), en("organizer.revoke_key_yours"));
  await accessible(page);
  await pressInDialog(page, "revoke");
  await page.locator("#signin").waitFor();
  assert.ok((await tickets.api("GET", "/api/keys")).keys.every((key) => key.revoked_at));
});

test("the check names what failed and not what could not be checked", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "check" });
  await sees(page, en("organizer.check_secret_ok"));
  const [unchecked, json] = [["migrations", "clock", "writable", "secret"], { status: "failed", database: "failed" }];
  for (const name of unchecked) json[name] = "unchecked";
  // The service answers 503, but the page reads the answer whatever its status, and a 503 fails the test.
  await page.route("**/health?full=1", (route) => route.fulfill({ headers: marked(), json }));
  await press(page, "check_again");
  await sees(page, en("organizer.check_database_wrong"));
  for (const name of unchecked) {
    for (const state of ["ok", "wrong"]) assert.equal(await page.getByText(en(`organizer.check_${name}_${state}`)).count(), 0, name);
  }
});

test("the check names the keys that end soon, the one in use among them", async (t) => {
  const tickets = await withTickets(t);
  const ends = (days) => new Date(Date.now() + days * 86_400_000).toISOString();
  const later = await tickets.api("POST", "/api/keys", { name: "Later", role: "organizer" });
  let page = await signedIn(t, tickets, { key: later.key, view: "check" });
  await sees(page, en("organizer.check_keys_ok", { days: 14 }));
  const soon = await tickets.api("POST", "/api/keys", { name: "Soon", role: "organizer", expires_at: ends(13) });
  await tickets.api("POST", "/api/keys", { name: "Door", role: "gate", event: "default", expires_at: ends(13) });
  await press(page, "check_again");
  const told = (name, key) => page.locator("#checks").getByText(en(`organizer.${name}`, { name: `\u2068${key}\u2069`, time: "" }).split(" expires on")[0]);
  await told("check_key_ends", "Soon").waitFor();
  await told("check_key_ends", "Door").waitFor();
  assert.equal(await told("check_key_ends", "Later").count(), 0);
  const own = await signedIn(t, tickets, { key: soon.key, view: "check" });
  await own.getByText(en("organizer.check_key_yours_ends", { name: "\u2068Soon\u2069", time: "" }).split(" expires on")[0]).waitFor();
  await tickets.api("PATCH", "/api/events/default", { ends_at: ends(1) });
  page = await signedIn(t, tickets, { key: later.key, view: "check" });
  await told("check_key_ends", "Soon").waitFor();
  assert.equal(await told("check_key_ends", "Door").count(), 0, "if the event has an end, gates' keys end after it");
  // Only 0.1.0 made such keys.
  await page.route(/\/api\/keys\?/, async (route) => {
    const response = await route.fetch();
    const list = await response.json();
    list.keys.find((each) => each.name === "Later").expires_at = null;
    await route.fulfill({ response, json: list });
  });
  await press(page, "check_again");
  await sees(page, en("organizer.check_key_endless", { name: "\u2068Later\u2069" }));
});

test("a key that scans says what it may do and when it did; an organizer's is not waited for", async (t) => {
  const tickets = await withTickets(t);
  await tickets.api("POST", "/api/keys", { name: "Door", role: "gate", event: "default", gate: "North" });
  await tickets.api("POST", "/api/keys", { name: "Co", role: "organizer", event: "default" });
  const page = await signedIn(t, tickets, { view: "gates" });
  const card = (name) => page.locator("#keys li", { has: page.getByRole("heading", { name }) });
  await sees(card("Door"), en("organizer.role_gate"));
  await sees(card("Door"), en("organizer.no_scan"));
  await card("Co").waitFor();
  assert.equal(await card("Co").getByText(en("organizer.no_scan")).count(), 0);
});

for (const [size, device, colorScheme] of [["phone", phone, "dark"], ["desktop", desktop, "light"]]) {
  test(`a device that is silent, has scans to send or too old a list is told of while the doors are open, on a ${size}`, async (t) => {
    const tickets = await withTickets(t);
    const ago = (minutes) => new Date(Date.now() - minutes * 60_000).toISOString();
    const devices = { Fine: [ago(1), 0, ago(1)], Silent: [ago(5), 3, ago(5)], Old: [ago(1), 0, ago(60 * 49)], New: [null, null, null] };
    for (const name of Object.keys(devices)) await tickets.api("POST", "/api/keys", { name, role: "gate", event: "default", gate: "North" });
    const times = (starts_at, ends_at) => tickets.api("PATCH", "/api/events/default", { starts_at, ends_at });
    await times(ago(-60), ago(-120));
    const page = await signedIn(t, tickets, { view: "gates", device, colorScheme });
    await page.route("**/api/keys?*", async (route) => {
      const response = await route.fetch();
      const { keys, next } = await response.json();
      const told = keys.map((key) => {
        const [heard_at, unsent, manifest_at] = devices[key.name];
        return { ...key, heard_at, unsent, manifest_at };
      });
      await route.fulfill({ response, json: { keys: told, next } });
    });
    const card = (name) => page.locator("#keys li", { has: page.getByRole("heading", { name, exact: true }) });
    const begins = (name) => en(`organizer.${name}`).split(/[{:]/)[0];
    const warns = (place, name) => place.locator(".warn").getByText(begins(name)).waitFor();
    const open = (view) => page.evaluate((view) => (location.hash = `#${view}/default`), view);
    await open("tickets");
    await open("gates");
    await warns(card("Silent"), "device_unsent");
    await warns(card("Old"), "device_list_old");
    assert.equal(await page.getByText(begins("device_silent")).count(), 0, "before the doors open it need not be online");
    await times(ago(10), ago(-60));
    await press(page, "sign_out");
    await signIn(page, tickets.key);
    await warns(card("Silent"), "device_silent");
    await warns(card("New"), "device_unheard");
    await card("Fine").getByText(begins("heard_when")).waitFor();
    assert.equal(await card("Fine").locator(".warn").count(), 0);
    await accessible(page);
    await open("board");
    await page.locator("#devices .warn").first().waitFor();
    const names = await page.locator("#devices tbody th bdi").allTextContents();
    assert.deepEqual([names[0], names.at(-1)], ["Silent", "Fine"], "those that need attention come first");
    await accessible(page);
  });
}

test("a conflict tells the gate of those devices that have one", async (t) => {
  const tickets = await withTickets(t);
  const page = await desktop(t, tickets);
  const conflict = { ticket: null, key_name: "Door", scanned_at: "2027-01-01T20:00:00.000Z", received_at: "2027-01-01T21:00:00.000Z", result: "already_used" };
  const first = { first_used_at: "2027-01-01T19:00:00.000Z", first_key_name: "Other" };
  const json = { conflicts: [{ ...conflict, ...first, at_gate: null, first_used_gate: "North" }], next: null };
  await page.route("**/conflicts?**", (route) => route.fulfill({ headers: marked(), json }));
  await page.goto("/organizer");
  await page.getByLabel(en("organizer.key"), { exact: true }).fill(tickets.key);
  await press(page, "sign_in");
  await sees(page, /^First admitted at .*, gate \u2068North\u2069, by \u2068Other\u2069\.$/);
  await sees(page, /^Admitted offline at [^,]*, [^,]*, by \u2068Door\u2069\.$/);
});

test("people without a ticket: the price is typed as one writes it, the board and the list tell who paid at the door", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "events" });
  await press(page, "edit");
  assert.ok(!(await field(page, "walk_up_price").isVisible()), "no price without admission at the door");
  await field(page, "walk_ups_allow").check();
  await field(page, "walk_up_price").fill("12,50");
  await pressInDialog(page, "save");
  await sees(inDialog(page), en("field.required"));
  await field(page, "currency").fill("eur");
  await field(page, "walk_up_price").fill("a lot");
  await pressInDialog(page, "save");
  await sees(inDialog(page), en("field.not_an_amount", { example: "12.50" }));
  await field(page, "walk_up_price").fill("12,50");
  await accessible(page);
  await pressInDialog(page, "save");
  await sees(page, en("organizer.saved_event"));
  const { walk_ups: allowed, walk_up_price: price, currency } = await tickets.api("GET", "/api/events/default");
  assert.deepEqual({ allowed, price, currency }, { allowed: true, price: 1250, currency: "EUR" });

  const door = (body) => tickets.api("POST", "/api/events/default/walk-ups", { scan_id: crypto.randomUUID(), ...body });
  await door({ gate: "North", count: 2, full_name: "Eva Moe" });
  await door({ gate: "South", paid: 0 });
  await use(tickets, "ana");
  await page.goto("/organizer#board");
  await sees(page, en("organizer.with_ticket", { admitted: 1, registered: 2 }));
  const row = (gate) => page.locator("#by-gate tbody tr", { hasText: gate }).locator("td").allInnerTexts();
  assert.deepEqual(await row("North"), ["3", "3", "1", "2", "€25.00"]);
  assert.deepEqual(await row("South"), ["1", "1", "0", "1", "€0.00"]);
  assert.deepEqual(await page.locator("#numbers .card", { hasText: en("organizer.walk_ups") }).locator("dd > *").allInnerTexts(), ["3", "€25.00"]);
  await accessible(page);

  await page.goto("/organizer#tickets");
  const line = page.locator("#tickets tbody tr", { hasText: "Eva Moe" }).first();
  await sees(line, en("organizer.at_the_door"));
  await line.getByRole("button").click();
  await sees(inDialog(page), "€12.50");
  assert.deepEqual(await page.locator("#ticket-actions button").allInnerTexts(), [en("organizer.revoke")], "it cannot be given to anybody");
  await accessible(page);
  await pressInDialog(page, "close");

  await page.goto("/organizer#events");
  await press(page, "edit");
  assert.equal(await field(page, "walk_up_price").inputValue(), "12.50");
  await field(page, "currency").fill("COP");
  await pressInDialog(page, "save");
  await sees(inDialog(page), en("field.paid_in_it"));
});

test("the board counts by itself, and says when it no longer can", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "board", device: phone });
  await sees(page, en("organizer.no_arrivals"));
  const [{ ticket_id: revoked }] = (await tickets.api("GET", "/api/events/default/tickets?q=bob")).tickets;
  await tickets.api("POST", `/api/tickets/${revoked}/revoke`);
  const { printed_code: code } = await tickets.api(
    "POST",
    `/api/tickets/${(await tickets.api("GET", "/api/events/default/tickets?q=ana")).tickets[0].ticket_id}/print`,
  );
  const scan = () => tickets.ask("POST", "/api/events/default/scans", { scan_id: crypto.randomUUID(), code });
  await scan();
  await scan();
  await page.locator("#chart svg").waitFor();
  assert.deepEqual(await page.locator("#numbers strong").allInnerTexts(), ["1", "1", "0", "1", "0"]);
  await sees(page, en("result.already_used"));
  assert.equal(await page.getByRole("alert").filter({ visible: true }).count(), 0);
  const body = { name: "The north door", role: "gate", event: "default", gate: "North", offline: true };
  const { key } = await tickets.api("POST", "/api/keys", body);
  const guess = () => ({
    ...{ scan_id: crypto.randomUUID(), seat: "A-1", gate: "North", totp_code: "none" },
    ...{ scanned_at: new Date().toISOString(), offline_result: "wrong_code" },
  });
  const guesses = async (n) => {
    const response = await fetch(`${tickets.url}/api/events/default/scans/batch`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ scans: Array.from({ length: n }, guess) }),
    });
    assert.equal(response.status, 200);
  };
  const [named, gate] = ["The north door", "North"].map((foreign) => `\u2068${foreign}\u2069`);
  await guesses(25);
  await page.getByRole("alert").getByText(en("organizer.guessing_gate", { key: named, gate, n: 25 })).waitFor();
  await guesses(35);
  await page.getByRole("alert").getByText(en("organizer.guessing_limited")).waitFor();
  await page.getByText(en("organizer.as_table")).click();
  assert.match(await page.locator("#arrivals tbody").innerText(), /1$/);
  await accessible(page);
  await tickets.stop();
  await page.locator("#stale:not([hidden])").waitFor({ timeout: 60_000 });
  await tickets.start();
  await page.locator("#stale").waitFor({ state: "hidden" });
});

for (const [size, device, colorScheme] of [["phone", phone, "light"], ["desktop", desktop, "dark"]]) {
  test(`the board tells who came again and what was undone, and adds up arrivals against the capacity, on a ${size}`, async (t) => {
    const tickets = await withTickets(t);
    await tickets.api("PATCH", "/api/events/default", { capacity: 4 });
    const door = await tickets.api("POST", "/api/keys", { name: "North door", role: "supervisor", event: "default" });
    const scan = (seat) => ({ scan_id: crypto.randomUUID(), seat, gate: "North", manual: true, note: "no phone" });
    const [first, again, other] = [scan("A-1"), scan("A-1"), scan("A-2")];
    for (const each of [first, other]) await tickets.api("POST", "/api/events/default/scans", each, door.key);
    await tickets.api("POST", "/api/events/default/scans", again, door.key).catch(() => {});
    await tickets.api("POST", `/api/scans/${other.scan_id}/undo`);
    const page = await signedIn(t, tickets, { view: "board/default", device, colorScheme });
    await page.locator("#incidents summary").click();
    const items = page.locator("#incidents li");
    await items.nth(1).waitFor();
    const told = (await items.allInnerTexts()).map((words) => words.replaceAll(/[\u2066-\u2069]/g, ""));
    const begins = (name) => en(`organizer.${name}`).split("{")[0];
    assert.ok(told[0].includes("Bob Poe") && told[0].includes(begins("incident_undone_anywhere")) && told[0].includes("North door"), told[0]);
    assert.ok(told[1].includes("Ana Roe") && told[1].includes(begins("incident_again")) && told[1].includes(begins("conflict_first")), told[1]);
    await press(page, "whole_hours");
    await page.locator("#chart .limit").waitFor({ state: "attached" });
    await sees(page, en("organizer.running"));
    assert.match(await page.locator("#chart svg").getAttribute("aria-label"), /: 1\. .* 4\./);
    await page.getByText(en("organizer.as_table")).click();
    assert.deepEqual(await page.locator("#arrivals td").allTextContents(), ["1"]);
    await accessible(page);
  });
}

test("the board counts by category, gives each its colour, and warns when the place is full", async (t) => {
  const tickets = await service(t);
  await tickets.api("POST", "/api/events/default/tickets", "name,gate,category\nAna,North,Adult\nBo,North,Under 12\nCy,South,adult\n");
  const page = await signedIn(t, tickets, { view: "events" });
  await page.getByRole("button", { name: en("organizer.edit"), exact: true }).click();
  await page.getByLabel(en("organizer.capacity"), { exact: true }).fill("1");
  await page.getByRole("button", { name: en("organizer.save"), exact: true }).click();
  await sees(page, en("organizer.saved_event"));
  await page.getByRole("link", { name: en("organizer.board"), exact: true }).click();
  await page.getByLabel(en("organizer.colour_of", { category: "\u2068Adult\u2069" })).selectOption("violet");
  await eventually(async () => {
    const { capacity, category_colours: colours } = await tickets.api("GET", "/api/events/default");
    assert.deepEqual({ capacity, colours }, { capacity: 1, colours: { Adult: "violet" } });
  });
  await page.locator("h1:visible").click();
  const scan = { scan_id: crypto.randomUUID(), seat: "1", gate: "North", manual: true, note: "no phone" };
  await tickets.api("POST", "/api/events/default/scans", scan);
  await sees(page, en("crowd.full", { inside: 1, capacity: 1 }));
  await eventually(async () => assert.deepEqual(await page.locator("#by-category tbody tr").allInnerTexts().then((rows) => rows.map((row) => row.split(/\s+/).slice(0, 3).join(" "))), ["Adult 1 1", "Under 12 0"]));
  await accessible(page);
});

test("an event says when it forgets its people, that it never does, or that it did", async (t) => {
  const tickets = await service(t);
  const page = await signedIn(t, tickets, { view: "events" });
  const save = async (fields) => {
    await page.getByRole("button", { name: en("organizer.edit"), exact: true }).click();
    for (const [name, value] of Object.entries(fields)) await field(page, name).fill(value);
    await page.getByRole("button", { name: en("organizer.save"), exact: true }).click();
    await page.locator("#event-dialog").waitFor({ state: "hidden" });
  };
  await save({ forget_after_days: "30", time_zone: "UTC" });
  await sees(page, en("organizer.forgets_never"));
  await save({ ends: "2030-05-01T23:00" });
  await sees(page, /^People will be erased: .*31 May 2030/);
  await save({ ends: "2020-05-01T23:00" });
  await sees(page, /^People will be erased: .*31 May 2020/);
  const forgotten = { ...(await tickets.api("GET", "/api/events/default")), forgotten_at: "2020-06-01T08:00:00.000Z" };
  await page.route(/\/api\/events(\?.*)?$/, (route) => route.fulfill({ headers: marked(), json: { events: [forgotten], next: null } }));
  await save({ forget_after_days: "" });
  await sees(page, /^Its people were erased: .*1 June? 2020/);
  await sees(page, /^The service’s backups contain them for up to 35 more days/);
  await accessible(page);
});

test("the check before the doors open says what is missing", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "check" });
  await sees(page, en("organizer.check_database_ok"));
  await sees(page, en("organizer.check_holders_look", { free: 1, tickets: 3 }));
  await sees(page, en("organizer.check_no_backups_look"));
  await sees(page, en("organizer.check_ticket_secret_look"));
  const gate = (name) => page.getByText(en("organizer.check_gate_wrong", { gate: `\u2068${name}\u2069` }));
  await gate("North").waitFor();
  await gate("South").waitFor();
  await tickets.api("POST", "/api/keys", { name: "North", role: "gate", event: "default", gate: "North" });
  await press(page, "check_again");
  await gate("North").waitFor({ state: "detached" });
  await gate("South").waitFor();
  await accessible(page);
});

for (const [size, device, colorScheme] of [["phone", phone, "light"], ["desktop", desktop, "dark"]]) {
  test(`the door list is printed by name for each gate, and the check says how old it is, on a ${size}`, async (t) => {
    const tickets = await withTickets(t, "seat,gate,username,full_name,category,note\nA-1,North,zoe,Zoe Roe,Under 12,Walks with a stick\nA-2,North,ana,Ana Ruiz,,\nA-3,North,ana,Ana Ruiz,,\nB-1,South,bob,Bob Poe,,\nB-2,South,,,,\n");
    await use(tickets, "bob");
    const page = await signedIn(t, tickets, { view: "check", device, colorScheme });
    await page.evaluate(() => (globalThis.print = () => (globalThis.printed = document.querySelector("#roll").textContent)));
    await sees(page, en("organizer.check_printed_look"));
    await press(page, "list_print");
    const list = page.locator("#roll");
    await list.getByText("Zoe Roe").waitFor();
    assert.deepEqual(await list.locator("tbody th").allTextContents(), ["Ana Ruiz", "Ana Ruiz", "Bob Poe", "Zoe Roe"]);
    assert.deepEqual(await list.locator(".box").allTextContents(), ["☐", "☐", "☒", "☐"]);
    assert.deepEqual(await list.locator("td.number").allTextContents(), ["2", "2", "1", "1"], "the tickets of each person");
    await accessible(page);
    await page.getByLabel(en("organizer.gate"), { exact: true }).filter({ visible: true }).selectOption({ label: en("organizer.list_each_gate") });
    assert.equal(await list.locator(".roll").count(), 2);
    assert.equal((await tickets.api("GET", "/api/events/default/printed")).printed_at, null, "viewing it does not count as printing");
    await press(page, "print");
    await page.waitForFunction(() => globalThis.printed?.includes("Walks with a stick"));
    await page.emulateMedia({ media: "print" });
    assert.ok(!(await page.locator("nav").isVisible()));
    await page.emulateMedia({ media: null });
    await page.getByRole("link", { name: en("organizer.check"), exact: true }).first().click();
    const begins = (name) => en(`organizer.${name}`).split("{")[0];
    await page.locator("#checks .ok").getByText(begins("check_printed_ok")).waitFor();
    await tickets.api("POST", "/api/events/default/tickets", "seat,gate,username\nC-1,North,new\n");
    await press(page, "check_again");
    await page.locator("#checks .look").getByText(begins("check_printed_changed")).waitFor();
  });
}

test("who has not come yet, and who is inside, is named from the board", async (t) => {
  const tickets = await withTickets(t);
  await use(tickets, "bob");
  const page = await signedIn(t, tickets, { view: "board/default" });
  const button = (name) => page.locator(`[data-list="${name}"]`);
  await button("missing").getByText("1").waitFor();
  await button("missing").click();
  const names = page.locator("#roll tbody th");
  await names.getByText("Ana Roe").waitFor();
  assert.deepEqual(await names.allTextContents(), ["Ana Roe"], "tickets without a holder are not listed");
  await accessible(page);
  await page.locator("nav").getByText(en("organizer.board")).click();
  await button("inside").click();
  await names.getByText("Bob Poe").waitFor();
  assert.deepEqual(await names.allTextContents(), ["Bob Poe"]);
});

test("the check says when the secret of codes is set", async (t) => {
  const tickets = await service(t, { settings: { TICKET_SECRET: "a-secret-of-the-tests-of-the-pages" } });
  const page = await signedIn(t, tickets, { view: "check" });
  await sees(page, en("organizer.check_ticket_secret_ok"));
});

test("the check tells an organizer of one event too that no secret of codes is set", async (t) => {
  const tickets = await withTickets(t);
  const { key } = await tickets.api("POST", "/api/keys", { name: "Co", role: "organizer", event: "default" });
  const page = await signedIn(t, tickets, { key, view: "check" });
  await sees(page, en("organizer.check_ticket_secret_look"));
  await page.getByText(en("organizer.check_no_backups_look")).waitFor({ state: "detached" });
});

test("an organizer of one event sees that event, and nothing is amiss", async (t) => {
  const tickets = await withTickets(t);
  await tickets.api("POST", "/api/events", { slug: "other", name: "Other" });
  await tickets.api("POST", "/api/events", { slug: "gala", name: "Gala" });
  const { key } = await tickets.api("POST", "/api/keys", { name: "Co", role: "organizer", event: "gala" });
  const page = await signedIn(t, tickets, { key });
  for (const view of VIEWS) {
    await page.goto(`/organizer#${view}`);
    await page.locator(`section[data-view="${view}"] h1`).waitFor();
    await page.waitForLoadState("networkidle");
    assert.equal(await page.locator("#told").innerText(), "", view);
    assert.equal(await page.locator(".problem:visible").count(), 0, view);
  }
  assert.deepEqual(await page.locator("#event option").evaluateAll((all) => all.map((each) => each.value)), ["gala"]);
  assert.ok(await page.locator("#new-event").isHidden());
});

test("whoever signs in sees the event that runs, else the next, else the newest", async (t) => {
  const tickets = await service(t);
  const page = await desktop(t, tickets);
  const time = (hours) => new Date(Date.now() + hours * 3_600_000).toISOString();
  const make = (slug, starts, ends) => tickets.api("POST", "/api/events", { slug, name: slug, starts_at: time(starts), ends_at: time(ends) });
  const seen = async () => {
    await page.goto("/organizer");
    await page.getByLabel(en("organizer.key"), { exact: true }).fill(tickets.key);
    await press(page, "sign_in");
    await page.locator("#bar").waitFor();
    const slug = await page.locator("#event").inputValue();
    await press(page, "sign_out");
    return slug;
  };
  assert.equal(await seen(), "default");
  await make("last", -9, -5);
  await make("first", -90, -80);
  assert.equal(await seen(), "last");
  await make("later", 90, 95);
  await make("next", 9, 12);
  assert.equal(await seen(), "next");
  await make("running", -1, 3);
  assert.equal(await seen(), "running");
});

test("files are saved under the event's name, and the key is in no address", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "board" });
  const download = page.waitForEvent("download");
  await press(page, "scans_csv");
  const file = await download;
  assert.equal(file.suggestedFilename(), "default-scans.csv");
  assert.match(fs.readFileSync(await file.path(), "utf8"), /^\ufeff"scan_id",/);
});

// Every language and every size, but not all combinations: the names are hostile, not the texts around
// them.
for (const [at, language] of LANGUAGES.entries()) {
  const [size, device] = at % 2 ? ["desktop", desktop] : ["phone", phone];
  test(`hostile names break no view, on a ${size}, in ${language}`, async (t) => {
    const text = texts(language);
    const tickets = await service(t);
    await tickets.api("POST", "/api/events", { slug: "gala", name: HOSTILE[0] + HOSTILE[1] });
    const places = HOSTILE.map((name) => ({ seat: name.slice(0, 64), gate: name.slice(0, 64) }));
    await tickets.api("POST", "/api/events/gala/tickets", places);
    for (const [at, full_name] of HOSTILE.entries()) {
      await tickets.register({ ...places[at], event: "gala", username: `p${at}`, full_name });
      await tickets.api("POST", "/api/keys", { name: full_name.slice(0, 100), role: "gate", event: "gala", gate: places[at].gate });
    }
    const page = await signedIn(t, tickets, { device, text, locale: language });
    for (const view of VIEWS) {
      await page.goto(`/organizer#${view}/gala`);
      await page.locator(`section[data-view="${view}"]:not([hidden])`).waitFor();
      await page.waitForLoadState("networkidle");
      await accessible(page);
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${view} fits`);
      assert.equal(await page.locator("main img").count(), 0, view);
    }
    await page.goto("/");
    await sees(page, text("home.what"));
    await accessible(page);
  });
}

test("nothing of one event is shown under the name of another", async (t) => {
  const tickets = await withTickets(t);
  await tickets.api("POST", "/api/keys", { name: "The north door", role: "gate", event: "default" });
  await tickets.api("POST", "/api/events", { slug: "gala", name: "Gala" });
  for (const [view, shown] of [["tickets", "Ana Roe"], ["board", "North"], ["gates", "The north door"]]) {
    const page = await signedIn(t, tickets, { view: `${view}/default` });
    await sees(page, shown);
    // The service is away from now on.
    await page.route("**/api/**", (route) => route.abort());
    await page.getByLabel(en("organizer.event"), { exact: true }).selectOption("gala");
    await page.waitForURL(`**/organizer#${view}/gala`);
    assert.equal(await page.getByText(shown).filter({ visible: true }).count(), 0, view);
  }
});

test("whoever goes on while a change is being saved stays where they went, and the board goes on counting", async (t) => {
  const tickets = await withTickets(t);
  const page = await signedIn(t, tickets, { view: "events" });
  /** Holds the answers from an address until the returned function is called. */
  const hold = async (address) => {
    let letGo;
    const held = new Promise((resolve) => (letGo = resolve));
    await page.route(address, async (route) => {
      await held;
      await route.continue();
    });
    return letGo;
  };
  const answerEvents = await hold(/\/api\/events\?/);
  const answerStats = await hold("**/stats");
  await press(page, "edit");
  await pressInDialog(page, "save");
  await sees(page, en("organizer.saved_event"));
  const stats = page.waitForRequest("**/stats");
  await page.getByRole("link", { name: en("organizer.board"), exact: true }).click();
  await stats;
  const events = page.waitForResponse(/\/api\/events\?/);
  answerEvents();
  await (await events).finished();
  answerStats();
  await sees(page, en("organizer.of_tickets", { tickets: 3 }));
  assert.equal(new URL(page.url()).hash, "#board/default");
  await tickets.api("POST", "/api/events/default/tickets", "seat,gate\nC-1,North\n");
  await sees(page, en("organizer.of_tickets", { tickets: 4 }));
});

test("whoever leaves a sheet that is being made gets no more of it", async (t) => {
  const tickets = await withTickets(t, "seat,gate,username\nA-1,North,ana\nA-2,North,bob\n");
  const page = await signedIn(t, tickets, { view: "tickets/default" });
  let answer;
  const left = new Promise((resolve) => (answer = resolve));
  const asked = [];
  await page.route("**/print", async (route) => {
    asked.push(route.request().url());
    await left;
    await route.continue();
  });
  await page.locator("#tick-all").check();
  await press(page, "print_codes");
  await pressInDialog(page, "go_on");
  await eventually(async () => assert.equal(asked.length, 1));
  await page.goBack();
  await page.locator("#tick-all").waitFor();
  const printed = page.waitForResponse((response) => response.url().endsWith("/print"));
  answer();
  await (await printed).finished();
  await page.locator("#tick-all").check();
  assert.equal(asked.length, 1);
  assert.equal(await page.locator("#sheet article").count(), 0);
});
