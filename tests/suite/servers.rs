//! How PostgreSQL's server, database and role configure a session, and how the service overrides that.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use register_ticket_api::app::App;
use register_ticket_api::config::Settings;
use register_ticket_api::error::Error;
use register_ticket_api::model::Millis;
use register_ticket_api::store;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Kind, Rows};
use crate::service::{Service, assert_members, settings};

#[tokio::test]
async fn a_session_is_what_exactly_once_needs_whatever_the_database_says() {
    let service = Service::start(Kind::Postgres).await;
    let name = service.database.text("", "select current_database()::text").await;
    let told = [
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "enable_seqscan = on",
        "max_parallel_workers_per_gather = 2",
    ];
    let told: String = told.map(|setting| format!("alter database {name} set {setting};")).concat();
    let noted = "create table seen (setting text); \
        create function note() returns trigger language plpgsql security definer as $$ begin \
        insert into seen select format('%s %s %s %s', current_setting('synchronous_commit'), \
        current_setting('transaction_isolation'), current_setting('enable_seqscan'), \
        current_setting('max_parallel_workers_per_gather')); return new; end $$; \
        create trigger note before insert on users for each row execute function note();";
    service.database.execute(&format!("{told}{noted}")).await.expect("the owner may");
    // Opens its sessions now.
    service.another(&[]).organizer.post("/api/users", json!({ "username": "ana" })).await.is(201);
    assert_eq!(service.database.text("", "select setting from seen").await, "on read committed off 0");
}

#[tokio::test]
async fn a_pooler_that_refuses_the_settings_of_a_session_is_named_with_the_remedy() {
    let pooler = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let settings = settings_of(&format!("postgres://tickets@{}/tickets?sslmode=disable", pooler.local_addr().unwrap()));
    let app = App::new(settings, Box::new(Millis::now));
    // As PgBouncer 1.18 does by default.
    let refuses = async {
        let (mut client, _) = pooler.accept().await.expect("a client");
        let mut startup = [0; 1_024];
        let length = client.read(&mut startup).await.expect("a start-up packet");
        assert!(startup[..length].windows(7).any(|bytes| bytes == b"options"));
        let refusal = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
        client.write_u8(b'E').await.expect("it listens");
        client.write_u32(4 + refusal.len() as u32).await.expect("it listens");
        client.write_all(refusal).await.expect("it listens");
    };
    let (health, ()) = tokio::join!(app.store().health(), refuses);
    let Err(Error::DatabaseUnavailable(why)) = health else { panic!("there is no database") };
    assert_eq!(
        why,
        "connecting: error returned from database: unsupported startup parameter: options; \
         behind a pooler, set DB_POOL_MODE=transaction"
    );
}

#[tokio::test]
async fn a_serialization_failure_is_decided_again() {
    let service = Service::start(Kind::Postgres).await;
    for (number, (state, table)) in
        [("40001", "scans"), ("40P01", "scans"), ("40001", "tickets"), ("40P01", "tickets")].into_iter().enumerate()
    {
        let ticket = service.ticket(&format!("A{number}")).await;
        let change = if table == "scans" { "insert" } else { "update" };
        let once = format!(
            "create sequence failures; create function fail() returns trigger language plpgsql security definer as $$ \
             begin if nextval('failures') = 1 then raise 'others were at work' using errcode = '{state}'; end if; \
             return new; end $$; \
             create trigger fail before {change} on {table} for each row execute function fail()"
        );
        service.database.execute(&once).await.expect("the owner may");
        let scan = service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await;
        assert_eq!(scan.is_scan(200, "accepted")["replayed"], false);
        service.database.execute("drop function fail cascade; drop sequence failures").await.expect("they are there");
    }
}

/// A separate server.
struct Cluster(PathBuf);

impl Cluster {
    fn script(&self, verb: &str, settings: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/postgres");
        let run =
            Command::new(script).arg(verb).arg(&self.0).env("SETTINGS", settings).output().expect("it is a program");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).expect("it prints text")
    }

    /// Starts it and returns the owner's URL.
    fn start(settings: &str) -> (Self, String) {
        let cluster = Self(std::env::temp_dir().join(format!("server-{}", Uuid::new_v4().simple())));
        let printed = cluster.script("start", settings);
        let url =
            printed.lines().find_map(|line| line.strip_prefix("export TEST_DATABASE_URL=")).expect("it is printed");
        (cluster, url.to_owned())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.script("stop", "");
        std::fs::remove_dir_all(&self.0).expect("it is there");
    }
}

/// Creates a database and returns its URL.
async fn new_database(url: &str, name: &str) -> String {
    Rows::open(url).await.execute(&format!("create database {name}")).await.expect("the owner may");
    format!("{}/{name}", url.trim_end_matches("/postgres"))
}

fn settings_of(url: &str) -> Settings {
    Settings::read(|name| (name == "DATABASE_URL").then(|| url.to_owned())).expect("they are right")
}

/// On Google Cloud a new password takes the role from the login until `migrate` runs.
#[tokio::test]
async fn a_login_that_lost_its_role_decides_nothing_until_migrate_gives_it_back() {
    let service = Service::start(Kind::Postgres).await;
    let ticket = service.ticket("A1").await;
    let login = format!("login_{}", Uuid::new_v4().simple());
    let owner_url = service.database.owner_url();
    let (_, place) = owner_url.split_once('@').expect("a login, then its server");
    let theirs = [("DATABASE_URL", &*format!("postgres://{login}:secret@{place}"))];
    let mut owner = Rows::open(&owner_url).await;
    owner.execute(&format!("create role {login} login password 'secret'")).await.expect("the owner may");
    let migrate = async || store::migrate(&settings(&service.database, &theirs).database).await.expect("the owner may");
    migrate().await;
    let replica = service.another(&theirs);
    replica.organizer.get("/api/events").await.is(200);

    owner.execute(&format!("revoke ticket_service from {login}")).await.expect("the owner granted it");
    let (scan, before) = (service.scan(&ticket), service.database.snapshot().await);
    let path = "/api/events/default/scans";
    replica.organizer.post(path, scan.clone()).await.is_refused(503, "database_unavailable");
    replica.anonymous.get("/health?full=1").await.is(503);
    assert_eq!(service.database.snapshot().await, before);

    migrate().await;
    replica.organizer.post(path, scan).await.is_scan(200, "accepted");
    drop(replica);
    owner.execute(&format!("drop role {login}")).await.expect("it owns nothing");
}

#[tokio::test]
async fn a_role_that_another_migration_makes_meanwhile_gets_its_rights() {
    let (_cluster, url) = Cluster::start("default_transaction_isolation=serializable");
    let (one, another) = (new_database(&url, "one").await, new_database(&url, "another").await);
    let mut other = Rows::open(&one).await;
    other.execute("begin; create role ticket_service nologin").await.expect("the owner may");
    let settings = settings_of(&another);
    let migration = tokio::spawn(async move { store::migrate(&settings.database).await });
    let mut seen = Rows::open(&another).await;
    let waiting = "select count(*) from pg_stat_activity where query ~ 'create role' and wait_event = 'transactionid'";
    while seen.count(waiting).await == 0 {
        assert!(!migration.is_finished(), "the migration waits for the role");
    }
    other.execute("commit").await.expect("nobody else makes it");
    migration.await.expect("it does not panic").expect("a new database can be migrated");
    let may = "select count(*) from pg_class where relname = 'tickets' and has_table_privilege('ticket_service', oid, 'update')";
    assert_eq!(seen.count(may).await, 1);
}

#[tokio::test]
async fn full_health_fails_where_the_server_forgets_what_it_acknowledged() {
    for (setting, status, durability) in
        [("fsync=off", 503, "failed"), ("full_page_writes=off", 503, "failed"), ("synchronous_commit=off", 200, "ok")]
    {
        let (_cluster, url) = Cluster::start(setting);
        let settings = settings_of(&new_database(&url, "tickets").await);
        store::migrate(&settings.database).await.expect("a new database can be migrated");
        let app = Arc::new(App::new(settings, Box::new(Millis::now)));
        let health = Client::of(&app).get("/health?full=1").await.is(status);
        let checks = json!({ "database": "ok", "migrations": "ok", "clock": "ok", "durability": durability });
        assert_members(&health, checks);
    }
}
