// What the tests of the pages share: the service in a process of its own, a browser that tolerates no error, its camera.
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
/** Long enough for whatever happens at all, on a busy machine. */
export const PATIENCE = 20_000;

// ---- the service

/** A test that runs twice: `run(t, service)`, on a fresh SQLite and on a fresh PostgreSQL. */
export function forBothDatabases(name, run) {
  for (const database of ["sqlite", "postgres"]) {
    test(`${name}, on ${database}`, async (t) => run(t, await service(t, { database })));
  }
}

/** The service with a database of its own, until the test ends. `settings` are further environment variables. */
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
  /** What it has written to its log. */
  log = "";

  constructor(url, environment) {
    this.url = url;
    this.#environment = environment;
  }

  /** Starts it, or starts it again at the same address with the same database. */
  async start() {
    assert.equal(this.#process, null, "it runs already");
    this.#process = spawn(BINARY, [], { env: this.#environment, stdio: ["ignore", "pipe", "pipe"] });
    for (const output of [this.#process.stdout, this.#process.stderr]) {
      output.setEncoding("utf8").on("data", (text) => (this.log += text));
    }
    await eventually(async () => {
      assert.equal(this.#process.exitCode, null, `it ended: ${this.log}`);
      assert.ok((await fetch(`${this.url}/health`)).ok);
    });
  }

  /** Ends it as an operator would. */
  stop() {
    return this.#end("SIGTERM");
  }

  /** Ends it as a power cut would. */
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

  /** Asks the API, as the organizer unless another key is given. A string is sent as CSV. Fails when it refuses. */
  async api(method, path, body, key = this.key) {
    const response = await this.ask(method, path, body, key);
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
    return response.headers.get("content-type")?.includes("json") ? JSON.parse(text) : text;
  }

  /** Registers a person to a ticket that has been issued; gives what the API answers, secrets and all. */
  async register({ seat, gate, event = "default", ...person }) {
    await this.ask("POST", "/api/users", person);
    return this.api("POST", `/api/users/${person.username}/tickets`, { seat, gate, event });
  }

  /** Makes the key of a gate, and gives what enrols a device with it. */
  async enrolment({ name = "North door", role = "gate", event = "default", gate = "North", offline = true, ...rest } = {}) {
    const { key_id } = await this.api("POST", "/api/keys", { name, role, event, gate, offline, ...rest });
    return { key_id, ...(await this.api("POST", `/api/keys/${key_id}/enrol`)) };
  }

  /** What the QR code of such a registration shows, so many seconds from now. */
  code(registration, seconds = 0) {
    const at = new Date(Date.now() + seconds * 1000).toISOString();
    return execFileSync(BINARY, ["code", "--qr", "--at", at], { input: JSON.stringify(registration), encoding: "utf8" }).trim();
  }

  /** Scans a ticket as a gate that knows its code. Whatever the verdict: a `Response`. */
  scan({ event }, code) {
    return this.ask("POST", `/api/events/${event}/scans`, { scan_id: randomUUID(), code });
  }

  /** The rows of a CSV export, as objects. None of the tests' values has quotes in it, or a comma between two. */
  async rows(path) {
    const fields = (line) => line.slice(1, -1).split('","');
    const [head, ...lines] = (await this.api("GET", path)).replace(/^\ufeff/, "").trim().split(/\r?\n/).map(fields);
    return lines.map((values) => Object.fromEntries(head.map((name, column) => [name, values[column]])));
  }

  /** What `api` asks, whatever the answer: a `Response`. */
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

/** An issuer of passes of Google Wallet: the settings of a service, and the key by which its passes are checked. */
export function walletIssuer() {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const account = { client_email: "tickets@example.iam.gserviceaccount.com", private_key: privateKey.export({ type: "pkcs8", format: "pem" }) };
  return { publicKey, settings: { GOOGLE_WALLET_ISSUER_ID: "3388000000022123456", GOOGLE_WALLET_KEY: JSON.stringify(account) } };
}

/** The header of an answer that a test makes up for the service: without it nobody acts on it. */
export const marked = () => ({ "register-ticket-api": String(Date.now()) });

// ---- what stands between

const PORTAL = "<!doctype html><html><head><title>Free Wi-Fi</title></head><body><h1>Accept our terms</h1></body></html>";
const ONE_HOUR = 3_600_000;

/** What a proxy answers by itself, or does to the answers of the service, by name. */
const INTERFERES = {
  "404": (_, response) => response.writeHead(404, { "content-type": "text/plain; charset=utf-8" }).end("404 page not found\n"),
  "502": (_, response) => response.writeHead(502, { "content-type": "text/html", date: wrong() }).end("<h1>502 Bad Gateway</h1>"),
  "200 HTML": (_, response) => response.writeHead(200, { "content-type": "text/html", "cache-control": "max-age=3600" }).end(PORTAL),
  "302": ({ url }, response) => {
    if (url === "/sign-in") return response.writeHead(200, { "content-type": "text/html" }).end(PORTAL);
    return response.writeHead(302, { location: "/sign-in" }).end();
  },
  nothing: () => {}, // It took the request, and is silent.
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

/** What it does to answers that pass all the same. */
const ALTERS = { "an hour's wrong Date": (headers) => ({ ...headers, date: wrong() }) };
const wrong = () => new Date(Date.now() + ONE_HOUR).toUTCString();

/** The ways in which a proxy answers for a service that it does not reach. */
export const AWAY = Object.keys(INTERFERES);

/**
 * A service behind a proxy: `proxy.url` is its address for people. `proxy.does` is null where everything passes, or one of
 * `AWAY`, or "an hour's wrong Date". `proxy.rewrites`, `{from, to, lacks}`, makes the files of a release those of another, of
 * which one is not there yet.
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

/** A database in the cluster that scripts/postgres started, as the tests of the service make theirs. */
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

/** One that nobody listens on, of those that systems give to no connection of a client: it is free until it is used. */
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

/** The texts of a language by their names, with gaps. */
export const rawTexts = (language) => JSON.parse(fs.readFileSync(path.join(ROOT, `src/pages/text/${language}.json`), "utf8"));

/**
 * The texts of the pages in a language, with their values filled in: `texts("en")("gate.role_gate", {…})`. One with a limit of
 * the service is a pattern: which figure it is, a unit test holds.
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

/** Repeats `check` until it throws nothing more, and gives what it gives. */
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

/** How each browser of the tests is started. */
export const LAUNCH = {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    `--use-file-for-fake-video-capture=${cameraFile}`,
  ],
};

/** How each engine is started. Playwright drives a stock Firefox by WebDriver BiDi; it cannot drive a stock WebKit. */
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

/** The browser of this file's tests, with an engine of those above. */
export function browser(engine = "chromium") {
  launched[engine] ??= ENGINES[engine]();
  return launched[engine];
}

after(async () => {
  for (const started of Object.values(launched)) await (await started).close();
  fs.rmSync(path.dirname(cameraFile), { recursive: true });
});

/** A page on a phone: a device of its own, with its own storage. Options are those of Playwright's `newContext`. */
export const phone = (t, service, options) =>
  device(t, service, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true, ...options });

/** A page on a desk. */
export const desktop = (t, service, options) => device(t, service, { viewport: { width: 1280, height: 800 }, ...options });

async function device(t, service, { engine = "chromium", isMobile, ...options }) {
  camera.nothing(); // so that the file is there when the camera is opened
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
    assert.deepEqual(complaints, [], "the pages made no error");
  });
  return context.newPage();
}

/**
 * Collects what no page may do: errors in its console (a violation of its CSP is one), failed scripts, requests to
 * others, and files or answers that are not there. What the API refuses is not an error of the page, nor is what a proxy does.
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

/** What a page shows of a text that is missing: its name. */
const GROUPS = new Set(Object.keys(rawTexts("en")).map((name) => name.split(".")[0]));
const NAME_OF_A_TEXT = new RegExp(`\\b(${[...GROUPS].join("|")})\\.[a-z_]+\\b`, "g");

/** Fails when axe-core finds a violation of WCAG 2.2 AA in what the page shows now, or a text is missing there. */
export async function accessible(page) {
  const shown = await page.evaluate(() => document.body.innerText);
  assert.deepEqual(shown.match(NAME_OF_A_TEXT) ?? [], [], `${page.url()} has all its texts`);
  await page.evaluate(axe);
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
 * What the cameras of all pages see. Chromium reads the file's only frame again and again, so that writing another
 * into it is showing the camera something else.
 */
export const camera = {
  /** Holds a picture (PNG, such as `await locator.screenshot()`) before the camera. */
  async show(png) {
    this.put(await this.frame(png));
  },

  /** What `put` holds before the camera at once. */
  async frame(png) {
    const page = await (await browser()).newPage();
    const luma = await page.evaluate(drawLuma, { picture: png.toString("base64"), width: WIDTH, height: HEIGHT });
    await page.close();
    return Buffer.from(luma, "base64");
  },

  put(frame) {
    writeFrame(frame);
  },

  /** Shows a picture as large as its own, as `picture` in pictures.mjs draws it. */
  sees({ width, height, data }) {
    assert.deepEqual([width, height], [WIDTH, HEIGHT]);
    writeFrame(Buffer.from(data.filter((_, at) => at % 4 === 0)));
  },

  /** Grey, as a hand before the lens. */
  nothing() {
    writeFrame(Buffer.alloc(WIDTH * HEIGHT, 128));
  },
};

function writeFrame(luma) {
  const colour = Buffer.alloc((WIDTH * HEIGHT) / 2, 128);
  const frame = Buffer.concat([Buffer.from(`YUV4MPEG2 W${WIDTH} H${HEIGHT} F10:1 Ip A1:1 C420jpeg\nFRAME\n`), luma, colour]);
  fs.writeFileSync(cameraFile, frame, { flag: fs.existsSync(cameraFile) ? "r+" : "w" }); // never shorter, while it is read
}

/** Runs in a page: the picture in the middle of a grey wall, as brightness, base64. */
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
