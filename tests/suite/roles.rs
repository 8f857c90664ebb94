//! Who may do what: by role, and by the event and gate that a key is bound to.

use http::Method;
use register_ticket_api::model::Role;
use register_ticket_api::routes::ROUTES;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::service::{Service, assert_members};

on_both_databases! {
    each_route_takes_its_role_and_the_greater_ones,
    a_key_bound_to_an_event_has_its_role_there_only,
    an_organizer_bound_to_an_event_sees_nothing_of_others,
    a_key_bound_to_a_gate_scans_at_that_gate_whatever_it_says,
    only_an_offline_key_works_offline,
}

/// The lowest role that each route accepts, by the specification; `None` if no key is needed.
fn least_role(method: &Method, path: &str) -> Option<Role> {
    match (method.as_str(), path) {
        // Pages contain nothing before a sign-in, or their link is the key.
        ("GET", page) if !page.starts_with("/api/") && page != "/metrics" => None,
        ("POST", "/api/enrol" | "/api/enrol/offer") => None,
        ("GET", "/metrics" | "/api/events/{event}/stats" | "/api/events/{event}/manifest") => Some(Role::Gate),
        ("POST", "/api/users/attendance" | "/api/events/{event}/scans" | "/api/events/{event}/scans/batch") => {
            Some(Role::Gate)
        }
        ("POST", "/api/scans/{scan_id}/undo" | "/api/events/{event}/walk-ups")
        | ("GET", "/api/events/{event}/guests" | "/api/events/{event}/inside.csv") => Some(Role::Supervisor),
        _ => Some(Role::Organizer),
    }
}

/// The rank of a role, by the specification.
fn rank(role: Option<Role>) -> usize {
    match role {
        None => 0,
        Some(Role::Gate) => 1,
        Some(Role::Supervisor) => 2,
        Some(Role::Organizer) => 3,
    }
}

/// A client with a role's key, or without a key.
struct Caller {
    role: Option<Role>,
    client: Client,
}

impl Caller {
    /// One caller of each kind.
    async fn all(service: &Service) -> Vec<Self> {
        let mut callers = vec![Self { role: None, client: service.anonymous.clone() }];
        for role in Role::ALL {
            let key = json!({ "name": "x", "role": role.as_str(), "offline": true });
            callers.push(Self { role: Some(*role), client: service.key(key).await });
        }
        callers
    }
}

async fn each_route_takes_its_role_and_the_greater_ones(service: Service) {
    let callers = Caller::all(&service).await;
    for route in ROUTES {
        let path = route
            .path
            .replace("{event}", "default")
            .replace("{username}", "nobody")
            .replace("{ticket_id}", &Uuid::nil().to_string())
            .replace("{scan_id}", &Uuid::nil().to_string())
            .replace("{key_id}", &Uuid::nil().to_string());
        for Caller { role, client } in &callers {
            let request = client.send_as(route.method.clone(), &path, "application/json", "{}");
            if rank(*role) >= rank(least_role(&route.method, route.path)) {
                let status = request.await.status.as_u16();
                assert!(![401, 403].contains(&status), "{} {path} as {role:?}: {status}", route.method);
            } else if role.is_none() {
                service.unchanged(request).await.is_refused(401, "unauthenticated");
            } else {
                service.unchanged(request).await.is_refused(403, "forbidden");
            }
        }
    }
}

async fn a_key_bound_to_an_event_has_its_role_there_only(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let here = service.ticket_of("spring", "A1", "North").await;
    let elsewhere = service.ticket("A1").await;
    let body = json!({ "name": "x", "role": "supervisor", "event": "spring", "offline": true });
    let bound = service.key(body).await;
    let scan = service.gate().await.post("/api/events/default/scans", service.scan(&elsewhere)).await;
    let scan = scan.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());

    for event in ["default", "none"] {
        let event = format!("/api/events/{event}");
        for path in ["stats", "manifest"] {
            bound.get(format!("{event}/{path}")).await.is_refused(403, "forbidden");
        }
        let body = service.scan(&elsewhere);
        service.unchanged(bound.post(format!("{event}/scans"), body)).await.is_refused(403, "forbidden");
        let batch = bound.post(format!("{event}/scans/batch"), json!({ "scans": [] }));
        service.unchanged(batch).await.is_refused(403, "forbidden");
    }
    let attendance = json!({ "seat": "A1", "gate": "North", "totp_code": "000000" });
    service.unchanged(bound.post("/api/users/attendance", attendance)).await.is_refused(403, "forbidden");
    service.unchanged(bound.bare(Method::POST, undo)).await.is_refused(403, "forbidden");
    bound.get("/metrics").await.is_refused(403, "forbidden");

    bound.get("/api/events/spring/stats").await.is(200);
    // Tickets of another event are unknown in this one.
    bound.post("/api/events/spring/scans", service.scan(&elsewhere)).await.is_scan(404, "unknown_ticket");
    let scan = bound.post("/api/events/spring/scans", service.scan(&here)).await.is_scan(200, "accepted");
    let undo = format!("/api/scans/{}/undo", scan["scan_id"].as_str().unwrap_or_default());
    bound.bare(Method::POST, undo).await.is(200);
}

async fn an_organizer_bound_to_an_event_sees_nothing_of_others(service: Service) {
    service.event(json!({ "slug": "spring", "name": "Spring" })).await;
    let elsewhere = service.ticket("A1").await;
    service.organizer.post("/api/keys", json!({ "name": "other", "role": "gate", "event": "default" })).await.is(201);
    let bound = service.key(json!({ "name": "x", "role": "organizer", "event": "spring" })).await;
    service.user("luis").await;

    let forbidden = |reply: Reply| drop(reply.is_refused(403, "forbidden"));
    forbidden(bound.get("/api/events").await);
    forbidden(service.unchanged(bound.post("/api/events", json!({ "slug": "x", "name": "x" }))).await);
    for path in ["", "/tickets", "/tickets.csv", "/scans.csv", "/links.csv", "/conflicts", "/stats", "/manifest"] {
        forbidden(bound.get(format!("/api/events/default{path}")).await);
    }
    forbidden(service.unchanged(bound.patch("/api/events/default", json!({ "name": "mine" }))).await);
    forbidden(service.unchanged(bound.delete("/api/events/default")).await);
    let ticket = json!({ "seat": "B1", "gate": "North" });
    forbidden(service.unchanged(bound.post("/api/events/default/tickets", ticket.clone())).await);
    forbidden(service.unchanged(bound.post_csv("/api/events/default/tickets", "seat,gate\nB1,a\n")).await);
    forbidden(service.unchanged(bound.post("/api/users/luis/tickets", ticket)).await);
    let path = format!("/api/tickets/{}", elsewhere.ticket_id);
    forbidden(bound.get(&path).await);
    forbidden(bound.get(format!("{path}/link")).await);
    for action in ["revoke", "reissue", "transfer", "print"] {
        let request = bound.post(format!("{path}/{action}"), json!({ "username": "luis" }));
        forbidden(service.unchanged(request).await);
    }
    for key in [json!({ "name": "x", "role": "gate" }), json!({ "name": "x", "role": "gate", "event": "default" })] {
        forbidden(service.unchanged(bound.post("/api/keys", key)).await);
    }
    let keys = service.organizer.get("/api/keys").await.is(200);
    let other_key = keys["keys"][0]["key_id"].as_str().unwrap_or_default().to_owned();
    forbidden(service.unchanged(bound.delete(format!("/api/keys/{other_key}"))).await);

    // It can see its own.
    let keys = bound.get("/api/keys").await.is(200);
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1));
    bound.post("/api/keys", json!({ "name": "x", "role": "gate", "event": "spring" })).await.is(201);
    bound.post("/api/events/spring/tickets", json!({ "seat": "B1", "gate": "North" })).await.is(201);
}

async fn a_key_bound_to_a_gate_scans_at_that_gate_whatever_it_says(service: Service) {
    let north = service.ticket_of("default", "A1", "North").await;
    let south = service.ticket_of("default", "A2", "South").await;
    let gate = service.key(json!({ "name": "x", "role": "gate", "event": "default", "gate": "North" })).await;
    let claim = |mut scan: Value| {
        scan["at_gate"] = json!("South");
        scan
    };
    let refused = gate.post("/api/events/default/scans", claim(service.scan(&south))).await;
    let refused = refused.is_scan(409, "wrong_gate");
    assert_members(&refused, json!({ "at_gate": "North", "right_gate": "South" }));
    let admitted = gate.post("/api/events/default/scans", claim(service.scan(&north))).await.is_scan(200, "accepted");
    assert_eq!(admitted["at_gate"], "North");
    assert_eq!(service.database.count("select count(*) from scans where at_gate = 'North'").await, 2);
}

async fn only_an_offline_key_works_offline(service: Service) {
    for gate in [service.gate().await, service.supervisor().await] {
        gate.get("/api/events/default/manifest").await.is_refused(403, "forbidden");
        let batch = gate.post("/api/events/default/scans/batch", json!({ "scans": [] }));
        service.unchanged(batch).await.is_refused(403, "forbidden");
    }
    for gate in [service.offline_gate().await, service.organizer.clone()] {
        gate.get("/api/events/default/manifest").await.is(200);
        gate.post("/api/events/default/scans/batch", json!({ "scans": [] })).await.is(200);
    }
}
