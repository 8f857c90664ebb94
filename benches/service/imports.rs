//! Measures scans of one event during a large import into another (by a request to the same process, and by the command
//! in its own process), and while that event is deleted again.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::client::{admit, ask, percentile, scan_request};
use crate::process::{ORGANIZER_KEY, Server, directory};
use crate::report::{Report, Table, milliseconds};
use crate::store::Store;
use crate::tickets::{self, Tickets};

/// The most tickets one file may have; each has a new user.
const IMPORTED: usize = 250_000;
/// Enough for all scans of one database.
const TICKETS: usize = 100_000;
const CLIENTS: usize = 8;
/// A client's pause between two scans.
const PAUSE: Duration = Duration::from_millis(20);

pub async fn measure(report: &mut Report) {
    let columns = ["scans of another event", "time", "scans", "p50 ms", "p99 ms", "longest ms"];
    let mut table = Table::new(&columns);
    for store in Store::both("imports") {
        let server = store.serve(5);
        for event in ["quiet", "request", "command"] {
            tickets::create_event(&server, event).await;
        }
        tickets::import(&server, "quiet", TICKETS).await;
        store.settle();
        let quiet = Tickets::of(&server, "quiet").await;
        let nothing = scans_during(&server, &quiet, tokio::time::sleep(Duration::from_secs(5))).await;
        table.row(shown(&format!("{}, no import", store.kind), &nothing));
        for event in ["request", "command"] {
            let during = match event {
                "request" => scans_during(&server, &quiet, by_request(&server)).await,
                _ => scans_during(&server, &quiet, by_command(&store)).await,
            };
            let longest = during.latencies.last().expect("there were scans").as_secs_f64();
            let name =
                format!("longest scan while 250,000 tickets of another event are imported, {}, {event}", store.kind);
            report.at_most(&name, 1.0, longest, " s");
            table.row(shown(&format!("{}, import by a {event}", store.kind), &during));
        }
        let during = scans_during(&server, &quiet, deletion(&server)).await;
        let longest = during.latencies.last().expect("there were scans").as_secs_f64();
        let name = format!("longest scan while an event with 250,000 tickets is deleted, {}", store.kind);
        report.at_most(&name, 1.0, longest, " s");
        table.row(shown(&format!("{}, deletion", store.kind), &during));
    }
    report.section(
        "Scans during an import and a deletion",
        format!("{CLIENTS} clients that pause for {} ms between two scans.\n\n{table}", PAUSE.as_millis()),
    );
}

pub struct During {
    time: Duration,
    /// In ascending order.
    pub latencies: Vec<Duration>,
}

pub fn shown(name: &str, during: &During) -> Vec<String> {
    let last = during.latencies.last().expect("there were scans");
    let [p50, p99] = [50, 99].map(|percent| percentile(&during.latencies, percent));
    let mut cells = vec![name.to_owned(), format!("{:.1} s", during.time.as_secs_f64())];
    cells.push(during.latencies.len().to_string());
    cells.extend([p50, p99, *last].map(|latency| format!("{:.2}", milliseconds(latency))));
    cells
}

/// Scans until `work` has ended. Any answer but 200 ends the benchmark.
pub async fn scans_during(server: &Server, tickets: &Tickets, work: impl Future<Output = ()>) -> During {
    let started = Instant::now();
    let has_ended = std::cell::Cell::new(false);
    let scanning = join_all((0..CLIENTS).map(|_| async {
        let mut connection = server.connect().await;
        let mut latencies = Vec::new();
        while !has_ended.get() {
            let request = scan_request(&tickets.event, ORGANIZER_KEY, tickets.next());
            let sent = Instant::now();
            admit(&mut connection, &request).await;
            latencies.push(sent.elapsed());
            tokio::time::sleep(PAUSE).await;
        }
        latencies
    }));
    let work = async {
        work.await;
        has_ended.set(true);
        started.elapsed()
    };
    let (latencies, time) = tokio::join!(scanning, work);
    let mut latencies = latencies.concat();
    latencies.sort_unstable();
    During { time, latencies }
}

fn file(event: &str) -> String {
    let rows: String = (0..IMPORTED).map(|seat| format!("{seat},{},{event}{seat}\n", seat % 4)).collect();
    format!("seat,gate,username\n{rows}")
}

async fn by_request(server: &Server) {
    ask(server, "POST", "/api/events/request/tickets", "text/csv", file("request").as_bytes()).await;
}

async fn deletion(server: &Server) {
    ask(server, "DELETE", "/api/events/request?confirm=request", "text/csv", &[]).await;
}

async fn by_command(store: &Store) {
    let path = directory().join("import.csv");
    std::fs::write(&path, file("command")).expect("a file for the import");
    let mut import = Command::new(crate::store::SERVICE);
    import.env_clear().env("DATABASE_URL", store.url()).args(["import", "--event", "command"]).arg(&path);
    let log = std::fs::File::create(directory().join("import.log")).expect("a file for the import's lines");
    let mut import = import.stderr(log.try_clone().expect("a file")).stdout(log).spawn().expect("the import starts");
    let ended = loop {
        match import.try_wait().expect("the import is our child") {
            Some(ended) => break ended,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(ended.success(), "the import failed: {ended}");
}
