//! Tickets and scans as CSV, for a spreadsheet.

use serde_json::{Value, json};

use crate::service::{Service, assert_members, with};

on_both_databases! {
    what_is_imported_is_exported_and_listed_column_by_column,
    tickets_are_exported_in_the_order_of_their_creation,
    scans_are_exported_in_the_order_of_their_receipt,
    what_a_spreadsheet_would_run_is_neutralised,
    an_export_goes_on_from_page_to_page,
    an_event_without_tickets_exports_the_header_alone,
}

/// The lines of a file, read.
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
    // What is made of these is in other columns.
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
    // The same without a holder, and at another seat.
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
         undone_at,undone_by,vouched_by"
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
        // Wherever a spreadsheet of any language splits.
        for field in text.split([',', ';', '\t', '|', '\n']) {
            assert!(!field.trim_start_matches(['"', ' ']).starts_with(['=', '+', '-', '@']), "{field} in {text}");
        }
    }
    let text = service.organizer.get("/api/events/default/tickets.csv").await.text();
    let lines = records(&text);
    assert_eq!(lines[4][1..3], ["'@SUM(A1)", "'=cmd"]);
    assert_eq!(lines[5][1..6], ["1-1", "'=cmd", "used", "'@ana", "Ana;'=1, \"'+1\""]);
}

/// More members than one page has, all received in the same millisecond.
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
