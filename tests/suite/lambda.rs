//! The second entry point: the binary running as an AWS Lambda function, between a stand-in for the Lambda runtime API
//! and events as API Gateway and function URLs send them.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use data_encoding::BASE64;
use flate2::read::GzDecoder;
use register_ticket_api::pages::LANGUAGES;
use serde_json::{Value, json};

use crate::database::{Kind, TestDatabase};
use crate::process::{PATIENCE, Process, read_body, read_head};
use crate::service::{Service, with};

on_both_databases! {
    an_answer_that_lambda_would_not_carry_is_refused,
    a_body_that_is_too_large_is_refused,
}

/// The result of an event.
struct Outcome {
    /// `response`, or `error` if the invocation failed.
    kind: String,
    /// The answer for API Gateway.
    body: Value,
}

impl Outcome {
    /// Asserts that the function answered with this status.
    #[track_caller]
    fn is_answer(&self, status: u64) {
        assert_eq!(self.kind, "response", "{}", self.body);
        assert_eq!(self.status(), status, "{}", self.body);
    }

    fn status(&self) -> u64 {
        self.body["statusCode"].as_u64().unwrap_or_default()
    }

    fn header(&self, name: &str) -> &str {
        self.body["headers"][name].as_str().unwrap_or_default()
    }

    /// The body that the client would get.
    fn bytes(&self) -> Vec<u8> {
        let body = self.body["body"].as_str().unwrap_or_default();
        match self.body["isBase64Encoded"].as_bool() {
            Some(true) => BASE64.decode(body.as_bytes()).expect("base64"),
            _ => body.as_bytes().to_vec(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes()).expect("JSON")
    }
}

/// Queues of events to handle and of outcomes.
#[derive(Default)]
struct Queues {
    events: VecDeque<String>,
    outcomes: VecDeque<Outcome>,
}

/// The function, and the part of the Lambda runtime API that it uses.
struct Lambda {
    queues: Arc<(Mutex<Queues>, Condvar)>,
    process: Process,
    _database: Arc<TestDatabase>,
}

impl Lambda {
    /// Starts a function with its own database.
    async fn start() -> Self {
        Self::on(Arc::new(TestDatabase::create(Kind::Sqlite).await))
    }

    fn on(database: Arc<TestDatabase>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let api = listener.local_addr().expect("its own address").to_string();
        let queues: Arc<(Mutex<Queues>, Condvar)> = Arc::default();
        let shared = Arc::clone(&queues);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let queues = Arc::clone(&shared);
                std::thread::spawn(move || serve_runtime_api(stream, &queues));
            }
        });
        let lambda = [
            ("AWS_LAMBDA_RUNTIME_API", api.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", "register-ticket-api"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "group"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "stream"),
            ("RUST_LOG", "trace"),
        ];
        let lambda = lambda.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { process: Process::start(database.environment().into_iter().chain(lambda)), queues, _database: database }
    }

    /// Lets the function handle one event.
    fn invoke(&self, event: &Value) -> Outcome {
        let (queues, changed) = &*self.queues;
        let mut queues = queues.lock().expect("no thread panics");
        queues.events.push_back(event.to_string());
        changed.notify_all();
        let answered = |queues: &mut Queues| queues.outcomes.is_empty();
        let (mut queues, waited) = changed.wait_timeout_while(queues, PATIENCE, answered).expect("no thread panics");
        assert!(!waited.timed_out(), "the function does not answer");
        queues.outcomes.pop_front().expect("waited for")
    }
}

/// Serves one connection of the function.
fn serve_runtime_api(stream: TcpStream, (queues, changed): &(Mutex<Queues>, Condvar)) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (start, headers) = read_head(&mut stream).ok()?;
        let path = start.split(' ').nth(1)?;
        if start.starts_with("GET ") {
            assert_eq!(path, "/2018-06-01/runtime/invocation/next");
            let queues = queues.lock().expect("no thread panics");
            let mut queues = changed.wait_while(queues, |queues| queues.events.is_empty()).expect("no thread panics");
            let event = queues.events.pop_front()?;
            write!(
                stream.get_mut(),
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
                 lambda-runtime-aws-request-id: 8476a536-e9f4-11e8-9739-2dfe598c3fcd\r\n\
                 lambda-runtime-deadline-ms: 4102444800000\r\n\
                 lambda-runtime-invoked-function-arn: arn:aws:lambda:eu-west-1:123456789012:function:tickets\r\n\
                 \r\n{event}",
                event.len(),
            )
            .ok()?;
        } else {
            let body = read_body(&mut stream, &headers).ok()?;
            let kind = path.rsplit('/').next()?.to_owned();
            let body = serde_json::from_slice(&body).expect("the function answers in JSON");
            queues.lock().expect("no thread panics").outcomes.push_back(Outcome { kind, body });
            changed.notify_all();
            write!(stream.get_mut(), "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").ok()?;
        }
    }
}

/// An event as AWS sends it, with invented people, keys and addresses.
macro_rules! event {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("lambda/", $name, ".json"))).expect("a fixture is JSON")
    };
}

/// The event of another request with the same headers.
fn post(path: &str, media_type: &str, body: &str) -> Value {
    let mut event = event!("post_json");
    event["rawPath"] = path.into();
    event["requestContext"]["http"]["path"] = path.into();
    event["headers"]["content-type"] = media_type.into();
    with(event, json!({ "body": body }))
}

fn get(path: &str) -> Value {
    let mut event = with(post(path, "", ""), json!({ "body": null }));
    event["requestContext"]["http"]["method"] = "GET".into();
    event
}

#[tokio::test]
async fn a_get_is_answered_in_text() {
    let lambda = Lambda::start().await;
    let outcome = lambda.invoke(&event!("get"));
    outcome.is_answer(200);
    assert_eq!(outcome.header("content-type"), "application/json");
    assert_eq!(outcome.header("x-content-type-options"), "nosniff");
    assert_eq!(outcome.body["isBase64Encoded"], false);
    assert_eq!(outcome.json()["status"], "ok");
}

#[tokio::test]
async fn a_body_in_json_creates_a_user_who_is_found_by_every_kind_of_path() {
    let lambda = Lambda::start().await;
    let created = lambda.invoke(&event!("post_json"));
    assert_eq!(created.status(), 201);
    assert_eq!(created.json()["full_name"], "Ana Ruiz");
    // API Gateway decodes the path and prefixes the stage; a function URL leaves the path as sent.
    for event in [event!("named_stage"), event!("function_url")] {
        let found = lambda.invoke(&event);
        assert_eq!(found.status(), 200, "{}", event["rawPath"]);
        assert_eq!(found.json(), created.json());
    }
}

#[tokio::test]
async fn a_form_in_base64_creates_a_user() {
    let lambda = Lambda::start().await;
    let created = lambda.invoke(&event!("post_form"));
    assert_eq!(created.status(), 201);
    assert_eq!(created.json()["full_name"], "Ben Álvarez");
}

#[tokio::test]
async fn a_compressed_answer_is_base64_and_repeated_headers_are_understood() {
    let lambda = Lambda::start().await;
    let outcome = lambda.invoke(&event!("cookies_and_repeated_headers"));
    assert_eq!(outcome.status(), 200);
    assert_eq!(outcome.header("content-encoding"), "gzip");
    assert_eq!(outcome.body["isBase64Encoded"], true);
    let bytes = outcome.bytes();
    let manifest: Value = serde_json::from_reader(GzDecoder::new(bytes.as_slice())).expect("gzip of JSON");
    assert_eq!(manifest["event"]["slug"], "default");
}

#[tokio::test]
async fn a_refused_key_is_logged_with_the_address_that_the_platform_tells() {
    let lambda = Lambda::start().await;
    let mut event = get("/api/keys");
    event["headers"]["authorization"] = "Bearer rtk_nobodys".into();
    // Anybody may have written this header.
    event["headers"]["x-forwarded-for"] = "10.9.9.9".into();
    event["requestContext"]["http"]["sourceIp"] = "198.51.100.77".into();
    lambda.invoke(&event).is_answer(401);
    let line = lambda.process.logged("status=401").await;
    assert!(line.contains("sender=\"198.51.100.77\"") && !line.contains("10.9.9.9"), "{line}");
}

#[tokio::test]
async fn a_page_is_html_in_the_language_that_is_asked_for() {
    let lambda = Lambda::start().await;
    for (path, status) in [("/", 200), ("/gate", 200), ("/t/dead", 404)] {
        for language in &LANGUAGES {
            let mut event = get(path);
            event["headers"]["accept-language"] = language.tag.into();
            event["headers"]["accept-encoding"] = "gzip".into();
            let outcome = lambda.invoke(&event);
            outcome.is_answer(status);
            assert_eq!(outcome.header("content-type"), "text/html; charset=utf-8");
            let page = std::io::read_to_string(GzDecoder::new(outcome.bytes().as_slice())).expect("gzip of HTML");
            assert!(page.contains(&format!("<html lang=\"{}\">", language.tag)), "{page}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_in_text() {
    let lambda = Lambda::start().await;
    for (event, code) in [(get("/nothing"), "not_found"), (event!("decoded_path"), "event_not_found")] {
        let outcome = lambda.invoke(&event);
        outcome.is_answer(404);
        assert_eq!(outcome.header("content-type"), "application/problem+json");
        assert_eq!(outcome.body["isBase64Encoded"], false);
        assert_eq!(outcome.json()["code"], code);
    }
}

async fn an_answer_that_lambda_would_not_carry_is_refused(service: Service) {
    let lambda = Lambda::on(Arc::clone(&service.database));
    let seats: String = (0..45_000).map(|seat| format!("seat {seat},North\n")).collect();
    let imported = lambda.invoke(&post("/api/events/default/tickets", "text/csv", &format!("seat,gate\n{seats}")));
    assert_eq!(imported.json()["created"], 45_000);
    let before = service.database.snapshot().await;
    let outcome = lambda.invoke(&get("/api/events/default/tickets.csv"));
    assert_eq!(outcome.status(), 413);
    assert_eq!(outcome.json()["code"], "response_too_large");
    let line = lambda.process.logged("/tickets.csv").await;
    assert!(line.contains("status=413") && line.contains("response_too_large"), "{line}");
    let after = service.database.snapshot().await;
    let [before, after] = [&before, &after].map(|rows| rows.lines().collect::<BTreeSet<_>>());
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert_eq!(changed.len(), 1, "a row changed");
    assert!(changed[0].contains("tickets_exported"), "the caller is not recorded");
}

async fn a_body_that_is_too_large_is_refused(service: Service) {
    let lambda = Lambda::on(Arc::clone(&service.database));
    let before = service.database.snapshot().await;
    let body = |spaces: usize| format!("{{\"username\":\"ana\"}}{}", " ".repeat(spaces));
    let limit = 64 * 1024;
    let outcome = lambda.invoke(&post("/api/users", "application/json", &body(limit)));
    assert_eq!(outcome.status(), 413);
    assert_eq!(outcome.json()["code"], "payload_too_large");
    assert_eq!(service.database.snapshot().await, before);
    let whole = body(limit - body(0).len());
    assert_eq!(lambda.invoke(&post("/api/users", "application/json", &whole)).status(), 201);
}

#[tokio::test]
async fn an_event_of_another_kind_fails_alone() {
    let mut lambda = Lambda::start().await;
    for event in [json!({}), json!(null), json!({ "Records": [{ "eventSource": "aws:s3" }] })] {
        assert_eq!(lambda.invoke(&event).kind, "error", "{event}");
    }
    assert_eq!(lambda.invoke(&event!("get")).status(), 200);
    assert!(lambda.process.is_running());
}

#[tokio::test]
async fn an_event_that_is_no_request_is_refused() {
    let mut lambda = Lambda::start().await;
    let long = format!("/{}", "a".repeat(70_000));
    let mut of_two_proxies = get("/health");
    of_two_proxies["headers"]["x-forwarded-proto"] = "https,http".into();
    for (change, status) in [
        (json!({ "rawQueryString": "q=a b" }), 400),
        (json!({ "rawQueryString": "q=\u{7f}<\"" }), 400),
        (json!({ "rawPath": long }), 400),
        (json!({ "isBase64Encoded": true, "body": "no base64" }), 400),
        (json!({ "headers": { "x": "a\nb" } }), 400),
        (json!({}), 200),
    ] {
        lambda.invoke(&with(of_two_proxies.clone(), change)).is_answer(status);
    }
    assert!(lambda.process.is_running());
}

#[tokio::test]
async fn sigterm_ends_the_function() {
    let mut lambda = Lambda::start().await;
    assert_eq!(lambda.invoke(&event!("get")).status(), 200);
    lambda.process.terminate();
    lambda.process.ended(PATIENCE).await;
}

#[tokio::test]
async fn nothing_of_an_event_is_logged_not_even_by_the_runtime() {
    let mut lambda = Lambda::start().await;
    lambda.invoke(&event!("post_json"));
    lambda.invoke(&event!("function_url"));
    let token = "AaIAxAsAdXO-svt5Z2boEPduKuHuyScFHp2SxRv7z0o";
    for event in [get(&format!("/t/{token}")), get(&format!("/t/{token}/x")), get(&format!("/v1/t/{token}"))] {
        assert_eq!(lambda.invoke(&event).status(), 404);
    }
    lambda.process.terminate();
    lambda.process.ended(PATIENCE).await;
    let log = lambda.process.log();
    assert!(log.contains("/api/users/{username}"), "{log}");
    for secret in [token, crate::service::ORGANIZER_KEY, "Ana Ruiz", "ana@example.org", "ana%40example.org"] {
        assert!(!log.contains(secret), "`{secret}` in the log:\n{log}");
    }
}
