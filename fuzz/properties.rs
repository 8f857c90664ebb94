//! Properties that must hold for any input from outside. The fuzz targets check them on libFuzzer's inputs, the
//! service's tests on inputs that libFuzzer found before (tests/suite/fuzz.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full};
use lambda_http::LambdaEvent;
use register_ticket_api::app::App;
use register_ticket_api::auth::read_enrolment;
use register_ticket_api::config::{SETTINGS, Settings};
use register_ticket_api::endpoints::imports::{Columns, How};
use register_ticket_api::fault::Fault;
use register_ticket_api::model::{Existing, Millis, Seed, Unknown};
use register_ticket_api::sheet::List;
use register_ticket_api::sheet::import::ERRORS_TOLD;
use register_ticket_api::totp::{Code, HolderToken, LinkSecret, PageToken, QrCode, TicketSecret, TotpKey, step_at};
use register_ticket_api::{routes, serve, store};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Checks the content of a QR code, typed text or the end of a link. Anything in one of our forms must be written back
/// as it was read; an invented link opens nothing.
pub fn code(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(code) = QrCode::parse(text) {
        let is_around = |character: char| character.is_whitespace() || character == '\u{feff}';
        assert_eq!(code.to_string(), text.trim_matches(is_around));
    }
    match Code::typed(text) {
        Code::Rotating(digits) => assert!(!digits.contains(char::is_whitespace)),
        Code::Printed(_) => panic!("typed text is never a printed code"),
    }
    let links = LinkSecret::new(Arc::new(TicketSecret::new(None)), [7; 32]);
    if let Some(token) = PageToken::parse(text) {
        begins_with(text, &[token.ticket_id]);
        assert!(!links.opens(&token, Seed([7; 20])));
    }
    if let Some(token) = HolderToken::parse(text) {
        begins_with(text, &[token.event_id, token.user_id]);
        assert!(!links.opens_all(&token, "ana@example.org"));
    }
    if let Some((key_id, _)) = read_enrolment(text) {
        begins_with(text, &[key_id]);
    }
}

/// Checks that a token's bytes begin with these ids.
fn begins_with(token: &str, ids: &[Uuid]) {
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes()).expect("a parsed token is base64url");
    assert!(bytes.chunks(16).zip(ids).all(|(bytes, id)| bytes == id.as_bytes()));
}

/// Checks a list of tickets, CSV or a workbook. Its first line says how to read it, like the query of an import. Either
/// it is refused with a reason, or each of its lines is a ticket, left out or a sum.
pub fn list(input: &[u8]) {
    let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (query, file) = (String::from_utf8_lossy(&input[..end]), input.get(end + 1..).unwrap_or_default());
    let told = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name));
    let columns: Option<Columns> = told("columns=").and_then(|columns| columns.parse().ok());
    let unknown = if told("unknown=ignore").is_some() { Unknown::Ignore } else { Unknown::Refuse };
    let most = told("most=").and_then(|most| most.parse().ok()).unwrap_or(1_000).min(1_000);
    let how = How::new(columns, unknown, Existing::Refuse, told("header=false").is_some(), most);
    let list = match List::read(file, &how.reading) {
        Ok(list) => list,
        Err(error) => return assert!(!error.errors().is_empty() && error.status().is_client_error(), "{error}"),
    };
    let left_out = list.left_out;
    // At most `most` tickets, and as many rows that are void.
    assert!(list.rows.len() <= 2 * most, "{} rows", list.rows.len());
    if list.faults.is_empty() {
        let tickets: BTreeSet<u64> = list.rows.iter().filter(|row| !row.is_void).map(|row| row.line).collect();
        let sums = list.notices.iter().map(|notice| match notice {
            Fault::SumsLeftOut { lines } => lines.len(),
            _ => 0,
        });
        let sums: usize = sums.sum();
        let told = tickets.len() + left_out + sums;
        // Only some of the sums are reported.
        assert!(list.lines == told || sums == 20 && list.lines > told, "{} lines, {told} counted", list.lines);
    } else {
        let errors = list.faults.into_told();
        assert!((1..=ERRORS_TOLD + 1).contains(&errors.len()));
        assert!(errors.iter().all(|error| !error.message().is_empty()));
    }
}

/// Variables that contain a secret, whole or in part.
const SECRET: &[&str] = &[
    "DATABASE_URL",
    "DB_PASSWORD",
    "DB_MIGRATE_PASSWORD",
    "ORGANIZER_KEY",
    "TICKET_SECRET",
    "SMTP_URL",
    "GOOGLE_WALLET_KEY",
];
/// The secret value in this target: no message about a setting may contain it.
const MARK: &str = "S3cr3t";

/// Checks the environment, one line `NAME=value` per variable; `\n` is a line break. It is accepted, or a one-line
/// error names the variable that is wrong, without its secret.
pub fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let variables: BTreeMap<&str, String> = lines.map(|(name, value)| (name, value.replace("\\n", "\n"))).collect();
    // Reading some devices never ends.
    if variables.values().any(|value| value.contains("/dev/") || value.contains("/proc/")) {
        return;
    }
    let is_told = |(name, value): (&&str, &String)| !SECRET.contains(name) && value.contains(MARK);
    let is_secret = !variables.iter().any(is_told);
    let told = match Settings::read(|name| variables.get(name).cloned()) {
        Ok(settings) => {
            assert!(!settings.public_url.ends_with('/'));
            let _ = (settings.is_https(), settings.is_distrusted(), settings.organizer_key_file());
            settings.database.weak_sslmode().unwrap_or_default()
        }
        Err(error) => {
            let error = error.to_string();
            let is_named = |name: &str| error.strip_prefix(name).is_some_and(|why| why.starts_with(": "));
            assert!(SETTINGS.iter().any(|setting| is_named(setting.variable)), "{error}");
            assert!(!error.contains('\n'), "{error}");
            error
        }
    };
    assert!(!is_secret || !told.contains(MARK), "{told}");
}

const ORGANIZER_KEY: &str = "the-organizer-key-of-the-fuzzer.";
const TICKET_SECRET: &str = "the-ticket-secret-of-the-fuzzer.";
/// 2026-05-01T18:00:00Z.
const EVENING: i64 = 1_777_658_400_000;
/// The scan that admitted Ana.
const SCAN: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
/// How many inputs share one database: few enough that it stays small and a finding can be reproduced.
const INPUTS: u32 = 500;

/// The whole service except the socket, with an event in progress in its own database.
pub struct Service {
    runtime: Runtime,
    evening: Evening,
}

struct Evening {
    app: Arc<App>,
    directory: PathBuf,
    now: Arc<AtomicI64>,
    inputs: u32,
    /// Values that inputs cannot know, by the placeholders they use for them.
    gaps: Vec<(&'static str, String)>,
    /// Values that no refusal may contain.
    secrets: Vec<String>,
    /// The ticket whose code is shown, and the key of its codes.
    ticket_id: Uuid,
    totp: TotpKey,
}

impl Service {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let evening = runtime.block_on(Evening::prepare());
        Self { runtime, evening }
    }

    /// Checks a request in the form of HTTP, with the organizer's key unless it has its own.
    pub fn request(&mut self, input: &[u8]) {
        let input = self.next(input);
        if let Some(request) = self.evening.read(&input) {
            let (head, body) = self.runtime.block_on(self.evening.answer(request));
            self.evening.check(&input, head.status.as_u16(), &head.headers, &body);
        }
    }

    /// Checks an AWS Lambda event. Anything in the form of a request gets an answer.
    pub fn event(&mut self, input: &[u8]) {
        #[derive(Deserialize)]
        struct Kind {
            version: String,
        }
        let input = String::from_utf8_lossy(&self.next(input)).into_owned();
        let is_request = serde_json::from_str(&input).is_ok_and(|kind: Kind| kind.version == "2.0");
        let Ok(event) = RawValue::from_string(input.clone()) else { return };
        let event = LambdaEvent::new(event, lambda_http::Context::default());
        let answer = self.runtime.block_on(serve::answer_event(Arc::clone(&self.evening.app), event));
        let answer = match answer {
            Ok(answer) => serde_json::to_value(answer).expect("an answer is JSON"),
            Err(error) => return assert!(!is_request, "{error}"),
        };
        let headers = answer["headers"].as_object().into_iter().flatten();
        let headers =
            headers.filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.as_str()?.parse().ok()?)));
        let status = answer["statusCode"].as_u64().expect("a status");
        let body = answer["body"].as_str().filter(|_| answer["isBase64Encoded"] != true).unwrap_or_default();
        self.evening.check(input.as_bytes(), status as u16, &headers.collect(), body.as_bytes());
    }

    /// Advances the clock and fills an input's placeholders.
    fn next(&mut self, input: &[u8]) -> Vec<u8> {
        if self.evening.inputs == INPUTS {
            self.evening = self.runtime.block_on(Evening::prepare());
        }
        self.evening.inputs += 1;
        self.evening.now.fetch_add(10_000, Ordering::Relaxed);
        self.evening.filled(input)
    }
}

impl Evening {
    async fn prepare() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory can be created");
        let settings = Settings::read(|name| match name {
            "DATABASE_URL" => Some(format!("sqlite:{}", directory.join("tickets.db").display())),
            "DB_TIMEOUT_MS" => Some("60000".to_owned()),
            "DB_POOL_MAX" => Some("1".to_owned()),
            "ORGANIZER_KEY" => Some(ORGANIZER_KEY.to_owned()),
            "TICKET_SECRET" => Some(TICKET_SECRET.to_owned()),
            _ => None,
        });
        let settings = settings.expect("these settings are valid");
        store::migrate(&settings.database).await.expect("a new database can be migrated");
        let now = Arc::new(AtomicI64::new(EVENING));
        let clock = Arc::clone(&now);
        let app = Arc::new(App::new(settings, Box::new(move || Millis(clock.load(Ordering::Relaxed)))));
        let (totp, ticket_id) = (TotpKey::new([0; 20]), Uuid::nil());
        let mut evening =
            Self { app, directory, now, inputs: 0, gaps: Vec::new(), secrets: Vec::new(), totp, ticket_id };
        evening.begin().await;
        evening
    }

    /// Ana has two tickets, one of which has admitted her. The third has no holder.
    async fn begin(&mut self) {
        let event = json!({
            "slug": "show", "name": "Show", "starts_at": "2026-05-01T18:00:00Z", "ends_at": "2026-05-01T23:00:00Z",
            "reentry": "after_exit", "walk_ups": true,
        });
        self.post("/api/events", event).await;
        let seats = ["A1", "A2", "A3"].map(|seat| json!({ "seat": seat, "gate": "North" }));
        self.post("/api/events/show/tickets", json!(seats)).await;
        let ana = json!({ "username": "ana", "full_name": "Ana Roe", "email": "ana@example.org" });
        self.post("/api/users", ana).await;
        let register = |seat| json!({ "event": "show", "seat": seat, "gate": "North" });
        let used = self.post("/api/users/ana/tickets", register("A1")).await;
        let held = self.post("/api/users/ana/tickets", register("A2")).await;
        let link = self.ask(&format!("GET /api/tickets/{}/link", text(&held["ticket_id"]))).await;
        let page = text(&link["ticket_url"]).rsplit('/').next().unwrap_or_default().to_owned();
        let key = |role| json!({ "name": role, "role": role, "event": "show", "offline": true });
        let supervisor = self.post("/api/keys", key("supervisor")).await;
        let gate = self.post("/api/keys", key("gate")).await;
        let enrol = self.ask(&format!("POST /api/keys/{}/enrol", text(&supervisor["key_id"]))).await;
        let token = text(&enrol["enrol_url"]).rsplit('=').next().unwrap_or_default().to_owned();
        let secrets =
            [&used["provisioning"]["secret"], &held["provisioning"]["secret"], &gate["key"], &supervisor["key"]];
        self.secrets = secrets.map(text).into_iter().chain([ORGANIZER_KEY, TICKET_SECRET].map(str::to_owned)).collect();
        self.gaps = vec![
            ("$used", text(&used["ticket_id"])),
            ("$held", text(&held["ticket_id"])),
            ("$page", page),
            ("$token", token),
            ("$key", text(&gate["key_id"])),
            ("Bearer gate", format!("Bearer {}", text(&gate["key"]))),
            ("Bearer supervisor", format!("Bearer {}", text(&supervisor["key"]))),
            ("Bearer organizer", format!("Bearer {ORGANIZER_KEY}")),
        ];
        (self.ticket_id, self.totp) = provisioned(&used);
        self.post("/api/events/show/scans", json!({ "scan_id": SCAN, "code": self.code() })).await;
        (self.ticket_id, self.totp) = provisioned(&held);
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(&format!("POST {path}\ncontent-type: application/json\n\n{body}")).await
    }

    /// Sends a request that must succeed and returns its answer.
    async fn ask(&self, request: &str) -> Value {
        let request = self.read(request.as_bytes()).expect("a request");
        let (head, body) = self.answer(request).await;
        assert!(head.status.is_success(), "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).expect("JSON")
    }

    /// The code that the ticket's phone shows now.
    fn code(&self) -> String {
        let code = Code::Rotating(self.totp.code(step_at(self.app.now())));
        QrCode { ticket_id: self.ticket_id, code }.to_string()
    }

    /// An input with its placeholders filled.
    fn filled(&self, input: &[u8]) -> Vec<u8> {
        let code = self.code();
        let gaps = self.gaps.iter().map(|(name, value)| (*name, value.as_str())).chain([("$code", &*code)]);
        gaps.fold(input.to_vec(), |input, (name, value)| replaced(&input, name.as_bytes(), value.as_bytes()))
    }

    /// Parses a request if the input has the form of one: as in HTTP, but without a version and with `\n` as line
    /// break.
    fn read(&self, input: &[u8]) -> Option<Request<Full<Bytes>>> {
        let end = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
        let (head, body) = (std::str::from_utf8(&input[..end]).ok()?, input.get(end + 2..).unwrap_or_default());
        let mut lines = head.split('\n');
        let (method, target) = lines.next()?.split_once(' ')?;
        let mut request = Request::builder().method(method).uri(target);
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            request = request.header(name, value.as_bytes());
        }
        let mut request = request.body(Full::new(Bytes::copy_from_slice(body))).ok()?;
        let key = HeaderValue::try_from(format!("Bearer {ORGANIZER_KEY}")).expect("a key fits in a header");
        request.headers_mut().entry(header::AUTHORIZATION).or_insert(key);
        Some(request)
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> (Parts, Bytes) {
        let (head, body) = routes::handle(&self.app, request).await.into_parts();
        (head, body.collect().await.expect("an answer is complete").to_bytes())
    }

    /// Checks that no answer reports a failure, that JSON is valid JSON, and that no refusal contains a secret unless
    /// it was sent: names of columns, for example, are repeated.
    fn check(&self, input: &[u8], status: u16, headers: &HeaderMap, body: &[u8]) {
        let told = String::from_utf8_lossy(body);
        // The database uses the machine's clock, which differs from this one.
        let is_health = status == 503 && told.contains(r#""clock":"failed""#);
        assert!((200..500).contains(&status) || is_health, "{status}: {told}");
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_plain = !headers.contains_key(header::CONTENT_ENCODING) && !body.is_empty();
        if is_plain && media_type.ends_with("json") {
            assert!(serde_json::from_slice::<Value>(body).is_ok(), "{told}");
        }
        let sent = String::from_utf8_lossy(input);
        let mut secrets = self.secrets.iter().filter(|secret| !sent.contains(*secret));
        let tells = |secret: &String| told.contains(secret) || headers.values().any(|value| value == secret);
        assert!(status < 400 || !secrets.any(tells), "{status}: {told}");
    }
}

impl Drop for Evening {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// The ticket in an answer, and the key of its codes.
fn provisioned(answer: &Value) -> (Uuid, TotpKey) {
    let key = BASE32_NOPAD.decode(text(&answer["provisioning"]["secret"]).as_bytes()).expect("base32");
    (text(&answer["ticket_id"]).parse().expect("a UUID"), TotpKey::new(key.try_into().expect("20 bytes")))
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

fn replaced(text: &[u8], name: &[u8], value: &[u8]) -> Vec<u8> {
    match text.windows(name.len()).position(|part| part == name) {
        Some(at) => [&text[..at], value, &replaced(&text[at + name.len()..], name, value)].concat(),
        None => text.to_vec(),
    }
}
