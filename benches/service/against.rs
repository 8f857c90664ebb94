//! Scans with this release and with another program, such as an earlier release, in turns.

use crate::client::{Outcome, percentile};
use crate::report::{Report, Table, median, milliseconds};
use crate::scans::{TURN, TURNS, warm_scans};
use crate::store::Store;
use crate::tickets::{self, Tickets};

/// For all turns with one database.
const TICKETS: usize = 200_000;
const CLIENTS: [usize; 3] = [1, 32, 128];
const POOL: usize = 5;

/// What is compared: its name, and its value in one turn.
type Figure = (&'static str, fn(&Outcome) -> f64);

const FIGURES: [Figure; 5] = [
    ("scans/s", Outcome::per_second),
    ("p50, ms", |outcome| milliseconds(percentile(&outcome.latencies, 50))),
    ("p99, ms", |outcome| milliseconds(percentile(&outcome.latencies, 99))),
    ("CPU of the service per scan, ms", |outcome| milliseconds(outcome.service) / outcome.latencies.len() as f64),
    ("CPU of PostgreSQL per scan, ms", |outcome| milliseconds(outcome.database) / outcome.latencies.len() as f64),
];

/// The goals: the database, the number of clients, the figure, and the limit of its ratio. A throughput must reach it, all else
/// may not exceed it.
const GOALS: [(&str, usize, &str, f64); 6] = [
    ("PostgreSQL", 32, "scans/s", 2.0),
    ("PostgreSQL", 128, "p99, ms", 0.5),
    ("PostgreSQL", 1, "p50, ms", 1.05),
    ("PostgreSQL", 32, "CPU of PostgreSQL per scan, ms", 0.5),
    ("SQLite", 32, "scans/s", 3.0),
    ("SQLite", 128, "p99, ms", 1.0 / 3.0),
];

/// A database of its own for each program.
struct Side {
    store: Store,
    tickets: Tickets,
}

impl Side {
    async fn prepare(store: Store) -> Self {
        tickets::import(&store.serve(POOL), "default", TICKETS).await;
        let tickets = Tickets::of(&store.serve(POOL), "default").await;
        store.settle();
        Self { store, tickets }
    }

    async fn turn(&self, clients: usize) -> Outcome {
        warm_scans(&self.store.serve(POOL), &self.tickets, clients, TURN).await
    }
}

/// Measures both sides in each turn. They take turns at going first, so that a drift of the machine favours neither.
async fn take_turns(ours: &Side, theirs: &Side, clients: usize) -> Vec<[Outcome; 2]> {
    let mut turns = Vec::new();
    for turn in 0..TURNS {
        turns.push(if turn % 2 == 0 {
            [ours.turn(clients).await, theirs.turn(clients).await]
        } else {
            let theirs = theirs.turn(clients).await;
            [ours.turn(clients).await, theirs]
        });
    }
    turns
}

/// `other` is the path of the program to compare with.
pub async fn measure(report: &mut Report, other: &str) {
    let mut table =
        Table::new(&["database, clients, figure", "this release", "the other", "ratio", "ratios of all turns"]);
    for [ours, theirs] in [Store::postgres, Store::sqlite].map(|new| [new("ours"), new("theirs").served_by(other)]) {
        let kind = ours.kind;
        let (ours, theirs) = (Side::prepare(ours).await, Side::prepare(theirs).await);
        for clients in CLIENTS {
            let turns = take_turns(&ours, &theirs, clients).await;
            for (name, figure) in FIGURES {
                if kind == "SQLite" && name.contains("PostgreSQL") {
                    continue;
                }
                let [of_ours, of_theirs] =
                    [0, 1].map(|side| turns.iter().map(|turn| figure(&turn[side])).collect::<Vec<f64>>());
                let mut ratios: Vec<f64> = of_ours.iter().zip(&of_theirs).map(|(ours, theirs)| ours / theirs).collect();
                ratios.sort_by(f64::total_cmp);
                let ratio = median(&ratios);
                let all: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
                let row = format!("{kind}, {clients}, {name}");
                table.row([
                    row.clone(),
                    format!("{:.2}", median(&of_ours)),
                    format!("{:.2}", median(&of_theirs)),
                    format!("{ratio:.2}"),
                    all.join(" "),
                ]);
                let goal = GOALS.iter().find(|goal| (goal.0, goal.1, goal.2) == (kind, clients, name));
                match goal {
                    Some((.., limit)) if name == "scans/s" => report.at_least(&row, *limit, ratio, " ×"),
                    Some((.., limit)) => report.at_most(&row, *limit, ratio, " ×"),
                    None => {}
                }
            }
        }
    }
    report.section("Beside another program", format!("DB_POOL_MAX {POOL}; medians of {TURNS} turns.\n\n{table}"));
}
