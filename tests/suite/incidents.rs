//! Tickets shown again and scans undone: by whom and when.

use serde_json::{Value, json};

use crate::service::{Service, assert_members, walk};

on_both_databases! {
    duplicates_and_undone_scans_are_told_with_who_and_when_the_newest_first,
    incidents_are_for_the_organizers_of_their_event,
}

const INCIDENTS: &str = "/api/events/default/incidents";

async fn duplicates_and_undone_scans_are_told_with_who_and_when_the_newest_first(service: Service) {
    let device = |name: &str| json!({ "name": name, "role": "supervisor", "event": "default" });
    let north = service.key(device("North door")).await;
    let desk = service.key(device("Desk")).await;
    let (ana, ben) = (service.ticket("A1").await, service.ticket("B1").await);
    let scans = "/api/events/default/scans";
    north.post(scans, service.scan(&ana)).await.is_scan(200, "accepted");
    let admitted = service.time(0);
    service.clock.advance(1_000);
    let ben_in = service.scan(&ben);
    north.post(scans, ben_in.clone()).await.is_scan(200, "accepted");
    service.clock.advance(30_000);
    let again = service.scan(&ana);
    desk.post(scans, again.clone()).await.is_scan(409, "already_used");
    let refused = service.time(0);
    service.clock.advance(1_000);
    let undo = format!("/api/scans/{}/undo", ben_in["scan_id"].as_str().expect("a scan has an id"));
    desk.bare(http::Method::POST, undo).await.is(200);
    let undone = service.time(0);
    // Any other refusal is no incident.
    north.post(scans, json!({ "scan_id": uuid::Uuid::new_v4(), "code": "RT1.x" })).await;

    let incidents = walk(&service.organizer, INCIDENTS, "incidents").await;
    let [first, second] = &incidents[..] else { panic!("{incidents:#?}") };
    assert_members(
        first,
        json!({ "scan_id": ben_in["scan_id"], "result": "accepted", "undone_at": undone, "undone_key_name": "Desk",
            "key_name": "North door", "first_used_at": null }),
    );
    assert_members(
        second,
        json!({ "scan_id": again["scan_id"], "result": "already_used", "received_at": refused, "key_name": "Desk",
            "first_used_at": admitted, "first_key_name": "North door", "undone_at": null }),
    );
    assert_eq!([&first["ticket"]["seat"], &second["ticket"]["seat"]], [&json!("B1"), &json!("A1")]);
}

async fn incidents_are_for_the_organizers_of_their_event(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let ticket = service.ticket("A1").await;
    for _ in 0..2 {
        service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await;
    }
    let elsewhere = service.key(json!({ "name": "x", "role": "organizer", "event": "other" })).await;
    elsewhere.get(INCIDENTS).await.is_refused(403, "forbidden");
    assert_eq!(elsewhere.get("/api/events/other/incidents").await.is(200)["incidents"], Value::Array(vec![]));
    service.supervisor().await.get(INCIDENTS).await.is_refused(403, "forbidden");
    assert_eq!(service.organizer.get(INCIDENTS).await.is(200)["incidents"].as_array().map(Vec::len), Some(1));
}
