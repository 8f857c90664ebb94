//! The request handler and the route table, which says who may call what.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::Method;
use http::request::Parts;
use http_body::Body as _;

use crate::app::{App, within};
use crate::auth::Caller;
use crate::endpoints::{
    actions, attendance, batches, events, guests, keys, mails, manifest, pages, scans, stats, system, tickets, users,
    walk_ups,
};
use crate::error::Error;
use crate::limits::{BATCH_BODY, BODY, CSV_BODY, KEYLESS_BODY, TURN_WAIT};
use crate::logs::{self, RequestLine};
use crate::model::{Millis, Role, ScanResult};
use crate::quota::Held;
use crate::request::{Call, Params, RequestBody, is_list, read_body};
use crate::response::{self, Response};

/// The deadline of imports, batches and other requests that change much.
const LONG_DEADLINE: Duration = Duration::from_secs(60);

type Endpoint = for<'a> fn(Call<'a>) -> BoxFuture<'a, Result<Response, Error>>;

/// One line of the route table.
pub struct Route {
    pub method: Method,
    pub path: &'static str,
    /// The role that the caller's key must have; `None` allows anyone.
    pub role: Option<Role>,
    limits: Limits,
    endpoint: Endpoint,
}

impl Route {
    /// Returns whether a body is read. The body of any other request is ignored.
    pub fn reads_body(&self) -> bool {
        self.method != Method::GET && self.method != Method::DELETE
    }

    /// Returns whether a body may be CSV.
    #[cfg(test)]
    pub(crate) fn takes_csv(&self) -> bool {
        self.limits.csv.is_some()
    }

    /// Returns whether a request can exceed a quota of its key.
    #[cfg(test)]
    pub(crate) fn has_share(&self) -> bool {
        self.role.is_some() && (self.reads_body() || self.limits.load.is_some())
    }
}

/// The limits of a route, and how its errors are rendered.
#[derive(Clone, Copy)]
struct Limits {
    /// Defaults to `DB_TIMEOUT_MS`.
    deadline: Option<Duration>,
    /// Maximum size of a body in bytes.
    body: usize,
    /// Maximum size of a CSV body in bytes, if the route imports one.
    csv: Option<usize>,
    /// Whether the response is a whole list, which a client may take minutes to read.
    list: bool,
    /// The kind of a long request. Few of these run at once.
    load: Option<Load>,
    /// Whether it accepts the scans that a device decided before its key ended.
    late: bool,
    refuse: Refuse,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Load {
    /// May read all of an event.
    Reads,
    /// May change as much, in short transactions.
    Writes,
    /// Waits for the mail server.
    Mails,
    /// Counts all of an event, once for concurrent requests (`numbers`).
    Counts,
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

const SHORT: Limits =
    Limits { deadline: None, body: BODY, csv: None, list: false, load: None, late: false, refuse: pages::refuse };
/// A ticket's page, which shows its errors as a page for the holder.
const TICKET: Limits = Limits { refuse: pages::refuse_ticket, ..SHORT };
const LONG: Limits = Limits { deadline: Some(LONG_DEADLINE), ..SHORT };
const HANDED: Limits = Limits { body: BATCH_BODY, ..LONG };
const BATCH: Limits = Limits { late: true, ..HANDED };
const IMPORT: Limits = Limits { csv: Some(CSV_BODY), ..LONG };
/// May read all of an event, even if the response is one page of a list: a filter may have to check every row.
const READS: Limits = Limits { load: Some(Load::Reads), ..SHORT };
/// A whole list, in which each page has `DB_TIMEOUT_MS`.
const LIST: Limits = Limits { list: true, ..READS };
const WRITES: Limits = Limits { load: Some(Load::Writes), ..LONG };
/// Counting millions of tickets takes longer than `DB_TIMEOUT_MS`.
const COUNTS: Limits = Limits { load: Some(Load::Counts), ..LONG };
const MAILS: Limits = Limits { load: Some(Load::Mails), ..LONG };

/// All routes of the service. `HEAD` is allowed wherever `GET` is.
pub static ROUTES: &[Route] = routes! {
    GET    "/"                                 ANYONE,     SHORT  => pages::show_home;
    GET    "/gate"                             ANYONE,     SHORT  => pages::show_gate;
    GET    "/gate/"                            ANYONE,     SHORT  => pages::drop_slash;
    GET    "/organizer"                        ANYONE,     SHORT  => pages::show_organizer;
    GET    "/organizer/"                       ANYONE,     SHORT  => pages::drop_slash;
    GET    "/t/{token}"                        ANYONE,     TICKET => pages::show_ticket;
    GET    "/t/{token}/"                       ANYONE,     SHORT  => pages::drop_slash;
    GET    "/t/{token}/app.webmanifest"        ANYONE,     SHORT  => pages::show_ticket_manifest;
    GET    "/t/{token}/wallet"                 ANYONE,     SHORT  => pages::add_to_wallet;
    GET    "/worker.js"                        ANYONE,     SHORT  => pages::show_worker;
    GET    "/assets/{version}/{*file}"         ANYONE,     SHORT  => pages::show_asset;
    GET    "/health"                           ANYONE,     SHORT  => system::show_health;
    GET    "/metrics"                          GATE,       SHORT  => system::show_metrics;
    GET    "/openapi.json"                     ANYONE,     SHORT  => system::show_openapi;
    POST   "/api/users"                        ORGANIZER,  SHORT  => users::create_user;
    GET    "/api/users/{username}"             ORGANIZER,  SHORT  => users::show_user;
    PATCH  "/api/users/{username}"             ORGANIZER,  WRITES => users::change_user;
    DELETE "/api/users/{username}"             ORGANIZER,  WRITES => users::erase_user;
    POST   "/api/users/{username}/tickets"     ORGANIZER,  SHORT  => users::register_ticket;
    GET    "/api/users/{username}/tickets"     ORGANIZER,  READS  => users::list_tickets;
    POST   "/api/users/attendance"             GATE,       SHORT  => scans::record_attendance;
    POST   "/api/events"                       ORGANIZER,  SHORT  => events::create_event;
    GET    "/api/events"                       ORGANIZER,  SHORT  => events::list_events;
    GET    "/api/events/{event}"               ORGANIZER,  SHORT  => events::show_event;
    PATCH  "/api/events/{event}"               ORGANIZER,  SHORT  => events::change_event;
    DELETE "/api/events/{event}"               ORGANIZER,  WRITES => events::delete_event;
    POST   "/api/events/{event}/tickets"       ORGANIZER,  IMPORT => tickets::create_tickets;
    GET    "/api/events/{event}/tickets"       ORGANIZER,  READS  => tickets::list_tickets;
    GET    "/api/tickets/{ticket_id}"          ORGANIZER,  SHORT  => tickets::show_ticket;
    PATCH  "/api/tickets/{ticket_id}"          ORGANIZER,  SHORT  => tickets::change_ticket;
    POST   "/api/tickets/{ticket_id}/revoke"   ORGANIZER,  SHORT  => tickets::revoke_ticket;
    POST   "/api/tickets/{ticket_id}/reissue"  ORGANIZER,  SHORT  => tickets::reissue_ticket;
    POST   "/api/tickets/{ticket_id}/transfer" ORGANIZER,  SHORT  => tickets::transfer_ticket;
    GET    "/api/tickets/{ticket_id}/link"     ORGANIZER,  SHORT  => tickets::show_link;
    POST   "/api/tickets/{ticket_id}/print"    ORGANIZER,  SHORT  => tickets::print_ticket;
    GET    "/api/tickets/{ticket_id}/actions"  ORGANIZER,  SHORT  => actions::list_ticket_actions;
    POST   "/api/events/{event}/scans"         GATE,       SHORT  => scans::record_scan;
    POST   "/api/events/{event}/scans/batch"   GATE,       BATCH  => batches::record_batch;
    POST   "/api/events/{event}/walk-ups"      SUPERVISOR, SHORT  => walk_ups::admit_walk_ups;
    POST   "/api/scans/{scan_id}/undo"         SUPERVISOR, SHORT  => scans::undo_scan;
    GET    "/api/events/{event}/guests"        SUPERVISOR, READS  => guests::find_guests;
    GET    "/api/events/{event}/manifest"      GATE,       LIST   => manifest::show_manifest;
    GET    "/api/events/{event}/conflicts"     ORGANIZER,  READS  => batches::list_conflicts;
    GET    "/api/events/{event}/incidents"     ORGANIZER,  READS  => scans::list_incidents;
    GET    "/api/events/{event}/printed"       ORGANIZER,  READS  => events::show_printed_list;
    POST   "/api/events/{event}/printed"       ORGANIZER,  SHORT  => events::note_list_printed;
    GET    "/api/events/{event}/stats"         GATE,       COUNTS => stats::show_stats;
    GET    "/api/events/{event}/mails"         ORGANIZER,  READS  => mails::list_mails;
    POST   "/api/events/{event}/mails"         ORGANIZER,  MAILS  => mails::send_mails;
    GET    "/api/events/{event}/tickets.csv"   ORGANIZER,  LIST   => tickets::export_tickets;
    GET    "/api/events/{event}/scans.csv"     ORGANIZER,  LIST   => scans::export_scans;
    GET    "/api/events/{event}/inside.csv"    SUPERVISOR, LIST   => attendance::export_inside;
    GET    "/api/events/{event}/attendance.csv" ORGANIZER, LIST   => attendance::export_attendance;
    GET    "/api/events/{event}/links.csv"     ORGANIZER,  LIST   => tickets::export_links;
    GET    "/api/events/{event}/actions.csv"   ORGANIZER,  LIST   => actions::export_event_actions;
    GET    "/api/actions.csv"                  ORGANIZER,  LIST   => actions::export_all_actions;
    POST   "/api/keys"                         ORGANIZER,  SHORT  => keys::create_key;
    GET    "/api/keys"                         ORGANIZER,  READS  => keys::list_keys;
    DELETE "/api/keys/{key_id}"                ORGANIZER,  SHORT  => keys::revoke_key;
    POST   "/api/keys/{key_id}/enrol"          ORGANIZER,  SHORT  => keys::offer_enrolment;
    POST   "/api/keys/{key_id}/lost"           ORGANIZER,  WRITES => keys::report_loss;
    GET    "/api/keys/{key_id}/links.csv"      ORGANIZER,  LIST   => keys::export_changed_links;
    GET    "/api/keys/{key_id}/scans"          ORGANIZER,  READS  => keys::list_key_scans;
    POST   "/api/keys/{key_id}/scans"          ORGANIZER,  HANDED => batches::hand_in_scans;
    POST   "/api/keys/{key_id}/take"           ORGANIZER,  SHORT  => keys::take_scans;
    POST   "/api/enrol"                        ANYONE,     SHORT  => keys::enrol;
    POST   "/api/enrol/offer"                  ANYONE,     SHORT  => keys::show_offer;
};

/// What is known so far about a request, for its line in the log.
struct Visit {
    route: Option<&'static Route>,
    caller: Option<Caller>,
    /// When work on it began, excluding the time in which its body arrived.
    started: Instant,
}

/// Answers a request. Never fails: every failure, including a panic, becomes a response.
pub async fn handle<B: RequestBody>(app: &Arc<App>, request: http::Request<B>) -> Response {
    handle_and(app, request, async |response| Ok(response)).await
}

/// Like [`handle`], for an entrance that cannot send every response. The result of `send` is counted and logged.
pub async fn handle_and<B: RequestBody>(
    app: &Arc<App>,
    request: http::Request<B>,
    send: impl AsyncFnOnce(Response) -> Result<Response, Error>,
) -> Response {
    let (parts, body) = request.into_parts();
    let mut visit = Visit { route: None, caller: None, started: Instant::now() };
    let outcome = without_panic(dispatch(app, &parts, body, &mut visit)).await;
    let (mut response, error) = match outcome {
        Ok(response) => (response, None),
        Err(error) => {
            let refuse = visit.route.map_or(pages::refuse as Refuse, |route| route.limits.refuse);
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
    response::secure(&mut response, app.settings.is_https(), app.now());
    let refused = error.as_ref().and_then(Error::database);
    if let Some(database) = refused.or_else(|| visit.caller.as_ref()?.database) {
        response::name_database(&mut response, database);
    }
    observe(app, &parts, &visit, &response, error.as_ref());
    response
}

async fn dispatch(app: &Arc<App>, parts: &Parts, body: impl RequestBody, visit: &mut Visit) -> Result<Response, Error> {
    let (route, params) = find(parts)?;
    visit.route = Some(route);
    // The key is checked before the body is read, so that clients without a valid key cannot make the service buffer theirs.
    if route.role.is_some() {
        app.in_time(authorise(app, route, parts, visit, app.now())).await?;
    }
    let asking = visit.started.elapsed();
    let (body, share) = receive(app, route, parts, body, visit.caller.as_ref()).await?;
    // The time that a client takes to send its body does not count.
    visit.started = Instant::now() - asking;
    let now = app.now();
    let work = async {
        if share.is_some() {
            // The key may have ended while the body was arriving.
            authorise(app, route, parts, visit, now).await?;
        }
        let caller = visit.caller.as_ref();
        let listing = match caller.filter(|_| route.limits.list) {
            Some(caller) => Some(app.lists.open(caller).with(1)?),
            None => None,
        };
        let turn = match caller.zip(route.limits.load) {
            Some((caller, Load::Reads)) => Some(app.readings.turn(caller, TURN_WAIT).await?),
            Some((caller, Load::Writes)) => Some(app.works.turn(caller, TURN_WAIT).await?),
            Some((caller, Load::Mails)) => Some(app.mails.turn(caller, TURN_WAIT).await?),
            Some((_, Load::Counts)) | None => None,
        };
        let response = (route.endpoint)(Call { app, parts, params, body: &body, caller, now }).await?;
        drop(turn);
        let is_whole = response.body().size_hint().exact().is_some();
        debug_assert!(is_whole || listing.is_some(), "a streamed response needs the limits LIST: {}", route.path);
        Ok(match listing {
            Some(listing) => response::holding(response, listing),
            None => response,
        })
    };
    within(route.limits.deadline.unwrap_or(app.settings.db_timeout.saturating_sub(asking)), work).await
}

/// Reads the body if the route has one, and returns it with its quota. Without a key, there is no quota but a small maximum
/// size.
async fn receive(
    app: &App,
    route: &Route,
    parts: &Parts,
    body: impl RequestBody,
    caller: Option<&Caller>,
) -> Result<(Bytes, Option<Held>), Error> {
    if !route.reads_body() {
        return Ok(Default::default());
    }
    let (most, mut share) = match (caller, route.limits.csv) {
        (None, _) => (KEYLESS_BODY, None),
        (Some(caller), Some(csv)) if is_list(&parts.headers) => (csv, Some(app.files.open(caller))),
        (Some(caller), _) => (route.limits.body, Some(app.bodies.open(caller))),
    };
    let body = read_body(body, most, app.clients.sending, &mut share).await?;
    Ok((body, share))
}

/// Finds the route of a request; fails with the allowed methods if its path has others.
fn find(parts: &Parts) -> Result<(&'static Route, Params), Error> {
    let found = ROUTER.at(parts.uri.path()).map_err(|_| Error::NotFound)?;
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

/// Authenticates the caller if the route requires a role, and checks the role.
async fn authorise(app: &App, route: &Route, parts: &Parts, visit: &mut Visit, now: Millis) -> Result<(), Error> {
    let Some(needed) = route.role else { return Ok(()) };
    let caller = match route.limits.late {
        true => app.keys.authenticate_late(&parts.headers, app.store(), now).await?,
        false => app.keys.authenticate(&parts.headers, app.store(), now).await?,
    };
    let caller = visit.caller.insert(caller);
    if caller.role.holds(needed) { Ok(()) } else { Err(Error::Forbidden("Your key's role does not allow this.")) }
}

/// Counts a request and logs its line.
fn observe(app: &App, parts: &Parts, visit: &Visit, response: &Response, error: Option<&Error>) {
    let Visit { route, caller, started } = visit;
    let route = route.map_or("", |route| route.path);
    let (status, elapsed) = (response.status(), started.elapsed());
    let scan = response.extensions().get::<ScanResult>().copied();
    app.metrics.observe(&parts.method, route, status, elapsed);
    logs::request(&app.settings, &RequestLine { parts, route, status, elapsed, caller: caller.as_ref(), scan, error });
}

/// Turns a panic into an error. The panic hook has logged where it occurred.
async fn without_panic<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|_| Err(Error::Internal("an endpoint panicked".into())))
}

/// The routes by their paths.
static ROUTER: LazyLock<matchit::Router<Vec<&Route>>> = LazyLock::new(|| {
    let mut paths: BTreeMap<&str, Vec<&Route>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path).or_default().push(route);
    }
    let mut router = matchit::Router::new();
    for (path, routes) in paths {
        router.insert(path, routes).expect("the route table has no conflicting paths: every test starts here");
    }
    router
});

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::config::Settings;
    use crate::limits::LARGE_AT_WORK;
    use crate::quota::Quota;

    /// Routes that read for a key without a permit, because their work does not grow with an event.
    const SMALL: &[&str] = &[
        "/metrics",
        "/api/users/{username}",
        "/api/events",
        "/api/events/{event}",
        "/api/tickets/{ticket_id}",
        "/api/tickets/{ticket_id}/link",
        "/api/tickets/{ticket_id}/actions",
    ];

    #[test]
    fn what_is_read_for_a_key_is_small_or_has_its_turn() {
        let reads = ROUTES.iter().filter(|route| route.method == Method::GET && route.role.is_some());
        let without: Vec<_> = reads.filter(|route| route.limits.load.is_none()).map(|route| route.path).collect();
        assert_eq!(without, SMALL, "a route that reads as much as an event has is READS or LIST");
    }

    #[tokio::test]
    async fn no_event_has_all_of_what_the_service_can_read_or_change_at_once() {
        let key = "the-organizer-key-of-the-tests-of-routes";
        let settings = Settings::read(|name| (name == "ORGANIZER_KEY").then(|| key.to_owned())).unwrap();
        let app = Arc::new(App::new(settings, Box::new(|| Millis(0))));
        let all = |quota: &Arc<Quota>| quota.open(&Caller::ENVIRONMENT).with(LARGE_AT_WORK.of_one_event).unwrap();
        let _held = (all(&app.readings), all(&app.works), all(&app.mails));
        let large = ROUTES.iter().filter(|route| route.limits.load.is_some_and(|load| load != Load::Counts));
        let refused = large.map(|route| {
            let path = route.path.replace("{event}", "e").replace("{username}", "u").replace("{key_id}", "k");
            let request = http::Request::builder().method(&route.method).uri(path);
            let request = request.header("authorization", format!("Bearer {key}"));
            handle(&app, request.body(http_body_util::Empty::<Bytes>::new()).unwrap())
        });
        // None of them reaches the database, which does not exist.
        for response in futures_util::future::join_all(refused).await {
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{response:?}");
            assert_eq!(response.headers()["retry-after"], "5");
        }
    }

    #[test]
    fn what_writes_for_longer_than_a_moment_has_its_turn_or_a_body_that_bounds_it() {
        for route in ROUTES.iter().filter(|route| route.limits.deadline.is_some()) {
            let has_turn = matches!(route.limits.load, Some(Load::Writes | Load::Mails | Load::Counts));
            let is_bounded = has_turn || route.limits.csv.is_some() || route.limits.body > BODY;
            assert!(is_bounded, "{}", route.path);
        }
    }

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
