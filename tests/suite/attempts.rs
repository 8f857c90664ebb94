//! Guessing: after more than ten refused codes of a ticket within a minute, or sixty of a key, no further code is
//! checked.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, Ticket, with};

on_both_databases! {
    after_eleven_refused_codes_a_ticket_rests,
    after_a_minute_its_codes_are_good_again,
    guesses_of_a_clock_that_was_ahead_lock_nothing_after_it_was_set_right,
    guesses_that_another_process_dates_seconds_ahead_count,
    what_was_too_much_is_neither_kept_nor_replayed,
    only_refused_codes_of_the_same_ticket_count,
    paper_and_whom_a_supervisor_knows_come_in_while_somebody_guesses,
    a_revoked_ticket_is_told_as_such_after_any_number_of_guesses,
    a_batch_neither_counts_nor_meets_the_limit,
    a_key_learns_nothing_of_the_codes_of_another_gate,
    after_sixty_refused_codes_a_key_rests,
    the_key_of_the_environment_rests_too,
    a_key_that_rests_admits_paper_and_by_hand_and_gets_its_verdicts_again,
    wrong_paper_counts_towards_the_limit_of_the_key,
    a_batch_meets_the_limit_of_its_key_and_each_time_comes_further,
    after_three_refused_codes_a_key_is_told_nothing_of_the_future_of_any_ticket,
    a_batch_is_told_nothing_of_the_future,
}

const SCANS: &str = "/api/events/default/scans";

async fn after_eleven_refused_codes_a_ticket_rests(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    let wrong = wrong(&service, &ticket);
    let refused = service.unchanged(gate.post(SCANS, wrong)).await;
    refused.is_scan(429, "too_many_attempts");
    assert_eq!(refused.header("retry-after"), "60");
    service.unchanged(gate.post(SCANS, service.scan(&ticket))).await.is_scan(429, "too_many_attempts");
    // On every instance.
    let other = service.another(&[]).anonymous.with_key(crate::service::ORGANIZER_KEY);
    service.unchanged(other.post(SCANS, service.scan(&ticket))).await.is_scan(429, "too_many_attempts");
}

async fn after_a_minute_its_codes_are_good_again(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    service.clock.advance(59_999);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(429, "too_many_attempts");
    service.clock.advance(1);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn guesses_of_a_clock_that_was_ahead_lock_nothing_after_it_was_set_right(service: Service) {
    let gate = service.gate().await;
    service.clock.advance(3_600_000);
    let mut tickets = Vec::new();
    for seat in 0..6 {
        tickets.push(service.ticket(&format!("A{seat}")).await);
        guess(&service, &gate, &tickets[seat], 10).await;
    }
    gate.post(SCANS, service.scan(&tickets[0])).await.is_refused(429, "too_many_wrong_codes");
    service.clock.advance(-3_600_000);
    guess(&service, &gate, &tickets[0], 1).await;
    gate.post(SCANS, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    let stats = service.organizer.get("/api/events/default/stats").await.is(200);
    assert_eq!(stats["guessing"], json!([]));
}

async fn guesses_that_another_process_dates_seconds_ahead_count(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    service.clock.advance(4_000);
    guess(&service, &gate, &ticket, 11).await;
    service.clock.advance(-4_000);
    service.unchanged(gate.post(SCANS, service.scan(&ticket))).await.is_scan(429, "too_many_attempts");
}

async fn what_was_too_much_is_neither_kept_nor_replayed(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    let body = service.scan(&ticket);
    service.unchanged(gate.post(SCANS, body.clone())).await.is_scan(429, "too_many_attempts");
    service.clock.advance(60_000);
    let later = with(service.scan(&ticket), json!({ "scan_id": body["scan_id"] }));
    assert_eq!(gate.post(SCANS, later).await.is_scan(200, "accepted")["replayed"], false);
}

async fn a_revoked_ticket_is_told_as_such_after_any_number_of_guesses(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    guess(&service, &gate, &ticket, 11).await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(410, "revoked");
    assert_eq!(service.database.count("select count(*) from scans where result = 'revoked'").await, 1);
}

async fn only_refused_codes_of_the_same_ticket_count(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    let other = service.ticket("A2").await;
    guess(&service, &gate, &other, 11).await;
    for _ in 0..11 {
        let elsewhere = with(service.scan(&ticket), json!({ "at_gate": "South" }));
        gate.post(SCANS, elsewhere).await.is_scan(409, "wrong_gate");
    }
    // Eleven are checked, because ten on record are not yet more than ten. Stale codes count too.
    guess(&service, &gate, &ticket, 10).await;
    let stale = with(service.scan(&ticket), json!({ "code": ticket.qr(service.moment(-120_000)) }));
    gate.post(SCANS, stale).await.is_scan(422, "stale_code");
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(429, "too_many_attempts");
}

async fn paper_and_whom_a_supervisor_knows_come_in_while_somebody_guesses(service: Service) {
    let (known, printed) = (service.ticket("A1").await, service.ticket("A2").await);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", printed.ticket_id)).await.is(200);
    let supervisor = service.supervisor().await;
    for ticket in [&known, &printed] {
        guess(&service, &supervisor, ticket, 11).await;
        service.unchanged(supervisor.post(SCANS, service.scan(ticket))).await.is_scan(429, "too_many_attempts");
    }
    supervisor.post(SCANS, by_hand("A1")).await.is_scan(200, "accepted");
    let paper = json!({ "scan_id": Uuid::now_v7(), "code": printed.paper() });
    service.gate().await.post(SCANS, paper).await.is_scan(200, "accepted");
}

async fn a_batch_neither_counts_nor_meets_the_limit(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let offline = |scan: Value| with(scan, json!({ "scanned_at": service.time(0), "offline_result": "wrong_code" }));
    let batch: Vec<Value> = (0..11).map(|_| offline(wrong(&service, &ticket))).collect();
    let answer = gate.post(&format!("{SCANS}/batch"), json!({ "scans": batch })).await.is(200);
    assert_eq!(answer["results"][10]["result"], "wrong_code");

    // The batch's eleven do not count: eleven more are checked, and then the limit applies, though not to a batch.
    guess(&service, &gate, &ticket, 11).await;
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(429, "too_many_attempts");
    let admitted = with(offline(service.scan(&ticket)), json!({ "offline_result": "accepted" }));
    let batch = json!({ "scans": [admitted] });
    let answer = gate.post(&format!("{SCANS}/batch"), batch).await.is(200);
    assert_eq!(answer["results"][0]["result"], "accepted");
}

/// A correct code of another gate's ticket gets the same answer as a wrong one, whatever the ticket's state.
async fn a_key_learns_nothing_of_the_codes_of_another_gate(service: Service) {
    let body = json!({ "name": "x", "role": "gate", "event": "default", "gate": "North", "offline": true });
    let north = service.key(body).await;
    let (fresh, used) =
        (service.ticket_of("default", "B1", "South").await, service.ticket_of("default", "B2", "South").await);
    for ticket in [&fresh, &used] {
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", ticket.ticket_id)).await.is(200);
    }
    service.organizer.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    for ticket in [&fresh, &used] {
        let codes = [
            json!({ "totp_code": ticket.code(service.now()) }),
            json!({ "totp_code": ticket.code(service.moment(-120_000)) }),
            json!({ "totp_code": ticket.wrong_code(service.now()) }),
            json!({ "code": ticket.qr(service.now()), "seat": null, "gate": null, "totp_code": null }),
            json!({ "code": ticket.paper(), "seat": null, "gate": null, "totp_code": null }),
        ];
        let mut told = Vec::new();
        for direction in ["entry", "exit"] {
            for code in &codes {
                let scan = || {
                    let changes = json!({ "scan_id": Uuid::now_v7(), "direction": direction, "at_gate": "South" });
                    with(with(wrong(&service, ticket), code.clone()), changes)
                };
                let alone = north.post(SCANS, scan()).await.is_scan(409, "wrong_gate");
                let late = with(scan(), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
                let batch = north.post(&format!("{SCANS}/batch"), json!({ "scans": [late] })).await.is(200);
                let same = json!({ "scan_id": null, "direction": null, "status": null });
                told.extend([alone, batch["results"][0].clone()].map(|scan| with(scan, same.clone())));
            }
        }
        assert!(told.iter().all(|scan| *scan == told[0]), "{told:?}");
    }
}

async fn after_sixty_refused_codes_a_key_rests(service: Service) {
    let (gate, other) = (service.gate().await, service.gate().await);
    guess_sixty_times(&service, &gate).await;
    let ticket = service.ticket("A1").await;
    let refused = service.unchanged(gate.post(SCANS, service.scan(&ticket))).await;
    refused.is_refused(429, "too_many_wrong_codes");
    assert_eq!(refused.header("retry-after"), "60");
    service.unchanged(gate.post(SCANS, wrong(&service, &ticket))).await.is_refused(429, "too_many_wrong_codes");
    let attendance = json!({ "seat": "A1", "gate": "North", "totp_code": ticket.code(service.now()) });
    let attendance = gate.post("/api/users/attendance", attendance);
    service.unchanged(attendance).await.is_refused(429, "too_many_wrong_codes");
    // Other keys still admit.
    other.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");

    service.clock.advance(59_999);
    gate.post(SCANS, service.scan(&ticket)).await.is_refused(429, "too_many_wrong_codes");
    service.clock.advance(1);
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
}

async fn the_key_of_the_environment_rests_too(service: Service) {
    guess_sixty_times(&service, &service.organizer).await;
    let ticket = service.ticket("A1").await;
    let refused = service.organizer.post(SCANS, service.scan(&ticket));
    service.unchanged(refused).await.is_refused(429, "too_many_wrong_codes");
    // On every instance.
    let other = service.another(&[]).organizer;
    service.unchanged(other.post(SCANS, service.scan(&ticket))).await.is_refused(429, "too_many_wrong_codes");
    service.gate().await.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn a_key_that_rests_admits_paper_and_by_hand_and_gets_its_verdicts_again(service: Service) {
    let supervisor = service.supervisor().await;
    let (first, printed, known) = (service.ticket("A1").await, service.ticket("A2").await, service.ticket("A3").await);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", printed.ticket_id)).await.is(200);
    let before = service.scan(&first);
    supervisor.post(SCANS, before.clone()).await.is_scan(200, "accepted");
    guess_sixty_times(&service, &supervisor).await;
    supervisor.post(SCANS, service.scan(&known)).await.is_refused(429, "too_many_wrong_codes");
    supervisor
        .post(SCANS, json!({ "scan_id": Uuid::now_v7(), "code": printed.paper() }))
        .await
        .is_scan(200, "accepted");
    supervisor.post(SCANS, by_hand("A3")).await.is_scan(200, "accepted");
    let again = service.unchanged(supervisor.post(SCANS, before)).await.is_scan(200, "accepted");
    assert_eq!(again["replayed"], true);
}

async fn wrong_paper_counts_towards_the_limit_of_the_key(service: Service) {
    let (gate, ticket, other) = (service.gate().await, service.ticket("A1").await, service.ticket("A2").await);
    for _ in 0..60 {
        let paper = json!({ "scan_id": Uuid::now_v7(), "code": ticket.paper() });
        gate.post(SCANS, paper).await.is_scan(422, "wrong_code");
    }
    gate.post(SCANS, service.scan(&other)).await.is_refused(429, "too_many_wrong_codes");
}

async fn a_batch_meets_the_limit_of_its_key_and_each_time_comes_further(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let late = |scan: Value| with(scan, json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    let mut scans: Vec<Value> = (0..130).map(|_| late(wrong(&service, &ticket))).collect();
    scans.push(late(service.scan(&ticket)));
    let batch = json!({ "scans": scans });
    let path = format!("{SCANS}/batch");
    for written in [60, 120] {
        let refused = gate.post(&path, batch.clone()).await;
        refused.is_refused(429, "too_many_wrong_codes");
        assert_eq!(refused.header("retry-after"), "60");
        service.unchanged(gate.post(&path, batch.clone())).await.is_refused(429, "too_many_wrong_codes");
        assert_eq!(service.database.count("select count(*) from scans").await, written);
        service.clock.advance(60_000);
    }
    let answer = gate.post(&path, batch).await.is(200);
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(131));
    assert_eq!(answer["results"][130]["result"], "accepted");
    assert_eq!(service.database.count("select count(*) from scans").await, 131);
}

/// Guesses are spread over many tickets, so that none has three refusals.
async fn after_three_refused_codes_a_key_is_told_nothing_of_the_future_of_any_ticket(service: Service) {
    let (gate, other) = (service.gate().await, service.gate().await);
    let told = async |client: &Client, ticket: &Ticket, away: i64| {
        let scan = client.post(SCANS, of(&service, ticket, away)).await.is_scan(422, "wrong_code");
        assert_eq!(scan["ticket"]["username"], Value::Null);
        scan["seconds_off"].clone()
    };
    for seat in 0..3 {
        assert_eq!(told(&gate, &service.ticket(&format!("A{seat}")).await, 3_600_000).await, 3_600);
    }
    let (fourth, fifth) = (service.ticket("A3").await, service.ticket("A4").await);
    assert_eq!(told(&gate, &fourth, 3_600_000).await, Value::Null);
    assert_eq!(told(&gate, &fourth, 120_000).await, Value::Null, "and a code minutes ahead is not even stale");
    assert_eq!(told(&gate, &fourth, -3_600_000).await, -3_600);
    gate.post(SCANS, of(&service, &fifth, -120_000)).await.is_scan(422, "stale_code");
    assert_eq!(told(&other, &fifth, 3_600_000).await, 3_600, "another key has its own three");
    service.clock.advance(60_000);
    assert_eq!(told(&gate, &fourth, 3_600_000).await, 3_600);
}

async fn a_batch_is_told_nothing_of_the_future(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let late = |scan: Value| with(scan, json!({ "scanned_at": service.time(0), "offline_result": "stale_code" }));
    let scans = [120_000, 3_600_000, -3_600_000].map(|away| late(of(&service, &ticket, away)));
    let answer = gate.post(&format!("{SCANS}/batch"), json!({ "scans": scans })).await.is(200);
    let told = |place: usize| json!([answer["results"][place]["result"], answer["results"][place]["seconds_off"]]);
    assert_eq!([told(0), told(1)], [json!(["wrong_code", null]), json!(["wrong_code", null])]);
    assert_eq!(told(2), json!(["wrong_code", -3_600]));
}

/// A scan with the code that the ticket shows this many milliseconds from now.
fn of(service: &Service, ticket: &Ticket, away: i64) -> Value {
    with(wrong(service, ticket), json!({ "totp_code": ticket.code(service.moment(away)) }))
}

fn by_hand(seat: &str) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": "North", "manual": true, "note": "x" })
}

/// Guesses on six tickets, so that none reaches its own limit.
async fn guess_sixty_times(service: &Service, client: &Client) {
    for seat in 0..6 {
        let ticket = service.ticket(&format!("guessed-{seat}")).await;
        guess(service, client, &ticket, 10).await;
    }
}

fn wrong(service: &Service, ticket: &Ticket) -> Value {
    json!({
        "scan_id": Uuid::now_v7(), "seat": ticket.seat, "gate": ticket.gate,
        "totp_code": ticket.wrong_code(service.now()),
    })
}

async fn guess(service: &Service, gate: &Client, ticket: &Ticket, times: usize) {
    for _ in 0..times {
        gate.post(SCANS, wrong(service, ticket)).await.is_scan(422, "wrong_code");
    }
}
