//! Keys: how they are created, how long they last, and how they end.

use http::{Method, Request};
use register_ticket_api::model::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{ORGANIZER_KEY, Service, assert_members, walk};

on_both_databases! {
    a_key_is_shown_once_and_kept_as_a_hash,
    the_key_of_a_gate_ends_12_hours_after_its_event,
    the_key_of_a_gate_without_an_end_lives_30_days,
    the_key_of_an_organizer_lives_180_days,
    an_organizers_key_ends_with_the_one_that_made_it_at_the_latest,
    a_key_holds_until_the_moment_it_expires,
    a_key_with_a_wrong_field_is_refused,
    a_revoked_key_is_refused_at_once,
    another_process_remembers_a_revoked_key_for_30_seconds,
    a_revocation_can_be_repeated,
    a_key_takes_what_it_made_with_it,
    what_a_revoked_key_offered_is_worth_nothing,
    a_revoked_key_makes_nothing_more_in_any_process,
    no_key_outlives_the_one_that_is_making_it,
    a_key_tells_which_one_made_it_and_which_one_asks,
    keys_are_listed_page_by_page,
    the_list_tells_the_newest_scan_of_each_key,
    a_device_is_heard_of_by_its_list_within_a_minute,
    a_device_without_a_list_is_heard_of_by_its_numbers_and_scans,
    what_is_no_key_is_unauthenticated,
    an_answer_says_which_database_knows_a_key_or_does_not,
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

async fn the_key_of_an_organizer_lives_180_days(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring", "ends_at": service.time(HOUR) })).await;
    for body in [
        json!({ "name": "x", "role": "organizer" }),
        json!({ "name": "x", "role": "organizer", "event": "spring" }),
        json!({ "name": "x", "role": "organizer", "expires_at": null }),
    ] {
        assert_eq!(create(&service, body).await["expires_at"], service.time(180 * DAY));
    }
    let chosen = service.time(1_000 * DAY);
    let created = create(&service, json!({ "name": "x", "role": "organizer", "expires_at": chosen })).await;
    assert_eq!(created["expires_at"], chosen);
}

async fn an_organizers_key_ends_with_the_one_that_made_it_at_the_latest(service: Service) {
    let end = service.time(DAY);
    let maker = create(&service, json!({ "name": "x", "role": "organizer", "expires_at": end })).await;
    let maker = service.anonymous.with_key(maker["key"].as_str().unwrap_or_default());
    let made = maker.post("/api/keys", json!({ "name": "x", "role": "organizer" })).await.is(201);
    assert_eq!(made["expires_at"], end);
    let later = json!({ "name": "x", "role": "organizer", "expires_at": service.time(DAY + 1) });
    let refused = service.unchanged(maker.post("/api/keys", later)).await.is_refused(422, "invalid_payload");
    assert_members(&refused["errors"][0], json!({ "field": "expires_at", "code": "after_your_key" }));
    // A device's key ends with its event.
    let gate = json!({ "name": "x", "role": "gate", "expires_at": service.time(2 * DAY) });
    assert_eq!(maker.post("/api/keys", gate).await.is(201)["expires_at"], service.time(2 * DAY));
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

/// A key created with another one, and its client.
async fn made_by(maker: &Client, service: &Service, body: Value) -> (Value, Client) {
    let created = maker.post("/api/keys", body).await.is(201);
    let client = service.anonymous.with_key(created["key"].as_str().expect("a new key is shown"));
    (created, client)
}

async fn a_key_takes_what_it_made_with_it(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let organizer = || json!({ "name": "x", "role": "organizer", "event": "spring" });
    let (head, first) = made_by(&service.organizer, &service, json!({ "name": "head", "role": "organizer" })).await;
    let (_, second) = made_by(&first, &service, organizer()).await;
    let (_, third) = made_by(&second, &service, json!({ "name": "x", "role": "gate", "event": "spring" })).await;
    let (_, other) = made_by(&service.organizer, &service, organizer()).await;
    let stats = "/api/events/spring/stats";
    for client in [&first, &second, &third, &other] {
        client.get(stats).await.is(200);
    }
    service.organizer.delete(key_path(&head)).await.is(204);
    for client in [&first, &second, &third] {
        client.get(stats).await.is_refused(401, "unauthenticated");
    }
    other.get(stats).await.is(200);
    let recorded = "select count(*) from actions where action = 'key_revoked'";
    assert_eq!(service.database.count(recorded).await, 3);
    let of_spring = "select count(*) from actions where action = 'key_revoked' and event_id is not null";
    assert_eq!(service.database.count(of_spring).await, 2);
}

async fn what_a_revoked_key_offered_is_worth_nothing(service: Service) {
    let gate = create(&service, json!({ "name": "x", "role": "gate", "event": "default" })).await;
    let others = create(&service, json!({ "name": "y", "role": "gate", "event": "default" })).await;
    let (thief, client) = made_by(&service.organizer, &service, json!({ "name": "x", "role": "organizer" })).await;
    let offer = async |client: &Client, key: &Value| {
        let offer = client.bare(Method::POST, format!("{}/enrol", key_path(key))).await.is(200);
        let (_, token) = offer["enrol_url"].as_str().and_then(|url| url.split_once('=')).expect("a token");
        json!({ "token": token })
    };
    let stolen = offer(&client, &gate).await;
    let honest = offer(&service.organizer, &others).await;
    service.organizer.delete(key_path(&thief)).await.is(204);
    let enrolment = service.anonymous.post("/api/enrol", stolen);
    service.unchanged(enrolment).await.is_refused(410, "enrolment_expired");
    service.anonymous.post("/api/enrol", honest).await.is(200);
    service.anonymous.with_key(gate["key"].as_str().unwrap_or_default()).get(STATS).await.is(200);
}

async fn a_revoked_key_makes_nothing_more_in_any_process(service: Service) {
    let gate = create(&service, json!({ "name": "x", "role": "gate" })).await;
    let (head, _) = made_by(&service.organizer, &service, json!({ "name": "x", "role": "organizer" })).await;
    let other = service.another(&[]).anonymous.with_key(head["key"].as_str().unwrap_or_default());
    other.get("/api/keys").await.is(200);
    service.organizer.delete(key_path(&head)).await.is(204);
    other.get("/api/keys").await.is(200);
    let create = other.post("/api/keys", json!({ "name": "x", "role": "organizer" }));
    service.unchanged(create).await.is_refused(401, "unauthenticated");
    let offer = other.bare(Method::POST, format!("{}/enrol", key_path(&gate)));
    service.unchanged(offer).await.is_refused(401, "unauthenticated");
}

async fn no_key_outlives_the_one_that_is_making_it(service: Service) {
    for _ in 0..5 {
        let (head, client) = made_by(&service.organizer, &service, json!({ "name": "x", "role": "organizer" })).await;
        let creations = (0..8).map(|_| client.post("/api/keys", json!({ "name": "x", "role": "gate" })));
        let (revoked, creations) =
            tokio::join!(service.organizer.delete(key_path(&head)), futures_util::future::join_all(creations));
        revoked.is(204);
        for creation in creations {
            assert!([201, 401].contains(&creation.status.as_u16()), "{}", creation.text());
        }
        let alive = "select count(*) from keys k join keys m on m.key_id = k.created_by \
                     where m.revoked_at is not null and k.revoked_at is null";
        assert_eq!(service.database.count(alive).await, 0);
    }
}

async fn a_key_tells_which_one_made_it_and_which_one_asks(service: Service) {
    let (head, first) = made_by(&service.organizer, &service, json!({ "name": "x", "role": "organizer" })).await;
    let (second, _) = made_by(&first, &service, json!({ "name": "x", "role": "gate" })).await;
    assert_eq!((&head["created_by"], &second["created_by"]), (&Value::Null, &head["key_id"]));
    let listed = walk(&first, "/api/keys", "keys").await;
    assert_members(&listed[0], json!({ "created_by": null, "yours": true }));
    assert_members(&listed[1], json!({ "created_by": head["key_id"], "yours": false }));
    for key in walk(&service.organizer, "/api/keys", "keys").await {
        assert_eq!(key["yours"], false);
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

/// What an organizer sees of a device: when it was last heard, its unsent scans, and when it got its list.
async fn heard(service: &Service, name: &str) -> Value {
    let keys = walk(&service.organizer, "/api/keys", "keys").await;
    let key = keys.iter().find(|key| key["name"] == name).expect("the key is listed");
    json!([key["heard_at"], key["unsent"], key["manifest_at"]])
}

/// Requests the list, reporting this number of unsent scans. Returns the status and the ETag.
async fn sync(client: &Client, unsent: &str, etag: &str) -> (u16, String) {
    let request = Request::builder().uri("/api/events/spring/manifest").header("register-ticket-unsent", unsent);
    let reply = client.send(request.header("if-none-match", etag), "").await;
    (reply.status.as_u16(), reply.header("etag").to_owned())
}

async fn a_device_is_heard_of_by_its_list_within_a_minute(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    service.ticket_of("spring", "A1", "North").await;
    let device = service.key(json!({ "name": "North", "role": "gate", "event": "spring", "offline": true })).await;
    assert_eq!(heard(&service, "North").await, json!([null, null, null]));
    let first = service.time(0);
    let (status, etag) = sync(&device, "3", "").await;
    assert_eq!((status, heard(&service, "North").await), (200, json!([first, 3, first])));
    service.clock.advance(59_999);
    assert_eq!(sync(&device, "0", &etag).await.0, 304);
    assert_eq!(heard(&service, "North").await, json!([first, 3, first]), "once a minute");
    for (unsent, told) in
        [("0", json!(0)), ("99999999999", json!(1_000_000)), ("-1", json!(null)), ("many", json!(null))]
    {
        service.clock.advance(60_001);
        let now = service.time(0);
        assert_eq!(sync(&device, unsent, &etag).await.0, 304, "it gets its list whatever it reports");
        assert_eq!(heard(&service, "North").await, json!([now, told, now]));
    }
    // Another device's reports do not apply to this one.
    let key_id = walk(&service.organizer, "/api/keys", "keys").await[0]["key_id"].clone();
    let offer =
        service.organizer.bare(Method::POST, format!("/api/keys/{}/enrol", key_id.as_str().unwrap())).await.is(200);
    let token = offer["enrol_url"].as_str().and_then(|url| url.split_once("#enrol=")).expect("a token").1.to_owned();
    service.anonymous.post("/api/enrol", json!({ "token": token })).await.is(200);
    assert_eq!(heard(&service, "North").await, json!([null, null, null]));
}

async fn a_device_without_a_list_is_heard_of_by_its_numbers_and_scans(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let ticket = service.ticket_of("spring", "A1", "North").await;
    let device = service.key(json!({ "name": "North", "role": "gate", "event": "spring" })).await;
    let first = service.time(0);
    device.get("/api/events/spring/stats").await.is(200);
    assert_eq!(heard(&service, "North").await, json!([first, null, null]));
    service.clock.advance(1_000);
    let newest = service.time(0);
    let kept = "select concat(heard_at, '/', unsent, '/', manifest_at) from keys where name = 'North'";
    let before = service.database.text(kept, kept).await;
    device.post("/api/events/spring/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    device.post("/api/events/spring/scans", service.scan(&ticket)).await.is_scan(409, "already_used");
    assert_eq!(service.database.text(kept, kept).await, before, "a scan writes nothing to its key");
    assert_eq!(heard(&service, "North").await, json!([newest, null, null]));
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

/// The roles whose keys expire by themselves.
fn roles_at_gates() -> impl Iterator<Item = &'static str> {
    Role::ALL.iter().filter(|role| **role != Role::Organizer).map(|role| role.as_str())
}

async fn create(service: &Service, body: Value) -> Value {
    service.organizer.post("/api/keys", body).await.is(201)
}

fn key_path(created: &Value) -> String {
    format!("/api/keys/{}", created["key_id"].as_str().expect("a key has an id"))
}

/// This lets a device detect that another database was put in place of its own.
async fn an_answer_says_which_database_knows_a_key_or_does_not(service: Service) {
    const DATABASE: &str = "register-ticket-database";
    let (gate, gone) = (service.gate().await, create(&service, json!({ "name": "gone", "role": "gate" })).await);
    let known = gate.get(STATS).await;
    known.is(200);
    let database = known.header(DATABASE);
    assert_eq!(database.len(), 16, "{database:?}");
    service.organizer.delete(format!("/api/keys/{}", gone["key_id"].as_str().expect("an id"))).await.is(204);
    let other = Service::start(service.database.kind).await;
    let unknown = other.key(json!({ "name": "other", "role": "gate" })).await;
    let elsewhere = unknown.get(STATS).await;
    elsewhere.is(200);
    assert_ne!(elsewhere.header(DATABASE), database);
    // A key revoked in another process, whether or not this one has seen it; and one that this database never had.
    let holds = |client: &Client, key: &Value| client.with_key(key["key"].as_str().expect("its secret"));
    let unknown_here = json!({ "key": format!("rtk_{}", "A".repeat(43)) });
    for client in [&service.anonymous, &service.another(&[]).anonymous] {
        for key in [&gone, &unknown_here] {
            let refused = holds(client, key).get(STATS).await;
            refused.is_refused(401, "unauthenticated");
            assert_eq!(refused.header(DATABASE), database);
        }
    }
    let refused = holds(&other.anonymous, &gone).get(STATS).await;
    refused.is_refused(401, "unauthenticated");
    assert_eq!(refused.header(DATABASE), elsewhere.header(DATABASE));
    assert_eq!(service.anonymous.with_key("no key").get(STATS).await.header(DATABASE), "", "nobody was asked");
}
