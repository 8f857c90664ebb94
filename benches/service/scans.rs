//! Measures warm scans: throughput and latency, and pgbench running the same statements.

use std::time::Duration;

use crate::client::{Clients, Outcome, Until, admit, percentile, scan_request};
use crate::postgres::{Database, EVENT, Pgbench};
use crate::process::Server;
use crate::report::{Report, Table, milliseconds};
use crate::store::{Store, serve};
use crate::tickets::{self, Tickets};
use crate::wire::{Capture, Proxy};

/// Enough for all measurements of one database.
const TICKETS: usize = 250_000;
const WARM_UP: Until = Until { scans: 2_000, time: Duration::from_secs(1) };
const MEASURED: Until = Until { scans: 15_000, time: Duration::from_secs(4) };
const CLIENTS: [usize; 4] = [1, 8, 32, 128];
const POOLS: [usize; 2] = [5, 32];
/// How often the service and pgbench take turns, and for how long: pgbench needs part of its 3 s to connect.
const TURNS: usize = 5;
const TURN: Until = Until { scans: 8_000, time: Duration::from_secs(3) };

pub async fn measure(report: &mut Report) {
    let columns = [
        "database, DB_POOL_MAX, clients",
        "scans/s",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "scans per CPU second of the service",
        "CPU of the service",
        "of PostgreSQL",
        "of the generator",
    ];
    let mut table = Table::new(&columns);
    for store in Store::both("scans") {
        tickets::import(&store.serve(5), "default", TICKETS).await;
        let tickets = Tickets::of(&store.serve(5), "default").await;
        store.settle();
        if let Some(database) = &store.postgres {
            compare(report, &store, database, &tickets).await;
        }
        for pool_max in POOLS {
            let server = store.serve(pool_max);
            for clients in CLIENTS {
                let outcome = warm_scans(&server, &tickets, clients, MEASURED).await;
                table.row(shown(&format!("{}, {pool_max}, {clients}", store.kind), &outcome));
            }
        }
    }
    report.section(
        "Warm scans",
        format!("CPU is a share of one core. On SQLite the database's work is in the service's.\n\n{table}"),
    );
}

async fn warm_scans(server: &Server, tickets: &Tickets, clients: usize, until: Until) -> Outcome {
    let mut clients = Clients::connect(server, clients).await;
    clients.scan(tickets, WARM_UP).await;
    clients.scan(tickets, until).await
}

fn shown(name: &str, outcome: &Outcome) -> Vec<String> {
    let mut cells = vec![name.to_owned(), format!("{:.0}", outcome.per_second())];
    cells.extend([50, 95, 99].map(|percent| format!("{:.2}", milliseconds(percentile(&outcome.latencies, percent)))));
    cells.extend(processor(outcome));
    cells
}

/// Scans per second of the service's CPU time, then the CPU shares of service, database and load generator.
fn processor(outcome: &Outcome) -> [String; 4] {
    let share = |time: Duration| format!("{:.0} %", 100.0 * time.as_secs_f64() / outcome.elapsed.as_secs_f64());
    [
        format!("{:.0}", outcome.latencies.len() as f64 / outcome.service.as_secs_f64()),
        share(outcome.service),
        share(outcome.database),
        share(outcome.generator),
    ]
}

/// One turn of the service and one of pgbench.
struct Turn {
    ratio: f64,
    ours: Outcome,
    /// pgbench's transactions per second.
    theirs: f64,
}

/// Counts round trips, then compares the service with pgbench in turns.
async fn compare(report: &mut Report, store: &Store, database: &Database, tickets: &Tickets) {
    let capture = round_trips(report, database).await;
    let mut pgbench = Pgbench::prepare(database, &capture);
    store.settle();
    let columns = [
        "connections of pool and pgbench",
        "scans/s",
        "transactions/s of pgbench",
        "ratio",
        "ratios of all turns",
        "scans per CPU second of the service",
        "CPU of the service",
        "of PostgreSQL",
        "of the generator",
    ];
    let mut table = Table::new(&columns);
    for pool_max in POOLS {
        let server = store.serve(pool_max);
        let mut turns = Vec::new();
        for _ in 0..TURNS {
            let ours = warm_scans(&server, tickets, 32, TURN).await;
            let theirs = pgbench.run(pool_max, TURN.time.as_secs());
            turns.push(Turn { ratio: ours.per_second() / theirs, ours, theirs });
        }
        turns.sort_by(|one, other| one.ratio.total_cmp(&other.ratio));
        let ratios: Vec<String> = turns.iter().map(|turn| format!("{:.2}", turn.ratio)).collect();
        let Turn { ratio, ours, theirs } = &turns[TURNS / 2];
        let mut row = vec![pool_max.to_string(), format!("{:.0}", ours.per_second()), format!("{theirs:.0}")];
        row.extend([format!("{ratio:.2}"), ratios.join(" ")]);
        row.extend(processor(ours));
        table.row(row);
        let what = format!("scans per second, 32 clients, pool {pool_max}, relative to pgbench one by one");
        report.at_least(&what, 2.0, *ratio, "");
    }
    let text = format!(
        "32 clients; the turn with the median ratio.\n\n{table}\npgbench runs this, as it was seen on the wire:\n\n```sql\n{}```\n",
        pgbench.script()
    );
    report.section("The service beside pgbench", text);
}

/// Counts the round trips of accepted scans and captures the statements of one, in pgbench's event.
async fn round_trips(report: &mut Report, database: &Database) -> Capture {
    let proxy = Proxy::start(database.port());
    let server = serve(&database.url_through(proxy.port), 1);
    tickets::create_event(&server, EVENT).await;
    tickets::import(&server, EVENT, 3).await;
    let tickets = Tickets::of(&server, EVENT).await;
    let [first_gate, second_gate] = [tickets::gate_key(&server, EVENT).await, tickets::gate_key(&server, EVENT).await];
    drop(server);
    // A new process has no connection yet.
    let server = serve(&database.url_through(proxy.port), 1);
    let count = async |key: &str| {
        let mut connection = server.connect().await;
        let ticket = tickets.next();
        proxy.forget();
        admit(&mut connection, &scan_request(EVENT, key, ticket)).await;
        (proxy.round_trips(), ticket.ticket_id)
    };
    let (cold, _) = count(&first_gate).await;
    let (known, ticket_id) = count(&first_gate).await;
    let statements = proxy.statements();
    let (unknown, _) = count(&second_gate).await;

    report.at_most("round trips for an accepted scan, key known", 2.0, known as f64, "");
    report.at_most("round trips for an accepted scan, key not known", 3.0, unknown as f64, "");
    report.at_most("round trips for the first of a process, key not known", 7.0, cold as f64, "");
    let mut table = Table::new(&["accepted scan", "round trips"]);
    table.row(["with a key that the process knows".to_owned(), known.to_string()]);
    table.row(["with a key that it does not know".to_owned(), unknown.to_string()]);
    table.row(["the first of a process: session, SCRAM, three statements prepared".to_owned(), cold.to_string()]);
    report.section("Round trips to PostgreSQL", format!("Counted by a proxy between the two.\n\n{table}"));
    Capture { statements, ticket_id }
}
