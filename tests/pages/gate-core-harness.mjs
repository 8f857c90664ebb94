// The gate's core in a real browser, without its page: devices, their tabs, and what a tab does with the core. A device is
// a browser context: it has its own storage, which its tabs share. The scripts come from the sources, the API from a
// service in its own process. A test takes the network away by stopping that service, or by routes on a tab's page.
import assert from "node:assert/strict";
import fs from "node:fs";
import { browser, eventually } from "./harness.mjs";

const PAGES = new URL("../../src/pages/", import.meta.url);
export const SCANS = "/api/events/default/scans.csv";
const STATS = "/api/events/default/stats";

/** A new device. `script` runs in its tabs before the pages' own. */
export async function device(t, service, { script } = {}) {
  const context = await (await browser()).newContext({ baseURL: service.url });
  t.after(() => context.close());
  if (script) await context.addInitScript(script);
  // An empty page that opens without a network, as the stored page does.
  await context.route("**/core/**", (route) => {
    const file = new URL(route.request().url()).pathname.replace(/^.*\/core\//, "");
    if (file === "page") return route.fulfill({ contentType: "text/html", body: "<!doctype html><title>A gate</title>" });
    return route.fulfill({ contentType: "text/javascript", body: fs.readFileSync(new URL(file, PAGES)) });
  });
  return new Device(context);
}

/** One storage and any number of tabs. */
class Device {
  constructor(context) {
    this.context = context;
  }

  /** Opens or reopens a tab: `gate` in it is the gate, and `corrected` collects its later corrections. */
  async open() {
    const page = await this.context.newPage();
    await page.goto("/core/page");
    await page.evaluate(async () => {
      const { Gate } = await import("/core/gate/core.js");
      // An error would lose its properties on the way out of the page.
      globalThis.plain = (told) => ({ ...told, problem: told.problem && { ...told.problem, isAway: told.problem.isAway } });
      globalThis.corrected = [];
      globalThis.gate = await Gate.open();
      globalThis.gate.addEventListener("corrected", ({ detail }) => globalThis.corrected.push(...detail));
    });
    return new Tab(page);
  }

  /** Sets the device's clock by hand while no gate page is open. */
  async setClock(ahead) {
    const page = await this.context.newPage();
    await page.goto("/core/page");
    await new Tab(page).setClock(ahead);
    await page.close();
  }

  /** Opens a tab and enrols the device with a new key, until it can decide by itself. `key` is as in `enrolment`. */
  async enrolled(service, key) {
    const { enrol_url, key_id } = await service.enrolment(key);
    const tab = await this.open();
    await tab.enrol(enrol_url);
    await tab.ready();
    return Object.assign(tab, { key_id });
  }
}

/** A page with a gate and nothing else. Its results cross into Node, so they are plain data. */
class Tab {
  constructor(page) {
    this.page = page;
  }

  /** Enrols the device with the link that an organizer shows. */
  async enrol(url) {
    await this.page.evaluate((token) => globalThis.gate.enrol(token), new URL(url).hash.replace("#enrol=", ""));
  }

  /** Waits for the manifest. */
  ready() {
    return eventually(async () => {
      await this.page.evaluate(() => globalThis.gate.sync());
      assert.ok((await this.state()).offlineReady);
    });
  }

  state() {
    return this.page.evaluate(() => globalThis.plain(globalThis.gate.state));
  }

  /** The device's newest verdicts, newest first. */
  recent() {
    return this.page.evaluate(() => globalThis.gate.recent);
  }

  /** This device's verdicts that the service has overruled since the tab was opened. */
  corrected() {
    return this.page.evaluate(() => globalThis.corrected);
  }

  /** Scans a code, or whatever `presented` holds, and returns the verdict. */
  scan(presented, direction = "entry") {
    const shown = typeof presented === "string" ? { code: presented } : presented;
    return this.page.evaluate(
      async ([shown, direction]) => {
        await globalThis.gate.setDirection(direction);
        return globalThis.plain(await globalThis.gate.scan(shown));
      },
      [shown, direction],
    );
  }

  retry(verdict) {
    return this.page.evaluate(async (verdict) => globalThis.plain(await globalThis.gate.retry(verdict)), verdict);
  }

  sync() {
    return this.page.evaluate(() => globalThis.gate.sync());
  }

  counts() {
    return this.page.evaluate(() => globalThis.gate.counts());
  }

  undo(scan_id) {
    return this.page.evaluate((scan_id) => globalThis.gate.undo(scan_id), scan_id);
  }

  /** Clears the list of differing tickets. */
  seenDiffering() {
    return this.page.evaluate(() => globalThis.gate.seenDiffering());
  }

  /** Removes a scan that the service refused from the list. */
  dismiss(scan_id) {
    return this.page.evaluate((scan_id) => globalThis.gate.dismiss(scan_id), scan_id);
  }

  /** Sets the device's clock by hand: milliseconds ahead of the time, or behind if negative. */
  setClock(ahead) {
    return this.page.evaluate((ahead) => localStorage.setItem("clock-of-the-test", ahead), ahead);
  }

  /** Makes all clocks show that this many milliseconds have passed since the test began. */
  passes(time) {
    return this.page.evaluate((time) => localStorage.setItem("time-of-the-test", time), time);
  }

  /** Everything the device stores: as text, in which sealed data is noise, and by store. */
  kept() {
    return this.page.evaluate(async () => {
      const done = (request) => new Promise((resolve, reject) => Object.assign(request, { onsuccess: () => resolve(request.result), onerror: reject }));
      const database = await done(indexedDB.open("gate"));
      const told = (name, value) => {
        if (value instanceof CryptoKey) return `${value.algorithm.name}, ${value.extractable ? "open" : "shut"}`;
        return value instanceof Uint8Array ? String.fromCharCode(...value) : value;
      };
      const stores = {};
      for (const name of database.objectStoreNames) {
        const store = database.transaction(name).objectStore(name);
        const [keys, values] = await Promise.all([done(store.getAllKeys()), done(store.getAll())]);
        stores[name] = Object.fromEntries(keys.map((key, index) => [key, JSON.parse(JSON.stringify(values[index], told))]));
      }
      database.close();
      return { stores, text: `${JSON.stringify(stores)} ${JSON.stringify({ ...localStorage })}` };
    });
  }

  /** The scans of an ended key, as a file. */
  strandedFile(key_id) {
    return this.page.evaluate((key_id) => globalThis.gate.stranded(key_id), key_id);
  }

  discard(numbers) {
    return this.page.evaluate((numbers) => globalThis.gate.discard(numbers), numbers);
  }

  leave() {
    return this.page.evaluate(() => globalThis.gate.leave());
  }

  /** Removes the timeout of requests, so that an answer is awaited however slow this machine is. */
  waitsForEver() {
    return this.page.evaluate(() => (AbortSignal.timeout = () => new AbortController().signal));
  }

  /** Waits for the manifest. Returns the longest time in milliseconds that the page was blocked meanwhile. */
  standstill() {
    return this.page.evaluate(async () => {
      let longest = 0;
      let before = performance.now();
      while (!globalThis.gate.state.offlineReady) {
        await new Promise((resolve) => setTimeout(resolve));
        longest = Math.max(longest, performance.now() - before);
        before = performance.now();
      }
      return longest;
    });
  }

  /** Lets scan requests reach the service but holds its answers until the returned function is called. */
  async hold() {
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await this.page.route("**/scans**", async (route) => {
      const answer = await route.fetch();
      await held;
      await route.fulfill({ response: answer }).catch(() => {}); // the page may have stopped waiting
    });
    return release;
  }

  /** Waits until the service has every scan. */
  drained() {
    return eventually(async () => {
      await this.sync();
      assert.equal((await this.state()).queued, 0);
    });
  }
}

/** Clocks for a device that `setClock` and `passes` set: for all its tabs, also those that are opened later. */
export const CLOCK = `{
  const [clock, monotonic] = [Date.now, performance.now.bind(performance)];
  const kept = (name) => Number(localStorage.getItem(name) ?? 0);
  Date.now = () => clock() + kept("clock-of-the-test") + kept("time-of-the-test");
  performance.now = () => monotonic() + kept("time-of-the-test");
}`;

/** Issues tickets A1, A2 … at the gate North, each with a holder. Returns their registrations. */
export async function tickets(service, ...seats) {
  await service.api("POST", "/api/events/default/tickets", `seat,gate\n${seats.map((seat) => `${seat},North\n`).join("")}`);
  const registrations = [];
  for (const seat of seats) {
    registrations.push(await service.register({ seat, gate: "North", username: `holder-${seat}`, full_name: `Holder of ${seat}` }));
  }
  return registrations;
}

/** How many people the service counts as admitted. */
export const admitted = async (service) => (await service.api("GET", STATS)).admitted;

/** The service's records, such as `already_used, offline accepted`, sorted. */
export async function recorded(service) {
  const rows = await service.rows(SCANS);
  return rows.map(({ result, offline_result }) => (offline_result ? `${result}, offline ${offline_result}` : result)).sort();
}

/** The part of a verdict that says who decided what. */
export const gist = ({ result, offline, undecided }) => ({ result, offline, undecided });
export const online = (result) => ({ result, offline: false, undecided: false });
export const offline = (result) => ({ result, offline: true, undecided: false });
export const undecided = { result: null, offline: false, undecided: true };
