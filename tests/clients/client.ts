// A client as its author would write it in TypeScript, using only openapi-fetch and the types that
// openapi-typescript generates from the document. Needs SERVICE_URL and ORGANIZER_KEY in the environment.
import assert from "node:assert/strict";
import { createHmac, randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Schemas = components["schemas"];

const event = "typescript";
const client = createClient<paths>({
  baseUrl: process.env["SERVICE_URL"]!,
  headers: { Authorization: `Bearer ${process.env["ORGANIZER_KEY"]}` },
});
const seen = new Set<Schemas["ScanResult"]>();

type Answer<Data, Failure> = { data?: Data; error?: Failure; response: Response };

/** The content of a successful answer. */
function success<Data>({ data, error, response }: Answer<Data, unknown>): NonNullable<Data> {
  assert.ok(data, `${response.status} ${JSON.stringify(error)}`);
  return data;
}

/** The content of a refusal with this status. */
function failure<Failure>({ error, response }: Answer<unknown, Failure>, status: number): NonNullable<Failure> {
  assert.equal(response.status, status, JSON.stringify(error));
  assert.ok(error);
  return error;
}

/** Narrows an answer to a refusal, not a decision. */
function problem(answer: Schemas["Problem"] | Schemas["Scan"]): Schemas["Problem"] {
  assert.ok("code" in answer, JSON.stringify(answer));
  return answer;
}

/** A ticket's code (RFC 6238), `seconds` from now. */
function code({ provisioning }: Schemas["TicketWithProvisioning"], seconds = 0): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...provisioning.secret].map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g)!.map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor((Date.now() / 1000 + seconds) / provisioning.period)));
  const digest = createHmac("sha1", key).update(step).digest();
  const number = digest.readUInt32BE(digest[19]! & 15) & 0x7fffffff;
  return String(number % 10 ** provisioning.digits).padStart(provisioning.digits, "0");
}

/** Scans a ticket and expects this answer. Fields with a default are omitted. */
async function scans(
  result: Schemas["ScanResult"],
  status: number,
  seat: string,
  totp_code: string,
  more: Partial<Schemas["ScanBySeat"]> = {},
): Promise<Schemas["Scan"]> {
  const body: Schemas["ScanBySeat"] = { scan_id: randomUUID(), seat, gate: "North", totp_code, ...more };
  const answer = await client.POST("/api/events/{event}/scans", { params: { path: { event } }, body });
  assert.equal(answer.response.status, status);
  const scan = answer.data ?? answer.error;
  assert.ok(scan && "result" in scan, JSON.stringify(scan));
  assert.equal(scan.result, result);
  seen.add(scan.result);
  return scan;
}

async function register(username: string, seat: string): Promise<Schemas["TicketWithProvisioning"]> {
  const body = { seat, gate: "North", event };
  return success(await client.POST("/api/users/{username}/tickets", { params: { path: { username } }, body }));
}

// An event with tickets, some of them held by a person. Fields with a default are omitted.
const made = success(await client.POST("/api/events", { body: { slug: event, name: "TypeScript" } }));
assert.equal(made.time_zone, "UTC");
const seats = ["A-1", "A-2", "A-3", "A-4"].map((seat) => ({ seat, gate: "North" }));
const counts = success(await client.POST("/api/events/{event}/tickets", { params: { path: { event } }, body: seats }));
// By its type it may also be the answer to a dry run.
assert.equal("created" in counts && counts.created, 4);
success(await client.POST("/api/users", { body: { username: "tea", full_name: "Tea" } }));
const ticket = await register("tea", "A-1");
const other = await register("tea", "A-2");
const revoked = await register("tea", "A-4");
const path = { ticket_id: revoked.ticket_id };
assert.equal(success(await client.POST("/api/tickets/{ticket_id}/revoke", { params: { path } })).status, "revoked");

// It admits once. Every decision is a scan, whatever its status.
const admitted = await scans("accepted", 200, "A-1", code(ticket));
assert.equal(admitted.ticket?.status, "used");
await scans("already_used", 409, "A-1", code(ticket));
const undo = { params: { path: { scan_id: admitted.scan_id } } };
assert.ok(success(await client.POST("/api/scans/{scan_id}/undo", undo)).undone_at);
await scans("undone", 409, "A-1", code(ticket), { scan_id: admitted.scan_id });
await scans("not_registered", 409, "A-3", "000000");
await scans("revoked", 410, "A-4", code(revoked));
await scans("unknown_ticket", 404, "A-9", "000000");
assert.equal((await scans("wrong_gate", 409, "A-2", code(other), { at_gate: "South" })).right_gate, "North");
await scans("not_inside", 409, "A-2", code(other), { direction: "exit" });
assert.ok((await scans("stale_code", 422, "A-2", code(other, -300))).seconds_off! < 0);
const hours = (count: number) => new Date(Date.now() + count * 3_600_000).toISOString();
const change = async (body: Schemas["EventChange"]) =>
  success(await client.PATCH("/api/events/{event}", { params: { path: { event } }, body }));
await change({ opens_at: hours(1) });
assert.ok((await scans("too_early", 409, "A-2", code(other))).opens_at);
await change({ opens_at: null, closes_at: hours(-1) });
assert.ok((await scans("too_late", 409, "A-2", code(other))).closed_at);
await change({ closes_at: null });
const near = Array.from({ length: 41 }, (_, step) => code(other, 30 * (step - 20)));
const wrong = ["000000", "111111"].find((digits) => !near.includes(digits))!;
for (let attempt = 0; attempt < 9; attempt++) await scans("wrong_code", 422, "A-2", wrong);
assert.equal((await scans("wrong_code", 422, "A-2", wrong)).ticket?.status, null);
await scans("too_many_attempts", 429, "A-2", wrong);
const all: Record<Schemas["ScanResult"], true> = {
  ...{ accepted: true, already_used: true, wrong_code: true, stale_code: true, wrong_gate: true },
  ...{ not_registered: true, not_inside: true, revoked: true, unknown_ticket: true, too_many_attempts: true },
  ...{ too_early: true, too_late: true, undone: true },
};
assert.deepEqual([...seen].sort(), Object.keys(all).sort());

// A refusal is a problem, even where a decision may be returned.
const invalid = { scan_id: randomUUID(), seat: " ", gate: "North", totp_code: "000000" };
const refused = await client.POST("/api/events/{event}/scans", { params: { path: { event } }, body: invalid });
const told = problem(failure(refused, 422));
assert.equal(told.code, "invalid_payload");
assert.deepEqual(told.errors?.map((error) => error.field), ["seat"]);
const exists = failure(await client.POST("/api/events", { body: { slug: event, name: "Again" } }), 409);
assert.equal(exists.code, "event_exists");

// The same as a form.
const form = { username: "tom" } satisfies Schemas["NewUserForm"];
const asForm = {
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
  bodySerializer: (body: object) => new URLSearchParams(Object.entries(body)),
};
assert.equal(success(await client.POST("/api/users", { body: form, ...asForm })).username, "tom");
console.log("TypeScript: registered, admitted, and refused in every way");
