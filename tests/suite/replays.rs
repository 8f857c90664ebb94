//! A repeated `scan_id`: the first verdict for the same scan, and for any other a conflict that reveals nothing.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Service, assert_members, with};

on_both_databases! {
    a_replay_gets_the_first_verdict_for_ever,
    a_refusal_is_replayed_too,
    a_replay_may_come_from_another_key_of_the_event,
    a_replay_may_show_another_code_of_the_same_ticket,
    a_manual_admission_is_replayed_to_a_gate_too,
    a_scan_that_was_undone_is_undone_for_ever,
    another_ticket_direction_or_event_is_a_conflict_that_shows_nothing,
    an_unknown_ticket_stays_unknown_to_its_scan_when_it_comes_into_being,
}

const SCANS: &str = "/api/events/default/scans";

async fn a_replay_gets_the_first_verdict_for_ever(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let body = with(service.scan(&ticket), json!({ "at_gate": "North" }));
    let first = gate.post(SCANS, body.clone()).await.is_scan(200, "accepted");
    for milliseconds in [0, 120_000, 20 * 86_400_000] {
        service.clock.advance(milliseconds);
        let again = service.unchanged(gate.post(SCANS, body.clone())).await.is_scan(200, "accepted");
        assert_eq!(again, with(first.clone(), json!({ "replayed": true })));
    }
}

async fn a_manual_admission_is_replayed_to_a_gate_too(service: Service) {
    service.ticket("A1").await;
    let (supervisor, gate) = (service.supervisor().await, service.gate().await);
    let body = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "manual": true, "note": "known" });
    service.unchanged(gate.post(SCANS, body.clone())).await.is_refused(403, "forbidden");
    supervisor.post(SCANS, body.clone()).await.is_scan(200, "accepted");
    assert_eq!(service.unchanged(gate.post(SCANS, body)).await.is_scan(200, "accepted")["replayed"], true);
}

async fn a_refusal_is_replayed_too(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let wrong = json!({
        "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": ticket.wrong_code(service.now()),
    });
    gate.post(SCANS, wrong.clone()).await.is_scan(422, "wrong_code");
    let stale = json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(service.moment(-90_000)) });
    let first = gate.post(SCANS, stale.clone()).await.is_scan(422, "stale_code");

    // The right code with the old `scan_id` is still the old scan.
    let right = with(wrong, json!({ "totp_code": ticket.code(service.now()) }));
    let again = service.unchanged(gate.post(SCANS, right)).await.is_scan(422, "wrong_code");
    assert_eq!(again["replayed"], true);
    service.clock.advance(300_000);
    let again = service.unchanged(gate.post(SCANS, stale)).await.is_scan(422, "stale_code");
    assert_eq!(again, with(first, json!({ "replayed": true })));
}

async fn a_replay_may_come_from_another_key_of_the_event(service: Service) {
    let ticket = service.ticket("A1").await;
    let body = service.scan(&ticket);
    service.gate().await.post(SCANS, body.clone()).await.is_scan(200, "accepted");
    let south = service.key(json!({ "name": "s", "role": "gate", "event": "default", "gate": "South" })).await;
    let again = service.unchanged(south.post(SCANS, body)).await.is_scan(200, "accepted");
    assert_members(&again, json!({ "replayed": true, "at_gate": null }));
}

async fn a_replay_may_show_another_code_of_the_same_ticket(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let body = service.scan(&ticket);
    gate.post(SCANS, body.clone()).await.is_scan(200, "accepted");
    let by_seat = json!({ "scan_id": body["scan_id"], "seat": "A1", "gate": "North", "totp_code": "000000" });
    let again = service.unchanged(gate.post(SCANS, by_seat)).await.is_scan(200, "accepted");
    assert_eq!(again["replayed"], true);
}

async fn a_scan_that_was_undone_is_undone_for_ever(service: Service) {
    let ticket = service.ticket("A1").await;
    let supervisor = service.key(json!({ "name": "s", "role": "supervisor", "offline": true })).await;
    let body = service.scan(&ticket);
    let first = supervisor.post(SCANS, body.clone()).await.is_scan(200, "accepted");
    service.clock.advance(1_000);
    let undo = format!("/api/scans/{}/undo", first["scan_id"].as_str().unwrap_or_default());
    supervisor.bare(Method::POST, undo).await.is(200);
    let undone_at = service.time(0);
    service.clock.advance(1_000);
    let told = json!({ "result": "undone", "replayed": true, "undone_at": undone_at });
    for _ in 0..2 {
        let again = service.unchanged(supervisor.post(SCANS, body.clone())).await.is_scan(409, "undone");
        assert_members(&again, told.clone());
        let late = with(body.clone(), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
        let batch = supervisor.post(format!("{SCANS}/batch"), json!({ "scans": [late] }));
        let batch = service.unchanged(batch).await.is(200);
        assert_members(&batch["results"][0], with(told.clone(), json!({ "status": 409 })));
        // Nor does a later admission revive it.
        service.clock.advance(3_600_000);
        supervisor.post(SCANS, service.scan(&ticket)).await;
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", ticket.ticket_id)).await;
    }
}

async fn another_ticket_direction_or_event_is_a_conflict_that_shows_nothing(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let first = service.ticket("A1").await;
    let second = service.ticket("A2").await;
    let elsewhere = service.ticket_of("other", "A1", "North").await;
    let gate = service.gate().await;
    let body = service.scan(&first);
    gate.post(SCANS, body.clone()).await.is_scan(200, "accepted");
    let unknown = json!({ "scan_id": Uuid::now_v7(), "seat": "Z9", "gate": "North", "totp_code": "000000" });
    gate.post(SCANS, unknown.clone()).await.is_scan(404, "unknown_ticket");

    let other_scans = "/api/events/other/scans";
    let same_id = |of: &Value, changes: Value| with(with(of.clone(), changes), json!({ "scan_id": of["scan_id"] }));
    let cases = [
        (SCANS, same_id(&body, json!({ "code": second.qr(service.now()) }))),
        (SCANS, same_id(&body, json!({ "code": "not ours" }))),
        (SCANS, same_id(&body, json!({ "direction": "exit" }))),
        (SCANS, same_id(&unknown, json!({ "seat": "Z8" }))),
        (SCANS, same_id(&unknown, json!({ "seat": "A2" }))),
        (SCANS, same_id(&unknown, json!({ "direction": "exit" }))),
        (other_scans, body.clone()),
        (other_scans, same_id(&body, json!({ "code": elsewhere.qr(service.now()) }))),
        (other_scans, unknown.clone()),
    ];
    for (path, body) in cases {
        let reply = service.unchanged(gate.post(path, body)).await;
        reply.is_refused(409, "scan_id_conflict");
        assert!(!reply.text().contains("A1") && !reply.text().contains(&first.username), "{}", reply.text());
    }
}

async fn an_unknown_ticket_stays_unknown_to_its_scan_when_it_comes_into_being(service: Service) {
    let gate = service.gate().await;
    let body = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": "000000" });
    let first = gate.post(SCANS, body.clone()).await.is_scan(404, "unknown_ticket");
    service.ticket("A1").await;
    let again = service.unchanged(gate.post(SCANS, body)).await.is_scan(404, "unknown_ticket");
    assert_eq!(again, with(first, json!({ "replayed": true })));
}
