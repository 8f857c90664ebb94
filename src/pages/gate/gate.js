// The gate's page: scans codes and shows verdicts. `core.js` decides; this file displays.

import { clockSince, now } from "../shared/clock.js";
import { crowd } from "../shared/crowd.js";
import { element, find, say } from "../shared/dom.js";
import { Gate } from "./core.js";
import { samePlace } from "../shared/fold.js";
import { enrol, readOffer, sayEnrolProblem, showOffer, takeToken, tokenIn } from "./enrol.js";
import { confirmed, DoorSheet, GuestSheet, isSheetOpen, openCounts, openMore, scanLine, ScansSheet, TypeSheet } from "./sheets.js";
import { kindOf, nameOf, VerdictDialog } from "./verdict.js";
import { forget, recall, remember } from "../shared/memory.js";
import { keepOffline } from "../shared/offline.js";
import { explainAll } from "../shared/problem.js";
import { Repeats } from "./repeats.js";
import { Scanner } from "./scanner.js";
import { isLocked, onLocked, signal } from "./sound.js";
import { openStranded, showStranded } from "./stranded.js";
import { ago, duration, isolated, number, text, timeOfDay } from "../shared/text.js";
import { onScannerTyping } from "./wedge.js";

const SYNC_EVERY = 15_000;
/** How many scans may wait for earlier verdicts. More than that is not a queue of people. */
const WAITING = 8;
/** In milliseconds: how long "not taken" is on the screen, */
const MISSED_SHOWN = 6000;
/** how long its sound waits after a verdict's sound, */
const AFTER_VERDICT = 900;
/** and how long the note on a repeated ticket stays after its last sighting. */
const STILL_SHOWN = 1000;
/** How many milliseconds before the service stops accepting vouched scans the offer for them disappears. */
const OFFER_ENDS = 5000;
/** How long ago, in milliseconds, an admission still counts as just now. */
const JUST = 5 * 60_000;
/** How many seats one notice names. */
const PLACES_SHOWN = 8;
/** Stored once somebody has chosen that this gate accepts the tickets of all gates. */
const ANY_GATE = "gate-any";
/** In milliseconds: a clock change worth a notice, and how long the clock may run unchecked before it is doubted. */
const CLOCK_WAS_SET = 5000;
const CLOCK_IS_DOUBTED = 60_000;

// A scanner may type at any moment. Codes that arrive before the gate is ready are decided afterwards.
const early = [];
let take = (typed) => early.push(typed);
onScannerTyping({ scanned: (typed) => take(typed), broken: () => tellMissed("broken", [null]) });

const token = takeToken();
const gate = await Gate.open();
const repeats = new Repeats();
const scanner = new Scanner(find("#video"), {
  looked: (codes) => repeats.looks(codes), seen, unsure, lost: () => showCameraProblem({ name: "NotFoundError" }),
});
const verdicts = new VerdictDialog({ closed: verdictClosed, retry, admit: admitParty });
const typing = new TypeSheet((typed) => wait({ code: null, presented: typed }));
const guests = new GuestSheet(gate, (chosen) => wait({ code: null, presented: chosen }));
const door = new DoorSheet((people) => wait({ code: null, presented: people }));
const scans = new ScansSheet(gate);
let counts = null;
/** Whether an answer from the service is pending. */
let asking = false;
/** Scans that wait for earlier verdicts, `{code, presented}`; `code` is null for typed input. */
const waiting = [];
let enrolling = false;
/** The token of the offer on the screen, until somebody has answered it. */
let offered = null;
let leaving = false;
let corrected = 0;
/** Whether the page opens without a network; null until known. */
let isKept = null;
let isKeeping = false;

const timeZone = () => gate.device?.time_zone;
const ownGate = () => gate.device?.gate ?? gate.atGate;

// What is shown: one of four screens, and on the last the gate's state.

function screen() {
  if (offered) return "offer";
  if (!gate.device) return "enrol";
  const chosen = ownGate() ?? recall(ANY_GATE);
  return chosen ? "scan" : "choose";
}

function show() {
  const before = document.body.dataset.screen;
  const current = screen();
  document.body.dataset.screen = current;
  document.body.dataset.direction = gate.direction;
  find("#flag").hidden = current !== "scan" || gate.direction !== "exit";
  for (const way of ["entry", "exit"]) find(`#${way}`).setAttribute("aria-pressed", gate.direction === way);
  find("#place").textContent = current === "scan" ? ownGate() ?? text("gate.all_gates") : text("gate.title");
  find("#event").textContent = gate.device?.event_name ?? "";
  find("#enrol-unsent").hidden = gate.state.queued === 0;
  find("#enrol-unsent").textContent = text("gate.enrol_unsent", { n: number(gate.state.queued) });
  find("#guest").hidden = !gate.supervises;
  showDoor();
  showStranded(gate);
  if (current !== "scan") missedAll("gate");
  if (current === "scan") showState();
  if (before === current) return;
  if (current === "choose") showGates();
  changeScreen(current, before);
}

function changeScreen(current, before) {
  endEnrolling();
  if (current === "enrol" && ["choose", "scan"].includes(before) && !leaving) sayEnrolProblem(text("gate.enrol_ended"));
  repeats.forget();
  for (const sheet of document.querySelectorAll(".sheet[open]")) sheet.close();
  if (current === "scan") startCamera();
  else scanner.stop();
}

/** Offers admission without a ticket to supervisors, if the event allows it. */
function showDoor() {
  find("#door").hidden = !gate.supervises || !counts?.takes_walk_ups;
}

/** The connection to the service, as a word that the styles and texts use. */
function connection({ online, offlineReady }) {
  if (online) return "online";
  if (online === null) return "waiting";
  return offlineReady ? "offline" : "blind";
}

function showState() {
  const kind = connection(gate.state);
  document.body.dataset.connection = kind;
  say(find("#status"), text(`gate.${kind}`));
  showNotices(kind);
  const [last] = gate.recent;
  find("#last").dataset.kind = last ? kindOf(last) : "";
  find("#last").replaceChildren(...(last ? scanLine(last, timeZone()) : [text("gate.no_scans")]));
}

/** The list of tickets is available from one day before the event. */
const isTooEarly = ({ status }) => status === 403 && Date.parse(gate.device?.starts_at) > now();

function showNotices(kind) {
  const { tickets, refreshedAt, tooOld, queued, refused, differing, problem, storage, full, ended } = gate.state;
  const list = refreshedAt && { tickets: number(tickets), time: timeOfDay(refreshedAt, timeZone()), ago: ago(now() - refreshedAt) };
  const notices = [
    kind === "blind" && ["bad", text(tooOld ? "gate.list_too_old" : "gate.blind_notice")],
    kind === "offline" && ["warn", text("gate.offline_notice", list)],
    queued > 0 && ["warn", text("gate.queued", { n: number(queued) })],
    refused.length > 0 && ["bad", text("gate.refused", { n: number(refused.length) }), () => openMore(gate, timeZone())],
    differing.length > 0 && ["bad", text("gate.differing", { n: number(differing.length), places: placesOf(differing) }), () => gate.seenDiffering()],
    corrected > 0 && ["bad", text("gate.corrected", { n: number(corrected) }), openScans],
    problem && (isTooEarly(problem) ? ["warn", text("gate.too_early")] : ["bad", explainAll(problem)]),
    !storage && ["bad", text("gate.no_storage")],
    full && ["bad", text("gate.storage_full")],
    isKept === false && gate.state.offlineReady && ["warn", text("gate.page_not_kept")],
    ...clockNotices(kind),
    ended && ["warn", text("gate.ended")],
  ];
  find("#notices").replaceChildren(...notices.filter(Boolean).map(([className, told, onclick]) =>
    onclick ? element("button", { type: "button", className, onclick }, told) : element("p", { className }, ...[told].flat())));
}

/** The seats of the first tickets, for people to read. */
function placesOf(places) {
  const shown = places.slice(0, PLACES_SHOWN).map(({ seat }) => isolated(seat)).join(", ");
  return places.length > PLACES_SHOWN ? `${shown}, …` : shown;
}

/** Notices about the device's clock, while the service cannot tell the time. */
function clockNotices(kind) {
  if (kind === "online") return [];
  const { set, unseen } = clockSince();
  // With a wrong clock, codes that were refused may be right.
  const isDoubtful = unseen >= CLOCK_IS_DOUBTED && gate.recent.slice(0, 5).some(({ result, offline }) => offline && /_code$/.test(result));
  const amount = (milliseconds) => duration(Math.abs(Math.round(milliseconds / 1000)));
  return [
    Math.abs(set) >= CLOCK_WAS_SET && ["warn", text(set > 0 ? "gate.clock_set_ahead" : "gate.clock_set_back", { amount: amount(set) })],
    isDoubtful && ["bad", text("gate.clock_doubted", { amount: amount(unseen) })],
  ];
}

function openScans() {
  corrected = 0;
  scans.open(timeZone());
  showState();
}

// Counts and gates.

async function refreshCounts() {
  if (!gate.device) return;
  try {
    counts = await gate.counts();
  } catch {
    return; // Old numbers are better than none; the state says that they are old.
  }
  showDoor();
  const own = counts.gates.find((one) => samePlace(one.gate, ownGate())) ?? counts;
  const count = (name) => element("span", {}, element("b", {}, number(own[name])), ` ${text(`gate.${name}`)}`);
  const full = crowd(counts);
  const warning = full ? [element("span", { className: full.isFull ? "bad" : "warn" }, full.words)] : [];
  find("#counts").replaceChildren(...["admitted", "expected", "inside"].map(count), ...warning);
}

const knownGates = () => counts?.gates.map((one) => one.gate) ?? [];

async function showGates() {
  await refreshCounts();
  find("#gates").replaceChildren(...knownGates().map((name) =>
    element("button", { type: "button", onclick: () => choose(name) }, element("bdi", {}, name))));
}

async function choose(name) {
  if (name === null) remember(ANY_GATE, "yes");
  else forget(ANY_GATE);
  await gate.setAtGate(name);
  show();
  refreshCounts();
}

// The camera.

async function startCamera(start = () => scanner.start()) {
  find("#camera-problem").hidden = true;
  try {
    await start();
  } catch (error) {
    return showCameraProblem(error);
  }
  find("#torch").hidden = !scanner.hasTorch;
  find("#torch").setAttribute("aria-pressed", scanner.torch);
  find("#camera").hidden = (await scanner.cameras()).length < 2;
}

function showCameraProblem({ name }) {
  if (name === "AbortError") return; // Another start took over.
  const why = { NotAllowedError: "refused", NotReadableError: "busy", NotSupportedError: "insecure" }[name] ?? "absent";
  find("#camera-problem-text").textContent = text(`gate.camera_${why}`);
  find("#camera-problem").hidden = false;
  find("#torch").hidden = true;
}

const isCameraWanted = () => document.body.dataset.screen === "scan" || enrolling;

// From a code to a verdict.

/** Takes a code from the camera or a hand-held scanner. None is ignored silently. */
function seen(code, how = {}) {
  if (enrolling) return offer(tokenIn(code), code);
  if (how.handHeld && screen() === "enrol" && tokenIn(code)) return offer(tokenIn(code), code);
  const repeat = repeats.sees(code, how);
  if (repeat) return answerAgain(repeat, how);
  const why = obstacle();
  if (why) return passedOver(code, why, how);
  mark("seen");
  repeats.asked(code);
  wait({ code, presented: { code, ...how.spelled } });
}

/** Returns why no scan can be taken now, as a key for the texts, or null. */
function obstacle() {
  if (document.body.dataset.screen !== "scan") return "gate";
  if (isSheetOpen()) return "sheet";
  if (verdicts.blocks) return "verdict";
  return waiting.length >= WAITING ? "busy" : null;
}

function wait(scan) {
  waiting.push(scan);
  takeNext();
}

let turn = 0;

/** Decides the oldest waiting scan, once the admission before it has been on the screen long enough to be seen. */
function takeNext() {
  clearTimeout(turn);
  if (asking || waiting.length === 0) return;
  if (verdicts.needs > 0) turn = setTimeout(takeNext, verdicts.needs);
  else present(waiting.shift());
}

function present({ code, presented }) {
  // Links hold secrets that do not belong in the scan log, and never a code that admits.
  if (/^(https?|otpauth):/i.test(code ?? "")) decided({ result: "not_a_code", direction: gate.direction }, code);
  else decide(() => gate.scan(presented), code, presented);
}

async function retry(verdict) {
  if (asking) return; // A second tap, while the first is on its way.
  await decide(() => gate.retry(verdict), verdict.request?.code ?? null, verdict.request);
}

/** Admits tickets of a verdict's party, each with its own scan, and shows the results as one verdict. */
async function admitParty(shown, tickets) {
  if (asking) return;
  await decide(() => admitted(shown, tickets), null);
}

async function admitted({ scan_id, scanned_at, ticket, party, voucher = { scan_id, scanned_at, ticket } }, tickets) {
  const verdicts = [];
  // In order, because people pass the gate one after the other. If one stays undecided, so would the next.
  for (const { ticket_id } of tickets) {
    if (verdicts.at(-1)?.undecided) break;
    verdicts.push(await gate.scan({ ticket_id, vouched_by: voucher.scan_id }));
  }
  const isIn = ({ result, undecided }) => result === "accepted" && !undecided;
  const refused = verdicts.find((verdict) => !isIn(verdict));
  const left = tickets.filter((_, index) => !verdicts[index] || !isIn(verdicts[index]));
  const told = { voucher, party: party.filter((one) => !tickets.includes(one)) };
  if (tickets.length === 1) return { ...verdicts[0], ...told };
  const together = { admitted: tickets.length - left.length, left };
  if (refused) return { ...refused, ...told, together };
  const { gate: place } = ticket;
  const seat = tickets.map(({ seat }) => isolated(seat)).join(", ");
  return { ...verdicts.at(-1), ...told, together, ticket: { ...voucher.ticket, seat, gate: place, category: null, note: null } };
}

async function decide(ask, code, presented) {
  asking = true;
  sayEnrolProblem();
  pill(text("gate.checking"));
  let verdict;
  try {
    verdict = await ask();
  } catch (problem) {
    verdict = { result: null, undecided: true, problem, direction: gate.direction };
  } finally {
    asking = false;
    pill("");
  }
  if (gate.device) decided({ ...verdict, presented }, code);
  else tellMissed("gate", [code, ...waiting.splice(0).map((scan) => scan.code)]);
}

/** Shows the verdict on this code. If it stays on the screen, the scans waiting behind it have to be scanned again. */
function decided(verdict, code) {
  find("#door-sheet").close();
  verdicts.show({ ...verdict, just: isJustAdmitted(verdict), currency: counts?.currency }, timeZone(), offeredFor(verdict));
  mark("shown");
  unsayMissed();
  repeats.decided(code, verdict);
  if (verdicts.blocks) missedAll("verdict");
  else takeNext();
}

/** For how many milliseconds an admission may vouch for the holder's other tickets, with a margin for the service. */
function offeredFor({ result, party = [], scanned_at, voucher = { scanned_at } }) {
  if (result !== "accepted" || party.length === 0) return 0;
  return Date.parse(voucher.scanned_at) + gate.limits.party_seconds * 1000 - OFFER_ENDS - now();
}

/** Whether a ticket refused as used was admitted by this device only a moment ago. */
function isJustAdmitted({ result, ticket }) {
  if (result !== "already_used" || !ticket) return false;
  return gate.recent.some((other) => other.result === "accepted" && other.direction === "entry" && !other.undone_at
    && other.ticket?.ticket_id === ticket.ticket_id && now() - Date.parse(other.scanned_at) < JUST);
}

function verdictClosed() {
  repeats.dismissed();
  unsayMissed();
  refreshCounts();
}

let passing = 0;

/** Answers a code that was already taken: its verdict is or will be shown, or the code is still in view after it. */
function answerAgain({ verdict, shown, twice }, { handHeld }) {
  if (handHeld && shown && !twice) return signal(kindOf(verdict));
  if (shown || asking || verdict?.result !== "accepted") return;
  const time = Date.parse(verdict.scanned_at);
  passingWord(text(`gate.still_${verdict.direction}`, { name: isolated(nameOf(verdict)), ago: ago(now() - time) }));
}

/** Several codes are in view, and nothing tells which one is meant. */
function unsure() {
  if (!asking && !isSheetOpen() && !verdicts.shown) passingWord(text("gate.one_code"));
}

/** Shows a note that disappears unless it is repeated. */
function passingWord(word) {
  pill(word);
  clearTimeout(passing);
  passing = setTimeout(() => asking || pill(""), STILL_SHOWN);
}

// Scans that were not taken.

const held = new Map();

/**
 * Handles a code that cannot be taken. The camera will see a code behind a fresh refusal again once it can be taken, so it only
 * counts as missed if it is gone by then.
 */
function passedOver(code, why, { handHeld }) {
  if (handHeld) return tellMissed(why, [code]);
  if (why !== "verdict" || !verdicts.givesIn) {
    if (repeats.tellsMissed(code)) tellMissed(why, [code]);
  } else if (!held.has(code)) {
    held.set(code, setTimeout(() => {
      held.delete(code);
      if (!repeats.sees(code) && repeats.tellsMissed(code)) tellMissed(why, [code]);
    }, verdicts.givesIn + STILL_SHOWN));
  }
}

/** Marks all waiting scans as not taken. */
function missedAll(why) {
  const codes = waiting.splice(0).map(({ code }) => code);
  if (codes.length > 0) tellMissed(why, codes);
}

let missedTimer = 0;

/** Says by sound, in words and in the list that some scans were not taken. */
function tellMissed(why, codes) {
  for (const code of codes) if (code !== null) repeats.drop(code);
  gate.missed(codes.length);
  setTimeout(() => signal("undecided"), why === "verdict" || asking ? AFTER_VERDICT : 0);
  const count = codes.length > 1 ? ` × ${number(codes.length)}` : "";
  const missed = find("#missed");
  missed.replaceChildren(element("b", {}, `${text("result.not_taken")}${count}`), " ", text(`gate.missed_${why}`));
  // Elements outside an open dialog are hidden behind it.
  (find("#verdict[open]") ?? [...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(missed);
  missed.hidden = false;
  clearTimeout(missedTimer);
  missedTimer = setTimeout(unsayMissed, MISSED_SHOWN);
}

function unsayMissed() {
  clearTimeout(missedTimer);
  find("#missed").hidden = true;
}

/** Marks a moment, for measuring how long the last verdict took. */
function mark(moment) {
  performance.clearMarks(moment);
  performance.mark(moment);
}

/** Shows a short text over the camera picture, or removes it. */
function pill(word) {
  find("#pill").textContent = word || (isLocked() ? text("gate.touch_for_sound") : "");
}

// Enrolment.

/** Asks the person here: anybody may have made the link. */
async function offer(token, link) {
  if (asking || (link && !token)) return; // Another code happened to be in view.
  asking = true;
  const key = await readOffer(gate, token);
  asking = false;
  stopEnrolling();
  takeNext();
  offered = key && token;
  if (key) showOffer(key, gate);
  show();
}

async function accept() {
  if (asking) return;
  asking = true;
  const done = await enrol(gate, offered);
  asking = false;
  if (!done) return decline();
  forget(ANY_GATE);
  decline();
  work();
}

function decline() {
  offered = null;
  show();
}

function stopEnrolling() {
  endEnrolling();
  if (!gate.device) scanner.stop();
}

function endEnrolling() {
  enrolling = false;
  delete document.body.dataset.enrolling;
  find("#enrol-scan-text").textContent = text("gate.enrol_scan");
}

function startEnrolling() {
  enrolling = true;
  document.body.dataset.enrolling = "";
  find("#enrol-scan-text").textContent = text("gate.cancel");
  startCamera();
}

// Background work.

async function work() {
  keepPage();
  if (!gate.device && gate.state.queued === 0 && gate.state.storage) return;
  await gate.sync();
  await refreshCounts();
}

/** Makes the page work offline. After that, the service worker updates it on every visit. */
async function keepPage() {
  if (isKept || isKeeping) return;
  isKeeping = true;
  isKept = await keepOffline();
  isKeeping = false;
  show();
}

async function keepAwake() {
  if (document.visibilityState !== "visible") return;
  await navigator.wakeLock?.request("screen").catch(() => {}); // Refused when the battery is low.
}

function visibilityChanged() {
  keepAwake();
  if (document.visibilityState === "hidden") scanner.stop();
  else if (isCameraWanted() && !scanner.running) startCamera();
}

async function leave() {
  find("#more-sheet").close();
  const unsent = gate.state.queued ? text("gate.enrol_unsent", { n: number(gate.state.queued) }) : "";
  if (!(await confirmed(text("gate.leave_title"), `${text("gate.leave_sure")} ${unsent}`, text("gate.leave")))) return;
  forget(ANY_GATE);
  leaving = true;
  await gate.leave();
  show();
  leaving = false;
}

function onClick(id, act) {
  find(id).addEventListener("click", act);
}

function listen() {
  gate.addEventListener("state", show);
  gate.addEventListener("corrected", ({ detail }) => {
    corrected += detail.length;
    show();
  });
  onClick("#enrol-scan", () => (enrolling ? stopEnrolling() : startEnrolling()));
  find("#enrol-form").addEventListener("submit", (event) => {
    event.preventDefault();
    offer(tokenIn(find("#enrol-link").value));
    find("#enrol-form").reset();
  });
  addEventListener("hashchange", () => {
    const token = takeToken();
    if (token) offer(token);
  });
  onClick("#offer-accept", accept);
  onClick("#offer-decline", decline);
  onClick("#stranded", () => openStranded(gate));
  onClick("#save-unsent", () => openStranded(gate));
  find("#choose-form").addEventListener("submit", (event) => {
    event.preventDefault();
    choose(find("#choose-name").value.trim());
  });
  onClick("#choose-any", () => choose(null));
  for (const way of ["entry", "exit"]) {
    onClick(`#${way}`, async () => {
      repeats.forget();
      await gate.setDirection(way);
      show();
    });
  }
  onClick("#type", () => typing.open({ gate: ownGate(), gates: knownGates(), isSupervisor: gate.supervises }));
  onClick("#guest", () => guests.open());
  onClick("#door", () => door.open(ownGate(), counts));
  onClick("#last", openScans);
  onClick("#counts", async () => {
    await refreshCounts();
    if (counts && !find("dialog[open]")) openCounts(counts, ownGate());
  });
  onClick("#more", () => openMore(gate, timeZone()));
  onClick("#torch", async () => {
    await scanner.setTorch(!scanner.torch);
    find("#torch").setAttribute("aria-pressed", scanner.torch);
  });
  onClick("#camera", () => startCamera(async () => {
    pill(await scanner.nextCamera());
    setTimeout(() => pill(""), 2000);
  }));
  onClick("#camera-again", () => startCamera());
  onClick("#leave", leave);
  onClick("#send-now", work);
  onClick("#change-gate", async () => {
    find("#more-sheet").close();
    forget(ANY_GATE);
    await gate.setAtGate(null);
    show();
  });
  addEventListener("online", work);
  onLocked(() => pill(""));
  document.addEventListener("visibilitychange", visibilityChanged);
}

listen();
pill("");
keepAwake();
if (token) await offer(token);
else show();
take = ({ code, ...spelled }) => seen(code, { handHeld: true, spelled });
early.splice(0).forEach(take);
work();
setInterval(work, SYNC_EVERY);
