//! When a ticket admits: the doors of its event, its own times, and once a day.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    who_comes_before_the_doors_open_is_told_when_to_come_back,
    who_comes_after_the_doors_have_closed_is_told_until_when_it_was,
    of_the_times_of_event_and_ticket_the_narrower_count,
    an_exit_is_at_any_time_and_so_is_a_supervisors_word,
    a_batch_is_early_or_late_as_of_when_it_was_scanned,
    the_first_verdict_stays_when_the_doors_change,
    gates_are_told_the_times_anew,
    an_end_comes_after_its_start,
    a_list_reads_times_by_the_clocks_of_the_event,
    a_list_corrects_times_and_leaves_those_it_does_not_name,
    once_a_day_admits_on_the_next_day_without_an_exit,
    once_a_day_nobody_comes_back_on_the_same_day,
    an_undo_gives_the_day_back,
    once_a_day_holds_offline_too,
    paper_admits_once_a_day,
    another_reentry_counts_the_entries_there_were,
}

const EVENT: &str = "/api/events/default";
const SCANS: &str = "/api/events/default/scans";
const BATCH: &str = "/api/events/default/scans/batch";
const TICKETS: &str = "/api/events/default/tickets";
const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

async fn change(service: &Service, event: Value) -> Value {
    service.organizer.patch(EVENT, event).await.is(200)
}

async fn who_comes_before_the_doors_open_is_told_when_to_come_back(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let doors = service.time(HOUR);
    let event = change(&service, json!({ "opens_at": doors })).await;
    assert_members(&event, json!({ "opens_at": doors, "closes_at": null }));
    let early = gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "too_early");
    assert_members(&early, json!({ "opens_at": doors, "closed_at": null, "seconds_off": null }));
    assert_members(&early["ticket"], json!({ "status": "valid", "username": ticket.username, "used_at": null }));
    assert!(early["message"].as_str().unwrap_or_default().contains(&doors), "{early}");
    assert_eq!(service.database.count("select count(*) from tickets where last_step is null").await, 1);
    // With the same code, which was not used up.
    change(&service, json!({ "opens_at": service.time(0) })).await;
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    let stats = service.organizer.get(format!("{EVENT}/stats")).await.is(200);
    assert_eq!(stats["refused"], json!({ "too_early": 1 }));
}

async fn who_comes_after_the_doors_have_closed_is_told_until_when_it_was(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let doors = service.time(HOUR);
    change(&service, json!({ "closes_at": doors })).await;
    service.clock.advance(HOUR - 1);
    let other = service.ticket("A2").await;
    gate.post(SCANS, service.scan(&other)).await.is_scan(200, "accepted");
    service.clock.advance(1);
    let late = gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "too_late");
    assert_members(&late, json!({ "opens_at": null, "closed_at": doors }));
    assert!(late["message"].as_str().unwrap_or_default().contains(&doors), "{late}");
    // The time is checked before the use.
    service.clock.advance(30_000);
    gate.post(SCANS, service.scan(&other)).await.is_scan(409, "too_late");
}

/// A ticket with a holder and its own times.
async fn timed(service: &Service, seat: &str, from: Option<i64>, until: Option<i64>) -> Ticket {
    let time = |milliseconds: Option<i64>| milliseconds.map(|milliseconds| service.time(milliseconds));
    let seat_of = json!({ "seat": seat, "gate": "North", "valid_from": time(from), "valid_until": time(until) });
    let made = seat_of.as_object().expect("an object").iter().filter(|(_, value)| !value.is_null());
    service.organizer.post(TICKETS, made.map(|(name, value)| (name.clone(), value.clone())).collect()).await.is(201);
    let username = format!("u-{seat}");
    service.user(&username).await;
    let registered = json!({ "seat": seat, "gate": "North" });
    let ticket = service.organizer.post(format!("/api/users/{username}/tickets"), registered).await.is(201);
    assert_members(&ticket, json!({ "valid_from": time(from), "valid_until": time(until) }));
    Ticket::new(&ticket)
}

async fn of_the_times_of_event_and_ticket_the_narrower_count(service: Service) {
    let gate = service.gate().await;
    let narrow = timed(&service, "A1", Some(2 * HOUR), Some(3 * HOUR)).await;
    let wide = timed(&service, "A2", Some(-HOUR), Some(9 * HOUR)).await;
    let (opens, closes) = (service.time(HOUR), service.time(4 * HOUR));
    change(&service, json!({ "opens_at": opens, "closes_at": closes })).await;
    let (from, until) = (service.time(2 * HOUR), service.time(3 * HOUR));
    let asks = async |ticket: &Ticket| gate.post(SCANS, service.scan(ticket)).await;

    assert_eq!(asks(&narrow).await.is_scan(409, "too_early")["opens_at"], from);
    assert_eq!(asks(&wide).await.is_scan(409, "too_early")["opens_at"], opens);
    service.clock.advance(HOUR);
    assert_eq!(asks(&narrow).await.is_scan(409, "too_early")["opens_at"], from);
    asks(&wide).await.is_scan(200, "accepted");
    service.clock.advance(2 * HOUR);
    let late = asks(&narrow).await.is_scan(409, "too_late");
    assert_eq!(late["closed_at"], until);
    assert_members(&late["ticket"], json!({ "valid_from": from, "valid_until": until }));
    service.clock.advance(HOUR);
    assert_eq!(asks(&wide).await.is_scan(409, "too_late")["closed_at"], closes);
}

async fn an_exit_is_at_any_time_and_so_is_a_supervisors_word(service: Service) {
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let by_hand = json!({ "seat": "A1", "gate": "North", "manual": true, "note": "one of the band" });
    for (doors, wrong_time) in [
        (json!({ "opens_at": service.time(HOUR), "reentry": "after_exit" }), "too_early"),
        (json!({ "opens_at": null, "closes_at": service.time(-HOUR) }), "too_late"),
    ] {
        change(&service, doors).await;
        supervisor.post(SCANS, service.scan(&ticket)).await.is_scan(409, wrong_time);
        let vouched = with(by_hand.clone(), json!({ "scan_id": Uuid::now_v7() }));
        supervisor.post(SCANS, vouched).await.is_scan(200, "accepted");
        let exit = with(service.scan(&ticket), json!({ "direction": "exit" }));
        supervisor.post(SCANS, exit).await.is_scan(200, "accepted");
    }
}

fn offline(service: &Service, ticket: &Ticket, milliseconds: i64) -> Value {
    let code = ticket.qr(service.moment(milliseconds));
    let made = json!({ "code": code, "scanned_at": service.time(milliseconds), "offline_result": "accepted" });
    with(service.scan(ticket), made)
}

async fn send(client: &Client, scans: &[Value]) -> Vec<Value> {
    let answer = client.post(BATCH, json!({ "scans": scans })).await.is(200);
    answer["results"].as_array().expect("a list").clone()
}

async fn a_batch_is_early_or_late_as_of_when_it_was_scanned(service: Service) {
    let gate = service.offline_gate().await;
    let [early, good, late] = [service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await];
    let (opens, closes) = (service.time(HOUR), service.time(3 * HOUR));
    change(&service, json!({ "opens_at": opens, "closes_at": closes })).await;
    service.clock.advance(5 * HOUR);
    let scans = [
        offline(&service, &early, -4 * HOUR - 1),
        offline(&service, &good, -2 * HOUR - 1),
        offline(&service, &late, -2 * HOUR),
    ];
    let results = send(&gate, &scans).await;
    assert_members(&results[0], json!({ "result": "too_early", "status": 409, "opens_at": opens }));
    assert_members(&results[1], json!({ "result": "accepted", "status": 200 }));
    assert_members(&results[2], json!({ "result": "too_late", "status": 409, "closed_at": closes }));
    // The gate admitted them, so they appear as conflicts.
    let conflicts = service.organizer.get(format!("{EVENT}/conflicts")).await.is(200);
    assert_eq!(conflicts["conflicts"].as_array().map(Vec::len), Some(2));
}

async fn the_first_verdict_stays_when_the_doors_change(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    change(&service, json!({ "opens_at": service.time(HOUR) })).await;
    let scan = service.scan(&ticket);
    let first = gate.post(SCANS, scan.clone()).await.is_scan(409, "too_early");
    change(&service, json!({ "opens_at": null })).await;
    let again = gate.post(SCANS, scan.clone()).await.is_scan(409, "too_early");
    assert_eq!(again, with(first, json!({ "replayed": true })));
    // A replay by another gate's key reveals no more than that key's own scan.
    let south = service.key(json!({ "name": "x", "role": "gate", "event": "default", "gate": "South" })).await;
    let told = south.post(SCANS, scan).await.is_scan(409, "too_early");
    assert_members(&told, json!({ "opens_at": null, "closed_at": null }));
}

async fn gates_are_told_the_times_anew(service: Service) {
    let gate = service.offline_gate().await;
    timed(&service, "A1", Some(HOUR), None).await;
    let manifest = format!("{EVENT}/manifest");
    let mut etags = Vec::new();
    for doors in [
        json!({}),
        json!({ "opens_at": service.time(HOUR) }),
        json!({ "closes_at": service.time(2 * HOUR) }),
        json!({ "closes_at": null, "reentry": "once_a_day" }),
    ] {
        change(&service, doors.clone()).await;
        let reply = gate.get(&manifest).await;
        let etag = reply.header("etag").to_owned();
        assert!(!etags.contains(&etag), "{doors} did not change the ETag");
        etags.push(etag);
        let told = reply.is(200);
        assert_members(&told["event"], doors);
        let ticket = &told["tickets"][0];
        assert_members(ticket, json!({ "valid_from": service.time(HOUR), "valid_until": null, "entered_at": null }));
    }
}

async fn an_end_comes_after_its_start(service: Service) {
    let (early, late) = (service.time(0), service.time(HOUR));
    let refused = |reply: crate::client::Reply, field: &str| {
        let problem = reply.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": field, "code": "ends_before_start" }));
    };
    let organizer = &service.organizer;
    for end in [&early, &late] {
        let event = json!({ "slug": "x", "name": "X", "opens_at": late, "closes_at": end });
        refused(organizer.post("/api/events", event).await, "closes_at");
        let ticket = json!({ "seat": "A1", "gate": "North", "valid_from": late, "valid_until": end });
        refused(organizer.post(TICKETS, ticket.clone()).await, "valid_until");
        refused(organizer.post(TICKETS, json!([{ "seat": "A0", "gate": "North" }, ticket])).await, "[1]");
        change(&service, json!({ "opens_at": late, "closes_at": null })).await;
        refused(organizer.patch(EVENT, json!({ "closes_at": end })).await, "closes_at");
        let list = format!("name,valid from,valid until\nAna,{late},{end}\n");
        let problem = organizer.post_csv(TICKETS, list).await.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": "line 2", "code": "ends_before_start" }));
        assert_eq!(problem["errors"][0]["params"]["column"], "valid_until");
    }
    assert_eq!(service.database.count("select count(*) from tickets").await, 0);
}

/// The times of all tickets of the event, in order.
async fn times(service: &Service) -> Vec<Value> {
    let list = service.organizer.get(TICKETS).await.is(200);
    let tickets = list["tickets"].as_array().expect("there are tickets").iter();
    tickets.map(|ticket| json!([ticket["valid_from"], ticket["valid_until"]])).collect()
}

async fn a_list_reads_times_by_the_clocks_of_the_event(service: Service) {
    change(&service, json!({ "time_zone": "Europe/Madrid" })).await;
    // pretix's names for them.
    let list = "Attendee name,Valid from,Valid until\n\
                Ana,2026-05-01 18:00,2026-05-01 23:30:15\n\
                Bo,2026-05-01T18:00,2026-05-02T04:00:00+00:00\n\
                Cy,2026-05-01,2026-05-01\n\
                Dee,1.5.2026 18:00,\"02.05.2026, 05:00\"\n\
                Eve,,2026-12-01\n\
                Flo,2026-03-29 02:30,2026-10-25 02:30\n";
    service.organizer.post_csv(TICKETS, list).await.is(201);
    let expected = [
        json!(["2026-05-01T16:00:00.000Z", "2026-05-01T21:30:15.000Z"]),
        json!(["2026-05-01T16:00:00.000Z", "2026-05-02T04:00:00.000Z"]),
        // The event's day, which turns at five.
        json!(["2026-05-01T03:00:00.000Z", "2026-05-02T03:00:00.000Z"]),
        json!(["2026-05-01T16:00:00.000Z", "2026-05-02T03:00:00.000Z"]),
        json!([null, "2026-12-02T04:00:00.000Z"]),
        // A time that clocks skip is an hour later; of one that occurs twice, the first is meant.
        json!(["2026-03-29T01:30:00.000Z", "2026-10-25T00:30:00.000Z"]),
    ];
    assert_eq!(times(&service).await, expected);

    for wrong in ["05/01/2026", "tomorrow", "2026-13-01", "2026-02-30 18:00", "18:00", "2026-05-01 25:00", "45778.75"] {
        let list = format!("name,valid_from\nGil,{wrong}\n");
        let problem = service.organizer.post_csv(TICKETS, list).await.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": "line 2", "code": "not_a_date" }));
        assert_eq!(problem["errors"][0]["params"]["column"], "valid_from");
    }

    // An export can be imported again, anywhere.
    let exported = service.organizer.get("/api/events/default/tickets.csv").await.text().to_owned();
    service.event(json!({ "slug": "again", "name": "Again" })).await;
    service.organizer.post_csv("/api/events/again/tickets", exported).await.is(201);
    let count = "select count(*) from tickets a join tickets b on a.seat = b.seat and a.ticket_id <> b.ticket_id \
                 and a.valid_from is not distinct from b.valid_from and a.valid_until is not distinct from b.valid_until";
    assert_eq!(service.database.count(count).await, 2 * expected.len() as i64);
}

async fn a_list_corrects_times_and_leaves_those_it_does_not_name(service: Service) {
    let list = "seat,gate,valid_from,valid_until\nA1,North,2026-05-01 18:00,2026-05-01 20:00\nA2,North,,\n";
    service.organizer.post_csv(TICKETS, list).await.is(201);
    let update = format!("{TICKETS}?existing=update");
    let list = "seat,gate,valid_from,valid_until\nA1,North,,2026-05-01 22:00\nA2,North,2026-05-02 18:00,\n";
    let made = service.organizer.post_csv(&update, list).await.is(201);
    assert_members(&made, json!({ "created": 0, "updated": 2, "skipped": 0 }));
    let expected =
        [json!(["2026-05-01T18:00:00.000Z", "2026-05-01T22:00:00.000Z"]), json!(["2026-05-02T18:00:00.000Z", null])];
    assert_eq!(times(&service).await, expected);
    let made = service.organizer.post_csv(&update, list).await.is(201);
    assert_members(&made, json!({ "updated": 0, "skipped": 2 }));
    // Also compared with the stored times.
    let list = "seat,gate,valid_until\nA2,North,2026-05-02 18:00\n";
    let problem = service.organizer.post_csv(&update, list).await.is_refused(422, "invalid_payload");
    assert_members(&problem["errors"][0], json!({ "field": "line 2", "code": "ends_before_start" }));
    assert_eq!(times(&service).await, expected);
}

/// An event of several days. Its local time is 20:00.
async fn several_days(service: &Service) {
    change(service, json!({ "time_zone": "Europe/Madrid", "reentry": "once_a_day" })).await;
}

async fn once_a_day_admits_on_the_next_day_without_an_exit(service: Service) {
    several_days(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let first = gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    let entered = service.time(0);
    assert_members(&first["ticket"], json!({ "status": "used", "used_at": entered, "entered_at": entered }));
    // At 04:59:59.999 it is still the same evening, at 05:00 another day.
    service.clock.advance(9 * HOUR - 1);
    let used = gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
    assert_eq!(used["first_used_at"], entered);
    service.clock.advance(1);
    let second = gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    assert_members(&second["ticket"], json!({ "used_at": entered, "entered_at": service.time(0), "inside": true }));
    let today = service.time(0);
    service.clock.advance(HOUR);
    let used = gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
    assert_members(&used, json!({ "first_used_at": today, "first_used_gate": "North" }));
    assert_eq!(service.database.count("select count(*) from scans where result = 'accepted'").await, 2);
    let stats = service.organizer.get(format!("{EVENT}/stats")).await.is(200);
    assert_members(&stats, json!({ "admitted": 1, "inside": 1 }));
    let shown = service.organizer.get(format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
    assert_members(&shown, json!({ "used_at": entered, "entered_at": today }));
}

async fn once_a_day_nobody_comes_back_on_the_same_day(service: Service) {
    several_days(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    service.clock.advance(HOUR);
    let exit = with(service.scan(&ticket), json!({ "direction": "exit" }));
    let left = gate.post(SCANS, exit).await.is_scan(200, "accepted");
    assert_eq!(left["ticket"]["inside"], false);
    service.clock.advance(HOUR);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
    service.clock.advance(7 * HOUR);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn an_undo_gives_the_day_back(service: Service) {
    several_days(&service).await;
    let (supervisor, ticket) = (service.supervisor().await, service.ticket("A1").await);
    let enter = async || {
        service.clock.advance(MINUTE);
        supervisor.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted")
    };
    let undo = async |scan: &Value| {
        let path = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
        supervisor.bare(Method::POST, path).await.is(200)["ticket"].clone()
    };
    assert_members(&undo(&enter().await).await, json!({ "status": "valid", "used_at": null, "entered_at": null }));
    let first = enter().await["ticket"]["used_at"].clone();
    service.clock.advance(12 * HOUR);
    let second = enter().await;
    assert_ne!(second["ticket"]["entered_at"], first);
    assert_members(&undo(&second).await, json!({ "status": "used", "used_at": first, "entered_at": first }));
    enter().await;
    service.clock.advance(MINUTE);
    supervisor.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
    // A reissued ticket has no entry on any day.
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    let reissue = format!("/api/tickets/{}/reissue", ticket.ticket_id);
    let reissued = service.organizer.bare(Method::POST, reissue).await.is(200);
    assert_eq!(reissued["entered_at"], Value::Null);
    supervisor.post(SCANS, service.scan(&Ticket::new(&reissued))).await.is_scan(200, "accepted");
}

async fn once_a_day_holds_offline_too(service: Service) {
    several_days(&service).await;
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let manifest = async || gate.get(format!("{EVENT}/manifest")).await.is(200)["tickets"][0].clone();
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    let first = service.time(0);
    assert_members(&manifest().await, json!({ "used_at": first, "entered_at": null }));
    service.clock.advance(24 * HOUR);
    let scans = [offline(&service, &ticket, -HOUR), offline(&service, &ticket, -16 * HOUR)];
    let results = send(&gate, &scans).await;
    // In the order of the scans' times: the one at 04:00 belongs to the first evening.
    assert_eq!([&results[0]["result"], &results[1]["result"]], ["accepted", "already_used"]);
    assert_eq!(results[1]["first_used_at"], first);
    assert_members(&manifest().await, json!({ "used_at": first, "entered_at": service.time(-HOUR) }));
}

async fn paper_admits_once_a_day(service: Service) {
    several_days(&service).await;
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", ticket.ticket_id)).await.is(200);
    let paper = || with(service.scan(&ticket), json!({ "code": ticket.paper() }));
    gate.post(SCANS, paper()).await.is_scan(200, "accepted");
    gate.post(SCANS, paper()).await.is_scan(409, "already_used");
    service.clock.advance(24 * HOUR);
    gate.post(SCANS, paper()).await.is_scan(200, "accepted");
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
}

/// The re-entry rule at the time of the entry does not matter.
async fn another_reentry_counts_the_entries_there_were(service: Service) {
    several_days(&service).await;
    let gate = service.gate().await;
    for (seat, reentry) in [("A1", "none"), ("A2", "after_exit")] {
        change(&service, json!({ "reentry": reentry })).await;
        let ticket = service.ticket(seat).await;
        gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
        service.clock.advance(HOUR);
        change(&service, json!({ "reentry": "once_a_day" })).await;
        gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
        service.clock.advance(23 * HOUR);
        gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    }
}
