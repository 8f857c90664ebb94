//! How little of the service's resources strangers can use up, and what is reserved for those with a key.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use register_ticket_api::app::App;
use register_ticket_api::auth::Caller;
use register_ticket_api::error::Error;
use register_ticket_api::limits::{BATCH_BODY, ClientLimits, KEYLESS_BODY, LISTS_IN_FLIGHT, Pace};
use register_ticket_api::model::{MailList, Millis};
use register_ticket_api::response::Response;
use register_ticket_api::routes::{self, ROUTES, Route};
use register_ticket_api::serve;
use register_ticket_api::store::{Store, TicketFilter, open};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::client::Client;
use crate::database::{Kind, TestDatabase};
use crate::hostile::example;
use crate::process::{Connection, PATIENCE, Process, head, within};
use crate::service::{ORGANIZER_KEY, Service, settings};

on_both_databases! {
    the_key_comes_before_the_body_on_every_route,
    a_key_that_ends_while_its_body_is_on_its_way_opens_nothing,
    what_reads_no_body_waits_for_none,
    without_a_key_a_body_is_small,
    whoever_sends_all_before_reading_sees_the_refusal,
    who_has_been_silent_longest_makes_room,
    one_address_has_no_more_than_its_share,
    a_proxy_has_as_many_connections_as_there_are,
    who_does_not_read_an_answer_is_cut_off,
    half_sent_bodies_of_one_key_leave_room_for_scans_and_for_others,
    lists_that_nobody_reads_leave_room_for_those_of_others,
    no_long_read_takes_the_last_connection_from_scans,
    exports_and_manifests_that_are_held_open_leave_scans_a_connection,
    one_connection_serves_long_reads_and_scans_in_turn,
}

/// Trusts only an address that never connects here, so that loopback counts like any other address.
const ELSEWHERE: (&str, &str) = ("TRUSTED_PROXIES", "192.0.2.1");
const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// The service on a port in this process, with the test's own limits.
struct Port(SocketAddr);

impl Port {
    async fn open(service: &Service, further: &[(&str, &str)], limits: ClientLimits) -> Self {
        let mut app = App::new(settings(&service.database, further), Box::new(Millis::now));
        app.clients = limits;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a listener has an address");
        tokio::spawn(serve::http_until(Arc::new(app), listener, std::future::pending()));
        Self(address)
    }

    fn organizer(&self) -> Client {
        Client::remote(&format!("http://{}", self.0)).with_key(ORGANIZER_KEY)
    }

    fn connect(&self) -> Connection {
        Connection::open(self.0).expect("the service takes connections")
    }

    fn connect_from(&self, source: [u8; 4]) -> Connection {
        Connection::of(self.socket(|socket| socket.bind(&SocketAddr::from((source, 0)).into())))
    }

    fn socket(&self, prepare: impl Fn(&Socket) -> std::io::Result<()>) -> std::net::TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        prepare(&socket).expect("it can be so");
        socket.connect(&self.0.into()).expect("the service takes connections");
        socket.into()
    }
}

/// The head of a request without a key, without its end.
fn stranger(method: &Method, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n")
}

fn is_well(connection: &mut Connection) {
    assert!(connection.send(HEALTH));
    connection.reply("GET").expect("it is open").is(200);
}

fn with_a_body() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().filter(|route| route.reads_body())
}

async fn the_key_comes_before_the_body_on_every_route(service: Service) {
    let port = Port::open(&service, &[], ClientLimits::USUAL).await;
    let key = port.organizer().post("/api/keys", json!({ "name": "door", "role": "gate" })).await.is(201);
    let gate = format!("authorization: Bearer {}\r\n", key["key"].as_str().expect("a new key is shown"));
    let keyed: Vec<&Route> = with_a_body().filter(|route| route.role.is_some()).collect();
    assert!(keyed.len() > 10);
    for route in keyed {
        for (key, status) in [("", 401), ("authorization: Bearer rtk_x\r\n", 401), (&gate, 403)] {
            if status == 403 && route.role.is_some_and(|role| role.as_str() == "gate") {
                continue;
            }
            for body in [
                "content-length: 500\r\n",
                "transfer-encoding: chunked\r\n",
                "expect: 100-continue\r\ncontent-length: 500\r\n",
            ] {
                let mut connection = port.connect();
                let start = stranger(&route.method, &example(route.path));
                connection.send(format!("{start}{key}{body}\r\n").as_bytes());
                let reply = connection.reply("POST").expect("an answer before the body");
                assert_eq!(reply.status, status, "{} {}", route.method, route.path);
                assert_eq!(reply.header("connection"), "close");
            }
        }
    }
}

async fn a_key_that_ends_while_its_body_is_on_its_way_opens_nothing(service: Service) {
    let port = Port::open(&service, &[], ClientLimits::USUAL).await;
    let key = port.organizer().post("/api/keys", json!({ "name": "office", "role": "organizer" })).await.is(201);
    let (secret, id) = (key["key"].as_str().expect("a new key is shown"), key["key_id"].as_str().expect("an id"));
    let body = json!({ "username": "ana" }).to_string();
    let mut connection = port.connect();
    let start = stranger(&Method::POST, "/api/users");
    let rest =
        format!("authorization: Bearer {secret}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.send(format!("{start}{rest}").as_bytes());
    connection.is_told_to_continue();
    port.organizer().delete(format!("/api/keys/{id}")).await.is(204);
    connection.send(body.as_bytes());
    connection.reply("POST").expect("an answer").is_refused(401, "unauthenticated");
    assert_eq!(service.database.count("select count(*) from users").await, 0);
}

async fn what_reads_no_body_waits_for_none(service: Service) {
    let port = Port::open(&service, &[], ClientLimits::USUAL).await;
    for (method, path, status) in [
        (Method::POST, "/nowhere", 404),
        (Method::PUT, "/api/users/", 404),
        (Method::POST, "/health", 405),
        (Method::PUT, "/api/users", 405),
        (Method::DELETE, "/api/users/ana", 401),
        (Method::GET, "/api/events", 401),
        (Method::GET, "/health", 200),
        (Method::HEAD, "/health", 200),
    ] {
        for body in ["content-length: 500\r\n", "transfer-encoding: chunked\r\n"] {
            let mut connection = port.connect();
            connection.send(format!("{}{body}\r\n", stranger(&method, path)).as_bytes());
            let reply = connection.reply(method.as_str()).expect("an answer before the body");
            assert_eq!(reply.status, status, "{method} {path}");
            // Any body would be taken for another request.
            assert_eq!(reply.header("connection"), "close", "{method} {path}");
        }
    }
}

async fn without_a_key_a_body_is_small(service: Service) {
    let port = Port::open(&service, &[], ClientLimits::USUAL).await;
    let keyless: Vec<&Route> = with_a_body().filter(|route| route.role.is_none()).collect();
    assert!(!keyless.is_empty());
    for route in keyless {
        let start = stranger(&route.method, &example(route.path));
        let reply_to = |body: &[u8]| {
            let mut connection = port.connect();
            connection.send(start.as_bytes());
            connection.send(body);
            connection.reply("POST").expect("an answer")
        };
        let announced = format!("content-length: {}\r\n\r\n", KEYLESS_BODY + 1);
        reply_to(announced.as_bytes()).is_refused(413, "payload_too_large");
        let chunk =
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n{}", KEYLESS_BODY + 1, "a".repeat(KEYLESS_BODY + 1));
        reply_to(chunk.as_bytes()).is_refused(413, "payload_too_large");
        let whole = format!("content-length: {KEYLESS_BODY}\r\n\r\n{}", "a".repeat(KEYLESS_BODY));
        reply_to(whole.as_bytes()).is_refused(400, "malformed_json");
    }
}

async fn whoever_sends_all_before_reading_sees_the_refusal(service: Service) {
    let port = Port::open(&service, &[], ClientLimits::USUAL).await;
    for (path, length, status) in [
        ("/api/users", 64 * 1024, 401),
        ("/api/events/default/scans/batch", BATCH_BODY, 401),
        ("/nowhere", BATCH_BODY, 404),
        ("/api/enrol", BATCH_BODY, 413),
    ] {
        let mut connection = port.connect();
        let start = stranger(&Method::POST, path);
        assert!(connection.send(format!("{start}content-length: {length}\r\n\r\n").as_bytes()));
        for _ in 0..length / 4_096 {
            assert!(connection.send(&[b'a'; 4_096]), "{path}: all is taken");
        }
        assert_eq!(connection.reply("POST").expect("the answer is there").status, status, "{path}");
        assert!(connection.rest().is_empty());
    }
}

async fn who_has_been_silent_longest_makes_room(service: Service) {
    let limits = ClientLimits { connections: 4, of_one_address: 4, ..ClientLimits::USUAL };
    let port = Port::open(&service, &[ELSEWHERE], limits).await;
    let mut connections: Vec<Connection> = (0..4).map(|_| port.connect()).collect();
    is_well(&mut connections[0]);
    // Part of a head, and a body that stops arriving, count as silence too.
    connections[3].send(b"GET /hea");
    connections[2]
        .send(format!("{}content-length: 10\r\n\r\n", head("POST", "/api/users", "application/json")).as_bytes());
    // By the last answer the service has read both, however busy the machine is.
    (0..5).for_each(|_| is_well(&mut connections[0]));
    let mut fifth = port.connect();
    is_well(&mut fifth);
    assert!(connections[1].rest().is_empty(), "it said nothing at all");
    is_well(&mut connections[0]);
    let mut sixth = port.connect();
    is_well(&mut sixth);
    let mut seventh = port.connect();
    is_well(&mut seventh);
    assert!(connections[2].rest().is_empty() && connections[3].rest().is_empty());
    [&mut fifth, &mut sixth, &mut seventh, &mut connections[0]].into_iter().for_each(is_well);
}

async fn one_address_has_no_more_than_its_share(service: Service) {
    let limits = ClientLimits { connections: 8, of_one_address: 2, ..ClientLimits::USUAL };
    let port = Port::open(&service, &[ELSEWHERE], limits).await;
    let mut gate = port.connect_from([127, 0, 0, 2]);
    is_well(&mut gate);
    let mut crowd: Vec<Connection> = (0..20).map(|_| port.connect_from([127, 0, 0, 3])).collect();
    is_well(crowd.last_mut().expect("many"));
    for gone in &mut crowd[..18] {
        assert!(gone.rest().is_empty());
    }
    // The gate has been silent longest, but does not lose its connection to them.
    is_well(&mut gate);
}

async fn a_proxy_has_as_many_connections_as_there_are(service: Service) {
    let limits = ClientLimits { connections: 8, of_one_address: 2, ..ClientLimits::USUAL };
    let port = Port::open(&service, &[("TRUSTED_PROXIES", "127.0.0.2")], limits).await;
    let mut proxied: Vec<Connection> = (0..8).map(|_| port.connect_from([127, 0, 0, 2])).collect();
    proxied.iter_mut().for_each(is_well);
}

async fn who_does_not_read_an_answer_is_cut_off(service: Service) {
    let reading = Pace { bytes: 60 * 1024, time: Duration::from_millis(200) };
    let port = Port::open(&service, &[], ClientLimits { reading, ..ClientLimits::USUAL }).await;
    let mut connection = Connection::of(port.socket(|socket| socket.set_recv_buffer_size(4_096)));
    let document = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert!(connection.send(document.repeat(20).as_bytes()));
    within(PATIENCE, "the end of the connection", async || (!connection.send(b"x")).then_some(())).await;
    // The same, but read as it arrives.
    let mut connection = port.connect();
    assert!(connection.send(document.repeat(20).as_bytes()));
    for _ in 0..20 {
        connection.reply("GET").expect("an answer").is(200);
    }
}

async fn half_sent_bodies_of_one_key_leave_room_for_scans_and_for_others(service: Service) {
    let port = Port::open(&service, &[], ClientLimits::USUAL).await;
    let key = async |name: &str| {
        let new = json!({ "name": name, "role": "gate", "event": "default", "offline": true });
        let key = port.organizer().post("/api/keys", new).await.is(201);
        key["key"].as_str().expect("a new key is shown").to_owned()
    };
    let (hostile, other) = (key("hostile").await, key("other").await);
    let batch = "/api/events/default/scans/batch";
    let mut half_sent: Vec<Connection> = (0..2).map(|_| port.connect()).collect();
    for connection in &mut half_sent {
        let start = stranger(&Method::POST, batch);
        let rest = format!("authorization: Bearer {hostile}\r\ncontent-length: {BATCH_BODY}\r\n\r\n");
        connection.send(format!("{start}{rest}").as_bytes());
        connection.send(&vec![b'a'; BATCH_BODY - 1]);
    }
    let client = |key: &str| Client::remote(&format!("http://{}", port.0)).with_key(key);
    let send = async |key: &str, length: usize| {
        client(key).send_as(Method::POST, batch, "application/json", vec![b'a'; length]).await
    };
    let refused = async || Some(send(&hostile, 64 * 1024).await).filter(|reply| reply.status == 503);
    let refused = within(PATIENCE, "its share is in use", refused).await;
    refused.is_refused(503, "busy");
    assert_eq!(refused.header("retry-after"), "5");
    send(&hostile, 1_000).await.is_refused(400, "malformed_json");
    send(&other, 64 * 1024).await.is_refused(400, "malformed_json");
    for connection in &mut half_sent {
        connection.send(b"a");
        connection.reply("POST").expect("an answer").is_refused(400, "malformed_json");
    }
    send(&hostile, 64 * 1024).await.is_refused(400, "malformed_json");
}

async fn lists_that_nobody_reads_leave_room_for_those_of_others(service: Service) {
    let app = Arc::new(App::new(settings(&service.database, &[]), Box::new(Millis::now)));
    let organizer = Client::of(&app).with_key(ORGANIZER_KEY);
    let new = json!({ "name": "door", "role": "gate", "event": "default", "offline": true });
    let key = organizer.post("/api/keys", new).await.is(201);
    let ask = async |key: &str, path: &str| -> Response {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {key}"));
        routes::handle(&app, request.body(lambda_http::Body::Empty).expect("a request")).await
    };
    let manifest = "/api/events/default/manifest";
    let key = key["key"].as_str().expect("a new key is shown");
    let mut unread = Vec::new();
    for _ in 0..LISTS_IN_FLIGHT.of_one_key {
        unread.push(ask(key, manifest).await);
    }
    assert!(unread.iter().all(|response| response.status() == 200));
    assert_eq!(ask(key, manifest).await.status(), 503);
    assert_eq!(ask(key, "/api/events/default/stats").await.status(), 200);
    for list in ["manifest", "tickets.csv", "scans.csv", "links.csv"] {
        assert_eq!(ask(ORGANIZER_KEY, &format!("/api/events/default/{list}")).await.status(), 200, "{list}");
    }
    unread.pop();
    assert_eq!(ask(key, manifest).await.status(), 200);
}

/// Every method of the store whose reads grow with the event.
fn long_reads(store: &dyn Store, event_id: Uuid) -> Vec<(&'static str, BoxFuture<'_, ()>)> {
    let now = Millis::now();
    macro_rules! reads {
        ($($method:ident($($value:expr),*))+) => {
            vec![$((stringify!($method), Box::pin(async move { drop(store.$method($($value),*).await) }) as BoxFuture<'_, ()>)),+]
        };
    }
    reads! {
        stats(event_id, now)
        manifest_state(event_id, None)
        list_manifest(event_id, None, None, None, 1)
        list_tickets(event_id, &TicketFilter::default(), 1)
        list_gates(event_id)
        list_scans(event_id, None, 1)
        list_attendance(event_id, true, None, 1)
        list_conflicts(event_id, None, 1)
        list_incidents(event_id, None, 1)
        list_actions(Some(event_id), None, 1)
        list_mails(event_id, None, MailList::Unmailed, None, 1)
        count_mails(event_id, None)
        list_keys(None, None, 1)
        list_renewed(event_id, None, 1)
        printed_list(event_id)
        count_people(event_id)
        check()
    }
}

/// A read that is polled once and then abandoned keeps its connection, as any slow read does.
async fn no_long_read_takes_the_last_connection_from_scans(service: Service) {
    let store = open(&settings(&service.database, &[("DB_POOL_MAX", "3")]));
    let event = store.find_event("default").await.ok().flatten().expect("every database has it");
    let event_id = Caller::ENVIRONMENT.open(Some(event), Error::EventNotFound).expect("it may open all").event_id;
    for number in 0..long_reads(&*store, event_id).len() {
        let mut held: Vec<_> = (0..4).map(|_| long_reads(&*store, event_id).swap_remove(number)).collect();
        for (_, read) in &mut held {
            read.now_or_never();
        }
        let beside = tokio::time::timeout(PATIENCE, store.find_event("default")).await;
        assert!(beside.is_ok_and(|found| found.is_ok()), "{} leaves none", held[0].0);
    }
}

async fn exports_and_manifests_that_are_held_open_leave_scans_a_connection(service: Service) {
    let ticket = service.ticket("A1").await;
    let app = Arc::new(App::new(settings(&service.database, &[]), Box::new(Millis::now)));
    let organizer = Client::of(&app).with_key(ORGANIZER_KEY);
    let mut held = Vec::new();
    for name in ["one", "another"] {
        let new = json!({ "name": name, "role": "organizer", "offline": true });
        let key = organizer.post("/api/keys", new).await.is(201);
        for list in ["manifest", "tickets.csv", "scans.csv"] {
            let request = Request::get(format!("/api/events/default/{list}"));
            let request =
                request.header(header::AUTHORIZATION, format!("Bearer {}", key["key"].as_str().expect("a key")));
            let request = request.body(lambda_http::Body::Empty).expect("a request");
            let response = routes::handle(&app, request).await;
            assert_eq!(response.status(), 200, "{list}");
            held.push(response);
        }
    }
    // Each starts to read a page.
    for response in &mut held {
        response.body_mut().frame().now_or_never();
    }
    let scan = json!({ "scan_id": Uuid::now_v7(), "code": ticket.qr(Millis::now()) });
    organizer.post("/api/events/default/scans", scan).await.is_scan(200, "accepted");
}

async fn one_connection_serves_long_reads_and_scans_in_turn(service: Service) {
    let service = service.another(&[("DB_POOL_MAX", "1")]);
    let ticket = service.ticket("A1").await;
    assert!(service.organizer.get("/api/events/default/tickets.csv").await.text().contains("A1"));
    service.organizer.post("/api/events/default/scans", service.scan(&ticket)).await.is_scan(200, "accepted");
    let stats = service.organizer.get("/api/events/default/stats").await.is(200);
    assert_eq!(stats["admitted"], 1);
}

#[test]
fn an_address_is_told_by_the_nearest_proxy_that_is_trusted() {
    let sender = |trusted: &str, peer: &str, headers: &[(&str, &str)]| {
        let settings = register_ticket_api::config::Settings::read(|name| match name {
            "TRUSTED_PROXIES" => Some(trusted.to_owned()),
            _ => None,
        });
        let name = |name: &str| http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        let headers = headers.iter().map(|(key, value)| (name(key), value.parse().expect("a value"))).collect();
        let peer: IpAddr = peer.parse().expect("an address");
        settings.expect("a setting").trusted_proxies.sender(peer, &headers).to_string()
    };
    let x = "x-forwarded-for";
    for (trusted, peer, headers, expected) in [
        // Only trusted proxies are believed; the default is loopback.
        ("", "203.0.113.9", &[(x, "198.51.100.1")][..], "203.0.113.9"),
        ("", "127.0.0.1", &[(x, "198.51.100.1")], "198.51.100.1"),
        ("", "::1", &[(x, "2001:db8::1")], "2001:db8::1"),
        ("", "::ffff:127.0.0.1", &[(x, "198.51.100.1")], "198.51.100.1"),
        ("", "127.0.0.1", &[], "127.0.0.1"),
        ("192.0.2.1", "127.0.0.1", &[(x, "198.51.100.1")], "127.0.0.1"),
        // Anything the client wrote itself is to the left of what the proxy saw.
        ("", "127.0.0.1", &[(x, "10.9.9.9, 198.51.100.1")], "198.51.100.1"),
        ("", "127.0.0.1", &[(x, "10.9.9.9"), (x, "198.51.100.1")], "198.51.100.1"),
        ("10.0.0.0/8, 192.0.2.0/24", "10.1.2.3", &[(x, "1.1.1.1, 198.51.100.1, 192.0.2.7")], "198.51.100.1"),
        ("10.0.0.0/8", "10.1.2.3", &[(x, "10.0.0.1, 10.0.0.2")], "10.0.0.1"),
        // Anything but an address ends the chain.
        ("", "127.0.0.1", &[(x, "198.51.100.1, unknown")], "127.0.0.1"),
        ("", "127.0.0.1", &[(x, "198.51.100.1:4711")], "198.51.100.1"),
        ("", "127.0.0.1", &[("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]:4711\";proto=https")], "2001:db8::1"),
        ("", "127.0.0.1", &[("forwarded", "proto=https;For=198.51.100.1")], "198.51.100.1"),
        ("", "127.0.0.1", &[("forwarded", "for=_hidden")], "127.0.0.1"),
        ("", "127.0.0.1", &[("forwarded", "for=1.1.1.1"), (x, "198.51.100.1")], "198.51.100.1"),
    ] {
        assert_eq!(sender(trusted, peer, headers), expected, "{trusted}, {peer}, {headers:?}");
    }
}

#[tokio::test]
async fn without_host_both_families_are_answered_and_named_as_they_are() {
    let database = TestDatabase::create(Kind::Sqlite).await;
    let port = [("PORT".to_owned(), "0".to_owned())];
    let process = Process::start(database.environment().into_iter().chain(port));
    let line = process.logged("listening").await;
    // A machine without IPv6 has only IPv4.
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(line.contains("[::]:"), has_ipv6, "{line}");
    let port = line.split_once("]:").or(line.split_once("0.0.0.0:")).expect("it says where").1;
    let port: u16 = port.split('"').next().and_then(|port| port.parse().ok()).expect("a port");
    let addresses = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for address in addresses.into_iter().filter(|address| address.is_ipv4() || has_ipv6) {
        let client = Client::remote(&format!("http://{}", SocketAddr::new(address, port)));
        client.with_key("rtk_nobodys").get("/api/keys").await.is_refused(401, "unauthenticated");
        process.logged(&format!("sender=\"{address}\"")).await;
    }
}
