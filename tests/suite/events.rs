//! Events.

use serde_json::json;

use crate::service::{Service, assert_members, walk, with};

on_both_databases! {
    an_event_is_created_with_its_defaults,
    the_default_event_always_exists,
    a_slug_is_taken_once,
    an_event_with_a_wrong_field_is_refused,
    a_change_leaves_alone_what_it_does_not_name,
    a_change_that_cannot_be_is_refused,
    events_are_listed_page_by_page,
    deleting_an_event_takes_its_tickets_scans_and_keys,
    the_default_event_and_a_running_one_cannot_be_deleted,
    an_event_that_does_not_exist_is_not_found,
}

const HOUR: i64 = 3_600_000;

async fn an_event_is_created_with_its_defaults(service: Service) {
    let event = service.organizer.post("/api/events", json!({ "slug": "spring", "name": "Spring" })).await.is(201);
    assert_members(&event, json!({ "time_zone": "UTC", "reentry": "none", "starts_at": null, "version": 1 }));
    assert_eq!(service.organizer.get("/api/events/spring").await.is(200), event);
}

async fn the_default_event_always_exists(service: Service) {
    assert_eq!(service.organizer.get("/api/events/default").await.is(200)["slug"], "default");
}

async fn a_slug_is_taken_once(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let again = service.organizer.post("/api/events", json!({ "slug": "spring", "name": "Another" }));
    service.unchanged(again).await.is_refused(409, "event_exists");
}

async fn an_event_with_a_wrong_field_is_refused(service: Service) {
    let cases = [
        ("slug", json!({ "name": "x" })),
        ("slug", json!({ "slug": "Spring", "name": "x" })),
        ("slug", json!({ "slug": "", "name": "x" })),
        ("slug", json!({ "slug": "a".repeat(65), "name": "x" })),
        ("name", json!({ "slug": "x" })),
        ("name", json!({ "slug": "x", "name": " x" })),
        ("time_zone", json!({ "slug": "x", "name": "x", "time_zone": "Mars/Olympus" })),
        ("starts_at", json!({ "slug": "x", "name": "x", "starts_at": "tomorrow" })),
        ("starts_at", json!({ "slug": "x", "name": "x", "starts_at": 1_777_658_400 })),
        ("ends_at", json!({ "slug": "x", "name": "x", "starts_at": service.time(HOUR), "ends_at": service.time(0) })),
        ("reentry", json!({ "slug": "x", "name": "x", "reentry": "always" })),
        ("price", json!({ "slug": "x", "name": "x", "price": 7 })),
    ];
    for (field, body) in cases {
        let reply = service.unchanged(service.organizer.post("/api/events", body.clone())).await;
        assert_eq!(reply.is_refused(422, "invalid_payload")["errors"][0]["field"], field, "{body}");
    }
}

async fn a_change_leaves_alone_what_it_does_not_name(service: Service) {
    let (start, end) = (service.time(HOUR), service.time(2 * HOUR));
    let event = json!({ "slug": "spring", "name": "Spring", "starts_at": start, "ends_at": end });
    let created = service.organizer.post("/api/events", event).await.is(201);

    let changes = json!({ "time_zone": "Europe/Madrid", "reentry": "after_exit" });
    let changed = service.organizer.patch("/api/events/spring", changes.clone()).await.is(200);
    let version = created["version"].as_i64().expect("a number") + 1;
    assert_eq!(changed, with(with(created, changes), json!({ "version": version })));

    let cleared = service.organizer.patch("/api/events/spring", json!({ "ends_at": null })).await.is(200);
    assert_members(&cleared, json!({ "starts_at": start, "ends_at": null }));
    assert_eq!(service.organizer.get("/api/events/spring").await.is(200), cleared);
}

async fn a_change_that_cannot_be_is_refused(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring", "starts_at": service.time(HOUR) })).await;
    for body in [
        json!({ "ends_at": service.time(0) }),
        json!({ "slug": "other" }),
        json!({ "name": "" }),
        json!({ "name": null }),
    ] {
        let change = service.organizer.patch("/api/events/spring", body);
        service.unchanged(change).await.is_refused(422, "invalid_payload");
    }
    let unknown = service.organizer.patch("/api/events/none", json!({ "name": "x" }));
    service.unchanged(unknown).await.is_refused(404, "event_not_found");
}

async fn events_are_listed_page_by_page(service: Service) {
    for slug in ["one", "two", "three", "four"] {
        service.event(json!({ "slug": slug, "name": slug })).await;
    }
    let events = walk(&service.organizer, "/api/events", "events").await;
    let slugs: Vec<_> = events.iter().map(|event| event["slug"].as_str().unwrap_or_default()).collect();
    assert_eq!(slugs, ["default", "one", "two", "three", "four"]);
}

async fn deleting_an_event_takes_its_tickets_scans_and_keys(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let own = service.ticket_of("spring", "A1", "North").await;
    let other = service.ticket("A1").await;
    let gate = service.key(json!({ "name": "north", "role": "gate", "event": "spring" })).await;
    let free_gate = service.gate().await;
    gate.post("/api/events/spring/scans", service.scan(&own)).await.is_scan(200, "accepted");
    free_gate.post("/api/events/default/scans", service.scan(&other)).await.is_scan(200, "accepted");

    service.organizer.delete("/api/events/spring").await.is(204);

    for table in ["tickets", "scans", "keys", "events"] {
        assert_eq!(service.database.count(&format!("select count(*) from {table}")).await, 1, "{table}");
    }
    service.organizer.get("/api/events/spring").await.is_refused(404, "event_not_found");
    gate.get("/api/events/spring/stats").await.is_refused(401, "unauthenticated");
    free_gate.get("/api/events/default/stats").await.is(200);
}

async fn the_default_event_and_a_running_one_cannot_be_deleted(service: Service) {
    let running =
        json!({ "slug": "running", "name": "x", "starts_at": service.time(0), "ends_at": service.time(HOUR) });
    service.event(running).await;
    for slug in ["default", "running"] {
        let delete = service.organizer.delete(format!("/api/events/{slug}"));
        service.unchanged(delete).await.is_refused(409, "event_in_use");
    }
    service.clock.advance(HOUR + 1);
    service.organizer.delete("/api/events/running").await.is(204);
}

async fn an_event_that_does_not_exist_is_not_found(service: Service) {
    for name in ["none", "Default", "a%2Fb", "%00", "a%0Ab", "%FF", "..%2Fusers", "%C3%A9t%C3%A9"] {
        let event = format!("/api/events/{name}");
        for path in ["", "/tickets", "/stats", "/manifest", "/tickets.csv", "/scans.csv"] {
            service.organizer.get(format!("{event}{path}")).await.is_refused(404, "event_not_found");
        }
        let scan = json!({ "scan_id": "01a0a0a0-0000-7000-8000-000000000001", "code": "RT1.x.000000" });
        let ticket = json!({ "seat": "A1", "gate": "North" });
        for (path, body) in [("/scans", scan), ("/tickets", ticket), ("/scans/batch", json!({ "scans": [] }))] {
            let request = service.organizer.post(format!("{event}{path}"), body);
            service.unchanged(request).await.is_refused(404, "event_not_found");
        }
        service.unchanged(service.organizer.delete(&event)).await.is_refused(404, "event_not_found");
    }
}
