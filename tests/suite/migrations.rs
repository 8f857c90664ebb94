//! Schema changes: every migration meets existing rows, and a made-up next one also meets a running process of this
//! release.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use register_ticket_api::model::Seed;
use register_ticket_api::store;
use register_ticket_api::store::migrations::{MIGRATIONS, Migration};
use register_ticket_api::totp::{Code, QrCode, TicketSecret, TotpKey, step_at};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::database::{Kind, TestDatabase};
use crate::once::{scan_now, tickets};
use crate::process::{PATIENCE, Server, within};
use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    every_migration_meets_the_rows_of_those_before_it,
    a_check_is_changed_while_an_old_process_scans,
    a_migration_that_fails_changes_nothing,
}

pub fn file_of(kind: Kind, migration: &Migration) -> Option<&'static str> {
    match kind {
        Kind::Sqlite => migration.sqlite,
        Kind::Postgres => migration.postgres,
    }
}

/// The schema version of a database with all migrations applied.
pub fn newest(kind: Kind) -> i64 {
    let last = MIGRATIONS.iter().rfind(|migration| file_of(kind, migration).is_some());
    last.expect("there is a first one").number
}

/// The directory of a database kind in `sql/`.
fn folder(kind: Kind) -> &'static Path {
    Path::new(match kind {
        Kind::Sqlite => concat!(env!("CARGO_MANIFEST_DIR"), "/sql/sqlite"),
        Kind::Postgres => concat!(env!("CARGO_MANIFEST_DIR"), "/sql/postgres"),
    })
}

fn file_name(migration: &Migration) -> String {
    format!("{:02}_{}.sql", migration.number, migration.name.replace(' ', "_"))
}

/// The names of the files in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let entries = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let names: BTreeSet<_> = entries.map(|path| path.file_name().expect("a file").to_owned()).collect();
    names.into_iter().map(|name| name.into_string().expect("UTF-8")).collect()
}

#[test]
fn every_file_of_the_schema_is_listed_and_has_rows() {
    assert!(MIGRATIONS.is_sorted_by(|one, next| one.number < next.number));
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let listed = MIGRATIONS.iter().filter(|migration| file_of(kind, migration).is_some());
        let listed: Vec<String> = listed.map(file_name).collect();
        assert_eq!(names(folder(kind)), listed, "{kind:?}");
        assert_eq!(names(&folder(kind).join("rows")), listed, "{kind:?}: a file of rows for each migration");
    }
}

/// This release's migrations and one more.
fn and_next(sqlite: &'static str, postgres: &'static str) -> Vec<Migration> {
    let number = MIGRATIONS.last().expect("there is a first one").number + 1;
    let next = Migration { number, name: "hold tickets", postgres: Some(postgres), sqlite: Some(sqlite) };
    MIGRATIONS.iter().copied().chain([next]).collect()
}

const NEXT_SQLITE: &str = include_str!("next/sqlite.sql");
const NEXT_POSTGRES: &str = include_str!("next/postgres.sql");

#[test]
fn the_recipes_are_what_is_tested() {
    let document = include_str!("../../docs/development.md");
    let (_, recipes) = document.split_once("### How to change a CHECK").expect("the chapter is there");
    let blocks: Vec<&str> = recipes.split("```").skip(1).step_by(2).take(2).collect();
    for (block, mut file) in blocks.into_iter().zip([NEXT_POSTGRES, NEXT_SQLITE]) {
        // Up to what is omitted or explained.
        let steps = block.lines().skip(1).map(|line| line.split('…').next().unwrap_or_default());
        for step in steps.map(|line| line.split("  --").next().unwrap_or_default().trim()) {
            file = file.split_once(step).unwrap_or_else(|| panic!("not there, or not in this order: {step}")).1;
        }
    }
}

async fn every_migration_meets_the_rows_of_those_before_it(mut service: Service) {
    let database = TestDatabase::create_empty(service.database.kind).await;
    let migrations = and_next(NEXT_SQLITE, NEXT_POSTGRES);
    for (place, migration) in migrations.iter().enumerate() {
        if file_of(database.kind, migration).is_none() {
            continue;
        }
        let applied = store::migrate_by(&database.database(), &migrations[..=place]).await;
        assert_eq!(applied.expect("it can be applied").applied, [migration.name]);
        if place < MIGRATIONS.len() {
            let rows = folder(database.kind).join("rows").join(file_name(migration));
            let rows = std::fs::read_to_string(rows).expect("each migration has rows");
            database.execute(&rows).await.unwrap_or_else(|error| panic!("{}: {error}", migration.name));
        }
    }
    service.database = database.into();
    the_rows_are_of_use(&service.another(&[])).await;
}

/// A ticket of the rows and its key; the seed repeats one byte.
fn key(ticket_id: u128, seed: u8) -> (Uuid, TotpKey) {
    let ticket_id = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0000 + ticket_id);
    (ticket_id, TicketSecret::new(None).key_of(ticket_id, Seed([seed; 20])))
}

async fn the_rows_are_of_use(service: &Service) {
    let organizer = &service.organizer;
    let tickets = organizer.get("/api/events/gala/tickets").await.is(200);
    let states: Vec<&Value> = tickets["tickets"].as_array().expect("a list").iter().map(|t| &t["status"]).collect();
    assert_eq!(states, ["valid", "valid", "used", "used", "revoked"]);
    assert_eq!(organizer.get("/api/keys").await.is(200)["keys"].as_array().map(Vec::len), Some(6));
    assert_eq!(
        organizer.get("/api/events/gala/conflicts").await.is(200)["conflicts"].as_array().map(Vec::len),
        Some(1)
    );
    let stats = organizer.get("/api/events/gala/stats").await.is(200);
    assert_members(&stats, json!({ "tickets": 5, "admitted": 2, "inside": 1 }));

    let scans = "/api/events/gala/scans";
    let show = async |path: &str, ticket_id, code| {
        let code = QrCode { ticket_id, code }.to_string();
        organizer.post(path, json!({ "scan_id": Uuid::now_v7(), "code": code })).await
    };
    let (valid, of_valid) = key(0xB2, 2);
    let now = step_at(service.now());
    show(scans, valid, Code::Rotating(of_valid.code(now))).await.is_scan(200, "accepted");
    let (used, of_used) = key(0xB3, 3);
    show(scans, used, Code::Rotating(of_used.code(now))).await.is_scan(409, "already_used");
    let (printed, of_printed) = key(0xB6, 6);
    let scans = "/api/events/default/scans";
    show(scans, printed, Code::Printed(of_printed.print_proof())).await.is_scan(200, "accepted");
}

/// The tables without their rows: all columns, indexes and constraints.
async fn schema(database: &TestDatabase) -> BTreeSet<String> {
    let sqlite = "select json_group_array(concat(type, ' ', name, ' of ', tbl_name, case type when 'index' then sql end)) \
                  from sqlite_master";
    let postgres = "select json_agg(what)::text from (\
        select 'index ' || indexdef as what from pg_indexes where schemaname = 'public' union all \
        select 'constraint ' || conname || ' of ' || conrelid::regclass from pg_constraint \
        where connamespace = 'public'::regnamespace) as parts";
    let parts: Vec<String> = serde_json::from_str(&database.text(sqlite, postgres).await).expect("a list of texts");
    let columns = "select json_group_array(m.name || '.' || c.name || ' ' || c.type) \
                   from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table'";
    let in_postgres = "select json_agg(table_name || '.' || column_name || ' ' || data_type)::text \
                       from information_schema.columns where table_schema = 'public'";
    let columns: Vec<String> =
        serde_json::from_str(&database.text(columns, in_postgres).await).expect("a list of texts");
    parts.into_iter().chain(columns).collect()
}

/// The results of one device's scans.
#[derive(Default)]
struct Device {
    scans: Vec<(Value, &'static str)>,
}

impl Device {
    /// Scans its tickets repeatedly until stopped: each is admitted the first time and never again.
    async fn work(&mut self, server: &Server, tickets: &[Ticket], answered: &AtomicUsize, stop: &AtomicBool) {
        let organizer = server.organizer();
        for (round, ticket) in (0..).flat_map(|round| tickets.iter().map(move |ticket| (round, ticket))) {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let (status, result) = if round == 0 { (200, "accepted") } else { (409, "already_used") };
            let scan = scan_now(ticket);
            organizer.post("/api/events/default/scans", scan.clone()).await.is_scan(status, result);
            self.scans.push((scan, result));
            answered.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn a_check_is_changed_while_an_old_process_scans(service: Service) {
    let tickets = tickets(&service, 1_200).await;
    let (before, old_process) = (schema(&service.database).await, Server::start(service.database.environment()).await);
    let (answered, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let more = async |count| {
        let target = answered.load(Ordering::SeqCst) + count;
        within(PATIENCE, "more scans", async || (answered.load(Ordering::SeqCst) >= target).then_some(())).await;
    };
    let migrate = async || {
        more(40).await;
        let migrations = and_next(NEXT_SQLITE, NEXT_POSTGRES);
        let database = service.database.database();
        let applied = tokio::spawn(async move { store::migrate_by(&database, &migrations).await });
        assert_eq!(applied.await.expect("no panic").expect("it can be applied").applied, ["hold tickets"]);
        more(40).await;
        stop.store(true, Ordering::SeqCst);
    };
    let mut devices: [Device; 4] = Default::default();
    let [one, two, three, four] = &mut devices;
    let mut shares = tickets.chunks(300);
    let mut work = |device| Device::work(device, &old_process, shares.next().expect("one each"), &answered, &stop);
    tokio::join!(work(one), work(two), work(three), work(four), migrate());

    assert_eq!(schema(&service.database).await, before);
    let scans: Vec<_> = devices.into_iter().flat_map(|device| device.scans).collect();
    every_scan_is_there_once(&service, &scans).await;
    // The old process remembers what it decided before, and continues.
    let organizer = old_process.organizer();
    for (scan, result) in scans.iter().step_by(20) {
        let replayed = organizer.post("/api/events/default/scans", scan.clone()).await;
        assert_eq!(replayed.is_scan(replayed.status.as_u16(), result)["replayed"], true);
    }
    organizer.post("/api/events/default/tickets", json!({ "seat": "late", "gate": "North" })).await.is(201);
    organizer.post("/api/users/holder-1/tickets", json!({ "seat": "late", "gate": "North" })).await.is(201);
    assert_eq!(organizer.get("/health?full=1").await.is(200)["migrations"], "ok");
    the_new_word_is_allowed_and_no_other(&service.database).await;
    // Deletions still cascade to the new table.
    organizer.post("/api/events", json!({ "slug": "short", "name": "Short" })).await.is(201);
    organizer.post("/api/events/short/tickets", json!({ "seat": "S1", "gate": "North" })).await.is(201);
    organizer.delete("/api/events/short?confirm=short").await.is(204);
    assert_eq!(service.database.count("select count(*) from tickets where seat = 'S1'").await, 0);
}

async fn every_scan_is_there_once(service: &Service, scans: &[(Value, &str)]) {
    let count = |result: &str| scans.iter().filter(|(_, scanned)| *scanned == result).count() as i64;
    for result in ["accepted", "already_used"] {
        let kept = format!("select count(*) from scans where result = '{result}'");
        assert_eq!(service.database.count(&kept).await, count(result), "{result}");
    }
    let used = "select count(*) from tickets where status = 'used' and inside and used_at is not null";
    assert_eq!(service.database.count(used).await, count("accepted"));
    let admitted = "select count(distinct ticket_id) from scans where result = 'accepted'";
    assert_eq!(service.database.count(admitted).await, count("accepted"));
    if service.database.kind == Kind::Sqlite {
        assert_eq!(service.database.count("select count(*) from pragma_foreign_key_check").await, 0);
        assert_eq!(service.database.text("pragma integrity_check", "").await, "ok");
    }
}

async fn the_new_word_is_allowed_and_no_other(database: &TestDatabase) {
    for (word, allowed) in [("held", true), ("valid", true), ("lost", false)] {
        let change = format!("update tickets set status = '{word}' where seat = 'late'");
        assert_eq!(database.execute(&change).await.is_ok(), allowed, "{word}");
    }
}

/// The made-up migration with a mistake in it.
fn mistaken(kind: Kind, right: &str, wrong: &str) -> Vec<Migration> {
    let next = if kind == Kind::Sqlite { NEXT_SQLITE } else { NEXT_POSTGRES };
    assert!(next.contains(right), "{next}");
    let next = next.replace(right, wrong).leak();
    and_next(next, next)
}

/// A mistake in a migration's text, and the database's error for it.
struct Mistake {
    right: &'static str,
    wrong: &'static str,
    said: &'static str,
}

async fn a_migration_that_fails_changes_nothing(service: Service) {
    let ticket = service.ticket("A1").await;
    service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let applied = async || service.database.count("select count(*) from _sqlx_migrations").await;
    let rows = service.database.snapshot().await;
    let tables = schema(&service.database).await;
    let applied_before = applied().await;
    let mistakes: &[Mistake] = match service.database.kind {
        Kind::Sqlite => &[
            Mistake { right: "'used', ", wrong: "", said: "CHECK constraint failed: tickets_status_check" },
            Mistake {
                right: "from tickets;",
                wrong: "from tickets where status = 'valid';",
                said: "1 rows of scans would refer to tickets",
            },
            Mistake {
                right: "on tickets (event_id, ticket_id)",
                wrong: "on tickets (seat_number)",
                said: "no such column",
            },
        ],
        Kind::Postgres => &[
            Mistake { right: "'used', ", wrong: "", said: "is violated by some row" },
            Mistake {
                right: "alter table tickets",
                wrong: "delete from scans; alter table ticket",
                said: "does not exist",
            },
        ],
    };
    for Mistake { right, wrong, said } in mistakes {
        let migrations = mistaken(service.database.kind, right, wrong);
        let refused = store::migrate_by(&service.database.database(), &migrations).await;
        let refused = refused.expect_err("it has a mistake").to_string();
        assert!(refused.contains(said), "{refused}");
        assert_eq!(service.database.snapshot().await, rows, "{wrong}");
        assert_eq!(schema(&service.database).await, tables, "{wrong}");
        assert_eq!(applied().await, applied_before, "{wrong}");
    }
    store::migrate_by(&service.database.database(), &and_next(NEXT_SQLITE, NEXT_POSTGRES)).await.expect("no mistake");
}
