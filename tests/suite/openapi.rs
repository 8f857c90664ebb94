//! `src/openapi.json` against reality: every response that a client of this suite receives is checked against it here,
//! and so is every request that succeeds.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex};

use http::{HeaderMap, Method, Request, StatusCode, header};
use jsonschema::Validator;
use register_ticket_api::response::MARK;
use register_ticket_api::routes::ROUTES;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::service::{Service, with};

on_both_databases! {
    a_query_is_taken_as_it_is_described,
    a_body_is_taken_as_it_is_described,
}

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/openapi.json")).expect("the document is JSON"));

static PATHS: LazyLock<matchit::Router<&'static str>> = LazyLock::new(|| {
    let mut router = matchit::Router::new();
    for path in DOCUMENT["paths"].as_object().expect("paths is an object").keys() {
        router.insert(routed(path), path.as_str()).expect("no two paths of the document conflict");
    }
    router
});

/// A path of the document as in the route table: OpenAPI has no parameter that contains slashes.
fn routed(path: &str) -> String {
    path.replace("{file}", "{*file}")
}

/// Validators by the pointer to their schema: compiling one takes longer than a test's request.
static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Fails the test if a response, or a request that succeeded, does not match the document.
#[track_caller]
pub fn check(request: &Request<Vec<u8>>, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    check_response(request, status, headers, body);
    if status.is_success() {
        check_request(request, body);
    }
}

#[track_caller]
fn check_request(request: &Request<Vec<u8>>, answer: &[u8]) {
    let sent = format!("{} {}", request.method(), request.uri());
    let path = PATHS.at(request.uri().path()).unwrap_or_else(|_| panic!("{sent} is not described")).value;
    let operation = operation_pointer(request.method(), path);
    let query: Vec<(String, String)> =
        serde_urlencoded::from_str(request.uri().query().unwrap_or_default()).expect("the query is one");
    for (name, text) in query {
        let place = parameters(&operation)
            .position(|parameter| parameter["in"] == "query" && parameter["name"] == name)
            .unwrap_or_else(|| panic!("{sent}: the parameter `{name}` is not described"));
        assert!(
            takes(&format!("{operation}/parameters/{place}/schema"), &text),
            "{sent}: `{name}` may not be `{text}`"
        );
    }

    let body = format!("{operation}/requestBody");
    if DOCUMENT.pointer(&body).is_none() {
        return;
    }
    let media_type = media_type_of(request.headers());
    let described = media_types(&body).find(|(described, _)| *described == media_type);
    let described = described.unwrap_or_else(|| panic!("{sent}: a body as `{media_type}` is not described")).1;
    let value: Value = match media_type.as_str() {
        "application/json" if path.ends_with("/batch") => understood(request.body(), answer),
        "application/json" => serde_json::from_slice(request.body()).expect("an accepted body is JSON"),
        "application/x-www-form-urlencoded" => {
            let fields: HashMap<String, String> =
                serde_urlencoded::from_bytes(request.body()).expect("an accepted body is a form");
            json!(fields)
        }
        _ => return,
    };
    if let Err(error) = validator(&format!("{described}/schema")).validate(&value) {
        panic!("{sent} at `{}`: {error}\n{value:#}", error.instance_path());
    }
}

/// The scans of a batch that succeeded: each may succeed, fail or be unreadable by itself.
#[track_caller]
fn understood(batch: &[u8], answer: &[u8]) -> Value {
    let batch: HashMap<String, Vec<Box<RawValue>>> = serde_json::from_slice(batch).expect("a batch is JSON");
    let answer: Value = serde_json::from_slice(answer).expect("the answer to a batch is JSON");
    let results = answer["results"].as_array().expect("a batch has results");
    let scans = batch["scans"].iter().zip(results).filter(|(_, result)| result["status"] == 200);
    let scans = scans.map(|(scan, _)| serde_json::from_str(scan.get()).expect("it was read"));
    json!({ "scans": scans.collect::<Vec<Value>>() })
}

/// Whether a schema accepts a query value, as text or as JSON.
fn takes(schema: &str, text: &str) -> bool {
    let number = serde_json::from_str(text).ok().filter(Value::is_number);
    number.into_iter().chain([json!(text)]).any(|value| validator(schema).is_valid(&value))
}

fn parameters(operation: &str) -> impl Iterator<Item = &'static Value> {
    DOCUMENT.pointer(&format!("{operation}/parameters")).and_then(Value::as_array).into_iter().flatten()
}

/// The media types of a body without parameters, and where each is described: in `content`, or in `x-content` if client
/// generators do not know it.
fn media_types(body: &str) -> impl Iterator<Item = (String, String)> {
    ["content", "x-content"].map(|content| format!("{body}/{content}")).into_iter().flat_map(|content| {
        let described =
            DOCUMENT.pointer(&content).and_then(Value::as_object).into_iter().flat_map(|types| types.keys());
        described.map(move |name| (media_type(name), format!("{content}/{}", escaped(name))))
    })
}

#[track_caller]
fn check_response(request: &Request<Vec<u8>>, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let (method, path) = (request.method(), request.uri().path());
    let mark = headers.get(MARK).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
    assert!(mark.is_some(), "{method} {path} has no mark");
    // Any refusal may be a page if a browser opened the address. The document's introduction says so, and the tests of
    // the pages check it.
    let is_for_people = request
        .headers()
        .get(header::ACCEPT)
        .is_some_and(|accept| accept.to_str().is_ok_and(|types| types.contains("text/html")));
    if is_for_people && status.as_u16() >= 400 && media_type_of(headers) == "text/html" {
        return;
    }
    let request = format!("{method} {path}: {status}");
    let pointer = response_pointer(method, path, status)
        .unwrap_or_else(|| panic!("{request} is not described\n{}", String::from_utf8_lossy(body)));
    let (pointer, response) = resolved(&pointer);

    for (name, described) in response["headers"].as_object().into_iter().flatten() {
        let described = match described["$ref"].as_str() {
            Some(reference) => resolved(reference.trim_start_matches('#')).1,
            None => described,
        };
        let required = described["required"] == json!(true);
        assert!(!required || headers.contains_key(name), "{request} has no header {name}");
    }
    if *method == Method::HEAD || media_types(&pointer).next().is_none() {
        assert!(body.is_empty(), "{request} has a body, which is not described");
        return;
    }
    let sent = media_type_of(headers);
    let described = media_types(&pointer).find(|(described, _)| *described == sent);
    let described = described.unwrap_or_else(|| panic!("{request} as `{sent}` is not described")).1;
    if sent.starts_with("image/") {
        return;
    }
    if !sent.ends_with("json") {
        std::str::from_utf8(body).unwrap_or_else(|_| panic!("{request} is not UTF-8"));
        return;
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{request} is not JSON: {error}"));
    if let Err(error) = validator(&format!("{described}/schema")).validate(&value) {
        panic!("{request} at `{}`: {error}\n{value:#}", error.instance_path());
    }
    check_words(&request, status, &sent, response, &value);
}

/// Checks what the schemas leave out because client generators need one schema for all refusals and one for all scans:
/// which codes and verdicts a response can have, and that problems, and nothing else, have the problem media type.
#[track_caller]
fn check_words(request: &str, status: StatusCode, sent: &str, response: &Value, value: &Value) {
    let is_problem = validator("/components/schemas/Problem").is_valid(value);
    assert_eq!(is_problem, sent == "application/problem+json", "{request} as `{sent}`\n{value:#}");
    let allowed = |list: &str, word: &Value| response[list].as_array().is_some_and(|words| words.contains(word));
    if is_problem {
        assert_eq!(value["status"], status.as_u16(), "{request}");
        assert!(allowed("x-codes", &value["code"]), "{request} with a code that is not described\n{value:#}");
    } else if let Some(result) = value.get("result") {
        assert!(allowed("x-results", result), "{request} with a verdict that is not described\n{value:#}");
    }
}

/// Where the document describes a response. Those that belong to no operation are among the components.
fn response_pointer(method: &Method, path: &str, status: StatusCode) -> Option<String> {
    let not_found = || Some("/components/responses/NotFound".to_owned()).filter(|_| status == StatusCode::NOT_FOUND);
    let Ok(found) = PATHS.at(path) else {
        return not_found();
    };
    let operation = operation_pointer(method, found.value);
    if DOCUMENT.pointer(&operation).is_none() {
        return Some("/components/responses/MethodNotAllowed".to_owned())
            .filter(|_| status == StatusCode::METHOD_NOT_ALLOWED);
    }
    let pointer = format!("{operation}/responses/{}", status.as_u16());
    DOCUMENT.pointer(&pointer).is_some().then_some(pointer).or_else(not_found)
}

fn operation_pointer(method: &Method, path: &str) -> String {
    let method = if *method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    format!("/paths/{}/{method}", escaped(path))
}

/// Follows a reference, if there is one; returns the pointer it leads to, and the value.
fn resolved(pointer: &str) -> (String, &'static Value) {
    let value = DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("the document has nothing at {pointer}"));
    match value["$ref"].as_str() {
        Some(reference) => resolved(reference.trim_start_matches('#')),
        None => (pointer.to_owned(), value),
    }
}

fn validator(pointer: &str) -> &'static Validator {
    let mut validators = VALIDATORS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    validators.entry(pointer.to_owned()).or_insert_with(|| {
        // The components are beside the schema, so that its references resolve.
        let schema = json!({ "components": DOCUMENT["components"], "allOf": [resolved(pointer).1] });
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Box::leak(Box::new(options.build(&schema).unwrap_or_else(|error| panic!("{pointer}: {error}"))))
    })
}

fn escaped(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

fn media_type_of(headers: &HeaderMap) -> String {
    media_type(headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default())
}

fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[test]
fn the_document_describes_exactly_the_route_table() {
    let operation = |(method, path): (&str, &str)| format!("{} {}", method.to_lowercase(), routed(path));
    let described: BTreeSet<String> = DOCUMENT["paths"]
        .as_object()
        .expect("paths is an object")
        .iter()
        .flat_map(|(path, operations)| {
            let operations = operations.as_object().expect("a path is an object").keys();
            operations.filter(|name| *name != "parameters").map(|method| operation((method, path))).collect::<Vec<_>>()
        })
        .collect();
    let routed: BTreeSet<String> = ROUTES.iter().map(|route| operation((route.method.as_str(), route.path))).collect();
    assert_eq!(described, routed);
}

/// The path of an operation, with existing ids.
fn of_what_is_there(path: &str, ticket_id: Uuid, key_id: &str) -> String {
    let path = path.replace("{event}", "default").replace("{username}", "ana").replace("{key_id}", key_id);
    path.replace("{ticket_id}", &ticket_id.to_string())
}

fn operations() -> impl Iterator<Item = (Method, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths is an object").iter();
    paths.flat_map(|(path, operations)| {
        let operations = operations.as_object().expect("a path is an object").iter();
        operations
            .filter_map(move |(method, told)| Some((method.to_uppercase().parse().ok()?, path.as_str(), told)))
            .filter(|(method, ..)| *method != "PARAMETERS")
    })
}

/// Errors about a value's form, which the schemas must reflect; only the service knows about others.
const OF_FORM: &[&str] = &["wrong_type", "unknown", "required"];

/// The client checks each answer, and each successful request, against the document.
async fn a_query_is_taken_as_it_is_described(service: Service) {
    service.user("ana").await;
    let ticket = service.ticket("A1").await;
    let key = service.organizer.post("/api/keys", json!({ "name": "x", "role": "gate" })).await.is(201);
    let mut asked = 0;
    for (method, path, told) in operations() {
        let path = of_what_is_there(path, ticket.ticket_id, key["key_id"].as_str().expect("an id"));
        let reads = matches!(method, Method::GET | Method::DELETE) && !path.contains('{');
        if !reads || (method == Method::DELETE && path != "/api/events/default") {
            continue;
        }
        let described = told["parameters"].as_array().into_iter().flatten().filter(|told| told["in"] == "query");
        let names = described.filter_map(|told| told["name"].as_str()).chain(["a"]);
        for name in names {
            for value in [
                "",
                "0",
                "1",
                "-1",
                "%2B1",
                "1.5",
                "1e3",
                "null",
                "true",
                "x",
                "99999999999999999999",
                "%00",
                "%F0%9F%8E%AB",
            ] {
                for query in [format!("{name}={value}"), format!("{name}={value}&{name}={value}")] {
                    // Routes without a query ignore it, and `/health` ignores unknown parameters.
                    let is_free = name == "a" && (path == "/health" || told["responses"].get("422").is_none());
                    if !is_free {
                        service.organizer.bare(method.clone(), format!("{path}?{query}")).await;
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 400, "only {asked} were asked");
    service.anonymous.get("/health?full=0&full=0").await.is_refused(422, "invalid_payload");
}

/// A valid body for each operation that takes JSON.
fn bodies(ticket: &crate::service::Ticket, service: &Service) -> Vec<(&'static str, &'static str, Value)> {
    let offline = json!({ "scanned_at": service.time(0), "offline_result": "wrong_code" });
    let time = service.time(3_600_000);
    vec![
        ("POST", "/api/users", json!({ "username": "luis", "full_name": "Luis", "email": "l@example.org" })),
        ("PATCH", "/api/users/{username}", json!({ "full_name": "Ana", "email": "a@example.org" })),
        ("POST", "/api/users/{username}/tickets", json!({ "seat": "free", "gate": "North" })),
        (
            "POST",
            "/api/users/attendance",
            json!({ "seat": "A1", "gate": "North", "totp_code": "000000", "event": "default", "scan_id": Uuid::now_v7() }),
        ),
        (
            "POST",
            "/api/events",
            json!({ "slug": "e", "name": "E", "time_zone": "UTC", "starts_at": service.time(0), "ends_at": time, "opens_at": time, "closes_at": null, "reentry": "none", "language": "es", "location": "Hall", "forget_after_days": 30 }),
        ),
        (
            "PATCH",
            "/api/events/{event}",
            json!({ "name": "E", "time_zone": "UTC", "starts_at": null, "ends_at": null, "opens_at": time, "closes_at": null, "reentry": "none", "language": null, "location": null, "forget_after_days": 1, "walk_ups": true, "walk_up_price": 5, "currency": "EUR" }),
        ),
        ("POST", "/api/events/{event}/tickets", json!([{ "seat": "new", "gate": "North" }])),
        (
            "POST",
            "/api/events/{event}/mails",
            json!({ "tickets": [ticket.ticket_id], "again": false, "dry_run": true }),
        ),
        (
            "PATCH",
            "/api/tickets/{ticket_id}",
            json!({ "category": "Adult", "note": null, "valid_from": service.time(0), "valid_until": time }),
        ),
        ("POST", "/api/tickets/{ticket_id}/transfer", json!({ "username": "ana" })),
        ("POST", "/api/events/{event}/scans", service.scan(ticket)),
        (
            "POST",
            "/api/events/{event}/walk-ups",
            json!({ "scan_id": Uuid::now_v7(), "gate": "North", "count": 2, "full_name": "Ana", "category": "VIP", "note": "x", "paid": 5, "scanned_at": time }),
        ),
        ("POST", "/api/events/{event}/scans/batch", json!({ "scans": [with(service.scan(ticket), offline)] })),
        (
            "POST",
            "/api/keys",
            json!({ "name": "x", "role": "gate", "event": "default", "gate": "North", "offline": true, "expires_at": time }),
        ),
        ("POST", "/api/keys/{key_id}/scans", json!({ "event": "default", "scans": [] })),
        ("POST", "/api/enrol", json!({ "token": "x" })),
        ("POST", "/api/enrol/offer", json!({ "token": "x" })),
    ]
}

async fn a_body_is_taken_as_it_is_described(service: Service) {
    service.user("ana").await;
    service.seat("default", "free", "North").await;
    let ticket = service.ticket("A1").await;
    let key = service.organizer.post("/api/keys", json!({ "name": "x", "role": "gate" })).await.is(201);
    let bodies = bodies(&ticket, &service);
    for (method, path, told) in operations() {
        let takes_json = told["requestBody"]["content"].get("application/json").is_some();
        let ours = bodies.iter().filter(|(own, of, _)| method == *own && *of == path).count();
        assert_eq!(ours, usize::from(takes_json), "{method} {path}");
    }
    let values =
        || [json!(null), json!(true), json!(0), json!(-1), json!(1.5), json!(""), json!("x"), json!([]), json!({})];
    for (method, of, body) in bodies {
        let path = of_what_is_there(of, ticket.ticket_id, key["key_id"].as_str().expect("an id"));
        let schema =
            format!("/paths/{}/{}/requestBody/content/application~1json/schema", escaped(of), method.to_lowercase());
        let fields: Vec<String> =
            body.as_object().into_iter().flat_map(|body| body.keys().cloned()).chain(["unknown".into()]).collect();
        for field in fields {
            for value in values() {
                let changed =
                    if body.is_object() { with(body.clone(), json!({ &field: value })) } else { json!([value]) };
                let request = Request::builder().method(method).uri(&path).header("content-type", "application/json");
                let reply = service.organizer.send(request, changed.to_string()).await;
                assert!(reply.status.as_u16() < 500, "{method} {path} {changed}: {}", reply.text());
                let answer: Value = serde_json::from_str(&reply.text()).unwrap_or_default();
                let of_form = |error: &Value| OF_FORM.iter().any(|code| error["code"] == *code);
                let is_refused = answer["errors"].as_array().is_some_and(|errors| errors.iter().any(of_form));
                let is_valid = validator(&schema).is_valid(&changed);
                assert!(!(is_refused && is_valid), "{method} {path} {changed}: {}", reply.text());
            }
        }
    }
}
