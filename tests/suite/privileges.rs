//! Who can do what: every route is called with every role, bound to a gate, an event or nothing, about its own gate,
//! another gate of the event and another event; and every proof that is not a key: what it opens, shows and admits, and
//! what ends it. The result is the tables of `docs/security.md`.

use std::fmt::Write as _;

use http::{Method, Request, header};
use register_ticket_api::limits::LIST_KEPT;
use register_ticket_api::model::Role;
use register_ticket_api::routes::{ROUTES, Route};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, Ticket, with};
use crate::stranded::{handed, written};
use crate::wallet::Account;

on_both_databases! {
    the_table_says_who_can_do_what,
    the_table_says_what_each_proof_is_good_for,
}

const DOCUMENT: &str = include_str!("../../docs/security.md");
const NO: &str = "–";

/// The callers' and proofs' own gate, another gate of the same event, and another event.
const PLACES: [(&str, &str); 3] = [("gala", "North"), ("gala", "South"), ("ball", "North")];

const DELETION: (&Method, &str) = (&Method::DELETE, "/api/events/{event}");

/// A caller, which is a column of the table.
struct Caller {
    name: String,
    /// `None` for a caller without a key.
    key: Option<Value>,
}

impl Caller {
    /// A caller without a key, and each role bound to a gate, to an event and to nothing.
    fn all() -> Vec<Self> {
        let mut callers = vec![Self { name: "no key".to_owned(), key: None }];
        for role in Role::ALL.iter().rev().map(|role| role.as_str()) {
            for (name, bound) in [
                ("one gate", json!({ "event": "gala", "gate": "North" })),
                ("one event", json!({ "event": "gala" })),
                ("all events", json!({})),
            ] {
                let key = with(json!({ "name": name, "role": role, "offline": true }), bound);
                callers.push(Self { name: format!("`{role}`, {name}"), key: Some(key) });
            }
        }
        callers
    }

    async fn client(&self, service: &Service) -> Client {
        match &self.key {
            None => service.anonymous.clone(),
            Some(key) => service.key(key.clone()).await,
        }
    }
}

/// A request about one event that the organizer of the installation may make.
struct Deed {
    path: String,
    media_type: &'static str,
    body: String,
    /// What the answer contains if the caller may see it.
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

/// An event with everything that the requests are about.
struct World<'a> {
    service: &'a Service,
    event: &'static str,
    gate: &'static str,
}

impl World<'_> {
    /// Prepares what a route is about and returns the request. A route missing here has no row in the table.
    async fn deed(&self, method: &Method, path: &str) -> Deed {
        let Self { service, event, gate } = self;
        let of_event = || Deed::at(path.replace("{event}", event));
        let place = json!({ "seat": name(), "gate": gate });
        match (method.as_str(), path) {
            ("GET", "/" | "/gate" | "/gate/" | "/organizer" | "/organizer/") => Deed::at(path),
            ("GET", "/worker.js" | "/health" | "/openapi.json" | "/metrics") => Deed::at(path),
            ("GET", "/assets/{version}/{*file}") => {
                let page = service.anonymous.get("/gate").await.text();
                let (_, rest) = page.split_once("\"/assets/").expect("the page loads files");
                Deed::at(format!("/assets/{}", rest.split('"').next().expect("the address ends")))
            }
            ("GET", "/t/{token}" | "/t/{token}/" | "/t/{token}/app.webmanifest" | "/t/{token}/wallet") => {
                let (_, link) = self.ticket().await;
                Deed::at(format!("{link}{}", path.trim_start_matches("/t/{token}")))
            }
            ("POST", "/api/users") => Deed::at(self.of_people(path)).json(json!({ "username": name() })),
            ("GET" | "DELETE", "/api/users/{username}") => self.of_user(path).await,
            ("PATCH", "/api/users/{username}") => self.of_user(path).await.json(json!({ "full_name": name() })),
            ("GET", "/api/users/{username}/tickets") => self.of_user(path).await,
            ("POST", "/api/users/{username}/tickets") => {
                service.organizer.post(format!("/api/events/{event}/tickets"), place.clone()).await.is(201);
                let body = json!({ "seat": place["seat"], "gate": gate, "event": event });
                self.of_user(path).await.json(body)
            }
            ("POST", "/api/users/attendance") => {
                let (ticket, _) = self.ticket().await;
                let code = ticket.code(service.now());
                Deed::at(path).json(json!({ "seat": ticket.seat, "gate": gate, "totp_code": code, "event": event }))
            }
            ("POST", "/api/events") => Deed::at(path).json(json!({ "slug": name().to_lowercase(), "name": "New" })),
            ("GET", "/api/events") => Deed::at(path).shows(format!("\"{event}\"")),
            ("PATCH", "/api/events/{event}") => of_event().json(json!({ "name": "Another name" })),
            ("DELETE", "/api/events/{event}") => Deed::at(format!("/api/events/{event}?confirm={event}")),
            ("POST", "/api/events/{event}/tickets") => of_event().json(place),
            ("POST", "/api/events/{event}/mails") => {
                let (ticket, _) = self.ticket().await;
                let body = json!({ "tickets": [ticket.ticket_id], "dry_run": true });
                of_event().json(body).shows("\"result\":\"ready\"")
            }
            ("GET", "/api/events/{event}/manifest") => {
                let (ticket, _) = self.ticket().await;
                of_event().shows(ticket.secret())
            }
            ("GET", "/api/events/{event}/guests") => {
                let (ticket, _) = self.ticket().await;
                let path = path.replace("{event}", event);
                Deed::at(format!("{path}?q={}", ticket.username)).shows(ticket.seat)
            }
            ("GET", path) if path.starts_with("/api/events/{event}") => of_event(),
            ("POST", "/api/events/{event}/printed") => of_event(),
            ("GET", "/api/actions.csv") => Deed::at(path).shows(format!(",\"{event}\",")),
            (method, path) if path.starts_with("/api/tickets/{ticket_id}") => {
                let (ticket, _) = self.ticket().await;
                let path = path.replace("{ticket_id}", &ticket.ticket_id.to_string());
                match path.ends_with("/transfer") {
                    true => Deed::at(self.of_people(&path)).json(json!({ "username": self.person().await })),
                    false if method == "PATCH" => Deed::at(path).json(json!({ "note": name() })),
                    false => Deed::at(path),
                }
            }
            ("POST", "/api/events/{event}/scans") => of_event().json(self.scan().await),
            ("POST", "/api/events/{event}/scans/batch") => {
                let scan =
                    with(self.scan().await, json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
                of_event().json(json!({ "scans": [scan] })).shows("\"result\":\"accepted\"")
            }
            ("POST", "/api/events/{event}/walk-ups") => {
                service.organizer.patch(format!("/api/events/{event}"), json!({ "walk_ups": true })).await.is(200);
                let body = json!({ "scan_id": Uuid::new_v4(), "gate": gate });
                of_event().json(body).shows(format!("\"gate\":\"{gate}\""))
            }
            ("POST", "/api/scans/{scan_id}/undo") => {
                let scan = self.scan().await;
                let scans = format!("/api/events/{event}/scans");
                service.organizer.post(scans, scan.clone()).await.is_scan(200, "accepted");
                Deed::at(path.replace("{scan_id}", scan["scan_id"].as_str().expect("it has an id")))
            }
            ("POST", "/api/keys") => {
                Deed::at(path).json(json!({ "name": "New", "role": "gate", "event": event, "gate": gate }))
            }
            ("GET", "/api/keys") => Deed::at(format!("{path}?limit=500")).shows(self.device().await),
            ("POST", "/api/keys/{key_id}/scans") => {
                let body = json!({ "name": "Door", "role": "gate", "event": event, "gate": gate, "offline": true });
                let made = service.organizer.post("/api/keys", body).await.is(201);
                let (ticket, _) = self.ticket().await;
                let path = path.replace("{key_id}", made["key_id"].as_str().expect("a key has an id"));
                let body = handed(&made, event, &[written(service, &ticket, 0)]);
                Deed::at(path).json(body).shows("\"result\":\"accepted\"")
            }
            ("GET" | "POST" | "DELETE", path) if path.starts_with("/api/keys/{key_id}") => {
                Deed::at(path.replace("{key_id}", &self.device().await))
            }
            ("POST", "/api/enrol" | "/api/enrol/offer") => {
                Deed::at(path).json(json!({ "token": self.offer(&self.device().await).await }))
            }
            _ => panic!("say in tests/suite/privileges.rs what {method} {path} is about"),
        }
    }

    /// A new ticket with a holder, and the path of its page.
    async fn ticket(&self) -> (Ticket, String) {
        let seat = format!("{}-{}-{}", self.event, self.gate, name());
        self.service.seat(self.event, &seat, self.gate).await;
        let body = json!({ "event": self.event, "seat": seat, "gate": self.gate });
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

    /// Creates one of the event's own people.
    async fn person(&self) -> String {
        let username = name();
        let person = json!({
            "username": username,
            "full_name": format!("Person of {} {} {username}", self.event, self.gate),
            "email": format!("{username}@{}.example.org", self.event),
        });
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

    /// Creates a device's key and returns its id.
    async fn device(&self) -> String {
        let body = json!({ "name": "Door", "role": "gate", "event": self.event, "gate": self.gate });
        let made = self.service.organizer.post("/api/keys", body).await.is(201);
        made["key_id"].as_str().expect("a key has an id").to_owned()
    }

    /// A token that enrols a device with this key.
    async fn offer(&self, key_id: &str) -> String {
        let offer = self.service.organizer.bare(Method::POST, format!("/api/keys/{key_id}/enrol")).await.is(200);
        let (_, token) = offer["enrol_url"].as_str().and_then(|url| url.split_once('=')).expect("a token");
        token.to_owned()
    }
}

/// A name that is not used yet.
fn name() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Whether the caller may: that the request itself is valid is shown by the installation's organizer.
async fn may(client: &Client, method: &Method, deed: &Deed) -> bool {
    let reply = deed.send(client, method).await;
    match reply.status.as_u16() {
        200..300 | 303 | 308 => reply.text().contains(&deed.shows),
        401 | 403 | 404 | 410 => false,
        409 if reply.text().contains("\"result\":\"wrong_gate\"") => false,
        status => panic!("{method} {}: {status} {}", deed.path, reply.text()),
    }
}

async fn row(service: &Service, callers: &[(Caller, Client)], method: &Method, path: &str) -> String {
    let mut row = format!("| `{method} {path}` |");
    for (caller, client) in callers {
        let mut answers = [false; PLACES.len()];
        for (answer, (event, gate)) in answers.iter_mut().zip(PLACES) {
            let deed = World { service, event, gate }.deed(method, path).await;
            if (method, path) == DELETION {
                // Deletes the event's keys too.
                *answer = may(&caller.client(service).await, method, &deed).await;
                if *answer {
                    service.event(json!({ "slug": event, "name": event })).await;
                }
            } else {
                *answer = may(client, method, &deed).await;
            }
        }
        let word = match answers {
            [true, true, true] => "yes",
            [true, true, false] => "own",
            [true, false, false] => "gate",
            [false, false, false] => NO,
            _ => panic!("{} may {method} {path} elsewhere, and not at its own place: {answers:?}", caller.name),
        };
        let _ = write!(row, " {word} |");
    }
    row
}

/// The head of a table with these columns.
fn head<'a>(columns: impl ExactSizeIterator<Item = &'a str>) -> String {
    let line = "---|".repeat(columns.len());
    let names: String = columns.map(|name| format!(" {name} |")).collect();
    format!("| |{names}\n|---|{line}\n")
}

#[track_caller]
fn assert_documented(table: &str) {
    assert!(DOCUMENT.contains(table), "docs/security.md has another table than this:\n{table}");
}

/// The same service with a mail server, to which nothing is sent, and a pass issuer.
fn mailing(service: &Service) -> Service {
    let account = Account::new();
    let [issuer, key] = account.settings();
    service.another(&[("SMTP_URL", "smtp://localhost:1"), ("MAIL_FROM", "gala@example.org"), issuer, key])
}

async fn two_events(service: &Service) {
    for slug in ["gala", "ball"] {
        service.event(json!({ "slug": slug, "name": slug })).await;
    }
}

async fn the_table_says_who_can_do_what(service: Service) {
    let service = mailing(&service);
    two_events(&service).await;
    let mut callers = Vec::new();
    for caller in Caller::all() {
        let client = caller.client(&service).await;
        callers.push((caller, client));
    }
    let mut table = head(callers.iter().map(|(caller, _)| caller.name.as_str()));
    let (deleting, others): (Vec<_>, Vec<_>) = ROUTES.iter().partition(|route| (&route.method, route.path) == DELETION);
    for routes in [others, deleting] {
        for route in routes {
            let row = row(&service, &callers, &route.method, route.path).await;
            table.push_str(&row);
            table.push('\n');
        }
        // Events with an admission or a delivered list cannot be deleted for a while; the delivery is recorded some
        // minutes ahead.
        service.clock.advance(180_000 + i64::try_from(LIST_KEPT.as_millis()).expect("some days"));
    }
    assert_documented(&table);
}

/// What somebody without a key may have, which is a column of the table.
#[derive(Clone, Copy, PartialEq)]
enum Proof {
    Link,
    Code,
    Seat,
    Paper,
    Offer,
    List,
}

impl Proof {
    const ALL: [(Self, &str); 6] = [
        (Self::Link, "link of a ticket"),
        (Self::Code, "code of a phone (`RT1`)"),
        (Self::Seat, "seat and six digits"),
        (Self::Paper, "paper (`RP1`)"),
        (Self::Offer, "enrolment code"),
        (Self::List, "list of a gate"),
    ];
}

/// All proofs of one event and gate, and what they belong to.
struct Hands {
    event: &'static str,
    gate: &'static str,
    ticket: Ticket,
    /// The path of the ticket's page.
    link: String,
    paper: String,
    /// The offered key, and the token.
    offered: String,
    token: String,
    /// The phone's key, and the list that it has.
    phone: String,
    list: Value,
    /// What was shown at one moment: `RT1`, and the digits.
    qr: String,
    digits: String,
}

impl Hands {
    async fn full(service: &Service, (event, gate): (&'static str, &'static str)) -> Self {
        let world = World { service, event, gate };
        let (ticket, link) = world.ticket().await;
        let printed = service.organizer.bare(Method::POST, format!("/api/tickets/{}/print", ticket.ticket_id)).await;
        let key = json!({ "name": "Phone", "role": "gate", "event": event, "gate": gate, "offline": true });
        let made = service.organizer.post("/api/keys", key).await.is(201);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let list = service.anonymous.with_key(&text(&made["key"])).get(format!("/api/events/{event}/manifest")).await;
        let offered = world.device().await;
        Self {
            event,
            gate,
            link,
            paper: text(&printed.is(200)["printed_code"]),
            token: world.offer(&offered).await,
            offered,
            phone: text(&made["key_id"]),
            list: list.is(200),
            qr: ticket.qr(service.now()),
            digits: ticket.code(service.now()),
            ticket,
        }
    }

    /// The parts of this proof that may be tried as a secret.
    fn texts(&self, proof: Proof) -> Vec<String> {
        match proof {
            Proof::Link => vec![self.link.trim_start_matches("/t/").to_owned()],
            Proof::Code => vec![self.qr.clone()],
            Proof::Seat => vec![self.ticket.seat.clone(), self.digits.clone()],
            Proof::Paper => vec![self.paper.clone()],
            Proof::Offer => vec![self.token.clone()],
            Proof::List => {
                ["key", "ticket_id"].map(|name| self.entry()[name].as_str().unwrap_or_default().to_owned()).to_vec()
            }
        }
    }

    /// What can be shown at a gate now with this proof.
    async fn shown(&self, service: &Service, proof: Proof) -> Option<Value> {
        let made = |ticket: &Ticket| json!({ "code": ticket.qr(service.now()) });
        let seat = || json!({ "seat": self.ticket.seat, "gate": self.gate, "totp_code": self.digits });
        let shown = match proof {
            Proof::Link => {
                let page = service.anonymous.get(&self.link).await;
                made(&self.with_key(page.text().split_once("data-key=\"")?.1.split('"').next()?)?)
            }
            Proof::Code => json!({ "code": self.qr }),
            Proof::Seat => seat(),
            Proof::Paper => json!({ "code": self.paper }),
            Proof::Offer => return None,
            Proof::List => made(&self.with_key(self.entry()["key"].as_str()?)?),
        };
        Some(with(shown, json!({ "scan_id": Uuid::now_v7() })))
    }

    /// The ticket's entry in the list.
    fn entry(&self) -> &Value {
        let entries = self.list["tickets"].as_array().expect("a list");
        entries.iter().find(|entry| entry["ticket_id"] == json!(self.ticket.ticket_id)).expect("the ticket is held")
    }

    /// The ticket as somebody with this code key could show it; `None` without a key.
    fn with_key(&self, key: &str) -> Option<Ticket> {
        let provisioned = json!({
            "ticket_id": self.ticket.ticket_id, "seat": self.ticket.seat, "gate": self.gate,
            "username": self.ticket.username, "provisioning": { "secret": key },
        });
        (!key.is_empty()).then(|| Ticket::new(&provisioned))
    }

    /// Replaces the ticket's code key in a text with a word.
    fn marked(&self, told: &str) -> String {
        told.replace(&self.ticket.secret(), KEY_OF_CODES)
    }

    fn told_by_list(&self) -> String {
        self.marked(&self.list.to_string())
    }

    /// Whether the proof admits somebody at this event and gate.
    async fn admits(&self, service: &Service, proof: Proof, (event, gate): (&str, &str)) -> bool {
        let Some(scan) = self.shown(service, proof).await else { return false };
        let door = service.key(json!({ "name": "d", "role": "gate", "event": event, "gate": gate })).await;
        door.post(format!("/api/events/{event}/scans"), scan).await.text().contains("\"result\":\"accepted\"")
    }
}

/// Sends the request without a key, with `text` in place of each secret and of each name in the path.
async fn ask(service: &Service, route: &Route, deed: &Deed, text: &str) -> Option<String> {
    let parts = route.path.split('/').map(|part| if part.starts_with('{') { text } else { part });
    let mut body: Value = serde_json::from_str(&deed.body).unwrap_or_default();
    for member in
        body.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut).filter(|value| value.is_string())
    {
        *member = text.into();
    }
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let deed =
        Deed { path: parts.collect::<Vec<_>>().join("/"), media_type: deed.media_type, body, shows: String::new() };
    let reply = deed.send(&service.anonymous, &route.method).await;
    (reply.status.is_success() || reply.status == 303).then(|| reply.text())
}

/// A route's answers to the proofs, in order; `None` if a proof gets no more than an invented one.
type Answers = [Option<String>; Proof::ALL.len()];

/// Every route's answers to the proofs, without a key.
async fn walk(service: &Service) -> Vec<(String, Answers)> {
    let mut hands = Hands::full(service, PLACES[0]).await;
    let world = World { service, event: hands.event, gate: hands.gate };
    let mut walked = Vec::new();
    for route in ROUTES {
        let deed = world.deed(&route.method, route.path).await;
        let mut answers = Answers::default();
        if ask(service, route, &deed, &name()).await.is_none() {
            for (answer, (proof, _)) in answers.iter_mut().zip(Proof::ALL) {
                for text in hands.texts(proof) {
                    *answer = ask(service, route, &deed, &text).await.map(|told| hands.marked(&told)).or(answer.take());
                }
                if answer.is_some() {
                    // The proofs may be used up.
                    hands = Hands::full(service, PLACES[0]).await;
                }
            }
        }
        walked.push((format!("`{} {}`", route.method, route.path), answers));
    }
    walked
}

/// The facts that a proof may reveal, and the text that shows it.
const FACTS: [(&str, &str); 8] = [
    ("the event", "gala"),
    ("the holder's name", "Person of gala North"),
    ("the holder's address", "@gala.example.org"),
    ("the key of the ticket's codes", KEY_OF_CODES),
    ("a key of the service", "rtk_"),
    ("seats of other gates", "gala-South-"),
    ("holders at other gates", "Person of gala South"),
    ("another event", "ball-North-"),
];
const KEY_OF_CODES: &str = "KEY OF CODES";

/// What ends a proof, or does not.
#[derive(Clone, Copy)]
enum End {
    Time,
    Use,
    Revocation,
    Reissue,
    Transfer,
    Erasure,
    Loss,
    OtherOffer,
    Enrolment,
    KeyRevoked,
    OtherSecret,
}

impl End {
    /// The last one ends what the others are asked about.
    const ALL: [(Self, &str); 11] = [
        (Self::Time, "15 minutes"),
        (Self::Use, "the admission of its holder"),
        (Self::Revocation, "the ticket's revocation"),
        (Self::Reissue, "its reissue"),
        (Self::Transfer, "its transfer"),
        (Self::Erasure, "its holder's erasure"),
        (Self::Loss, "*this phone is lost*, of the list's phone"),
        (Self::OtherOffer, "another enrolment code for the key"),
        (Self::Enrolment, "a device's enrolment with it"),
        (Self::KeyRevoked, "the offered key's revocation"),
        (Self::OtherSecret, "`change-secret`"),
    ];

    /// Applies it to everything that belongs to these proofs.
    async fn happen(self, service: &Service, hands: &Hands) {
        let organizer = &service.organizer;
        let world = World { service, event: hands.event, gate: hands.gate };
        let of_ticket = |what: &str| format!("/api/tickets/{}/{what}", hands.ticket.ticket_id);
        match self {
            Self::Time | Self::OtherSecret => {}
            Self::Use => {
                let scans = format!("/api/events/{}/scans", hands.event);
                organizer.post(scans, service.scan(&hands.ticket)).await.is_scan(200, "accepted");
            }
            Self::Revocation => drop(organizer.bare(Method::POST, of_ticket("revoke")).await.is(200)),
            Self::Reissue => drop(organizer.bare(Method::POST, of_ticket("reissue")).await.is(200)),
            Self::Transfer => {
                let to = json!({ "username": world.person().await });
                organizer.post(world.of_people(&of_ticket("transfer")), to).await.is(200);
            }
            Self::Erasure => {
                let user = format!("/api/users/{}", hands.ticket.username);
                organizer.delete(world.of_people(&user)).await.is(204);
            }
            Self::Loss => {
                let lost = format!("/api/keys/{}/lost", hands.phone);
                while organizer.bare(Method::POST, &lost).await.is(200)["remaining"] != json!(0) {}
            }
            Self::OtherOffer => drop(world.offer(&hands.offered).await),
            Self::Enrolment => {
                service.anonymous.post("/api/enrol", json!({ "token": hands.token })).await.is(200);
            }
            Self::KeyRevoked => drop(organizer.delete(format!("/api/keys/{}", hands.offered)).await.is(204)),
        }
    }

    /// Applies it to the whole service and returns the service afterwards.
    async fn happen_to_all(self, service: &Service) -> Service {
        let mut settings: &[(&str, &str)] = &[];
        match self {
            Self::Time => service.clock.advance(15 * 60_000),
            Self::OtherSecret => {
                settings = &[("TICKET_SECRET", "the first secret of the test suite")];
                crate::secret::change_secret(service, settings, &["--yes"]).printed();
            }
            _ => {}
        }
        service.another(settings)
    }
}

/// What a proof is still valid for at its own event and gate.
async fn left(service: &Service, proof: Proof, hands: &Hands) -> &'static str {
    let is_good = match proof {
        Proof::Offer => service.anonymous.post("/api/enrol", json!({ "token": hands.token })).await.status.is_success(),
        _ => hands.admits(service, proof, (hands.event, hands.gate)).await,
    };
    match proof {
        _ if is_good => "good",
        Proof::Link if service.anonymous.get(&hands.link).await.status.is_success() => "its page",
        _ => NO,
    }
}

async fn rows_of_ends(service: &Service) -> Vec<(String, [&'static str; Proof::ALL.len()])> {
    let mut rows = Vec::new();
    for (end, name) in End::ALL {
        let mut all = Vec::new();
        for _ in Proof::ALL {
            all.push(Hands::full(service, PLACES[0]).await);
        }
        for hands in &all {
            end.happen(service, hands).await;
        }
        let service = end.happen_to_all(service).await;
        let mut cells = [""; Proof::ALL.len()];
        for ((cell, (proof, _)), hands) in cells.iter_mut().zip(Proof::ALL).zip(&all) {
            *cell = left(&service, proof, hands).await;
        }
        rows.push((format!("after {name}"), cells));
    }
    rows
}

/// What each proof admits: once at its own gate, and nowhere else.
async fn rows_of_admissions(service: &Service) -> Vec<(String, [&'static str; Proof::ALL.len()])> {
    let mut rows = Vec::new();
    for (name, place, again) in [
        ("admits at its gate", PLACES[0], false),
        ("admits there again", PLACES[0], true),
        ("admits at another gate", PLACES[1], false),
        ("admits at another event", PLACES[2], false),
    ] {
        let mut cells = [NO; Proof::ALL.len()];
        for (cell, (proof, _)) in cells.iter_mut().zip(Proof::ALL) {
            let hands = Hands::full(service, PLACES[0]).await;
            if again {
                hands.admits(service, proof, place).await;
                service.clock.advance(30_000);
            }
            if hands.admits(service, proof, place).await {
                *cell = "yes";
            }
        }
        rows.push((name.to_owned(), cells));
    }
    rows
}

async fn the_table_says_what_each_proof_is_good_for(service: Service) {
    let service = mailing(&service);
    two_events(&service).await;
    for place in PLACES {
        Hands::full(&service, place).await;
    }
    let walked = walk(&service).await;
    let list = Hands::full(&service, PLACES[0]).await.told_by_list();
    let word = |is: bool| if is { "yes" } else { NO };
    let mut rows = Vec::new();
    for (route, answers) in walked.iter().filter(|(_, answers)| answers.iter().any(Option::is_some)) {
        rows.push((format!("opens {route}"), answers.each_ref().map(|answer| word(answer.is_some()))));
    }
    for (name, sign) in FACTS {
        let mut cells = [NO; Proof::ALL.len()];
        for (place, (proof, _)) in Proof::ALL.iter().enumerate() {
            let told = walked.iter().filter_map(|(_, answers)| answers[place].as_deref());
            let told = told.chain((*proof == Proof::List).then_some(list.as_str())).any(|told| told.contains(sign));
            cells[place] = word(told);
        }
        rows.push((format!("tells {name}"), cells));
    }
    rows.extend(rows_of_admissions(&service).await);
    rows.extend(rows_of_ends(&service).await);
    let mut table = head(Proof::ALL.iter().map(|(_, name)| *name));
    for (name, cells) in rows {
        let _ = writeln!(table, "| {name} | {} |", cells.join(" | "));
    }
    assert_documented(&table);
}
