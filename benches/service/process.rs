//! Starts the service and reads what Linux reports about processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::client::Connection;

/// The organizer key of every measured server.
pub const ORGANIZER_KEY: &str = "the-organizer-key-of-the-benchmark";

/// A running server, killed on drop.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts a program that listens on `PORT`, without waiting for it. Its log is written to a file, as in production.
    pub fn start(program: &Path, environment: &[(&str, String)]) -> Self {
        let port = free_port();
        let log = File::create(directory().join("log")).expect("a file for the log");
        let child = Command::new(program)
            .env_clear()
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("ORGANIZER_KEY", ORGANIZER_KEY)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(log)
            .spawn()
            .expect("the program starts");
        Self { child, port }
    }

    /// Connects as soon as the server listens.
    pub async fn connect(&self) -> Connection {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match Connection::open(self.port).await {
                Ok(connection) => return connection,
                Err(error) => assert!(Instant::now() < deadline, "the server does not listen: {error}"),
            }
            // tokio's sleep has millisecond resolution, and there is nothing else to do.
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Finds a free port.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a listener has an address").port()
}

/// The directory for this run's files.
pub fn directory() -> PathBuf {
    std::env::var_os("BENCH_DIRECTORY").expect("scripts/bench sets BENCH_DIRECTORY").into()
}

/// CPU time used so far by a process and its children that have ended.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat, 11..15)
}

/// CPU time of a process and its children, running or ended.
pub fn family_cpu_time(parent: u32) -> Duration {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    let children = stats.filter(|stat| fields(stat).nth(1).is_some_and(|of| of == parent.to_string()));
    cpu_time(parent) + children.map(|stat| ticks(&stat, 11..13)).sum::<Duration>()
}

/// The fields after the name, which is in parentheses and may contain anything: state, parent, …
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ").unwrap_or_default().1.split(' ')
}

fn ticks(stat: &str, places: std::ops::Range<usize>) -> Duration {
    let values = fields(stat).skip(places.start).take(places.len());
    // These fields count hundredths of a second, whatever the kernel's tick rate.
    Duration::from_millis(10 * values.filter_map(|value| value.parse::<u64>().ok()).sum::<u64>())
}

/// A process's memory, in MiB.
#[derive(Clone, Copy)]
pub struct Memory {
    pub resident: f64,
    /// Resident memory, counting shared pages proportionally.
    pub proportional: f64,
    /// The most memory resident since [`forget_peak`] or the start.
    pub peak: f64,
}

pub fn memory(pid: u32) -> Memory {
    let read = |file: &str, name: &str| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
    };
    Memory {
        resident: read("status", "VmRSS"),
        proportional: read("smaps_rollup", "Pss"),
        peak: read("status", "VmHWM"),
    }
}

/// Resets [`Memory::peak`].
pub fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("the peak of our own process can be reset");
}
