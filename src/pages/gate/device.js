// What a gate keeps on its device, in IndexedDB: who it is, the manifest, the scans that the service has not got yet.
//
// Every change is one transaction. A ticket is kept as the service last told it, in a scan's answer or in the manifest.
// What it told may have crossed something newer on its way, so all of it is counted: `tick` grows with every answer and
// with every refresh of the manifest, and a ticket has the tick of its newest news. What was asked for before that may be
// older. Over that come the scans of the queue that let somebody pass, which the service has not got.
//
// Names, keys and codes are sealed (seal.js). A transaction cannot wait for that, so a record is in clear where transactions
// look at it (ids, places, states, times), and all the rest of it is in `sealed`. Two ciphers seal: `list` whatever tells of
// tickets and people, and it goes when that has to go; `own` the keys of this device and its scans, until they are sent.

import { bytesOf, uuid, written } from "./admission.js";
import { place, samePlace, words } from "../shared/fold.js";
import { folded } from "./readings.js";
import { canSeal, fingerprint, newCipher, newPseudonyms, nonceOf, pseudonym, seal, unseal } from "./seal.js";

const NAME = "gate";
const STORES = ["kept", "tickets", "queue", "keys"];
const RECENT = 50;
/** Tickets that one look at the whole list reads at once. */
const CHUNK = 1000;
/** and one that opens what is sealed in it. */
const OPENED = 200;
/** What is in clear, of a ticket and of a scan. */
const STATE = ["ticket_id", "seat", "gate", "read", "status", "registered", "inside", "printed", "last_step", "used_at", "entered_at", "walk_up", "paid", "tick", "mark", "holder"];
const SCAN = ["scan_id", "direction", "scanned_at", "offline_result", "vouched_by"];
/** What a transaction resolves to that has to be begun anew. */
const AGAIN = Symbol("again");

/** Waits for a request of IndexedDB. */
const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** A seat at a gate, as people read it. */
const read = ({ seat, gate }) => JSON.stringify([place(seat), place(gate)]);

/** The names by which a scan's ticket is found in the queue: what its QR holds, and what a person types, also as 0.1.0 kept it. */
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

/** Of another gate's ticket no more is told than where it belongs. */
export const isOwn = (ticket) => ticket?.status !== undefined;

/** A record in two: what has these names, and the rest. */
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
  /** The verdicts that were unsealed last, by their nonces. */
  #opened = new Map();

  /**
   * Opens the storage. Throws where a browser has none, or cannot seal what is in it: then nothing is kept, and what an
   * older page kept there in clear is deleted. It has no scans: without ciphers there was no deciding either.
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

  // ---- what is sealed

  /** The cipher of this name, or whatever else `make` makes of keys, made where there is none. */
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
   * Seals each of `parts`, which are `[name of the cipher, value]` or null, and runs `work` with the stores and what was sealed. Begins
   * anew when a cipher was thrown away meanwhile, with all that it had sealed, or when `work` says so.
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

  /** A record with what is sealed in it. */
  async #whole(name, { sealed, ...clear }) {
    return sealed ? { ...clear, ...(await unseal((await this.#cipher(name)).cipher, sealed)) } : clear;
  }

  /** A scan of the queue as it was put there. */
  async #wholeScan({ sealed, ...item }) {
    return { ...item, body: { ...item.body, ...(await this.#whole("own", { sealed })) } };
  }

  /** The newest verdicts. Most of them are those of the last time. */
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
   * Release 0.1.0 kept everything in clear. Its list went with the upgrade, and comes anew. Who this device is and what it has
   * not sent is sealed; scans of a gate that it was before have no key any more.
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

  // ---- who this is

  /**
   * What a page needs at its start, and after another tab changed something. `own` is the key of this device, if it is a
   * gate; `seen` the latest time that is known to have been; `erased` why there is no list, if there was one; `differing` the
   * places of tickets that the service had otherwise than this device.
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
      // What cannot be opened is as good as gone.
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

  /** Becomes this gate, with nothing from the one before but its unsent scans and the key that sends them. */
  enrol(device, key) {
    return this.#sealing([["own", { key }]], async (stores, [sealed]) => {
      forget(stores);
      await beGate(stores, device, sealed);
      await prune(stores);
    });
  }

  /**
   * Ends what an enrolment began: forgets who it is, as long as it is this, and the key, unless there are scans for it to
   * send. A `dead` key opens nothing more; it proves whose scans these are, until the service has them.
   */
  end({ key_id, enrolment }, dead) {
    return this.#transact("readwrite", async (stores) => {
      const [device, key] = await Promise.all([done(stores.kept.get("device")), done(stores.keys.get(key_id))]);
      if (dead && key?.enrolment === enrolment) await done(stores.keys.put({ ...key, ended: true }));
      if (device?.enrolment === enrolment) forget(stores);
      await prune(stores);
    });
  }

  /** Keeps which database knows a key. */
  knows({ key_id, enrolment, database }) {
    return this.#transact("readwrite", async ({ keys }) => {
      const key = await done(keys.get(key_id));
      if (key?.enrolment === enrolment) await done(keys.put({ ...key, database }));
    }, { durability: "relaxed" });
  }

  /** Forgets the list of tickets and who passed, and with their cipher whatever is left of them on the disk. */
  erase(why) {
    return this.#transact("readwrite", ({ kept, tickets }) => {
      eraseList(kept, tickets);
      if (why) kept.put(why, "erased");
    });
  }

  /** Keeps the latest time that is known to have been. */
  saw(time) {
    return this.#transact("readwrite", ({ kept }) => done(kept.put(time, "seen")), { durability: "relaxed" });
  }

  // ---- scans

  /**
   * What is known now, at this `tick`, about what was shown: the `manifest` when it is whole, the `ticket` in it, and the
   * scans of this ticket that let somebody pass and that the service has not got, `unsent`; `seen` is for `decided`.
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

  /** The other tickets of a ticket's holder for its gate, whatever their state. */
  async company({ ticket_id, holder, gate }) {
    if (!holder) return [];
    const held = await this.#transact("readonly", ({ tickets }) => done(tickets.index("holder").getAll(holder)));
    const others = held.filter((ticket) => ticket.ticket_id !== ticket_id && samePlace(ticket.gate, gate));
    return Promise.all(others.map((ticket) => this.#whole("list", ticket)));
  }

  /**
   * Writes down a scan that was decided here, with its verdict. Resolves to false, with nothing written, when the ticket or
   * the manifest is no longer what was `seen`: then it has to be decided again.
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
   * Takes over what the service said of a ticket when it was asked at the tick `asked`; `step` is that of a code that it
   * accepted. Resolves to whether a scan that it has not got let somebody pass with this ticket meanwhile: then nobody
   * else may.
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
   * All tickets of the list whose holder is named, opened, each with the `line` of the words by which it is found. That takes a while, so it
   * gives way after each part, and whoever asks keeps it only as long as somebody looks for a name.
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

  /** Adds a verdict to the newest, or replaces that of the same scan. */
  remember(verdict) {
    return this.#sealing([["list", verdict]], ({ kept }, [sealed]) => remember(kept, verdict, sealed));
  }

  /**
   * The tickets of the list that are meant by codes which lost all their shifts, each as its QR has it. It looks at the ids of all:
   * only for a scanner that is set so wrong.
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

  /** The keys that have scans to send, each with its secret, that of this device first and those that have ended last. */
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

  /** A key that is kept, with its secret, if it is known. */
  async key(key_id) {
    const key = await this.#transact("readonly", ({ keys }) => done(keys.get(key_id)));
    return key && this.#whole("own", key);
  }

  /** The oldest scans made under a key that the service has not got, how many have a code that was `wrong`, and the `tick`. */
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

  /** Takes unsent scans off the device, when a person has them elsewhere. */
  discard(numbers) {
    return this.#transact("readwrite", async (stores) => {
      for (const number of numbers) await done(stores.queue.delete(number));
      await prune(stores);
    });
  }

  /** Takes over what the service answered to some of them. Resolves to the verdicts on who may pass that it does not share. */
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
        // Another tab may have been faster.
        if (!queued) continue;
        const shown = recent.find(({ scan_id }) => scan_id === item.body.scan_id);
        const refused = answer.result === undefined;
        // Somebody passed, but under this id the service has another verdict: its first try to tell us came too late, or
        // reached it late and was judged as of then. So it gets the scan as a new one, as of the time when it was made.
        // What was taken back since is not such a verdict, and stays so.
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

  /** Takes a scan that the service refused for good off the list. */
  dismiss(scan_id) {
    return this.#transact("readwrite", async (stores) => {
      const item = (await done(stores.queue.getAll())).find((item) => item.refusal && item.body.scan_id === scan_id);
      if (item) await done(stores.queue.delete(item.number));
      await prune(stores);
    });
  }

  /** What the service said of a scan that it took back. */
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

  /** Begins to refresh the manifest: resolves to the one that is kept, or the beginning of one, with a new `tick`. */
  refresh({ anew, time }) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      const tick = await next(kept);
      const manifest = await done(kept.get("manifest"));
      // What a download that broke off left behind may be half of it.
      const begun = anew || !manifest?.as_of ? { ready: false, refreshed_at: time } : manifest;
      if (!begun.as_of) {
        tickets.clear();
        kept.delete("counts");
      }
      await done(kept.put({ ...begun, tick }, "manifest"));
      return { ...begun, tick };
    });
  }

  /** Puts tickets of a refresh in their place. Resolves to the places of those that were here, or are there, otherwise. */
  async put(event, tick, fresh) {
    const { cipher: pseudonyms } = await this.#cipher("holders", newPseudonyms);
    const marked = await Promise.all(fresh.map(async (ticket) => {
      if (!ticket.key) return ticket;
      // Of one username there may be two people: one of the event's own, and one of the whole installation.
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
        before.set(ticket.ticket_id, ticket); // A manifest may tell of one twice, when it changed meanwhile.
        return [known, ticket];
      });
      await write({ kept, tickets }, changes);
      return changes.filter(([known, ticket]) => isOtherwise(known, ticket)).map(([, { seat, gate }]) => ({ seat, gate }));
    };
    return this.#sealing(parts.map(([clear, rest]) => (isOwn(clear) ? ["list", rest] : null)), work, { durability: "relaxed" });
  }

  /**
   * Ends a refresh: from now on the manifest is as new as `manifest` says. If it was `whole`, what was not in it is gone, and
   * where it replaced another, the tickets at these places were `differing`. `replaced` in it is its own tag then.
   */
  refreshed(manifest, { whole = false, differing = null } = {}) {
    return this.#transact("readwrite", async ({ kept, tickets }) => {
      await stillOf(kept, manifest.tick);
      const gone = whole ? await deleteOlder(kept, tickets, manifest.tick) : [];
      if (differing) await keepDiffering(kept, [...differing, ...gone]);
      await done(kept.put({ ...manifest, tickets: (await countsIn(kept)).tickets }, "manifest"));
      // The service told the time, whatever it was here before.
      await done(kept.put(manifest.refreshed_at, "seen"));
      kept.delete("erased");
    });
  }

  /**
   * Whether the list of this `manifest`, of which the service knows no change, counts as the service does. Where there are scans
   * that it has not got, or news since the question, nobody can tell.
   */
  agrees(event, { tick, counts }) {
    return this.#transact("readonly", async ({ kept, queue }) => {
      const waiting = await allUnsent(queue, event);
      if (!counts || waiting.length > 0 || (await now(kept)) !== tick) return true;
      const own = [...(await countsIn(kept)).gates.values()];
      return ["tickets", "admitted", "inside"].every((name) => own.reduce((sum, one) => sum + one[name], 0) === counts[name]);
    });
  }

  /** Takes off the list what the service had otherwise, when a person has seen it. */
  seenDiffering() {
    return this.#transact("readwrite", ({ kept }) => done(kept.delete("differing")));
  }

  /**
   * How many tickets are kept, and of each of this device's own gates how many have come: `{tickets, gates, door}`, where `door` has the
   * people without a ticket of whom the service does not know.
   */
  counts(event) {
    return this.#transact("readonly", async ({ kept, queue }) =>
      ({ ...(await countsIn(kept)), door: (await allUnsent(queue, event)).filter(({ people }) => people) }));
  }
}

/** What is told of a ticket to whoever looks for its holder, as the service tells it, and the `line` by which it is found. */
function asGuest({ ticket_id, seat, gate, status, inside, used_at, username, full_name = null, category = null, note = null }) {
  const line = words([seat, full_name ?? "", username].join(" ")).join(" ");
  return { ticket_id, seat, gate, status, inside, used_at, username, full_name, category, note, line };
}

function abort(transaction) {
  try {
    transaction.abort();
  } catch {
    // It has ended already.
  }
}

/** Makes the stores, or those of release 0.1.0 into these. Its list was in clear; what else was is sealed later. */
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

/** The oldest scans of a key that wait for the service, so many at most. */
async function unsentOf(queue, key_id, most) {
  const refused = await refusedOf(queue, key_id);
  const some = await done(queue.index("key_id").getAll(key_id, Number.isFinite(most) ? most + refused : undefined));
  return some.filter(({ refusal }) => !refusal).slice(0, most);
}

/** Has scans of the queue say for whom they are vouched by the new ids of those that vouch: the service has refused them by the old ones. */
async function renameVouchers(queue, renamed) {
  for (const item of await done(queue.getAll())) {
    const vouched_by = renamed.get(item.body.vouched_by);
    if (vouched_by) await done(queue.put({ ...item, refusal: undefined, why: undefined, body: { ...item.body, vouched_by } }));
  }
}

/** How many they are, without reading them. */
const countUnsent = async (queue, key_id) => (await done(queue.index("key_id").count(key_id))) - (await refusedOf(queue, key_id));

const refusedOf = async (queue, key_id) =>
  (await done(queue.index("refusal").getAll())).filter((item) => item.key_id === key_id).length;

/** Forgets the keys of gates that this device was and that have nothing to send any more. */
async function prune({ kept, queue, keys }) {
  const [device, all] = await Promise.all([done(kept.get("device")), done(keys.getAll())]);
  let needed = device ? 1 : 0;
  for (const { key_id } of all.filter(({ key_id }) => key_id !== device?.key_id)) {
    if ((await countUnsent(queue, key_id)) > 0) needed += 1;
    else await done(keys.delete(key_id));
  }
  if (needed === 0) await done(kept.delete("own"));
}

/** What the service said of a scan that was decided here. */
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

/** Deletes the tickets that have had no news since a tick, and counts the others anew. Returns the places of this gate's. */
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

/** Whether the service has a ticket otherwise than it was kept here: whether it came in, or whether it is there at all. */
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
  // Exactly this one, or the only one that people read so.
  return all.find((ticket) => ticket.seat === seat && ticket.gate === gate) ?? (all.length === 1 ? all[0] : null);
}

async function unsent(queue, event, ticket) {
  const lists = await Promise.all(names(ticket).map((name) => done(queue.index("names").getAll(name))));
  return lists.flat().filter((item) => item.event === event && letPass(item));
}

/** All scans of an event that let somebody pass and that the service has not got. */
const allUnsent = async (queue, event) => (await done(queue.getAll())).filter((item) => item.event === event && letPass(item));

/** A ticket after the scans of the queue that are its own. */
const over = (ticket, waiting) => {
  const own = isOwn(ticket) ? waiting.filter((item) => item.names.includes(ticket.ticket_id)) : [];
  return own.reduce(passed, ticket);
};

/** What is kept of these tickets, by their ids. In a first download that is next to nothing, and one look finds it. */
async function knownOf(tickets, fresh, first) {
  const ids = fresh.map(({ ticket_id }) => ticket_id).sort();
  const most = ids.length + 1;
  let known = first && ids.length > 0 ? await done(tickets.getAll(IDBKeyRange.bound(ids[0], ids.at(-1)), most)) : null;
  // The lists come in the order of the ids. If they do not, there is more between them than they have.
  if (!known || known.length === most) known = await Promise.all(ids.map((id) => done(tickets.get(id))));
  return new Map(known.filter(Boolean).map((ticket) => [ticket.ticket_id, ticket]));
}

/** A ticket as the manifest has it, unless the service told newer while the manifest was on its way. */
function merged(fresh, known) {
  if (!isOwn(known) || known.mark !== fresh.mark || known.tick < fresh.tick) return fresh;
  const { status, inside, used_at, entered_at, last_step, tick } = known;
  return { ...fresh, status, inside, used_at, entered_at, last_step: later(fresh.last_step, last_step), tick };
}

/** What an answer says of the state of its ticket. Where it may not tell all, that is what its result says, or nothing. */
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
 * Puts tickets in their place. `changes` are pairs, of what was there and what is now; by them the counts are kept, so that
 * nobody has to go through all tickets.
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

/** What is counted of a gate, of which nothing is counted yet. */
export const NONE = { tickets: 0, registered: 0, admitted: 0, expected: 0, inside: 0, walk_ups: 0, cash: 0 };

/** Counts a ticket in, or, with -1, out again. */
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

/** Of two states of a ticket, nobody knows which is the newer: the one that lets nobody in whom either would not. */
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

/** A UUID, version 4: `crypto.randomUUID` wants a secure context. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return uuid(bytes);
}

/** The ids of the scans of so many people without a ticket: the first one's, and in its namespace the UUIDs (version 5) of their numbers. */
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
