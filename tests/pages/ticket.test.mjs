// The ticket page: its code, the ticket's changes, and phones with something wrong.

import assert from "node:assert/strict";
import { randomUUID, verify } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { accessible, eventually, phone, service, texts, walletIssuer } from "./harness.mjs";
import { mailServer } from "./mail-server.mjs";
import { isKept, linkToAll } from "./people.mjs";

const en = texts("en");

/** A service with one ticket, seat A-1 at the gate North. `settings` are its event's. */
async function oneTicket(t, settings, environment = {}) {
  const tickets = await service(t, { settings: environment });
  if (settings) await tickets.api("PATCH", "/api/events/default", settings);
  await tickets.api("POST", "/api/events/default/tickets", { seat: "A-1", gate: "North" });
  const ticket = await tickets.register({ seat: "A-1", gate: "North", username: "ana", full_name: "Ana Roe" });
  return { tickets, ticket };
}

/** The ticket's page on a phone. `script` runs in it before its own. */
async function open(t, tickets, ticket, { script, ...options } = {}) {
  const page = await phone(t, tickets, options);
  if (script) await page.addInitScript(script);
  await page.goto(ticket.provisioning.ticket_url);
  return page;
}

const scan = (tickets, code, direction = "entry") =>
  tickets.api("POST", "/api/events/default/scans", { scan_id: randomUUID(), code, at_gate: "North", direction });

/** What the network's return does: the page asks at once. */
const ask = (page) => page.evaluate(() => dispatchEvent(new Event("online")));

const sees = (page, text) => page.getByText(text).filter({ visible: true }).first().waitFor();

/** Waits until the page shows the code of `seconds` from now. */
const shows = (page, tickets, ticket, seconds = 0) =>
  eventually(async () => {
    const digits = tickets.code(ticket, seconds).slice(-6);
    assert.equal(await page.locator(".digits").innerText(), `${digits.slice(0, 3)} ${digits.slice(3)}`);
  });

const hasNoCode = async (page) => assert.equal(await page.locator(".digits, .enlarge, details").filter({ visible: true }).count(), 0);

test("without a network the page opens, and goes on to the next code", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await shows(page, tickets, ticket);
  await isKept(page);
  await tickets.stop();
  await page.clock.install();
  await page.reload();
  await sees(page, en("ticket.offline"));
  await shows(page, tickets, ticket);
  await page.clock.fastForward(30_000);
  await shows(page, tickets, ticket, 30);
});

test("another database in the place of the right one ends no ticket, open and opened anew", async (t) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "pages-"));
  t.after(() => fs.rmSync(directory, { recursive: true }));
  const place = path.join(directory, "volume");
  const { tickets, ticket } = await oneTicket(t, null, { DATABASE_URL: `sqlite:${place}/tickets.db` });
  const page = await open(t, tickets, ticket);
  await isKept(page);
  await tickets.stop();
  fs.renameSync(place, `${place} elsewhere`);
  await tickets.start();
  assert.equal((await tickets.api("GET", "/api/events/default/tickets")).tickets.length, 0, "an empty one");
  await ask(page);
  await sees(page, en("ticket.offline"));
  await page.reload();
  await sees(page, en("ticket.offline"));
  await shows(page, tickets, ticket);
  await tickets.stop();
  fs.rmSync(place, { recursive: true });
  fs.renameSync(`${place} elsewhere`, place);
  await tickets.start();
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/reissue`);
  await ask(page);
  await sees(page, en("gone.title"));
});

for (const [seconds, name] of [[95, "slow"], [-95, "fast"]]) {
  test(`a phone's clock that is ${name} is corrected for, and its holder told`, async (t) => {
    const { tickets, ticket } = await oneTicket(t);
    const script = `const real = Date.now; Date.now = () => real() - ${seconds * 1000};`;
    const page = await open(t, tickets, ticket, { script });
    await sees(page, new RegExp(en(`ticket.clock_${name}`, { amount: "9[456] s" })));
    await shows(page, tickets, ticket);
  });
}

test("a phone that is set by hand in the wrong time zone is told so, and what an authenticator app needs", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket, { script: "const real = Date.now; Date.now = () => real() + 3_620_000;" });
  await sees(page, new RegExp(en("ticket.clock_zone")));
  await shows(page, tickets, ticket);
});

test("a clock that is set by hand without a network changes no code, nor when the page is opened anew", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const script = `{ const real = Date.now; Date.now = () => real() + Number(localStorage.getItem("ahead")); }`;
  const page = await open(t, tickets, ticket, { script });
  await isKept(page);
  await tickets.stop();
  for (const ahead of [3_600_000, -7_200_000, 0]) {
    await page.evaluate((ahead) => localStorage.setItem("ahead", ahead), ahead);
    await shows(page, tickets, ticket);
    await page.reload();
    await shows(page, tickets, ticket);
  }
});

test("once used it says when and where, in the event's time zone; an undo brings the code back", async (t) => {
  const { tickets, ticket } = await oneTicket(t, { time_zone: "Asia/Kathmandu" });
  const page = await open(t, tickets, ticket);
  await shows(page, tickets, ticket);
  const { scan_id } = await scan(tickets, tickets.code(ticket));
  await ask(page);
  await sees(page, en("ticket.used"));
  await hasNoCode(page);
  const { used_at } = await tickets.api("GET", `/api/tickets/${ticket.ticket_id}`);
  const time = new Date(used_at).toLocaleTimeString("en-GB", { timeZone: "Asia/Kathmandu", timeStyle: "short" });
  const notice = await page.locator(".notice.used").innerText();
  assert.match(notice, new RegExp(`${time}[^]*North`));

  await tickets.api("POST", `/api/scans/${scan_id}/undo`);
  await ask(page);
  await shows(page, tickets, ticket);
});

test("what the page knew last, it says without a network", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await isKept(page);
  await scan(tickets, tickets.code(ticket));
  await ask(page);
  await sees(page, en("ticket.used"));
  await eventually(async () => {
    const kept = await page.evaluate(async () => (await caches.match(location.pathname)).text());
    assert.match(kept, /data-status="used"/);
  });
  await tickets.stop();
  await page.reload();
  await sees(page, en("ticket.used"));
  await hasNoCode(page);
});

test("with re-entry the code stays, and the page says what it is for", async (t) => {
  const { tickets, ticket } = await oneTicket(t, { reentry: "after_exit" });
  const page = await open(t, tickets, ticket);
  await scan(tickets, tickets.code(ticket));
  await ask(page);
  await sees(page, en("ticket.inside"));
  await shows(page, tickets, ticket);
  await accessible(page);
  await scan(tickets, tickets.code(ticket), "exit");
  await ask(page);
  await sees(page, en("ticket.outside"));
  await shows(page, tickets, ticket);
});

test("a ticket that admits once a day keeps its code for the next day, and says so", async (t) => {
  const { tickets, ticket } = await oneTicket(t, { reentry: "once_a_day" });
  const page = await open(t, tickets, ticket);
  await scan(tickets, tickets.code(ticket));
  await ask(page);
  await sees(page, en("ticket.daily"));
  assert.equal(await page.getByText(en("ticket.inside")).isVisible(), false);
  await shows(page, tickets, ticket);
  await accessible(page);
});

test("a revoked ticket has no code", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await shows(page, tickets, ticket);
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/revoke`);
  await ask(page);
  await sees(page, en("ticket.revoked"));
  await hasNoCode(page);
});

test("a link that died shows no code, and the phone forgets it", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await isKept(page);
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/reissue`);
  await ask(page);
  await sees(page, en("gone.title"));
  await hasNoCode(page);
  await eventually(async () => assert.deepEqual(await page.evaluate(() => caches.keys()), []));
});

test("a link that died is forgotten too when it is opened", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await isKept(page);
  await page.goto("/");
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/reissue`);
  await page.goto(ticket.provisioning.ticket_url);
  await sees(page, en("gone.title"));
  assert.deepEqual(await page.evaluate(() => caches.keys()), []);
});

test("without a secure context the code comes from the service", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const script = () => {
    delete Crypto.prototype.subtle;
    delete Navigator.prototype.serviceWorker;
    delete Navigator.prototype.wakeLock;
    delete globalThis.caches;
  };
  const page = await open(t, tickets, ticket, { script });
  await shows(page, tickets, ticket);
  await tickets.stop();
  await ask(page);
  await sees(page, en("ticket.offline_no_code"));
  await tickets.start();
  await ask(page);
  await shows(page, tickets, ticket);
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/revoke`);
  await ask(page);
  await sees(page, en("ticket.revoked"));
});

test("the screen stays on while there is a code on it", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const script = () => {
    const lock = { released: true, release: async () => (lock.released = true) };
    Object.defineProperty(Navigator.prototype, "wakeLock", {
      value: { request: async () => Object.assign(lock, { released: false }) },
    });
    globalThis.isAwake = () => !lock.released;
  };
  const page = await open(t, tickets, ticket, { script });
  await page.waitForFunction(() => globalThis.isAwake());
  await scan(tickets, tickets.code(ticket));
  await ask(page);
  await page.waitForFunction(() => !globalThis.isAwake());
});

for (const [width, height] of [[390, 844], [640, 360], [844, 390]]) {
  test(`a touch makes the code as large as the short side of ${width} × ${height}, another one small again`, async (t) => {
    const { tickets, ticket } = await oneTicket(t);
    const page = await open(t, tickets, ticket, { viewport: { width, height } });
    const code = page.getByRole("button", { name: en("ticket.enlarge") });
    const small = (await code.boundingBox()).width;
    await code.tap();
    const large = await code.boundingBox();
    assert.ok(large.width >= 0.98 * Math.min(width, height) && large.width > 1.1 * small, `${small}, then ${large.width}`);
    assert.ok(large.x >= 0 && large.y >= 0 && large.x + large.width <= width && large.y + large.height <= height);
    assert.equal(await code.getAttribute("aria-pressed"), "true");
    await sees(page, "Ana Roe");
    await accessible(page);
    await code.tap();
    assert.equal((await code.boundingBox()).width, small);
  });
}

test("a touch gives the code the whole screen, white in the dark too, with its digits and whose it is, until it is left", async (t) => {
  const { tickets, ticket } = await oneTicket(t, { location: "Main square" });
  const page = await open(t, tickets, ticket, { colorScheme: "dark" });
  const code = page.getByRole("button", { name: en("ticket.enlarge") });
  await sees(page, "Main square");
  await code.tap();
  await eventually(async () => assert.ok(await page.evaluate(() => Boolean(document.fullscreenElement))));
  const digits = tickets.code(ticket).slice(-6);
  const said = (await page.evaluate(() => document.querySelector("main").innerText)).split("\n").filter(Boolean);
  assert.deepEqual(said.slice(-2), [en("ticket.bright"), "A-1 · Ana Roe"]);
  assert.ok(said.some((line) => /^\d{3} \d{3}$/.test(line)), `${said}, ${digits}`);
  assert.equal(await page.getByText("Main square").isVisible(), false);
  const corners = await page.evaluate(() => [[1, 1], [innerWidth - 2, 1], [1, innerHeight - 2], [innerWidth - 2, innerHeight - 2]].map((corner) => {
    const all = document.elementsFromPoint(...corner).map((element) => getComputedStyle(element).backgroundColor);
    return all.find((colour) => colour !== "rgba(0, 0, 0, 0)");
  }));
  assert.deepEqual(corners, Array(4).fill("rgb(255, 255, 255)"));
  assert.equal(await page.evaluate(() => [...document.querySelectorAll("meta[name=theme-color]")].find(({ media }) => matchMedia(media).matches).content), "#ffffff");
  await page.evaluate(() => document.exitFullscreen());
  await sees(page, "Main square");
  assert.equal(await code.getAttribute("aria-pressed"), "false");
});

const KEEPS = {
  firmly: () => (StorageManager.prototype.persisted = async () => true),
  loosely: () => (StorageManager.prototype.persisted = StorageManager.prototype.persist = async () => false),
  in_app: () => {
    const { userAgent } = navigator;
    Object.defineProperty(Navigator.prototype, "userAgent", { value: `${userAgent} Instagram 300.0.0.0 Android` });
  },
};
for (const [how, script] of Object.entries(KEEPS)) {
  test(`the page says how the phone keeps it, and what to do: ${how}`, async (t) => {
    const { tickets, ticket } = await oneTicket(t);
    await sees(await open(t, tickets, ticket, { script }), en(`ticket.kept_${how}`));
  });
}

const KEEPS_NOT = {
  "has no worker": () => delete Navigator.prototype.serviceWorker,
  "refuses it, as in a private window": () => {
    ServiceWorkerContainer.prototype.register = async () => {
      throw new DOMException("", "SecurityError");
    };
  },
  "has a worker that is not over the page": () => Object.defineProperty(ServiceWorkerContainer.prototype, "controller", { value: null }),
  "has no room": () => {
    ServiceWorker.prototype.postMessage = (_, [port]) => port.postMessage(false);
  },
};
for (const [why, script] of Object.entries(KEEPS_NOT)) {
  test(`no page says that it is kept where the browser ${why}`, async (t) => {
    const { tickets, ticket } = await oneTicket(t);
    const page = await open(t, tickets, ticket, { script });
    await sees(page, en("ticket.kept_not"));
    await shows(page, tickets, ticket);
  });
}

test("on the home screen a page that is kept is kept firmly", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const script = () => {
    StorageManager.prototype.persisted = StorageManager.prototype.persist = async () => false;
    Object.defineProperty(navigator, "standalone", { value: true });
  };
  await sees(await open(t, tickets, ticket, { script }), en("ticket.kept_firmly"));
});

test("a page that was loaded past its worker is kept all the same", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await isKept(page);
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Page.reload", { ignoreCache: true });
  await isKept(page);
});

test("place, doors, category and validity are there without a network too", async (t) => {
  const starts = new Date(Date.now() + 3_600_000).toISOString();
  const tickets = await service(t);
  const event = { location: "Main square", starts_at: starts, opens_at: starts, category_colours: { "Under 12": "teal" } };
  await tickets.api("PATCH", "/api/events/default", event);
  await tickets.api("POST", "/api/events/default/tickets", { seat: "A-1", gate: "North", category: "Under 12", valid_from: starts });
  const page = await open(t, tickets, await tickets.register({ seat: "A-1", gate: "North", username: "ana" }));
  await isKept(page);
  const told = async () => {
    for (const text of ["Main square", "Under 12", /^Doors open: \d\d:\d\d$/, /^Valid from: /]) await sees(page, text);
    assert.equal(await page.getByText("Under 12").evaluate((chip) => getComputedStyle(chip).backgroundColor), "rgb(0, 101, 91)");
  };
  await told();
  await accessible(page);
  await tickets.api("PATCH", "/api/events/default", { category_colours: {}, location: "Town hall" });
  await ask(page);
  await sees(page, "Town hall");
  await page.waitForFunction(() => document.querySelector(".category").dataset.colour === "");
  await tickets.api("PATCH", "/api/events/default", event);
  await page.reload();
  await told();
  await eventually(async () => assert.match(await page.evaluate(async () => (await caches.match(location.pathname)).text()), /Main square/));
  await tickets.stop();
  await page.reload();
  await told();
});

test("a print of the page says that it is not a ticket", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await page.emulateMedia({ media: "print" });
  await sees(page, en("ticket.printed"));
  await hasNoCode(page);
});

for (const colorScheme of ["light", "dark"]) {
  test(`everything that the page shows is accessible, ${colorScheme}`, async (t) => {
    const { tickets, ticket } = await oneTicket(t);
    const page = await open(t, tickets, ticket, { colorScheme });
    await page.getByText(en("ticket.authenticator")).click();
    await accessible(page);
    await scan(tickets, tickets.code(ticket));
    await ask(page);
    await sees(page, en("ticket.used"));
    await accessible(page);
    await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/revoke`);
    await ask(page);
    await sees(page, en("ticket.revoked"));
    await accessible(page);
    await page.goto("/t/nothing");
    await accessible(page);
  });
}

/** Gil has four tickets, and a mail with one link to all of them: `each` is the API's answers for the tickets, in order. */
async function family(t) {
  const mails = [];
  const server = await mailServer({ kept: (mail) => mails.push(mail) });
  t.after(() => server.close());
  const tickets = await service(t, { settings: { SMTP_URL: `smtp://localhost:${server.port}`, MAIL_FROM: "gala@example.org" } });
  const rows = [1, 2, 3, 4].map((seat) => `A-${seat},North,gil,gil@example.org`);
  await tickets.api("POST", "/api/events/default/tickets", ["seat,gate,username,email", ...rows, ""].join("\n"));
  const { tickets: each } = await tickets.api("GET", "/api/events/default/tickets");
  await tickets.api("POST", "/api/events/default/mails", { tickets: each.map(({ ticket_id }) => ticket_id) });
  return { tickets, each, link: linkToAll(mails[0]) };
}

const seat = (page) => page.locator(".ticket:visible .seat dd").allInnerTexts();
const isAt = (page, n) => eventually(async () => {
  assert.deepEqual(await seat(page), [`A-${n}`]);
  assert.equal(await page.locator("#which").innerText(), en("ticket.which", { n, count: 4 }));
});

/** Moves a finger from one point to another. */
async function swipe(page, [x, y], [toX, toY]) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: [{ x, y }] });
  await devtools.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints: [{ x: toX, y: toY }] });
  await devtools.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
}

test("whoever has several tickets goes from one to the next with a finger, buttons and keys, large too", async (t) => {
  const { tickets, link } = await family(t);
  const page = await phone(t, tickets);
  await page.goto(link);
  await isAt(page, 1);
  const before = page.getByRole("button", { name: en("ticket.before") });
  const next = page.getByRole("button", { name: en("ticket.next") });
  assert.deepEqual([await before.isDisabled(), await next.isDisabled()], [true, false]);
  await accessible(page);
  await next.click();
  await isAt(page, 2);
  await swipe(page, [300, 500], [100, 510]);
  await isAt(page, 3);
  await swipe(page, [200, 600], [190, 300]); // that scrolls
  await page.keyboard.press("ArrowLeft");
  await isAt(page, 2);
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  await isAt(page, 4);
  assert.deepEqual([await before.isDisabled(), await next.isDisabled()], [false, true]);
  await page.keyboard.press("ArrowRight");
  await page.locator(".enlarge:visible").tap();
  await swipe(page, [100, 500], [300, 510]);
  await eventually(async () => assert.deepEqual(await page.locator(".large .whose").allInnerTexts(), ["A-3 · gil"]));
  assert.equal(await page.locator(".large").count(), 1);
  await accessible(page);
});

test("each of several tickets shows its own codes, without a network too", async (t) => {
  const { tickets, each, link } = await family(t);
  const page = await phone(t, tickets);
  await page.goto(link);
  await isKept(page);
  await tickets.stop();
  await page.clock.install();
  await page.reload();
  const shown = async (seconds) => {
    const keys = await page.locator(".ticket").evaluateAll((all) => all.map(({ dataset }) => dataset.key));
    for (const [at, { ticket_id }] of each.entries()) {
      await isAt(page, at + 1);
      const digits = tickets.code({ ticket_id, provisioning: { secret: keys[at] } }, seconds).slice(-6);
      await eventually(async () => assert.equal((await page.locator(".digits:visible").innerText()).replace(" ", ""), digits));
      await page.keyboard.press("ArrowRight");
    }
    for (let left = each.length; left > 0; left -= 1) await page.keyboard.press("ArrowLeft");
    return keys;
  };
  assert.equal(new Set(await shown(0)).size, 4);
  await page.clock.fastForward(30_000);
  await shown(30);
});

test("a ticket that went to somebody else vanishes from the link to all, and from what the phone keeps", async (t) => {
  const { tickets, each, link } = await family(t);
  const page = await phone(t, tickets);
  await page.goto(link);
  await isKept(page);
  const key = await page.locator(".ticket").first().getAttribute("data-key");
  await tickets.api("POST", "/api/users", { username: "luis" });
  const moved = await tickets.api("POST", `/api/tickets/${each[0].ticket_id}/transfer`, { username: "luis" });
  await ask(page);
  await sees(page, en("gone.title"));
  await hasNoCode(page);
  assert.equal((await page.content()).includes(key), false);
  await page.keyboard.press("ArrowRight");
  await isAt(page, 2);
  assert.equal(await page.locator(".digits:visible").count(), 1);
  await eventually(async () => {
    const kept = await page.evaluate(async () => (await caches.match(location.pathname)).text());
    assert.ok(!kept.includes(key) && kept.includes(">A-2<"));
  });
  await page.reload();
  assert.equal(await page.locator(".ticket").count(), 3);
  await page.goto(moved.provisioning.ticket_url);
  assert.deepEqual(await seat(page), ["A-1"]);
});

test("a link to one ticket shows one, whoever holds it", async (t) => {
  const { tickets, each, link } = await family(t);
  const { ticket_url: alone } = await tickets.api("GET", `/api/tickets/${each[1].ticket_id}/link`);
  const page = await phone(t, tickets);
  await page.goto(alone);
  assert.deepEqual(await seat(page), ["A-2"]);
  assert.equal(await page.locator(".ticket").count(), 1);
  assert.equal(await page.locator("nav, .alone").filter({ visible: true }).count(), 0);
  await page.goto(link);
  await page.keyboard.press("ArrowRight");
  await page.getByRole("link", { name: en("ticket.alone") }).click();
  await page.waitForURL(alone);
});

test("without a script all tickets of the link are there, each with a link of its own", async (t) => {
  const { tickets, link } = await family(t);
  const page = await phone(t, tickets, { javaScriptEnabled: false });
  await page.goto(link);
  assert.deepEqual(await seat(page), ["A-1", "A-2", "A-3", "A-4"]);
  assert.equal(await page.locator(".digits:visible").count(), 4);
  assert.equal(await page.getByRole("link", { name: en("ticket.alone") }).count(), 4);
});

test("a button adds the ticket to Google Wallet, and nothing of the pass is made before somebody presses it", async (t) => {
  const { publicKey, settings } = walletIssuer();
  const { tickets, ticket } = await oneTicket(t, null, settings);
  const page = await open(t, tickets, ticket);
  const button = page.getByRole("link", { name: en("ticket.wallet") });
  await accessible(page);
  assert.equal((await page.content()).includes("pay.google.com"), false);
  const answer = await fetch(await button.evaluate(({ href }) => href), { redirect: "manual" });
  const [, token] = /^https:\/\/pay\.google\.com\/gp\/v\/save\/(.+)$/.exec(answer.headers.get("location"));
  const [head, claims, signature] = token.split(".");
  assert.ok(verify("RSA-SHA256", Buffer.from(`${head}.${claims}`), publicKey, Buffer.from(signature, "base64url")));
  const { payload } = JSON.parse(Buffer.from(claims, "base64url"));
  assert.equal(payload.eventTicketObjects[0].ticketHolderName, "Ana Roe");
  await tickets.api("POST", `/api/tickets/${ticket.ticket_id}/reissue`);
  await ask(page);
  await sees(page, en("gone.wallet"));
  assert.equal(await page.locator(".wallet").count(), 0);
});

test("without an issuer nothing is said of Google Wallet", async (t) => {
  const { tickets, ticket } = await oneTicket(t);
  const page = await open(t, tickets, ticket);
  await shows(page, tickets, ticket);
  assert.equal(await page.getByText("Google").filter({ visible: true }).count(), 0);
});
