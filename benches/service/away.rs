//! Measures an outage of the database: how long a request waits for its 503, and how soon the service works afterwards.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::client::{Connection, request};
use crate::process::{ORGANIZER_KEY, Server};
use crate::proxy::{Mode, Proxy};
use crate::report::{Report, Table};
use crate::store::{Store, serve};

const ROUNDS: usize = 5;
/// More than the pool's 5 connections.
const CLIENTS: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(5);

pub async fn measure(report: &mut Report) {
    let store = Store::postgres("away");
    let database = store.postgres.as_ref().expect("a PostgreSQL");
    let proxy = Proxy::start((Ipv4Addr::LOCALHOST, database.port()).into(), Mode::Forward).await;
    let server = serve(&database.url_through(proxy.address.port()), 5);

    let shown = |time: Duration| format!("{:.2}", time.as_secs_f64());
    let mut table = Table::new(&["PostgreSQL", "slowest refusal s", "slowest return s"]);
    let (mut refusal, mut back) = (Duration::ZERO, Duration::ZERO);
    for (name, mode) in [("refuses connections", Mode::Refuse), ("takes what is sent and is silent", Mode::Swallow)] {
        let (mut slowest_refusal, mut slowest_return) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            answers(&server, 200).await;
            proxy.switch(mode);
            slowest_refusal = slowest_refusal.max(answers(&server, 503).await);
            proxy.switch(Mode::Forward);
            slowest_return = slowest_return.max(until_it_works(&server).await);
        }
        table.row([name, &shown(slowest_refusal), &shown(slowest_return)]);
        refusal = refusal.max(slowest_refusal);
        back = back.max(slowest_return);
    }
    let mut slowest_return = Duration::ZERO;
    for _ in 0..ROUNDS {
        answers(&server, 200).await;
        proxy.lose_open_connections();
        slowest_return = slowest_return.max(until_it_works(&server).await);
    }
    table.row(["is there, behind a firewall that forgot the open connections", "", &shown(slowest_return)]);
    report.at_most("a refusal while PostgreSQL is away", 3.0, refusal.as_secs_f64(), " s");
    report.at_most("from PostgreSQL's return to the first answer", 2.0, back.as_secs_f64(), " s");
    let text = format!("{CLIENTS} clients at once, on a pool of 5, {ROUNDS} times each.\n\n{table}");
    report.section("A database that goes away", text);
}

/// Sends a request from all clients at once. Returns the time until the last has its answer.
async fn answers(server: &Server, status: u16) -> Duration {
    let request = events();
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..CLIENTS {
        connections.push(server.connect().await);
    }
    let start = Instant::now();
    let answered = join_all(connections.iter_mut().map(async |connection| {
        let answer = connection.exchange(&request).await.expect("an answer");
        assert_eq!(answer.status, status);
    }));
    answered.await;
    start.elapsed()
}

async fn until_it_works(server: &Server) -> Duration {
    let (request, start) = (events(), Instant::now());
    let mut connection = server.connect().await;
    while connection.exchange(&request).await.expect("an answer").status != 200 {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    start.elapsed()
}

fn events() -> Vec<u8> {
    request("GET", "/api/events", ORGANIZER_KEY, "", b"")
}
