//! The one handler function and the whole route table.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use http::request::Parts;
use once_cell::sync::OnceCell;
use tokio::sync::Semaphore;

use crate::auth::{Caller, KeyRing};
use crate::config::Settings;
use crate::endpoints::{batches, events, keys, manifest, pages, scans, stats, system, tickets, users};
use crate::error::Error;
use crate::logs::{self, RequestLine};
use crate::metrics::Metrics;
use crate::model::{Millis, Role, ScanResult};
use crate::request::{BodyLimits, Call, Params, RequestBody, media_type, read_body};
use crate::response::{self, Response};
use crate::store::{self, Store};
use crate::totp::TicketSecret;

/// What an import, an export or a batch has; each of its calls but the import's has `DB_TIMEOUT_MS` besides.
const LONG_DEADLINE: Duration = Duration::from_secs(60);

type Endpoint = for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Response, Error>>;

/// One line of the route table.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    /// The role that a caller's key must hold; without one, anyone may call.
    role: Option<Role>,
    limits: Limits,
    endpoint: Endpoint,
}

/// How long a request may take, how large it may be, and how it is refused.
#[derive(Clone, Copy)]
struct Limits {
    /// Without one, what `DB_TIMEOUT_MS` says.
    deadline: Option<Duration>,
    body: BodyLimits,
    /// For a body that is CSV, where the route imports one.
    csv: Option<BodyLimits>,
    refuse: Refuse,
}

type Refuse = fn(&Parts, &Error) -> Response;

macro_rules! routes {
    ($($method:ident $path:literal $role:expr, $limits:expr => $endpoint:path;)+) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            role: $role,
            limits: $limits,
            endpoint: |call| Box::pin($endpoint(call)),
        }),+]
    };
}

const ANYONE: Option<Role> = None;
const ORGANIZER: Option<Role> = Some(Role::Organizer);
const SUPERVISOR: Option<Role> = Some(Role::Supervisor);
const GATE: Option<Role> = Some(Role::Gate);

const ORDINARY: BodyLimits = BodyLimits { bytes: 64 * 1024, time: Duration::from_secs(10) };
const SHORT: Limits = Limits { deadline: None, body: ORDINARY, csv: None, refuse: by_problem };
/// What a person reads as it is.
const TICKET: Limits = Limits { refuse: pages::refuse_ticket, ..SHORT };
const LONG: Limits = Limits { deadline: Some(LONG_DEADLINE), ..SHORT };
/// 500 scans with notes do not fit in an ordinary body.
const BATCH: Limits = Limits { body: BodyLimits { bytes: 512 * 1024, ..ORDINARY }, ..LONG };
const IMPORT: Limits = Limits { csv: Some(BodyLimits { bytes: 16 * 1024 * 1024, time: LONG_DEADLINE }), ..LONG };

/// Every path of the service. `HEAD` is answered wherever `GET` is.
pub static ROUTES: &[Route] = routes! {
    GET    "/"                                 ANYONE,     SHORT  => pages::show_home;
    GET    "/gate"                             ANYONE,     SHORT  => pages::show_gate;
    GET    "/organizer"                        ANYONE,     SHORT  => pages::show_organizer;
    GET    "/t/{token}"                        ANYONE,     TICKET => pages::show_ticket;
    GET    "/t/{token}/app.webmanifest"        ANYONE,     SHORT  => pages::show_ticket_manifest;
    GET    "/worker.js"                        ANYONE,     SHORT  => pages::show_worker;
    GET    "/assets/{version}/{*file}"         ANYONE,     SHORT  => pages::show_asset;
    GET    "/health"                           ANYONE,     SHORT  => system::show_health;
    GET    "/metrics"                          GATE,       SHORT  => system::show_metrics;
    GET    "/openapi.json"                     ANYONE,     SHORT  => system::show_openapi;
    POST   "/api/users"                        ORGANIZER,  SHORT  => users::create_user;
    GET    "/api/users/{username}"             ORGANIZER,  SHORT  => users::show_user;
    DELETE "/api/users/{username}"             ORGANIZER,  SHORT  => users::erase_user;
    POST   "/api/users/{username}/tickets"     ORGANIZER,  SHORT  => users::register_ticket;
    GET    "/api/users/{username}/tickets"     ORGANIZER,  SHORT  => users::list_tickets;
    POST   "/api/users/attendance"             GATE,       SHORT  => scans::record_attendance;
    POST   "/api/events"                       ORGANIZER,  SHORT  => events::create_event;
    GET    "/api/events"                       ORGANIZER,  SHORT  => events::list_events;
    GET    "/api/events/{event}"               ORGANIZER,  SHORT  => events::show_event;
    PATCH  "/api/events/{event}"               ORGANIZER,  SHORT  => events::change_event;
    DELETE "/api/events/{event}"               ORGANIZER,  LONG   => events::delete_event;
    POST   "/api/events/{event}/tickets"       ORGANIZER,  IMPORT => tickets::create_tickets;
    GET    "/api/events/{event}/tickets"       ORGANIZER,  SHORT  => tickets::list_tickets;
    GET    "/api/tickets/{ticket_id}"          ORGANIZER,  SHORT  => tickets::show_ticket;
    POST   "/api/tickets/{ticket_id}/revoke"   ORGANIZER,  SHORT  => tickets::revoke_ticket;
    POST   "/api/tickets/{ticket_id}/reissue"  ORGANIZER,  SHORT  => tickets::reissue_ticket;
    POST   "/api/tickets/{ticket_id}/transfer" ORGANIZER,  SHORT  => tickets::transfer_ticket;
    GET    "/api/tickets/{ticket_id}/link"     ORGANIZER,  SHORT  => tickets::show_link;
    POST   "/api/tickets/{ticket_id}/print"    ORGANIZER,  SHORT  => tickets::print_ticket;
    POST   "/api/events/{event}/scans"         GATE,       SHORT  => scans::record_scan;
    POST   "/api/events/{event}/scans/batch"   GATE,       BATCH  => batches::record_batch;
    POST   "/api/scans/{scan_id}/undo"         SUPERVISOR, SHORT  => scans::undo_scan;
    GET    "/api/events/{event}/manifest"      GATE,       SHORT  => manifest::show_manifest;
    GET    "/api/events/{event}/conflicts"     ORGANIZER,  SHORT  => batches::list_conflicts;
    GET    "/api/events/{event}/stats"         GATE,       SHORT  => stats::show_stats;
    GET    "/api/events/{event}/tickets.csv"   ORGANIZER,  SHORT  => tickets::export_tickets;
    GET    "/api/events/{event}/scans.csv"     ORGANIZER,  SHORT  => scans::export_scans;
    GET    "/api/events/{event}/links.csv"     ORGANIZER,  SHORT  => tickets::export_links;
    POST   "/api/keys"                         ORGANIZER,  SHORT  => keys::create_key;
    GET    "/api/keys"                         ORGANIZER,  SHORT  => keys::list_keys;
    DELETE "/api/keys/{key_id}"                ORGANIZER,  SHORT  => keys::revoke_key;
    POST   "/api/keys/{key_id}/enrol"          ORGANIZER,  SHORT  => keys::offer_enrolment;
    POST   "/api/enrol"                        ANYONE,     SHORT  => keys::enrol;
};

/// Where the time comes from; tests set their own.
pub type Clock = Box<dyn Fn() -> Millis + Send + Sync>;

/// The service: everything a request needs.
pub struct App {
    pub settings: Settings,
    pub secret: TicketSecret,
    pub keys: KeyRing,
    pub metrics: Metrics,
    pub health: system::HealthCheck,
    pub started: Instant,
    pub(crate) secret_claimed: OnceCell<()>,
    store: OnceCell<Box<dyn Store>>,
    router: matchit::Router<Vec<&'static Route>>,
    imports: Semaphore,
    clock: Clock,
}

/// What is known so far of a request, for its line in the log.
struct Visit {
    route: Option<&'static Route>,
    caller: Option<Caller>,
    /// When there was something to work on: the time a client takes to send its body is not ours.
    started: Instant,
}

impl App {
    /// Makes the service. Touches neither network nor disk.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let now = clock();
        Self {
            secret: TicketSecret::new(settings.ticket_secret.clone()),
            keys: KeyRing::new(settings.organizer_key.as_deref()),
            metrics: Metrics::new(now, settings.daily_backups().is_some()),
            health: system::HealthCheck::default(),
            started: Instant::now(),
            secret_claimed: OnceCell::new(),
            store: OnceCell::new(),
            router: router(),
            imports: Semaphore::new(1),
            clock,
            settings,
        }
    }

    /// The database. The first call makes the pool, the first request that needs it opens a connection.
    pub fn store(&self) -> &dyn Store {
        &**self.store.get_or_init(|| store::open(&self.settings))
    }

    /// Gives the database `DB_TIMEOUT_MS` to answer.
    pub async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(self.settings.db_timeout, work).await
    }

    pub fn now(&self) -> Millis {
        (self.clock)()
    }

    /// Makes sure that this database's tickets were made with our `TICKET_SECRET`; the first to ask decides.
    pub async fn claim_secret(&self) -> Result<(), Error> {
        if self.secret_claimed.get().is_some() {
            return Ok(());
        }
        let kept = self.store().claim_secret(self.secret.fingerprint()).await?;
        self.check_secret(Some(&kept))
    }

    /// Compares what the database keeps of its `TICKET_SECRET` with ours. Keeps nothing: no ticket has a holder yet.
    pub fn check_secret(&self, kept: Option<&[u8]>) -> Result<(), Error> {
        match kept {
            Some(kept) if kept != self.secret.fingerprint() => Err(Error::TicketSecretMismatch),
            Some(_) => {
                self.secret_claimed.get_or_init(|| ());
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Answers a request. Never fails: every failure, a panic included, becomes a response.
    pub async fn handle<B: RequestBody>(self: &Arc<Self>, request: http::Request<B>) -> Response {
        self.handle_and(request, async |response| Ok(response)).await
    }

    /// The same for an entrance that cannot send every response: what `send` makes of it is what is counted and logged.
    pub async fn handle_and<B: RequestBody>(
        self: &Arc<Self>,
        request: http::Request<B>,
        send: impl AsyncFnOnce(Response) -> Result<Response, Error>,
    ) -> Response {
        let (parts, body) = request.into_parts();
        let mut visit = Visit { route: None, caller: None, started: Instant::now() };
        let outcome = without_panic(self.dispatch(&parts, body, &mut visit)).await;
        let (mut response, error) = match outcome {
            Ok(response) => (response, None),
            Err(error) => {
                let refuse = visit.route.map_or(by_problem as Refuse, |route| route.limits.refuse);
                (refuse(&parts, &error), Some(error))
            }
        };
        if parts.method == Method::HEAD {
            response = response.map(|_| response::empty_body());
        }
        let (mut response, error) = match send(response).await {
            Ok(response) => (response, error),
            Err(error) => (response::problem(&error), Some(error)),
        };
        response::secure(&mut response, self.settings.is_https());
        self.observe(&parts, &visit, &response, error.as_ref());
        response
    }

    async fn dispatch(
        self: &Arc<Self>,
        parts: &Parts,
        body: impl RequestBody,
        visit: &mut Visit,
    ) -> Result<Response, Error> {
        let (route, params) = match self.find(parts) {
            Ok(found) => found,
            // Many clients send their whole body before they read the answer.
            Err(error) => return read_body(body, ORDINARY).await.and(Err(error)),
        };
        let limits = &route.limits;
        visit.route = Some(route);
        // A large body is read only from those who may send it, and only one import at a time, so that nobody else can
        // make the service hold megabytes. On a short route the key is looked up later, within the deadline of all its
        // work.
        let asked_first = limits.deadline.is_some();
        if asked_first {
            self.in_time(self.authorise(route, parts, visit, self.now())).await?;
        }
        let (body_limits, _import) = match limits.csv {
            Some(csv) if media_type(&parts.headers) == "text/csv" => {
                (csv, Some(self.imports.try_acquire().map_err(|_| Error::ImportInProgress)?))
            }
            _ => (limits.body, None),
        };
        let body = read_body(body, body_limits).await?;

        visit.started = Instant::now();
        let now = self.now();
        let work = async {
            if !asked_first {
                self.authorise(route, parts, visit, now).await?;
            }
            let caller = visit.caller.as_ref();
            (route.endpoint)(Call { app: self, parts, params, body: &body, caller, now }).await
        };
        within(limits.deadline.unwrap_or(self.settings.db_timeout), work).await
    }

    /// Finds the route of a request, or says which methods its path takes.
    fn find(&self, parts: &Parts) -> Result<(&'static Route, Params), Error> {
        let found = self.router.at(parts.uri.path()).map_err(|_| Error::NotFound)?;
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        match found.value.iter().find(|route| route.method == *method) {
            Some(route) => Ok((route, Params::decode(&found.params))),
            None => {
                let mut allow: Vec<&str> = found.value.iter().map(|route| route.method.as_str()).collect();
                if allow.contains(&"GET") {
                    allow.push("HEAD");
                }
                Err(Error::MethodNotAllowed(allow.join(", ")))
            }
        }
    }

    /// Finds out who asks, where the route wants to know, and whether they may.
    async fn authorise(&self, route: &Route, parts: &Parts, visit: &mut Visit, now: Millis) -> Result<(), Error> {
        let Some(needed) = route.role else { return Ok(()) };
        let caller = visit.caller.insert(self.keys.authenticate(&parts.headers, self.store(), now).await?);
        if caller.role.holds(needed) { Ok(()) } else { Err(Error::Forbidden("Your key's role does not allow this.")) }
    }

    /// Counts a request and writes its one line.
    fn observe(&self, parts: &Parts, visit: &Visit, response: &Response, error: Option<&Error>) {
        let Visit { route, caller, started } = visit;
        let route = route.map_or("", |route| route.path);
        let (status, elapsed) = (response.status(), started.elapsed());
        let scan = response.extensions().get::<ScanResult>().copied();
        self.metrics.observe(&parts.method, route, status, elapsed);
        logs::request(
            &self.settings,
            &RequestLine { parts, route, status, elapsed, caller: caller.as_ref(), scan, error },
        );
    }
}

fn by_problem(_: &Parts, error: &Error) -> Response {
    response::problem(error)
}

/// Gives work a deadline. What misses it is dropped, and with it the connection it was using.
pub async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(deadline, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::DatabaseUnavailable(format!("no answer within {} ms", deadline.as_millis()))),
    }
}

/// Turns a panic into an error. The panic hook has logged where it was.
async fn without_panic<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|_| Err(Error::Internal("an endpoint panicked".into())))
}

fn router() -> matchit::Router<Vec<&'static Route>> {
    let mut paths: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path).or_default().push(route);
    }
    let mut router = matchit::Router::new();
    for (path, routes) in paths {
        router.insert(path, routes).expect("the route table has no conflicting paths: every test starts here");
    }
    router
}

/// Marks a response as the answer to a scan, for the log.
pub fn with_scan(mut response: Response, result: ScanResult) -> Response {
    response.extensions_mut().insert(result);
    response
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_failure_without_its_message() {
        let panics = async { panic!("a code that was sent: 123456") };
        let error = without_panic::<()>(panics).await.expect_err("a panic is no success");
        let response = response::problem(&error);
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(error.code(), "internal_error");
        assert!(!error.to_string().contains("123456"));
    }
}
