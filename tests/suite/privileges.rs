//! Who can do what: every route, asked with every role, for one event and for all, about the own event and about another.
//! The table of `docs/security.md` is what comes out.

use std::fmt::Write as _;

use http::{Method, Request, header};
use register_ticket_api::limits::LIST_KEPT;
use register_ticket_api::model::Role;
use register_ticket_api::routes::ROUTES;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, Ticket};

on_both_databases! {
    the_table_says_who_can_do_what,
}

const DOCUMENT: &str = include_str!("../../docs/security.md");
const NO: &str = "–";

/// Whoever asks, as a column of the table.
struct Caller {
    name: String,
    client: Client,
}

impl Caller {
    /// Nobody, and each role for one event and for all.
    async fn all(service: &Service) -> Vec<Self> {
        let mut callers = vec![Self { name: "no key".to_owned(), client: service.anonymous.clone() }];
        for role in Role::ALL.iter().rev() {
            for (event, name) in [(Some("gala"), "one event"), (None, "all events")] {
                let key = json!({ "name": name, "role": role.as_str(), "event": event, "offline": true });
                let client = service.key(key).await;
                callers.push(Self { name: format!("`{}`, {name}", role.as_str()), client });
            }
        }
        callers
    }
}

/// A request that the organizer of the installation may make, about one event.
struct Deed {
    path: String,
    media_type: &'static str,
    body: String,
    /// What is in the answer to whoever may see it.
    shows: String,
}

impl Deed {
    fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), media_type: "", body: String::new(), shows: String::new() }
    }

    fn json(self, body: Value) -> Self {
        Self { media_type: "application/json", body: body.to_string(), ..self }
    }

    fn shows(self, text: impl Into<String>) -> Self {
        Self { shows: text.into(), ..self }
    }

    async fn send(&self, client: &Client, method: &Method) -> Reply {
        let mut request = Request::builder().method(method).uri(&self.path);
        if !self.media_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, self.media_type);
        }
        client.send(request, self.body.clone()).await
    }
}

/// An event with what requests are about.
struct World<'a> {
    service: &'a Service,
    event: &'static str,
}

impl World<'_> {
    /// Makes ready what a route is about, and returns the request. A route that is not here has no row in the table.
    async fn deed(&self, method: &Method, path: &str) -> Deed {
        let Self { service, event } = self;
        let of_event = || Deed::at(path.replace("{event}", event));
        let place = json!({ "seat": name(), "gate": "North" });
        match (method.as_str(), path) {
            ("GET", "/" | "/gate" | "/organizer" | "/worker.js" | "/health" | "/openapi.json" | "/metrics") => {
                Deed::at(path)
            }
            ("GET", "/assets/{version}/{*file}") => {
                let page = service.anonymous.get("/gate").await.text();
                let (_, rest) = page.split_once("\"/assets/").expect("the page loads files");
                Deed::at(format!("/assets/{}", rest.split('"').next().expect("the address ends")))
            }
            ("GET", "/t/{token}" | "/t/{token}/app.webmanifest") => {
                let (_, link) = self.ticket().await;
                Deed::at(format!("{link}{}", path.trim_start_matches("/t/{token}")))
            }
            ("POST", "/api/users") => Deed::at(self.of_people(path)).json(json!({ "username": name() })),
            ("GET" | "DELETE", "/api/users/{username}") => self.of_user(path).await,
            ("PATCH", "/api/users/{username}") => self.of_user(path).await.json(json!({ "full_name": name() })),
            ("GET", "/api/users/{username}/tickets") => self.of_user(path).await,
            ("POST", "/api/users/{username}/tickets") => {
                service.organizer.post(format!("/api/events/{event}/tickets"), place.clone()).await.is(201);
                let body = json!({ "seat": place["seat"], "gate": "North", "event": event });
                self.of_user(path).await.json(body)
            }
            ("POST", "/api/users/attendance") => {
                let (ticket, _) = self.ticket().await;
                let code = ticket.code(service.now());
                Deed::at(path).json(json!({ "seat": ticket.seat, "gate": "North", "totp_code": code, "event": event }))
            }
            ("POST", "/api/events") => Deed::at(path).json(json!({ "slug": name().to_lowercase(), "name": "New" })),
            ("GET", "/api/events") => Deed::at(path).shows(format!("\"{event}\"")),
            ("PATCH", "/api/events/{event}") => of_event().json(json!({ "name": "Another name" })),
            ("DELETE", "/api/events/{event}") => Deed::at(format!("/api/events/{event}?confirm={event}")),
            ("POST", "/api/events/{event}/tickets") => of_event().json(place),
            ("GET", path) if path.starts_with("/api/events/{event}") => of_event(),
            ("GET", "/api/actions.csv") => Deed::at(path).shows(format!(",\"{event}\",")),
            ("GET" | "POST", path) if path.starts_with("/api/tickets/{ticket_id}") => {
                let (ticket, _) = self.ticket().await;
                let path = path.replace("{ticket_id}", &ticket.ticket_id.to_string());
                match path.ends_with("/transfer") {
                    true => Deed::at(self.of_people(&path)).json(json!({ "username": self.person().await })),
                    false => Deed::at(path),
                }
            }
            ("POST", "/api/events/{event}/scans") => of_event().json(self.scan().await),
            ("POST", "/api/events/{event}/scans/batch") => of_event().json(json!({ "scans": [] })),
            ("POST", "/api/scans/{scan_id}/undo") => {
                let scan = self.scan().await;
                let scans = format!("/api/events/{event}/scans");
                service.organizer.post(scans, scan.clone()).await.is_scan(200, "accepted");
                Deed::at(path.replace("{scan_id}", scan["scan_id"].as_str().expect("it has an id")))
            }
            ("POST", "/api/keys") => {
                Deed::at(path).json(json!({ "name": "New", "role": "gate", "event": event, "gate": "North" }))
            }
            ("GET", "/api/keys") => Deed::at(path).shows(self.device().await),
            ("GET" | "POST" | "DELETE", path) if path.starts_with("/api/keys/{key_id}") => {
                Deed::at(path.replace("{key_id}", &self.device().await))
            }
            ("POST", "/api/enrol" | "/api/enrol/offer") => {
                let offer = format!("/api/keys/{}/enrol", self.device().await);
                let offer = service.organizer.bare(Method::POST, offer).await.is(200);
                let (_, token) = offer["enrol_url"].as_str().and_then(|url| url.split_once('=')).expect("a token");
                Deed::at(path).json(json!({ "token": token }))
            }
            _ => panic!("say in tests/suite/privileges.rs what {method} {path} is about"),
        }
    }

    /// A new ticket in somebody's hands, and the path of its page.
    async fn ticket(&self) -> (Ticket, String) {
        let seat = name();
        self.service.seat(self.event, &seat, "North").await;
        let body = json!({ "event": self.event, "seat": seat, "gate": "North" });
        let path = self.of_people(&format!("/api/users/{}/tickets", self.person().await));
        let answer = self.service.organizer.post(path, body).await.is(201);
        let link = answer["provisioning"]["ticket_url"].as_str().expect("it has a link");
        let (_, token) = link.split_once("/t/").expect("it is the address of a ticket's page");
        (Ticket::new(&answer), format!("/t/{token}"))
    }

    /// The path, for the event's own people.
    fn of_people(&self, path: &str) -> String {
        format!("{path}?event={}", self.event)
    }

    /// A new person of the event's own.
    async fn person(&self) -> String {
        let username = name();
        let person = json!({ "username": username });
        self.service.organizer.post(self.of_people("/api/users"), person).await.is(201);
        username
    }

    async fn of_user(&self, path: &str) -> Deed {
        Deed::at(self.of_people(&path.replace("{username}", &self.person().await)))
    }

    async fn scan(&self) -> Value {
        let (ticket, _) = self.ticket().await;
        self.service.scan(&ticket)
    }

    /// The id of a new key of a device.
    async fn device(&self) -> String {
        let body = json!({ "name": "Door", "role": "gate", "event": self.event, "gate": "North" });
        let made = self.service.organizer.post("/api/keys", body).await.is(201);
        made["key_id"].as_str().expect("a key has an id").to_owned()
    }
}

/// A name that nothing has yet.
fn name() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Whether the caller may: that the request itself is right, the organizer of the installation shows.
async fn may(client: &Client, method: &Method, deed: &Deed) -> bool {
    let reply = deed.send(client, method).await;
    match reply.status.as_u16() {
        200..300 => reply.text().contains(&deed.shows),
        401 | 403 | 404 | 410 => false,
        status => panic!("{method} {}: {status} {}", deed.path, reply.text()),
    }
}

async fn row(service: &Service, callers: &[Caller], method: &Method, path: &str) -> String {
    let mut row = format!("| `{method} {path}` |");
    for Caller { name, client } in callers {
        let mut answers = [false; 2];
        for (answer, event) in answers.iter_mut().zip(["gala", "ball"]) {
            let world = World { service, event };
            *answer = may(client, method, &world.deed(method, path).await).await;
            if (method, path) == (&Method::DELETE, "/api/events/{event}") && *answer {
                service.event(json!({ "slug": event, "name": event })).await;
            }
        }
        let word = match answers {
            [true, true] => "yes",
            [true, false] => "own",
            [false, false] => NO,
            [false, true] => panic!("{name} may {method} {path} of another event, and not of its own"),
        };
        let _ = write!(row, " {word} |");
    }
    row
}

async fn the_table_says_who_can_do_what(service: Service) {
    for slug in ["gala", "ball"] {
        service.event(json!({ "slug": slug, "name": slug })).await;
    }
    let callers = Caller::all(&service).await;
    let names: String = callers.iter().map(|caller| format!(" {} |", caller.name)).collect();
    let mut table = format!("| |{names}\n|---|{}\n", "---|".repeat(callers.len()));
    // Deleting an event takes its keys with it, and so ends the walk.
    let (deleting, others): (Vec<_>, Vec<_>) =
        ROUTES.iter().partition(|route| (&route.method, route.path) == (&Method::DELETE, "/api/events/{event}"));
    for routes in [others, deleting] {
        for route in routes {
            let row = row(&service, &callers, &route.method, route.path).await;
            table.push_str(&row);
            table.push('\n');
        }
        // An event where somebody was admitted, or a gate had its list, is not deleted for a while; that a list was sent is
        // noted some minutes ahead.
        service.clock.advance(180_000 + i64::try_from(LIST_KEPT.as_millis()).expect("some days"));
    }
    assert!(DOCUMENT.contains(&table), "docs/security.md has another table than this:\n{table}");
}
