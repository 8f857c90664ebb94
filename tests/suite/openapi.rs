//! `src/openapi.json` against reality: every response that a client of this suite gets is held against it here.

use std::collections::{BTreeSet, HashMap};
use std::sync::{LazyLock, Mutex};

use http::{HeaderMap, Method, StatusCode, header};
use jsonschema::Validator;
use register_ticket_api::app::ROUTES;
use serde_json::{Value, json};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../src/openapi.json")).expect("the document is JSON"));

static PATHS: LazyLock<matchit::Router<&'static str>> = LazyLock::new(|| {
    let mut router = matchit::Router::new();
    for path in DOCUMENT["paths"].as_object().expect("paths is an object").keys() {
        router.insert(path, path.as_str()).expect("no two paths of the document conflict");
    }
    router
});

/// Validators by the pointer to their schema in the document: compiling one takes longer than a test's request.
static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Fails the test when a response is not described.
#[track_caller]
pub fn check(method: &Method, path: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) {
    let request = format!("{method} {path}: {status}");
    let pointer = response_pointer(method, path, status)
        .unwrap_or_else(|| panic!("{request} is not described\n{}", String::from_utf8_lossy(body)));
    let response = resolved(&pointer).1;

    for (name, described) in response["headers"].as_object().into_iter().flatten() {
        let described = match described["$ref"].as_str() {
            Some(reference) => resolved(reference.trim_start_matches('#')).1,
            None => described,
        };
        let required = described["required"] == json!(true);
        assert!(!required || headers.contains_key(name), "{request} has no header {name}");
    }
    if *method == Method::HEAD || response.get("content").is_none() {
        assert!(body.is_empty(), "{request} has a body, which is not described");
        return;
    }
    let sent = media_type(headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default());
    let described = response["content"].as_object().expect("content is an object").keys();
    let described = described.into_iter().find(|name| media_type(name) == sent);
    let described = described.unwrap_or_else(|| panic!("{request} as `{sent}` is not described"));
    if !sent.ends_with("json") {
        std::str::from_utf8(body).unwrap_or_else(|_| panic!("{request} is not UTF-8"));
        return;
    }
    let value: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{request} is not JSON: {error}"));
    let pointer = format!("{}/content/{}/schema", resolved(&pointer).0, escaped(described));
    if let Err(error) = validator(&pointer).validate(&value) {
        panic!("{request} at `{}`: {error}\n{value:#}", error.instance_path());
    }
}

/// Where the document describes a response. What belongs to no operation has its place among the components.
fn response_pointer(method: &Method, path: &str, status: StatusCode) -> Option<String> {
    let not_found = || Some("/components/responses/NotFound".to_owned()).filter(|_| status == StatusCode::NOT_FOUND);
    let Ok(found) = PATHS.at(path) else {
        return not_found();
    };
    let method = if *method == Method::HEAD { "get".to_owned() } else { method.as_str().to_lowercase() };
    let operation = format!("/paths/{}/{method}", escaped(found.value));
    if DOCUMENT.pointer(&operation).is_none() {
        return Some("/components/responses/MethodNotAllowed".to_owned())
            .filter(|_| status == StatusCode::METHOD_NOT_ALLOWED);
    }
    let pointer = format!("{operation}/responses/{}", status.as_u16());
    DOCUMENT.pointer(&pointer).is_some().then_some(pointer).or_else(not_found)
}

/// Follows a reference, if there is one, and says where it led.
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
        // The schema lies beside the components, so that its references lead there.
        let schema = json!({ "components": DOCUMENT["components"], "allOf": [resolved(pointer).1] });
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        Box::leak(Box::new(options.build(&schema).unwrap_or_else(|error| panic!("{pointer}: {error}"))))
    })
}

fn escaped(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

fn media_type(text: &str) -> String {
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[test]
fn the_document_describes_exactly_the_route_table() {
    let operation = |(method, path): (&str, &str)| format!("{} {path}", method.to_lowercase());
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
