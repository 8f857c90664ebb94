//! Tickets from a CSV file: all of it or nothing, and every wrong line by its number.

use serde_json::{Value, json};

use crate::service::{Service, assert_members};

on_both_databases! {
    a_file_creates_tickets_and_their_holders,
    a_file_with_semicolons_or_a_byte_order_mark_is_read_too,
    columns_may_come_in_any_order_and_case,
    a_holder_who_exists_already_keeps_their_data,
    a_wrong_line_is_named_and_keeps_all_from_being_created,
    all_wrong_lines_are_named_up_to_a_hundred,
    a_taken_seat_is_named_by_its_line,
    a_large_file_is_created_whole_or_not_at_all,
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
