//! Batches: the decisions that gates made offline.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    a_batch_is_decided_as_of_its_scanned_at,
    a_batch_applies_in_the_order_of_scanned_at,
    wrong_items_stand_beside_good_ones,
    an_item_that_names_a_member_twice_is_refused,
    an_item_that_cannot_be_read_is_refused_alone,
    a_gate_decides_only_what_is_kept,
    an_offline_result_is_for_batches_only,
    scanned_at_has_its_limits,
    what_is_older_than_the_newest_accepted_scan_changes_nothing,
    whom_the_gate_refused_did_not_come_in,
    a_whole_batch_sent_again_is_replayed,
    a_batch_is_replayed_however_late_and_from_whichever_key,
    a_batch_takes_five_hundred_scans,
    a_supervisors_batch_may_hold_manual_admissions,
    a_batch_that_is_not_one_is_refused,
}

const SCANS: &str = "/api/events/default/scans";
const BATCH: &str = "/api/events/default/scans/batch";
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

async fn a_batch_is_decided_as_of_its_scanned_at(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.clock.advance(2 * HOUR);
    let item = offline(&service, &ticket, -HOUR);
    let answer = gate.post(BATCH, json!({ "scans": [item] })).await.is(200);
    let scan = &answer["results"][0];
    assert_members(scan, json!({ "result": "accepted", "status": 200 }));
    assert_eq!(scan["ticket"]["used_at"], service.time(-HOUR));
    assert_eq!(scan["scanned_at"], service.time(-HOUR));
    let (decided_at, received_at) = (service.now().0 - HOUR, service.now().0);
    let kept = format!(
        "select count(*) from scans where offline_result = 'accepted' and result = 'accepted' \
         and decided_at = {decided_at} and received_at = {received_at}"
    );
    assert_eq!(service.database.count(&kept).await, 1);
}

async fn a_batch_applies_in_the_order_of_scanned_at(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.clock.advance(HOUR);
    let scans = json!([
        offline(&service, &ticket, -10 * MINUTE),
        with(offline(&service, &ticket, -20 * MINUTE), json!({ "direction": "exit" })),
        offline(&service, &ticket, -30 * MINUTE),
    ]);
    let answer = gate.post(BATCH, json!({ "scans": scans })).await.is(200);
    assert_eq!(results(&answer), ["already_used", "accepted", "accepted"]);
    assert_eq!(answer["results"][0]["first_used_at"], service.time(-30 * MINUTE));
    let left = "select count(*) from tickets where status = 'used' and not inside";
    assert_eq!(service.database.count(left).await, 1);
}

async fn wrong_items_stand_beside_good_ones(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let other = service.ticket("A2").await;
    service.clock.advance(MINUTE);
    let good = offline(&service, &ticket, -SECOND);
    let refused = [
        with(good.clone(), json!({ "scanned_at": null })),
        with(good.clone(), json!({ "offline_result": null })),
        with(good.clone(), json!({ "offline_result": "maybe" })),
        with(good.clone(), json!({ "code": null })),
        with(good.clone(), json!({ "scan_id": null })),
        with(good.clone(), json!({ "extra": 1 })),
        json!({}),
        json!(7),
        json!(null),
    ];
    let manual = json!({ "code": null, "seat": "A2", "gate": "North", "manual": true, "note": "x" });
    let manual = with(offline(&service, &other, 0), manual);
    let conflict = with(offline(&service, &other, 0), json!({ "scan_id": good["scan_id"] }));
    let mut scans = refused.to_vec();
    scans.extend([good, manual, conflict]);

    let batch = json!({ "scans": scans });
    let answer = gate.post(BATCH, batch.clone()).await.is(200);
    let items = answer["results"].as_array().expect("a batch has results");
    assert_eq!(items.len(), 12);
    for item in &items[..9] {
        assert_members(item, json!({ "status": 422, "code": "invalid_payload" }));
    }
    assert_eq!(items[9]["result"], "accepted");
    assert_members(&items[10], json!({ "status": 403, "code": "forbidden" }));
    assert_members(&items[11], json!({ "status": 409, "code": "scan_id_conflict" }));
    // Only the valid scan is on record now.
    service.unchanged(gate.post(BATCH, batch)).await.is(200);
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used'").await, 1);
}

async fn an_item_that_names_a_member_twice_is_refused(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.clock.advance(MINUTE);
    let item = offline(&service, &ticket, -SECOND).to_string();
    let twice = item.replacen('{', r#"{"direction": "exit", "direction": "entry", "#, 1);
    let body = format!(r#"{{"scans": [{}]}}"#, twice);
    let answer = service.unchanged(gate.send_as(Method::POST, BATCH, "application/json", body)).await.is(200);
    let refused = &answer["results"][0];
    assert_members(refused, json!({ "status": 422, "code": "invalid_payload" }));
    assert_eq!(refused["detail"], "direction: is given twice");
    let error = json!({ "field": "direction", "code": "given_twice", "params": {}, "message": "is given twice" });
    assert_eq!(refused["errors"], json!([error]));
}

async fn an_item_that_cannot_be_read_is_refused_alone(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let good = offline(&service, &ticket, 0).to_string();
    let id = || Uuid::now_v7();
    let unreadable = [
        format!(r#"{{"scan_id": "{}", "number": 1e999}}"#, id()),
        format!(r#"{{"scan_id": "{}", "scanned_at": 1e999}}"#, id()),
        format!(r#"{{"scan_id": "{}", "code": "\\ud800"}}"#, id()),
        format!(r#"{{"scan_id": "{}", "note": "\\udc00\\ud800"}}"#, id()),
        format!(r#"{{"scan_id": "{}", "code": {}{}}}"#, id(), "[".repeat(200), "]".repeat(200)),
        "1e999".to_owned(),
        r#""\\ud800""#.to_owned(),
    ];
    let body = format!(r#"{{"scans": [{}, {good}]}}"#, unreadable.join(", "));
    let answer = gate.send_as(Method::POST, BATCH, "application/json", body).await.is(200);
    for (place, item) in unreadable.iter().enumerate() {
        let refused = &answer["results"][place];
        assert_members(refused, json!({ "status": 422, "code": "invalid_payload" }));
        let scan_id = refused["scan_id"].as_str().unwrap_or("none");
        assert_eq!(item.contains(scan_id), item.starts_with('{'), "{item}: {refused}");
    }
    assert_eq!(answer["results"][unreadable.len()]["result"], "accepted");
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
}

/// `too_many_attempts` and `undone` are answers of the service that no row can have.
async fn a_gate_decides_only_what_is_kept(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    for word in ["too_many_attempts", "undone"] {
        let item = with(offline(&service, &ticket, 0), json!({ "offline_result": word }));
        let answer = service.unchanged(gate.post(BATCH, json!({ "scans": [item] }))).await.is(200);
        let refused = &answer["results"][0];
        assert_members(refused, json!({ "status": 422, "code": "invalid_payload" }));
        assert_members(&refused["errors"][0], json!({ "field": "offline_result", "code": "not_one_of" }));
    }
}

async fn an_offline_result_is_for_batches_only(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let scan = with(service.scan(&ticket), json!({ "offline_result": "accepted" }));
    service.unchanged(gate.post(SCANS, scan)).await.is_refused(422, "invalid_payload");
}

async fn scanned_at_has_its_limits(service: Service) {
    let ticket = service.ticket("A1").await;
    service.clock.advance(100 * HOUR);
    // The organizer's key comes from the environment and has no creation time; its scans may be as old as any.
    let gate = service.offline_gate().await;
    let organizer = &service.organizer;
    service.clock.advance(SECOND);
    let is_taken = async |client: &Client, milliseconds: i64| {
        let wrong = json!({ "code": null, "seat": "A1", "gate": "North", "totp_code": "none" });
        let item = with(offline(&service, &ticket, milliseconds), wrong);
        let answer = client.post(BATCH, json!({ "scans": [item] })).await.is(200);
        answer["results"][0]["result"] == "wrong_code"
    };
    assert!(is_taken(&gate, -SECOND).await);
    assert!(!is_taken(&gate, -SECOND - 1).await, "before the key was made");
    assert!(is_taken(&gate, 30 * SECOND).await);
    assert!(!is_taken(&gate, 30 * SECOND + 1).await, "too far in the future");
    assert!(is_taken(organizer, -72 * HOUR).await);
    assert!(!is_taken(organizer, -72 * HOUR - 1).await, "too long ago");
    assert_eq!(service.database.count("select count(*) from scans").await, 3);
}

async fn what_is_older_than_the_newest_accepted_scan_changes_nothing(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let exit = json!({ "direction": "exit" });
    service.clock.advance(HOUR);
    let before = service.version("A1").await;
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    gate.post(SCANS, with(service.scan(&ticket), exit.clone())).await.is_scan(200, "accepted");
    let late_entry = offline(&service, &ticket, -MINUTE);
    let answer = gate.post(BATCH, json!({ "scans": [late_entry] })).await.is(200);
    assert_eq!(results(&answer), ["already_used"]);

    service.clock.advance(30 * SECOND);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    let late_exit = with(offline(&service, &ticket, -MINUTE), exit);
    let answer = gate.post(BATCH, json!({ "scans": [late_exit] })).await.is(200);
    assert_eq!(results(&answer), ["not_inside"]);

    assert_eq!(service.database.count("select count(*) from tickets where inside").await, 1);
    assert_eq!(service.version("A1").await, before + 3, "in, out, in");
    // The gate's decisions are on record, to be reviewed as conflicts.
    let conflicts = "select count(*) from scans where offline_result = 'accepted' and result <> 'accepted'";
    assert_eq!(service.database.count(conflicts).await, 2);
}

/// A gate that did not yet know of a registration refused the ticket, which must still admit.
async fn whom_the_gate_refused_did_not_come_in(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let refused = with(offline(&service, &ticket, 0), json!({ "offline_result": "not_registered" }));
    let answer = gate.post(BATCH, json!({ "scans": [refused] })).await.is(200);
    assert_eq!(results(&answer), ["not_registered"]);
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used'").await, 0);
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn a_whole_batch_sent_again_is_replayed(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.clock.advance(MINUTE);
    let scans = json!([offline(&service, &ticket, -2 * SECOND), offline(&service, &ticket, -SECOND)]);
    let first = gate.post(BATCH, json!({ "scans": scans })).await.is(200);
    assert_eq!(results(&first), ["accepted", "already_used"]);
    let second = service.unchanged(gate.post(BATCH, json!({ "scans": scans }))).await.is(200);
    assert_eq!(results(&second), results(&first));
    for (first, second) in [0, 1].map(|place| (&first["results"][place], &second["results"][place])) {
        assert_eq!(*second, with(first.clone(), json!({ "replayed": true })));
    }
}

async fn a_batch_is_replayed_however_late_and_from_whichever_key(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.clock.advance(MINUTE);
    let batch = json!({ "scans": [offline(&service, &ticket, -SECOND)] });
    let first = gate.post(BATCH, batch.clone()).await.is(200);
    assert_eq!(results(&first), ["accepted"]);
    service.clock.advance(73 * HOUR);
    let newer = service.offline_gate().await;
    for key in [&gate, &newer] {
        let again = service.unchanged(key.post(BATCH, batch.clone())).await.is(200);
        assert_eq!(again["results"][0], with(first["results"][0].clone(), json!({ "replayed": true })));
    }
}

async fn a_batch_takes_five_hundred_scans(service: Service) {
    let gate = service.offline_gate().await;
    let item = || {
        let scan = json!({ "scan_id": Uuid::new_v4(), "code": "not ours", "scanned_at": service.time(0) });
        with(scan, json!({ "offline_result": "unknown_ticket" }))
    };
    let scans: Vec<Value> = (0..501).map(|_| item()).collect();
    let too_many = gate.post(BATCH, json!({ "scans": scans }));
    service.unchanged(too_many).await.is_refused(422, "invalid_payload");
    let answer = gate.post(BATCH, json!({ "scans": scans[..500] })).await.is(200);
    assert_eq!(results(&answer), ["unknown_ticket"; 500]);
    assert_eq!(gate.post(BATCH, json!({ "scans": [] })).await.is(200), json!({ "results": [] }));
}

async fn a_supervisors_batch_may_hold_manual_admissions(service: Service) {
    let ticket = service.ticket("A1").await;
    let body = json!({ "name": "x", "role": "supervisor", "offline": true });
    let supervisor = service.key(body).await;
    let manual = json!({ "code": null, "seat": "A1", "gate": "North", "manual": true, "note": "known" });
    let scans = json!([with(offline(&service, &ticket, 0), manual)]);
    let answer = supervisor.post(BATCH, json!({ "scans": scans })).await.is(200);
    assert_eq!(results(&answer), ["accepted"]);
    assert_eq!(service.database.count("select count(*) from scans where manual").await, 1);
}

async fn a_batch_that_is_not_one_is_refused(service: Service) {
    let gate: Client = service.offline_gate().await;
    for body in [json!({}), json!([]), json!({ "scans": {} }), json!({ "scans": [], "more": 1 })] {
        service.unchanged(gate.post(BATCH, body)).await.is_refused(422, "invalid_payload");
    }
}

/// A scan that a gate accepted offline, with the code the phone showed at that time.
fn offline(service: &Service, ticket: &Ticket, milliseconds: i64) -> Value {
    let at = service.moment(milliseconds);
    json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(at), "scanned_at": at, "offline_result": "accepted" })
}

fn results(answer: &Value) -> Vec<&str> {
    let items = answer["results"].as_array().expect("a batch has results");
    items.iter().map(|item| item["result"].as_str().unwrap_or_default()).collect()
}
