//! Leaving and re-entering, and the steps that codes must advance for it.

use serde_json::{Value, json};

use crate::client::Client;
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    without_reentry_who_leaves_stays_out,
    with_reentry_who_left_may_come_back,
    with_reentry_nobody_enters_twice_without_leaving,
    nobody_leaves_who_is_not_inside,
    an_entry_needs_a_newer_code_than_the_last_accepted,
    an_exit_takes_the_same_code_but_no_older_one,
    a_refused_scan_uses_up_no_code,
}

async fn without_reentry_who_leaves_stays_out(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let before = service.version("A1").await;
    enter(&service, &gate, &ticket).await;
    service.clock.advance(30_000);
    let left = leave(&service, &gate, &ticket).await;
    assert_members(&left["ticket"], json!({ "status": "used", "inside": false }));
    assert_eq!(left["direction"], "exit");
    service.clock.advance(30_000);
    scan(&service, &gate, &ticket, "entry").await.is_scan(409, "already_used");
    assert_eq!(service.database.count("select count(*) from tickets where not inside").await, 1);
    assert_eq!(service.version("A1").await, before + 2, "in, and out");
}

async fn with_reentry_who_left_may_come_back(service: Service) {
    reentry(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let before = service.version("A1").await;
    let first = enter(&service, &gate, &ticket).await;
    for _ in 0..2 {
        service.clock.advance(30_000);
        leave(&service, &gate, &ticket).await;
        service.clock.advance(30_000);
        let again = enter(&service, &gate, &ticket).await;
        assert_eq!(again["ticket"]["used_at"], first["ticket"]["used_at"], "a ticket is used once");
    }
    assert_eq!(service.database.count("select count(*) from tickets where inside").await, 1);
    assert_eq!(service.version("A1").await, before + 5, "in, and twice out and in");
    assert_eq!(service.database.count("select count(*) from scans where result = 'accepted'").await, 5);
}

async fn with_reentry_nobody_enters_twice_without_leaving(service: Service) {
    reentry(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    enter(&service, &gate, &ticket).await;
    service.clock.advance(30_000);
    scan(&service, &gate, &ticket, "entry").await.is_scan(409, "already_used");
}

async fn nobody_leaves_who_is_not_inside(service: Service) {
    reentry(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    scan(&service, &gate, &ticket, "exit").await.is_scan(409, "not_inside");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'valid'").await, 1);
    enter(&service, &gate, &ticket).await;
    leave(&service, &gate, &ticket).await;
    scan(&service, &gate, &ticket, "exit").await.is_scan(409, "not_inside");
}

async fn an_entry_needs_a_newer_code_than_the_last_accepted(service: Service) {
    reentry(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    enter(&service, &gate, &ticket).await;
    leave(&service, &gate, &ticket).await;
    let stale = scan(&service, &gate, &ticket, "entry").await.is_scan(422, "stale_code");
    assert_eq!(stale["seconds_off"], Value::Null);
    assert!(stale["message"].as_str().unwrap_or_default().contains("wait for the next code"), "{stale}");
    service.clock.advance(30_000);
    enter(&service, &gate, &ticket).await;
}

async fn an_exit_takes_the_same_code_but_no_older_one(service: Service) {
    reentry(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let entry_code = ticket.qr(service.now());
    let older_code = ticket.qr(service.moment(-30_000));
    enter(&service, &gate, &ticket).await;
    let exit = with(service.scan(&ticket), json!({ "direction": "exit" }));
    let older = with(service.scan(&ticket), json!({ "direction": "exit", "code": older_code }));
    gate.post("/api/events/default/scans", older).await.is_scan(422, "stale_code");
    assert_eq!(exit["code"], entry_code.as_str());
    gate.post("/api/events/default/scans", exit).await.is_scan(200, "accepted");
}

async fn a_refused_scan_uses_up_no_code(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let body = with(service.scan(&ticket), json!({ "at_gate": "South" }));
    gate.post("/api/events/default/scans", body).await.is_scan(409, "wrong_gate");
    scan(&service, &gate, &ticket, "exit").await.is_scan(409, "not_inside");
    assert_eq!(service.database.count("select count(*) from tickets where last_step is null").await, 1);
    enter(&service, &gate, &ticket).await;
}

async fn reentry(service: &Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
}

async fn scan(service: &Service, gate: &Client, ticket: &Ticket, direction: &str) -> crate::client::Reply {
    let body = with(service.scan(ticket), json!({ "direction": direction }));
    gate.post("/api/events/default/scans", body).await
}

async fn enter(service: &Service, gate: &Client, ticket: &Ticket) -> Value {
    scan(service, gate, ticket, "entry").await.is_scan(200, "accepted")
}

async fn leave(service: &Service, gate: &Client, ticket: &Ticket) -> Value {
    scan(service, gate, ticket, "exit").await.is_scan(200, "accepted")
}
