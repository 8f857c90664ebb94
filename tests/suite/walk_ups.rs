//! People who come without a ticket and pay at the door: a supervisor admits them, each with a ticket that is created
//! together with the admission.

use std::collections::HashSet;

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::races::at_once;
use crate::service::{Service, assert_members, with};
use crate::stranded::handed;

on_both_databases! {
    whoever_comes_without_a_ticket_gets_one_and_is_in,
    a_walk_up_that_is_sent_again_makes_nothing,
    of_16_times_the_same_walk_up_one_is_made,
    walk_ups_at_the_same_moment_have_seats_of_their_own,
    another_walk_up_under_the_same_id_is_a_conflict,
    a_seat_is_the_next_free_number_at_its_gate,
    the_gate_is_that_of_the_key_or_the_named_or_the_only_one,
    what_is_paid_is_the_price_unless_it_is_said,
    only_supervisors_of_an_event_that_lets_them_admit_without_a_ticket,
    a_walk_up_with_a_wrong_field_is_refused,
    neither_doors_nor_capacity_keep_a_walk_up_out,
    an_undone_walk_up_is_not_counted_and_never_admits,
    a_walk_up_that_a_gate_admitted_offline_is_recorded_once,
    in_a_batch_each_walk_up_is_refused_by_itself,
    a_walk_up_is_handed_in_as_the_device_wrote_it,
    walk_ups_and_their_cash_are_counted_apart,
    the_currency_stays_once_something_was_paid,
    a_gate_learns_of_walk_ups_by_its_list,
    a_name_at_the_door_is_on_the_ticket_and_nobody_holds_it,
    what_is_exported_of_walk_ups_can_be_imported,
}

const WALK_UPS: &str = "/api/events/default/walk-ups";
const BATCH: &str = "/api/events/default/scans/batch";
const STATS: &str = "/api/events/default/stats";
const MINUTE: i64 = 60_000;

/// Lets the default event admit people without a ticket, for 12 euros.
async fn door(service: &Service) -> Client {
    service
        .organizer
        .patch("/api/events/default", json!({ "walk_ups": true, "walk_up_price": 1_200, "currency": "EUR" }))
        .await
        .is(200);
    supervisor(service, json!({})).await
}

async fn supervisor(service: &Service, more: Value) -> Client {
    service
        .key(with(json!({ "name": "Box office", "role": "supervisor", "event": "default", "offline": true }), more))
        .await
}

fn walk_up(count: usize) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "gate": "North", "count": count })
}

/// Returns the scans of an answer.
#[track_caller]
fn scans(reply: &Reply) -> Vec<Value> {
    reply.is(200)["scans"].as_array().expect("a walk-up has scans").clone()
}

fn seats(scans: &[Value]) -> Vec<&str> {
    scans.iter().filter_map(|scan| scan["ticket"]["seat"].as_str()).collect()
}

async fn undo(client: &Client, scan: &Value) -> Reply {
    let scan_id = scan["scan_id"].as_str().expect("a scan has an id");
    client.bare(Method::POST, format!("/api/scans/{scan_id}/undo")).await
}

/// People without a ticket, cash, and people inside, from the event's statistics.
async fn counted(service: &Service) -> [i64; 3] {
    let stats = service.organizer.get(STATS).await.is(200);
    ["walk_ups", "cash", "inside"].map(|name| stats[name].as_i64().expect("a number"))
}

async fn whoever_comes_without_a_ticket_gets_one_and_is_in(service: Service) {
    let supervisor = door(&service).await;
    let request = with(walk_up(3), json!({ "category": "Under 12", "note": "Paid with a card" }));
    let admitted = scans(&supervisor.post(WALK_UPS, request.clone()).await);
    assert_eq!(seats(&admitted), ["1", "2", "3"]);
    assert_eq!(admitted[0]["scan_id"], request["scan_id"]);
    for scan in &admitted {
        assert_members(
            scan,
            json!({ "result": "accepted", "at_gate": "North", "direction": "entry", "replayed": false, "undone_at": null }),
        );
        assert_members(
            &scan["ticket"],
            json!({ "gate": "North", "status": "used", "inside": true, "walk_up": true, "paid": 1_200, "username": null,
                "category": "Under 12", "note": "Paid with a card", "used_at": service.time(0), "registered_at": null }),
        );
    }
    let kept = "select count(*) from scans where result = 'accepted' and manual and key_id is not null and offline_result is null";
    assert_eq!(service.database.count(kept).await, 3);
    let ticket = admitted[1]["ticket"]["ticket_id"].as_str().expect("an id");
    let done = service.organizer.get(format!("/api/tickets/{ticket}/actions")).await.is(200);
    assert_eq!(done["actions"].as_array().map(Vec::len), Some(1), "{done}");
    assert_members(&done["actions"][0], json!({ "action": "issued", "key_name": "Box office", "count": 3 }));
    // A scan of one of these seats finds no holder.
    let by_hand = json!({ "scan_id": Uuid::now_v7(), "seat": "2", "gate": "North", "manual": true, "note": "again" });
    supervisor.post("/api/events/default/scans", by_hand).await.is_scan(409, "not_registered");
}

async fn a_walk_up_that_is_sent_again_makes_nothing(service: Service) {
    let supervisor = door(&service).await;
    let request = with(walk_up(2), json!({ "full_name": "Ana Ruiz" }));
    let first = scans(&supervisor.post(WALK_UPS, request.clone()).await);
    service.clock.advance(MINUTE);
    // The price at the admission still applies, and fields left out are not compared.
    service.organizer.patch("/api/events/default", json!({ "walk_up_price": 1_500, "walk_ups": false })).await.is(200);
    for (client, request) in [
        (&supervisor, request.clone()),
        (&service.organizer, with(request.clone(), json!({ "full_name": null }))),
        (&supervisor, with(request.clone(), json!({ "gate": "NORTH", "paid": 1_200 }))),
    ] {
        let again = scans(&service.unchanged(client.post(WALK_UPS, request)).await);
        let expected: Vec<Value> = first.iter().map(|scan| with(scan.clone(), json!({ "replayed": true }))).collect();
        assert_eq!(again, expected);
    }
}

async fn of_16_times_the_same_walk_up_one_is_made(service: Service) {
    door(&service).await;
    let replies = at_once(&service, WALK_UPS, vec![walk_up(3); 16]).await;
    let all: Vec<_> = replies.iter().map(scans).collect();
    assert!(all.iter().all(|one| seats(one) == ["1", "2", "3"]), "{all:?}");
    assert_eq!(all.iter().filter(|one| one[0]["replayed"] == false).count(), 1);
    assert_eq!(service.database.count("select count(*) from tickets").await, 3);
    assert_eq!(counted(&service).await, [3, 3_600, 3]);
}

async fn walk_ups_at_the_same_moment_have_seats_of_their_own(service: Service) {
    door(&service).await;
    let replies = at_once(&service, WALK_UPS, (0..8).map(|_| walk_up(2)).collect()).await;
    let seats: HashSet<String> = replies
        .iter()
        .flat_map(|reply| seats(&scans(reply)).into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(seats, (1..=16).map(|number| number.to_string()).collect());
}

async fn another_walk_up_under_the_same_id_is_a_conflict(service: Service) {
    let supervisor = door(&service).await;
    let request = with(walk_up(3), json!({ "full_name": "Ana Ruiz", "category": "Adult", "paid": 1_000 }));
    let first = scans(&supervisor.post(WALK_UPS, request.clone()).await);
    for change in [
        json!({ "count": 2 }),
        json!({ "count": 4 }),
        json!({ "count": null }),
        json!({ "gate": "South" }),
        json!({ "full_name": "Bo" }),
        json!({ "category": "Child" }),
        json!({ "note": "x" }),
        json!({ "paid": 900 }),
        // The second person's scan is not a walk-up of its own.
        json!({ "scan_id": first[1]["scan_id"], "count": null }),
    ] {
        let other = supervisor.post(WALK_UPS, with(request.clone(), change));
        service.unchanged(other).await.is_refused(409, "scan_id_conflict");
    }
    // A ticket's scan with such an id conflicts too, and so does the reverse.
    let ticket = service.ticket("A1").await;
    let scan = with(service.scan(&ticket), json!({ "scan_id": first[0]["scan_id"] }));
    let reply = service.unchanged(supervisor.post("/api/events/default/scans", scan)).await;
    reply.is_refused(409, "scan_id_conflict");
    let scan = supervisor.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let other = supervisor.post(WALK_UPS, with(walk_up(1), json!({ "scan_id": scan["scan_id"] })));
    service.unchanged(other).await.is_refused(409, "scan_id_conflict");
    // For another event, only that is revealed.
    service.event(json!({ "slug": "gala", "name": "Gala", "walk_ups": true, "currency": "EUR" })).await;
    let elsewhere = supervisor_of(&service, "gala").await;
    let other = elsewhere.post("/api/events/gala/walk-ups", with(request, json!({ "gate": null })));
    let refusal = service.unchanged(other).await.is_refused(409, "scan_id_conflict");
    assert!(!refusal.to_string().contains("Ana"), "{refusal}");
}

async fn supervisor_of(service: &Service, event: &str) -> Client {
    supervisor(service, json!({ "event": event })).await
}

async fn a_seat_is_the_next_free_number_at_its_gate(service: Service) {
    let supervisor = door(&service).await;
    let list = "seat,gate\n7,North\nA-12,North\n40,South\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    let at = |gate: &str| with(walk_up(2), json!({ "gate": gate }));
    assert_eq!(seats(&scans(&supervisor.post(WALK_UPS, at("North")).await)), ["8", "9"]);
    let south = scans(&supervisor.post(WALK_UPS, at("south")).await);
    assert_eq!(seats(&south), ["41", "42"]);
    assert_eq!(south[0]["ticket"]["gate"], "South", "spelled as on its tickets");
    assert_eq!(seats(&scans(&supervisor.post(WALK_UPS, at("East")).await)), ["1", "2"]);
    // A list that numbers its seats continues from there.
    service.organizer.post_csv("/api/events/default/tickets", "gate,name\nNorth,Ana\n").await.is(201);
    let found = service.organizer.get("/api/events/default/tickets?q=Ana").await.is(200);
    assert_eq!(found["tickets"][0]["seat"], "10");
}

async fn the_gate_is_that_of_the_key_or_the_named_or_the_only_one(service: Service) {
    let unbound = door(&service).await;
    let unnamed = || with(walk_up(1), json!({ "gate": null }));
    let gate_of = |reply: &Reply| scans(reply)[0]["ticket"]["gate"].as_str().expect("a gate").to_owned();
    assert_eq!(gate_of(&unbound.post(WALK_UPS, unnamed()).await), "Entrance");
    assert_eq!(gate_of(&unbound.post(WALK_UPS, unnamed()).await), "Entrance");
    let bound = supervisor(&service, json!({ "gate": "South" })).await;
    assert_eq!(gate_of(&bound.post(WALK_UPS, unnamed()).await), "South");
    assert_eq!(gate_of(&bound.post(WALK_UPS, walk_up(1)).await), "South", "whatever the request says");
    let refused = service.unchanged(unbound.post(WALK_UPS, unnamed())).await.is_refused(422, "invalid_payload");
    assert_members(&refused["errors"][0], json!({ "field": "gate", "code": "required" }));
    // A replay by another gate's key shows as little as a scan.
    let request = walk_up(1);
    unbound.post(WALK_UPS, request.clone()).await.is(200);
    let told = scans(&bound.post(WALK_UPS, request).await);
    assert_members(&told[0]["ticket"], json!({ "gate": "North", "seat": "1", "paid": null, "status": null }));
}

async fn what_is_paid_is_the_price_unless_it_is_said(service: Service) {
    let supervisor = door(&service).await;
    let change = async |change: Value| drop(service.organizer.patch("/api/events/default", change).await.is(200));
    let paid = async |paid: Value| {
        let request = with(walk_up(1), json!({ "paid": paid }));
        scans(&supervisor.post(WALK_UPS, request).await)[0]["ticket"]["paid"].clone()
    };
    assert_eq!([paid(json!(null)).await, paid(json!(0)).await, paid(json!(900)).await], [1_200, 0, 900]);
    change(json!({ "walk_up_price": null })).await;
    assert_eq!([paid(json!(null)).await, paid(json!(500)).await], [Value::Null, json!(500)]);
    assert_eq!(counted(&service).await, [5, 2_600, 5]);

    service.event(json!({ "slug": "free", "name": "Free", "walk_ups": true })).await;
    let free = supervisor_of(&service, "free").await;
    let path = "/api/events/free/walk-ups";
    assert_eq!(scans(&free.post(path, walk_up(1)).await)[0]["ticket"]["paid"], Value::Null);
    let reply = service.unchanged(free.post(path, with(walk_up(1), json!({ "paid": 5 })))).await;
    let refused = reply.is_refused(422, "invalid_payload");
    assert_members(&refused["errors"][0], json!({ "field": "paid", "code": "currency_missing" }));
}

async fn only_supervisors_of_an_event_that_lets_them_admit_without_a_ticket(service: Service) {
    let supervisor = supervisor(&service, json!({})).await;
    let refused = async |client: &Client, status: u16, code: &str| {
        service.unchanged(client.post(WALK_UPS, walk_up(1))).await.is_refused(status, code);
    };
    refused(&supervisor, 409, "walk_ups_not_allowed").await;
    let supervisor = door(&service).await;
    refused(&service.gate().await, 403, "forbidden").await;
    refused(&service.anonymous, 401, "unauthenticated").await;
    service.event(json!({ "slug": "gala", "name": "Gala", "walk_ups": true })).await;
    refused(&supervisor_of(&service, "gala").await, 403, "forbidden").await;
    let reply = service.unchanged(supervisor.post("/api/events/gala/walk-ups", walk_up(1))).await;
    reply.is_refused(403, "forbidden");
    service.organizer.post("/api/events/none/walk-ups", walk_up(1)).await.is_refused(404, "event_not_found");
    scans(&service.organizer.post(WALK_UPS, walk_up(1)).await);
}

async fn a_walk_up_with_a_wrong_field_is_refused(service: Service) {
    let supervisor = door(&service).await;
    for (field, change) in [
        ("scan_id", json!({ "scan_id": "1" })),
        ("scan_id", json!({ "scan_id": null })),
        ("count", json!({ "count": 0 })),
        ("count", json!({ "count": -1 })),
        ("count", json!({ "count": 21 })),
        ("count", json!({ "count": 1.5 })),
        ("count", json!({ "count": "2" })),
        ("paid", json!({ "paid": -1 })),
        ("paid", json!({ "paid": 100_000_001 })),
        ("paid", json!({ "paid": i64::MAX })),
        ("paid", json!({ "paid": u64::MAX })),
        ("paid", json!({ "paid": 1e300 })),
        ("paid", json!({ "paid": "12" })),
        ("gate", json!({ "gate": "" })),
        ("full_name", json!({ "full_name": "n".repeat(201) })),
        ("category", json!({ "category": "n".repeat(41) })),
        ("note", json!({ "note": "a\u{0}b" })),
        ("walk_up", json!({ "walk_up": true })),
    ] {
        let reply = service.unchanged(supervisor.post(WALK_UPS, with(walk_up(1), change.clone()))).await;
        let refused = reply.is_refused(422, "invalid_payload");
        assert_eq!(refused["errors"][0]["field"], field, "{change}");
    }
    assert_eq!(scans(&supervisor.post(WALK_UPS, walk_up(20)).await).len(), 20);
    // Offline admissions are only accepted in a batch.
    let scan = with(offline(&service, 1, 0), json!({ "offline_result": null }));
    let reply = service.unchanged(supervisor.post("/api/events/default/scans", scan)).await;
    let refused = reply.is_refused(422, "invalid_payload");
    assert_members(&refused["errors"][0], json!({ "field": "walk_up", "code": "batch_only" }));
}

async fn neither_doors_nor_capacity_keep_a_walk_up_out(service: Service) {
    let supervisor = door(&service).await;
    for change in [
        json!({ "capacity": 1, "opens_at": service.time(60 * MINUTE) }),
        json!({ "opens_at": null, "closes_at": service.time(-MINUTE) }),
    ] {
        service.organizer.patch("/api/events/default", change).await.is(200);
        assert_eq!(scans(&supervisor.post(WALK_UPS, walk_up(2)).await)[1]["result"], "accepted");
    }
    assert_eq!(counted(&service).await, [4, 4_800, 4]);
}

async fn an_undone_walk_up_is_not_counted_and_never_admits(service: Service) {
    let supervisor = door(&service).await;
    let request = walk_up(3);
    let admitted = scans(&supervisor.post(WALK_UPS, request.clone()).await);
    let undone = undo(&supervisor, &admitted[1]).await.is_scan(200, "accepted");
    assert_members(&undone["ticket"], json!({ "status": "revoked", "inside": false, "used_at": null }));
    service.unchanged(undo(&supervisor, &admitted[1])).await.is(200);
    assert_eq!(counted(&service).await, [2, 2_400, 2]);
    let stats = service.organizer.get(STATS).await.is(200);
    assert_members(&stats, json!({ "tickets": 2, "admitted": 2, "expected": 0, "registered": 0, "undone": 1 }));

    let ticket = admitted[1]["ticket"]["ticket_id"].as_str().expect("an id");
    let by_hand = json!({ "scan_id": Uuid::now_v7(), "seat": "2", "gate": "North", "manual": true, "note": "again" });
    supervisor.post("/api/events/default/scans", by_hand).await.is_scan(409, "not_registered");
    service.user("ana").await;
    let given = json!({ "seat": "2", "gate": "North" });
    let reply = service.unchanged(service.organizer.post("/api/users/ana/tickets", given)).await;
    reply.is_refused(409, "ticket_revoked");
    for ticket in [ticket, admitted[0]["ticket"]["ticket_id"].as_str().expect("an id")] {
        let reissue = service.organizer.bare(Method::POST, format!("/api/tickets/{ticket}/reissue"));
        service.unchanged(reissue).await.is_refused(409, "ticket_used");
    }
    // A replay shows what became of each; an undone seat is not given to the next.
    let again = scans(&service.unchanged(supervisor.post(WALK_UPS, request)).await);
    let results: Vec<_> = again.iter().map(|scan| scan["result"].as_str().expect("a result")).collect();
    assert_eq!(results, ["accepted", "undone", "accepted"]);
    assert_eq!(seats(&scans(&supervisor.post(WALK_UPS, walk_up(1)).await)), ["4"]);
    // Another gate's supervisor cannot undo here.
    let south = supervisor_at(&service, "South").await;
    service.unchanged(undo(&south, &admitted[0])).await.is_refused(403, "forbidden");
}

async fn supervisor_at(service: &Service, gate: &str) -> Client {
    supervisor(service, json!({ "gate": gate })).await
}

/// People whom a device admitted offline, as in its batch.
fn offline(service: &Service, count: usize, milliseconds: i64) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "walk_up": { "count": count }, "at_gate": "North", "direction": "entry",
        "scanned_at": service.time(milliseconds), "offline_result": "accepted" })
}

async fn a_walk_up_that_a_gate_admitted_offline_is_recorded_once(service: Service) {
    let supervisor = door(&service).await;
    service.clock.advance(60 * MINUTE);
    let (later, first) = (offline(&service, 2, -MINUTE), offline(&service, 1, -2 * MINUTE));
    let first = with(
        first,
        json!({ "walk_up": { "count": 1, "paid": 500, "full_name": "Ana", "category": "VIP", "note": "x" } }),
    );
    let batch = json!({ "scans": [later, first] });
    let answer = supervisor.post(BATCH, batch.clone()).await.is(200);
    let results = answer["results"].as_array().expect("results");
    let of = |result: &Value| (result["ticket"]["seat"].clone(), result["ticket"]["paid"].clone());
    assert_eq!(of(&results[0]), (json!("2"), json!(1_200)), "in the order of time");
    assert_eq!(of(&results[1]), (json!("1"), json!(500)));
    assert_members(
        &results[0],
        json!({ "result": "accepted", "status": 200, "scanned_at": service.time(-MINUTE), "replayed": false }),
    );
    assert_members(
        &results[1]["ticket"],
        json!({ "full_name": "Ana", "category": "VIP", "note": "x", "used_at": service.time(-2 * MINUTE) }),
    );
    let again = service.unchanged(supervisor.post(BATCH, batch)).await.is(200);
    assert_members(&again["results"][0], json!({ "result": "accepted", "status": 200, "replayed": true }));
    assert_eq!(counted(&service).await, [3, 2_900, 3]);
    // A lost answer: the same admission, requested directly.
    let online = json!({ "scan_id": answer["results"][0]["scan_id"], "gate": "North", "count": 2 });
    assert_eq!(seats(&scans(&service.unchanged(supervisor.post(WALK_UPS, online)).await)), ["2", "3"]);
    // The device can compute the id of the second person's scan, to undo it.
    let [second] = &service
        .database
        .text(
            "select lower(hex(scan_id)) from scans s join tickets t using (ticket_id) where t.seat = '3'",
            "select replace(scan_id::text, '-', '') from scans s join tickets t using (ticket_id) where t.seat = '3'",
        )
        .await
        .lines()
        .map(ToOwned::to_owned)
        .collect::<Vec<_>>()[..]
    else {
        panic!("one scan")
    };
    undo(&supervisor, &json!({ "scan_id": second })).await.is_scan(200, "accepted");
}

async fn in_a_batch_each_walk_up_is_refused_by_itself(service: Service) {
    let supervisor = door(&service).await;
    service.clock.advance(60 * MINUTE);
    let item = |change: Value| with(offline(&service, 1, -MINUTE), change);
    let send = async |client: &Client, items: Vec<Value>| {
        client.post(BATCH, json!({ "scans": items })).await.is(200)["results"].as_array().expect("results").clone()
    };
    let wrong = vec![
        item(json!({ "walk_up": { "count": 0 } })),
        item(json!({ "walk_up": { "paid": -5 } })),
        item(json!({ "walk_up": { "seat": "1" } })),
        item(json!({ "walk_up": 3 })),
        item(json!({ "offline_result": "already_used" })),
        item(json!({ "direction": "exit" })),
        item(json!({ "seat": "1" })),
        item(json!({ "manual": true, "note": "x" })),
        item(json!({ "scanned_at": service.time(-73 * 60 * MINUTE) })),
        item(json!({ "scanned_at": null })),
    ];
    let refused = wrong.len();
    let answer = send(&supervisor, [wrong, vec![item(json!({}))]].concat()).await;
    for one in &answer[..refused] {
        assert_members(one, json!({ "status": 422, "code": "invalid_payload" }));
    }
    assert_members(&answer[refused], json!({ "status": 200, "result": "accepted" }));
    let again = with(item(json!({ "walk_up": { "count": 2 } })), json!({ "scan_id": answer[refused]["scan_id"] }));
    assert_members(&send(&supervisor, vec![again]).await[0], json!({ "status": 409, "code": "scan_id_conflict" }));
    let gate = service.offline_gate().await;
    assert_members(&send(&gate, vec![item(json!({}))]).await[0], json!({ "status": 403, "code": "forbidden" }));
    service.organizer.patch("/api/events/default", json!({ "walk_ups": false })).await.is(200);
    assert_members(
        &send(&supervisor, vec![item(json!({}))]).await[0],
        json!({ "status": 409, "code": "walk_ups_not_allowed" }),
    );
    assert_eq!(counted(&service).await, [1, 1_200, 1]);
}

async fn a_walk_up_is_handed_in_as_the_device_wrote_it(service: Service) {
    door(&service).await;
    let key = |role: &str| json!({ "name": "Box office", "role": role, "event": "default", "gate": "South", "offline": true });
    let device = service.organizer.post("/api/keys", key("supervisor")).await.is(201);
    let gate = service.organizer.post("/api/keys", key("gate")).await.is(201);
    service.clock.advance(60 * MINUTE);
    let path = |key: &Value| format!("/api/keys/{}/scans", key["key_id"].as_str().expect("an id"));
    // Files contain no names.
    let sent =
        with(offline(&service, 2, -MINUTE), json!({ "walk_up": { "count": 2, "paid": 700, "full_name": "Ana" } }));
    let client = service.anonymous.with_key(device["key"].as_str().expect("a key"));
    client.post(BATCH, json!({ "scans": [sent] })).await.is(200);
    let written = with(sent, json!({ "walk_up": { "count": 2, "paid": 700 } }));
    let other = offline(&service, 1, -2 * MINUTE);
    let wrong = with(offline(&service, 1, -MINUTE), json!({ "seat": "1", "gate": "South" }));
    service.organizer.patch("/api/events/default", json!({ "walk_up_price": 1_500 })).await.is(200);
    let body = handed(&device, "default", &[written, other, wrong]);
    let answer = service.organizer.post(path(&device), body.clone()).await.is(200);
    assert_members(&answer["results"][0], json!({ "status": 200, "result": "accepted", "replayed": true }));
    assert_members(
        &answer["results"][1],
        json!({ "status": 200, "result": "accepted", "replayed": false, "at_gate": "South" }),
    );
    assert_members(&answer["results"][2], json!({ "status": 422, "code": "invalid_payload" }));
    assert_eq!(counted(&service).await, [3, 2_900, 3]);
    service.organizer.post(path(&device), body).await.is(200);
    assert_eq!(counted(&service).await, [3, 2_900, 3]);
    let of_a_gate = handed(&gate, "default", &[offline(&service, 1, -MINUTE)]);
    let answer = service.organizer.post(path(&gate), of_a_gate).await.is(200);
    assert_members(&answer["results"][0], json!({ "status": 403, "code": "forbidden" }));
    // Nor does a file let a device bound to one event admit to another.
    service.event(json!({ "slug": "ball", "name": "Ball", "walk_ups": true })).await;
    let elsewhere = handed(&device, "ball", &[offline(&service, 1, -MINUTE)]);
    let answer = service.organizer.post(path(&device), elsewhere).await.is(200);
    assert_members(&answer["results"][0], json!({ "status": 403, "code": "forbidden" }));
    assert_eq!(service.organizer.get("/api/events/ball/stats").await.is(200)["tickets"], 0);
}

async fn walk_ups_and_their_cash_are_counted_apart(service: Service) {
    let supervisor = door(&service).await;
    let ticket = service.ticket("A1").await;
    service.ticket("A2").await;
    supervisor.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let at = |gate: &str, count: usize, more: Value| with(with(walk_up(count), json!({ "gate": gate })), more);
    supervisor.post(WALK_UPS, at("North", 2, json!({ "category": "Adult" }))).await.is(200);
    supervisor.post(WALK_UPS, at("South", 3, json!({ "paid": 0, "category": "Child" }))).await.is(200);
    let stats = service.gate().await.get(STATS).await.is(200);
    assert_members(
        &stats,
        json!({ "tickets": 7, "registered": 2, "admitted": 6, "expected": 1, "inside": 6, "walk_ups": 5, "cash": 2_400,
            "takes_walk_ups": true, "walk_up_price": 1_200, "currency": "EUR" }),
    );
    assert_members(&stats["gates"][0], json!({ "gate": "North", "admitted": 3, "walk_ups": 2, "cash": 2_400 }));
    assert_members(&stats["gates"][1], json!({ "gate": "South", "admitted": 3, "walk_ups": 3, "cash": 0 }));
    assert_members(&stats["categories"][0], json!({ "category": null, "walk_ups": 0, "cash": 0 }));
    assert_members(&stats["categories"][1], json!({ "category": "Adult", "walk_ups": 2, "cash": 2_400 }));
    let metrics = service.organizer.get("/metrics").await.text();
    assert!(metrics.contains("scans_total{result=\"accepted\"} 6"), "{metrics}");
}

async fn the_currency_stays_once_something_was_paid(service: Service) {
    let supervisor = door(&service).await;
    let change = async |body: Value| service.organizer.patch("/api/events/default", body).await;
    change(json!({ "currency": "COP" })).await.is(200);
    change(json!({ "currency": "EUR" })).await.is(200);
    let refused = change(json!({ "currency": null })).await.is_refused(422, "invalid_payload");
    assert_members(&refused["errors"][0], json!({ "field": "walk_up_price", "code": "currency_missing" }));
    supervisor.post(WALK_UPS, walk_up(1)).await.is(200);
    for body in [json!({ "currency": "COP" }), json!({ "currency": null, "walk_up_price": null })] {
        let reply = service.unchanged(service.organizer.patch("/api/events/default", body)).await;
        let refused = reply.is_refused(422, "invalid_payload");
        assert_members(&refused["errors"][0], json!({ "field": "currency", "code": "paid_in_it" }));
    }
    change(json!({ "currency": "EUR", "walk_up_price": 1_500, "walk_ups": false })).await.is(200);
}

async fn a_gate_learns_of_walk_ups_by_its_list(service: Service) {
    let supervisor = door(&service).await;
    let manifest = async |path: &str| supervisor.get(format!("/api/events/default/manifest{path}")).await.is(200);
    let before = manifest("").await;
    assert_members(&before["event"], json!({ "walk_ups": true, "walk_up_price": 1_200, "currency": "EUR" }));
    let admitted = scans(&supervisor.post(WALK_UPS, with(walk_up(2), json!({ "full_name": "Ana" }))).await);
    let since = manifest(&format!("?since={}", before["as_of"])).await;
    assert_members(&since["counts"], json!({ "tickets": 2, "admitted": 2, "inside": 2 }));
    let tickets = since["tickets"].as_array().expect("tickets");
    assert_eq!(tickets.len(), 2);
    assert_members(
        &tickets[0],
        json!({ "ticket_id": admitted[0]["ticket"]["ticket_id"], "status": "used", "registered": false, "inside": true,
            "walk_up": true, "paid": 1_200, "full_name": "Ana", "username": null }),
    );
    assert_eq!(tickets[0].get("key"), None, "nobody has its codes");
}

async fn a_name_at_the_door_is_on_the_ticket_and_nobody_holds_it(service: Service) {
    let supervisor = door(&service).await;
    supervisor.post(WALK_UPS, with(walk_up(1), json!({ "full_name": "Zoë  Müller" }))).await.is(200);
    let found = service.organizer.get("/api/events/default/tickets?q=muller").await.is(200);
    assert_members(
        &found["tickets"][0],
        json!({ "full_name": "Zoë Müller", "username": null, "walk_up": true, "paid": 1_200 }),
    );
    assert_eq!(supervisor.get("/api/events/default/guests?q=muller").await.is(200)["guests"], json!([]));
    assert_eq!(service.database.count("select count(*) from users").await, 0);
    service.organizer.get("/api/events/default/mails").await.is(200);
}

async fn what_is_exported_of_walk_ups_can_be_imported(service: Service) {
    let supervisor = door(&service).await;
    service.ticket("A1").await;
    supervisor.post(WALK_UPS, with(walk_up(2), json!({ "full_name": "Ana Ruiz" }))).await.is(200);
    supervisor.post(WALK_UPS, walk_up(1)).await.is(200);
    let file = service.organizer.get("/api/events/default/tickets.csv").await.text();
    let mut reader = csv::Reader::from_reader(file.trim_start_matches('\u{feff}').as_bytes());
    let header = reader.headers().expect("a header").clone();
    let place = |name: &str| header.iter().position(|column| column == name).expect("a column");
    let lines: Vec<_> = reader.records().map(|line| line.expect("CSV")).collect();
    let column = |name: &str| lines.iter().map(|line| line[place(name)].to_owned()).collect::<Vec<_>>();
    assert_eq!(column("walk_up"), ["false", "true", "true", "true"]);
    assert_eq!(column("paid"), ["", "1200", "1200", "1200"]);

    let import = async |path: &str| service.organizer.post_csv(path, file.clone()).await.is(201);
    for existing in ["skip", "update"] {
        let counts = import(&format!("/api/events/default/tickets?existing={existing}")).await;
        assert_members(
            &counts,
            json!({ "created": 0, "registered": 0, "users_created": 0, "updated": 0, "skipped": 4 }),
        );
        assert_eq!(counts.get("notices"), None, "{counts}");
    }
    assert_eq!(counted(&service).await, [3, 3_600, 3]);
    // People without a ticket do not count as missing from a seller's list.
    let counts =
        service.organizer.post_csv("/api/events/default/tickets?existing=skip", "seat,gate\nA1,North\n").await.is(201);
    assert_eq!(counts.get("notices"), None, "{counts}");

    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    assert_members(&import("/api/events/gala/tickets").await, json!({ "created": 4 }));
    let stats = service.organizer.get("/api/events/gala/stats").await.is(200);
    assert_members(&stats, json!({ "tickets": 4, "walk_ups": 0, "cash": 0, "inside": 0 }));
}
