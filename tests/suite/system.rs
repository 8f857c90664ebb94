//! Health, metrics and the description of the API.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request};
use register_ticket_api::app::App;
use register_ticket_api::model::Millis;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::Directory;
use crate::database::Kind;
use crate::process::Server;
use crate::service::{ORGANIZER_KEY, Service, assert_members, settings, with};

on_both_databases! {
    health_needs_no_database,
    health_tells_how_long_the_process_has_run,
    health_names_version_and_revision,
    full_health_looks_at_database_migrations_and_clock,
    full_health_says_that_the_clocks_are_apart,
    full_health_says_that_the_secret_is_another,
    metrics_count_scans_and_requests,
    metrics_count_a_scan_once_however_often_it_is_sent,
    metrics_are_text_of_prometheus_and_of_openmetrics_for_whoever_accepts_that,
    the_document_is_served_as_it_is,
}

async fn health_needs_no_database(service: Service) {
    let nowhere = service.another(&[("DATABASE_URL", "postgres://nobody@127.0.0.1:9/none")]);
    let health = nowhere.anonymous.get("/health").await.is(200);
    assert_eq!(health, json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION"), "revision": null }));
    let full = nowhere.anonymous.get("/health?full=1").await.is(503);
    assert_members(&full, only_the_database_failed());
    let refused = nowhere.organizer.get("/api/events").await;
    refused.is_refused(503, "database_unavailable");
    assert!(!refused.text().contains("127.0.0.1"), "a cause is for the log alone");
}

/// What the full check says when it cannot ask the database: nothing else is known to have failed.
fn only_the_database_failed() -> Value {
    json!({
        "status": "failed", "database": "failed", "migrations": "unchecked", "clock": "unchecked", "durability": "unchecked",
        "writable": "unchecked", "secret": "unchecked", "secret_mark": null,
    })
}

async fn health_tells_how_long_the_process_has_run(service: Service) {
    let start = Instant::now();
    let another = service.another(&[]);
    let mut last = 0;
    for _ in 0..2 {
        let health = another.anonymous.get("/health").await;
        let uptime = health.header("server-timing").strip_prefix("uptime;dur=").and_then(|ms| ms.parse().ok());
        let uptime: u128 = uptime.expect("milliseconds");
        assert!((last..=start.elapsed().as_millis()).contains(&uptime), "{uptime}");
        last = uptime;
    }
}

async fn health_names_version_and_revision(service: Service) {
    for (setting, revision) in [("630ca25", json!("630ca25")), ("", Value::Null)] {
        let service = service.another(&[("REVISION", setting)]);
        for (path, status) in [("/health", 200), ("/health?full=1", 503)] {
            let health = service.anonymous.get(path).await.is(status);
            assert_members(&health, json!({ "version": env!("CARGO_PKG_VERSION"), "revision": revision }));
        }
    }
}

async fn full_health_looks_at_database_migrations_and_clock(service: Service) {
    let settings = settings(&service.database, &[]);
    let on_time = Client::of(&Arc::new(App::new(settings, Box::new(Millis::now))));
    let full = on_time.get("/health?full=1").await.is(200);
    assert_eq!(full["status"], "ok");
    assert_members(
        &full,
        json!({ "database": "ok", "migrations": "ok", "clock": "ok", "writable": "ok", "secret": "ok" }),
    );
}

async fn full_health_says_that_the_secret_is_another(service: Service) {
    let on_time = |secret: &str| {
        let settings = settings(&service.database, &[("TICKET_SECRET", secret)]);
        Client::of(&Arc::new(App::new(settings, Box::new(Millis::now))))
    };
    let [one, other] = ["a".repeat(32), "b".repeat(32)];
    // Before the first ticket is registered, any secret is accepted and none is recorded.
    for secret in [&one, &other] {
        on_time(secret).get("/health?full=1").await.is(200);
    }
    let organizer = on_time(&one).with_key(ORGANIZER_KEY);
    organizer.post("/api/users", json!({ "username": "ana", "full_name": "Ana Roe" })).await.is(201);
    organizer.post("/api/events/default/tickets", json!({ "seat": "A1", "gate": "North" })).await.is(201);
    organizer.post("/api/users/ana/tickets", json!({ "seat": "A1", "gate": "North" })).await.is(201);
    on_time(&one).get("/health?full=1").await.is(200);
    let full = on_time(&other).get("/health?full=1").await.is(503);
    let wrong_secret = json!({ "status": "failed", "secret": "failed", "database": "ok", "writable": "ok" });
    assert_members(&full, wrong_secret);
}

async fn full_health_says_that_the_clocks_are_apart(service: Service) {
    let full = service.anonymous.get("/health?full=1").await.is(503);
    let wrong_clock = json!({ "status": "failed", "clock": "failed", "database": "ok", "migrations": "ok" });
    assert_members(&full, wrong_clock);
}

async fn metrics_count_scans_and_requests(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    for _ in 0..2 {
        gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(409, "already_used");
    }
    let text = gate.get("/metrics").await.text();
    assert_eq!(value(&text, "app_started_at", ""), service.now().0.to_string(), "{text}");
    assert_eq!(value(&text, "migrations_ok", ""), "1", "{text}");
    assert_eq!(value(&text, "scans_total", "\"accepted\""), "1", "{text}");
    assert_eq!(value(&text, "scans_total", "\"already_used\""), "2", "{text}");
    assert!(text.contains("/api/events/{event}/scans") && !text.contains("default"), "{text}");
}

async fn metrics_count_a_scan_once_however_often_it_is_sent(service: Service) {
    let (gate, ticket) = (service.offline_gate().await, service.ticket("A1").await);
    let scan = service.scan(&ticket);
    let offline = json!({ "scanned_at": service.time(0), "offline_result": "accepted" });
    let late = json!({ "scans": [with(service.scan(&ticket), offline.clone()), with(scan.clone(), offline)] });
    for _ in 0..2 {
        gate.post("/api/events/default/scans", scan.clone()).await.is_scan(200, "accepted");
        gate.post("/api/events/default/scans/batch", late.clone()).await.is(200);
    }
    let text = gate.get("/metrics").await.text();
    assert_eq!(value(&text, "scans_total", "\"accepted\""), "1", "{text}");
    assert_eq!(value(&text, "scans_total", "\"already_used\""), "1", "{text}");
}

async fn metrics_are_text_of_prometheus_and_of_openmetrics_for_whoever_accepts_that(service: Service) {
    let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let ask = async |accept: &str| {
        let request = Request::builder().method(Method::GET).uri("/metrics").header("accept", accept);
        service.organizer.send(request, "").await
    };
    let classic = service.organizer.get("/metrics").await;
    assert_eq!(classic.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = classic.text();
    for line in
        ["# TYPE scans_total counter", "# TYPE app_started_at gauge", "# TYPE http_request_duration_seconds histogram"]
    {
        assert!(text.lines().any(|other| other == line), "{line}: {text}");
    }
    assert!(text.contains("# HELP scans_total Scans by result") && !text.contains("EOF"), "{text}");
    let started = service.now().0 as f64 / 1_000.0;
    assert_eq!(value(&text, "process_start_time_seconds", "").parse(), Ok(started), "{text}");
    for accept in ["application/openmetrics-text", "text/plain;q=0.5, application/openmetrics-text;version=1.0.0;q=0.9"]
    {
        let open = ask(accept).await;
        assert_eq!(open.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert!(open.text().contains("# TYPE scans counter") && open.text().ends_with("# EOF\n"), "{}", open.text());
    }
    for accept in ["*/*", "application/openmetrics-text;q=0, text/plain", "application/openmetrics-textual"] {
        assert!(ask(accept).await.header("content-type").starts_with("text/plain"), "{accept}");
    }
}

/// The value of the metric line with this start and label.
fn value<'a>(text: &'a str, start: &str, label: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(start) && line.contains(label));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default()
}

async fn the_document_is_served_as_it_is(service: Service) {
    let served = service.anonymous.get("/openapi.json").await;
    assert_eq!(served.text(), include_str!("../../src/openapi.json"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_health_says_that_sqlite_has_no_room() {
    let service = Service::start(Kind::Sqlite).await;
    // A file that would exceed its limit is refused as on a full disk, once the process ignores the signal.
    let through = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    let server = Server::through(&through, service.database.environment()).await;
    server.organizer().get("/api/events").await.is(200); // The file is open now.
    let process = server.process.id().to_string();
    let limited = std::process::Command::new("prlimit").args(["--pid", &process, "--fsize=1:unlimited"]).status();
    assert!(limited.is_ok_and(|status| status.success()), "prlimit, of util-linux, sets a limit");
    let full = server.anonymous().get("/health?full=1").await.is(503);
    assert_members(&full, json!({ "status": "failed", "writable": "failed", "database": "ok", "secret": "ok" }));
}

#[tokio::test]
async fn full_health_says_that_postgresql_may_only_be_read() {
    let service = Service::start(Kind::Postgres).await;
    let only_read = "do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$";
    service.database.execute(only_read).await.expect("the owner may");
    let client = Client::of(&Arc::new(App::new(settings(&service.database, &[]), Box::new(Millis::now))));
    let full = client.get("/health?full=1").await.is(503);
    assert_members(&full, json!({ "status": "failed", "writable": "failed", "database": "ok", "secret": "ok" }));
}

/// Writes to a file that was moved or deleted are lost, and a file in its place is another database.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_moved_deleted_or_replaced_is_not_written_and_full_health_says_so() {
    for how in ["moved", "deleted", "replaced"] {
        let service = Service::start(Kind::Sqlite).await;
        let (gate, ticket) = (service.gate().await, service.ticket("A1").await);
        let on_time = Client::of(&Arc::new(App::new(settings(&service.database, &[]), Box::new(Millis::now))));
        on_time.get("/health").await.is(200);
        // Opens the file beforehand.
        on_time.with_key("rtk_").get("/api/events").await.is(401);
        on_time.with_key(ORGANIZER_KEY).get("/api/events").await.is(200);
        let url = service.database.url();
        let file = std::path::PathBuf::from(url.strip_prefix("sqlite:").expect("a file"));
        let aside = file.with_file_name("aside.db");
        match how {
            "moved" => std::fs::rename(&file, &aside).expect("it is there"),
            "deleted" => {
                std::fs::hard_link(&file, &aside).expect("it is there");
                std::fs::remove_file(&file).expect("it is there");
            }
            _ => {
                std::fs::rename(&file, &aside).expect("it is there");
                std::fs::copy(&aside, &file).expect("it can be copied");
            }
        }
        let scan = service.scan(&ticket);
        gate.post("/api/events/default/scans", scan.clone()).await.is_refused(503, "database_unavailable");
        let full = on_time.get("/health?full=1").await.is(503);
        assert_members(&full, only_the_database_failed());
        std::fs::rename(&aside, &file).expect("it is there");
        gate.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
    }
}

#[tokio::test]
async fn serve_says_that_there_is_no_database_yet_and_only_then() {
    let directory = Directory::new();
    let file = directory.0.join("tickets.db");
    let environment = [("DATABASE_URL".to_owned(), format!("sqlite:{}", file.display()))];
    let first = Server::start(environment.clone()).await;
    let line = first.process.logged("there is no database").await;
    assert!(line.contains("WARN") && line.contains("tickets.db") && line.contains("path"), "{line}");
    first.organizer().get("/api/events").await.is(200);
    drop(first);
    let again = Server::start(environment).await;
    assert!(!again.process.log().contains("there is no database"), "{}", again.process.log());
}

#[tokio::test]
async fn serve_says_that_there_is_no_database_but_backups_of_one() {
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("backups")).expect("a directory");
    let backup = directory.file("backups/tickets-20260501-180000Z.db.gz", "");
    let place = |name: &str| directory.0.join(name).display().to_string();
    let environment = [("DATABASE_URL", format!("sqlite:{}", place("tickets.db"))), ("BACKUP_DIR", place("backups"))];
    let server = Server::start(environment.map(|(name, value)| (name.to_owned(), value))).await;
    let line = server.process.logged("but there are backups of one").await;
    assert!(line.contains("ERROR") && line.contains(&backup.display().to_string()), "{line}");
}

/// Somebody moved a file without the log beside it, which has the newest scans.
#[tokio::test]
async fn no_file_is_made_where_the_log_of_one_is_left() {
    let directory = Directory::new();
    let file = directory.0.join("tickets.db");
    let log = directory.file("tickets.db-wal", "the newest scans");
    let environment = [("DATABASE_URL".to_owned(), format!("sqlite:{}", file.display()))];
    let server = Server::start(environment).await;
    let line = server.process.logged("which is part of it").await;
    assert!(line.contains("ERROR") && line.contains("tickets.db-wal"), "{line}");
    server.organizer().get("/api/events").await.is_refused(503, "database_unavailable");
    assert!(!file.exists());
    assert_eq!(std::fs::read_to_string(log).expect("it is left alone"), "the newest scans");
}
