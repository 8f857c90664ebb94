//! The manifest: what a gate needs to decide offline, for as long as it needs it.

use http::{Method, Request};
use serde_json::{Value, json};

use crate::client::{Client, Reply};
use crate::database::Kind;
use crate::service::{Service, Ticket, assert_members, gate_limits, with};

on_both_databases! {
    the_manifest_holds_what_a_gate_needs_to_decide,
    a_gate_is_told_what_is_counted_of_its_own_tickets,
    a_key_bound_to_a_gate_gets_only_the_keys_of_that_gate,
    an_unchanged_manifest_is_not_sent_again,
    every_change_makes_another_etag,
    since_leaves_out_what_did_not_change,
    since_and_the_etag_tell_a_gate_nothing_of_what_happens_at_another,
    since_goes_by_no_clock,
    an_as_of_that_is_not_of_this_list_is_answered_with_all_of_it,
    an_import_is_new_since_it_appeared,
    what_is_being_written_when_the_list_is_read_comes_with_since,
    too_early_says_when_and_too_late_does_not,
    the_manifest_comes_compressed_to_those_who_ask,
    a_large_manifest_is_sent_page_by_page,
    the_manifest_can_be_had_around_the_event_only,
    a_wrong_since_is_refused,
    only_tickets_that_could_be_admitted_have_their_key,
    who_is_turned_away_whatever_the_code_is_named_to_supervisors_only,
    since_takes_the_key_of_who_is_admitted_no_more,
}

const MANIFEST: &str = "/api/events/default/manifest";
/// The `codes` that the tests of the pages' decision use.
const CODES: &str = include_str!("codes.json");
const HOUR: i64 = 3_600_000;

async fn the_manifest_holds_what_a_gate_needs_to_decide(service: Service) {
    let gate = service.offline_gate().await;
    let used = service.ticket("A1").await;
    service.seat("default", "A2", "South").await;
    gate.post("/api/events/default/scans", service.scan(&used)).await.is_scan(200, "accepted");

    let manifest = gate.get(MANIFEST).await.is(200);
    assert_eq!(manifest["event"]["slug"], "default");
    let codes: Value = serde_json::from_str(CODES).expect("the file is JSON");
    assert_eq!(manifest["codes"], codes);
    assert_eq!(manifest["limits"], gate_limits());
    assert_eq!(
        manifest["tickets"][0],
        json!({
            "ticket_id": used.ticket_id, "seat": "A1", "gate": "North", "status": "used", "registered": true,
            "username": used.username, "full_name": null, "inside": true, "last_step": service.now().0 / 30_000,
            "used_at": service.time(0), "printed": false, "key": used.secret(),
        })
    );
    let free = &manifest["tickets"][1];
    let told = json!({
        "ticket_id": free["ticket_id"], "seat": "A2", "gate": "South", "status": "valid", "registered": false,
        "username": null, "full_name": null, "inside": false, "last_step": null, "used_at": null, "printed": false,
    });
    assert_eq!(*free, told);
    assert_eq!(manifest["tickets"].as_array().map(Vec::len), Some(2));
}

async fn a_key_bound_to_a_gate_gets_only_the_keys_of_that_gate(service: Service) {
    let north = service.ticket_of("default", "A1", "North").await;
    let south = service.ticket_of("default", "A2", "South").await;
    let body = json!({ "name": "x", "role": "gate", "event": "default", "gate": "North", "offline": true });
    let reply = service.key(body).await.get(MANIFEST).await;
    assert!(reply.text().contains(&north.secret()));
    assert!(!reply.text().contains(&south.secret()) && !reply.text().contains(&south.username));
    let manifest = reply.is(200);
    assert_eq!(manifest["tickets"][1], json!({ "ticket_id": south.ticket_id, "seat": "A2", "gate": "South" }));
}

async fn an_unchanged_manifest_is_not_sent_again(service: Service) {
    service.ticket("A1").await;
    let gate = service.offline_gate().await;
    let first = gate.get(MANIFEST).await;
    let etag = first.header("etag").to_owned();
    assert!(etag.starts_with("W/\""), "{etag}");
    assert_eq!(first.header("vary"), "authorization, accept-encoding");
    for known in [etag.clone(), format!("\"x\", {etag}"), etag.trim_start_matches("W/").to_owned(), "*".into()] {
        let again = get(&gate, "if-none-match", &known).await;
        again.is(304);
        assert_eq!(again.header("etag"), etag);
    }
    get(&gate, "if-none-match", "W/\"x\"").await.is(200);
}

async fn every_change_makes_another_etag(service: Service) {
    let gate = service.offline_gate().await;
    let mut etags = Vec::new();
    let mut look = async |what: &str| {
        let etag = gate.get(MANIFEST).await.header("etag").to_owned();
        assert!(!etags.contains(&etag), "{what} did not change the ETag");
        etags.push(etag);
    };
    look("nothing").await;
    let ticket: Ticket = service.ticket("A1").await;
    look("a registration").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", ticket.ticket_id)).await.is(200);
    look("a printing").await;
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    look("an admission").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    look("a revocation").await;
    service.seat("default", "A2", "North").await;
    look("a new ticket").await;
    service.organizer.patch("/api/events/default", json!({ "name": "Renamed" })).await.is(200);
    look("a change of the event").await;
}

async fn a_gate_is_told_what_is_counted_of_its_own_tickets(service: Service) {
    let body = json!({ "name": "north", "role": "gate", "offline": true, "gate": " NORTH", "event": "default" });
    let (gate, all) = (service.key(body).await, service.offline_gate().await);
    let ticket = service.ticket("A1").await;
    service.seat("default", "A2", "North").await;
    service.seat("default", "A3", "South").await;
    let counts = async |client: &Client| client.get(MANIFEST).await.is(200)["counts"].clone();
    assert_eq!(counts(&gate).await, json!({ "tickets": 2, "admitted": 0, "inside": 0 }));
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    assert_eq!(counts(&gate).await, json!({ "tickets": 2, "admitted": 1, "inside": 1 }));
    assert_eq!(counts(&all).await, json!({ "tickets": 3, "admitted": 1, "inside": 1 }));
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let exit = with(service.scan(&ticket), json!({ "direction": "exit" }));
    gate.post("/api/events/default/scans", exit).await.is_scan(200, "accepted");
    assert_eq!(counts(&gate).await, json!({ "tickets": 2, "admitted": 1, "inside": 0 }));
}

async fn since_leaves_out_what_did_not_change(service: Service) {
    let gate = service.offline_gate().await;
    let early = service.ticket("A1").await;
    service.seat("default", "A2", "North").await;
    service.clock.advance(HOUR);
    let as_of = gate.get(MANIFEST).await.is(200)["as_of"].as_i64().expect("a manifest has an as_of");

    let changed = gate.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
    assert_eq!(changed["tickets"], json!([]));
    gate.post("/api/events/default/scans", service.scan(&early)).await.is_scan(200, "accepted");
    let changed = gate.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
    assert_eq!(seats(&changed), ["A1"]);
    assert_eq!(changed["tickets"][0]["status"], "used");
}

async fn since_and_the_etag_tell_a_gate_nothing_of_what_happens_at_another(service: Service) {
    let body = json!({ "name": "x", "role": "gate", "event": "default", "gate": " NORTH", "offline": true });
    let (north, all) = (service.key(body).await, service.offline_gate().await);
    let here = service.ticket_of("default", "A1", "North").await;
    let there = [service.ticket_of("default", "B1", "South").await, service.ticket_of("default", "B2", "South").await];
    let first = north.get(MANIFEST).await;
    let as_of = first.is(200)["as_of"].clone();
    assert_eq!(seats(&first.is(200)), ["A1", "B1", "B2"]);
    service.organizer.post("/api/events/default/scans", service.scan(&there[0])).await.is_scan(200, "accepted");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", there[1].ticket_id)).await.is(200);
    get(&north, "if-none-match", first.header("etag")).await.is(304);
    let since = async |client: &Client| client.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
    assert_eq!(seats(&since(&north).await), Vec::<&str>::new());
    assert_eq!(seats(&since(&all).await), ["B1", "B2"]);
    // New tickets of another gate are listed, so that their holders can be sent to the right door; and all of its own.
    service.organizer.post("/api/events/default/scans", service.scan(&here)).await.is_scan(200, "accepted");
    service.seat("default", "B3", "South").await;
    get(&north, "if-none-match", first.header("etag")).await.is(200);
    let news = since(&north).await;
    assert_eq!(seats(&news), ["A1", "B3"]);
    assert_eq!((&news["tickets"][0]["status"], &news["tickets"][1]["status"]), (&json!("used"), &Value::Null));
}

/// Used, revoked and reissued tickets, whatever the clocks of their writers.
async fn since_goes_by_no_clock(service: Service) {
    let gate = service.offline_gate().await;
    let tickets = [service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await];
    let mut as_of = gate.get(MANIFEST).await.is(200)["as_of"].clone();
    for (ahead, ticket) in [HOUR, -HOUR, -HOUR].into_iter().zip(&tickets) {
        service.clock.advance(ahead);
        let path = format!("/api/tickets/{}", ticket.ticket_id);
        service.organizer.bare(Method::POST, format!("{path}/revoke")).await.is(200);
        service.organizer.bare(Method::POST, format!("{path}/reissue")).await.is(200);
        let changed = gate.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
        assert_eq!((seats(&changed), &changed["whole"]), (vec![ticket.seat.as_str()], &json!(false)));
        as_of = changed["as_of"].clone();
        // Asked again after the clock was corrected, with nothing changed.
        service.clock.advance(-ahead);
        let none = gate.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
        assert_eq!(seats(&none), Vec::<&str>::new());
    }
}

async fn an_as_of_that_is_not_of_this_list_is_answered_with_all_of_it(service: Service) {
    service.ticket("A1").await;
    let manifest = service.organizer.get(MANIFEST).await.is(200);
    let as_of = manifest["as_of"].as_u64().expect("a number");
    assert_eq!(manifest["whole"], true);
    assert!(as_of < 1 << 53, "JavaScript has no such number");
    // A time, as 0.1.0 returned it; a state in the future; a state of no service.
    let now = service.now().0.unsigned_abs();
    for since in [0, now - 1, now + 1_000_000, as_of + 1_000, as_of.wrapping_sub(1 << 33), u64::MAX] {
        let changed = service.organizer.get(format!("{MANIFEST}?since={since}")).await.is(200);
        assert_eq!((seats(&changed), &changed["whole"]), (vec!["A1"], &json!(true)), "{since}");
    }
}

async fn an_import_is_new_since_it_appeared(service: Service) {
    let as_of = service.organizer.get(MANIFEST).await.is(200)["as_of"].clone();
    let rows: String = (1..=1_001).map(|seat| format!("{seat},North\n")).collect();
    service.organizer.post_csv("/api/events/default/tickets", format!("seat,gate\n{rows}")).await.is(201);
    let changed = service.organizer.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
    assert_eq!((seats(&changed).len(), &changed["whole"]), (1_001, &json!(false)));
    let none = service.organizer.get(format!("{MANIFEST}?since={}", changed["as_of"])).await.is(200);
    assert_eq!(seats(&none), Vec::<&str>::new());
}

async fn what_is_being_written_when_the_list_is_read_comes_with_since(service: Service) {
    let (first, second) = (service.ticket("A1").await, service.ticket("A2").await);
    let began = "begin; update tickets set version = version + 1 where seat = 'A1'";
    service.database.execute(began).await.expect("the owner may");
    if service.database.kind == Kind::Postgres {
        // A later change is committed first.
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", second.ticket_id)).await.is(200);
    }
    let as_of = service.organizer.get(MANIFEST).await.is(200)["as_of"].clone();
    service.database.execute("commit").await.expect("it was begun");
    let changed = service.organizer.get(format!("{MANIFEST}?since={as_of}")).await.is(200);
    assert!(seats(&changed).contains(&first.seat.as_str()), "{changed}");
    let none = service.organizer.get(format!("{MANIFEST}?since={}", changed["as_of"])).await.is(200);
    assert_eq!(seats(&none), Vec::<&str>::new());
}

/// This lets a gate distinguish a wrong clock from an event that is over, and keep its list.
async fn too_early_says_when_and_too_late_does_not(service: Service) {
    let times = json!({ "starts_at": service.time(25 * HOUR), "ends_at": service.time(26 * HOUR) });
    service.organizer.patch("/api/events/default", times).await.is(200);
    let early = service.organizer.get(MANIFEST).await;
    early.is_refused(403, "forbidden");
    assert_eq!(early.header("retry-after"), (HOUR / 1_000 + 1).to_string());
    service.clock.advance(33 * HOUR);
    let late = service.organizer.get(MANIFEST).await;
    late.is_refused(403, "forbidden");
    assert_eq!(late.header("retry-after"), "");
}

async fn the_manifest_comes_compressed_to_those_who_ask(service: Service) {
    service.ticket("A1").await;
    let gate = service.offline_gate().await;
    let plain = gate.get(MANIFEST).await;
    assert_eq!(plain.header("content-encoding"), "");
    for (accepted, coding) in
        [("gzip", "gzip"), ("br, GZIP;q=0.5", "gzip"), ("gzip;q=0", ""), ("identity", ""), ("x-gzip", "")]
    {
        let reply = get(&gate, "accept-encoding", accepted).await;
        assert_eq!(reply.header("content-encoding"), coding, "{accepted}");
        assert_eq!(reply.is(200), plain.is(200));
    }
}

async fn a_large_manifest_is_sent_page_by_page(service: Service) {
    let rows: String = (1..=2_001).map(|seat| format!("{seat},North\n")).collect();
    service.organizer.post_csv("/api/events/default/tickets", format!("seat,gate\n{rows}")).await.is(201);
    let manifest = service.organizer.get(MANIFEST).await.is(200);
    let expected: Vec<String> = (1..=2_001).map(|seat: usize| seat.to_string()).collect();
    assert_eq!(seats(&manifest), expected);
    let compressed = get(&service.organizer, "accept-encoding", "gzip").await.is(200);
    assert_eq!(compressed, manifest);
}

async fn the_manifest_can_be_had_around_the_event_only(service: Service) {
    let (start, end) = (service.time(48 * HOUR), service.time(50 * HOUR));
    let times = json!({ "starts_at": start, "ends_at": end });
    service.organizer.patch("/api/events/default", times).await.is(200);
    for (milliseconds, open) in
        [(24 * HOUR - 1, false), (1, true), (24 * HOUR, true), (8 * HOUR, true), (1, false), (HOUR, false)]
    {
        service.clock.advance(milliseconds);
        let reply = service.organizer.get(MANIFEST).await;
        if open {
            reply.is(200)
        } else {
            reply.is_refused(403, "forbidden")
        };
    }
}

async fn a_wrong_since_is_refused(service: Service) {
    for query in ["since=now", "since=", "since=-1", "since=%2B1", "since=1.0", "until=1"] {
        service.organizer.get(format!("{MANIFEST}?{query}")).await.is_refused(422, "invalid_payload");
    }
}

async fn get(client: &Client, header: &str, value: &str) -> Reply {
    client.send(Request::builder().method(Method::GET).uri(MANIFEST).header(header, value), "").await
}

fn seats(manifest: &Value) -> Vec<&str> {
    let tickets = manifest["tickets"].as_array().expect("a manifest has tickets");
    tickets.iter().map(|ticket| ticket["seat"].as_str().unwrap_or_default()).collect()
}

/// Tickets of every kind, by seat.
async fn every_kind(service: &Service) -> [Ticket; 4] {
    service.seat("default", "free", "North").await;
    let tickets = [
        service.ticket("valid").await,
        service.ticket("used").await,
        service.ticket("revoked").await,
        service.ticket("erased").await,
    ];
    service.organizer.post("/api/events/default/scans", service.scan(&tickets[1])).await.is_scan(200, "accepted");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", tickets[2].ticket_id)).await.is(200);
    service.organizer.delete(format!("/api/users/{}", tickets[3].username)).await.is(204);
    tickets
}

async fn only_tickets_that_could_be_admitted_have_their_key(service: Service) {
    let tickets = every_kind(&service).await;
    for client in [service.organizer.clone(), service.offline_gate().await] {
        let manifest = client.get(MANIFEST).await.is(200);
        let keys: Vec<&Value> =
            manifest["tickets"].as_array().expect("tickets").iter().filter_map(|ticket| ticket.get("key")).collect();
        assert_eq!(keys, [&json!(tickets[0].secret()), &json!(tickets[1].secret())]);
    }
}

async fn who_is_turned_away_whatever_the_code_is_named_to_supervisors_only(service: Service) {
    let [valid, _, revoked, erased] = every_kind(&service).await;
    let mut list = "seat,gate,category,note\n".to_owned();
    for ticket in [&valid, &revoked, &erased] {
        list.push_str(&format!("{},North,Under 12,Walks with a stick\n", ticket.seat));
    }
    service.organizer.post_csv("/api/events/default/tickets?existing=update", list).await.is(201);
    for (role, username) in [("gate", Value::Null), ("supervisor", json!(revoked.username))] {
        let client = service.key(json!({ "name": "x", "role": role, "offline": true })).await;
        let manifest = client.get(MANIFEST).await.is(200);
        let tickets = manifest["tickets"].as_array().expect("tickets");
        let at = |seat: &str| tickets.iter().find(|ticket| ticket["seat"] == seat).expect("it is in the list");
        let entry = at("revoked");
        let told = json!([entry["status"], entry["registered"], entry["username"]]);
        assert_eq!(told, json!(["revoked", true, username]));
        assert_members(at("valid"), json!({ "category": "Under 12", "note": "Walks with a stick" }));
        for seat in ["revoked", "erased", "free"] {
            assert!(at(seat).get("category").is_none() && at(seat).get("note").is_none(), "{seat}: {}", at(seat));
        }
    }
}

async fn since_takes_the_key_of_who_is_admitted_no_more(service: Service) {
    let gate = service.offline_gate().await;
    let [revoked, erased] = [service.ticket("A1").await, service.ticket("A2").await];
    let before = gate.get(MANIFEST).await.is(200);
    assert!(before["tickets"].as_array().is_some_and(|tickets| tickets.iter().all(|ticket| ticket["key"].is_string())));
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    service.organizer.delete(format!("/api/users/{}", erased.username)).await.is(204);
    let since = gate.get(format!("{MANIFEST}?since={}", before["as_of"])).await.is(200);
    assert_eq!(seats(&since), ["A1", "A2"]);
    assert!(
        since["tickets"].as_array().is_some_and(|tickets| tickets.iter().all(|ticket| ticket.get("key").is_none()))
    );
}
