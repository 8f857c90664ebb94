// What a gate keeps on its device, in IndexedDB: who it is, the manifest, the scans that the service has not got yet.
//
// Every change is one transaction. A ticket is kept as the service last told it, in a scan's answer or in the manifest.
// What it told may have crossed something newer on its way, so all of it is counted: `tick` grows with every answer and
// with every refresh of the manifest, and a ticket has the tick of its newest news. What was asked for before that may be
// older. Over that come the scans of the queue that let somebody pass, which the service has not got.

import { uuid } from "./admission.js";

const STORES = ["kept", "tickets", "queue"];
const RECENT = 50;
const OF_A_CHUNK = 2000;

/** Waits for a request of IndexedDB. */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** The names by which a scan's ticket is found in the queue: what its QR holds, and what a person types. */
const place = ({ seat, gate }) => JSON.stringify([seat, gate]);
export const names = (ticket) => [...(ticket.ticket_id ? [ticket.ticket_id] : []), ...(ticket.seat ? [place(ticket)] : [])];

const later = (one, other) => (one === null || other === null ? (one ?? other) : Math.max(one, other));

/** A ticket after a scan that let somebody pass. */
export const passed = (ticket, { step, body }) => ({
  ...ticket,
  status: ticket.status === "revoked" ? "revoked" : "used",
  inside: body.direction === "entry",
  last_step: later(ticket.last_step, step),
  used_at: ticket.used_at ?? body.scanned_at,
});

const letPass = ({ body }) => body.offline_result === "accepted";
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class Device {
  #database = null;
  #opening = null;

  /** Opens the storage. Throws where a browser has none. */
  static async open() {
    const device = new Device();
    await device.#open();
    return device;
  }

  #open() {
    this.#opening ??= new Promise((resolve, reject) => {
      const request = indexedDB.open("gate", 1);
      request.onupgradeneeded = () => {
        const { result: database } = request;
        database.createObjectStore("kept");
        database.createObjectStore("tickets", { keyPath: "ticket_id" }).createIndex("place", ["seat", "gate"]);
        const queue = database.createObjectStore("queue", { keyPath: "number", autoIncrement: true });
        queue.createIndex("names", "names", { multiEntry: true });
        queue.createIndex("refusal", "refusal");
      };
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error("another tab holds an older storage"));
      request.onsuccess = () => {
        this.#database = request.result;
        // Phones close the storage of a page that was in the background.
        this.#database.onclose = this.#database.onversionchange = () => this.#closed();
        resolve();
      };
    }).catch((error) => {
      this.#opening = null;
      throw error;
    });
    return this.#opening;
  }

  #closed() {
    this.#database?.close();
    this.#database = this.#opening = null;
  }

  /**
   * Runs `work` in one transaction, which is on the disk when this resolves: a battery may die. `work` gets the stores
   * and may await nothing but them.
   */
  async #transact(mode, work, { durability = mode === "readwrite" ? "strict" : "default", again = true } = {}) {
    if (!this.#database) await this.#open();
    let transaction;
    try {
      transaction = this.#database.transaction(STORES, mode, { durability });
    } catch (error) {
      this.#closed();
      if (!again) throw error;
      return this.#transact(mode, work, { durability, again: false });
    }
    const committed = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error ?? new Error("the storage gave up"));
    });
    committed.catch(() => {});
    try {
      const result = await work(Object.fromEntries(STORES.map((name) => [name, transaction.objectStore(name)])));
      await committed;
      return result;
    } catch (error) {
      if (!transaction.error) abort(transaction);
      throw error;
    }
  }

  /** What a page needs at its start, and after another tab changed something. */
  load() {
    return this.#transact("readonly", async ({ kept, queue }) => {
      const [device, choices, manifest, recent, all, given] = await Promise.all([
        ...["device", "choices", "manifest", "recent"].map((name) => done(kept.get(name))),
        done(queue.count()),
        done(queue.index("refusal").getAll()),
      ]);
      const refused = given.map(({ body, refusal, why }) => ({ scan_id: body.scan_id, detail: refusal, ...why }));
      return { device, choices, manifest, recent: recent ?? [], queued: all - refused.length, refused };
    });
  }

  keepChoices(choices) {
    return this.#transact("readwrite", ({ kept }) => done(kept.put(choices, "choices")));
  }

  /** Becomes this gate, with nothing from the one before but its unsent scans. */
  enrol(device) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      forget(kept, tickets);
      await done(kept.put(device, "device"));
    });
  }

  /** Forgets who it is, as long as it is whoever holds `key`. Unsent scans stay. */
  leave(key) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      if ((await done(kept.get("device")))?.key !== key) return;
      forget(kept, tickets);
    });
  }

  /** Forgets the manifest, and when the event is over those who passed too. */
  erase({ recent = false } = {}) {
    return this.#transact("readwrite", ({ kept, tickets }) => {
      kept.delete("manifest");
      if (recent) kept.delete("recent");
      tickets.clear();
    });
  }

  // ---- scans

  /**
   * What is known now, at this `tick`, about what was shown: the `manifest` when it is whole, the `ticket` in it, and the
   * scans of this ticket that let somebody pass and that the service has not got, `unsent`.
   */
  look(event, shown) {
    return this.#transact("readonly", async ({ kept, tickets, queue }) => {
      const [manifest, ticket, tick] = await Promise.all([done(kept.get("manifest")), found(tickets, shown), now(kept)]);
      const waiting = await unsent(queue, event, ticket ?? shown);
      return { tick, manifest: manifest?.ready ? manifest : null, ticket, unsent: waiting };
    });
  }

  /**
   * Writes down a scan that was decided here, with its verdict. Resolves to false, with nothing written, when the ticket or
   * the manifest is no longer what was `seen`: then it has to be decided again.
   */
  decided(item, verdict, seen) {
    return this.#transact("readwrite", async ({ kept, tickets, queue }) => {
      const [manifest, ticket] = await Promise.all([done(kept.get("manifest")), found(tickets, seen.shown)]);
      if (!manifest?.ready || !same(manifest.event, seen.manifest.event) || !same(ticket, seen.ticket)) return false;
      await done(queue.add(item));
      if (letPass(item)) await done(tickets.put(passed(ticket, item)));
      await remember(kept, verdict);
      return true;
    });
  }

  /**
   * Takes over what the service said of a ticket when it was asked at the tick `asked`; `step` is that of a code that it
   * accepted. Resolves to whether a scan that it has not got let somebody pass with this ticket meanwhile: then nobody
   * else may.
   */
  learn(event, verdict, asked, step) {
    return this.#transact("readwrite", async ({ kept, tickets, queue }) => {
      const between = verdict.ticket ? await unsent(queue, event, verdict.ticket) : [];
      await learn({ kept, tickets, queue }, event, verdict.ticket, asked, step);
      await remember(kept, verdict);
      return between.length > 0;
    });
  }

  /** Adds a verdict to the newest, or replaces that of the same scan. */
  remember(verdict) {
    return this.#transact("readwrite", ({ kept }) => remember(kept, verdict));
  }

  // ---- the queue

  /** The oldest scans that the service has not got, and the `tick`. */
  unsent(event, most) {
    return this.#transact("readonly", async ({ kept, queue }) => {
      const tick = await now(kept);
      const items = [];
      const request = queue.openCursor();
      for (let cursor = await done(request); cursor && items.length < most; cursor = await done(request)) {
        if (cursor.value.event === event && !cursor.value.refusal) items.push(cursor.value);
        cursor.continue();
      }
      return { items, tick };
    });
  }

  /** Takes over what the service answered to some of them. Resolves to the verdicts on who may pass that it does not share. */
  settle(event, answers, asked) {
    return this.#transact("readwrite", async (stores) => {
      const corrected = [];
      const told = new Map();
      const recent = new Map(((await done(stores.kept.get("recent"))) ?? []).map((verdict) => [verdict.scan_id, verdict]));
      for (const [item, answer] of answers) {
        // Another tab may have been faster.
        if (!(await done(stores.queue.get(item.number)))) continue;
        const { scan_id, offline_result } = item.body;
        const refused = answer.result === undefined;
        // Somebody passed, but under this id the service has another verdict: its first try to tell us came too late, or
        // reached it late and was judged as of then. So it gets the scan as a new one, as of the time when it was made.
        const other = refused ? answer.code === "scan_id_conflict" : answer.replayed && answer.result !== "accepted";
        if (other && letPass(item) && !item.again) {
          const body = { ...item.body, scan_id: newId() };
          await done(stores.queue.put({ ...item, body, again: true }));
          if (recent.has(scan_id)) recent.set(scan_id, { ...recent.get(scan_id), scan_id: body.scan_id });
          continue;
        }
        if (refused) {
          const { status, code, detail, errors } = answer;
          await done(stores.queue.put({ ...item, refusal: detail ?? "?", why: { status, code, errors } }));
          continue;
        }
        await done(stores.queue.delete(item.number));
        if (answer.ticket) told.set(answer.ticket.ticket_id, answer.ticket);
        const verdict = { ...answer, offline: false, undecided: false, problem: null, offline_result };
        if (recent.has(scan_id)) recent.set(scan_id, verdict);
        if ((answer.result === "accepted") !== letPass(item)) corrected.push(verdict);
      }
      for (const ticket of told.values()) await learn(stores, event, ticket, asked, null);
      await done(stores.kept.put([...recent.values()], "recent"));
      return corrected;
    });
  }

  /** Takes a scan that the service refused for good off the list. */
  dismiss(scan_id) {
    return this.#transact("readwrite", async ({ queue }) => {
      const item = (await done(queue.getAll())).find((item) => item.refusal && item.body.scan_id === scan_id);
      if (item) await done(queue.delete(item.number));
    });
  }

  /** What the service said of a scan that it took back. */
  undone(event, answer, asked) {
    return this.#transact("readwrite", async (stores) => {
      await learn(stores, event, answer.ticket, asked, null);
      const recent = (await done(stores.kept.get("recent"))) ?? [];
      const { ticket, undone_at } = answer;
      const told = recent.map((verdict) => (verdict.scan_id === answer.scan_id ? { ...verdict, ticket, undone_at } : verdict));
      await done(stores.kept.put(told, "recent"));
    });
  }

  // ---- the manifest

  /** Begins to refresh the manifest: resolves to the one that is kept, or the beginning of one, with a new `tick`. */
  refresh({ anew = false } = {}) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      const tick = await next(kept);
      const manifest = await done(kept.get("manifest"));
      // What a download that broke off left behind may be half of it.
      const begun = anew || !manifest?.as_of ? { ready: false } : manifest;
      if (!begun.as_of) tickets.clear();
      await done(kept.put({ ...begun, tick }, "manifest"));
      return { ...begun, tick };
    });
  }

  /** Puts tickets of a refresh in their place. */
  put(event, tick, fresh) {
    const work = async ({ kept, tickets, queue }) => {
      await stillOf(kept, tick);
      const waiting = (await done(queue.getAll())).filter((item) => item.event === event && letPass(item));
      const before = await Promise.all(fresh.map(({ ticket_id }) => done(tickets.get(ticket_id))));
      fresh.forEach((ticket, index) => tickets.put(over(merged({ ...ticket, tick }, before[index]), waiting)));
    };
    return this.#transact("readwrite", work, { durability: "relaxed" });
  }

  /** Ends a refresh: from now on the manifest is as new as `manifest` says. */
  refreshed(manifest) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      await stillOf(kept, manifest.tick);
      await done(kept.put({ ...manifest, tickets: await done(tickets.count()) }, "manifest"));
    });
  }

  /** The tickets that are kept, some at a time. */
  async *tickets() {
    for (let range = null; ; ) {
      const some = await this.#transact("readonly", ({ tickets }) => done(tickets.getAll(range, OF_A_CHUNK)));
      yield some;
      if (some.length < OF_A_CHUNK) return;
      range = IDBKeyRange.lowerBound(some.at(-1).ticket_id, true);
    }
  }
}

function abort(transaction) {
  try {
    transaction.abort();
  } catch {
    // It has ended already.
  }
}

function forget(kept, tickets) {
  for (const name of ["device", "choices", "manifest", "recent"]) kept.delete(name);
  tickets.clear();
}

const now = async (kept) => (await done(kept.get("tick"))) ?? 0;

async function next(kept) {
  const tick = (await now(kept)) + 1;
  await done(kept.put(tick, "tick"));
  return tick;
}

async function stillOf(kept, tick) {
  const manifest = await done(kept.get("manifest"));
  if (manifest?.tick !== tick) throw new Error("the manifest was erased, or another refresh began");
}

async function found(tickets, { ticket_id, seat, gate }) {
  if (ticket_id) return (await done(tickets.get(ticket_id))) ?? null;
  if (!seat || !gate) return null;
  return (await done(tickets.index("place").get([seat, gate]))) ?? null;
}

async function unsent(queue, event, ticket) {
  const lists = await Promise.all(names(ticket).map((name) => done(queue.index("names").getAll(name))));
  return lists.flat().filter((item) => item.event === event && letPass(item));
}

/** A ticket after the scans of the queue that are its own. */
const over = (ticket, waiting) => {
  const own = ticket.key ? waiting.filter((item) => item.names.includes(ticket.ticket_id)) : [];
  return own.reduce(passed, ticket);
};

/** A ticket as the manifest has it, unless the service told newer while the manifest was on its way. */
function merged(fresh, known) {
  if (!known?.key || known.key !== fresh.key || known.tick < fresh.tick) return fresh;
  const { status, inside, used_at, last_step, tick } = known;
  return { ...fresh, status, inside, used_at, last_step: later(fresh.last_step, last_step), tick };
}

async function learn({ kept, tickets, queue }, event, ticket, asked, step) {
  const known = ticket && (await done(tickets.get(ticket.ticket_id)));
  // Of another gate's ticket no more is kept than where it belongs.
  if (!known?.key) return;
  const { status, inside, used_at } = known.tick > asked ? stricter(known, ticket) : ticket;
  const { username, full_name } = ticket;
  const told = { status, inside, used_at, username, full_name, registered: username !== null };
  const learned = { ...known, ...told, last_step: later(known.last_step, step), tick: await next(kept) };
  await done(tickets.put(over(learned, await unsent(queue, event, learned))));
}

/** Of two states of a ticket, nobody knows which is the newer: the one that lets nobody in whom either would not. */
const stricter = (one, other) => ({
  status: ["revoked", "used", "valid"].find((status) => one.status === status || other.status === status),
  inside: one.inside || other.inside,
  used_at: one.used_at ?? other.used_at,
});

async function remember(kept, verdict) {
  const recent = (await done(kept.get("recent"))) ?? [];
  const others = recent.filter(({ scan_id }) => scan_id !== verdict.scan_id);
  await done(kept.put([verdict, ...others].slice(0, RECENT), "recent"));
}

/** A UUID, version 4: `crypto.randomUUID` wants a secure context. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return uuid(bytes);
}
