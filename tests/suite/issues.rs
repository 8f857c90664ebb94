//! Running imports: nobody sees what they have written so far, and nobody waits for them. Stopped imports: nothing of
//! them remains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::StatusCode;
use register_ticket_api::app::App;
use register_ticket_api::error::Error;
use register_ticket_api::model::{Millis, Seed};
use register_ticket_api::store::{Author, Created, Issuance, NewTicket, NewUser};
use register_ticket_api::totp::{Code, QrCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::client::Reply;
use crate::database::{Kind, TestDatabase};
use crate::process::{PATIENCE, within};
use crate::service::{Service, assert_members, settings, with};

on_both_databases! {
    nobody_sees_a_ticket_before_all_are_there,
    the_first_import_compares_no_line_with_each_person,
    a_scan_of_another_event_is_answered_while_an_import_is_at_work,
    what_meets_an_import_at_work_is_to_be_sent_again,
    an_import_that_was_stopped_leaves_nothing_and_the_next_one_works,
    what_a_stopped_import_has_written_is_deleted_by_whoever_meets_it,
    an_event_is_deleted_when_no_import_is_at_work_in_it,
    an_import_that_was_taken_for_stopped_writes_nothing_more,
    what_a_stopped_import_has_written_is_left_alone_by_whoever_does_not_meet_it,
    an_import_whose_holder_is_erased_meanwhile_is_to_be_sent_again,
    two_imports_that_name_the_same_people_do_not_wait_for_each_other_for_ever,
    an_import_reaches_gates_that_ask_for_what_changed_since_it_began,
}

const TICKETS: &str = "/api/events/default/tickets";
const MANIFEST: &str = "/api/events/default/manifest";
/// Written in more than one transaction.
const MANY: usize = 2_500;
/// Longer than a running import goes without writing, in milliseconds.
const STOPPED: i64 = 31_000;

/// An import of [`MANY`] tickets by another process, each for a new user except the first, luis's. It is paused between
/// two of its transactions.
pub struct Held {
    tickets: Vec<NewTicket>,
    pub import: BoxFuture<'static, Result<Created, Error>>,
}

impl Held {
    pub async fn of(service: &Service) -> Self {
        Self::of_event(service, "default").await
    }

    async fn of_event(service: &Service, event: &'static str) -> Self {
        let clock = service.clock.clone();
        let app = Arc::new(App::new(settings(&service.database, &[]), Box::new(move || clock.now())));
        let tickets: Vec<NewTicket> = (0..MANY).map(new_ticket).collect();
        let people: Vec<NewUser> = tickets.iter().filter_map(|ticket| ticket.holder.clone()).collect();
        let list = Issuance { people, tickets: tickets.clone(), ..Issuance::default() };
        let (written, now) = (Arc::new(Notify::new()), service.now());
        let tell = Arc::clone(&written);
        let mut import = async move {
            let event = app.store().find_event(event).await?.expect("it is there").open(None)?;
            let author = Author { key_id: None, now };
            app.store().create_tickets(event.event_id, None, &list, author, &|_| tell.notify_one()).await
        }
        .boxed();
        tokio::select! {
            biased;
            () = written.notified() => Self { tickets, import },
            ended = &mut import => panic!("{ended:?}"),
        }
    }

    fn first(&self) -> Uuid {
        self.tickets[0].ticket_id
    }
}

fn new_ticket(number: usize) -> NewTicket {
    let username = if number == 0 { "luis".to_owned() } else { format!("new{number}") };
    NewTicket {
        ticket_id: Uuid::now_v7(),
        seat: number.to_string(),
        gate: "North".to_owned(),
        seed: Seed([7; 20]),
        holder: Some(NewUser { username, full_name: None, email: None }),
        reference: None,
        category: None,
        note: None,
        valid_from: None,
        valid_until: None,
    }
}

/// Everything that can be read of the event and of two holders and that an import may not change before its end.
async fn all_that_is_seen(service: &Service, held: Option<&Held>) -> Vec<(StatusCode, String)> {
    let gate = service.offline_gate().await;
    let mut paths: Vec<String> = ["stats", "tickets", "tickets?q=luis", "tickets.csv", "links.csv"]
        .map(|of| format!("/api/events/default/{of}"))
        .into();
    paths.extend(["luis", "luis/tickets", "new1", "new1/tickets"].map(|of| format!("/api/users/{of}")));
    paths.extend(held.map(|held| format!("/api/tickets/{}", held.first())));
    let mut seen = Vec::new();
    for path in paths {
        let reply = service.organizer.get(&path).await;
        seen.push((reply.status, reply.text()));
    }
    let manifest = gate.get(MANIFEST).await;
    seen.push((manifest.status, manifest.header("etag").to_owned()));
    seen.push((manifest.status, manifest.is(200)["tickets"].to_string()));
    seen
}

async fn nobody_sees_a_ticket_before_all_are_there(service: Service) {
    service.user("luis").await;
    let before = all_that_is_seen(&service, None).await;
    let held = Held::of(&service).await;
    assert!(service.database.count("select count(*) from tickets").await > 0, "there is something to see");
    let meanwhile = all_that_is_seen(&service, Some(&held)).await;
    let (of_the_ticket, meanwhile): (Vec<_>, Vec<_>) = meanwhile
        .into_iter()
        .partition(|(status, text)| *status == StatusCode::NOT_FOUND && text.contains("ticket_not_found"));
    assert_eq!(of_the_ticket.len(), 1);
    assert_eq!(meanwhile, before);
    let seat = json!({ "event": "default", "seat": "1", "gate": "North" });
    service.organizer.post("/api/users/luis/tickets", seat).await.is_refused(404, "ticket_not_found");
    let code = QrCode { ticket_id: held.first(), code: Code::Rotating("123456".to_owned()) }.to_string();
    for shown in [json!({ "code": code }), json!({ "seat": "1", "gate": "North", "totp_code": "123456" })] {
        let scan = with(shown, json!({ "scan_id": Uuid::now_v7() }));
        service.organizer.post("/api/events/default/scans", scan).await.is_scan(404, "unknown_ticket");
    }

    let created = held.import.await.expect("nothing stands in its way");
    assert_eq!(created, Created { created: 2_500, registered: 2_500, users_created: 2_499, updated: 0, skipped: 0 });
    let stats = service.organizer.get("/api/events/default/stats").await.is(200);
    assert_members(&stats, json!({ "tickets": MANY, "registered": MANY }));
    let after = all_that_is_seen(&service, None).await;
    assert!(after.iter().zip(&before).all(|(after, before)| after != before || before.1.contains("full_name")));
    let of_luis = service.organizer.get("/api/users/luis/tickets").await.is(200);
    assert_eq!(of_luis["tickets"].as_array().map(Vec::len), Some(1));
    assert_eq!(service.database.count("select count(*) from actions where action = 'issued'").await, 1);
}

/// A new database has no statistics, and PostgreSQL may choose to compare all lines with all people: 25,000,000
/// comparisons here, which take half a minute.
async fn the_first_import_compares_no_line_with_each_person(service: Service) {
    let rows: String = (0..5_000).map(|seat| format!("{seat},North,new{seat},new{seat}@example.org\n")).collect();
    let began = Instant::now();
    service.organizer.post_csv(TICKETS, format!("seat,gate,username,email\n{rows}")).await.is(201);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

async fn a_scan_of_another_event_is_answered_while_an_import_is_at_work(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let ticket = service.ticket_of("other", "A1", "North").await;
    let held = Held::of(&service).await;
    service.organizer.post("/api/events/other/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    // Scans while the import continues.
    let scans = async {
        for _ in 0..10 {
            let again = service.organizer.post("/api/events/other/scans", service.scan(&ticket)).await;
            again.is_scan(409, "already_used");
        }
    };
    let (created, ()) = tokio::join!(held.import, scans);
    assert_eq!(created.expect("nothing stands in its way").created, MANY as u64);
}

async fn what_meets_an_import_at_work_is_to_be_sent_again(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    service.user("luis").await;
    let held = Held::of(&service).await;
    let organizer = &service.organizer;
    let requests = || -> Vec<(&str, BoxFuture<Reply>)> {
        let rows: String = (0..MANY).map(|seat| format!("{seat},South\n")).collect();
        vec![
            ("a taken seat", organizer.post(TICKETS, json!({ "seat": "1", "gate": "North" })).boxed()),
            ("a second import", organizer.post_csv(TICKETS, format!("seat,gate\n{rows}")).boxed()),
            ("a new holder", organizer.post_csv("/api/events/other/tickets", "seat,gate,username\n1,a,new1\n").boxed()),
            ("a new user", organizer.post("/api/users", json!({ "username": "NEW1" })).boxed()),
            ("a known holder", organizer.delete("/api/users/luis").boxed()),
        ]
    };
    for (what, request) in requests() {
        let refused = service.unchanged(request).await;
        assert_eq!(refused.header("retry-after"), "5", "{what}");
        refused.is_refused(429, "import_in_progress");
    }
    // Requests that do not touch the import's data succeed.
    organizer.post(TICKETS, json!({ "seat": "1", "gate": "South" })).await.is(201);
    organizer.patch("/api/events/default", json!({ "name": "Changed" })).await.is(200);

    held.import.await.expect("nothing stands in its way");
    let answers = [(409, "seat_taken"), (409, "seat_taken"), (201, ""), (409, "username_taken"), (204, "")];
    for ((what, request), (status, code)) in requests().into_iter().zip(answers) {
        let reply = request.await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        assert!(reply.text().contains(code), "{what}");
    }
    let revoked = organizer.get(format!("{TICKETS}?status=revoked")).await.is(200);
    assert_eq!(revoked["tickets"].as_array().map(Vec::len), Some(1), "the ticket that the import gave luis");
}

async fn an_import_that_was_stopped_leaves_nothing_and_the_next_one_works(service: Service) {
    service.user("luis").await;
    let before = all_that_is_seen(&service, None).await;
    let held = Held::of(&service).await;
    drop(held.import);
    assert_eq!(all_that_is_seen(&service, None).await, before);
    let rows: String = (0..MANY).map(|seat| format!("{seat},North,new{seat}\n")).collect();
    let file = || service.organizer.post_csv(TICKETS, format!("seat,gate,username\n{rows}"));
    // The import may still be running.
    file().await.is_refused(429, "import_in_progress");
    service.clock.advance(STOPPED);
    assert_eq!(
        file().await.is(201),
        json!({ "created": MANY, "registered": MANY, "users_created": MANY, "updated": 0, "skipped": 0 })
    );
    assert_eq!(service.database.count("select count(*) from tickets").await, MANY as i64);
    assert_eq!(service.database.count("select count(*) from users").await, MANY as i64 + 1);
    assert_eq!(service.database.count("select count(*) from events where issuing is not null").await, 0);
}

async fn what_a_stopped_import_has_written_is_deleted_by_whoever_meets_it(service: Service) {
    service.user("luis").await;
    let organizer = &service.organizer;
    let stopped = async || {
        drop(Held::of(&service).await.import);
        service.clock.advance(STOPPED);
    };
    let is_left = async |tickets: i64, users: i64| {
        assert_eq!(service.database.count("select count(*) from tickets").await, tickets);
        assert_eq!(service.database.count("select count(*) from users").await, users);
        assert_eq!(service.database.count("select count(*) from events where issuing is not null").await, 0);
    };
    stopped().await;
    organizer.post("/api/users", json!({ "username": "new1" })).await.is_refused(429, "import_in_progress");
    is_left(0, 1).await;
    organizer.post("/api/users", json!({ "username": "new1" })).await.is(201);
    organizer.delete("/api/users/new1").await.is(204);

    stopped().await;
    organizer.delete("/api/users/luis").await.is(204);
    is_left(0, 0).await;

    stopped().await;
    organizer.post(TICKETS, json!({ "seat": "1", "gate": "North" })).await.is(201);
    is_left(1, 0).await;
}

async fn what_a_stopped_import_has_written_is_left_alone_by_whoever_does_not_meet_it(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let bound = service.key(json!({ "name": "o", "role": "organizer", "event": "default" })).await;
    service.user("luis").await;
    service.user("ana").await;
    drop(Held::of_event(&service, "other").await.import);
    service.clock.advance(STOPPED);
    let left = "select count(*) from tickets t join events e on e.event_id = t.event_id where e.slug = 'other'";
    let before = service.database.count(left).await;
    assert!(before > 0);
    bound.post(TICKETS, json!({ "seat": "1", "gate": "North" })).await.is(201);
    // Its own new1 is another person.
    bound.post("/api/users", json!({ "username": "new1" })).await.is(201);
    bound.delete("/api/users/new1").await.is(204);
    service.event(json!({ "slug": "third", "name": "Third" })).await;
    service.organizer.delete("/api/events/third").await.is(204);
    service.organizer.delete("/api/users/ana").await.is(204);
    service.organizer.post_csv(TICKETS, "seat,gate,username\n2,North,ana\n").await.is(201);
    assert_eq!(service.database.count(left).await, before);
    // Naming one of the import's people touches its data.
    let file = "seat,gate,username\n3,North,new1\n";
    service.organizer.post_csv(TICKETS, file).await.is_refused(429, "import_in_progress");
    assert_eq!(service.database.count(left).await, 0);
    service.organizer.post_csv(TICKETS, file).await.is(201);
}

async fn an_import_whose_holder_is_erased_meanwhile_is_to_be_sent_again(service: Service) {
    let last = format!("new{}", MANY - 1);
    service.user(&last).await;
    let held = Held::of(&service).await;
    service.organizer.delete(format!("/api/users/{last}")).await.is(204);
    let refused = held.import.await.expect_err("nobody is left to hold the last ticket");
    assert!(matches!(refused, Error::ImportInProgress), "{refused:?}");
    assert_eq!(service.database.count("select count(*) from tickets").await, 0);
    assert_eq!(service.database.count("select count(*) from users").await, 0);
    let held = Held::of(&service).await;
    assert_eq!(held.import.await.expect("they are created again").users_created, MANY as u64);
}

/// Each waits for a name that the other is writing, before it has written all of its own.
async fn two_imports_that_name_the_same_people_do_not_wait_for_each_other_for_ever(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let (hold, let_go, wait) = match service.database.kind {
        Kind::Sqlite => ("begin immediate", "rollback", "select 2"),
        Kind::Postgres => (
            "begin; insert into users (user_id, username, created_at) values (gen_random_uuid(), 'ben', 0)",
            "rollback",
            "select count(*) from pg_locks where not granted",
        ),
    };
    service.database.execute(hold).await.expect("nobody else is there");
    let import = async |event: &str, people: [&str; 3]| {
        let rows: String = people.iter().map(|name| format!("{name},North,{name}\n")).collect();
        let path = format!("/api/events/{event}/tickets");
        service.organizer.post_csv(path, format!("seat,gate,username\n{rows}")).await
    };
    let release = async {
        let both = async || (service.database.count(wait).await >= 2).then_some(());
        within(PATIENCE, "both wait", both).await;
        service.database.execute(let_go).await.expect("it was begun");
    };
    let (one, two, ()) =
        tokio::join!(import("default", ["ana", "ben", "cleo"]), import("other", ["cleo", "ben", "ana"]), release);
    assert_eq!([one.status, two.status], [201, 201], "{} {}", one.text(), two.text());
    assert_eq!(service.database.count("select count(*) from users").await, 3);
}

async fn an_event_is_deleted_when_no_import_is_at_work_in_it(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let held = Held::of_event(&service, "other").await;
    let delete = || service.organizer.delete("/api/events/other");
    service.unchanged(delete()).await.is_refused(429, "import_in_progress");
    drop(held.import);
    service.clock.advance(STOPPED);
    delete().await.is(204);
    assert_eq!(service.database.count("select count(*) from users").await, 0);
}

async fn an_import_that_was_taken_for_stopped_writes_nothing_more(service: Service) {
    service.user("luis").await;
    let held = Held::of(&service).await;
    service.clock.advance(STOPPED);
    service.organizer.post(TICKETS, json!({ "seat": "1", "gate": "South" })).await.is(201);
    let refused = held.import.await.expect_err("its rows were deleted");
    // Not because a holder is missing: it checks whether it may still write.
    assert!(matches!(&refused, Error::DatabaseUnavailable(why) if why.contains("stalled")), "{refused:?}");
    assert_eq!(service.database.count("select count(*) from tickets").await, 1);
    assert_eq!(service.database.count("select count(*) from users").await, 1);
}

async fn an_import_reaches_gates_that_ask_for_what_changed_since_it_began(service: Service) {
    let gate = service.offline_gate().await;
    let held = Held::of(&service).await;
    let since = gate.get(MANIFEST).await.is(200)["as_of"].clone();
    let read = async || gate.get(format!("{MANIFEST}?since={since}")).await.is(200)["tickets"].clone();
    assert_eq!(read().await, Value::Array(Vec::new()));
    held.import.await.expect("nothing stands in its way");
    assert_eq!(read().await.as_array().map(Vec::len), Some(MANY));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_gives_up_waiting_before_it_is_taken_for_stopped() {
    let service = Service::on(
        TestDatabase::create(Kind::Postgres).await.into(),
        crate::service::TestClock::at(Millis(1_777_658_400_000)),
        &[],
    );
    let hold = "begin; insert into users (user_id, username, created_at) values (gen_random_uuid(), 'new1', 0)";
    service.database.execute(hold).await.expect("nobody else is there");
    let rows: String = (0..MANY).map(|seat| format!("{seat},North,new{seat}\n")).collect();
    let began = std::time::Instant::now();
    let refused = service.organizer.post_csv(TICKETS, format!("seat,gate,username\n{rows}")).await;
    assert!(began.elapsed().as_secs() < 25);
    refused.is_refused(503, "database_unavailable");
    service.database.execute("rollback").await.expect("it was begun");
    assert_eq!(service.database.count("select count(*) from users").await, 0);
}
