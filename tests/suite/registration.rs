//! A ticket's holder: registration, transfer and reissue; and its revocation.

use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    a_registration_gives_the_ticket_and_its_secret,
    an_authenticator_app_is_told_one_issuer_whatever_the_events_name,
    a_secret_is_shown_once,
    a_registration_may_come_as_a_form,
    a_registration_without_an_event_means_the_default_one,
    a_registration_that_cannot_be_is_refused,
    a_revocation_holds_from_any_state_and_can_be_repeated,
    a_reissue_kills_the_old_code,
    a_reissue_makes_a_revoked_ticket_valid_again,
    a_reissue_of_a_used_ticket_is_refused,
    a_transfer_gives_a_new_code_to_a_new_holder,
    a_transfer_that_cannot_be_is_refused,
    a_ticket_that_does_not_exist_is_not_found,
}

const SCANS: &str = "/api/events/default/scans";

async fn a_registration_gives_the_ticket_and_its_secret(service: Service) {
    let ticket_id = service.seat("default", "A1", "North").await;
    let new = service.version("A1").await;
    service.user("ana").await;
    let body = json!({ "seat": "A1", "gate": "North", "event": "default" });
    let answer = service.organizer.post("/api/users/ANA/tickets", body).await.is(201);

    assert_eq!(answer["ticket_id"], ticket_id);
    assert_eq!(answer["username"], "ana");
    assert_eq!(answer["registered_at"], service.time(0));
    let provisioning = &answer["provisioning"];
    let secret = provisioning["secret"].as_str().unwrap_or_default();
    let otpauth_url = provisioning["otpauth_url"].as_str().unwrap_or_default();
    assert!(otpauth_url.starts_with("otpauth://totp/"), "{otpauth_url}");
    assert!(otpauth_url.contains(&format!("secret={secret}&")), "{otpauth_url}");
    assert_members(provisioning, json!({ "algorithm": "SHA1", "digits": 6 }));
    let registered = "select count(*) from tickets where user_id is not null and status = 'valid'";
    assert_eq!(service.database.count(registered).await, 1);
    assert_eq!(service.version("A1").await, new + 1);
    service.gate().await.post(SCANS, service.scan(&Ticket::new(&answer))).await.is_scan(200, "accepted");
}

async fn a_secret_is_shown_once(service: Service) {
    let ticket = service.ticket("A1").await;
    for path in [
        format!("/api/tickets/{}", ticket.ticket_id),
        format!("/api/users/{}/tickets", ticket.username),
        "/api/events/default/tickets".into(),
        "/api/events/default/tickets.csv".into(),
    ] {
        let text = service.organizer.get(&path).await.text();
        assert!(text.contains("A1") && !text.contains("provisioning") && !text.contains(&ticket.secret()), "{text}");
    }
}

async fn a_registration_may_come_as_a_form(service: Service) {
    service.seat("default", "Row A, 1", "North").await;
    service.user("ana").await;
    let answer = service.organizer.post_form("/api/users/ana/tickets", "seat=Row+A%2C+1&gate=North").await.is(201);
    assert_eq!(answer["seat"], "Row A, 1");
}

async fn a_registration_without_an_event_means_the_default_one(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    service.seat("other", "A1", "North").await;
    service.seat("default", "A1", "North").await;
    service.user("ana").await;
    let body = json!({ "seat": "A1", "gate": "North" });
    let answer = service.organizer.post("/api/users/ana/tickets", body).await.is(201);
    assert_eq!(answer["event"], "default");
}

async fn a_registration_that_cannot_be_is_refused(service: Service) {
    service.ticket("taken").await;
    let revoked = service.seat("default", "revoked", "North").await;
    service.organizer.bare(Method::POST, format!("/api/tickets/{revoked}/revoke")).await.is(200);
    service.user("ana").await;
    let register = async |seat: Value| service.unchanged(service.organizer.post("/api/users/ana/tickets", seat)).await;
    let taken = register(json!({ "seat": "taken", "gate": "North" })).await;
    taken.is_refused(409, "ticket_already_registered");
    register(json!({ "seat": "revoked", "gate": "North" })).await.is_refused(409, "ticket_revoked");
    register(json!({ "seat": "taken", "gate": "South" })).await.is_refused(404, "ticket_not_found");
    let elsewhere = register(json!({ "seat": "taken", "gate": "North", "event": "none" })).await;
    elsewhere.is_refused(404, "event_not_found");
    for wrong in [
        json!({ "seat": "taken" }),
        json!({ "seat": "taken", "gate": "North", "event": "Not A Slug" }),
        json!({ "seat": "", "gate": "North" }),
    ] {
        register(wrong).await.is_refused(422, "invalid_payload");
    }
}

async fn a_revocation_holds_from_any_state_and_can_be_repeated(service: Service) {
    let gate = service.gate().await;
    let unregistered = service.seat("default", "A1", "North").await;
    let registered = service.ticket("A2").await;
    let used = service.ticket("A3").await;
    gate.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");

    for ticket_id in [unregistered, registered.ticket_id.to_string(), used.ticket_id.to_string()] {
        let path = format!("/api/tickets/{ticket_id}/revoke");
        let revoked = service.organizer.bare(Method::POST, &path).await.is(200);
        assert_eq!(revoked["status"], "revoked");
        let again = service.unchanged(service.organizer.bare(Method::POST, path)).await.is(200);
        assert_eq!(again, revoked);
    }
    gate.post(SCANS, service.scan(&registered)).await.is_scan(410, "revoked");
    service.clock.advance(60_000);
    gate.post(SCANS, service.scan(&used)).await.is_scan(410, "revoked");
    assert_eq!(service.database.count("select count(*) from tickets where status = 'revoked'").await, 3);
}

/// The part of the label before its first colon is the issuer, and must equal the parameter of that name.
async fn an_authenticator_app_is_told_one_issuer_whatever_the_events_name(service: Service) {
    service.event(json!({ "slug": "rock", "name": "Rock: the opera" })).await;
    service.organizer.post("/api/events/rock/tickets", json!({ "seat": "A:1", "gate": "North" })).await.is(201);
    service.user("ana").await;
    let seat = json!({ "event": "rock", "seat": "A:1", "gate": "North" });
    let answer = service.organizer.post("/api/users/ana/tickets", seat).await.is(201);
    let url = answer["provisioning"]["otpauth_url"].as_str().unwrap_or_default();
    assert!(url.starts_with("otpauth://totp/Rock%20the%20opera%3AA%3A1%20%28North%29?"), "{url}");
    assert!(url.contains("&issuer=Rock%20the%20opera&"), "{url}");
}

async fn a_reissue_kills_the_old_code(service: Service) {
    let gate = service.gate().await;
    let old = service.ticket("A1").await;
    let answer = change(&service, &old, "reissue", None).await.is(200);
    let new = Ticket::new(&answer);
    assert_eq!(new.ticket_id, old.ticket_id);
    assert_eq!(new.username, old.username);
    gate.post(SCANS, service.scan(&old)).await.is_scan(422, "wrong_code");
    gate.post(SCANS, service.scan(&new)).await.is_scan(200, "accepted");
}

async fn a_reissue_makes_a_revoked_ticket_valid_again(service: Service) {
    let gate = service.gate().await;
    let old = service.ticket("A1").await;
    gate.post(SCANS, service.scan(&old)).await.is_scan(200, "accepted");
    change(&service, &old, "revoke", None).await.is(200);
    let answer = change(&service, &old, "reissue", None).await.is(200);
    assert_members(&answer, json!({ "status": "valid", "used_at": null }));
    gate.post(SCANS, service.scan(&old)).await.is_scan(422, "wrong_code");
    gate.post(SCANS, service.scan(&Ticket::new(&answer))).await.is_scan(200, "accepted");
}

async fn a_reissue_of_a_used_ticket_is_refused(service: Service) {
    let ticket = service.ticket("A1").await;
    service.gate().await.post(SCANS, service.scan(&ticket)).await.is_scan(200, "accepted");
    service.unchanged(change(&service, &ticket, "reissue", None)).await.is_refused(409, "ticket_used");
}

async fn a_transfer_gives_a_new_code_to_a_new_holder(service: Service) {
    let gate = service.gate().await;
    let old = service.ticket("A1").await;
    service.user("luis").await;
    service.clock.advance(1_000);
    let answer = change(&service, &old, "transfer", Some("LUIS")).await.is(200);
    let new = Ticket::new(&answer);
    assert_eq!(new.ticket_id, old.ticket_id);
    assert_eq!(new.username, "luis");
    assert_eq!(answer["registered_at"], service.time(0));
    gate.post(SCANS, service.scan(&old)).await.is_scan(422, "wrong_code");
    let admitted = gate.post(SCANS, service.scan(&new)).await.is_scan(200, "accepted");
    assert_eq!(admitted["ticket"]["username"], "luis");
}

async fn a_transfer_that_cannot_be_is_refused(service: Service) {
    let gate = service.gate().await;
    let valid = service.ticket("A1").await;
    let used = service.ticket("A2").await;
    gate.post(SCANS, service.scan(&used)).await.is_scan(200, "accepted");
    let revoked = service.ticket("A3").await;
    change(&service, &revoked, "revoke", None).await.is(200);
    let unregistered = service.seat("default", "A4", "North").await;
    service.user("luis").await;

    service.unchanged(change(&service, &used, "transfer", Some("luis"))).await.is_refused(409, "ticket_used");
    service.unchanged(change(&service, &revoked, "transfer", Some("luis"))).await.is_refused(409, "ticket_revoked");
    service.unchanged(change(&service, &valid, "transfer", Some("nobody"))).await.is_refused(404, "user_not_found");
    service.unchanged(change(&service, &valid, "transfer", Some("a/b"))).await.is_refused(422, "invalid_payload");
    let path = format!("/api/tickets/{unregistered}/transfer");
    let transfer = service.organizer.post(&path, json!({ "username": "luis" }));
    service.unchanged(transfer).await.is_refused(409, "ticket_not_registered");
}

async fn a_ticket_that_does_not_exist_is_not_found(service: Service) {
    service.user("luis").await;
    for ticket_id in [Uuid::now_v7().to_string(), "1".into(), "%00".into(), "..%2Fusers".into()] {
        let path = format!("/api/tickets/{ticket_id}");
        service.organizer.get(&path).await.is_refused(404, "ticket_not_found");
        service.organizer.get(format!("{path}/link")).await.is_refused(404, "ticket_not_found");
        for action in ["revoke", "reissue", "transfer", "print"] {
            let request = service.organizer.post(format!("{path}/{action}"), json!({ "username": "luis" }));
            service.unchanged(request).await.is_refused(404, "ticket_not_found");
        }
    }
}

async fn change(service: &Service, ticket: &Ticket, action: &str, to: Option<&str>) -> crate::client::Reply {
    let path = format!("/api/tickets/{}/{action}", ticket.ticket_id);
    match to {
        Some(username) => service.organizer.post(&path, json!({ "username": username })).await,
        None => service.organizer.bare(Method::POST, path).await,
    }
}
