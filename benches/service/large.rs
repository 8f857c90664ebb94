//! Measures ten million tickets in one event, and scans beside boards, an export and a manifest of a million.
//!
//! Importing that many would take half an hour, so they are written with SQL, in the state an import leaves.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, SqliteConnection};

use crate::client::{ask, request};
use crate::growth::{asking, compare_scans};
use crate::imports::{During, scans_during, shown};
use crate::process::{ORGANIZER_KEY, Server};
use crate::report::{Report, Table, median, milliseconds};
use crate::store::Store;
use crate::tickets::{SEED, Tickets};

const MANY: usize = 10_000_000;
const MILLION: usize = 1_000_000;
/// Enough for all scans of one database.
const SCANNED: usize = 200_000;
const BOARDS: u32 = 10;
/// How often a board polls.
const EVERY: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
const ALONE: Duration = Duration::from_secs(15);

const ASKED: [[&str; 2]; 5] = [
    ["list of tickets, the first page", "tickets"],
    ["search for a word that all have", "tickets?q=person"],
    ["search for a word that none has", "tickets?q=nobody"],
    ["list of the revoked, which are none", "tickets?status=revoked"],
    ["list of scans that were refused or undone", "incidents"],
];

/// Ten million tickets in one event.
pub async fn measure(report: &mut Report) {
    let mut scans = Table::new(&["p50 of a scan", "1,000 tickets, ms", "10,000,000 tickets, ms", "ratio of a turn"]);
    let mut answers = Table::new(&["10,000,000 tickets", "PostgreSQL", "SQLite"]);
    let mut rows = Vec::new();
    for store in Store::both("ten") {
        fill(&store, "ten", MANY).await;
        compare_scans(report, &mut scans, &store, &Tickets::written("ten", MANY, SCANNED), "10,000,000").await;
        rows.push(answered(&store).await);
    }
    let names = ["statistics, counted", "statistics, told again"].into_iter().chain(ASKED.map(|[name, _]| name));
    for (place, name) in names.enumerate() {
        answers.row([name, &rows[0][place], &rows[1][place]]);
    }
    report.section("Ten million tickets", format!("{scans}\n{answers}"));
}

/// Measures scans of an event with a million tickets beside heavy readers.
pub async fn measure_beside(report: &mut Report) {
    let mut beside =
        Table::new(&["scans of an event with 1,000,000 tickets", "time", "scans", "p50 ms", "p99 ms", "longest ms"]);
    for store in Store::both("million") {
        fill(&store, "million", MILLION).await;
        statistics(report, &store).await;
        scans_beside(report, &mut beside, &store, &Tickets::written("million", MILLION, SCANNED)).await;
    }
    let load = format!(
        "8 clients that pause for 20 ms between two scans, alone and beside {BOARDS} boards, each of which asks every {} s, a \
         manifest and `tickets.csv` of the same event.",
        EVERY.as_secs()
    );
    report.section("Scans beside those who read much", format!("{load}\n\n{beside}"));
}

/// Measures requests about ten million tickets, with a minute for each answer.
async fn answered(store: &Store) -> Vec<String> {
    let server = store.serve_patiently();
    let [counted, again] = counted(&server, "ten").await;
    let mut cells = vec![format!("{:.1} s", counted.as_secs_f64()), format!("{:.1} ms", milliseconds(again))];
    for [_, path] in ASKED {
        let time = asking(&server, &format!("/api/events/ten/{path}")).await;
        cells.push(format!("{:.0} ms", milliseconds(time)));
    }
    cells
}

/// Measures how long the statistics take when first counted, and when answered again.
async fn counted(server: &Server, event: &str) -> [Duration; 2] {
    ask(server, "GET", &format!("/api/events/{event}"), "", b"").await;
    let path = format!("/api/events/{event}/stats");
    let started = Instant::now();
    ask(server, "GET", &path, "", b"").await;
    [started.elapsed(), asking(server, &path).await]
}

async fn statistics(report: &mut Report, store: &Store) {
    let [counted, again] = counted(&store.serve(5), "million").await;
    eprintln!("{}: statistics of 1,000,000 tickets counted in {:.0} ms", store.kind, milliseconds(counted));
    let name = format!("statistics of 1,000,000 tickets that were counted lately, {}", store.kind);
    report.at_most(&name, 50.0, milliseconds(again), " ms");
}

/// Measures scans alone and beside heavy readers, in turns so that both see the same noise.
async fn scans_beside(report: &mut Report, table: &mut Table, store: &Store, tickets: &Tickets) {
    let server = store.serve(5);
    let mut turns = Vec::new();
    for _ in 0..ROUNDS {
        let alone = scans_during(&server, tickets, tokio::time::sleep(ALONE)).await;
        let beside = scans_during(&server, tickets, readers(&server)).await;
        turns.push([alone, beside]);
    }
    let p99 = |during: &During| crate::client::percentile(&during.latencies, 99).as_secs_f64();
    let ratio = median(&turns.iter().map(|[alone, beside]| p99(beside) / p99(alone)).collect::<Vec<_>>());
    for [alone, beside] in &turns {
        table.row(shown(&format!("{}, alone", store.kind), alone));
        table.row(shown(&format!("{}, beside readers", store.kind), beside));
    }
    let name =
        format!("p99 of scans beside ten boards, an export and a manifest of 1,000,000, {}, to that alone", store.kind);
    report.at_most(&name, 2.0, ratio, "");
}

/// Runs ten boards that poll until a manifest and an export have been fully read.
async fn readers(server: &Server) {
    let have_ended = &Cell::new(false);
    let boards = join_all((0..BOARDS).map(|board| async move {
        tokio::time::sleep(EVERY * board / BOARDS).await;
        while !have_ended.get() {
            ask(server, "GET", "/api/events/million/stats", "", b"").await;
            tokio::time::sleep(EVERY).await;
        }
    }));
    let lists = async {
        join(download(server, "manifest"), download(server, "tickets.csv")).await;
        have_ended.set(true);
    };
    join(boards, lists).await;
}

async fn download(server: &Server, list: &str) {
    let request = request("GET", &format!("/api/events/million/{list}"), ORGANIZER_KEY, "", b"");
    let started = Instant::now();
    let bytes = server.connect().await.download(&request).await.expect("a list to its last byte");
    eprintln!("{list}: {:.1} s, {} MiB", started.elapsed().as_secs_f64(), bytes / 1024 / 1024);
}

/// Writes an event with tickets, each with its own user, as an import does.
async fn fill(store: &Store, event: &str, tickets: usize) {
    let statements = statements(store.postgres.is_some(), event, tickets);
    match &store.postgres {
        Some(database) => drop(database.psql(&format!("set synchronous_commit = off; {statements}"))),
        None => {
            drop(store.serve(5).connect().await); // creates the file
            ask(&store.serve(5), "GET", "/api/events/default", "", b"").await;
            let mut connection = SqliteConnection::connect(store.url()).await.expect("the file is there");
            let hurry = "pragma synchronous = off; pragma cache_size = -2000000";
            for sql in [hurry, &*statements, "pragma wal_checkpoint(truncate)"] {
                connection.execute(AssertSqlSafe(sql.to_owned())).await.expect("it is written");
            }
        }
    }
    store.settle();
}

fn statements(is_postgres: bool, event: &str, tickets: usize) -> String {
    let last = tickets - 1;
    let id = |kind: u8| match is_postgres {
        true => format!("('1' || lpad(to_hex(n), 7, '0') || '-0000-7000-{kind}000-000000000000')::uuid"),
        false => format!("unhex(printf('1%07x00007000{kind}000000000000000', n))"),
    };
    let (series, bytes) = match is_postgres {
        true => (format!("generate_series(0, {last}) as n"), format!("decode('{}', 'hex')", hex(&SEED))),
        false => (
            format!(
                "(with recursive s (n) as (select 0 union all select n + 1 from s where n < {last}) select n from s)"
            ),
            format!("x'{}'", hex(&SEED)),
        ),
    };
    let event_id = match is_postgres {
        true => "'1fffffff-0000-7000-8000-000000000000'::uuid",
        false => "x'1fffffff000070008000000000000000'",
    };
    let [ticket_id, user_id] = [8, 9].map(id);
    let text = |value: &str| format!("cast({value} as text)");
    let (seat, gate) = (text("n"), text("n % 4"));
    let words = format!("n || ' person number ' || n || ' {event} ' || n || '|person ' || n || ' {event} example'");
    format!(
        "begin; insert into events (event_id, slug, name, created_at) values ({event_id}, '{event}', 'Benchmark', 0); \
         insert into actions (action_id, at, action, event_id, count) values ({event_id}, 0, 'issued', {event_id}, {tickets}); \
         insert into users (user_id, username, full_name, email, created_at, issue_id) select {user_id}, '{event}-' || n, \
         'Person Number ' || n, 'person-' || n || '@{event}.example', 0, {event_id} from {series}; \
         insert into tickets (ticket_id, event_id, user_id, seat, gate, seed, created_at, changed_at, registered_at, issue_id, \
         search, seat_key, gate_key) select {ticket_id}, {event_id}, {user_id}, {seat}, {gate}, {bytes}, 0, 0, 0, {event_id}, \
         {words}, {seat}, {gate} from {series}; commit"
    )
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
