//! The verdicts at the gate, and the order of the checks behind them.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    the_right_code_admits,
    a_ticket_admits_once,
    seat_gate_and_digits_do_as_well_as_the_qr,
    digits_are_read_with_the_gap_that_authenticator_apps_show,
    a_code_is_good_for_the_step_before_and_the_step_after,
    an_old_code_is_stale_and_says_by_how_much,
    a_code_of_the_future_is_stale_until_somebody_seems_to_guess,
    a_code_of_another_time_zone_is_wrong_and_says_by_how_much,
    a_wrong_code_is_refused_and_kept,
    the_wrong_gate_is_told_the_right_one,
    a_ticket_that_nobody_holds_does_not_admit,
    a_revoked_ticket_does_not_admit,
    what_is_no_ticket_of_the_event_is_unknown,
    the_checks_have_an_order,
    a_refusal_is_kept_and_changes_nothing_else,
    a_device_may_say_when_it_scanned,
    a_gate_whose_clock_is_far_off_admits_but_its_time_is_not_kept,
    a_supervisor_admits_by_hand_and_says_why,
    a_scan_that_is_not_whole_is_refused,
    attendance_is_a_scan_by_json_or_form,
    attendance_may_name_event_and_scan,
}

const SCANS: &str = "/api/events/default/scans";
const ATTENDANCE: &str = "/api/users/attendance";

async fn the_right_code_admits(service: Service) {
    let ticket = service.ticket("A1").await;
    let before = service.version("A1").await;
    let gate = service.key(json!({ "name": "x", "role": "gate", "event": "default" })).await;
    let body = with(service.scan(&ticket), json!({ "at_gate": "North" }));
    let scan = gate.post(SCANS, body.clone()).await.is_scan(200, "accepted");

    let now = service.time(0);
    assert_eq!(scan["scan_id"], body["scan_id"]);
    let told = json!({ "replayed": false, "at_gate": "North", "direction": "entry", "scanned_at": now });
    assert_members(&scan, told);
    let admitted = &scan["ticket"];
    let used = json!({ "status": "used", "inside": true, "used_at": now, "username": ticket.username });
    assert_members(admitted, used);
    let mut shown = service.organizer.get(format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
    // The seller's id and the time of mailing are not a gate's concern; the colour is a property of the category, not
    // of the ticket.
    let members = shown.as_object_mut().expect("a ticket");
    members.retain(|name, _| !["reference", "mailed_at"].contains(&name.as_str()));
    members.insert("category_colour".to_owned(), Value::Null);
    assert_eq!(&shown, admitted);
    let step = service.now().0 / 30_000;
    let used = format!("select count(*) from tickets where status = 'used' and last_step = {step}");
    assert_eq!(service.database.count(&used).await, 1);
    assert_eq!(service.version("A1").await, before + 1);
    let kept = "select count(*) from scans where result = 'accepted' and ticket_id is not null and key_id is not null";
    assert_eq!(service.database.count(kept).await, 1);
}

async fn a_ticket_admits_once(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let first = with(service.scan(&ticket), json!({ "at_gate": "North" }));
    gate.post(SCANS, first).await.is_scan(200, "accepted");
    let (used_at, used) = (service.time(0), service.version("A1").await);
    for seconds in [0, 30, 3_600] {
        service.clock.advance(seconds * 1_000);
        let again = gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
        assert_members(&again, json!({ "first_used_at": used_at, "first_used_gate": "North" }));
    }
    assert_eq!(results(&service).await, "accepted 1, already_used 3");
    let inside = "select count(*) from tickets where inside and status = 'used'";
    assert_eq!(service.database.count(inside).await, 1);
    assert_eq!(service.version("A1").await, used, "a refusal does not change the ticket");
}

async fn seat_gate_and_digits_do_as_well_as_the_qr(service: Service) {
    let ticket = service.ticket("A1").await;
    service.gate().await.post(SCANS, by_seat(&ticket, &ticket.code(service.now()))).await.is_scan(200, "accepted");
    assert_eq!(results(&service).await, "accepted 1");
}

async fn digits_are_read_with_the_gap_that_authenticator_apps_show(service: Service) {
    let gate = service.gate().await;
    let ticket = service.ticket("A1").await;
    let code = ticket.code(service.now());
    let typed = format!("{} {}", &code[..3], &code[3..]);
    gate.post(SCANS, by_seat(&ticket, &typed)).await.is_scan(200, "accepted");
    let attendance = json!({ "seat": "A1", "gate": "North", "totp_code": typed });
    gate.post("/api/users/attendance", attendance).await.is_scan(409, "already_used");
}

async fn a_code_is_good_for_the_step_before_and_the_step_after(service: Service) {
    let gate = service.gate().await;
    let scan_of = async |milliseconds: i64| {
        let ticket = service.ticket(&milliseconds.to_string()).await;
        let code = ticket.qr(service.moment(milliseconds));
        gate.post(SCANS, json!({ "scan_id": Uuid::now_v7(), "code": code })).await
    };
    scan_of(-30_001).await.is_scan(422, "stale_code");
    scan_of(-30_000).await.is_scan(200, "accepted");
    scan_of(59_999).await.is_scan(200, "accepted");
    scan_of(60_000).await.is_scan(422, "stale_code");
}

async fn an_old_code_is_stale_and_says_by_how_much(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let screenshot = ticket.qr(service.now());
    service.clock.advance(30_000 + 95_000);
    let stale = gate.post(SCANS, json!({ "scan_id": Uuid::now_v7(), "code": screenshot })).await;
    let stale = stale.is_scan(422, "stale_code");
    assert_eq!(stale["seconds_off"], -95);
    assert!(stale["message"].as_str().unwrap_or_default().contains("95 s"), "{stale}");

    // Twenty steps away it is still recognised; twenty-one away it is wrong.
    service.clock.advance(600_000 - 125_000);
    let again = json!({ "scan_id": Uuid::now_v7(), "code": screenshot });
    gate.post(SCANS, again.clone()).await.is_scan(422, "stale_code");
    service.clock.advance(30_000);
    gate.post(SCANS, with(again, json!({ "scan_id": Uuid::now_v7() }))).await.is_scan(422, "wrong_code");
    assert_eq!(results(&service).await, "stale_code 2, wrong_code 1");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'valid'").await, 1);
}

async fn a_code_of_the_future_is_stale_until_somebody_seems_to_guess(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let future = ticket.code(service.moment(120_000));
    let past = ticket.code(service.moment(-120_000));
    for _ in 0..3 {
        let stale = gate.post(SCANS, by_seat(&ticket, &future)).await.is_scan(422, "stale_code");
        assert_eq!(stale["seconds_off"], 120);
    }
    let told = gate.post(SCANS, by_seat(&ticket, &future)).await.is_scan(422, "wrong_code");
    assert_eq!(told["seconds_off"], Value::Null);
    gate.post(SCANS, by_seat(&ticket, &past)).await.is_scan(422, "stale_code");
}

async fn a_code_of_another_time_zone_is_wrong_and_says_by_how_much(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    for (off, words) in [(-3_600, "60 min ago"), (19_800, "330 min from now"), (50_400, "840 min from now")] {
        let scan = by_seat(&ticket, &ticket.code(service.moment(off * 1_000)));
        let told = gate.post(SCANS, scan.clone()).await.is_scan(422, "wrong_code");
        assert_eq!(told["seconds_off"], off);
        assert!(told["message"].as_str().unwrap_or_default().contains(words), "{told}");
        // It reveals nothing, not even a name, and the record agrees.
        assert_eq!(told["ticket"]["full_name"], Value::Null);
        assert_eq!(gate.post(SCANS, scan).await.is_scan(422, "wrong_code")["seconds_off"], off);
    }
    // After three refusals a code of the future is no longer named as such.
    for (off, told) in [(7_200, Value::Null), (-7_200, json!(-7_200))] {
        let scan = by_seat(&ticket, &ticket.code(service.moment(off * 1_000)));
        assert_eq!(gate.post(SCANS, scan).await.is_scan(422, "wrong_code")["seconds_off"], told);
    }
    assert_eq!(results(&service).await, "wrong_code 5");
}

async fn a_wrong_code_is_refused_and_kept(service: Service) {
    let ticket = service.ticket("A1").await;
    let before = service.version("A1").await;
    let wrong = ticket.wrong_code(service.now());
    let gate = service.gate().await;
    gate.post(SCANS, by_seat(&ticket, &wrong)).await.is_scan(422, "wrong_code");
    for digits in ["", "12345", "1234567", "abcdef", "１２３４５６"] {
        gate.post(SCANS, by_seat(&ticket, digits)).await.is_scan(422, "wrong_code");
    }
    assert_eq!(results(&service).await, "wrong_code 6");
    assert_eq!(service.version("A1").await, before);
}

async fn the_wrong_gate_is_told_the_right_one(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    let body = with(service.scan(&ticket), json!({ "at_gate": "South" }));
    let refused = gate.post(SCANS, body).await.is_scan(409, "wrong_gate");
    assert_eq!(refused["right_gate"], "North");
    // The code was not used up.
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn a_ticket_that_nobody_holds_does_not_admit(service: Service) {
    service.seat("default", "A1", "North").await;
    let before = service.version("A1").await;
    let body = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": "123456" });
    service.gate().await.post(SCANS, body).await.is_scan(409, "not_registered");
    assert_eq!(results(&service).await, "not_registered 1");
    assert_eq!(service.version("A1").await, before);
}

async fn a_revoked_ticket_does_not_admit(service: Service) {
    let ticket = service.ticket("A1").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", ticket.ticket_id)).await.is(200);
    service.gate().await.post(SCANS, service.scan(&ticket)).await.is_scan(410, "revoked");
    assert_eq!(results(&service).await, "revoked 1");
}

async fn what_is_no_ticket_of_the_event_is_unknown(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let elsewhere = service.ticket_of("other", "A1", "North").await;
    let gate = service.gate().await;
    let id = elsewhere.qr(service.now());
    let cases = [
        json!({ "code": id }),
        json!({ "code": id.replace("RT1.", "RT2.") }),
        json!({ "code": format!("{id}0") }),
        json!({ "code": "RT1..000000" }),
        json!({ "code": "https://example.com" }),
        json!({ "code": "" }),
        json!({ "code": "\u{0}" }),
        json!({ "code": "x".repeat(50_000) }),
        json!({ "code": format!("{}{id}", "x".repeat(50_000)) }),
        json!({ "seat": "A1", "gate": "North", "totp_code": elsewhere.code(service.now()) }),
        json!({ "seat": "Z9", "gate": "North", "totp_code": "000000" }),
    ];
    let count = cases.len();
    for case in cases {
        let scan = gate.post(SCANS, with(case, json!({ "scan_id": Uuid::now_v7() }))).await;
        assert_eq!(scan.is_scan(404, "unknown_ticket")["ticket"], Value::Null);
    }
    assert_eq!(results(&service).await, format!("unknown_ticket {count}"));
}

/// Each ticket is wrong in several ways; the first check in the order decides.
async fn the_checks_have_an_order(service: Service) {
    let gate = service.gate().await;
    let here = json!({ "at_gate": "South" });

    let erased = service.ticket("erased").await;
    service.organizer.delete(format!("/api/users/{}", erased.username)).await.is(204);
    let wrong = by_seat(&erased, &erased.wrong_code(service.now()));
    gate.post(SCANS, with(wrong, here.clone())).await.is_scan(409, "not_registered");

    let used = service.ticket("used").await;
    gate.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    let wrong = by_seat(&used, &used.wrong_code(service.now()));
    gate.post(SCANS, with(wrong.clone(), here.clone())).await.is_scan(409, "wrong_gate");
    let wrong_here = with(wrong.clone(), json!({ "scan_id": Uuid::now_v7() }));
    gate.post(SCANS, wrong_here).await.is_scan(422, "wrong_code");
    gate.post(SCANS, service.scan(&used)).await.is_scan(409, "already_used");

    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", used.ticket_id)).await.is(200);
    let again = with(wrong, json!({ "scan_id": Uuid::now_v7() }));
    gate.post(SCANS, with(again, here)).await.is_scan(410, "revoked");
}

async fn a_refusal_is_kept_and_changes_nothing_else(service: Service) {
    let gate = service.gate().await;
    let (used, valid) = (service.ticket("used").await, service.ticket("valid").await);
    gate.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    let revoked = service.ticket("revoked").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    service.seat("default", "nobody's", "North").await;
    let stale = valid.code(service.moment(-90_000));
    // Exactly one new row, with this verdict.
    let keeps = async |body: Value| {
        let before = service.database.snapshot().await;
        let reply = gate.post(SCANS, body).await;
        let after = service.database.snapshot().await;
        let gone = before.lines().find(|line| !after.lines().any(|other| other == *line));
        let new: Vec<&str> = after.lines().filter(|line| !before.lines().any(|other| other == *line)).collect();
        let scan = reply.is(reply.status.as_u16());
        let result = scan["result"].as_str().expect("a verdict");
        assert!(gone.is_none() && new.len() == 1 && new[0].contains(result), "{result}: {gone:?} became {new:?}");
        reply
    };
    keeps(service.scan(&used)).await.is_scan(409, "already_used");
    keeps(by_seat(&valid, &valid.wrong_code(service.now()))).await.is_scan(422, "wrong_code");
    keeps(by_seat(&valid, &stale)).await.is_scan(422, "stale_code");
    let elsewhere = with(service.scan(&valid), json!({ "at_gate": "South" }));
    keeps(elsewhere).await.is_scan(409, "wrong_gate");
    let unheld = with(by_seat(&valid, "000000"), json!({ "seat": "nobody's" }));
    keeps(unheld).await.is_scan(409, "not_registered");
    let exit = with(service.scan(&valid), json!({ "direction": "exit" }));
    keeps(exit).await.is_scan(409, "not_inside");
    keeps(service.scan(&revoked)).await.is_scan(410, "revoked");
    let unknown = with(by_seat(&valid, "000000"), json!({ "gate": "South" }));
    keeps(unknown).await.is_scan(404, "unknown_ticket");
}

async fn a_device_may_say_when_it_scanned(service: Service) {
    let ticket = service.ticket("A1").await;
    let body = with(service.scan(&ticket), json!({ "scanned_at": "2026-05-01T19:59:58+02:00" }));
    let scan = service.gate().await.post(SCANS, body).await.is_scan(200, "accepted");
    assert_eq!(scan["scanned_at"], "2026-05-01T17:59:58.000Z");
    // The service's clock decides.
    assert_eq!(scan["ticket"]["used_at"], service.time(0));
}

async fn a_gate_whose_clock_is_far_off_admits_but_its_time_is_not_kept(service: Service) {
    const HOUR: i64 = 3_600_000;
    let gate = service.gate().await;
    let (oldest, latest) = (service.time(-72 * HOUR), service.time(30_000));
    let seats = ["A1", "A2", "A3", "A4", "A5", "A6"];
    let told = [
        (service.time(-72 * HOUR - 1), service.time(0)),
        (oldest.clone(), oldest),
        (latest.clone(), latest),
        (service.time(30_001), service.time(0)),
        ("1970-01-01T00:00:00Z".to_owned(), service.time(0)),
        ("2099-12-31T23:59:59Z".to_owned(), service.time(0)),
    ];
    for (seat, (says, kept)) in seats.into_iter().zip(told) {
        let ticket = service.ticket(seat).await;
        let body = with(service.scan(&ticket), json!({ "scanned_at": says }));
        let scan = gate.post(SCANS, body.clone()).await.is_scan(200, "accepted");
        assert_eq!(scan["scanned_at"], kept, "{says}");
        service.clock.advance(1_000);
        let again = service.unchanged(gate.post(SCANS, body)).await.is_scan(200, "accepted");
        assert_eq!((&again["scanned_at"], &again["replayed"]), (&json!(kept), &json!(true)), "{says}");
        service.clock.advance(-1_000);
    }
}

async fn a_supervisor_admits_by_hand_and_says_why(service: Service) {
    let ticket = service.ticket("A1").await;
    let supervisor = service.supervisor().await;
    let by_hand = json!({
        "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "manual": true, "note": "her phone is dead",
    });
    let gate = service.gate().await;
    service.unchanged(gate.post(SCANS, by_hand.clone())).await.is_refused(403, "forbidden");
    let without_note = with(by_hand.clone(), json!({ "note": null }));
    service.unchanged(supervisor.post(SCANS, without_note)).await.is_refused(422, "invalid_payload");

    let elsewhere = with(by_hand.clone(), json!({ "scan_id": Uuid::now_v7(), "at_gate": "South" }));
    supervisor.post(SCANS, elsewhere).await.is_scan(409, "wrong_gate");
    supervisor.post(SCANS, by_hand.clone()).await.is_scan(200, "accepted");
    let marked = "select count(*) from scans where manual and note = 'her phone is dead' and result = 'accepted'";
    assert_eq!(service.database.count(marked).await, 1);
    let again = with(by_hand, json!({ "scan_id": Uuid::now_v7() }));
    supervisor.post(SCANS, again).await.is_scan(409, "already_used");
    gate.post(SCANS, service.scan(&ticket)).await.is_scan(409, "already_used");
}

async fn a_scan_that_is_not_whole_is_refused(service: Service) {
    let ticket = service.ticket("A1").await;
    let supervisor = service.supervisor().await;
    let good = service.scan(&ticket);
    let seat = by_seat(&ticket, "000000");
    let cases = [
        with(good.clone(), json!({ "scan_id": null })),
        with(good.clone(), json!({ "scan_id": "one" })),
        with(good.clone(), json!({ "code": null })),
        with(good.clone(), json!({ "seat": "A1" })),
        with(good.clone(), json!({ "totp_code": "000000" })),
        with(good.clone(), json!({ "manual": true, "note": "x" })),
        with(good.clone(), json!({ "note": "x" })),
        with(good.clone(), json!({ "direction": "in" })),
        with(good.clone(), json!({ "scanned_at": "now" })),
        with(good.clone(), json!({ "at_gate": "" })),
        with(good.clone(), json!({ "offline_result": "accepted" })),
        with(good.clone(), json!({ "extra": 1 })),
        with(seat.clone(), json!({ "gate": null })),
        with(seat.clone(), json!({ "totp_code": null })),
        with(seat.clone(), json!({ "manual": true, "note": "x" })),
        with(seat, json!({ "seat": "A".repeat(5_000) })),
    ];
    for body in cases {
        let scan = supervisor.post(SCANS, body);
        service.unchanged(scan).await.is_refused(422, "invalid_payload");
    }
}

async fn attendance_is_a_scan_by_json_or_form(service: Service) {
    let first = service.ticket("A1").await;
    let second = service.ticket("A2").await;
    let gate = service.gate().await;
    let body = json!({ "seat": "A1", "gate": "North", "totp_code": first.code(service.now()) });
    let scan = gate.post(ATTENDANCE, body.clone()).await.is_scan(200, "accepted");
    assert_eq!(scan["ticket"]["seat"], "A1");
    let form = format!("seat=A2&gate=North&totp_code={}", second.code(service.now()));
    gate.post_form(ATTENDANCE, form).await.is_scan(200, "accepted");
    gate.post(ATTENDANCE, body.clone()).await.is_scan(409, "already_used");
    gate.post_form(ATTENDANCE, "seat=Z9&gate=North&totp_code=000000").await.is_scan(404, "unknown_ticket");
    let wrong = with(body, json!({ "totp_code": first.wrong_code(service.now()) }));
    gate.post(ATTENDANCE, wrong).await.is_scan(422, "wrong_code");
    assert_eq!(results(&service).await, "accepted 2, already_used 1, unknown_ticket 1, wrong_code 1");

    for form in ["seat=A2&gate=North", "seat=A2&seat=A1&gate=North&totp_code=1"] {
        let refused = gate.post_form(ATTENDANCE, form);
        service.unchanged(refused).await.is_refused(422, "invalid_payload");
    }
}

async fn attendance_may_name_event_and_scan(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let ticket = service.ticket_of("other", "A1", "North").await;
    let gate = service.gate().await;
    let body = json!({
        "seat": "A1", "gate": "North", "totp_code": ticket.code(service.now()), "event": "other",
        "scan_id": Uuid::now_v7(),
    });
    let first = gate.post(ATTENDANCE, body.clone()).await.is_scan(200, "accepted");
    let again = service.unchanged(gate.post(ATTENDANCE, body.clone())).await.is_scan(200, "accepted");
    assert_eq!(again, with(first, json!({ "replayed": true })));
    let nowhere = gate.post(ATTENDANCE, with(body, json!({ "event": "none" })));
    service.unchanged(nowhere).await.is_refused(404, "event_not_found");
}

fn by_seat(ticket: &Ticket, digits: &str) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "seat": ticket.seat, "gate": ticket.gate, "totp_code": digits })
}

/// The number of stored scans by result, sorted by name.
async fn results(service: &Service) -> String {
    let mut counts = Vec::new();
    for result in register_ticket_api::model::ScanResult::ALL {
        let result = result.as_str();
        let count = service.database.count(&format!("select count(*) from scans where result = '{result}'")).await;
        counts.extend((count > 0).then(|| format!("{result} {count}")));
    }
    counts.sort();
    counts.join(", ")
}
