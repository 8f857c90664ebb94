//! Tickets: how they are created and found.

use http::Method;
use serde_json::{Value, json};

use crate::service::{Service, assert_members, walk, with};

on_both_databases! {
    what_is_told_of_a_ticket_is_corrected_in_any_state,
    a_correction_that_changes_nothing_or_is_wrong_writes_nothing,
    a_gate_learns_of_a_correction,
    a_ticket_is_created_valid_and_without_a_holder,
    an_array_creates_many,
    a_seat_has_one_ticket_at_each_gate_of_each_event,
    one_wrong_ticket_keeps_all_from_being_created,
    a_walk_through_the_pages_meets_every_ticket_once,
    tickets_are_found_by_status_gate_and_text,
    a_wrong_query_is_refused,
}

const TICKETS: &str = "/api/events/default/tickets";

async fn a_ticket_is_created_valid_and_without_a_holder(service: Service) {
    let ticket_id = service.seat("default", "Row Ä 1", "North").await;
    let ticket = service.organizer.get(format!("/api/tickets/{ticket_id}")).await.is(200);
    assert_eq!(
        ticket,
        json!({
            "ticket_id": ticket_id, "event": "default", "seat": "Row Ä 1", "gate": "North", "status": "valid",
            "username": null, "holder_event": null, "full_name": null, "paid": null, "walk_up": false, "reference": null, "category": null, "note": null,
            "valid_from": null, "valid_until": null, "inside": false, "created_at": service.time(0), "registered_at": null,
            "used_at": null, "entered_at": null, "mailed_at": null,
        })
    );
    assert_eq!(service.version("Row Ä 1").await, 1);
}

async fn an_array_creates_many(service: Service) {
    let seats: Vec<Value> = (1..=250).map(|seat| json!({ "seat": seat.to_string(), "gate": "North" })).collect();
    let created = service.organizer.post(TICKETS, seats.into()).await.is(201);
    assert_eq!(created, json!({ "created": 250, "registered": 0, "users_created": 0, "updated": 0, "skipped": 0 }));
    assert_eq!(service.database.count("select count(*) from tickets").await, 250);
    assert_eq!(service.database.count("select count(distinct seed) from tickets").await, 250);
}

async fn a_seat_has_one_ticket_at_each_gate_of_each_event(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    service.seat("default", "A1", "North").await;
    service.seat("default", "A1", "South").await;
    service.seat("other", "A1", "North").await;
    let again = service.organizer.post(TICKETS, json!({ "seat": "A1", "gate": "North" }));
    let taken = service.unchanged(again).await.is_refused(409, "seat_taken");
    assert_eq!(taken["errors"][0]["field"], "seat", "for a single ticket the form's field is named");
}

async fn one_wrong_ticket_keeps_all_from_being_created(service: Service) {
    service.seat("default", "A1", "North").await;
    let good = json!({ "seat": "B1", "gate": "North" });
    let taken = json!([good, { "seat": "A1", "gate": "North" }]);
    let taken = service.unchanged(service.organizer.post(TICKETS, taken)).await.is_refused(409, "seat_taken");
    assert_eq!(taken["errors"][0]["field"], "[1]");
    let cases = [
        ("[1]", json!([good, good])),
        ("[1].seat", json!([good, { "seat": "", "gate": "North" }])),
        ("[1].gate", json!([good, { "seat": "B2" }])),
        ("[1].row", json!([good, { "seat": "B2", "gate": "North", "row": 2 }])),
        ("body", json!([])),
        ("seat", json!({ "gate": "North" })),
        ("seat", json!({ "seat": "a\u{0}b", "gate": "North" })),
        ("seat", json!({ "seat": "x".repeat(5_000), "gate": "North" })),
        ("gate", json!({ "seat": "B2", "gate": "x\ny" })),
    ];
    for (field, body) in cases {
        let reply = service.unchanged(service.organizer.post(TICKETS, body)).await;
        assert_eq!(reply.is_refused(422, "invalid_payload")["errors"][0]["field"], field);
    }
}

async fn a_walk_through_the_pages_meets_every_ticket_once(service: Service) {
    for seats in [["e", "d"], ["c", "b"], ["a", "f"]] {
        let seats = seats.map(|seat| json!({ "seat": seat, "gate": "North" }));
        service.organizer.post(TICKETS, json!(seats)).await.is(201);
        service.clock.advance(1_000);
    }
    let tickets = walk(&service.organizer, TICKETS, "tickets").await;
    let seats: Vec<_> = tickets.iter().map(|ticket| ticket["seat"].as_str().unwrap_or_default()).collect();
    assert_eq!(seats, ["e", "d", "c", "b", "a", "f"]);
}

async fn tickets_are_found_by_status_gate_and_text(service: Service) {
    let file = "seat,gate,username,full_name\n\
                A1,North,ana,Ana Ruiz\n\
                A2,North,luis,\n\
                100%,South,,\n\
                1000,South,,\n\
                B_1,South,,\n\
                \u{d3}N,South,,\n";
    service.organizer.post_csv(TICKETS, file).await.is(201);
    let supervisor = service.supervisor().await;
    let by_hand = json!({
        "scan_id": "01a0a0a0-0000-7000-8000-000000000001", "seat": "A2", "gate": "North", "manual": true, "note": "known",
    });
    supervisor.post("/api/events/default/scans", by_hand).await.is_scan(200, "accepted");

    let cases: [(&str, &[&str]); 12] = [
        ("gate=North", &["A1", "A2"]),
        ("status=used", &["A2"]),
        ("status=valid&gate=North", &["A1"]),
        ("q=RUIZ", &["A1"]),
        ("q=lui", &["A2"]),
        ("gate=NORTH", &["A1", "A2"]),
        ("q=%C3%93N", &["\u{d3}N"]),
        ("q=%C3%B3N", &["\u{d3}N"]),
        ("q=100%25", &["100%", "1000"]),
        ("q=b_1", &["B_1"]),
        ("q=", &["A1", "A2", "100%", "1000", "B_1", "\u{d3}N"]),
        ("gate=East", &[]),
    ];
    for (query, expected) in cases {
        let list = service.organizer.get(format!("{TICKETS}?{query}")).await.is(200);
        let tickets = list["tickets"].as_array().expect("a list");
        let seats: Vec<_> = tickets.iter().map(|ticket| ticket["seat"].as_str().unwrap_or_default()).collect();
        assert_eq!(seats, expected, "{query}");
        assert_eq!(list["next"], Value::Null);
    }
}

async fn a_wrong_query_is_refused(service: Service) {
    for query in
        ["limit=0", "limit=501", "limit=-1", "limit=x", "after=x", "status=gone", "gate=", "q=a%00b", "order=seat"]
    {
        let list = service.organizer.get(format!("{TICKETS}?{query}"));
        service.unchanged(list).await.is_refused(422, "invalid_payload");
    }
    service.user("ana").await;
    for path in ["/api/events", "/api/keys", "/api/users/ana/tickets"] {
        for query in ["limit=0", "limit=501", "after=x", "status=valid", "limit=1&limit=1"] {
            let list = service.organizer.get(format!("{path}?{query}"));
            service.unchanged(list).await.is_refused(422, "invalid_payload");
        }
    }
}

async fn what_is_told_of_a_ticket_is_corrected_in_any_state(service: Service) {
    let ticket = service.ticket("A1").await;
    let path = format!("/api/tickets/{}", ticket.ticket_id);
    let told = json!({
        "category": "Under 12", "note": "comes with her grandmother", "valid_from": service.time(0),
        "valid_until": service.time(3_600_000),
    });
    let before = service.organizer.get(&path).await.is(200);
    assert_members(&service.organizer.patch(&path, told.clone()).await.is(200), told.clone());
    assert_eq!(service.organizer.get(&path).await.is(200), with(before, told));
    // Its code is still valid, and the new details are shown at once.
    let scan =
        service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    assert_members(&scan["ticket"], json!({ "category": "Under 12", "note": "comes with her grandmother" }));
    let cleared = service.organizer.patch(&path, json!({ "note": null, "valid_until": null })).await.is(200);
    assert_members(&cleared, json!({ "status": "used", "category": "Under 12", "note": null, "valid_until": null }));
    service.organizer.bare(Method::POST, format!("{path}/revoke")).await.is(200);
    let revoked = service.organizer.patch(&path, json!({ "category": "Adult" })).await.is(200);
    assert_members(&revoked, json!({ "status": "revoked", "category": "Adult" }));
    let history = service.organizer.get(format!("{path}/actions")).await.is(200);
    let words: Vec<&str> =
        history["actions"].as_array().expect("a list").iter().filter_map(|act| act["action"].as_str()).collect();
    assert_eq!(words, ["issued", "registered", "corrected", "corrected", "revoked", "corrected"]);
}

async fn a_correction_that_changes_nothing_or_is_wrong_writes_nothing(service: Service) {
    let ticket = service.ticket("A1").await;
    let path = format!("/api/tickets/{}", ticket.ticket_id);
    let first = json!({ "category": "Adult", "valid_from": service.time(0) });
    service.organizer.patch(&path, first.clone()).await.is(200);
    for same in [first, json!({}), json!({ "note": null }), json!({ "category": " Adult " })] {
        service.unchanged(service.organizer.patch(&path, same)).await.is(200);
    }
    for (field, wrong) in [
        ("category", json!({ "category": "n".repeat(41) })),
        ("note", json!({ "note": "n".repeat(201) })),
        ("note", json!({ "note": "" })),
        ("valid_until", json!({ "valid_until": service.time(0) })),
        ("valid_from", json!({ "valid_from": "tomorrow" })),
        ("seat", json!({ "seat": "A2" })),
    ] {
        let refused = service.unchanged(service.organizer.patch(&path, wrong)).await.is_refused(422, "invalid_payload");
        assert_eq!(refused["errors"][0]["field"], field, "{refused}");
    }
    service.event(json!({ "slug": "ball", "name": "Ball" })).await;
    let elsewhere = service.key(json!({ "name": "x", "role": "organizer", "event": "ball" })).await;
    service.unchanged(elsewhere.patch(&path, json!({ "note": "x" }))).await.is_refused(403, "forbidden");
    let supervisor = service.supervisor().await;
    service.unchanged(supervisor.patch(&path, json!({ "note": "x" }))).await.is_refused(403, "forbidden");
}

async fn a_gate_learns_of_a_correction(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    service.ticket("A2").await;
    let manifest = gate.get("/api/events/default/manifest").await.is(200);
    let since = format!("/api/events/default/manifest?since={}", manifest["as_of"]);
    let path = format!("/api/tickets/{}", ticket.ticket_id);
    service.organizer.patch(&path, json!({ "note": "allergic" })).await.is(200);
    let news = gate.get(&since).await.is(200);
    assert_eq!(news["tickets"].as_array().map(Vec::len), Some(1), "{news}");
    assert_members(&news["tickets"][0], json!({ "ticket_id": ticket.ticket_id, "note": "allergic" }));
}
