//! Tickets to scan, created and read through the service's own API: by import and manifest.

use std::cell::Cell;
use std::time::{Duration, Instant};

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use serde::Deserialize;
use totp_rs::{Algorithm, Builder, Secret};
use uuid::Uuid;

use crate::client::{ask, unchunked};
use crate::process::Server;

/// The most tickets in one CSV file, to stay below the service's 16 MiB.
pub const IMPORT: usize = 100_000;

/// The seed of every ticket written with SQL: without `TICKET_SECRET` it is the key of its codes.
pub const SEED: [u8; 20] = *b"twenty bytes, a seed";

pub struct Ticket {
    pub ticket_id: Uuid,
    key: [u8; 20],
}

impl Ticket {
    pub fn qr_code(&self) -> String {
        let totp = Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(6)
            .with_step_duration(30)
            .with_secret(Secret::new_stack(self.key))
            .build_noncompliant();
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs();
        format!("RT1.{}.{}", BASE64URL_NOPAD.encode(self.ticket_id.as_bytes()), totp.generate(now))
    }
}

/// The unused tickets of an event, in random order.
pub struct Tickets {
    pub event: String,
    tickets: Vec<Ticket>,
    used: Cell<usize>,
}

impl Tickets {
    /// Reads all tickets of an event; none may be used yet.
    pub async fn of(server: &Server, event: &str) -> Self {
        #[derive(Deserialize)]
        struct Entry<'a> {
            ticket_id: Uuid,
            key: &'a str,
        }
        #[derive(Deserialize)]
        struct Manifest<'a> {
            #[serde(borrow)]
            tickets: Vec<Entry<'a>>,
        }
        let body = unchunked(&ask(server, "GET", &format!("/api/events/{event}/manifest"), "", b"").await);
        let manifest: Manifest<'_> = serde_json::from_slice(&body).expect("a manifest");
        let ticket = |entry: &Entry<'_>| {
            let key = BASE32_NOPAD.decode(entry.key.as_bytes()).expect("base32");
            Ticket { ticket_id: entry.ticket_id, key: key.try_into().expect("20 bytes") }
        };
        let mut tickets: Vec<Ticket> = manifest.tickets.iter().map(ticket).collect();
        // The keys are random, so this shuffles the tickets.
        tickets.sort_unstable_by_key(|ticket| ticket.key);
        Self { event: event.to_owned(), tickets, used: Cell::new(0) }
    }

    /// Returns some of the tickets that `large` wrote for an event, spread over all of it.
    pub fn written(event: &str, tickets: usize, some: usize) -> Self {
        let ticket = |place: usize| {
            let first = 1 << 28 | place as u128;
            Ticket { ticket_id: Uuid::from_u128(first << 96 | 0x7000_8000_0000_0000_0000), key: SEED }
        };
        // The step is coprime to the number of tickets, so each comes up once.
        let places = (0..some).map(|number| number * 7_919_993 % tickets);
        Self { event: event.to_owned(), tickets: places.map(ticket).collect(), used: Cell::new(0) }
    }

    pub fn used(&self) -> usize {
        self.used.get()
    }

    pub fn next(&self) -> &Ticket {
        let ticket = self.tickets.get(self.used()).expect("enough tickets were made for this run");
        self.used.set(self.used() + 1);
        ticket
    }
}

pub async fn create_event(server: &Server, slug: &str) {
    let event = format!("{{\"slug\":\"{slug}\",\"name\":\"Benchmark\"}}");
    ask(server, "POST", "/api/events", "application/json", event.as_bytes()).await;
}

/// Creates a gate's key.
pub async fn gate_key(server: &Server, event: &str) -> String {
    #[derive(Deserialize)]
    struct Key {
        key: String,
    }
    let key = format!("{{\"name\":\"gate\",\"role\":\"gate\",\"event\":\"{event}\",\"offline\":true}}");
    let key = ask(server, "POST", "/api/keys", "application/json", key.as_bytes()).await;
    serde_json::from_slice::<Key>(&key).expect("a key").key
}

/// Imports tickets, each with a new user. Returns how long each import took.
pub async fn import(server: &Server, event: &str, number: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for first in (0..number).step_by(IMPORT) {
        let mut csv = String::from("seat,gate,username,full_name,email\n");
        for seat in first..number.min(first + IMPORT) {
            let gate = seat % 4;
            csv += &format!("{seat},{gate},{event}-{seat},Person Number {seat},person-{seat}@{event}.example\n");
        }
        times.push(send(server, event, &csv).await);
    }
    times
}

/// Imports one file of tickets without holders. Returns how long it took.
pub async fn import_unheld(server: &Server, event: &str) -> Duration {
    let rows: String = (0..IMPORT).map(|seat| format!("{seat},{}\n", seat % 4)).collect();
    send(server, event, &format!("seat,gate\n{rows}")).await
}

async fn send(server: &Server, event: &str, csv: &str) -> Duration {
    let started = Instant::now();
    ask(server, "POST", &format!("/api/events/{event}/tickets"), "text/csv", csv.as_bytes()).await;
    started.elapsed()
}
