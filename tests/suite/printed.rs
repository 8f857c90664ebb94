//! Printed tickets, for people without a phone: the code on paper does not change, so it admits once.

use http::Method;
use register_ticket_api::totp::QrCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Reply;
use crate::service::{Service, Ticket, with};

on_both_databases! {
    a_ticket_is_printed_with_its_code,
    printing_again_prints_the_same,
    a_ticket_that_admits_nobody_now_is_not_printed,
    a_printed_ticket_admits_once_and_leaves_no_step,
    a_ticket_that_was_not_printed_has_no_paper,
    wrong_paper_counts_as_a_refused_code_and_the_right_one_need_not_wait,
    a_new_seed_makes_the_paper_worthless,
    paper_lets_out_and_not_in_again,
    paper_is_good_at_its_own_gate,
    an_undone_admission_makes_the_paper_good_again,
    a_revoked_ticket_is_revoked_on_paper_too,
    a_gate_knows_offline_what_was_printed,
    an_offline_admission_by_paper_is_accepted_later,
    of_two_gates_offline_paper_admits_at_one,
}

const SCANS: &str = "/api/events/default/scans";
const BATCH: &str = "/api/events/default/scans/batch";
const MANIFEST: &str = "/api/events/default/manifest";
const MINUTE: i64 = 60_000;

async fn a_ticket_is_printed_with_its_code(service: Service) {
    let ticket = service.ticket("A1").await;
    let before = service.version("A1").await;
    let shown = service.organizer.get(format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
    let printed = print(&service, &ticket).await.is(200);
    assert_eq!(printed, with(shown, json!({ "printed_code": ticket.paper() })));
    assert_eq!(QrCode::parse(&ticket.paper()).map(|qr| qr.ticket_id), Some(ticket.ticket_id));
    let kept = format!("select count(*) from tickets where printed_at = {}", service.now().0);
    assert_eq!(service.database.count(&kept).await, 1);
    assert_eq!(service.version("A1").await, before + 1);
}

async fn printing_again_prints_the_same(service: Service) {
    let ticket = service.ticket("A1").await;
    let first = print(&service, &ticket).await.is(200);
    service.clock.advance(MINUTE);
    let rows = async || {
        let rows = service.database.snapshot().await;
        rows.lines().filter(|row| !row.contains("printed")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (version, before) = (service.version("A1").await, rows().await);
    assert_eq!(print(&service, &ticket).await.is(200), first);
    assert_eq!((service.version("A1").await, rows().await), (version, before), "nothing changes");
    let recorded = "select count(*) from actions where action = 'printed'";
    assert_eq!(service.database.count(recorded).await, 2, "but who got the paper's code is recorded");
}

async fn a_ticket_that_admits_nobody_now_is_not_printed(service: Service) {
    let used = service.ticket("A1").await;
    print(&service, &used).await.is(200);
    service.gate().await.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    service.unchanged(print(&service, &used)).await.is_refused(409, "ticket_used");
    let revoked = service.ticket("A2").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    service.unchanged(print(&service, &revoked)).await.is_refused(409, "ticket_revoked");
    let unregistered = service.seat("default", "A3", "North").await;
    let print = async |ticket_id: &str| {
        let request = service.organizer.bare(Method::POST, format!("/api/tickets/{ticket_id}/print"));
        service.unchanged(request).await
    };
    print(&unregistered).await.is_refused(409, "ticket_not_registered");
    print(&Uuid::now_v7().to_string()).await.is_refused(404, "ticket_not_found");
    print("x").await.is_refused(404, "ticket_not_found");
}

async fn a_printed_ticket_admits_once_and_leaves_no_step(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    let printed = service.version("A1").await;
    service.clock.advance(100 * MINUTE);
    let admitted = gate.post(SCANS, paper(&ticket)).await.is_scan(200, "accepted");
    assert_eq!(admitted["ticket"]["used_at"], service.time(0));
    let used = "select count(*) from tickets where status = 'used' and inside and last_step is null";
    assert_eq!(service.database.count(used).await, 1);
    let again = gate.post(SCANS, paper(&ticket)).await.is_scan(409, "already_used");
    assert_eq!(again["first_used_at"], service.time(0));
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
    assert_eq!(service.version("A1").await, printed + 1, "one admission");
}

async fn a_ticket_that_was_not_printed_has_no_paper(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let before = service.version("A1").await;
    gate.post(SCANS, paper(&ticket)).await.is_scan(422, "wrong_code");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'valid'").await, 1);
    assert_eq!(service.version("A1").await, before);
    let (known, text) = (format!("RP1.{}", "A".repeat(37)), ticket.paper());
    for code in [&text[..text.len() - 1], &format!("{text}A"), &known, &text.replace("RP1", "RP2")] {
        gate.post(SCANS, with(paper(&ticket), json!({ "code": code }))).await.is_scan(404, "unknown_ticket");
    }
}

async fn wrong_paper_counts_as_a_refused_code_and_the_right_one_need_not_wait(service: Service) {
    let (gate, ticket, other) = (service.gate().await, service.ticket("A1").await, service.ticket("A2").await);
    print(&service, &ticket).await.is(200);
    let proof = other.paper().rsplit_once('.').map(|(_, proof)| proof.to_owned()).unwrap_or_default();
    let forged = ticket.paper().rsplit_once('.').map(|(start, _)| format!("{start}.{proof}"));
    for _ in 0..11 {
        gate.post(SCANS, with(paper(&ticket), json!({ "code": forged }))).await.is_scan(422, "wrong_code");
    }
    service.unchanged(gate.post(SCANS, service.scan(&ticket))).await.is_scan(429, "too_many_attempts");
    gate.post(SCANS, paper(&ticket)).await.is_scan(200, "accepted");
}

async fn a_new_seed_makes_the_paper_worthless(service: Service) {
    let gate = service.gate().await;
    service.user("luis").await;
    for (seat, action) in [("A1", "reissue"), ("A2", "transfer")] {
        let old = service.ticket(seat).await;
        print(&service, &old).await.is(200);
        let path = format!("/api/tickets/{}/{action}", old.ticket_id);
        let changed = match action {
            "transfer" => service.organizer.post(path, json!({ "username": "luis" })).await,
            _ => service.organizer.bare(Method::POST, path).await,
        };
        let new = Ticket::new(&changed.is(200));
        assert_eq!(service.database.count("select count(*) from tickets where printed_at is not null").await, 0);
        gate.post(SCANS, paper(&old)).await.is_scan(422, "wrong_code");
        gate.post(SCANS, paper(&new)).await.is_scan(422, "wrong_code");
        let printed = print(&service, &new).await.is(200);
        assert_eq!(printed["printed_code"], new.paper());
        gate.post(SCANS, paper(&new)).await.is_scan(200, "accepted");
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", new.ticket_id)).await.is(200);
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", new.ticket_id)).await.is(200);
        gate.post(SCANS, paper(&new)).await.is_scan(422, "wrong_code");
    }
}

async fn paper_lets_out_and_not_in_again(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    let exit = || with(paper(&ticket), json!({ "direction": "exit" }));
    gate.post(SCANS, exit()).await.is_scan(409, "not_inside");
    gate.post(SCANS, paper(&ticket)).await.is_scan(200, "accepted");
    let left = gate.post(SCANS, exit()).await.is_scan(200, "accepted");
    assert_eq!(left["ticket"]["inside"], false);
    gate.post(SCANS, paper(&ticket)).await.is_scan(409, "already_used");
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn paper_is_good_at_its_own_gate(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    let elsewhere = with(paper(&ticket), json!({ "at_gate": "South" }));
    let refused = gate.post(SCANS, elsewhere).await.is_scan(409, "wrong_gate");
    assert_eq!(refused["right_gate"], "North");
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    gate.post("/api/events/spring/scans", paper(&ticket)).await.is_scan(404, "unknown_ticket");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'valid'").await, 1);
}

async fn an_undone_admission_makes_the_paper_good_again(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    let scan = supervisor.post(SCANS, paper(&ticket)).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
    supervisor.bare(Method::POST, undo).await.is(200);
    supervisor.post(SCANS, paper(&ticket)).await.is_scan(200, "accepted");
}

async fn a_revoked_ticket_is_revoked_on_paper_too(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    gate.post(SCANS, paper(&ticket)).await.is_scan(410, "revoked");
}

async fn a_gate_knows_offline_what_was_printed(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let before = gate.get(MANIFEST).await;
    assert_eq!(before.is(200)["tickets"][0]["printed"], false);
    service.clock.advance(10 * MINUTE);
    let as_of = gate.get(MANIFEST).await.is(200)["as_of"].as_i64().unwrap_or_default();
    print(&service, &ticket).await.is(200);
    let changed = gate.get(format!("{MANIFEST}?since={as_of}")).await;
    assert_eq!(changed.is(200)["tickets"][0]["printed"], true);
    assert_ne!(changed.header("etag"), before.header("etag"));
}

async fn an_offline_admission_by_paper_is_accepted_later(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    service.clock.advance(60 * MINUTE);
    let scans = json!([
        offline(&service, &ticket, -30 * MINUTE, "accepted"),
        offline(&service, &ticket, -20 * MINUTE, "already_used"),
    ]);
    let answer = gate.post(BATCH, json!({ "scans": scans })).await.is(200);
    assert_eq!(answer["results"][0]["result"], "accepted");
    assert_eq!(answer["results"][0]["ticket"]["used_at"], service.time(-30 * MINUTE));
    assert_eq!(answer["results"][1]["result"], "already_used");
    let again = service.unchanged(gate.post(BATCH, json!({ "scans": scans }))).await.is(200);
    assert_eq!(again["results"][0]["replayed"], true);
    assert_eq!(service.database.count("select count(*) from tickets where inside and last_step is null").await, 1);
}

async fn of_two_gates_offline_paper_admits_at_one(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    print(&service, &ticket).await.is(200);
    service.clock.advance(60 * MINUTE);
    for (milliseconds, result) in [(-10 * MINUTE, "accepted"), (-20 * MINUTE, "already_used")] {
        let scan = offline(&service, &ticket, milliseconds, "accepted");
        let answer = gate.post(BATCH, json!({ "scans": [scan] })).await.is(200);
        assert_eq!(answer["results"][0]["result"], result);
    }
    let conflicts = service.organizer.get("/api/events/default/conflicts").await.is(200);
    assert_eq!(conflicts["conflicts"].as_array().map(Vec::len), Some(1));
}

async fn print(service: &Service, ticket: &Ticket) -> Reply {
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", ticket.ticket_id)).await
}

/// A new scan of the ticket's paper.
fn paper(ticket: &Ticket) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "code": ticket.paper() })
}

/// The same, as decided offline by a gate.
fn offline(service: &Service, ticket: &Ticket, milliseconds: i64, result: &str) -> Value {
    with(paper(ticket), json!({ "scanned_at": service.time(milliseconds), "offline_result": result }))
}
