// The people of the stories, and what each of them does on a page.

import assert from "node:assert/strict";
import { camera, desktop, eventually, phone, texts } from "./harness.mjs";

export const en = texts("en");

/** A page on which somebody finds things by what they say. */
class Person {
  constructor(page) {
    this.page = page;
  }

  press(name, within = this.page) {
    return within.getByRole("button", { name, exact: true }).click();
  }

  sees(text) {
    return this.page.getByText(text).filter({ visible: true }).first().waitFor();
  }
}

/** At a desk, with the key. */
export class Organizer extends Person {
  static async at(t, service, options) {
    const organizer = new Organizer(await desktop(t, service, options));
    await organizer.page.goto("/organizer");
    await organizer.page.getByLabel(en("organizer.key"), { exact: true }).fill(service.key);
    await organizer.press(en("organizer.sign_in"));
    return organizer;
  }

  open(view) {
    return this.page.getByRole("link", { name: en(`organizer.${view}`), exact: true }).click();
  }

  async imports(csv) {
    await this.open("tickets");
    await this.open("import");
    await this.page.getByLabel(en("organizer.file")).setInputFiles({ name: "tickets.csv", mimeType: "text/csv", buffer: Buffer.from(csv) });
    await this.press(en("organizer.import_now"));
  }

  /** Makes the key of a gate and gives its enrolment link. */
  async makesGateKey({ name, gate }) {
    await this.open("gates");
    await this.press(en("organizer.new_key"));
    await this.page.getByLabel(en("organizer.name"), { exact: true }).fill(name);
    await this.page.getByLabel(en("organizer.gate"), { exact: true }).selectOption(gate);
    await this.press(en("organizer.make_key"));
    const link = this.page.getByRole("dialog").getByLabel(en("organizer.link"), { exact: true });
    return link.inputValue();
  }
}

/** At a door, with a phone that is enrolled. */
export class Gate extends Person {
  /** With a key made by the API, unless an enrolment link is given. `script` runs in the page before its own. */
  static async at(t, service, { key, link, script, ...options } = {}) {
    link ??= (await service.enrolment(key)).enrol_url;
    const gate = new Gate(await phone(t, service, options));
    if (script) await gate.page.addInitScript(script);
    await gate.page.goto(link);
    await gate.page.getByRole("button", { name: en("gate.type"), exact: true }).waitFor();
    return gate;
  }

  /** Until it could do without a network: the page and the tickets are on the device. */
  async readyForOffline(tickets) {
    await eventually(async () => assert.ok(await this.page.evaluate(async () => Boolean(await caches.match("/gate")))));
    await eventually(async () => {
      await this.press(en("gate.more"));
      const facts = await this.page.locator("#facts").innerText();
      await this.press(en("gate.close"));
      assert.match(facts, new RegExp(en("gate.list_of", { tickets, time: ".*" })));
    });
  }

  /** Lets the camera see a picture, and tells the verdict. */
  async scans(picture) {
    await camera.show(picture);
    const verdict = await this.verdict();
    camera.nothing();
    return verdict;
  }

  /** A hand-held scanner types what it reads. */
  async reads(code) {
    await this.page.keyboard.type(`${code}\n`);
    return this.verdict();
  }

  /** The words on the full screen. */
  async verdict() {
    const dialog = this.page.locator("#verdict[open]");
    await dialog.waitFor();
    return dialog.innerText();
  }

  async goesOn() {
    await this.press(en("gate.next"));
    await this.page.locator("#verdict").waitFor({ state: "hidden" });
  }
}

/** With a ticket on the phone. */
export class Holder extends Person {
  static async at(t, service, link, options) {
    const holder = new Holder(await phone(t, service, options));
    await holder.page.goto(link);
    return holder;
  }

  /** The QR code as the phone shows it. */
  code() {
    return this.page.locator("#enlarge").screenshot();
  }
}
