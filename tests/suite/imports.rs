//! Importing tickets from a CSV file: all or nothing, with every wrong line reported by its number.

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
    a_list_is_read_as_excel_writes_it,
    a_dry_run_tells_what_would_happen_and_does_nothing,
    columns_are_mapped_or_left_out_where_nobody_knows_them,
    general_admission_needs_a_name_an_address_or_a_number,
    a_list_that_comes_again_says_what_it_does_with_what_is_there,
    an_update_corrects_names_and_references_and_nothing_else,
    what_a_seller_calls_a_ticket_is_its_category,
    names_that_are_read_the_same_are_the_same,
    what_is_exported_is_imported_again,
    a_seat_that_two_lines_name_is_told_however_they_write_it,
    a_list_that_comes_again_tells_what_it_does_not_change,
    a_line_that_is_no_ticket_any_more_tells_of_the_ticket_that_is,
    a_seat_that_was_sold_again_or_is_revoked_is_told,
    seats_are_numbered_after_the_greatest_number,
    an_import_that_is_given_up_holds_its_place_until_its_file_is_read,
}

const TICKETS: &str = "/api/events/default/tickets";

async fn a_file_creates_tickets_and_their_holders(service: Service) {
    let file = "seat,gate,username,full_name,email\n\
                A1,North,ana,Ana Ruiz,ana@example.com\n\
                A2,North,ANA,,\n\
                \"Box \"\"B\"\", 1\",South,,,\n";
    let created = service.organizer.post_csv(TICKETS, file).await.is(201);
    assert_eq!(created, json!({ "created": 3, "registered": 2, "users_created": 1, "updated": 0, "skipped": 0 }));
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
    let cases: [(&str, &[u8]); 16] = [
        ("file", b""),
        ("line 1", b"seat,gate\n"),
        ("line 1", b"shoe\nA1\n"),
        ("line 1", b"A1,North\nA2,North\n"),
        ("line 1", b"seat,gate,shoe\nA1,North,1\n"),
        ("line 1", b"seat,gate,seat\nA1,North,A1\n"),
        ("line 2", b"seat,gate\nA1,North,1\n"),
        ("line 3", b"seat,gate\nA1,North\nA1,North\n"),
        ("line 3", b"seat,email\r\nA1,\r\nA2,x\r\n"),
        ("line 4", b"seat,email\n\nA1,\nA2,x\n"),
        ("line 4", b"seat,email\nA1,\n\nA2,x\n"),
        ("line 4", b"seat,email\r\nA1,\r\n\r\nA2,x\r\n"),
        ("line 2", b"seat,gate,username\nA1,North,two words\n"),
        ("line 3", b"seat,gate\nA1,North\n\"A2,North\nA3,North\n"),
        ("file", b"%PDF-1.7\n"),
        ("line 2", b"seat,gate\nA\x001,North\n"),
    ];
    for (line, file) in cases {
        let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
        let problem = reply.is_refused(422, "invalid_payload");
        assert_eq!(problem["errors"][0]["field"], line, "{} {problem}", String::from_utf8_lossy(file));
    }
}

async fn all_wrong_lines_are_named_up_to_a_hundred(service: Service) {
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, "seat,email\nA0,a\nA1,\nA2,a\n")).await;
    let problem = reply.is_refused(422, "invalid_payload");
    assert_eq!(lines(&problem), ["line 2", "line 4"]);

    let file = format!("email\n{}", "a\n".repeat(1_000));
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    let problem = reply.is_refused(422, "invalid_payload");
    assert_eq!(lines(&problem).len(), 101);
    assert_members(
        &problem["errors"][100],
        json!({ "field": "file", "code": "more_faults", "params": { "more": 900 } }),
    );
}

async fn a_taken_seat_is_named_by_its_line(service: Service) {
    service.seat("default", "A1", "North").await;
    service.seat("default", "A3", "North").await;
    let file = "seat,gate,username\nA1,North,new\nA2,North,new\nA3,North,new\n";
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    assert_eq!(lines(&reply.is_refused(409, "seat_taken")), ["line 2", "line 4"]);
}

/// Larger than a single statement can write.
async fn a_large_file_is_created_whole_or_not_at_all(service: Service) {
    let rows =
        |first: usize| (first..=6_000).map(|seat| format!("{seat},North,user{}\n", seat % 10)).collect::<String>();
    service.seat("default", "5500", "North").await;
    let file = format!("seat,gate,username\n{}", rows(1));
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, file)).await;
    assert_eq!(lines(&reply.is_refused(409, "seat_taken")), ["line 5501"]);

    let file = format!("seat,gate,username\n{}", rows(501).replace("5500,", "extra,"));
    let created = service.organizer.post_csv(TICKETS, file).await.is(201);
    assert_eq!(
        created,
        json!({ "created": 5_500, "registered": 5_500, "users_created": 10, "updated": 0, "skipped": 0 })
    );
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
    assert!(!problem.to_string().contains("ana"), "nor is anything about the person revealed: {problem}");
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
    // This corrects the person, not the name on a companion's ticket.
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
    assert_eq!(created, json!({ "created": 1, "registered": 1, "users_created": 1, "updated": 0, "skipped": 0 }));
    let links = alpha.get("/api/events/alpha/links.csv").await.text();
    assert!(links.contains("\"A1\",\"North\",\"ana\",\"Ana Ruiz\",\"ana@real.example\","), "{links}");
    let own = alpha.get("/api/users/ana").await.is(200);
    assert_members(&own, json!({ "event": "alpha", "email": "ana@real.example" }));
    // Nor does it count or reveal who is known elsewhere.
    let file = "seat,gate,username,email\nA2,North,ana,ana@real.example\n";
    let created = alpha.post_csv("/api/events/alpha/tickets", file).await.is(201);
    assert_eq!(created["users_created"], 0);
    assert_members(&beta.get("/api/users/ana").await.is(200), json!({ "full_name": "Mallory", "event": "beta" }));
}

async fn a_list_is_read_as_excel_writes_it(service: Service) {
    let sofia = "seat;gate;username;full_name\r\nA1;North;sofia;Sofía Núñez\r\n";
    let (windows, mac) = (encoding_rs::WINDOWS_1252.encode(sofia).0, encoding_rs::MACINTOSH.encode(sofia).0);
    let tabs = sofia.replace(';', "\t");
    let utf16: Vec<u8> = format!("\u{feff}{tabs}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let forms: [(&str, &str, Vec<u8>); 5] = [
        ("windows-1252", ";", windows.into_owned()),
        ("macintosh", ";", mac.into_owned()),
        ("utf-16", "\t", utf16),
        ("utf-8", ";", format!("\u{feff}\"sep=;\"\r\n{sofia}").into_bytes()),
        (
            "utf-8",
            ",",
            b"seat,gate,username,full_name,,\nA1,North,sofia,Sof\xc3\xada N\xc3\xba\xc3\xb1ez,,\n,,,,,\n".to_vec(),
        ),
    ];
    for (number, (encoding, separator, file)) in forms.into_iter().enumerate() {
        let told = service.organizer.post_csv(format!("{TICKETS}?dry_run=true"), file.clone()).await.is(200);
        assert_members(&told, json!({ "encoding": encoding, "separator": separator, "sheet": null, "errors": [] }));
        assert_eq!(told["rows"][0][3], "Sofía Núñez", "{encoding}");
        let slug = format!("gala-{number}");
        service.event(json!({ "slug": slug, "name": slug })).await;
        service.organizer.post_csv(format!("/api/events/{slug}/tickets"), file).await.is(201);
        let list = service.organizer.get(format!("/api/events/{slug}/tickets")).await.is(200);
        assert_members(&list["tickets"][0], json!({ "seat": "A1", "gate": "North", "full_name": "Sofía Núñez" }));
    }
    let workbook = include_bytes!("lists/guests.xlsx");
    let told =
        service.organizer.post_csv(format!("{TICKETS}?dry_run=true&unknown=ignore"), &workbook[..]).await.is(200);
    assert_members(
        &told,
        json!({ "encoding": "xlsx", "separator": null, "sheet": "Gäste", "lines": 3, "numbered": 2, "errors": [] }),
    );
    let first = json!(["12", "North", "Sofía Núñez", "sofia@example.org", "34600111222", "1990-05-01", "0007", "1"]);
    assert_eq!(told["rows"][0], first);
    let refused = service.organizer.post_csv(TICKETS, &workbook[..]).await.is_refused(422, "invalid_payload");
    assert_members(&refused["errors"][0], json!({ "field": "line 2", "code": "unknown_column" }));
    assert_eq!(refused["errors"][0]["params"]["columns"], json!(["Born"]));
    service.organizer.post_csv(format!("{TICKETS}?unknown=ignore"), &workbook[..]).await.is(201);
    let list = service.organizer.get(TICKETS).await.is(200);
    let told = list["tickets"].as_array().expect("there are tickets").iter();
    let told: Vec<Value> =
        told.map(|ticket| json!([ticket["seat"], ticket["full_name"], ticket["reference"]])).collect();
    let expected = json!([
        ["12", "Sofía Núñez", "0007"],
        ["A-1", "Müller & Söhne <VIP>", "007"],
        ["1", "王小明", "100000000000"],
        ["2", "王小明", "100000000000-2"],
    ]);
    assert_eq!(Value::from(told), expected);
}

async fn a_dry_run_tells_what_would_happen_and_does_nothing(service: Service) {
    service.seat("default", "A1", "North").await;
    service.user("ben").await;
    let file = "Asiento;Puerta;Correo;Talla\nA1;North;;\nA2;North;ana@example.org;M\nA3;North;nowhere;L\n";
    let reply = service.unchanged(service.organizer.post_csv(format!("{TICKETS}?dry_run=true"), file)).await;
    let told = reply.is(200);
    let column = |name: &str, field: Option<&str>, known: bool| json!({ "name": name, "field": field, "known": known });
    let columns = json!([
        column("Asiento", Some("seat"), true),
        column("Puerta", Some("gate"), true),
        column("Correo", Some("email"), true),
        column("Talla", None, false),
    ]);
    assert_members(&told, json!({ "columns": columns, "lines": 3, "left_out": 0, "wrong": 3 }));
    let counts = json!({ "created": 1, "registered": 1, "users_created": 1, "updated": 0, "skipped": 0 });
    assert_eq!(told["counts"], counts);
    let codes: Vec<Value> =
        told["errors"].as_array().unwrap().iter().map(|error| json!([error["field"], error["code"]])).collect();
    let expected = json!([["line 1", "unknown_column"], ["line 2", "seat_taken"], ["line 4", "not_an_email"]]);
    assert_eq!(Value::from(codes), expected);
    for query in ["dry_run=yes", "existing=maybe", "unknown=x", "columns=seat,nonsense", "more=1"] {
        service.organizer.post_csv(format!("{TICKETS}?{query}"), file).await.is_refused(422, "invalid_payload");
    }
    service
        .organizer
        .post(format!("{TICKETS}?dry_run=true"), json!({ "seat": "B", "gate": "N" }))
        .await
        .is_refused(422, "invalid_payload");
}

async fn columns_are_mapped_or_left_out_where_nobody_knows_them(service: Service) {
    let file = "Wer kommt?,Wie oft?,Hemd\nAna,2,M\n";
    let refused = service.organizer.post_csv(TICKETS, file).await.is_refused(422, "invalid_payload");
    assert_eq!(refused["errors"][0]["params"]["columns"], json!(["Wer kommt?", "Wie oft?", "Hemd"]));
    let refused =
        service.organizer.post_csv(format!("{TICKETS}?unknown=ignore"), file).await.is_refused(422, "invalid_payload");
    assert_eq!(refused["errors"][0]["code"], "no_column");
    let mapped = format!("{TICKETS}?columns=full_name,quantity,-");
    assert_eq!(service.organizer.post_csv(mapped, file).await.is(201)["created"], 2);
    let list = service.organizer.get(TICKETS).await.is(200);
    assert_members(&list["tickets"][1], json!({ "seat": "2", "gate": "Entrance", "full_name": "Ana" }));
}

async fn general_admission_needs_a_name_an_address_or_a_number(service: Service) {
    let file =
        "name,email,quantity\nAna Ruiz,,\nAna Ruiz,,\nSeán O'Brien,o'brien@example.org,2\n,bo@example.org,\n,,3\n";
    let made = service.organizer.post_csv(TICKETS, file).await.is(201);
    assert_members(&made, json!({ "created": 8, "registered": 5, "users_created": 4 }));
    let list = service.organizer.get(TICKETS).await.is(200);
    let tickets = list["tickets"].as_array().expect("there are tickets");
    let seats: Vec<&str> = tickets.iter().filter_map(|ticket| ticket["seat"].as_str()).collect();
    assert_eq!(seats, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    assert!(tickets.iter().all(|ticket| ticket["gate"] == "Entrance"));
    let usernames: Vec<&str> = tickets.iter().filter_map(|ticket| ticket["username"].as_str()).collect();
    assert!(usernames[0].starts_with("ana.ruiz-") && usernames[1] == format!("{}-2", usernames[0]), "{usernames:?}");
    assert!(usernames[2].starts_with("obrien@example.org-") && usernames[3] == usernames[2]);
    assert_eq!(usernames[4], "bo@example.org");
    let brien = service.organizer.get(format!("/api/users/{}", usernames[2])).await.is(200);
    assert_members(&brien, json!({ "full_name": "Seán O'Brien", "email": "o'brien@example.org" }));

    // Uses the event's only gate and continues after its highest number; with two gates, none is the only one.
    assert_eq!(service.organizer.post_csv(TICKETS, "seat,name\n20,Cy\n,Dee\n").await.is(201)["created"], 2);
    service.organizer.post_csv(TICKETS, "gate,quantity\nNorth,1\n,1\n").await.is(201);
    let list = service.organizer.get(TICKETS).await.is(200);
    let last: Vec<Value> =
        list["tickets"].as_array().unwrap()[8..].iter().map(|ticket| json!([ticket["seat"], ticket["gate"]])).collect();
    assert_eq!(Value::from(last), json!([["20", "Entrance"], ["21", "Entrance"], ["1", "North"], ["22", "Entrance"]]));

    // Importing the same list again creates no duplicates.
    let again = service
        .unchanged(service.organizer.post_csv(TICKETS, "name,email\nAna Ruiz,\nAna Ruiz,\n,bo@example.org\n"))
        .await;
    let problem = again.is_refused(409, "seat_taken");
    assert_eq!(
        (lines(&problem), &problem["errors"][0]["code"]),
        (vec!["line 2", "line 3", "line 4"], &json!("has_ticket"))
    );
    let more = "name,email\nAna Ruiz,\nAna Ruiz,\n,bo@example.org\n,bo@example.org\nNew One,\n";
    let made = service.organizer.post_csv(format!("{TICKETS}?existing=skip"), more).await.is(201);
    assert_members(&made, json!({ "created": 2, "registered": 2, "users_created": 1, "skipped": 3 }));
}

async fn a_list_that_comes_again_says_what_it_does_with_what_is_there(service: Service) {
    let rows = |range: std::ops::RangeInclusive<usize>| {
        range.map(|row| format!("R{row},p{row}@example.org,Person {row}\n")).collect::<String>()
    };
    let header = "reference,email,name\n";
    assert_eq!(service.organizer.post_csv(TICKETS, format!("{header}{}", rows(1..=40))).await.is(201)["created"], 40);
    let file = format!("{header}{}", rows(1..=55));
    let reply = service.unchanged(service.organizer.post_csv(TICKETS, &*file)).await;
    let problem = reply.is_refused(409, "seat_taken");
    assert_eq!((lines(&problem).len(), &problem["errors"][39]["code"]), (40, &json!("reference_taken")));
    let made = service.organizer.post_csv(format!("{TICKETS}?existing=skip"), &*file).await.is(201);
    assert_eq!(made, json!({ "created": 15, "registered": 15, "users_created": 15, "updated": 0, "skipped": 40 }));
    let made =
        service.unchanged(service.organizer.post_csv(format!("{TICKETS}?existing=update"), &*file)).await.is(201);
    assert_members(&made, json!({ "created": 0, "updated": 0, "skipped": 55 }));
    assert_eq!(service.database.count("select count(distinct reference) from tickets").await, 55);
    // A reference is unique in JSON too.
    let taken = json!({ "seat": "X", "gate": "North", "reference": "R1" });
    service.organizer.post(TICKETS, taken).await.is_refused(409, "seat_taken");
    let twice = json!([{ "seat": "X", "gate": "N", "reference": "Z" }, { "seat": "Y", "gate": "N", "reference": "Z" }]);
    let refused = service.organizer.post(TICKETS, twice).await.is_refused(422, "invalid_payload");
    assert_eq!(refused["errors"][0]["code"], "reference_repeated");
    // Another event may have the same reference.
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    service.organizer.post_csv("/api/events/gala/tickets", "reference\nR1\n").await.is(201);
}

async fn an_update_corrects_names_and_references_and_nothing_else(service: Service) {
    let first = "seat,gate,username,full_name\nA1,North,ana,Ana Ruis\nA2,North,ana,Ben Ruis\nA3,North,,\nA4,North,cy,Cy\nA5,North,dee,Dee\n";
    service.organizer.post_csv(TICKETS, first).await.is(201);
    let list = service.organizer.get(TICKETS).await.is(200);
    let id = |place: usize| list["tickets"][place]["ticket_id"].as_str().unwrap_or_default().to_owned();
    service.organizer.bare(http::Method::POST, format!("/api/tickets/{}/revoke", id(3))).await.is(200);
    let code = service.organizer.get(format!("/api/tickets/{}/link", id(1))).await.is(200)["ticket_url"].clone();

    let update = format!("{TICKETS}?existing=update");
    let file = "seat,gate,username,full_name,email,reference\n\
                A1,North,ana,Ana Ruiz,ana@example.org,R1\nA2,North,ANA,Ben Ruiz,,R2\nA3,North,eve,Eve Poe,,\nA4,North,cy,Other,,R4\nA5,North,dee,Dee,,\n";
    let made = service.organizer.post_csv(&*update, file).await.is(201);
    assert_members(&made, json!({ "created": 0, "registered": 1, "users_created": 1, "updated": 3, "skipped": 2 }));
    assert_eq!(told(&made["notices"]), json!([["still_revoked", { "lines": [5] }]]));
    let list = service.organizer.get(TICKETS).await.is(200);
    let told = list["tickets"].as_array().expect("there are tickets").iter();
    let told: Vec<Value> = told
        .map(|ticket| {
            json!([ticket["seat"], ticket["username"], ticket["full_name"], ticket["reference"], ticket["status"]])
        })
        .collect();
    let expected = json!([
        ["A1", "ana", "Ana Ruiz", "R1", "valid"],
        ["A2", "ana", "Ben Ruiz", "R2", "valid"],
        ["A3", "eve", "Eve Poe", null, "valid"],
        ["A4", "cy", "Cy", null, "revoked"],
        ["A5", "dee", "Dee", null, "valid"],
    ]);
    assert_eq!(Value::from(told), expected);
    assert_eq!(
        service.organizer.get(format!("/api/tickets/{}/link", id(1))).await.is(200)["ticket_url"],
        code,
        "codes and links stay"
    );
    assert_eq!(service.organizer.get("/api/users/ana").await.is(200)["email"], "ana@example.org");
    let actions = service.organizer.get(format!("/api/tickets/{}/actions", id(0))).await.is(200);
    assert_eq!(
        actions["actions"].as_array().and_then(|all| all.last()).map(|act| act["action"].clone()),
        Some(json!("corrected"))
    );

    for (row, code) in [
        ("A9,North,ana,,,R1", "other_seat"),
        ("A1,South,ana,,,R1", "other_seat"),
        ("A1,North,dee,,,", "other_holder"),
        ("A1,North,ana,,,R9", "other_reference"),
        ("A1,North,ana,,,R2", "other_reference"),
        ("A1,North,ana,,mallory@example.org,", "person_differs"),
    ] {
        let file = format!("seat,gate,username,full_name,email,reference\nB1,North,new,New,,\n{row}\n");
        let reply = service.unchanged(service.organizer.post_csv(&*update, file)).await;
        let problem = reply.is_refused(422, "invalid_payload");
        assert_members(&problem["errors"][0], json!({ "field": "line 3", "code": code }));
    }
    // By reference alone, whoever holds the ticket: a companion's name is corrected.
    let made = service.organizer.post_csv(&*update, "reference,name\nR2,Benito Ruiz\nR1,Ana Ruiz\n").await.is(201);
    assert_members(&made, json!({ "created": 0, "users_created": 0, "updated": 1, "skipped": 1 }));
    assert_eq!(service.organizer.get(format!("/api/tickets/{}", id(1))).await.is(200)["full_name"], "Benito Ruiz");
}

async fn what_a_seller_calls_a_ticket_is_its_category(service: Service) {
    let long = "Early bird with a drink, the cloakroom and a seat";
    let list = format!("Name,Ticket type,Note\nAna,Under 12,\"By the\nramp\"\nBo,\"{long}\",\nCy,,\n");
    let made = service.organizer.post_csv(TICKETS, list).await.is(201);
    assert_eq!(told(&made["notices"]), json!([["categories_cut", { "most": 40, "lines": [4] }]]));
    let all = async || -> Vec<Value> {
        let list = service.organizer.get(TICKETS).await.is(200);
        let tickets = list["tickets"].as_array().expect("there are tickets").iter();
        tickets.map(|ticket| json!([ticket["full_name"], ticket["category"], ticket["note"]])).collect()
    };
    let cut = "Early bird with a drink, the cloakroom…";
    let expected = [json!(["Ana", "Under 12", "By the ramp"]), json!(["Bo", cut, null]), json!(["Cy", null, null])];
    assert_eq!(all().await, expected);

    // A repeated import corrects the given values and keeps those it leaves out.
    let update = format!("{TICKETS}?existing=update");
    let list = "seat,gate,category,note\n1,Entrance,Adult,\n2,Entrance,,Came by bus\n3,Entrance,,\n";
    let made = service.organizer.post_csv(update, list).await.is(201);
    assert_members(&made, json!({ "created": 0, "updated": 2, "skipped": 1 }));
    let expected =
        [json!(["Ana", "Adult", "By the ramp"]), json!(["Bo", cut, "Came by bus"]), json!(["Cy", null, null])];
    assert_eq!(all().await, expected);

    let too_long = format!("name,note\nDee,{}\n", "n".repeat(201));
    let problem = service.organizer.post_csv(TICKETS, too_long).await.is_refused(422, "invalid_payload");
    assert_members(&problem["errors"][0], json!({ "field": "line 2", "code": "too_long" }));
}

async fn names_that_are_read_the_same_are_the_same(service: Service) {
    let person = json!({ "username": "ana", "full_name": "Ana Núñez", "email": "ana@example.org" });
    service.organizer.post("/api/users", person).await.is(201);
    let file = "seat,username,full_name\n1,ana,ana nu\u{301}n\u{303}ez\n2,ana,ANA  NÚÑEZ\n3,ana,Ben Núñez\n4,new,Zoë\n5,new,ZOE\u{308}\n";
    service.organizer.post_csv(TICKETS, file).await.is(201);
    let list = service.organizer.get(TICKETS).await.is(200);
    let names: Vec<&str> =
        list["tickets"].as_array().unwrap().iter().filter_map(|ticket| ticket["full_name"].as_str()).collect();
    assert_eq!(names, ["Ana Núñez", "Ana Núñez", "Ben Núñez", "Zoë", "Zoë"]);
    assert_eq!(service.organizer.get("/api/users/ana").await.is(200)["email"], "ana@example.org");
}

/// Texts that are difficult for spreadsheets, separators and quotes.
async fn what_is_exported_is_imported_again(service: Service) {
    let hard = [
        "-5",
        "'-5",
        "''=1",
        "=1+1",
        "a;=1",
        "\"x\"",
        "\"",
        "a,b;c\td",
        "'",
        "@",
        "sep=;",
        "ＡＢ",
        "＝1",
        "\u{200b}=1",
        "Sofía",
        "x'-1",
        "007",
        "1e5",
        "true",
    ];
    let rows: Vec<(String, String)> = hard
        .iter()
        .map(|text| text.replace('\t', " "))
        .zip(hard.iter().rev().map(|text| text.replace('\t', " ")))
        .collect();
    for (number, (seat, name)) in rows.iter().enumerate() {
        let username = format!("-user{number}");
        let email = format!("'{number}@example.org");
        service
            .organizer
            .post("/api/users", json!({ "username": username, "full_name": name, "email": email }))
            .await
            .is(201);
        service
            .organizer
            .post(
                TICKETS,
                json!({ "seat": seat, "gate": name, "reference": format!("={seat}"), "category": name, "note": seat }),
            )
            .await
            .is(201);
        let registration = json!({ "seat": seat, "gate": name });
        service.organizer.post(format!("/api/users/{username}/tickets"), registration).await.is(201);
    }
    let exported = service.organizer.get("/api/events/default/tickets.csv").await.text();
    assert!(exported.starts_with('\u{feff}'), "for Excel");
    let told = |list: Value| -> Vec<Value> {
        let tickets = list["tickets"].as_array().cloned().unwrap_or_default().into_iter();
        tickets
            .map(|ticket| {
                let columns = ["seat", "gate", "username", "full_name", "reference", "category", "note"];
                columns.map(|column| ticket[column].clone()).into()
            })
            .collect()
    };
    service.event(json!({ "slug": "again", "name": "Again" })).await;
    let made = service.organizer.post_csv("/api/events/again/tickets", exported.clone()).await.is(201);
    assert_members(&made, json!({ "created": hard.len(), "registered": hard.len(), "users_created": 0 }));
    let (before, after) = (
        service.organizer.get(TICKETS).await.is(200),
        service.organizer.get("/api/events/again/tickets").await.is(200),
    );
    assert_eq!(told(before), told(after));
    // Imported into its own event, it changes nothing.
    let same =
        service.unchanged(service.organizer.post_csv(format!("{TICKETS}?existing=update"), exported)).await.is(201);
    assert_members(&same, json!({ "created": 0, "updated": 0, "skipped": hard.len() }));
    let links = service.organizer.get("/api/events/default/links.csv").await.text();
    let made = service.organizer.post_csv("/api/events/again/tickets?existing=skip", links).await.is(201);
    assert_members(&made, json!({ "created": 0, "skipped": hard.len() }));
}

async fn a_seat_that_two_lines_name_is_told_however_they_write_it(service: Service) {
    for file in ["seat,gate\nA1,\nA1,Entrance\n", "seat\n12\n\u{ff11}\u{ff12}\n", "row,seat\nA,1\na,1\n"] {
        let refused = service.organizer.post_csv(TICKETS, file).await.is_refused(422, "invalid_payload");
        let error = &refused["errors"][0];
        assert_members(error, json!({ "field": "line 3", "code": "seat_twice", "params": { "line": 2 } }));
        let told = service.organizer.post_csv(format!("{TICKETS}?dry_run=true"), file).await.is(200);
        assert_eq!(told["errors"][0], *error);
    }
}

/// The code and the parameters of each error or notice.
fn told(told: &Value) -> Value {
    let told = told.as_array().expect("a list of errors or notices").iter();
    told.map(|told| json!([told["code"], told["params"]])).collect()
}

async fn a_list_that_comes_again_tells_what_it_does_not_change(service: Service) {
    let first = "reference,email,status\nR1,ana@x.org,paid\nR2,ben@x.org,paid\nR3,cy@x.org,paid\nR4,dee@x.org,paid\n";
    let made = service.organizer.post_csv(TICKETS, first).await.is(201);
    assert_eq!((&made["created"], &made["notices"]), (&json!(4), &Value::Null));
    // R1 has another holder now, R2 is cancelled, R3 was sold again under the same name, R4 is missing.
    let second =
        "reference,email,status\nR1,eve@x.org,paid\nR2,ben@x.org,refunded\nR3,cy@x.org,refunded\nR3,cy@x.org,paid\n";
    let skipped = service.organizer.post_csv(format!("{TICKETS}?existing=skip"), second).await.is(201);
    let (left_out, good) = (json!(["lines_left_out", { "count": 2 }]), json!(["still_good", { "count": 1 }]));
    let (missing, others) = (json!(["not_in_list", { "count": 1 }]), json!(["not_as_in_list", { "lines": [2] }]));
    assert_eq!(told(&skipped["notices"]), json!([left_out, good, missing, others]));
    let refused = service.organizer.post_csv(format!("{TICKETS}?existing=update"), second).await;
    assert_eq!(told(&refused.is_refused(422, "invalid_payload")["errors"]), json!([["other_holder", {}]]));
    let third = "reference,email,status\nR1,ana@x.org,paid\n";
    let updated = service.organizer.post_csv(format!("{TICKETS}?existing=update"), third).await.is(201);
    assert_eq!(told(&updated["notices"]), json!([["not_in_list", { "count": 3 }]]));
}

async fn seats_are_numbered_after_the_greatest_number(service: Service) {
    service.organizer.post_csv(TICKETS, "seat\n999999999\n").await.is(201);
    for number in 1_000_000_000..1_000_000_003_u64 {
        service.organizer.post_csv(TICKETS, "full_name\nAna\n".replace("Ana", &format!("Ana {number}"))).await.is(201);
        let found = service.organizer.get(format!("{TICKETS}?q={number}")).await.is(200);
        assert_eq!(found["tickets"][0]["seat"], number.to_string());
    }
}

async fn an_import_that_is_given_up_holds_its_place_until_its_file_is_read(service: Service) {
    let long: std::sync::Arc<str> = format!("seat,status\n{}", "Total,\n".repeat(1_000_000)).into();
    let short = async || service.organizer.post_csv(format!("{TICKETS}?dry_run=true"), "seat\nB1\n").await.status;
    let begin = || {
        let (organizer, long) = (service.organizer.clone(), long.clone());
        let whole = async move { organizer.post_csv(format!("{TICKETS}?dry_run=true"), long.as_bytes()).await };
        tokio::spawn(whole)
    };
    let mut import = begin();
    while short().await == 200 {
        // It may have finished before a short request met it: start another.
        if import.is_finished() {
            import = begin();
        }
    }
    import.abort();
    assert!(import.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(short().await, 429, "its file is still being read");
    while short().await != 200 {
        tokio::task::yield_now().await;
    }
}

async fn a_line_that_is_no_ticket_any_more_tells_of_the_ticket_that_is(service: Service) {
    for (number, (columns, one, two)) in [
        ("order,name", "X,Ana", "X,Ben"),
        ("email", "ana@x.org", "ben@x.org"),
        ("name", "Ana", "Ana"),
        ("seat,gate", "A1,North", "A2,North"),
        ("order,order_position", "X,1", "X,2"),
    ]
    .into_iter()
    .enumerate()
    {
        let slug = format!("gala-{number}");
        service.event(json!({ "slug": slug, "name": slug })).await;
        let tickets = format!("/api/events/{slug}/tickets");
        let file = |status: &str| format!("{columns},status\n{one},{status}\n{two},paid\n");
        assert_eq!(service.organizer.post_csv(&tickets, file("paid")).await.is(201)["created"], 2, "{columns}");
        let again = format!("{tickets}?existing=update");
        let answer = service.organizer.post_csv(&again, file("cancelled")).await.is(201);
        assert_members(&answer, json!({ "created": 0, "updated": 0 }));
        let expected = json!([["lines_left_out", { "count": 1 }], ["still_good", { "count": 1 }]]);
        assert_eq!(told(&answer["notices"]), expected, "{columns}");
    }
}

async fn a_seat_that_was_sold_again_or_is_revoked_is_told(service: Service) {
    let first = "reference,name,seat\nR1,Ana,A1\nR2,Luis,A2\nR3,Cy,A3\n";
    service.organizer.post_csv(TICKETS, first).await.is(201);
    let list = service.organizer.get(TICKETS).await.is(200);
    let cy = list["tickets"][2]["ticket_id"].as_str().expect("it has an id");
    service.organizer.post(format!("/api/tickets/{cy}/revoke"), json!({})).await.is(200);
    let second = "reference,name,seat\nR1,Ana,A1\nR5,Mar,A2\nR3,Cy,A3\n";
    let skipped = service.organizer.post_csv(format!("{TICKETS}?existing=skip"), second).await.is(201);
    let expected = json!([["not_as_in_list", { "lines": [3] }], ["still_revoked", { "lines": [4] }]]);
    assert_eq!(told(&skipped["notices"]), expected);
    let third = "reference,name,seat\nR1,Ana,A1\nR2,Mar,A2\n";
    let updated = service.organizer.post_csv(format!("{TICKETS}?existing=update"), third).await.is(201);
    assert_eq!(told(&updated["notices"]), json!([["renamed", { "lines": [3] }]]));
}
