//! Failures in the middle of a request: of the database, of the service itself, or because of others who are always
//! faster. Everything begun is rolled back, the answer does not reveal the cause, and afterwards the same request
//! succeeds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use register_ticket_api::app::App;
use register_ticket_api::model::{Direction, Millis, Scan, ScanResult};
use register_ticket_api::store::{Guesses, Mark, Recorded, open};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::database::Obstacle;
use crate::service::{Service, Ticket, settings, with};

on_both_databases! {
    a_scan_whose_ticket_changes_every_time_is_to_be_sent_again,
    a_scan_whose_event_is_deleted_before_it_is_written_is_read_again,
    a_failing_statement_takes_the_whole_request_back,
    a_panic_is_a_failure_after_which_the_service_goes_on,
}

const SCANS: &str = "/api/events/default/scans";
/// The text of the test's errors and panics, which no client may see.
const CAUSE: &str = "a cause from inside";

async fn a_scan_whose_ticket_changes_every_time_is_to_be_sent_again(service: Service) {
    let ticket = service.ticket("A1").await;
    let scans = every_admission(&service, &ticket);
    service.database.obstruct("update on tickets", Obstacle::Skips).await;
    for (path, body) in &scans {
        let refused = service.unchanged(service.organizer.post(path, body.clone())).await;
        refused.is_refused(503, "scan_contended");
        assert_eq!(refused.header("retry-after"), "1", "{path}");
    }
    service.database.clear().await;
    let (path, body) = &scans[0];
    let admitted = service.organizer.post(path, body.clone()).await.is_scan(200, "accepted");
    assert_eq!(admitted["replayed"], false, "a refusal without a verdict is not replayed");
}

/// The event and its tickets may be deleted between reading and writing. That is no failure of the database: reading
/// again finds that there is no such event.
async fn a_scan_whose_event_is_deleted_before_it_is_written_is_read_again(service: Service) {
    let store = open(&settings(&service.database, &[]));
    for (result, ticket_id) in [
        (ScanResult::UnknownTicket, None),
        (ScanResult::Revoked, Some(Uuid::now_v7())),
        (ScanResult::WrongCode, Some(Uuid::now_v7())),
        (ScanResult::AlreadyUsed, Some(Uuid::now_v7())),
        (ScanResult::Accepted, Some(Uuid::now_v7())),
    ] {
        let now = service.now();
        let scan = Scan {
            scan_id: Uuid::now_v7(),
            event_id: Uuid::now_v7(),
            ticket_id,
            presented: None,
            at_gate: None,
            direction: Direction::Entry,
            result,
            offline_result: None,
            manual: false,
            note: None,
            seconds_off: None,
            opens_at: None,
            closed_at: None,
            first_used_at: None,
            first_used_gate: None,
            scanned_at: now,
            received_at: now,
            decided_at: now,
            key_id: None,
            undone_at: None,
            undone_by: None,
            vouched_by: None,
        };
        let mark = Mark { version: 1, step: None, inside: true };
        let mark = (result == ScanResult::Accepted).then_some(mark);
        let before = service.database.snapshot().await;
        let recorded = store.record_scan(&scan, mark.as_ref(), &Guesses::default()).await;
        assert_eq!(recorded.expect("it is no failure"), Recorded::Outdated, "{result:?}");
        assert_eq!(service.database.snapshot().await, before, "{result:?}");
    }
    // The connection still works for the next request.
    let ticket = service.ticket("A1").await;
    service.organizer.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn a_failing_statement_takes_the_whole_request_back(service: Service) {
    let organizer = &service.organizer;
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    service.ticket_of("other", "A1", "North").await;
    let (used, valid) = (service.ticket("A1").await, service.ticket("A2").await);
    let scan = organizer.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
    let path = format!("/api/tickets/{}", valid.ticket_id);
    let file = "seat,gate,username\nB1,North,new\n";
    // Written in several transactions, so that the earlier ones must be undone.
    let large: String = (0..2_500).map(|seat| format!("{seat},South,new{seat}\n")).collect();
    let large = format!("seat,gate,username\n{large}");
    service.seat("default", "A3", "North").await;
    let seat = json!({ "seat": "A3", "gate": "North" });

    // If there are several statements, the last one fails.
    let mut requests: Vec<(&str, BoxFuture<Reply>)> = vec![
        ("insert on users", organizer.post("/api/users", json!({ "username": "ana" })).boxed()),
        ("insert on keys", organizer.post("/api/keys", json!({ "name": "x", "role": "gate" })).boxed()),
        ("insert on events", organizer.post("/api/events", json!({ "slug": "x", "name": "x" })).boxed()),
        ("update on events", organizer.patch("/api/events/other", json!({ "name": "x" })).boxed()),
        ("insert on tickets", organizer.post_csv("/api/events/default/tickets", file).boxed()),
        ("insert on actions", organizer.post_csv("/api/events/default/tickets", large).boxed()),
        ("update on tickets", organizer.post(format!("/api/users/{}/tickets", used.username), seat).boxed()),
        ("update on tickets", organizer.bare(Method::POST, format!("{path}/revoke")).boxed()),
        ("update on tickets", organizer.bare(Method::POST, format!("{path}/reissue")).boxed()),
        ("update on tickets", organizer.post(format!("{path}/transfer"), json!({ "username": used.username })).boxed()),
        ("update on scans", organizer.bare(Method::POST, &undo).boxed()),
        ("update on tickets", organizer.bare(Method::POST, &undo).boxed()),
        (
            "update on users",
            organizer.patch(format!("/api/users/{}", used.username), json!({ "full_name": "x" })).boxed(),
        ),
        ("delete on users", organizer.delete(format!("/api/users/{}", used.username)).boxed()),
        // This statement ends the event; its rows are deleted afterwards (`deletions`).
        ("insert on actions", organizer.delete("/api/events/other?confirm=other").boxed()),
    ];
    for (path, body) in every_admission(&service, &valid) {
        requests.push(("insert on scans", organizer.post(path, body).boxed()));
    }
    for (change, request) in requests {
        service.database.obstruct(change, Obstacle::Fails(CAUSE)).await;
        let failed = service.unchanged(request).await;
        failed.is_refused(500, "internal_error");
        assert!(!failed.text().contains(CAUSE), "{}", failed.text());
        service.database.clear().await;
    }
    organizer.post(SCANS, service.scan(&valid)).await.is_scan(200, "accepted");
}

async fn a_panic_is_a_failure_after_which_the_service_goes_on(service: Service) {
    // A test can make the clock panic. The first reading is in handling any request; a full health check reads the
    // clock again, in its endpoint.
    let readings_left = Arc::new(AtomicI64::new(i64::MAX));
    let countdown = Arc::clone(&readings_left);
    let clock = move || {
        assert_ne!(countdown.fetch_sub(1, Ordering::SeqCst), 0, "{CAUSE}");
        Millis::now()
    };
    let app = Arc::new(App::new(settings(&service.database, &[]), Box::new(clock)));
    let client = Client::of(&app).with_key(crate::service::ORGANIZER_KEY);
    let fails_after = async |readings: i64, request: BoxFuture<'_, Reply>| {
        readings_left.store(readings, Ordering::SeqCst);
        let failed = service.unchanged(request).await;
        failed.is_refused(500, "internal_error");
        assert!(!failed.text().contains(CAUSE), "{}", failed.text());
    };
    let create = || client.post("/api/users", json!({ "username": "ana" }));
    fails_after(0, create().boxed()).await;
    create().await.is(201);
    let check = || client.get("/health?full=1");
    fails_after(1, check().boxed()).await;
    check().await.is(200);
}

/// Every way to ask for a ticket's admission.
fn every_admission(service: &Service, ticket: &Ticket) -> Vec<(String, Value)> {
    let Ticket { seat, gate, .. } = ticket;
    let digits = ticket.code(service.now());
    let offline = json!({ "scanned_at": service.time(0), "offline_result": "accepted" });
    let by_hand = json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": gate, "manual": true, "note": "known" });
    vec![
        (SCANS.into(), service.scan(ticket)),
        (SCANS.into(), by_hand),
        (format!("{SCANS}/batch"), json!({ "scans": [with(service.scan(ticket), offline)] })),
        ("/api/users/attendance".into(), json!({ "seat": seat, "gate": gate, "totp_code": digits })),
    ]
}
