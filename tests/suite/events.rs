//! Events: their creation, times, changes and deletion.

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use http::Method;
use register_ticket_api::limits::{LIST_KEPT, MANIFEST_AFTER_END};
use serde_json::json;

use crate::client::{Client, Reply};
use crate::database::Kind;
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
    an_event_that_admitted_somebody_is_deleted_after_its_end_only,
    an_event_without_an_end_is_over_a_day_after_its_newest_admission,
    an_event_whose_gates_have_its_list_is_not_deleted,
    an_event_whose_list_a_device_of_all_events_may_have_is_not_deleted,
    an_event_with_tickets_is_deleted_by_its_repeated_name_only,
    deleting_an_event_fails_nothing_that_happens_meanwhile,
    times_that_would_stop_a_running_event_are_refused,
    times_that_would_close_the_list_of_gates_are_refused,
    no_moved_time_frees_an_event_that_admitted_somebody,
    an_event_that_ends_at_once_goes_on_for_its_gates,
    an_event_that_does_not_exist_is_not_found,
}

const HOUR: i64 = 3_600_000;
/// How long after the end gates may finish and send what they have.
const AFTER_END: i64 = MANIFEST_AFTER_END.as_millis() as i64;

async fn an_event_is_created_with_its_defaults(service: Service) {
    let event = service.organizer.post("/api/events", json!({ "slug": "spring", "name": "Spring" })).await.is(201);
    assert_members(
        &event,
        json!({ "time_zone": "UTC", "reentry": "none", "starts_at": null, "version": 1, "capacity": null, "category_colours": {}, "walk_ups": false, "walk_up_price": null, "currency": null }),
    );
    let shown = with(event, json!({ "ticket_secret_set": false }));
    assert_eq!(service.organizer.get("/api/events/spring").await.is(200), shown);
    let with_secret = service.another(&[("TICKET_SECRET", "the first secret of the test suite")]).organizer;
    assert_eq!(with_secret.get("/api/events/spring").await.is(200)["ticket_secret_set"], true);
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
        ("name", json!({ "slug": "x", "name": " " })),
        ("time_zone", json!({ "slug": "x", "name": "x", "time_zone": "Mars/Olympus" })),
        ("starts_at", json!({ "slug": "x", "name": "x", "starts_at": "tomorrow" })),
        ("starts_at", json!({ "slug": "x", "name": "x", "starts_at": 1_777_658_400 })),
        ("ends_at", json!({ "slug": "x", "name": "x", "starts_at": service.time(HOUR), "ends_at": service.time(0) })),
        ("opens_at", json!({ "slug": "x", "name": "x", "opens_at": "18:00" })),
        ("closes_at", json!({ "slug": "x", "name": "x", "opens_at": service.time(0), "closes_at": service.time(0) })),
        ("reentry", json!({ "slug": "x", "name": "x", "reentry": "always" })),
        ("capacity", json!({ "slug": "x", "name": "x", "capacity": 0 })),
        ("capacity", json!({ "slug": "x", "name": "x", "capacity": 1_000_001 })),
        ("walk_up_price", json!({ "slug": "x", "name": "x", "currency": "EUR", "walk_up_price": -1 })),
        ("walk_up_price", json!({ "slug": "x", "name": "x", "currency": "EUR", "walk_up_price": 100_000_001 })),
        ("walk_up_price", json!({ "slug": "x", "name": "x", "walk_up_price": 1_200 })),
        ("currency", json!({ "slug": "x", "name": "x", "currency": "euro" })),
        ("currency", json!({ "slug": "x", "name": "x", "currency": "eur" })),
        ("category_colours", json!({ "slug": "x", "name": "x", "category_colours": { "": "blue" } })),
        ("category_colours.VIP", json!({ "slug": "x", "name": "x", "category_colours": { "VIP": "red" } })),
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

    let changes = json!({ "time_zone": "Europe/Madrid", "reentry": "after_exit", "capacity": 150, "category_colours": { "VIP": "violet" } });
    let changed = service.organizer.patch("/api/events/spring", changes.clone()).await.is(200);
    let version = created["version"].as_i64().expect("a number") + 1;
    assert_eq!(changed, with(with(created, changes), json!({ "version": version })));

    let cleared =
        service.organizer.patch("/api/events/spring", json!({ "ends_at": null, "capacity": null })).await.is(200);
    assert_members(
        &cleared,
        json!({ "starts_at": start, "ends_at": null, "capacity": null, "category_colours": { "VIP": "violet" } }),
    );
    let shown = with(cleared, json!({ "ticket_secret_set": false }));
    assert_eq!(service.organizer.get("/api/events/spring").await.is(200), shown);
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

    service.clock.advance(24 * HOUR);
    service.organizer.delete("/api/events/spring?confirm=spring").await.is(204);

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

const SPRING: &str = "/api/events/spring";
const DELETE: &str = "/api/events/spring?confirm=spring";

/// Creates the event and admits somebody; returns the scan's path.
async fn admitted(service: &Service, times: serde_json::Value) -> String {
    service.event(with(json!({ "slug": "spring", "name": "Spring" }), times)).await;
    let ticket = service.ticket_of("spring", &service.now().0.to_string(), "North").await;
    let scan = service.organizer.post(format!("{SPRING}/scans"), service.scan(&ticket)).await;
    let scan = scan.is_scan(200, "accepted");
    format!("/api/scans/{}", scan["scan_id"].as_str().expect("a scan has an id"))
}

async fn is_in_use(service: &Service) {
    service.unchanged(service.organizer.delete(DELETE)).await.is_refused(409, "event_in_use");
}

async fn an_event_that_admitted_somebody_is_deleted_after_its_end_only(service: Service) {
    admitted(&service, json!({ "ends_at": service.time(72 * HOUR) })).await;
    is_in_use(&service).await;
    service.clock.advance(72 * HOUR + AFTER_END);
    is_in_use(&service).await;
    service.clock.advance(1);
    service.organizer.delete(DELETE).await.is(204);

    // Nor before its start if somebody was admitted early; an undone scan is no admission.
    let times = json!({ "starts_at": service.time(HOUR), "ends_at": service.time(2 * HOUR) });
    let scan = admitted(&service, times).await;
    is_in_use(&service).await;
    service.organizer.bare(Method::POST, format!("{scan}/undo")).await.is(200);
    service.organizer.delete(DELETE).await.is(204);
}

async fn an_event_without_an_end_is_over_a_day_after_its_newest_admission(service: Service) {
    admitted(&service, json!({})).await;
    service.clock.advance(24 * HOUR - 1);
    is_in_use(&service).await;
    service.clock.advance(1);
    service.organizer.delete(DELETE).await.is(204);

    service.event(json!({ "slug": "spring", "name": "Spring", "starts_at": service.time(0) })).await;
    service.clock.advance(24 * HOUR);
    is_in_use(&service).await;
    service.clock.advance(1);
    service.organizer.delete(DELETE).await.is(204);
}

/// Creates a ticket and a device's key: returns the key's path and its client.
async fn device(service: &Service) -> (String, Client) {
    service.ticket_of("spring", "A1", "North").await;
    let key = json!({ "name": "x", "role": "gate", "event": "spring", "offline": true });
    let key = service.organizer.post("/api/keys", key).await.is(201);
    let path = format!("/api/keys/{}", key["key_id"].as_str().expect("a key has an id"));
    (path, service.anonymous.with_key(key["key"].as_str().expect("a new key is shown")))
}

async fn an_event_whose_gates_have_its_list_is_not_deleted(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring", "ends_at": service.time(72 * HOUR) })).await;
    let (path, gate) = device(&service).await;
    gate.get(format!("{SPRING}/manifest")).await.is(200);
    is_in_use(&service).await;
    service.clock.advance(48 * HOUR - 1);
    is_in_use(&service).await;
    service.organizer.delete(path).await.is(204);
    service.organizer.delete(DELETE).await.is(204);
}

async fn an_event_whose_list_a_device_of_all_events_may_have_is_not_deleted(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring", "ends_at": service.time(-AFTER_END + 50 * HOUR) })).await;
    service.event(json!({ "slug": "empty", "name": "Empty" })).await;
    service.ticket_of("spring", "A1", "North").await;
    let gate = service.offline_gate().await;
    gate.get(format!("{SPRING}/manifest")).await.is(200);
    is_in_use(&service).await;
    let change = service.organizer.patch(SPRING, event_at(&service, -9, -8));
    service.unchanged(change).await.is_refused(422, "invalid_payload");
    service.clock.advance(LIST_KEPT.as_millis() as i64);
    is_in_use(&service).await;
    // An event without tickets has no list that a device could hold.
    service.organizer.patch("/api/events/empty", event_at(&service, 48, 50)).await.is(200);
    service.organizer.delete("/api/events/empty").await.is(204);
    service.clock.advance(2 * HOUR);
    service.organizer.delete(DELETE).await.is(204);
}

async fn an_event_with_tickets_is_deleted_by_its_repeated_name_only(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    service.event(json!({ "slug": "empty", "name": "Empty" })).await;
    service.seat("spring", "A1", "North").await;
    for path in
        ["/spring", "/spring?confirm=", "/spring?confirm=Spring", "/spring?confirm=empty", "/empty?confirm=spring"]
    {
        let delete = service.organizer.delete(format!("/api/events{path}"));
        let problem = service.unchanged(delete).await.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": "confirm", "code": "not_the_slug" }));
    }
    service.organizer.delete(DELETE).await.is(204);
    service.organizer.delete("/api/events/empty").await.is(204);
}

async fn deleting_an_event_fails_nothing_that_happens_meanwhile(service: Service) {
    for round in 0..8 {
        service.event(json!({ "slug": "spring", "name": "Spring" })).await;
        let organizer = &service.organizer;
        let bound = service.key(json!({ "name": "x", "role": "organizer", "event": "spring" })).await;
        let mut requests: Vec<BoxFuture<Reply>> = Vec::new();
        for number in 0..3 {
            let seat = json!({ "seat": format!("A{number}"), "gate": "North" });
            let file = format!("seat,gate,username\nB{number},North,ana\n");
            let person = json!({ "username": format!("ana{number}") });
            let key = json!({ "name": "x", "role": "gate", "event": "spring" });
            requests.push(organizer.post(format!("{SPRING}/tickets"), seat).boxed());
            requests.push(bound.post("/api/users", person).boxed());
            requests.push(organizer.post("/api/keys", key.clone()).boxed());
            requests.push(bound.post("/api/keys", key).boxed());
            requests.push(organizer.get(format!("{SPRING}/tickets.csv")).boxed());
            if number == 0 {
                requests.push(bound.post_csv(format!("{SPRING}/tickets"), file).boxed());
            }
        }
        requests.insert(round, organizer.delete(DELETE).boxed());
        for reply in join_all(requests).await {
            assert!(reply.status.as_u16() < 500, "{}", reply.text());
        }
        // If the deletion met another request, it was refused.
        let deleted = organizer.delete(DELETE).await;
        assert!([204, 404].contains(&deleted.status.as_u16()), "{}", deleted.text());
        let left = "select (select count(*) from tickets) + (select count(*) from keys) + (select count(*) from users)";
        assert_eq!(service.database.count(left).await, 0);
    }
}

/// Otherwise a request that holds a key's row and waits for the event would wait forever.
#[tokio::test(flavor = "multi_thread")]
async fn on_postgres_a_deletion_gives_way_to_who_is_at_work() {
    let service = Service::start(Kind::Postgres).await;
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    service.key(json!({ "name": "x", "role": "gate", "event": "spring" })).await;
    service.database.execute("begin; select 1 from keys for update").await.expect("nobody has it");
    service.organizer.delete(DELETE).await.is_refused(409, "event_in_use");
    let share = "select 1 from events where slug = 'spring' for key share; commit";
    service.database.execute(share).await.expect("the event is free again");
    service.organizer.delete(DELETE).await.is(204);
}

async fn times_that_would_stop_a_running_event_are_refused(service: Service) {
    let event = json!({
        "slug": "spring", "name": "Spring", "starts_at": service.time(-HOUR), "ends_at": service.time(3 * HOUR),
    });
    service.event(event).await;
    for (field, change) in [
        ("starts_at", json!({ "starts_at": service.time(24 * HOUR), "ends_at": service.time(30 * HOUR) })),
        ("starts_at", json!({ "starts_at": service.time(1) })),
        ("starts_at", json!({ "starts_at": null })),
        ("ends_at", json!({ "ends_at": service.time(-1) })),
        ("ends_at", json!({ "starts_at": service.time(-30 * HOUR), "ends_at": null })),
    ] {
        let reply = service.unchanged(service.organizer.patch(SPRING, change.clone())).await;
        let problem = reply.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": field, "code": "gates_at_work" }));
    }
    for change in [
        json!({ "ends_at": service.time(HOUR) }),
        json!({ "ends_at": service.time(48 * HOUR), "starts_at": service.time(-2 * HOUR) }),
        json!({ "ends_at": null }),
        json!({ "name": "Spring again", "reentry": "after_exit", "time_zone": "Europe/Madrid" }),
    ] {
        service.organizer.patch(SPRING, change).await.is(200);
    }
    // Once an event is over, its times may be changed to others in the past.
    service.organizer.patch(SPRING, json!({ "ends_at": service.time(HOUR) })).await.is(200);
    service.clock.advance(2 * HOUR);
    service.organizer.patch(SPRING, json!({ "starts_at": null, "ends_at": service.time(-9 * HOUR) })).await.is(200);
}

async fn times_that_would_close_the_list_of_gates_are_refused(service: Service) {
    let event = json!({
        "slug": "spring", "name": "Spring", "starts_at": service.time(10 * HOUR), "ends_at": service.time(15 * HOUR),
    });
    service.event(event).await;
    let (path, gate) = device(&service).await;
    let put_off = || json!({ "starts_at": service.time(24 * HOUR + 1), "ends_at": service.time(40 * HOUR) });
    let ended = || json!({ "starts_at": service.time(-40 * HOUR), "ends_at": service.time(-30 * HOUR) });
    for change in [put_off(), event_at(&service, 10, 15), ended(), event_at(&service, 10, 15)] {
        service.organizer.patch(SPRING, change).await.is(200);
    }
    gate.get(format!("{SPRING}/manifest")).await.is(200);
    for (field, change) in [("starts_at", put_off()), ("ends_at", ended())] {
        let reply = service.unchanged(service.organizer.patch(SPRING, change)).await;
        let problem = reply.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": field, "code": "gates_at_work" }));
    }
    service.organizer.patch(SPRING, event_at(&service, 24, 30)).await.is(200);
    service.organizer.delete(path).await.is(204);
    service.organizer.patch(SPRING, put_off()).await.is(200);
}

fn event_at(service: &Service, start: i64, end: i64) -> serde_json::Value {
    json!({ "starts_at": service.time(start * HOUR), "ends_at": service.time(end * HOUR) })
}

async fn no_moved_time_frees_an_event_that_admitted_somebody(service: Service) {
    admitted(&service, json!({ "ends_at": service.time(3 * HOUR) })).await;
    for change in [json!({ "ends_at": service.time(-1) }), event_at(&service, -9, -8)] {
        let reply = service.unchanged(service.organizer.patch(SPRING, change)).await;
        reply.is_refused(422, "invalid_payload");
    }
    for change in [event_at(&service, 24, 30), json!({ "starts_at": null, "ends_at": null })] {
        service.organizer.patch(SPRING, change).await.is(200);
        is_in_use(&service).await;
    }
}

async fn an_event_that_ends_at_once_goes_on_for_its_gates(service: Service) {
    let end_soon = async || {
        service.organizer.patch(SPRING, json!({ "ends_at": service.time(2_000) })).await.is(200);
        service.clock.advance(3_000);
        is_in_use(&service).await;
        for end in [-1, -AFTER_END] {
            let further = json!({ "starts_at": service.time(-20 * HOUR), "ends_at": service.time(end) });
            let further = service.organizer.patch(SPRING, further);
            let problem = service.unchanged(further).await.is_refused(422, "invalid_payload");
            assert_members(&problem["errors"][0], json!({ "field": "ends_at", "code": "gates_at_work" }));
        }
    };
    admitted(&service, event_at(&service, -1, 3)).await;
    end_soon().await;
    // Later admissions by its gates also prevent its deletion.
    service.clock.advance(AFTER_END - HOUR);
    let late = service.ticket_of("spring", "late", "North").await;
    service.organizer.post(format!("{SPRING}/scans"), service.scan(&late)).await.is_scan(200, "accepted");
    service.clock.advance(AFTER_END);
    is_in_use(&service).await;
    service.clock.advance(1);
    service.organizer.delete(DELETE).await.is(204);

    service.event(with(json!({ "slug": "spring", "name": "Spring" }), event_at(&service, -1, 3))).await;
    let (_, gate) = device(&service).await;
    gate.get(format!("{SPRING}/manifest")).await.is(200);
    end_soon().await;
    gate.get(format!("{SPRING}/manifest")).await.is(200);
    service.clock.advance(AFTER_END);
    service.organizer.delete(DELETE).await.is(204);
}
