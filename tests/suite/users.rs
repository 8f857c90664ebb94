//! People: their data, and its erasure.

use serde_json::{Value, json};

use crate::client::Client;
use crate::database::Obstacle;
use crate::service::{Service, Ticket, assert_members, walk, with};

on_both_databases! {
    a_user_is_created_and_shown,
    a_user_may_come_as_a_form,
    a_username_is_taken_whatever_its_case,
    a_user_with_a_wrong_field_is_refused,
    a_user_who_does_not_exist_is_not_found,
    the_tickets_of_a_user_are_listed_page_by_page,
    erasing_a_user_removes_the_person_and_keeps_the_counts,
    an_erased_user_cannot_enter,
    who_holds_many_tickets_is_erased_some_at_a_time_and_last_of_all,
    a_name_and_an_address_are_corrected,
    a_correction_that_cannot_be_is_refused,
    gates_learn_a_corrected_name,
    gates_learn_a_name_that_many_tickets_bear_as_often_as_it_is_sent,
    two_events_each_have_people_of_their_own,
    a_bound_key_knows_nobody_but_its_events_own_people,
    a_bound_key_cannot_mean_the_people_of_another_event,
    an_events_own_person_holds_tickets_of_that_event_only,
    erasing_an_events_own_person_leaves_the_namesakes,
    an_events_own_people_go_with_it,
    a_bound_key_is_told_the_addresses_of_its_events_own_people_only,
}

async fn a_user_is_created_and_shown(service: Service) {
    let body = json!({ "username": "Ana.Ruiz", "full_name": "Ana Ruiz", "email": "ana@example.com" });
    let user = service.organizer.post("/api/users", body).await.is(201);
    assert_eq!(user["created_at"], service.time(0));
    assert_eq!(service.organizer.get("/api/users/ana.ruiz").await.is(200), user);
    assert_eq!(service.database.count("select count(*) from users").await, 1);
}

async fn a_user_may_come_as_a_form(service: Service) {
    let form = "username=juanperez&full_name=Juan+P%C3%A9rez";
    let user = service.organizer.post_form("/api/users", form).await.is(201);
    assert_eq!(user["full_name"], "Juan Pérez");
    assert_eq!(user["email"], json!(null));
}

async fn a_username_is_taken_whatever_its_case(service: Service) {
    service.user("ana").await;
    let again = service.organizer.post("/api/users", json!({ "username": "ANA" }));
    service.unchanged(again).await.is_refused(409, "username_taken");
}

async fn a_user_with_a_wrong_field_is_refused(service: Service) {
    let long = "a".repeat(65);
    let cases = [
        ("username", json!({})),
        ("username", json!({ "username": "" })),
        ("username", json!({ "username": long })),
        ("username", json!({ "username": "two words" })),
        ("username", json!({ "username": "josé" })),
        ("username", json!({ "username": "a/b" })),
        ("username", json!({ "username": "attendance" })),
        ("username", json!({ "username": "Attendance" })),
        ("username", json!({ "username": 7 })),
        ("full_name", json!({ "username": "ana", "full_name": "" })),
        ("full_name", json!({ "username": "ana", "full_name": "a\u{0}b" })),
        ("full_name", json!({ "username": "ana", "full_name": "a".repeat(201) })),
        ("email", json!({ "username": "ana", "email": "nowhere" })),
        ("email", json!({ "username": "ana", "email": "a b@example.com" })),
        ("admin", json!({ "username": "ana", "admin": true })),
    ];
    for (field, body) in cases {
        let reply = service.unchanged(service.organizer.post("/api/users", body.clone())).await;
        assert_eq!(reply.is_refused(422, "invalid_payload")["errors"][0]["field"], field, "{body}");
    }
}

async fn a_user_who_does_not_exist_is_not_found(service: Service) {
    service.seat("default", "A1", "North").await;
    for name in ["nobody", "a%2Fb", "..%2F..", "%00", "%FF", "j%C3%B3se"] {
        let path = format!("/api/users/{name}");
        let tickets = format!("{path}/tickets");
        service.organizer.get(&path).await.is_refused(404, "user_not_found");
        service.organizer.get(&tickets).await.is_refused(404, "user_not_found");
        service.unchanged(service.organizer.delete(&path)).await.is_refused(404, "user_not_found");
        let registration = service.organizer.post(&tickets, json!({ "seat": "A1", "gate": "North" }));
        service.unchanged(registration).await.is_refused(404, "user_not_found");
    }
}

async fn the_tickets_of_a_user_are_listed_page_by_page(service: Service) {
    let file = "seat,gate,username\nA1,North,ana\nA2,North,ana\nA3,North,luis\nA4,North,ana\n";
    service.organizer.post_csv("/api/events/default/tickets", file).await.is(201);
    let tickets = walk(&service.organizer, "/api/users/ana/tickets", "tickets").await;
    let seats: Vec<_> = tickets.iter().map(|ticket| ticket["seat"].as_str().unwrap_or_default()).collect();
    assert_eq!(seats, ["A1", "A2", "A4"]);
}

async fn erasing_a_user_removes_the_person_and_keeps_the_counts(service: Service) {
    let file = "seat,gate,username,full_name,email,note\n\
                A1,North,ana.ruiz,Ana Ruiz,ana@example.com,Has a wheelchair\n\
                A2,North,ana.ruiz,,,\n\
                A3,North,luis,,,\n";
    service.organizer.post_csv("/api/events/default/tickets", file).await.is(201);
    let supervisor = service.supervisor().await;
    let by_hand = json!({
        "scan_id": "01a0a0a0-0000-7000-8000-000000000001", "seat": "A1", "gate": "North", "manual": true,
        "note": "Ana Ruiz, by her passport",
    });
    supervisor.post("/api/events/default/scans", by_hand).await.is_scan(200, "accepted");
    let before = service.organizer.get("/api/events/default/stats").await.is(200);

    service.organizer.delete("/api/users/Ana.Ruiz").await.is(204);

    let rows = service.database.snapshot().await.to_lowercase();
    for trace in ["ana.ruiz", "ana ruiz", "ana@example.com", "passport", "wheelchair"] {
        assert!(!rows.contains(trace), "{trace} is still there: {rows}");
    }
    // A1 was used, A2 was still expected, A3 is somebody else's.
    let gate = with(before["gates"][0].clone(), json!({ "expected": 1 }));
    assert_eq!(before["expected"], 2);
    assert_eq!(
        service.organizer.get("/api/events/default/stats").await.is(200),
        with(before, json!({ "expected": 1, "gates": [gate] }))
    );
    let revoked = "select count(*) from tickets where status = 'revoked' and user_id is null";
    assert_eq!(service.database.count(revoked).await, 2);
    assert_eq!(service.database.count("select count(*) from tickets where status = 'valid'").await, 1);
    service.organizer.get("/api/users/ana.ruiz").await.is_refused(404, "user_not_found");
    service.unchanged(service.organizer.delete("/api/users/ana.ruiz")).await.is_refused(404, "user_not_found");
}

async fn an_erased_user_cannot_enter(service: Service) {
    let ticket = service.ticket("A1").await;
    let gate = service.gate().await;
    service.organizer.delete(format!("/api/users/{}", ticket.username)).await.is(204);
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(409, "not_registered");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'used'").await, 0);
}

/// Issues more tickets to one person than one transaction changes.
async fn many_of_ana(service: &Service) {
    let rows: String = (0..MANY).map(|seat| format!("{seat},North,ana,Anna\n")).collect();
    let file = format!("seat,gate,username,full_name\n{rows}");
    service.organizer.post_csv("/api/events/default/tickets", file).await.is(201);
}

/// Not a multiple of the chunk, so that some are left for the last transaction.
const MANY: i64 = 2_501;

async fn who_holds_many_tickets_is_erased_some_at_a_time_and_last_of_all(service: Service) {
    many_of_ana(&service).await;
    let count = async |what: &str| service.database.count(&format!("select count(*) from {what}")).await;
    service.database.obstruct("delete on users", Obstacle::Fails("stopped")).await;
    assert!(service.organizer.delete("/api/users/ana").await.status.is_server_error());
    service.database.clear().await;
    let left = count("tickets where user_id is not null").await;
    assert!(left > 0 && left < MANY, "{left}");
    // Each ticket is changed completely or not at all.
    assert_eq!(count("tickets where status = 'valid'").await, left);
    assert_eq!(count("tickets where status = 'revoked' and user_id is null and version = 2").await, MANY - left);
    service.organizer.get("/api/users/ana").await.is(200);

    service.organizer.delete("/api/users/ana").await.is(204);
    assert_eq!(count("tickets where status = 'revoked' and user_id is null").await, MANY);
    service.organizer.get("/api/users/ana").await.is_refused(404, "user_not_found");
    // Each transaction has its own record.
    assert!(count("actions where action = 'user_erased'").await > 1);
}

async fn gates_learn_a_name_that_many_tickets_bear_as_often_as_it_is_sent(service: Service) {
    many_of_ana(&service).await;
    let told = async |version: i64| {
        let since = service.organizer.get("/api/events/default/manifest").await.is(200)["as_of"].clone();
        service.organizer.patch("/api/users/ana", json!({ "full_name": "Ana" })).await.is(200);
        let list = service.organizer.get(format!("/api/events/default/manifest?since={since}")).await.is(200);
        assert_eq!(list["tickets"].as_array().map(Vec::len), Some(MANY as usize));
        let told = format!("select count(*) from tickets where version = {version}");
        assert_eq!(service.database.count(&told).await, MANY, "each ticket once");
    };
    told(2).await;
    // After an interruption the same request is sent again.
    told(3).await;
    assert_eq!(service.database.count("select count(*) from actions where action = 'user_changed'").await, 1);
}

async fn a_name_and_an_address_are_corrected(service: Service) {
    let body = json!({ "username": "ana", "full_name": "Anna Ruiz", "email": "ana@example.com" });
    let user = service.organizer.post("/api/users", body).await.is(201);
    let change = async |body: Value| service.organizer.patch("/api/users/ANA", body).await.is(200);
    let user = with(user, json!({ "full_name": "Ana Ruiz" }));
    assert_eq!(change(json!({ "full_name": "Ana Ruiz" })).await, user);
    let user = with(user, json!({ "email": "ana.ruiz@example.com" }));
    assert_eq!(change(json!({ "email": "ana.ruiz@example.com" })).await, user);
    assert_eq!(service.organizer.get("/api/users/ana").await.is(200), user);
    let nothing = service.organizer.patch("/api/users/ana", json!({}));
    assert_eq!(service.unchanged(nothing).await.is(200), user);
    let cleared = change(json!({ "full_name": null, "email": null })).await;
    assert_members(&cleared, json!({ "full_name": null, "email": null, "username": "ana" }));
}

async fn a_correction_that_cannot_be_is_refused(service: Service) {
    service.user("ana").await;
    for body in [
        json!({ "full_name": "" }),
        json!({ "full_name": 7 }),
        json!({ "email": "nowhere" }),
        json!({ "username": "anna" }),
    ] {
        let change = service.organizer.patch("/api/users/ana", body);
        service.unchanged(change).await.is_refused(422, "invalid_payload");
    }
    let nobody = service.organizer.patch("/api/users/nobody", json!({ "full_name": "x" }));
    service.unchanged(nobody).await.is_refused(404, "user_not_found");
}

async fn gates_learn_a_corrected_name(service: Service) {
    let file = "seat,gate,username,full_name\nA1,North,ana,Anna\nA2,North,ben,Ben\n";
    service.organizer.post_csv("/api/events/default/tickets", file).await.is(201);
    let before = service.organizer.get("/api/events/default/manifest").await;
    service.clock.advance(10 * 60_000);
    service.organizer.patch("/api/users/ana", json!({ "full_name": "Ana" })).await.is(200);
    service.clock.advance(10 * 60_000);
    let since = &before.is(200)["as_of"];
    let after = service.organizer.get(format!("/api/events/default/manifest?since={since}")).await;
    assert_ne!(before.header("etag"), after.header("etag"));
    let tickets = after.is(200)["tickets"].as_array().cloned().expect("a manifest has tickets");
    let names: Vec<_> = tickets.iter().map(|ticket| ticket["full_name"].clone()).collect();
    assert_eq!(names, ["Ana"], "and no other ticket");
}

/// Two events, each with an organizer whose key is bound to it.
struct Neighbours {
    service: Service,
    alpha: Client,
    beta: Client,
}

impl Neighbours {
    async fn new(service: Service) -> Self {
        let mut keys = Vec::new();
        for slug in ["alpha", "beta"] {
            service.event(json!({ "slug": slug, "name": slug })).await;
            keys.push(service.key(json!({ "name": slug, "role": "organizer", "event": slug })).await);
        }
        let [alpha, beta] = keys.try_into().unwrap_or_else(|_| unreachable!("two events have two keys"));
        Self { service, alpha, beta }
    }

    fn of(&self, slug: &str) -> &Client {
        if slug == "alpha" { &self.alpha } else { &self.beta }
    }

    /// Creates an event's own `ana`, with an address of that event, and issues her a ticket there.
    async fn ana_of(&self, slug: &str) -> Ticket {
        let organizer = self.of(slug);
        let ana = json!({ "username": "ana", "full_name": format!("Ana of {slug}"), "email": format!("ana@{slug}") });
        assert_eq!(organizer.post("/api/users", ana).await.is(201)["event"], slug);
        let seat = json!({ "seat": "A1", "gate": "North" });
        organizer.post(format!("/api/events/{slug}/tickets"), seat.clone()).await.is(201);
        let body = with(seat, json!({ "event": slug }));
        Ticket::new(&organizer.post("/api/users/ana/tickets", body).await.is(201))
    }
}

async fn two_events_each_have_people_of_their_own(service: Service) {
    let both = Neighbours::new(service).await;
    let organizer = &both.service.organizer;
    let everywhere = json!({ "username": "ana", "email": "ana@everywhere" });
    assert_eq!(organizer.post("/api/users", everywhere).await.is(201)["event"], Value::Null);
    for slug in ["alpha", "beta"] {
        both.ana_of(slug).await;
        let again = both.of(slug).post("/api/users", json!({ "username": "Ana" }));
        both.service.unchanged(again).await.is_refused(409, "username_taken");
        let own = both.of(slug).get("/api/users/ana").await.is(200);
        assert_members(&own, json!({ "event": slug, "email": format!("ana@{slug}") }));
        // An unbound key reaches them by the event's slug, and so may the event's own key.
        for client in [organizer, both.of(slug)] {
            assert_eq!(client.get(format!("/api/users/ana?event={slug}")).await.is(200), own);
            let tickets = walk(client, "/api/users/ana/tickets", "tickets").await;
            assert!(tickets.len() <= 1);
            let tickets = client.get(format!("/api/users/ana/tickets?event={slug}")).await.is(200);
            assert_members(&tickets["tickets"][0], json!({ "event": slug, "holder_event": slug }));
        }
        let changed =
            organizer.patch(format!("/api/users/ana?event={slug}"), json!({ "full_name": "x" })).await.is(200);
        assert_eq!(both.of(slug).get("/api/users/ana").await.is(200), changed);
    }
    assert_members(&organizer.get("/api/users/ana").await.is(200), json!({ "event": null, "email": "ana@everywhere" }));
    let made = organizer.post("/api/users?event=beta", json!({ "username": "ben" })).await.is(201);
    assert_eq!(both.beta.get("/api/users/ben").await.is(200), made);
    let nowhere = organizer.get("/api/users/ana?event=none").await;
    nowhere.is_refused(404, "event_not_found");
}

async fn a_bound_key_knows_nobody_but_its_events_own_people(service: Service) {
    let both = Neighbours::new(service).await;
    let service = &both.service;
    service.user("everybody").await;
    both.beta.post("/api/users", json!({ "username": "theirs" })).await.is(201);
    let own = both.ana_of("alpha").await;
    service.seat("alpha", "B1", "North").await;
    for name in ["everybody", "theirs", "nobody"] {
        let path = format!("/api/users/{name}");
        both.alpha.get(&path).await.is_refused(404, "user_not_found");
        both.alpha.get(format!("{path}/tickets")).await.is_refused(404, "user_not_found");
        let seat = json!({ "event": "alpha", "seat": "B1", "gate": "North" });
        let transfer = format!("/api/tickets/{}/transfer", own.ticket_id);
        for request in [
            both.alpha.patch(&path, json!({ "full_name": "x" })).await,
            both.alpha.delete(&path).await,
            both.alpha.post(format!("{path}/tickets"), seat).await,
            both.alpha.post(transfer, json!({ "username": name })).await,
        ] {
            request.is_refused(404, "user_not_found");
        }
        // The username is free, too.
        both.alpha.post("/api/users", json!({ "username": name })).await.is(201);
    }
    let people = "select count(*) from users where username in ('everybody', 'theirs') and full_name is null";
    assert_eq!(service.database.count(people).await, 4);
}

async fn a_bound_key_cannot_mean_the_people_of_another_event(service: Service) {
    let both = Neighbours::new(service).await;
    both.ana_of("beta").await;
    let own = both.ana_of("alpha").await;
    for slug in ["beta", "none"] {
        let path = format!("/api/users/ana?event={slug}");
        let transfer = format!("/api/tickets/{}/transfer?event={slug}", own.ticket_id);
        let seat = json!({ "event": "alpha", "seat": "A1", "gate": "North" });
        both.alpha.get(&path).await.is_refused(403, "forbidden");
        both.alpha.get(format!("/api/users/ana/tickets?event={slug}")).await.is_refused(403, "forbidden");
        let create = both.alpha.post(format!("/api/users?event={slug}"), json!({ "username": "ben" }));
        both.service.unchanged(create).await.is_refused(403, "forbidden");
        let change = both.alpha.patch(&path, json!({ "full_name": "x" }));
        both.service.unchanged(change).await.is_refused(403, "forbidden");
        both.service.unchanged(both.alpha.delete(&path)).await.is_refused(403, "forbidden");
        let register = both.alpha.post(format!("/api/users/ana/tickets?event={slug}"), seat);
        both.service.unchanged(register).await.is_refused(403, "forbidden");
        let transfer = both.alpha.post(transfer, json!({ "username": "ana" }));
        both.service.unchanged(transfer).await.is_refused(403, "forbidden");
    }
}

async fn an_events_own_person_holds_tickets_of_that_event_only(service: Service) {
    let both = Neighbours::new(service).await;
    let organizer = &both.service.organizer;
    both.ana_of("alpha").await;
    let theirs = both.ana_of("beta").await;
    both.service.seat("beta", "B1", "North").await;
    let seat = json!({ "event": "beta", "seat": "B1", "gate": "North" });
    let register = organizer.post("/api/users/ana/tickets?event=alpha", seat.clone());
    both.service.unchanged(register).await.is_refused(404, "user_not_found");
    let path = format!("/api/tickets/{}/transfer?event=alpha", theirs.ticket_id);
    let transfer = organizer.post(path, json!({ "username": "ana" }));
    both.service.unchanged(transfer).await.is_refused(404, "user_not_found");
    let registered = organizer.post("/api/users/ana/tickets?event=beta", seat).await.is(201);
    assert_eq!(registered["holder_event"], "beta");
}

async fn erasing_an_events_own_person_leaves_the_namesakes(service: Service) {
    let both = Neighbours::new(service).await;
    both.ana_of("alpha").await;
    let theirs = both.ana_of("beta").await;
    let everywhere = both.service.ticket_of("alpha", "B1", "North").await;
    both.alpha.delete("/api/users/ana").await.is(204);
    both.alpha.get("/api/users/ana").await.is_refused(404, "user_not_found");
    both.beta.get("/api/users/ana").await.is(200);
    for (event, ticket) in [("beta", &theirs), ("alpha", &everywhere)] {
        let scan = both.service.organizer.post(format!("/api/events/{event}/scans"), both.service.scan(ticket)).await;
        scan.is_scan(200, "accepted");
    }
}

async fn an_events_own_people_go_with_it(service: Service) {
    let both = Neighbours::new(service).await;
    both.ana_of("alpha").await;
    both.ana_of("beta").await;
    both.service.user("ana").await;
    both.service.organizer.delete("/api/events/alpha?confirm=alpha").await.is(204);
    let left = "select count(*) from users where email = 'ana@alpha'";
    assert_eq!(both.service.database.count(left).await, 0);
    assert_eq!(both.service.database.count("select count(*) from users").await, 2);
}

async fn a_bound_key_is_told_the_addresses_of_its_events_own_people_only(service: Service) {
    let both = Neighbours::new(service).await;
    both.ana_of("alpha").await;
    let organizer = &both.service.organizer;
    let file = "seat,gate,username,full_name,email\nB1,North,ben,Ben Okoye,ben@everywhere\n";
    organizer.post_csv("/api/events/alpha/tickets", file).await.is(201);
    for file in ["tickets.csv", "links.csv"] {
        let path = format!("/api/events/alpha/{file}");
        let told = both.alpha.get(&path).await.text();
        assert!(told.contains("ana@alpha") && told.contains("Ben Okoye") && !told.contains("ben@everywhere"), "{told}");
        let told = organizer.get(&path).await.text();
        assert!(told.contains("ana@alpha") && told.contains("ben@everywhere"), "{told}");
    }
}
