//! `smoke`: tests a running service from end to end over HTTP, with a ticket and a person of its own.
//!
//! Everything that a run creates is in one event and has a name unique to the run, `smoke-` and a UUID: the ticket's seat and
//! its holder's username. The ticket is created first and revoked last, so the leftovers of a killed run are found among
//! the tickets that are not revoked. A ticket counts as a leftover if it is older than any run can be.
//!
//! No request is retried: a lost connection would have hit a gate too. To be alerted only by two failures, run it twice.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use http::{Method, Request, Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use uuid::Uuid;

use crate::config::{SettingError, refuse};
use crate::model::{Millis, Slug, Status};
use crate::totp::{Code, QrCode, STALE_WINDOW, TotpKey, step_at};

/// Timeout of one request, which may include a cold start and the start of a database.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a run starts no further step. The clean-up needs a few more requests.
const LONGEST: Duration = Duration::from_secs(180);
/// Age from which a ticket is a killed run's leftover: well above the longest run.
const LEFT_AFTER: Duration = Duration::from_mins(15);
/// Maximum number of leftover tickets with the same status that one run removes.
const LEFT_AT_MOST: usize = 10;
/// The prefix of the names of everything that runs create.
const PREFIX: &str = "smoke-";
const GATE: &str = "smoke";

const HELP: &str = "\
Once, create the event with a key that is bound to no event; then, on the service's database, create the key:

  curl -H \"Authorization: Bearer $ORGANIZER_KEY\" -H 'Content-Type: application/json' \\
    -d '{\"slug\": \"smoke\", \"name\": \"Smoke\"}' URL/api/events
  register-ticket-api keys create --name smoke --role organizer --event smoke

The key expires as every organizer's key does: create another one before then.

Environment variables:
  SMOKE_KEY             that key
  SSL_CERT_FILE         certificate authorities in PEM to trust, such as your
                        own; otherwise Mozilla's list is trusted

The last line of standard output is JSON, even if the run fails:
  {\"ok\", \"url\", \"failed_step\", \"error\", \"cold_start_ms\",
   \"steps\": [{\"name\", \"ms\", \"ok\"}], \"version\", \"revision\"}
cold_start_ms is the duration of the first request if it started the service.
The exit status is 0 on success, 1 on failure, and 2 if SMOKE_KEY or an
argument cannot be used.

Each run removes what it created, even if it fails or is stopped by SIGINT or
SIGTERM, and what a killed run left more than 15 minutes ago. A revoked ticket
without a holder and three scans of each run remain, in that event only.";

#[derive(Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// The address of the service, such as https://tickets.example.org
    #[arg(long, value_parser = base_url)]
    url: String,
    /// The event to which SMOKE_KEY is bound
    #[arg(long, default_value = "smoke", value_parser = super::keys::checked::<Slug>)]
    event: Slug,
    /// Print only the line of JSON
    #[arg(long)]
    json: bool,
}

/// Parses the base of all addresses. Rejects one with a password, because the address is printed.
fn base_url(text: &str) -> Result<String, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "is not a URL")?;
    let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@')) && uri.query().is_none();
    if !plain || !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("must begin with http:// or https://, and have neither user nor query");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let key = std::env::var("SMOKE_KEY").map_err(|_| refuse("SMOKE_KEY", "is not set"))?;
    let client = Client::new(arguments.url.clone(), &key)?;
    let mut run = Run {
        stopped: Arc::default(),
        events: format!("/api/events/{}", arguments.event.0),
        name: format!("{PREFIX}{}", Uuid::now_v7().simple()),
        made: false,
        client,
        quiet: arguments.json,
        report: Report { url: arguments.url, ..Report::default() },
    };
    let stopped = Arc::clone(&run.stopped);
    let report = super::block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopped.store(true, Ordering::Relaxed);
            note!("stopping after the clean-up");
        });
        let work = move || {
            let _ = run.evening();
            run.clean_up();
            run.report
        };
        Ok(tokio::task::spawn_blocking(work).await?)
    })?;
    say(&serde_json::to_string(&report)?);
    match (report.failed_step, report.error) {
        (Some(step), Some(error)) => Err(anyhow::anyhow!("{step}: {error}")),
        _ => Ok(()),
    }
}

/// Prints a line and ignores failures: a reader that has gone must not prevent the clean-up.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The report for programs.
#[derive(Default, Serialize)]
struct Report {
    ok: bool,
    url: String,
    /// The first step that failed.
    failed_step: Option<&'static str>,
    error: Option<String>,
    cold_start_ms: Option<u64>,
    steps: Vec<Step>,
    /// The service's version, from `/health`.
    version: Option<String>,
    revision: Option<String>,
}

#[derive(Serialize)]
struct Step {
    name: &'static str,
    ms: u64,
    ok: bool,
}

struct Run {
    client: Client,
    /// Set by a signal, after which no further step starts.
    stopped: Arc<AtomicBool>,
    /// The path of the event.
    events: String,
    name: String,
    /// Whether there may be something to clean up.
    made: bool,
    quiet: bool,
    report: Report,
}

/// A ticket in the list.
#[derive(Deserialize)]
struct Listed {
    ticket_id: Uuid,
    seat: String,
    status: Status,
    username: Option<String>,
    created_at: Millis,
}

/// The response to a registration.
#[derive(Deserialize)]
struct Registered {
    ticket_id: Uuid,
    provisioning: Provisioning,
}

#[derive(Deserialize)]
struct Provisioning {
    secret: String,
}

/// The codes shown at the gate.
struct Shown {
    right: String,
    wrong: String,
}

impl Run {
    /// Runs the steps in order until one fails. The report says which.
    fn evening(&mut self) -> Option<()> {
        self.step("remove_leftovers", Self::remove_leftovers)?;
        self.step("health", Self::health)?;
        self.step("full_health", Self::full_health)?;
        self.step("key_is_bound", Self::key_is_bound)?;
        self.step("issue", Self::issue)?;
        self.step("create_user", Self::create_user)?;
        let ticket = self.step("register", Self::register)?;
        let shown = self.step("compute_code", |_| codes(&ticket))?;
        self.step("refuse_wrong_code", |run| run.scan(&shown.wrong, 422, "wrong_code"))?;
        self.step("admit", |run| run.scan(&shown.right, 200, "accepted"))?;
        self.step("refuse_second_scan", |run| run.scan(&shown.right, 409, "already_used"))
    }

    /// Ends a run, however far it got.
    fn clean_up(&mut self) {
        if self.made {
            let _ = self.timed("clean_up", |run| run.remove(&run.name.clone()));
            let _ = self.timed("verify_gone", Self::verify_gone);
        }
        self.report.ok = self.report.failed_step.is_none();
    }

    fn step<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> Option<T> {
        self.timed(name, |run| {
            anyhow::ensure!(!run.stopped.load(Ordering::Relaxed), "stopped by a signal");
            anyhow::ensure!(run.client.begun.elapsed() < LONGEST, "not started within {} s", LONGEST.as_secs());
            work(run)
        })
    }

    fn timed<T>(&mut self, name: &'static str, work: impl FnOnce(&mut Self) -> anyhow::Result<T>) -> Option<T> {
        let start = Instant::now();
        let outcome = work(self);
        let ms = milliseconds(start.elapsed());
        self.report.steps.push(Step { name, ms, ok: outcome.is_ok() });
        let error = outcome.as_ref().err().map(|error| format!("{error:#}"));
        if !self.quiet {
            let failure = error.as_ref().map(|error| format!(" failed: {error}")).unwrap_or_default();
            say(&format!("{ms:>6} ms  {name}{failure}"));
        }
        if self.report.failed_step.is_none() && error.is_some() {
            self.report.failed_step = Some(name);
            self.report.error = error;
        }
        outcome.ok()
    }

    /// Removes the leftovers of killed runs. Concurrent runs are younger.
    fn remove_leftovers(&mut self) -> anyhow::Result<()> {
        for status in [Status::Valid, Status::Used] {
            let query = format!("status={}&gate={GATE}&q={PREFIX}&limit={LEFT_AT_MOST}", status.as_str());
            let (tickets, now) = self.tickets(&query)?;
            for ticket in tickets.iter().filter(|ticket| is_of_a_run(&ticket.seat)) {
                // By the service's clock, as `created_at` is; ours may be wrong.
                let now = now.context("expected a Date header with the list of tickets, got none")?;
                if ticket.created_at + LEFT_AFTER < now {
                    self.remove(&ticket.seat)?;
                }
            }
        }
        Ok(())
    }

    fn health(&mut self) -> anyhow::Result<()> {
        let reply = self.client.get("/health")?;
        reply.is(200, "ok")?;
        self.report.version = reply.body["version"].as_str().map(str::to_owned);
        self.report.revision = reply.body["revision"].as_str().map(str::to_owned);
        // These are durations, so the clocks of the two machines are not compared.
        if let (Some(first), Some(uptime)) = (self.client.first_took, reply.uptime)
            && uptime < self.client.begun.elapsed()
        {
            let ms = milliseconds(first);
            self.report.cold_start_ms = Some(ms);
            if !self.quiet {
                say(&format!("{ms:>6} ms  cold start: the first request made the service start"));
            }
        }
        Ok(())
    }

    fn full_health(&mut self) -> anyhow::Result<()> {
        let reply = self.client.get("/health?full=1")?;
        reply.is(200, "ok").with_context(|| {
            let checks = reply.body.as_object().into_iter().flatten().filter(|(name, _)| *name != "status");
            let failed: Vec<&str> =
                checks.filter(|(_, result)| *result == "failed").map(|(name, _)| name.as_str()).collect();
            if failed.is_empty() { "failed".to_owned() } else { failed.join(", ") }
        })
    }

    /// Checks that the key is limited to this event, because the scheduler stores it.
    fn key_is_bound(&mut self) -> anyhow::Result<()> {
        self.client.get("/api/events")?.is(403, "forbidden").context("SMOKE_KEY opens more than this event")
    }

    fn issue(&mut self) -> anyhow::Result<()> {
        // Set before the request: the ticket may have been created even if the response is lost.
        self.made = true;
        let body = json!({ "seat": self.name, "gate": GATE });
        self.client.post(&format!("{}/tickets", self.events), body)?.is(201, "")
    }

    fn create_user(&mut self) -> anyhow::Result<()> {
        self.client.post("/api/users", json!({ "username": self.name }))?.is(201, "")
    }

    fn register(&mut self) -> anyhow::Result<Registered> {
        let event = self.events.rsplit('/').next();
        let body = json!({ "event": event, "seat": self.name, "gate": GATE });
        let reply = self.client.post(&format!("/api/users/{}/tickets", self.name), body)?;
        reply.is(201, "")?;
        // The parser's message may repeat the secret.
        serde_json::from_value(reply.body).map_err(|_| anyhow::anyhow!("expected a ticket and its secret, got neither"))
    }

    fn scan(&mut self, code: &str, status: u16, result: &str) -> anyhow::Result<()> {
        let body = json!({ "scan_id": Uuid::now_v7(), "code": code });
        self.client.post(&format!("{}/scans", self.events), body)?.is(status, result)
    }

    /// Erases the holder, which revokes the ticket, then revokes the ticket if it is not revoked yet. Idempotent.
    fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        let erased = self.client.send(Method::DELETE, &format!("/api/users/{name}"), None)?;
        if erased.is(404, "user_not_found").is_err() {
            erased.is(204, "")?;
        }
        for ticket in self.tickets_of(name)? {
            if ticket.status != Status::Revoked {
                let path = format!("/api/tickets/{}/revoke", ticket.ticket_id);
                self.client.send(Method::POST, &path, None)?.is(200, "revoked")?;
            }
        }
        Ok(())
    }

    fn verify_gone(&mut self) -> anyhow::Result<()> {
        self.client.get(&format!("/api/users/{}", self.name))?.is(404, "user_not_found")?;
        let gone = |ticket: &Listed| ticket.status == Status::Revoked && ticket.username.is_none();
        let all_gone = self.tickets_of(&self.name.clone())?.iter().all(gone);
        anyhow::ensure!(all_gone, "expected the ticket to be revoked and without a holder");
        Ok(())
    }

    fn tickets_of(&mut self, name: &str) -> anyhow::Result<Vec<Listed>> {
        let (mut tickets, _) = self.tickets(&format!("q={name}"))?;
        tickets.retain(|ticket| ticket.seat == name);
        Ok(tickets)
    }

    /// Returns some of the event's tickets, and the service's time.
    fn tickets(&mut self, query: &str) -> anyhow::Result<(Vec<Listed>, Option<Millis>)> {
        let mut reply = self.client.get(&format!("{}/tickets?{query}", self.events))?;
        reply.is(200, "")?;
        let tickets = serde_json::from_value(reply.body["tickets"].take());
        Ok((tickets.context("expected a list of tickets")?, reply.date))
    }
}

/// Returns whether a run named this seat. A person may have named one `smoke-detector`.
fn is_of_a_run(seat: &str) -> bool {
    seat.strip_prefix(PREFIX).is_some_and(|id| id.len() == 32 && Uuid::try_parse(id).is_ok())
}

/// Returns the code on the holder's phone now, and a wrong one.
fn codes(ticket: &Registered) -> anyhow::Result<Shown> {
    let key: TotpKey = super::code::key(&ticket.provisioning.secret)?;
    let step = step_at(Millis::now());
    // A few steps more than the service checks, because the clocks may differ.
    let near: Vec<String> = (-STALE_WINDOW - 5..=STALE_WINDOW + 5).map(|away| key.code(step + away)).collect();
    let wrong = (0..).map(|number| format!("{number:06}")).find(|digits| !near.contains(digits)).unwrap_or_default();
    let shown = |code| QrCode { ticket_id: ticket.ticket_id, code: Code::Rotating(code) }.to_string();
    Ok(Shown { right: shown(key.code(step)), wrong: shown(wrong) })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

struct Client {
    agent: ureq::Agent,
    base_url: String,
    authorization: String,
    begun: Instant,
    first_took: Option<Duration>,
}

/// A response, with a name of the request for errors.
struct Reply {
    request: String,
    status: u16,
    date: Option<Millis>,
    uptime: Option<Duration>,
    /// Null if there is no body, or it is not JSON.
    body: Value,
}

impl Client {
    fn new(base_url: String, key: &str) -> Result<Self, SettingError> {
        let key_fits = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !key_fits {
            return Err(refuse("SMOKE_KEY", "must hold visible ASCII characters and no space"));
        }
        // Redirects are not followed: they are unexpected, and no other server should get the key.
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(TlsConfig::builder().root_certs(authorities()?).build())
            .user_agent(concat!("register-ticket-api-smoke/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let authorization = format!("Bearer {key}");
        Ok(Self { agent, base_url, authorization, begun: Instant::now(), first_took: None })
    }

    fn get(&mut self, path: &str) -> anyhow::Result<Reply> {
        self.send(Method::GET, path, None)
    }

    fn post(&mut self, path: &str, body: Value) -> anyhow::Result<Reply> {
        self.send(Method::POST, path, Some(body))
    }

    /// Sends a request once.
    fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Reply> {
        let route = path.split('?').next().unwrap_or_default();
        let request = format!("{method} {route}");
        let start = Instant::now();
        let reply = self.exchange(method, path, body);
        self.first_took.get_or_insert(start.elapsed());
        let (parts, body) = reply.with_context(|| format!("{request}: expected an answer, got none"))?.into_parts();
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Reply {
            request,
            status: parts.status.as_u16(),
            date: text("date")
                .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
                .map(|date| Millis(date.timestamp().as_millisecond())),
            uptime: text("server-timing")
                .and_then(|timing| timing.strip_prefix("uptime;dur=")?.parse().ok())
                .map(Duration::from_millis),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        })
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<http::Response<Vec<u8>>, ureq::Error> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header(header::AUTHORIZATION, &self.authorization);
        let response = match body {
            Some(body) => {
                let request = request.header(header::CONTENT_TYPE, "application/json");
                self.agent.run(request.body(body.to_string())?)?
            }
            None => self.agent.run(request.body(())?)?,
        };
        let (parts, mut body) = response.into_parts();
        Ok(http::Response::from_parts(parts, body.read_to_vec()?))
    }
}

impl Reply {
    /// Checks the status and one word: a scan's result, an error's code, or a health status. Errors repeat nothing else of the
    /// response, which may echo what was sent.
    fn is(&self, status: u16, word: &str) -> anyhow::Result<()> {
        let came = ["result", "code", "status"].iter().find_map(|name| self.body[name].as_str()).unwrap_or_default();
        if self.status == status && (word.is_empty() || word == came) {
            return Ok(());
        }
        let is_word = came.len() <= 40 && came.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let came = if is_word { came } else { "" };
        let clocks = match self.body["seconds_off"].as_i64() {
            Some(seconds) => format!(" (the clocks are {} s apart)", seconds.abs()),
            None => String::new(),
        };
        let both = |status: u16, word: &str| format!("{status} {word}").trim_end().to_owned();
        anyhow::bail!("{}: expected {}, got {}{clocks}", self.request, both(status, word), both(self.status, came))
    }
}

/// Returns the certificate authorities to trust.
fn authorities() -> Result<RootCerts, SettingError> {
    let Some(file) = std::env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()) else {
        return Ok(RootCerts::WebPki);
    };
    let pem = std::fs::read(&file).map_err(|error| refuse("SSL_CERT_FILE", error))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(refuse("SSL_CERT_FILE", "has no certificate in PEM"));
    }
    Ok(certificates.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_says_from_when_on_a_killed_run_is_cleaned_up_after() {
        assert!(HELP.contains(&format!("what a killed run left more than {} ago", crate::limits::told(LEFT_AFTER))));
    }

    #[test]
    fn the_address_is_of_http_and_holds_no_secret() {
        for (text, read) in [
            ("https://tickets.example.org", Some("https://tickets.example.org")),
            ("http://[::1]:8080/", Some("http://[::1]:8080")),
            ("https://example.org/tickets/", Some("https://example.org/tickets")),
            ("tickets.example.org", None),
            ("/health", None),
            ("ftp://example.org", None),
            ("https://", None),
            ("https://me:password@example.org", None),
            ("https://example.org/?key=1", None),
        ] {
            assert_eq!(base_url(text).ok().as_deref(), read, "{text}");
        }
    }

    #[test]
    fn only_what_a_run_named_is_of_a_run() {
        for (seat, is_ours) in [
            ("smoke-0123456789abcdef0123456789abcdef", true),
            ("smoke-detector", false),
            ("smoke-", false),
            ("smoke-01234567-89ab-cdef-0123-456789abcdef", false),
            ("A-0123456789abcdef0123456789abcdef", false),
        ] {
            assert_eq!(is_of_a_run(seat), is_ours, "{seat}");
        }
    }

    #[test]
    fn the_wrong_code_is_wrong_for_every_clock_near() {
        let secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ".to_owned();
        let ticket = Registered { ticket_id: Uuid::nil(), provisioning: Provisioning { secret } };
        let shown = codes(&ticket).unwrap();
        let Some(QrCode { code: Code::Rotating(wrong), .. }) = QrCode::parse(&shown.wrong) else { unreachable!() };
        let key = super::super::code::key(&ticket.provisioning.secret).unwrap();
        for away in [-60, 0, 60] {
            let then = Millis(Millis::now().0 + away * Millis::SECOND);
            assert_eq!(key.find(&wrong, then), crate::totp::Match::None);
        }
    }
}
