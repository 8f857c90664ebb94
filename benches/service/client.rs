//! The load generator: HTTP/1.1 over persistent connections, all on one thread and with as little work as possible,
//! because it shares the machine with what it measures.

use std::io::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::process::{self, ORGANIZER_KEY, Server};
use crate::tickets::{Ticket, Tickets};

pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Connection {
    pub async fn open(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(4096) })
    }

    /// Sends a request and reads the whole answer. A chunked body is not decoded.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.write(request).await?;
        self.received.clear();
        let head = loop {
            self.read().await?;
            if let Some(end) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&self.received[..head]).map_err(|_| Error::from(ErrorKind::InvalidData))?;
        let status = text.get(9..12).and_then(|status| status.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        match header(text, "content-length").and_then(|length| length.parse::<usize>().ok()) {
            Some(length) => {
                while self.received.len() < head + length {
                    self.read().await?;
                }
            }
            None if status == 204 => {}
            None => {
                while !self.received.ends_with(b"\r\n0\r\n\r\n") {
                    self.read().await?;
                }
            }
        }
        Ok(Answer { status, body: &self.received[head..] })
    }

    /// Sends a request and reads its whole answer, which must be chunked, without storing it. Returns the number of
    /// bytes received.
    pub async fn download(&mut self, request: &[u8]) -> Result<usize> {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        self.write(request).await?;
        self.received.clear();
        let mut came = 0;
        while !self.received.ends_with(END) {
            let rest = self.received.split_off(self.received.len().saturating_sub(END.len()));
            came += self.received.len();
            self.received.clear();
            self.received.extend_from_slice(&rest);
            self.read().await?;
        }
        Ok(came + self.received.len())
    }

    async fn write(&self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        loop {
            self.stream.readable().await?;
            if self.received.capacity() - self.received.len() < 1024 {
                self.received.reserve(self.received.len());
            }
            match self.stream.try_read_buf(&mut self.received) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// Decodes a chunked body.
pub fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(body.len());
    while let Some(end) = body.iter().position(|&byte| byte == b'\r') {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("a chunk begins with its size");
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    whole
}

/// Writes a request as it is sent.
pub fn request(method: &str, path: &str, key: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n\
         content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Sends a request with the organizer's key and returns the body. Retries on 503: with a million tickets a busy disk
/// may take longer than the service's 2.5 s.
pub async fn ask(server: &Server, method: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let request = request(method, path, ORGANIZER_KEY, content_type, body);
    let mut connection = server.connect().await;
    for _ in 0..20 {
        let answer = connection.exchange(&request).await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        match answer.status {
            200..300 => return answer.body.to_vec(),
            503 => tokio::time::sleep(Duration::from_secs(1)).await,
            _ => panic!("{method} {path}: {} {}", answer.status, String::from_utf8_lossy(answer.body)),
        }
    }
    panic!("{method} {path}: 503 on every attempt");
}

/// The request that scans a ticket with its current code.
pub fn scan_request(event: &str, key: &str, ticket: &Ticket) -> Vec<u8> {
    let body = format!("{{\"scan_id\":\"{}\",\"code\":\"{}\"}}", Uuid::new_v4(), ticket.qr_code());
    request("POST", &format!("/api/events/{event}/scans"), key, "application/json", body.as_bytes())
}

/// Admits a ticket. Ends the benchmark if it is refused: only admissions are measured.
pub async fn admit(connection: &mut Connection, request: &[u8]) {
    let answer = connection.exchange(request).await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(answer.body));
}

/// Clients that each send the next scan as soon as the last is answered.
pub struct Clients<'a> {
    server: &'a Server,
    connections: Vec<Connection>,
}

/// The result of a load.
pub struct Outcome {
    pub elapsed: Duration,
    /// In ascending order.
    pub latencies: Vec<Duration>,
    pub service: Duration,
    pub generator: Duration,
    pub database: Duration,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }
}

/// `sorted` must be in ascending order.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// When a load ends: at whichever comes first.
#[derive(Clone, Copy)]
pub struct Until {
    pub scans: usize,
    pub time: Duration,
}

impl<'a> Clients<'a> {
    pub async fn connect(server: &'a Server, number: usize) -> Self {
        let mut connections = Vec::new();
        for _ in 0..number {
            connections.push(server.connect().await);
        }
        Self { server, connections }
    }

    /// Scans unused tickets.
    pub async fn scan(&mut self, tickets: &Tickets, until: Until) -> Outcome {
        let cpu_times = |server: &Server| {
            let database = crate::postgres::postmaster().map(process::family_cpu_time);
            [process::cpu_time(server.pid()), process::cpu_time(std::process::id()), database.unwrap_or_default()]
        };
        let before = cpu_times(self.server);
        let started = Instant::now();
        let (last, end) = (tickets.used() + until.scans, started + until.time);
        let scanning = self.connections.iter_mut().map(|connection| async move {
            let mut latencies = Vec::new();
            while tickets.used() < last && Instant::now() < end {
                let request = scan_request(&tickets.event, ORGANIZER_KEY, tickets.next());
                let sent = Instant::now();
                admit(connection, &request).await;
                latencies.push(sent.elapsed());
            }
            latencies
        });
        let mut latencies = join_all(scanning).await.concat();
        let elapsed = started.elapsed();
        latencies.sort_unstable();
        let after = cpu_times(self.server);
        let [service, generator, database] = std::array::from_fn(|of| after[of] - before[of]);
        Outcome { elapsed, latencies, service, generator, database }
    }
}
