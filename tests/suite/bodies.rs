//! Hostile and malformed requests: each is refused with a reason, without a server error, and without changing a row.

use std::collections::BTreeMap;

use http::{Method, Request};
use register_ticket_api::routes::{ROUTES, Route};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Service, Ticket, assert_members};

on_both_databases! {
    a_body_that_is_not_json_is_refused_by_line_and_column,
    a_body_of_another_type_is_refused,
    a_field_that_is_missing_unknown_or_twice_is_named,
    an_array_is_not_taken_for_an_object,
    a_form_that_is_not_utf_8_is_refused,
    hostile_bodies_change_nothing_anywhere,
    what_was_sent_is_not_repeated,
    a_path_takes_its_methods_and_says_which,
    head_is_get_without_the_body,
    what_is_no_path_is_not_found,
    every_answer_is_for_nobodys_cache_and_of_the_type_it_says,
}

async fn a_body_that_is_not_json_is_refused_by_line_and_column(service: Service) {
    for (body, place) in [
        ("", "line 1, column 0"),
        ("{", "line 1, column 1"),
        ("{\"username\": \"ana\",\n \"email\" 1}", "line 2, column 10"),
        ("{\"username\": \"ana\"} x", "line 1, column 21"),
        ("\u{feff}{}", "line 1, column 1"),
        ("username=ana", "line 1, column 1"),
    ] {
        let request = service.organizer.send_as(Method::POST, "/api/users", "application/json", body);
        let problem = service.unchanged(request).await.is_refused(400, "malformed_json");
        assert!(problem["detail"].as_str().unwrap_or_default().contains(place), "{body}: {problem}");
    }
}

async fn a_body_of_another_type_is_refused(service: Service) {
    let body = json!({ "username": "ana" }).to_string();
    for media_type in ["", "text/plain", "application/jsonp", "text/json", "multipart/form-data", "application/xml"] {
        let request = service.organizer.send_as(Method::POST, "/api/users", media_type, body.clone());
        service.unchanged(request).await.is_refused(415, "unsupported_media_type");
    }
    let ticket = service.ticket("A1").await;
    for (method, path) in routes_with_a_body(&ticket) {
        let request = service.organizer.send_as(method, path, "text/plain", body.clone());
        service.unchanged(request).await.is_refused(415, "unsupported_media_type");
    }
    let form = service.organizer.post_form("/api/events", "slug=x&name=x");
    service.unchanged(form).await.is_refused(415, "unsupported_media_type");
    let untyped = Request::builder().method(Method::POST).uri("/api/users");
    service.unchanged(service.organizer.send(untyped, body.clone())).await.is_refused(415, "unsupported_media_type");
    let typed = "Application/JSON; charset=utf-8";
    service.organizer.send_as(Method::POST, "/api/users", typed, body).await.is(201);
}

/// A body and its wrong field.
struct Wrong {
    body: &'static str,
    field: &'static str,
    code: &'static str,
    params: Value,
    message: &'static str,
}

async fn a_field_that_is_missing_unknown_or_twice_is_named(service: Service) {
    let known = ["username", "full_name", "email"];
    let object = || json!({ "expected": "object" });
    let string = || json!({ "expected": "string" });
    for Wrong { body, field, code, params, message } in [
        Wrong { body: "{}", field: "username", code: "required", params: json!({}), message: "is required" },
        Wrong {
            body: r#"{"username":"ana","usernam":"ana"}"#,
            field: "usernam",
            code: "unknown",
            params: json!({ "known": known }),
            message: "is not known",
        },
        Wrong {
            body: r#"{"username":"ana","username":"luis"}"#,
            field: "username",
            code: "given_twice",
            params: json!({}),
            message: "is given twice",
        },
        Wrong {
            body: r#"{"username":["ana"]}"#,
            field: "username",
            code: "wrong_type",
            params: string(),
            message: "expected a string",
        },
        Wrong {
            body: r#"{"username":null}"#,
            field: "username",
            code: "wrong_type",
            params: string(),
            message: "expected a string",
        },
        Wrong { body: "[]", field: "body", code: "wrong_type", params: object(), message: "expected an object" },
        Wrong { body: "null", field: "body", code: "wrong_type", params: object(), message: "expected an object" },
        Wrong { body: "7", field: "body", code: "wrong_type", params: object(), message: "expected an object" },
    ] {
        let request = service.organizer.send_as(Method::POST, "/api/users", "application/json", body);
        let problem = service.unchanged(request).await.is_refused(422, "invalid_payload");
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
        assert_eq!((&problem["errors"][0]["code"], &problem["errors"][0]["params"]), (&json!(code), &params), "{body}");
        assert!(problem["errors"][0]["message"].as_str().unwrap_or_default().contains(message), "{body}: {problem}");
    }
    let form = service.organizer.post_form("/api/users", "username=ana&username=luis");
    let problem = service.unchanged(form).await.is_refused(422, "invalid_payload");
    assert_eq!(problem["errors"][0]["message"], "is given twice");
}

/// An array with the values in field order.
async fn an_array_is_not_taken_for_an_object(service: Service) {
    let user = service.ticket("A1").await.username;
    let (id, now) = (Uuid::now_v7(), service.time(0));
    let scan = json!([id, "RT1", null, null, null, null, null, null, null, now, "accepted"]);
    let errors = async |path: &str, body: Value| {
        let refused = service.unchanged(service.organizer.post(path, body)).await;
        refused.is_refused(422, "invalid_payload")["errors"].clone()
    };
    let no_object = |field: &str| json!([{ "field": field, "code": "wrong_type", "params": { "expected": "object" }, "message": "expected an object" }]);
    for (path, body) in [
        ("/api/users", json!(["ana", "Ana", null])),
        (&*format!("/api/users/{user}/tickets"), json!(["A2", "North", null])),
        ("/api/users/attendance", json!(["A1", "North", "123456", null, null])),
        ("/api/events", json!(["fair", "Fair", null, null, null, null])),
        ("/api/events/default/scans", scan.clone()),
        ("/api/events/default/scans/batch", json!([[]])),
        ("/api/keys", json!(["door", "gate", null, null, false, null])),
    ] {
        assert_eq!(errors(path, body).await, no_object("body"), "{path}");
    }
    let tickets = "/api/events/default/tickets";
    assert_eq!(errors(tickets, json!([["A2", "North"]])).await, no_object("[0]"));
    let second = json!([{ "seat": "A2", "gate": "North" }, ["A3", "North"]]);
    assert_eq!(errors(tickets, second).await, no_object("[1]"));
    let batch = service.organizer.post("/api/events/default/scans/batch", json!({ "scans": [scan] }));
    let results = service.unchanged(batch).await.is(200)["results"].clone();
    assert_members(&results[0], json!({ "status": 422, "scan_id": null }));
}

async fn a_form_that_is_not_utf_8_is_refused(service: Service) {
    let user = service.ticket("A1").await.username;
    let scan = b"seat=A1&gate=North&totp_code=000000".as_slice();
    for end in [b"%FF".as_slice(), b"\xff", b"%C3", b"%ED%A0%80"] {
        for (path, form) in [
            ("/api/users", b"username=ana&full_name=".as_slice()),
            (&*format!("/api/users/{user}/tickets"), b"seat=A1&gate="),
            ("/api/users/attendance", scan),
        ] {
            let form = service.organizer.post_form(path, [form, end].concat());
            let problem = service.unchanged(form).await.is_refused(422, "invalid_payload");
            assert_eq!(
                problem["errors"],
                json!([{ "field": "body", "code": "not_utf8", "params": {}, "message": "is not UTF-8" }]),
                "{path}"
            );
        }
    }
}

/// Every route that reads a body, with existing names in its path.
fn routes_with_a_body(ticket: &Ticket) -> impl Iterator<Item = (Method, String)> {
    let without = |path: &str| {
        ["/revoke", "/reissue", "/print", "/{key_id}/enrol", "/lost", "/take", "/undo", "/printed"]
            .iter()
            .any(|end| path.ends_with(end))
    };
    let takes_one = move |route: &&Route| [Method::POST, Method::PATCH].contains(&route.method) && !without(route.path);
    ROUTES.iter().filter(takes_one).map(|route| {
        let path = route
            .path
            .replace("{event}", "default")
            .replace("{username}", &ticket.username)
            .replace("{ticket_id}", &ticket.ticket_id.to_string());
        (route.method.clone(), path)
    })
}

async fn hostile_bodies_change_nothing_anywhere(service: Service) {
    let ticket = service.ticket("A1").await;
    let deep = "[".repeat(30_000);
    let deep_object = format!("{}1{}", "{\"seat\":".repeat(5_000), "}".repeat(5_000));
    let long = format!("{{\"seat\":\"{0}\",\"gate\":\"{0}\"}}", "x".repeat(5_000));
    let bodies: [&[u8]; 12] = [
        b"",
        b"{\"a\":",
        b"\xff\xfe{}",
        b"{\"seat\":\"\xc3\x28\",\"gate\":\"N\"}",
        b"{\"seat\":\"\\ud800\",\"gate\":\"N\"}",
        b"{\"seat\":\"a\\u0000\",\"gate\":\"N\",\"totp_code\":\"\\u0000\"}",
        b"{\"scan_id\":\"00000000-0000-0000-0000-000000000000\",\"scan_id\":1}",
        b"{\"name\":1e999}",
        b"null",
        deep.as_bytes(),
        deep_object.as_bytes(),
        long.as_bytes(),
    ];
    let before = service.database.snapshot().await;
    for (method, path) in routes_with_a_body(&ticket) {
        for body in bodies {
            for media_type in ["application/json", "application/x-www-form-urlencoded", "text/csv"] {
                let reply = service.organizer.send_as(method.clone(), &path, media_type, body).await;
                assert!(reply.status.is_client_error(), "{method} {path}: {}", reply.text());
            }
        }
    }
    assert_eq!(service.database.snapshot().await, before);
}

async fn what_was_sent_is_not_repeated(service: Service) {
    let bodies = [
        json!({ "scan_id": "hunter2", "code": "hunter2" }),
        json!({ "direction": "hunter2" }),
        json!({ "code": ["hunter2"] }),
    ];
    for body in bodies {
        let reply = service.organizer.post("/api/events/default/scans", body).await;
        reply.is_refused(422, "invalid_payload");
        assert!(!reply.text().contains("hunter2"), "{}", reply.text());
    }
}

async fn a_path_takes_its_methods_and_says_which(service: Service) {
    let mut paths: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for route in ROUTES {
        paths.entry(route.path).or_default().push(route.method.as_str());
    }
    let before = service.database.snapshot().await;
    for (path, methods) in paths {
        let path = path.replace(['{', '}'], "");
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if methods.contains(&method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).expect("a method is a word");
            let reply = service.organizer.bare(method, &path).await;
            reply.is_refused(405, "method_not_allowed");
            let allowed: Vec<&str> = reply.header("allow").split(", ").collect();
            let expected = methods.iter().copied().chain(methods.contains(&"GET").then_some("HEAD"));
            assert_eq!(allowed, expected.collect::<Vec<_>>(), "{path}");
        }
    }
    assert_eq!(service.database.snapshot().await, before);
}

async fn head_is_get_without_the_body(service: Service) {
    for path in
        ["/", "/worker.js", "/health", "/openapi.json", "/api/events/default", "/api/events/default/tickets.csv"]
    {
        let head = service.organizer.bare(Method::HEAD, path).await;
        let get = service.organizer.get(path).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert!(head.body.is_empty() && !get.body.is_empty(), "{path}");
    }
    service.anonymous.bare(Method::HEAD, "/api/events").await.is(401);
    service.organizer.bare(Method::HEAD, "/api/users").await.is(405);
    service.organizer.bare(Method::HEAD, "/none").await.is(404);
}

async fn what_is_no_path_is_not_found(service: Service) {
    for path in [
        "/gate//",
        "/t",
        "/t/",
        "/assets",
        "/api",
        "/api/",
        "/api/events/",
        "//api/events",
        "/api/events/default/",
        "/api/events/default/tickets/1",
        "/api/../health",
        "/api/%2e%2e/health",
        "/api%2Fevents",
        "/%00",
        "/HEALTH",
        "/health;x",
    ] {
        service.organizer.get(path).await.is_refused(404, "not_found");
        service.unchanged(service.organizer.delete(path)).await.is_refused(404, "not_found");
    }
}

async fn every_answer_is_for_nobodys_cache_and_of_the_type_it_says(service: Service) {
    for path in ["/health", "/api/events", "/api/users/nobody", "/none"] {
        let reply = service.organizer.get(path).await;
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
    }
}
