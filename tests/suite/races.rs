//! Simultaneous requests in two processes with five connections each.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::enrolment::token;
use crate::service::{Service, Ticket, with};

on_both_databases! {
    of_32_scans_of_a_ticket_exactly_one_is_accepted,
    of_16_times_the_same_scan_one_is_decided_and_15_replayed,
    of_a_wrong_code_sent_16_times_under_one_scan_id_one_is_decided_and_15_replayed,
    of_8_tickets_under_one_scan_id_one_is_admitted_and_7_can_come_again,
    of_48_tickets_at_once_each_has_its_own_verdict,
    a_transfer_racing_a_scan_never_lets_both_holders_in,
    a_revocation_racing_a_scan_always_holds,
    an_undo_made_twice_at_once_happens_once,
    of_two_holders_of_one_ticket_only_one_is_registered,
    of_two_users_of_one_name_only_one_is_created,
    of_16_devices_one_is_enrolled,
    of_40_guesses_at_once_eleven_are_looked_at,
    of_90_guesses_at_once_of_many_tickets_a_key_has_sixty,
    of_20_codes_of_the_future_at_once_three_are_told,
    a_refusal_leaves_nothing_locked,
}

const SCANS: &str = "/api/events/default/scans";
const ROUNDS: usize = 10;

async fn of_32_scans_of_a_ticket_exactly_one_is_accepted(service: Service) {
    let ticket = service.ticket("A1").await;
    let before = service.version("A1").await;
    let bodies: Vec<Value> = (0..32).map(|_| service.scan(&ticket)).collect();
    let replies = at_once(&service, SCANS, bodies).await;
    assert_eq!(count(&replies, "accepted"), 1);
    assert_eq!(count(&replies, "already_used"), 31);
    assert_eq!(service.database.count("select count(*) from scans").await, 32);
    assert_eq!(service.database.count("select count(*) from scans where result = 'accepted'").await, 1);
    assert_eq!(service.version("A1").await, before + 1);
}

async fn of_16_times_the_same_scan_one_is_decided_and_15_replayed(service: Service) {
    let ticket = service.ticket("A1").await;
    let before = service.version("A1").await;
    let body = service.scan(&ticket);
    let replies = at_once(&service, SCANS, vec![body; 16]).await;
    assert_eq!(count(&replies, "accepted"), 16);
    assert_eq!(replies.iter().filter(|reply| reply.is(200)["replayed"] == true).count(), 15);
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
    assert_eq!(service.version("A1").await, before + 1);
}

async fn of_a_wrong_code_sent_16_times_under_one_scan_id_one_is_decided_and_15_replayed(service: Service) {
    let [one, other] = [service.ticket("A1").await, service.ticket("A2").await];
    for round in 0..ROUNDS {
        let ticket = if round % 2 == 0 { &one } else { &other };
        let (scan_id, digits) = (Uuid::now_v7(), ticket.wrong_code(service.now()));
        let body = json!({ "scan_id": scan_id, "seat": ticket.seat, "gate": ticket.gate, "totp_code": digits });
        let replies = at_once(&service, SCANS, vec![body; 16]).await;
        assert_eq!(count(&replies, "wrong_code"), 16);
        assert_eq!(replies.iter().filter(|reply| reply.is(422)["replayed"] == true).count(), 15);
        service.clock.advance(60_000);
    }
    assert_eq!(service.database.count("select count(*) from scans").await, ROUNDS as i64);
}

async fn of_8_tickets_under_one_scan_id_one_is_admitted_and_7_can_come_again(service: Service) {
    let mut bodies = Vec::new();
    for seat in 0..8 {
        let ticket = service.ticket(&format!("A{seat}")).await;
        bodies.push(with(service.scan(&ticket), json!({ "scan_id": Uuid::from_u128(1) })));
    }
    let before = service.version("A0").await;
    let replies = at_once(&service, SCANS, bodies.clone()).await;
    assert_eq!(count(&replies, "accepted"), 1);
    for (reply, body) in replies.iter().zip(bodies) {
        if reply.status != 200 {
            reply.is_refused(409, "scan_id_conflict");
            let again = with(body, json!({ "scan_id": Uuid::now_v7() }));
            service.organizer.post(SCANS, again).await.is_scan(200, "accepted");
        }
    }
    for seat in 0..8 {
        assert_eq!(service.version(&format!("A{seat}")).await, before + 1, "A{seat}");
    }
    assert_eq!(service.database.count("select count(*) from scans").await, 8);
}

/// The answers about new, used and unknown tickets are read in different ways, and together.
async fn of_48_tickets_at_once_each_has_its_own_verdict(service: Service) {
    let (mut bodies, mut expected) = (Vec::new(), Vec::new());
    for place in 0..48 {
        let ticket = service.ticket(&format!("A{place}")).await;
        let unknown = json!({ "scan_id": Uuid::now_v7(), "seat": "none", "gate": "North", "totp_code": "123456" });
        bodies.push(if place % 3 == 2 { unknown } else { service.scan(&ticket) });
        expected.push(match place % 3 {
            0 => json!(["accepted", ticket.seat, null]),
            1 => json!(["already_used", ticket.seat, ticket.gate]),
            _ => json!(["unknown_ticket", null, null]),
        });
        if place % 3 == 1 {
            service.organizer.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
        }
    }
    for (reply, expected) in at_once(&service, SCANS, bodies).await.iter().zip(expected) {
        let scan = reply.is(reply.status.as_u16());
        assert_eq!(json!([scan["result"], scan["ticket"]["seat"], scan["first_used_gate"]]), expected);
    }
}

async fn a_transfer_racing_a_scan_never_lets_both_holders_in(service: Service) {
    service.user("luis").await;
    let other = service.another(&[]);
    for round in 0..ROUNDS {
        let old = service.ticket(&format!("A{round}")).await;
        let path = format!("/api/tickets/{}/transfer", old.ticket_id);
        let scan = service.organizer.post(SCANS, service.scan(&old));
        let transfer = other.organizer.post(path, json!({ "username": "luis" }));
        let (scan, transfer) = tokio::join!(scan, transfer);
        let accepted = accepted_scans(&service, &old).await;
        if transfer.status == 200 {
            scan.is_scan(422, "wrong_code");
            assert_eq!(accepted, 0, "the old holder is out");
            let new = Ticket::new(&transfer.is(200));
            service.organizer.post(SCANS, service.scan(&new)).await.is_scan(200, "accepted");
        } else {
            transfer.is_refused(409, "ticket_used");
            scan.is_scan(200, "accepted");
            assert_eq!(accepted, 1);
        }
    }
}

async fn a_revocation_racing_a_scan_always_holds(service: Service) {
    let other = service.another(&[]);
    for round in 0..ROUNDS {
        let ticket = service.ticket(&format!("A{round}")).await;
        let path = format!("/api/tickets/{}/revoke", ticket.ticket_id);
        let (scan, revocation) = tokio::join!(
            service.organizer.post(SCANS, service.scan(&ticket)),
            other.organizer.bare(Method::POST, path)
        );
        // An admission that the revocation did not see came after it.
        let admitted_before = !revocation.is(200)["used_at"].is_null();
        let (status, result) = if admitted_before { (200, "accepted") } else { (410, "revoked") };
        scan.is_scan(status, result);
        assert_eq!(accepted_scans(&service, &ticket).await, i64::from(admitted_before));
        let shown = service.organizer.get(format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
        assert_eq!(shown["status"], "revoked");
    }
}

async fn an_undo_made_twice_at_once_happens_once(service: Service) {
    let ticket = service.ticket("A1").await;
    let scan = service.organizer.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    let admitted = service.version("A1").await;
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
    for reply in at_once(&service, &undo, vec![Value::Null; 8]).await {
        assert_eq!(reply.is(200)["undone_at"], service.time(0));
    }
    assert_eq!(service.version("A1").await, admitted + 1);
}

async fn of_two_holders_of_one_ticket_only_one_is_registered(service: Service) {
    service.user("ana").await;
    service.user("luis").await;
    let other = service.another(&[]);
    for round in 0..ROUNDS {
        let seat = format!("A{round}");
        service.seat("default", &seat, "North").await;
        let new = service.version(&seat).await;
        let body = json!({ "seat": seat, "gate": "North" });
        let (first, second) = tokio::join!(
            service.organizer.post("/api/users/ana/tickets", body.clone()),
            other.organizer.post("/api/users/luis/tickets", body)
        );
        let refused = if first.status == 201 { second } else { first };
        refused.is_refused(409, "ticket_already_registered");
        assert_eq!(service.version(&seat).await, new + 1);
    }
    let registered = "select count(*) from tickets where user_id is not null";
    assert_eq!(service.database.count(registered).await, ROUNDS as i64);
}

async fn of_16_devices_one_is_enrolled(service: Service) {
    let created = service.organizer.post("/api/keys", json!({ "name": "x", "role": "gate" })).await.is(201);
    let path = format!("/api/keys/{}/enrol", created["key_id"].as_str().unwrap_or_default());
    for _ in 0..ROUNDS {
        let offer = service.organizer.post(&path, Value::Null).await.is(200);
        let replies = at_once(&service, "/api/enrol", vec![json!({ "token": token(&offer) }); 16]).await;
        let (enrolled, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 200);
        assert_eq!(enrolled.len(), 1);
        for reply in refused {
            reply.is_refused(410, "enrolment_expired");
        }
        let key = enrolled[0].is(200)["key"].as_str().unwrap_or_default().to_owned();
        service.anonymous.with_key(&key).get("/api/events/default/stats").await.is(200);
    }
}

async fn of_two_users_of_one_name_only_one_is_created(service: Service) {
    let replies = at_once(&service, "/api/users", vec![json!({ "username": "ana" }); 8]).await;
    assert_eq!(replies.iter().filter(|reply| reply.status == 201).count(), 1);
    assert_eq!(replies.iter().filter(|reply| reply.status == 409).count(), 7);
    assert_eq!(service.database.count("select count(*) from users").await, 1);
}

async fn of_40_guesses_at_once_eleven_are_looked_at(service: Service) {
    let ticket = service.ticket("A1").await;
    let digits = ticket.wrong_code(service.now());
    let guess = || json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": digits });
    let replies = at_once(&service, SCANS, (0..40).map(|_| guess()).collect()).await;
    assert_eq!(count(&replies, "wrong_code"), 11);
    assert_eq!(count(&replies, "too_many_attempts"), 29);
    assert_eq!(service.database.count("select count(*) from scans").await, 11);
}

async fn of_90_guesses_at_once_of_many_tickets_a_key_has_sixty(service: Service) {
    let mut bodies = Vec::new();
    for seat in 0..10 {
        let ticket = service.ticket(&format!("A{seat}")).await;
        let digits = ticket.wrong_code(service.now());
        let guess = || json!({ "scan_id": Uuid::now_v7(), "seat": ticket.seat, "gate": "North", "totp_code": digits });
        bodies.extend((0..9).map(|_| guess()));
    }
    let replies = at_once(&service, SCANS, bodies).await;
    let (looked_at, refused): (Vec<_>, Vec<_>) = replies.into_iter().partition(|reply| reply.status == 422);
    assert_eq!(count(&looked_at, "wrong_code"), 60);
    for reply in refused {
        reply.is_refused(429, "too_many_wrong_codes");
    }
    assert_eq!(service.database.count("select count(*) from scans").await, 60);
}

async fn of_20_codes_of_the_future_at_once_three_are_told(service: Service) {
    let mut bodies = Vec::new();
    for seat in 0..20 {
        let ticket = service.ticket(&format!("A{seat}")).await;
        let digits = ticket.code(service.moment(120_000));
        bodies.push(json!({ "scan_id": Uuid::now_v7(), "seat": ticket.seat, "gate": "North", "totp_code": digits }));
    }
    let replies = at_once(&service, SCANS, bodies).await;
    assert_eq!((count(&replies, "stale_code"), count(&replies, "wrong_code")), (3, 17));
}

/// What one process refuses, another may do at once: the refused transaction ended before its answer.
async fn a_refusal_leaves_nothing_locked(service: Service) {
    let (here, there) = (&service.organizer, &service.another(&[]).organizer);
    let used = service.ticket("A1").await;
    let held = service.ticket("A2").await;
    let path = |ticket: &Ticket, action: &str| format!("/api/tickets/{}/{action}", ticket.ticket_id);
    let scan = here.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    let refused = here.post(SCANS, service.scan(&used)).await.is_scan(409, "already_used");

    let undo = |scan: &Value| format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
    here.bare(Method::POST, undo(&refused)).await.is_refused(409, "not_undoable");
    there.bare(Method::POST, undo(&scan)).await.is(200);
    here.bare(Method::POST, undo(&scan)).await.is(200);
    there.bare(Method::POST, path(&used, "revoke")).await.is(200);

    here.bare(Method::POST, path(&used, "revoke")).await.is(200);
    there.bare(Method::POST, path(&used, "reissue")).await.is(200);
    here.post(path(&held, "transfer"), json!({ "username": "nobody" })).await.is_refused(404, "user_not_found");
    there.post(path(&held, "transfer"), json!({ "username": used.username })).await.is(200);

    let seat = json!({ "seat": "A2", "gate": "North" });
    let tickets = format!("/api/users/{}/tickets", held.username);
    here.post(tickets, seat.clone()).await.is_refused(409, "ticket_already_registered");
    there.bare(Method::POST, path(&held, "revoke")).await.is(200);

    let seats = json!([{ "seat": "new", "gate": "North" }, seat]);
    here.post("/api/events/default/tickets", seats).await.is_refused(409, "seat_taken");
    there.post("/api/events/default/tickets", json!({ "seat": "new", "gate": "North" })).await.is(201);

    here.delete("/api/events/default").await.is_refused(409, "event_in_use");
    there.patch("/api/events/default", json!({ "starts_at": service.time(0) })).await.is(200);
    here.patch("/api/events/default", json!({ "ends_at": service.time(0) })).await.is_refused(422, "invalid_payload");
    there.patch("/api/events/default", json!({ "name": "Renamed" })).await.is(200);
}

/// Sends all bodies at the same instant, alternating between two processes.
pub async fn at_once(service: &Service, path: &str, bodies: Vec<Value>) -> Vec<Reply> {
    let processes: [Client; 2] = [service.organizer.clone(), service.another(&[]).organizer];
    let start = Arc::new(tokio::sync::Barrier::new(bodies.len()));
    let tasks: Vec<_> = bodies
        .into_iter()
        .enumerate()
        .map(|(place, body)| {
            let (client, path, start) = (processes[place % 2].clone(), path.to_owned(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                client.post(path, body).await
            })
        })
        .collect();
    let mut replies = Vec::new();
    for task in tasks {
        replies.push(task.await.expect("no request panics"));
    }
    replies
}

fn count(replies: &[Reply], result: &str) -> usize {
    replies.iter().filter(|reply| reply.is(reply.status.as_u16())["result"] == result).count()
}

async fn accepted_scans(service: &Service, ticket: &Ticket) -> i64 {
    let of_ticket = format!("ticket_id = (select ticket_id from tickets where seat = '{}')", ticket.seat);
    let query = format!("select count(*) from scans where result = 'accepted' and {of_ticket}");
    service.database.count(&query).await
}
