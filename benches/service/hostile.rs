//! Measures an honest gate beside hostile crowds.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Connection, percentile, request, scan_request};
use crate::process::{Server, memory};
use crate::report::{Report, Table, milliseconds};
use crate::store::Store;
use crate::tickets::{self, Tickets};

/// The number of connections in a crowd.
const CROWD: usize = 5_000;
/// How soon a client that was cut off reconnects.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the gate scans before the crowd arrives.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the crowd gathers before the measurement starts.
const GATHERING: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);
/// The pause between two scans of the honest gate.
const BREATH: Duration = Duration::from_millis(20);

/// A kind of hostile client, and what each sends before it falls silent.
struct Kind {
    name: &'static str,
    sends: Vec<u8>,
    reads: bool,
}

fn kinds(gate_key: &str) -> Vec<Kind> {
    let half = |path: &str, key: &str, length: usize, sent: usize| {
        let whole = request("POST", path, key, "application/json", &vec![b'a'; length]);
        whole[..whole.len() - length + sent].to_vec()
    };
    let kind = |name, sends| Kind { name, sends, reads: true };
    let documents = request("GET", "/openapi.json", "", "", b"").repeat(10);
    vec![
        kind("idle", Vec::new()),
        kind("half a head", format!("GET /health HTTP/1.1\r\nx: {}", "a".repeat(12_000)).into_bytes()),
        kind("half a body, without a key", half("/api/enrol", "", 1_000, 500)),
        kind("half a body, to be refused", half("/api/users", "", 65_536, 32_768)),
        kind("half a batch, with a gate's key", half(BATCH, gate_key, 524_288, 262_144)),
        Kind {
            reads: false,
            ..kind("a manifest unread, with a gate's key", request("GET", MANIFEST, gate_key, "", b""))
        },
        Kind { reads: false, ..kind("documents unread, without a key", documents) },
    ]
}

const BATCH: &str = "/api/events/default/scans/batch";
const MANIFEST: &str = "/api/events/default/manifest";

pub async fn measure(report: &mut Report) {
    let columns =
        ["database, crowd", "from", "connections made", "honest scans", "p50 ms", "p99 ms", "slowest ms", "peak MiB"];
    let mut table = Table::new(&columns);
    let (mut slowest, mut largest): (f64, f64) = (0.0, 0.0);
    for store in Store::both("hostile") {
        tickets::import(&store.serve(5), "default", 50_000).await;
        let tickets = Tickets::of(&store.serve(5), "default").await;
        store.settle();
        let keys =
            [tickets::gate_key(&store.serve(5), "default").await, tickets::gate_key(&store.serve(5), "default").await];
        for kind in kinds(&keys[0]) {
            for (from, addresses) in [("one address", 1), ("many", CROWD)] {
                let server = store.serve_strangers();
                let outcome = beside(&server, &kind, addresses, &tickets, &keys[1]).await;
                let peak = memory(server.pid()).peak;
                let shown = |percent| format!("{:.1}", milliseconds(percentile(&outcome.latencies, percent)));
                table.row([
                    format!("{}, {}", store.kind, kind.name),
                    from.to_owned(),
                    outcome.made.to_string(),
                    outcome.latencies.len().to_string(),
                    shown(50),
                    shown(99),
                    shown(100),
                    format!("{peak:.1}"),
                ]);
                slowest = slowest.max(milliseconds(percentile(&outcome.latencies, 99)) / 1_000.0);
                largest = largest.max(peak);
            }
        }
    }
    report.at_most("p99 of a scan beside 5,000 hostile connections, any kind", 1.0, slowest, " s");
    report.at_most("resident memory beside them, at its peak", 48.0, largest, " MiB");
    report.section("Beside a hostile crowd", format!("{CROWD} clients of one kind at a time.\n\n{table}"));
}

struct Outcome {
    /// The number of connections made, including reconnections.
    made: usize,
    /// In ascending order.
    latencies: Vec<Duration>,
}

/// Lets a crowd gather, and measures a gate that scans beside it.
async fn beside(server: &Server, kind: &Kind, addresses: usize, tickets: &Tickets, key: &str) -> Outcome {
    // As during an event: the service is already connected to the database.
    scan(server, tickets, key, WARM_UP).await;
    // On its own thread, so that the honest gate waits only for the service, not for the crowd.
    let crowd = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let made = Arc::new(AtomicUsize::new(0));
    for number in 0..CROWD {
        let source = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + (number % addresses) as u32);
        crowd.spawn(harass(source, server.port, kind.sends.clone(), kind.reads, Arc::clone(&made)));
    }
    tokio::time::sleep(GATHERING).await;
    let latencies = scan(server, tickets, key, MEASURED).await;
    crowd.shutdown_background();
    Outcome { made: made.load(Ordering::Relaxed), latencies }
}

/// Scans now and then, reopening a closed connection as a browser does. Measures from the intent to scan to the
/// verdict.
async fn scan(server: &Server, tickets: &Tickets, key: &str, time: Duration) -> Vec<Duration> {
    let (mut latencies, end) = (Vec::new(), Instant::now() + time);
    let mut connection = None;
    while Instant::now() < end {
        let scan = scan_request("default", key, tickets.next());
        let wished = Instant::now();
        loop {
            if connection.is_none() {
                connection = Connection::open(server.port).await.ok();
            }
            let Some(open) = &mut connection else { continue };
            match open.exchange(&scan).await {
                Ok(answer) if answer.status == 200 => break,
                // Retried with the same `scan_id`, as gates do.
                Ok(answer) => assert_eq!(answer.status, 503, "{}", String::from_utf8_lossy(answer.body)),
                Err(_) => connection = None,
            }
        }
        latencies.push(wished.elapsed());
        tokio::time::sleep(BREATH).await;
    }
    latencies.sort_unstable();
    latencies
}

/// Connects, sends its bytes and falls silent; reconnects whenever it is cut off.
async fn harass(source: Ipv4Addr, port: u16, sends: Vec<u8>, reads: bool, made: Arc<AtomicUsize>) {
    loop {
        if let Ok(stream) = connect(source, port).await {
            made.fetch_add(1, Ordering::Relaxed);
            let _ = send(&stream, &sends).await;
            if reads {
                let _ = read_to_end(&stream).await;
            } else {
                // Without reading, only a write notices a closed connection. An empty line before a request is ignored.
                while stream.try_write(b"\r\n").is_ok_and(|written| written > 0) {
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn read_to_end(stream: &TcpStream) -> std::io::Result<()> {
    let mut space = [0; 4_096];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut space) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn connect(source: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // The smallest buffer the kernel allows, so that an unread answer stays with the service.
    socket.set_recv_buffer_size(4_096)?;
    socket.bind(SocketAddr::new(IpAddr::V4(source), 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

async fn send(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
