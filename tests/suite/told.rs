//! Who learns what at a gate: how much of its ticket an answer shows, by result and by caller.

use http::Method;
use register_ticket_api::model::ScanResult;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    only_with_the_right_code_an_answer_tells_more_than_seat_and_gate,
    a_replay_tells_what_its_result_tells_to_whoever_asks,
    a_replay_tells_the_key_of_another_gate_no_more_than_a_scan_does,
}

const SCANS: &str = "/api/events/default/scans";
const NAME: &str = "Ana Ruiz";
const NOTE: &str = "Walks with a stick";

/// How much of a ticket is shown, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Told {
    Place,
    Holder,
    Everything,
}

/// Asserts that a scan shows this much of its ticket and no more.
#[track_caller]
fn tells(scan: &Value, told: Told) {
    let ticket = &scan["ticket"];
    assert_members(ticket, json!({ "event": "default", "gate": "North" }));
    assert!(ticket["seat"].is_string() && ticket["ticket_id"].is_string(), "{scan}");
    let holder = ["username", "full_name"];
    let state = ["status", "inside", "created_at", "registered_at", "category", "category_colour", "note"];
    for (names, least) in [(&holder[..], Told::Holder), (&state, Told::Everything)] {
        for name in names {
            assert_eq!(!ticket[*name].is_null(), told >= least, "{name}: {scan}");
        }
    }
    if told < Told::Everything {
        assert!(ticket["used_at"].is_null() && scan["first_used_at"].is_null(), "{scan}");
        assert!(scan["first_used_gate"].is_null(), "{scan}");
    }
    assert_eq!(scan.to_string().contains(NAME), told >= Told::Holder, "{scan}");
    assert_eq!(scan.to_string().contains(NOTE), told == Told::Everything, "{scan}");
}

async fn named(service: &Service, seat: &str) -> Ticket {
    // The same category, as people read it.
    let colours = json!({ "category_colours": { "UNDER 12": "teal" } });
    service.organizer.patch("/api/events/default", colours).await.is(200);
    let row = format!("seat,gate,username,full_name,category,note\n{seat},North,u-{seat},{NAME},Under 12,{NOTE}\n");
    service.organizer.post_csv("/api/events/default/tickets", row).await.is(201);
    let list = service.organizer.get(format!("/api/events/default/tickets?q={seat}")).await.is(200);
    let path = format!("/api/tickets/{}", list["tickets"][0]["ticket_id"].as_str().unwrap_or_default());
    // A ticket's secret is returned only by the request that creates it.
    service.organizer.bare(Method::POST, format!("{path}/revoke")).await.is(200);
    Ticket::new(&service.organizer.bare(Method::POST, format!("{path}/reissue")).await.is(200))
}

/// A scan for each result, of tickets whose holders all have a name, except one without a holder.
async fn a_scan_for_each_result(service: &Service) -> Vec<(&'static str, Value)> {
    let (used, valid, revoked) =
        (named(service, "used").await, named(service, "valid").await, named(service, "revoked").await);
    let (guessed, erased) = (named(service, "guessed").await, named(service, "erased").await);
    let taken_back = named(service, "undone").await;
    let (early, late) = (named(service, "early").await, named(service, "late").await);
    let hour = 3_600_000;
    let times = format!(
        "seat,gate,valid_from,valid_until\nearly,North,{},\nlate,North,,{}\n",
        service.time(hour),
        service.time(-hour)
    );
    service.organizer.post_csv("/api/events/default/tickets?existing=update", times).await.is(201);
    service.organizer.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    service.organizer.delete("/api/users/u-erased").await.is(204);
    let guess = || {
        let digits = guessed.wrong_code(service.now());
        json!({ "scan_id": Uuid::now_v7(), "seat": "guessed", "gate": "North", "totp_code": digits })
    };
    for _ in 0..11 {
        service.organizer.post(SCANS, guess()).await.is_scan(422, "wrong_code");
    }
    let undone = service.scan(&taken_back);
    let scan = service.organizer.post(SCANS, undone.clone()).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
    service.organizer.bare(Method::POST, undo).await.is(200);
    let wrong = json!({ "code": null, "seat": "valid", "gate": "North", "totp_code": valid.wrong_code(service.now()) });
    vec![
        ("already_used", service.scan(&used)),
        ("not_inside", with(service.scan(&valid), json!({ "direction": "exit" }))),
        ("stale_code", with(service.scan(&valid), json!({ "code": valid.qr(service.moment(-120_000)) }))),
        ("undone", undone),
        ("too_early", service.scan(&early)),
        ("too_late", service.scan(&late)),
        ("wrong_code", with(service.scan(&valid), wrong)),
        ("wrong_gate", with(service.scan(&valid), json!({ "at_gate": "South" }))),
        ("revoked", service.scan(&revoked)),
        ("not_registered", service.scan(&erased)),
        ("too_many_attempts", service.scan(&guessed)),
        ("unknown_ticket", json!({ "scan_id": Uuid::now_v7(), "code": "not ours" })),
        // The last, because it affects those after it.
        ("accepted", service.scan(&valid)),
    ]
}

async fn only_with_the_right_code_an_answer_tells_more_than_seat_and_gate(service: Service) {
    let gate = service.offline_gate().await;
    let supervisor = service.key(json!({ "name": "s", "role": "supervisor", "offline": true })).await;
    let scans = a_scan_for_each_result(&service).await;
    let all: Vec<&str> = ScanResult::ALL.iter().map(|result| result.as_str()).collect();
    assert!(scans.len() == all.len() && scans.iter().all(|(result, _)| all.contains(result)), "one for each result");
    for (result, scan) in scans {
        let proven = ["accepted", "already_used", "not_inside", "stale_code", "too_early", "too_late", "undone"];
        let proven = proven.contains(&result);
        let anew = || match result {
            "undone" | "accepted" => scan.clone(),
            _ => with(scan.clone(), json!({ "scan_id": Uuid::now_v7() })),
        };
        let expected = |supervises: bool| match (proven, supervises) {
            (true, _) => Told::Everything,
            // It has no holder.
            (false, true) if result != "not_registered" => Told::Holder,
            (false, _) => Told::Place,
        };
        for (client, supervises) in [(&gate, false), (&supervisor, true), (&service.organizer, true)] {
            let alone = client.post(SCANS, anew()).await;
            let alone = alone.is_scan(alone.status.as_u16(), result);
            if result == "unknown_ticket" {
                assert_eq!(alone["ticket"], Value::Null);
                continue;
            }
            tells(&alone, expected(supervises));
            // That limit does not apply to batches.
            if result != "too_many_attempts" {
                tells(&in_a_batch(&service, client, anew(), result).await, expected(supervises));
            }
        }
    }
    let attendance = json!({ "seat": "guessed", "gate": "North", "totp_code": "000000" });
    service.clock.advance(60_000);
    tells(&gate.post("/api/users/attendance", attendance).await.is_scan(422, "wrong_code"), Told::Place);
}

async fn in_a_batch(service: &Service, client: &Client, scan: Value, result: &str) -> Value {
    let late = with(scan, json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    let answer = client.post(format!("{SCANS}/batch"), json!({ "scans": [late] })).await.is(200);
    assert_eq!(answer["results"][0]["result"], result);
    answer["results"][0].clone()
}

async fn a_replay_tells_what_its_result_tells_to_whoever_asks(service: Service) {
    let (gate, supervisor) = (service.gate().await, service.supervisor().await);
    let ticket = named(&service, "A1").await;
    let wrong = json!({
        "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": ticket.wrong_code(service.now()),
    });
    tells(&supervisor.post(SCANS, wrong.clone()).await.is_scan(422, "wrong_code"), Told::Holder);
    // The right code does not change what the first verdict shows.
    let right = with(service.scan(&ticket), json!({ "scan_id": wrong["scan_id"] }));
    for again in [wrong, right] {
        tells(&gate.post(SCANS, again.clone()).await.is_scan(422, "wrong_code"), Told::Place);
        tells(&supervisor.post(SCANS, again).await.is_scan(422, "wrong_code"), Told::Holder);
    }
    let admitted = service.scan(&ticket);
    gate.post(SCANS, admitted.clone()).await.is_scan(200, "accepted");
    tells(&gate.post(SCANS, admitted).await.is_scan(200, "accepted"), Told::Everything);
}

async fn a_replay_tells_the_key_of_another_gate_no_more_than_a_scan_does(service: Service) {
    let at = |gate: &'static str, role: &'static str| {
        service.key(json!({ "name": gate, "role": role, "event": "default", "gate": gate, "offline": true }))
    };
    let (north, south) = (at("North", "gate").await, at("South", "gate").await);
    let supervisor = at("South", "supervisor").await;
    let ticket = named(&service, "A1").await;
    let (admitted, used) = (service.scan(&ticket), service.scan(&ticket));
    north.post(SCANS, admitted.clone()).await.is_scan(200, "accepted");
    north.post(SCANS, used.clone()).await.is_scan(409, "already_used");
    for (scan, status, result) in [(admitted, 200, "accepted"), (used, 409, "already_used")] {
        tells(&south.post(SCANS, scan.clone()).await.is_scan(status, result), Told::Place);
        tells(&in_a_batch(&service, &south, scan.clone(), result).await, Told::Place);
        tells(&supervisor.post(SCANS, scan.clone()).await.is_scan(status, result), Told::Holder);
        tells(&north.post(SCANS, scan).await.is_scan(status, result), Told::Everything);
    }
}
