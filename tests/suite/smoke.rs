//! The smoke test as a person or a schedule runs it: against healthy services, against broken ones, and through a proxy
//! that makes them seem broken.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

use http::StatusCode;
use http::header::{CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::client::Reply;
use crate::database::Kind;
use crate::process::{Connection, PATIENCE, Process, Server, read_body, read_head, within};
use crate::service::{ORGANIZER_KEY, Service, assert_members};

on_both_databases! {
    a_run_passes_and_leaves_what_is_documented,
    two_runs_at_once_do_not_meet,
    what_a_killed_run_left_is_removed_once_it_is_old,
    a_run_that_is_stopped_cleans_up,
    a_verdict_that_is_false_fails_its_step,
    a_connection_that_is_lost_is_told_and_nothing_is_sent_twice,
    a_service_that_goes_away_half_way_is_told_by_the_step_that_met_it,
    a_key_that_is_not_the_events_is_refused,
    a_database_that_is_away_fails_the_run,
    a_cold_start_is_told,
}

/// The service with the event and the key that the help text asks for.
struct Prepared {
    service: Service,
    server: Server,
    key: String,
}

impl Prepared {
    async fn new(service: Service) -> Self {
        let server = Server::start(service.database.environment()).await;
        let organizer = server.organizer();
        organizer.post("/api/events", json!({ "slug": "smoke", "name": "Smoke" })).await.is(201);
        let key = json!({ "name": "smoke", "role": "organizer", "event": "smoke" });
        let key = organizer.post("/api/keys", key).await.is(201)["key"].as_str().expect("a key").to_owned();
        // A ticket that a run must leave alone, although its name is like one of a run's.
        organizer.post("/api/events/smoke/tickets", json!({ "seat": "smoke-detector", "gate": "smoke" })).await.is(201);
        service.ticket("A1").await;
        Self { service, server, key }
    }

    fn run(&self, address: SocketAddr) -> Process {
        start(&format!("http://{address}"), &self.key, &[])
    }

    async fn rows(&self) -> Rows {
        Rows {
            users: self.count("users").await,
            keys: self.count("keys").await,
            events: self.count("events").await,
            good_tickets: self.count("tickets where status <> 'revoked'").await,
        }
    }

    async fn count(&self, table: &str) -> i64 {
        self.service.database.count(&format!("select count(*) from {table}")).await
    }
}

/// The rows that a run could leave behind.
#[derive(Debug, PartialEq)]
struct Rows {
    users: i64,
    keys: i64,
    events: i64,
    good_tickets: i64,
}

fn start(url: &str, key: &str, further: &[(&str, &str)]) -> Process {
    let environment = [&[("SMOKE_KEY", key)], further].concat();
    let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Process::command(&["smoke", "--url", url], environment)
}

/// A finished run.
struct Outcome {
    code: Option<i32>,
    log: String,
    report: Value,
}

impl Outcome {
    async fn of(mut process: Process) -> Self {
        let code = process.ended(PATIENCE).await.code();
        let log = process.log();
        let report = log.lines().find(|line| line.starts_with("{\"ok\":")).unwrap_or_default();
        let report = serde_json::from_str(report).unwrap_or_default();
        Self { code, log, report }
    }

    #[track_caller]
    fn passed(&self) {
        assert_eq!(self.code, Some(0), "{}", self.log);
        assert_members(&self.report, json!({ "ok": true, "failed_step": null, "error": null }));
    }

    /// Asserts that it failed at this step, for this reason.
    #[track_caller]
    fn failed(&self, step: &str, why: &str) {
        assert_eq!(self.code, Some(1), "{}", self.log);
        assert_members(&self.report, json!({ "ok": false, "failed_step": step }));
        let error = self.report["error"].as_str().unwrap_or_default();
        assert!(error.contains(why), "{error}");
        assert!(self.log.contains(&format!("error: {step}: {error}")), "{}", self.log);
    }

    /// The steps that succeeded or, with `false`, failed.
    fn steps(&self, ok: bool) -> Vec<&str> {
        let steps = self.report["steps"].as_array().map(Vec::as_slice).unwrap_or_default();
        steps.iter().filter(|step| step["ok"] == ok).filter_map(|step| step["name"].as_str()).collect()
    }
}

/// A proxy between a run and the service. It may change or withhold answers, and records the requests.
struct Between {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Gets a request, such as `POST /api/users`, and its answer; `None` ends the connection without one.
type Meddle = dyn Fn(&str, Reply) -> Option<Reply> + Send + Sync;

impl Between {
    fn start(service: SocketAddr, meddle: impl Fn(&str, Reply) -> Option<Reply> + Send + Sync + 'static) -> Self {
        Self::open(Arc::new(service.into()), None, Arc::new(meddle))
    }

    /// Opens the proxy, with TLS or without; the service's address may be set later.
    fn open(service: Arc<OnceLock<SocketAddr>>, tls: Option<Arc<rustls::ServerConfig>>, meddle: Arc<Meddle>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("a listener has an address");
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let keep = Arc::clone(&asked);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (service, meddle, keep) = (Arc::clone(&service), Arc::clone(&meddle), Arc::clone(&keep));
                let tls = tls.clone();
                std::thread::spawn(move || match tls {
                    None => pass_on(client, &service, &*meddle, &keep),
                    Some(tls) => {
                        let connection = rustls::ServerConnection::new(tls).expect("the certificate fits its key");
                        pass_on(rustls::StreamOwned::new(connection, client), &service, &*meddle, &keep)
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics").clone()
    }
}

/// Answers the requests of one connection until it ends.
fn pass_on(
    client: impl Read + Write,
    service: &OnceLock<SocketAddr>,
    meddle: &Meddle,
    asked: &Mutex<Vec<String>>,
) -> Option<()> {
    let mut client = BufReader::new(client);
    loop {
        let (start, headers) = read_head(&mut client).ok()?;
        let has_body = headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
        let body = if has_body { read_body(&mut client, &headers).ok()? } else { Vec::new() };
        let request = start.trim_end_matches(" HTTP/1.1");
        asked.lock().expect("nobody panics").push(request.to_owned());

        let mut head = format!("{start}\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in &headers {
            if ![CONTENT_LENGTH, TRANSFER_ENCODING, HOST].contains(name) {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().expect("a header of ours is ASCII")));
            }
        }
        let mut connection = Connection::open(*service.wait()).ok()?;
        connection.send(&[head.as_bytes(), b"\r\n", &body].concat());
        let reply = meddle(request, connection.reply(request.split(' ').next()?)?)?;

        let mut head = format!("HTTP/1.1 {}\r\n", reply.status);
        for (name, value) in reply.headers.iter().filter(|(name, _)| *name != CONTENT_LENGTH) {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().ok()?));
        }
        let length = format!("content-length: {}\r\n", reply.body.len());
        head.push_str(if reply.status == StatusCode::NO_CONTENT { "" } else { &length });
        client.get_mut().write_all(&[head.as_bytes(), b"\r\n", &reply.body].concat()).ok()?;
        client.get_mut().flush().ok()?;
    }
}

/// Holds an answer back until the test continues.
#[derive(Default)]
struct Hold {
    reached: OnceLock<()>,
    released: OnceLock<()>,
}

impl Hold {
    /// Holds the first caller.
    fn here(&self) {
        if self.reached.set(()).is_ok() {
            self.released.wait();
        }
    }

    async fn is_reached(&self) {
        within(PATIENCE, "the request", async || self.reached.get().copied()).await;
    }

    fn release(&self) {
        self.released.set(()).expect("it is released once");
    }
}

const STEPS: [&str; 13] = [
    "remove_leftovers",
    "health",
    "full_health",
    "key_is_bound",
    "issue",
    "create_user",
    "register",
    "compute_code",
    "refuse_wrong_code",
    "admit",
    "refuse_second_scan",
    "clean_up",
    "verify_gone",
];
const SCANS: &str = "POST /api/events/smoke/scans";

async fn a_run_passes_and_leaves_what_is_documented(service: Service) {
    let prepared = Prepared::new(service).await;
    let before = prepared.rows().await;
    let url = format!("http://{}/", prepared.server.address);
    for times in 1..=2 {
        let run = Outcome::of(start(&url, &prepared.key, &[])).await;
        run.passed();
        assert_eq!(run.steps(true), STEPS);
        assert_eq!(run.report["url"], url.trim_end_matches('/'));
        assert_eq!(run.report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(run.report["cold_start_ms"], Value::Null);
        let lines: Vec<&str> = run.log.lines().collect();
        assert_eq!(lines.len(), STEPS.len() + 1, "{}", run.log);
        for (line, step) in lines.iter().zip(STEPS) {
            assert!(line.ends_with(&format!(" ms  {step}")), "{line}");
        }

        assert_eq!(prepared.rows().await, before);
        let remain = "tickets where seat like 'smoke-%' and status = 'revoked' and user_id is null";
        assert_eq!(prepared.count(remain).await, times);
        assert_eq!(prepared.count("scans").await, 3 * times);
    }
    let key = ("SMOKE_KEY".to_owned(), prepared.key.clone());
    let quiet = Outcome::of(Process::command(&["smoke", "--json", "--url", &url], [key])).await;
    quiet.passed();
    assert_eq!(quiet.log.lines().count(), 1, "{}", quiet.log);
}

async fn two_runs_at_once_do_not_meet(service: Service) {
    let prepared = Prepared::new(service).await;
    let before = prepared.rows().await;
    let gate = Arc::new(Hold::default());
    let hold = Arc::clone(&gate);
    let between = Between::start(prepared.server.address, move |request, reply| {
        if request == SCANS {
            hold.here();
        }
        Some(reply)
    });
    let first = prepared.run(between.address);
    gate.is_reached().await;
    Outcome::of(prepared.run(prepared.server.address)).await.passed();
    gate.release();
    Outcome::of(first).await.passed();
    assert_eq!(prepared.rows().await, before);
}

async fn what_a_killed_run_left_is_removed_once_it_is_old(service: Service) {
    let prepared = Prepared::new(service).await;
    let before = prepared.rows().await;
    for request in [
        "POST /api/events/smoke/tickets",
        "POST /api/users",
        "POST /api/users/smoke-",
        SCANS,
        "DELETE /api/users/smoke-",
    ] {
        // The service has executed the request, but the run never gets the answer.
        let last = Arc::new(Hold::default());
        let hold = Arc::clone(&last);
        let between = Between::start(prepared.server.address, move |asked, reply| {
            if asked.starts_with(request) {
                hold.here();
            }
            Some(reply)
        });
        let mut run = prepared.run(between.address);
        last.is_reached().await;
        run.kill();
        last.release();
    }
    let left = prepared.rows().await;
    // The first run left no user, the last one nothing.
    assert_eq!(left, Rows { users: before.users + 3, good_tickets: before.good_tickets + 4, ..before });

    // Those runs may still be in progress.
    Outcome::of(prepared.run(prepared.server.address)).await.passed();
    assert_eq!(prepared.rows().await, left);

    let later = Between::start(prepared.server.address, |_, mut reply| {
        let time = Timestamp::now() + SignedDuration::from_mins(16);
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&time).expect("a time of these years");
        reply.headers.insert(DATE, date.parse().expect("ASCII"));
        Some(reply)
    });
    Outcome::of(prepared.run(later.address)).await.passed();
    assert_eq!(prepared.rows().await, before);
}

async fn a_run_that_is_stopped_cleans_up(service: Service) {
    let prepared = Prepared::new(service).await;
    let before = prepared.rows().await;
    for signal in ["TERM", "INT"] {
        let asked = Arc::new(Hold::default());
        let hold = Arc::clone(&asked);
        let between = Between::start(prepared.server.address, move |request, reply| {
            if request == "POST /api/users" {
                hold.here();
            }
            Some(reply)
        });
        let run = prepared.run(between.address);
        asked.is_reached().await;
        run.signal(signal);
        run.logged("stopping").await;
        asked.release();
        let outcome = Outcome::of(run).await;
        outcome.failed("register", "stopped by a signal");
        assert!(!between.asked().contains(&SCANS.to_owned()));
        assert_eq!(prepared.rows().await, before);
    }
}

async fn a_verdict_that_is_false_fails_its_step(service: Service) {
    let prepared = Prepared::new(service).await;
    let before = prepared.rows().await;
    // Runs the smoke test with one of the service's verdicts replaced.
    let misled = async |verdict: &'static str, status: StatusCode, instead: &'static str| {
        let secret: Arc<OnceLock<String>> = Arc::default();
        let seen = Arc::clone(&secret);
        let between = Between::start(prepared.server.address, move |_, mut reply| {
            let mut body: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            if let Some(secret) = body["provisioning"]["secret"].as_str() {
                let _ = seen.set(secret.to_owned());
            }
            if body["result"] == verdict {
                reply.status = status;
                body["result"] = json!(instead);
                reply.body = body.to_string().into_bytes();
            }
            Some(reply)
        });
        let run = Outcome::of(prepared.run(between.address)).await;
        assert!(run.steps(true).ends_with(&["clean_up", "verify_gone"]), "{}", run.log);
        assert_eq!(prepared.rows().await, before);
        assert!(!run.log.contains(&prepared.key) && !run.log.contains(secret.get().expect("a registration")));
        run
    };
    let run = misled("wrong_code", StatusCode::OK, "accepted").await;
    run.failed("refuse_wrong_code", "expected 422 wrong_code, got 200 accepted");
    assert_eq!(run.steps(false), ["refuse_wrong_code"]);
    let run = misled("accepted", StatusCode::UNPROCESSABLE_ENTITY, "stale_code").await;
    run.failed("admit", "expected 200 accepted, got 422 stale_code");
    assert_eq!(run.steps(false), ["admit"]);
    let run = misled("already_used", StatusCode::OK, "accepted").await;
    run.failed("refuse_second_scan", "expected 409 already_used, got 200 accepted");
    assert_eq!(run.steps(false), ["refuse_second_scan"]);
}

async fn a_connection_that_is_lost_is_told_and_nothing_is_sent_twice(service: Service) {
    let prepared = Prepared::new(service).await;
    let before = prepared.rows().await;
    for (request, step) in [(SCANS, "refuse_wrong_code"), ("POST /api/events/smoke/tickets", "issue")] {
        let between =
            Between::start(prepared.server.address, move |asked, reply| Some(reply).filter(|_| asked != request));
        let run = Outcome::of(prepared.run(between.address)).await;
        run.failed(step, "expected an answer, got none");
        assert_eq!(between.asked().iter().filter(|asked| *asked == request).count(), 1);
        assert_eq!(prepared.rows().await, before, "what the service did anyway is cleaned up");
    }
}

async fn a_service_that_goes_away_half_way_is_told_by_the_step_that_met_it(service: Service) {
    let prepared = Prepared::new(service).await;
    let gone = Mutex::new(false);
    let between = Between::start(prepared.server.address, move |request, reply| {
        let mut gone = gone.lock().expect("nobody panics");
        *gone |= request == SCANS;
        Some(reply).filter(|_| !*gone)
    });
    let run = Outcome::of(prepared.run(between.address)).await;
    run.failed("refuse_wrong_code", "expected an answer, got none");
    assert_eq!(run.steps(false), ["refuse_wrong_code", "clean_up", "verify_gone"]);
}

async fn a_key_that_is_not_the_events_is_refused(service: Service) {
    let prepared = Prepared::new(service).await;
    let url = format!("http://{}", prepared.server.address);
    let unchanged = prepared.service.database.snapshot().await;
    let unknown = format!("rtk_{}", "A".repeat(43));
    let run = Outcome::of(start(&url, &unknown, &[])).await;
    run.failed("remove_leftovers", "expected 200, got 401 unauthenticated");
    let key = ("SMOKE_KEY".to_owned(), prepared.key.clone());
    let run = Outcome::of(Process::command(&["smoke", "--url", &url, "--event", "default"], [key])).await;
    run.failed("remove_leftovers", "expected 200, got 403 forbidden");
    let run = Outcome::of(start(&url, ORGANIZER_KEY, &[])).await;
    run.failed("key_is_bound", "SMOKE_KEY opens more than this event");
    assert_eq!(prepared.service.database.snapshot().await, unchanged);
}

async fn a_database_that_is_away_fails_the_run(service: Service) {
    let prepared = Prepared::new(service).await;
    let nowhere = match prepared.service.database.kind {
        Kind::Sqlite => "sqlite:/dev/null/tickets.db",
        Kind::Postgres => "postgres://nobody@127.0.0.1:9/none",
    };
    let server = Server::start([("DATABASE_URL".to_owned(), nowhere.to_owned())]).await;
    let run = Outcome::of(prepared.run(server.address)).await;
    run.failed("remove_leftovers", "expected 200, got 503 database_unavailable");
}

async fn a_cold_start_is_told(service: Service) {
    let Prepared { service, server, key } = Prepared::new(service).await;
    drop(server);
    let address: Arc<OnceLock<SocketAddr>> = Arc::default();
    let between = Between::open(Arc::clone(&address), None, Arc::new(|_: &str, reply| Some(reply)));
    let url = format!("http://{}", between.address);
    let run = start(&url, &key, &[]);
    within(PATIENCE, "a request", async || between.asked().first().cloned()).await;
    let server = Server::start(service.database.environment()).await;
    address.set(server.address).expect("it is set once");
    let cold = Outcome::of(run).await;
    cold.passed();
    assert!(cold.report["cold_start_ms"].as_u64().is_some_and(|ms| ms > 0), "{}", cold.log);
    assert!(cold.log.contains("cold start"), "{}", cold.log);
    let warm = Outcome::of(start(&url, &key, &[])).await;
    warm.passed();
    assert_eq!(warm.report["cold_start_ms"], Value::Null);
}

#[tokio::test]
async fn a_service_that_is_down_fails_the_run() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let run = Outcome::of(start(&url, "a-key", &[])).await;
    run.failed("remove_leftovers", "expected an answer, got none");
    assert_eq!(run.steps(true), [""; 0], "there is nothing to clean up");
}

#[tokio::test]
async fn without_a_usable_key_or_address_nothing_is_asked() {
    let says = async |arguments: &[&str], key: Option<&str>, why: &str| {
        let key = key.map(|key| ("SMOKE_KEY".to_owned(), key.to_owned()));
        let run = Outcome::of(Process::command(&[&["smoke"], arguments].concat(), key)).await;
        assert_eq!(run.code, Some(2), "{}", run.log);
        assert!(run.log.contains(why), "{}", run.log);
        assert!(!run.log.contains("two words"), "{}", run.log);
    };
    let nowhere = ["--url", "http://127.0.0.1:9"];
    says(&nowhere, None, "SMOKE_KEY: is not set").await;
    says(&nowhere, Some("two words"), "SMOKE_KEY: must hold").await;
    says(&["--url", "localhost"], Some("key"), "must begin with http:// or https://").await;
    says(&[], Some("key"), "--url").await;
}

/// Reaches a service behind TLS with a certificate from a private authority, as Caddy makes them.
#[tokio::test]
async fn over_tls_the_authorities_of_ssl_cert_file_are_trusted_and_no_others() {
    let service = Service::start(Kind::Sqlite).await;
    let prepared = Prepared::new(service).await;
    let directory = std::env::temp_dir().join(format!("smoke_{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir(&directory).expect("a temporary directory can be created");
    let tls = certificates(&directory);
    let address = Arc::new(prepared.server.address.into());
    let between = Between::open(address, Some(tls), Arc::new(|_: &str, reply| Some(reply)));
    let url = format!("https://localhost:{}", between.address.port());

    let authority = directory.join("authority.pem");
    let authority = authority.to_str().expect("UTF-8");
    let run = Outcome::of(start(&url, &prepared.key, &[("SSL_CERT_FILE", authority)])).await;
    let unknown = Outcome::of(start(&url, &prepared.key, &[])).await;
    let key_file = directory.join("service.key");
    let wrong = Outcome::of(start(&url, &prepared.key, &[("SSL_CERT_FILE", key_file.to_str().expect("UTF-8"))])).await;
    std::fs::remove_dir_all(&directory).expect("it is there");
    run.passed();
    unknown.failed("remove_leftovers", "UnknownIssuer");
    assert_eq!(wrong.code, Some(2), "{}", wrong.log);
    assert!(wrong.log.contains("error: SSL_CERT_FILE: has no certificate in PEM"), "{}", wrong.log);
}

/// Creates an authority, `authority.pem`, and its certificate for localhost.
pub fn certificates(directory: &Path) -> Arc<rustls::ServerConfig> {
    let openssl = |arguments: &str| {
        let run = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
        let run = run.expect("this test needs the program openssl, from the package of the same name");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    };
    let new_key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1";
    openssl(&format!("{new_key} -subj /CN=authority -keyout authority.key -out authority.pem"));
    openssl(&format!(
        "{new_key} -subj /CN=localhost -keyout service.key -out service.pem -CA authority.pem -CAkey authority.key \
         -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    ));
    let chain = vec![CertificateDer::from_pem_file(directory.join("service.pem")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(directory.join("service.key")).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
    Arc::new(config.expect("the certificate fits its key"))
}
