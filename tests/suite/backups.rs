//! Backups: their content, what is refused as one, and that a failure leaves the previous backup untouched.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{Method, Request};
use register_ticket_api::app::App;
use register_ticket_api::model::Millis;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::commands::{Directory, Run, on};
use crate::database::{Kind, Rows, TestDatabase};
use crate::issues::Held;
use crate::migrations::newest;
use crate::once::{scan_now, tickets};
use crate::process::{PATIENCE, Server, within};
use crate::service::{Service, Ticket, assert_members, settings, with};

on_both_databases! {
    a_backup_restores_every_row_and_the_service_runs_on_it,
    a_backup_amid_scans_has_every_scan_acknowledged_before_it,
    a_backup_amid_an_import_restores_none_of_its_tickets,
    a_restore_overwrites_nothing,
    a_restore_ends_with_what_is_good_again,
    a_restore_beside_the_database_of_before_tells_what_was_not_good_there,
    a_restore_beside_the_database_of_before_tells_what_is_no_longer_good,
    what_devices_that_were_enrolled_since_a_backup_have_not_sent_is_taken_after_its_restore,
    a_device_knows_its_database_again_when_a_backup_was_restored,
    a_backup_that_was_cut_or_altered_is_refused,
    a_schema_that_is_not_known_is_neither_backed_up_nor_restored,
    a_failed_backup_leaves_those_before_it_and_nothing_of_its_own,
    backups_at_once_do_no_harm,
    of_old_backups_seven_days_and_four_weeks_are_kept,
    the_command_gets_the_file_and_its_failure_undoes_nothing,
    verify_tells_whether_the_secret_fits,
    verify_names_the_mark_that_a_service_with_the_right_secret_shows,
    a_gate_gets_the_whole_list_of_a_restored_database,
}

const FIRST: &[(&str, &str)] = &[("TICKET_SECRET", "the first secret of the test suite")];

/// Creates some tickets and scans two of them.
async fn evening(service: &Service) {
    let tickets = tickets(service, 20).await;
    let path = "/api/events/default/scans";
    service.organizer.post(path, service.scan(&tickets[0])).await.is_scan(200, "accepted");
    service.organizer.post(path, service.scan(&tickets[0])).await.is_scan(409, "already_used");
}

/// The `backup` command, into the directory `backups`.
fn backup(service: &Service, directory: &Directory) -> Command {
    on(&service.database, directory, &["backup", "--to", "backups"])
}

/// The names of the backups, which must be the only files in their directory.
fn backups(service: &Service, directory: &Directory) -> Vec<String> {
    let names = directory.names("backups");
    let ending = if service.database.kind == Kind::Sqlite { ".db.gz" } else { ".dump.gz" };
    assert!(names.iter().all(|name| name.starts_with("tickets-") && name.ends_with(ending)), "{names:?}");
    names
}

/// Takes a backup and returns its path.
fn take(service: &Service, directory: &Directory) -> PathBuf {
    let said = Run::of(&mut backup(service, directory)).printed();
    directory.0.join(said.split_once(": ").expect("the path, then its content").0)
}

/// An empty database of the same kind, to restore into.
enum Target {
    File(PathBuf),
    Database(Box<TestDatabase>),
}

impl Target {
    async fn of(service: &Service, directory: &Directory) -> Self {
        match service.database.kind {
            Kind::Sqlite => Self::File(directory.0.join("restored.db")),
            Kind::Postgres => Self::Database(Box::new(TestDatabase::create_empty(Kind::Postgres).await)),
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        match self {
            Self::File(path) => vec![("DATABASE_URL".to_owned(), format!("sqlite:{}", path.display()))],
            Self::Database(database) => database.environment(),
        }
    }

    fn restore(&self, directory: &Directory, file: &Path) -> Run {
        let file = file.to_str().expect("the test's own name");
        Run::of(directory.program(&["restore", file]).envs(self.environment()))
    }

    async fn rows(&self) -> Rows {
        match self {
            Self::File(path) => Rows::open(&format!("sqlite:{}", path.display())).await,
            Self::Database(database) => Rows::open(&database.owner_url()).await,
        }
    }

    async fn is_untouched(&self) -> bool {
        match self {
            Self::File(path) => !path.exists(),
            Self::Database(database) => {
                database.count("select count(*) from pg_tables where schemaname = 'public'").await == 0
            }
        }
    }
}

fn verify(service: &Service, directory: &Directory, file: &Path) -> Run {
    let file = file.to_str().expect("the test's own name");
    Run::of(&mut on(&service.database, directory, &["backup", "verify", file]))
}

fn fact(said: &str, name: &str) -> String {
    let line = said.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name}: {said}")).trim().to_owned()
}

async fn a_backup_restores_every_row_and_the_service_runs_on_it(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    let before = service.database.snapshot().await;
    let file = take(&service, &directory);
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    // Later changes are not in it.
    service.seat("default", "late", "North").await;

    let verified = verify(&service, &directory, &file).printed();
    let target = Target::of(&service, &directory).await;
    let restored = target.restore(&directory, &file).printed();
    if let Target::File(path) = &target {
        assert_eq!(fs::metadata(path).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
    for said in [verified, restored] {
        assert_eq!(fact(&said, "schema version"), newest(service.database.kind).to_string(), "{said}");
        let facts = [("tickets", "20"), ("scans", "2"), ("users", "20")];
        for (name, value) in facts {
            assert_eq!(fact(&said, name), value, "{said}");
        }
        assert_eq!(fact(&said, "newest scan"), service.now().to_string());
        assert_eq!(fact(&said, "TICKET_SECRET"), "fits");
    }
    assert_eq!(target.rows().await.snapshot().await, before);
    let server = Server::start(target.environment()).await;
    server.anonymous().get("/health?full=1").await.is(200);
    assert_eq!(server.organizer().get("/api/events/default/stats").await.is(200)["admitted"], 1);
    server.organizer().post("/api/users", json!({ "username": "new" })).await.is(201);
}

/// What the gate knows is newer than the backup: tickets that no longer exist, and used ones that are valid again.
async fn a_gate_gets_the_whole_list_of_a_restored_database(service: Service) {
    const MANIFEST: &str = "/api/events/default/manifest";
    let directory = Directory::new();
    evening(&service).await;
    let file = take(&service, &directory);
    let known = service.organizer.get(MANIFEST).await;
    let as_of = known.is(200)["as_of"].clone();
    let target = Target::of(&service, &directory).await;
    target.restore(&directory, &file).printed();
    let server = Server::start(target.environment()).await;
    let restored = server.organizer().get(format!("{MANIFEST}?since={as_of}")).await.is(200);
    assert_eq!(restored["whole"], true);
    assert_eq!(restored["tickets"].as_array().map(Vec::len), Some(20));
    let since = format!("{MANIFEST}?since={}", restored["as_of"]);
    assert_eq!(server.organizer().get(&since).await.is(200)["tickets"], json!([]));
    let etag = Request::builder().uri(MANIFEST).header("if-none-match", known.header("etag"));
    server.organizer().send(etag, "").await.is(200);
}

async fn a_backup_amid_scans_has_every_scan_acknowledged_before_it(service: Service) {
    let directory = Directory::new();
    let tickets = tickets(&service, 400).await;
    let server = Server::start(service.database.environment()).await;
    let (organizer, next) = (server.organizer(), Mutex::new(tickets.iter()));
    let acknowledged = Mutex::new(BTreeSet::new());
    let count = || acknowledged.lock().expect("no scan panics").len();

    let scan = async || {
        loop {
            let Some(ticket) = next.lock().expect("no scan panics").next() else { return };
            let body = scan_now(ticket);
            organizer.post("/api/events/default/scans", body.clone()).await.is_scan(200, "accepted");
            let scan_id = body["scan_id"].as_str().expect("a scan has an id").replace('-', "");
            acknowledged.lock().expect("no scan panics").insert(scan_id);
        }
    };
    let take = async || {
        within(PATIENCE, "some scans", async || (count() >= 50).then_some(())).await;
        let before = acknowledged.lock().expect("no scan panics").clone();
        let mut command = backup(&service, &directory);
        let run = tokio::task::spawn_blocking(move || Run::of(&mut command)).await.expect("the command runs");
        (before, run.printed())
    };
    let (_, _, (before, said)) = tokio::join!(scan(), scan(), take());
    assert_eq!(count(), 400, "no scan was refused");

    let target = Target::of(&service, &directory).await;
    let file = directory.0.join(said.split_once(": ").expect("the path").0);
    target.restore(&directory, &file).printed();
    let mut rows = target.rows().await;
    let ids = match service.database.kind {
        Kind::Sqlite => "select lower(hex(scan_id)) from scans",
        Kind::Postgres => "select replace(scan_id::text, '-', '') from scans",
    };
    let restored: BTreeSet<String> = rows.texts(ids).await.into_iter().collect();
    assert!(before.is_subset(&restored), "{} of {} are there", restored.len(), before.len());
    let unlike = "select count(*) from tickets t where (t.status = 'used') <> exists \
                  (select 1 from scans s where s.ticket_id = t.ticket_id and s.result = 'accepted')";
    assert_eq!(rows.count(unlike).await, 0, "a ticket is used exactly if its scan exists");
}

async fn a_backup_amid_an_import_restores_none_of_its_tickets(service: Service) {
    let directory = Directory::new();
    service.user("luis").await;
    let held = Held::of(&service).await;
    let file = take(&service, &directory);
    let in_it = service.database.count("select count(*) from tickets").await;
    assert!(in_it > 0, "there is something to hide");
    held.import.await.expect("a backup is not in its way");
    let target = Target::of(&service, &directory).await;
    for said in [target.restore(&directory, &file).printed(), verify(&service, &directory, &file).printed()] {
        assert_eq!([fact(&said, "tickets"), fact(&said, "users")], ["0", "1"], "{said}");
    }
    let hidden = "select (select count(*) from tickets) + (select count(*) from events where issuing is not null)";
    assert_eq!(target.rows().await.count(hidden).await, 0);
    let server = Server::start(target.environment()).await;
    assert_eq!(server.organizer().get("/api/events/default/stats").await.is(200)["tickets"], 0);
    let file = "seat,gate,username\n1,North,new1\n";
    server.organizer().post_csv("/api/events/default/tickets", file).await.is(201);
    assert_eq!(target.rows().await.count("select count(*) from tickets").await, 1);
    assert_eq!(target.rows().await.count("select count(*) from users").await, 2);
}

async fn a_restore_overwrites_nothing(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    let file = take(&service, &directory);
    let target = Target::of(&service, &directory).await;
    target.restore(&directory, &file).printed();
    let before = target.rows().await.snapshot().await;
    let said = target.restore(&directory, &file).failed(1);
    let why = if service.database.kind == Kind::Sqlite { "restored.db exists" } else { "already has rows in scans" };
    assert!(said.contains(why), "{said}");
    assert_eq!(target.rows().await.snapshot().await, before);
}

/// Creates a gate's key and returns its id.
async fn gate_key(service: &Service, name: &str) -> String {
    let key = json!({ "name": name, "role": "gate", "event": "default", "gate": "North" });
    let made = service.organizer.post("/api/keys", key).await.is(201);
    made["key_id"].as_str().expect("an id").to_owned()
}

async fn a_restore_ends_with_what_is_good_again(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    // The program uses the machine's clock, by which these events have not ended.
    let end = "2098-01-01T00:00:00Z";
    let [good, revoked] = ["Office", "Old office"].map(|name| {
        service.organizer.post("/api/keys", json!({ "name": name, "role": "organizer", "expires_at": end }))
    });
    let (good, revoked) = (good.await.is(201), revoked.await.is(201));
    let id = |key: &Value| key["key_id"].as_str().expect("an id").to_owned();
    service.organizer.delete(format!("/api/keys/{}", id(&revoked))).await.is(204);
    let ended = gate_key(&service, "ended long ago").await;
    let file = take(&service, &directory);

    let said = Target::of(&service, &directory).await.restore(&directory, &file).printed();
    assert!(said.contains("1 keys are valid:"), "{said}");
    let line = said.lines().find(|line| line.contains(&id(&good))).expect("it is listed");
    assert!(line.contains("organizer") && line.contains("Office") && line.contains("expires 2098"), "{line}");
    assert!(!said.contains(&id(&revoked)) && !said.contains(&ended), "{said}");
    assert!(said.contains("19 tickets are valid and 1 used, with the codes, links and paper of that time"), "{said}");
    assert!(said.contains("Unsent scans of devices that were enrolled since cannot be accepted"), "{said}");
    assert!(said.contains("--before") && said.contains("register-ticket-api keys revoke KEY_ID"), "{said}");
    assert!(!said.contains("`was used`"), "no line says it: {said}");
}

async fn a_restore_beside_the_database_of_before_tells_what_was_not_good_there(service: Service) {
    let directory = Directory::new();
    let tickets = tickets(&service, 6).await;
    // Keys that have not ended by the program's clock.
    let far = json!({ "starts_at": "2098-01-01T00:00:00Z", "ends_at": "2098-01-02T00:00:00Z" });
    service.organizer.patch("/api/events/default", far).await.is(200);
    let [same, reissued, transferred, revoked, used, erased] = &tickets[..] else { panic!("six tickets") };
    let lost = gate_key(&service, "lost phone").await;
    let moved = gate_key(&service, "new phone").await;
    let kept = gate_key(&service, "kept").await;
    let file = take(&service, &directory);

    service.organizer.delete(format!("/api/keys/{lost}")).await.is(204);
    let offer = service.organizer.bare(Method::POST, format!("/api/keys/{moved}/enrol")).await.is(200);
    let token = offer["enrol_url"].as_str().and_then(|url| url.split_once("enrol=")).expect("a token").1;
    service.anonymous.post("/api/enrol", json!({ "token": token })).await.is(200);
    let change = async |ticket: &crate::service::Ticket, how: &str| {
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/{how}", ticket.ticket_id)).await.is(200);
    };
    change(reissued, "reissue").await;
    change(revoked, "revoke").await;
    let transfer = format!("/api/tickets/{}/transfer", transferred.ticket_id);
    service.organizer.post(transfer, json!({ "username": same.username })).await.is(200);
    let scan = service.scan(used);
    service.organizer.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
    service.organizer.delete(format!("/api/users/{}", erased.username)).await.is(204);
    let url = service.database.owner_url();
    let before = if service.database.kind == Kind::Sqlite { &url } else { url.rsplit_once('/').expect("a name").1 };
    let rows = service.database.snapshot().await;

    let target = Target::of(&service, &directory).await;
    let file = file.to_str().expect("the test's own name");
    let restore =
        |before: &str| Run::of(directory.program(&["restore", file, "--before", before]).envs(target.environment()));
    restore("nowhere").failed(1);
    assert!(target.is_untouched().await, "nothing is restored when the other database cannot be read");
    let said = restore(before).printed();
    assert_eq!(service.database.snapshot().await, rows);
    let told = |id: &str| said.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id}: {said}"));
    assert!(said.contains("2 keys are valid again:"), "{said}");
    assert!(told(&lost).contains("lost phone  event default  gate North") && told(&lost).contains("(was revoked 2"));
    assert!(told(&moved).contains("from a later enrolment"), "{said}");
    assert!(said.contains("5 tickets are valid again"), "{said}");
    let since = [(reissued, "reissued"), (transferred, "transferred"), (revoked, "revoked"), (used, "used")];
    for (ticket, since) in since.into_iter().chain([(erased, "revoked")]) {
        let line = told(&ticket.ticket_id.to_string());
        assert!(line.contains(&format!("seat {}  gate {}  (was {since})", ticket.seat, ticket.gate)), "{line}");
    }
    assert!(said.contains("1 erased people exist again:") && said.contains(&erased.username), "{said}");
    for unchanged in [&kept, &same.ticket_id.to_string()] {
        assert!(!said.contains(unchanged.as_str()), "{said}");
    }
    for ticket in &tickets {
        assert!(!said.contains(&ticket.secret()), "{said}");
    }
}

async fn a_restore_beside_the_database_of_before_tells_what_is_no_longer_good(service: Service) {
    let directory = Directory::new();
    let tickets = tickets(&service, 3).await;
    let far = json!({ "starts_at": "2098-01-01T00:00:00Z", "ends_at": "2098-01-02T00:00:00Z" });
    service.organizer.patch("/api/events/default", far).await.is(200);
    let [same, undone, printed] = &tickets[..] else { panic!("three tickets") };
    let organizer = &service.organizer;
    organizer.post("/api/events/default/tickets", json!({ "seat": "late", "gate": "North" })).await.is(201);
    let scan = organizer.post("/api/events/default/scans", service.scan(undone)).await.is_scan(200, "accepted");
    let file = take(&service, &directory);

    let scan_id = scan["scan_id"].as_str().expect("an id");
    organizer.bare(Method::POST, format!("/api/scans/{scan_id}/undo")).await.is(200);
    organizer.bare(Method::POST, format!("/api/tickets/{}/print", printed.ticket_id)).await.is(200);
    let late = json!({ "seat": "late", "gate": "North" });
    let late = organizer.post(format!("/api/users/{}/tickets", same.username), late).await.is(201);
    organizer.post("/api/events/default/tickets", json!({ "seat": "new", "gate": "North" })).await.is(201);
    let new = json!({ "seat": "new", "gate": "North" });
    let new = organizer.post(format!("/api/users/{}/tickets", same.username), new).await.is(201);
    let made = gate_key(&service, "made since").await;

    let url = service.database.owner_url();
    let before = if service.database.kind == Kind::Sqlite { &url } else { url.rsplit_once('/').expect("a name").1 };
    let target = Target::of(&service, &directory).await;
    let file = file.to_str().expect("the test's own name");
    let run = Run::of(directory.program(&["restore", file, "--before", before]).envs(target.environment()));
    let said = run.printed();
    let told = |id: &str| said.lines().find(|line| line.contains(id)).unwrap_or_else(|| panic!("{id}: {said}"));
    assert!(said.contains("1 newer keys are no longer valid"), "{said}");
    assert!(told(&made).contains("made since  event default  gate North"), "{said}");
    assert!(said.contains("4 tickets lack later changes:"), "{said}");
    let (undone, printed) = (undone.ticket_id.to_string(), printed.ticket_id.to_string());
    let id = |ticket: &Value| ticket["ticket_id"].as_str().expect("an id").to_owned();
    for (ticket, how) in [
        (undone, "undone since"),
        (printed, "printed since"),
        (id(&late), "registered since"),
        (id(&new), "made since"),
    ] {
        assert!(told(&ticket).contains(&format!("({how}: ")), "{said}");
    }
    assert!(!said.contains(&same.ticket_id.to_string()), "{said}");
}

async fn what_devices_that_were_enrolled_since_a_backup_have_not_sent_is_taken_after_its_restore(service: Service) {
    const BATCH: &str = "/api/events/default/scans/batch";
    let directory = Directory::new();
    let tickets = tickets(&service, 5).await;
    // They have not ended by the program's clock either.
    let far = json!({ "starts_at": "2098-01-01T00:00:00Z", "ends_at": "2098-01-02T00:00:00Z" });
    service.organizer.patch("/api/events/default", far.clone()).await.is(200);
    let make = async |event: &str| {
        let key = json!({ "name": "phone", "role": "gate", "event": event, "offline": true });
        service.organizer.post("/api/keys", key).await.is(201)
    };
    let passes = async |key: &Value| {
        let offer = format!("/api/keys/{}/enrol", key["key_id"].as_str().expect("an id"));
        let offer = service.organizer.bare(Method::POST, offer).await.is(200);
        let token = offer["enrol_url"].as_str().and_then(|url| url.split_once("enrol=")).expect("a token").1;
        service.anonymous.post("/api/enrol", json!({ "token": token })).await.is(200)
    };
    let moved = make("default").await;
    let file = take(&service, &directory);
    let moved = passes(&moved).await;
    let [new, revoked] = [make("default").await, make("default").await];
    let revoked_id = revoked["key_id"].as_str().expect("an id");
    service.organizer.delete(format!("/api/keys/{revoked_id}")).await.is(204);
    service.event(with(json!({ "slug": "since", "name": "Since" }), far)).await;
    let elsewhere = make("since").await;
    let url = service.database.owner_url();
    let before = if service.database.kind == Kind::Sqlite { &url } else { url.rsplit_once('/').expect("a name").1 };

    let target = Target::of(&service, &directory).await;
    let file = file.to_str().expect("the test's own name");
    let restore = Run::of(directory.program(&["restore", file, "--before", before]).envs(target.environment()));
    let said = restore.printed();
    assert!(said.contains("2 newer keys are no longer valid"), "{said}");
    let told = |key: &Value| {
        let id = key["key_id"].as_str().expect("an id");
        said.lines().find(|line| line.contains(id)).unwrap_or_default().to_owned()
    };
    assert!(told(&elsewhere).contains("its event does not exist here") && !told(&new).contains("its event"), "{said}");
    assert!(told(&moved).contains("an organizer may accept that device's unsent scans"), "{said}");

    let server = Server::start(target.environment()).await;
    let at = service.now();
    for (key, ticket) in [(&new, &tickets[0]), (&moved, &tickets[1]), (&revoked, &tickets[2])] {
        let id = key["key_id"].as_str().expect("an id");
        let device = server.anonymous().with_key(key["key"].as_str().expect("its secret"));
        let scan = json!({
            "scan_id": uuid::Uuid::now_v7(), "code": ticket.qr(at), "scanned_at": at, "offline_result": "accepted",
        });
        let batch = json!({ "scans": [scan] });
        device.get("/api/events/default/stats").await.is_refused(401, "unauthenticated");
        device.post(BATCH, batch.clone()).await.is_refused(401, "unauthenticated");
        server.organizer().bare(Method::POST, format!("/api/keys/{id}/take")).await.is(200);
        // Another process would notice within 30 s; this one made the change.
        let taken = device.post(BATCH, batch).await.is(200);
        assert_eq!(taken["results"][0]["result"], "accepted", "{taken}");
        device.get("/api/events/default/stats").await.is_refused(401, "unauthenticated");
    }
    for (key, ticket) in [(&new, &tickets[3]), (&moved, &tickets[4])] {
        let id = key["key_id"].as_str().expect("an id");
        let handed = crate::stranded::handed(key, "default", &[crate::stranded::written(&service, ticket, 0)]);
        let taken = server.organizer().post(format!("/api/keys/{id}/scans"), handed).await.is(200);
        assert_eq!(taken["results"][0]["result"], "accepted", "{taken}");
    }
    let id = elsewhere["key_id"].as_str().expect("an id");
    server.organizer().bare(Method::POST, format!("/api/keys/{id}/take")).await.is_refused(404, "key_not_found");
    assert_eq!(server.organizer().get("/api/events/default/stats").await.is(200)["admitted"], 5);
}

/// A device gives up its key only if its own database does not know the key.
async fn a_device_knows_its_database_again_when_a_backup_was_restored(service: Service) {
    const STATS: &str = "/api/events/default/stats";
    let directory = Directory::new();
    let file = take(&service, &directory);
    let since = service.gate().await;
    let known = since.get(STATS).await;
    let database = known.header("register-ticket-database");
    assert!(!database.is_empty());
    let target = Target::of(&service, &directory).await;
    target.restore(&directory, &file).printed();
    let unknown = format!("rtk_{}", "A".repeat(43));
    let refused = Server::start(target.environment()).await.anonymous().with_key(&unknown).get(STATS).await;
    refused.is_refused(401, "unauthenticated");
    assert_eq!(refused.header("register-ticket-database"), database);
}

/// Writes a changed copy of the file under another name.
fn altered(directory: &Directory, file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(file).expect("the backup can be read");
    change(&mut bytes);
    let altered = directory.0.join("altered");
    fs::write(&altered, bytes).expect("the directory takes a file");
    altered
}

/// Decompresses a file.
fn unpacked(file: &Path) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    GzDecoder::new(File::open(file)?).read_to_end(&mut content)?;
    Ok(content)
}

async fn a_backup_that_was_cut_or_altered_is_refused(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    let file = take(&service, &directory);
    let length = fs::metadata(&file).expect("it is there").len() as usize;
    let target = Target::of(&service, &directory).await;
    let is_refused = async |file: &Path| {
        for run in [verify(&service, &directory, file), target.restore(&directory, file)] {
            let said = run.failed(1);
            assert!(said.starts_with("error: ") && said.contains("altered"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        assert!(target.is_untouched().await);
    };
    for cut in [0, 3, 20, length / 2, length - 9, length - 1] {
        is_refused(&altered(&directory, &file, |bytes| bytes.truncate(cut))).await;
    }
    is_refused(&altered(&directory, &file, |bytes| *bytes = b"a text".to_vec())).await;

    // The same content can be compressed in several ways, so a rare bit makes no difference.
    let content = unpacked(&file).expect("it is whole");
    let is_noticed = |file: &Path| {
        if unpacked(file).is_ok_and(|unpacked| unpacked == content) {
            return;
        }
        assert!(target.restore(&directory, file).failed(1).contains("altered"));
    };
    for place in (0..40).map(|part| part * (length - 16) / 39) {
        is_noticed(&altered(&directory, &file, |bytes| bytes[place..place + 16].fill(0)));
        is_noticed(&altered(&directory, &file, |bytes| bytes[place] ^= 1 << (place % 8)));
    }
    assert!(target.is_untouched().await);
    let names = directory.names(".");
    assert!(!names.iter().any(|name| name.contains("unfinished")), "{names:?}");
}

async fn a_schema_that_is_not_known_is_neither_backed_up_nor_restored(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    let file = take(&service, &directory);
    let bytes = fs::read(&file).expect("it is there");
    let later = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 select 99, 'of a later release', success, checksum, 0 from _sqlx_migrations where version = 1";
    service.database.execute(later).await.expect("the table is sqlx's");
    let said = Run::of(&mut backup(&service, &directory)).failed(1);
    assert!(said.contains("has schema version 99, which is from a later release"), "{said}");

    service.database.execute("delete from _sqlx_migrations where version = 99").await.expect("it is there");
    service.database.execute("drop table former_secrets").await.expect("it is there");
    service.database.execute("drop table keys").await.expect("it is there");
    let said = Run::of(&mut backup(&service, &directory)).failed(1);
    assert!(said.contains("is not a database of this service") && said.contains("keys"), "{said}");

    service.database.execute("drop table _sqlx_migrations").await.expect("it is there");
    Run::of(&mut backup(&service, &directory)).failed(1);
    assert_eq!(backups(&service, &directory).len(), 1);
    assert_eq!(fs::read(&file).expect("it is there"), bytes);
}

/// Runs the command in a shell that limits its files to this many blocks of 512 bytes, which gives the same errors as a
/// full disk. With `killed`, the first write beyond the limit kills the process.
fn limited(command: Command, blocks: u32, killed: bool) -> Run {
    let mut shell = Command::new("sh");
    let trap = if killed { "" } else { "trap '' XFSZ; " };
    shell.args(["-c", &format!("{trap}ulimit -f {blocks}; exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env_remove("LLVM_PROFILE_FILE");
    shell.current_dir(command.get_current_dir().expect("the test's directory"));
    Run::of(shell.stdin(Stdio::null()))
}

async fn a_failed_backup_leaves_those_before_it_and_nothing_of_its_own(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    let file = take(&service, &directory);
    let bytes = fs::read(&file).expect("it is there");
    for blocks in [0, 1, 8] {
        let run = limited(backup(&service, &directory), blocks, false);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.errors.starts_with("error: "), "{run:?}");
        assert_eq!(backups(&service, &directory).len(), 1);
    }
    let run = limited(backup(&service, &directory), 8, true);
    assert_ne!(run.code, Some(0), "{run:?}");
    assert_eq!(fs::read(&file).expect("it is there"), bytes);
    verify(&service, &directory, &file).printed();
    if let target @ Target::File(_) = Target::of(&service, &directory).await {
        for killed in [false, true] {
            let mut command = directory.program(&["restore"]);
            command.arg(&file).envs(target.environment());
            assert_ne!(limited(command, 8, killed).code, Some(0));
            assert!(target.is_untouched().await);
        }
    }
    // Leftovers of a killed backup are removed by the next.
    fs::write(directory.0.join("backups/.unfinished-tickets-0"), "half").expect("the directory takes a file");
    take(&service, &directory);
    assert!((1..=2).contains(&backups(&service, &directory).len()));
}

async fn backups_at_once_do_no_harm(service: Service) {
    let directory = Directory::new();
    evening(&service).await;
    let start = |_| {
        let mut command = backup(&service, &directory);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let running: Vec<_> = (0..4).map(start).collect();
    let runs: Vec<Run> = running.into_iter().map(|run| run.wait_with_output().expect("it ends").into()).collect();
    let (done, refused): (Vec<Run>, Vec<Run>) = runs.into_iter().partition(|run| run.code == Some(0));
    assert!(!done.is_empty(), "{refused:?}");
    for run in refused {
        assert!(run.failed(1).contains("another backup or restore is running there"));
    }
    for name in backups(&service, &directory) {
        verify(&service, &directory, &directory.0.join("backups").join(name)).printed();
    }
}

async fn of_old_backups_seven_days_and_four_weeks_are_kept(service: Service) {
    let directory = Directory::new();
    fs::create_dir(directory.0.join("backups")).expect("a directory");
    // Plain dumps count too.
    let (ours, other) = match service.database.kind {
        Kind::Sqlite => (["db.gz"; 2], "dump.gz"),
        Kind::Postgres => (["dump.gz", "dump"], "db.gz"),
    };
    let name = |day: usize| format!("tickets-202001{day:02}-040000Z.{}", ours[day % 2]);
    let mut foreign = vec![
        "before-the-gala.db.gz".to_owned(),
        "notes.txt".to_owned(),
        format!("tickets-20200105-040000Z.{other}"),
        format!("tickets-99990105-040000Z.{}", ours[0]),
    ];
    for name in foreign.iter().cloned().chain((1..=31).map(name)) {
        directory.file(&format!("backups/{name}"), "");
    }
    // Nothing is removed if the new backup fails.
    limited(backup(&service, &directory), 0, false);
    assert_eq!(directory.names("backups").len(), 35);
    // Nor if it has no ticket: perhaps somebody gave a wrong path and has not noticed yet.
    take(&service, &directory);
    assert_eq!(directory.names("backups").len(), 36);

    service.seat("default", "A1", "North").await;
    let new = take(&service, &directory);
    foreign.push(new.file_name().expect("a name").to_str().expect("UTF-8").to_owned());
    // The new one is one of the seven days. Then come the last days of the month, and before them the Sundays.
    let kept = [5, 12, 19, 26, 27, 28, 29, 30, 31];
    foreign.extend(kept.map(name));
    let mut names = directory.names("backups");
    foreign.sort();
    names.sort();
    assert_eq!(names, foreign);
}

async fn the_command_gets_the_file_and_its_failure_undoes_nothing(service: Service) {
    let directory = Directory::new();
    let script = directory.file("send", "#!/bin/sh\ncp \"$2\" \"$1\"\necho sent\nexit ${STATUS:-0}\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("the file is ours");
    let sending = || {
        let mut command = backup(&service, &directory);
        command.env("BACKUP_COMMAND", "./send elsewhere");
        command
    };
    let said = Run::of(&mut sending()).printed();
    assert_eq!(said.lines().count(), 1, "the command's output is not part of ours: {said}");
    let file = directory.0.join(said.split_once(": ").expect("the path").0);
    let bytes = fs::read(directory.0.join("elsewhere")).expect("it was sent");
    assert_eq!(bytes, fs::read(&file).expect("it is there"));

    for (program, status) in [("./send elsewhere", "3"), ("./nothing", "0")] {
        let run = Run::of(sending().env("BACKUP_COMMAND", program).env("STATUS", status));
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.errors.contains("error: the backup is kept, but: BACKUP_COMMAND: "), "{run:?}");
        let file = directory.0.join(run.output.split_once(": ").expect("the path").0);
        verify(&service, &directory, &file).printed();
    }
}

async fn verify_tells_whether_the_secret_fits(service: Service) {
    let directory = Directory::new();
    let verify = |file: &Path, secret: &str| {
        let mut command = on(&service.database, &directory, &["backup", "verify"]);
        Run::of(command.arg(file).env("TICKET_SECRET", secret))
    };
    let file = take(&service, &directory);
    assert_eq!(fact(&verify(&file, FIRST[0].1).printed(), "TICKET_SECRET"), "not in use yet");
    service.another(FIRST).ticket("A1").await;
    let file = take(&service, &directory);
    assert_eq!(fact(&verify(&file, FIRST[0].1).printed(), "TICKET_SECRET"), "fits");
    let run = verify(&file, "");
    assert!(run.errors.contains("not verified: whether codes can be made"), "{run:?}");
    assert!(fact(&run.printed(), "TICKET_SECRET").contains("cannot be verified: it is not set here"));
    let run = verify(&file, "another secret of the test suite");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.output.contains("made with another one"), "{run:?}");
    assert_eq!(run.errors, "error: the backup needs another TICKET_SECRET\n");
}

/// So that a rehearsal without the secret can tell whether the service has the one that the backup needs.
async fn verify_names_the_mark_that_a_service_with_the_right_secret_shows(service: Service) {
    let directory = Directory::new();
    let verified = |file: &Path| {
        let mut command = on(&service.database, &directory, &["backup", "verify"]);
        fact(&Run::of(command.arg(file).env_remove("TICKET_SECRET")).printed(), "secret mark")
    };
    // The clock of these services is not the database's, so the check fails, but that does not matter here.
    let shown = async |secret: &[(&str, &str)]| {
        service.another(secret).anonymous.get("/health?full=1").await.is(503)["secret_mark"].clone()
    };
    assert_eq!(shown(FIRST).await, Value::Null);
    assert_eq!(verified(&take(&service, &directory)), "none");
    service.another(FIRST).ticket("A1").await;
    let mark = verified(&take(&service, &directory));
    assert_eq!(shown(FIRST).await, mark);
    for other in [&[("TICKET_SECRET", "another secret of the test suite")][..], &[("TICKET_SECRET", "")]] {
        assert_ne!(shown(other).await, mark, "{other:?}");
    }
    let elsewhere = Service::start(service.database.kind).await.another(FIRST);
    elsewhere.ticket("A1").await;
    let health = elsewhere.anonymous.get("/health?full=1").await.is(503);
    assert!(
        health["secret_mark"].is_string() && health["secret_mark"] != mark,
        "the mark tells no other database's: {health}"
    );
}

/// A compressed SQLite database, changed after the backup was made.
async fn doctored(directory: &Directory, file: &Path, change: &str) -> PathBuf {
    let database = directory.0.join("doctored.db");
    fs::write(&database, unpacked(file).expect("it is whole")).expect("the directory takes a file");
    Rows::open(&format!("sqlite:{}", database.display())).await.execute(change).await.expect("it can be changed");
    let bytes = fs::read(&database).expect("it is there");
    compressed(directory, "doctored.db.gz", &bytes)
}

fn compressed(directory: &Directory, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.0.join(name);
    let mut encoder = GzEncoder::new(File::create(&path).expect("a new file"), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("the directory takes a file");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_database_of_ours_is_not_restored_however_well_it_is_compressed() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let file = take(&service, &directory);
    let target = Target::of(&service, &directory).await;
    let known = newest(Kind::Sqlite);
    let later = format!("update _sqlx_migrations set version = {} where version = {known}", known + 1);
    let of_a_later_release =
        format!("has schema version {}, which is from a later release; this one supports at most {known}", known + 1);
    for (change, said) in [
        (&*later, &*of_a_later_release),
        ("delete from _sqlx_migrations", "has no schema version"),
        ("drop table scans", "is not a database of this service"),
        ("pragma foreign_keys = off; delete from events", "rows refer to rows that do not exist"),
    ] {
        let doctored = doctored(&directory, &file, change).await;
        for run in [verify(&service, &directory, &doctored), target.restore(&directory, &doctored)] {
            assert!(run.errors.contains(said), "{run:?}");
            run.failed(1);
        }
        assert!(target.is_untouched().await);
    }
    let mut bytes = unpacked(&file).expect("it is whole");
    bytes.truncate(bytes.len() / 2);
    let torn = compressed(&directory, "torn.db.gz", &bytes);
    assert!(target.restore(&directory, &torn).failed(1).contains("torn.db.gz"));
    assert!(target.is_untouched().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_database_is_not_backed_up() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let file = take(&service, &directory);
    let url = service.database.url();
    service.database.execute("pragma wal_checkpoint(truncate)").await.expect("nobody reads");
    let database = url.strip_prefix("sqlite:").expect("a file");
    let mut bytes = fs::read(database).expect("it is there");
    let length = bytes.len();
    // All pages except those that list the tables.
    bytes[length / 4..].fill(0xff);
    let torn = directory.file("torn.db", "");
    fs::write(&torn, bytes).expect("the file is ours");
    let mut command = backup(&service, &directory);
    let said = Run::of(command.env("DATABASE_URL", format!("sqlite:{}", torn.display()))).failed(1);
    assert!(said.contains("torn.db") || said.contains("the copy"), "{said}");
    assert_eq!(backups(&service, &directory).len(), 1);
    verify(&service, &directory, &file).printed();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_there_is_no_backup() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    let said = Run::of(backup(&service, &directory).env("DATABASE_URL", "sqlite:nowhere.db")).failed(1);
    let missing = format!("error: there is no database at {} ", directory.0.join("nowhere.db").display());
    assert!(said.starts_with(&missing), "{said}");
    let said = Run::of(&mut on(&service.database, &directory, &["backup"])).failed(2);
    assert_eq!(said, "error: BACKUP_DIR: is not set; set it, or use --to\n");
    let said = Run::of(on(&service.database, &directory, &["backup", "verify"]).env("BACKUP_DIR", "backups"));
    assert_eq!(said.failed(1), "error: backups: there is no backup\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_previous_database_is_not_mixed_into_a_restored_one() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let file = take(&service, &directory);
    let target = Target::of(&service, &directory).await;
    for ending in ["-wal", "-shm", "-journal"] {
        let left = directory.file(&format!("restored.db{ending}"), "from before");
        let said = target.restore(&directory, &file).failed(1);
        assert!(said.contains(&format!("restored.db{ending} exists")), "{said}");
        assert!(target.is_untouched().await);
        fs::remove_file(left).expect("it is still there");
    }
    target.restore(&directory, &file).printed();
    let names = directory.names(".");
    assert_eq!(names, ["backups", "restored.db"]);
}

/// The path for a backup made two hours ago.
fn two_hours_ago(directory: &Directory) -> PathBuf {
    let time = Millis(Millis::now().0 - 2 * Millis::HOUR).to_string().replace(['-', ':'], "");
    directory.0.join(format!("backups/tickets-{}-{}Z.db.gz", &time[..8], &time[9..15]))
}

/// The environment of a service with daily backups.
fn daily(service: &Service, directory: &Directory, further: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut environment = service.database.environment();
    let backups = directory.0.join("backups").display().to_string();
    environment.push(("BACKUP_DIR".to_owned(), backups));
    environment.extend(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    environment
}

/// Reads a metric.
async fn metric(server: &Server, name: &str) -> Option<i64> {
    let text = server.organizer().get("/metrics").await.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Some(line?.parse().expect("a number"))
}

/// Reads a metric once it is there.
async fn last(server: &Server, name: &str) -> i64 {
    let said = async || metric(server, name).await.filter(|time| *time > 0);
    within(PATIENCE, "a backup in the metrics", said).await
}

async fn last_success(server: &Server) -> i64 {
    last(server, "backup_last_success").await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_know_when_a_backup_was_sent_away_and_not_of_one_that_was_not() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let failing = Server::start(daily(&service, &directory, &[("BACKUP_COMMAND", "false")])).await;
    failing.process.logged("the backup is stored, but not sent").await;
    assert_eq!(metric(&failing, "backup_last_sent").await, Some(0));
    drop(failing);
    fs::remove_dir_all(directory.0.join("backups")).expect("it is there");
    let sending = Server::start(daily(&service, &directory, &[("BACKUP_COMMAND", "true")])).await;
    assert!(last(&sending, "backup_last_sent").await >= last_success(&sending).await);
    drop(sending);
    let neither = Server::start(daily(&service, &directory, &[])).await;
    last_success(&neither).await;
    assert_eq!(metric(&neither, "backup_last_sent").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_sqlite_takes_a_backup_a_day_and_a_restart_takes_no_other() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    fs::create_dir(directory.0.join("backups")).expect("a directory");
    let old = directory.file("backups/tickets-20200105-040000Z.db.gz", "");
    let environment = daily(&service, &directory, &[]);
    let server = Server::start(environment.clone()).await;
    let line = server.process.logged("backup taken").await;
    for field in ["bytes=", "ms=", "tickets=20", "scans=2", "file="] {
        assert!(line.contains(field), "{line}");
    }
    let first = backups(&service, &directory);
    assert_eq!(first.len(), 2);
    within(PATIENCE, "the new one", async || (last_success(&server).await > 1_600_000_000_000).then_some(())).await;
    let taken = last_success(&server).await;
    drop(server);
    fs::remove_file(old).expect("it is still there");

    let again = Server::start(environment.clone()).await;
    assert_eq!(last_success(&again).await, taken);
    assert!(!again.process.log().contains("backup taken"));
    let verified = Run::of(directory.program(&["backup", "verify"]).envs(environment)).printed();
    assert!(verified.contains(&first[1]), "{verified}");
}

/// Starts a server whose newest backup, which is two hours old, contains everything, and waits for its first check.
async fn with_all_backed_up(service: &Service, directory: &Directory) -> (PathBuf, Server) {
    let old = two_hours_ago(directory);
    fs::rename(take(service, directory), &old).expect("it is there");
    let url = service.database.url();
    let file = url.strip_prefix("sqlite:").expect("a file");
    let touched = Command::new("touch").args(["-t", "202001010000", file, &format!("{file}-wal")]).status();
    assert!(touched.is_ok_and(|status| status.success()));
    let server = Server::start(daily(service, directory, &[])).await;
    last_success(&server).await;
    (old, server)
}

async fn scan_by_hand(server: &Server, ticket: &Ticket) -> Reply {
    let scan = json!({
        "scan_id": Uuid::new_v4(), "seat": ticket.seat, "gate": ticket.gate, "manual": true, "note": "no phone"
    });
    server.organizer().post("/api/events/default/scans", scan).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_sqlite_backs_up_within_a_minute_what_was_scanned() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let (old, server) = with_all_backed_up(&service, &directory).await;
    assert!(!server.process.log().contains("backup taken"));

    let ticket = service.ticket("scanned-now").await;
    scan_by_hand(&server, &ticket).await.is_scan(200, "accepted");
    let line = server.process.logged("backup taken").await;
    assert!(line.contains("scans=3"), "{line}");
    assert!(old.exists(), "each of the last hours has one");
}

/// SQLite would apply the write-ahead log, which belongs to the file of before, to the new one, and delete it.
#[tokio::test(flavor = "multi_thread")]
async fn no_backup_is_taken_of_a_file_in_the_place_of_the_database() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let ticket = service.ticket("scanned-now").await;
    let (old, server) = with_all_backed_up(&service, &directory).await;
    scan_by_hand(&server, &ticket).await.is_scan(200, "accepted");

    let url = service.database.url();
    let file = url.strip_prefix("sqlite:").expect("a file");
    let aside = directory.0.join("aside.db");
    fs::rename(file, &aside).expect("it is there");
    fs::write(file, unpacked(&old).expect("a backup")).expect("a file");
    let line = server.process.logged("backup failed").await;
    assert!(line.contains("is not the file that was opened"), "{line}");
    fs::rename(&aside, file).expect("it is there");
    scan_by_hand(&server, &ticket).await.is_scan(409, "already_used");
    drop(server);
    let again = Server::start(service.database.environment()).await;
    scan_by_hand(&again, &ticket).await.is_scan(409, "already_used");
}

/// As after a crash of the machine or process within the minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_sqlite_backs_up_what_was_scanned_before_it_started() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    let old = two_hours_ago(&directory);
    service.ticket("A-1").await;
    fs::rename(take(&service, &directory), &old).expect("it is there");
    evening(&service).await;
    let server = Server::start(daily(&service, &directory, &[])).await;
    assert!(server.process.logged("backup taken").await.contains("scans=2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_far_less_than_the_one_before_says_so_and_leaves_that() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let full = take(&service, &directory);
    let slip = "delete from scans; delete from tickets where status = 'used'";
    service.database.execute(slip).await.expect("the file's owner may");
    let run = Run::of(&mut backup(&service, &directory));
    assert!(run.errors.starts_with("warning: this backup holds"), "{run:?}");
    assert!(run.errors.contains(&full.file_name().expect("a file").display().to_string()), "{run:?}");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(full.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daily_backup_that_fails_is_an_error_in_the_log_and_the_service_goes_on() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    directory.file("backups", "a file where the directory should be");
    let server = Server::start(daily(&service, &directory, &[])).await;
    let line = server.process.logged("backup failed").await;
    assert!(line.contains("ERROR") && line.contains("backups"), "{line}");
    server.organizer().get("/api/events").await.is(200);
}

/// The state of the backups in the full health check.
async fn health_of_backups(client: &Client) -> Value {
    let health = client.get("/health?full=1").await.text();
    serde_json::from_str::<Value>(&health).expect("JSON")["backups"].clone()
}

/// Waits until a server's full health check reports this state of the backups, and everything else as ok.
async fn full_health(server: &Server, backups: &str) {
    let client = server.anonymous();
    let is_so = async || (health_of_backups(&client).await == backups).then_some(());
    within(PATIENCE, backups, is_so).await;
    let health = client.get("/health?full=1").await.is(if backups == "ok" { 200 } else { 503 });
    assert_members(&health, json!({ "status": backups, "database": "ok", "writable": "ok" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn full_health_fails_while_backups_fail() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let blocked = directory.file("backups", "a file where the directory should be");
    full_health(&Server::start(daily(&service, &directory, &[])).await, "failed").await;
    fs::remove_file(blocked).expect("it is still there");
    full_health(&Server::start(daily(&service, &directory, &[("BACKUP_COMMAND", "false")])).await, "failed").await;
    full_health(&Server::start(daily(&service, &directory, &[])).await, "ok").await;
}

#[tokio::test]
async fn full_health_fails_when_the_newest_backup_is_more_than_25_hours_old() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    take(&service, &directory);
    let backups = directory.0.join("backups").display().to_string();
    for (hours, minutes, expected) in [(24, 11, "ok"), (26, 9, "ok"), (26, 11, "failed")] {
        let settings = settings(&service.database, &[("BACKUP_DIR", &backups)]);
        let mut app = App::new(settings, Box::new(move || Millis(Millis::now().0 + hours * Millis::HOUR)));
        app.started =
            Instant::now().checked_sub(Duration::from_secs(minutes * 60)).expect("this machine runs for longer");
        assert_eq!(health_of_backups(&Client::of(&Arc::new(app))).await, expected, "{hours} h, {minutes} min");
    }
}

/// As if the volume were missing, or the path wrong.
#[tokio::test]
async fn full_health_fails_on_a_new_database_beside_backups_of_another() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    service.ticket_of("gala", "A-1", "North").await;
    take(&service, &directory);
    let backups = directory.0.join("backups").display().to_string();
    let health = async |database: &TestDatabase, further: &[(&str, &str)]| {
        let app = App::new(settings(database, further), Box::new(Millis::now));
        health_of_backups(&Client::of(&Arc::new(app))).await
    };
    let new = TestDatabase::create(Kind::Sqlite).await;
    assert_eq!(health(&new, &[("BACKUP_DIR", &backups)]).await, "failed");

    // What an organizer deletes leaves an action behind.
    service.organizer.delete("/api/events/gala?confirm=gala").await.is(204);
    assert_eq!(health(&service.database, &[("BACKUP_DIR", &backups)]).await, "ok");
    assert_eq!(health(&new, &[]).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_middle_is_not_held_up_and_leaves_the_backup() {
    let (service, directory) = (Service::start(Kind::Sqlite).await, Directory::new());
    evening(&service).await;
    let mut server = Server::start(daily(&service, &directory, &[("BACKUP_COMMAND", "sleep 600")])).await;
    server.process.logged("backup taken").await;
    server.process.terminate();
    assert!(server.process.ended(PATIENCE).await.success());
    let names = backups(&service, &directory);
    verify(&service, &directory, &directory.0.join("backups").join(&names[0])).printed();
}

/// Puts a program in front of PostgreSQL's own of this name.
fn stand_in(directory: &Directory, name: &str, script: &str) -> String {
    let _ = fs::create_dir(directory.0.join("bin"));
    let path = directory.file(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("the file is ours");
    let path = std::env::var("PATH").expect("there is one");
    format!("{}:{path}", directory.0.join("bin").display())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_throwaway_database_is_dropped_whatever_happens() {
    let (service, directory) = (Service::start(Kind::Postgres).await, Directory::new());
    evening(&service).await;
    let file = take(&service, &directory);
    let name = directory.0.join("name");
    // It runs twice: to read the dump, and to load it.
    let record = format!("[ \"$1\" = --file=- ] && exec \"$REAL\" \"$@\"; echo \"$PGDATABASE\" > {}", name.display());
    let real = Command::new("sh").args(["-c", "command -v pg_restore"]).output().expect("sh runs").stdout;
    let real = String::from_utf8(real).expect("UTF-8");
    for (end, code) in [("exec \"$REAL\" \"$@\"", Some(0)), ("exit 1", Some(1)), ("exec sleep 600", Some(1))] {
        let path = stand_in(&directory, "pg_restore", &format!("{record}\n{end}"));
        let mut command = on(&service.database, &directory, &["backup", "verify"]);
        command.arg(&file).env("PATH", path).env("REAL", real.trim());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("the program starts");
        let called = async || fs::read_to_string(&name).ok().filter(|name| name.ends_with('\n'));
        let scratch = within(PATIENCE, "the program is called", called).await;
        fs::remove_file(&name).expect("it is there");
        if end.contains("sleep") {
            let terminated = Command::new("sh").args(["-c", "kill -TERM $0", &child.id().to_string()]).status();
            assert!(terminated.is_ok_and(|status| status.success()));
        }
        assert_eq!(child.wait().expect("it ends").code(), code, "{end}");
        let there = format!("select count(*) from pg_database where datname = '{}'", scratch.trim());
        assert!(scratch.starts_with("register_ticket_api_scratch_"), "{scratch}");
        assert_eq!(service.database.count(&there).await, 0, "{end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgresqls_programs_say_is_told() {
    let (service, directory) = (Service::start(Kind::Postgres).await, Directory::new());
    let nowhere = directory.0.join("nowhere");
    let said = Run::of(backup(&service, &directory).env("PATH", nowhere)).failed(1);
    assert!(said.starts_with("error: pg_dump: No such file") && said.contains("install PostgreSQL's client"), "{said}");

    let older = "echo 'pg_dump: error: aborting because of server version mismatch' >&2; exit 1";
    let said = Run::of(backup(&service, &directory).env("PATH", stand_in(&directory, "pg_dump", older))).failed(1);
    assert!(said.contains("server version mismatch"), "{said}");
    assert_eq!(backups(&service, &directory).len(), 0);

    // The password is in the environment, not in the arguments, which everybody on the machine can read.
    let real = Command::new("sh").args(["-c", "command -v pg_dump"]).output().expect("sh runs").stdout;
    let real = String::from_utf8(real).expect("UTF-8");
    let arguments = directory.0.join("arguments");
    let record = format!("echo \"$@\" > {}; exec {} \"$@\"", arguments.display(), real.trim());
    Run::of(backup(&service, &directory).env("PATH", stand_in(&directory, "pg_dump", &record))).printed();
    let environment = service.database.environment();
    let (_, password) = environment.iter().find(|(name, _)| name == "DB_MIGRATE_PASSWORD").expect("it has one");
    assert!(!fs::read_to_string(arguments).expect("it was called").contains(password.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_restored_into_a_database_that_was_only_migrated() {
    let (service, directory) = (Service::start(Kind::Postgres).await, Directory::new());
    evening(&service).await;
    let before = service.database.snapshot().await;
    let file = take(&service, &directory);
    let target = Target::Database(Box::new(TestDatabase::create(Kind::Postgres).await));
    target.restore(&directory, &file).printed();
    assert_eq!(target.rows().await.snapshot().await, before);
}

/// As made by the daily export on Google Cloud.
#[tokio::test(flavor = "multi_thread")]
async fn a_plain_dump_is_taken_too() {
    let (service, directory) = (Service::start(Kind::Postgres).await, Directory::new());
    evening(&service).await;
    let before = service.database.snapshot().await;
    fs::create_dir(directory.0.join("backups")).expect("a directory");
    let file = directory.0.join("backups/tickets-20200105-040000Z.dump");
    let mut dump = Command::new("pg_dump");
    dump.args(["--format=custom", "--dbname", &service.database.owner_url(), "--file"]).arg(&file);
    Run::of(&mut dump).printed();

    let target = Target::of(&service, &directory).await;
    let length = fs::metadata(&file).expect("it is there").len() as usize;
    for cut in [3, 20, length / 2, length - 9, length - 1] {
        target.restore(&directory, &altered(&directory, &file, |bytes| bytes.truncate(cut))).failed(1);
    }
    assert!(target.is_untouched().await);
    target.restore(&directory, &file).printed();
    assert_eq!(target.rows().await.snapshot().await, before);
    let mut newest = on(&service.database, &directory, &["backup", "verify"]);
    assert!(Run::of(newest.env("BACKUP_DIR", "backups")).printed().contains("20200105-040000Z.dump can be restored"));
}

/// Such as Cloud SQL's `google_vacuum_mgmt`, which no other server could create.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_put_into_the_database_beside_ours_is_not_restored() {
    let (service, directory) = (Service::start(Kind::Postgres).await, Directory::new());
    evening(&service).await;
    let of_the_server = "create schema of_the_server; create extension citext schema of_the_server; \
                         create table of_the_server.jobs (id int)";
    service.database.execute(of_the_server).await.expect("the owner may");
    let before = service.database.snapshot().await;
    let file = take(&service, &directory);
    let target = Target::of(&service, &directory).await;
    target.restore(&directory, &file).printed();
    let mut rows = target.rows().await;
    assert_eq!(rows.snapshot().await, before);
    assert_eq!(rows.count("select count(*) from pg_namespace where nspname = 'of_the_server'").await, 0);
    assert_eq!(rows.count("select count(*) from pg_extension where extname = 'citext'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_one_database_is_not_restored_into_the_other() {
    let (sqlite, postgres) = (Service::start(Kind::Sqlite).await, Service::start(Kind::Postgres).await);
    let directories = [Directory::new(), Directory::new()];
    let files = [take(&sqlite, &directories[0]), take(&postgres, &directories[1])];
    let into_postgres = Target::of(&postgres, &directories[0]).await.restore(&directories[0], &files[0]).failed(1);
    assert!(into_postgres.contains("is a backup of SQLite, and the database is PostgreSQL"), "{into_postgres}");
    let into_sqlite = Target::of(&sqlite, &directories[1]).await.restore(&directories[1], &files[1]).failed(1);
    assert!(into_sqlite.contains("is a backup of PostgreSQL, and the database is SQLite"), "{into_sqlite}");
    // They can be verified from anywhere if a server is named.
    let said = verify(&sqlite, &directories[0], &files[1]).failed(1);
    assert!(said.contains("use --scratch-url"), "{said}");
    let mut command = on(&sqlite.database, &directories[0], &["backup", "verify", "--scratch-url"]);
    let said = Run::of(command.arg("mysql://root:hunter2@localhost")).failed(2);
    assert!(said.contains("expected a postgres:// URL"), "{said}");
    let mut command = on(&sqlite.database, &directories[0], &["backup", "verify", "--scratch-url"]);
    Run::of(command.arg(postgres.database.owner_url()).arg(&files[1])).printed();
}
