// The ticket page: the code, what becomes of the ticket, and phones that are not as they should be.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { accessible, eventually, phone, service, texts } from "./harness.mjs";
import { isKept } from "./people.mjs";

const en = texts("en");

/** A service with one ticket, seat A-1 at the gate North. `settings` are those of its event. */
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

/** The page shows the code of so many seconds from now. */
const shows = (page, tickets, ticket, seconds = 0) =>
  eventually(async () => {
    const digits = tickets.code(ticket, seconds).slice(-6);
    assert.equal(await page.locator("#code").innerText(), `${digits.slice(0, 3)} ${digits.slice(3)}`);
  });

const hasNoCode = async (page) => assert.equal(await page.locator("#code, #enlarge, details").filter({ visible: true }).count(), 0);

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
