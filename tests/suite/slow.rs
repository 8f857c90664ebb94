//! Slow clients, and clients that occupy everything.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::database::{Kind, TestDatabase};
use crate::process::{Connection, PATIENCE, Server, head, within};
use crate::service::Service;

on_both_databases! {
    who_does_not_finish_a_request_is_not_waited_for_and_nobody_waits_meanwhile,
    an_import_on_its_way_keeps_no_other_waiting,
    one_import_into_an_event_works_at_a_time,
    who_hangs_up_does_not_cancel_what_was_asked,
}

async fn server() -> (Server, TestDatabase) {
    let database = TestDatabase::create(Kind::Sqlite).await;
    (Server::start(database.environment()).await, database)
}

async fn who_does_not_finish_a_request_is_not_waited_for_and_nobody_waits_meanwhile(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let post = head("POST", "/api/users", "application/json");
    let stalled = [
        // No complete head, so there is nothing to answer.
        (String::new(), false),
        ("GET /hea".to_owned(), false),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\n".to_owned(), false),
        ("GET /health HTTP/1.1\r\nhost: localhost\r\nx-drip: ".to_owned(), false),
        // The body does not arrive, or not all of it.
        (format!("{post}content-length: 10\r\n\r\n"), true),
        (format!("{post}content-length: 1000\r\n\r\n{{\"x-drip\":\""), true),
        (format!("{post}transfer-encoding: chunked\r\n\r\n"), true),
        (format!("{post}transfer-encoding: chunked\r\n\r\n3\r\n{{\"a\r\n"), true),
        (format!("{post}transfer-encoding: chunked\r\n\r\n3\r\n{{\""), true),
    ];
    let before = service.database.snapshot().await;
    let waiting = AtomicUsize::new(stalled.len() + 1);
    std::thread::scope(|scope| {
        for (start, is_told) in &stalled {
            let (server, waiting) = (&server, &waiting);
            scope.spawn(move || {
                let mut connection = server.connect();
                connection.send(start.as_bytes());
                if start.contains("x-drip") {
                    drip(&mut connection);
                }
                let reply = connection.reply("POST");
                waiting.fetch_sub(1, Ordering::SeqCst);
                assert_eq!(reply.is_some(), *is_told, "{start}");
                reply.map(|reply| reply.is_refused(408, "request_timeout"));
            });
        }
        let (server, waiting) = (&server, &waiting);
        scope.spawn(move || {
            let mut connection = server.connect();
            connection.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
            connection.reply("GET").expect("an answer").is(200);
            // Then it sends nothing more.
            let rest = connection.rest();
            waiting.fetch_sub(1, Ordering::SeqCst);
            assert!(rest.is_empty());
        });
        let mut served = 0;
        while waiting.load(Ordering::SeqCst) > 0 {
            let reply = server.exchange(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
            reply.expect("others are served").is(200);
            served += 1;
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(served > 1);
    });
    assert_eq!(service.database.snapshot().await, before);
    server.is_well().await;
}

async fn an_import_on_its_way_keeps_no_other_waiting(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let csv = head("POST", "/api/events/default/tickets", "text/csv");
    let mut first = server.connect();
    first.send(format!("{csv}expect: 100-continue\r\ncontent-length: 20\r\n\r\n").as_bytes());
    first.is_told_to_continue();
    first.send(b"seat,gate\n");
    let organizer = server.organizer();
    organizer.post_csv("/api/events/default/tickets", "seat,gate\nA2,North\n").await.is(201);
    first.send(b"A1,North \n");
    first.reply("POST").expect("an answer").is(201);
}

async fn one_import_into_an_event_works_at_a_time(service: Service) {
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    let of_other = service.key(json!({ "name": "o", "role": "organizer", "event": "other" })).await;
    let import = async |file: &str| service.organizer.post_csv("/api/events/default/tickets", file).await;
    // Stops the first import here.
    let lock = match service.database.kind {
        Kind::Sqlite => "begin immediate",
        Kind::Postgres => "begin; lock table tickets in access exclusive mode",
    };
    service.database.execute(lock).await.expect("nobody else holds it");
    let first = import("seat,gate\nA1,North\n");
    let second = async {
        // As long as no import is running, the answer is what is wrong with this file.
        let refused = async || Some(import("seat,gate\n,\n").await).filter(|reply| reply.status == 429);
        let refused = within(PATIENCE, "the first import works", refused).await;
        refused.is_refused(429, "import_in_progress");
        assert_eq!(refused.header("retry-after"), "5");
        // Another event's organizer neither takes that permit nor is refused one.
        of_other.post_csv("/api/events/default/tickets", "seat,gate\nA1,a\n").await.is_refused(403, "forbidden");
        let other = of_other.post_csv("/api/events/other/tickets", "seat,gate\nA1,North\n");
        let go_on = async {
            import("seat,gate\n,\n").await.is_refused(429, "import_in_progress");
            service.database.execute("commit").await.expect("it was begun");
        };
        let (other, ()) = futures_util::join!(other, go_on);
        other.is(201);
    };
    let (first, ()) = futures_util::join!(first, second);
    first.is(201);
}

async fn who_hangs_up_does_not_cancel_what_was_asked(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let body = "{\"username\":\"ana\"}";
    let mut connection = server.connect();
    connection.send(&crate::process::request("POST", "/api/users", "application/json", body));
    drop(connection);
    server.process.logged("status=201").await;
    assert_eq!(service.database.count("select count(*) from users").await, 1);
}

/// Sends a byte now and then, until the connection is closed.
fn drip(connection: &mut Connection) {
    while connection.send(b"x") {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Silent connections, held by a separate process so that they do not use up this one's file descriptors.
struct Crowd(Child);

impl Crowd {
    fn gather(server: &Server) -> Self {
        let open = "ulimit -n $(ulimit -Hn); \
                    for ((file = 300; file < 2300; file++)); do eval \"exec $file<>/dev/tcp/127.0.0.1/$0\"; done; \
                    echo all are here; read -r";
        let mut bash = Command::new("bash")
            .args(["-c", open, &server.address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash starts");
        let mut line = String::new();
        let output = bash.stdout.take().expect("piped");
        BufReader::new(output).read_line(&mut line).expect("bash can be read");
        assert_eq!(line, "all are here\n");
        Self(bash)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_take_no_more_places_than_there_are_and_not_for_ever() {
    let (server, _database) = server().await;
    let crowd = Crowd::gather(&server);
    if let Ok(files) = std::fs::read_dir(format!("/proc/{}/fd", server.process.id())) {
        assert!(files.count() < 1_100);
    }
    server.is_well().await;
    drop(crowd);
    server.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_is_heeded_when_all_places_are_taken() {
    let (mut server, _database) = server().await;
    let _crowd = Crowd::gather(&server);
    server.process.terminate();
    assert_eq!(server.process.ended(PATIENCE).await.code(), Some(0));
    assert!(!server.process.log().contains("did not finish"), "{}", server.process.log());
}
