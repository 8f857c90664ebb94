//! A database that is absent, goes away, comes back or hangs. `scripts/bench away` measures how soon requests are
//! refused, and how soon they work again.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::database::{Kind, Rows, TestDatabase};
use crate::process::{PATIENCE, Server, within};
use crate::proxy::{Mode, Proxy};
use crate::service::Service;

/// More than the pool's 5 connections.
const MANY: usize = 20;

/// Asserts that a request is refused with a retry, long before the minute that an import may take.
async fn is_refused_in_time(request: impl Future<Output = Reply>) {
    let reply = tokio::time::timeout(PATIENCE, request).await.expect("no request waits long");
    reply.is_refused(503, "database_unavailable");
    assert_eq!(reply.header("retry-after"), "1");
}

async fn works_again(client: &Client) {
    within(PATIENCE, "an answer", async || (client.get("/api/events").await.status == 200).then_some(())).await;
}

/// Sends one of several kinds of requests, including those with a long deadline.
async fn some_request(organizer: Client, number: usize) -> Reply {
    let scan = json!({ "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": "000000" });
    let tickets = "/api/events/default/tickets";
    match number % 9 {
        // A key may have one import and two lists at a time.
        0 if number == 0 => organizer.post_csv(tickets, "seat,gate,username\nA1,North,ana\n").await,
        1 => organizer.post("/api/events/default/scans", scan).await,
        2 => organizer.post("/api/events/default/scans/batch", json!({ "scans": [] })).await,
        3 => organizer.post("/api/users", json!({ "username": "ben" })).await,
        4 => organizer.post(tickets, json!({ "seat": "A1", "gate": "North" })).await,
        5 => organizer.delete("/api/events/another").await,
        6 if number == 6 => organizer.get("/api/events/default/manifest").await,
        7 if number == 7 => organizer.get("/api/events/default/tickets.csv").await,
        0 | 6 | 7 => organizer.get("/api/users/ana").await,
        _ => {
            // The process has not seen this key, so even finding it needs the database.
            let gate = organizer.with_key(&format!("rtk_{}", "A".repeat(43)));
            gate.post("/api/events/default/scans/batch", json!({ "scans": [] })).await
        }
    }
}

async fn all_are_refused_in_time(organizer: &Client) {
    let requests = (0..MANY).map(|number| tokio::spawn(is_refused_in_time(some_request(organizer.clone(), number))));
    for request in requests.collect::<Vec<_>>() {
        request.await.expect("each is refused in time");
    }
}

/// PostgreSQL behind a proxy, and a server that knows only the proxy.
struct Behind {
    proxy: Proxy,
    server: Server,
    organizer: Client,
    /// Reached directly, past the proxy.
    database: TestDatabase,
}

impl Behind {
    async fn start(mode: Mode) -> Self {
        let database = TestDatabase::create(Kind::Postgres).await;
        let url = database.url();
        let address = url.split(['@', '/']).nth(3).expect("postgres://login@address/name");
        let proxy = Proxy::start(address.parse().expect("an address"), mode).await;
        let through = url.replace(address, &proxy.address.to_string());
        let server = Server::start([("DATABASE_URL".to_owned(), through)]).await;
        Self { organizer: server.organizer(), proxy, server, database }
    }

    /// Asserts that all requests are refused while the database is away, that it is used again once it is back, and
    /// that no refused request has taken effect.
    async fn refuses_all_until_the_return(&self) {
        let before = self.database.snapshot().await;
        all_are_refused_in_time(&self.organizer).await;
        self.server.is_well().await;
        self.proxy.switch(Mode::Forward);
        works_again(&self.organizer).await;
        assert_eq!(self.database.snapshot().await, before);
    }

    /// Opens all connections of the pool, with writes, which later requests need not wait for before they are sent.
    async fn fill_the_pool(&self) {
        let requests = (0..MANY).map(|_| {
            let organizer = self.organizer.clone();
            let write = async move || {
                let user = json!({ "username": Uuid::new_v4() });
                (organizer.post("/api/users", user).await.status == 201).then_some(())
            };
            tokio::spawn(async move { within(PATIENCE, "a new user", write).await })
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.expect("the database is there");
        }
    }
}

async fn a_start_without_database(mode: Mode) {
    Behind::start(mode).await.refuses_all_until_the_return().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_refuses_at_start_is_used_once_it_is_there() {
    a_start_without_database(Mode::Refuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_does_not_answer_at_start_is_used_once_it_is_there() {
    a_start_without_database(Mode::Swallow).await;
}

async fn an_absence(mode: Mode) {
    let behind = Behind::start(Mode::Forward).await;
    for _ in 0..2 {
        behind.fill_the_pool().await;
        behind.proxy.switch(mode);
        behind.refuses_all_until_the_return().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_goes_away_and_comes_back_needs_no_restart() {
    an_absence(Mode::Refuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_swallows_what_it_is_sent_needs_no_restart() {
    an_absence(Mode::Swallow).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_died_silently_are_replaced() {
    let behind = Behind::start(Mode::Forward).await;
    behind.fill_the_pool().await;
    // They idle for longer than the pool assumes a connection to be alive without a check.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    behind.proxy.lose_open_connections();
    works_again(&behind.organizer).await;
    behind.fill_the_pool().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_health_check_tells_of_the_absence() {
    let behind = Behind::start(Mode::Swallow).await;
    let health = behind.server.anonymous().get("/health?full=1").await.is(503);
    assert_eq!(health["database"], "failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_another_process_writes_to_sqlite_reads_go_on_and_scans_are_refused() {
    let service = Service::start(Kind::Sqlite).await;
    let ticket = service.ticket("A1").await;
    let timeout = [("DB_TIMEOUT_MS".to_owned(), "5000".to_owned())];
    let server = Server::start(service.database.environment().into_iter().chain(timeout)).await;
    let organizer = server.organizer();
    let scan = json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(register_ticket_api::model::Millis::now()) });

    let before = service.database.snapshot().await;
    let mut writer = Rows::open(&service.database.url()).await;
    writer.execute("begin immediate").await.expect("nobody else writes");
    let scans = [(); MANY].map(|()| {
        let (organizer, scan) = (organizer.clone(), scan.clone());
        tokio::spawn(async move { is_refused_in_time(organizer.post("/api/events/default/scans", scan)).await })
    });
    organizer.get(&format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
    organizer.get("/api/events/default/stats").await.is(200);
    for scan in scans {
        scan.await.expect("each is refused in time");
    }
    assert_eq!(service.database.snapshot().await, before);

    writer.execute("rollback").await.expect("the lock is given back");
    let scanned = async || {
        let reply = organizer.post("/api/events/default/scans", scan.clone()).await;
        (reply.status != 503).then(|| reply.is_scan(200, "accepted"))
    };
    within(PATIENCE, "an admission", scanned).await;
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_directory_that_cannot_be_is_told_in_the_log_and_used_once_it_can() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let file = database.url().replace("sqlite:", "");
    // A file in the directory's place stops even the superuser.
    let obstacle = std::path::Path::new(&file).with_file_name("obstacle");
    std::fs::write(&obstacle, "").expect("the test's directory can be written");
    let url = format!("sqlite:{}", obstacle.join("tickets.db").display());
    let server = Server::start([("DATABASE_URL".to_owned(), url.clone())]).await;
    let organizer = server.organizer();
    all_are_refused_in_time(&organizer).await;
    let line = server.process.logged("database_unavailable").await;
    assert!(line.contains("obstacle/tickets.db") && line.contains("os error"), "{line}");

    std::fs::remove_file(&obstacle).expect("what was made can be removed");
    works_again(&organizer).await;
    let mut rows = Rows::open(&url).await;
    for table in ["users", "tickets", "scans", "keys"] {
        assert_eq!(rows.count(&format!("select count(*) from {table}")).await, 0, "{table}");
    }
}
