//! Events delete personal data when their time has come: nothing personal remains anywhere, the counts stay, and nobody
//! is admitted any more.

use http::Method;
use register_ticket_api::app::App;
use register_ticket_api::forgetting::forget_due;
use register_ticket_api::routes::ROUTES;
use register_ticket_api::store::Forgotten;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::commands::{Directory, Run, on};
use crate::database::Obstacle;
use crate::mails::MailServer;
use crate::process::Server;
use crate::service::{Service, Ticket, assert_members, settings, walk, with};

on_both_databases! {
    nothing_personal_is_left_of_an_event_that_was_forgotten,
    people_are_forgotten_when_their_time_has_come_and_not_before,
    an_event_that_is_at_work_is_not_forgotten,
    who_was_stopped_while_forgetting_lets_nobody_in_and_goes_on,
    a_forgotten_event_takes_no_people_and_no_tickets,
    what_a_gate_notes_after_it_is_not_kept,
    an_import_that_was_begun_before_it_does_not_end_after_it,
    the_command_tells_what_it_forgets_and_a_dry_run_forgets_nothing,
    a_service_on_a_machine_of_its_own_forgets_by_itself,
    the_days_have_their_bounds,
}

const DAY: i64 = 24 * 60 * 60 * 1_000;
const HOUR: i64 = 60 * 60 * 1_000;
const GALA: &str = "/api/events/gala";
const SCANS: &str = "/api/events/gala/scans";
const MANY: i64 = 2_500;
/// In every text about a person of the event, and nowhere else.
const MARK: &str = "zqmark";
/// In the texts about people who also have a ticket for another event.
const STAYS: &str = "zqstay";

/// The events that were due, and the result for each.
async fn forget(service: &Service) -> Vec<(String, Result<Forgotten, &'static str>)> {
    let clock = service.clock.clone();
    let app = App::new(settings(&service.database, &[]), Box::new(move || clock.now()));
    let events = forget_due(&app, false).await.expect("the events can be listed");
    events.into_iter().map(|(event, done)| (event.slug, done.map_err(|error| error.code()))).collect()
}

/// An event that is running, ends in three hours and forgets its people a month later.
async fn gala(service: &Service) {
    let body = json!({
        "slug": "gala", "name": "Gala", "starts_at": service.time(-HOUR), "ends_at": service.time(3 * HOUR),
        "reentry": "after_exit", "forget_after_days": 30,
    });
    service.event(body).await;
}

/// Fills every field that a client can fill, with marks. Returns tickets of the event, and links.
async fn evening(service: &Service) -> (Vec<Ticket>, Vec<String>) {
    gala(service).await;
    service.event(json!({ "slug": "ball", "name": "Ball", "starts_at": service.time(0) })).await;
    let organizer = &service.organizer;
    let tickets = format!("{GALA}/tickets");
    let list = format!(
        "seat,gate,username,full_name,email,reference,category,note\n\
         I-1,North,{MARK}-ina,Ina {MARK},ina@{MARK}.example,{MARK}-1,Adult,knows {MARK}\n\
         I-2,North,{MARK}-ina,Irma {MARK},ina@{MARK}.example,{MARK}-2,Adult,\n\
         I-3,South,,,,{MARK}-3,,{MARK} may come\n\
         I-4,North,{STAYS}-leo,Leo {STAYS},leo@{STAYS}.example,,,\n"
    );
    organizer.post_csv(&tickets, list).await.is(201);
    let bound = service.key(json!({ "name": "own", "role": "organizer", "event": "gala" })).await;
    // Enough to be deleted in several transactions, and to have split SQLite's pages when they were inserted. With rows
    // of many lengths, SQLite leaves old data in the gaps of its pages.
    let some = |letter: &str, n: i64| letter.repeat(usize::try_from(n).expect("it is small"));
    let line = |n: i64| {
        let (name, note) = (some("x", n * n * 7_919 % 149), some("y", (n + 3) * n * 104_729 % 151));
        format!("L-{n},South,{MARK}-{n},{MARK} {n} {name},{n}@{MARK}.example,{MARK} {note}\n")
    };
    let many: String = (0..MANY).map(line).collect();
    let own =
        format!("seat,gate,username,full_name,email,note\nO-1,North,{MARK}-own,Own {MARK},own@{MARK}.example,\n{many}");
    bound.post_csv(&tickets, own).await.is(201);
    let idle = json!({ "username": format!("{MARK}-idle"), "full_name": format!("Idle {MARK}") });
    bound.post("/api/users", idle).await.is(201);
    let of_ball = format!("seat,gate,username,note\nB-1,North,{STAYS}-leo,knows {STAYS}\n");
    organizer.post_csv("/api/events/ball/tickets", of_ball).await.is(201);

    let mut held = Vec::new();
    let mut links = Vec::new();
    for (seat, name) in [("R-1", "ana"), ("R-2", "bea"), ("R-3", "cleo"), ("R-4", "ana"), ("R-5", "dora")] {
        let username = format!("{MARK}-{name}");
        let person = json!({ "username": username, "full_name": name, "email": format!("{name}@{MARK}.example") });
        let made = organizer.post("/api/users", person).await;
        assert!(made.status.is_success() || name == "ana", "{}", made.text());
        let changed = json!({ "full_name": format!("{name} {MARK}") });
        organizer.patch(format!("/api/users/{username}"), changed).await.is(200);
        organizer.post(&tickets, json!({ "seat": seat, "gate": "North", "reference": format!("{MARK}-{seat}") })).await;
        let body = json!({ "seat": seat, "gate": "North", "event": "gala" });
        let registered = organizer.post(format!("/api/users/{username}/tickets"), body).await.is(201);
        links.push(registered["provisioning"]["ticket_url"].as_str().expect("a link").to_owned());
        held.push(Ticket::new(&registered));
    }
    // Dora gives her ticket away and has none any more.
    let transfer = format!("/api/tickets/{}/transfer", held[4].ticket_id);
    let moved = organizer.post(transfer, json!({ "username": format!("{MARK}-cleo") })).await.is(200);
    held[4] = Ticket::new(&moved);
    let mail_server = MailServer::start();
    let mailing = service.another(&[("SMTP_URL", mail_server.url().as_str()), ("MAIL_FROM", "gala@example.org")]);
    let mailed = json!({ "tickets": [held[0].ticket_id, held[1].ticket_id] });
    let sent = mailing.organizer.post(format!("{GALA}/mails"), mailed).await.is(200);
    assert_eq!(sent["results"][0]["result"], "sent", "{sent}");
    drop(mail_server);

    let supervisor = service.key(json!({ "name": "door", "role": "supervisor", "offline": true })).await;
    let first = supervisor.post(SCANS, service.scan(&held[0])).await.is_scan(200, "accepted");
    let vouched = json!({ "scan_id": Uuid::now_v7(), "ticket_id": held[3].ticket_id, "vouched_by": first["scan_id"] });
    supervisor.post(SCANS, vouched).await.is_scan(200, "accepted");
    let by_hand = |seat: &str| {
        let note = format!("{MARK} has shown a passport");
        json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": "North", "manual": true, "note": note })
    };
    supervisor.post(SCANS, by_hand("R-2")).await.is_scan(200, "accepted");
    supervisor.post(SCANS, by_hand("I-1")).await.is_scan(200, "accepted");
    supervisor.post(SCANS, by_hand("nowhere")).await.is_scan(404, "unknown_ticket");
    let undone = supervisor.post(SCANS, by_hand("O-1")).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", undone["scan_id"].as_str().expect("an id"));
    supervisor.bare(Method::POST, undo).await.is(200);
    let wrong = QrOf { ticket: &held[2], code: held[2].wrong_code(service.now()) };
    supervisor.post(SCANS, wrong.scan()).await.is_scan(422, "wrong_code");
    let unknown = json!({ "scan_id": Uuid::now_v7(), "code": format!("https://{MARK}.example/") });
    supervisor.post(SCANS, unknown).await.is_scan(404, "unknown_ticket");
    let offline = with(by_hand("I-2"), json!({ "scanned_at": service.time(-1_000), "offline_result": "accepted" }));
    let again = with(service.scan(&held[0]), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    supervisor.post(format!("{SCANS}/batch"), json!({ "scans": [offline, again] })).await.is(200);
    let found = organizer.get(format!("{tickets}?q={MARK}")).await.is(200);
    assert!(found["tickets"].as_array().is_some_and(|tickets| tickets.len() > 5), "{found}");
    (held, links)
}

/// A code of a ticket, in a QR.
struct QrOf<'a> {
    ticket: &'a Ticket,
    code: String,
}

impl QrOf<'_> {
    fn scan(&self) -> Value {
        let Ticket { seat, gate, .. } = self.ticket;
        json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": gate, "totp_code": self.code })
    }
}

/// Everything that an organizer can read from the API about these tickets and people.
async fn all_answers(service: &Service, tickets: &[Ticket]) -> String {
    let organizer = &service.organizer;
    let keys = organizer.get("/api/keys").await.is(200);
    let key_id = keys["keys"][0]["key_id"].as_str().expect("there is a key").to_owned();
    let mut answers = String::new();
    for route in ROUTES.iter().filter(|route| route.method == Method::GET && route.path.starts_with("/api/")) {
        let path = route.path.replace("{event}", "gala").replace("{key_id}", &key_id);
        let paths: Vec<String> = if path.contains("{ticket_id}") {
            tickets.iter().map(|ticket| path.replace("{ticket_id}", &ticket.ticket_id.to_string())).collect()
        } else if path.contains("{username}") {
            tickets.iter().map(|ticket| path.replace("{username}", &ticket.username)).collect()
        } else if path.ends_with("/guests") {
            vec![format!("{path}?q={MARK}")]
        } else {
            vec![path]
        };
        for path in paths {
            assert!(!path.contains('{'), "{path} is asked");
            answers.push_str(&organizer.get(&path).await.text());
        }
    }
    answers
}

fn holds(text: &str, mark: &str) -> bool {
    text.to_lowercase().contains(mark)
}

async fn nothing_personal_is_left_of_an_event_that_was_forgotten(service: Service) {
    let (tickets, links) = evening(&service).await;
    let filled = service.database.everything().await;
    for word in ["passport", "ina@", "idle", "dora", "may come", "-r-5"] {
        assert!(holds(&filled, word), "nothing was made with {word}");
    }
    assert!(holds(&all_answers(&service, &tickets).await, MARK));
    let stats = async || {
        let stats = service.organizer.get(format!("{GALA}/stats")).await.is(200);
        with(stats, json!({ "guessing": null, "as_of": null }))
    };
    let of_scans = "select count(*) || ' ' || count(ticket_id) || ' ' || sum(received_at - 1777000000000) || ' ' || count(undone_at) from scans";
    let scans = service.database.text(of_scans, of_scans).await;
    let before = stats().await;
    assert_ne!((&before["expected"], &before["inside"]), (&json!(0), &json!(0)), "{before}");

    service.clock.advance(31 * DAY);
    let forgotten = forget(&service).await;
    // Five tickets and the many from the lists, and five that were registered. Ina, Ana, Bea, Cleo, Dora, and two of
    // the event's own people besides the many.
    let all = Forgotten { tickets: 10 + MANY, people: 7 + MANY };
    assert_eq!(forgotten, [("gala".to_owned(), Ok(all))]);

    assert_eq!(stats().await, before, "the counts stay");
    assert_eq!(service.database.text(of_scans, of_scans).await, scans);
    let left = service.database.everything().await;
    let lines: Vec<&str> = left.lines().filter(|line| holds(line, MARK)).collect();
    assert!(lines.is_empty(), "{lines:#?}");
    let bytes = service.database.bytes();
    let found = bytes.windows(MARK.len()).filter(|bytes| bytes.eq_ignore_ascii_case(MARK.as_bytes())).count();
    assert_eq!(found, 0, "in the database's files");
    let answers = all_answers(&service, &tickets).await;
    assert!(!holds(&answers, MARK), "{answers}");
    assert_eq!(service.database.count("select count(*) from tickets where mailed_at is not null").await, 0);
    for link in links {
        let path = link.split_once("/t/").map(|(_, token)| format!("/t/{token}")).expect("a link");
        let page = service.anonymous.get(path).await;
        assert_eq!(page.status.as_u16(), 404, "the link is dead");
    }

    let event = service.organizer.get(GALA).await.is(200);
    assert_eq!(event["forgotten_at"], service.time(0));
    let leo = service.organizer.get(format!("/api/users/{STAYS}-leo")).await.is(200);
    assert_members(&leo, json!({ "full_name": format!("Leo {STAYS}"), "email": format!("leo@{STAYS}.example") }));
    let his = walk(&service.organizer, &format!("/api/users/{STAYS}-leo/tickets"), "tickets").await;
    assert_eq!(his.len(), 1);
    assert_members(&his[0], json!({ "event": "ball", "seat": "B-1", "note": format!("knows {STAYS}") }));
    assert_eq!(forget(&service).await, [], "there is nothing left to do");
}

async fn people_are_forgotten_when_their_time_has_come_and_not_before(service: Service) {
    let events = [
        (
            "ended",
            json!({ "starts_at": service.time(-2 * DAY), "ends_at": service.time(-DAY), "forget_after_days": 2 }),
        ),
        ("started", json!({ "starts_at": service.time(-DAY), "forget_after_days": 3 })),
        ("timeless", json!({ "forget_after_days": 1 })),
        ("kept", json!({ "starts_at": service.time(-2 * DAY), "ends_at": service.time(-DAY) })),
    ];
    for (slug, body) in events {
        service.event(with(body, json!({ "slug": slug, "name": slug }))).await;
        service.ticket_of(slug, "A-1", "North").await;
    }
    let one = Ok(Forgotten { tickets: 1, people: 1 });
    assert_eq!(forget(&service).await, []);
    service.clock.advance(DAY - 1);
    assert_eq!(forget(&service).await, []);
    service.clock.advance(1);
    assert_eq!(forget(&service).await, [("ended".to_owned(), one)]);
    service.clock.advance(DAY);
    assert_eq!(forget(&service).await, [("started".to_owned(), one)]);
    // The latest validity of a ticket and the closing of the doors also count.
    let open = json!({ "slug": "open", "name": "Open", "starts_at": service.time(0), "closes_at": service.time(2 * DAY), "forget_after_days": 1 });
    service.event(open).await;
    let season = json!({ "seat": "S-1", "gate": "North", "valid_until": service.time(5 * DAY) });
    service.organizer.post("/api/events/open/tickets", season).await.is(201);
    service.clock.advance(3 * DAY);
    assert_eq!(forget(&service).await, []);
    service.clock.advance(3 * DAY);
    assert_eq!(forget(&service).await, [("open".to_owned(), Ok(Forgotten::default()))]);
    service.clock.advance(4_000 * DAY);
    assert_eq!(forget(&service).await, []);
    // Its time is over as soon as it has an end.
    let times = json!({ "ends_at": service.time(-2 * DAY) });
    service.organizer.patch("/api/events/timeless", times).await.is(200);
    assert_eq!(forget(&service).await, [("timeless".to_owned(), one)]);
    let recorded = "select count(*) from actions where action = 'event_forgotten' and key_id is null";
    assert_eq!(service.database.count(recorded).await, 4);
}

async fn an_event_that_is_at_work_is_not_forgotten(service: Service) {
    let body = json!({ "slug": "gala", "name": "Gala", "ends_at": service.time(HOUR), "forget_after_days": 1 });
    service.event(body).await;
    let (early, late) =
        (service.ticket_of("gala", "A-1", "North").await, service.ticket_of("gala", "A-2", "North").await);
    service.clock.advance(HOUR + DAY);
    service.organizer.post(SCANS, service.scan(&early)).await.is_scan(200, "accepted");
    assert_eq!(forget(&service).await, [("gala".to_owned(), Err("event_in_use"))]);
    service.organizer.post(SCANS, service.scan(&late)).await.is_scan(200, "accepted");
    service.clock.advance(7 * HOUR);
    assert_eq!(forget(&service).await, [("gala".to_owned(), Ok(Forgotten { tickets: 2, people: 2 }))]);
}

async fn who_was_stopped_while_forgetting_lets_nobody_in_and_goes_on(service: Service) {
    gala(&service).await;
    let tickets = [service.ticket_of("gala", "A-1", "North").await, service.ticket_of("gala", "A-2", "North").await];
    let by_hand = json!({ "seat": "A-2", "gate": "North", "manual": true, "note": MARK, "scan_id": Uuid::now_v7() });
    service.organizer.post(SCANS, by_hand).await.is_scan(200, "accepted");
    service.clock.advance(31 * DAY);
    let (gate, link) = (service.offline_gate().await, service.organizer.get(format!("{GALA}/links.csv")).await.text());
    let path = link.split("/t/").nth(1).and_then(|rest| rest.split('"').next()).expect("a link").to_owned();
    for (change, obstacle) in [
        ("update on tickets", Obstacle::Fails("no way")),
        ("delete on users", Obstacle::Fails("no way")),
        ("update on scans", Obstacle::Fails("no way")),
    ] {
        service.database.obstruct(change, obstacle).await;
        assert_eq!(forget(&service).await, [("gala".to_owned(), Err("internal_error"))], "{change}");
        service.database.clear().await;
        let scan = service.organizer.post(SCANS, service.scan(&tickets[0])).await.is_scan(409, "not_registered");
        assert_eq!(scan["ticket"]["username"], Value::Null);
        let page = service.anonymous.get(format!("/t/{path}")).await;
        assert_eq!(page.status.as_u16(), 404, "{change}: the link is dead");
        let patch = json!({ "ends_at": null });
        service.organizer.patch(GALA, patch).await.is(200);
        let manifest = gate.get(format!("{GALA}/manifest")).await.is(200);
        assert!(!manifest.to_string().contains("\"key\""), "{manifest}");
    }
    assert!(service.database.everything().await.contains(MARK));
    let forgotten = forget(&service).await;
    assert!(matches!(forgotten[..], [(_, Ok(_))] | []), "{forgotten:?}");
    assert!(!service.database.everything().await.contains(MARK));
    assert_eq!(service.database.count("select count(*) from users").await, 0);
    let recorded = "select count(*) from actions where action = 'event_forgotten'";
    assert_eq!(service.database.count(recorded).await, 1, "it was begun once");
}

/// An event that has forgotten its people, and a ticket that had a holder.
async fn forgotten_event(service: &Service) -> Ticket {
    gala(service).await;
    let ticket = service.ticket_of("gala", "A-1", "North").await;
    service.seat("gala", "A-2", "North").await;
    service.clock.advance(31 * DAY);
    assert_eq!(forget(service).await.len(), 1);
    ticket
}

async fn a_forgotten_event_takes_no_people_and_no_tickets(service: Service) {
    let ticket = forgotten_event(&service).await;
    service.user("luis").await;
    let bound = service.key(json!({ "name": "own", "role": "organizer", "event": "gala" })).await;
    let tickets = format!("{GALA}/tickets");
    let large: String = (0..1_200).map(|seat| format!("{seat},North,new{seat}\n")).collect();
    let organizer = &service.organizer;
    let refuse = async |client: &Client, path: &str, body: Value| {
        service.unchanged(client.post(path, body)).await.is_refused(409, "event_forgotten");
    };
    refuse(organizer, &tickets, json!({ "seat": "B-1", "gate": "North" })).await;
    refuse(organizer, "/api/users/luis/tickets", json!({ "seat": "A-2", "gate": "North", "event": "gala" })).await;
    refuse(organizer, "/api/users?event=gala", json!({ "username": "mia" })).await;
    refuse(&bound, "/api/users", json!({ "username": "mia" })).await;
    let reissue = organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", ticket.ticket_id));
    service.unchanged(reissue).await.is_refused(409, "event_forgotten");
    for list in [format!("seat,gate,username\n{large}"), "seat,gate\nB-1,North\n".into()] {
        for query in ["", "?dry_run=true", "?existing=update"] {
            let import = organizer.post_csv(format!("{tickets}{query}"), list.as_str());
            service.unchanged(import).await.is_refused(409, "event_forgotten");
        }
    }
    let corrected = organizer.post_csv(format!("{tickets}?existing=update"), "seat,gate,username\nA-2,North,luis\n");
    service.unchanged(corrected).await.is_refused(409, "event_forgotten");
    // Its name may still be corrected.
    organizer.patch(GALA, json!({ "name": "The gala" })).await.is(200);
}

async fn what_a_gate_notes_after_it_is_not_kept(service: Service) {
    let ticket = forgotten_event(&service).await;
    let supervisor = service.key(json!({ "name": "door", "role": "supervisor", "offline": true })).await;
    let by_hand =
        |seat: &str| json!({ "scan_id": Uuid::now_v7(), "seat": seat, "gate": "North", "manual": true, "note": MARK });
    supervisor.post(SCANS, by_hand("A-1")).await.is_scan(409, "not_registered");
    supervisor.post(SCANS, by_hand("nowhere")).await.is_scan(404, "unknown_ticket");
    let late = with(by_hand("A-1"), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    let batch = supervisor.post(format!("{SCANS}/batch"), json!({ "scans": [late] })).await.is(200);
    assert_eq!(batch["results"][0]["result"], "not_registered");
    supervisor.post(SCANS, service.scan(&ticket)).await.is_scan(409, "not_registered");
    assert_eq!(service.database.count("select count(*) from scans").await, 4);
    assert!(!service.database.everything().await.contains(MARK));
}

async fn an_import_that_was_begun_before_it_does_not_end_after_it(service: Service) {
    gala(&service).await;
    let issuing = format!(
        "update events set issuing = event_id, issuing_since = {} where slug = 'gala'",
        service.moment(31 * DAY).0
    );
    service.database.execute(&issuing).await.expect("an import is running");
    service.clock.advance(31 * DAY);
    assert_eq!(forget(&service).await, [("gala".to_owned(), Err("import_in_progress"))]);
    // It has written nothing for so long that it counts as stopped.
    service.clock.advance(60_000);
    assert_eq!(forget(&service).await, [("gala".to_owned(), Ok(Forgotten::default()))]);
}

/// An event that is long over, by any clock.
async fn past(service: &Service) {
    let body = json!({ "slug": "past", "name": "Past", "ends_at": "2020-01-01T00:00:00Z", "forget_after_days": 1 });
    service.event(body).await;
    service.ticket_of("past", "A-1", "North").await;
}

async fn the_command_tells_what_it_forgets_and_a_dry_run_forgets_nothing(service: Service) {
    past(&service).await;
    let directory = Directory::new();
    let run = |arguments: &[&str]| Run::of(&mut on(&service.database, &directory, arguments)).printed();
    let before = service.database.everything().await;
    assert_eq!(
        run(&["forget", "--dry-run"]),
        "past: 1 person would be forgotten, with the personal data of 1 ticket\n"
    );
    assert_eq!(service.database.everything().await, before);
    assert_eq!(run(&["forget"]), "past: 1 person was forgotten, with the personal data of 1 ticket\n");
    assert_eq!(service.database.count("select count(*) from users").await, 0);
    assert_eq!(run(&["forget"]), "No event has anybody to forget.\n");
    assert_eq!(run(&["forget", "--dry-run"]), "No event has anybody to forget.\n");
}

async fn a_service_on_a_machine_of_its_own_forgets_by_itself(service: Service) {
    past(&service).await;
    let server = Server::start(service.database.environment()).await;
    server.process.logged("an event has forgotten its people").await;
    assert_eq!(service.database.count("select count(*) from users").await, 0);
    assert!(!server.process.log().contains("past-A-1"), "nobody is named");
}

async fn the_days_have_their_bounds(service: Service) {
    for days in [json!(0), json!(-1), json!(3_651), json!(1.5), json!("30")] {
        let body = json!({ "forget_after_days": days });
        let refused = service.unchanged(service.organizer.patch("/api/events/default", body)).await;
        refused.is_refused(422, "invalid_payload");
    }
    for days in [json!(1), json!(3_650), Value::Null] {
        let body = json!({ "forget_after_days": days });
        let changed = service.organizer.patch("/api/events/default", body).await.is(200);
        assert_members(&changed, json!({ "forget_after_days": days, "forgotten_at": null }));
    }
}
