//! Offline admissions that a gate could not send before its key ended: they are recorded as decided, by the device's
//! own proof, with the organizer's consent if the key was revoked, and as a conflict where the service would have
//! refused.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    an_expired_key_sends_what_it_scanned_before_its_end_and_nothing_else,
    a_revoked_key_sends_nothing_until_an_organizer_agrees,
    what_was_revoked_with_its_maker_is_taken_with_consent,
    a_consent_ends_and_a_later_revocation_ends_it_at_once,
    a_consent_is_to_the_device_before_and_not_to_the_one_whose_key_was_good,
    the_device_before_keeps_its_proof_when_another_one_enrols,
    a_key_that_never_had_a_list_leaves_no_proof,
    what_a_lost_phone_admitted_marks_the_renewed_ticket,
    a_reissued_or_transferred_ticket_does_not_admit_twice,
    a_ticket_that_was_used_before_it_was_reissued_is_a_conflict,
    what_has_admitted_since_or_was_revoked_is_a_conflict,
    a_file_is_recorded_as_of_the_key_that_wrote_it,
    a_file_is_taken_of_good_ended_and_replaced_keys_however_late,
    a_file_that_was_changed_or_is_of_another_key_or_event_is_refused_scan_by_scan,
    a_file_and_a_batch_of_the_same_scans_record_them_once,
    what_the_gate_refused_stays_refused_in_a_file,
    only_a_supervisors_file_holds_manual_admissions,
    answers_about_an_ended_key_tell_no_names,
    a_key_that_was_made_while_the_clock_was_ahead_loses_no_scan,
    a_consent_counts_though_the_clock_was_ahead_when_the_key_was_revoked,
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const BATCH: &str = "/api/events/default/scans/batch";
const MANIFEST: &str = "/api/events/default/manifest";
const SCANS: &str = "/api/events/default/scans";

/// A scan as a device writes it to a file: an entry that it admitted, this many milliseconds from now.
pub fn written(service: &Service, ticket: &Ticket, milliseconds: i64) -> Value {
    json!({
        "scan_id": Uuid::now_v7(), "ticket_id": ticket.ticket_id, "direction": "entry",
        "scanned_at": service.time(milliseconds), "offline_result": "accepted",
    })
}

/// What an organizer sends from the file of the device with this key (as `POST /api/keys` or `/api/enrol` returned it).
pub fn handed(key: &Value, event: &str, scans: &[Value]) -> Value {
    let text = key["key"].as_str().and_then(|key| key.strip_prefix("rtk_")).expect("a key");
    let hash = Sha256::digest(BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url"));
    let proven = |scan: &Value| {
        let scan = scan.to_string();
        let key_id = key["key_id"].as_str().expect("a key has an id");
        let mac = Hmac::<Sha256>::new_from_slice(&hash).expect("any length");
        let mac = mac.chain_update(format!("unsent scan\n{key_id}\n{event}\n{scan}"));
        json!({ "scan": scan, "proof": BASE64URL_NOPAD.encode(&mac.finalize().into_bytes()) })
    };
    json!({ "event": event, "scans": scans.iter().map(proven).collect::<Vec<_>>() })
}

fn id(key: &Value) -> &str {
    key["key_id"].as_str().expect("a key has an id")
}

fn holder(service: &Service, key: &Value) -> Client {
    service.anonymous.with_key(key["key"].as_str().expect("its secret"))
}

async fn offline_key(service: &Service, more: Value) -> Value {
    let body =
        with(json!({ "name": "North 1", "role": "gate", "event": "default", "gate": "North", "offline": true }), more);
    service.organizer.post("/api/keys", body).await.is(201)
}

/// A scan that a gate accepted offline.
fn offline(service: &Service, ticket: &Ticket, milliseconds: i64) -> Value {
    let at = service.moment(milliseconds);
    json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(at), "scanned_at": at, "offline_result": "accepted" })
}

async fn send(client: &Client, scan: &Value) -> Value {
    client.post(BATCH, json!({ "scans": [scan] })).await.is(200)["results"][0].clone()
}

async fn agree(service: &Service, key: &Value) -> Value {
    service.organizer.bare(Method::POST, format!("/api/keys/{}/take", id(key))).await.is(200)
}

async fn revoke(service: &Service, key: &Value) {
    service.organizer.delete(format!("/api/keys/{}", id(key))).await.is(204);
}

async fn enrol(service: &Service, key: &Value) -> Value {
    let offer = service.organizer.bare(Method::POST, format!("/api/keys/{}/enrol", id(key))).await.is(200);
    let (_, token) = offer["enrol_url"].as_str().and_then(|url| url.split_once('=')).expect("a token");
    service.anonymous.post("/api/enrol", json!({ "token": token })).await.is(200)
}

async fn hand_in(service: &Service, key: &Value, body: Value) -> Value {
    service.organizer.post(format!("/api/keys/{}/scans", id(key)), body).await.is(200)["results"].clone()
}

async fn conflicts(service: &Service) -> Vec<Value> {
    let answer = service.organizer.get("/api/events/default/conflicts").await.is(200);
    answer["conflicts"].as_array().expect("a list").clone()
}

async fn an_expired_key_sends_what_it_scanned_before_its_end_and_nothing_else(service: Service) {
    let key = offline_key(&service, json!({ "expires_at": service.time(HOUR) })).await;
    let (gate, first, second) = (holder(&service, &key), service.ticket("A1").await, service.ticket("A2").await);
    service.clock.advance(HOUR + 5 * MINUTE);
    let good = offline(&service, &first, -5 * MINUTE);
    assert_members(&send(&gate, &good).await, json!({ "result": "accepted" }));
    for (scan, why) in [
        (offline(&service, &second, -5 * MINUTE + 1), "after its end"),
        (offline(&service, &second, -HOUR - 5 * MINUTE - 1), "before it was made"),
    ] {
        assert_members(&send(&gate, &scan).await, json!({ "status": 422, "code": "invalid_payload" }));
        assert_eq!(service.database.count("select count(*) from scans").await, 1, "{why}");
    }
    let wrong = json!({ "code": format!("RT1.{}", "x".repeat(20)) });
    let forged = with(offline(&service, &second, -10 * MINUTE), json!({ "code": first.qr(service.moment(0)) }));
    assert_members(&send(&gate, &with(forged, wrong)).await, json!({ "result": "unknown_ticket" }));
    for path in [MANIFEST, "/api/events/default/stats", "/metrics"] {
        gate.get(path).await.is_refused(401, "unauthenticated");
    }
    gate.post(SCANS, service.scan(&second)).await.is_refused(401, "unauthenticated");
    service.clock.advance(72 * HOUR - 5 * MINUTE - 1);
    gate.post(BATCH, json!({ "scans": [good] })).await.is(200);
    service.clock.advance(1);
    gate.post(BATCH, json!({ "scans": [good] })).await.is_refused(401, "unauthenticated");
}

async fn a_revoked_key_sends_nothing_until_an_organizer_agrees(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let (gate, tickets) = (holder(&service, &key), [service.ticket("A1").await, service.ticket("A2").await]);
    service.clock.advance(HOUR);
    let scans = tickets.each_ref().map(|ticket| offline(&service, ticket, -10 * MINUTE));
    revoke(&service, &key).await;
    // It was offline and went on until it learned of its revocation.
    service.clock.advance(10 * MINUTE);
    let after = offline(&service, &tickets[1], -5 * MINUTE);
    gate.post(BATCH, json!({ "scans": scans })).await.is_refused(401, "unauthenticated");
    let taken = agree(&service, &key).await;
    assert_eq!(taken["taken_until"], service.time(72 * HOUR));
    service.clock.advance(MINUTE);
    assert_members(
        &send(&gate, &scans[0]).await,
        json!({ "result": "accepted", "scanned_at": scans[0]["scanned_at"] }),
    );
    assert_members(&send(&gate, &after).await, json!({ "result": "accepted" }));
    let later = offline(&service, &tickets[1], 0);
    assert_members(&send(&gate, &later).await, json!({ "status": 422 }));
    gate.get(MANIFEST).await.is_refused(401, "unauthenticated");
    gate.post(SCANS, service.scan(&tickets[1])).await.is_refused(401, "unauthenticated");
    let listed = service.organizer.get("/api/keys").await.is(200)["keys"][0].clone();
    assert_eq!(listed["taken_at"], service.time(-MINUTE));
}

async fn what_was_revoked_with_its_maker_is_taken_with_consent(service: Service) {
    let office = json!({ "name": "Office", "role": "organizer", "event": "default" });
    let office = service.organizer.post("/api/keys", office).await.is(201);
    let body = json!({ "name": "North 1", "role": "gate", "event": "default", "offline": true });
    let key = holder(&service, &office).post("/api/keys", body).await.is(201);
    let ticket = service.ticket("A1").await;
    service.clock.advance(HOUR);
    let scan = offline(&service, &ticket, -MINUTE);
    revoke(&service, &office).await;
    holder(&service, &key).post(BATCH, json!({ "scans": [scan] })).await.is_refused(401, "unauthenticated");
    agree(&service, &key).await;
    assert_members(&send(&holder(&service, &key), &scan).await, json!({ "result": "accepted" }));
}

async fn a_consent_ends_and_a_later_revocation_ends_it_at_once(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let (gate, ticket) = (holder(&service, &key), service.ticket("A1").await);
    gate.get(MANIFEST).await.is(200);
    let scan = offline(&service, &ticket, 0);
    let second = enrol(&service, &key).await;
    agree(&service, &key).await;
    send(&gate, &scan).await;
    service.clock.advance(MINUTE);
    revoke(&service, &key).await;
    for client in [&gate, &holder(&service, &second)] {
        client.post(BATCH, json!({ "scans": [scan] })).await.is_refused(401, "unauthenticated");
    }
    agree(&service, &key).await;
    service.clock.advance(72 * HOUR - 1);
    gate.post(BATCH, json!({ "scans": [scan] })).await.is(200);
    service.clock.advance(1);
    gate.post(BATCH, json!({ "scans": [scan] })).await.is_refused(401, "unauthenticated");
}

async fn a_consent_is_to_the_device_before_and_not_to_the_one_whose_key_was_good(service: Service) {
    let made = offline_key(&service, json!({ "expires_at": service.time(HOUR) })).await;
    let tickets = [service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await];
    let before = holder(&service, &made);
    before.get(MANIFEST).await.is(200);
    let left = offline(&service, &tickets[0], 0);
    service.clock.advance(MINUTE);
    let device = holder(&service, &enrol(&service, &made).await);
    device.get(MANIFEST).await.is(200);
    let guess = json!({ "code": tickets[1].qr(service.now()).replace(&tickets[1].code(service.now()), "000000") });
    let guessed = with(offline(&service, &tickets[1], 0), guess);
    service.clock.advance(MINUTE);
    agree(&service, &made).await;
    service.clock.advance(MINUTE);
    let good = offline(&service, &tickets[2], 0);
    service.clock.advance(HOUR);
    assert_members(&send(&before, &left).await, json!({ "result": "accepted" }));
    assert_members(&send(&device, &good).await, json!({ "result": "accepted" }));
    assert_members(&send(&device, &guessed).await, json!({ "result": "wrong_code" }));
}

async fn the_device_before_keeps_its_proof_when_another_one_enrols(service: Service) {
    let made = offline_key(&service, json!({})).await;
    let tickets = [service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await];
    let mut devices = Vec::new();
    for _ in 0..3 {
        devices.push(holder(&service, &enrol(&service, &made).await));
        devices.last().expect("one").get(MANIFEST).await.is(200);
        service.clock.advance(MINUTE);
    }
    let scans = tickets.each_ref().map(|ticket| offline(&service, ticket, -MINUTE / 2));
    for device in &devices[..2] {
        device.post(BATCH, json!({ "scans": [scans[0]] })).await.is_refused(401, "unauthenticated");
    }
    let listed = service.organizer.get("/api/keys").await.is(200)["keys"][0].clone();
    assert_eq!(listed["replaced_at"], service.time(-MINUTE));
    agree(&service, &made).await;
    for (device, scan) in devices.iter().zip(&scans) {
        assert_members(&send(device, scan).await, json!({ "result": "accepted" }));
    }
    for device in &devices[..2] {
        device.get(MANIFEST).await.is_refused(401, "unauthenticated");
    }
    devices[2].get(MANIFEST).await.is(200);
    assert_eq!(service.database.count("select count(distinct key_id) from scans").await, 1);
}

async fn a_key_that_never_had_a_list_leaves_no_proof(service: Service) {
    let made = offline_key(&service, json!({})).await;
    enrol(&service, &made).await;
    assert_eq!(service.database.count("select count(*) from former_secrets").await, 0);
    agree(&service, &made).await;
    let scan = offline(&service, &service.ticket("A1").await, 0);
    holder(&service, &made).post(BATCH, json!({ "scans": [scan] })).await.is_refused(401, "unauthenticated");
}

async fn what_a_lost_phone_admitted_marks_the_renewed_ticket(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let (gate, ticket) = (holder(&service, &key), service.ticket("A1").await);
    gate.get(MANIFEST).await.is(200);
    service.clock.advance(HOUR);
    let scan = offline(&service, &ticket, -10 * MINUTE);
    let renewed = service.organizer.bare(Method::POST, format!("/api/keys/{}/lost", id(&key))).await.is(200);
    assert_eq!(renewed, json!({ "renewed": 1, "remaining": 0 }));
    agree(&service, &key).await;
    assert_members(&send(&gate, &scan).await, json!({ "result": "accepted" }));
    let shown = service.organizer.get(format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
    assert_members(&shown, json!({ "status": "used", "used_at": service.time(-10 * MINUTE), "inside": true }));
    assert!(conflicts(&service).await.is_empty());
}

async fn a_reissued_or_transferred_ticket_does_not_admit_twice(service: Service) {
    let key = offline_key(&service, json!({})).await;
    service.user("ben").await;
    for (seat, change, body) in [("A1", "reissue", Value::Null), ("A2", "transfer", json!({ "username": "ben" }))] {
        let ticket = service.ticket(seat).await;
        service.clock.advance(HOUR);
        let scan = written(&service, &ticket, -10 * MINUTE);
        let path = format!("/api/tickets/{}/{change}", ticket.ticket_id);
        let changed = match body {
            Value::Null => service.organizer.bare(Method::POST, path).await.is(200),
            body => service.organizer.post(path, body).await.is(200),
        };
        let changed = Ticket::new(&changed);
        let results = hand_in(&service, &key, handed(&key, "default", &[scan])).await;
        assert_members(&results[0], json!({ "result": "accepted" }));
        service.organizer.post(SCANS, service.scan(&changed)).await.is_scan(409, "already_used");
    }
}

async fn a_ticket_that_was_used_before_it_was_reissued_is_a_conflict(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let ticket = service.ticket("A1").await;
    service.organizer.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    service.clock.advance(HOUR);
    let scan = written(&service, &ticket, -10 * MINUTE);
    let path = |what: &str| format!("/api/tickets/{}/{what}", ticket.ticket_id);
    service.organizer.bare(Method::POST, path("revoke")).await.is(200);
    let reissued = Ticket::new(&service.organizer.bare(Method::POST, path("reissue")).await.is(200));
    let results = hand_in(&service, &key, handed(&key, "default", &[scan])).await;
    assert_members(&results[0], json!({ "result": "already_used" }));
    assert_eq!(conflicts(&service).await.len(), 1);
    service.organizer.post(SCANS, service.scan(&reissued)).await.is_scan(200, "accepted");
}

async fn what_has_admitted_since_or_was_revoked_is_a_conflict(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let (used, revoked) = (service.ticket("A1").await, service.ticket("A2").await);
    service.clock.advance(HOUR);
    let scans = [written(&service, &used, -10 * MINUTE), written(&service, &revoked, -10 * MINUTE)];
    service.organizer.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    let results = hand_in(&service, &key, handed(&key, "default", &scans)).await;
    assert_members(&results[0], json!({ "result": "already_used" }));
    assert_members(&results[1], json!({ "result": "revoked" }));
    let conflicts = conflicts(&service).await;
    assert_eq!(conflicts.len(), 2);
    for conflict in conflicts {
        assert_members(&conflict, json!({ "offline_result": "accepted", "key_id": key["key_id"], "at_gate": "North" }));
    }
}

async fn a_file_is_recorded_as_of_the_key_that_wrote_it(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let ticket = service.ticket("A1").await;
    service.clock.advance(HOUR);
    let scan = with(written(&service, &ticket, -10 * MINUTE), json!({ "at_gate": "South" }));
    let body = handed(&key, "default", &[scan.clone(), scan.clone()]);
    revoke(&service, &key).await;
    let results = hand_in(&service, &key, body.clone()).await;
    let first =
        json!({ "result": "accepted", "at_gate": "North", "scanned_at": scan["scanned_at"], "replayed": false });
    assert_members(&results[0], first);
    assert_members(&results[1], json!({ "result": "accepted", "replayed": true }));
    let of_key = service.organizer.get(format!("/api/keys/{}/scans", id(&key))).await.is(200);
    assert_members(&of_key["scans"][0], json!({ "scan_id": scan["scan_id"], "received_at": service.time(0) }));
    let actions = service.organizer.get("/api/actions.csv").await.text();
    let line = actions.lines().find(|line| line.contains("scans_handed_in")).expect("who handed it in is recorded");
    assert!(line.contains(id(&key)) && line.ends_with(",\"2\""), "{line}");
    hand_in(&service, &key, body).await;
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
}

async fn a_file_is_taken_of_good_ended_and_replaced_keys_however_late(service: Service) {
    let made = offline_key(&service, json!({})).await;
    let before = enrol(&service, &made).await;
    let tickets = [service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await];
    holder(&service, &before).get(MANIFEST).await.is(200);
    let scans = tickets.each_ref().map(|ticket| written(&service, ticket, 0));
    let too_old = written(&service, &tickets[2], -1);
    let now = enrol(&service, &made).await;
    for (device, scan) in [(&before, &scans[0]), (&now, &scans[1])] {
        let results = hand_in(&service, &made, handed(device, "default", std::slice::from_ref(scan))).await;
        assert_members(&results[0], json!({ "result": "accepted" }));
    }
    service.clock.advance(60 * 24 * HOUR);
    revoke(&service, &made).await;
    let results = hand_in(&service, &made, handed(&before, "default", &[scans[2].clone(), too_old])).await;
    assert_members(&results[0], json!({ "result": "accepted", "scanned_at": scans[2]["scanned_at"] }));
    assert_members(&results[1], json!({ "status": 422 }));
}

async fn a_file_that_was_changed_or_is_of_another_key_or_event_is_refused_scan_by_scan(service: Service) {
    let (key, other) = (offline_key(&service, json!({})).await, offline_key(&service, json!({})).await);
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let (ticket, good) = (service.ticket("A1").await, service.ticket("A2").await);
    service.clock.advance(MINUTE);
    let scan = written(&service, &ticket, -MINUTE);
    let item =
        |key: &Value, event: &str, scan: &Value| handed(key, event, std::slice::from_ref(scan))["scans"][0].clone();
    let right = item(&key, "default", &scan);
    let text = right["scan"].as_str().expect("a text");
    let mut items = vec![
        with(right.clone(), json!({ "scan": text.replace("entry", "exit") })),
        with(right.clone(), json!({ "scan": format!("{text} ") })),
        with(right.clone(), json!({ "proof": "A".repeat(43) })),
        item(&with(key.clone(), json!({ "key": other["key"] })), "default", &scan),
        item(&other, "default", &scan),
        item(&key, "gala", &scan),
    ];
    let unreadable = ["7", "{}", "null", "not JSON", r#"{"scan_id": "x"}"#];
    let forms = [
        json!({ "seat": "A1" }),
        json!({ "note": "x" }),
        json!({ "offline_result": "undone" }),
        json!({ "code": "x" }),
    ];
    items.extend(forms.iter().map(|wrong| item(&key, "default", &with(scan.clone(), wrong.clone()))));
    let nonsense = unreadable.map(|text| item(&key, "default", &json!(text)));
    items.extend(nonsense);
    let count = items.len();
    items.push(item(&key, "default", &written(&service, &good, -MINUTE)));
    let results = hand_in(&service, &key, json!({ "event": "default", "scans": items })).await;
    for (place, result) in results.as_array().expect("results").iter().take(count).enumerate() {
        assert_eq!(result["code"], "invalid_payload", "{place}: {result}");
    }
    assert_eq!(results[0]["errors"][0]["code"], "not_of_this_key");
    assert_members(&results[count], json!({ "result": "accepted" }));
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
    let path = format!("/api/keys/{}/scans", id(&key));
    let body = handed(&key, "nowhere", std::slice::from_ref(&scan));
    service.unchanged(service.organizer.post(&path, body)).await.is_refused(404, "event_not_found");
    let many = json!({ "event": "default", "scans": vec![json!({ "scan": "", "proof": "" }); 501] });
    service.unchanged(service.organizer.post(&path, many)).await.is_refused(422, "invalid_payload");
}

async fn a_file_and_a_batch_of_the_same_scans_record_them_once(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let (gate, first, second) = (holder(&service, &key), service.ticket("A1").await, service.ticket("A2").await);
    service.clock.advance(HOUR);
    let (sent, kept) = (offline(&service, &first, -MINUTE), offline(&service, &second, -MINUTE));
    let nothing =
        with(sent.clone(), json!({ "scan_id": Uuid::now_v7(), "code": "hello", "offline_result": "unknown_ticket" }));
    send(&gate, &sent).await;
    send(&gate, &nothing).await;
    let of =
        |scan: &Value, ticket: &Ticket| with(written(&service, ticket, -MINUTE), json!({ "scan_id": scan["scan_id"] }));
    let bare = with(of(&nothing, &first), json!({ "ticket_id": null, "offline_result": "unknown_ticket" }));
    let file = handed(&key, "default", &[of(&sent, &first), of(&kept, &second), bare]);
    let results = hand_in(&service, &key, file).await;
    assert_members(&results[0], json!({ "result": "accepted", "replayed": true }));
    assert_members(&results[1], json!({ "result": "accepted", "replayed": false }));
    assert_members(&results[2], json!({ "result": "unknown_ticket", "replayed": true }));
    assert_members(&send(&gate, &kept).await, json!({ "result": "accepted", "replayed": true }));
    assert_eq!(service.database.count("select count(*) from scans").await, 3);
}

async fn what_the_gate_refused_stays_refused_in_a_file(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let ticket = service.ticket("A1").await;
    service.clock.advance(HOUR);
    for refused in ["wrong_code", "stale_code", "already_used", "not_registered", "revoked"] {
        let scan = with(written(&service, &ticket, -MINUTE), json!({ "offline_result": refused }));
        let results = hand_in(&service, &key, handed(&key, "default", &[scan])).await;
        assert_members(&results[0], json!({ "result": refused }));
    }
    assert!(conflicts(&service).await.is_empty());
    assert_eq!(service.database.count("select count(*) from tickets where status = 'valid'").await, 1);
}

async fn only_a_supervisors_file_holds_manual_admissions(service: Service) {
    for (role, seat, expected) in [
        ("gate", "A1", json!({ "status": 403, "code": "forbidden" })),
        ("supervisor", "A2", json!({ "result": "accepted" })),
    ] {
        let key = offline_key(&service, json!({ "role": role })).await;
        let ticket = service.ticket(seat).await;
        let by_hand = json!({ "ticket_id": null, "seat": seat, "gate": "North", "note": "broken phone" });
        let scan = with(written(&service, &ticket, 0), by_hand);
        let results = hand_in(&service, &key, handed(&key, "default", &[scan])).await;
        assert_members(&results[0], expected);
    }
    assert_eq!(service.database.count("select count(*) from scans where manual").await, 1);
}

async fn answers_about_an_ended_key_tell_no_names(service: Service) {
    let key = offline_key(&service, json!({ "role": "supervisor" })).await;
    let ticket = service.ticket("A1").await;
    let scan = offline(&service, &ticket, 0);
    revoke(&service, &key).await;
    agree(&service, &key).await;
    for _ in 0..2 {
        let answer = send(&holder(&service, &key), &scan).await;
        assert_members(&answer, json!({ "result": "accepted" }));
        assert_members(
            &answer["ticket"],
            json!({ "username": null, "full_name": null, "used_at": null, "seat": "A1" }),
        );
    }
}

async fn a_key_that_was_made_while_the_clock_was_ahead_loses_no_scan(service: Service) {
    let tickets = [service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await];
    service.clock.advance(2 * HOUR);
    let key = offline_key(&service, json!({})).await;
    service.clock.advance(-2 * HOUR);
    let gate = holder(&service, &key);
    service.clock.advance(10 * MINUTE);
    let soon = offline(&service, &tickets[0], -5 * MINUTE);
    assert_members(&send(&gate, &soon).await, json!({ "result": "accepted" }));
    // Also once the key's creation is in the past, and in a process that never saw it in the future.
    let late = offline(&service, &tickets[1], MINUTE);
    service.clock.advance(4 * HOUR);
    let another = service.another(&[]);
    assert_members(&send(&holder(&another, &key), &late).await, json!({ "result": "accepted" }));
    let too_old = offline(&service, &tickets[2], -72 * HOUR - 1);
    assert_members(&send(&gate, &too_old).await, json!({ "status": 422, "code": "invalid_payload" }));
    let ahead = offline(&service, &tickets[2], MINUTE);
    assert_members(&send(&gate, &ahead).await, json!({ "status": 422, "code": "invalid_payload" }));
    // Also in a file, from a device that was never heard.
    service.clock.advance(2 * HOUR);
    let unseen = offline_key(&service, json!({})).await;
    service.clock.advance(-2 * HOUR);
    let file = handed(&unseen, "default", &[written(&service, &tickets[2], -MINUTE)]);
    assert_members(&hand_in(&service, &unseen, file).await[0], json!({ "result": "accepted" }));
}

async fn a_consent_counts_though_the_clock_was_ahead_when_the_key_was_revoked(service: Service) {
    let key = offline_key(&service, json!({})).await;
    let tickets = [service.ticket("A1").await, service.ticket("A2").await];
    service.clock.advance(HOUR);
    let scan = offline(&service, &tickets[0], -MINUTE);
    service.clock.advance(2 * HOUR);
    revoke(&service, &key).await;
    service.clock.advance(-2 * HOUR);
    let gate = holder(&service, &key);
    gate.post(BATCH, json!({ "scans": [scan] })).await.is_refused(401, "unauthenticated");
    agree(&service, &key).await;
    assert_members(&send(&gate, &scan).await, json!({ "result": "accepted" }));
    let ahead = offline(&service, &tickets[1], MINUTE);
    assert_members(&send(&gate, &ahead).await, json!({ "status": 422, "code": "invalid_payload" }));
}
