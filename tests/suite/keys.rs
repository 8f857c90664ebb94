//! Keys: how they are made, how long they hold, and how they end.

use http::{Method, Request};
use register_ticket_api::model::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{ORGANIZER_KEY, Service, walk};

on_both_databases! {
    a_key_is_shown_once_and_kept_as_a_hash,
    the_key_of_a_gate_ends_12_hours_after_its_event,
    the_key_of_a_gate_without_an_end_lives_30_days,
    the_key_of_an_organizer_does_not_expire,
    a_key_holds_until_the_moment_it_expires,
    a_key_with_a_wrong_field_is_refused,
    a_revoked_key_is_refused_at_once,
    another_process_remembers_a_revoked_key_for_30_seconds,
    a_revocation_can_be_repeated,
    keys_are_listed_page_by_page,
    the_list_tells_the_newest_scan_of_each_key,
    what_is_no_key_is_unauthenticated,
}

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const SCANS: &str = "/api/events/default/scans";
const STATS: &str = "/api/events/default/stats";

async fn a_key_is_shown_once_and_kept_as_a_hash(service: Service) {
    let body = json!({ "name": "north", "role": "gate", "event": "default", "gate": "North", "offline": true });
    let created = service.organizer.post("/api/keys", body).await.is(201);
    let key = created["key"].as_str().unwrap_or_default();
    assert!(key.starts_with("rtk_") && key.len() == 47, "{key}");
    let list = service.organizer.get("/api/keys").await;
    assert!(!list.text().contains(key) && !service.database.snapshot().await.contains(key));
    assert_eq!(list.is(200)["keys"][0]["key_id"], created["key_id"]);
    service.anonymous.with_key(key).get(STATS).await.is(200);
}

async fn the_key_of_a_gate_ends_12_hours_after_its_event(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring", "ends_at": service.time(HOUR) })).await;
    for role in roles_at_gates() {
        let created = create(&service, json!({ "name": "x", "role": role, "event": "spring" })).await;
        assert_eq!(created["expires_at"], service.time(13 * HOUR));
    }
    let chosen = service.time(2 * HOUR);
    let created =
        create(&service, json!({ "name": "x", "role": "gate", "event": "spring", "expires_at": chosen })).await;
    assert_eq!(created["expires_at"], chosen);
}

async fn the_key_of_a_gate_without_an_end_lives_30_days(service: Service) {
    for role in roles_at_gates() {
        for body in [json!({ "name": "x", "role": role }), json!({ "name": "x", "role": role, "event": "default" })] {
            assert_eq!(create(&service, body).await["expires_at"], service.time(30 * DAY), "{role}");
        }
    }
}

async fn the_key_of_an_organizer_does_not_expire(service: Service) {
    let created = create(&service, json!({ "name": "x", "role": "organizer" })).await;
    assert_eq!(created["expires_at"], Value::Null);
    let organizer = service.anonymous.with_key(created["key"].as_str().unwrap_or_default());
    service.clock.advance(1_000 * DAY);
    organizer.get("/api/keys").await.is(200);
}

async fn a_key_holds_until_the_moment_it_expires(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.key(json!({ "name": "x", "role": "gate", "expires_at": service.time(10_000) })).await;
    service.clock.advance(9_999);
    gate.get(STATS).await.is(200);
    service.clock.advance(1);
    gate.get(STATS).await.is_refused(401, "unauthenticated");
    service.unchanged(gate.post(SCANS, service.scan(&ticket))).await.is_refused(401, "unauthenticated");
    service.another(&[]).anonymous.get(STATS).await.is_refused(401, "unauthenticated");
}

async fn a_key_with_a_wrong_field_is_refused(service: Service) {
    let cases = [
        ("name", json!({ "role": "gate" })),
        ("name", json!({ "name": "", "role": "gate" })),
        ("role", json!({ "name": "x" })),
        ("role", json!({ "name": "x", "role": "admin" })),
        ("event", json!({ "name": "x", "role": "gate", "gate": "North" })),
        ("expires_at", json!({ "name": "x", "role": "gate", "expires_at": service.time(0) })),
        ("secret", json!({ "name": "x", "role": "gate", "secret": "mine" })),
    ];
    for (field, body) in cases {
        let reply = service.unchanged(service.organizer.post("/api/keys", body.clone())).await;
        assert_eq!(reply.is_refused(422, "invalid_payload")["errors"][0]["field"], field, "{body}");
    }
    let nowhere = service.organizer.post("/api/keys", json!({ "name": "x", "role": "gate", "event": "none" }));
    service.unchanged(nowhere).await.is_refused(404, "event_not_found");
}

async fn a_revoked_key_is_refused_at_once(service: Service) {
    let ticket = service.ticket("A1").await;
    let created = create(&service, json!({ "name": "x", "role": "gate" })).await;
    let gate = service.anonymous.with_key(created["key"].as_str().unwrap_or_default());
    gate.get(STATS).await.is(200);
    service.organizer.delete(key_path(&created)).await.is(204);
    gate.get(STATS).await.is_refused(401, "unauthenticated");
    service.unchanged(gate.post(SCANS, service.scan(&ticket))).await.is_refused(401, "unauthenticated");
    assert_eq!(service.database.count("select count(*) from keys where revoked_at is not null").await, 1);
}

async fn another_process_remembers_a_revoked_key_for_30_seconds(service: Service) {
    let created = create(&service, json!({ "name": "x", "role": "gate" })).await;
    let other = service.another(&[]);
    let gate = other.anonymous.with_key(created["key"].as_str().unwrap_or_default());
    gate.get(STATS).await.is(200);
    service.organizer.delete(key_path(&created)).await.is(204);
    service.clock.advance(29_999);
    gate.get(STATS).await.is(200);
    service.clock.advance(1);
    gate.get(STATS).await.is_refused(401, "unauthenticated");
}

async fn a_revocation_can_be_repeated(service: Service) {
    let created = create(&service, json!({ "name": "x", "role": "gate" })).await;
    service.organizer.delete(key_path(&created)).await.is(204);
    service.clock.advance(1_000);
    service.unchanged(service.organizer.delete(key_path(&created))).await.is(204);
    for unknown in [Uuid::now_v7().to_string(), "x".into()] {
        let revocation = service.organizer.delete(format!("/api/keys/{unknown}"));
        service.unchanged(revocation).await.is_refused(404, "key_not_found");
    }
}

async fn keys_are_listed_page_by_page(service: Service) {
    for name in ["e", "d", "c", "b", "a"] {
        create(&service, json!({ "name": name, "role": "gate" })).await;
    }
    let keys = walk(&service.organizer, "/api/keys", "keys").await;
    let names: Vec<_> = keys.iter().map(|key| key["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["e", "d", "c", "b", "a"]);
}

async fn the_list_tells_the_newest_scan_of_each_key(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let ticket = service.ticket_of("spring", "A1", "North").await;
    let body = |name: &str| json!({ "name": name, "role": "gate", "event": "spring" });
    let (first, second) = (service.key(body("a")).await, service.key(body("b")).await);
    let bound = service.key(json!({ "name": "c", "role": "organizer", "event": "spring" })).await;
    first.post("/api/events/spring/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    service.clock.advance(1_000);
    first.post("/api/events/spring/scans", service.scan(&ticket)).await.is_scan(409, "already_used");
    service.organizer.post("/api/events/spring/scans", service.scan(&ticket)).await.is_scan(409, "already_used");
    let newest = service.time(0);
    service.clock.advance(1_000);
    second.get("/api/events/spring/stats").await.is(200);
    for organizer in [&service.organizer, &bound] {
        let keys = walk(organizer, "/api/keys", "keys").await;
        let times: Vec<_> = keys.iter().map(|key| key["newest_scan_at"].clone()).collect();
        assert_eq!(times, [json!(newest), Value::Null, Value::Null]);
    }
}

async fn what_is_no_key_is_unauthenticated(service: Service) {
    let never_made = format!("Bearer rtk_{}", "A".repeat(43));
    let wrong_scheme = format!("Basic {ORGANIZER_KEY}");
    let longer = format!("Bearer {ORGANIZER_KEY}x");
    for header in [&never_made, &wrong_scheme, &longer, ORGANIZER_KEY, "", "Bearer", "Bearer ", "Bearer rtk_x"] {
        let request = Request::builder().method(Method::GET).uri("/api/keys").header("authorization", header);
        let reply = service.unchanged(service.anonymous.send(request, "")).await;
        reply.is_refused(401, "unauthenticated");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    let any_case = format!("bearer {ORGANIZER_KEY}");
    let request = Request::builder().method(Method::GET).uri("/api/keys").header("authorization", any_case);
    service.anonymous.send(request, "").await.is(200);
}

/// The roles whose keys end by themselves.
fn roles_at_gates() -> impl Iterator<Item = &'static str> {
    Role::ALL.iter().filter(|role| **role != Role::Organizer).map(|role| role.as_str())
}

async fn create(service: &Service, body: Value) -> Value {
    service.organizer.post("/api/keys", body).await.is(201)
}

fn key_path(created: &Value) -> String {
    format!("/api/keys/{}", created["key_id"].as_str().expect("a key has an id"))
}
