//! Tickets from a CSV file: all of it or nothing, and every wrong line by its number.

use serde_json::{Value, json};

use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    a_file_creates_tickets_and_their_holders,
    a_file_with_semicolons_or_a_byte_order_mark_is_read_too,
    columns_may_come_in_any_order_and_case,
    a_holder_who_exists_already_keeps_their_data,
    a_wrong_line_is_named_and_keeps_all_from_being_created,
    all_wrong_lines_are_named_up_to_a_hundred,
    a_taken_seat_is_named_by_its_line,
    a_large_file_is_created_whole_or_not_at_all,
    a_known_person_with_another_address_is_refused_by_the_line,
    lines_that_disagree_about_an_address_are_refused,
    what_stands_anywhere_in_the_file_is_known_of_the_person,
    another_name_is_kept_with_the_ticket,
    the_name_on_a_ticket_goes_with_its_holder,
    a_bound_key_imports_people_of_its_event,
}

const TICKETS: &str = "/api/events/default/tickets";

async fn a_file_creates_tickets_and_their_holders(service: Service) {
    let file = "seat,gate,username,full_name,email\n\
                A1,North,ana,Ana Ruiz,ana@example.com\n\
                A2,North,ANA,,\n\
                \"Box \"\"B\"\", 1\",South,,,\n";
    let created = service.organizer.post_csv(TICKETS, file).await.is(201);
    assert_eq!(created, json!({ "created": 3, "registered": 2, "users_created": 1 }));
    let held = "select count(*) from tickets where user_id is not null and registered_at is not null";
    assert_eq!(service.database.count(held).await, 2);
    let user = service.organizer.get("/api/users/ana").await.is(200);
    assert_members(&user, json!({ "full_name": "Ana Ruiz", "email": "ana@example.com" }));
    let list = service.organizer.get(format!("{TICKETS}?gate=South")).await.is(200);
    assert_eq!(list["tickets"][0]["seat"], "Box \"B\", 1");
}

async fn a_file_with_semicolons_or_a_byte_order_mark_is_read_too(service: Service) {
    for (row, file) in
        ["seat;gate\r\nA0;a, b\r\n", "\u{feff}seat,gate\nA1,a\n", "\u{feff}seat;gate\nA2;a", "seat , gate\n A3 , a \n"]
            .iter()
            .enumerate()
    {
        let created = service.organizer.post_csv(TICKETS, *file).await.is(201);
        assert_eq!(created["created"], 1, "{file}");
        assert_eq!(service.database.count(&format!("select count(*) from tickets where seat = 'A{row}'")).await, 1);
    }
    assert_eq!(service.database.count("select count(*) from tickets where gate = 'a, b'").await, 1);
}

async fn columns_may_come_in_any_order_and_case(service: Service) {
    let file = "Username,GATE,Seat\nana,North,A1\n";
    service.organizer.post_csv(TICKETS, file).await.is(201);
    let list = service.organizer.get("/api/users/ana/tickets").await.is(200);
    assert_members(&list["tickets"][0], json!({ "seat": "A1", "gate": "North" }));
}

async fn a_holder_who_exists_already_keeps_their_data(service: Service) {
    let body = json!({ "username": "ana", "full_name": "Ana Ruiz" });
    let before = service.organizer.post("/api/users", body).await.is(201);
    let file = "seat,gate,username,full_name\nA1,North,Ana,Somebody Else\n";
    let created = service.organizer.post_csv(TICKETS, file).await.is(201);
    assert_eq!(created["users_created"], 0);
    assert_eq!(service.organizer.get("/api/users/ana").await.is(200), before);
}

async fn a_wrong_line_is_named_and_keeps_all_from_being_created(service: Service) {
    let cases: [(&str, &[u8]); 18] = [
        ("line 1", b""),
        ("line 1", b"seat,gate\n"),
        ("line 1", b"seat\nA1\n"),
        ("line 1", b"A1,North\nA2,North\n"),
        ("line 1", b"seat,gate,row\nA1,North,1\n"),
        ("line 1", b"seat,gate,seat\nA1,North,A1\n"),
        ("line 2", b"seat,gate\nA1\n"),
        ("line 2", b"seat,gate\nA1,North,1\n"),
        ("line 2", b"seat,gate\n,North\n"),
        ("line 3", b"seat,gate\nA1,North\nA1,North\n"),
        ("line 3", b"seat,gate\r\nA1,North\r\n,North\r\n"),
        ("line 4", b"seat,gate\n\nA1,North\n,North\n"),
        ("line 4", b"seat,gate\nA1,North\n\n,North\n"),
        ("line 4", b"seat,gate\r\nA1,North\r\n\r\n,North\r\n"),
        ("line 2", b"seat,gate,username\nA1,North,two words\n"),
        ("line 2", b"seat,gate,username,full_name\nA1,North,,Nobody\n"),
        ("line 3", b"seat,gate\nA1,North\n\xff\xfe,North\n"),
        ("line 2", b"seat,gate\nA\x001,North\n"),
    ];
    for (line, file) in cases {
        let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
        let problem = reply.is_refused(422, "invalid_payload");
        assert_eq!(problem["errors"][0]["field"], line, "{} {problem}", String::from_utf8_lossy(file));
    }
}

async fn all_wrong_lines_are_named_up_to_a_hundred(service: Service) {
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, "seat,gate\n,a\nA1,a\n,a\n")).await;
    let problem = reply.is_refused(422, "invalid_payload");
    assert_eq!(lines(&problem), ["line 2", "line 4"]);

    let file = format!("seat,gate\n{}", ",a\n".repeat(1_000));
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    assert_eq!(lines(&reply.is_refused(422, "invalid_payload")).len(), 100);
}

async fn a_taken_seat_is_named_by_its_line(service: Service) {
    service.seat("default", "A1", "North").await;
    service.seat("default", "A3", "North").await;
    let file = "seat,gate,username\nA1,North,new\nA2,North,new\nA3,North,new\n";
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    assert_eq!(lines(&reply.is_refused(409, "seat_taken")), ["line 2", "line 4"]);
}

/// Larger than what one statement writes.
async fn a_large_file_is_created_whole_or_not_at_all(service: Service) {
    let rows =
        |first: usize| (first..=6_000).map(|seat| format!("{seat},North,user{}\n", seat % 10)).collect::<String>();
    service.seat("default", "5500", "North").await;
    let file = format!("seat,gate,username\n{}", rows(1));
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    assert_eq!(lines(&reply.is_refused(409, "seat_taken")), ["line 5501"]);

    let file = format!("seat,gate,username\n{}", rows(501).replace("5500,", "extra,"));
    let created = service.organizer.post_csv(TICKETS, file).await.is(201);
    assert_eq!(created, json!({ "created": 5_500, "registered": 5_500, "users_created": 10 }));
    assert_eq!(service.database.count("select count(*) from tickets").await, 5_501);
}

fn lines(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().expect("the problem names lines");
    errors.iter().map(|error| error["field"].as_str().unwrap_or_default()).collect()
}

async fn a_known_person_with_another_address_is_refused_by_the_line(service: Service) {
    let user = |name: &str, email: Value| json!({ "username": name, "email": email });
    service.organizer.post("/api/users", user("ana", json!("ana@example.org"))).await.is(201);
    service.organizer.post("/api/users", user("ben", Value::Null)).await.is(201);
    let file = "seat,gate,username,email\n\
                A1,North,ana,\n\
                A2,North,Ana,MALLORY@example.org\n\
                A3,North,ana,mallory@example.org\n\
                A4,North,new,new@example.org\n\
                A5,North,BEN,ben@example.org\n";
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    let problem = reply.is_refused(422, "invalid_payload");
    assert_eq!(lines(&problem), ["line 3", "line 4", "line 6"]);
    for error in problem["errors"].as_array().expect("the problem names lines") {
        assert_eq!(error["code"], "person_differs");
    }
    assert!(!problem.to_string().contains("ana"), "nor is anything of the person told: {problem}");
    service.organizer.patch("/api/users/ben", json!({ "email": "ben@example.org" })).await.is(200);
    let file = file.replace("mallory", "ana").replace("MALLORY", "ANA");
    service.organizer.post_csv(TICKETS, file).await.is(201);
}

async fn lines_that_disagree_about_an_address_are_refused(service: Service) {
    let file = "seat,gate,username,email\n\
                A1,North,ana,ana@example.org\n\
                A2,North,ana,\n\
                A3,North,ANA,mallory@example.org\n\
                A4,North,ana,Ana@Example.org\n";
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    let problem = reply.is_refused(422, "invalid_payload");
    assert_eq!(lines(&problem), ["line 4"]);
    assert_eq!(problem["errors"][0]["code"], "person_differs");
}

async fn what_stands_anywhere_in_the_file_is_known_of_the_person(service: Service) {
    let file = "seat,gate,username,full_name,email\n\
                A1,North,ana,,\nA2,North,ANA,Ana Ruiz,\nA3,North,ana,,ana@example.org\nA4,North,ana,,\n";
    service.organizer.post_csv(TICKETS, file).await.is(201);
    let user = service.organizer.get("/api/users/ana").await.is(200);
    assert_members(&user, json!({ "full_name": "Ana Ruiz", "email": "ana@example.org" }));
}

/// One buyer, three names.
const FAMILY: &str = "seat,gate,username,full_name\nA1,North,ana,Ana Ruiz\nA2,North,ana,Ben Ruiz\nA3,North,ana,\n";

async fn another_name_is_kept_with_the_ticket(service: Service) {
    service.organizer.post_csv(TICKETS, FAMILY).await.is(201);
    assert_eq!(service.organizer.get("/api/users/ana").await.is(200)["full_name"], "Ana Ruiz");
    let names = |list: &Value| -> Vec<Value> {
        let tickets = list["tickets"].as_array().expect("a list has tickets").iter();
        tickets.map(|ticket| ticket["full_name"].clone()).collect()
    };
    let expected = ["Ana Ruiz", "Ben Ruiz", "Ana Ruiz"];
    assert_eq!(names(&service.organizer.get(TICKETS).await.is(200)), expected);
    assert_eq!(names(&service.organizer.get("/api/users/ana/tickets").await.is(200)), expected);
    assert_eq!(names(&service.organizer.get("/api/events/default/manifest").await.is(200)), expected);
    let found = service.organizer.get(format!("{TICKETS}?q=ben")).await.is(200);
    assert_eq!(names(&found), ["Ben Ruiz"]);
    for file in ["tickets.csv", "links.csv"] {
        let csv = service.organizer.get(format!("/api/events/default/{file}")).await.text();
        assert_eq!((csv.matches("Ana Ruiz").count(), csv.matches("Ben Ruiz").count()), (2, 1), "{csv}");
    }

    let path = format!("/api/tickets/{}/reissue", found["tickets"][0]["ticket_id"].as_str().unwrap_or_default());
    let reissued = service.organizer.bare(http::Method::POST, path).await.is(200);
    assert_eq!(reissued["full_name"], "Ben Ruiz");
    let link = reissued["provisioning"]["ticket_url"].as_str().unwrap_or_default();
    let (_, token) = link.split_once("/t/").expect("a link has a token");
    let page = service.anonymous.get(format!("/t/{token}")).await.text();
    assert!(page.contains("Ben Ruiz") && !page.contains("Ana Ruiz"), "{page}");
    let scan = service.scan(&Ticket::new(&reissued));
    let admitted = service.gate().await.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
    assert_eq!(admitted["ticket"]["full_name"], "Ben Ruiz");
    // Who is corrected is the person, not who stands on the ticket.
    service.organizer.patch("/api/users/ana", json!({ "full_name": "Anna Ruiz" })).await.is(200);
    assert_eq!(names(&service.organizer.get(TICKETS).await.is(200)), ["Anna Ruiz", "Ben Ruiz", "Anna Ruiz"]);
}

async fn the_name_on_a_ticket_goes_with_its_holder(service: Service) {
    service.organizer.post_csv(TICKETS, FAMILY).await.is(201);
    service.user("luis").await;
    let list = service.organizer.get(format!("{TICKETS}?q=ben")).await.is(200);
    let path = format!("/api/tickets/{}", list["tickets"][0]["ticket_id"].as_str().unwrap_or_default());
    let transferred = service.organizer.post(format!("{path}/transfer"), json!({ "username": "luis" })).await.is(200);
    assert_members(&transferred, json!({ "username": "luis", "full_name": null }));
    service.organizer.post(format!("{path}/transfer"), json!({ "username": "ana" })).await.is(200);
    assert_eq!(service.organizer.get(&path).await.is(200)["full_name"], "Ana Ruiz");

    let file = "seat,gate,username,full_name\nB1,North,luis,Carla Roe\n";
    service.organizer.post_csv(TICKETS, file).await.is(201);
    service.organizer.delete("/api/users/luis").await.is(204);
    assert!(!service.database.snapshot().await.contains("Carla"), "an erased person's tickets have no name");
}

async fn a_bound_key_imports_people_of_its_event(service: Service) {
    for slug in ["alpha", "beta"] {
        service.event(json!({ "slug": slug, "name": slug })).await;
    }
    let [alpha, beta] = ["alpha", "beta"].map(|slug| json!({ "name": slug, "role": "organizer", "event": slug }));
    let (alpha, beta) = (service.key(alpha).await, service.key(beta).await);
    let mallory = json!({ "username": "ana", "full_name": "Mallory", "email": "mallory@example.org" });
    beta.post("/api/users", mallory.clone()).await.is(201);
    service.organizer.post("/api/users", mallory).await.is(201);

    let file = "seat,gate,username,full_name,email\nA1,North,ana,Ana Ruiz,ana@real.example\n";
    let created = alpha.post_csv("/api/events/alpha/tickets", file).await.is(201);
    assert_eq!(created, json!({ "created": 1, "registered": 1, "users_created": 1 }));
    let links = alpha.get("/api/events/alpha/links.csv").await.text();
    assert!(links.contains("\"A1\",\"North\",\"ana\",\"Ana Ruiz\",\"ana@real.example\","), "{links}");
    let own = alpha.get("/api/users/ana").await.is(200);
    assert_members(&own, json!({ "event": "alpha", "email": "ana@real.example" }));
    // Nor does it count, or tell, who is known elsewhere.
    let file = "seat,gate,username,email\nA2,North,ana,ana@real.example\n";
    let created = alpha.post_csv("/api/events/alpha/tickets", file).await.is(201);
    assert_eq!(created["users_created"], 0);
    assert_members(&beta.get("/api/users/ana").await.is(200), json!({ "full_name": "Mallory", "event": "beta" }));
}
