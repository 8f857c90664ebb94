// The organizer sends the tickets by mail, through an external mail server.

import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, desktop, eventually, phone, service, texts } from "./harness.mjs";
import { mailServer } from "./mail-server.mjs";
import { Organizer, en } from "./people.mjs";

const CSV = `seat,gate,username,full_name,email
A-1,North,ana,Ana Roe,ana@example.org
A-2,North,ben,Ben Okafor,nobody@example.org
A-3,North,ana,Ana Roe,ana@example.org
A-4,North,carla,Carla Méndez,
`;

/** A service that sends its mail to a server that stores it. */
async function withMail(t, csv = CSV) {
  const mails = [];
  const server = await mailServer({ kept: (mail) => mails.push(mail) });
  t.after(() => server.close());
  const settings = { SMTP_URL: `smtp://localhost:${server.port}`, MAIL_FROM: "Gala <gala@example.org>" };
  const tickets = await service(t, { settings });
  await tickets.api("POST", "/api/events/default/tickets", csv);
  return { mails, tickets };
}

test("every holder is sent their tickets by one button, and whoever was not is named", async (t) => {
  const { mails, tickets } = await withMail(t);
  const organizer = await Organizer.at(t, tickets);
  await organizer.open("tickets");
  await organizer.press(en("organizer.mails_open"));
  const dialog = organizer.page.locator("#mails-dialog");
  const says = (name, values) => dialog.getByText(en(`organizer.${name}`, values)).waitFor();
  await says("mails_counts", { unmailed: 3, people: 2, mailed: 0, without: 1 });
  await dialog.getByText(en("organizer.mails_first")).click();
  await says("mails_hidden_links");
  await dialog.getByText("/t/…").first().waitFor();
  await accessible(organizer.page);
  assert.equal(mails.length, 0, "nothing was sent yet");
  await organizer.press(en("organizer.mails_go"), dialog);
  await says("mails_counts", { unmailed: 1, people: 1, mailed: 2, without: 1 });
  await says("mails_done", { sent: 2 });
  await dialog.getByRole("listitem").filter({ hasText: "Ben Okafor" }).filter({ hasText: "550 5.1.1" }).waitFor();
  await accessible(organizer.page);
  assert.deepEqual(mails.map(({ subject, recipients }) => [subject, ...recipients]), [["Your 2 tickets for Default event", "ana@example.org"]]);
  const [[link]] = mails[0].text.matchAll(/http:\S+/g);
  const page = await fetch(link);
  assert.equal(page.status, 200, "and their links open");
  // Again: only to the one who was not mailed.
  await tickets.api("PATCH", "/api/users/ben", { email: "ben@example.org" });
  await organizer.press(en("organizer.mails_go"), dialog);
  await says("mails_none");
  assert.equal(mails.length, 2);
  assert.ok(await dialog.getByRole("button", { name: en("organizer.mails_go") }).isDisabled());
});

test("a ticket's sheet says when it was sent, and sends it again", async (t) => {
  const { mails, tickets } = await withMail(t);
  const { tickets: all } = await tickets.api("GET", "/api/events/default/tickets");
  await tickets.api("POST", "/api/events/default/mails", { tickets: all.map(({ ticket_id: id }) => id) });
  const organizer = await Organizer.at(t, tickets);
  await organizer.open("tickets");
  await organizer.press("A-1");
  await organizer.sees(en("organizer.mailed_at"));
  await organizer.press(en("organizer.mails_again"));
  await organizer.sees(en("organizer.mails_again_done"));
  await eventually(async () => assert.deepEqual(mails.map(({ subject }) => subject.includes("2")), [true, false]));
  await tickets.api("PATCH", "/api/users/ana", { email: "busy@example.org" });
  await organizer.press("A-1");
  await organizer.press(en("organizer.mails_again"));
  await organizer.sees(en("organizer.mail_refused", { code: "451 4.3.2" }));
  await organizer.press(en("organizer.close"));
  await organizer.press("A-2");
  await organizer.sees(en("organizer.transfer"));
  assert.equal(await organizer.page.getByRole("button", { name: en("organizer.mails_again") }).count(), 0, "it was never sent");
});

test("the check names who has no address and counts what was not sent", async (t) => {
  const { tickets } = await withMail(t);
  const organizer = await Organizer.at(t, tickets);
  await organizer.open("check");
  await organizer.sees(en("organizer.check_mails_look", { unmailed: 3, mailed: 0 }));
  await organizer.sees("Carla Méndez");
  await tickets.api("PATCH", "/api/users/carla", { email: "carla@example.org" });
  await tickets.api("PATCH", "/api/users/ben", { email: "ben@example.org" });
  const { tickets: all } = await tickets.api("GET", "/api/events/default/tickets");
  await tickets.api("POST", "/api/events/default/mails", { tickets: all.map(({ ticket_id: id }) => id) });
  await organizer.press(en("organizer.check_again"));
  await organizer.sees(en("organizer.check_mails_ok"));
  await organizer.sees(en("organizer.check_addresses_ok"));
});

test("a mail server that is away stops it, and nothing is marked", async (t) => {
  const settings = { SMTP_URL: "smtp://localhost:1", MAIL_FROM: "gala@example.org" };
  const tickets = await service(t, { settings });
  await tickets.api("POST", "/api/events/default/tickets", CSV);
  const organizer = await Organizer.at(t, tickets);
  await organizer.open("tickets");
  await organizer.press(en("organizer.mails_open"));
  await organizer.press(en("organizer.mails_go"));
  await organizer.sees(en("organizer.mails_stopped"));
  await organizer.sees(en("organizer.mails_counts", { unmailed: 3, people: 2, mailed: 0, without: 1 }));
});

test("without a mail server the page says what to do instead", async (t) => {
  const tickets = await service(t);
  await tickets.api("POST", "/api/events/default/tickets", CSV);
  const organizer = await Organizer.at(t, tickets);
  await organizer.open("tickets");
  await organizer.press(en("organizer.mails_open"));
  await organizer.sees(en("organizer.mails_off"));
  assert.ok(await organizer.page.getByRole("button", { name: en("organizer.mails_go") }).isDisabled());
  await organizer.press(en("organizer.close"));
  await organizer.open("check");
  await organizer.sees(en("organizer.check_database_ok"));
  assert.equal(await organizer.page.getByText(en("organizer.check_mails_ok")).count(), 0);
});

for (const [size, device, colorScheme] of [["phone", phone, "dark"], ["desktop", desktop, "light"]]) {
  test(`without a mail server the page goes from holder to holder, and remembers who was given theirs, on a ${size}`, async (t) => {
    const tickets = await service(t);
    await tickets.api("PATCH", "/api/events/default", { language: "es", name: "Gala" });
    await tickets.api("POST", "/api/events/default/tickets", CSV);
    const organizer = await Organizer.at(t, tickets, { page: (t, service, options) => device(t, service, { colorScheme, ...options }) });
    const { page } = organizer;
    const read = [];
    page.on("request", (request) => request.url().includes("/link") && read.push(request.url()));
    const start = async () => {
      await organizer.open("tickets");
      await organizer.press(en("organizer.mails_open"));
      await organizer.press(en("organizer.give_open"));
      await page.locator("#link-dialog[open]").waitFor();
    };
    const holder = (name) => page.locator("#link-told").getByText(name).waitFor();
    await start();
    await holder("Ana Roe");
    assert.equal(read.length, 1, "no link is read before its holder's turn");
    await accessible(page);
    const ways = await page.locator("#link-ways a").evaluateAll((all) => all.map(({ href, rel }) => [href, rel]));
    const [mail, whatsapp] = ways.map(([href]) => decodeURIComponent(href));
    assert.match(mail, /^mailto:\?subject=.*Gala.*&body=Hola, Ana Roe/s);
    assert.ok(whatsapp.startsWith("https://wa.me/?text=Hola, Ana Roe"));
    for (const way of [mail, whatsapp]) assert.equal(way.match(/\/t\//g).length, 2, "all tickets of a holder in one message");
    assert.ok(ways.every(([, rel]) => rel === "noopener noreferrer"));
    await organizer.press(en("organizer.give_next"));
    await holder("Ben Okafor");
    await organizer.press(en("organizer.give_skip"));
    await holder("Carla");
    await page.reload();
    await page.getByLabel(en("organizer.key"), { exact: true }).fill(tickets.key);
    await organizer.press(en("organizer.sign_in"));
    await start();
    await holder("Ben Okafor");
    await organizer.press(en("organizer.give_next"));
    await organizer.press(en("organizer.give_next"));
    await organizer.sees(en("organizer.give_none"));
    const kept = await page.evaluate(() => JSON.stringify({ ...localStorage }));
    assert.ok(!/Ana|\/t\/|rtk_/.test(kept) && !kept.includes(tickets.key), kept);
  });
}

test("an event has a place and a language for its mails", async (t) => {
  const tickets = await service(t);
  const es = texts("es");
  const page = await desktop(t, tickets, { locale: "es" });
  await page.goto("/organizer");
  await page.getByLabel(es("organizer.key"), { exact: true }).fill(tickets.key);
  await page.getByRole("button", { name: es("organizer.sign_in") }).click();
  await page.getByRole("link", { name: es("organizer.events"), exact: true }).click();
  await page.getByRole("button", { name: es("organizer.new_event"), exact: true }).click();
  const form = page.locator("#event-dialog");
  await form.getByLabel(es("organizer.name"), { exact: true }).fill("Verbena");
  await form.getByLabel(es("organizer.location"), { exact: true }).fill("Plaza Mayor");
  await form.getByRole("button", { name: es("organizer.save") }).click();
  const event = () => tickets.api("GET", "/api/events/verbena");
  await eventually(async () => assert.deepEqual((({ language, location }) => [language, location])(await event()), ["es", "Plaza Mayor"]));
  await page.locator("#events li").filter({ hasText: "Verbena" }).getByRole("button", { name: es("organizer.edit") }).click();
  await form.getByLabel(es("organizer.location"), { exact: true }).fill("");
  await form.getByLabel(es("organizer.language"), { exact: true }).selectOption("en");
  await form.getByRole("button", { name: es("organizer.save") }).click();
  await eventually(async () => assert.deepEqual((({ language, location }) => [language, location])(await event()), ["en", null]));
});
