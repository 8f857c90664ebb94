//! On SQLite, a request's changes are on disk before its answer is sent. The service runs under strace, which puts the
//! system calls of all its threads into one order: a calling thread waits until its call is recorded.

use std::path::Path;

use http::Method;
use serde_json::json;
use uuid::Uuid;

use crate::commands::Directory;
use crate::database::{Kind, TestDatabase};
use crate::once::scan_now;
use crate::process::{PATIENCE, Server, within};
use crate::service::Ticket;

/// The calls that receive requests, send answers, and write and flush files.
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync";

/// The output of strace: one line per call, or two if others came in between. Strings are in hexadecimal.
struct Trace(Vec<String>);

/// A string as strace writes it.
fn noted(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

impl Trace {
    /// Asserts that the page with this row was written to the log, and the log flushed, between the request that
    /// contains `request` and its answer.
    #[track_caller]
    fn was_on_the_disk_before_the_answer(&self, what: &str, request: &str, row: Uuid) {
        let Self(lines) = self;
        let log = noted(b"tickets.db-wal");
        let came = lines.iter().position(|line| line.contains(&noted(request.as_bytes())));
        let came = came.unwrap_or_else(|| panic!("{what}: the request is not in the trace"));
        let is_answer = |line: &String| line.contains(&format!("\"{}", noted(b"HTTP/1.1 2")));
        let went = lines[came..].iter().position(is_answer);
        let meanwhile = &lines[came..came + went.unwrap_or_else(|| panic!("{what}: the answer is not in the trace"))];
        let is_row =
            |line: &String| line.contains("pwrite64(") && line.contains(&log) && line.contains(&noted(row.as_bytes()));
        let written = meanwhile.iter().rposition(is_row);
        let written = written.unwrap_or_else(|| panic!("{what}: its row is not written to the log before its answer"));
        assert!(is_flushed(&meanwhile[written..], &log), "{what}: the log is not flushed before its answer");
    }
}

/// Whether a flush of the file starts and ends within these lines.
fn is_flushed(lines: &[String], file: &str) -> bool {
    lines.iter().enumerate().any(|(number, line)| {
        let is_begun = ["fdatasync(", "fsync("].iter().any(|call| line.contains(call)) && line.contains(file);
        let thread = line.split(' ').next().unwrap_or_default();
        let is_its_end = |later: &&String| later.split(' ').next() == Some(thread) && later.contains("sync resumed>");
        let end = if line.contains("<unfinished") { lines[number..].iter().find(is_its_end) } else { Some(line) };
        is_begun && end.is_some_and(|end| end.trim_end().ends_with("= 0"))
    })
}

/// Reads the trace of a process that has ended.
async fn read(file: &Path, process: u32) -> Trace {
    let process = process.to_string();
    // A short number is followed by more than one space.
    let is_end =
        |line: &str| line.split_once(' ').is_some_and(|(id, rest)| id == process && rest.contains("+++ exited"));
    let read = async || std::fs::read_to_string(file).ok().filter(|trace| trace.lines().any(is_end));
    let trace = within(PATIENCE, "a trace (is strace there, and may it trace, by ptrace?)", read).await;
    Trace(trace.lines().map(str::to_owned).collect())
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_request_wrote_is_on_the_disk_before_its_answer() {
    let (database, directory) = (TestDatabase::create(Kind::Sqlite).await, Directory::new());
    let file = directory.0.join("trace");
    let name = file.to_str().expect("the test's own name");
    // -D: the service stays our child, and strace watches it.
    let strace = ["strace", "-D", "-f", "-y", "-xx", "-s", "5000", "-e", CALLS, "-o", name];
    let mut server = Server::through(&strace, database.environment()).await;
    let organizer = server.organizer();
    organizer.post("/api/events/default/tickets", json!({ "seat": "A1", "gate": "North" })).await.is(201);
    organizer.post("/api/users", json!({ "username": "ana" })).await.is(201);
    let registered = organizer.post("/api/users/ana/tickets", json!({ "seat": "A1", "gate": "North" })).await.is(201);
    let ticket = Ticket::new(&registered);

    let scan = scan_now(&ticket);
    organizer.post("/api/events/default/scans", scan.clone()).await.is_scan(200, "accepted");
    let scan_id: Uuid = scan["scan_id"].as_str().and_then(|id| id.parse().ok()).expect("a scan has an id");
    organizer.bare(Method::POST, format!("/api/scans/{scan_id}/undo")).await.is(200);
    let process = server.process.id();
    server.process.terminate();
    server.process.ended(PATIENCE).await;

    let trace = read(&file, process).await;
    trace.was_on_the_disk_before_the_answer("a registration", "POST /api/users/ana/tickets", ticket.ticket_id);
    trace.was_on_the_disk_before_the_answer("a scan", &format!("\"scan_id\":\"{scan_id}\""), scan_id);
    trace.was_on_the_disk_before_the_answer("an undo", &format!("POST /api/scans/{scan_id}/undo"), scan_id);
}
