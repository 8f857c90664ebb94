//! Undo: a ticket's newest accepted scan, for as long as `UNDO_WINDOW` allows.

use http::Method;
use register_ticket_api::limits::UNDO_WINDOW;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    undoing_the_entry_makes_the_ticket_valid_again,
    after_an_undo_the_same_code_is_spent,
    undoing_an_exit_puts_the_ticket_inside_again,
    undoing_a_reentry_keeps_the_ticket_used_and_outside,
    whoever_never_left_is_inside_when_the_entry_of_another_day_is_undone,
    a_second_undo_changes_nothing,
    only_the_newest_accepted_scan_can_be_undone,
    the_last_scan_is_the_last_whatever_the_clocks,
    of_a_reissued_ticket_only_its_own_scans_count_whatever_the_clocks,
    a_scan_of_the_future_cannot_be_undone,
    a_refused_scan_cannot_be_undone,
    undo_is_possible_within_its_window,
    undo_after_a_revocation_leaves_the_ticket_revoked,
    what_was_scanned_before_a_reissue_cannot_be_undone,
    a_scan_that_does_not_exist_is_not_found,
    a_supervisor_of_one_gate_undoes_nothing_of_another,
}

async fn undoing_the_entry_makes_the_ticket_valid_again(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let before = service.version("A1").await;
    let scan = enter(&service, &supervisor, &ticket).await;
    service.clock.advance(1_000);
    let undone = undo(&supervisor, &scan).await.is_scan(200, "accepted");
    assert_members(&undone, json!({ "undone_at": service.time(0), "scan_id": scan["scan_id"] }));
    let state = &undone["ticket"];
    assert_members(state, json!({ "status": "valid", "inside": false, "used_at": null }));
    let undone = "select count(*) from scans where undone_at is not null and undone_by is not null";
    assert_eq!(service.database.count(undone).await, 1);
    assert_eq!(service.version("A1").await, before + 2, "in, and the undo");
    service.clock.advance(30_000);
    enter(&service, &supervisor, &ticket).await;
}

async fn after_an_undo_the_same_code_is_spent(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let scan = enter(&service, &supervisor, &ticket).await;
    undo(&supervisor, &scan).await.is(200);
    let again = supervisor.post("/api/events/default/scans", service.scan(&ticket)).await;
    assert_eq!(again.is_scan(422, "stale_code")["seconds_off"], Value::Null);
}

async fn undoing_an_exit_puts_the_ticket_inside_again(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    enter(&service, &supervisor, &ticket).await;
    let exit = leave(&service, &supervisor, &ticket).await;
    let undone = undo(&supervisor, &exit).await.is(200);
    assert_members(&undone["ticket"], json!({ "status": "used", "inside": true }));
    leave(&service, &supervisor, &ticket).await;
}

async fn undoing_a_reentry_keeps_the_ticket_used_and_outside(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let first = enter(&service, &supervisor, &ticket).await;
    leave(&service, &supervisor, &ticket).await;
    service.clock.advance(30_000);
    let second = enter(&service, &supervisor, &ticket).await;
    let undone = undo(&supervisor, &second).await.is(200);
    let state = &undone["ticket"];
    assert_members(state, json!({ "status": "used", "inside": false }));
    assert_eq!(state["used_at"], first["ticket"]["used_at"]);
}

async fn whoever_never_left_is_inside_when_the_entry_of_another_day_is_undone(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "once_a_day" })).await.is(200);
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let first = enter(&service, &supervisor, &ticket).await;
    service.clock.advance(24 * 60 * 60 * 1_000);
    let second = enter(&service, &supervisor, &ticket).await;
    let undone = undo(&supervisor, &second).await.is(200);
    let entered_at = &first["ticket"]["used_at"];
    let before = json!({ "status": "used", "inside": true, "used_at": entered_at, "entered_at": entered_at });
    assert_members(&undone["ticket"], before);
    leave(&service, &supervisor, &ticket).await;
}

async fn a_second_undo_changes_nothing(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let scan = enter(&service, &supervisor, &ticket).await;
    let first = undo(&supervisor, &scan).await.is(200);
    service.clock.advance(30_000);
    let second = service.unchanged(undo(&supervisor, &scan)).await.is(200);
    assert_eq!(second, first);
    // Nor does it undo later scans.
    enter(&service, &supervisor, &ticket).await;
    service.clock.advance(3_600_000);
    service.unchanged(undo(&supervisor, &scan)).await.is(200);
}

async fn only_the_newest_accepted_scan_can_be_undone(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let entry = enter(&service, &supervisor, &ticket).await;
    service.clock.advance(1_000);
    let exit = leave(&service, &supervisor, &ticket).await;
    service.unchanged(undo(&supervisor, &entry)).await.is_refused(409, "not_undoable");
    undo(&supervisor, &exit).await.is(200);
    let undone = undo(&supervisor, &entry).await.is(200);
    assert_eq!(undone["ticket"]["status"], "valid");
}

/// Entry and exit through a process whose clock is ahead, re-entry through one whose clock is right.
async fn the_last_scan_is_the_last_whatever_the_clocks(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let entry = enter(&service, &supervisor, &ticket).await;
    service.clock.advance(32_000);
    let exit = leave(&service, &supervisor, &ticket).await;
    service.clock.advance(-2_000);
    let by_hand = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "manual": true, "note": "x" });
    let reentry = supervisor.post("/api/events/default/scans", by_hand).await.is_scan(200, "accepted");
    for scan in [&entry, &exit] {
        service.unchanged(undo(&supervisor, scan)).await.is_refused(409, "not_undoable");
    }
    for (scan, inside, status) in [(&reentry, false, "used"), (&exit, true, "used"), (&entry, false, "valid")] {
        let undone = undo(&supervisor, scan).await.is(200);
        assert_members(&undone["ticket"], json!({ "inside": inside, "status": status }));
    }
    let versions = service.database.count("select count(distinct ticket_version) from scans where result = 'accepted'");
    assert_eq!(versions.await, 3);
}

async fn of_a_reissued_ticket_only_its_own_scans_count_whatever_the_clocks(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    service.clock.advance(4_000);
    let old = enter(&service, &supervisor, &ticket).await;
    for change in ["revoke", "reissue"] {
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/{change}", ticket.ticket_id)).await.is(200);
    }
    service.clock.advance(-4_000);
    let by_hand = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "manual": true, "note": "x" });
    let new = supervisor.post("/api/events/default/scans", by_hand).await.is_scan(200, "accepted");
    service.unchanged(undo(&supervisor, &old)).await.is_refused(409, "not_undoable");
    let undone = undo(&supervisor, &new).await.is(200);
    assert_members(&undone["ticket"], json!({ "status": "valid", "used_at": null }));
    service.unchanged(undo(&supervisor, &old)).await.is_refused(409, "not_undoable");
}

/// A recent scan is not later than now: nobody knows how far a clock was ahead.
async fn a_scan_of_the_future_cannot_be_undone(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    service.clock.advance(3_600_000);
    let scan = enter(&service, &supervisor, &ticket).await;
    service.clock.advance(-3_600_000);
    service.unchanged(undo(&supervisor, &scan)).await.is_refused(409, "undo_expired");
}

async fn a_refused_scan_cannot_be_undone(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    enter(&service, &supervisor, &ticket).await;
    let scans = "/api/events/default/scans";
    let used = supervisor.post(scans, service.scan(&ticket)).await.is_scan(409, "already_used");
    let unknown = json!({ "scan_id": Uuid::now_v7(), "code": "not ours" });
    let unknown = supervisor.post(scans, unknown).await.is_scan(404, "unknown_ticket");
    service.unchanged(undo(&supervisor, &used)).await.is_refused(409, "not_undoable");
    service.unchanged(undo(&supervisor, &unknown)).await.is_refused(409, "not_undoable");
}

async fn undo_is_possible_within_its_window(service: Service) {
    let supervisor = service.supervisor().await;
    let (first, second) = (service.ticket("A1").await, service.ticket("A2").await);
    let first = enter(&service, &supervisor, &first).await;
    let second = enter(&service, &supervisor, &second).await;
    service.clock.advance(UNDO_WINDOW.as_millis().try_into().unwrap());
    undo(&supervisor, &first).await.is(200);
    service.clock.advance(1);
    service.unchanged(undo(&supervisor, &second)).await.is_refused(409, "undo_expired");
}

async fn undo_after_a_revocation_leaves_the_ticket_revoked(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let scan = enter(&service, &supervisor, &ticket).await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    let undone = undo(&supervisor, &scan).await.is(200);
    assert_members(&undone["ticket"], json!({ "status": "revoked", "inside": false }));
    supervisor.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(410, "revoked");
}

async fn what_was_scanned_before_a_reissue_cannot_be_undone(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    enter(&service, &supervisor, &ticket).await;
    service.clock.advance(1_000);
    let exit = leave(&service, &supervisor, &ticket).await;
    for change in ["revoke", "reissue"] {
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/{change}", ticket.ticket_id)).await.is(200);
    }
    service.unchanged(undo(&supervisor, &exit)).await.is_refused(409, "not_undoable");
}

async fn a_scan_that_does_not_exist_is_not_found(service: Service) {
    let supervisor = service.supervisor().await;
    for scan_id in [json!(Uuid::now_v7()), json!("1")] {
        let undo = service.unchanged(undo(&supervisor, &json!({ "scan_id": scan_id }))).await;
        undo.is_refused(404, "scan_not_found");
    }
}

async fn enter(service: &Service, supervisor: &Client, ticket: &Ticket) -> Value {
    supervisor.post("/api/events/default/scans", service.scan(ticket)).await.is_scan(200, "accepted")
}

async fn leave(service: &Service, supervisor: &Client, ticket: &Ticket) -> Value {
    let body = with(service.scan(ticket), json!({ "direction": "exit" }));
    supervisor.post("/api/events/default/scans", body).await.is_scan(200, "accepted")
}

async fn undo(supervisor: &Client, scan: &Value) -> Reply {
    let scan_id = scan["scan_id"].as_str().expect("a scan has an id");
    supervisor.bare(Method::POST, format!("/api/scans/{scan_id}/undo")).await
}

async fn a_supervisor_of_one_gate_undoes_nothing_of_another(service: Service) {
    let at = |gate: &'static str, role: &'static str| {
        service.key(json!({ "name": gate, "role": role, "event": "default", "gate": gate }))
    };
    let (north, south) = (at("North", "supervisor").await, at("South", "supervisor").await);
    let office = at("South", "organizer").await;
    let event_wide = service.supervisor().await;
    for (seat, at_gate) in [("A1", json!("North")), ("A2", json!(null))] {
        let ticket = service.ticket(seat).await;
        for client in [&north, &event_wide, &office] {
            let scan = with(service.scan(&ticket), json!({ "at_gate": at_gate }));
            let scan = event_wide.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
            assert_eq!(scan["at_gate"], at_gate);
            service.unchanged(undo(&south, &scan)).await.is_refused(403, "forbidden");
            undo(client, &scan).await.is(200);
            // Nor does it learn that the scan is already undone.
            service.unchanged(undo(&south, &scan)).await.is_refused(403, "forbidden");
            service.clock.advance(30_000);
        }
    }
}
