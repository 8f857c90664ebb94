//! Assembles the OpenAPI document: schemas from the types, operations from the route table, and texts and examples from the
//! files of `openapi/`, one per resource. Only tests contain this module. The binary serves `openapi.json`; a test compares
//! that file with the result, and this command regenerates it:
//!
//!     UPDATE_OPENAPI=1 cargo test --lib openapi

mod ordered;
mod schemas;

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema as _;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::admission::ATTEMPTS;
use crate::endpoints::scans::status_of;
use crate::error::Error;
use crate::error::tests::every_error;
use crate::limits::{
    ATTEMPTS_WINDOW, BATCH_BODY, BATCH_SCANS, BODY, CATEGORIES, CSV_BODY, ENROLMENT, EVENT_WITHOUT_END, GUESSES_NOTED,
    GUESSES_SHOWN, GUEST_LETTERS, GUESTS, KEY_AFTER_EVENT, KEY_ATTEMPTS, KEY_OF_ORGANIZER, KEY_REMEMBERED,
    KEY_WITHOUT_END, LARGE_EVENT, MAIL_DEADLINE, MANIFEST_AFTER_END, MANIFEST_BEFORE_START, OFFLINE_AHEAD,
    OFFLINE_WINDOW, PARTY, PARTY_WINDOW, UNDO_WINDOW, told,
};
use crate::list::Limit;
use crate::model::{Role, ScanResult, Slug, Username};
use crate::pages::LANGUAGES;
use crate::routes::{ROUTES, Route};

/// The resources, which are the document's tags, in this order.
const RESOURCES: &[(&str, &str)] = &[
    ("service", include_str!("openapi/service.toml")),
    ("users", include_str!("openapi/users.toml")),
    ("events", include_str!("openapi/events.toml")),
    ("tickets", include_str!("openapi/tickets.toml")),
    ("mails", include_str!("openapi/mails.toml")),
    ("gate", include_str!("openapi/gate.toml")),
    ("exports", include_str!("openapi/exports.toml")),
    ("keys", include_str!("openapi/keys.toml")),
    ("pages", include_str!("openapi/pages.toml")),
];

/// The file of one resource.
#[derive(Deserialize)]
struct Resource {
    description: String,
    /// By route, such as `POST /api/users`.
    #[serde(flatten)]
    operations: BTreeMap<String, Operation>,
}

/// What the file says about one operation; the rest comes from its route.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operation {
    id: String,
    summary: String,
    #[serde(default)]
    description: String,
    /// The type of its query.
    query: Option<String>,
    /// Its other parameters, as OpenAPI has them.
    #[serde(default)]
    parameters: Vec<Value>,
    /// The schema of its body as JSON.
    body: Option<String>,
    /// Whether it takes the same body as a form.
    #[serde(default)]
    form: bool,
    /// An example of its body as CSV, described in `x-content` like [`Answer::text_aside`].
    csv: Option<String>,
    /// Whether it answers with the decision on a scan.
    #[serde(default)]
    decides: bool,
    /// The codes of its refusals, in addition to those that follow from its route and its body.
    #[serde(default)]
    refuses: Vec<String>,
    /// Its other answers, by status.
    #[serde(default)]
    answers: BTreeMap<String, Answer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    description: String,
    /// The schema of its JSON body.
    json: Option<String>,
    /// Its media types with text.
    #[serde(default)]
    text: Vec<String>,
    /// Text media types that client generators do not support; described in `x-content`.
    #[serde(default)]
    text_aside: Vec<String>,
    /// Whether it is a page.
    #[serde(default)]
    page: bool,
    /// Schemas of its other bodies, by media type.
    #[serde(default)]
    content: BTreeMap<String, Value>,
    /// Headers and the names of their descriptions in `document.toml`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The results that it can carry, if it is a scan.
    #[serde(default)]
    results: Vec<String>,
}

/// The parts of the document that belong to no resource.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    title: String,
    summary: String,
    description: String,
    server: String,
    key: String,
    parameters: BTreeMap<String, String>,
    /// The description of the header `traceparent`.
    traceparent: String,
    /// The headers of every page, in the form of [`Answer::headers`].
    page_headers: BTreeMap<String, String>,
    headers: Map<String, Value>,
}

/// A refusal as the document describes it.
pub struct Refusal {
    pub status: u16,
    pub about: String,
    /// Whether it says when to retry.
    retry: bool,
}

/// Returns every refusal by its code, with the doc comment of its variant of [`Error`].
pub fn refusals() -> BTreeMap<String, Refusal> {
    let mut generator = schemars::SchemaGenerator::default();
    let schema = Error::json_schema(&mut generator);
    let variants = schema.get("oneOf").and_then(Value::as_array).expect("an enum has variants");
    let mut abouts: BTreeMap<String, String> = BTreeMap::new();
    for variant in variants {
        let name = variant["const"].as_str().or_else(|| variant["required"][0].as_str()).expect("a variant has a name");
        abouts.insert(
            name.to_owned(),
            schemas::one_line(
                variant["description"].as_str().unwrap_or_else(|| panic!("{name} of Error has no doc comment")),
            ),
        );
    }
    let refusals: BTreeMap<String, Refusal> = every_error()
        .into_iter()
        .map(|(error, status, code)| {
            let about = abouts.get(code).unwrap_or_else(|| panic!("no variant of Error is called {code}"));
            (code.to_owned(), Refusal { status, about: about.clone(), retry: error.retry_after().is_some() })
        })
        .collect();
    assert!(abouts.keys().eq(refusals.keys()), "every_error() must return one error of each variant");
    refusals
}

/// Returns the schema of a path parameter, and the code of the refusal if it names nothing.
fn path_parameter(name: &str) -> (Value, Option<&'static str>) {
    let mut generator = schemars::SchemaGenerator::default();
    match name {
        "username" => (Username::json_schema(&mut generator).to_value(), Some("user_not_found")),
        "event" => (Slug::json_schema(&mut generator).to_value(), Some("event_not_found")),
        "ticket_id" => (uuid::Uuid::json_schema(&mut generator).to_value(), Some("ticket_not_found")),
        "scan_id" => (uuid::Uuid::json_schema(&mut generator).to_value(), Some("scan_not_found")),
        "key_id" => (uuid::Uuid::json_schema(&mut generator).to_value(), Some("key_not_found")),
        _ => (json!({ "type": "string" }), None),
    }
}

/// Iterates over the names of a path's parameters.
fn open_parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|part| part.split('}').next()).map(|name| name.trim_start_matches('*'))
}

/// The document during its assembly.
struct Assembly {
    document: Document,
    refusals: BTreeMap<String, Refusal>,
    queries: Map<String, Value>,
    schemas: Map<String, Value>,
    responses: Map<String, Value>,
}

fn assemble() -> Value {
    let mut assembly = Assembly {
        document: toml::from_str(include_str!("openapi/document.toml"))
            .unwrap_or_else(|error| panic!("document.toml: {error}")),
        refusals: refusals(),
        queries: schemas::queries(),
        schemas: schemas::components(),
        responses: Map::new(),
    };
    let (tags, paths) = assembly.resources();
    // Refusals that belong to no operation.
    assembly.refused_with(&["not_found".to_owned()]);
    assembly.refused_with(&["method_not_allowed".to_owned()]);
    assembly.examples();
    let Assembly { mut document, schemas, responses, .. } = assembly;
    let languages: Vec<&str> = LANGUAGES.iter().map(|language| language.tag).collect();
    document.headers["ContentLanguage"]["schema"]["enum"] = json!(languages);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": document.title,
            "summary": document.summary,
            "description": document.description,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": "/", "description": document.server }],
        "security": [{ "bearer": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "description": document.key } },
            "headers": document.headers,
            "responses": responses,
            "schemas": schemas,
        },
    });
    fill(&mut document);
    document
}

impl Assembly {
    /// Returns the tags, and the paths of all routes.
    fn resources(&mut self) -> (Vec<Value>, Map<String, Value>) {
        let mut tags = Vec::new();
        let mut operations: BTreeMap<String, (&str, Operation)> = BTreeMap::new();
        for (tag, file) in RESOURCES {
            let resource: Resource = toml::from_str(file).unwrap_or_else(|error| panic!("{tag}.toml: {error}"));
            tags.push(json!({ "name": tag, "description": resource.description }));
            operations.extend(resource.operations.into_iter().map(|(route, operation)| (route, (*tag, operation))));
        }
        let mut paths = Map::new();
        for route in ROUTES {
            let name = format!("{} {}", route.method, route.path);
            let (tag, operation) =
                operations.remove(&name).unwrap_or_else(|| panic!("no file of src/openapi/ describes {name}"));
            let path = paths.entry(route.path.replace("{*", "{")).or_insert_with(|| json!({}));
            path[route.method.as_str().to_lowercase()] = self.operation(route, tag, &operation);
        }
        assert!(operations.is_empty(), "src/openapi/ describes operations without a route: {:?}", operations.keys());
        (tags, paths)
    }

    fn operation(&mut self, route: &Route, tag: &str, operation: &Operation) -> Value {
        let who = match route.role {
            None => "No key needed.".to_owned(),
            Some(needed) => format!(
                "Role: {}.",
                listed(Role::ALL.iter().rev().filter(|role| role.holds(needed)).map(|role| role.as_str()))
            ),
        };
        let mut described = json!({
            "operationId": operation.id,
            "tags": [tag],
            "summary": operation.summary,
            "description": format!("{who} {}", operation.description).trim(),
            "responses": self.responses(route, operation),
        });
        if route.role.is_none() {
            described["security"] = json!([]);
        }
        let parameters = self.parameters(route, operation);
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if operation.body.is_some() {
            described["requestBody"] = json!({ "required": true, "content": self.bodies(operation) });
        }
        if let Some(example) = &operation.csv {
            let csv = json!({ "schema": { "type": "string" }, "example": example });
            described["requestBody"]["x-content"] = json!({ "text/csv": csv });
        }
        described
    }

    fn parameters(&self, route: &Route, operation: &Operation) -> Vec<Value> {
        let in_path = open_parts(route.path).map(|name| {
            let about = self.document.parameters.get(name).unwrap_or_else(|| panic!("document.toml describes no {name}"));
            json!({ "name": name, "in": "path", "required": true, "description": about, "schema": path_parameter(name).0 })
        });
        let query = operation.query.as_deref().map(|name| &self.queries[name]);
        let required = query.and_then(|query| query["required"].as_array()).into_iter().flatten();
        let required: Vec<&Value> = required.collect();
        let members = query.and_then(|query| query["properties"].as_object());
        let in_query = members.into_iter().flatten().map(|(name, schema)| {
            let mut schema = schema.clone();
            schemas::forbid_null(&mut schema);
            let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let mut parameter = json!({ "name": name, "in": "query", "description": about, "schema": schema });
            if required.iter().any(|required| *required == name) {
                parameter["required"] = true.into();
            }
            parameter
        });
        // The parameter also works around issue 1451 of openapi-python-client: without an optional parameter the generated
        // operation with two bodies lacks an import.
        let trace = route.path.starts_with("/api/").then(|| {
            let about = &self.document.traceparent;
            json!({ "name": "traceparent", "in": "header", "description": about, "schema": { "type": "string" } })
        });
        in_path.chain(in_query).chain(operation.parameters.iter().cloned()).chain(trace).collect()
    }

    fn bodies(&mut self, operation: &Operation) -> Value {
        let body = operation.body.as_deref().expect("only an operation with a body has bodies");
        assert!(self.schemas.contains_key(body), "there is no schema {body}");
        let mut content = json!({ "application/json": { "schema": schemas::reference(body) } });
        if operation.form {
            // A name of its own: client generators merge two bodies with the same name.
            let name = format!("{body}Form");
            content["application/x-www-form-urlencoded"] = json!({ "schema": schemas::reference(&name) });
            self.schemas.insert(name, schemas::form(&self.schemas[body]));
        }
        content
    }

    fn responses(&mut self, route: &Route, operation: &Operation) -> Value {
        let mut codes: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for code in self.codes(route, operation) {
            let refusal =
                self.refusals.get(&code).unwrap_or_else(|| panic!("{}: there is no error {code}", operation.id));
            codes.entry(refusal.status).or_default().push(code);
        }
        let mut responses = Map::new();
        for (status, codes) in &codes {
            responses.insert(status.to_string(), self.refused_with(codes));
        }
        if operation.decides {
            for (status, results) in results_by_status() {
                let codes = codes.get(&status).map(Vec::as_slice).unwrap_or_default();
                responses.insert(status.to_string(), self.decided(status, &results, codes));
            }
        }
        for (status, answer) in &operation.answers {
            responses.insert(status.clone(), self.answer(answer));
        }
        responses.into()
    }

    /// Returns the codes of all refusals of an operation.
    fn codes(&self, route: &Route, operation: &Operation) -> BTreeSet<String> {
        let mut codes = vec!["request_timeout", "payload_too_large", "response_too_large", "internal_error"];
        if route.role.is_some() {
            codes.extend(["unauthenticated", "forbidden", "database_unavailable"]);
            codes.extend(open_parts(route.path).filter_map(|name| path_parameter(name).1));
        }
        if operation.body.is_some() {
            codes.extend(["malformed_json", "unsupported_media_type"]);
        }
        if operation.body.is_some() || operation.query.is_some() {
            codes.push("invalid_payload");
        }
        if route.has_share() {
            codes.push("busy");
        }
        assert_eq!(route.takes_csv(), operation.csv.is_some(), "{}", operation.id);
        if route.takes_csv() {
            codes.push("import_in_progress");
        }
        codes.into_iter().map(ToOwned::to_owned).chain(operation.refuses.iter().cloned()).collect()
    }

    fn answer(&self, answer: &Answer) -> Value {
        let mut response = json!({ "description": answer.description });
        if let Some(name) = &answer.json {
            assert!(self.schemas.contains_key(name), "there is no schema {name}");
            response["content"]["application/json"] = json!({ "schema": schemas::reference(name) });
        }
        for media_type in &answer.text {
            response["content"][media_type] = json!({ "schema": { "type": "string" } });
        }
        for media_type in &answer.text_aside {
            response["x-content"][media_type] = json!({ "schema": { "type": "string" } });
        }
        for (media_type, schema) in &answer.content {
            response["content"][media_type] = json!({ "schema": schema });
        }
        for (header, name) in &answer.headers {
            response["headers"][header] = self.header(name);
        }
        if answer.page {
            response["content"]["text/html"] = json!({ "schema": { "type": "string" } });
            for (header, name) in &self.document.page_headers {
                response["headers"][header] = self.header(name);
            }
        }
        if !answer.results.is_empty() {
            response["x-results"] = json!(answer.results);
        }
        response
    }

    /// Returns a reference to the answer to a scan: a decision, or one of these refusals.
    fn decided(&mut self, status: u16, results: &[ScanResult], codes: &[String]) -> Value {
        let words = results.iter().map(|result| result.as_str());
        let mut response = json!({
            "description": format!("A decision: {}.", listed(words.clone())),
            "content": { "application/json": { "schema": schemas::reference("Scan") } },
            "x-results": words.collect::<Vec<_>>(),
        });
        if results.contains(&ScanResult::TooManyAttempts) {
            response["headers"]["Retry-After"] = self.header("RetryAfter");
        }
        if !codes.is_empty() {
            response["description"] = format!(
                "As `application/json` a decision: {}. As `application/problem+json` a refusal.\n\n{}",
                listed(results.iter().map(|result| result.as_str())),
                self.describe(codes),
            )
            .into();
            // Generated clients parse every body with this status by the first schema.
            response["content"]["application/json"]["schema"] =
                json!({ "oneOf": [schemas::reference("Scan"), schemas::reference("Problem")] });
            response["content"]["application/problem+json"] = json!({ "schema": schemas::reference("Problem") });
            response["x-codes"] = json!(codes);
        }
        let name = format!("Decision{status}");
        self.shared(name, response)
    }

    /// Returns a reference to a refusal with one of these codes, which share one status.
    fn refused_with(&mut self, codes: &[String]) -> Value {
        let retry = codes.iter().any(|code| self.refusals[code].retry);
        let mut response = json!({
            "description": self.describe(codes),
            "content": { "application/problem+json": { "schema": schemas::reference("Problem") } },
            "x-codes": codes,
        });
        let headers = [
            ("Retry-After", "RetryAfter", retry),
            ("WWW-Authenticate", "WWWAuthenticate", codes[0] == "unauthenticated"),
            ("Allow", "Allow", codes[0] == "method_not_allowed"),
        ];
        for (header, name, _) in headers.iter().filter(|(_, _, sent)| *sent) {
            response["headers"][header] = self.header(name);
        }
        let name = codes.iter().map(|code| pascal(code)).collect::<Vec<_>>().join("Or");
        self.shared(name, response)
    }

    fn describe(&self, codes: &[String]) -> String {
        codes.iter().map(|code| format!("`{code}`: {}", self.refusals[code].about)).collect::<Vec<_>>().join("\n\n")
    }

    fn header(&self, name: &str) -> Value {
        assert!(self.document.headers.contains_key(name), "document.toml describes no header {name}");
        json!({ "$ref": format!("#/components/headers/{name}") })
    }

    /// Adds a response to the components, and returns a reference to it.
    fn shared(&mut self, name: String, response: Value) -> Value {
        let reference = json!({ "$ref": format!("#/components/responses/{name}") });
        let other = self.responses.get(&name).is_none_or(|other| *other == response);
        assert!(other, "two responses are called {name}");
        self.responses.insert(name, response);
        reference
    }

    fn examples(&mut self) {
        let examples: BTreeMap<String, Value> = serde_json::from_str(include_str!("openapi/examples.json"))
            .unwrap_or_else(|error| panic!("examples.json: {error}"));
        for (name, example) in examples {
            let schema =
                self.schemas.get_mut(&name).unwrap_or_else(|| panic!("examples.json: there is no schema {name}"));
            schema["examples"] = json!([example]);
        }
    }
}

/// Returns the results by the status of the answer that carries them.
fn results_by_status() -> BTreeMap<u16, Vec<ScanResult>> {
    let mut results: BTreeMap<u16, Vec<ScanResult>> = BTreeMap::new();
    for result in ScanResult::ALL {
        results.entry(status_of(*result).as_u16()).or_default().push(*result);
    }
    results
}

/// Replaces the names of limits in texts: `{UNDO_WINDOW}` or, in the doc comment of a type, a link to the limit.
fn fill(value: &mut Value) {
    match value {
        Value::String(text) => {
            for (name, limit) in limits_told() {
                for gap in ["{NAME}", "[`crate::limits::NAME`]"] {
                    *text = text.replace(&gap.replace("NAME", name), &limit);
                }
            }
        }
        Value::Array(members) => members.iter_mut().for_each(fill),
        Value::Object(members) => members.values_mut().for_each(fill),
        _ => {}
    }
}

fn limits_told() -> Vec<(&'static str, String)> {
    let kibibytes = |bytes: usize| format!("{} KiB", bytes / 1024);
    vec![
        ("ATTEMPTS", ATTEMPTS.to_string()),
        ("ATTEMPTS_WINDOW", told(ATTEMPTS_WINDOW)),
        ("BATCH_BODY", kibibytes(BATCH_BODY)),
        ("BATCH_SCANS", BATCH_SCANS.to_string()),
        ("BODY", kibibytes(BODY)),
        ("CSV_BODY", format!("{} MiB", CSV_BODY / (1024 * 1024))),
        ("ENROLMENT", told(ENROLMENT)),
        ("EVENT_WITHOUT_END", told(EVENT_WITHOUT_END)),
        ("KEY_ATTEMPTS", KEY_ATTEMPTS.to_string()),
        ("KEY_AFTER_EVENT", told(KEY_AFTER_EVENT)),
        ("KEY_OF_ORGANIZER", told(KEY_OF_ORGANIZER)),
        ("KEY_REMEMBERED", told(KEY_REMEMBERED)),
        ("KEY_WITHOUT_END", told(KEY_WITHOUT_END)),
        ("CATEGORIES", CATEGORIES.to_string()),
        ("GUESSES_NOTED", GUESSES_NOTED.to_string()),
        ("GUESSES_SHOWN", told(GUESSES_SHOWN)),
        ("GUESTS", GUESTS.to_string()),
        ("GUEST_LETTERS", GUEST_LETTERS.to_string()),
        ("GREATEST", Limit::GREATEST.to_string()),
        ("LARGE_EVENT", LARGE_EVENT.to_string()),
        ("MAIL_DEADLINE", told(MAIL_DEADLINE)),
        ("MANIFEST_AFTER_END", told(MANIFEST_AFTER_END)),
        ("MANIFEST_BEFORE_START", told(MANIFEST_BEFORE_START)),
        ("OFFLINE_AHEAD", told(OFFLINE_AHEAD)),
        ("OFFLINE_WINDOW", told(OFFLINE_WINDOW)),
        ("PARTY", PARTY.to_string()),
        ("PARTY_WINDOW", told(PARTY_WINDOW)),
        ("UNDO_WINDOW", told(UNDO_WINDOW)),
        ("USUAL", Limit::USUAL.to_string()),
    ]
}

/// Formats words as code, separated by commas and a final "or".
fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

fn pascal(code: &str) -> String {
    code.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Action, Direction, Reentry, Status};
    use crate::totp::FORMS;

    const COMMITTED: &str = include_str!("openapi.json");

    #[test]
    fn the_committed_document_is_what_the_types_make() {
        let made = ordered::pretty(&assemble());
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/openapi.json"), made).unwrap();
            return;
        }
        let differs = made.lines().zip(COMMITTED.lines()).position(|(made, committed)| made != committed);
        assert!(
            made == COMMITTED,
            "src/openapi.json differs from the types and the files of src/openapi/, from line {} on; regenerate it:\n\n    \
             UPDATE_OPENAPI=1 cargo test --lib openapi\n",
            differs.map_or_else(|| COMMITTED.lines().count(), |line| line + 1),
        );
    }

    /// Checks that a schema allows exactly these words and describes each in a line.
    fn has_lines(schema: &str, words: &[&str]) {
        let document = assemble();
        let schema = &document["components"]["schemas"][schema];
        let about = schema["description"].as_str().unwrap();
        assert_eq!(schema["enum"], json!(words));
        for word in words {
            let line = format!("\n- `{word}`: ");
            let told = about.split_once(&line).unwrap_or_else(|| panic!("{word} has no line")).1;
            assert!(told.starts_with(char::is_alphabetic), "the line of {word} is empty");
        }
    }

    #[test]
    fn every_word_has_its_line() {
        fn words<T: Copy>(all: &[T], as_str: fn(T) -> &'static str) -> Vec<&'static str> {
            all.iter().map(|&word| as_str(word)).collect()
        }
        has_lines("Direction", &words(Direction::ALL, Direction::as_str));
        has_lines("Reentry", &words(Reentry::ALL, Reentry::as_str));
        has_lines("Role", &words(Role::ALL, Role::as_str));
        has_lines("ScanResult", &words(ScanResult::ALL, ScanResult::as_str));
        has_lines("TicketStatus", &words(Status::ALL, Status::as_str));
        has_lines("ActionName", &words(Action::ALL, Action::as_str));
    }

    #[test]
    fn the_introduction_names_each_role() {
        let document = assemble();
        let introduction = document["info"]["description"].as_str().unwrap();
        for role in Role::ALL {
            assert!(introduction.contains(&format!("`{}` (", role.as_str())), "document.toml: {}", role.as_str());
        }
    }

    #[test]
    fn a_scan_names_each_form_of_a_qr() {
        let document = assemble().to_string();
        for (form, _) in FORMS {
            assert!(document.contains(&format!("`{form}.<ticket_id")), "endpoints/scans.rs: {form}");
        }
    }

    #[test]
    fn every_code_has_its_line_and_an_operation_that_refuses_with_it() {
        let codes: BTreeSet<&str> = every_error().into_iter().map(|(_, _, code)| code).collect();
        has_lines("ProblemCode", &codes.iter().copied().collect::<Vec<_>>());
        let document = assemble();
        let responses = document["components"]["responses"].as_object().unwrap().values();
        let listed: BTreeSet<&str> = responses
            .filter_map(|response| response["x-codes"].as_array())
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        assert_eq!(listed, codes);
    }

    #[test]
    fn every_example_is_what_its_schema_says() {
        let document = assemble();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let schema_alone = json!({ "components": document["components"], "allOf": [schema] });
            let options = jsonschema::draft202012::options().should_validate_formats(true);
            let validator = options.build(&schema_alone).unwrap_or_else(|error| panic!("{name}: {error}"));
            for example in schema["examples"].as_array().into_iter().flatten() {
                assert!(validator.is_valid(example), "{name}: {:?}", validator.validate(example));
            }
        }
    }

    #[test]
    fn no_two_operations_have_one_name_and_no_text_has_a_gap() {
        let document = assemble();
        let mut names = BTreeSet::new();
        for operation in
            document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values())
        {
            assert!(names.insert(operation["operationId"].as_str().unwrap()), "{operation:#}");
        }
        assert!(!document.to_string().contains("[`"), "a text still links to an item of the source");
    }
}
