//! Links of ticket pages, shown again: one ticket's, and all of an event's.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use http::Method;
use register_ticket_api::model::Seed;
use register_ticket_api::totp::{LinkSecret, TicketSecret};
use serde_json::json;
use uuid::Uuid;

use crate::service::{Service, Ticket};

on_both_databases! {
    the_link_is_that_of_the_registration,
    a_new_seed_has_a_new_link,
    a_link_comes_with_what_to_say_to_its_holder_in_the_events_language,
    a_used_ticket_keeps_its_link,
    a_ticket_that_admits_nobody_has_no_link,
    the_links_of_an_event_are_those_of_its_holders,
    what_a_spreadsheet_would_run_is_neutralised,
    links_go_on_from_page_to_page,
    the_keys_of_a_manifest_open_no_page,
    every_process_makes_the_same_link,
    a_page_says_which_database_knows_its_link_or_does_not,
}

const LINKS: &str = "/api/events/default/links.csv";

async fn the_link_is_that_of_the_registration(service: Service) {
    service.seat("default", "A1", "North").await;
    service.user("ana").await;
    let body = json!({ "seat": "A1", "gate": "North" });
    let registered = service.organizer.post("/api/users/ana/tickets", body).await.is(201);
    let path = format!("/api/tickets/{}", registered["ticket_id"].as_str().unwrap_or_default());
    let link = service.organizer.get(format!("{path}/link")).await.is(200);
    assert_eq!(link["ticket_url"], registered["provisioning"]["ticket_url"]);

    let reissued = service.organizer.bare(Method::POST, format!("{path}/reissue")).await.is(200);
    let newer = service.organizer.get(format!("{path}/link")).await.is(200);
    assert_ne!(newer, link);
    assert_eq!(newer["ticket_url"], reissued["provisioning"]["ticket_url"]);
}

async fn a_new_seed_has_a_new_link(service: Service) {
    let ticket = service.ticket("A1").await;
    let path = format!("/api/tickets/{}", ticket.ticket_id);
    let old = service.organizer.get(format!("{path}/link")).await.is(200);
    service.user("luis").await;
    let moved = service.organizer.post(format!("{path}/transfer"), json!({ "username": "luis" })).await.is(200);
    let new = service.organizer.get(format!("{path}/link")).await.is(200);
    assert_ne!(new, old);
    assert_eq!(new["ticket_url"], moved["provisioning"]["ticket_url"]);
}

async fn a_link_comes_with_what_to_say_to_its_holder_in_the_events_language(service: Service) {
    service.organizer.patch("/api/events/default", json!({ "name": "Gala", "language": "es" })).await.is(200);
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let list = "seat,gate,username,full_name\nA1,North,ana,Ana Ruiz\nA2,North,ana,Ana Ruiz\nA3,North,ana,Ana Ruiz\nB1,North,ben,Ben\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    service.organizer.post_csv("/api/events/other/tickets", "seat,gate,username\nX1,North,ana\n").await.is(201);
    let tickets = service.organizer.get("/api/events/default/tickets").await.is(200)["tickets"].clone();
    let [first, second, revoked] = [0, 1, 2].map(|at| tickets[at]["ticket_id"].as_str().expect("an id").to_owned());
    service.organizer.bare(Method::POST, format!("/api/tickets/{revoked}/revoke")).await.is(200);
    let one = service.organizer.get(format!("/api/tickets/{first}/link")).await.is(200);
    let url = one["ticket_url"].as_str().expect("a link");
    let other = service.organizer.get(format!("/api/tickets/{second}/link")).await.is(200)["ticket_url"].clone();
    let other = other.as_str().expect("a link");
    let text = one["text"].as_str().expect("a text");
    assert!(text.contains(url) && text.contains("Ana Ruiz") && !text.contains(other), "{text}");
    assert!(
        one["subject"].as_str().is_some_and(|subject| subject.contains("Gala") && subject.contains("entrada")),
        "{one}"
    );
    let before = service.database.count("select count(*) from actions where action = 'link_shown'").await;
    let both = service.organizer.get(format!("/api/tickets/{first}/link?all=true")).await.is(200);
    let text = both["text"].as_str().expect("a text");
    assert!(both["ticket_url"] == one["ticket_url"] && text.contains(url) && text.contains(other), "{text}");
    assert_eq!(text.matches("/t/").count(), 2, "no revoked ticket, none of another person or event: {text}");
    let after = service.database.count("select count(*) from actions where action = 'link_shown'").await;
    assert_eq!(after, before + 2, "each reading of a link is recorded");
    service.organizer.get(format!("/api/tickets/{first}/link?all=yes")).await.is_refused(422, "invalid_payload");
}

async fn a_used_ticket_keeps_its_link(service: Service) {
    let ticket = service.ticket("A1").await;
    let path = format!("/api/tickets/{}/link", ticket.ticket_id);
    let before = service.organizer.get(&path).await.is(200);
    service.gate().await.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    assert_eq!(service.organizer.get(&path).await.is(200), before);
}

async fn a_ticket_that_admits_nobody_has_no_link(service: Service) {
    let unregistered = service.seat("default", "A1", "North").await;
    let path = format!("/api/tickets/{unregistered}/link");
    service.organizer.get(path).await.is_refused(409, "ticket_not_registered");
    let revoked = service.ticket("A2").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    let path = format!("/api/tickets/{}/link", revoked.ticket_id);
    service.organizer.get(&path).await.is_refused(409, "ticket_revoked");
    service.organizer.delete(format!("/api/users/{}", revoked.username)).await.is(204);
    service.organizer.get(&path).await.is_refused(409, "ticket_revoked");
}

async fn the_links_of_an_event_are_those_of_its_holders(service: Service) {
    let file = "seat,gate,username,full_name,email\n\
                B1,North,ana,\"Ruiz, Ana\",ana@example.com\n\
                A1,South,luis,,\n\
                C1,South,,,\n";
    service.organizer.post_csv("/api/events/default/tickets", file).await.is(201);
    let revoked = service.ticket("D1").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    let used = service.ticket("E1").await;
    service.gate().await.post("/api/events/default/scans", service.scan(&used)).await.is_scan(200, "accepted");
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    service.ticket_of("spring", "A1", "North").await;

    let reply = service.organizer.get(LINKS).await;
    assert_eq!(reply.header("content-disposition"), "attachment; filename=\"links-default.csv\"");
    let text = reply.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0].trim_start_matches('\u{feff}'), r#""seat","gate","username","full_name","email","ticket_url""#);
    let first = r#""B1","North","ana","Ruiz, Ana","ana@example.com","http://localhost:8080/t/"#;
    assert!(lines[1].starts_with(first), "{text}");
    assert!(lines[2].starts_with(r#""A1","South","luis","","","http://localhost:8080/t/"#), "{text}");
    let link = service.organizer.get(format!("/api/tickets/{}/link", used.ticket_id)).await.is(200);
    let link = link["ticket_url"].as_str().unwrap_or_default();
    assert_eq!(lines[3], format!(r#""E1","North","{}","","","{link}""#, used.username));
    assert_eq!(lines.len(), 4, "{text}");
}

async fn what_a_spreadsheet_would_run_is_neutralised(service: Service) {
    service.organizer.post("/api/users", json!({ "username": "@ana", "full_name": "=Ana" })).await.is(201);
    service.seat("default", "+1", "-cmd").await;
    service.organizer.post("/api/users/@ana/tickets", json!({ "seat": "+1", "gate": "-cmd" })).await.is(201);
    let text = service.organizer.get(LINKS).await.text();
    assert!(
        text.lines().nth(1).is_some_and(|line| line.starts_with(r#""'+1","'-cmd","'@ana","'=Ana","","http://"#)),
        "{text}"
    );
}

async fn links_go_on_from_page_to_page(service: Service) {
    let rows: String = (1..=1_001).map(|seat| format!("{seat},North,ana\n")).collect();
    service.organizer.post_csv("/api/events/default/tickets", format!("seat,gate,username\n{rows}")).await.is(201);
    let text = service.organizer.get(LINKS).await.text();
    let links: std::collections::BTreeSet<&str> =
        text.lines().skip(1).filter_map(|line| line.split(',').next_back()).collect();
    assert_eq!(text.lines().count(), 1_002);
    assert_eq!(links.len(), 1_001);
}

/// A link as 0.1.0 made it: HKDF-SHA256 of the key, without salt.
fn link_of_the_key(ticket_id: Uuid, key: &[u8]) -> String {
    let mut proof = [0; 16];
    hkdf::Hkdf::<sha2::Sha256>::new(None, key).expand(b"page", &mut proof).expect("16 bytes");
    BASE64URL_NOPAD.encode(&[*ticket_id.as_bytes(), proof].concat())
}

async fn the_keys_of_a_manifest_open_no_page(service: Service) {
    let ticket = service.ticket("A1").await;
    let manifest = service.organizer.get("/api/events/default/manifest").await.is(200);
    let key = manifest["tickets"][0]["key"].as_str().and_then(|key| BASE32_NOPAD.decode(key.as_bytes()).ok());
    let key: [u8; 20] = key.and_then(|key| key.try_into().ok()).expect("a held ticket's key is in it");
    // Without a secret the key is the seed. Only the salt, which is in the database alone, has to be guessed.
    let guesses = [[0; 32], [0xff; 32]].map(|salt| {
        let secret = LinkSecret::new(TicketSecret::new(None).into(), salt);
        secret.page_token(ticket.ticket_id, Seed(key))
    });
    for token in [link_of_the_key(ticket.ticket_id, &key)].iter().chain(&guesses) {
        assert_eq!(service.anonymous.get(format!("/t/{token}")).await.status, 404);
    }
}

async fn every_process_makes_the_same_link(service: Service) {
    for settings in [&[][..], &[("TICKET_SECRET", "the secret of links in the test suite")]] {
        let service = Service::start(service.database.kind).await.another(settings);
        let ticket: Ticket = service.ticket("A1").await;
        let path = format!("/api/tickets/{}/link", ticket.ticket_id);
        let link = service.organizer.get(&path).await.is(200);
        let other = service.another(settings);
        let page = link["ticket_url"].as_str().and_then(|url| url.split_once("/t/")).expect("a link").1;
        assert_eq!(other.anonymous.get(format!("/t/{page}")).await.status, 200);
        assert_eq!(other.organizer.get(&path).await.is(200), link);
    }
}

/// This lets a page detect that another database was put in place of its own.
async fn a_page_says_which_database_knows_its_link_or_does_not(service: Service) {
    const DATABASE: &str = "register-ticket-database";
    let ticket = service.ticket("A1").await;
    let path = format!("/api/tickets/{}/link", ticket.ticket_id);
    let link = service.organizer.get(&path).await.is(200);
    let page = link["ticket_url"].as_str().and_then(|url| url.split_once("/t/")).expect("a link").1;
    let page = format!("/t/{page}");
    let shown = service.anonymous.get(&page).await;
    let database = shown.header(DATABASE);
    assert_eq!(database.len(), 16);
    assert!(shown.text().contains(&format!("data-database=\"{database}\"")), "{}", shown.text());
    let other = Service::start(service.database.kind).await;
    let elsewhere = other.anonymous.get(&page).await;
    assert_eq!(elsewhere.status, 404);
    assert_eq!(elsewhere.header(DATABASE).len(), 16);
    assert_ne!(elsewhere.header(DATABASE), database);
    service.organizer.bare(Method::POST, format!("/api/tickets/{}/reissue", ticket.ticket_id)).await.is(200);
    let dead = service.anonymous.get(&page).await;
    assert_eq!((dead.status.as_u16(), dead.header(DATABASE)), (404, database));
}
