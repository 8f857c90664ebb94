//! SQLite and PostgreSQL side by side: the service gives the same answers to every request on both, and leaves the same
//! rows.
//!
//! Runs the same cases for a minute, or different ones for SIDES_SECONDS seconds. A failure shows the shortest case
//! found and its seed; SIDES_SEED runs that case again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Request, header};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use register_ticket_api::app::App;
use register_ticket_api::forgetting::forget_due;
use register_ticket_api::model::Millis;
use register_ticket_api::response::DATABASE;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::client::{Client, Reply};
use crate::database::{Kind, TestDatabase};
use crate::requests::{Act, Asked, By, Gap, Step, filled, step};
use crate::service::{Service, TestClock, Ticket, settings};

/// Whether the service generated a word: ids, secrets, cursors and tokens are longer than anything sent, and a username
/// made from a name ends with part of the hash of the event's id.
fn is_made(word: &str) -> bool {
    let hash = word.rsplit_once('-').map_or("", |(_, end)| end);
    word.len() >= 22 || (hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Stands for a value that was not returned yet.
const NOTHING: &str = "ffffffff-ffff-4fff-8fff-ffffffffffff";
/// Headers that depend on the database or on random values.
const OWN_HEADERS: &[&str] = &["content-length", "content-encoding", "etag", DATABASE];

struct Evening;

impl ReferenceStateMachine for Evening {
    type State = Asked;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Asked> {
        Just(Asked::default()).boxed()
    }

    fn transitions(asked: &Asked) -> BoxedStrategy<Step> {
        step(*asked)
    }

    fn apply(mut asked: Asked, step: &Step) -> Asked {
        asked.count(step);
        asked
    }

    fn preconditions(asked: &Asked, step: &Step) -> bool {
        asked.has(step)
    }
}

/// One of the two services, and the values it has returned so far.
struct Side {
    service: Service,
    /// The tickets returned by requests for a secret.
    secrets: Vec<Option<Ticket>>,
    /// The keys returned by requests for one: id and client.
    keys: Vec<Option<(String, Client)>>,
    /// The values returned under these names.
    told: HashMap<String, Vec<String>>,
    /// Generated words, numbered in the order in which they were returned.
    made: HashMap<String, usize>,
}

impl Side {
    async fn start(kind: Kind, clock: TestClock) -> Self {
        let service = Service::on(Arc::new(TestDatabase::create(kind).await), clock, &[]);
        Self { service, secrets: Vec::new(), keys: Vec::new(), told: HashMap::new(), made: HashMap::new() }
    }

    /// Performs a step. Returns the result without what depends on this service.
    async fn does(&mut self, step: &Step) -> String {
        let Act::Request { method, path, body } = &step.act else { return self.forgets().await };
        let client = match step.by {
            By::Organizer => &self.service.organizer,
            By::Nobody => &self.service.anonymous,
            By::Key(number) => match &self.keys[number] {
                Some((_, client)) => client,
                None => &self.service.anonymous,
            },
        };
        let fill = |text: &str| filled(text, |gap| self.fill(&gap));
        let mut request = Request::builder().method(method).uri(fill(path));
        if let Some((media_type, _)) = body {
            request = request.header(header::CONTENT_TYPE, *media_type);
        }
        let body = body.as_ref().map(|(_, body)| fill(body)).unwrap_or_default();
        let reply = client.send(request, body).await;
        self.learn(step, &reply);
        self.tell(&reply)
    }

    async fn forgets(&self) -> String {
        let clock = self.service.clock.clone();
        let app = App::new(settings(&self.service.database, &[]), Box::new(move || clock.now()));
        let events = forget_due(&app, false).await.expect("the events can be listed");
        format!(
            "{:?}",
            events
                .into_iter()
                .map(|(event, done)| (event.slug, done.map_err(|error| error.code())))
                .collect::<Vec<_>>()
        )
    }

    fn fill(&self, gap: &Gap<'_>) -> String {
        let moment = |seconds: i64| self.service.moment(seconds * 1_000);
        let of_ticket = |told: &dyn Fn(&Ticket) -> String| self.secrets[gap.number].as_ref().map(told);
        let filled = match gap.name {
            "time" => Some(self.service.time(gap.off * 1_000)),
            "qr" => of_ticket(&|ticket| ticket.qr(moment(gap.off))),
            "code" => of_ticket(&|ticket| ticket.code(moment(gap.off))),
            "paper" => of_ticket(&Ticket::paper),
            "key" => self.keys[gap.number].as_ref().map(|(id, _)| id.clone()),
            // The latest one.
            "as_of" | "enrol" => self.told.get(gap.name).and_then(|told| told.last().cloned()),
            name => self.told.get(name).and_then(|told| told.get(gap.number % told.len()).cloned()),
        };
        filled.unwrap_or_else(|| NOTHING.to_owned())
    }

    /// Records values that later requests may name.
    fn learn(&mut self, step: &Step, reply: &Reply) {
        let answer: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        if step.asks_for_a_secret() {
            self.secrets.push(answer.get("provisioning").map(|_| Ticket::new(&answer)));
        }
        if step.asks_for_a_key() {
            let key = |answer: &Value| {
                let client = self.service.anonymous.with_key(answer["key"].as_str()?);
                Some((answer["key_id"].as_str()?.to_owned(), client))
            };
            self.keys.push(key(&answer));
        }
        self.keep(&answer);
    }

    fn keep(&mut self, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    let told = match (name.as_str(), value) {
                        ("ticket_id" | "next", Value::String(text)) => Some((name.as_str(), text.clone())),
                        ("as_of", Value::Number(number)) => Some(("as_of", number.to_string())),
                        ("enrol_url", Value::String(url)) => {
                            url.split_once('=').map(|(_, token)| ("enrol", token.to_owned()))
                        }
                        _ => None,
                    };
                    if let Some((name, text)) = told {
                        let told = self.told.entry(name.to_owned()).or_default();
                        if !told.contains(&text) {
                            told.push(text);
                        }
                    }
                    self.keep(value);
                }
            }
            Value::Array(members) => members.iter().for_each(|member| self.keep(member)),
            _ => {}
        }
    }

    fn tell(&mut self, reply: &Reply) -> String {
        let own = |name: &str| OWN_HEADERS.contains(&name);
        let headers = reply.headers.iter().filter(|(name, _)| !own(name.as_str()));
        let mut headers: Vec<_> = headers.map(|(name, value)| format!("{name}: {value:?}\n")).collect();
        headers.sort();
        let text = format!("{}\n{}\n{}", reply.status, headers.concat(), without_state(&reply.text()));
        self.without_chance(&text)
    }

    /// Replaces each generated word by its number in the order in which words were returned.
    fn without_chance(&mut self, text: &str) -> String {
        each_word(text, |word| {
            let next = self.made.len();
            format!("#{}", self.made.entry(word.to_owned()).or_insert(next))
        })
    }

    /// All rows, with generated words replaced in the same way, and those never returned by a dot.
    async fn rows(&self) -> String {
        let known = |word: &str| self.made.get(word).map_or_else(|| "·".to_owned(), |place| format!("#{place}"));
        let snapshot = self.service.database.snapshot().await;
        let mut rows: Vec<String> = Vec::new();
        let mut table = String::new();
        for line in snapshot.lines() {
            match serde_json::from_str::<BTreeMap<String, Value>>(line) {
                Ok(mut row) => {
                    // The default event is as old as its database.
                    row.retain(|column, _| table != "events" || column != "created_at");
                    rows.push(format!("{table} {}", each_word(&format!("{row:?}"), known)));
                }
                Err(_) => table = line.to_owned(),
            }
        }
        rows.sort();
        rows.join("\n")
    }
}

/// An answer without the number of its state, which each server counts in its own way.
fn without_state(text: &str) -> String {
    match text.split_once("\"as_of\":") {
        Some((before, after)) => {
            format!("{before}\"as_of\":…{}", after.trim_start_matches(|digit: char| digit.is_ascii_digit()))
        }
        None => text.to_owned(),
    }
}

/// A text with each generated word renamed.
fn each_word(text: &str, mut name: impl FnMut(&str) -> String) -> String {
    let is_of_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
    let mut whole = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter| !is_of_word(letter)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        // The end of a printed code is shorter.
        let is_printed = |told: &str| told.starts_with("RP1.") && told.matches('.').count() == 2;
        if is_made(word) || whole.rsplit('"').next().is_some_and(is_printed) {
            whole.push_str(&name(word))
        } else {
            whole.push_str(word)
        }
        let between = after.find(is_of_word).unwrap_or(after.len());
        whole.push_str(&after[..between]);
        rest = &after[between..];
    }
    whole
}

/// Both services, on one clock.
struct Sides {
    runtime: Runtime,
    clock: TestClock,
    sqlite: Side,
    postgres: Side,
}

impl StateMachineTest for Evening {
    type SystemUnderTest = Sides;
    type Reference = Self;

    fn init_test(_: &Asked) -> Sides {
        let runtime = Runtime::new().expect("a runtime");
        // 2026-05-01T18:00:00Z.
        let clock = TestClock::at(Millis(1_777_658_400_000));
        let start = |kind| runtime.block_on(Side::start(kind, clock.clone()));
        let (sqlite, postgres) = (start(Kind::Sqlite), start(Kind::Postgres));
        Sides { sqlite, postgres, clock, runtime }
    }

    fn apply(mut sides: Sides, _: &Asked, step: Step) -> Sides {
        sides.clock.advance(step.after);
        let told = async { tokio::join!(sides.sqlite.does(&step), sides.postgres.does(&step)) };
        let (sqlite, postgres) = sides.runtime.block_on(told);
        assert!(sqlite == postgres, "{step:?}\n{}", difference(&sqlite, &postgres));
        sides
    }

    fn teardown(sides: Sides, _: Asked) {
        let (sqlite, postgres) =
            sides.runtime.block_on(async { (sides.sqlite.rows().await, sides.postgres.rows().await) });
        assert!(sqlite == postgres, "rows\n{}", difference(&sqlite, &postgres));
    }
}

/// The lines that only one of the two has.
fn difference(sqlite: &str, postgres: &str) -> String {
    let lines = |of: &str, but_not: &str| {
        of.lines().filter(|line| !but_not.lines().any(|other| other == *line)).collect::<Vec<_>>().join("\n")
    };
    format!("SQLite:\n{}\nPostgreSQL:\n{}", lines(sqlite, postgres), lines(postgres, sqlite))
}

/// Runs the case of a seed.
fn run(seed: u64, steps: &Arc<AtomicUsize>) {
    let bytes: Vec<u8> = seed.to_le_bytes().into_iter().cycle().take(32).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let config = Config { cases: 1, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let case = Evening::sequential_strategy(10..60);
    let outcome = TestRunner::new_with_rng(config.clone(), rng).run(&case, |(asked, done, seen)| {
        steps.fetch_add(done.len(), Ordering::Relaxed);
        Evening::test_sequential(config.clone(), asked, done, seen);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("SIDES_SEED={seed} shows it again: {error}");
    }
}

#[test]
fn sqlite_and_postgres_answer_the_same_and_keep_the_same() {
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let steps = Arc::new(AtomicUsize::new(0));
    if let Some(seed) = variable("SIDES_SEED") {
        return run(seed, &steps);
    }
    // The same cases each time, so that a failure is due to the change under test; different ones if more time is
    // given.
    let more = variable("SIDES_SECONDS");
    let (started, budget) = (Instant::now(), Duration::from_secs(more.unwrap_or(60)));
    let mut cases = 0;
    while started.elapsed() < budget {
        cases += 1;
        run(if more.is_some() { rand_seed() } else { cases }, &steps);
    }
    println!("{cases} cases, {} steps", steps.load(Ordering::Relaxed));
}

fn rand_seed() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0
}
