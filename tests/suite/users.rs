//! People: who they are, and the erasure of what is known of them.

use serde_json::json;

use crate::service::{Service, walk, with};

on_both_databases! {
    a_user_is_created_and_shown,
    a_user_may_come_as_a_form,
    a_username_is_taken_whatever_its_case,
    a_user_with_a_wrong_field_is_refused,
    a_user_who_does_not_exist_is_not_found,
    the_tickets_of_a_user_are_listed_page_by_page,
    erasing_a_user_removes_the_person_and_keeps_the_counts,
    an_erased_user_cannot_enter,
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
    let file = "seat,gate,username,full_name,email\n\
                A1,North,ana.ruiz,Ana Ruiz,ana@example.com\n\
                A2,North,ana.ruiz,,\n\
                A3,North,luis,,\n";
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
    for trace in ["ana.ruiz", "ana ruiz", "ana@example.com", "passport"] {
        assert!(!rows.contains(trace), "{trace} is still there: {rows}");
    }
    // A1 came, A2 was still expected, A3 is somebody else's.
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
