// An organizer's first ten minutes, with a guest list as exported from the form that the guests filled in.

import assert from "node:assert/strict";
import { test } from "node:test";
import { desktop, phone, service } from "./harness.mjs";
import { mailServer } from "./mail-server.mjs";
import { Gate, Holder, Person, en } from "./people.mjs";

/** How many steps an organizer who has read nothing may need. */
const MOST_STEPS = 25;
const MOST_MINUTES = 10;
const GUESTS = 150;

/** A Google Forms export in English: each answer with its timestamp. */
function answers() {
  const rows = Array.from({ length: GUESTS }, (_, n) => {
    const minute = String(n % 60).padStart(2, "0");
    const time = `2026/11/${10 + (n % 9)} ${1 + (n % 12)}:${minute}:07 PM GMT+1`;
    return `"${time}","guest.${n}@example.org","Guest Number ${n}","${1 + (n % 4)}"`;
  });
  return ['"Timestamp","Email Address","Your full name","How many tickets?"', ...rows, ""].join("\r\n");
}
const TICKETS = Array.from({ length: GUESTS }, (_, n) => 1 + (n % 4)).reduce((sum, count) => sum + count);

/**
 * Counts a person's steps on a page: clicks and taps, and each field once, however much is typed or chosen in
 * it.
 */
async function counted(page, steps) {
  await page.exposeBinding("step", (source, step) => steps.push(step));
  await page.addInitScript(() => {
    let field = null;
    addEventListener("click", ({ isTrusted, detail, target }) => {
      // Enter in a field, or a click on a label, also presses a button.
      if (isTrusted && detail > 0) globalThis.step(`press ${target.id || target.textContent.trim().slice(0, 30)}`);
    }, true);
    addEventListener("input", ({ target }) => {
      if (target === field) return;
      field = target;
      globalThis.step(`fill ${target.id}`);
    }, true);
    addEventListener("focusin", ({ target }) => (field = target === field ? field : null), true);
  });
  return page;
}

/** A time some hours from now, in the format of a time field in this zone. */
const inHours = (hours, timeZone) =>
  new Date(Date.now() + hours * 3_600_000).toLocaleString("sv", { timeZone }).replace(" ", "T").slice(0, 16);

test(`from a sheet of ${GUESTS} answers to the first guest in ${MOST_STEPS} steps`, async (t) => {
  const mails = [];
  const server = await mailServer({ kept: (mail) => mails.push(mail) });
  t.after(() => server.close());
  const settings = { SMTP_URL: `smtp://localhost:${server.port}`, MAIL_FROM: "Concert <concert@example.org>" };
  const host = await service(t, { settings });
  const steps = [];
  const desk = new Person(await counted(await desktop(t, host), steps));
  const door = new Person(await counted(await phone(t, host), steps));
  const { page } = desk;
  /** Types into a field as people do: they press it first, unless it has the focus. */
  const types = async (name, value, within = page) => {
    const field = within.getByLabel(en(`organizer.${name}`), { exact: true });
    if (!(await field.evaluate((node) => node === document.activeElement))) await field.click();
    await field.fill(value);
  };
  const goesOn = () => page.locator("#next").getByRole("link").click();

  await page.goto("/organizer");
  const begun = performance.now();
  await types("key", host.key);
  await desk.press(en("organizer.sign_in"));
  await desk.sees(en("organizer.first_title"));
  const form = page.locator("#first");
  await types("name", "Village concert", form);
  await types("starts", inHours(2, "Europe/Madrid"), form);
  await types("ends", inHours(5, "Europe/Madrid"), form);
  await desk.press(en("organizer.first_go"), form);

  const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.getByLabel(en("organizer.file")).click()]);
  await chooser.setFiles({ name: "Concert (answers).csv", mimeType: "text/csv", buffer: Buffer.from(answers()) });
  await desk.sees(en("organizer.will_created_other", { count: TICKETS }));
  await desk.press(en("organizer.import_now"));
  await page.locator("#next").getByText(en("organizer.next_mails", { tickets: TICKETS })).waitFor();

  await goesOn();
  await desk.press(en("organizer.mails_open"));
  const outbox = page.locator("#mails-dialog");
  await desk.press(en("organizer.mails_go"), outbox);
  await outbox.getByText(en("organizer.mails_done", { sent: TICKETS })).waitFor({ timeout: 60_000 });
  await desk.press(en("organizer.close"), outbox);

  await goesOn();
  await desk.press(en("organizer.new_key"));
  const key = page.locator("#key-dialog");
  await types("name", "Ben's phone", key);
  await desk.press(en("organizer.make_key"), key);
  await page.locator("#enrol-dialog[open]").waitFor();
  const link = await page.locator("#enrol-link").inputValue();

  // The phone's camera reads the code on the screen, and a tap opens its link.
  steps.push("open the link");
  await door.page.goto(link);
  await door.press(en("gate.offer_accept"));
  await door.page.locator("#type").waitFor();

  const mail = mails.find(({ recipients }) => recipients[0] === "guest.2@example.org");
  const [ticket] = mail.text.match(/https?:\/\/\S+/);
  const guest = await Holder.at(t, host, ticket);
  await guest.sees("Guest Number 2");
  const verdict = await new Gate(door.page).scans(await guest.code());
  const minutes = (performance.now() - begun) / 60_000;

  assert.ok(verdict.includes(en("result.accepted")) && verdict.includes("Guest Number 2"), verdict);
  assert.equal(mails.length, GUESTS, "one mail per person");
  t.diagnostic(`${steps.length} steps in ${minutes.toFixed(1)} minutes: ${steps.join(", ")}`);
  assert.ok(steps.length <= MOST_STEPS, steps.join(", "));
  assert.ok(minutes < MOST_MINUTES);
});
