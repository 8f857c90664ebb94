// Shared by the tests of the pages: the service in its own process, a browser that tolerates no error, its camera.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { generateKeyPairSync, randomInt, randomUUID } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import { createRequire } from "node:module";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium, firefox } from "playwright-core";
import { WebKit } from "./webkit.mjs";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BINARY = process.env.SERVICE_BINARY ?? path.join(ROOT, "target/debug/register-ticket-api");
const ORGANIZER_KEY = "organizer-key-of-the-page-tests-0001";
/** Long enough for anything that happens at all, even on a busy machine. */
export const PATIENCE = 20_000;

// ---- the service

/** A test that runs twice: `run(t, service)`, with a new SQLite and a new PostgreSQL database. */
export function forBothDatabases(name, run) {
  for (const database of ["sqlite", "postgres"]) {
    test(`${name}, on ${database}`, async (t) => run(t, await service(t, { database })));
  }
}

/** Runs the service with its own database until the test ends. `settings` are further environment variables. */
export async function service(t, { database = "sqlite", settings = {} } = {}) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "pages-"));
  const [place, drop] =
    database === "sqlite" ? [{ DATABASE_URL: `sqlite:${path.join(directory, "tickets.db")}` }, () => {}] : postgres();
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const environment = {
    ...withoutUndefined({ PATH: process.env.PATH, LLVM_PROFILE_FILE: process.env.LLVM_PROFILE_FILE }),
    ...{ HOST: "127.0.0.1", PORT: String(port), PUBLIC_URL: url, ORGANIZER_KEY, DB_TIMEOUT_MS: "30000", ...place, ...settings },
  };
  const started = new Service(url, environment);
  t.after(async () => {
    await started.stop();
    drop();
    fs.rmSync(directory, { recursive: true });
  });
  execFileSync(BINARY, ["migrate"], { env: environment });
  await started.start();
  return started;
}

class Service {
  #environment;
  #process = null;
  key = ORGANIZER_KEY;
  /** Its log so far. */
  log = "";

  constructor(url, environment) {
    this.url = url;
    this.#environment = environment;
  }

  /** Starts it, or restarts it at the same address with the same database. */
  async start() {
    assert.equal(this.#process, null, "it is already running");
    this.#process = spawn(BINARY, [], { env: this.#environment, stdio: ["ignore", "pipe", "pipe"] });
    for (const output of [this.#process.stdout, this.#process.stderr]) {
      output.setEncoding("utf8").on("data", (text) => (this.log += text));
    }
    await eventually(async () => {
      assert.equal(this.#process.exitCode, null, `it ended: ${this.log}`);
      assert.ok((await fetch(`${this.url}/health`)).ok);
    });
  }

  /** Stops it as an operator would. */
  stop() {
    return this.#end("SIGTERM");
  }

  /** Kills it as a power cut would. */
  kill() {
    return this.#end("SIGKILL");
  }

  async #end(signal) {
    if (!this.#process) return;
    const ended = once(this.#process, "exit");
    this.#process.kill(signal);
    await ended;
    this.#process = null;
  }

  /** Calls the API, with the organizer's key unless another is given. A string is sent as CSV. Fails on a refusal. */
  async api(method, path, body, key = this.key) {
    const response = await this.ask(method, path, body, key);
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
    return response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
  }

  /** Registers a person for an issued ticket. Returns the API's answer, including secrets. */
  async register({ seat, gate, event = "default", ...person }) {
    await this.ask("POST", "/api/users", person);
    return this.api("POST", `/api/users/${person.username}/tickets`, { seat, gate, event });
  }

  /** Creates a gate's key and returns its enrolment. */
  async enrolment({ name = "North door", role = "gate", event = "default", gate = "North", offline = true, ...rest } = {}) {
    const { key_id } = await this.api("POST", "/api/keys", { name, role, event, gate, offline, ...rest });
    return { key_id, ...(await this.api("POST", `/api/keys/${key_id}/enrol`)) };
  }

  /** The text of a registration's QR code, `seconds` from now. */
  code(registration, seconds = 0) {
    const at = new Date(Date.now() + seconds * 1000).toISOString();
    return execFileSync(BINARY, ["code", "--qr", "--at", at], { input: JSON.stringify(registration), encoding: "utf8" }).trim();
  }

  /** Scans a ticket as a gate that knows its code. Returns the `Response`, whatever the verdict. */
  scan({ event }, code) {
    return this.ask("POST", `/api/events/${event}/scans`, { scan_id: randomUUID(), code });
  }

  /** The rows of a CSV export as objects. The tests' values contain neither quotes nor commas. */
  async rows(path) {
    const fields = (line) => line.slice(1, -1).split('","');
    const [head, ...lines] = (await this.api("GET", path)).replace(/^\ufeff/, "").trim().split(/\r?\n/).map(fields);
    return lines.map((values) => Object.fromEntries(head.map((name, column) => [name, values[column]])));
  }

  /** Calls the API as `api` does. Returns the `Response`, whatever it is. */
  ask(method, path, body, key = this.key) {
    const headers = { authorization: `Bearer ${key}` };
    if (body !== undefined) headers["content-type"] = typeof body === "string" ? "text/csv" : "application/json";
    return fetch(this.url + path, {
      method,
      headers,
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    });
  }
}

/** A Google Wallet pass issuer: the service's settings, and the key to check its passes. */
export function walletIssuer() {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const account = { client_email: "tickets@example.iam.gserviceaccount.com", private_key: privateKey.export({ type: "pkcs8", format: "pem" }) };
  return { publicKey, settings: { GOOGLE_WALLET_ISSUER_ID: "3388000000022123456", GOOGLE_WALLET_KEY: JSON.stringify(account) } };
}

/** The header that a made-up answer needs: pages ignore answers without it. */
export const marked = () => ({ "register-ticket-api": String(Date.now()) });

// ---- between page and service

const PORTAL = "<!doctype html><html><head><title>Free Wi-Fi</title></head><body><h1>Accept our terms</h1></body></html>";
const ONE_HOUR = 3_600_000;

/** What a proxy answers itself, or does to the service's answers, by name. */
const INTERFERES = {
  "404": (_, response) => response.writeHead(404, { "content-type": "text/plain; charset=utf-8" }).end("404 page not found\n"),
  "502": (_, response) => response.writeHead(502, { "content-type": "text/html", date: wrong() }).end("<h1>502 Bad Gateway</h1>"),
  "200 HTML": (_, response) => response.writeHead(200, { "content-type": "text/html", "cache-control": "max-age=3600" }).end(PORTAL),
  "302": ({ url }, response) => {
    if (url === "/sign-in") return response.writeHead(200, { "content-type": "text/html" }).end(PORTAL);
    return response.writeHead(302, { location: "/sign-in" }).end();
  },
  nothing: () => {}, // It accepts the request and never answers.
  "a reset": (request) => request.socket.destroy(),
  "half a body, broken off": (_, response, answer, body) => {
    response.writeHead(answer.statusCode, answer.headers);
    response.write(body.subarray(0, body.length / 2), () => response.destroy());
  },
  "half a body, as if it were whole": (_, response, answer, body) => {
    const half = body.subarray(0, body.length / 2);
    response.writeHead(answer.statusCode, { ...answer.headers, "content-length": half.length }).end(half);
  },
};

/** Changes to answers that pass. */
const ALTERS = { "an hour's wrong Date": (headers) => ({ ...headers, date: wrong() }) };
const wrong = () => new Date(Date.now() + ONE_HOUR).toUTCString();

/** The ways in which a proxy answers for a service that it cannot reach. */
export const AWAY = Object.keys(INTERFERES);

/**
 * A service behind a proxy: `proxy.url` is its public address. `proxy.does` is null if everything passes, or one of `AWAY`, or
 * "an hour's wrong Date". `proxy.rewrites`, `{from, to, lacks}`, turns a release's files into another's, of which one is still
 * missing.
 */
export async function behindProxy(t, options = {}) {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const tickets = await service(t, { ...options, settings: { PUBLIC_URL: url, ...options.settings } });
  const proxy = { url, does: null, rewrites: null, asked: [] };
  const server = http.createServer((request, response) => forward(tickets.url, proxy, request, response));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { tickets, proxy };
}

async function forward(to, proxy, request, response) {
  proxy.asked.push(`${request.method} ${request.url}`);
  const interferes = INTERFERES[proxy.does];
  if (interferes && interferes.length < 4) return interferes(request, response);
  const { from, to: release, lacks } = proxy.rewrites ?? {};
  if (lacks && request.url.includes(release) && request.url.endsWith(lacks)) return INTERFERES["404"](request, response);
  const headers = { ...request.headers, "accept-encoding": "identity" };
  const passed = http.request(new URL(request.url.replace(release ?? "", from ?? ""), to), { method: request.method, headers });
  passed.on("error", () => response.destroy());
  request.pipe(passed);
  const [answer] = await once(passed, "response").catch(() => []);
  if (!answer) return undefined;
  if (interferes) return interferes(request, response, answer, Buffer.concat(await answer.toArray()));
  response.writeHead(answer.statusCode, ALTERS[proxy.does]?.(answer.headers) ?? answer.headers);
  if (!release || !answer.headers["content-type"]?.startsWith("text/html")) return answer.pipe(response);
  return response.end(Buffer.concat(await answer.toArray()).toString().replaceAll(from, release));
}

/** A database in the cluster that scripts/postgres started, created as in the service's tests. */
function postgres() {
  const { TEST_DATABASE_URL: url, TEST_SERVICE_USER: user, TEST_SERVICE_PASSWORD: password } = process.env;
  assert.ok(url && user && password, 'run ./scripts/test --pages, or first eval "$(scripts/postgres start DIRECTORY)"');
  const name = `test_pages_${process.pid}_${(databases += 1)}`;
  const owner = new URL(url);
  const sql = (statement) => {
    const command = '${TEST_PSQL:-psql} -Xq "$TEST_DATABASE_URL" -c "$1"';
    execFileSync("sh", ["-c", command, "sh", statement], { env: process.env });
  };
  sql(`create database ${name}`);
  const place = {
    DATABASE_URL: `postgres://${user}:${password}@${owner.host}/${name}`,
    DB_MIGRATE_USER: owner.username,
    DB_MIGRATE_PASSWORD: owner.password,
  };
  return [place, () => sql(`drop database ${name} with (force)`)];
}
let databases = 0;

/** A free port outside the range that systems assign to clients, so that it stays free until used. */
async function freePort() {
  for (;;) {
    const port = 20_000 + randomInt(12_000);
    const server = net.createServer().listen(port, "127.0.0.1");
    const [outcome] = await Promise.race([once(server, "listening"), once(server, "error")]).catch((error) => [error]);
    if (outcome) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

const withoutUndefined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value));

/** The languages of the pages, such as `en`. */
export const LANGUAGES = fs.readdirSync(path.join(ROOT, "src/pages/text")).map((file) => path.basename(file, ".json"));

/** A language's texts by name, with placeholders. */
export const rawTexts = (language) => JSON.parse(fs.readFileSync(path.join(ROOT, `src/pages/text/${language}.json`), "utf8"));

/**
 * A language's texts with their values filled in: `texts("en")("gate.role_gate", {…})`. A text with a limit of the service
 * becomes a pattern: a unit test checks the figure.
 */
export function texts(language) {
  const known = rawTexts(language);
  return (name, values = {}) => {
    assert.ok(name in known, `there is no text ${name}`);
    const filled = known[name].replace(/\{(\w+)\}/g, (whole, value) => values[value] ?? whole);
    if (!filled.includes("{limit.")) return filled;
    const plain = filled.split(/\{limit\.\w+\}/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    return new RegExp(plain.join("\\d+"));
  };
}

// ---- waiting

/** Repeats `check` until it stops throwing, and returns its result. */
export async function eventually(check, patience = PATIENCE) {
  for (const end = Date.now() + patience; ; ) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

// ---- the browser

const cameraFile = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "camera-")), "camera.y4m");

/** How to start each browser of the tests. */
export const LAUNCH = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium-headless-shell",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // The last switch of this name counts, so this one repeats Playwright's. In a private context, which a test's device is, Chromium
    // stores IndexedDB in LevelDB by default, which takes several times as long there as SQLite does, or LevelDB on a disk.
    "--enable-features=CDPScreenshotNewSurface,IdbSqliteBackingStoreInMemoryContexts",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-video-capture=${cameraFile}`,
  ],
};

/** How to start each engine. Playwright drives a stock Firefox with WebDriver BiDi; it cannot drive a stock WebKit. */
const ENGINES = {
  chromium: () => chromium.launch(LAUNCH),
  firefox: () =>
    firefox.launch({
      channel: "moz-firefox",
      executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr",
      firefoxUserPrefs: { "ui.prefersReducedMotion": 1 },
    }),
  webkit: () => WebKit.launch(),
};
const launched = {};

/** The browser of this file's tests, with one of these engines. */
export function browser(engine = "chromium") {
  launched[engine] ??= ENGINES[engine]();
  return launched[engine];
}

after(async () => {
  // A browser that did not start has failed its tests. The others must end all the same, or this process does not.
  await Promise.allSettled(Object.values(launched).map(async (started) => (await started).close()));
  fs.rmSync(path.dirname(cameraFile), { recursive: true });
});

/** A page on a phone: a device of its own, with its own storage. Takes the options of Playwright's `newContext`. */
export const phone = (t, service, options) =>
  device(t, service, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, ...options });

/** A page on a desktop. */
export const desktop = (t, service, options) => device(t, service, { viewport: { width: 1280, height: 800 }, ...options });

async function device(t, service, { engine = "chromium", isMobile, ...options }) {
  camera.nothing(); // so that the file exists when the camera is opened
  const started = await browser(engine);
  const context = await started.newContext({
    baseURL: service.url,
    locale: "en-GB",
    timezoneId: "Europe/Madrid",
    ...(engine === "chromium" && { isMobile, reducedMotion: "reduce", permissions: ["camera"] }), // the others do not know these
    ...options,
  });
  context.setDefaultTimeout(PATIENCE);
  const complaints = context.complaints ?? watch(context, service);
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, [], "the pages caused no errors");
  });
  return context.newPage();
}

/**
 * Collects what no page may do: console errors (such as a CSP violation), failed scripts, requests to other hosts, and missing
 * files or answers. The API's refusals are no errors of the page, and neither is anything a proxy does.
 */
function watch(context, place) {
  const origin = place.url;
  const complaints = [];
  context.on("console", (message) => {
    const network = message.text().startsWith("Failed to load resource"); // judged below, by its answer
    if (message.type() === "error" && !network) complaints.push(`console: ${message.text()}`);
  });
  context.on("weberror", (error) => complaints.push(`script: ${error.error().stack ?? error.error()}`));
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith("http") && url.origin !== origin) complaints.push(`request to ${url.origin}`);
  });
  context.on("response", (response) => {
    const { pathname } = new URL(response.url());
    const refusal = pathname.startsWith("/api/") || pathname.startsWith("/t/") ? 500 : 400;
    const byProxy = place.asked && !("register-ticket-api" in response.headers());
    if (response.status() >= refusal && !byProxy) complaints.push(`${response.status()} for ${pathname}`);
  });
  return complaints;
}

// ---- accessibility

const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** The prefixes of text names: a missing text is shown as its name. */
const GROUPS = new Set(Object.keys(rawTexts("en")).map((name) => name.split(".")[0]));
const NAME_OF_A_TEXT = new RegExp(`\\b(${[...GROUPS].join("|")})\\.[a-z_]+\\b`, "g");

/** Fails if axe-core finds a violation of WCAG 2.2 AA on the page as shown, or a text is missing. */
export async function accessible(page) {
  const shown = await page.evaluate(() => document.body.innerText);
  assert.deepEqual(shown.match(NAME_OF_A_TEXT) ?? [], [], `${page.url()} has all its texts`);
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
  const violations = await page.evaluate(async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
    const { violations } = await globalThis.axe.run(document, { runOnly: tags, preload: false });
    return violations.flatMap(({ id, help, nodes }) =>
      nodes.map((node) => `${id} (${help}) at ${node.target}: ${node.failureSummary.replaceAll("\n", " ")}`),
    );
  });
  assert.deepEqual(violations, [], `${page.url()} is accessible`);
}

// ---- the camera

const [WIDTH, HEIGHT] = [640, 480];
/**
 * Frames per second, as a fraction and equally long, so that the frame stays at its place in the file. A gate searches every frame for
 * codes, so cameras are slow except in tests that need many frames.
 */
const [SLOW, FULL] = ["10:4", "10:1"];
let rate = SLOW;

/**
 * What all pages' cameras see. Chromium reads the file's only frame again and again, so writing another frame into it changes
 * the picture.
 */
export const camera = {
  /** Holds a picture (PNG, such as `await locator.screenshot()`) in front of the camera. */
  async show(png) {
    this.put(await this.frame(png));
  },

  /** The frame for a picture, which `put` shows at once. */
  async frame(png) {
    const page = await (await browser()).newPage();
    const luma = await page.evaluate(drawLuma, { picture: png.toString("base64"), width: WIDTH, height: HEIGHT });
    await page.close();
    return Buffer.from(luma, "base64");
  },

  put(frame) {
    writeFrame(frame);
  },

  /** Shows a picture at its own size, as `picture` in pictures.mjs draws it. */
  sees({ width, height, data }) {
    assert.deepEqual([width, height], [WIDTH, HEIGHT]);
    writeFrame(Buffer.from(data.filter((_, at) => at % 4 === 0)));
  },

  /** Cameras that this test opens from now on give ten frames per second. */
  atFullSpeed(t) {
    rate = FULL;
    t.after(() => (rate = SLOW));
  },

  /** Grey, like a hand in front of the lens. */
  nothing() {
    writeFrame(Buffer.alloc(WIDTH * HEIGHT, 128));
  },
};

function writeFrame(luma) {
  const colour = Buffer.alloc((WIDTH * HEIGHT) / 2, 128);
  const frame = Buffer.concat([Buffer.from(`YUV4MPEG2 W${WIDTH} H${HEIGHT} F${rate} Ip A1:1 C420jpeg\nFRAME\n`), luma, colour]);
  fs.writeFileSync(cameraFile, frame, { flag: fs.existsSync(cameraFile) ? "r+" : "w" }); // never truncated while it is read
}

/** Runs in a page: returns the picture centred on a grey wall, as brightness in base64. */
async function drawLuma({ picture, width, height }) {
  const image = new Image();
  image.src = `data:image/png;base64,${picture}`;
  await image.decode();
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  context.fillStyle = "#888";
  context.fillRect(0, 0, width, height);
  const scale = (Math.min(width, height) * 0.8) / Math.max(image.width, image.height);
  const size = [image.width * scale, image.height * scale];
  context.translate(width / 2, height / 2);
  context.rotate(0.05); // nobody holds a phone straight
  context.drawImage(image, -size[0] / 2, -size[1] / 2, ...size);
  const { data } = context.getImageData(0, 0, width, height);
  let luma = "";
  for (let i = 0; i < data.length; i += 4) {
    luma += String.fromCharCode(0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]);
  }
  return btoa(luma);
}
