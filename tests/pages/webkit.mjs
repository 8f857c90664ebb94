// WebKitGTK for the tests of the pages: as much of Playwright's interface as people.mjs uses, over WebDriver (W3C), because Playwright
// only drives its own WebKit.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

const PATIENCE = 60_000;
/** The property name under which WebDriver sends an element. */
const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";

/** WebKitGTK needs a screen: this starts one of its own, which nobody sees. */
export class WebKit {
  static async launch() {
    const webkit = new WebKit();
    webkit.screen = spawn("Xvfb", ["-displayfd", "1", "-screen", "0", "1400x1000x24", "-nolisten", "tcp"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    const [number] = await once(webkit.screen.stdout, "data");
    webkit.display = `:${String(number).trim()}`;
    return webkit;
  }

  async newContext({ baseURL, viewport, timezoneId }) {
    const environment = { ...process.env, DISPLAY: this.display, TZ: timezoneId };
    const context = new Context(baseURL, viewport);
    await context.start(environment);
    return context;
  }

  close() {
    return ended(this.screen);
  }
}

async function ended(process) {
  const gone = once(process, "exit");
  process.kill();
  await gone;
}

/** A device: its own browser and storage, with one page. */
class Context {
  complaints = [];
  #directory = fs.mkdtempSync(path.join(os.tmpdir(), "webkit-"));

  constructor(baseURL, viewport) {
    Object.assign(this, { baseURL, viewport });
  }

  async start(env) {
    const port = await freePort();
    this.address = `http://127.0.0.1:${port}`;
    this.driver = spawn(process.env.WEBKIT_DRIVER ?? "WebKitWebDriver", [`--port=${port}`], { env, stdio: "ignore" });
    const session = { capabilities: { alwaysMatch: { pageLoadStrategy: "none" } } };
    const { sessionId } = await retried(() => this.send("POST", "/session", session));
    this.session = `/session/${sessionId}`;
  }

  setDefaultTimeout() {}

  async newPage() {
    this.page = new Page(this);
    await this.send("POST", `${this.session}/window/rect`, { x: 0, y: 0, ...this.viewport });
    return this.page;
  }

  /** Sends a WebDriver command and returns its result. */
  async send(method, command, body) {
    const response = await fetch(this.address + command, { method, body: body && JSON.stringify(body) });
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${method} ${command}: ${value.error}: ${value.message}`);
    return value;
  }

  /** A file for a page to choose. */
  file({ name, buffer }) {
    const file = path.join(this.#directory, name);
    fs.writeFileSync(file, buffer);
    return file;
  }

  async close() {
    await this.page.complain();
    await this.send("DELETE", this.session);
    await ended(this.driver);
    fs.rmSync(this.#directory, { recursive: true });
  }
}

async function freePort() {
  const server = net.createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function retried(attempt) {
  for (const end = Date.now() + PATIENCE; ; ) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** Finds elements, on the page or within elements found before. */
class Finder {
  constructor(page, steps) {
    Object.assign(this, { page, steps });
  }

  #then = (step) => new Locator(this.page, [...this.steps, step]);
  locator = (css) => this.#then({ by: "css", css });
  getByRole = (role, { name } = {}) => this.#then({ by: "role", role, name });
  getByLabel = (name) => this.#then({ by: "label", name });
  getByText = (text) => this.#then({ by: "text", ...(text instanceof RegExp ? { pattern: text.source } : { text }) });
  filter = ({ hasText, visible }) => this.#then(visible ? { by: "visible" } : { by: "hasText", text: hasText });
  first = () => this.#then({ by: "first" });
}

class Page extends Finder {
  #context;

  constructor(context) {
    super(null, []);
    this.page = this;
    this.#context = context;
  }

  send = (method, command, body) => this.#context.send(method, this.#context.session + command, body);
  file = (file) => this.#context.file(file);

  /** Runs a script in the page and watches the page from then on. */
  run = (script, ...args) =>
    this.send("POST", "/execute/sync", { script: `globalThis.complaints ??= (${watch})(); ${script}`, args });

  evaluate = (run, ...given) => this.run(`return (${run})(...arguments);`, ...given);

  async waitForFunction(run, given) {
    const value = await retried(async () => {
      const value = await this.evaluate(run, given);
      assert.ok(value, `not yet: ${run}`);
      return value;
    });
    return { jsonValue: () => value };
  }

  async goto(url) {
    await this.complain();
    await this.send("POST", "/url", { url: new URL(url, this.#context.baseURL).href });
    await this.#opened();
  }

  async reload() {
    await this.complain();
    await this.evaluate(() => void (globalThis.isOld = true));
    await this.send("POST", "/refresh", {});
    await this.#opened();
  }

  /** Imports the page's modules again: one that failed before the page was watched fails again with the same error. */
  async #opened() {
    await this.waitForFunction(() => !globalThis.isOld && document.readyState === "complete");
    await this.evaluate(() => {
      for (const { src } of document.querySelectorAll("script[type=module]")) {
        import(src).catch((error) => globalThis.complaints.push(`script: ${error}`));
      }
    });
  }

  url = () => this.evaluate(() => document.URL);

  /** Saves the page's errors so far. */
  async complain() {
    this.#context.complaints.push(...(await this.evaluate(collect, this.#context.baseURL)));
  }
}

/** Runs in the page. WebDriver reports no console, so the page itself has to. */
function watch() {
  const complaints = [];
  addEventListener("error", ({ message, target }) => complaints.push(`script: ${message ?? target?.outerHTML}`), true);
  addEventListener("unhandledrejection", ({ reason }) => complaints.push(`script: ${reason?.stack ?? reason}`));
  addEventListener("securitypolicyviolation", (event) => complaints.push(`${event.violatedDirective}: ${event.blockedURI}`));
  const { error } = console;
  console.error = (...words) => {
    complaints.push(`console: ${words.join(" ")}`);
    error(...words);
  };
  return complaints;
}

/** Runs in the page: returns its errors, its failed requests, and those to other hosts. */
function collect(origin) {
  const complaints = globalThis.complaints.splice(0);
  if (!location.href.startsWith(origin)) return complaints;
  for (const { name, responseStatus } of performance.getEntriesByType("resource")) {
    const { origin: other, pathname } = new URL(name);
    if (other !== origin) complaints.push(`request to ${other}`);
    if (responseStatus >= (pathname.startsWith("/api/") || pathname.startsWith("/t/") ? 500 : 400)) complaints.push(`${responseStatus} for ${pathname}`);
  }
  return complaints;
}

class Locator extends Finder {
  /** Runs `run(element, ...given)` in the page once there is such an element; if there are several, with the first. */
  #with(run, ...given) {
    return retried(async () => {
      const script = `const [first] = (${find})(arguments[0]); return first ? [(${run})(first, ...arguments[1])] : [];`;
      const answer = await this.page.run(script, this.steps, given);
      assert.equal(answer.length, 1, `nothing is ${JSON.stringify(this.steps)}`);
      return answer[0];
    });
  }

  count = () => this.page.run(`return (${find})(arguments[0]).length;`, this.steps);
  innerText = () => this.#with((element) => element.innerText);
  inputValue = () => this.#with((element) => element.value);
  getAttribute = (name) => this.#with((element, name) => element.getAttribute(name), name);
  fill = (value) => this.#with(setValue, value);
  selectOption = (value) => this.#with(setValue, value);

  async waitFor({ state = "visible" } = {}) {
    const shown = this.filter({ visible: true });
    await retried(async () => assert.equal((await shown.count()) > 0, state === "visible", `not ${state}: ${JSON.stringify(this.steps)}`));
  }

  /** Clicks with the pointer, so that it fails if something else is in the way. The driver does not scroll. */
  async click() {
    await retried(async () => assert.ok(await this.#with((element) => element.scrollIntoView({ block: "center" }) ?? !element.disabled), `disabled: ${JSON.stringify(this.steps)}`));
    await retried(() => this.#send("POST", "/click", {}));
  }

  setInputFiles = (file) => this.#send("POST", "/value", { text: this.page.file(file) });

  async #send(method, command, body) {
    const { [ELEMENT]: id } = await this.#with((element) => element);
    return this.page.send(method, `/element/${id}${command}`, body);
  }
}

/** Runs in the page: returns the elements that these steps lead to. */
function find(steps) {
  const plain = (text) => text.replace(/\s+/g, " ").trim();
  const isVisible = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  const within = (elements, css) => [...new Set(elements.flatMap((element) => [...element.querySelectorAll(css)]))];
  const says = (element, { text, pattern }) =>
    pattern ? new RegExp(pattern).test(plain(element.textContent)) : plain(element.textContent).toLowerCase().includes(plain(text).toLowerCase());
  const nameOf = (element) => plain(element.getAttribute("aria-label") ?? element.textContent);
  const ROLES = { button: "button", link: "a[href]", dialog: "dialog[open]" };
  const STEPS = {
    css: (found, { css }) => within(found, css),
    role: (found, { role, name }) =>
      within(found, ROLES[role]).filter((element) => isVisible(element) && (name === undefined || nameOf(element) === name)),
    label: (found, { name }) =>
      within(found, "input, select, textarea").filter((field) => [...field.labels].some((label) => plain(label.textContent) === name)),
    text: (found, step) => {
      const all = within(found, "body, body *").filter((element) => says(element, step));
      return all.filter((element) => !all.some((other) => other !== element && element.contains(other)));
    },
    hasText: (found, step) => found.filter((element) => says(element, step)),
    visible: (found) => found.filter(isVisible),
    first: (found) => found.slice(0, 1),
  };
  return steps.reduce((found, step) => STEPS[step.by](found, step), [document]);
}

/** Runs in the page: does what a person who types or chooses does. */
function setValue(field, value) {
  const option = [...(field.options ?? [])].find((option) => option.value === value || option.text === value);
  field.focus();
  field.value = option?.value ?? value;
  for (const type of ["input", "change"]) field.dispatchEvent(new Event(type, { bubbles: true }));
}
