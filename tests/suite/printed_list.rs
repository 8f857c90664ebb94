//! The printed list of an event: when it was printed, and how many changes it lacks.

use http::Method;
use serde_json::{Value, json};

use crate::service::Service;

on_both_databases! {
    a_printed_list_counts_what_was_done_to_tickets_since,
    the_printed_list_of_one_event_is_nothing_to_another,
}

const PRINTED: &str = "/api/events/default/printed";

async fn told(service: &Service) -> Value {
    service.organizer.get(PRINTED).await.is(200)
}

async fn a_printed_list_counts_what_was_done_to_tickets_since(service: Service) {
    let ticket = service.ticket("A1").await;
    assert_eq!(told(&service).await, json!({ "printed_at": null, "changes": 0 }));
    service.clock.advance(1_000);
    let printed = json!({ "printed_at": service.time(0), "changes": 0 });
    assert_eq!(service.organizer.bare(Method::POST, PRINTED).await.is(200), printed);
    assert_eq!(told(&service).await, printed);
    service.clock.advance(1_000);
    let scan = service.scan(&ticket);
    service.organizer.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
    assert_eq!(service.organizer.get("/api/events/default/tickets.csv").await.status, 200);
    assert_eq!(told(&service).await, printed, "who comes in, and who reads, changes no list");
    service.organizer.post_csv("/api/events/default/tickets", "seat,gate\nB1,North\nB2,North\n").await.is(201);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    assert_eq!(told(&service).await["changes"], 3, "two made, one revoked");
    service.clock.advance(1_000);
    service.organizer.bare(Method::POST, PRINTED).await.is(200);
    assert_eq!(told(&service).await["changes"], 0);
}

async fn the_printed_list_of_one_event_is_nothing_to_another(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let elsewhere = service.key(json!({ "name": "x", "role": "organizer", "event": "other" })).await;
    elsewhere.get(PRINTED).await.is_refused(403, "forbidden");
    service.unchanged(elsewhere.bare(Method::POST, PRINTED)).await.is_refused(403, "forbidden");
    service.organizer.bare(Method::POST, PRINTED).await.is(200);
    assert_eq!(elsewhere.get("/api/events/other/printed").await.is(200)["printed_at"], Value::Null);
    service.supervisor().await.get(PRINTED).await.is_refused(403, "forbidden");
}
