//! Exactly once, whatever runs in parallel: several processes on one database, and devices that scan at the same
//! instant.

use std::path::Path;
use std::process::Command;
use std::sync::Barrier;

use register_ticket_api::model::Millis;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::commands::{Directory, Run, on};
use crate::database::{Kind, TestDatabase};
use crate::process::{PATIENCE, Server, request};
use crate::service::{Service, Ticket, with};

on_both_databases! {
    of_32_devices_at_three_processes_one_admits,
    one_scan_id_from_16_devices_is_one_scan,
    nobody_is_admitted_by_the_code_of_before_a_transfer,
    nobody_is_admitted_after_a_revocation,
    a_refused_change_leaves_nothing_locked,
}

/// Whatever the service does: if anything but SQLite closed the file in its process, SQLite would lose its locks on it,
/// and another program, believing it is the last to close, would delete the log.
#[tokio::test]
async fn another_program_takes_no_log_from_under_a_service() {
    let (database, directory) = (TestDatabase::create(Kind::Sqlite).await, Directory::new());
    let settings = [
        ("RUST_LOG", "register_ticket_api=debug".to_owned()),
        ("BACKUP_DIR", directory.0.join("backups").display().to_string()),
    ];
    let environment =
        || database.environment().into_iter().chain(settings.clone().map(|(name, value)| (name.to_owned(), value)));
    let mut server = Server::start(environment()).await;
    let organizer = server.organizer();
    organizer.post("/api/events/default/tickets", json!({ "seat": "A-1", "gate": "North" })).await.is(201);
    server.process.terminate();
    server.process.ended(PATIENCE).await;
    let mut server = Server::start(environment()).await;
    server.process.logged("the database has the schema of this release").await;
    let organizer = server.organizer();
    let file = database.owner_url().trim_start_matches("sqlite:").to_owned();
    // Not our SQLite, which leaves the log in place.
    let look = |tickets: &str| {
        let look = "import sqlite3, sys; file = sqlite3.connect(sys.argv[1]); \
                    print(*file.execute('select count(*) from tickets').fetchone()); file.close()";
        let read = Command::new("python3").args(["-c", look, &file]).output().expect("this test needs Python");
        assert_eq!(String::from_utf8_lossy(&read.stdout).trim(), tickets, "{}", String::from_utf8_lossy(&read.stderr));
        assert!(Path::new(&format!("{file}-wal")).exists(), "the service writes on into a file that is gone");
    };
    organizer.post("/api/events/default/tickets", json!({ "seat": "A-2", "gate": "North" })).await.is(201);
    look("2");
    // Starting it makes the day's first backup; each of the others reads or writes the file in its own way.
    server.process.logged("backup taken").await;
    look("2");
    organizer.get("/health?full=1").await.is(200);
    look("2");
    organizer.post_csv("/api/events/default/tickets", "seat,gate,username\nA-3,North,ana\n").await.is(201);
    look("3");
    for list in ["tickets.csv", "scans.csv", "attendance.csv", "manifest", "stats"] {
        assert_eq!(organizer.get(format!("/api/events/default/{list}")).await.status, 200);
        look("3");
    }
    let past = json!({ "slug": "past", "name": "Past", "ends_at": "2020-01-02T00:00:00Z", "forget_after_days": 1 });
    organizer.post("/api/events", past).await.is(201);
    let forget = Run::of(&mut on(&database, &directory, &["forget"]));
    assert!(forget.printed().contains("past"));
    look("3");
    organizer.delete("/api/events/past").await.is(204);
    for command in [&["backup", "--to", "others"][..], &["export", "tickets"], &["check"]] {
        Run::of(&mut on(&database, &directory, command)).printed();
        look("3");
    }
    organizer.post("/api/events/default/tickets", json!({ "seat": "A-4", "gate": "North" })).await.is(201);
    server.process.kill();
    assert_eq!(database.count("select count(*) from tickets").await, 4);
}

/// Scans go to the database together, and one that waited there would delay the others.
#[tokio::test]
async fn a_ticket_that_somebody_is_at_work_on_holds_up_nobody_else() {
    let service = Service::start(Kind::Postgres).await;
    let tickets = tickets(&service, 40).await;
    let scan = |ticket: &Ticket| {
        let (scan, organizer) = (ticket.qr(service.moment(0)), service.organizer.clone());
        let scan = json!({ "scan_id": Uuid::now_v7(), "code": scan });
        tokio::spawn(async move { organizer.post("/api/events/default/scans", scan).await })
    };
    let busy = literal(&service, tickets[20].ticket_id);
    let work = format!("begin; update tickets set version = version + 1 where ticket_id = {busy}");
    service.database.execute(&work).await.expect("the owner may");
    let mut scans: Vec<_> = tickets.iter().map(scan).collect();
    let waiting = scans.remove(20);
    for scan in scans {
        scan.await.expect("it is answered").is_scan(200, "accepted");
    }
    assert!(!waiting.is_finished(), "it cannot know yet");
    service.database.execute("commit").await.expect("it was begun");
    waiting.await.expect("it is answered").is_scan(200, "accepted");
}

/// How often a race is run: its outcome varies.
const ROUNDS: usize = 20;

async fn three_processes(service: &Service) -> [Server; 3] {
    let environment = service.database.environment();
    let (first, second, third) = tokio::join!(
        Server::start(environment.clone()),
        Server::start(environment.clone()),
        Server::start(environment),
    );
    [first, second, third]
}

/// Issues tickets at gate North, each to a user of its own.
pub async fn tickets(service: &Service, count: usize) -> Vec<Ticket> {
    let rows: String = (0..count).map(|number| format!("{number},North,holder-{number}\n")).collect();
    tickets_of(&service.organizer, format!("seat,gate,username\n{rows}")).await
}

/// Imports tickets that all have holders.
pub async fn tickets_of(organizer: &Client, csv: String) -> Vec<Ticket> {
    organizer.post_csv("/api/events/default/tickets", csv).await.is(201);
    let manifest = organizer.get("/api/events/default/manifest").await.is(200);
    let entries = manifest["tickets"].as_array().expect("a list").iter();
    let provisioned = |entry: &Value| json!({ "event": "default", "provisioning": { "secret": entry["key"] } });
    entries.map(|entry| Ticket::new(&with(entry.clone(), provisioned(entry)))).collect()
}

/// A new scan of the code that the phone shows now, by the processes' clock.
pub fn scan_now(ticket: &Ticket) -> Value {
    json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(Millis::now()) })
}

pub fn scan_request(scan: &Value) -> Vec<u8> {
    request("POST", "/api/events/default/scans", "application/json", &scan.to_string())
}

/// Sends requests at the same instant, each on its own connection and to the next process in turn.
fn at_once(servers: &[Server], requests: &[Vec<u8>]) -> Vec<Reply> {
    let barrier = Barrier::new(requests.len());
    let send = |(request, server): (&Vec<u8>, &Server)| {
        let mut connection = server.connect();
        barrier.wait();
        connection.send(request);
        connection.reply("POST").expect("every request is answered")
    };
    std::thread::scope(|scope| {
        let pairs = requests.iter().zip(servers.iter().cycle());
        let threads: Vec<_> = pairs.map(|pair| scope.spawn(move || send(pair))).collect();
        threads.into_iter().map(|thread| thread.join().expect("every request is answered")).collect()
    })
}

fn results(replies: &[Reply], result: &str) -> usize {
    replies.iter().filter(|reply| reply.is(reply.status.as_u16())["result"] == result).count()
}

async fn of_32_devices_at_three_processes_one_admits(service: Service) {
    let ticket = service.ticket("A1").await;
    let servers = three_processes(&service).await;
    let scans: Vec<_> = (0..32).map(|_| scan_request(&scan_now(&ticket))).collect();
    let replies = at_once(&servers, &scans);
    assert_eq!(results(&replies, "accepted"), 1, "{replies:?}");
    assert_eq!(results(&replies, "already_used"), 31, "{replies:?}");
    assert_eq!(service.database.count("select count(*) from scans").await, 32);
    assert_eq!(service.database.count("select count(*) from scans where result = 'accepted'").await, 1);
}

async fn one_scan_id_from_16_devices_is_one_scan(service: Service) {
    let ticket = service.ticket("A1").await;
    let servers = three_processes(&service).await;
    let scan = scan_request(&scan_now(&ticket));
    let replies = at_once(&servers, &vec![scan; 16]);
    assert_eq!(results(&replies, "accepted"), 16, "{replies:?}");
    let replayed = replies.iter().filter(|reply| reply.is(200)["replayed"] == true).count();
    assert_eq!(replayed, 15);
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
}

async fn nobody_is_admitted_by_the_code_of_before_a_transfer(service: Service) {
    service.user("heir").await;
    let servers = three_processes(&service).await;
    for ticket in tickets(&service, ROUNDS).await {
        let id = ticket.ticket_id;
        let path = format!("/api/tickets/{id}/transfer");
        let transfer = request("POST", &path, "application/json", &json!({ "username": "heir" }).to_string());
        let [first, second] = [scan_now(&ticket), scan_now(&ticket)].map(|scan| scan_request(&scan));
        let replies = at_once(&servers, &[first, transfer, second]);
        let scans = [&replies[0], &replies[2]];
        let accepted = scans.iter().filter(|reply| reply.status == 200).count();

        let later = servers[0].organizer().post("/api/events/default/scans", scan_now(&ticket)).await;
        if replies[1].status == 200 {
            // The transfer came first. It has been answered, so no process accepts the old code any more.
            assert_eq!(accepted, 0, "{replies:?}");
            later.is_scan(422, "wrong_code");
            let heir = Ticket::new(&replies[1].is(200));
            servers[2].organizer().post("/api/events/default/scans", scan_now(&heir)).await.is_scan(200, "accepted");
        } else {
            // The scan came first.
            replies[1].is_refused(409, "ticket_used");
            assert_eq!(accepted, 1, "{replies:?}");
            later.is_scan(409, "already_used");
        }
        let accepted =
            format!("select count(*) from scans where ticket_id = {} and result = 'accepted'", literal(&service, id));
        assert_eq!(service.database.count(&accepted).await, 1);
    }
}

async fn nobody_is_admitted_after_a_revocation(service: Service) {
    let servers = three_processes(&service).await;
    for ticket in tickets(&service, ROUNDS).await {
        let revoke = request("POST", &format!("/api/tickets/{}/revoke", ticket.ticket_id), "application/json", "");
        let [first, second] = [scan_now(&ticket), scan_now(&ticket)].map(|scan| scan_request(&scan));
        let replies = at_once(&servers, &[first, revoke, second]);
        let revoked = replies[1].is(200);
        assert_eq!(revoked["status"], "revoked");
        // Any admission came before the revocation, which then found the ticket used.
        let accepted = [&replies[0], &replies[2]].iter().filter(|reply| reply.status == 200).count();
        assert_eq!(accepted, usize::from(!revoked["used_at"].is_null()), "{replies:?}");
        for server in &servers {
            server.organizer().post("/api/events/default/scans", scan_now(&ticket)).await.is_scan(410, "revoked");
        }
    }
}

async fn a_refused_change_leaves_nothing_locked(service: Service) {
    let ticket = service.ticket("A1").await;
    let [first, second, _] = three_processes(&service).await;
    first.organizer().post("/api/events/default/scans", scan_now(&ticket)).await.is_scan(200, "accepted");
    let transfer = format!("/api/tickets/{}/transfer", ticket.ticket_id);
    first.organizer().post(&transfer, json!({ "username": ticket.username })).await.is_refused(409, "ticket_used");
    second.organizer().post("/api/events/default/scans", scan_now(&ticket)).await.is_scan(409, "already_used");
    let revoke = format!("/api/tickets/{}/revoke", ticket.ticket_id);
    second.organizer().post(&revoke, Value::Null).await.is(200);
}

/// An id in the database's syntax.
fn literal(service: &Service, id: Uuid) -> String {
    match service.database.kind {
        crate::database::Kind::Sqlite => format!("x'{}'", id.simple()),
        crate::database::Kind::Postgres => format!("'{id}'"),
    }
}
