//! Measures the cold start: from starting the program to its first answer.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{admit, percentile, request, scan_request};
use crate::process::{ORGANIZER_KEY, Server};
use crate::report::{Report, Table, milliseconds};
use crate::store::{SERVICE, Store};
use crate::tickets::{self, Tickets};

const ROUNDS: usize = 51;

/// A database with tickets, and a gate's key.
struct Gate {
    store: Store,
    tickets: Tickets,
    key: String,
}

pub async fn measure(report: &mut Report) {
    let bare_hyper = Path::new(SERVICE).with_file_name("examples").join("bare_hyper");
    let health = request("GET", "/health", "", "", b"");
    let mut gates = Vec::new();
    for store in Store::both("start") {
        let server = store.serve(5);
        tickets::import(&server, "default", 2 * ROUNDS).await;
        let tickets = Tickets::of(&server, "default").await;
        let key = tickets::gate_key(&server, "default").await;
        gates.push(Gate { store, tickets, key });
    }

    let names = |store: &Store| {
        let first = format!("to the first admitted ticket, {}", store.kind);
        [format!("{first}, key from the environment"), format!("{first}, key of a gate")]
    };
    let mut results = vec![
        ("bare hyper, to the first 200".to_owned(), Vec::new()),
        ("to the first 200 on /health".to_owned(), Vec::new()),
    ];
    results.extend(gates.iter().flat_map(|gate| names(&gate.store)).map(|name| (name, Vec::new())));
    for _ in 0..ROUNDS {
        let mut times = vec![first_answer(|| Server::start(&bare_hyper, &[]), &health).await];
        times.push(first_answer(|| gates[0].store.serve(5), &health).await);
        for Gate { store, tickets, key: gate_key } in &gates {
            for key in [ORGANIZER_KEY, gate_key] {
                let scan = scan_request("default", key, tickets.next());
                times.push(first_answer(|| store.serve(5), &scan).await);
            }
        }
        for ((_, all), time) in results.iter_mut().zip(times) {
            all.push(time);
        }
    }

    let mut table = Table::new(&["from exec", "median ms", "p95 ms"]);
    for (name, times) in &mut results {
        times.sort_unstable();
        let shown = |percent| format!("{:.2}", milliseconds(percentile(times, percent)));
        table.row([name.clone(), shown(50), shown(95)]);
    }
    let median = |place: usize| milliseconds(percentile(&results[place].1, 50));
    report.at_most("exec to first 200", 6.0, median(1), " ms");
    report.at_most(
        "the same, relative to a bare hyper hello-world that is built in the same way",
        1.2,
        median(1) / median(0),
        "",
    );
    report.at_most("exec to first admitted ticket, PostgreSQL", 15.0, median(2).max(median(3)), " ms");
    let size = std::fs::metadata(SERVICE).expect("the release binary").len();
    report.at_most("release binary", 12.0, size as f64 / 1024.0 / 1024.0, " MiB");
    report.section("Cold start", format!("{ROUNDS} starts of each, in turns.\n\n{table}"));
}

/// Starts a server, sends it one request as soon as it listens, and measures until the answer.
async fn first_answer(start: impl Fn() -> Server, request: &[u8]) -> Duration {
    let started = Instant::now();
    let server = start();
    admit(&mut server.connect().await, request).await;
    started.elapsed()
}
