//! One evening from end to end over HTTP, with its effects read from the database. `./scripts/test --remote` runs it
//! against a deployed service; otherwise it runs against the program on loopback, with each database.

use http::Method;
use register_ticket_api::model::Millis;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Kind, Rows, TestDatabase};
use crate::process::Server;
use crate::service::{ORGANIZER_KEY, Ticket, with};
use crate::sql_files::files;

#[tokio::test]
async fn an_evening_from_end_to_end() {
    everywhere(evening).await;
}

/// As in the tests of the service that this one replaces, with the test data (`sql/*/testdata`) that a deployment to
/// stg loads and removes.
#[tokio::test]
async fn the_test_data_is_registered_once_and_admitted_once() {
    everywhere(async |anonymous, organizer_key, url| {
        test_data(&anonymous.with_key(organizer_key), &mut Rows::open(url).await).await;
    })
    .await;
}

/// Runs a test against the service at BASE_URL, or with each database and the test data.
async fn everywhere(test: impl AsyncFn(&Client, &str, &str)) {
    let Ok(base_url) = std::env::var("BASE_URL") else {
        for kind in [Kind::Sqlite, Kind::Postgres] {
            let database = TestDatabase::create(kind).await;
            database.execute(files(kind).testdata).await.expect("the test data is written");
            let server = Server::start(database.environment()).await;
            test(&server.anonymous(), ORGANIZER_KEY, &database.url()).await;
        }
        return;
    };
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} belongs to BASE_URL: set both"));
    test(&Client::remote(&base_url), &variable("ORGANIZER_KEY"), &variable("DATABASE_URL")).await;
}

async fn test_data(organizer: &Client, rows: &mut Rows) {
    const TICKETS: &str = "select count(*) from tickets t join events e on e.event_id = t.event_id and e.slug = 'testdata' \
                           left join users u on u.user_id = t.user_id where";
    let register = async |username: &str, body: &Value| {
        organizer.post(format!("/api/users/{username}/tickets"), body.clone()).await
    };
    let seat = json!({ "event": "testdata", "seat": "A1", "gate": "North" });
    let ticket = Ticket::new(&register("spuertaf", &seat).await.is(201));
    for username in ["spuertaf", "juanperez"] {
        register(username, &seat).await.is_refused(409, "ticket_already_registered");
    }
    register("nobody-of-this-name", &seat).await.is_refused(404, "user_not_found");
    register("juanperez", &with(seat.clone(), json!({ "seat": "A99" }))).await.is_refused(404, "ticket_not_found");
    register("juanperez", &json!({ "event": "testdata", "seat": "A2" })).await.is_refused(422, "invalid_payload");
    assert_eq!(rows.count(&format!("{TICKETS} t.seat = 'A1' and u.username = 'spuertaf'")).await, 1);
    assert_eq!(rows.count(&format!("{TICKETS} u.username = 'juanperez'")).await, 0);

    let shown = with(seat, json!({ "totp_code": ticket.code(Millis::now()) }));
    organizer.post("/api/users/attendance", json!({ "event": "testdata" })).await.is_refused(422, "invalid_payload");
    assert_eq!(rows.count(&format!("{TICKETS} t.used_at is not null")).await, 0);
    organizer.post("/api/users/attendance", shown.clone()).await.is_scan(200, "accepted");
    organizer.post("/api/users/attendance", shown).await.is_scan(409, "already_used");
    assert_eq!(rows.count(&format!("{TICKETS} t.status = 'used' and t.used_at is not null")).await, 1);
}

async fn evening(anonymous: &Client, organizer_key: &str, database_url: &str) {
    // With SQLite, the first request that needs the database creates it.
    assert_eq!(anonymous.get("/health?full=1").await.is(200)["status"], "ok");
    let mut evening = Evening {
        anonymous: anonymous.clone(),
        organizer: anonymous.with_key(organizer_key),
        name: format!("test-{}", Uuid::new_v4().simple()),
        rows: Rows::open(database_url).await,
    };
    let ticket = evening.one_of_two_tickets_gets_a_holder().await;
    let admission = evening.the_holder_is_admitted_once(&ticket).await;
    evening.the_numbers_say_so().await;
    evening.only_a_supervisor_takes_it_back(&admission).await;
    evening.nothing_of_it_stays().await;
}

/// A separate event on a service, and access to its database.
struct Evening {
    anonymous: Client,
    organizer: Client,
    /// The name of the event and of the person.
    name: String,
    rows: Rows,
}

impl Evening {
    /// A path of the event.
    fn path(&self, rest: &str) -> String {
        format!("/api/events/{}{rest}", self.name)
    }

    /// Counts the event's rows of a table.
    async fn count(&mut self, table: &str, condition: &str) -> i64 {
        let of_event = format!("event_id = (select event_id from events where slug = '{}')", self.name);
        self.rows.count(&format!("select count(*) from {table} where {of_event} and {condition}")).await
    }

    /// Creates a key for the event and returns its client.
    async fn key(&self, role: &str) -> Client {
        let body = json!({ "name": role, "role": role, "event": self.name });
        let created = self.organizer.post("/api/keys", body).await.is(201);
        self.anonymous.with_key(created["key"].as_str().expect("a new key is shown"))
    }

    async fn one_of_two_tickets_gets_a_holder(&mut self) -> Ticket {
        self.anonymous.get(self.path("")).await.is_refused(401, "unauthenticated");
        self.organizer.post("/api/events", json!({ "slug": self.name, "name": "A test" })).await.is(201);
        let tickets = json!([{ "seat": "A1", "gate": "North" }, { "seat": "A2", "gate": "North" }]);
        self.organizer.post(self.path("/tickets"), tickets).await.is(201);
        assert_eq!(self.count("tickets", "user_id is null").await, 2);

        let person = json!({ "username": self.name, "full_name": "Test Person" });
        self.organizer.post("/api/users", person).await.is(201);
        let seat = json!({ "event": self.name, "seat": "A1", "gate": "North" });
        let registered = self.organizer.post(format!("/api/users/{}/tickets", self.name), seat).await.is(201);
        assert_eq!(self.count("tickets", "user_id is not null").await, 1);
        Ticket::new(&registered)
    }

    /// Scans at the gate: a wrong code, the right one, the same scan again, the same ticket again. Returns the
    /// admission.
    async fn the_holder_is_admitted_once(&mut self, ticket: &Ticket) -> Value {
        let (gate, scans) = (self.key("gate").await, self.path("/scans"));
        let wrong = json!({
            "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": ticket.wrong_code(Millis::now()),
        });
        gate.post(&scans, wrong).await.is_scan(422, "wrong_code");
        assert_eq!(self.count("tickets", "status = 'used'").await, 0);

        let right = json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(Millis::now()) });
        let admission = gate.post(&scans, right.clone()).await.is_scan(200, "accepted");
        assert_eq!(gate.post(&scans, right.clone()).await.is_scan(200, "accepted")["replayed"], true);
        let again = with(right, json!({ "scan_id": Uuid::now_v7() }));
        gate.post(&scans, again).await.is_scan(409, "already_used");
        assert_eq!(self.count("tickets", "status = 'used' and inside").await, 1);
        assert_eq!(self.count("scans", "result = 'accepted'").await, 1);
        assert_eq!(self.count("scans", "1 = 1").await, 3);
        admission
    }

    async fn the_numbers_say_so(&self) {
        let stats = self.key("gate").await.get(self.path("/stats")).await.is(200);
        assert_eq!(stats["admitted"], 1);
        assert_eq!(stats["refused"], json!({ "already_used": 1, "wrong_code": 1 }));
    }

    async fn only_a_supervisor_takes_it_back(&mut self, admission: &Value) {
        let undo = format!("/api/scans/{}/undo", admission["scan_id"].as_str().expect("a scan has an id"));
        self.key("gate").await.bare(Method::POST, &undo).await.is_refused(403, "forbidden");
        self.key("supervisor").await.bare(Method::POST, &undo).await.is(200);
        assert_eq!(self.count("tickets", "status = 'used'").await, 0);
        assert_eq!(self.count("scans", "undone_at is not null").await, 1);
    }

    async fn nothing_of_it_stays(&mut self) {
        let person = format!("/api/users/{}", self.name);
        self.organizer.delete(&person).await.is(204);
        self.organizer.get(&person).await.is_refused(404, "user_not_found");
        assert_eq!(self.count("tickets", "status = 'revoked' and user_id is null").await, 1);
        let named = format!("{}?confirm={}", self.path(""), self.name);
        self.organizer.delete(named).await.is(204);
        self.organizer.get(self.path("")).await.is_refused(404, "event_not_found");
        for row in [format!("events where slug = '{}'", self.name), format!("users where username = '{}'", self.name)] {
            assert_eq!(self.rows.count(&format!("select count(*) from {row}")).await, 0, "{row}");
        }
    }
}
