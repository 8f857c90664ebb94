//! `TICKET_SECRET`: with it a copy of the database alone makes no codes, and with another one nothing is decided.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::service::{Service, with};

on_both_databases! {
    without_a_secret_the_seed_is_the_key,
    with_a_secret_the_seed_alone_makes_no_code,
    with_another_secret_nothing_that_needs_codes_is_done,
    a_secret_set_later_is_another_secret,
}

const FIRST: &[(&str, &str)] = &[("TICKET_SECRET", "the first secret of the test suite")];
const SECOND: &[(&str, &str)] = &[("TICKET_SECRET", "another secret of the test suite")];
const SCANS: &str = "/api/events/default/scans";

async fn without_a_secret_the_seed_is_the_key(service: Service) {
    let ticket = service.ticket("A1").await;
    assert_eq!(ticket.secret(), seed(&service).await);
}

async fn with_a_secret_the_seed_alone_makes_no_code(service: Service) {
    let service = service.another(FIRST);
    let ticket = service.ticket("A1").await;
    assert_ne!(ticket.secret(), seed(&service).await);
    let gate = service.offline_gate().await;
    assert_eq!(gate.get("/api/events/default/manifest").await.is(200)["tickets"][0]["key"], ticket.secret());
    // Every process that has the secret knows the code.
    let other = service.another(FIRST).organizer;
    other.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn with_another_secret_nothing_that_needs_codes_is_done(service: Service) {
    let service = service.another(FIRST);
    let ticket = service.ticket("A1").await;
    service.seat("default", "A2", "North").await;
    let path = format!("/api/tickets/{}", ticket.ticket_id);
    let scan = service.scan(&ticket);
    let item = with(scan.clone(), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    let registration = json!({ "seat": "A2", "gate": "North" });

    for other in [service.another(SECOND).organizer, service.another(&[]).organizer] {
        let refused = |reply: crate::client::Reply| drop(reply.is_refused(503, "ticket_secret_mismatch"));
        refused(service.unchanged(other.post(SCANS, scan.clone())).await);
        let unknown = json!({ "scan_id": Uuid::now_v7(), "code": "not ours" });
        refused(service.unchanged(other.post(SCANS, unknown)).await);
        let transfer = json!({ "username": ticket.username });
        refused(service.unchanged(other.post(format!("{path}/transfer"), transfer)).await);
        refused(service.unchanged(other.bare(Method::POST, format!("{path}/reissue"))).await);
        refused(service.unchanged(other.bare(Method::POST, format!("{path}/print"))).await);
        refused(other.get(format!("{path}/link")).await);
        refused(other.get("/api/events/default/links.csv").await);
        let tickets = format!("/api/users/{}/tickets", ticket.username);
        refused(service.unchanged(other.post(tickets, registration.clone())).await);
        let file = "seat,gate,username\nA3,North,ana\n";
        refused(service.unchanged(other.post_csv("/api/events/default/tickets", file)).await);
        refused(other.get("/api/events/default/manifest").await);
        refused(service.unchanged(other.post(format!("{SCANS}/batch"), json!({ "scans": [item] }))).await);
    }
    service.organizer.post(SCANS, scan).await.is_scan(200, "accepted");
}

async fn a_secret_set_later_is_another_secret(service: Service) {
    let ticket = service.ticket("A1").await;
    let later = service.another(FIRST).organizer;
    service.unchanged(later.post(SCANS, service.scan(&ticket))).await.is_refused(503, "ticket_secret_mismatch");
}

/// The only ticket's seed, as a secret would be shown.
async fn seed(service: &Service) -> String {
    let hex = service.database.text("select hex(seed) from tickets", "select encode(seed, 'hex') from tickets").await;
    BASE32_NOPAD.encode(&HEXLOWER.decode(hex.to_lowercase().as_bytes()).expect("a database writes hex"))
}
