//! The service under test: everything except the socket, with a clock that the test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use data_encoding::BASE32_NOPAD;
use register_ticket_api::app::App;
use register_ticket_api::config::Settings;
use register_ticket_api::limits::{GUESTS, LIST_KEPT, MANIFEST_AFTER_END, PARTY, PARTY_WINDOW, UNDO_WINDOW};
use register_ticket_api::model::Millis;
use register_ticket_api::totp::{Code, QrCode, TotpKey, step_at};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::database::{Kind, TestDatabase};

pub const ORGANIZER_KEY: &str = "the-organizer-key-of-the-test-suite";

/// 2026-05-01T18:00:00Z, at the start of a code's step.
const EVENING: Millis = Millis(1_777_658_400_000);

/// A clock that moves only when the test moves it.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicI64>);

impl TestClock {
    pub fn at(now: Millis) -> Self {
        Self(Arc::new(AtomicI64::new(now.0)))
    }

    pub fn now(&self) -> Millis {
        Millis(self.0.load(Ordering::SeqCst))
    }

    pub fn advance(&self, milliseconds: i64) {
        self.0.fetch_add(milliseconds, Ordering::SeqCst);
    }
}

pub struct Service {
    pub clock: TestClock,
    pub database: Arc<TestDatabase>,
    pub anonymous: Client,
    /// A client with `ORGANIZER_KEY`.
    pub organizer: Client,
}

impl Service {
    /// Starts a service with a new database.
    pub async fn start(kind: Kind) -> Self {
        let database = Arc::new(TestDatabase::create(kind).await);
        Self::on(database, TestClock::at(EVENING), &[])
    }

    /// Another process on the same database, with the same clock and further settings.
    pub fn another(&self, settings: &[(&str, &str)]) -> Self {
        Self::on(Arc::clone(&self.database), self.clock.clone(), settings)
    }

    /// A service on an existing database.
    pub fn on(database: Arc<TestDatabase>, clock: TestClock, settings: &[(&str, &str)]) -> Self {
        let app = app(&database, &clock, settings);
        let anonymous = Client::of(&app);
        let organizer = anonymous.with_key(ORGANIZER_KEY);
        Self { clock, database, anonymous, organizer }
    }

    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// The time this many milliseconds from now, or before.
    pub fn moment(&self, milliseconds: i64) -> Millis {
        Millis(self.now().0 + milliseconds)
    }

    /// The same as the API writes it.
    pub fn time(&self, milliseconds: i64) -> String {
        self.moment(milliseconds).to_string()
    }

    /// A gate that is bound to no event.
    pub async fn gate(&self) -> Client {
        self.key(json!({ "name": "gate", "role": "gate" })).await
    }

    /// A gate that may work offline.
    pub async fn offline_gate(&self) -> Client {
        self.key(json!({ "name": "offline gate", "role": "gate", "offline": true })).await
    }

    pub async fn supervisor(&self) -> Client {
        self.key(json!({ "name": "supervisor", "role": "supervisor" })).await
    }

    /// Creates a key and returns its client.
    pub async fn key(&self, body: Value) -> Client {
        let created = self.organizer.post("/api/keys", body).await.is(201);
        self.anonymous.with_key(created["key"].as_str().expect("a new key is shown"))
    }

    pub async fn event(&self, body: Value) {
        self.organizer.post("/api/events", body).await.is(201);
    }

    pub async fn user(&self, username: &str) {
        self.organizer.post("/api/users", json!({ "username": username })).await.is(201);
    }

    /// Issues a ticket of an event and returns its id.
    pub async fn seat(&self, event: &str, seat: &str, gate: &str) -> String {
        self.organizer
            .post(format!("/api/events/{event}/tickets"), json!({ "seat": seat, "gate": gate }))
            .await
            .is(201);
        let path = format!("/api/events/{event}/tickets?limit=500");
        let list = self.organizer.get(&path).await.is(200);
        let is_it = |ticket: &&Value| ticket["seat"] == seat && ticket["gate"] == gate;
        let ticket = list["tickets"].as_array().and_then(|tickets| tickets.iter().find(is_it));
        ticket.and_then(|ticket| ticket["ticket_id"].as_str()).expect("a new ticket is in the list").to_owned()
    }

    /// Issues a ticket of the default event at gate North, to a user of its own.
    pub async fn ticket(&self, seat: &str) -> Ticket {
        self.ticket_of("default", seat, "North").await
    }

    /// Issues a ticket to a new user named after the seat.
    pub async fn ticket_of(&self, event: &str, seat: &str, gate: &str) -> Ticket {
        self.seat(event, seat, gate).await;
        let username = format!("{event}-{seat}-{gate}");
        self.user(&username).await;
        let body = json!({ "event": event, "seat": seat, "gate": gate });
        Ticket::new(&self.organizer.post(format!("/api/users/{username}/tickets"), body).await.is(201))
    }

    /// The version of the only ticket with this seat. Each change of its row adds 1.
    pub async fn version(&self, seat: &str) -> i64 {
        self.database.count(&format!("select version from tickets where seat = '{seat}'")).await
    }

    /// A new scan of the code that the holder's phone shows now.
    pub fn scan(&self, ticket: &Ticket) -> Value {
        json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(self.now()) })
    }

    /// Sends a request that must leave every row unchanged.
    pub async fn unchanged(&self, request: impl Future<Output = Reply>) -> Reply {
        let before = self.database.snapshot().await;
        let reply = request.await;
        let after = self.database.snapshot().await;
        let lines = |of: &str, but_not: &str| {
            of.lines().filter(|line| !but_not.lines().any(|other| other == *line)).collect::<Vec<_>>().join("\n")
        };
        if before != after {
            let (gone, new) = (lines(&before, &after), lines(&after, &before));
            panic!("{}\nrows that are gone:\n{gone}\nnew rows:\n{new}", reply.text());
        }
        reply
    }
}

fn app(database: &TestDatabase, clock: &TestClock, further: &[(&str, &str)]) -> Arc<App> {
    let clock = clock.clone();
    Arc::new(App::new(settings(database, further), Box::new(move || clock.now())))
}

/// The settings of a service on a database; `further` take precedence.
pub fn settings(database: &TestDatabase, further: &[(&str, &str)]) -> Settings {
    let mut variables = database.environment();
    variables.push(("ORGANIZER_KEY".to_owned(), ORGANIZER_KEY.to_owned()));
    let read = |name: &str| {
        let further = further.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let own = || variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        further.or_else(own)
    };
    Settings::read(read).expect("the test's own settings are valid")
}

/// What a holder's phone has.
pub struct Ticket {
    pub ticket_id: Uuid,
    pub seat: String,
    pub gate: String,
    pub username: String,
    key: TotpKey,
}

impl Ticket {
    /// Built from the answer to a registration, a reissue or a transfer.
    pub fn new(answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().expect("a provisioned ticket has no gaps").to_owned();
        let secret = BASE32_NOPAD.decode(text(&answer["provisioning"]["secret"]).as_bytes()).expect("base32");
        Self {
            ticket_id: text(&answer["ticket_id"]).parse().expect("an id is a UUID"),
            seat: text(&answer["seat"]),
            gate: text(&answer["gate"]),
            username: text(&answer["username"]),
            key: TotpKey::new(secret.try_into().expect("a key has 20 bytes")),
        }
    }

    /// The secret as it was provisioned.
    pub fn secret(&self) -> String {
        self.key.base32()
    }

    /// The six digits at a time.
    pub fn code(&self, at: Millis) -> String {
        self.key.code(step_at(at))
    }

    /// Six digits that are not the code of any nearby time.
    pub fn wrong_code(&self, at: Millis) -> String {
        let near: Vec<String> = (-25..=25).map(|away| self.key.code(step_at(at) + away)).collect();
        let digits = (0..).map(|number| format!("{number:06}")).find(|digits| !near.contains(digits));
        digits.expect("there are more numbers than steps")
    }

    /// The text of the QR code at a time.
    pub fn qr(&self, at: Millis) -> String {
        QrCode { ticket_id: self.ticket_id, code: Code::Rotating(self.code(at)) }.to_string()
    }

    /// The code on its paper, once it is printed.
    pub fn paper(&self) -> String {
        QrCode { ticket_id: self.ticket_id, code: Code::Printed(self.key.print_proof()) }.to_string()
    }
}

/// Reads a list in pages of two and returns all entries.
pub async fn walk(client: &Client, path: &str, name: &str) -> Vec<Value> {
    let mut members = Vec::new();
    let mut after = String::new();
    loop {
        let page = client.get(format!("{path}?limit=2{after}")).await.is(200);
        let part = page[name].as_array().expect("a list has members");
        members.extend(part.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return members,
        }
    }
}

/// Asserts the given fields of a JSON object; a failure shows only these. `null` also matches a missing field.
#[track_caller]
pub fn assert_members(object: &Value, expected: Value) {
    let names = expected.as_object().expect("what is expected has names").keys();
    let told: Map<String, Value> = names.map(|name| (name.clone(), object[name].clone())).collect();
    assert_eq!(Value::Object(told), expected, "{object:#}");
}

/// A JSON object with fields added or replaced; `null` removes one.
pub fn with(mut body: Value, changes: Value) -> Value {
    let members = body.as_object_mut().expect("a body is an object");
    for (name, value) in changes.as_object().expect("changes are an object") {
        match value {
            Value::Null => members.remove(name),
            value => members.insert(name.clone(), value.clone()),
        };
    }
    body
}

/// The limits that a gate's device gets.
pub fn gate_limits() -> Value {
    json!({
        "undo_seconds": UNDO_WINDOW.as_secs(),
        "party_seconds": PARTY_WINDOW.as_secs(),
        "party_tickets": PARTY,
        "guests": GUESTS,
        "manifest_after_end_seconds": MANIFEST_AFTER_END.as_secs(),
        "list_kept_seconds": LIST_KEPT.as_secs(),
    })
}
