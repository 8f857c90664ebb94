//! Enrolment: a device gets a key with a code that the organizer shows, and only one device can.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, assert_members, gate_limits, with};

on_both_databases! {
    an_enrolment_gives_a_device_the_key_and_its_event,
    the_key_of_no_event_is_enrolled_without_one,
    what_a_token_is_for_is_shown_without_using_it_up,
    an_offer_that_enrols_nobody_shows_nothing,
    the_key_is_new_at_each_enrolment,
    a_token_is_good_once,
    a_token_is_good_for_15_minutes,
    a_token_of_a_clock_that_was_ahead_is_worth_nothing,
    asking_again_replaces_the_token,
    another_process_remembers_the_old_key_for_30_seconds,
    a_key_that_ended_meanwhile_is_not_enrolled,
    what_is_no_token_is_an_expired_one,
    only_a_good_key_of_a_gate_or_a_supervisor_can_be_enrolled,
    an_enrolment_is_for_the_organizer_of_the_keys_event,
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

async fn an_enrolment_gives_a_device_the_key_and_its_event(service: Service) {
    let (starts_at, ends_at) = (service.time(HOUR), service.time(4 * HOUR));
    let spring = json!({
        "slug": "spring", "name": "Spring", "time_zone": "Europe/Madrid", "starts_at": starts_at, "ends_at": ends_at,
    });
    service.event(spring).await;
    let body = json!({ "name": "North 1", "role": "gate", "event": "spring", "gate": "North", "offline": true });
    let created = service.organizer.post("/api/keys", body).await.is(201);

    let offer = offer(&service, &created).await.is(200);
    assert_eq!(offer["expires_at"], service.time(15 * MINUTE));
    let token = token(&offer);
    assert_eq!(offer["enrol_url"], format!("http://localhost:8080/gate#enrol={token}"));
    assert!(!service.database.snapshot().await.contains(&token), "the database keeps its hash");

    let enrolled = enrol(&service, &token).await.is(200);
    let facts = json!({
        "event_name": "Spring", "time_zone": "Europe/Madrid", "starts_at": starts_at, "ends_at": ends_at,
        "limits": gate_limits(), "key": enrolled["key"],
    });
    assert_eq!(enrolled, with(created.clone(), facts));
    holder(&service, &enrolled).get("/api/events/spring/stats").await.is(200);
    let key = enrolled["key"].as_str().unwrap_or_default();
    assert!(!service.database.snapshot().await.contains(key), "the database keeps its hash");
}

async fn the_key_of_no_event_is_enrolled_without_one(service: Service) {
    let created = supervisor(&service).await;
    let enrolled = enrol(&service, &token(&offer(&service, &created).await.is(200))).await.is(200);
    for fact in ["event", "event_name", "time_zone", "starts_at", "ends_at"] {
        assert_eq!(enrolled[fact], Value::Null, "{fact}");
    }
    assert_members(&enrolled, json!({ "key_id": created["key_id"], "role": "supervisor" }));
}

async fn what_a_token_is_for_is_shown_without_using_it_up(service: Service) {
    let (starts_at, ends_at) = (service.time(HOUR), service.time(4 * HOUR));
    let spring = json!({
        "slug": "spring", "name": "Spring", "time_zone": "Europe/Madrid", "starts_at": starts_at, "ends_at": ends_at,
    });
    service.event(spring).await;
    let body = json!({ "name": "North 1", "role": "gate", "event": "spring", "gate": "North", "offline": true });
    let created = service.organizer.post("/api/keys", body).await.is(201);
    let token = token(&offer(&service, &created).await.is(200));
    let facts = json!({
        "event_name": "Spring", "time_zone": "Europe/Madrid", "starts_at": starts_at, "ends_at": ends_at,
        "limits": gate_limits(), "key": Value::Null,
    });
    for _ in 0..2 {
        let offered = service.unchanged(show(&service, &token)).await.is(200);
        assert_eq!(offered, with(created.clone(), facts.clone()), "no secret is in it");
        holder(&service, &created).get("/api/events/spring/stats").await.is(200);
    }
    let enrolled = enrol(&service, &token).await.is(200);
    assert_members(&enrolled, json!({ "key_id": created["key_id"], "event_name": "Spring" }));
    holder(&service, &enrolled).get("/api/events/spring/stats").await.is(200);
}

async fn an_offer_that_enrols_nobody_shows_nothing(service: Service) {
    let created = supervisor(&service).await;
    let used = token(&offer(&service, &created).await.is(200));
    enrol(&service, &used).await.is(200);
    let replaced = token(&offer(&service, &created).await.is(200));
    let late = token(&offer(&service, &created).await.is(200));
    for text in ["", "x", &used, &replaced] {
        service.unchanged(show(&service, text)).await.is_refused(410, "enrolment_expired");
    }
    show(&service, &late).await.is(200);
    service.clock.advance(15 * MINUTE);
    service.unchanged(show(&service, &late)).await.is_refused(410, "enrolment_expired");
    let revoked = token(&offer(&service, &created).await.is(200));
    service.organizer.delete(format!("/api/keys/{}", id(&created))).await.is(204);
    service.unchanged(show(&service, &revoked)).await.is_refused(410, "enrolment_expired");
    let expiring = json!({ "name": "x", "role": "gate", "expires_at": service.time(MINUTE) });
    let expiring = service.organizer.post("/api/keys", expiring).await.is(201);
    let expired = token(&offer(&service, &expiring).await.is(200));
    service.clock.advance(MINUTE);
    service.unchanged(show(&service, &expired)).await.is_refused(410, "enrolment_expired");
}

async fn the_key_is_new_at_each_enrolment(service: Service) {
    let created = supervisor(&service).await;
    let mut holders = vec![holder(&service, &created)];
    for _ in 0..2 {
        let offer = offer(&service, &created).await.is(200);
        stats(&holders[holders.len() - 1]).await.is(200);
        let enrolled = enrol(&service, &token(&offer)).await.is(200);
        for old in &holders {
            service.unchanged(stats(old)).await.is_refused(401, "unauthenticated");
        }
        holders.push(holder(&service, &enrolled));
        stats(&holders[holders.len() - 1]).await.is(200);
    }
    assert_eq!(service.database.count("select count(*) from keys").await, 1);
}

async fn a_token_is_good_once(service: Service) {
    let token = token(&offer(&service, &supervisor(&service).await).await.is(200));
    let enrolled = enrol(&service, &token).await.is(200);
    service.unchanged(enrol(&service, &token)).await.is_refused(410, "enrolment_expired");
    stats(&holder(&service, &enrolled)).await.is(200);
    let used = "select count(*) from keys where enrol_hash is null and enrol_expires_at is null";
    assert_eq!(service.database.count(used).await, 1);
}

async fn a_token_is_good_for_15_minutes(service: Service) {
    let created = supervisor(&service).await;
    let late = token(&offer(&service, &created).await.is(200));
    service.clock.advance(15 * MINUTE);
    service.unchanged(enrol(&service, &late)).await.is_refused(410, "enrolment_expired");
    stats(&holder(&service, &created)).await.is(200);
    let in_time = token(&offer(&service, &created).await.is(200));
    service.clock.advance(15 * MINUTE - 1);
    enrol(&service, &in_time).await.is(200);
}

async fn a_token_of_a_clock_that_was_ahead_is_worth_nothing(service: Service) {
    let key = supervisor(&service).await;
    service.clock.advance(60 * 60 * 1_000);
    let token = token(&offer(&service, &key).await.is(200));
    service.clock.advance(-60 * 60 * 1_000);
    service.unchanged(show(&service, &token)).await.is_refused(410, "enrolment_expired");
    service.unchanged(enrol(&service, &token)).await.is_refused(410, "enrolment_expired");
}

async fn asking_again_replaces_the_token(service: Service) {
    let created = supervisor(&service).await;
    let first = token(&offer(&service, &created).await.is(200));
    let second = token(&offer(&service, &created).await.is(200));
    service.unchanged(enrol(&service, &first)).await.is_refused(410, "enrolment_expired");
    enrol(&service, &second).await.is(200);
}

async fn another_process_remembers_the_old_key_for_30_seconds(service: Service) {
    let created = supervisor(&service).await;
    let elsewhere = holder(&service.another(&[]), &created);
    stats(&elsewhere).await.is(200);
    let token = token(&offer(&service, &created).await.is(200));
    enrol(&service, &token).await.is(200);
    service.clock.advance(29_999);
    stats(&elsewhere).await.is(200);
    service.clock.advance(1);
    stats(&elsewhere).await.is_refused(401, "unauthenticated");
}

async fn a_key_that_ended_meanwhile_is_not_enrolled(service: Service) {
    let revoked = supervisor(&service).await;
    let expiring = json!({ "name": "x", "role": "gate", "expires_at": service.time(MINUTE) });
    let expiring = service.organizer.post("/api/keys", expiring).await.is(201);
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let deleted = json!({ "name": "x", "role": "gate", "event": "spring" });
    let deleted = service.organizer.post("/api/keys", deleted).await.is(201);
    let mut tokens = Vec::new();
    for key in [&revoked, &expiring, &deleted] {
        tokens.push(token(&offer(&service, key).await.is(200)));
    }
    service.organizer.delete(format!("/api/keys/{}", id(&revoked))).await.is(204);
    service.organizer.delete("/api/events/spring").await.is(204);
    service.clock.advance(MINUTE);
    for token in tokens {
        service.unchanged(enrol(&service, &token)).await.is_refused(410, "enrolment_expired");
    }
}

async fn what_is_no_token_is_an_expired_one(service: Service) {
    let created = supervisor(&service).await;
    let token = token(&offer(&service, &created).await.is(200));
    let last = if token.ends_with('A') { 'E' } else { 'A' };
    let guessed = format!("{}{last}", &token[..42]);
    let of_nobody = data_encoding::BASE64URL_NOPAD.encode(&[7; 32]);
    let key = created["key"].as_str().unwrap_or_default();
    for text in ["", "x", &token[1..], &format!("{token}A"), &format!("{token}="), &guessed, &of_nobody, key] {
        service.unchanged(enrol(&service, text)).await.is_refused(410, "enrolment_expired");
    }
    for body in [json!({}), json!({ "token": 1 }), json!({ "token": token, "name": "mine" }), json!([token])] {
        service.unchanged(service.anonymous.post("/api/enrol", body)).await.is_refused(422, "invalid_payload");
    }
    enrol(&service, &token).await.is(200);
}

async fn only_a_good_key_of_a_gate_or_a_supervisor_can_be_enrolled(service: Service) {
    let revoked = supervisor(&service).await;
    service.organizer.delete(format!("/api/keys/{}", id(&revoked))).await.is(204);
    let expired = json!({ "name": "x", "role": "gate", "expires_at": service.time(1) });
    let expired = service.organizer.post("/api/keys", expired).await.is(201);
    service.clock.advance(1);
    let organizer = service.organizer.post("/api/keys", json!({ "name": "x", "role": "organizer" })).await.is(201);
    for key in [&revoked, &expired, &organizer] {
        service.unchanged(offer(&service, key)).await.is_refused(409, "key_not_enrollable");
    }
    for unknown in [Uuid::now_v7().to_string(), "x".into()] {
        let offer = service.organizer.post(format!("/api/keys/{unknown}/enrol"), Value::Null);
        service.unchanged(offer).await.is_refused(404, "key_not_found");
    }
}

async fn an_enrolment_is_for_the_organizer_of_the_keys_event(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let bound = service.key(json!({ "name": "x", "role": "organizer", "event": "spring" })).await;
    let elsewhere = supervisor(&service).await;
    let path = format!("/api/keys/{}/enrol", id(&elsewhere));
    service.unchanged(bound.post(path, Value::Null)).await.is_refused(403, "forbidden");
    let own = bound.post("/api/keys", json!({ "name": "x", "role": "gate", "event": "spring" })).await.is(201);
    bound.post(format!("/api/keys/{}/enrol", id(&own)), Value::Null).await.is(200);
}

async fn supervisor(service: &Service) -> Value {
    service.organizer.post("/api/keys", json!({ "name": "supervisor", "role": "supervisor" })).await.is(201)
}

async fn offer(service: &Service, key: &Value) -> Reply {
    service.organizer.post(format!("/api/keys/{}/enrol", id(key)), Value::Null).await
}

async fn enrol(service: &Service, token: &str) -> Reply {
    service.anonymous.post("/api/enrol", json!({ "token": token })).await
}

async fn show(service: &Service, token: &str) -> Reply {
    service.anonymous.post("/api/enrol/offer", json!({ "token": token })).await
}

async fn stats(holder: &Client) -> Reply {
    holder.get("/api/events/default/stats").await
}

fn holder(service: &Service, key: &Value) -> Client {
    service.anonymous.with_key(key["key"].as_str().expect("a new key is shown"))
}

fn id(key: &Value) -> &str {
    key["key_id"].as_str().expect("a key has an id")
}

/// The token in the link that a device scans.
pub fn token(offer: &Value) -> String {
    let url = offer["enrol_url"].as_str().expect("an offer has an address");
    url.rsplit_once("#enrol=").expect("its fragment is the token").1.to_owned()
}
