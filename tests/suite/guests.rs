//! Guests by name: whom a supervisor finds at the door, and which details are shown.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::service::{Service, assert_members, walk};

on_both_databases! {
    a_guest_is_found_by_parts_of_name_and_seat_as_people_read_them,
    it_takes_two_letters_and_tells_ten_guests,
    a_key_of_one_gate_finds_its_own_first_and_is_told_less_of_others,
    an_address_finds_nobody,
    only_tickets_that_somebody_holds_are_found,
    a_guest_who_is_found_is_admitted_by_hand,
    nobody_looks_into_another_event,
}

const GUESTS: &str = "/api/events/default/guests";
const TICKETS: &str = "/api/events/default/tickets";

const LIST: &str = "seat,gate,username,full_name,email,category,note
\
    A-1,North,ana,Ana Ruiz,ana@mail.example,Under 12,Walks with a stick
\
    A-2,North,zoe,Zoë Müller,zoe@mail.example,,
\
    A-3,South,ben,Ben Muller,ben@mail.example,VIP,Knows the band
\
    A-4,North,,,,,
";

async fn house(service: &Service) {
    service.organizer.post_csv(TICKETS, LIST).await.is(201);
}

async fn looks(client: &Client, words: &str) -> Vec<Value> {
    let found = client.get(format!("{GUESTS}?q={words}")).await.is(200);
    found["guests"].as_array().expect("there are guests").clone()
}

fn seats(guests: &[Value]) -> Vec<&str> {
    guests.iter().filter_map(|guest| guest["seat"].as_str()).collect()
}

async fn supervisor_at(service: &Service, gate: &str) -> Client {
    service.key(json!({ "name": "s", "role": "supervisor", "event": "default", "gate": gate })).await
}

async fn a_guest_is_found_by_parts_of_name_and_seat_as_people_read_them(service: Service) {
    house(&service).await;
    let supervisor = service.supervisor().await;
    for (words, expected) in [
        ("ruiz", &["A-1"][..]),
        ("MULLER", &["A-2", "A-3"]),
        ("m%C3%BCller+zo", &["A-2"]),
        ("an+ru", &["A-1"]),
        ("a-3", &["A-3"]),
        ("zoe+ruiz", &[]),
        ("nobody", &[]),
    ] {
        assert_eq!(seats(&looks(&supervisor, words).await), expected, "{words}");
    }
    let ana = looks(&supervisor, "ana").await.remove(0);
    let told = json!({
        "event": "default", "seat": "A-1", "gate": "North", "status": "valid", "username": "ana", "full_name": "Ana Ruiz",
        "category": "Under 12", "note": "Walks with a stick", "inside": false, "used_at": null,
    });
    assert_members(&ana, told);
    assert!(!ana.to_string().contains("mail.example"));
}

async fn it_takes_two_letters_and_tells_ten_guests(service: Service) {
    let row = |seat: usize| {
        format!(
            "{seat},North,u{seat},Anna {seat}
"
        )
    };
    let list: String = (0..12).map(row).collect();
    service
        .organizer
        .post_csv(
            TICKETS,
            format!(
                "seat,gate,username,full_name
{list}"
            ),
        )
        .await
        .is(201);
    let supervisor = service.supervisor().await;
    for words in ["", "a", "%C3%BC", "--", "+a+", "a%CC%81"] {
        let refused = service.unchanged(supervisor.get(format!("{GUESTS}?q={words}"))).await;
        let error = &refused.is_refused(422, "invalid_payload")["errors"][0];
        assert_members(error, json!({ "field": "q", "code": "too_short", "params": { "least": 2 } }));
    }
    let error = supervisor.get(GUESTS).await.is_refused(422, "invalid_payload");
    assert_eq!(error["errors"][0]["code"], "required");
    let error = supervisor.get(format!("{GUESTS}?q={}", "n".repeat(201))).await.is_refused(422, "invalid_payload");
    assert_eq!(error["errors"][0]["code"], "too_long");
    assert_eq!(looks(&supervisor, "an").await.len(), 10);
    assert_eq!(looks(&supervisor, "a+n").await.len(), 10, "two words of a letter each");
    assert_eq!(seats(&looks(&supervisor, "anna+11").await), ["11"]);
}

async fn a_key_of_one_gate_finds_its_own_first_and_is_told_less_of_others(service: Service) {
    house(&service).await;
    let south = supervisor_at(&service, "south").await;
    let found = looks(&south, "muller").await;
    assert_eq!(seats(&found), ["A-3", "A-2"]);
    assert_members(
        &found[0],
        json!({ "status": "valid", "category": "VIP", "note": "Knows the band", "inside": false }),
    );
    let place = json!({ "seat": "A-2", "gate": "North", "full_name": "Zoë Müller", "username": "zoe" });
    assert_members(&found[1], place);
    let nothing = json!({ "status": null, "category": null, "note": null, "inside": null, "used_at": null });
    assert_members(&found[1], nothing);
    assert_members(&looks(&south, "ana").await[0], json!({ "full_name": "Ana Ruiz", "note": null }));
}

/// Whether or not the key may list these people.
async fn an_address_finds_nobody(service: Service) {
    house(&service).await;
    let own = service.key(json!({ "name": "o", "role": "organizer", "event": "default" })).await;
    let row = "seat,gate,username,full_name,email
B-1,North,dev,Dev Patel,dev@mail.example
";
    own.post_csv(TICKETS, row).await.is(201);
    let at_north = supervisor_at(&service, "North").await;
    for client in [&service.supervisor().await, &at_north, &own, &service.organizer] {
        assert_eq!(seats(&looks(client, "mail").await), [""; 0]);
        assert_eq!(seats(&looks(client, "patel").await), ["B-1"]);
    }
}

async fn only_tickets_that_somebody_holds_are_found(service: Service) {
    house(&service).await;
    let supervisor = service.supervisor().await;
    assert_eq!(seats(&looks(&supervisor, "a-4").await), [""; 0]);
    let tickets = walk(&service.organizer, TICKETS, "tickets").await;
    let path = format!("/api/tickets/{}", tickets[0]["ticket_id"].as_str().expect("it has an id"));
    service.organizer.bare(Method::POST, format!("{path}/revoke")).await.is(200);
    assert_members(&looks(&supervisor, "ana").await[0], json!({ "seat": "A-1", "status": "revoked" }));
    service.organizer.delete("/api/users/zoe").await.is(204);
    assert_eq!(seats(&looks(&supervisor, "muller").await), ["A-3"]);
}

async fn a_guest_who_is_found_is_admitted_by_hand(service: Service) {
    house(&service).await;
    let supervisor = supervisor_at(&service, "North").await;
    let guest = looks(&supervisor, "ruiz").await.remove(0);
    let scan = json!({
        "scan_id": Uuid::now_v7(), "seat": guest["seat"], "gate": guest["gate"], "manual": true, "note": "Phone is dead",
    });
    supervisor.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
    let guest = looks(&supervisor, "ruiz").await.remove(0);
    assert_members(&guest, json!({ "status": "used", "inside": true, "used_at": service.time(0) }));
}

async fn nobody_looks_into_another_event(service: Service) {
    house(&service).await;
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let gala = service.key(json!({ "name": "s", "role": "supervisor", "event": "gala" })).await;
    service.unchanged(gala.get(format!("{GUESTS}?q=ana"))).await.is_refused(403, "forbidden");
    let found = gala.get("/api/events/gala/guests?q=ana").await.is(200);
    assert_eq!(found["guests"], json!([]));
    service.gate().await.get(format!("{GUESTS}?q=ana")).await.is_refused(403, "forbidden");
    service.organizer.get("/api/events/none/guests?q=ana").await.is_refused(404, "event_not_found");
}
