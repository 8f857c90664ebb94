// The people in the stories, and what each does on a page.

import assert from "node:assert/strict";
import { camera, desktop, eventually, phone, texts } from "./harness.mjs";

export const en = texts("en");

/** A page on which a person finds things by their texts. */
export class Person {
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

/** An organizer at a desk, with the key. */
export class Organizer extends Person {
  static async at(t, service, { page = desktop, ...options } = {}) {
    const organizer = new Organizer(await page(t, service, options));
    await organizer.page.goto("/organizer");
    await organizer.page.getByLabel(en("organizer.key"), { exact: true }).fill(service.key);
    await organizer.press(en("organizer.sign_in"));
    return organizer;
  }

  open(view) {
    return this.page.getByRole("link", { name: en(`organizer.${view}`), exact: true }).click();
  }

  /** Opens the import and chooses a file. */
  async chooses(csv) {
    await this.open("tickets");
    await this.open("import");
    await this.page.getByLabel(en("organizer.file")).setInputFiles({ name: "tickets.csv", mimeType: "text/csv", buffer: Buffer.from(csv) });
  }

  async imports(csv) {
    await this.chooses(csv);
    await this.press(en("organizer.import_now"));
  }

  /** Creates a gate's key and returns its enrolment link. */
  async makesGateKey({ name, gate }) {
    await this.open("gates");
    await this.press(en("organizer.new_key"));
    const form = this.dialog(en("organizer.key_name_hint"));
    await form.getByLabel(en("organizer.name"), { exact: true }).fill(name);
    await form.getByLabel(en("organizer.gate"), { exact: true }).selectOption(gate);
    await this.press(en("organizer.make_key"), form);
    return this.takesLink(en("organizer.enrol_how"));
  }

  /** Registers a person for a ticket and returns the ticket's link. */
  async registers({ seat, username, fullName }) {
    await this.open("tickets");
    await this.press(seat);
    await this.press(en("organizer.register"));
    const form = this.dialog(en("organizer.register_how"));
    await form.getByLabel(en("organizer.username"), { exact: true }).fill(username);
    await form.getByLabel(en("organizer.full_name"), { exact: true }).fill(fullName);
    await this.press(en("organizer.register"), form);
    return this.takesLink(en("organizer.link_how"));
  }

  /** Takes the link from the dialog with this text, and closes it. */
  async takesLink(says) {
    const dialog = this.dialog(says);
    const link = await dialog.getByLabel(en("organizer.link"), { exact: true }).inputValue();
    await this.press(en("organizer.close"), dialog);
    return link;
  }

  dialog(says) {
    return this.page.getByRole("dialog").filter({ hasText: says });
  }
}

/** At a door, with an enrolled phone. */
export class Gate extends Person {
  /** With a key made through the API, unless an enrolment link is given. `script` runs in the page before its own. */
  static async at(t, service, { page = phone, key, link, script, ...options } = {}) {
    link ??= (await service.enrolment(key)).enrol_url;
    const gate = new Gate(await page(t, service, options));
    if (script) await gate.page.addInitScript(script);
    await gate.page.goto(link);
    await gate.press(en("gate.offer_accept"));
    // A tap may hit while the page is moving: a person who still sees the question taps again.
    await eventually(async () => {
      if (await gate.page.evaluate(() => document.querySelector("#offer-accept:enabled")?.checkVisibility() && !("busy" in document.body.dataset))) {
        await gate.press(en("gate.offer_accept"));
      }
      assert.ok(await gate.page.evaluate(() => !document.querySelector("#offer-accept").checkVisibility()));
    });
    await gate.page.getByRole("button", { name: en("gate.type"), exact: true }).waitFor();
    return gate;
  }

  /** Waits until it could work without a network: the page and the tickets are on the device. */
  async readyForOffline(tickets) {
    await eventually(async () => assert.ok(await this.page.evaluate(async () => Boolean(await caches.match("/gate")))));
    await eventually(async () => {
      await this.press(en("gate.more"));
      const facts = await this.page.locator("#facts").innerText();
      await this.press(en("gate.close"));
      assert.match(facts, new RegExp(en("gate.list_of", { tickets, time: ".*", ago: ".*" }).replace(/[()]/g, "\\$&")));
    });
  }

  /** Shows the camera a picture and returns the verdict. */
  async scans(picture) {
    await camera.show(picture);
    const verdict = await this.verdict();
    camera.nothing();
    return verdict;
  }

  /** The same in a browser without a camera, which gets one that its page draws. */
  async scansDrawn(drawing) {
    await this.page.evaluate(drawCamera, drawing);
    await this.press(en("gate.camera_again"));
    return this.verdict();
  }

  /** Types as a hand-held scanner does, faster than keys can be sent to a browser one by one. */
  async reads(code) {
    await this.typesAll(code);
    return this.verdict();
  }

  /** Presses keys where the focus is: the character and position of each. */
  presses(keys) {
    return this.page.evaluate((keys) => {
      for (const key of keys) {
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { ...key, bubbles: true, cancelable: true }));
      }
    }, keys);
  }

  /** The same for several codes in a row, whatever their verdicts. */
  typesAll(...codes) {
    return this.page.evaluate((keys) => {
      for (const key of keys) {
        document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
      }
    }, codes.flatMap((code) => [...code, "Enter"]));
  }

  /** Types six digits that somebody reads out: the last ones of the QR code's text. */
  async types(seat, code) {
    await this.press(en("gate.type"));
    await this.page.getByLabel(en("gate.seat"), { exact: true }).fill(seat);
    await this.page.getByLabel(en("gate.digits"), { exact: true }).fill(code.slice(-6));
    await this.press(en("gate.check"));
    return this.verdict();
  }

  /** The text of the next verdict, which the page marks. An admission soon leaves the screen but not the mark. */
  async verdict() {
    const verdict = await this.page.waitForFunction(() => {
      const shown = performance.getEntriesByName("shown").length > 0;
      performance.clearMarks("shown");
      return shown && [...document.querySelectorAll("#verdict p, #verdict li")].map((line) => line.textContent).join("\n");
    });
    return verdict.jsonValue();
  }

  /** The verdict's colour and shape. */
  kind() {
    return this.page.locator("#verdict").getAttribute("data-kind");
  }

  /** Dismisses a verdict; an admission may have gone by itself. */
  async goesOn() {
    await this.page.evaluate(() => document.querySelector("#verdict-close").click());
    await this.page.locator("#verdict").waitFor({ state: "hidden" });
  }
}

/** Waits until the page says that it works without a network, permanently or for now. */
export const isKept = (page) =>
  page.getByText(new RegExp(`${en("ticket.kept_firmly")}|${en("ticket.kept_loosely")}`)).filter({ visible: true }).first().waitFor();

/** The link to all tickets in an English mail. */
export const linkToAll = ({ text }) => new RegExp(`${en("mail.all")}\\s+(\\S+)`).exec(text)[1];

/** A holder with the ticket on a phone. */
export class Holder extends Person {
  static async at(t, service, link, { page = phone, ...options } = {}) {
    const holder = new Holder(await page(t, service, options));
    await holder.page.goto(link);
    return holder;
  }

  isKept() {
    return isKept(this.page);
  }

  /** The QR code as the phone shows it. */
  code() {
    return this.page.locator(".enlarge").first().screenshot();
  }

  /** What its picture is drawn from: the path of the dark modules, and the number of modules per row. */
  drawing() {
    return this.page.evaluate(() => {
      const picture = document.querySelector(".enlarge svg");
      return { path: picture.querySelector("path").getAttribute("d"), size: picture.viewBox.baseVal.width };
    });
  }

  async digits() {
    return (await this.page.locator(".digits").innerText()).replace(/\s/g, "");
  }
}

/**
 * Scripts to run before a page's own, by the decoder that the page then uses. Chromium on Linux has no BarcodeDetector; this one
 * has its interface, decodes with our library and counts in `detected`.
 */
export const DECODERS = {
  "the browser's detector": () => {
    globalThis.BarcodeDetector = class {
      static getSupportedFormats = async () => ["qr_code"];
      async detect(video) {
        const { Looker } = await import(new URL("look.js", document.querySelector("script[src]").src));
        const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
        const context = canvas.getContext("2d");
        context.drawImage(video, 0, 0);
        const { codes } = new Looker().look(context.getImageData(0, 0, canvas.width, canvas.height));
        globalThis.detected = (globalThis.detected ?? 0) + codes.length;
        return codes.map(({ text, x, y, side }) => {
          return { rawValue: text, boundingBox: new DOMRect(x - side / 2, y - side / 2, side, side) };
        });
      }
    };
  },
  "the library that the pages bring": () => {
    delete globalThis.BarcodeDetector;
  },
};

/** The story that every browser must support. `options` are those of its devices. */
export async function fromTheImportToTheDoor(t, service, options) {
  const organizer = await Organizer.at(t, service, options);
  await organizer.imports("seat,gate,username,full_name,email\nA-1,North,ana,Ana Roe,ana@example.org\nA-2,North,,,\nB-1,South,,,\n");
  // The preview of the import says the same.
  await organizer.page.locator("#imported").getByText(en("organizer.will_created_other", { count: 3 })).waitFor();
  const link = await organizer.makesGateKey({ name: "North door", gate: "North" });
  const gate = await Gate.at(t, service, { link, ...options });
  assert.equal(await gate.page.evaluate(() => location.hash), "", "the token has left the address");
  await gate.sees("North");

  const ticket = await organizer.registers({ seat: "A-2", username: "bob", fullName: "Bob Poe" });
  const holder = await Holder.at(t, service, ticket, options);
  await holder.sees("Bob Poe");
  const digits = await holder.digits();
  const verdict = options ? await gate.scansDrawn(await holder.drawing()) : await gate.scans(await holder.code());
  assert.match(verdict, new RegExp(`${en("result.accepted")}[^]*Bob Poe[^]*A-2`));
  await gate.goesOn();
  await holder.sees(en("ticket.used"));
  assert.match(await gate.types("A-2", digits), new RegExp(en("result.just_admitted")));

  await organizer.open("board");
  await organizer.sees(en("result.already_used"));
}

/** Runs in the gate's page: from now on a camera sees this picture, until there is a verdict. */
function drawCamera({ path, size }) {
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const context = canvas.getContext("2d");
  const modules = new Path2D(path);
  let seen = false;
  navigator.mediaDevices.getUserMedia = async () => {
    setInterval(() => {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = "#fff";
      context.fillRect(0, 0, 640, 480);
      seen ||= document.querySelector("#verdict").open;
      if (seen) return;
      context.setTransform(360 / size, 0, 0, 360 / size, 140, 60);
      context.fillStyle = "#000";
      context.fill(modules);
    }, 50);
    return canvas.captureStream(20);
  };
}
