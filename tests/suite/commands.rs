//! The command line as a person or a script uses it: the program in its own process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;

use register_ticket_api::config::SETTINGS;
use register_ticket_api::model::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Kind, TestDatabase};
use crate::process::PATIENCE;
use crate::service::Service;

/// An empty working directory, removed on drop.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("commands_{}", Uuid::new_v4().simple()));
        std::fs::create_dir(&path).expect("a temporary directory can be created");
        Self(path)
    }

    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).expect("the directory takes a file");
        path
    }

    pub fn names(&self, directory: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join(directory)).expect("the directory is there");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    /// The program, in this directory and without settings.
    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register-ticket-api"));
        for setting in SETTINGS {
            command.env_remove(setting.variable);
        }
        command.args(arguments).current_dir(&self.0).stdin(Stdio::null());
        command
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A finished run.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        command.output().expect("the program runs").into()
    }

    fn with_input(command: &mut Command, input: &str) -> Self {
        let pipe = || Stdio::piped();
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().expect("the program starts");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("the program reads its input");
        child.wait_with_output().expect("the program runs").into()
    }

    /// Returns its output; it must have succeeded.
    #[track_caller]
    pub fn printed(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.output
    }

    /// Returns its errors; it must have failed with this code.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.output, "", "{self:?}");
        self.errors
    }
}

impl From<Output> for Run {
    fn from(run: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program speaks UTF-8");
        Self { code: run.status.code(), output: text(run.stdout), errors: text(run.stderr) }
    }
}

/// The program with this database.
pub fn on(database: &TestDatabase, directory: &Directory, arguments: &[&str]) -> Command {
    let mut command = directory.program(arguments);
    command.envs(database.environment());
    command
}

/// A running server, and the unread part of its standard output.
struct Server {
    process: Child,
    /// The lines of its standard output, with their line breaks.
    output: Receiver<String>,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (lines, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).expect("the server speaks UTF-8") > 0
                && lines.send(std::mem::take(&mut line)).is_ok()
            {}
        });
        Self { process, output }
    }

    /// Reads the output up to a line that contains `part`.
    fn line_with(&mut self, part: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.output.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("no line that holds `{part}` within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the server ended without a line that holds `{part}`"),
            }
        }
    }

    /// Reads the port from the first line of the log.
    fn port(&mut self) -> String {
        let line = self.line_with("listening");
        let (_, rest) = line.split_once("127.0.0.1:").expect("it listens on the loopback");
        rest.chars().take_while(char::is_ascii_digit).collect()
    }

    /// Stops it as Ctrl-C does and returns its standard error.
    fn interrupt(mut self) -> String {
        signal(&self.process, "INT");
        let status = self.process.wait().expect("the server ends");
        assert!(status.success(), "{status}");
        let mut errors = String::new();
        self.process.stderr.take().expect("piped").read_to_string(&mut errors).expect("UTF-8");
        errors
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            signal(&self.process, "TERM");
            let _ = self.process.wait();
        }
    }
}

fn signal(process: &Child, name: &str) {
    let sent = Command::new("sh").args(["-c", "kill -$0 $1", name, &process.id().to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "SIG{name} is sent");
}

fn one_space(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn help_explains_every_setting() {
    let help = Run::of(&mut Directory::new().program(&["--help"])).printed();
    assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    let help = one_space(&help);
    for setting in SETTINGS {
        let default = format!(" [default: {}]", setting.default);
        let default = if setting.default.is_empty() { "" } else { &default };
        let line = format!("{} {}{default}", setting.variable, setting.meaning);
        assert!(help.contains(&line), "{line}");
    }
}

#[test]
fn serve_warns_where_browsers_keep_the_camera() {
    for (url, warns) in
        [("http://192.168.1.10:8080", true), ("https://tickets.example.org", false), ("http://localhost:8080", false)]
    {
        let directory = Directory::new();
        let mut program = directory.program(&["serve"]);
        program.env("HOST", "127.0.0.1").env("PORT", "0").env("PUBLIC_URL", url);
        let mut server = Server::start(&mut program);
        let first = server.line_with(" ");
        assert_eq!(first.contains("WARN") && first.contains("https") && first.contains(url), warns, "{first}");
        if warns {
            server.line_with("listening");
        }
    }
}

#[test]
fn serve_warns_of_a_command_that_would_get_no_backup() {
    for (directory_of_backups, warns) in [("", true), ("backups", false)] {
        let directory = Directory::new();
        let mut program = directory.program(&["serve"]);
        program.env("HOST", "127.0.0.1").env("PORT", "0").env("BACKUP_COMMAND", "true");
        program.env("BACKUP_DIR", directory_of_backups);
        let mut server = Server::start(&mut program);
        let first = server.line_with(" ");
        assert_eq!(first.contains("WARN") && first.contains("BACKUP_COMMAND has no effect"), warns, "{first}");
    }
}

#[test]
fn the_readme_has_every_setting() {
    let readme = include_str!("../../README.md");
    let table: Vec<&str> = readme.lines().skip_while(|line| !line.starts_with("| variable ")).collect();
    let rows: Vec<String> =
        table.iter().skip(2).take_while(|line| line.starts_with('|')).map(|l| one_space(l)).collect();
    let settings: Vec<String> = SETTINGS
        .iter()
        .map(|setting| one_space(&format!("| `{}` | {} | {} |", setting.variable, setting.default, setting.meaning)))
        .collect();
    assert_eq!(rows, settings);
}

#[test]
fn the_version_is_the_packages() {
    let version = Run::of(&mut Directory::new().program(&["--version"])).printed();
    assert_eq!(version, format!("register-ticket-api {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_setting_that_cannot_be_used_stops_with_one_line_and_2() {
    let wrong: [(&str, &[u8]); 12] = [
        ("PORT", b"http"),
        ("HOST", b"localhost"),
        ("HOST", b"\xff"),
        ("DATABASE_URL", b"mysql://localhost"),
        ("DATABASE_URL", b"sqlite::memory:"),
        ("DB_POOL_MAX", b"0"),
        ("PUBLIC_URL", b"tickets.example.org"),
        ("ORGANIZER_KEY", b"not quite thirty-two characters"),
        ("TICKET_SECRET", b"short"),
        ("LOG_FORMAT", b"xml"),
        ("RUST_LOG", b"sqlx=loud"),
        ("K_SERVICE", b"tickets"), // Cloud Run without a database
    ];
    for (variable, value) in wrong {
        let directory = Directory::new();
        for command in [&[][..], &["serve"], &["keys", "list"]] {
            let mut program = directory.program(command);
            program.env(variable, std::ffi::OsString::from_vec(value.to_vec())).env("RUST_BACKTRACE", "1");
            let errors = Run::of(&mut program).failed(2);
            let named = if variable == "K_SERVICE" { "DATABASE_URL" } else { variable };
            assert!(errors.starts_with(&format!("error: {named}: ")), "{errors}");
            assert_eq!(errors.matches('\n').count(), 1, "{errors}");
            if ["ORGANIZER_KEY", "TICKET_SECRET"].contains(&variable) {
                assert!(!errors.contains(&*String::from_utf8_lossy(value)), "a secret is shown");
            }
        }
        assert_eq!(directory.names("."), [""; 0], "nothing is written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_once_agree_on_a_new_organizers_key() {
    let directory = Directory::new();
    let serve = || {
        let mut command = directory.program(&[]);
        command.env("HOST", "127.0.0.1").env("PORT", "0");
        command
    };
    let mut servers: Vec<Server> = (0..4).map(|_| Server::start(&mut serve())).collect();
    let ports: Vec<String> = servers.iter_mut().map(Server::port).collect();

    assert_eq!(directory.names("data"), ["organizer.key"], "the database is not touched before a request");
    let file = directory.0.join("data/organizer.key");
    let key = std::fs::read_to_string(&file).expect("the key is there");
    let key = key.trim_end();
    assert!(key.len() >= 32);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory.0.join("data")), 0o700);
    assert_eq!(mode(&file), 0o600);
    for port in ports {
        Client::remote(&format!("http://127.0.0.1:{port}")).with_key(key).get("/api/events").await.is(200);
    }
    for server in servers {
        let errors = server.interrupt();
        assert_eq!(errors, "The organizer's key is in data/organizer.key\n");
    }

    let mut again = Server::start(&mut serve());
    let client = Client::remote(&format!("http://127.0.0.1:{}", again.port()));
    client.with_key(key).get("/api/events").await.is(200);
}

#[test]
fn a_file_that_holds_no_usable_organizers_key_stops_the_server() {
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("data")).expect("a directory");
    for key in ["too short", "long enough, but in several words", "Clé-d'organisatrice-longue-assez"] {
        directory.file("data/organizer.key", key);
        let errors = Run::of(directory.program(&["serve"]).env("PORT", "0")).failed(2);
        let file = directory.0.join("data/organizer.key");
        let why = "must hold at least 32 visible ASCII characters and no space";
        assert_eq!(errors, format!("error: ORGANIZER_KEY: {} {why}\n", file.display()));
    }
}

#[test]
fn a_server_that_cannot_begin_leaves_nothing_behind_and_says_what_is_in_its_way() {
    let directory = Directory::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let serve = || {
        let mut command = directory.program(&[]);
        command.env("HOST", "127.0.0.1");
        command
    };
    let errors = Run::of(serve().env("PORT", &port)).failed(1);
    assert!(errors.starts_with(&format!("error: PORT: cannot listen on 127.0.0.1:{port}")), "{errors}");
    assert_eq!(directory.names("."), [""; 0]);

    // A file in the directory's place: not even the superuser can write into it.
    let data = directory.file("data", "");
    let errors = Run::of(serve().env("PORT", "0")).failed(1);
    let says = format!("error: {} cannot be written", data.join("organizer.key").display());
    assert!(errors.starts_with(&says) && errors.contains("DATABASE_URL"), "{errors}");
    assert!(!errors.contains("ORGANIZER_KEY"), "{errors}");
    assert_eq!(directory.names("."), ["data"]);
}

#[test]
fn an_address_that_is_not_this_machines_is_told_as_such() {
    let directory = Directory::new();
    let errors = Run::of(directory.program(&["serve"]).env("HOST", "203.0.113.1").env("PORT", "0")).failed(1);
    assert!(errors.starts_with("error: HOST: cannot listen on 203.0.113.1:0: "), "{errors}");
    assert!(directory.names(".").is_empty(), "{:?}", directory.names("."));
}

#[test]
fn a_database_of_another_program_gets_no_table_of_ours() {
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("data")).expect("a directory");
    let python = |statement: &str| {
        let script = format!(
            "import sqlite3; c = sqlite3.connect('data/tickets.db'); print(c.execute({statement:?}).fetchall()); c.commit()"
        );
        let run = Command::new("python3").args(["-c", &script]).current_dir(&directory.0).output();
        Run::from(run.expect("this test needs Python")).printed()
    };
    python("create table theirs (x)");
    for arguments in [&["keys", "list"][..], &["check"], &["migrate"], &["import", "--dry-run", "-"]] {
        let errors = Run::of(&mut directory.program(arguments)).failed(1);
        assert!(errors.contains("is a database of another program"), "{arguments:?}: {errors}");
    }
    assert_eq!(python("select name from sqlite_master"), "[('theirs',)]\n");
}

#[test]
fn a_command_that_works_on_what_is_there_makes_no_database() {
    /// Commands that may create a database, or need none.
    const OTHERS: [&str; 9] = ["serve", "demo", "migrate", "import", "restore", "code", "healthcheck", "smoke", "help"];
    let on_what_is_there: &[&[&str]] = &[
        &["keys", "list"],
        &["keys", "create", "--name", "North", "--role", "gate", "--event", "default"],
        &["mail"],
        &["export", "tickets"],
        &["forget"],
        &["backup", "--to", "."],
        &["check"],
        &["query", "select 1"],
        &["change-secret", "--yes"],
    ];
    let help = Run::of(&mut Directory::new().program(&["--help"])).printed();
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let (commands, _) = commands.split_once("\n\n").expect("an end of the list");
    let names =
        commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|name| !name.is_empty());
    for command in names {
        let tried = on_what_is_there.iter().any(|arguments| arguments[0] == command);
        assert!(tried != OTHERS.contains(&command), "{command}: say whether it may make a database");
    }
    for arguments in on_what_is_there {
        let directory = Directory::new();
        let errors = Run::of(directory.program(arguments).env("TICKET_SECRET", "s".repeat(32))).failed(1);
        let file = directory.0.join("data/tickets.db");
        assert!(errors.contains(&format!("there is no database at {}", file.display())), "{arguments:?}: {errors}");
        assert_eq!(directory.names("."), [""; 0], "{arguments:?}");
    }
}

/// Reads the demo's output up to its last command, and runs the commands as if pasted.
fn run_commands_of(demo: &mut Server, directory: &Directory) -> Vec<String> {
    demo.line_with("Paste these commands");
    let mut commands = String::new();
    while !commands.contains("/stats\n") {
        commands.push_str(&demo.line_with(""));
    }
    let mut bash = Command::new("bash");
    let run = Run::with_input(bash.current_dir(&directory.0), &commands);
    assert_eq!(run.errors, "");
    run.printed().lines().map(str::to_owned).collect()
}

#[test]
fn the_commands_that_the_demo_prints_work_in_their_order() {
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("temporary")).expect("a directory");
    // The demo ignores the rest of the environment.
    let settings = [("PORT", "0"), ("DATABASE_URL", "postgres://localhost:1/nothing"), ("TMPDIR", "temporary")];
    let mut demo = Server::start(directory.program(&["demo"]).envs(settings));
    let answers = run_commands_of(&mut demo, &directory);
    assert_eq!(directory.names("temporary").len(), 1);

    let [registered, code, admitted, refused, stats] = &answers[..] else { panic!("{answers:?}") };
    let read = |answer: &str| serde_json::from_str::<Value>(answer).expect("an answer is JSON");
    assert_eq!(read(registered)["username"], "ana");
    assert!(code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()), "{code}");
    assert_eq!(read(admitted)["result"], "accepted");
    assert_eq!(read(refused)["result"], "already_used");
    assert_eq!(read(stats)["admitted"], 1);
    assert_eq!(read(stats)["refused"], json!({ "already_used": 1 }));

    assert_eq!(demo.interrupt(), "");
    assert_eq!(directory.names("temporary"), [""; 0], "the database is gone");
    assert_eq!(directory.names("."), ["temporary"]);
}

#[test]
fn the_demo_takes_another_port_when_the_usual_one_is_taken() {
    // Whether this succeeds or fails, the port is taken.
    let _taken = TcpListener::bind("127.0.0.1:8080");
    let directory = Directory::new();
    let mut demo = Server::start(&mut directory.program(&["demo"]));
    let line = demo.line_with("http://127.0.0.1:");
    assert!(!line.contains("127.0.0.1:8080 "), "{line}");
    assert_eq!(run_commands_of(&mut demo, &directory).len(), 5);

    let fixed = Run::of(directory.program(&["demo"]).env("PORT", "8080"));
    assert!(fixed.failed(1).starts_with("error: PORT: cannot listen on 8080: "));
}

const SHEET: &str = "\u{feff}seat;gate;username;full_name;email\r\n\
                     A-1;North;ana;Ana Ruiz;ana@example.org\r\n\
                     A-2;North;;;\r\n";

async fn import_creates_and_registers_the_tickets_of_a_file(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    directory.file("seats.csv", SHEET);
    let run = Run::of(&mut on(database, &directory, &["import", "seats.csv"]));
    assert_eq!(run.errors, "2 of 2 tickets\n", "elsewhere than on a terminal, progress is plain lines");
    assert_eq!(run.printed(), "2 tickets created in the event default, 1 of them registered; 1 new users.\n");

    let list = service.organizer.get("/api/users/ana/tickets").await.is(200);
    assert_eq!(list["tickets"][0]["seat"], "A-1");
    assert_eq!(list["tickets"][0]["full_name"], "Ana Ruiz");
}

async fn import_reads_standard_input_and_takes_an_event(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let mut import = on(database, &directory, &["import", "-", "--event", "gala"]);
    Run::with_input(&mut import, "seat,gate\nA-1,North\n").printed();
    let list = service.organizer.get("/api/events/gala/tickets").await.is(200);
    assert_eq!(list["tickets"].as_array().map(Vec::len), Some(1));
}

async fn import_maps_columns_and_says_what_it_would_do(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    directory.file("guests.csv", "Wer?,Wie viele?,Hemd\nAna,2,M\n");
    let before = database.snapshot().await;
    let mapped = ["import", "guests.csv", "--columns", "full_name,quantity,-"];
    let told = Run::of(&mut on(database, &directory, &[&mapped[..], &["--dry-run"]].concat())).printed();
    let told: Value = serde_json::from_str(&told).expect("it is JSON");
    assert_eq!(
        told["counts"],
        json!({ "created": 2, "registered": 2, "users_created": 1, "updated": 0, "skipped": 0 })
    );
    assert_eq!(database.snapshot().await, before);
    let told = Run::of(&mut on(database, &directory, &mapped)).printed();
    assert_eq!(told, "2 tickets created in the event default, 2 of them registered; 1 new users.\n");
    let again = Run::of(&mut on(database, &directory, &[&mapped[..], &["--existing", "skip"]].concat())).printed();
    assert!(again.ends_with("\nOf the existing tickets, 0 were updated and 2 left unchanged.\n"), "{again}");
    for wrong in [["--columns", "nonsense"], ["--existing", "maybe"], ["--unknown", "x"]] {
        Run::of(&mut on(database, &directory, &[&["import", "guests.csv"][..], &wrong[..]].concat())).failed(2);
    }
}

async fn no_command_panics_where_nobody_reads_what_it_says(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    directory.file("seats.csv", SHEET);
    for (command, full) in
        [(&["import", "seats.csv"][..], 0), (&["export", "tickets"][..], 0), (&["keys", "list"][..], 0)]
    {
        let mut closed = on(database, &directory, command);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let ended = closed.stdout(writer).stderr(Stdio::piped()).output().expect("the program runs");
        assert_eq!(ended.status.code(), Some(full), "{command:?}: {}", String::from_utf8_lossy(&ended.stderr));
        let mut full = on(database, &directory, &["migrate"]);
        let device = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let ended = full.stdout(device).stderr(Stdio::piped()).output().expect("the program runs");
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!((ended.status.code(), told.as_str()), (Some(1), "error: No space left on device (os error 28)\n"));
    }
}

async fn import_names_the_wrong_lines_and_creates_nothing(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    service.seat("default", "A-9", "North").await;
    let before = database.snapshot().await;
    let cases = [
        (
            "seat,gate,email\nA-1,North,\nA-2,North,nowhere\nA-1,North,\n",
            "error: seats.csv: 2 things are wrong:\n  line 3: email must be an e-mail address of at most 254 characters\n  \
             line 4: names the same seat and gate as line 2\n",
        ),
        (
            "seat,gate\nA-1,North\nA-9,North\n",
            "error: seats.csv: There are such tickets already; nothing was created.\n  line 3: this \
             seat at this gate has a ticket already\n",
        ),
        (
            "seat,sock\nA-1,x\n",
            "error: seats.csv: line 1: has unknown columns: sock. Known columns are row, seat, gate, username, full_name, \
             first_name, last_name, email, reference, order, order_position, quantity, category, note, valid_from, \
             valid_until, status; map or ignore the others\n",
        ),
    ];
    for (sheet, expected) in cases {
        directory.file("seats.csv", sheet);
        let errors = Run::of(&mut on(database, &directory, &["import", "seats.csv"])).failed(1);
        assert!(errors.ends_with(expected), "{errors}");
    }
    directory.file("seats.csv", SHEET);
    let errors = Run::of(&mut on(database, &directory, &["import", "seats.csv", "--event", "ball"])).failed(1);
    assert_eq!(errors, "error: There is no such event.\n");
    let errors = Run::of(&mut on(database, &directory, &["import", "chairs.csv"])).failed(1);
    assert_eq!(errors, "error: chairs.csv: No such file or directory (os error 2)\n");
    Run::of(&mut on(database, &directory, &["import"])).failed(2);
    assert_eq!(database.snapshot().await, before);
}

async fn export_is_what_the_service_sends(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    let ticket = service.ticket("A-1").await;
    let path = "/api/events/default/scans";
    service.organizer.post(path, service.scan(&ticket)).await.is_scan(200, "accepted");
    for what in ["tickets", "scans"] {
        let sent = service.organizer.get(&format!("/api/events/default/{what}.csv")).await.text();
        assert_eq!(sent.lines().count(), 2);
        assert_eq!(Run::of(&mut on(database, &directory, &["export", what])).printed(), sent);

        directory.file("evening.csv", "from before");
        let arguments = ["export", what, "--event", "default", "--output", "evening.csv"];
        assert_eq!(Run::of(&mut on(database, &directory, &arguments)).printed(), "");
        assert_eq!(std::fs::read_to_string(directory.0.join("evening.csv")).expect("it is there"), sent);
        assert_eq!(directory.names("."), ["evening.csv"]);
        let mode = std::fs::metadata(directory.0.join("evening.csv")).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "only the owner may read people's names");
    }
    let recorded = "select count(*) from actions where key_id is null and event_id is not null and action = ";
    for action in ["tickets_exported", "scans_exported"] {
        let recorded = format!("{recorded} '{action}'");
        assert_eq!(database.count(&recorded).await, 3, "commands are recorded like requests: {action}");
    }
    Run::of(&mut on(database, &directory, &["export", "tickets", "--event", "ball"])).failed(1);
    let errors = Run::of(&mut on(database, &directory, &["export", "tickets", "--output", "no/where.csv"])).failed(1);
    assert_eq!(errors, "error: no/where.csv: No such file or directory (os error 2)\n");
}

async fn a_key_of_the_command_line_is_shown_once_and_can_be_revoked(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    service.event(json!({ "slug": "gala", "name": "Gala" })).await;
    let arguments = [
        "keys",
        "create",
        "--name",
        "North door",
        "--role",
        "gate",
        "--event",
        "gala",
        "--gate",
        "North",
        "--offline",
        "--expires-at",
        "2999-01-01T00:00:00Z",
    ];
    let created = Run::of(&mut on(database, &directory, &arguments));
    assert!(!created.errors.contains("rtk_"));
    let key = created.printed();
    let gate = service.anonymous.with_key(key.trim_end());
    gate.get("/api/events/gala/stats").await.is(200);
    gate.get("/api/events/gala/manifest").await.is(200);

    let list = Run::of(&mut on(database, &directory, &["keys", "list"])).printed();
    let (key_id, rest) = list.split_once(' ').expect("a line of columns");
    let facts = "gate North door event gala gate North offline expires 2999-01-01T00:00:00.000Z";
    assert_eq!(one_space(rest), facts, "and never the key");

    Run::of(&mut on(database, &directory, &["keys", "revoke", key_id])).printed();
    let elsewhere = service.another(&[]).anonymous.with_key(key.trim_end());
    elsewhere.get("/api/events/gala/stats").await.is_refused(401, "unauthenticated");
    assert!(Run::of(&mut on(database, &directory, &["keys", "list"])).printed().contains("  revoked "));
}

async fn a_lost_phone_is_reported_on_the_command_line(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    let rows: String = (1..=120).map(|seat| format!("{seat},North,ana\n")).collect();
    service.organizer.post_csv("/api/events/default/tickets", format!("seat,gate,username\n{rows}")).await.is(201);
    let made = json!({ "name": "Door", "role": "gate", "offline": true });
    let made = service.organizer.post("/api/keys", made).await.is(201);
    let (key, key_id) = (made["key"].as_str().expect("a key"), made["key_id"].as_str().expect("an id"));
    let phone = service.anonymous.with_key(key);
    phone.get("/api/events/default/manifest").await.is(200);
    let scan = json!({ "scan_id": Uuid::now_v7(), "code": "no ticket" });
    phone.post("/api/events/default/scans", scan).await.is_scan(404, "unknown_ticket");
    let links = async || service.organizer.get("/api/events/default/links.csv").await.text();
    let before = links().await;

    let since = ["--scanned-since", "2026-01-01T00:00:00Z"];
    let run = Run::of(&mut on(database, &directory, &[&["keys", "lost", key_id][..], &since].concat()));
    for said in ["Renewed 120 tickets, 0 left\n", "(PUBLIC_URL)", "  unknown_ticket  -  -\n"] {
        assert!(run.errors.contains(said), "{}", run.errors);
    }
    let printed = run.printed();
    assert_eq!(printed, links().await);
    assert_eq!(printed.lines().filter(|line| before.contains(line)).count(), 1, "the line of the columns");
    let mut again = on(database, &directory, &["keys", "lost", key_id, "--output", "links.csv"]);
    assert_eq!(Run::of(&mut again).printed(), "");
    let written = std::fs::read_to_string(directory.0.join("links.csv")).expect("it is written");
    assert_eq!(written, printed);
    let read = "select count(*) from actions where action = 'links_exported' and subject_id is not null";
    assert_eq!(database.count(read).await, 2, "who exported the links is recorded");
    let elsewhere = service.another(&[]).anonymous.with_key(key);
    elsewhere.get("/api/events/default/manifest").await.is_refused(401, "unauthenticated");
    let unknown = Uuid::nil().to_string();
    Run::of(&mut on(database, &directory, &["keys", "lost", &unknown])).failed(1);
}

async fn no_output_takes_the_place_of_the_database(service: Service) {
    let Some(file) =
        service.database.environment().into_iter().find_map(|(_, url)| url.strip_prefix("sqlite:").map(str::to_owned))
    else {
        return assert_eq!(service.database.kind, Kind::Postgres);
    };
    service.ticket("A-1").await;
    let directory = Directory::new();
    for place in [file.clone(), format!("{file}-wal")] {
        let mut export = on(&service.database, &directory, &["export", "tickets", "--output", &place]);
        let errors = Run::of(&mut export).failed(1);
        assert_eq!(errors, format!("error: {place} is the database itself: name another file\n"));
    }
    assert_eq!(service.database.count("select count(*) from tickets").await, 1);
}

async fn a_query_is_answered_as_a_table_and_changes_nothing(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    let ticket = service.ticket("A-1").await;
    service.seat("default", "B-1", "South").await;
    let query = |statement: &str, further: &[&str]| {
        Run::of(&mut on(database, &directory, &[&["query", statement], further].concat()))
    };
    let statement = "select seat, ticket_id, used_at as used, version from tickets order by seat";
    let told = query(statement, &[]).printed();
    let lines: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    let id = ticket.ticket_id.to_string();
    assert_eq!(lines[0], ["seat", "ticket_id", "used", "version"]);
    assert_eq!(lines[1][..3], ["A-1", &id, "-"]);
    assert_eq!(lines[2][0], "B-1");
    let escape = if database.kind == Kind::Sqlite { "char(27)" } else { "chr(27)" };
    assert_eq!(query(&format!("select {escape} as name"), &[]).printed(), "name\n\\u{1b}\n");
    let csv = query(statement, &["--csv"]).printed();
    assert!(csv.starts_with(&format!("seat,ticket_id,used,version\nA-1,{id},,")), "{csv}");
    let none = query("select seat from tickets where seat = 'nowhere'", &[]);
    assert_eq!((none.output.as_str(), none.errors.as_str()), ("seat\n", "0 rows\n"));

    for statement in ["delete from tickets", "update tickets set seat = 'x'", "drop table scans", "what is it"] {
        let errors = query(statement, &[]).failed(1);
        assert!(errors.starts_with("error: "), "{statement}: {errors}");
    }
    for statement in [
        "commit; delete from tickets",
        "pragma query_only = 0; delete from tickets",
        "select 1) as x; delete from tickets; select * from (select 2",
        "select 1) as x; vacuum into 'copy.db'; select * from (select 2",
        "select 1)) as x; vacuum into 'copy.db'; select * from (select * from (select 2",
        "select 1; select 2",
        "select 1; -- end\ndelete from tickets",
        "select 1; /* not an end",
        "pragma journal_mode = delete",
        "vacuum into 'copy.db'",
        "",
    ] {
        query(statement, &[]).failed(1);
    }
    assert_eq!(database.count("select count(*) from tickets").await, 2);
    assert_eq!(directory.names("."), [""; 0]);

    let wide = format!("select '{}' as wide, 1 as one -- to the end", "x".repeat(70_000));
    assert!(query(&wide, &[]).printed().contains(&format!("\n{}  1\n", "x".repeat(70_000))));
    for statement in [
        "select 1 as one;",
        "select 1 as one; -- end",
        "select 1 as one ; ;\n/* the; end */ -- it's all",
        "-- it's one\nselect 1 as one;",
        "select 1 as one -- it's the end\n; /* it's; */",
    ] {
        assert_eq!(query(statement, &[]).printed(), "one\n1\n", "{statement}");
    }
    assert_eq!(query("select '; --' as text", &[]).printed(), "text\n; --\n");
}

/// The columns that the views omit: secrets, and values that only the service can use. The slug replaces an event's id.
const NOT_SHOWN: &[&str] = &[
    "change",
    "enrol_hash",
    "event_id",
    "gate_key",
    "issue_id",
    "issuing",
    "issuing_since",
    "last_step",
    "reissued_version",
    "search",
    "seat_key",
    "secret_hash",
    "seed",
    "slug",
    "ticket_version",
    "version",
];

async fn the_views_show_every_column_but_secrets_with_times_and_ids_for_people(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    let query = |statement: &str| Run::of(&mut on(database, &directory, &["query", "--csv", statement])).printed();
    let columns = |table: &str| {
        query(&format!("select * from {table} where 1 = 0")).trim().split(',').map(str::to_owned).collect()
    };
    for table in ["events", "users", "tickets", "keys", "scans", "actions"] {
        let (all, shown): (Vec<String>, Vec<String>) = (columns(table), columns(&format!("v_{table}")));
        for column in &all {
            let is_own_id = *column == format!("{}_id", table.trim_end_matches('s'));
            let is_shown = is_own_id || !NOT_SHOWN.contains(&column.as_str());
            assert_eq!(shown.contains(column), is_shown, "{table}.{column}");
        }
    }

    let ticket = service.ticket("A-1").await;
    let gate = service.gate().await;
    gate.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let at = service.now().to_string();
    let (day, time) = (&at[..10], &at[11..19]);
    let id = ticket.ticket_id.to_string();
    let where_id = format!("where ticket_id = '{id}'");
    let told = query(&format!("select event, seat, ticket_id, used_at, valid_from from v_tickets {where_id}"));
    let line = told.lines().nth(1).expect("the ticket");
    assert!(
        line.starts_with(&format!("default,A-1,{id},{day}")) && line.contains(time) && line.ends_with(','),
        "{line}"
    );
    let told = query(&format!("select seat, result, ticket_id, undone_by, undone_at from v_scans {where_id}"));
    assert_eq!(told.lines().nth(1), Some(format!("A-1,accepted,{id},,").as_str()));
    assert_eq!(query("select role, revoked_at from v_keys").lines().nth(1), Some("gate,"));

    let holder = "select count(username) as names, count(holder_name) as holders from v_tickets";
    let before = query(holder);
    database.execute("update events set forgotten_at = 1").await.expect("the owner may");
    assert_ne!((before.as_str(), query(holder).as_str()), ("names,holders\n0,0\n", before.as_str()));
    assert_eq!(query(holder), "names,holders\n0,0\n");
}

async fn a_key_that_cannot_be_is_refused(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    let before = database.snapshot().await;
    let keys = |arguments: &[&str]| Run::of(&mut on(database, &directory, &[&["keys"], arguments].concat()));
    let create = |arguments: &[&str]| keys(&[&["create", "--name", "x", "--role"], arguments].concat());
    let says = |errors: String, why: &str| assert!(errors.contains(why), "{errors}");
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    says(create(&["king"]).failed(2), &format!("expected one of {}", roles.join(", ")));
    says(create(&["gate", "--gate", "North"]).failed(2), "--event");
    says(create(&["gate", "--event", "ball"]).failed(1), "There is no such event.");
    says(create(&["gate", "--expires-at", "2001-01-01T00:00:00Z"]).failed(1), "in the future");
    says(keys(&["revoke", "01890000-0000-7000-8000-000000000000"]).failed(1), "There is no such key.");
    assert_eq!(database.snapshot().await, before);
}

const DROP_TABLES: &str = "drop table actions; drop table scans; drop table former_secrets; drop table keys; drop table tickets; drop table users; drop table events; \
                           drop table settings; drop table _sqlx_migrations";

async fn migrations_at_the_same_time_apply_each_file_once(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    database.execute(DROP_TABLES).await.expect("the tables are there");
    let start = || {
        let mut migrate = on(database, &directory, &["migrate"]);
        migrate.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
    };
    let running: Vec<Child> = (0..4).map(|_| start()).collect();
    let ended = running.into_iter().map(|run| run.wait_with_output().expect("it ends"));
    let said: String = ended.map(|run| Run::from(run).printed()).collect();
    assert_eq!(said.matches("applied: create tables\n").count(), 1, "{said}");
    assert_eq!(said.matches("nothing to do").count(), 3, "{said}");
    assert_eq!(database.count("select count(*) from events").await, 1);
    service.another(&[]).organizer.get("/api/events").await.is(200);
}

async fn a_schema_of_a_later_release_is_left_alone(service: Service) {
    let (database, directory) = (&service.database, Directory::new());
    let later = "insert into _sqlx_migrations (version, description, success, checksum, execution_time) \
                 select 99, 'of a later release', success, checksum, 0 from _sqlx_migrations where version = 1";
    database.execute(later).await.expect("the table is sqlx's");
    let said = Run::of(&mut on(database, &directory, &["migrate"])).printed();
    assert!(said.starts_with("The schema has version 99, from a later release. "), "{said}");
    Run::of(&mut on(database, &directory, &["keys", "list"])).printed();
}

on_both_databases!(
    import_creates_and_registers_the_tickets_of_a_file,
    import_reads_standard_input_and_takes_an_event,
    import_maps_columns_and_says_what_it_would_do,
    no_command_panics_where_nobody_reads_what_it_says,
    import_names_the_wrong_lines_and_creates_nothing,
    export_is_what_the_service_sends,
    no_output_takes_the_place_of_the_database,
    a_key_of_the_command_line_is_shown_once_and_can_be_revoked,
    a_lost_phone_is_reported_on_the_command_line,
    a_key_that_cannot_be_is_refused,
    a_query_is_answered_as_a_table_and_changes_nothing,
    the_views_show_every_column_but_secrets_with_times_and_ids_for_people,
    migrations_at_the_same_time_apply_each_file_once,
    a_schema_of_a_later_release_is_left_alone,
);

#[tokio::test(flavor = "multi_thread")]
async fn without_its_schema_sqlite_migrates_by_itself_and_postgresql_says_what_to_run() {
    let directory = Directory::new();
    std::fs::create_dir(directory.0.join("data")).expect("a directory");
    let file = directory.file("data/tickets.db", "");
    assert_eq!(Run::of(&mut directory.program(&["keys", "list"])).printed(), "");
    assert!(std::fs::metadata(file).expect("it is there").len() > 0);

    let database = TestDatabase::create(Kind::Postgres).await;
    database.execute(DROP_TABLES).await.expect("the tables are there");
    let advice = "the schema is not that of this release; if it is older, run `register-ticket-api migrate`: ";
    let errors = Run::of(&mut on(&database, &directory, &["keys", "list"])).failed(1);
    assert!(errors.starts_with(&format!("error: {advice}")), "{errors}");

    let key = "the-organizers-key-of-this-one-test";
    let mut serve = on(&database, &directory, &["serve"]);
    let mut server = Server::start(serve.envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("ORGANIZER_KEY", key)]));
    let client = Client::remote(&format!("http://127.0.0.1:{}", server.port())).with_key(key);
    client.get("/api/events").await.is_refused(503, "database_unavailable");
    server.line_with(advice);
}

#[test]
fn a_code_is_the_one_of_oathtool() {
    let directory = Directory::new();
    let secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"; // "Hello!" and so on: no ticket's secret
    let ticket_id = "01890000-0000-7000-8000-000000000001";
    let url = format!("otpauth://totp/Gala:A-1?issuer=Gala&secret={secret}&digits=6");
    let answer = json!({ "ticket_id": ticket_id, "provisioning": { "secret": secret } }).to_string();
    for time in ["2026-05-01 18:00:00", "2026-05-01 18:00:29", "2026-05-01 18:00:30", "2099-12-31 23:59:59"] {
        let mut oathtool = Command::new("oathtool");
        let theirs = Run::of(oathtool.args(["--totp", "--base32", "--now", &format!("{time} UTC"), secret])).printed();
        let at = &format!("{}Z", time.replace(' ', "T"));
        let with_argument = |secret: &str| Run::of(&mut directory.program(&["code", secret, "--at", at])).printed();
        assert_eq!(with_argument(secret), theirs);
        assert_eq!(with_argument("jbsw y3dp ehpk 3pxp jbsw y3dp ehpk 3pxp"), theirs);
        assert_eq!(with_argument(&url), theirs);
        let with_input = |arguments: &[&str], input: &str| {
            Run::with_input(directory.program(&["code"]).args(arguments).args(["--at", at]), input).printed()
        };
        assert_eq!(with_input(&[], &answer), theirs);
        assert_eq!(with_input(&["-"], &format!("{secret}\n")), theirs);
        let qr = format!("RT1.AYkAAAAAcACAAAAAAAAAAQ.{theirs}");
        assert_eq!(with_input(&["--qr"], &answer), qr);
        assert_eq!(with_input(&["--qr", "--ticket-id", ticket_id], secret), qr);
    }
}

#[test]
fn what_is_no_secret_is_refused_and_not_repeated() {
    let directory = Directory::new();
    let refusal = json!({ "code": "ticket_revoked", "detail": "The ticket is revoked; reissue it first." }).to_string();
    let cases = [
        ("JBSWY3DPEHPK3PXP", "32 characters of base32"),
        ("0000111188889999000011118888999!", "32 characters of base32"),
        ("otpauth://totp/Gala?digits=6", "has no secret"),
        (r#"{"seat":"JBSWY3DPEHPK3PXP"}"#, "not the answer of a registration"),
        (&refusal, "error: the registration was refused, ticket_revoked: The ticket is revoked; reissue it first.\n"),
    ];
    for (secret, said) in cases {
        let errors = Run::with_input(&mut directory.program(&["code"]), secret).failed(1);
        assert!(errors.contains(said), "{errors}");
        assert!(!errors.contains("JBSWY3DPEHPK3PXP"), "{errors}");
    }
    let errors = Run::with_input(&mut directory.program(&["code", "--qr"]), &"A".repeat(32)).failed(1);
    assert_eq!(errors, "error: --qr needs --ticket-id\n");
}

/// Runs `healthcheck` with this port.
fn check(directory: &Directory, port: &str) -> Run {
    Run::of(directory.program(&["healthcheck"]).env("PORT", port))
}

#[test]
fn healthcheck_succeeds_only_when_the_service_answers_200() {
    let directory = Directory::new();
    let mut serve = directory.program(&["serve"]);
    let mut server = Server::start(serve.env("HOST", "127.0.0.1").env("PORT", "0"));
    let port = server.port();
    assert_eq!(check(&directory, &port).printed(), "");
    server.interrupt();
    assert!(check(&directory, &port).failed(1).starts_with(&format!("error: http://127.0.0.1:{port}/health: ")));

    for (answer, said) in [
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "/health answers 503\n"),
        ("220 mail.example.org", "/health: is not HTTP\n"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let port = listener.local_addr().expect("it listens").port().to_string();
        let answering = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the check comes");
            let mut request = [0; 1_024];
            stream.read(&mut request).and_then(|_| stream.write_all(answer.as_bytes())).expect("the check listens");
        });
        assert!(check(&directory, &port).failed(1).ends_with(said));
        answering.join().expect("it answered");
    }
    assert!(check(&directory, "http").failed(1).starts_with("error: PORT: "));
}
