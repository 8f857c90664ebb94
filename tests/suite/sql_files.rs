//! The files under `sql/`, and what the database enforces by itself.

use std::sync::Arc;

use register_ticket_api::config::Database;
use register_ticket_api::store;
use register_ticket_api::store::migrations::MIGRATIONS;
use serde_json::json;
use uuid::Uuid;

use crate::database::{Kind, Rows, TestDatabase};
use crate::migrations::file_of;
use crate::process::{PATIENCE, within};
use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    every_file_that_is_run_again_changes_nothing,
    cleanup_removes_exactly_what_testdata_added,
    cleanup_removes_test_tickets_that_were_used_meanwhile,
    cleanup_keeps_a_test_user_who_holds_another_ticket,
    migrating_again_changes_nothing,
    migrating_twice_at_once_does_no_harm,
}

pub struct Files {
    pub testdata: &'static str,
    cleanup: &'static str,
}

pub fn files(kind: Kind) -> Files {
    match kind {
        Kind::Sqlite => Files {
            testdata: include_str!("../../sql/sqlite/testdata/01_populate_tables.sql"),
            cleanup: include_str!("../../sql/sqlite/cleanup/01_drop_test_records.sql"),
        },
        Kind::Postgres => Files {
            testdata: include_str!("../../sql/postgres/testdata/01_populate_tables.sql"),
            cleanup: include_str!("../../sql/postgres/cleanup/01_drop_test_records.sql"),
        },
    }
}

async fn run(service: &Service, file: &str) {
    service.database.execute(file).await.unwrap_or_else(|error| panic!("{error}\n{file}"));
}

async fn every_file_that_is_run_again_changes_nothing(service: Service) {
    let files = files(service.database.kind);
    service.ticket("A1").await;
    let before = service.database.snapshot().await;
    let kind = service.database.kind;
    // A restored PostgreSQL gets all of them again. SQLite's are applied only once: `add column` is not repeatable.
    for file in MIGRATIONS.iter().filter_map(|migration| file_of(kind, migration)).filter(|_| kind == Kind::Postgres) {
        run(&service, file).await;
    }
    assert_eq!(service.database.snapshot().await, before);

    run(&service, files.testdata).await;
    let populated = service.database.snapshot().await;
    run(&service, files.testdata).await;
    assert_eq!(service.database.snapshot().await, populated);

    run(&service, files.cleanup).await;
    run(&service, files.cleanup).await;
    assert_eq!(service.database.snapshot().await, before);
}

async fn cleanup_removes_exactly_what_testdata_added(service: Service) {
    let files = files(service.database.kind);
    let ticket = service.ticket("A1").await;
    service.gate().await.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let before = service.database.snapshot().await;

    run(&service, files.testdata).await;
    let stats = service.organizer.get("/api/events/testdata/stats").await.is(200);
    assert_members(&stats, json!({ "tickets": 6, "registered": 0 }));
    assert_eq!(service.database.count("select count(distinct seed) from tickets").await, 7);
    for username in ["spuertaf", "juanperez"] {
        service.organizer.get(format!("/api/users/{username}")).await.is(200);
    }

    run(&service, files.cleanup).await;
    assert_eq!(service.database.snapshot().await, before);
}

async fn cleanup_removes_test_tickets_that_were_used_meanwhile(service: Service) {
    let files = files(service.database.kind);
    service.user("ana").await;
    let before = service.database.snapshot().await;
    run(&service, files.testdata).await;

    let scans = "/api/events/testdata/scans";
    let gate = service.key(json!({ "name": "x", "role": "gate", "event": "testdata" })).await;
    for (username, seat) in [("spuertaf", "A1"), ("ana", "A2")] {
        let body = json!({ "event": "testdata", "seat": seat, "gate": "North" });
        let registered = service.organizer.post(format!("/api/users/{username}/tickets"), body).await.is(201);
        let ticket = Ticket::new(&registered);
        gate.post(scans, service.scan(&ticket)).await.is_scan(200, "accepted");
        gate.post(scans, service.scan(&ticket)).await.is_scan(409, "already_used");
    }
    let unknown = json!({ "scan_id": Uuid::now_v7(), "code": "not ours" });
    gate.post(scans, unknown).await.is_scan(404, "unknown_ticket");
    service.organizer.post("/api/events/testdata/tickets", json!({ "seat": "Z1", "gate": "North" })).await.is(201);

    run(&service, files.cleanup).await;
    assert_eq!(service.database.snapshot().await, before);
}

async fn cleanup_keeps_a_test_user_who_holds_another_ticket(service: Service) {
    let files = files(service.database.kind);
    service.seat("default", "A1", "North").await;
    run(&service, files.testdata).await;
    let body = json!({ "seat": "A1", "gate": "North" });
    service.organizer.post("/api/users/spuertaf/tickets", body).await.is(201);
    run(&service, files.cleanup).await;
    service.organizer.get("/api/users/spuertaf").await.is(200);
    service.organizer.get("/api/users/juanperez").await.is_refused(404, "user_not_found");
}

async fn migrating_again_changes_nothing(service: Service) {
    service.ticket("A1").await;
    // The holder's search words are written now, or else by the next search.
    store::migrate(&service.database.database()).await.expect("migrating again is allowed");
    let before = service.database.snapshot().await;
    let applied = service.database.count("select count(*) from _sqlx_migrations").await;
    for _ in 0..2 {
        store::migrate(&service.database.database()).await.expect("migrating again is allowed");
    }
    assert_eq!(service.database.snapshot().await, before);
    assert_eq!(service.database.count("select count(*) from _sqlx_migrations").await, applied);
}

async fn migrating_twice_at_once_does_no_harm(service: Service) {
    // Several times: on SQLite two migrations rarely meet exactly when one must wait without being told to.
    for _ in 0..5 {
        let empty = TestDatabase::create_empty(service.database.kind).await;
        let migrations: Vec<_> = (0..8)
            .map(|_| {
                let database = empty.database();
                tokio::spawn(async move { store::migrate(&database).await })
            })
            .collect();
        for migration in migrations {
            migration.await.expect("no panic").expect("migrating at once is allowed");
        }
        let count = "select count(*) from _sqlx_migrations";
        assert_eq!(empty.count(count).await, service.database.count(count).await);
        assert_eq!(empty.count("select count(*) from events").await, 1);
    }
}

#[tokio::test]
async fn a_login_that_another_database_lets_in_at_the_same_moment_is_let_in() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let login = format!("login_{}", Uuid::new_v4().simple());
    let mut other = Rows::open(&database.owner_url()).await;
    for statement in [&format!("create role {login}"), "begin", &format!("grant ticket_service to {login}")] {
        other.execute(statement).await.expect("nobody else knows the login");
    }

    let Database::Postgres { service, owner, pool_mode, .. } = database.database() else { panic!("not PostgreSQL") };
    let to_migrate = Database::Postgres { service, owner, pool_mode, grant_to: Some(login.clone()) };
    let migration = tokio::spawn(async move { store::migrate(&to_migrate).await });
    let waiting = format!(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%grant%{login}%'"
    );
    within(PATIENCE, "a grant that waits", async || (database.count(&waiting).await == 1).then_some(())).await;
    other.execute("commit").await.expect("the other one is first");
    migration.await.expect("no panic").expect("it has the role either way");

    let member = format!(
        "select count(*) from pg_roles r where r.rolname = '{login}' and pg_has_role(r.oid, 'ticket_service', 'member')"
    );
    assert_eq!(database.count(&member).await, 1);
    other.execute(&format!("drop role {login}")).await.expect("it owns nothing");
}

#[tokio::test]
async fn the_mark_alone_marks_a_valid_ticket_once() {
    let service = Service::start(Kind::Postgres).await;
    // Without the scan, which the service writes together with the mark.
    service.database.is_broken_on_purpose();
    let valid = service.seat("default", "A1", "North").await;
    let revoked = service.seat("default", "A2", "North").await;
    service.organizer.bare(http::Method::POST, format!("/api/tickets/{revoked}/revoke")).await.is(200);
    let mut rows = Rows::open(&service.database.url()).await;
    let mut mark = async |id: &str| rows.texts(&format!("select fn_mark_ticket_as_used('{id}')::text")).await;
    assert_eq!(mark(&valid).await, ["true"]);
    let marked = service.database.snapshot().await;
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used' and inside").await, 1);
    for id in [&valid, &revoked, &Uuid::nil().to_string()] {
        assert_eq!(mark(id).await, ["false"]);
    }
    assert_eq!(service.database.snapshot().await, marked);
}

#[tokio::test]
async fn the_registration_procedure_has_an_sqlstate_for_each_refusal() {
    let service = Service::start(Kind::Postgres).await;
    let free = service.seat("default", "A1", "North").await;
    let revoked = service.seat("default", "A2", "North").await;
    service.organizer.bare(http::Method::POST, format!("/api/tickets/{revoked}/revoke")).await.is(200);
    let held = service.ticket("A3").await.ticket_id.to_string();
    let user = service.organizer.post("/api/users", json!({ "username": "ana" })).await.is(201);
    let user = user["user_id"].as_str().unwrap_or_default();
    let nobody = Uuid::nil().to_string();
    let mut rows = Rows::open(&service.database.url()).await;

    let before = service.database.snapshot().await;
    let mut register = async |ticket: &str, user: &str| {
        sqlstate(rows.execute(&format!("call sp_register_ticket_to_user('{ticket}', '{user}')")).await)
    };
    assert_eq!(register(&nobody, user).await, "RT001", "no such ticket");
    assert_eq!(register(&free, &nobody).await, "RT002", "no such user");
    assert_eq!(register(&held, user).await, "RT003", "somebody's already");
    assert_eq!(register(&revoked, user).await, "RT004", "revoked");
    assert_eq!(service.database.snapshot().await, before);
    let new = service.version("A1").await;
    rows.execute(&format!("call sp_register_ticket_to_user('{free}', '{user}')")).await.expect("a free ticket");
    let registered = "select count(*) from tickets where seat = 'A1' and user_id is not null";
    assert_eq!(service.database.count(registered).await, 1);
    assert_eq!(service.version("A1").await, new + 1);
}

#[tokio::test]
async fn the_services_role_has_no_ddl() {
    let database = TestDatabase::create(Kind::Postgres).await;
    let mut rows = Rows::open(&database.url()).await;
    for statement in [
        "create table mine (id int)",
        "create schema mine",
        "alter table tickets add column mine int",
        "drop table scans",
        "truncate scans",
        "create index on scans (result)",
        "drop function fn_mark_ticket_as_used",
        "update _sqlx_migrations set success = false",
    ] {
        assert_eq!(sqlstate(rows.execute(statement).await), "42501", "{statement}");
    }
}

/// Autovacuum writes such statistics; plans made from them stay with their prepared statements.
#[tokio::test]
async fn no_table_is_read_whole_even_if_statistics_call_it_empty() {
    let service = Service::start(Kind::Postgres).await;
    service.database.execute("analyze").await.expect("the owner may analyze");
    let gate = service.gate().await;
    for seat in 0..20 {
        let ticket = service.ticket(&seat.to_string()).await;
        gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
        gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(409, "already_used");
    }
    // A connection reports its reads at the latest when it ends.
    let database = Arc::clone(&service.database);
    drop((gate, service));
    let written = "select n_tup_ins from pg_stat_user_tables where relname = 'scans'";
    within(PATIENCE, "the statistics", async || (database.count(written).await == 40).then_some(())).await;
    let read_whole = "select sum(seq_tup_read)::bigint from pg_stat_user_tables where relname <> '_sqlx_migrations'";
    // One row, three times: by the migrations that create two indexes and a CHECK on events, which had that row then.
    assert_eq!(database.count(read_whole).await, 3);
}

/// If the planner believes that a condition leaves almost nothing, it sorts all of an event's tickets for each page.
#[tokio::test]
async fn no_page_reads_all_tickets_of_an_event() {
    const TICKETS: i64 = 4_000;
    let service = Service::start(Kind::Postgres).await;
    let rows: String = (0..TICKETS).map(|n| format!("{n},North,u{n},Person {n}\n")).collect();
    let list = format!("seat,gate,username,full_name\n{rows}");
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    for table in ["tickets", "users"] {
        service.database.execute(&format!("analyze {table}")).await.expect("the owner may analyze");
    }
    let (database, clock) = (Arc::clone(&service.database), service.clock.clone());
    drop(service);
    // A connection reports its reads at the latest when it ends.
    let others = "select count(*) from pg_stat_activity where datname = current_database() and usename <> current_user";
    let fetched = async || {
        within(PATIENCE, "the connections' end", async || (database.count(others).await == 0).then_some(())).await;
        database.count("select idx_tup_fetch from pg_stat_user_tables where relname = 'tickets'").await
    };
    for path in ["manifest", "tickets.csv", "links.csv"] {
        let before = fetched().await;
        let reader = Service::on(Arc::clone(&database), clock.clone(), &[]);
        assert_eq!(reader.organizer.get(format!("/api/events/default/{path}")).await.status, 200);
        drop(reader);
        let read = fetched().await - before;
        assert!((TICKETS..3 * TICKETS).contains(&read), "{path}: {read}");
    }
}

fn sqlstate(outcome: Result<(), sqlx::Error>) -> String {
    let error = outcome.expect_err("the statement is refused");
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}
