//! Compares many tickets with few: scans, an import, a manifest, lists.

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
/// Scans are short, so there is time for more rounds.
const SCAN_ROUNDS: usize = 9;
const SCAN_TURNS: [Turns; 2] =
    [Turns { clients: 1, in_a_round: 16, scans_each: 25 }, Turns { clients: 8, in_a_round: 5, scans_each: 100 }];
const WARM_UP: usize = 40;

/// How clients take turns. Scans and warm-up together use at most `FEW` tickets.
struct Turns {
    clients: usize,
    in_a_round: usize,
    scans_each: usize,
}

pub async fn measure(report: &mut Report) {
    let mut scans = Table::new(&["p50 of a scan", "1,000 tickets, ms", "1,000,000 tickets, ms", "ratio of a turn"]);
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

        compare_scans(report, &mut scans, &store, &many, "1,000,000").await;

        let server = store.serve(5);
        tickets::create_event(&server, "manifest").await;
        tickets::import(&server, "manifest", MANIFEST).await;
        drop(server);
        for coding in ["identity", "gzip"] {
            let Download { time, grown_mib, sent_mib } = manifest(&store, coding).await;
            cells.push(format!("{:.2} s, {sent_mib:.1} MiB sent", time.as_secs_f64()));
            cells.push(format!("{grown_mib:.1} MiB"));
            let name = format!("manifest of 50,000 tickets, {}, {coding}", store.kind);
            report.at_most(&name, 1.0, time.as_secs_f64(), " s");
            report.at_most(&format!("memory grown by the {name}"), 8.0, grown_mib, " MiB");
        }
        for [_, path] in ASKED {
            let server = store.serve(5);
            // Opens the pool beforehand, so that this is not measured.
            ask(&server, "GET", "/api/events/default", "", b"").await;
            cells.push(format!("{:.0} ms", milliseconds(asking(&server, path).await)));
        }
        rows.push(cells);
    }
    let mut names = vec![
        "import of 100,000 tickets, `seat,gate`, as CSV, into an empty database, median",
        "import of 100,000 tickets, each with a new user, into an empty database",
        "the same, median of the ten that make 1,000,000",
        "manifest of 50,000 tickets, to its last byte",
        "growth of the service's resident memory by it, at its peak",
        "the same manifest, gzip",
        "growth of the service's resident memory by it, at its peak",
    ];
    names.extend(ASKED.map(|[name, _]| name));
    for (place, name) in names.into_iter().enumerate() {
        others.row([name, &rows[0][place], &rows[1][place]]);
    }
    report.section("Growth", format!("{scans}\n{others}"));
}

/// Creates an empty database of the same kind.
fn empty_like(store: &Store, name: &str) -> Store {
    if store.postgres.is_some() { Store::postgres(name) } else { Store::sqlite(name) }
}

/// Measures an import of tickets without holders, each time into a new database. Returns the median.
async fn plain_import(like: &Store) -> Duration {
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let store = empty_like(like, &format!("plain_{round}"));
        times.push(tickets::import_unheld(&store.serve(5), "default").await);
    }
    median(&times)
}

/// Measures the same scans in a database with few tickets and in one with many, in short alternating turns so that both
/// see the same noise. Scans use up tickets, so each round has a new small database.
pub async fn compare_scans(report: &mut Report, table: &mut Table, large: &Store, many: &Tickets, number: &str) {
    let mut small = Vec::new();
    for round in 0..SCAN_ROUNDS {
        let store = empty_like(large, &format!("few_{round}"));
        let server = store.serve(5);
        tickets::import(&server, "default", FEW).await;
        store.settle();
        let tickets = Tickets::of(&server, "default").await;
        small.push((store, tickets));
    }
    let mut turns = [Vec::new(), Vec::new()];
    for (store, few) in &small {
        let (small, large) = (store.serve(5), large.serve(5));
        for (plan, turns) in SCAN_TURNS.iter().zip(&mut turns) {
            let mut few = Scanning::start(&small, few, plan.clients).await;
            let mut many = Scanning::start(&large, many, plan.clients).await;
            for _ in 0..plan.in_a_round {
                turns.push([few.p50(plan.scans_each).await, many.p50(plan.scans_each).await]);
            }
        }
    }
    for (Turns { clients, .. }, turns) in SCAN_TURNS.iter().zip(turns) {
        let middle = |value: fn(&[Duration; 2]) -> f64| median(&turns.iter().map(value).collect::<Vec<_>>());
        let (few, many) = (middle(|turn| milliseconds(turn[0])), middle(|turn| milliseconds(turn[1])));
        let ratio = middle(|[few, many]| many.as_secs_f64() / few.as_secs_f64());
        let name = format!("{}, {clients} client{}", large.kind, if *clients == 1 { "" } else { "s" });
        table.row([name.clone(), format!("{few:.2}"), format!("{many:.2}"), format!("{ratio:.2}")]);
        report.at_most(&format!("p50 at {number} tickets relative to 1,000, {name}"), 1.2, ratio, "");
    }
}

/// Clients that scan a database's tickets.
struct Scanning<'a> {
    clients: Clients<'a>,
    tickets: &'a Tickets,
}

impl<'a> Scanning<'a> {
    /// Connects the clients and scans a little to warm up.
    async fn start(server: &'a Server, tickets: &'a Tickets, clients: usize) -> Self {
        let mut scanning = Self { clients: Clients::connect(server, clients).await, tickets };
        scanning.p50(WARM_UP).await;
        scanning
    }

    async fn p50(&mut self, scans: usize) -> Duration {
        let until = Until { scans, time: Duration::from_secs(60) };
        percentile(&self.clients.scan(self.tickets, until).await.latencies, 50)
    }
}

/// The cost of a manifest download. Ordered by time first.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Download {
    time: Duration,
    /// Growth of the service's resident memory.
    grown_mib: f64,
    sent_mib: f64,
}

/// Downloads a manifest several times and returns the median.
async fn manifest(store: &Store, coding: &str) -> Download {
    let download = request("GET", "/api/events/manifest/manifest", ORGANIZER_KEY, "", b"");
    let accepting = format!("\r\naccept-encoding: {coding}\r\n\r\n");
    let download = [&download[..download.len() - 4], accepting.as_bytes()].concat();
    let mut all = Vec::new();
    for _ in 0..ROUNDS {
        let server = store.serve(5);
        // Opens the pool beforehand, so that this is not measured.
        ask(&server, "GET", "/api/events/manifest", "", b"").await;
        let mut connection = server.connect().await;
        let before = memory(server.pid()).resident;
        forget_peak(server.pid());
        let started = Instant::now();
        let answer = connection.exchange(&download).await.expect("a manifest");
        let time = started.elapsed();
        let sent_mib = answer.body.len() as f64 / 1024.0 / 1024.0;
        all.push(Download { time, grown_mib: memory(server.pid()).peak - before, sent_mib });
    }
    median(&all)
}

/// Requests about an event with many tickets.
const ASKED: [[&str; 2]; 4] = [
    ["search among 1,000,000 tickets for a word that all have", "/api/events/default/tickets?q=person"],
    ["search for a word that only the last one has", "/api/events/default/tickets?q=999999"],
    ["search for a word that none has", "/api/events/default/tickets?q=nobody"],
    ["list of the revoked, which are none", "/api/events/default/tickets?status=revoked"],
];

/// Measures how long an answer takes. Returns the median.
pub async fn asking(server: &Server, path: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        ask(server, "GET", path, "", b"").await;
        times.push(started.elapsed());
    }
    median(&times)
}
