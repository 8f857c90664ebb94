//! The clients of an evening: they scan, undo, change and read. The seed decides what each does, with which ticket and
//! on which server; the outcome is up to the run.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fastrand::Rng;
use register_ticket_api::model::{Direction, Millis, ScanResult};
use serde_json::{Value, json};
use uuid::Uuid;

use super::history::{Act, Operation, Scan, Shown, Told};
use crate::client::Reply;
use crate::process::Connection;
use crate::service::{ORGANIZER_KEY, Ticket, with};

/// The number of clients, and of the requests each wants to make.
pub const CLIENTS: usize = 5;
const WISHES: usize = 24;
/// How often an unanswered request is retried.
const RETRIES: usize = 3;
/// Longer than the servers' database timeout.
const PATIENCE: Duration = Duration::from_millis(1_500);

const SCANS: &str = "/api/events/default/scans";
const BATCH: &str = "/api/events/default/scans/batch";

/// The record that all clients share.
pub struct Book {
    started: Instant,
    /// The current addresses of the servers.
    pub servers: Mutex<Vec<SocketAddr>>,
    /// The known seeds of each ticket, newest last.
    tickets: Mutex<Vec<Vec<Seed>>>,
    seeds: AtomicU32,
    operations: Mutex<Vec<(usize, Operation)>>,
    verdicts: Mutex<Vec<Verdict>>,
    sent: Mutex<Vec<Sent>>,
}

/// The number of a ticket's seed, and the ticket with the key made from it.
type Seed = (u32, Arc<Ticket>);

/// An answer to a scan.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub scan_id: Uuid,
    pub ticket_id: Uuid,
    pub result: ScanResult,
    pub replayed: bool,
    pub server: SocketAddr,
}

/// A scan as it was sent, to be sent again.
#[derive(Clone)]
struct Sent {
    ticket: usize,
    scan: Scan,
    body: Value,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with the lock")
}

impl Book {
    pub fn new(tickets: Vec<Ticket>, servers: Vec<SocketAddr>) -> Self {
        let tickets = tickets.into_iter().map(|ticket| vec![(0, Arc::new(ticket))]).collect();
        Self {
            started: Instant::now(),
            servers: Mutex::new(servers),
            tickets: Mutex::new(tickets),
            seeds: AtomicU32::new(1),
            operations: Mutex::default(),
            verdicts: Mutex::default(),
            sent: Mutex::default(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).expect("an evening is not that long")
    }

    /// Directs all clients to this server from now on.
    pub fn ask_only(&self, server: SocketAddr) {
        locked(&self.servers).fill(server);
    }

    /// The operations on each ticket.
    pub fn histories(&self) -> BTreeMap<usize, Vec<Operation>> {
        let mut histories: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
        for (ticket, operation) in locked(&self.operations).iter() {
            histories.entry(*ticket).or_default().push(operation.clone());
        }
        histories
    }

    pub fn verdicts(&self) -> Vec<Verdict> {
        locked(&self.verdicts).clone()
    }

    pub fn ticket(&self, ticket: usize) -> Arc<Ticket> {
        let tickets = locked(&self.tickets);
        Arc::clone(&tickets[ticket].first().expect("each has its first seed").1)
    }

    pub fn size(&self) -> usize {
        locked(&self.tickets).len()
    }

    fn note(&self, ticket: usize, invoked: u64, act: Act, told: Option<Told>) {
        let returned = told.map(|_| self.now());
        locked(&self.operations).push((ticket, Operation { invoked, returned, act, told }));
    }
}

/// What a client wants, and how long after the previous wish.
struct Wish {
    pause: Duration,
    server: usize,
    ticket: usize,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Scan(Direction),
    /// With a seed that may not be the newest.
    ScanOld,
    Vouch(Direction),
    Undo,
    Transfer,
    Reissue,
    Revoke,
    Read,
    Batch,
    WalkUp,
}

const WHATS: &[(What, u8)] = &[
    (What::Scan(Direction::Entry), 30),
    (What::Scan(Direction::Exit), 8),
    (What::ScanOld, 5),
    (What::Vouch(Direction::Entry), 10),
    (What::Vouch(Direction::Exit), 5),
    (What::Undo, 9),
    (What::Transfer, 5),
    (What::Reissue, 4),
    (What::Revoke, 3),
    (What::Read, 8),
    (What::Batch, 8),
    (What::WalkUp, 5),
];

fn some_what(random: &mut Rng) -> What {
    let mut left = random.u8(..WHATS.iter().map(|(_, weight)| *weight).sum::<u8>());
    for (what, weight) in WHATS {
        match left.checked_sub(*weight) {
            None => return *what,
            Some(rest) => left = rest,
        }
    }
    unreachable!("the weights add up")
}

/// The outcome of a request.
enum Outcome {
    Answered(Reply, SocketAddr),
    /// It may or may not have been done.
    Unknown,
}

/// One client: a device with its own key.
pub struct Client {
    book: Arc<Book>,
    key: String,
    random: Rng,
    wishes: Vec<Wish>,
    /// The scans by which this device admitted somebody.
    admitted: Vec<(usize, Uuid)>,
}

impl Client {
    pub fn new(book: Arc<Book>, key: String, seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let wishes = (0..WISHES).map(|_| Wish {
            pause: Duration::from_millis(random.u64(0..160)),
            server: random.usize(..super::SERVERS),
            ticket: random.usize(..book.size()),
            what: some_what(&mut random),
        });
        let wishes = wishes.collect();
        Self { book, key, random, wishes, admitted: Vec::new() }
    }

    /// Carries out all its wishes.
    pub fn run(&mut self) {
        for Wish { pause, server, ticket, what } in std::mem::take(&mut self.wishes) {
            std::thread::sleep(pause);
            match what {
                What::Scan(direction) => self.scan(server, ticket, direction, true),
                What::ScanOld => self.scan(server, ticket, Direction::Entry, false),
                What::Vouch(direction) => self.vouch(server, ticket, direction),
                What::Undo => self.undo(server),
                What::Transfer => {
                    let seed = self.book.seeds.fetch_add(1, Ordering::SeqCst);
                    let body = json!({ "username": "heir" });
                    self.change(server, ticket, "transfer", body, Act::Transfer { seed });
                }
                What::Reissue => {
                    let seed = self.book.seeds.fetch_add(1, Ordering::SeqCst);
                    self.change(server, ticket, "reissue", Value::Null, Act::Reissue { seed });
                }
                What::Revoke => self.change(server, ticket, "revoke", Value::Null, Act::Revoke),
                What::Read => self.read(server, ticket),
                What::Batch => self.batch(server, ticket),
                What::WalkUp => self.walk_up(server),
            }
        }
    }

    /// Sends each scan again, as unsure devices do, and reads each ticket.
    pub fn end(&mut self) {
        let sent = std::mem::take(&mut *locked(&self.book.sent));
        for Sent { ticket, scan, body } in sent {
            let path = if scan.offline { BATCH } else { SCANS };
            let body = if scan.offline { json!({ "scans": [body] }) } else { body };
            let invoked = self.book.now();
            let outcome = self.send(0, "POST", path, false, &body);
            self.note_scans(invoked, &outcome, &[(ticket, scan)]);
        }
        for ticket in 0..self.book.size() {
            self.read(0, ticket);
        }
    }

    fn send(&self, server: usize, method: &str, path: &str, is_organizer: bool, body: &Value) -> Outcome {
        let address = locked(&self.book.servers)[server];
        let key = if is_organizer { ORGANIZER_KEY } else { &self.key };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = TcpStream::connect_timeout(&address, PATIENCE).ok().and_then(|stream| {
            let mut connection = Connection::of(stream);
            connection.send(request.as_bytes());
            connection.reply_within(PATIENCE, method)
        });
        match answer {
            Some(reply) if code(&reply) == "scan_contended" => Outcome::Answered(reply, address),
            Some(reply) if reply.status == 500 => panic!("{method} {path}: {}", reply.text()),
            Some(reply) if ![503, 504, 429, 408].contains(&reply.status.as_u16()) => Outcome::Answered(reply, address),
            _ => Outcome::Unknown,
        }
    }

    /// Records the verdict on each scan of a request. Returns whether there was an answer.
    fn note_scans(&mut self, invoked: u64, outcome: &Outcome, scans: &[(usize, Scan)]) -> bool {
        let answers: Vec<Value> = match outcome {
            Outcome::Unknown => Vec::new(),
            Outcome::Answered(reply, _) => {
                let answer: Value = serde_json::from_slice(&reply.body).expect("an answer is JSON");
                answer["results"].as_array().cloned().unwrap_or_else(|| vec![answer])
            }
        };
        for (place, (ticket, scan)) in scans.iter().enumerate() {
            let told = answers.get(place).map(|answer| {
                let Some(result) = answer["result"].as_str() else { return refused(answer) };
                let result: ScanResult = result.parse().expect("a verdict is a word");
                let Outcome::Answered(_, server) = *outcome else { unreachable!("there was an answer") };
                let ticket_id = self.book.ticket(*ticket).ticket_id;
                let replayed = answer["replayed"] == true;
                let verdict = Verdict { scan_id: scan.scan_id, ticket_id, result, replayed, server };
                locked(&self.book.verdicts).push(verdict);
                if result == ScanResult::Accepted {
                    self.admitted.push((*ticket, scan.scan_id));
                }
                Told::Verdict(result)
            });
            self.book.note(*ticket, invoked, Act::Scan(scan.clone()), told);
        }
        !answers.is_empty()
    }

    /// Sends scans until there is an answer, or the retries are used up.
    fn send_scans(&mut self, server: usize, path: &str, body: &Value, scans: &[(usize, Scan)]) {
        for retry in 0..=RETRIES {
            let invoked = self.book.now();
            let outcome = self.send((server + retry) % super::SERVERS, "POST", path, false, body);
            if self.note_scans(invoked, &outcome, scans) {
                return;
            }
            std::thread::sleep(Duration::from_millis(self.random.u64(20..200)));
        }
    }

    fn one_scan(&mut self, server: usize, ticket: usize, direction: Direction, shown: Shown, body: Value) -> Uuid {
        let scan_id = Uuid::from_u128(self.random.u128(..));
        let body = with(body, json!({ "scan_id": scan_id, "direction": direction.as_str() }));
        let scan = Scan { scan_id, direction, shown, offline: false };
        locked(&self.book.sent).push(Sent { ticket, scan: scan.clone(), body: body.clone() });
        self.send_scans(server, SCANS, &body, &[(ticket, scan)]);
        scan_id
    }

    fn known(&mut self, ticket: usize, newest: bool) -> Seed {
        let tickets = locked(&self.book.tickets);
        let seeds = &tickets[ticket];
        let place = if newest { seeds.len() - 1 } else { self.random.usize(..seeds.len()) };
        seeds[place].clone()
    }

    fn scan(&mut self, server: usize, ticket: usize, direction: Direction, newest: bool) {
        let (seed, holder) = self.known(ticket, newest);
        let body = json!({ "code": holder.qr(Millis::now()) });
        let scan_id = self.one_scan(server, ticket, direction, Shown::Code(seed), body);
        // The next ticket, which has the same holder.
        let came_in = self.admitted.contains(&(ticket, scan_id)) && direction == Direction::Entry;
        if came_in && self.random.bool() {
            let other = ticket ^ 1;
            let body = json!({ "ticket_id": self.book.ticket(other).ticket_id, "vouched_by": scan_id });
            self.one_scan(server, other, Direction::Entry, Shown::Voucher, body);
        }
    }

    fn vouch(&mut self, server: usize, ticket: usize, direction: Direction) {
        let holder = self.book.ticket(ticket);
        let body = json!({ "seat": holder.seat, "gate": holder.gate, "manual": true, "note": "knows him" });
        self.one_scan(server, ticket, direction, Shown::Nothing, body);
    }

    /// Scans of some tickets, each once, that a gate admitted offline in the last seconds.
    fn batch(&mut self, server: usize, first: usize) {
        let (mut scans, mut bodies) = (Vec::new(), Vec::new());
        for ticket in (first..self.book.size()).take(3) {
            let scan_id = Uuid::from_u128(self.random.u128(..));
            let scanned_at = Millis(Millis::now().0 - self.random.i64(0..20_000));
            let (seed, holder) = self.known(ticket, true);
            let body = json!({ "scan_id": scan_id, "code": holder.qr(scanned_at), "scanned_at": scanned_at,
                "offline_result": "accepted" });
            let scan = Scan { scan_id, direction: Direction::Entry, shown: Shown::Code(seed), offline: true };
            locked(&self.book.sent).push(Sent { ticket, scan: scan.clone(), body: body.clone() });
            bodies.push(body);
            scans.push((ticket, scan));
        }
        self.send_scans(server, BATCH, &json!({ "scans": bodies }), &scans);
    }

    /// Undoes this device's latest admission.
    fn undo(&mut self, server: usize) {
        let Some((ticket, scan_id)) = self.admitted.pop() else { return };
        let path = format!("/api/scans/{scan_id}/undo");
        for retry in 0..=RETRIES {
            let invoked = self.book.now();
            let outcome = self.send((server + retry) % super::SERVERS, "POST", &path, false, &Value::Null);
            let told = done(&outcome);
            self.book.note(ticket, invoked, Act::Undo { scan_id }, told);
            if told.is_some() {
                return;
            }
        }
    }

    fn change(&mut self, server: usize, ticket: usize, word: &str, body: Value, act: Act) {
        let path = format!("/api/tickets/{}/{word}", self.book.ticket(ticket).ticket_id);
        let invoked = self.book.now();
        let outcome = self.send(server, "POST", &path, true, &body);
        let told = done(&outcome);
        if let (Outcome::Answered(reply, _), Some(Told::Done), Act::Transfer { seed } | Act::Reissue { seed }) =
            (&outcome, told, &act)
        {
            let provisioned = Arc::new(Ticket::new(&reply.is(200)));
            locked(&self.book.tickets)[ticket].push((*seed, provisioned));
        }
        self.book.note(ticket, invoked, act, told);
    }

    fn read(&mut self, server: usize, ticket: usize) {
        let path = format!("/api/tickets/{}", self.book.ticket(ticket).ticket_id);
        let invoked = self.book.now();
        let Outcome::Answered(reply, _) = self.send(server, "GET", &path, true, &Value::Null) else { return };
        let state = reply.is(200);
        let status = state["status"].as_str().and_then(|word| word.parse().ok()).expect("a ticket has a status");
        let told = Told::State { status, inside: state["inside"] == true };
        self.book.note(ticket, invoked, Act::Read, Some(told));
    }

    /// Admits somebody without a ticket, who gets a new one.
    fn walk_up(&mut self, server: usize) {
        let scan_id = Uuid::from_u128(self.random.u128(..));
        let body = json!({ "scan_id": scan_id, "gate": "North" });
        for retry in 0..=RETRIES {
            let at = (server + retry) % super::SERVERS;
            let Outcome::Answered(reply, server) = self.send(at, "POST", "/api/events/default/walk-ups", false, &body)
            else {
                continue;
            };
            if reply.status == 503 {
                continue;
            }
            let scan = &reply.is(200)["scans"][0];
            let ticket_id = scan["ticket"]["ticket_id"].as_str().and_then(|id| id.parse().ok()).expect("an id");
            let (result, replayed) = (ScanResult::Accepted, scan["replayed"] == true);
            locked(&self.book.verdicts).push(Verdict { scan_id, ticket_id, result, replayed, server });
            return;
        }
    }
}

fn code(reply: &Reply) -> String {
    let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    problem["code"].as_str().unwrap_or_default().to_owned()
}

/// The refusals that the model knows.
const REFUSALS: &[&str] = &[
    "scan_contended",
    "ticket_used",
    "ticket_revoked",
    "scan_not_found",
    "not_undoable",
    "undo_expired",
    "invalid_payload",
];

fn refused(problem: &Value) -> Told {
    let code = problem["code"].as_str().unwrap_or_default();
    let known = REFUSALS.iter().find(|known| **known == code);
    Told::Refused(known.unwrap_or_else(|| panic!("nobody expects {problem}")))
}

/// The meaning of an answer that is not a verdict.
fn done(outcome: &Outcome) -> Option<Told> {
    match outcome {
        Outcome::Unknown => None,
        Outcome::Answered(reply, _) if reply.status == 200 => Some(Told::Done),
        Outcome::Answered(reply, _) => {
            Some(refused(&serde_json::from_slice(&reply.body).expect("a refusal is a problem")))
        }
    }
}
