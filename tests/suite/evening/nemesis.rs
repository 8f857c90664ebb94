//! The faults of an evening and their times, as the seed decides.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

use super::clients::Book;
use crate::commands::Directory;
use crate::database::{Kind, TestDatabase};
use crate::process::{PATIENCE, Process, Server};
use crate::proxy::{Mode, Proxy};

/// The number of faults.
const FAULTS: usize = 9;

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// SIGKILL, then a restart.
    Kill,
    /// SIGTERM, then a restart.
    Stop,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// The server's clock is wrong by this many seconds from now on.
    Clock(i64),
    /// Runs `migrate` again.
    Migrate,
    /// For a while, no file of the database may grow. SQLite runs in the server; PostgreSQL crashes when it cannot write
    /// its log.
    FullDisk,
    /// SQLite: for a while, another process holds the write lock.
    Hold,
    /// PostgreSQL, for a while: connections are refused,
    Refuse,
    /// everything sent is swallowed,
    Swallow,
    /// or each message is delayed.
    Delay,
    /// PostgreSQL commits, but its answer is lost.
    LoseAnswer,
    /// PostgreSQL crashes and restarts.
    Crash,
}

impl Fault {
    fn some(kind: Kind, random: &mut Rng) -> Self {
        let clocks = [-3_600, -45, -4, 0, 4, 45, 3_600];
        let shared = [Self::Kill, Self::Kill, Self::Stop, Self::Pause, Self::Migrate, Self::Clock(0), Self::Clock(0)];
        let own: &[Self] = match kind {
            Kind::Sqlite => &[Self::FullDisk, Self::FullDisk, Self::Hold],
            Kind::Postgres => &[
                Self::Refuse,
                Self::Swallow,
                Self::Delay,
                Self::LoseAnswer,
                Self::LoseAnswer,
                Self::LoseAnswer,
                Self::LoseAnswer,
                Self::Crash,
                Self::FullDisk,
            ],
        };
        let place = random.usize(..shared.len() + own.len());
        match shared.get(place).copied().unwrap_or_else(|| own[place - shared.len()]) {
            Self::Clock(_) => Self::Clock(clocks[random.usize(..clocks.len())]),
            fault => fault,
        }
    }
}

/// A separate PostgreSQL, which may crash.
pub struct Postgres(Directory);

impl Postgres {
    pub fn start() -> Self {
        let postgres = Self(Directory::new());
        // It runs as another user if we are root.
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&postgres.0.0, permissions).expect("the directory is ours");
        postgres.run("start");
        postgres
    }

    pub fn directory(&self) -> &Path {
        &self.0.0
    }

    fn run(&self, word: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres");
        let run = Command::new(script).arg(word).arg(&self.0.0).output().expect("scripts/postgres runs");
        assert!(run.status.success(), "scripts/postgres {word}: {}", String::from_utf8_lossy(&run.stderr));
    }

    /// Limits the files of PostgreSQL's processes: they ignore the signal and treat the error as that of a full disk.
    fn limit_files(&self, limit: &str) {
        let file = self.0.0.join("data/postmaster.pid");
        // The file is missing if PostgreSQL has given up.
        let Ok(file) = fs::read_to_string(file) else { return };
        let postmaster = file.lines().next().expect("its first line is the process");
        limit_files(postmaster, limit);
        // Children that it starts later inherit the limit; these are already running.
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap_or_default();
        children.split_whitespace().for_each(|process| limit_files(process, limit));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.run("stop");
        // The link may lead to data in memory.
        if let Ok(data) = fs::read_link(self.0.0.join("data")) {
            let _ = fs::remove_dir_all(data.parent().unwrap_or(&data));
        }
    }
}

/// One of the servers, with its own clock and its own path to the database.
struct Station {
    server: Server,
    environment: Vec<(String, String)>,
    clock: PathBuf,
    proxy: Option<Proxy>,
}

/// The service ignores the signal for its file limit, so that it gets the error.
const THROUGH: &[&str] = &["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];

/// libfaketime, which gives a process its own clock.
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    files.find(|file| file.exists()).expect("this test needs libfaketime: install the package faketime")
}

impl Station {
    async fn start(database: &TestDatabase, directory: &Directory, number: usize) -> Self {
        let clock = directory.file(&format!("clock-{number}"), "+0");
        let mut environment = database.environment();
        let mut proxy = None;
        if database.kind == Kind::Postgres {
            let url = database.url();
            let address = url.split(['@', '/']).nth(3).expect("postgres://login@address/name").to_owned();
            let way = Proxy::start(address.parse().expect("an address"), Mode::Forward).await;
            environment.push(("DATABASE_URL".to_owned(), url.replace(&address, &way.address.to_string())));
            proxy = Some(way);
        }
        let own = [
            ("DB_TIMEOUT_MS", "700".to_owned()),
            ("LD_PRELOAD", faketime().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        environment.extend(own.map(|(name, value)| (name.to_owned(), value)));
        let server = Server::through(THROUGH, environment.clone()).await;
        Self { server, environment, clock, proxy }
    }

    async fn start_again(&mut self) {
        self.server = Server::through(THROUGH, self.environment.clone()).await;
    }

    fn set_clock(&self, seconds: i64) {
        // Renamed into place, so that nobody reads half of it.
        let new = self.clock.with_extension("new");
        fs::write(&new, format!("{seconds:+}s")).expect("the directory is ours");
        fs::rename(&new, &self.clock).expect("the directory is ours");
    }
}

/// Limits the size of a process's files. A process that has ended writes nothing.
fn limit_files(process: &str, limit: &str) {
    let path = Path::new("/proc").join(process);
    let Ok(of) = fs::metadata(&path) else { return };
    // As the process's own user, who may do so without the privileges that root lacks in a container.
    let run = Command::new("prlimit")
        .args(["--pid", process, &format!("--fsize={limit}:unlimited")])
        .uid(of.uid())
        .gid(of.gid())
        .output()
        .expect("prlimit, of util-linux, is there");
    assert!(run.status.success() || !path.exists(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// The servers of an evening, and what makes them fail.
pub struct Nemesis<'a> {
    database: &'a TestDatabase,
    postgres: Option<&'a Postgres>,
    stations: Vec<Station>,
    _directory: Directory,
}

impl<'a> Nemesis<'a> {
    pub async fn start(database: &'a TestDatabase, postgres: Option<&'a Postgres>) -> Self {
        let directory = Directory::new();
        let mut stations = Vec::new();
        for number in 0..super::SERVERS {
            stations.push(Station::start(database, &directory, number).await);
        }
        Self { database, postgres, stations, _directory: directory }
    }

    pub fn server(&self, number: usize) -> &Server {
        &self.stations[number].server
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.stations.iter().map(|station| station.server.address).collect()
    }

    /// Runs one fault after another; each is over before the next starts, except those of clocks.
    pub async fn trouble(&mut self, book: &Arc<Book>, seed: u64) {
        let mut random = Rng::with_seed(seed);
        for _ in 0..FAULTS {
            let pause = Duration::from_millis(random.u64(20..250));
            let (fault, place) = (Fault::some(self.database.kind, &mut random), random.usize(..super::SERVERS));
            let (while_it_lasts, number) = (Duration::from_millis(random.u64(100..500)), random.u32(0..4));
            tokio::time::sleep(pause).await;
            self.do_it(fault, place, while_it_lasts, number).await;
            *book.servers.lock().expect("no thread panics with the lock") = self.addresses();
        }
    }

    async fn do_it(&mut self, fault: Fault, place: usize, while_it_lasts: Duration, number: u32) {
        eprintln!("  {fault:?} at server {place}, {while_it_lasts:?}");
        let station = &mut self.stations[place];
        let lasts = async || tokio::time::sleep(while_it_lasts).await;
        let way = || station.proxy.as_ref().expect("there is one where the database is a server");
        match fault {
            Fault::Kill => {
                station.server.process.kill();
                station.start_again().await;
            }
            Fault::Stop => {
                station.server.process.terminate();
                station.server.process.ended(PATIENCE).await;
                station.start_again().await;
            }
            Fault::Pause => {
                station.server.process.signal("STOP");
                lasts().await;
                station.server.process.signal("CONT");
            }
            Fault::Clock(seconds) => station.set_clock(seconds),
            Fault::Migrate => {
                let mut migrate = Process::command(&["migrate"], self.database.environment());
                assert!(migrate.ended(PATIENCE).await.success(), "{}", migrate.log());
            }
            Fault::FullDisk => match self.postgres {
                None => {
                    let server = station.server.process.id().to_string();
                    limit_files(&server, "4096");
                    lasts().await;
                    limit_files(&server, "unlimited");
                }
                Some(postgres) => {
                    postgres.limit_files("4096");
                    lasts().await;
                    tokio::task::block_in_place(|| {
                        postgres.limit_files("unlimited");
                        postgres.run("start");
                    });
                }
            },
            Fault::Hold => {
                // A server may hold the lock for longer than this waits.
                if self.database.execute("begin immediate").await.is_ok() {
                    lasts().await;
                    self.database.execute("rollback").await.expect("it was begun");
                }
            }
            Fault::Refuse | Fault::Swallow | Fault::Delay => {
                way().switch(match fault {
                    Fault::Refuse => Mode::Refuse,
                    Fault::Swallow => Mode::Swallow,
                    _ => Mode::Delay(while_it_lasts / 10),
                });
                lasts().await;
                way().switch(Mode::Forward);
            }
            Fault::LoseAnswer => way().lose_an_answer(number),
            Fault::Crash => {
                let postgres = self.postgres.expect("there is one where the database is a server");
                tokio::task::block_in_place(|| {
                    postgres.run("stop");
                    postgres.run("start");
                });
            }
        }
    }

    /// Sets all clocks right and waits until requests that nobody waits for any more have ended.
    pub async fn rest(&mut self) {
        for station in &mut self.stations {
            station.set_clock(0);
            station.server.is_well().await;
        }
    }
}
