//! Random requests as organizers, gates and supervisors might send them, in any order. Placeholders such as `⟨qr 2⟩`
//! stand for values that only the receiving service has returned; they are filled when the request is sent.

use std::fmt;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

/// An action, some time after the previous one.
#[derive(Clone)]
pub struct Step {
    /// In milliseconds.
    pub after: i64,
    pub by: By,
    pub act: Act,
}

#[derive(Clone, Copy, Debug)]
pub enum By {
    Organizer,
    /// The key that was requested after this many others.
    Key(usize),
    Nobody,
}

#[derive(Clone)]
pub enum Act {
    Request {
        method: Method,
        path: String,
        /// Its media type and content.
        body: Option<(&'static str, String)>,
    },
    /// The service's own daily task.
    Forget,
}

/// Shown when a test fails.
impl fmt::Debug for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:+} ms {:?} {:?}", self.after, self.by, self.act)
    }
}

impl fmt::Debug for Act {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { method, path, body: None } => write!(formatter, "{method} {path}"),
            Self::Request { method, path, body: Some((media_type, body)) } => {
                write!(formatter, "{method} {path} ({media_type}) {body}")
            }
            Self::Forget => write!(formatter, "forgets"),
        }
    }
}

/// How many things were requested that later requests may name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Tickets with their code secret: each registration, reissue and transfer.
    pub secrets: usize,
    /// Keys: each key requested, and each enrolment.
    pub keys: usize,
}

impl Asked {
    /// Counts what a step requests.
    pub fn count(&mut self, step: &Step) {
        self.secrets += usize::from(step.asks_for_a_secret());
        self.keys += usize::from(step.asks_for_a_key());
    }

    /// Whether everything that a step names was requested before it.
    pub fn has(&self, step: &Step) -> bool {
        let key = match step.by {
            By::Key(number) => number < self.keys,
            _ => true,
        };
        let Act::Request { path, body, .. } = &step.act else { return key };
        let text = body.as_ref().map_or("", |(_, body)| body);
        key && gaps(path).chain(gaps(text)).all(|gap| match Gap::of(gap) {
            Gap { name: "qr" | "paper" | "code", number, .. } => number < self.secrets,
            Gap { name: "key", number, .. } => number < self.keys,
            _ => true,
        })
    }
}

impl Step {
    pub fn asks_for_a_secret(&self) -> bool {
        let Act::Request { method, path, .. } = &self.act else { return false };
        let registers = path.starts_with("/api/users/") && path.contains("/tickets") && *method == Method::POST;
        registers || path.contains("/reissue") || path.contains("/transfer")
    }

    pub fn asks_for_a_key(&self) -> bool {
        matches!(&self.act, Act::Request { method, path, .. }
            if *method == Method::POST && (path == "/api/keys" || path == "/api/enrol"))
    }
}

/// A placeholder in a request: what it stands for, which one of them, and its offset.
pub struct Gap<'a> {
    pub name: &'a str,
    pub number: usize,
    pub off: i64,
}

impl<'a> Gap<'a> {
    pub fn of(text: &'a str) -> Self {
        let mut words = text.split(' ');
        let name = words.next().expect("a gap has a name");
        let mut number = || words.next().map_or(0, |word| word.parse().expect("a gap has numbers"));
        match name {
            "time" => Self { name, number: 0, off: number() },
            _ => Self { name, number: number().try_into().expect("they are counted from 0"), off: number() },
        }
    }
}

/// The placeholders in a text.
fn gaps(text: &str) -> impl Iterator<Item = &str> {
    text.split('⟨').skip(1).filter_map(|rest| rest.split('⟩').next())
}

/// Fills the placeholders in a text.
pub fn filled(text: &str, fill: impl Fn(Gap<'_>) -> String) -> String {
    let mut parts = text.split('⟨');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (gap, rest) = part.split_once('⟩').expect("a gap has an end");
        whole.push_str(&fill(Gap::of(gap)));
        whole.push_str(rest);
    }
    whole
}

const EVENTS: &[&str] = &["default", "default", "gala", "gala", "gala", "ball", "none"];
/// Texts that databases compare, sort, fold and match differently unless told how.
const SEATS: &[&str] = &[
    "A-1",
    "A-1",
    "a 1",
    "A\u{2011}1",
    "A-2",
    "A-2",
    "A-3",
    "Ñ",
    "N",
    "ñ-10",
    "10",
    "９",
    "ß-1",
    "SS-1",
    "İ-1",
    "%",
    "_",
    "\\",
    "'",
    "🎫",
    "Ω",
    "\u{e9}-1",
    "e\u{301}-1",
    "ﬁ",
    "\u{10000}",
    "\u{ffee}",
    " x ",
];
const GATES: &[&str] = &["North", "North", "North", "NORTH", "Süd", "Sud", "Entrance", "東", "\u{1d400}"];
const USERS: &[&str] = &["ana", "ana", "ANA", "luis", "o.b+c@x.org", "_zoe", "-", "attendance"];
const NAMES: &[&str] = &[
    "Ana Ruiz",
    "ana ruíz",
    "RUIZ Ana",
    "Łukasz Ä",
    "李雷",
    "=1+1",
    "O'Brien",
    "x\"y,z",
    "\u{1d400}na",
    "\u{ffee}",
    "İstanbul",
    "ﬀ",
    "%",
    "_",
];
const CATEGORIES: &[&str] = &["Adult", "adult", "VIP", "Niño", "\u{1d400}", "\u{ffee}"];
const EMAILS: &[&str] = &["ana@example.org", "ANA@example.org", "l@x", "x", "Ñ@ñ.es"];
const LOOKED_FOR: &[&str] = &[
    "a", "an", "ana", "ANA", "ruiz ana", "ru%", "_", "%", "\\", "ñ", "n", "ss", "ß", "i", "'", "🎫", "1", "a-1",
    "\u{0}", "ﬁ", "",
];
/// Seconds from now.
const SOON: &[i64] = &[-300_000, -90_000, -3_600, -130, -45, -20, -1, 0, 1, 20, 45, 3_600, 20_000, 300_000];

fn one_of(words: &'static [&'static str]) -> BoxedStrategy<Value> {
    select(words).prop_map(|word| json!(word)).boxed()
}

fn rarely_null(of: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    prop_oneof![6 => of, 1 => Just(Value::Null)].boxed()
}

fn time() -> BoxedStrategy<Value> {
    select(SOON).prop_map(|seconds| json!(format!("⟨time {seconds}⟩"))).boxed()
}

fn number(least: i64, most: i64) -> BoxedStrategy<Value> {
    (least..=most).prop_map(Value::from).boxed()
}

fn flag() -> BoxedStrategy<Value> {
    any::<bool>().prop_map(Value::from).boxed()
}

/// One of a dozen ids of devices, so that some repeat.
fn scan_id() -> BoxedStrategy<Value> {
    (1..=12_u8).prop_map(|number| json!(format!("00000000-0000-7000-8000-{number:012}"))).boxed()
}

/// An object that has each field with these odds.
fn object(members: Vec<(&'static str, f64, BoxedStrategy<Value>)>) -> BoxedStrategy<Value> {
    let member = |(name, odds, value): (&'static str, f64, BoxedStrategy<Value>)| {
        let value = if odds < 1.0 { weighted(odds, value).boxed() } else { value.prop_map(Some).boxed() };
        value.prop_map(move |value| Some((name.to_owned(), value?)))
    };
    let members: Vec<_> = members.into_iter().map(member).collect();
    members.prop_map(|members| members.into_iter().flatten().collect()).boxed()
}

fn merged(one: BoxedStrategy<Value>, other: BoxedStrategy<Value>) -> BoxedStrategy<Value> {
    (one, other)
        .prop_map(|(mut one, mut other)| {
            let members = one.as_object_mut().expect("an object");
            members.append(other.as_object_mut().expect("an object"));
            one
        })
        .boxed()
}

fn event_times() -> Vec<(&'static str, f64, BoxedStrategy<Value>)> {
    let time = || rarely_null(time());
    vec![
        ("time_zone", 0.2, one_of(&["Europe/Madrid", "America/Sao_Paulo", "Asia/Kathmandu", "Nowhere/None"])),
        ("starts_at", 0.3, time()),
        ("ends_at", 0.3, time()),
        ("opens_at", 0.1, time()),
        ("closes_at", 0.1, time()),
        ("reentry", 0.4, one_of(&["none", "after_exit", "after_exit", "once_a_day"])),
        ("capacity", 0.1, rarely_null(number(0, 5))),
        ("category_colours", 0.1, Just(json!({ "VIP": "red", "Niño": "blue" })).boxed()),
        ("language", 0.1, one_of(&["es", "en", "xx"])),
        ("location", 0.1, rarely_null(one_of(NAMES))),
        ("forget_after_days", 0.2, rarely_null(number(1, 2))),
        ("walk_ups", 0.4, flag()),
        ("walk_up_price", 0.2, rarely_null(number(-1, 1_200))),
        ("currency", 0.3, rarely_null(one_of(&["EUR", "JPY", "eur"]))),
    ]
}

fn ticket() -> BoxedStrategy<Value> {
    object(vec![
        ("seat", 0.9, one_of(SEATS)),
        ("gate", 0.8, one_of(GATES)),
        ("username", 0.4, one_of(USERS)),
        ("full_name", 0.3, one_of(NAMES)),
        ("email", 0.2, one_of(EMAILS)),
        ("reference", 0.3, one_of(&["R-1", "R-1", "r-1", "R-2", "\u{ffee}"])),
        ("category", 0.4, one_of(CATEGORIES)),
        ("note", 0.2, one_of(NAMES)),
        ("valid_from", 0.1, time()),
        ("valid_until", 0.1, time()),
        ("quantity", 0.1, number(0, 3)),
    ])
}

/// A list of tickets made by `ticket`.
fn csv() -> BoxedStrategy<String> {
    const COLUMNS: &[&str] =
        &["seat", "gate", "username", "full_name", "email", "reference", "category", "note", "quantity"];
    let field = |ticket: &Value, name: &str| match &ticket[name] {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => other.to_string(),
    };
    let line =
        move |ticket: Value| COLUMNS.iter().map(|name| field(&ticket, name)).collect::<Vec<_>>().join(",") + "\n";
    vec(ticket(), 1..5)
        .prop_map(move |tickets| {
            tickets.into_iter().map(line).fold(COLUMNS.join(",") + "\n", |list, line| list + &line)
        })
        .boxed()
}

/// What is shown at the gate, given the number of tickets with a secret.
fn shown(secrets: usize) -> BoxedStrategy<Value> {
    let by_seat = |code: BoxedStrategy<Value>| {
        object(vec![("seat", 1.0, one_of(SEATS)), ("gate", 1.0, one_of(GATES)), ("totp_code", 1.0, code)])
    };
    let digits = one_of(&["000000", "123 456", "99999", "१२३४५६"]);
    let by_hand = object(vec![
        ("seat", 1.0, one_of(SEATS)),
        ("gate", 1.0, one_of(GATES)),
        ("manual", 0.95, Just(json!(true)).boxed()),
        ("note", 0.95, one_of(NAMES)),
    ]);
    let of_party = object(vec![("ticket_id", 1.0, told("ticket_id")), ("vouched_by", 1.0, scan_id())]);
    let strange = object(vec![(
        "code",
        1.0,
        one_of(&["", "RT1.x.000000", "https://example.org", "RT1.AAAAAAAAcACAAAAAAAAAAQ.000000"]),
    )]);
    let others = prop_oneof![by_seat(digits), by_hand, of_party, strange];
    if secrets == 0 {
        return others.boxed();
    }
    let off = || select(&[0, 0, 0, 0, -30, 30, -300, 300, 3_600][..]);
    let qr = (0..secrets, off()).prop_map(|(number, off)| json!({ "code": format!("⟨qr {number} {off}⟩") }));
    let paper = (0..secrets).prop_map(|number| json!({ "code": format!("⟨paper {number}⟩") }));
    let code = (0..secrets, off()).prop_map(|(number, off)| json!(format!("⟨code {number} {off}⟩"))).boxed();
    prop_oneof![6 => qr, 1 => paper, 2 => by_seat(code), 2 => others].boxed()
}

fn scan(secrets: usize) -> BoxedStrategy<Value> {
    let how = object(vec![
        ("scan_id", 0.98, scan_id()),
        ("at_gate", 0.4, one_of(GATES)),
        ("direction", 0.3, one_of(&["entry", "exit"])),
        ("scanned_at", 0.1, time()),
    ]);
    merged(shown(secrets), how)
}

fn walk_up() -> BoxedStrategy<Value> {
    object(vec![
        ("count", 0.4, number(0, 3)),
        ("full_name", 0.4, one_of(NAMES)),
        ("category", 0.4, one_of(CATEGORIES)),
        ("note", 0.2, one_of(NAMES)),
        ("paid", 0.3, number(0, 500)),
    ])
}

fn batch(secrets: usize) -> BoxedStrategy<Value> {
    let offline = || {
        object(vec![
            ("scanned_at", 0.97, time()),
            (
                "offline_result",
                0.97,
                one_of(&["accepted", "accepted", "accepted", "already_used", "wrong_code", "revoked", "undone"]),
            ),
        ])
    };
    let people =
        object(vec![("scan_id", 1.0, scan_id()), ("walk_up", 1.0, walk_up()), ("at_gate", 0.3, one_of(GATES))]);
    let item = prop_oneof![5 => scan(secrets), 1 => people];
    vec(merged(item.boxed(), offline()), 0..4).prop_map(|scans| json!({ "scans": scans })).boxed()
}

/// A placeholder for a value of this name from some answer.
fn told(name: &'static str) -> BoxedStrategy<Value> {
    (0..12_usize).prop_map(move |number| json!(format!("⟨{name} {number}⟩"))).boxed()
}

/// A query that has each parameter with these odds.
fn query(parameters: Vec<(&'static str, f64, BoxedStrategy<Value>)>) -> BoxedStrategy<String> {
    let escaped = |value: &Value| match value.as_str() {
        Some(text) if text.starts_with('⟨') => text.to_owned(),
        Some(text) => utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(),
        None => value.to_string(),
    };
    object(parameters)
        .prop_map(move |parameters| {
            let parameters = parameters.as_object().expect("an object").iter();
            let parameters: Vec<_> = parameters.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
            if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) }
        })
        .boxed()
}

fn page() -> Vec<(&'static str, f64, BoxedStrategy<Value>)> {
    vec![("limit", 0.5, number(1, 3)), ("after", 0.3, told("next"))]
}

fn with_event(path: &'static str) -> BoxedStrategy<String> {
    select(EVENTS).prop_map(move |event| path.replace("{event}", event)).boxed()
}

fn with_told(path: &'static str, name: &'static str) -> BoxedStrategy<String> {
    told(name).prop_map(move |gap| path.replace("{}", gap.as_str().expect("a gap"))).boxed()
}

fn with_user(path: &'static str) -> BoxedStrategy<String> {
    let scope = query(vec![("event", 0.2, one_of(EVENTS))]);
    (select(USERS), scope).prop_map(move |(user, scope)| path.replace("{}", user) + &scope).boxed()
}

fn with_query(
    path: BoxedStrategy<String>,
    parameters: Vec<(&'static str, f64, BoxedStrategy<Value>)>,
) -> BoxedStrategy<String> {
    (path, query(parameters)).prop_map(|(path, query)| path + &query).boxed()
}

fn bare(method: Method, path: BoxedStrategy<String>) -> BoxedStrategy<Act> {
    path.prop_map(move |path| Act::Request { method: method.clone(), path, body: None }).boxed()
}

fn sends(method: Method, path: BoxedStrategy<String>, body: BoxedStrategy<Value>) -> BoxedStrategy<Act> {
    let request = move |(path, body): (String, Value)| Act::Request {
        method: method.clone(),
        path,
        body: Some(("application/json", body.to_string())),
    };
    (path, body).prop_map(request).boxed()
}

/// What organizers create and change.
fn organizing() -> BoxedStrategy<Act> {
    let slug = ("slug", 1.0, one_of(&["gala", "gala", "ball", "Not a slug"]));
    let event = [vec![slug, ("name", 0.95, one_of(NAMES))], event_times()].concat();
    let change = [vec![("name", 0.2, one_of(NAMES))], event_times()].concat();
    let person = || vec![("full_name", 0.5, rarely_null(one_of(NAMES))), ("email", 0.4, rarely_null(one_of(EMAILS)))];
    let user = object([vec![("username", 1.0, one_of(USERS))], person()].concat());
    let how = vec![
        ("existing", 0.4, one_of(&["skip", "update", "refuse"])),
        ("dry_run", 0.15, one_of(&["true"])),
        ("unknown", 0.1, one_of(&["ignore"])),
    ];
    let list = (with_query(with_event("/api/events/{event}/tickets"), how), csv())
        .prop_map(|(path, list)| Act::Request { method: Method::POST, path, body: Some(("text/csv", list)) });
    let seat = object(vec![("event", 0.7, one_of(EVENTS)), ("seat", 1.0, one_of(SEATS)), ("gate", 1.0, one_of(GATES))]);
    let ticket_change = object(vec![
        ("category", 0.4, rarely_null(one_of(CATEGORIES))),
        ("note", 0.4, rarely_null(one_of(NAMES))),
        ("valid_from", 0.2, rarely_null(time())),
        ("valid_until", 0.2, rarely_null(time())),
    ]);
    let confirmed = vec![("confirm", 0.8, one_of(EVENTS))];
    prop_oneof![
        3 => sends(Method::POST, Just("/api/events".to_owned()).boxed(), object(event)),
        3 => sends(Method::PATCH, with_event("/api/events/{event}"), object(change)),
        1 => bare(Method::DELETE, with_query(with_event("/api/events/{event}"), confirmed)),
        3 => sends(Method::POST, with_query(Just("/api/users".to_owned()).boxed(), vec![("event", 0.2, one_of(EVENTS))]), user),
        1 => sends(Method::PATCH, with_user("/api/users/{}"), object(person())),
        1 => bare(Method::DELETE, with_user("/api/users/{}")),
        4 => sends(Method::POST, with_event("/api/events/{event}/tickets"), vec(ticket(), 0..4).prop_map(Value::from).boxed()),
        6 => list,
        8 => sends(Method::POST, with_user("/api/users/{}/tickets"), seat),
        1 => sends(Method::PATCH, with_told("/api/tickets/{}", "ticket_id"), ticket_change),
        1 => bare(Method::POST, with_told("/api/tickets/{}/revoke", "ticket_id")),
        1 => bare(Method::POST, with_told("/api/tickets/{}/reissue", "ticket_id")),
        1 => sends(
            Method::POST,
            with_query(with_told("/api/tickets/{}/transfer", "ticket_id"), vec![("event", 0.2, one_of(EVENTS))]),
            object(vec![("username", 1.0, one_of(USERS))]),
        ),
        1 => bare(Method::POST, with_told("/api/tickets/{}/print", "ticket_id")),
        1 => bare(Method::POST, with_event("/api/events/{event}/printed")),
    ]
    .boxed()
}

/// Actions on keys, given the number of keys requested so far.
fn keys(keys: usize) -> BoxedStrategy<Act> {
    let key = object(vec![
        ("name", 1.0, one_of(NAMES)),
        ("role", 1.0, one_of(&["organizer", "supervisor", "gate", "gate"])),
        ("event", 0.5, one_of(EVENTS)),
        ("gate", 0.2, one_of(GATES)),
        ("offline", 0.5, flag()),
        ("expires_at", 0.1, time()),
    ]);
    let make = sends(Method::POST, Just("/api/keys".to_owned()).boxed(), key);
    let enrol = sends(
        Method::POST,
        prop_oneof![2 => Just("/api/enrol".to_owned()), 1 => Just("/api/enrol/offer".to_owned())].boxed(),
        Just(json!({ "token": "⟨enrol⟩" })).boxed(),
    );
    if keys == 0 {
        return make;
    }
    let of_a_key =
        move |path: &'static str| (0..keys).prop_map(move |key| format!("/api/keys/⟨key {key}⟩{path}")).boxed();
    let handed = object(vec![
        ("event", 1.0, one_of(EVENTS)),
        ("scans", 1.0, Just(json!([{ "scan": "{}", "proof": "A" }])).boxed()),
    ]);
    prop_oneof![
        6 => make,
        1 => bare(Method::DELETE, of_a_key("")),
        2 => bare(Method::POST, of_a_key("/enrol")),
        2 => enrol,
        1 => bare(Method::POST, of_a_key("/lost")),
        1 => bare(Method::POST, of_a_key("/take")),
        1 => sends(Method::POST, of_a_key("/scans"), handed),
        1 => bare(Method::GET, of_a_key("/links.csv")),
        1 => bare(Method::GET, with_query(of_a_key("/scans"), [page(), vec![("since", 0.3, time())]].concat())),
    ]
    .boxed()
}

/// Actions at the door.
fn admitting(secrets: usize) -> BoxedStrategy<Act> {
    let attendance = object(vec![
        ("seat", 1.0, one_of(SEATS)),
        ("gate", 1.0, one_of(GATES)),
        ("totp_code", 1.0, one_of(&["000000", "123456"])),
        ("event", 0.5, one_of(EVENTS)),
        ("scan_id", 0.9, scan_id()),
    ]);
    let people = merged(
        walk_up(),
        object(vec![("scan_id", 1.0, scan_id()), ("gate", 0.5, one_of(GATES)), ("scanned_at", 0.1, time())]),
    );
    let undone = scan_id().prop_map(|id| format!("/api/scans/{}/undo", id.as_str().expect("an id"))).boxed();
    prop_oneof![
        8 => sends(Method::POST, with_event("/api/events/{event}/scans"), scan(secrets)),
        3 => sends(Method::POST, with_event("/api/events/{event}/scans/batch"), batch(secrets)),
        1 => sends(Method::POST, Just("/api/users/attendance".to_owned()).boxed(), attendance),
        2 => sends(Method::POST, with_event("/api/events/{event}/walk-ups"), people),
        3 => bare(Method::POST, undone),
    ]
    .boxed()
}

/// Reading requests.
fn reading() -> BoxedStrategy<Act> {
    let tickets = [
        page(),
        vec![
            ("q", 0.5, one_of(LOOKED_FOR)),
            ("gate", 0.3, one_of(GATES)),
            ("status", 0.2, one_of(&["valid", "used", "revoked"])),
        ],
    ];
    let of_event = select(
        &[
            "",
            "/stats",
            "/printed",
            "/tickets.csv",
            "/scans.csv",
            "/inside.csv",
            "/attendance.csv",
            "/links.csv",
            "/actions.csv",
        ][..],
    );
    let paged = select(&["/conflicts", "/incidents"][..]);
    let path = |(event, what): (&str, &str)| format!("/api/events/{event}{what}");
    let mails = vec![("list", 0.4, one_of(&["without_address", "unmailed"])), ("after", 0.2, told("next"))];
    prop_oneof![
        8 => bare(Method::GET, (select(EVENTS), of_event).prop_map(path).boxed()),
        4 => bare(Method::GET, with_query(with_event("/api/events/{event}/tickets"), tickets.concat())),
        2 => bare(Method::GET, with_query(with_event("/api/events/{event}/guests"), vec![("q", 1.0, one_of(LOOKED_FOR))])),
        2 => bare(Method::GET, with_query(with_event("/api/events/{event}/manifest"), vec![("since", 0.4, Just(json!("⟨as_of⟩")).boxed())])),
        2 => bare(Method::GET, with_query((select(EVENTS), paged).prop_map(path).boxed(), page())),
        1 => bare(Method::GET, with_query(with_event("/api/events/{event}/mails"), mails)),
        1 => bare(Method::GET, with_query(select(&["/api/events", "/api/keys"][..]).prop_map(ToOwned::to_owned).boxed(), page())),
        1 => bare(Method::GET, with_user("/api/users/{}")),
        1 => bare(Method::GET, with_query(select(USERS).prop_map(|user| format!("/api/users/{user}/tickets")).boxed(), page())),
        1 => bare(Method::GET, with_told("/api/tickets/{}", "ticket_id")),
        1 => bare(Method::GET, with_query(with_told("/api/tickets/{}/link", "ticket_id"), vec![("all", 0.3, one_of(&["true"]))])),
        1 => bare(Method::GET, with_query(with_told("/api/tickets/{}/actions", "ticket_id"), page())),
        1 => bare(Method::GET, Just("/api/actions.csv".to_owned()).boxed()),
    ]
    .boxed()
}

/// A step, given what was requested before it.
pub fn step(asked: Asked) -> BoxedStrategy<Step> {
    let after = prop_oneof![
        20 => 1..5_000_i64,
        3 => 5_000..130_000_i64,
        1 => select(&[3_600_000, 86_400_000, 400_000_000][..]),
    ];
    let by = match asked.keys {
        0 => prop_oneof![20 => Just(By::Organizer), 1 => Just(By::Nobody)].boxed(),
        keys => prop_oneof![9 => Just(By::Organizer), 6 => (0..keys).prop_map(By::Key)].boxed(),
    };
    let act = prop_oneof![
        12 => organizing(),
        4 => keys(asked.keys),
        10 => admitting(asked.secrets),
        10 => reading(),
        1 => Just(Act::Forget),
    ];
    (after, by, act).prop_map(|(after, by, act)| Step { after, by, act }).boxed()
}
