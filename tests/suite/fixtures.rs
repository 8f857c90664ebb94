//! Data of earlier releases, in `tests/fixtures`: each database and backup is opened, migrated, restored and used by
//! today's code. `scripts/make-fixtures` creates them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use register_ticket_api::model::{Millis, ScanResult};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::commands::{Directory, Run, on};
use crate::database::{Kind, Rows, TestDatabase};
use crate::process::{PATIENCE, Server, within};
use crate::service::{Service, TestClock, Ticket};

on_both_databases! {
    the_database_of_every_release_is_migrated_and_used,
    the_backup_of_every_release_is_restored_and_used,
}

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// The one exception to "keys, links, paper and replays go on": links were derived from the keys of codes, which
/// manifests contain, and became invalid with 0.2.0.
const LINKS_THAT_DIED: &[&str] = &["0.1.0"];

/// The content of `evening.json`.
#[derive(Deserialize)]
struct Evening {
    version: String,
    ticket_secret: String,
    public_url: String,
    made_at: String,
    /// By name: an organizer's is `office`.
    keys: Map<String, Value>,
    /// The request with which a device gets the key `offered`.
    offered: Value,
    /// The answers that provisioned the tickets, by seat; the seat says what happened to the ticket.
    tickets: Map<String, Value>,
    printed: String,
    /// The link of a ticket's page, before the ticket was transferred.
    old_link: String,
    asked: Vec<Asked>,
}

impl Evening {
    fn links_died(&self) -> bool {
        LINKS_THAT_DIED.contains(&&*self.version)
    }
}

/// A request that has no effect any more, and its answer.
#[derive(Clone, Deserialize)]
struct Asked {
    status: u16,
    key: String,
    method: String,
    path: String,
    body: Value,
    answer: Value,
}

/// The fixtures of one kind of database, one directory per release.
fn releases(kind: Kind) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(FIXTURES).expect("tests/fixtures is there");
    let releases = entries.map(|entry| entry.expect("an entry").path());
    releases.map(|release| release.join(if kind == Kind::Sqlite { "sqlite" } else { "postgres" })).collect()
}

#[test]
fn this_release_has_fixtures() {
    let evening = read(&Path::new(FIXTURES).join(env!("CARGO_PKG_VERSION")).join("sqlite"));
    assert_eq!(evening.version, env!("CARGO_PKG_VERSION"));
}

fn read(folder: &Path) -> Evening {
    let file =
        std::fs::read(folder.join("evening.json")).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    serde_json::from_slice(&file).expect("scripts/make-fixtures wrote it")
}

async fn the_database_of_every_release_is_migrated_and_used(service: Service) {
    let directory = Directory::new();
    for folder in releases(service.database.kind) {
        let database = TestDatabase::create_empty(service.database.kind).await;
        match database.kind {
            Kind::Sqlite => {
                let url = database.url();
                let file = url.strip_prefix("sqlite:").expect("a file");
                std::fs::copy(folder.join("tickets.db"), file).expect("it can be copied");
            }
            Kind::Postgres => {
                let mut program = Command::new("pg_restore");
                program.args(["--exit-on-error", "--no-owner", "--dbname", &database.owner_url()]);
                Run::of(program.arg(folder.join("tickets.dump"))).printed();
            }
        }
        Run::of(&mut on(&database, &directory, &["migrate"])).printed();
        Run::of(&mut on(&database, &directory, &["check"])).printed();
        is_of_use(database, read(&folder)).await;
    }
}

async fn the_backup_of_every_release_is_restored_and_used(service: Service) {
    let directory = Directory::new();
    for folder in releases(service.database.kind) {
        let database = TestDatabase::create_empty(service.database.kind).await;
        let evening = read(&folder);
        let name = if database.kind == Kind::Sqlite { "backup.db.gz" } else { "backup.dump.gz" };
        let mut restore = on(&database, &directory, &["restore"]);
        let said = Run::of(restore.arg(folder.join(name)).env("TICKET_SECRET", &evening.ticket_secret)).printed();
        assert!(said.contains("TICKET_SECRET   fits"), "{said}");
        Run::of(&mut on(&database, &directory, &["migrate"])).printed();
        Run::of(&mut on(&database, &directory, &["check"])).printed();
        is_of_use(database, evening).await;
    }
}

/// Two minutes later: the codes of the evening's last scans have expired, and the enrolment is still valid.
async fn is_of_use(database: TestDatabase, evening: Evening) {
    let clock = TestClock::at(Millis::parse(&evening.made_at).expect("a time") + Duration::from_mins(2));
    let database = Arc::new(database);
    let settings = [("TICKET_SECRET", &*evening.ticket_secret), ("PUBLIC_URL", &*evening.public_url)];
    let service = Service::on(Arc::clone(&database), clock.clone(), &settings);
    what_was_asked_is_answered_the_same(&service.anonymous, &evening).await;
    keys_are_good_or_not_as_before(&service, &evening).await;
    tickets_admit_or_not_as_before(&service, &evening).await;
    pages_are_where_they_were(&service, &evening).await;

    // Without the secret no ticket is admitted or created.
    let without = Service::on(database, clock, &[]);
    let scan = json!({ "scan_id": Uuid::now_v7(), "seat": "valid", "gate": "North", "totp_code": "123456" });
    without.organizer.post("/api/events/gala/scans", scan).await.is_refused(503, "ticket_secret_mismatch");
}

fn with_key(client: &Client, evening: &Evening, name: &str) -> Client {
    client.with_key(evening.keys[name].as_str().expect("a key is a text"))
}

async fn what_was_asked_is_answered_the_same(client: &Client, evening: &Evening) {
    assert!(evening.asked.len() > 30);
    for asked in &evening.asked {
        let Asked { status, key, method, path, body, answer } = &as_told_since_0_2(asked.clone());
        let client = with_key(client, evening, key);
        let reply = match &**method {
            "GET" => client.get(path).await,
            "POST" if body.is_null() => client.bare(http::Method::POST, path).await,
            "POST" => client.post(path, body.clone()).await,
            method => panic!("{method}"),
        };
        let (now, mut then) = (reply.is(*status), answer.clone());
        if let Some(dead) =
            then.as_object_mut().filter(|_| evening.links_died()).and_then(|then| then.remove("ticket_url"))
        {
            assert_ne!(now["ticket_url"], dead);
        }
        assert_contains(&now, &then, path);
    }
}

/// Removes what 0.1.0 returned and later releases do not: a ticket's details beyond seat and gate after a wrong code,
/// and `accepted` for a scan that was undone.
fn as_told_since_0_2(mut asked: Asked) -> Asked {
    if asked.path.ends_with("/scans") && asked.answer["undone_at"].is_string() {
        (asked.status, asked.answer["result"]) = (409, json!("undone"));
    }
    let hide = |scan: &mut Value| {
        let result = scan["result"].as_str().and_then(|word| word.parse::<ScanResult>().ok());
        let ticket = scan.get_mut("ticket").and_then(Value::as_object_mut);
        if let (Some(ticket), Some(false)) = (ticket, result.map(ScanResult::needs_the_code)) {
            ticket.retain(|name, _| ["ticket_id", "event", "seat", "gate"].contains(&name.as_str()));
        }
    };
    hide(&mut asked.answer);
    asked.answer.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten().for_each(hide);
    asked
}

/// A later release may return more, and word its messages differently.
#[track_caller]
fn assert_contains(now: &Value, then: &Value, place: &str) {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            for (name, then) in then.iter().filter(|(name, _)| !["message", "detail"].contains(&name.as_str())) {
                let now = now.get(name).unwrap_or_else(|| panic!("{place}.{name} is gone"));
                assert_contains(now, then, &format!("{place}.{name}"));
            }
        }
        (Value::Array(now), Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{place}");
            for (number, (now, then)) in now.iter().zip(then).enumerate() {
                assert_contains(now, then, &format!("{place}[{number}]"));
            }
        }
        _ => assert_eq!(now, then, "{place}"),
    }
}

async fn keys_are_good_or_not_as_before(service: &Service, evening: &Evening) {
    let stats = "/api/events/gala/stats";
    for (name, status) in [("office", 200), ("supervisor", 200), ("gate", 200), ("enrolled", 200), ("expired", 401)] {
        with_key(&service.anonymous, evening, name).get(stats).await.is(status);
    }
    let offline = with_key(&service.anonymous, evening, "north").get("/api/events/gala/manifest").await.is(200);
    assert_eq!(offline["tickets"].as_array().map(Vec::len), Some(11));
    let enrolled = service.anonymous.post("/api/enrol", evening.offered.clone()).await.is(200);
    let enrolled = service.anonymous.with_key(enrolled["key"].as_str().expect("a key is a text"));
    enrolled.get(stats).await.is(200);
    with_key(&service.anonymous, evening, "offered").get(stats).await.is(401);
}

async fn tickets_admit_or_not_as_before(service: &Service, evening: &Evening) {
    let gate = with_key(&service.anonymous, evening, "gate");
    let show = async |event: &str, code: String| -> Reply {
        let scan = json!({ "scan_id": Uuid::now_v7(), "code": code });
        gate.post(format!("/api/events/{event}/scans"), scan).await
    };
    let show_ticket =
        async |event: &str, seat: &str| show(event, Ticket::new(&evening.tickets[seat]).qr(service.now())).await;
    for seat in ["valid", "outside", "transferred", "reissued", "undone"] {
        show_ticket("gala", seat).await.is_scan(200, "accepted");
    }
    for seat in ["inside", "returned", "offline"] {
        show_ticket("gala", seat).await.is_scan(409, "already_used");
    }
    show_ticket("gala", "revoked").await.is_scan(410, "revoked");
    for seat in ["typed", "paper"] {
        show_ticket("default", seat).await.is_scan(409, "already_used");
    }
    show("gala", evening.printed.clone()).await.is_scan(200, "accepted");
    show("gala", evening.printed.clone()).await.is_scan(409, "already_used");
    let office = with_key(&service.anonymous, evening, "office");
    let free = json!({ "event": "gala", "seat": "free", "gate": "North" });
    let registered = office.post("/api/users/ana/tickets", free).await.is(201);
    show("gala", Ticket::new(&registered).qr(service.now())).await.is_scan(200, "accepted");
}

async fn pages_are_where_they_were(service: &Service, evening: &Evening) {
    let page = async |link: &Value| {
        let link = link.as_str().expect("a link is a text");
        let (_, path) = link.split_once("/t/").expect("it ends with the token");
        service.anonymous.get(format!("/t/{path}")).await
    };
    let sent = &evening.tickets["valid"]["provisioning"]["ticket_url"];
    let now = if evening.links_died() {
        assert_eq!(page(sent).await.status, 404);
        let ticket_id = evening.tickets["valid"]["ticket_id"].as_str().expect("a ticket has an id");
        let link = with_key(&service.anonymous, evening, "office").get(format!("/api/tickets/{ticket_id}/link")).await;
        link.is(200)["ticket_url"].clone()
    } else {
        sent.clone()
    };
    let shown = page(&now).await;
    assert_eq!(shown.status, 200);
    assert!(shown.text().contains("Spring Gala") && shown.text().contains("Ana Ruiz"), "{}", shown.text());
    assert_eq!(page(&json!(evening.old_link)).await.status, 404);
}

/// Not only `migrate` or the first search may do it: people type seats at the door.
#[tokio::test(flavor = "multi_thread")]
async fn serve_brings_a_file_of_an_earlier_release_to_this_one() {
    for folder in releases(Kind::Sqlite) {
        let database = TestDatabase::create_empty(Kind::Sqlite).await;
        let url = database.url();
        let file = url.strip_prefix("sqlite:").expect("a file");
        std::fs::copy(folder.join("tickets.db"), file).expect("it can be copied");
        let mut environment = database.environment();
        environment.push(("TICKET_SECRET".to_owned(), read(&folder).ticket_secret));
        let _server = Server::start(environment).await;
        let prepared = async || {
            let mut rows = Rows::open(&url).await;
            let columns = "select count(*) from pragma_table_info('tickets') where name in ('search', 'seat_key')";
            let left = "select count(*) from tickets where search is null or seat_key is null";
            (rows.count(columns).await == 2 && rows.count(left).await == 0).then_some(())
        };
        within(PATIENCE, "its tickets are found as people type their seats", prepared).await;
    }
}
