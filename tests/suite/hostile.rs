//! Malicious or careless clients. Nothing they send may cause a panic, a 5xx or lasting use of memory.

use register_ticket_api::routes::{ROUTES, Route};
use serde_json::json;

use crate::process::{Server, head, request};
use crate::service::Service;

on_both_databases! {
    paths_that_lead_nowhere_are_not_found,
    bodies_that_are_not_text_are_refused,
    every_route_answers_every_method,
    nothing_but_http_is_answered,
    old_and_impatient_clients_are_served,
    a_body_that_is_not_as_long_as_announced_does_no_harm,
    a_large_body_is_refused_before_it_is_read,
}

const MIB: usize = 1024 * 1024;

/// Sends an organizer's request and returns its status, which must not be a 5xx.
#[track_caller]
fn status(server: &Server, bytes: &[u8]) -> u16 {
    let reply = server.exchange(bytes).expect("an answer");
    assert!(reply.status.as_u16() < 500, "{}: {}", String::from_utf8_lossy(bytes), reply.text());
    reply.status.as_u16()
}

async fn paths_that_lead_nowhere_are_not_found(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let long = format!("/api/users/{}", "a".repeat(12_000));
    for path in [
        "//",
        "/../health",
        "/./health",
        "/health/",
        "/HEALTH",
        "/health%00",
        "/%68ealth",
        "/api/%2e%2e/health",
        "*",
        "/api/users/a%2Fb",
        "/api/users/%2e%2e",
        "/api/users/%00",
        "/api/users/%ff",
        "/api/users/%",
        "/api/users/%zz",
        "/api/events/%00",
        "/api/events/%00/stats",
        "/api/events/a%2Fb/stats",
        "/api/events/%F0%9F%8E%AB/stats",
        "/api/events/%00/tickets",
        "/api/events/%00/manifest",
        "/api/tickets/%00",
        "/api/tickets/1",
        &long,
    ] {
        assert_eq!(status(&server, &request("GET", path, "", "")), 404, "{path}");
    }
    for path in ["/api/events/%00/scans", "/api/events/%00/scans/batch", "/api/events/%00/tickets", "/api/keys/%00"] {
        let method = if path.starts_with("/api/keys") { "DELETE" } else { "POST" };
        let body = json!({ "scan_id": "01890a5d-ac96-774b-bcce-b302099a8057", "code": "RT1.x.000000" }).to_string();
        assert!((404..=422).contains(&status(&server, &request(method, path, "application/json", &body))), "{path}");
    }
    let parameters: String = (0..2_000).map(|number| format!("&q={number}")).collect();
    let many = format!("/api/events/default/tickets?{parameters}");
    assert_eq!(status(&server, &request("GET", &many, "", "")), 422);
    for query in
        ["q=%00", "gate=%00", "q=%ff", "after=%00", "limit=99999999999999999999", "status=%27;drop", "q=%25_%5C"]
    {
        let reply = status(&server, &request("GET", &format!("/api/events/default/tickets?{query}"), "", ""));
        assert!(reply == 422 || reply == 200, "{query}: {reply}");
    }
    let too_long = format!("/{}", "a".repeat(20_000));
    assert!([414, 431].contains(&status(&server, &request("GET", &too_long, "", ""))));
    server.is_well().await;
}

async fn bodies_that_are_not_text_are_refused(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let long_seat = json!({ "seat": "a".repeat(5_000), "gate": "North" }).to_string();
    let bodies: [&[u8]; 12] = [
        b"",
        b"\0",
        b"\xff\xfe",
        b"{\"seat\":\"\xc3\x28\"}",
        b"{\"seat\":\"A\\u0000\",\"gate\":\"N\"}",
        b"null",
        b"\"",
        b"{\"seat\":\"A\",\"seat\":\"B\",\"gate\":\"N\"}",
        b"{\"seat\":\"\\ud800\",\"gate\":\"N\"}",
        b"[1e999999]",
        deep.as_bytes(),
        long_seat.as_bytes(),
    ];
    let before = service.database.snapshot().await;
    // Routes without a body ignore it; these routes name things that do not exist.
    let takes_one =
        |route: &&Route| ["POST", "PATCH"].contains(&route.method.as_str()) && !route.path.ends_with("/printed");
    for route in ROUTES.iter().filter(takes_one) {
        let path = example(route.path);
        for media_type in ["application/json", "application/x-www-form-urlencoded", "text/csv", "image/png", "\u{e9}"] {
            for body in bodies {
                let head = head(route.method.as_str(), &path, media_type);
                let bytes =
                    [head.as_bytes(), format!("content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
                let status = status(&server, &bytes);
                assert!((400..=422).contains(&status), "{path}, {media_type}: {status}");
            }
        }
    }
    assert_eq!(service.database.snapshot().await, before);
    server.is_well().await;
}

/// A path that matches this route.
pub fn example(pattern: &str) -> String {
    pattern
        .replace("{token}", &"A".repeat(43))
        .replace("{version}/{*file}", "1/base.css")
        .replace("{event}", "default")
        .replace("{username}", "ana")
        .replace("{ticket_id}", "01890a5d-ac96-774b-bcce-b302099a8057")
        .replace("{scan_id}", "01890a5d-ac96-774b-bcce-b302099a8057")
        .replace("{key_id}", "01890a5d-ac96-774b-bcce-b302099a8057")
}

async fn every_route_answers_every_method(service: Service) {
    let server = Server::start(service.database.environment()).await;
    for route in ROUTES {
        let path = example(route.path);
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "CONNECT", "BREW"] {
            let mut connection = server.connect();
            connection.send(&request(method, &path, "", ""));
            let reply = connection.reply(method).expect("an answer");
            let takes = |method: &str| ROUTES.iter().any(|other| other.path == route.path && other.method == method);
            let served = if method == "HEAD" { takes("GET") } else { takes(method) };
            assert!(reply.status.as_u16() < 500, "{method} {path}");
            assert_eq!(reply.status == 405, !served, "{method} {path}: {}", reply.status);
            assert_eq!(reply.header("allow").contains(route.method.as_str()), !served, "{method} {path}");
        }
    }
    server.is_well().await;
}

async fn nothing_but_http_is_answered(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let many_headers: String = (0..2_000).map(|number| format!("x-{number}: 1\r\n")).collect();
    let large_header = format!("x: {}\r\n", "a".repeat(MIB));
    for bytes in [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\0\0\0\0\0\0\0\0\r\n\r\n".to_vec(),
        b"\xff\xfe\xfd\xfc\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"GET /health HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /health\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /h\xc3\x28 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx\0y: z\r\n\r\n".to_vec(),
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n".to_vec(),
        b"POST /api/users HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_vec(),
        b"POST /api/users HTTP/1.1\r\ncontent-length: -1\r\n\r\n".to_vec(),
        b"POST /api/users HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n".to_vec(),
        b"POST /api/users HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n".to_vec(),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many_headers}\r\n").into_bytes(),
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{large_header}\r\n").into_bytes(),
    ] {
        let mut connection = server.connect();
        connection.send(&bytes);
        if let Some(reply) = connection.reply("GET") {
            assert!((400..500).contains(&reply.status.as_u16()), "{}", String::from_utf8_lossy(&bytes));
        }
        connection.rest();
        server.is_well().await;
    }
}

async fn old_and_impatient_clients_are_served(service: Service) {
    let server = Server::start(service.database.environment()).await;
    // HTTP/1.0, without a `Host` header and persistent connections.
    let mut connection = server.connect();
    connection.send(b"GET /health HTTP/1.0\r\n\r\n");
    connection.reply("GET").expect("an answer").is(200);
    assert!(connection.rest().is_empty());

    // The absolute form that proxies use.
    let absolute = b"GET http://tickets.example.org/health HTTP/1.1\r\nhost: tickets.example.org\r\n\r\n";
    assert_eq!(status(&server, absolute), 200);

    // Pipelined requests, which are answered in order.
    let mut connection = server.connect();
    let requests = [
        request("GET", "/health", "", ""),
        request("POST", "/api/users", "application/json", "{\"username\":\"ana\"}"),
        request("GET", "/api/users/ana", "", ""),
        request("GET", "/nothing", "", ""),
    ];
    connection.send(&requests.concat());
    for status in [200, 201, 200, 404] {
        connection.reply("GET").expect("an answer").is(status);
    }
    server.is_well().await;
}

async fn a_body_that_is_not_as_long_as_announced_does_no_harm(service: Service) {
    let server = Server::start(service.database.environment()).await;
    let start = head("POST", "/api/users", "application/json");
    let body = "{\"username\":\"ana\"}";

    // Shorter than announced: the connection ends in the middle.
    let mut connection = server.connect();
    connection.send(format!("{start}content-length: 100\r\n\r\n{body}").as_bytes());
    drop(connection);

    // Longer than announced: the rest is read as another request, and is none.
    let mut connection = server.connect();
    connection.send(format!("{start}content-length: 5\r\n\r\n{body}").as_bytes());
    connection.reply("POST").expect("an answer").is_refused(400, "malformed_json");
    assert!(String::from_utf8_lossy(&connection.rest()).starts_with("HTTP/1.1 400"));

    // Both ways to state the length at once: how requests are smuggled past proxies.
    let mut connection = server.connect();
    connection.send(format!("{start}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes());
    let reply = connection.reply("POST").expect("an answer");
    assert_eq!(reply.status, 400);

    assert_eq!(service.database.count("select count(*) from users").await, 0);
    server.is_well().await;
}

async fn a_large_body_is_refused_before_it_is_read(service: Service) {
    let server = Server::start(service.database.environment()).await;
    server.organizer().get("/api/events").await.is(200);
    let before = server.process.resident();
    let csv = head("POST", "/api/events/default/tickets", "text/csv");
    let json = head("POST", "/api/users", "application/json");
    let gate = "POST /api/events/default/tickets HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/csv\r\n";
    let batch = head("POST", "/api/events/default/scans/batch", "application/json");
    let stranger = "POST /api/events/default/scans/batch HTTP/1.1\r\nhost: localhost\r\n\
                    content-type: application/json\r\n";
    let rows = service.database.snapshot().await;

    // No body is sent before the answer.
    let announce = |head: &str, length: usize| {
        let mut connection = server.connect();
        connection.send(format!("{head}content-length: {length}\r\n\r\n").as_bytes());
        connection.reply("POST").expect("an answer")
    };
    for (head, length) in
        [(&json, 64 * 1024 + 1), (&json, 100 * MIB), (&csv, 16 * MIB + 1), (&csv, 100 * MIB), (&batch, 512 * 1024 + 1)]
    {
        announce(head, length).is_refused(413, "payload_too_large");
    }
    announce(gate, 10 * MIB).is_refused(401, "unauthenticated");
    announce(stranger, 100_000).is_refused(401, "unauthenticated");

    // Starts to send 100 MiB, whatever the answer.
    let chunk = [format!("{MIB:x}\r\n").into_bytes(), vec![b'a'; MIB], b"\r\n".to_vec()].concat();
    let announced = format!("{json}content-length: {}\r\n\r\n", 100 * MIB);
    let without_end = format!("{json}transfer-encoding: chunked\r\n\r\n");
    for start in [announced, without_end] {
        let mut connection = server.connect();
        connection.send(start.as_bytes());
        let sent = (0..100).take_while(|_| connection.send(&chunk)).count();
        assert!(sent < 100, "all was read");
        connection.reply("POST").expect("an answer").is_refused(413, "payload_too_large");
    }
    let grown = server.process.resident().saturating_sub(before);
    assert!(grown < 8 * MIB as u64, "{grown} bytes more");

    // An import is read up to its size limit.
    let mut connection = server.connect();
    connection.send(format!("{csv}transfer-encoding: chunked\r\n\r\n").as_bytes());
    let sent = (0..17).take_while(|_| connection.send(&chunk)).count();
    assert!(sent >= 16, "{sent} MiB");
    connection.reply("POST").expect("an answer").is_refused(413, "payload_too_large");
    assert_eq!(service.database.snapshot().await, rows);
    server.is_well().await;
}
