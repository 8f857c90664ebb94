//! People, and the erasure of what is known of them.

use serde_json::json;

use crate::service::Service;

on_both_databases! {
    a_user_is_created_and_shown,
    a_username_is_taken_whatever_its_case,
}

async fn a_user_is_created_and_shown(service: Service) {
    let organizer = &service.organizer;
    let body = json!({ "username": "Ana.Ruiz", "full_name": "Ana Ruiz", "email": "ana@example.com" });
    let user = organizer.post("/api/users", body).await.is(201);
    assert_eq!(user["created_at"], service.time(0));
    assert_eq!(organizer.get("/api/users/ana.ruiz").await.is(200), user);
    assert_eq!(service.database.count("select count(*) from users").await, 1);
}

async fn a_username_is_taken_whatever_its_case(service: Service) {
    service.user("ana").await;
    let again = service.organizer.post("/api/users", json!({ "username": "ANA" }));
    service.unchanged(again).await.is_refused(409, "username_taken");
}
