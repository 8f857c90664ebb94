//! What changes when there are many tickets: scans, an import, a manifest, the statistics.

use std::time::{Duration, Instant};

use crate::client::{Clients, Until, ask, percentile, request};
use crate::process::{ORGANIZER_KEY, Server, forget_peak, memory};
use crate::report::{Report, Table, median, milliseconds};
use crate::store::Store;
use crate::tickets::{self, Tickets};

const FEW: usize = 1_000;
const MANY: usize = 1_000_000;
const MANIFEST: usize = 50_000;
const ROUNDS: usize = 5;
/// Scans are short, so more of them are worth their time.
const SCAN_ROUNDS: usize = 9;

pub async fn measure(report: &mut Report) {
    let mut scans = Table::new(&["p50 of a scan", "1,000 tickets, ms", "1,000,000 tickets, ms", "ratio"]);
    let mut others = Table::new(&["", "PostgreSQL", "SQLite"]);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for store in Store::both("many") {
        let plain = plain_import(&store).await;
        if store.postgres.is_some() {
            report.at_most("CSV import of 100,000 tickets, PostgreSQL", 5.0, plain.as_secs_f64(), " s");
        }
        let server = store.serve(5);
        let imports = tickets::import(&server, "default", MANY).await;
        store.settle();
        let times = [plain, imports[0], median(&imports)];
        let mut cells = times.map(|time| format!("{:.2} s", time.as_secs_f64())).to_vec();
        let many = Tickets::of(&server, "default").await;
        drop(server);

        compare_scans(report, &mut scans, &store, &many).await;

        let server = store.serve(5);
        tickets::create_event(&server, "manifest").await;
        tickets::import(&server, "manifest", MANIFEST).await;
        drop(server);
        for coding in ["identity", "gzip"] {
            let (time, growth, size) = manifest(&store, coding).await;
            cells.push(format!("{:.2} s, {size:.1} MiB sent", time.as_secs_f64()));
            cells.push(format!("{growth:.1} MiB"));
            let name = format!("manifest of 50,000 tickets, {}, {coding}", store.kind);
            report.at_most(&name, 1.0, time.as_secs_f64(), " s");
            report.at_most(&format!("memory grown by the {name}"), 8.0, growth, " MiB");
        }
        cells.push(format!("{:.0} ms", milliseconds(statistics(&store).await)));
        rows.push(cells);
    }
    let names = [
        "import of 100,000 tickets, `seat,gate`, as CSV, into an empty database, median",
        "import of 100,000 tickets, each with a new user, into an empty database",
        "the same, median of the ten that make 1,000,000",
        "manifest of 50,000 tickets, to its last byte",
        "growth of the service's resident memory by it, at its peak",
        "the same manifest, gzip",
        "growth of the service's resident memory by it, at its peak",
        "statistics of an event with 1,000,000 tickets",
    ];
    for (place, name) in names.into_iter().enumerate() {
        others.row([name, &rows[0][place], &rows[1][place]]);
    }
    report.section("Growth", format!("{scans}\n{others}"));
}

/// An empty database of the same kind.
fn empty_like(store: &Store, name: &str) -> Store {
    if store.postgres.is_some() { Store::postgres(name) } else { Store::sqlite(name) }
}

/// How long an import of tickets that nobody holds yet takes, each into a database of its own.
async fn plain_import(like: &Store) -> Duration {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let store = empty_like(like, &format!("plain_{round}"));
        times.push(tickets::import_unheld(&store.serve(5), "default").await);
    }
    median(&times)
}

/// The same few scans in a database that holds nothing else and in the one that holds many tickets, in turns.
async fn compare_scans(report: &mut Report, table: &mut Table, large: &Store, many: &Tickets) {
    let mut small = Vec::new();
    for round in 0..SCAN_ROUNDS {
        let store = empty_like(large, &format!("few_{round}"));
        let server = store.serve(5);
        tickets::import(&server, "default", FEW).await;
        store.settle();
        let tickets = Tickets::of(&server, "default").await;
        small.push((store, tickets));
    }
    // Of each the round that was disturbed least: what else happens on the machine only ever makes slower.
    let mut best = [Duration::MAX; 4];
    for (store, few) in &small {
        for (place, store, tickets) in [(0, store, few), (1, large, many)] {
            let server = store.serve(5);
            let [one, eight] = scans(&server, tickets).await;
            best[place] = best[place].min(one);
            best[place + 2] = best[place + 2].min(eight);
        }
    }
    for (clients, [few, many]) in [("1 client", [best[0], best[1]]), ("8 clients", [best[2], best[3]])] {
        let [few, many] = [few, many].map(milliseconds);
        let name = format!("{}, {clients}", large.kind);
        table.row([name.clone(), format!("{few:.2}"), format!("{many:.2}"), format!("{:.2}", many / few)]);
        report.at_most(&format!("p50 at 1,000,000 tickets relative to 1,000, {name}"), 1.2, many / few, "");
    }
}

/// The p50 with one client and with eight, of as many scans as few tickets allow.
async fn scans(server: &Server, tickets: &Tickets) -> [Duration; 2] {
    let until = |scans| Until { scans, time: Duration::from_secs(60) };
    Clients::connect(server, 8).await.scan(tickets, until(100)).await;
    let one = Clients::connect(server, 1).await.scan(tickets, until(400)).await;
    let eight = Clients::connect(server, 8).await.scan(tickets, until(500)).await;
    [one, eight].map(|outcome| percentile(&outcome.latencies, 50))
}

/// Downloads a manifest: how long, how much memory, how many bytes in MiB.
async fn manifest(store: &Store, coding: &str) -> (Duration, f64, f64) {
    let download = request("GET", "/api/events/manifest/manifest", ORGANIZER_KEY, "", b"");
    let accepting = format!("\r\naccept-encoding: {coding}\r\n\r\n");
    let download = [&download[..download.len() - 4], accepting.as_bytes()].concat();
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let server = store.serve(5);
        // Opens the pool, so that this is not counted.
        ask(&server, "GET", "/api/events/manifest", "", b"").await;
        let mut connection = server.connect().await;
        let before = memory(server.pid()).resident;
        forget_peak(server.pid());
        let started = Instant::now();
        let answer = connection.exchange(&download).await.expect("a manifest");
        let time = started.elapsed();
        let size = answer.body.len() as f64 / 1024.0 / 1024.0;
        all.push((time, memory(server.pid()).peak - before, size));
    }
    median(&all)
}

/// How long the statistics of many tickets take.
async fn statistics(store: &Store) -> Duration {
    let server = store.serve(5);
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        ask(&server, "GET", "/api/events/default/stats", "", b"").await;
        times.push(started.elapsed());
    }
    median(&times)
}
