// What a gate stores on its device, in IndexedDB: its identity, the manifest, and the scans that the service does not have yet.
//
// Every change is one transaction. A ticket is stored as the service last described it, in a scan's answer or in the manifest.
// Answers may overtake each other, so they are numbered: `tick` grows with every answer and every refresh of the manifest, and
// each ticket has the tick of its latest news. The answer to an earlier request may be older. The admissions in the queue, which
// the service does not have yet, are applied on top.
//
// Names, keys and codes are sealed (seal.js). A transaction cannot wait for decryption, so the fields that transactions need
// (ids, seats, gates, states, times) stay in clear, and the rest of a record is in `sealed`. There are two ciphers: `list` seals
// everything about tickets and people, and is deleted when that data must go; `own` seals this device's keys and its scans until
// they are sent.

import { bytesOf, uuid, written } from "./admission.js";
import { place, samePlace, words } from "../shared/fold.js";
import { folded } from "./readings.js";
import { canSeal, fingerprint, newCipher, newPseudonyms, nonceOf, pseudonym, seal, unseal } from "./seal.js";

const NAME = "gate";
const STORES = ["kept", "tickets", "queue", "keys"];
const RECENT = 50;
/** Tickets read at once when going through the whole list, */
const CHUNK = 1000;
/** and when their sealed part is opened as well. */
const OPENED = 200;
/** The fields in clear, of a ticket and of a scan. */
const STATE = ["ticket_id", "seat", "gate", "read", "status", "registered", "inside", "printed", "last_step", "used_at", "entered_at", "walk_up", "paid", "tick", "mark", "holder"];
const SCAN = ["scan_id", "direction", "scanned_at", "offline_result", "vouched_by"];
/** What a transaction resolves to when it must be run again. */
const AGAIN = Symbol("again");

/** Waits for an IndexedDB request. */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** A seat and gate, normalized the way people read them. */
const read = ({ seat, gate }) => JSON.stringify([place(seat), place(gate)]);

/**
 * The names by which the queue finds a scan's ticket: its id from the QR code, and the typed seat and gate, also in the form of
 * 0.1.0.
 */
export const names = (ticket) => {
  const { ticket_id, seat, gate } = ticket;
  const places = seat ? [JSON.stringify([seat, gate]), read(ticket)] : [];
  return [...new Set([...(ticket_id ? [ticket_id] : []), ...places])];
};

const later = (one, other) => (one === null || other === null ? (one ?? other) : Math.max(one, other));

/** A ticket after a scan that let somebody pass. */
export const passed = (ticket, { step, body }) => ({
  ...ticket,
  status: ticket.status === "revoked" ? "revoked" : "used",
  inside: body.direction === "entry",
  last_step: later(ticket.last_step, step),
  used_at: ticket.used_at ?? body.scanned_at,
  entered_at: body.direction === "entry" ? body.scanned_at : ticket.entered_at,
});

/** Whether a ticket is this gate's: of others, only the right gate is known. */
export const isOwn = (ticket) => ticket?.status !== undefined;

/** Splits a record into the fields with these names and the rest. */
function split(record, names) {
  const clear = {};
  const rest = {};
  for (const [name, value] of Object.entries(record)) (names.includes(name) ? clear : rest)[name] = value;
  return [clear, rest];
}

const letPass = ({ body }) => body.offline_result === "accepted";
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export class Device {
  #database = null;
  #opening = null;
  /** The verdicts unsealed last, by nonce. */
  #opened = new Map();

  /**
   * Opens the storage. Throws where the browser has none or cannot seal: nothing is stored then, and the clear data of an older
   * page is deleted. It contains no scans, because without ciphers that page could not decide either.
   */
  static async open() {
    if (!canSeal()) {
      indexedDB.deleteDatabase(NAME);
      throw new Error("this browser seals nothing here");
    }
    const device = new Device();
    await device.#open();
    await device.#sealOld();
    return device;
  }

  #open() {
    this.#opening ??= new Promise((resolve, reject) => {
      const request = indexedDB.open(NAME, 2);
      request.onupgradeneeded = ({ oldVersion }) => upgrade(request, oldVersion);
      request.onerror = () => reject(request.error);
      request.onblocked = () => reject(new Error("another tab holds an older storage"));
      request.onsuccess = () => {
        this.#database = request.result;
        // Phones close the storage of a page in the background.
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
   * Runs `work` in one transaction and resolves once it is on disk, because a battery may die. `work` gets the stores and may
   * await nothing else.
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

  // ---- sealing

  /** Returns the stored cipher, or whatever key `make` generates, of this name; creates it if there is none. */
  async #cipher(name, make = newCipher) {
    const known = await this.#transact("readonly", ({ kept }) => done(kept.get(name)));
    if (known) return known;
    const fresh = { id: newId(), cipher: await make() };
    return this.#transact("readwrite", async ({ kept }) => {
      const others = await done(kept.get(name));
      if (!others) await done(kept.put(fresh, name));
      return others ?? fresh;
    });
  }

  /**
   * Seals each of `parts` (`[name of the cipher, value]` or null) and runs `work` with the stores and the sealed parts. Starts
   * over if a cipher was deleted meanwhile, with everything it had sealed, or if `work` asks for it.
   */
  async #sealing(parts, work, options) {
    for (;;) {
      const names = [...new Set(parts.flatMap((part) => part?.[0] ?? []))];
      const ciphers = new Map(await Promise.all(names.map(async (name) => [name, await this.#cipher(name)])));
      const sealed = await Promise.all(parts.map((part) => part && seal(ciphers.get(part[0]).cipher, part[1])));
      const result = await this.#transact("readwrite", async (stores) => {
        for (const [name, { id }] of ciphers) if ((await done(stores.kept.get(name)))?.id !== id) return AGAIN;
        return work(stores, sealed);
      }, options);
      if (result !== AGAIN) return result;
    }
  }

  /** Returns a record with its sealed part opened. */
  async #whole(name, { sealed, ...clear }) {
    return sealed ? { ...clear, ...(await unseal((await this.#cipher(name)).cipher, sealed)) } : clear;
  }

  /** Returns a queued scan in its original form. */
  async #wholeScan({ sealed, ...item }) {
    return { ...item, body: { ...item.body, ...(await this.#whole("own", { sealed })) } };
  }

  /** Returns the newest verdicts. Most were opened the last time. */
  async #verdicts(entries) {
    const opened = new Map();
    for (const { sealed } of entries) {
      const nonce = nonceOf(sealed);
      opened.set(nonce, this.#opened.get(nonce) ?? (await this.#whole("list", { sealed })));
    }
    this.#opened = opened;
    return entries.map(({ scan_id, sealed }) => ({ ...opened.get(nonceOf(sealed)), scan_id }));
  }

  /**
   * Seals what release 0.1.0 stored in clear: this device's identity and its unsent scans. Its list was deleted by the upgrade
   * and is downloaded again. Scans of a gate that this device was before have no key any more.
   */
  async #sealOld() {
    const clear = await this.#transact("readonly", async ({ kept, queue }) => {
      const [device, items] = await Promise.all([done(kept.get("device")), done(queue.getAll())]);
      return { device: device?.key ? device : null, items: items.filter(({ sealed }) => !sealed) };
    });
    if (!clear.device && clear.items.length === 0) return;
    const { key, ...device } = clear.device ?? {};
    const scans = clear.items.map((item) => [item, split(item.body, SCAN)]);
    const parts = [["own", { key }], ...scans.map(([, [, rest]]) => ["own", rest])];
    await this.#sealing(parts, async (stores, [sealed, ...bodies]) => {
      if (key && (await done(stores.kept.get("device")))?.key === key) await beGate(stores, { ...device, enrolment: newId() }, sealed);
      for (const [index, [item, [body]]] of scans.entries()) {
        const old = await done(stores.queue.get(item.number));
        if (!old || old.sealed) continue;
        const key_id = key && item.event === (device.event ?? "default") ? device.key_id : `${item.event}, 0.1.0`;
        if (key_id !== device.key_id) await done(stores.keys.put({ key_id, event: item.event }));
        await done(stores.queue.put({ ...old, key_id, body, sealed: bodies[index] }));
      }
    });
  }

  // ---- identity

  /**
   * Returns what a page needs at its start and after another tab changed something. `own` is this device's key, if it is a gate;
   * `seen` the latest time known to have passed; `erased` why the list was erased, if it was; `differing` the seats and gates of
   * tickets whose state differed between the service and this device.
   */
  async load() {
    const read = await this.#transact("readonly", async ({ kept, queue, keys }) => {
      const names = ["device", "choices", "manifest", "recent", "seen", "erased", "differing"];
      const [given, all, ...values] = await Promise.all([
        ...[done(queue.index("refusal").getAll()), done(keys.getAll())],
        ...names.map((name) => done(kept.get(name))),
      ]);
      for (const key of all) key.unsent = await countUnsent(queue, key.key_id);
      return { ...Object.fromEntries(names.map((name, index) => [name, values[index]])), given, all };
    });
    const { device, choices, manifest, recent, seen, erased, differing = [], given, all } = read;
    const mine = all.find(({ key_id }) => key_id === device?.key_id);
    const isStranded = ({ sealed, ended }) => ended || !sealed;
    return {
      ...{ device, choices, manifest, seen, erased, differing },
      // A key that cannot be opened is as good as gone.
      own: mine?.sealed ? await this.#whole("own", mine).catch(() => null) : null,
      recent: await this.#verdicts(recent ?? []),
      waiting: all.filter((key) => !isStranded(key) && key.unsent > 0),
      stranded: all.filter((key) => isStranded(key) && key.unsent > 0),
      refused: given.map(({ body, refusal, why }) => ({ scan_id: body.scan_id, detail: refusal, ...why })),
    };
  }

  keepChoices(choices) {
    return this.#transact("readwrite", ({ kept }) => done(kept.put(choices, "choices")));
  }

  /** Becomes this gate, keeping from the one before only its unsent scans and the key that sends them. */
  enrol(device, key) {
    return this.#sealing([["own", { key }]], async (stores, [sealed]) => {
      forget(stores);
      await beGate(stores, device, sealed);
      await prune(stores);
    });
  }

  /**
   * Ends an enrolment: forgets the device's identity, if it is still this one, and the key, unless it has scans to send. A `dead`
   * key gives no access any more, but still proves whose scans these are until the service has them.
   */
  end({ key_id, enrolment }, dead) {
    return this.#transact("readwrite", async (stores) => {
      const [device, key] = await Promise.all([done(stores.kept.get("device")), done(stores.keys.get(key_id))]);
      if (dead && key?.enrolment === enrolment) await done(stores.keys.put({ ...key, ended: true }));
      if (device?.enrolment === enrolment) forget(stores);
      await prune(stores);
    });
  }

  /** Stores which database knows a key. */
  knows({ key_id, enrolment, database }) {
    return this.#transact("readwrite", async ({ keys }) => {
      const key = await done(keys.get(key_id));
      if (key?.enrolment === enrolment) await done(keys.put({ ...key, database }));
    }, { durability: "relaxed" });
  }

  /** Deletes the list and the verdicts, together with the cipher that could open what is left on the disk. */
  erase(why) {
    return this.#transact("readwrite", ({ kept, tickets }) => {
      eraseList(kept, tickets);
      if (why) kept.put(why, "erased");
    });
  }

  /** Stores the latest time known to have passed. */
  saw(time) {
    return this.#transact("readwrite", ({ kept }) => done(kept.put(time, "seen")), { durability: "relaxed" });
  }

  // ---- scans

  /**
   * Returns what is known, at this `tick`, about the ticket shown: the `manifest` if it is complete, its `ticket`, and `unsent`,
   * the admissions of this ticket that the service does not have yet; `seen` is for `decided`.
   */
  async look(event, shown) {
    const { ticket, ...known } = await this.#transact("readonly", async ({ kept, tickets, queue }) => {
      const [manifest, ticket, tick] = await Promise.all([done(kept.get("manifest")), found(tickets, shown), now(kept)]);
      const waiting = await unsent(queue, event, ticket ?? shown);
      return { tick, manifest: manifest?.ready ? manifest : null, ticket, unsent: waiting };
    });
    const seen = { shown, ticket, event: known.manifest?.event };
    return { ...known, seen, ticket: ticket && (await this.#whole("list", ticket)) };
  }

  /** Returns the other tickets of the same holder and gate, in any state. */
  async company({ ticket_id, holder, gate }) {
    if (!holder) return [];
    const held = await this.#transact("readonly", ({ tickets }) => done(tickets.index("holder").getAll(holder)));
    const others = held.filter((ticket) => ticket.ticket_id !== ticket_id && samePlace(ticket.gate, gate));
    return Promise.all(others.map((ticket) => this.#whole("list", ticket)));
  }

  /**
   * Writes a scan that was decided here, with its verdict. Resolves to false, without writing, if the ticket or the manifest is
   * no longer as `seen`: the scan must then be decided again.
   */
  decided(item, verdict, seen) {
    const [body, rest] = split(item.body, SCAN);
    return this.#sealing([["own", rest], ["list", verdict]], async ({ kept, tickets, queue }, [sealed, told]) => {
      const [manifest, ticket] = await Promise.all([done(kept.get("manifest")), found(tickets, seen.shown)]);
      if (!manifest?.ready || !same(manifest.event, seen.event) || !same(ticket, seen.ticket)) return false;
      await done(queue.add({ ...item, body, sealed }));
      if (letPass(item) && ticket) await write({ kept, tickets }, [[ticket, passed(ticket, item)]]);
      await remember(kept, verdict, told);
      return true;
    });
  }

  /**
   * Applies the service's answer about a ticket to a request made at tick `asked`; `step` is that of an accepted code. Resolves
   * to whether an unsent scan let somebody pass with this ticket meanwhile: then nobody else may.
   */
  learn(event, verdict, asked, step) {
    return this.#sealing([["list", verdict]], async (stores, [sealed]) => {
      const between = verdict.ticket ? await unsent(stores.queue, event, verdict.ticket) : [];
      await learn(stores, event, verdict, asked, step);
      await remember(stores.kept, verdict, sealed);
      return between.length > 0;
    });
  }

  /**
   * Returns all tickets of the list whose holder has a name, opened, each with the `line` of words to search. This takes a while,
   * so it yields after each chunk, and the caller holds the result only while somebody searches.
   */
  async guests() {
    const guests = [];
    for (let range = null, some = []; range === null || some.length === OPENED; ) {
      some = await this.#transact("readonly", ({ tickets }) => done(tickets.getAll(range, OPENED)));
      if (some.length === 0) break;
      range = IDBKeyRange.lowerBound(some.at(-1).ticket_id, true);
      const opened = await Promise.all(some.filter(isOwn).map((ticket) => this.#whole("list", ticket)));
      guests.push(...opened.filter(({ username }) => username).map(asGuest));
      await new Promise((resolve) => setTimeout(resolve));
    }
    return guests;
  }

  /** Adds a verdict to the newest, or replaces the one of the same scan. */
  remember(verdict) {
    return this.#sealing([["list", verdict]], ({ kept }, [sealed]) => remember(kept, verdict, sealed));
  }

  /**
   * Returns the QR texts of the tickets in the list that match codes which lost all their shifts. Goes through all ids: used only
   * for a scanner configured that badly.
   */
  async spellings(loose) {
    const parts = loose.map((code) => code.split("."));
    const ids = await this.#transact("readonly", ({ tickets }) => done(tickets.getAllKeys()));
    return ids.map(written).flatMap((one) => {
      const name = folded(one);
      return parts.filter(([, id]) => id === name).map(([form, , rest]) => `${form.toUpperCase()}.${one}.${rest}`);
    });
  }

  // ---- the queue

  /** Returns the keys with scans to send, with their secrets: this device's first, ended ones last. */
  async senders() {
    const waiting = await this.#transact("readonly", async ({ kept, queue, keys }) => {
      const [device, all] = await Promise.all([done(kept.get("device")), done(keys.getAll())]);
      const counted = await Promise.all(all.map(async (key) => [key, await countUnsent(queue, key.key_id)]));
      const some = counted.filter(([{ sealed }, unsent]) => sealed && unsent > 0).map(([key]) => key);
      const place = ({ key_id, ended }) => (ended ? 2 : Number(key_id !== device?.key_id));
      return some.sort((one, other) => place(one) - place(other));
    });
    return Promise.all(waiting.map((key) => this.#whole("own", key)));
  }

  /** Returns a stored key, with its secret if known. */
  async key(key_id) {
    const key = await this.#transact("readonly", ({ keys }) => done(keys.get(key_id)));
    return key && this.#whole("own", key);
  }

  /** Returns the oldest scans of a key that the service does not have, how many had a `wrong` code, and the `tick`. */
  async unsent(key_id, most) {
    const { waiting, tick } = await this.#transact("readonly", async ({ kept, queue }) =>
      ({ waiting: await unsentOf(queue, key_id, most.most), tick: await now(kept) }));
    const items = [];
    let wrong = 0;
    for (const item of waiting) {
      if (wrong === most.wrong) break;
      items.push(item);
      wrong += Number(/(wrong|stale)_code/.test(item.body.offline_result));
    }
    return { items: await Promise.all(items.map((item) => this.#wholeScan(item))), wrong, tick };
  }

  /** Deletes unsent scans once a person has them elsewhere. */
  discard(numbers) {
    return this.#transact("readwrite", async (stores) => {
      for (const number of numbers) await done(stores.queue.delete(number));
      await prune(stores);
    });
  }

  /** Applies the service's answers to some scans. Resolves to its verdicts that disagree on who may pass. */
  async settle(event, answers, asked) {
    const shown = (await this.#transact("readonly", ({ kept }) => done(kept.get("recent")))) ?? [];
    const verdicts = answers.flatMap(([item, answer]) => (answer.result === undefined ? [] : [verdictOn(item, answer)]));
    const kept = verdicts.filter((verdict) => shown.some(({ scan_id }) => scan_id === verdict.scan_id));
    return this.#sealing(kept.map((verdict) => ["list", verdict]), async (stores, sealed) => {
      const fresh = new Map(kept.map(({ scan_id }, index) => [scan_id, sealed[index]]));
      const recent = (await done(stores.kept.get("recent"))) ?? [];
      const corrected = [];
      const told = new Map();
      const renamed = new Map();
      for (const [item, answer] of answers) {
        const queued = await done(stores.queue.get(item.number));
        // Another tab was faster.
        if (!queued) continue;
        const shown = recent.find(({ scan_id }) => scan_id === item.body.scan_id);
        const refused = answer.result === undefined;
        // Somebody passed, but the service has another verdict under this id: an earlier request reached it late and was judged
        // at that time, or our wait for its answer ended too early. So it gets the scan again under a new id, with the time it
        // was made. A scan undone since is no such case and stays undone.
        const other = refused
          ? answer.code === "scan_id_conflict"
          : answer.replayed && answer.result !== "accepted" && answer.result !== "undone";
        if (other && letPass(item) && !item.again) {
          const body = { ...queued.body, scan_id: newId() };
          renamed.set(queued.body.scan_id, body.scan_id);
          await done(stores.queue.put({ ...queued, body, again: true }));
          if (shown) shown.scan_id = body.scan_id;
          continue;
        }
        if (refused) {
          const { status, code, detail, errors } = answer;
          await done(stores.queue.put({ ...queued, refusal: detail ?? "?", why: { status, code, errors } }));
          continue;
        }
        await done(stores.queue.delete(item.number));
        if (answer.ticket && saidBy(answer)) told.set(answer.ticket.ticket_id, answer);
        if (shown) shown.sealed = fresh.get(shown.scan_id) ?? shown.sealed;
        if ((answer.result === "accepted") !== letPass(item)) corrected.push(verdictOn(item, answer));
      }
      for (const answer of told.values()) await learn(stores, event, answer, asked, null);
      if (renamed.size > 0) await renameVouchers(stores.queue, renamed);
      if (recent.length > 0) await done(stores.kept.put(recent, "recent"));
      await prune(stores);
      return corrected;
    });
  }

  /** Removes a scan that the service refused for good. */
  dismiss(scan_id) {
    return this.#transact("readwrite", async (stores) => {
      const item = (await done(stores.queue.getAll())).find((item) => item.refusal && item.body.scan_id === scan_id);
      if (item) await done(stores.queue.delete(item.number));
      await prune(stores);
    });
  }

  /** Applies the service's answer to an undo. */
  async undone(event, answer, asked) {
    const known = (await this.load()).recent.filter(({ scan_id }) => scan_id === answer.scan_id);
    const told = known.map((verdict) => ["list", { ...verdict, ticket: answer.ticket, undone_at: answer.undone_at }]);
    return this.#sealing(told, async (stores, [sealed]) => {
      await learn(stores, event, answer, asked, null);
      const recent = (await done(stores.kept.get("recent"))) ?? [];
      const taken = recent.find(({ scan_id }) => scan_id === answer.scan_id);
      if (taken && sealed) taken.sealed = sealed;
      await done(stores.kept.put(recent, "recent"));
    });
  }

  // ---- the manifest

  /** Starts a refresh. Resolves to the stored manifest, or to an empty one, with a new `tick`. */
  refresh({ anew, time }) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      const tick = await next(kept);
      const manifest = await done(kept.get("manifest"));
      // An interrupted download may have left half a list.
      const begun = anew || !manifest?.as_of ? { ready: false, refreshed_at: time } : manifest;
      if (!begun.as_of) {
        tickets.clear();
        kept.delete("counts");
      }
      await done(kept.put({ ...begun, tick }, "manifest"));
      return { ...begun, tick };
    });
  }

  /** Writes tickets of a refresh. Resolves to the seats and gates of those whose state differed here. */
  async put(event, tick, fresh) {
    const { cipher: pseudonyms } = await this.#cipher("holders", newPseudonyms);
    const marked = await Promise.all(fresh.map(async (ticket) => {
      if (!ticket.key) return ticket;
      // Two people may share a username: one of this event, one of the whole installation.
      const holder = JSON.stringify([ticket.username, ticket.holder_event ?? null]);
      return { ...ticket, mark: await fingerprint(ticket.key), holder: await pseudonym(pseudonyms, holder) };
    }));
    const parts = marked.map((ticket) => split({ ...ticket, read: read(ticket), tick }, STATE));
    const work = async ({ kept, tickets, queue }, sealed) => {
      const { as_of } = await stillOf(kept, tick);
      const waiting = await allUnsent(queue, event);
      const before = await knownOf(tickets, fresh, as_of === undefined);
      const changes = parts.map(([clear], index) => {
        const known = before.get(clear.ticket_id);
        const ticket = over(merged({ ...clear, sealed: sealed[index] }, known), waiting);
        before.set(ticket.ticket_id, ticket); // A manifest has a ticket twice if it changed meanwhile.
        return [known, ticket];
      });
      await write({ kept, tickets }, changes);
      return changes.filter(([known, ticket]) => isOtherwise(known, ticket)).map(([, { seat, gate }]) => ({ seat, gate }));
    };
    return this.#sealing(parts.map(([clear, rest]) => (isOwn(clear) ? ["list", rest] : null)), work, { durability: "relaxed" });
  }

  /**
   * Ends a refresh: the list is now as new as `manifest` says. If it was `whole`, tickets that were not in it are deleted; if it
   * replaced another list, `differing` holds the seats and gates that differed, and `manifest.replaced` is its own tag.
   */
  refreshed(manifest, { whole = false, differing = null } = {}) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      await stillOf(kept, manifest.tick);
      const gone = whole ? await deleteOlder(kept, tickets, manifest.tick) : [];
      if (differing) await keepDiffering(kept, [...differing, ...gone]);
      await done(kept.put({ ...manifest, tickets: (await countsIn(kept)).tickets }, "manifest"));
      // This is the service's time, whatever the clock here said before.
      await done(kept.put(manifest.refreshed_at, "seen"));
      kept.delete("erased");
    });
  }

  /**
   * Whether the list of this `manifest`, which the service calls unchanged, has the same counts as the service. With unsent
   * scans, or news since the request, they cannot be compared, and this is true.
   */
  agrees(event, { tick, counts }) {
    return this.#transact("readonly", async ({ kept, queue }) => {
      const waiting = await allUnsent(queue, event);
      if (!counts || waiting.length > 0 || (await now(kept)) !== tick) return true;
      const own = [...(await countsIn(kept)).gates.values()];
      return ["tickets", "admitted", "inside"].every((name) => own.reduce((sum, one) => sum + one[name], 0) === counts[name]);
    });
  }

  /** Clears the list of differing tickets, once a person has seen them. */
  seenDiffering() {
    return this.#transact("readwrite", ({ kept }) => done(kept.delete("differing")));
  }

  /**
   * Returns how many tickets are stored, and the counts of each of this device's gates: `{tickets, gates, door}`, where `door`
   * holds people without a ticket whom the service does not know of yet.
   */
  counts(event) {
    return this.#transact("readonly", async ({ kept, queue }) =>
      ({ ...(await countsIn(kept)), door: (await allUnsent(queue, event)).filter(({ people }) => people) }));
  }
}

/** A ticket in the form of the service's guest search, with the `line` of words to search. */
function asGuest({ ticket_id, seat, gate, status, inside, used_at, username, full_name = null, category = null, note = null }) {
  const line = words([seat, full_name ?? "", username].join(" ")).join(" ");
  return { ticket_id, seat, gate, status, inside, used_at, username, full_name, category, note, line };
}

function abort(transaction) {
  try {
    transaction.abort();
  } catch {
    // It has already ended.
  }
}

/** Creates the stores, or upgrades those of release 0.1.0: deletes its list, which was in clear. The rest is sealed later. */
function upgrade({ result: database, transaction }, from) {
  if (from === 0) {
    database.createObjectStore("kept");
    const queue = database.createObjectStore("queue", { keyPath: "number", autoIncrement: true });
    queue.createIndex("names", "names", { multiEntry: true });
    queue.createIndex("refusal", "refusal");
  } else {
    database.deleteObjectStore("tickets");
    for (const name of ["manifest", "recent"]) transaction.objectStore("kept").delete(name);
  }
  const tickets = database.createObjectStore("tickets", { keyPath: "ticket_id" });
  for (const name of ["read", "holder"]) tickets.createIndex(name, name);
  transaction.objectStore("queue").createIndex("key_id", "key_id");
  database.createObjectStore("keys", { keyPath: "key_id" });
}

async function beGate({ kept, keys }, device, sealed) {
  const { key_id, enrolment, event, event_name, name, gate } = device;
  await done(kept.put(device, "device"));
  await done(keys.put({ key_id, enrolment, event, event_name, name, gate, sealed }));
}

function eraseList(kept, tickets) {
  for (const name of ["manifest", "recent", "list", "holders", "counts", "differing"]) kept.delete(name);
  tickets.clear();
}

function forget({ kept, tickets }) {
  for (const name of ["device", "choices", "seen", "erased"]) kept.delete(name);
  eraseList(kept, tickets);
}

/** Returns the oldest unsent scans of a key, at most this many. */
async function unsentOf(queue, key_id, most) {
  const refused = await refusedOf(queue, key_id);
  const some = await done(queue.index("key_id").getAll(key_id, Number.isFinite(most) ? most + refused : undefined));
  return some.filter(({ refusal }) => !refusal).slice(0, most);
}

/** Points vouched scans in the queue at the new ids of their vouchers: the service refused them under the old ids. */
async function renameVouchers(queue, renamed) {
  for (const item of await done(queue.getAll())) {
    const vouched_by = renamed.get(item.body.vouched_by);
    if (vouched_by) await done(queue.put({ ...item, refusal: undefined, why: undefined, body: { ...item.body, vouched_by } }));
  }
}

/** Counts them without reading them. */
const countUnsent = async (queue, key_id) => (await done(queue.index("key_id").count(key_id))) - (await refusedOf(queue, key_id));

const refusedOf = async (queue, key_id) =>
  (await done(queue.index("refusal").getAll())).filter((item) => item.key_id === key_id).length;

/** Deletes the keys of former gates that have nothing left to send. */
async function prune({ kept, queue, keys }) {
  const [device, all] = await Promise.all([done(kept.get("device")), done(keys.getAll())]);
  let needed = device ? 1 : 0;
  for (const { key_id } of all.filter(({ key_id }) => key_id !== device?.key_id)) {
    if ((await countUnsent(queue, key_id)) > 0) needed += 1;
    else await done(keys.delete(key_id));
  }
  if (needed === 0) await done(kept.delete("own"));
}

/** The service's verdict on a scan that was decided here. */
const verdictOn = ({ body }, answer) =>
  ({ ...answer, scan_id: body.scan_id, walk_up: body.walk_up, offline: false, undecided: false, problem: null, offline_result: body.offline_result });

const now = async (kept) => (await done(kept.get("tick"))) ?? 0;

async function next(kept) {
  const tick = (await now(kept)) + 1;
  await done(kept.put(tick, "tick"));
  return tick;
}

async function stillOf(kept, tick) {
  const manifest = await done(kept.get("manifest"));
  if (manifest?.tick !== tick) throw new Error("the manifest was erased, or another refresh began");
  return manifest;
}

/**
 * Deletes tickets without news since a tick and recounts the rest. Returns the seats and gates of this gate's deleted tickets.
 */
async function deleteOlder(kept, tickets, tick) {
  const counts = { tickets: 0, gates: new Map() };
  const gone = [];
  for (let range = null, some = []; range === null || some.length === CHUNK; ) {
    some = await done(tickets.getAll(range, CHUNK));
    for (const ticket of some) {
      if (ticket.tick >= tick) {
        counts.tickets += 1;
        count(counts.gates, ticket, 1);
        continue;
      }
      if (isOwn(ticket)) gone.push({ seat: ticket.seat, gate: ticket.gate });
      tickets.delete(ticket.ticket_id);
    }
    if (some.length > 0) range = IDBKeyRange.lowerBound(some.at(-1).ticket_id, true);
    else break;
  }
  await done(kept.put(counts, "counts"));
  return gone;
}

/** Whether the service's state of a ticket differs from the stored one: whether it was admitted, or exists at all. */
const isOtherwise = (known, ticket) =>
  isOwn(ticket) && (!isOwn(known) || known.status !== ticket.status || known.inside !== ticket.inside);

async function keepDiffering(kept, places) {
  const before = (await done(kept.get("differing"))) ?? [];
  const known = new Map([...before, ...places].map((place) => [JSON.stringify(place), place]));
  await done(kept.put([...known.values()], "differing"));
}

async function found(tickets, { ticket_id, seat, gate }) {
  if (ticket_id) return (await done(tickets.get(ticket_id))) ?? null;
  if (!seat || !gate) return null;
  const all = await done(tickets.index("read").getAll(read({ seat, gate })));
  // An exact match, or the only ticket that people read the same way.
  return all.find((ticket) => ticket.seat === seat && ticket.gate === gate) ?? (all.length === 1 ? all[0] : null);
}

async function unsent(queue, event, ticket) {
  const lists = await Promise.all(names(ticket).map((name) => done(queue.index("names").getAll(name))));
  return lists.flat().filter((item) => item.event === event && letPass(item));
}

/** All admissions of an event that the service does not have yet. */
const allUnsent = async (queue, event) => (await done(queue.getAll())).filter((item) => item.event === event && letPass(item));

/** A ticket with its scans from the queue applied. */
const over = (ticket, waiting) => {
  const own = isOwn(ticket) ? waiting.filter((item) => item.names.includes(ticket.ticket_id)) : [];
  return own.reduce(passed, ticket);
};

/** Returns the stored tickets with these ids. A first download finds next to none, and one range read is enough. */
async function knownOf(tickets, fresh, first) {
  const ids = fresh.map(({ ticket_id }) => ticket_id).sort();
  const most = ids.length + 1;
  let known = first && ids.length > 0 ? await done(tickets.getAll(IDBKeyRange.bound(ids[0], ids.at(-1)), most)) : null;
  // The parts come in the order of their ids. If not, the range holds more tickets than the part.
  if (!known || known.length === most) known = await Promise.all(ids.map((id) => done(tickets.get(id))));
  return new Map(known.filter(Boolean).map((ticket) => [ticket.ticket_id, ticket]));
}

/** A ticket as in the manifest, unless the service sent newer state while the manifest was on its way. */
function merged(fresh, known) {
  if (!isOwn(known) || known.mark !== fresh.mark || known.tick < fresh.tick) return fresh;
  const { status, inside, used_at, entered_at, last_step, tick } = known;
  return { ...fresh, status, inside, used_at, entered_at, last_step: later(fresh.last_step, last_step), tick };
}

/** The ticket state in an answer. If the answer may not show it, whatever its result implies, or nothing. */
function saidBy({ result, ticket: { status, inside, used_at, entered_at } }) {
  if (status) return { status, inside, used_at, entered_at };
  return { revoked: { status: "revoked" }, not_registered: { registered: false } }[result];
}

async function learn({ kept, tickets, queue }, event, answer, asked, step) {
  const said = answer.ticket && saidBy(answer);
  const known = said && (await done(tickets.get(answer.ticket.ticket_id)));
  if (!isOwn(known)) return;
  const told = { ...known, ...said };
  const state = known.tick > asked ? stricter(known, told) : {};
  const learned = { ...told, ...state, last_step: later(known.last_step, step), tick: await next(kept) };
  await write({ kept, tickets }, [[known, over(learned, await unsent(queue, event, learned))]]);
}

/**
 * Writes tickets. `changes` are pairs of the ticket before and after, from which the counts are updated without reading all
 * tickets.
 */
async function write({ kept, tickets }, changes) {
  const counts = await countsIn(kept);
  for (const [before, ticket] of changes) {
    counts.tickets += before ? 0 : 1;
    count(counts.gates, before, -1);
    count(counts.gates, ticket, 1);
    tickets.put(ticket);
  }
  await done(kept.put(counts, "counts"));
}

const countsIn = async (kept) => (await done(kept.get("counts"))) ?? { tickets: 0, gates: new Map() };

/** The counts of a gate, all zero. */
export const NONE = { tickets: 0, registered: 0, admitted: 0, expected: 0, inside: 0, walk_ups: 0, cash: 0 };

/** Adds a ticket to the counts or, with -1, removes it. */
function count(gates, ticket, by) {
  if (!isOwn(ticket)) return;
  const counts = gates.get(ticket.gate) ?? { ...NONE };
  counts.tickets += by;
  counts.registered += by * ticket.registered;
  counts.admitted += by * (ticket.used_at !== null);
  counts.expected += by * (ticket.registered && ticket.status === "valid");
  counts.inside += by * ticket.inside;
  const isWalkUp = Boolean(ticket.walk_up && ticket.used_at);
  counts.walk_ups += by * isWalkUp;
  counts.cash += by * (isWalkUp && (ticket.paid ?? 0));
  if (counts.tickets === 0) gates.delete(ticket.gate);
  else gates.set(ticket.gate, counts);
}

/** Combines two states when nobody knows which is newer: refuses whatever either would refuse. */
const stricter = (one, other) => ({
  status: ["revoked", "used", "valid"].find((status) => one.status === status || other.status === status),
  inside: one.inside || other.inside,
  used_at: one.used_at ?? other.used_at,
  entered_at: [one, other].map(({ entered_at, used_at }) => entered_at ?? used_at ?? "").sort()[1] || null,
});

async function remember(kept, { scan_id: fresh }, sealed) {
  const recent = (await done(kept.get("recent"))) ?? [];
  const others = recent.filter(({ scan_id }) => scan_id !== fresh);
  await done(kept.put([{ scan_id: fresh, sealed }, ...others].slice(0, RECENT), "recent"));
}

/** A random UUID (version 4): `crypto.randomUUID` needs a secure context. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return uuid(bytes);
}

/** The scan ids of this many people without a ticket: the first id, then UUIDs (version 5) of their numbers in its namespace. */
export async function walkUpIds(scan_id, count) {
  const ids = [scan_id];
  while (ids.length < count) {
    const name = new TextEncoder().encode(ids.length + 1);
    const bytes = new Uint8Array(await crypto.subtle.digest("SHA-1", Uint8Array.of(...bytesOf(scan_id), ...name)), 0, 16);
    bytes[6] = (bytes[6] & 0x0f) | 0x50;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    ids.push(uuid(bytes));
  }
  return ids;
}
