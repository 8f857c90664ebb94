//! `TICKET_SECRET`: with it, a copy of the database alone cannot make codes; with a different one, the service decides
//! nothing.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD, HEXLOWER};
use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::commands::{Directory, Run, on};
use crate::database::Obstacle;
use crate::process::Server;
use crate::service::{Service, Ticket, with};

on_both_databases! {
    without_a_secret_the_seed_is_the_key,
    with_a_secret_the_seed_alone_makes_no_code,
    with_another_secret_nothing_that_needs_codes_is_done,
    a_secret_set_later_is_another_secret,
    a_change_of_the_secret_gives_tickets_new_codes_and_leaves_what_they_are,
    a_first_secret_may_come_after_the_tickets,
    a_secret_is_changed_on_purpose_and_not_while_an_event_runs,
    a_change_of_the_secret_that_fails_changes_nothing,
    a_process_that_goes_on_with_the_old_secret_hands_out_nothing,
    a_wrong_secret_is_told_at_the_start,
    a_look_at_a_page_decides_on_no_secret,
}

const FIRST: &[(&str, &str)] = &[("TICKET_SECRET", "the first secret of the test suite")];
const SECOND: &[(&str, &str)] = &[("TICKET_SECRET", "another secret of the test suite")];
const SCANS: &str = "/api/events/default/scans";

async fn without_a_secret_the_seed_is_the_key(service: Service) {
    let ticket = service.ticket("A1").await;
    assert_eq!(ticket.secret(), seed(&service).await);
}

async fn with_a_secret_the_seed_alone_makes_no_code(service: Service) {
    let service = service.another(FIRST);
    let ticket = service.ticket("A1").await;
    assert_ne!(ticket.secret(), seed(&service).await);
    let gate = service.offline_gate().await;
    assert_eq!(gate.get("/api/events/default/manifest").await.is(200)["tickets"][0]["key"], ticket.secret());
    // Every process with the secret knows the code.
    let other = service.another(FIRST).organizer;
    other.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn with_another_secret_nothing_that_needs_codes_is_done(service: Service) {
    let service = service.another(FIRST);
    let ticket = service.ticket("A1").await;
    service.seat("default", "A2", "North").await;
    let path = format!("/api/tickets/{}", ticket.ticket_id);
    let scan = service.scan(&ticket);
    let item = with(scan.clone(), json!({ "scanned_at": service.time(0), "offline_result": "accepted" }));
    let registration = json!({ "seat": "A2", "gate": "North" });

    for other in [service.another(SECOND).organizer, service.another(&[]).organizer] {
        let refused = |reply: crate::client::Reply| drop(reply.is_refused(503, "ticket_secret_mismatch"));
        refused(service.unchanged(other.post(SCANS, scan.clone())).await);
        let unknown = json!({ "scan_id": Uuid::now_v7(), "code": "not ours" });
        refused(service.unchanged(other.post(SCANS, unknown)).await);
        let transfer = json!({ "username": ticket.username });
        refused(service.unchanged(other.post(format!("{path}/transfer"), transfer)).await);
        refused(service.unchanged(other.bare(Method::POST, format!("{path}/reissue"))).await);
        refused(service.unchanged(other.bare(Method::POST, format!("{path}/print"))).await);
        refused(other.get(format!("{path}/link")).await);
        refused(other.get("/api/events/default/links.csv").await);
        let tickets = format!("/api/users/{}/tickets", ticket.username);
        refused(service.unchanged(other.post(tickets, registration.clone())).await);
        let file = "seat,gate,username\nA3,North,ana\n";
        refused(service.unchanged(other.post_csv("/api/events/default/tickets", file)).await);
        refused(other.get("/api/events/default/manifest").await);
        refused(service.unchanged(other.post(format!("{SCANS}/batch"), json!({ "scans": [item] }))).await);
    }
    service.organizer.post(SCANS, scan).await.is_scan(200, "accepted");
}

async fn a_secret_set_later_is_another_secret(service: Service) {
    let ticket = service.ticket("A1").await;
    let later = service.another(FIRST).organizer;
    service.unchanged(later.post(SCANS, service.scan(&ticket))).await.is_refused(503, "ticket_secret_mismatch");
}

/// Runs `change-secret` with a secret in its environment.
pub fn change_secret(service: &Service, secret: &[(&str, &str)], arguments: &[&str]) -> Run {
    let directory = Directory::new();
    let arguments = [&["change-secret"], arguments].concat();
    Run::of(on(&service.database, &directory, &arguments).envs(secret.iter().copied()))
}

/// What the phone of a ticket's holder has after its link was sent again.
async fn renewed(service: &Service, ticket: &Ticket) -> Ticket {
    let manifest = service.offline_gate().await.get("/api/events/default/manifest").await.is(200);
    let entries = manifest["tickets"].as_array().expect("a list");
    let own = entries.iter().find(|entry| entry["ticket_id"] == json!(ticket.ticket_id)).expect("it is held");
    let provisioned = json!({
        "ticket_id": ticket.ticket_id, "seat": ticket.seat, "gate": ticket.gate, "username": ticket.username,
        "provisioning": { "secret": own["key"] },
    });
    Ticket::new(&provisioned)
}

async fn a_change_of_the_secret_gives_tickets_new_codes_and_leaves_what_they_are(service: Service) {
    let before = service.another(FIRST);
    before.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    let [valid, inside, printed] = [before.ticket("A1").await, before.ticket("A2").await, before.ticket("A3").await];
    before.organizer.post(SCANS, before.scan(&inside)).await.is_scan(200, "accepted");
    before.organizer.bare(Method::POST, format!("/api/tickets/{}/print", printed.ticket_id)).await.is(200);
    before.seat("default", "A4", "North").await;
    before.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let done = before.ticket_of("gala", "B1", "North").await;
    before.organizer.post("/api/events/gala/scans", before.scan(&done)).await.is_scan(200, "accepted");
    before.organizer.post("/api/events/gala/scans", with(before.scan(&done), json!({ "direction": "exit" }))).await;
    let link = before.organizer.get(format!("/api/tickets/{}/link", valid.ticket_id)).await.is(200);
    let kept = "select count(*) from tickets where (seat in ('A2', 'B1')) = (status = 'used' and used_at is not null)";
    assert_eq!(service.database.count(kept).await, 5);

    let said = change_secret(&service, SECOND, &["--yes"]).printed();
    assert!(said.starts_with("4 tickets have new codes"), "{said}");
    assert!(said.contains("3 tickets, /api/events/default/links.csv") && !said.contains("events/gala"), "{said}");

    let after = service.another(SECOND);
    let actions = after.organizer.get("/api/actions.csv").await.text();
    let reissued = actions.lines().find(|line| line.contains("\"reissued\"")).expect("it is recorded");
    assert!(reissued.contains("\"default\"") && reissued.ends_with(",\"4\""), "{reissued}");
    let count = async |what: &str| service.database.count(&format!("select count(*) from tickets where {what}")).await;
    assert_eq!(count("seeded_at is not null and changed_at = seeded_at and printed_at is null").await, 4);
    assert_eq!(count("seat = 'B1' and seeded_at is null").await, 1, "a used ticket stays unchanged");
    assert_eq!(service.database.count(kept).await, 5);
    assert_eq!(count("inside and seat = 'A2'").await, 1);
    for old in [&valid, &printed] {
        after.organizer.post(SCANS, after.scan(old)).await.is_scan(422, "wrong_code");
    }
    let paper = json!({ "scan_id": Uuid::now_v7(), "code": printed.paper() });
    after.organizer.post(SCANS, paper).await.is_scan(422, "wrong_code");
    let page = link["ticket_url"].as_str().and_then(|url| url.split_once("/t/")).expect("a link").1;
    assert_eq!(after.anonymous.get(format!("/t/{page}")).await.status, 404);

    after.organizer.post(SCANS, after.scan(&renewed(&after, &valid).await)).await.is_scan(200, "accepted");
    after.clock.advance(30_000);
    let inside = renewed(&after, &inside).await;
    after.organizer.post(SCANS, after.scan(&inside)).await.is_scan(409, "already_used");
    let exit = with(after.scan(&inside), json!({ "direction": "exit" }));
    after.organizer.post(SCANS, exit).await.is_scan(200, "accepted");
    before.organizer.post(SCANS, before.scan(&valid)).await.is_refused(503, "ticket_secret_mismatch");
}

async fn a_first_secret_may_come_after_the_tickets(service: Service) {
    let ticket = service.ticket("A1").await;
    change_secret(&service, FIRST, &["--yes"]).printed();
    let after = service.another(FIRST);
    let renewed = renewed(&after, &ticket).await;
    assert_ne!(renewed.secret(), seed(&service).await, "a copy of the database makes no codes");
    after.organizer.post(SCANS, after.scan(&ticket)).await.is_scan(422, "wrong_code");
    after.organizer.post(SCANS, after.scan(&renewed)).await.is_scan(200, "accepted");
}

async fn a_secret_is_changed_on_purpose_and_not_while_an_event_runs(service: Service) {
    let before = service.another(FIRST);
    before.ticket("A1").await;
    let refused = async |secret: &[(&str, &str)], arguments: &[&str], code: i32| {
        let rows = service.database.snapshot().await;
        let said = change_secret(&service, secret, arguments).failed(code);
        assert_eq!(service.database.snapshot().await, rows);
        assert_eq!(before.organizer.get("/api/events/default/links.csv").await.status, 200);
        said
    };
    let said = refused(&[], &["--yes"], 2).await;
    assert!(said.starts_with("error: TICKET_SECRET: is not set"), "{said}");
    let said = refused(FIRST, &["--yes"], 1).await;
    assert!(said.contains("that the database already uses"), "{said}");
    let said = refused(SECOND, &[], 1).await;
    assert!(said.contains("--yes"), "{said}");
    // The command uses the machine's clock.
    let event = json!({ "slug": "tonight", "name": "Tonight", "starts_at": register_ticket_api::model::Millis::now() });
    before.event(event).await;
    let said = refused(SECOND, &["--yes"], 1).await;
    assert!(said.contains("the event tonight is running") && said.contains("--force"), "{said}");
    change_secret(&service, SECOND, &["--yes", "--force"]).printed();
    assert_eq!(service.another(SECOND).organizer.get("/api/events/default/links.csv").await.status, 200);
}

async fn a_change_of_the_secret_that_fails_changes_nothing(service: Service) {
    let before = service.another(FIRST);
    let ticket = before.ticket("A1").await;
    let rows = service.database.snapshot().await;
    service.database.obstruct("update on tickets", Obstacle::Fails("no room")).await;
    let said = change_secret(&service, SECOND, &["--yes"]).failed(1);
    assert!(!said.contains(&ticket.secret()), "{said}");
    service.database.clear().await;
    assert_eq!(service.database.snapshot().await, rows);
    before.organizer.post(SCANS, before.scan(&ticket)).await.is_scan(200, "accepted");
}

async fn a_process_that_goes_on_with_the_old_secret_hands_out_nothing(service: Service) {
    let before = service.another(FIRST);
    let ticket = before.ticket("A1").await;
    before.seat("default", "A2", "North").await;
    change_secret(&service, SECOND, &["--yes"]).printed();
    let link = format!("/api/tickets/{}/link", ticket.ticket_id);
    before.organizer.get(link).await.is_refused(503, "ticket_secret_mismatch");
    let tickets = format!("/api/users/{}/tickets", ticket.username);
    let registration = before.organizer.post(tickets, json!({ "seat": "A2", "gate": "North" }));
    service.unchanged(registration).await.is_refused(503, "ticket_secret_mismatch");
}

async fn a_wrong_secret_is_told_at_the_start(service: Service) {
    const WRONG: &str = "TICKET_SECRET is not the one with which the tickets of this database were made";
    let environment = |secret: &[(&str, &str)]| {
        let secret = secret.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        [service.database.environment(), secret.collect()].concat()
    };
    service.another(FIRST).ticket("A1").await;
    let wrong = Server::start(environment(SECOND)).await;
    let line = wrong.process.logged(WRONG).await;
    assert!(line.contains("ERROR") && line.contains("change-secret"), "{line}");
    // Here the missing secret is not the point, and a new one would not help.
    let none = Server::start(environment(&[])).await;
    none.process.logged(WRONG).await;
    assert!(!none.process.log().contains("openssl rand"), "{}", none.process.log());
    let right = Server::start(environment(FIRST)).await;
    assert_eq!(right.organizer().get("/api/events/default/links.csv").await.status, 200);
    assert!(!right.process.log().contains("TICKET_SECRET"), "{}", right.process.log());
}

#[tokio::test]
async fn serve_says_that_no_secret_is_set_and_what_to_do() {
    let start = async |secret: &str| {
        let directory = Directory::new();
        let database = format!("sqlite:{}", directory.0.join("tickets.db").display());
        let settings = [("DATABASE_URL", database.as_str()), ("TICKET_SECRET", secret)];
        let server = Server::start(settings.map(|(name, value)| (name.to_owned(), value.to_owned()))).await;
        assert_eq!(directory.names("."), [""; 0], "the start makes no database");
        server
    };
    let line = start("").await.process.logged("TICKET_SECRET").await;
    assert!(line.contains("WARN") && line.contains("openssl rand -hex 32") && line.contains("change-secret"), "{line}");
    let server = start(FIRST[0].1).await;
    assert!(!server.process.log().contains("TICKET_SECRET"), "{}", server.process.log());
}

async fn a_look_at_a_page_decides_on_no_secret(service: Service) {
    let ticket_id: Uuid = service.seat("default", "A1", "North").await.parse().expect("an id");
    let token = BASE64URL_NOPAD.encode(&[*ticket_id.as_bytes(), [0; 16]].concat());
    let first = service.another(FIRST);
    assert_eq!(first.anonymous.get(format!("/t/{token}")).await.status, 404);
    first.user("ana").await;
    let body = json!({ "seat": "A1", "gate": "North" });
    first.organizer.post("/api/users/ana/tickets", body).await.is(201);
    let path = format!("/api/tickets/{ticket_id}/link");
    service.another(SECOND).organizer.get(path).await.is_refused(503, "ticket_secret_mismatch");
}

/// The only ticket's seed, in the form of a secret.
async fn seed(service: &Service) -> String {
    let hex = service.database.text("select hex(seed) from tickets", "select encode(seed, 'hex') from tickets").await;
    BASE32_NOPAD.encode(&HEXLOWER.decode(hex.to_lowercase().as_bytes()).expect("a database writes hex"))
}
