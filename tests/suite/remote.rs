//! One evening from end to end, over HTTP, with its effects read from the database. `./scripts/test --remote` runs it
//! against a deployed service; otherwise it runs against the program on loopback, on each database.

use register_ticket_api::model::Millis;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Kind, Rows, TestDatabase};
use crate::process::Server;
use crate::service::{ORGANIZER_KEY, Ticket, with};

#[tokio::test]
async fn an_evening_from_end_to_end() {
    let Ok(base_url) = std::env::var("BASE_URL") else {
        for kind in [Kind::Sqlite, Kind::Postgres] {
            let database = TestDatabase::create(kind).await;
            let server = Server::start(database.environment()).await;
            evening(&server.anonymous(), ORGANIZER_KEY, &database.url()).await;
        }
        return;
    };
    let variable = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} belongs to BASE_URL: set both"));
    evening(&Client::remote(&base_url), &variable("ORGANIZER_KEY"), &variable("DATABASE_URL")).await;
}

async fn evening(anonymous: &Client, organizer_key: &str, database_url: &str) {
    let organizer = anonymous.with_key(organizer_key);
    let name = format!("test-{}", Uuid::new_v4().simple());
    let event = format!("/api/events/{name}");

    // On SQLite the first request that needs the database makes it.
    assert_eq!(anonymous.get("/health?full=1").await.is(200)["status"], "ok");
    anonymous.get(&event).await.is_refused(401, "unauthenticated");
    let mut rows = Rows::open(database_url).await;
    let mut count = async |table: &str, condition: &str| {
        let of_event = format!("event_id = (select event_id from events where slug = '{name}')");
        rows.count(&format!("select count(*) from {table} where {of_event} and {condition}")).await
    };

    // An event with two tickets, one of them in the hands of a person.
    organizer.post("/api/events", json!({ "slug": name, "name": "A test" })).await.is(201);
    let tickets = json!([{ "seat": "A1", "gate": "North" }, { "seat": "A2", "gate": "North" }]);
    organizer.post(format!("{event}/tickets"), tickets).await.is(201);
    assert_eq!(count("tickets", "user_id is null").await, 2);
    organizer.post("/api/users", json!({ "username": name, "full_name": "Test Person" })).await.is(201);
    let seat = json!({ "event": name, "seat": "A1", "gate": "North" });
    let registered = organizer.post(format!("/api/users/{name}/tickets"), seat).await.is(201);
    let ticket = Ticket::new(&registered);
    assert_eq!(count("tickets", "user_id is not null").await, 1);

    // At the gate: a wrong code, the right one, the same ticket again.
    let gate = key(anonymous, &organizer, json!({ "name": "gate", "role": "gate", "event": name })).await;
    let supervisor = key(anonymous, &organizer, json!({ "name": "chief", "role": "supervisor", "event": name })).await;
    let scans = format!("{event}/scans");
    let wrong = json!({
        "scan_id": Uuid::now_v7(), "seat": "A1", "gate": "North", "totp_code": ticket.wrong_code(Millis::now()),
    });
    gate.post(&scans, wrong).await.is_scan(422, "wrong_code");
    assert_eq!(count("tickets", "status = 'used'").await, 0);

    let right = json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(Millis::now()) });
    let admitted = gate.post(&scans, right.clone()).await.is_scan(200, "accepted");
    assert_eq!(gate.post(&scans, right.clone()).await.is_scan(200, "accepted")["replayed"], true);
    let again = with(right, json!({ "scan_id": Uuid::now_v7() }));
    gate.post(&scans, again).await.is_scan(409, "already_used");
    assert_eq!(count("tickets", "status = 'used' and inside").await, 1);
    assert_eq!(count("scans", "result = 'accepted'").await, 1);
    assert_eq!(count("scans", "1 = 1").await, 3);

    let stats = gate.get(format!("{event}/stats")).await.is(200);
    assert_eq!(stats["admitted"], 1);
    assert_eq!(stats["refused"], json!({ "already_used": 1, "wrong_code": 1 }));

    let undo = format!("/api/scans/{}/undo", admitted["scan_id"].as_str().expect("a scan has an id"));
    gate.bare(http::Method::POST, &undo).await.is_refused(403, "forbidden");
    supervisor.bare(http::Method::POST, &undo).await.is(200);
    assert_eq!(count("tickets", "status = 'used'").await, 0);
    assert_eq!(count("scans", "undone_at is not null").await, 1);

    // Nothing of it stays.
    organizer.delete(format!("/api/users/{name}")).await.is(204);
    organizer.get(format!("/api/users/{name}")).await.is_refused(404, "user_not_found");
    assert_eq!(count("tickets", "status = 'revoked' and user_id is null").await, 1);
    organizer.delete(&event).await.is(204);
    organizer.get(&event).await.is_refused(404, "event_not_found");
    assert_eq!(rows.count(&format!("select count(*) from events where slug = '{name}'")).await, 0);
    assert_eq!(rows.count(&format!("select count(*) from users where username = '{name}'")).await, 0);
}

async fn key(anonymous: &Client, organizer: &Client, body: Value) -> Client {
    let created = organizer.post("/api/keys", body).await.is(201);
    anonymous.with_key(created["key"].as_str().expect("a new key is shown"))
}
