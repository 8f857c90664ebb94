//! Guessing: more than ten refused codes of a ticket within a minute, and its codes are not looked at.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, with};

on_both_databases! {
    after_eleven_refused_codes_a_ticket_rests,
    after_a_minute_its_codes_are_good_again,
    what_was_too_much_is_neither_kept_nor_replayed,
    only_refused_codes_of_the_same_ticket_count,
    a_supervisor_waits_too,
    a_revoked_ticket_is_told_as_such_after_any_number_of_guesses,
    a_batch_neither_counts_nor_meets_the_limit,
}

const SCANS: &str = "/api/events/default/scans";

async fn after_eleven_refused_codes_a_ticket_rests(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    let wrong = wrong(&service, &ticket);
    let refused = service.unchanged(gate.post(SCANS, wrong)).await;
    refused.is_scan(429, "too_many_attempts");
    assert_eq!(refused.header("retry-after"), "60");
    service.unchanged(gate.post(SCANS, service.scan(&ticket))).await.is_scan(429, "too_many_attempts");
    // On every instance.
    let other = service.another(&[]).anonymous.with_key(crate::service::ORGANIZER_KEY);
    service.unchanged(other.post(SCANS, service.scan(&ticket))).await.is_scan(429, "too_many_attempts");
}

async fn after_a_minute_its_codes_are_good_again(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    service.clock.advance(59_999);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(429, "too_many_attempts");
    service.clock.advance(1);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn what_was_too_much_is_neither_kept_nor_replayed(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    let body = service.scan(&ticket);
    service.unchanged(gate.post(SCANS, body.clone())).await.is_scan(429, "too_many_attempts");
    service.clock.advance(60_000);
    let later = with(service.scan(&ticket), json!({ "scan_id": body["scan_id"] }));
    assert_eq!(gate.post(SCANS, later).await.is_scan(200, "accepted")["replayed"], false);
}

async fn a_revoked_ticket_is_told_as_such_after_any_number_of_guesses(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(410, "revoked");
    assert_eq!(service.database.count("select count(*) from scans where result = 'revoked'").await, 1);
}

async fn only_refused_codes_of_the_same_ticket_count(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let other = service.ticket("A2").await;
    guess(&service, &gate, &other, 11).await;
    for _ in 0..11 {
        let elsewhere = with(service.scan(&ticket), json!({ "at_gate": "South" }));
        gate.post(SCANS, elsewhere).await.is_scan(409, "wrong_gate");
    }
    // Eleven are decided: ten on record are not more than ten. Stale ones count as well.
    guess(&service, &gate, &ticket, 10).await;
    let stale = with(service.scan(&ticket), json!({ "code": ticket.qr(service.moment(-120_000)) }));
    gate.post(SCANS, stale).await.is_scan(422, "stale_code");
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(429, "too_many_attempts");
}

async fn a_supervisor_waits_too(service: Service) {
    let ticket = service.ticket("A1").await;
    let supervisor = service.supervisor().await;
    guess(&service, &supervisor, &ticket, 11).await;
    let by_hand = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "manual": true, "note": "x" });
    service.unchanged(supervisor.post(SCANS, by_hand)).await.is_scan(429, "too_many_attempts");
}

async fn a_batch_neither_counts_nor_meets_the_limit(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let offline = |scan: Value| with(scan, json!({ "scanned_at": service.time(0), "offline_result": "wrong_code" }));
    let batch: Vec<Value> = (0..11).map(|_| offline(wrong(&service, &ticket))).collect();
    let answer = gate.post(&format!("{SCANS}/batch"), json!({ "scans": batch })).await.is(200);
    assert_eq!(answer["results"][10]["result"], "wrong_code");

    // The eleven of the batch do not count: eleven more are decided, and then the limit is met, but not by a batch.
    guess(&service, &gate, &ticket, 11).await;
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(429, "too_many_attempts");
    let admitted = with(offline(service.scan(&ticket)), json!({ "offline_result": "accepted" }));
    let batch = json!({ "scans": [admitted] });
    let answer = gate.post(&format!("{SCANS}/batch"), batch).await.is(200);
    assert_eq!(answer["results"][0]["result"], "accepted");
}

fn wrong(service: &Service, ticket: &Ticket) -> Value {
    json!({
        "scan_id": Uuid::now_v7(), "seat": ticket.seat, "gate": ticket.gate,
        "totp_code": ticket.wrong_code(service.now()),
    })
}

async fn guess(service: &Service, gate: &Client, ticket: &Ticket, times: usize) {
    for _ in 0..times {
        gate.post(SCANS, wrong(service, ticket)).await.is_scan(422, "wrong_code");
    }
}
