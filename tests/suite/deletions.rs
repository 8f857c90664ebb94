//! Deletions of large events: no other request waits for them, and nobody sees the leftovers of one that was
//! interrupted.

use register_ticket_api::app::App;
use register_ticket_api::store::{Author, Issuance};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{Obstacle, TestDatabase};
use crate::service::{Service, Ticket, assert_members, settings, walk, with};

on_both_databases! {
    a_scan_of_another_event_is_answered_while_an_event_is_deleted,
    an_event_is_deleted_by_many_short_transactions,
    nobody_sees_what_is_left_of_an_event_whose_deletion_was_stopped,
    nothing_more_is_written_of_a_deleted_event,
    the_next_deletion_deletes_what_is_left,
    the_next_large_import_deletes_what_is_left,
    what_is_left_fails_nobody_elses_request,
}

/// More than one transaction writes or deletes.
const MANY: usize = 2_500;
/// Longer than a request may take, in milliseconds.
const STOPPED: i64 = 121_000;
const DELETE: &str = "/api/events/spring?confirm=spring";
/// Counts everything that an event may leave behind.
const LEFT: &str = "select (select count(*) from tickets) + (select count(*) from scans) + (select count(*) from users) \
    + (select count(*) from keys) + (select count(*) from events where slug <> 'default') \
    + (select count(*) from actions where event_id is not null)";

fn rows() -> String {
    let rows: String = (0..MANY).map(|seat| format!("{seat},North,new{seat}\n")).collect();
    format!("seat,gate,username\n{rows}")
}

/// Creates an event with many tickets of its own people, and a ticket for luis, who belongs to the installation.
async fn large_event(service: &Service) -> Ticket {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    service.user("luis").await;
    service.seat("spring", "luis", "North").await;
    let ticket = json!({ "event": "spring", "seat": "luis", "gate": "North" });
    let ticket = Ticket::new(&service.organizer.post("/api/users/luis/tickets", ticket).await.is(201));
    let own = service.key(json!({ "name": "own", "role": "organizer", "event": "spring" })).await;
    own.post_csv("/api/events/spring/tickets", rows()).await.is(201);
    ticket
}

/// Deletes the event but none of its many rows, as if the request had been interrupted.
async fn stop_deletion(service: &Service) {
    service.database.obstruct("delete on tickets", Obstacle::Fails("no way")).await;
    service.organizer.delete(DELETE).await.is_refused(500, "internal_error");
    service.database.clear().await;
}

async fn tickets(database: &TestDatabase) -> i64 {
    database.count("select count(*) from tickets").await
}

async fn a_scan_of_another_event_is_answered_while_an_event_is_deleted(service: Service) {
    large_event(&service).await;
    let ticket = service.ticket("A1").await;
    service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let scans = async {
        for _ in 0..10 {
            let again = service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await;
            again.is_scan(409, "already_used");
        }
    };
    let (deleted, ()) = tokio::join!(service.organizer.delete(DELETE), scans);
    deleted.is(204);
    assert_eq!(tickets(&service.database).await, 1);
}

async fn an_event_is_deleted_by_many_short_transactions(service: Service) {
    large_event(&service).await;
    // People are deleted after the tickets: if both were in one transaction, the tickets would be back.
    service.database.obstruct("delete on users", Obstacle::Fails("no way")).await;
    service.organizer.delete(DELETE).await.is_refused(500, "internal_error");
    assert_eq!(tickets(&service.database).await, 0);
    assert_eq!(service.database.count("select count(*) from users").await, MANY as i64 + 1);
}

/// Everything that an organizer of the installation can see, except the record of actions.
async fn all_that_is_seen(service: &Service) -> Vec<String> {
    let mut seen = Vec::new();
    for path in ["/api/events", "/api/keys", "/api/users/luis", "/api/users/luis/tickets", "/api/events/default/stats"]
    {
        let reply = service.organizer.get(path).await;
        seen.push(reply.text());
    }
    seen
}

async fn nobody_sees_what_is_left_of_an_event_whose_deletion_was_stopped(service: Service) {
    service.user("luis").await;
    let gate = service.gate().await;
    let before = all_that_is_seen(&service).await;
    service.organizer.delete("/api/users/luis").await.is(204);
    let ticket = large_event(&service).await;
    let organizer = &service.organizer;
    let scan = service.scan(&ticket);
    let done = gate.post("/api/events/spring/scans", scan.clone()).await.is_scan(200, "accepted");
    let scan_id = done["scan_id"].as_str().expect("a scan has an id").to_owned();
    organizer.bare(http::Method::POST, format!("/api/scans/{scan_id}/undo")).await.is(200);
    stop_deletion(&service).await;
    assert_eq!(tickets(&service.database).await, MANY as i64 + 1);

    let now = all_that_is_seen(&service).await;
    let without_times =
        |seen: &[String]| seen.iter().map(|text| text.split("user_id").next().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(without_times(&now), without_times(&before));
    let slug = service
        .database
        .text("select slug from events where slug <> 'default'", "select slug from events where slug <> 'default'")
        .await;
    for event in ["spring", &slug.replace(' ', "%20")] {
        for path in ["", "/stats", "/tickets", "/tickets.csv", "/scans.csv", "/manifest", "/conflicts", "/actions.csv"]
        {
            organizer.get(format!("/api/events/{event}{path}")).await.is_refused(404, "event_not_found");
        }
        let again = with(scan.clone(), json!({ "scan_id": Uuid::now_v7() }));
        gate.post(format!("/api/events/{event}/scans"), again).await.is_refused(404, "event_not_found");
        organizer.delete(format!("/api/events/{event}?confirm={event}")).await.is_refused(404, "event_not_found");
    }
    for (path, code) in [
        (format!("/api/tickets/{}", ticket.ticket_id), "ticket_not_found"),
        (format!("/api/tickets/{}/actions", ticket.ticket_id), "ticket_not_found"),
    ] {
        organizer.get(path).await.is_refused(404, code);
    }
    organizer.bare(http::Method::POST, format!("/api/scans/{scan_id}/undo")).await.is_refused(404, "scan_not_found");
    let revoke = organizer.bare(http::Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id));
    revoke.await.is_refused(404, "ticket_not_found");
    let done = organizer.get("/api/actions.csv").await.text();
    assert!(done.contains("event_deleted") && !done.contains("issued") && !done.contains("spring"), "{done}");
    // Its slug is free at once, and its people do not prevent new ones, or deleting luis.
    organizer.delete("/api/users/luis").await.is(204);
    service.event(json!({ "slug": "spring", "name": "Spring again" })).await;
    organizer.post_csv("/api/events/spring/tickets", "seat,gate,username\n1,North,new1\n").await.is(201);
    let tickets = walk(organizer, "/api/events/spring/tickets", "tickets").await;
    assert_eq!(tickets.len(), 1);
}

/// Writes by a request that found the event before it was deleted.
async fn nothing_more_is_written_of_a_deleted_event(service: Service) {
    large_event(&service).await;
    let clock = service.clock.clone();
    let app = App::new(settings(&service.database, &[]), Box::new(move || clock.now()));
    let store = app.store();
    let event = store.find_event("spring").await.expect("it can be read").expect("it is there").open(None);
    let event_id = event.expect("no key is bound").event_id;
    stop_deletion(&service).await;

    let author = Author { key_id: None, now: service.now() };
    let act = register_ticket_api::store::Act::new(register_ticket_api::model::Action::TicketsExported, event_id);
    let refused = store.record_action(author, &act).await.expect_err("it is deleted");
    assert_eq!(refused.code(), "event_not_found");
    let refused =
        store.create_tickets(event_id, None, &Issuance::default(), author, &|_| {}).await.expect_err("it is deleted");
    assert_eq!(refused.code(), "event_not_found");
    let refused = store.change_event(event_id, &Default::default(), author).await.expect_err("it is deleted");
    assert_eq!(refused.code(), "event_not_found");
}

async fn is_left(service: &Service) -> i64 {
    service.database.count(LEFT).await
}

async fn the_next_deletion_deletes_what_is_left(service: Service) {
    large_event(&service).await;
    stop_deletion(&service).await;
    let delete_another = async || {
        service.event(json!({ "slug": "spring", "name": "Spring again" })).await;
        service.organizer.delete(DELETE).await.is(204);
    };
    // The first request may still be running.
    delete_another().await;
    assert_eq!(tickets(&service.database).await, MANY as i64 + 1);
    service.clock.advance(STOPPED);
    delete_another().await;
    // Luis stays.
    assert_eq!(is_left(&service).await, 1);
}

async fn the_next_large_import_deletes_what_is_left(service: Service) {
    large_event(&service).await;
    stop_deletion(&service).await;
    service.clock.advance(STOPPED);
    let file = service.organizer.post_csv("/api/events/default/tickets", rows());
    let created: Value = file.await.is(201);
    assert_members(&created, json!({ "created": MANY, "users_created": MANY }));
    assert_eq!(tickets(&service.database).await, MANY as i64);
    assert_eq!(service.database.count("select count(*) from events").await, 1);
}

async fn what_is_left_fails_nobody_elses_request(service: Service) {
    large_event(&service).await;
    stop_deletion(&service).await;
    service.clock.advance(STOPPED);
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    service.database.obstruct("delete on tickets", Obstacle::Fails("no way")).await;
    service.organizer.delete("/api/events/other").await.is(204);
    service.database.clear().await;
    assert_eq!(tickets(&service.database).await, MANY as i64 + 1);
}
