//! A lost device: once it is reported, its knowledge is worthless, and every affected holder is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use register_ticket_api::app::App;
use register_ticket_api::model::{Millis, Seed};
use register_ticket_api::routes;
use register_ticket_api::store::Author;
use register_ticket_api::totp::{Code, LinkSecret, QrCode, TicketSecret, TotpKey, step_at};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, assert_members, settings, walk};

on_both_databases! {
    what_a_lost_phone_knows_is_worth_nothing,
    what_was_made_after_the_last_list_stays,
    a_lost_phone_knows_what_it_was_sent_whatever_the_clocks,
    a_report_that_is_repeated_renews_no_ticket_twice,
    two_reports_at_once_share_the_tickets,
    only_tickets_that_the_phone_could_list_are_renewed,
    a_used_ticket_that_may_come_in_again_keeps_its_state_and_no_other_is_renewed,
    the_phone_that_is_lost_after_another_one_knows_the_newer_secrets,
    keys_are_noted_before_they_are_sent,
    nothing_more_is_sent_once_the_key_is_revoked,
    only_the_device_of_a_gate_can_be_lost,
    what_was_scanned_with_the_key_is_listed_from_a_time_on,
    the_report_is_kept_once_with_each_ticket,
}

const MANIFEST: &str = "/api/events/default/manifest";
const SCANS: &str = "/api/events/default/scans";
const MINUTE: i64 = 60_000;

/// A gate's phone, and the id of its key.
struct Phone {
    client: Client,
    key_id: String,
}

impl Phone {
    async fn new(service: &Service, further: Value) -> Self {
        let body = json!({ "name": "Door", "role": "gate", "offline": true });
        let made = service.organizer.post("/api/keys", crate::service::with(body, further)).await.is(201);
        let text = |name: &str| made[name].as_str().expect("a new key is shown").to_owned();
        Self { client: service.anonymous.with_key(&text("key")), key_id: text("key_id") }
    }

    /// Sends one request: returns how many tickets were renewed, and how many are left.
    async fn report(&self, organizer: &Client) -> (i64, i64) {
        let done = organizer.bare(Method::POST, format!("/api/keys/{}/lost", self.key_id)).await.is(200);
        (done["renewed"].as_i64().expect("a number"), done["remaining"].as_i64().expect("a number"))
    }

    /// Does what one request does, with at most this many tickets.
    async fn renew(&self, service: &Service, most: usize) -> (i64, i64) {
        let (clock, key_id) = (service.clock.clone(), self.key_id.parse().expect("an id"));
        let app = App::new(settings(&service.database, &[]), Box::new(move || clock.now()));
        let author = Author { key_id: None, now: service.now() };
        let since = service.moment(-15 * MINUTE);
        let done = app.store().renew_tickets(key_id, since, most, || Ok(Seed([7; 20])), author).await;
        let done = done.expect("the key is revoked");
        (done.renewed, done.remaining)
    }

    /// The links in `links.csv` by seat, once no ticket is left.
    async fn lost(&self, service: &Service) -> BTreeMap<String, String> {
        for _ in 0..10 {
            if self.report(&service.organizer).await.1 == 0 {
                return self.links(service).await;
            }
        }
        panic!("it never ends");
    }

    async fn links(&self, service: &Service) -> BTreeMap<String, String> {
        let csv = service.organizer.get(format!("/api/keys/{}/links.csv", self.key_id)).await.text();
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let records = reader.records().map(|record| record.expect("a record"));
        records.map(|record| (record[0].to_owned(), record[5].to_owned())).collect()
    }
}

async fn issue(service: &Service, csv: &str) {
    service.organizer.post_csv("/api/events/default/tickets", format!("seat,gate,username\n{csv}")).await.is(201);
}

/// Issues tickets of the default event at gate North, with a holder.
async fn issue_many(service: &Service, tickets: usize) {
    let rows: String = (1..=tickets).map(|seat| format!("{seat},North,ana\n")).collect();
    issue(service, &rows).await;
}

async fn links_of_event(service: &Service) -> BTreeMap<String, String> {
    let csv = service.organizer.get("/api/events/default/links.csv").await.text();
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let records = reader.records().map(|record| record.expect("a record"));
    records.map(|record| (record[0].to_owned(), record[5].to_owned())).collect()
}

async fn page(service: &Service, url: &str) -> Reply {
    service.anonymous.get(format!("/t/{}", url.split_once("/t/").expect("a link").1)).await
}

/// The code key of a list entry.
fn key_in(entry: &Value) -> Option<[u8; 20]> {
    let key = entry["key"].as_str()?;
    Some(BASE32_NOPAD.decode(key.as_bytes()).expect("base32").try_into().expect("20 bytes"))
}

fn id_in(entry: &Value) -> Uuid {
    entry["ticket_id"].as_str().expect("an id").parse().expect("a UUID")
}

async fn show(service: &Service, code: String, direction: &str) -> Reply {
    let scan = json!({ "scan_id": Uuid::now_v7(), "code": code, "direction": direction });
    service.organizer.post(SCANS, scan).await
}

fn shown(entry: &Value, key: [u8; 20], at: Millis) -> [String; 2] {
    let key = TotpKey::new(key);
    [Code::Rotating(key.code(step_at(at))), Code::Printed(key.print_proof())]
        .map(|code| QrCode { ticket_id: id_in(entry), code }.to_string())
}

async fn what_a_lost_phone_knows_is_worth_nothing(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    issue(&service, "valid,North,ana\noutside,North,ben\npaper,North,cleo\nfree,North,\ngone,North,dora\n").await;
    let list = service.organizer.get(MANIFEST).await.is(200);
    let entries: BTreeMap<String, Value> = list["tickets"]
        .as_array()
        .expect("tickets")
        .iter()
        .cloned()
        .map(|entry| (entry["seat"].as_str().expect("a seat").to_owned(), entry))
        .collect();
    let code = |seat: &str| shown(&entries[seat], key_in(&entries[seat]).expect("a key"), service.now())[0].clone();
    show(&service, code("outside"), "entry").await.is_scan(200, "accepted");
    show(&service, code("outside"), "exit").await.is_scan(200, "accepted");
    for (seat, change) in [("paper", "print"), ("gone", "revoke")] {
        service.organizer.bare(Method::POST, format!("/api/tickets/{}/{change}", id_in(&entries[seat]))).await.is(200);
    }
    let phone = Phone::new(&service, json!({})).await;
    let known = phone.client.get(MANIFEST).await.is(200);
    let old_links = links_of_event(&service).await;

    service.clock.advance(2 * MINUTE);
    let new_links = phone.lost(&service).await;
    phone.client.get(MANIFEST).await.is_refused(401, "unauthenticated");
    assert_eq!(new_links.keys().collect::<Vec<_>>(), ["outside", "paper", "valid"]);
    // Sold afterwards: a ticket whose key the phone never had.
    let free = json!({ "seat": "free", "gate": "North" });
    let sold = service.organizer.post("/api/users/ana/tickets", free).await.is(201);

    for entry in known["tickets"].as_array().expect("tickets") {
        let Some(key) = key_in(entry) else { continue };
        for code in shown(entry, key, service.now()) {
            show(&service, code, "entry").await.is_scan(422, "wrong_code");
        }
        let guess = LinkSecret::new(TicketSecret::new(None).into(), [0; 32]).page_token(id_in(entry), Seed(key));
        assert_eq!(service.anonymous.get(format!("/t/{guess}")).await.status, 404);
    }
    for link in old_links.values() {
        assert_eq!(page(&service, link).await.status, 404);
    }
    for link in new_links.values() {
        assert_eq!(page(&service, link).await.status, 200);
    }
    service.clock.advance(2 * MINUTE);
    for (seat, status, result) in [("valid", 200, "accepted"), ("outside", 200, "accepted"), ("paper", 200, "accepted")]
    {
        let reissued = service.organizer.get(MANIFEST).await.is(200);
        let entry = reissued["tickets"]
            .as_array()
            .and_then(|all| all.iter().find(|entry| entry["seat"] == seat))
            .expect("it is there")
            .clone();
        show(&service, shown(&entry, key_in(&entry).expect("a key"), service.now())[0].clone(), "entry")
            .await
            .is_scan(status, result);
    }
    assert_eq!(phone.report(&service.organizer).await, (0, 0));
    let link = sold["provisioning"]["ticket_url"].as_str().expect("a link");
    assert_eq!(page(&service, link).await.status, 200);
}

async fn what_was_made_after_the_last_list_stays(service: Service) {
    issue(&service, "before,North,ana\nfree,North,\n").await;
    let phone = Phone::new(&service, json!({})).await;
    phone.client.get(MANIFEST).await.is(200);
    service.clock.advance(10 * MINUTE);
    issue(&service, "after,North,ben\n").await;
    let ticket = service.ticket("reissued").await;
    let before = links_of_event(&service).await;
    let changed = phone.lost(&service).await;
    assert_eq!(changed.keys().collect::<Vec<_>>(), ["before"]);
    let after = links_of_event(&service).await;
    assert_ne!(after["before"], before["before"]);
    for seat in ["after", "reissued"] {
        assert_eq!(after[seat], before[seat]);
    }
    show(&service, ticket.qr(service.now()), "entry").await.is_scan(200, "accepted");
}

/// Secrets made while the clock was ahead, and a list sent while it was right or behind.
async fn a_lost_phone_knows_what_it_was_sent_whatever_the_clocks(service: Service) {
    for (at_issue, at_list) in [(60 * MINUTE, 0), (0, -60 * MINUTE), (60 * MINUTE, -60 * MINUTE)] {
        service.clock.advance(at_issue);
        let seat = format!("{at_issue}{at_list}");
        issue(&service, &format!("{seat},North,ana\n")).await;
        service.clock.advance(at_list - at_issue);
        let phone = Phone::new(&service, json!({})).await;
        phone.client.get(MANIFEST).await.is(200);
        service.clock.advance(-at_list);
        let changed = phone.lost(&service).await;
        assert!(changed.contains_key(&seat), "{seat}: {changed:?}");
    }
}

async fn a_report_that_is_repeated_renews_no_ticket_twice(service: Service) {
    issue_many(&service, 250).await;
    let phone = Phone::new(&service, json!({})).await;
    phone.client.get(MANIFEST).await.is(200);
    let before = links_of_event(&service).await;
    let sum = "select sum(version) from tickets";
    let versions = service.database.count(sum).await;
    service.organizer.delete(format!("/api/keys/{}", phone.key_id)).await.is(204);
    assert_eq!(phone.renew(&service, 100).await, (100, 150));
    // Another process continues where the first stopped.
    assert_eq!(phone.renew(&service.another(&[]), 120).await, (120, 30));
    assert_eq!(phone.links(&service).await.len(), 220);
    for left in [(30, 0), (0, 0), (0, 0)] {
        assert_eq!(phone.report(&service.organizer).await, left);
    }
    assert_eq!(service.database.count(sum).await, versions + 250);
    let (after, listed) = (links_of_event(&service).await, phone.links(&service).await);
    assert_eq!(listed, after);
    assert_eq!(after.len(), 250);
    assert!(after.iter().all(|(seat, link)| before[seat] != *link));
}

async fn two_reports_at_once_share_the_tickets(service: Service) {
    issue_many(&service, 150).await;
    let phone = Phone::new(&service, json!({})).await;
    phone.client.get(MANIFEST).await.is(200);
    let other = service.another(&[]);
    let versions = "select sum(version) from tickets";
    let before = service.database.count(versions).await;
    let (one, two) = tokio::join!(phone.report(&service.organizer), phone.report(&other.organizer));
    assert_eq!(one.0 + two.0, 150, "{one:?} {two:?}");
    assert_eq!(service.database.count(versions).await, before + 150);
}

async fn only_tickets_that_the_phone_could_list_are_renewed(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    for (event, seat, gate) in [("default", "n", "North"), ("default", "s", "South"), ("spring", "x", "North")] {
        service.ticket_of(event, seat, gate).await;
    }
    for (bound, seats) in [
        (json!({ "event": "default", "gate": "North" }), &["n"][..]),
        (json!({ "event": "default" }), &["n", "s"]),
        (json!({}), &["n", "s", "x"]),
    ] {
        let phone = Phone::new(&service, bound).await;
        let unused = Phone::new(&service, json!({})).await;
        service.clock.advance(MINUTE);
        phone.client.get(MANIFEST).await.is(200);
        let changed = phone.lost(&service).await;
        assert_eq!(changed.keys().collect::<Vec<_>>(), seats);
        assert_eq!(unused.lost(&service).await.len(), 0, "it never had a list");
    }
}

async fn a_used_ticket_that_may_come_in_again_keeps_its_state_and_no_other_is_renewed(service: Service) {
    let [early, late] = [service.ticket("early").await, service.ticket("late").await];
    show(&service, early.qr(service.now()), "entry").await.is_scan(200, "accepted");
    service.clock.advance(16 * MINUTE);
    let scan = show(&service, late.qr(service.now()), "entry").await.is_scan(200, "accepted");
    let state = async |ticket: &crate::service::Ticket| {
        let ticket = service.organizer.get(format!("/api/tickets/{}", ticket.ticket_id)).await.is(200);
        json!([ticket["status"], ticket["inside"], ticket["used_at"], ticket["registered_at"], ticket["username"]])
    };
    let before = [state(&early).await, state(&late).await];
    let phone = Phone::new(&service, json!({})).await;
    phone.client.get(MANIFEST).await.is(200);
    // A scan that may be undone may make its ticket valid again.
    assert_eq!(phone.lost(&service).await.keys().collect::<Vec<_>>(), ["late"]);
    assert_eq!([state(&early).await, state(&late).await], before);
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().expect("an id"));
    service.organizer.bare(Method::POST, undo).await.is(200);
    show(&service, late.qr(service.now()), "entry").await.is_scan(422, "wrong_code");
    service.organizer.patch("/api/events/default", json!({ "reentry": "after_exit" })).await.is(200);
    assert_eq!(phone.lost(&service).await.keys().collect::<Vec<_>>(), ["early", "late"]);
    assert_eq!(state(&early).await, before[0]);
}

async fn the_phone_that_is_lost_after_another_one_knows_the_newer_secrets(service: Service) {
    service.ticket("A1").await;
    let [first, second] = [Phone::new(&service, json!({})).await, Phone::new(&service, json!({})).await];
    first.client.get(MANIFEST).await.is(200);
    let of_first = first.lost(&service).await;
    service.clock.advance(1_000);
    second.client.get(MANIFEST).await.is(200);
    let of_second = second.lost(&service).await;
    assert_eq!(of_second.len(), 1);
    assert_ne!(of_second, of_first);
    // A phone lost with the older secrets has nothing valid.
    service.clock.advance(10 * MINUTE);
    assert_eq!(first.report(&service.organizer).await, (0, 0));
}

async fn keys_are_noted_before_they_are_sent(service: Service) {
    let phone = Phone::new(&service, json!({})).await;
    let noted = async || service.database.count("select coalesce(max(manifest_at), 0) from keys").await;
    service.seat("default", "free", "North").await;
    phone.client.get(MANIFEST).await.is(200);
    assert_eq!(noted().await, 0, "the list contained no key");
    service.ticket("A1").await;
    let mut before = 0;
    for wait in [0, 1_000, 30_000, 120_000, 500] {
        service.clock.advance(wait);
        let list = phone.client.get(MANIFEST).await;
        let now = noted().await;
        assert!(now >= service.now().0 + MINUTE && now <= service.now().0 + 2 * MINUTE, "{now} at {}", service.now());
        assert!(now == before || now >= before + MINUTE, "it is written once a minute");
        before = now;
        service.clock.advance(10 * MINUTE);
        let unchanged = Request::builder().uri(MANIFEST).header("if-none-match", list.header("etag"));
        assert_eq!(phone.client.send(unchanged, "").await.status, 304);
        assert_eq!(noted().await, before, "nothing was sent");
        service.clock.advance(-10 * MINUTE);
    }
}

async fn nothing_more_is_sent_once_the_key_is_revoked(service: Service) {
    issue_many(&service, 1_500).await;
    let made = json!({ "name": "Door", "role": "gate", "offline": true });
    let made = service.organizer.post("/api/keys", made).await.is(201);
    let (key, key_id) = (made["key"].as_str().expect("a key"), made["key_id"].as_str().expect("an id"));
    // Another process, which trusts the key for a while after this one revoked it.
    let clock = service.clock.clone();
    let app = Arc::new(App::new(settings(&service.database, &[]), Box::new(move || clock.now())));
    let download = async || {
        let request = Request::builder().uri(MANIFEST).header("authorization", format!("Bearer {key}"));
        let request = request.body(lambda_http::Body::Empty).expect("a request");
        let response = routes::handle(&app, request).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    };
    let mut body = download().await;
    let part = body.frame().await.expect("a part").expect("is sent").into_data().expect("of the list");
    assert!(part.starts_with(b"{\"event\""));
    service.organizer.bare(Method::POST, format!("/api/keys/{key_id}/lost")).await.is(200);
    body.frame().await.expect("no end").expect_err("it breaks off");
    assert!(download().await.collect().await.is_err());
}

async fn only_the_device_of_a_gate_can_be_lost(service: Service) {
    let made = json!({ "name": "Office", "role": "organizer" });
    let office = service.organizer.post("/api/keys", made).await.is(201);
    let path = format!("/api/keys/{}/lost", office["key_id"].as_str().expect("an id"));
    service.unchanged(service.organizer.bare(Method::POST, path)).await.is_refused(409, "key_not_of_device");
    let path = format!("/api/keys/{}/lost", Uuid::nil());
    service.unchanged(service.organizer.bare(Method::POST, path)).await.is_refused(404, "key_not_found");
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let phone = Phone::new(&service, json!({ "event": "default" })).await;
    let of_spring = service.key(json!({ "name": "o", "role": "organizer", "event": "spring" })).await;
    let path = format!("/api/keys/{}", phone.key_id);
    service.unchanged(of_spring.bare(Method::POST, format!("{path}/lost"))).await.is_refused(403, "forbidden");
    for list in ["links.csv", "scans"] {
        of_spring.get(format!("{path}/{list}")).await.is_refused(403, "forbidden");
    }
}

async fn what_was_scanned_with_the_key_is_listed_from_a_time_on(service: Service) {
    let phone = Phone::new(&service, json!({})).await;
    let mut scanned = Vec::new();
    for seat in ["A1", "A2", "A3"] {
        let ticket = service.ticket(seat).await;
        let scan = service.scan(&ticket);
        phone.client.post(SCANS, scan.clone()).await.is_scan(200, "accepted");
        show(&service, ticket.qr(service.now()), "entry").await.is_scan(409, "already_used");
        scanned.push(scan["scan_id"].clone());
        service.clock.advance(MINUTE);
    }
    phone
        .client
        .post(SCANS, json!({ "scan_id": Uuid::now_v7(), "code": "no ticket" }))
        .await
        .is_scan(404, "unknown_ticket");
    let path = format!("/api/keys/{}/scans", phone.key_id);
    let all = walk(&service.organizer, &path, "scans").await;
    let ids: Vec<&Value> = all.iter().map(|scan| &scan["scan_id"]).collect();
    assert_eq!(ids[..3], scanned.iter().collect::<Vec<_>>());
    assert_members(&all[3], json!({ "seat": null, "result": "unknown_ticket", "received_at": service.time(0) }));
    let since = format!("{path}?since={}", service.time(-2 * MINUTE));
    let later = service.organizer.get(since).await.is(200);
    let seats: Vec<&Value> = later["scans"].as_array().expect("scans").iter().map(|scan| &scan["seat"]).collect();
    assert_eq!(seats, [&json!("A2"), &json!("A3"), &Value::Null]);
    assert_members(
        &later["scans"][0],
        json!({ "gate": "North", "direction": "entry", "result": "accepted", "undone_at": null }),
    );
}

async fn the_report_is_kept_once_with_each_ticket(service: Service) {
    issue_many(&service, 120).await;
    let phone = Phone::new(&service, json!({})).await;
    phone.client.get(MANIFEST).await.is(200);
    phone.lost(&service).await;
    phone.lost(&service).await;
    let count = async |what: &str| service.database.count(&format!("select count(*) from actions where {what}")).await;
    assert_eq!(count("action = 'phone_lost' and count = 120 and subject_id is not null").await, 1);
    assert_eq!(count("action = 'phone_lost'").await, 1);
    assert_eq!(count("action = 'renewed' and ticket_id is not null and event_id is not null").await, 120);
    let list = service.organizer.get("/api/events/default/tickets?limit=1").await.is(200);
    let path = format!("/api/tickets/{}/actions", list["tickets"][0]["ticket_id"].as_str().expect("an id"));
    let history = walk(&service.organizer, &path, "actions").await;
    let words: BTreeSet<&str> = history.iter().filter_map(|action| action["action"].as_str()).collect();
    assert!(words.contains("renewed"), "{words:?}");
    assert_members(history.last().expect("an action"), json!({ "action": "renewed", "subject_id": phone.key_id }));
}
