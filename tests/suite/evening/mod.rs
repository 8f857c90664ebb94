//! An evening under faults: clients scan, retry, undo, transfer, revoke and read while servers are killed and paused,
//! the database is cut off, crashes or hangs, disks fill up and clocks go wrong. Afterwards a model must explain the
//! answers, ticket by ticket, and rows, counts, lists and metrics must agree.
//!
//! A seed decides the requests, the faults and the order of each; how they interleave is up to the machine.
//! `FAULTS_SEED` repeats one evening; `scripts/faults --minutes N` runs more of them.

mod checker;
mod clients;
mod history;
mod nemesis;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use register_ticket_api::model::ScanResult;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Kind, TestDatabase};
use crate::once::tickets_of;
use crate::process::{Server, within};
use clients::{Book, CLIENTS, Verdict};
use nemesis::{Nemesis, Postgres};

/// The number of servers in an evening.
const SERVERS: usize = 2;
/// Each holder has two.
const TICKETS: usize = 12;
/// The number of evenings per database in the ordinary tests.
const EVENINGS: u64 = 20;

/// The seeds of this run.
fn seeds() -> Box<dyn Iterator<Item = u64>> {
    let number = |name: &str| {
        std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is no number")))
    };
    if let Some(seed) = number("FAULTS_SEED") {
        return Box::new(std::iter::once(seed));
    }
    let Some(minutes) = number("FAULTS_MINUTES") else { return Box::new(1..=EVENINGS) };
    let (started, mut first) = (Instant::now(), fastrand::Rng::new());
    let rest = Duration::from_secs(60 * minutes);
    Box::new(std::iter::repeat_with(move || first.u64(..1_000_000)).take_while(move |_| started.elapsed() < rest))
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_sqlite_whatever_fails_what_was_told_can_be_explained() {
    for seed in seeds() {
        let database = TestDatabase::create(Kind::Sqlite).await;
        evening(&database, None, seed).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn on_postgresql_whatever_fails_what_was_told_can_be_explained() {
    let postgres = Postgres::start();
    for seed in seeds() {
        let database = TestDatabase::create_on(postgres.directory()).await;
        evening(&database, Some(&postgres), seed).await;
    }
}

async fn evening(database: &TestDatabase, postgres: Option<&Postgres>, seed: u64) {
    let started = Instant::now();
    eprintln!("{:?}: FAULTS_SEED={seed} has this evening again", database.kind);
    let reentry = seed.is_multiple_of(2);
    // The evening is prepared and inspected through a server without faults.
    let office = Server::start(database.environment()).await;
    let organizer = office.organizer();
    let mut nemesis = Nemesis::start(database, postgres).await;
    let (book, keys) = prepare(&organizer, reentry, nemesis.addresses()).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let go = |key| {
        let mut person = clients::Client::new(Arc::clone(&book), key, random.u64(..));
        std::thread::spawn(move || {
            person.run();
            person
        })
    };
    let threads: Vec<_> = keys.into_iter().map(go).collect();
    nemesis.trouble(&book, random.u64(..)).await;
    let last = tokio::task::spawn_blocking(|| {
        let people = threads.into_iter().map(|thread| thread.join().expect("no client panics"));
        people.last().expect("there are clients")
    });
    let mut last = last.await.expect("no client panics");
    nemesis.rest().await;
    within(crate::process::PATIENCE, "the database is used again", async || {
        (organizer.get("/health?full=1").await.status == 200).then_some(())
    })
    .await;
    book.ask_only(office.address);
    tokio::task::spawn_blocking(move || last.end()).await.expect("no client panics");

    let histories = book.histories();
    for (ticket, operations) in &histories {
        let explained = checker::check(&history::Ticket::new(reentry), operations);
        explained.unwrap_or_else(|why| panic!("seed {seed}, ticket {ticket}: {why}"));
    }
    let operations: usize = histories.values().map(Vec::len).sum();
    let lost = histories.values().flatten().filter(|operation| operation.told.is_none()).count();
    let rows = scans(&organizer).await;
    each_scan_has_one_verdict(&book.verdicts(), &rows);
    the_numbers_agree(&organizer, &rows, book.size()).await;
    for number in 0..SERVERS {
        metrics_agree(&nemesis.server(number).organizer(), nemesis.server(number).address, &book, &rows).await;
    }
    eprintln!(
        "  {operations} operations, {lost} without an answer, {} scans on record, {:?}",
        rows.len(),
        started.elapsed()
    );
}

/// Creates tickets, people and keys.
async fn prepare(organizer: &Client, reentry: bool, servers: Vec<SocketAddr>) -> (Arc<Book>, Vec<String>) {
    let reentry = if reentry { "after_exit" } else { "none" };
    let event = json!({ "reentry": reentry, "walk_ups": true, "walk_up_price": 500, "currency": "EUR" });
    organizer.patch("/api/events/default", event).await.is(200);
    organizer.post("/api/users", json!({ "username": "heir" })).await.is(201);
    let rows: String = (0..TICKETS).map(|number| format!("T{number:02},North,holder-{}\n", number / 2)).collect();
    let mut tickets = tickets_of(organizer, format!("seat,gate,username\n{rows}")).await;
    tickets.sort_by(|one, other| one.seat.cmp(&other.seat));
    let mut keys = Vec::new();
    for number in 0..CLIENTS {
        let key =
            json!({ "name": format!("device {number}"), "role": "supervisor", "event": "default", "offline": true });
        let key = organizer.post("/api/keys", key).await.is(201);
        keys.push(key["key"].as_str().expect("a new key is shown").to_owned());
    }
    (Arc::new(Book::new(tickets, servers)), keys)
}

/// A row of `scans.csv`.
struct Row {
    ticket_id: Option<Uuid>,
    result: String,
    is_entry: bool,
    undone: bool,
}

async fn table(organizer: &Client, list: &str) -> Vec<HashMap<String, String>> {
    let reply = organizer.get(format!("/api/events/default/{list}.csv")).await;
    assert_eq!(reply.status, 200, "{list}");
    let text = reply.text();
    let mut reader = csv::Reader::from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    reader.deserialize().map(|line| line.expect("what is exported is CSV")).collect()
}

async fn scans(organizer: &Client) -> HashMap<Uuid, Row> {
    let id = |text: &str| text.parse().ok();
    let row = |line: HashMap<String, String>| {
        let row = Row {
            ticket_id: id(&line["ticket_id"]),
            result: line["result"].clone(),
            is_entry: line["direction"] == "entry",
            undone: !line["undone_at"].is_empty(),
        };
        (id(&line["scan_id"]).expect("a scan has an id"), row)
    };
    table(organizer, "scans").await.into_iter().map(row).collect()
}

/// All answers to a scan agree with its row.
fn each_scan_has_one_verdict(verdicts: &[Verdict], rows: &HashMap<Uuid, Row>) {
    for verdict in verdicts {
        let row = rows.get(&verdict.scan_id).unwrap_or_else(|| panic!("{verdict:?} is lost"));
        let is_so = match verdict.result {
            ScanResult::Undone => row.result == "accepted" && row.undone,
            result => row.result == result.as_str(),
        };
        assert!(is_so && row.ticket_id == Some(verdict.ticket_id), "{verdict:?} is {} on record", row.result);
    }
}

/// The statistics, the lists and the manifest agree with the tickets and scans.
async fn the_numbers_agree(organizer: &Client, rows: &HashMap<Uuid, Row>, made: usize) {
    let list = organizer.get("/api/events/default/tickets?limit=500").await.is(200);
    let tickets = list["tickets"].as_array().expect("a list");
    let count = |is: &dyn Fn(&Value) -> bool| tickets.iter().filter(|ticket| is(ticket)).count() as i64;
    let rows_that = |is: &dyn Fn(&Row) -> bool| rows.values().filter(|row| is(row)).count() as i64;
    let stats = organizer.get("/api/events/default/stats").await.is(200);
    let number = |name: &str| stats[name].as_i64().unwrap_or_default();

    let walk_ups = count(&|ticket| ticket["walk_up"] == true);
    assert_eq!(tickets.len() as i64, made as i64 + walk_ups);
    assert_eq!(number("walk_ups"), walk_ups);
    assert_eq!(number("cash"), 500 * walk_ups);
    assert_eq!(number("admitted"), count(&|ticket| !ticket["used_at"].is_null()));
    let inside = count(&|ticket| ticket["inside"] == true);
    assert_eq!(number("inside"), inside);
    assert_eq!(table(organizer, "inside").await.len() as i64, inside);
    let attendance = table(organizer, "attendance").await;
    assert_eq!(attendance.iter().filter(|line| line["attendance"] == "came").count() as i64, number("admitted"));
    assert_eq!(number("undone"), rows_that(&|row| row.undone));
    let refused = stats["refused"].as_object().expect("counts by verdict");
    for (result, refused) in refused {
        assert_eq!(refused.as_i64(), Some(rows_that(&|row| row.result == *result)), "{result}");
    }
    let all: i64 = refused.values().filter_map(Value::as_i64).sum();
    assert_eq!(all, rows_that(&|row| row.result != "accepted"));
    let arrivals = stats["arrivals"].as_array().expect("counts by minute").iter();
    let arrivals: i64 = arrivals.filter_map(|minute| minute["admitted"].as_i64()).sum();
    assert_eq!(arrivals, rows_that(&|row| row.result == "accepted" && row.is_entry && !row.undone));

    let manifest = organizer.get("/api/events/default/manifest").await.is(200);
    for entry in manifest["tickets"].as_array().expect("a list") {
        let ticket =
            tickets.iter().find(|ticket| ticket["ticket_id"] == entry["ticket_id"]).expect("it is in the list");
        for name in ["status", "inside", "seat"] {
            if !entry[name].is_null() {
                assert_eq!(entry[name], ticket[name], "{entry}");
            }
        }
    }
}

/// A server's metrics count every admission that it answered, and none that has no row.
async fn metrics_agree(server: &Client, address: SocketAddr, book: &Book, rows: &HashMap<Uuid, Row>) {
    let metrics = server.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    let counted = metrics.lines().find_map(|line| line.strip_prefix("scans_total{result=\"accepted\"} "));
    let counted: usize = counted.map_or(0, |count| count.parse().expect("a number"));
    let told =
        |verdict: &&Verdict| verdict.server == address && verdict.result == ScanResult::Accepted && !verdict.replayed;
    let told = book.verdicts().iter().filter(told).count();
    let kept = rows.values().filter(|row| row.result == "accepted").count();
    assert!((told..=kept).contains(&counted), "{told} ≤ {counted} ≤ {kept}");
}
