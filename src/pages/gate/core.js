// The gate without its user interface: it asks the service for verdicts, decides by itself when the service is away, stores those
// decisions and sends them later. It never admits in doubt, and writes its own decisions to disk before it shows them.

import { decide, find, parse, proof, recognise, shownCode, subjectOf, ticketIn, told, trimmed } from "./admission.js";
import { Problem, ask, databaseOf, isOfAnother, parsed, send } from "../shared/api.js";
import { clockSince, now } from "../shared/clock.js";
import { Device, NONE, names, newId, passed, walkUpIds } from "./device.js";
import { inOrder, place, samePlace, words } from "../shared/fold.js";
import { forget, recall, remember } from "../shared/memory.js";
import { folded } from "./readings.js";
import { prove } from "./seal.js";
import { stepAt } from "../shared/totp.js";

/** How long to wait for the service's verdict, in milliseconds, */
const PATIENCE = 2000;
/** when it did not answer the last time, */
const PATIENCE_AWAY = 500;
/** and when this device cannot decide by itself. */
const PATIENCE_ALONE = 10_000;
/**
 * Of the wrong codes that a key may send per minute, a batch uses at most half; the rest is for live scans (see `KEY_ATTEMPTS`).
 */
const BATCH = { most: 200, wrong: 30, timeout: 60_000 };
/** In seconds. */
const MINUTE = 60;
/** How long after a refusal an ended key is tried again, in seconds. */
const RARELY = 300;
/** Anything longer is no ticket. Codes are cut to this length, so that long ones do not make a batch too large. */
const LONGEST_CODE = 64;
/** A manifest may be megabytes and the network slow: the download may take any time as long as data keeps coming. */
const STALLED = 30_000;
/** How long one tab waits for another's lock on the queue or the manifest. A tab in the background may hold it forever. */
const HELD = { queue: BATCH.timeout, manifest: 300_000 };
const TRIES = 3;
/** How many spellings of typed input the service is asked about when there is no list. None counts as a wrong code. */
const SPELLINGS = 4;
/** Stored, with the id of the tab, while something that affects admission could not be saved. */
const UNKEPT = "gate-unkept";
/** A clock set back by at most this much was only corrected. */
const PUT_RIGHT = 60_000;
/** The device roles with a supervisor's rights, as in src/model.rs; a test compares them. */
const SUPERVISORS = ["supervisor"];
/** Whether this page can check codes of this kind. It does not decide for a service that uses others. */
const isKnown = ({ algorithm, digits, period }) => algorithm === "SHA1" && digits === 6 && period === 30;

/**
 * A gate. A verdict is the service's answer to a scan, plus `{offline, undecided, problem, offline_result}`: `offline` is true
 * for a verdict decided here that the service does not know of yet; an `undecided` verdict never admits, and `problem` says why;
 * `offline_result` is what this device had decided before the service answered.
 *
 * Events: `state` whenever `state`, `device` or `recent` changed; `corrected` when the service disagrees on who may pass, with
 * its verdicts as `detail`.
 */
export class Gate extends EventTarget {
  /** What `POST /api/enrol` answered about this gate, without the key; null before. */
  device = null;
  /** The newest 50 verdicts, newest first. */
  recent = [];
  direction = "entry";
  /** The gate chosen on this device when its key is not bound to one. */
  atGate = null;

  /** This device's key: `key_id`, `key`, the `enrolment` that issued it, and the `database` that knows it. */
  #own = null;
  /** Null where the browser cannot store anything: this device then cannot decide. */
  #kept = null;
  /** Whether the last write to the storage failed. */
  #full = false;
  /** Writes that failed, oldest first: `{work, counts, verdict}`. */
  #unkept = [];
  #catching = null;
  #manifest = null;
  #online = null;
  #refused = [];
  #stranded = [];
  #waiting = [];
  #erased = null;
  #differing = [];
  /** The list with names, while somebody searches it. */
  #guests = null;
  /** The latest time known to have passed, the page's own clock at that time, and the refresh it came with. */
  #seen = { time: 0, at: 0, refresh: null };
  /** Why the queue or the manifest is stuck. */
  #problems = { queue: null, manifest: null };
  /** By key, how long to wait before sending its scans (by `performance.now`), and why. */
  #later = new Map();
  #turn = Promise.resolve();
  #id = newId();
  #running = new Map();
  #others = globalThis.BroadcastChannel ? new BroadcastChannel("gate") : null;

  static async open() {
    const gate = new Gate();
    await gate.#open();
    gate.#others?.addEventListener("message", () => gate.#load().catch(() => {}));
    return gate;
  }

  async #open() {
    try {
      this.#kept = await Device.open();
      const choices = await this.#load();
      this.direction = choices?.direction ?? "entry";
      this.atGate = choices?.atGate ?? null;
      if (this.device?.offline) persist();
    } catch {
      this.#kept = null;
    }
  }

  /**
   * `online`: whether the service answered the last time, or null; `offlineReady`: whether this device can decide by itself;
   * `tickets`: how many it knows as of `refreshedAt`; `tooOld`: whether the list was erased for its age; `queued`: how many scans
   * are queued for the service; by key, `waiting`: scans still to send, and `stranded`: scans whose key has ended; `refused`:
   * scans that the service refused for good; `differing`: seats and gates of the tickets whose state differed in the service's
   * list; `ended`: whether the event has ended; `problem`: why sending or refreshing fails; `storage`: whether this device can
   * store anything; `full`: whether the storage is full.
   */
  get state() {
    const ended = this.#whyOver(this.#manifest) === "ended";
    return {
      online: this.#online,
      offlineReady: this.#canDecide(this.#manifest),
      tickets: this.#manifest?.tickets ?? 0,
      refreshedAt: this.#manifest?.as_of ? this.#manifest.refreshed_at : null,
      tooOld: this.#erased === "old",
      queued: this.#queued,
      refused: this.#refused,
      waiting: this.#waiting,
      stranded: this.#stranded,
      differing: this.#differing,
      ended,
      problem: this.#problems.queue ?? (ended ? null : this.#problems.manifest),
      storage: this.#kept !== null,
      full: this.#full,
    };
  }

  get #queued() {
    return this.#waiting.reduce((sum, { unsent }) => sum + unsent, 0);
  }

  /** Whether this device may undo scans and admit without a code. */
  get supervises() {
    return SUPERVISORS.includes(this.device?.role);
  }

  /** The limits from the service's latest answer. */
  get limits() {
    return { ...this.device?.limits, ...this.#manifest?.limits };
  }

  setDirection(direction) {
    this.direction = direction;
    return this.#keepChoices();
  }

  setAtGate(gate) {
    this.atGate = gate;
    return this.#keepChoices();
  }

  /** Returns what an enrolment token is for, without using it up. Throws a `Problem`. */
  offer(token) {
    return ask("POST", "/api/enrol/offer", { json: { token } });
  }

  /** Enrols this device as the gate that a token is for. Throws a `Problem`. */
  async enrol(token) {
    const { key, ...told } = await ask("POST", "/api/enrol", { json: { token } });
    const device = { ...told, enrolment: newId() };
    this.#dropUnkept();
    await this.#keep((kept) => kept.enrol(device, key));
    Object.assign(this, { device, direction: "entry", atGate: null });
    this.#own = { key_id: device.key_id, enrolment: device.enrolment, key };
    this.#online = true;
    this.#problems = { queue: null, manifest: null };
    if (device.offline) persist();
    await this.#changed();
    this.sync();
  }

  /** Stops being a gate. Unsent scans stay, and are sent with the key they were made under. */
  async leave() {
    if (this.#own) await this.#forget(this.#own);
  }

  /** Returns a key's unsent scans as a file for the organizer to hand in: `{numbers, file}`. */
  async stranded(key_id) {
    const [{ items }, holder] = await Promise.all([this.#kept.unsent(key_id, { most: Infinity, wrong: Infinity }), this.#kept.key(key_id)]);
    const numbers = items.map(({ number }) => number);
    // Release 0.1.0 stored no key that could sign them.
    if (!holder?.key) return { numbers, file: { scans: items.map(({ body }) => body) } };
    const { name, gate, event } = { ...holder, event: holder.event ?? "default" };
    const write = async ({ body }) => {
      const scan = JSON.stringify(written(body));
      return { scan, proof: await prove(holder.key, ["unsent scan", key_id, event, scan].join("\n")) };
    };
    return { numbers, file: { key_id, event, name, gate, scans: await Promise.all(items.map(write)) } };
  }

  /** Sends scans of ended keys now: an organizer may have agreed to accept them. */
  async sendStranded() {
    for (const { key_id } of this.#stranded) this.#later.delete(key_id);
    await this.sync();
  }

  /** Removes such scans from the device once a person has saved them. */
  async discard(numbers) {
    await this.#keep((kept) => kept.discard(numbers), { counts: false });
    await this.#changed();
  }

  /**
   * Presents a scan for a decision: `{code}`, `{seat, gate, totp_code}`, `{seat, gate, manual: true, note}`, `{ticket_id,
   * vouched_by}` for a ticket of the `party` of the admission with that `scan_id`, or `{walk_up: {count, paid, full_name,
   * category, note}}` for people without a ticket. A code typed by a hand-held scanner comes with `readings` or `loose` (see
   * readings.js).
   */
  scan({ readings = [], loose = [], ...presented }) {
    const body = { scan_id: newId(), ...presented, direction: presented.walk_up ? "entry" : this.direction };
    const atGate = this.device?.gate ?? this.atGate;
    return this.#inTurn({ ...body, ...(atGate ? { at_gate: atGate } : {}) }, { readings, loose });
  }

  /** Lists this many scans as not taken on this device. The service is not told, because nothing was decided. */
  async missed(count) {
    if (!this.device) return;
    for (let scan = 0; scan < count; scan += 1) {
      const request = { scan_id: newId(), direction: this.direction, scanned_at: new Date(now()).toISOString() };
      const verdict = { ...blank(request), result: "not_taken" };
      await this.#kept?.remember(verdict).catch(() => {});
      await this.#changed(verdict);
    }
  }

  /** Repeats a scan that was left undecided. */
  retry(verdict) {
    if (!verdict.undecided) return verdict;
    const again = verdict.problem?.code === "scan_id_conflict" ? { scan_id: newId() } : {};
    return this.#inTurn({ ...verdict.request, ...again });
  }

  /** Undoes a scan. Resolves to the service's answer; throws a `Problem`. */
  async undo(scan_id) {
    const { offline, walk_up, scan_ids } = this.recent.find((verdict) => verdict.scan_id === scan_id) ?? {};
    if (offline) await this.#drain().catch(() => {});
    const known = await this.#kept?.look(this.#event, {}).catch(() => null);
    const undo = (id) => this.#ask("POST", `/api/scans/${id}/undo`, { timeout: PATIENCE_ALONE });
    // The first scan of a group comes last: the list takes it as the sign that all are out.
    const [, ...others] = scan_ids ?? (await walkUpIds(scan_id, walk_up?.count));
    for (const id of others) await undo(id);
    const answer = await undo(scan_id);
    const event = this.#event;
    await this.#keep((kept) => kept.undone(event, answer, known?.tick ?? 0), { counts: false });
    await this.#changed();
    return answer;
  }

  /** Removes a scan that the service refused for good from the list, once a person has seen it. */
  async dismiss(scan_id) {
    await this.#keep((kept) => kept.dismiss(scan_id), { counts: false });
    await this.#changed();
  }

  /** Clears the list of differing tickets, once a person has seen them. */
  async seenDiffering() {
    await this.#keep((kept) => kept.seenDiffering(), { counts: false });
    await this.#changed();
  }

  /**
   * Returns the event's counts from the service or, when it is away, from the manifest: then only for gates whose tickets are in
   * it.
   */
  async counts() {
    try {
      const timeout = this.state.offlineReady ? PATIENCE : PATIENCE_ALONE;
      const stats = await this.#ask("GET", `/api/events/${this.#event}/stats`, { timeout });
      return { ...stats, offline: false };
    } catch (problem) {
      if (!problem.isAway || !this.state.offlineReady) throw problem;
      return this.#ownCounts();
    }
  }

  /**
   * Returns the guests whose seat or name contains these words: `{guests, offline}`, each guest as the service describes a
   * ticket, this gate's first. Searches the list when the service is away, and holds it open in memory until `closeGuests`.
   * Throws a `Problem`.
   */
  async guests(text) {
    const own = ({ gate }) => samePlace(gate, this.device?.gate ?? this.atGate);
    const sorted = (guests) => [...guests.filter(own), ...guests.filter((guest) => !own(guest))];
    try {
      const timeout = this.state.offlineReady ? PATIENCE : PATIENCE_ALONE;
      const { guests } = await this.#ask("GET", `/api/events/${this.#event}/guests?q=${encodeURIComponent(text)}`, { timeout });
      return { guests: sorted(guests), offline: false };
    } catch (problem) {
      if (!problem.isAway || !this.state.offlineReady) throw problem;
      const sought = words(text);
      this.#guests ??= this.#kept.guests();
      const found = (await this.#guests).filter(({ line }) => sought.every((word) => line.includes(word)));
      return { guests: sorted(found).slice(0, this.limits.guests), offline: true };
    }
  }

  /** Drops the list opened for a search. */
  closeGuests() {
    this.#guests = null;
  }

  /** Sends the queue and refreshes the manifest. Never throws: `state` says what is wrong. */
  async sync() {
    try {
      // The storage had no room even to open.
      if (!this.#kept && !this.#own) await this.#open();
      if (this.#kept) await this.#load();
      await this.#catchUp().catch(() => {});
      await this.#expire();
      if (this.#manifest) await this.#kept.saw(this.#time());
      if (!this.#own && this.#queued === 0 && this.#stranded.length === 0) return;
      if (this.#online !== true) await this.#learnTime();
      await this.#drain().catch(() => {});
      if (this.#own) await this.#once("manifest", () => this.#refreshWhole());
    } catch (error) {
      // The next sync tries again.
      if (error?.name === "QuotaExceededError") this.#full = true;
    }
    await this.#changed();
  }

  // ---- a scan

  /** Takes scans one at a time, so that no two of them find the same ticket unused. */
  #inTurn(body, typed) {
    const verdict = this.#turn.then(() => this.#spelled({ ...body, scanned_at: new Date(this.#time()).toISOString() }, typed));
    this.#turn = verdict.catch(() => {});
    return verdict;
  }

  /** Scans typed input in the spelling of a ticket in the list or, if no ticket matches, in the likeliest spellings. */
  async #spelled(body, { readings, loose } = { readings: [], loose: [] }) {
    const isPlain = loose.length === 0 && readings.length < 2;
    const known = isPlain ? [] : ((await this.#inList(body, readings, loose).catch(() => null)) ?? []);
    // Two tickets match, and nothing tells which was shown.
    if (known.length > 1) return this.#undecided(body, new Problem(400, { code: "invalid_payload" }));
    const [first, ...others] = known.length > 0 ? known : [readings[0] ?? body.code, ...readings.slice(1, SPELLINGS)];
    let verdict = await this.#scan({ ...body, ...(first === undefined ? {} : { code: first }) });
    for (const code of others) {
      if (verdict.result !== "unknown_ticket" || verdict.offline) break;
      verdict = await this.#scan({ ...body, scan_id: newId(), code });
    }
    return verdict;
  }

  /**
   * Returns the spellings that name tickets in the list, one per ticket. If there are several, only those whose code is right, if
   * any is.
   */
  async #inList({ scanned_at }, readings, loose) {
    const spellings = new Set(loose.length === 0 ? readings : [...readings, ...(await this.#kept.spellings(loose))]);
    const found = [];
    for (const spelling of spellings) {
      const { manifest, ticket } = await this.#kept.look(this.#event, { ticket_id: ticketIn(spelling) });
      const code = ticket && (await spelledFor(ticket, spelling));
      if (code) found.push({ code, manifest, ticket });
    }
    if (found.length < 2) return found.map(({ code }) => code);
    const right = await Promise.all(found.map(({ code, manifest, ticket }) => isRight(ticket, parse(code)?.code, Date.parse(scanned_at), manifest)));
    const proven = found.filter((_, index) => right[index]);
    const meant = new Map();
    for (const one of proven.length > 0 ? proven : found) if (!meant.has(one.ticket.ticket_id)) meant.set(one.ticket.ticket_id, one.code);
    return [...meant.values()];
  }

  async #scan(body) {
    if (!this.#own) return this.#undecided(body, new Problem(401, { code: "unauthenticated" }));
    await this.#catchUp().catch(() => {});
    await this.#expire().catch(() => {});
    const shown = understood(body);
    // When the storage fails, any scan in the queue may be of this ticket.
    const waiting = this.#queued + this.#refused.length + this.#stranded.length;
    const unknown = { tick: 0, manifest: null, ticket: null, unsent: Array.from({ length: waiting }) };
    const known = (await this.#kept?.look(this.#event, shown).catch(() => null)) ?? unknown;
    let problem = null;
    // The service does not know that this ticket was used here and would admit it again; nor does it know an offline voucher.
    if (known.unsent.length === 0 && !this.#voucher(body)?.offline) {
      try {
        return await this.#asked(body, shown, known);
      } catch (error) {
        problem = error instanceof Problem ? error : new Problem(0);
      }
    }
    const verdict = problem && !problem.isAway ? null : await this.#decided(body, shown).catch(() => null);
    this.#drain().catch(() => {});
    return verdict ?? this.#undecided(body, problem && !problem.isAway ? problem : this.#cannotDecide());
  }

  /** Returns the service's verdict. */
  async #asked(body, shown, { tick, manifest, ticket }) {
    const patience = this.#online === false ? PATIENCE_AWAY : PATIENCE;
    const timeout = this.#canDecide(manifest) ? patience : PATIENCE_ALONE;
    const answer = await (body.walk_up ? this.#admitted(body, timeout) : this.#ask("POST", `/api/events/${this.#event}/scans`, { json: body, timeout }));
    // Something other than the service answered.
    if (answer.scan_id !== body.scan_id || !answer.result) throw this.#away();
    const verdict = { ...answer, vouched_by: body.vouched_by, offline: false, undecided: false, problem: null };
    const step = answer.result === "accepted" && shown.code?.digits ? await stepOf(ticket, shown.code.digits, manifest) : null;
    const event = this.#event;
    const between = await this.#keep((kept) => kept.learn(event, verdict, tick, step), { verdict });
    if (between && verdict.result === "accepted") {
      Object.assign(verdict, { result: "already_used", first_used_at: ticket?.used_at ?? null });
      await this.#keep((kept) => kept.remember(verdict), { verdict, counts: false });
    }
    await this.#changed(verdict);
    return verdict;
  }

  /** Returns the service's verdict on people without a ticket: that of the first, with the seats of all. */
  async #admitted({ scan_id, at_gate: gate, scanned_at, walk_up }, timeout) {
    const json = { scan_id, gate, scanned_at, ...walk_up };
    const { scans: [scan] = [], scans } = await this.#ask("POST", `/api/events/${this.#event}/walk-ups`, { json, timeout });
    if (!scan?.ticket) throw this.#away();
    const seat = scans.map(({ ticket }) => ticket.seat).join(", ");
    return { ...scan, ticket: { ...scan.ticket, seat }, walk_up, scan_ids: scans.map((one) => one.scan_id) };
  }

  /** Decides by the manifest. Returns null if there is none to decide by. */
  async #decided(body, shown) {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const { manifest, ticket, seen: known } = (await this.#kept?.look(this.#event, shown)) ?? {};
      if (!this.#canDecide(manifest)) return null;
      if ((body.manual || body.walk_up) && !this.supervises) {
        return this.#undecided(body, new Problem(403, { code: "forbidden" }));
      }
      if (body.walk_up && !manifest.event.walk_ups) return this.#undecided(body, new Problem(409, { code: "walk_ups_not_allowed" }));
      const subject = ticket && subjectOf(ticket, manifest.event);
      // Codes of the future are named as such: whoever has this device has the keys that make every code anyway.
      const how = { direction: body.direction, offline: true, tells_future: true };
      const time = Date.parse(body.scanned_at);
      const code = shownCode(ticket, shown.code, time, manifest.codes);
      const presented = { code, vouched: Boolean(body.manual), at_gate: body.at_gate ?? null, ...how };
      const { result, step, seconds_off, opens_at, closed_at } = body.walk_up ? { result: "accepted", step: null, seconds_off: null }
        : await decide(subject, presented, time, manifest.codes);
      const admits = ticket && result === "accepted" && body.direction === "entry" && !body.vouched_by;
      // Checked where a code would be: the refusals before it need neither.
      if (body.vouched_by && told(result, false) === "everything" && !(await this.#isVouched(body, ticket))) {
        return this.#undecided(body, notVouched(this.limits));
      }
      const item = {
        event: this.#event,
        key_id: this.#own.key_id,
        names: names(ticket ?? shown),
        step,
        ...doorCounts(body),
        body: { ...body, offline_result: result },
      };
      const verdict = {
        scan_id: body.scan_id,
        result,
        message: "",
        ticket: body.walk_up ? seen({ ticket_id: body.scan_id, seat: "", gate: body.at_gate ?? "", ...body.walk_up }, manifest.event, "everything")
          : ticket && seen(result === "accepted" ? passed(ticket, item) : ticket, manifest.event, told(result, this.supervises)),
        walk_up: body.walk_up,
        at_gate: body.at_gate ?? null,
        direction: body.direction,
        scanned_at: body.scanned_at,
        first_used_at: result === "already_used" ? admittedAt(ticket, manifest.event) : null,
        // Nobody is admitted at another gate.
        first_used_gate: result === "already_used" && ticket.used_at ? ticket.gate : null,
        right_gate: result === "wrong_gate" ? ticket.gate : null,
        opens_at: timeOf(opens_at),
        closed_at: timeOf(closed_at),
        seconds_off,
        party: admits ? await this.#party(ticket, manifest, time) : [],
        replayed: false,
        undone_at: null,
        vouched_by: body.vouched_by,
        ...{ offline: true, undecided: false, problem: null },
      };
      // Nobody is admitted before the scan is on disk.
      const written = await this.#kept.decided(item, verdict, known).catch((error) => {
        this.#full = true;
        throw error;
      });
      this.#full = this.#unkept.length > 0;
      if (written) {
        await this.#changed();
        return verdict;
      }
    }
    return null;
  }

  /** The verdict that vouches for a scan, if this device still has it. */
  #voucher({ vouched_by }) {
    return vouched_by && this.recent.find(({ scan_id }) => scan_id === vouched_by);
  }

  /** Returns the holder's other tickets for the same gate that would be admitted now without a code, in the service's form. */
  async #party(ticket, { event, codes, limits }, time) {
    const company = await this.#kept.company(ticket);
    const presented = { code: null, vouched: false, at_gate: null, direction: "entry", offline: true, tells_future: false };
    const decisions = await Promise.all(company.map((other) => decide(subjectOf(other, event), presented, time, codes)));
    const admissible = company.filter((_, index) => decisions[index].result === "accepted").slice(0, limits.party_tickets ?? 0);
    return admissible.map(({ ticket_id, seat, gate, full_name = null, category = null, note = null }) => ({ ticket_id, seat, gate, full_name, category, note }));
  }

  /**
   * Whether a scan may vouch for this one, by the service's rule: it admitted the same holder at the same gate a short while ago.
   */
  async #isVouched(body, ticket) {
    const voucher = this.#voucher(body);
    const admits = voucher?.result === "accepted" && voucher.direction === "entry" && !voucher.undone_at && !voucher.vouched_by;
    if (!admits || !ticket.holder) return false;
    const { ticket: other } = await this.#kept.look(this.#event, { ticket_id: voucher.ticket.ticket_id });
    const age = Date.parse(body.scanned_at) - Date.parse(voucher.scanned_at);
    return other?.holder === ticket.holder && other.ticket_id !== ticket.ticket_id && samePlace(other.gate, ticket.gate) && age <= this.limits.party_seconds * 1000;
  }

  async #undecided(request, problem) {
    const { status, code, detail, errors } = problem;
    const why = { undecided: true, problem: { status, code, detail, errors, isAway: problem.isAway }, request };
    const verdict = { ...blank(request), ...why };
    await this.#keep((kept) => kept.remember(verdict), { verdict, counts: false });
    await this.#changed(verdict);
    return { ...verdict, problem };
  }

  #canDecide(manifest) {
    return Boolean(this.device?.offline && this.#isUpToDate && recall(UNKEPT) === null && manifest?.ready && !this.#whyOver(manifest));
  }

  // ---- expiry

  /** Returns the time, which never goes back, however the device's clock is set. */
  #time() {
    return Math.max(now(), this.#seen.time + performance.now() - this.#seen.at);
  }

  /**
   * Returns why the ticket data must be erased: `ended` if the event is over; `old` if the service was last heard too long ago,
   * the clock was set back so that nobody can tell, or the key has expired. Otherwise null.
   */
  #whyOver(manifest) {
    if (!this.device) return null;
    const time = this.#time();
    const { limits } = this.device;
    const past = (moment) => Boolean(moment) && Date.parse(moment) <= time;
    const end = (manifest?.event ?? this.device).ends_at;
    if (end && Date.parse(end) + (manifest?.limits ?? limits).manifest_after_end_seconds * 1000 < time) return "ended";
    if (past(this.device.expires_at)) return "old";
    if (!manifest) return null;
    const isFresh = time - manifest.refreshed_at <= (manifest.limits ?? limits).list_kept_seconds * 1000;
    return isFresh && now() > time - PUT_RIGHT ? null : "old";
  }

  /** Erases data that must go, even without a network. */
  async #expire() {
    const why = this.#whyOver(this.#manifest);
    if (why && (this.#manifest || this.recent.length > 0)) {
      await this.#kept?.erase(why);
      this.#dropUnkept();
      await this.#changed();
    }
  }

  /** Returns why this device cannot decide. */
  #cannotDecide() {
    if (this.#full) return new Problem(0, { code: "storage_full" });
    return new Problem(0, this.state.tooOld ? { code: "list_too_old" } : {});
  }

  // ---- the queue

  #drain() {
    return this.#once("queue", () => this.#send());
  }

  /** Asks for the time: every answer of the service has it. */
  #learnTime() {
    return this.#ask("GET", "/health", { timeout: PATIENCE });
  }

  /** Sends each scan with the key it was made under, even if this device is another gate by now, or none. */
  async #send() {
    let problem = null;
    const holders = (await this.#kept?.senders()) ?? [];
    const { set, unseen } = clockSince();
    // A batch with wrong times would be refused for good.
    if (holders.length > 0 && (this.#online !== true || set || unseen)) await this.#learnTime();
    for (const holder of holders) {
      try {
        await this.#sendOf(holder);
      } catch (error) {
        if (!(error instanceof Problem) || error.isAway) throw error;
        // This was reported elsewhere. The scans may still be accepted: an organizer may agree, or the key has only expired.
        if (error.status !== 401) problem = error;
        else this.#later.set(holder.key_id, { until: performance.now() + 1000 * (holder.ended ? RARELY : 0) });
      }
    }
    this.#problems.queue = problem;
  }

  async #sendOf(holder) {
    const event = holder.event ?? "default";
    const later = (seconds, problem) => this.#later.set(holder.key_id, { until: performance.now() + 1000 * seconds, problem });
    const { until, problem } = this.#later.get(holder.key_id) ?? {};
    if (performance.now() < until) {
      if (problem) throw problem;
      return;
    }
    for (;;) {
      const { items, wrong, tick } = await this.#kept.unsent(holder.key_id, BATCH);
      if (items.length === 0) break;
      const scans = items.map(({ body }) => ({ ...body, code: body.code && trimmed(body.code).slice(0, LONGEST_CODE), scanned_at: madeAt(body) }));
      const request = { json: { scans }, timeout: BATCH.timeout, holder };
      const { results } = await this.#ask("POST", `/api/events/${event}/scans/batch`, request).catch((problem) => {
        // Scans already written are replayed on the next try, so each try gets further.
        if (problem.retryAfter) later(problem.retryAfter, problem);
        throw problem;
      });
      if (results?.length !== items.length) throw this.#away();
      const answers = items.map((item, index) => [item, results[index]]);
      const corrected = await this.#kept.settle(event, answers, tick);
      await this.#changed();
      if (wrong === BATCH.wrong) later(MINUTE);
      // Corrections for another gate concern the organizer only.
      if (corrected.length > 0 && holder.key_id === this.#own?.key_id) {
        this.dispatchEvent(new CustomEvent("corrected", { detail: corrected }));
      }
      if (wrong === BATCH.wrong) return;
    }
  }

  // ---- the manifest

  /** Downloads the list anew if a tab died before it could save something that belongs in it. */
  async #refreshWhole() {
    const doubted = recall(UNKEPT);
    const anew = doubted !== null && doubted !== this.#id;
    await this.#refresh({ anew });
    this.#full = this.#unkept.length > 0;
    if (anew && recall(UNKEPT) === doubted) forget(UNKEPT);
  }

  /** `anew` starts from nothing; `whole` replaces the stored list with a whole one. */
  async #refresh({ anew = false, whole = false } = {}) {
    if (!this.#kept || !this.device?.offline) return;
    const begun = await this.#kept.refresh({ anew, time: now() });
    const since = begun.as_of && !whole ? `?since=${encodeURIComponent(begun.as_of)}` : "";
    const headers = { "register-ticket-unsent": this.#queued, ...(begun.etag && !whole && { "if-none-match": begun.etag }) };
    const stalled = new AbortController();
    let timer = 0;
    const wait = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stalled.abort(), STALLED);
    };
    let etag = null;
    let head = null;
    // While one part is written, the next is read and sealed.
    let writing = Promise.resolve([]);
    const differing = [];
    try {
      wait();
      const path = `/api/events/${this.#event}/manifest${since}`;
      const response = await this.#respond("GET", path, { headers, signal: stalled.signal }, "manifest");
      if (response.status === 304) {
        await this.#kept.refreshed({ ...begun, ready: true, refreshed_at: now() });
        // Once per state: the two may count the same list differently.
        if (begun.replaced !== begun.etag && !(await this.#kept.agrees(this.#event, begun))) await this.#refresh({ whole: true });
        return;
      }
      etag = response.headers.get("etag");
      for await (const part of manifestParts(response, wait)) {
        if (Array.isArray(part)) {
          const last = writing;
          writing = this.#kept.put(this.#event, begun.tick, part);
          writing.catch(() => {}); // It is awaited below, unless the download failed first.
          differing.push(...(await last));
          continue;
        }
        head = part;
        if (!isKnown(head.codes)) throw new Error("codes that this page does not know");
        // Another event has taken the name: no stored ticket is valid.
        if (begun.event && begun.event.event_id !== head.event.event_id) return await this.#refresh({ anew: true });
      }
      differing.push(...(await writing));
    } finally {
      clearTimeout(timer);
    }
    // A first download takes a while and may miss scans made meanwhile, so it is complete only after one `since`.
    const complete = begun.as_of !== undefined;
    const { event, as_of, counts, codes, limits } = head;
    const manifest = { event, as_of, counts, codes, limits, etag, tick: begun.tick, refreshed_at: now(), ready: complete };
    // The service sent a whole list because it knows no changes from the stored one to its own.
    const replaces = complete && head.whole;
    await this.#kept.refreshed({ ...manifest, replaced: replaces ? etag : null }, { whole: head.whole, differing: replaces ? differing : null });
    if (!complete) await this.#refresh();
  }

  async #ownCounts() {
    const { gates, door } = await this.#kept.counts(this.#event);
    const here = door.map(({ gate, people, cash }) => [gate, { ...NONE, tickets: people, admitted: people, inside: people, walk_ups: people, cash }]);
    // One gate may be written in several ways.
    const merged = new Map();
    for (const [gate, counts] of [...gates, ...here]) {
      const known = merged.get(place(gate)) ?? merged.set(place(gate), { gate, ...NONE }).get(place(gate));
      for (const name of Object.keys(NONE)) known[name] += counts[name];
    }
    const all = [...merged.values()].sort((one, other) => inOrder(one.gate, other.gate));
    const sum = (name) => all.reduce((total, counts) => total + counts[name], 0);
    const totals = Object.keys(NONE).map((name) => [name, sum(name)]);
    const { capacity = null, walk_ups: takes_walk_ups, walk_up_price, currency, category_colours = {} } = this.#manifest?.event ?? {};
    const categories = Object.keys(category_colours).map((category) => ({ category }));
    const told = { takes_walk_ups, walk_up_price, currency, categories, offline: true };
    // Nobody here knows who is inside with another gate's tickets.
    return { ...Object.fromEntries(totals), gates: all, capacity: this.device.gate ? null : capacity, ...told };
  }

  // ---- the service

  get #event() {
    return this.device?.event ?? "default";
  }

  /** Notes that nobody answered, or something other than the service did. */
  #away() {
    this.#online = false;
    return new Problem(0);
  }

  /** Sends a request and returns the service's answer, a verdict or not. Throws a `Problem` if it is neither. */
  async #ask(method, path, options, about) {
    const response = await this.#respond(method, path, options, about);
    const body = await parsed(response).catch(() => null);
    if (!body) throw this.#away();
    return body;
  }

  async #respond(method, path, { holder = this.#own, ...options }, about) {
    let response;
    try {
      response = await send(method, path, { key: holder?.key, ...options });
    } catch {
      throw this.#away();
    }
    if (response.ok || response.status === 304) {
      this.#online = true;
      Object.assign(this.#seen, { time: now(), at: performance.now() });
      if (about) this.#problems[about] = null;
      await this.#learnDatabase(holder, response);
      return response;
    }
    if (response.status === 401 && isOfAnother(response, holder?.database)) throw this.#away();
    const body = await parsed(response.clone()).catch(() => null);
    // A proxy or captive portal also refuses, but without these fields.
    if (response.status >= 500 || response.status === 408 || !(body?.code || body?.result)) {
      this.#online = false;
      throw response.status >= 500 && body?.code ? new Problem(response.status, body) : new Problem(0);
    }
    this.#online = true;
    if (body.result) return response;
    const problem = new Problem(response.status, body);
    problem.retryAfter = Number(response.headers.get("retry-after"));
    if (about) this.#problems[about] = problem;
    if (response.status === 401 && holder) await this.#forget(holder, { dead: true });
    // With a retry time, the service only says that by its clock it is too early: the stored list stays until it expires.
    const isOver = response.status === 403 && about === "manifest" && !problem.retryAfter;
    if (isOver && this.#manifest?.as_of) await this.#kept.erase();
    throw problem;
  }

  /** Stores which database knows a key, so that no other database can end it. */
  async #learnDatabase(holder, response) {
    const database = holder && databaseOf(response);
    if (!database || database === holder.database) return;
    holder.database = database;
    await this.#keep((kept) => kept.knows(holder), { counts: false });
  }

  // ---- storage

  /** Forgets a key and everything it gave access to, unless another tab has enrolled again. A `dead` key also stops sending. */
  async #forget(holder, { dead = false } = {}) {
    if (this.#own?.enrolment === holder.enrolment) {
      this.#dropUnkept();
      this.device = null;
      this.#own = null;
    }
    await this.#keep((kept) => kept.end(holder, dead));
    await this.#changed();
  }

  async #keepChoices() {
    const { direction, atGate } = this;
    await this.#keep((kept) => kept.keepChoices({ direction, atGate }), { counts: false });
    await this.#changed();
  }

  /**
   * Stores something that the service already knows, so that a failure is no reason to refuse anybody. Failed writes are retried.
   * Until those with `counts`, which affect admission, succeed, this device decides nothing by itself. The `verdict` of a failed
   * write is shown meanwhile.
   */
  async #keep(work, { counts = true, verdict = null } = {}) {
    if (!this.#kept) return undefined;
    try {
      await this.#catchUp();
      const result = await work(this.#kept);
      this.#full = false;
      return result;
    } catch {
      this.#full = true;
      this.#unkept.push({ work, counts, verdict });
      // A page opened later must not trust the stored list.
      if (counts) remember(UNKEPT, this.#id);
      return undefined;
    }
  }

  /** Retries failed writes in order. Throws if there is still no room. */
  #catchUp() {
    this.#catching ??= this.#keepRest().finally(() => (this.#catching = null));
    return this.#catching;
  }

  async #keepRest() {
    while (this.#unkept.length > 0) {
      const [first] = this.#unkept;
      await first.work(this.#kept);
      this.#unkept = this.#unkept.filter((other) => other !== first);
      this.#full = this.#unkept.length > 0;
    }
    if (recall(UNKEPT) === this.#id) forget(UNKEPT);
  }

  /** Drops unsaved verdicts, along with the list they are about. */
  #dropUnkept() {
    this.recent = [];
    this.#unkept = this.#unkept.filter(({ verdict }) => !verdict);
  }

  /** Whether this tab has saved everything that affects admission. */
  get #isUpToDate() {
    return !this.#unkept.some(({ counts }) => counts);
  }

  async #load() {
    const { device, own, choices, manifest, recent, waiting, refused, stranded, seen, erased, differing } = await this.#kept.load();
    this.#waiting = waiting;
    this.#refused = refused;
    this.#stranded = stranded;
    // Once a write has failed, memory is newer than the storage.
    const unkept = this.#unkept.flatMap(({ verdict }) => verdict ?? []).reverse();
    if (this.#isUpToDate) {
      this.#own = own;
      this.device = own ? device : null;
    }
    const isOld = ({ scan_id }) => !unkept.some((verdict) => verdict.scan_id === scan_id);
    this.recent = [...unkept, ...recent.filter(isOld)].slice(0, 50);
    this.#manifest = manifest ?? null;
    this.#erased = erased ?? null;
    this.#differing = differing;
    const refresh = manifest?.refreshed_at ?? null;
    if (seen && refresh !== this.#seen.refresh) this.#seen = { time: seen, at: performance.now(), refresh };
    this.dispatchEvent(new Event("state"));
    return choices;
  }

  /** Notifies listeners, in other tabs too, and shows a verdict that could not be saved. */
  async #changed(verdict) {
    if (this.#kept) {
      await this.#load().catch(() => {});
      this.#others?.postMessage(null);
      return;
    }
    if (verdict) this.recent = [verdict, ...this.recent.filter(({ scan_id }) => scan_id !== verdict.scan_id)].slice(0, 50);
    this.dispatchEvent(new Event("state"));
  }

  /** Runs `work` unless it is already running, here or in another tab. */
  #once(name, work) {
    if (!this.#running.has(name)) {
      this.#running.set(name, alone(`gate-${name}`, HELD[name], work).finally(() => this.#running.delete(name)));
    }
    return this.#running.get(name);
  }
}

/** Runs `work` while no other tab does, but waits at most `patience` milliseconds. Running twice is wasteful, not wrong. */
async function alone(name, patience, work) {
  if (!navigator.locks) return work();
  let begun = false;
  const begin = () => {
    begun = true;
    return work();
  };
  try {
    return await navigator.locks.request(name, { signal: AbortSignal.timeout(patience) }, begin);
  } catch (error) {
    if (begun) throw error;
    return work();
  }
}

/** A verdict with no result yet. */
const blank = ({ scan_id, at_gate, direction, scanned_at }) => ({
  ...{ scan_id, result: null, message: "", ticket: null, at_gate: at_gate ?? null, direction, scanned_at },
  ...{ first_used_at: null, first_used_gate: null, right_gate: null, opens_at: null, closed_at: null, seconds_off: null, party: [] },
  ...{ replayed: false, undone_at: null, offline: false, undecided: false, problem: null },
});

/** What the service answers when the voucher does not hold for the ticket. */
const notVouched = ({ party_seconds: seconds }) =>
  new Problem(422, { code: "invalid_payload", errors: [{ field: "vouched_by", code: "not_vouched", params: { seconds } }] });

/** Spells a code as its ticket does. If a printed code lost its shifts, the device knows the right spelling. */
async function spelledFor(ticket, spelling) {
  const [form, id, rest] = spelling.split(".");
  if (form !== "RP1" || !ticket.key) return spelling;
  const written = await proof(ticket.key);
  if (folded(written) === folded(rest)) return `${form}.${id}.${written}`;
  return parse(spelling) && spelling;
}

async function isRight({ key }, code, time, { codes }) {
  return Boolean(key && code) && (await recognise(key, code, time, codes))?.seconds_off === null;
}

/** Asks the browser not to evict stored data when space is short. */
function persist() {
  navigator.storage?.persist?.().catch(() => {});
}

/** When a scan was made. A time in the future came from a wrong device clock and becomes the current time. */
const madeAt = ({ scanned_at }) => [scanned_at, new Date(now()).toISOString()].sort()[0];

/**
 * Writes a scan for a file: it names the ticket without the code, because a printed code stays valid until the service has the
 * scan.
 */
function written(body) {
  const { scan_id, at_gate, direction, offline_result, note, vouched_by, walk_up } = body;
  const { ticket_id, seat, gate } = understood(body);
  const people = walk_up && { ...walk_up, full_name: undefined };
  return { scan_id, ticket_id, vouched_by, seat, gate, note, walk_up: people, at_gate, direction, scanned_at: madeAt(body), offline_result };
}

/** Reads what was shown at the gate: the ticket it names, and the code to check. */
function understood({ code, ticket_id, seat, gate, totp_code }) {
  if (ticket_id !== undefined) return { ticket_id, code: null };
  if (code === undefined) return { seat, gate, code: totp_code === undefined ? null : { digits: totp_code } };
  return parse(code) ?? { code: { digits: "" } };
}

/** What people without a ticket add to the counts until the service knows of them. */
const doorCounts = ({ walk_up, at_gate: gate }) => walk_up && { gate: gate ?? "", people: walk_up.count, cash: walk_up.count * (walk_up.paid ?? 0) };

const timeOf = (moment) => moment && new Date(moment).toISOString();

/** When a ticket admitted its holder: the first time or, with daily re-entry, the last. */
const admittedAt = ({ used_at, entered_at = used_at }, { reentry }) => (reentry === "once_a_day" ? entered_at : used_at);

/** The step of a code that the service accepted, or one that is certainly not earlier. */
async function stepOf(ticket, digits, manifest) {
  const found = ticket?.key && manifest ? await find(ticket.key, digits, now(), manifest.codes).catch(() => null) : null;
  return found?.step ?? stepAt(now()) + 1;
}

/** A ticket as the service shows it, limited to what `told` allows. */
function seen({ ticket_id, seat, gate, username, full_name, status, inside, used_at, ...more }, event, told) {
  const { entered_at = used_at, category = null, note = null, valid_from = null, valid_until = null } = more;
  return {
    ...{ ticket_id, event: event.slug, seat, gate, created_at: null, registered_at: null },
    ...(told !== "place" && { username, full_name }),
    ...(told === "everything" && { status, category, category_colour: colourOf(category, event), note, valid_from, valid_until, inside, used_at, entered_at }),
  };
}

/** The colour of a category in an event, ignoring case and accents. */
function colourOf(category, { category_colours: colours = {} }) {
  const [, colour = null] = Object.entries(colours).find(([name]) => category !== null && samePlace(name, category)) ?? [];
  return colour;
}

/**
 * Reads a manifest as it arrives, so that 50,000 tickets are never one string: yields first the head without tickets, then arrays
 * of tickets. Calls `wait` before each read. Throws if the manifest is incomplete.
 */
async function* manifestParts(response, wait) {
  const OPENING = '"tickets":[';
  const BETWEEN = ',{"ticket_id":';
  /** Characters of about 200 tickets: the most parsed at once, however much arrives, so that the page stays responsive. */
  const PART = 60_000;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let begun = false;
  try {
    for (let done = false; !done; ) {
      wait();
      const read = await reader.read();
      done = read.done;
      text += read.value ?? "";
      // Inside a JSON string the quotes of these marks would be escaped.
      if (!begun && text.includes(OPENING)) {
        const begins = text.indexOf(OPENING) + OPENING.length;
        yield JSON.parse(`${text.slice(0, begins)}]}`);
        text = text.slice(begins);
        begun = true;
      }
      while (begun && text.length > PART) {
        const ends = text.lastIndexOf(BETWEEN, PART);
        if (ends <= 0) break;
        yield JSON.parse(`[${text.slice(0, ends)}]`);
        text = text.slice(ends + 1);
      }
    }
    if (!begun || !text.endsWith("]}")) throw new TypeError("the manifest broke off");
    yield JSON.parse(`[${text.slice(0, -2)}]`);
  } finally {
    reader.cancel().catch(() => {});
  }
}
