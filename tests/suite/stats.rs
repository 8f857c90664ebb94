//! An event's statistics.

use std::sync::Arc;

use http::Method;
use register_ticket_api::app::App;
use register_ticket_api::model::Millis;
use register_ticket_api::numbers::Numbers;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{ORGANIZER_KEY, Service, assert_members, settings, with};

on_both_databases! {
    an_event_without_tickets_counts_nothing,
    the_numbers_of_an_evening_add_up,
    each_category_is_counted_by_itself,
    organizers_and_supervisors_see_with_which_key_somebody_guesses,
    a_key_that_rests_is_seen_as_such,
    the_numbers_of_a_large_event_are_told_again_for_a_while_and_say_of_when_they_are,
    an_event_that_is_made_anew_has_numbers_of_its_own,
}

async fn an_event_without_tickets_counts_nothing(service: Service) {
    let stats = service.gate().await.get("/api/events/default/stats").await.is(200);
    assert_eq!(
        stats,
        json!({
            "event": "default", "as_of": service.time(0), "tickets": 0, "registered": 0, "admitted": 0, "expected": 0, "inside": 0, "walk_ups": 0,
            "cash": 0, "refused": {}, "undone": 0, "gates": [], "categories": [], "capacity": null, "takes_walk_ups": false,
            "walk_up_price": null, "currency": null, "arrivals": [],
        })
    );
}

async fn the_numbers_of_an_evening_add_up(service: Service) {
    let scans = "/api/events/default/scans";
    let supervisor = service.supervisor().await;
    let north = service.ticket_of("default", "A1", "North").await;
    let south = service.ticket_of("default", "A1", "South").await;
    let undone = service.ticket_of("default", "A2", "South").await;
    service.seat("default", "A1", "east").await;
    // Neither of these is expected any more.
    let revoked = service.ticket_of("default", "A3", "South").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    let erased = service.ticket_of("default", "A4", "South").await;
    service.organizer.delete(format!("/api/users/{}", erased.username)).await.is(204);
    // Another event's scans do not count.
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let other = service.ticket_of("other", "A1", "North").await;
    supervisor.post("/api/events/other/scans", service.scan(&other)).await.is_scan(200, "accepted");

    let first_minute = service.time(0);
    service.clock.advance(59_000);
    supervisor.post(scans, service.scan(&north)).await.is_scan(200, "accepted");
    service.clock.advance(1_000);
    let second_minute = service.time(0);
    supervisor.post(scans, service.scan(&south)).await.is_scan(200, "accepted");
    let exit = with(service.scan(&south), json!({ "direction": "exit" }));
    supervisor.post(scans, exit).await.is_scan(200, "accepted");
    let taken_back = supervisor.post(scans, service.scan(&undone)).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", taken_back["scan_id"].as_str().unwrap_or_default());
    supervisor.bare(Method::POST, undo).await.is(200);
    for _ in 0..2 {
        supervisor.post(scans, service.scan(&north)).await.is_scan(409, "already_used");
    }
    let unknown = json!({ "scan_id": Uuid::now_v7(), "code": "not ours" });
    supervisor.post(scans, unknown).await.is_scan(404, "unknown_ticket");

    let gate = |name: &str, tickets, registered, admitted, expected, inside| json!({ "gate": name, "tickets": tickets, "registered": registered, "admitted": admitted, "expected": expected, "inside": inside, "walk_ups": 0, "cash": 0 });
    assert_eq!(
        supervisor.get("/api/events/default/stats").await.is(200),
        json!({
            "event": "default", "as_of": service.time(0), "tickets": 6, "registered": 5, "admitted": 2, "expected": 1, "inside": 1, "walk_ups": 0, "cash": 0,
            "takes_walk_ups": false, "walk_up_price": null, "currency": null, "refused": { "already_used": 2, "unknown_ticket": 1 }, "undone": 1,
            "guessing": [], "categories": [], "capacity": null,
            "gates": [gate("east", 1, 0, 0, 0, 0), gate("North", 1, 1, 1, 0, 1), gate("South", 4, 4, 1, 1, 0)],
            "arrivals": [{ "minute": first_minute, "admitted": 1 }, { "minute": second_minute, "admitted": 1 }],
        })
    );
}

async fn each_category_is_counted_by_itself(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "capacity": 2 })).await.is(200);
    let list = "name,gate,category\nAna,North,Adult\nBo,North,Under 12\nCy,South,adult\nDee,South,\nEli,South,Adult\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    let by_hand =
        json!({ "scan_id": Uuid::now_v7(), "seat": "1", "gate": "South", "manual": true, "note": "no phone" });
    service.organizer.post("/api/events/default/scans", by_hand).await.is_scan(200, "accepted");
    let stats = service.gate().await.get("/api/events/default/stats").await.is(200);
    let of = |category: Value, tickets: i64, admitted: i64| json!({ "category": category, "tickets": tickets, "registered": tickets, "admitted": admitted, "expected": tickets - admitted, "inside": admitted, "walk_ups": 0, "cash": 0 });
    assert_eq!(
        stats["categories"],
        json!([of(json!(null), 1, 0), of(json!("Adult"), 3, 1), of(json!("Under 12"), 1, 0)])
    );
    assert_members(&stats, json!({ "tickets": 5, "inside": 1, "capacity": 2 }));

    // A column of names was taken for categories.
    let many: String = (0..60).map(|number| format!("East,Person {number}\n")).collect();
    service.organizer.post_csv("/api/events/default/tickets", format!("gate,category\n{many}")).await.is(201);
    let stats = service.organizer.get("/api/events/default/stats").await.is(200);
    let categories = stats["categories"].as_array().expect("a list");
    assert!(categories.len() == 50 && categories.iter().any(|one| one["category"] == "Adult"), "{categories:?}");
}

async fn organizers_and_supervisors_see_with_which_key_somebody_guesses(service: Service) {
    let stats = "/api/events/default/stats";
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let body = json!({ "name": "North door", "role": "gate", "event": "default", "gate": "North" });
    let created = service.organizer.post("/api/keys", body).await.is(201);
    let guesser = service.anonymous.with_key(created["key"].as_str().unwrap_or_default());
    let supervisor = service.supervisor().await;
    // With enough tickets that none reaches its own limit.
    let guess = async |client: &Client, event: &str, times: usize| {
        for number in 0..times {
            let seat = format!("{event} {number}");
            service.seat(event, &seat, "North").await;
            let user = json!({ "seat": seat, "gate": "North", "event": event });
            service.organizer.post("/api/users/ana/tickets", user).await.is(201);
            let scan = json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": "North", "totp_code": "none" });
            client.post(format!("/api/events/{event}/scans"), scan).await.is_scan(422, "wrong_code");
        }
    };
    service.user("ana").await;
    guess(&guesser, "default", 20).await;
    guess(&supervisor, "other", 20).await;
    let seen = json!([{
        "key_id": created["key_id"], "name": "North door", "gate": "North", "refused_codes": 20, "limited": false,
    }]);
    for client in [&supervisor, &service.organizer] {
        assert_eq!(client.get(stats).await.is(200)["guessing"], seen);
    }
    assert_eq!(guesser.get(stats).await.is(200).get("guessing"), None, "it is not told that it was seen");
    service.clock.advance(600_000 - 1);
    assert_eq!(supervisor.get(stats).await.is(200)["guessing"], seen);
    service.clock.advance(1);
    assert_eq!(supervisor.get(stats).await.is(200)["guessing"], json!([]));
}

async fn a_key_that_rests_is_seen_as_such(service: Service) {
    let ticket = service.ticket("A1").await;
    let wrong = || {
        let wrong = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": "none" });
        with(wrong, json!({ "scanned_at": service.time(0), "offline_result": "wrong_code" }))
    };
    let scans: Vec<Value> = (0..60).map(|_| wrong()).collect();
    service.organizer.post("/api/events/default/scans/batch", json!({ "scans": scans })).await.is(200);
    let guessing = async || service.organizer.get("/api/events/default/stats").await.is(200)["guessing"].clone();
    let told = |limited: bool| json!([{ "key_id": null, "name": null, "gate": null, "refused_codes": 60, "limited": limited }]);
    assert_eq!(guessing().await, told(true));
    service
        .organizer
        .post("/api/events/default/scans", service.scan(&ticket))
        .await
        .is_refused(429, "too_many_wrong_codes");
    service.clock.advance(60_000);
    assert_eq!(guessing().await, told(false));
}

async fn the_numbers_of_a_large_event_are_told_again_for_a_while_and_say_of_when_they_are(service: Service) {
    let (one, other) = (service.ticket("A1").await, service.ticket("A2").await);
    let clock = service.clock.clone();
    let mut app = App::new(settings(&service.database, &[]), Box::new(move || clock.now()));
    app.numbers = Numbers::new(2);
    let organizer = Client::of(&Arc::new(app)).with_key(ORGANIZER_KEY);
    let stats = async || organizer.get("/api/events/default/stats").await.is(200);
    let scan = async |ticket| {
        organizer.post("/api/events/default/scans", service.scan(ticket)).await.is_scan(200, "accepted");
    };
    let (began, before) = (service.time(0), stats().await);
    assert_members(&before, json!({ "as_of": began, "admitted": 0 }));
    scan(&one).await;
    service.clock.advance(999);
    assert_eq!(stats().await, before);
    // Longer than ten times the duration of any count.
    service.clock.advance(600_000);
    assert_members(&stats().await, json!({ "as_of": service.time(0), "admitted": 1 }));
    scan(&other).await;
    // After the clock was set back, the age is unknown.
    service.clock.advance(-1);
    assert_members(&stats().await, json!({ "as_of": service.time(0), "admitted": 2 }));
}

async fn an_event_that_is_made_anew_has_numbers_of_its_own(service: Service) {
    let mut app = App::new(settings(&service.database, &[]), Box::new(Millis::now));
    app.numbers = Numbers::new(1);
    let organizer = Client::of(&Arc::new(app)).with_key(ORGANIZER_KEY);
    for tickets in [1, 2] {
        organizer.post("/api/events", json!({ "slug": "fair", "name": "Fair" })).await.is(201);
        for seat in 0..tickets {
            let seat = json!({ "seat": seat.to_string(), "gate": "North" });
            organizer.post("/api/events/fair/tickets", seat).await.is(201);
        }
        assert_eq!(organizer.get("/api/events/fair/stats").await.is(200)["tickets"], tickets);
        organizer.delete("/api/events/fair?confirm=fair").await.is(204);
    }
}
