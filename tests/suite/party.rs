//! Parties: an admitted holder's other tickets, each admitted by its own scan for which that admission vouches.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, Ticket, assert_members, walk, with};

on_both_databases! {
    an_admission_tells_the_holders_other_tickets_for_this_gate,
    only_who_was_let_in_is_told_of_a_party,
    a_party_has_fifty_tickets_at_most,
    a_family_comes_in_by_one_code,
    who_is_vouched_for_may_be_refused_as_with_a_code,
    only_an_admission_of_the_same_holder_by_the_same_key_speaks,
    an_admission_speaks_for_two_minutes,
    who_was_vouched_for_speaks_for_nobody,
    what_was_undone_speaks_for_nobody,
    people_of_the_same_name_are_two,
    a_key_of_another_event_vouches_for_nobody_here,
    who_is_vouched_for_meets_no_limit_of_codes,
    a_scan_that_is_vouched_for_is_replayed_like_any_other,
    a_vouched_scan_names_a_ticket_and_who_speaks_for_it,
    a_family_that_came_in_offline_is_on_record,
    whom_a_gate_let_in_by_a_scan_that_does_not_stand_is_a_conflict,
    what_an_ended_key_let_in_stands_by_its_word,
    two_gates_that_admit_one_family_at_once_admit_each_once,
    a_family_comes_back_after_it_went_out,
    who_comes_together_is_who_may_come_in_at_that_time,
}

const SCANS: &str = "/api/events/default/scans";
const BATCH: &str = "/api/events/default/scans/batch";
const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

/// Tickets at gate North, all held by Ana.
async fn family(service: &Service, seats: &[&str]) -> Vec<Ticket> {
    service.organizer.post("/api/users", json!({ "username": "ana", "full_name": "Ana Ruiz" })).await.is(201);
    let mut tickets = Vec::new();
    for seat in seats {
        tickets.push(held(service, "ana", seat, "North").await);
    }
    tickets
}

async fn held(service: &Service, username: &str, seat: &str, gate: &str) -> Ticket {
    service.seat("default", seat, gate).await;
    let registered =
        service.organizer.post(format!("/api/users/{username}/tickets"), json!({ "seat": seat, "gate": gate })).await;
    Ticket::new(&registered.is(201))
}

/// A scan of a ticket that another scan vouches for.
fn vouched(ticket: &Ticket, by: &Value) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "ticket_id": ticket.ticket_id, "vouched_by": by["scan_id"] })
}

/// The seats of the party in an admission.
fn seats(scan: &Value) -> Vec<&str> {
    scan["party"].as_array().expect("a scan has a party").iter().filter_map(|ticket| ticket["seat"].as_str()).collect()
}

#[track_caller]
fn nobody_speaks(reply: &Reply) {
    let error = &reply.is_refused(422, "invalid_payload")["errors"][0];
    assert_members(error, json!({ "field": "vouched_by", "code": "not_vouched", "params": { "seconds": 120 } }));
}

async fn at(service: &Service, gate: &str) -> Client {
    service.key(json!({ "name": gate, "role": "gate", "event": "default", "gate": gate, "offline": true })).await
}

async fn an_admission_tells_the_holders_other_tickets_for_this_gate(service: Service) {
    let list = "seat,gate,username,full_name,category,note\n\
                A1,North,ana,Ana Ruiz,,\nA2,north,ana,Bea Ruiz,Under 12,Walks with a stick\nA3,South,ana,,,\nA4,North,ben,,,\n\
                A5,North,ana,,,\nA6,North,ana,,,\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    service.organizer.post_csv("/api/events/gala/tickets", "seat,gate,username\nB1,North,ana\n").await.is(201);
    let gate = at(&service, "North").await;
    let tickets = walk(&service.organizer, "/api/events/default/tickets", "tickets").await;
    let path = |seat: &str| {
        let ticket = tickets.iter().find(|ticket| ticket["seat"] == seat).expect("it was made");
        format!("/api/tickets/{}", ticket["ticket_id"].as_str().expect("it has an id"))
    };
    service.organizer.bare(Method::POST, format!("{}/revoke", path("A5"))).await.is(200);
    let used = Ticket::new(&service.organizer.bare(Method::POST, format!("{}/reissue", path("A6"))).await.is(200));
    let first = Ticket::new(&service.organizer.bare(Method::POST, format!("{}/reissue", path("A1"))).await.is(200));

    let scan = gate.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    assert_eq!(seats(&scan), ["A1", "A2"], "same gate, event and holder, and not revoked");
    let scan = gate.post(SCANS, service.scan(&first)).await.is_scan(200, "accepted");
    let ticket_id = path("A2").replace("/api/tickets/", "");
    let party = json!([{ "ticket_id": ticket_id, "seat": "A2", "gate": "north", "full_name": "Bea Ruiz",
        "category": "Under 12", "note": "Walks with a stick" }]);
    assert_eq!(scan["party"], party, "the admitted ticket is not among the offered ones");
}

async fn only_who_was_let_in_is_told_of_a_party(service: Service) {
    let tickets = family(&service, &["A1", "A2"]).await;
    let (gate, other, supervisor) =
        (at(&service, "North").await, at(&service, "North").await, service.supervisor().await);
    let none = |reply: Reply, status, result: &str| assert_eq!(reply.is_scan(status, result)["party"], json!([]));
    let wrong = tickets[0].wrong_code(service.now());
    let guess = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": wrong });
    none(supervisor.post(SCANS, guess).await, 422, "wrong_code");
    let stale = with(service.scan(&tickets[0]), json!({ "code": tickets[0].qr(service.moment(-2 * MINUTE)) }));
    none(gate.post(SCANS, stale).await, 422, "stale_code");
    let exit = with(service.scan(&tickets[0]), json!({ "direction": "exit" }));
    none(gate.post(SCANS, exit).await, 409, "not_inside");

    let entry = service.scan(&tickets[0]);
    assert_eq!(seats(&gate.post(SCANS, entry.clone()).await.is_scan(200, "accepted")), ["A2"]);
    assert_eq!(
        seats(&gate.post(SCANS, entry.clone()).await.is_scan(200, "accepted")),
        ["A2"],
        "an answer that was lost"
    );
    none(other.post(SCANS, entry.clone()).await, 200, "accepted");
    service.clock.advance(30 * SECOND);
    none(gate.post(SCANS, service.scan(&tickets[0])).await, 409, "already_used");
    let exit = with(service.scan(&tickets[0]), json!({ "direction": "exit" }));
    none(gate.post(SCANS, exit).await, 200, "accepted");
    service.clock.advance(2 * MINUTE);
    none(gate.post(SCANS, entry).await, 200, "accepted");
    let late = with(service.scan(&tickets[1]), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    let answer = gate.post(BATCH, json!({ "scans": [late] })).await.is(200);
    assert_members(&answer["results"][0], json!({ "result": "accepted", "party": [] }));
}

async fn a_party_has_fifty_tickets_at_most(service: Service) {
    let list = "quantity,gate,username\n50,North,ana\n3,North,ana\n";
    service.organizer.post_csv("/api/events/default/tickets?existing=refuse", list).await.is(201);
    let by_hand =
        json!({ "scan_id": Uuid::now_v7(), "seat": "7", "gate": "North", "manual": true, "note": "no phone" });
    let scan = service.supervisor().await.post(SCANS, by_hand).await.is_scan(200, "accepted");
    let party = seats(&scan);
    assert_eq!(party.len(), 50);
    assert_eq!(party[..7], ["1", "2", "3", "4", "5", "6", "8"], "the first of them");
}

async fn a_family_comes_in_by_one_code(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3", "A4"]).await;
    let gate = at(&service, "North").await;
    let first = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    assert_eq!(seats(&first), ["A2", "A3", "A4"]);
    service.clock.advance(20 * SECOND);
    for ticket in &tickets[1..] {
        let scan = gate.post(SCANS, vouched(ticket, &first)).await.is_scan(200, "accepted");
        assert_members(&scan, json!({ "at_gate": "North", "direction": "entry", "party": [] }));
        assert_members(&scan["ticket"], json!({ "seat": ticket.seat, "status": "used", "full_name": "Ana Ruiz" }));
    }
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used' and inside").await, 4);
    assert_eq!(service.database.count("select count(*) from tickets where last_step is null").await, 3, "no code was");
    let record = service.organizer.get("/api/events/default/scans.csv").await.text();
    let by = first["scan_id"].as_str().expect("it has an id");
    assert_eq!(record.matches(&format!(",\"{by}\",")).count(), 3, "they name the voucher: {record}");
    // Their codes were not used up, but their tickets were.
    gate.post(SCANS, service.scan(&tickets[1])).await.is_scan(409, "already_used");
}

async fn who_is_vouched_for_may_be_refused_as_with_a_code(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3", "A4"]).await;
    let gate = at(&service, "North").await;
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    gate.post(SCANS, service.scan(&tickets[1])).await.is_scan(200, "accepted");
    gate.post(SCANS, vouched(&tickets[1], &by)).await.is_scan(409, "already_used");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", tickets[2].ticket_id)).await.is(200);
    gate.post(SCANS, vouched(&tickets[2], &by)).await.is_scan(410, "revoked");
    let nowhere = with(vouched(&tickets[3], &by), json!({ "ticket_id": Uuid::now_v7() }));
    gate.post(SCANS, nowhere).await.is_scan(404, "unknown_ticket");
    let south = at(&service, "South").await;
    south.post(SCANS, vouched(&tickets[3], &by)).await.is_scan(409, "wrong_gate");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used'").await, 2);
    assert_eq!(
        service.database.count("select count(*) from scans where vouched_by is not null").await,
        4,
        "all are kept"
    );
}

async fn only_an_admission_of_the_same_holder_by_the_same_key_speaks(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3"]).await;
    service.user("ben").await;
    let (bens, elsewhere) = (held(&service, "ben", "B1", "North").await, held(&service, "ana", "S1", "South").await);
    let (gate, other) = (service.gate().await, service.gate().await);
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    for scan in [
        vouched(&bens, &by),
        vouched(&elsewhere, &by),
        vouched(&tickets[0], &by),
        with(vouched(&tickets[1], &by), json!({ "vouched_by": Uuid::now_v7() })),
    ] {
        nobody_speaks(&service.unchanged(gate.post(SCANS, scan)).await);
    }
    nobody_speaks(&service.unchanged(other.post(SCANS, vouched(&tickets[1], &by))).await);
    nobody_speaks(&service.unchanged(service.organizer.post(SCANS, vouched(&tickets[1], &by))).await);
    // Neither a refused scan nor an exit.
    let refused = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(409, "already_used");
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[1], &refused))).await);
    let left = with(service.scan(&tickets[0]), json!({ "direction": "exit" }));
    let left = gate.post(SCANS, left).await.is_scan(200, "accepted");
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[1], &left))).await);
    // The holder counts as of now.
    let path = format!("/api/tickets/{}/transfer", tickets[1].ticket_id);
    service.organizer.post(path, json!({ "username": "ben" })).await.is(200);
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[1], &by))).await);
    gate.post(SCANS, vouched(&tickets[2], &by)).await.is_scan(200, "accepted");
    // The key from the environment is one like any other.
    let by = service.organizer.post(SCANS, service.scan(&bens)).await.is_scan(200, "accepted");
    service.organizer.post(SCANS, vouched(&tickets[1], &by)).await.is_scan(200, "accepted");
}

async fn an_admission_speaks_for_two_minutes(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3"]).await;
    let gate = at(&service, "North").await;
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    service.clock.advance(2 * MINUTE);
    gate.post(SCANS, vouched(&tickets[1], &by)).await.is_scan(200, "accepted");
    service.clock.advance(1);
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[2], &by))).await);
    // The device's idea of the time changes nothing.
    let early = with(vouched(&tickets[2], &by), json!({ "scanned_at": service.time(-MINUTE) }));
    nobody_speaks(&service.unchanged(gate.post(SCANS, early)).await);
}

async fn who_was_vouched_for_speaks_for_nobody(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3"]).await;
    let gate = at(&service, "North").await;
    let first = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    let second = gate.post(SCANS, vouched(&tickets[1], &first)).await.is_scan(200, "accepted");
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[2], &second))).await);
}

async fn what_was_undone_speaks_for_nobody(service: Service) {
    let tickets = family(&service, &["A1", "A2"]).await;
    let gate = at(&service, "North").await;
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", by["scan_id"].as_str().expect("it has an id"));
    let undone = service.supervisor().await.bare(Method::POST, undo).await.is(200);
    assert_eq!(undone["party"], json!([]));
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[1], &by))).await);
}

/// One belongs to the event, the other to the whole installation.
async fn people_of_the_same_name_are_two(service: Service) {
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let own = service.key(json!({ "name": "own", "role": "organizer", "event": "gala" })).await;
    let list = |seat: &str| format!("seat,gate,username\n{seat},North,ana\n");
    service.organizer.post_csv("/api/events/gala/tickets", list("A1")).await.is(201);
    own.post_csv("/api/events/gala/tickets", list("A2")).await.is(201);
    own.post_csv("/api/events/gala/tickets", list("A3")).await.is(201);
    let tickets = walk(&service.organizer, "/api/events/gala/tickets", "tickets").await;
    let gate = service.key(json!({ "name": "g", "role": "supervisor", "event": "gala", "offline": true })).await;
    let by_hand = |seat: &str| json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": "North", "manual": true, "note": "no phone" });
    let scan = gate.post("/api/events/gala/scans", by_hand("A2")).await.is_scan(200, "accepted");
    assert_eq!(seats(&scan), ["A3"]);
    let other =
        json!({ "scan_id": Uuid::now_v7(), "ticket_id": tickets[0]["ticket_id"], "vouched_by": scan["scan_id"] });
    nobody_speaks(&gate.post("/api/events/gala/scans", other).await);
    // An offline gate has to know it too.
    let manifest = gate.get("/api/events/gala/manifest").await.is(200);
    let told = |place: usize| manifest["tickets"][place]["holder_event"].clone();
    assert_eq!([told(0), told(1), told(2)], [Value::Null, json!("gala"), json!("gala")]);
}

async fn a_key_of_another_event_vouches_for_nobody_here(service: Service) {
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let tickets = family(&service, &["A1", "A2"]).await;
    service.seat("gala", "G1", "North").await;
    let body = json!({ "event": "gala", "seat": "G1", "gate": "North" });
    let galas = Ticket::new(&service.organizer.post("/api/users/ana/tickets", body).await.is(201));
    // The same person, and a key for both events.
    let gate = service.gate().await;
    let by = gate.post("/api/events/gala/scans", service.scan(&galas)).await.is_scan(200, "accepted");
    assert_eq!(seats(&by), [""; 0]);
    nobody_speaks(&service.unchanged(gate.post(SCANS, vouched(&tickets[0], &by))).await);
    let here = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    let bound = service.key(json!({ "name": "b", "role": "gate", "event": "gala" })).await;
    service.unchanged(bound.post(SCANS, vouched(&tickets[1], &here))).await.is_refused(403, "forbidden");
    bound.post("/api/events/gala/scans", vouched(&tickets[1], &here)).await.is_scan(404, "unknown_ticket");
}

async fn who_is_vouched_for_meets_no_limit_of_codes(service: Service) {
    let tickets = family(&service, &["A1", "A2"]).await;
    let gate = at(&service, "North").await;
    for _ in 0..11 {
        let digits = tickets[1].wrong_code(service.now());
        let guess = json!({ "scan_id": Uuid::now_v7(), "seat": "A2", "gate": "North", "totp_code": digits });
        gate.post(SCANS, guess).await.is_scan(422, "wrong_code");
    }
    gate.post(SCANS, service.scan(&tickets[1])).await.is_scan(429, "too_many_attempts");
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    gate.post(SCANS, vouched(&tickets[1], &by)).await.is_scan(200, "accepted");
}

async fn a_scan_that_is_vouched_for_is_replayed_like_any_other(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3"]).await;
    let gate = at(&service, "North").await;
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    let scan = vouched(&tickets[1], &by);
    gate.post(SCANS, scan.clone()).await.is_scan(200, "accepted");
    service.clock.advance(60 * MINUTE);
    let again = service.unchanged(gate.post(SCANS, scan.clone())).await.is_scan(200, "accepted");
    assert_eq!(again["replayed"], true);
    let other = with(scan, json!({ "ticket_id": tickets[2].ticket_id }));
    service.unchanged(gate.post(SCANS, other)).await.is_refused(409, "scan_id_conflict");
}

async fn a_vouched_scan_names_a_ticket_and_who_speaks_for_it(service: Service) {
    let tickets = family(&service, &["A1", "A2"]).await;
    let gate = at(&service, "North").await;
    let by = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    let scan = vouched(&tickets[1], &by);
    let fault = async |changes: Value| {
        let refused = service.unchanged(gate.post(SCANS, with(scan.clone(), changes))).await;
        let error = refused.is_refused(422, "invalid_payload")["errors"][0].clone();
        [error["field"].clone(), error["code"].clone()].map(|word| word.as_str().unwrap_or_default().to_owned())
    };
    for changes in [
        json!({ "vouched_by": null }),
        json!({ "ticket_id": null }),
        json!({ "code": tickets[1].qr(service.now()) }),
        json!({ "seat": "A2", "gate": "North" }),
        json!({ "seat": "A2", "gate": "North", "totp_code": "123456" }),
    ] {
        assert_eq!(fault(changes).await, ["body", "not_a_scan"]);
    }
    assert_eq!(fault(json!({ "manual": true })).await, ["note", "note_if_manual"]);
    assert_eq!(fault(json!({ "direction": "exit" })).await, ["direction", "not_one_of"]);
    assert_eq!(fault(json!({ "vouched_by": "me" })).await, ["vouched_by", "not_a_uuid"]);
    assert_eq!(fault(json!({ "offline_result": "accepted" })).await, ["offline_result", "batch_only"]);
    gate.post(SCANS, scan).await.is_scan(200, "accepted");
}

/// A scan that a gate decided offline.
fn offline(service: &Service, scan: Value, ago: i64) -> Value {
    with(scan, json!({ "scanned_at": service.time(-ago), "offline_result": "accepted" }))
}

async fn a_family_that_came_in_offline_is_on_record(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3", "A4", "A5", "A6"]).await;
    let gate = at(&service, "North").await;
    let online = gate.post(SCANS, service.scan(&tickets[5])).await.is_scan(200, "accepted");
    service.clock.advance(MINUTE);
    let first = offline(&service, service.scan(&tickets[0]), 0);
    service.clock.advance(60 * MINUTE);
    // In any order: they are applied by their times. An admission from before the outage vouches too.
    let scans = json!([
        offline(&service, vouched(&tickets[1], &first), 60 * MINUTE - 20 * SECOND),
        offline(&service, vouched(&tickets[2], &first), 58 * MINUTE - 1),
        offline(&service, vouched(&tickets[3], &online), 60 * MINUTE),
        first,
    ]);
    let answer = gate.post(BATCH, json!({ "scans": scans })).await.is(200);
    assert_members(&answer["results"][0], json!({ "result": "accepted", "status": 200 }));
    assert_members(&answer["results"][1], json!({ "result": "wrong_code" }));
    assert_eq!(answer["results"][2]["result"], "accepted");
    assert_eq!(answer["results"][3]["result"], "accepted");
    let again = gate.post(BATCH, json!({ "scans": scans })).await.is(200);
    assert_members(&again["results"][0], json!({ "result": "accepted", "replayed": true }));
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used'").await, 4);
}

async fn whom_a_gate_let_in_by_a_scan_that_does_not_stand_is_a_conflict(service: Service) {
    let tickets = family(&service, &["A1", "A2", "A3", "A4"]).await;
    let gate = at(&service, "North").await;
    at(&service, "North").await.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    // A copy admits its bearer, and the party with them.
    let refused = offline(&service, service.scan(&tickets[0]), 0);
    let along = offline(&service, vouched(&tickets[1], &refused), 0);
    // Another was undone before the gate reported the party.
    let undone = service.scan(&tickets[2]);
    gate.post(SCANS, undone.clone()).await.is_scan(200, "accepted");
    service
        .organizer
        .post(&format!("/api/scans/{}/undo", undone["scan_id"].as_str().expect("text")), json!({}))
        .await
        .is(200);
    let after = offline(&service, vouched(&tickets[3], &undone), 0);
    // An unknown voucher cannot have admitted anybody.
    let unknown = offline(&service, vouched(&tickets[3], &json!({ "scan_id": Uuid::now_v7() })), 0);
    let answer = gate.post(BATCH, json!({ "scans": [refused, along, after, unknown] })).await.is(200);
    let results: Vec<_> = answer["results"].as_array().expect("a list").iter().map(|one| &one["result"]).collect();
    assert_eq!(results[..3], ["already_used", "wrong_code", "wrong_code"]);
    assert_members(&answer["results"][3]["errors"][0], json!({ "field": "vouched_by", "code": "not_vouched" }));
    let conflicts = service.organizer.get("/api/events/default/conflicts").await.is(200);
    let seats = |list: &Value| {
        list.as_array()
            .expect("a list")
            .iter()
            .filter_map(|one| one["ticket"]["seat"].as_str().map(str::to_owned))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(seats(&conflicts["conflicts"]), ["A1", "A2", "A4"].map(str::to_owned).into());
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used'").await, 1);
}

async fn what_an_ended_key_let_in_stands_by_its_word(service: Service) {
    let tickets = family(&service, &["A1", "A2"]).await;
    let made = json!({ "name": "n", "role": "gate", "event": "default", "gate": "North", "offline": true });
    let made = service.organizer.post("/api/keys", made).await.is(201);
    let gate = service.anonymous.with_key(made["key"].as_str().expect("it is shown once"));
    gate.get("/api/events/default/manifest").await.is(200);
    let first = offline(&service, service.scan(&tickets[0]), 0);
    let scans = json!([first, offline(&service, vouched(&tickets[1], &first), 0)]);
    service.clock.advance(MINUTE);
    let path = format!("/api/keys/{}", made["key_id"].as_str().expect("it has an id"));
    service.organizer.delete(&path).await.is(204);
    service.organizer.bare(Method::POST, format!("{path}/take")).await.is(200);
    // In two batches: the second without the voucher.
    for place in [1, 0] {
        let answer = gate.post(BATCH, json!({ "scans": [scans[place]] })).await.is(200);
        assert_eq!(answer["results"][0]["result"], "accepted");
    }
}

async fn two_gates_that_admit_one_family_at_once_admit_each_once(service: Service) {
    let names: Vec<String> = (0..10).map(|seat| format!("A{seat}")).collect();
    let tickets = family(&service, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let other = service.another(&[]);
    let key = async |of: &Service| {
        let made = json!({ "name": "n", "role": "gate", "event": "default", "gate": "North" });
        let made = service.organizer.post("/api/keys", made).await.is(201);
        of.anonymous.with_key(made["key"].as_str().expect("it is shown once"))
    };
    let gates = [key(&service).await, key(&other).await];
    let mut first = Vec::new();
    for (gate, ticket) in gates.iter().zip(&tickets) {
        first.push(gate.post(SCANS, service.scan(ticket)).await.is_scan(200, "accepted"));
    }
    let admit = async |place: usize| {
        let mut admitted = 0;
        for ticket in &tickets[2..] {
            let reply = gates[place].post(SCANS, vouched(ticket, &first[place])).await;
            match reply.status.as_u16() {
                200 => admitted += 1,
                _ => drop(reply.is_scan(409, "already_used")),
            }
        }
        admitted
    };
    let (one, two) = tokio::join!(admit(0), admit(1));
    assert_eq!(one + two, 8, "each once");
    assert_eq!(service.database.count("select count(*) from scans where result = 'accepted'").await, 10);
}

async fn a_family_comes_back_after_it_went_out(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let tickets = family(&service, &["A1", "A2", "A3"]).await;
    let gate = at(&service, "North").await;
    let first = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    gate.post(SCANS, vouched(&tickets[1], &first)).await.is_scan(200, "accepted");
    service.clock.advance(30 * SECOND);
    for ticket in &tickets[..2] {
        let exit = with(service.scan(ticket), json!({ "direction": "exit" }));
        gate.post(SCANS, exit).await.is_scan(200, "accepted");
    }
    service.clock.advance(30 * SECOND);
    let again = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    assert_eq!(seats(&again), ["A2", "A3"]);
    gate.post(SCANS, vouched(&tickets[1], &again)).await.is_scan(200, "accepted");
}

async fn who_comes_together_is_who_may_come_in_at_that_time(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "once_a_day" })).await.is(200);
    let tickets = family(&service, &["A1", "A2", "A3", "A4"]).await;
    let later = format!("seat,gate,valid_from\nA4,North,{}\n", service.time(20 * 60 * MINUTE));
    service.organizer.post_csv("/api/events/default/tickets?existing=update", later).await.is(201);
    let gate = at(&service, "North").await;
    let first = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    assert_eq!(seats(&first), ["A2", "A3"], "one of them admits tomorrow only");
    gate.post(SCANS, vouched(&tickets[1], &first)).await.is_scan(200, "accepted");
    gate.post(SCANS, vouched(&tickets[3], &first)).await.is_scan(409, "too_early");
    let third = gate.post(SCANS, service.scan(&tickets[2])).await.is_scan(200, "accepted");
    assert_eq!(seats(&third), [""; 0], "the others came today");
    service.clock.advance(24 * 60 * MINUTE);
    let again = gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    assert_eq!(seats(&again), ["A2", "A3", "A4"]);
    gate.post(SCANS, vouched(&tickets[1], &again)).await.is_scan(200, "accepted");
}
