//! The one handler function and the whole route table.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use http::request::Parts;
use lambda_http::Request;
use once_cell::sync::OnceCell;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::{Caller, KeyRing};
use crate::config::Settings;
use crate::endpoints::{batches, events, keys, manifest, scans, stats, system, tickets, users};
use crate::error::Error;
use crate::logs::{self, RequestLine};
use crate::metrics::Metrics;
use crate::model::{Millis, Role, ScanResult};
use crate::request::{Call, Params, media_type};
use crate::response::{self, Response};
use crate::store::{self, Store};
use crate::totp::TicketSecret;

/// What a request's calls to the database have to answer, all together.
pub const STORE_DEADLINE: Duration = Duration::from_millis(2_500);
/// What an import, an export or a batch has; each of its calls but the import's has [`STORE_DEADLINE`] besides.
pub const LONG_DEADLINE: Duration = Duration::from_secs(60);

/// Bytes of an ordinary body at most.
pub const BODY_LIMIT: usize = 64 * 1024;
/// Bytes of a batch at most: 500 scans with notes do not fit in 64 KiB.
pub const BATCH_LIMIT: usize = 512 * 1024;
/// Bytes of an imported CSV at most.
pub const CSV_LIMIT: usize = 16 * 1024 * 1024;

/// Who may call a route.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Anyone,
    /// A key with this role or a greater one.
    Key(Role),
}

type Endpoint = for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Response, Error>>;

/// One line of the route table.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    access: Access,
    deadline: Duration,
    endpoint: Endpoint,
}

impl Route {
    /// Whether this caller may call this route.
    fn check(&self, caller: Option<&Caller>) -> Result<(), Error> {
        match (self.access, caller) {
            (Access::Anyone, _) => Ok(()),
            (Access::Key(_), None) => Err(Error::Unauthenticated),
            (Access::Key(needed), Some(caller)) if caller.role.holds(needed) => Ok(()),
            (Access::Key(_), Some(_)) => Err(Error::Forbidden("Your key's role does not allow this.")),
        }
    }
}

macro_rules! routes {
    ($($method:ident $path:literal $access:expr, $deadline:expr => $endpoint:path;)+) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            access: $access,
            deadline: $deadline,
            endpoint: |call| Box::pin($endpoint(call)),
        }),+]
    };
}

const ANYONE: Access = Access::Anyone;
const ORGANIZER: Access = Access::Key(Role::Organizer);
const SUPERVISOR: Access = Access::Key(Role::Supervisor);
const GATE: Access = Access::Key(Role::Gate);
const SHORT: Duration = STORE_DEADLINE;
const LONG: Duration = LONG_DEADLINE;

/// Every path of the service. `HEAD` is answered wherever `GET` is.
pub static ROUTES: &[Route] = routes! {
    GET    "/health"                           ANYONE,     SHORT => system::show_health;
    GET    "/metrics"                          GATE,       SHORT => system::show_metrics;
    GET    "/openapi.json"                     ANYONE,     SHORT => system::show_openapi;
    POST   "/api/users"                        ORGANIZER,  SHORT => users::create_user;
    GET    "/api/users/{username}"             ORGANIZER,  SHORT => users::show_user;
    DELETE "/api/users/{username}"             ORGANIZER,  SHORT => users::erase_user;
    POST   "/api/users/{username}/tickets"     ORGANIZER,  SHORT => users::register_ticket;
    GET    "/api/users/{username}/tickets"     ORGANIZER,  SHORT => users::list_tickets;
    POST   "/api/users/attendance"             GATE,       SHORT => scans::record_attendance;
    POST   "/api/events"                       ORGANIZER,  SHORT => events::create_event;
    GET    "/api/events"                       ORGANIZER,  SHORT => events::list_events;
    GET    "/api/events/{event}"               ORGANIZER,  SHORT => events::show_event;
    PATCH  "/api/events/{event}"               ORGANIZER,  SHORT => events::change_event;
    DELETE "/api/events/{event}"               ORGANIZER,  LONG  => events::delete_event;
    POST   "/api/events/{event}/tickets"       ORGANIZER,  LONG  => tickets::create_tickets;
    GET    "/api/events/{event}/tickets"       ORGANIZER,  SHORT => tickets::list_tickets;
    GET    "/api/tickets/{ticket_id}"          ORGANIZER,  SHORT => tickets::show_ticket;
    POST   "/api/tickets/{ticket_id}/revoke"   ORGANIZER,  SHORT => tickets::revoke_ticket;
    POST   "/api/tickets/{ticket_id}/reissue"  ORGANIZER,  SHORT => tickets::reissue_ticket;
    POST   "/api/tickets/{ticket_id}/transfer" ORGANIZER,  SHORT => tickets::transfer_ticket;
    POST   "/api/events/{event}/scans"         GATE,       SHORT => scans::record_scan;
    POST   "/api/events/{event}/scans/batch"   GATE,       LONG  => batches::record_batch;
    POST   "/api/scans/{scan_id}/undo"         SUPERVISOR, SHORT => scans::undo_scan;
    GET    "/api/events/{event}/manifest"      GATE,       SHORT => manifest::show_manifest;
    GET    "/api/events/{event}/stats"         GATE,       SHORT => stats::show_stats;
    GET    "/api/events/{event}/tickets.csv"   ORGANIZER,  SHORT => tickets::export_tickets;
    GET    "/api/events/{event}/scans.csv"     ORGANIZER,  SHORT => scans::export_scans;
    POST   "/api/keys"                         ORGANIZER,  SHORT => keys::create_key;
    GET    "/api/keys"                         ORGANIZER,  SHORT => keys::list_keys;
    DELETE "/api/keys/{key_id}"                ORGANIZER,  SHORT => keys::revoke_key;
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
    pub(crate) secret_claimed: OnceCell<()>,
    store: OnceCell<Box<dyn Store>>,
    router: matchit::Router<Vec<&'static Route>>,
    imports: Arc<Semaphore>,
    clock: Clock,
}

/// How much of a body to read, decided before it is read.
pub struct BodyAllowance {
    pub limit: usize,
    pub time: Duration,
    /// Held while a CSV import is read and written, so that there is one at a time.
    import: Option<OwnedSemaphorePermit>,
}

/// Travels with a request from the entrance to the end of its handling.
#[derive(Clone)]
struct ImportPermit(#[expect(dead_code, reason = "held, never read")] Arc<OwnedSemaphorePermit>);

impl BodyAllowance {
    /// Lets the permission go along with the request.
    pub fn attach(self, parts: &mut Parts) {
        if let Some(permit) = self.import {
            parts.extensions.insert(ImportPermit(Arc::new(permit)));
        }
    }
}

impl App {
    /// Makes the service. Touches neither network nor disk.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let now = clock();
        Self {
            secret: TicketSecret::new(settings.ticket_secret.clone()),
            keys: KeyRing::new(settings.organizer_key.as_deref()),
            metrics: Metrics::new(now),
            health: system::HealthCheck::default(),
            secret_claimed: OnceCell::new(),
            store: OnceCell::new(),
            router: router(),
            imports: Arc::new(Semaphore::new(1)),
            clock,
            settings,
        }
    }

    /// The database. The first call makes the pool, the first request that needs it opens a connection.
    pub fn store(&self) -> &dyn Store {
        &**self.store.get_or_init(|| store::open(&self.settings.database, self.settings.pool_max))
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

    /// Decides how much of a body to read. A large one only from those who may send it, and only one import at a time, so
    /// that nobody else can make the service hold megabytes.
    pub async fn allow_body(&self, parts: &Parts) -> Result<BodyAllowance, Response> {
        let started = Instant::now();
        let small = BodyAllowance { limit: BODY_LIMIT, time: Duration::from_secs(10), import: None };
        let Ok((route, _)) = self.find(parts) else {
            return Ok(small);
        };
        let csv = media_type(&parts.headers) == "text/csv";
        let allowed = async {
            match (&route.method, route.path) {
                (&Method::POST, "/api/events/{event}/scans/batch") => {
                    route.check(self.authenticate(route, parts, self.now()).await?.as_ref())?;
                    Ok(BodyAllowance { limit: BATCH_LIMIT, ..small })
                }
                (&Method::POST, "/api/events/{event}/tickets") if csv => {
                    route.check(self.authenticate(route, parts, self.now()).await?.as_ref())?;
                    let import = Arc::clone(&self.imports).try_acquire_owned().map_err(|_| Error::ImportInProgress)?;
                    Ok(BodyAllowance { limit: CSV_LIMIT, time: LONG_DEADLINE, import: Some(import) })
                }
                _ => Ok(small),
            }
        };
        allowed.await.map_err(|error| self.refuse(parts, error, started))
    }

    /// The response to a request that fails before it is whole, logged like any other.
    pub fn refuse(&self, parts: &Parts, error: Error, started: Instant) -> Response {
        let route = self.find(parts).map_or("", |(route, _)| route.path);
        let response = response::problem(&error);
        self.observe(parts, route, None, &response, Some(&error), started);
        response
    }

    /// Answers a request. Never fails: every failure, a panic included, becomes a response.
    pub async fn handle(self: &Arc<Self>, request: Request) -> Response {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let mut caller = None;
        let mut route = "";
        let work = self.dispatch(&parts, body.as_ref(), &mut route, &mut caller);
        let outcome = without_panic(work).await;
        let (mut response, error) = match outcome {
            Ok(response) => (response, None),
            Err(error) => (response::problem(&error), Some(error)),
        };
        self.observe(&parts, route, caller.as_ref(), &response, error.as_ref(), started);
        if parts.method == Method::HEAD {
            response = response.map(|_| response::empty_body());
        }
        response::secure(&mut response);
        response
    }

    async fn dispatch(
        self: &Arc<Self>,
        parts: &Parts,
        body: &[u8],
        pattern: &mut &'static str,
        known: &mut Option<Caller>,
    ) -> Result<Response, Error> {
        let (route, params) = self.find(parts)?;
        *pattern = route.path;
        let now = self.now();
        let work = async {
            let caller = self.authenticate(route, parts, now).await?;
            known.clone_from(&caller);
            route.check(caller.as_ref())?;
            (route.endpoint)(Call { app: self, parts, params, body, caller, now }).await
        };
        within(route.deadline, work).await
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

    /// Finds out who asks, where the route wants to know. Whether they may is another question: see [`Route::check`].
    async fn authenticate(&self, route: &Route, parts: &Parts, now: Millis) -> Result<Option<Caller>, Error> {
        match route.access {
            Access::Anyone => Ok(None),
            Access::Key(_) => {
                let caller = self.keys.authenticate(&parts.headers, self.store(), now);
                within(STORE_DEADLINE, caller).await.map(Some)
            }
        }
    }

    /// Counts a request and writes its one line.
    fn observe(
        &self,
        parts: &Parts,
        route: &'static str,
        caller: Option<&Caller>,
        response: &Response,
        error: Option<&Error>,
        started: Instant,
    ) {
        let (status, elapsed) = (response.status(), started.elapsed());
        let scan = response.extensions().get::<ScanResult>().copied();
        self.metrics.observe(&parts.method, route, status, elapsed, scan);
        logs::request(&self.settings, &RequestLine { parts, route, status, elapsed, caller, scan, error });
    }
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

/// Marks a response as the answer to a scan, for log and metrics.
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
