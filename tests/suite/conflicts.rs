//! Conflicts: people whom an offline gate admitted and the service would have refused.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, walk, with};

on_both_databases! {
    a_ticket_admitted_at_two_gates_offline_is_a_conflict,
    what_gate_and_service_agree_on_is_no_conflict,
    a_conflict_needs_no_ticket_and_no_named_key,
    conflicts_come_page_by_page_the_newest_first,
    each_event_has_its_own_conflicts,
    a_wrong_query_is_refused,
}

const SCANS: &str = "/api/events/default/scans";
const CONFLICTS: &str = "/api/events/default/conflicts";
const MINUTE: i64 = 60_000;

async fn a_ticket_admitted_at_two_gates_offline_is_a_conflict(service: Service) {
    let ticket = service.ticket("A1").await;
    let body = |name: &str| json!({ "name": name, "role": "gate", "offline": true });
    let (first, second) = (service.key(body("Phone 1")).await, service.key(body("Phone 2")).await);
    service.clock.advance(10 * MINUTE);
    let admitted = with(scan(&service, &ticket, -5 * MINUTE), json!({ "at_gate": "North" }));
    let again = scan(&service, &ticket, -3 * MINUTE);
    // The times of the scans decide, not the order of the batches: the first stays the first.
    send(&first, &admitted).await;
    assert_eq!(service.organizer.get(CONFLICTS).await.is(200), json!({ "conflicts": [], "next": null }));
    let refused = send(&second, &again).await;
    assert_eq!(refused["result"], "already_used");

    let keys = service.organizer.get("/api/keys").await.is(200);
    let list = service.organizer.get(CONFLICTS).await.is(200);
    let mut ticket_of_list = refused["ticket"].clone();
    ticket_of_list.as_object_mut().expect("a ticket").remove("category_colour");
    ticket_of_list["reference"] = Value::Null;
    ticket_of_list["mailed_at"] = Value::Null;
    assert_eq!(
        list["conflicts"],
        json!([{
            "scan_id": again["scan_id"], "ticket": ticket_of_list, "at_gate": null, "direction": "entry",
            "offline_result": "accepted", "result": "already_used", "scanned_at": again["scanned_at"],
            "received_at": service.time(0), "key_id": keys["keys"][1]["key_id"], "key_name": "Phone 2",
            "first_used_at": admitted["scanned_at"], "first_used_gate": "North", "first_key_name": "Phone 1",
        }])
    );
}

async fn what_gate_and_service_agree_on_is_no_conflict(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.clock.advance(10 * MINUTE);
    let refused_alone = with(scan(&service, &ticket, -5 * MINUTE), json!({ "offline_result": "wrong_gate" }));
    let agreed = with(scan(&service, &ticket, -3 * MINUTE), json!({ "offline_result": "already_used" }));
    let admitted = scan(&service, &ticket, -4 * MINUTE);
    assert_eq!(send(&gate, &refused_alone).await["result"], "wrong_gate");
    assert_eq!(send(&gate, &admitted).await["result"], "accepted");
    assert_eq!(send(&gate, &agreed).await["result"], "already_used");
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
    assert_eq!(service.organizer.get(CONFLICTS).await.is(200)["conflicts"], json!([]));
}

async fn a_conflict_needs_no_ticket_and_no_named_key(service: Service) {
    send(&service.organizer, &unknown(&service)).await;
    let list = service.organizer.get(CONFLICTS).await.is(200);
    let conflict = &list["conflicts"][0];
    assert_eq!(conflict["result"], "unknown_ticket");
    for member in ["ticket", "key_id", "key_name", "first_used_at", "first_used_gate", "first_key_name"] {
        assert_eq!(conflict[member], Value::Null, "{member}");
    }
}

async fn conflicts_come_page_by_page_the_newest_first(service: Service) {
    let mut sent = Vec::new();
    for _ in 0..3 {
        // Two that arrive in the same millisecond.
        for _ in 0..2 {
            let scan = unknown(&service);
            send(&service.organizer, &scan).await;
            sent.push(scan["scan_id"].clone());
        }
        service.clock.advance(1);
    }
    let listed = walk(&service.organizer, CONFLICTS, "conflicts").await;
    let times: Vec<_> = listed.iter().map(|conflict| conflict["received_at"].to_string()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    let ids =
        |ids: &mut dyn Iterator<Item = &Value>| ids.map(Value::to_string).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(ids(&mut listed.iter().map(|conflict| &conflict["scan_id"])), ids(&mut sent.iter()));
    assert_eq!(listed.len(), 6);
}

async fn each_event_has_its_own_conflicts(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    send(&service.organizer, &unknown(&service)).await;
    assert_eq!(service.organizer.get("/api/events/spring/conflicts").await.is(200)["conflicts"], json!([]));
    service.organizer.get("/api/events/none/conflicts").await.is_refused(404, "event_not_found");
}

async fn a_wrong_query_is_refused(service: Service) {
    for query in ["limit=0", "limit=501", "after=x", "since=1"] {
        service.organizer.get(format!("{CONFLICTS}?{query}")).await.is_refused(422, "invalid_payload");
    }
}

/// A scan that a gate accepted offline, with the code the phone showed at that time.
fn scan(service: &Service, ticket: &Ticket, milliseconds: i64) -> Value {
    let at = service.moment(milliseconds);
    json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(at), "scanned_at": at, "offline_result": "accepted" })
}

/// A scan that no sound gate accepts.
fn unknown(service: &Service) -> Value {
    json!({
        "scan_id": Uuid::new_v4(), "code": "not ours", "scanned_at": service.time(0), "offline_result": "accepted",
    })
}

async fn send(gate: &Client, scan: &Value) -> Value {
    gate.post(format!("{SCANS}/batch"), json!({ "scans": [scan] })).await.is(200)["results"][0].clone()
}
