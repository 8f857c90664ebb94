//! Exports of tickets and scans as CSV for a spreadsheet.

use serde_json::{Value, json};

use crate::client::Client;
use crate::service::{Service, Ticket, assert_members, with};

on_both_databases! {
    scans_are_exported_with_names_and_devices,
    who_is_inside_is_exported_for_an_evacuation,
    who_came_and_who_did_not_is_exported,
    where_nobody_is_scanned_out_everybody_who_came_is_inside,
    what_is_imported_is_exported_and_listed_column_by_column,
    tickets_are_exported_in_the_order_of_their_creation,
    scans_are_exported_in_the_order_of_their_receipt,
    what_a_spreadsheet_would_run_is_neutralised,
    an_export_goes_on_from_page_to_page,
    an_event_without_tickets_exports_the_header_alone,
}

/// Parses a file into rows.
fn records(text: &str) -> Vec<Vec<String>> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    reader.records().map(|line| line.expect("it is CSV").iter().map(str::to_owned).collect()).collect()
}

async fn what_is_imported_is_exported_and_listed_column_by_column(service: Service) {
    let tickets = "/api/events/default/tickets";
    let refused = service.organizer.post_csv(tickets, "nonsense\n").await.is_refused(422, "invalid_payload");
    let columns: Vec<String> = serde_json::from_value(refused["errors"][0]["params"]["known"].clone()).unwrap();
    assert!(columns.len() >= 5, "{columns:?}");
    // The values made from these are in other columns.
    const MADE_OF: [&str; 7] = ["row", "first_name", "last_name", "order", "order_position", "quantity", "status"];
    let columns: Vec<String> = columns.into_iter().filter(|column| !MADE_OF.contains(&column.as_str())).collect();
    let value = |column: &str| match column {
        "email" => "ana@example.com".to_owned(),
        "valid_from" => service.time(0),
        "valid_until" => service.time(1),
        column => format!("some-{column}"),
    };
    let values: Vec<String> = columns.iter().map(|column| value(column)).collect();
    let file = format!("{}\n{}\n", columns.join(","), values.join(","));
    service.organizer.post_csv(tickets, file).await.is(201);
    // The same without a holder, in another seat.
    let of_the_holder = ["username", "full_name", "email"];
    let own = columns.iter().filter(|column| !of_the_holder.contains(&column.as_str()));
    let made = own.map(|column| {
        (
            column.clone(),
            match column.as_str() {
                "seat" => "A2".into(),
                "reference" => "another".into(),
                _ => value(column).into(),
            },
        )
    });
    let made = Value::Object(made.collect());
    service.organizer.post(tickets, made.clone()).await.is(201);

    let list = service.organizer.get(tickets).await.is(200);
    assert_members(&list["tickets"][1], made);
    let text = service.organizer.get(format!("{tickets}.csv")).await.text();
    let lines = records(&text);
    for column in &columns {
        let place = lines[0].iter().position(|name| name == column);
        let place = place.unwrap_or_else(|| panic!("tickets.csv has no {column}"));
        assert_eq!(lines[1][place], value(column), "{column}");
        if column != "email" {
            assert_eq!(list["tickets"][0][column], value(column), "{column}");
        }
    }
}

async fn tickets_are_exported_in_the_order_of_their_creation(service: Service) {
    let file = "seat,gate,username,full_name,email\nB1,North,ana,\"Ruiz, Ana\",ana@example.com\nA1,South,,,\n";
    service.organizer.post_csv("/api/events/default/tickets", file).await.is(201);
    let reply = service.organizer.get("/api/events/default/tickets.csv").await;
    assert_eq!(reply.header("content-disposition"), "attachment; filename=\"tickets-default.csv\"");
    let text = reply.text();
    let lines = records(&text);
    let header = "ticket_id,seat,gate,status,username,full_name,email,inside,created_at,registered_at,used_at,reference,\
                  category,note,valid_from,valid_until,mailed_at,walk_up,paid";
    assert_eq!(lines[0].join(","), header);
    let now = service.time(0);
    let first = ["B1", "North", "valid", "ana", "Ruiz, Ana", "ana@example.com", "false", &now, &now];
    assert_eq!(lines[1][1..10], first);
    assert_eq!(lines[2][1..10], ["A1", "South", "valid", "", "", "", "false", &now, ""]);
    assert!(lines[1..].iter().all(|line| line[10..17] == [""; 7] && line[17..] == ["false", ""]), "{lines:?}");
    assert_eq!(lines.len(), 3);
}

async fn scans_are_exported_in_the_order_of_their_receipt(service: Service) {
    let gate = service.gate().await;
    let ticket = service.ticket("A1").await;
    let first = with(service.scan(&ticket), json!({ "scan_id": "ffffffff-0000-7000-8000-000000000001" }));
    gate.post("/api/events/default/scans", first).await.is_scan(200, "accepted");
    service.clock.advance(30_000);
    let second = with(service.scan(&ticket), json!({ "scan_id": "00000000-0000-7000-8000-000000000002" }));
    gate.post("/api/events/default/scans", second).await.is_scan(409, "already_used");

    let text = service.organizer.get("/api/events/default/scans.csv").await.text();
    let lines = records(&text);
    assert_eq!(
        lines[0].join(","),
        "scan_id,ticket_id,seat,gate,at_gate,direction,result,offline_result,manual,note,scanned_at,received_at,key_id,\
         undone_at,undone_by,vouched_by,full_name,category,walk_up,key_name,undone_by_name"
    );
    let start = format!("ffffffff-0000-7000-8000-000000000001,{},A1,North,,entry,accepted,,false,", ticket.ticket_id);
    assert_eq!(lines[1][..10].join(","), start);
    assert_eq!(lines[2][6], "already_used");
    assert_eq!(lines.len(), 3);
}

async fn what_a_spreadsheet_would_run_is_neutralised(service: Service) {
    for seat in ["=1+1", "+1", "-1", "@SUM(A1)", "1-1"] {
        service.seat("default", seat, "=cmd").await;
    }
    service.organizer.post("/api/users", json!({ "username": "@ana", "full_name": "Ana;=1, \"+1\"" })).await.is(201);
    let registration = json!({ "seat": "1-1", "gate": "=cmd" });
    service.organizer.post("/api/users/@ana/tickets", registration).await.is(201);
    let by_hand = json!({
        "scan_id": "01a0a0a0-0000-7000-8000-000000000001", "seat": "1-1", "gate": "=cmd", "manual": true, "note": "=1",
    });
    service.supervisor().await.post("/api/events/default/scans", by_hand).await.is_scan(200, "accepted");

    for path in ["tickets.csv", "scans.csv"] {
        let text = service.organizer.get(format!("/api/events/default/{path}")).await.text();
        assert!(
            text.trim_start_matches('\u{feff}').lines().all(|line| line.starts_with('"') && line.ends_with('"')),
            "{text}"
        );
        // Wherever a spreadsheet in any language may split.
        for field in text.split([',', ';', '\t', '|', '\n']) {
            assert!(!field.trim_start_matches(['"', ' ']).starts_with(['=', '+', '-', '@']), "{field} in {text}");
        }
    }
    let text = service.organizer.get("/api/events/default/tickets.csv").await.text();
    let lines = records(&text);
    assert_eq!(lines[4][1..3], ["'@SUM(A1)", "'=cmd"]);
    assert_eq!(lines[5][1..6], ["1-1", "'=cmd", "used", "'@ana", "Ana;'=1, \"'+1\""]);
}

/// More rows than one page has, all received in the same millisecond.
async fn an_export_goes_on_from_page_to_page(service: Service) {
    let seats: String = (1..=2_001).map(|seat| format!("{seat},North\n")).collect();
    service.organizer.post_csv("/api/events/default/tickets", format!("seat,gate\n{seats}")).await.is(201);
    let text = service.organizer.get("/api/events/default/tickets.csv").await.text();
    let ids: std::collections::BTreeSet<&str> =
        text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(text.lines().count(), 2_002);
    assert_eq!(ids.len(), 2_001);

    for _ in 0..3 {
        let scans: Vec<_> = (0..400)
            .map(|_| {
                json!({
                    "scan_id": uuid::Uuid::new_v4(), "code": "not ours", "scanned_at": service.time(0),
                    "offline_result": "unknown_ticket",
                })
            })
            .collect();
        service.organizer.post("/api/events/default/scans/batch", json!({ "scans": scans })).await.is(200);
    }
    let text = service.organizer.get("/api/events/default/scans.csv").await.text();
    let ids: std::collections::BTreeSet<&str> =
        text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    assert_eq!(text.lines().count(), 1_201);
    assert_eq!(ids.len(), 1_200);
}

async fn an_event_without_tickets_exports_the_header_alone(service: Service) {
    for path in ["tickets.csv", "scans.csv"] {
        let text = service.organizer.get(format!("/api/events/default/{path}")).await.text();
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

/// The rows of a list as objects.
async fn listed(client: &Client, path: &str) -> Vec<Value> {
    let text = client.get(path).await.text();
    let mut lines = records(&text).into_iter();
    let header = lines.next().expect("there is a header");
    let object = |line: Vec<String>| header.iter().cloned().zip(line.into_iter().map(Value::from)).collect();
    lines.map(|line| Value::Object(object(line))).collect()
}

async fn scans_are_exported_with_names_and_devices(service: Service) {
    let list = "seat,gate,username,full_name,category\nA1,North,ana,Ana Ruiz,Adult\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    let north = service.key(json!({ "name": "North door", "role": "supervisor" })).await;
    let chief = service.key(json!({ "name": "Chief", "role": "supervisor" })).await;
    let by_hand = |seat: &str| json!({ "scan_id": uuid::Uuid::now_v7(), "seat": seat, "gate": "North", "manual": true, "note": "knows her" });
    let scan = north.post("/api/events/default/scans", by_hand("A1")).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().expect("an id"));
    chief.bare(http::Method::POST, undo).await.is(200);
    service.clock.advance(1_000);
    service.organizer.post("/api/events/default/scans", by_hand("nowhere")).await.is_scan(404, "unknown_ticket");
    let scans = listed(&service.organizer, "/api/events/default/scans.csv").await;
    let named = json!({
        "seat": "A1", "gate": "North", "full_name": "Ana Ruiz", "category": "Adult", "walk_up": "false",
        "key_name": "North door", "undone_by_name": "Chief",
    });
    assert_members(&scans[0], named);
    let unknown = json!({
        "seat": "", "full_name": "", "category": "", "walk_up": "", "key_name": "", "undone_by_name": "", "undone_at": "",
    });
    assert_members(&scans[1], unknown);
    assert_eq!(scans.len(), 2);
}

/// An event with re-entry, and three tickets with holders.
async fn evening(service: &Service) -> [Ticket; 3] {
    service.event(json!({ "slug": "gala", "name": "Gala", "reentry": "after_exit" })).await;
    let list = "seat,gate,category,note\nC1,South,Adult,wheelchair\n";
    service.organizer.post_csv("/api/events/gala/tickets", list).await.is(201);
    let (ana, bea) = (service.ticket_of("gala", "A1", "North").await, service.ticket_of("gala", "B1", "North").await);
    service.organizer.post("/api/users", json!({ "username": "cy", "full_name": "Cy Roe" })).await.is(201);
    let cy = json!({ "seat": "C1", "gate": "South", "event": "gala" });
    [ana, bea, Ticket::new(&service.organizer.post("/api/users/cy/tickets", cy).await.is(201))]
}

async fn pass(service: &Service, ticket: &Ticket, direction: &str) {
    service.clock.advance(60_000);
    let scan = with(service.scan(ticket), json!({ "direction": direction }));
    service.organizer.post("/api/events/gala/scans", scan).await.is_scan(200, "accepted");
}

async fn who_is_inside_is_exported_for_an_evacuation(service: Service) {
    let [ana, bea, cy] = evening(&service).await;
    let passes = [(&ana, "entry"), (&bea, "entry"), (&cy, "entry"), (&bea, "exit"), (&cy, "exit"), (&cy, "entry")];
    for (ticket, direction) in passes {
        pass(&service, ticket, direction).await;
    }
    let of = |role: &str, further: Value| with(json!({ "name": "x", "role": role, "event": "gala" }), further);
    // People may leave through any door.
    let supervisor = service.key(of("supervisor", json!({ "gate": "North" }))).await;
    let inside = listed(&supervisor, "/api/events/gala/inside.csv").await;
    assert_eq!(inside.len(), 2, "{inside:#?}");
    let expected = json!({
        "full_name": "Cy Roe", "seat": "C1", "gate": "South", "category": "Adult", "note": "wheelchair",
        "inside_since": service.time(0), "came_in_at": "South",
    });
    assert!(inside.contains(&expected), "{inside:#?}");
    assert!(inside.iter().any(|line| line["seat"] == "A1"), "{inside:#?}");
    let gate = service.key(of("gate", json!({}))).await;
    gate.get("/api/events/gala/inside.csv").await.is_refused(403, "forbidden");
    service.event(json!({ "slug": "ball", "name": "Ball" })).await;
    let elsewhere = service.key(json!({ "name": "x", "role": "supervisor", "event": "ball" })).await;
    elsewhere.get("/api/events/gala/inside.csv").await.is_refused(403, "forbidden");
    assert_eq!(listed(&elsewhere, "/api/events/ball/inside.csv").await, [Value::Null; 0]);
}

async fn where_nobody_is_scanned_out_everybody_who_came_is_inside(service: Service) {
    let (came, _) = (service.ticket("A1").await, service.ticket("A2").await);
    service.organizer.post("/api/events/default/scans", service.scan(&came)).await.is_scan(200, "accepted");
    let inside = listed(&service.organizer, "/api/events/default/inside.csv").await;
    assert_eq!(inside.len(), 1);
    assert_members(&inside[0], json!({ "seat": "A1", "inside_since": service.time(0), "came_in_at": "North" }));
}

async fn who_came_and_who_did_not_is_exported(service: Service) {
    let [ana, bea, cy] = evening(&service).await;
    service.seat("gala", "free", "North").await;
    let revoked = service.ticket_of("gala", "D1", "North").await;
    service.organizer.bare(http::Method::POST, format!("/api/tickets/{}/revoke", revoked.ticket_id)).await.is(200);
    for (ticket, direction) in [(&ana, "entry"), (&ana, "exit"), (&ana, "entry"), (&cy, "entry")] {
        pass(&service, ticket, direction).await;
    }
    let lines = listed(&service.organizer, "/api/events/gala/attendance.csv").await;
    assert_eq!(lines.len(), 4, "the free ticket has no holder: {lines:#?}");
    let of =
        |ticket: &Ticket| lines.iter().find(|line| line["ticket_id"] == json!(ticket.ticket_id)).expect("its line");
    let first = json!({
        "attendance": "came", "username": ana.username, "first_entry_at": service.time(-180_000),
        "first_entry_gate": "North", "last_entry_at": service.time(-60_000), "last_entry_gate": "North",
        "inside": "true", "walk_up": "false",
    });
    assert_members(of(&ana), first);
    let none = json!({
        "attendance": "no_show", "first_entry_at": "", "first_entry_gate": "", "last_entry_at": "", "inside": "false",
    });
    assert_members(of(&bea), none);
    assert_members(of(&cy), json!({ "attendance": "came", "full_name": "Cy Roe", "category": "Adult" }));
    assert_members(of(&revoked), json!({ "attendance": "revoked" }));
    service.supervisor().await.get("/api/events/gala/attendance.csv").await.is_refused(403, "forbidden");
    let bound = service.key(json!({ "name": "b", "role": "organizer", "event": "gala" })).await;
    service.organizer.patch("/api/users/cy", json!({ "email": "cy@example.org" })).await.is(200);
    let email = async |client: &Client| {
        let lines = listed(client, "/api/events/gala/attendance.csv").await;
        lines.iter().find(|line| line["full_name"] == "Cy Roe").expect("his line")["email"].clone()
    };
    assert_eq!((email(&service.organizer).await, email(&bound).await), (json!("cy@example.org"), json!("")));
}
