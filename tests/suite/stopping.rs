//! The end of a process: requested with SIGTERM, and sudden with SIGKILL.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::once::{scan_now, scan_request, tickets};
use crate::process::{Connection, PATIENCE, Server, head};
use crate::service::{Service, with};

on_both_databases! {
    after_sigterm_a_request_in_flight_gets_its_answer,
    idle_connections_do_not_hold_up_the_end,
    no_acknowledged_admission_is_lost_by_sigkill,
}

async fn after_sigterm_a_request_in_flight_gets_its_answer(service: Service) {
    let ticket = service.ticket("A1").await;
    let mut server = Server::start(service.database.environment()).await;
    let scan = scan_now(&ticket).to_string();
    let mut device = server.connect();
    let start = head("POST", "/api/events/default/scans", "application/json");
    device.send(format!("{start}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", scan.len()).as_bytes());
    // This answer shows that the request is in flight.
    device.is_told_to_continue();

    server.process.terminate();
    server.process.logged("stopping").await;
    assert!(Connection::open(server.address).is_err(), "nobody new is let in");
    device.send(scan.as_bytes());
    device.reply("POST").expect("the answer").is_scan(200, "accepted");
    assert_eq!(server.process.ended(PATIENCE).await.code(), Some(0));
    assert_eq!(service.database.count("select count(*) from scans").await, 1);
}

async fn idle_connections_do_not_hold_up_the_end(service: Service) {
    let mut server = Server::start(service.database.environment()).await;
    let mut used = server.connect();
    used.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n");
    used.reply("GET").expect("an answer").is(200);
    let mut silent = server.connect();

    server.process.terminate();
    assert_eq!(server.process.ended(PATIENCE).await.code(), Some(0));
    assert!(!server.process.log().contains("did not finish"), "{}", server.process.log());
    assert!(used.rest().is_empty() && silent.rest().is_empty());
}

async fn no_acknowledged_admission_is_lost_by_sigkill(service: Service) {
    const TICKETS: usize = 240;
    let tickets = tickets(&service, TICKETS).await;
    let scans: Vec<Value> = tickets.iter().map(scan_now).collect();
    let mut server = Server::start(service.database.environment()).await;

    let acknowledged = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for share in scans.chunks(TICKETS / 8) {
            let (acknowledged, mut device) = (&acknowledged, server.connect());
            scope.spawn(move || {
                for scan in share {
                    device.send(&scan_request(scan));
                    let Some(reply) = device.reply("POST") else { return };
                    reply.is_scan(200, "accepted");
                    acknowledged.lock().expect("no device panics").push(scan["scan_id"].clone());
                }
            });
        }
        let many = || acknowledged.lock().is_ok_and(|acknowledged| acknowledged.len() >= TICKETS / 4);
        while !many() {
            std::thread::yield_now();
        }
        server.process.kill();
    });
    let acknowledged = acknowledged.into_inner().expect("no device panics");
    assert!(acknowledged.len() < TICKETS, "the end came in the middle");
    let torn = "select count(*) from tickets t where (status = 'used') <> (1 = \
                (select count(*) from scans s where s.ticket_id = t.ticket_id and result = 'accepted'))";
    assert_eq!(service.database.count(torn).await, 0);

    // Each device resends its scans; whoever got an admission gets the same again.
    let server = Server::start(service.database.environment()).await;
    let organizer = server.organizer();
    for (scan, ticket) in scans.iter().zip(&tickets) {
        let again = with(scan.clone(), json!({ "code": scan_now(ticket)["code"] }));
        let reply = organizer.post("/api/events/default/scans", again).await.is_scan(200, "accepted");
        if acknowledged.contains(&scan["scan_id"]) {
            assert_eq!(reply["replayed"], true);
        }
    }
    assert_eq!(service.database.count(torn).await, 0);
    assert_eq!(service.database.count("select count(*) from scans").await, TICKETS as i64);
}
