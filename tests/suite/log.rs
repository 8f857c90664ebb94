//! What the service writes down, and what it never does.

use register_ticket_api::model::Millis;
use serde_json::{Map, Value, json};

use crate::enrolment::token;
use crate::once::scan_now;
use crate::process::{Server, head};
use crate::service::{ORGANIZER_KEY, Service, Ticket, assert_members};

on_both_databases! {
    a_request_is_one_line_of_json,
    whoever_takes_keys_or_links_away_is_in_the_log_with_the_event,
    no_secret_and_no_name_is_logged_whatever_the_level,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn start(service: &Service, settings: &[(&str, &str)]) -> Server {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Server::start(service.database.environment().into_iter().chain(settings)).await
}

/// The lines of requests so far, but for those of health checks.
fn requests(server: &Server) -> Vec<Map<String, Value>> {
    let log = server.process.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Map<_, _>>(line).expect("every line is JSON"));
    lines.filter(|line| line["message"] == "request" && line["route"] != "/health").collect()
}

async fn a_request_is_one_line_of_json(service: Service) {
    let ticket = service.ticket("A1").await;
    let server = start(&service, &[("LOG_FORMAT", "json"), ("GOOGLE_CLOUD_PROJECT", "tickets")]).await;
    let key = server.organizer().post("/api/keys", json!({ "name": "door", "role": "gate" })).await.is(201);
    let gate = server.anonymous().with_key(key["key"].as_str().expect("a new key is shown"));
    gate.post("/api/events/default/scans", scan_now(&ticket)).await.is_scan(200, "accepted");
    gate.post("/api/events/default/scans?from=door", scan_now(&ticket)).await.is_scan(409, "already_used");
    gate.get("/nothing/of/the/kind").await.is_refused(404, "not_found");
    let traced = format!("traceparent: 00-{TRACE}-00f067cc0cc902c7-01\r\n\r\n");
    let traced = format!("{}{traced}", head("DELETE", "/api/users/ana", ""));
    server.exchange(traced.as_bytes()).expect("an answer").is_refused(404, "user_not_found");

    server.process.logged("user_not_found").await;
    let lines = requests(&server);
    let told = |line: &Map<String, Value>| {
        let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {} {}",
            text("severity"),
            text("method"),
            text("route"),
            line["status"],
            text("scan.result"),
            text("error.code")
        )
    };
    assert_eq!(
        lines.iter().map(told).collect::<Vec<_>>(),
        [
            "INFO POST /api/keys 201 - -",
            "INFO POST /api/events/{event}/scans 200 accepted -",
            "INFO POST /api/events/{event}/scans 409 already_used -",
            "INFO GET  404 - not_found",
            "INFO DELETE /api/users/{username} 404 - user_not_found",
        ]
    );
    assert!(
        lines.iter().all(|line| line["ms"].is_number() && Millis::parse(line["time"].as_str().unwrap_or("")).is_some())
    );
    assert_eq!(lines[1]["key.id"], key["key_id"]);
    assert_eq!(lines[4]["logging.googleapis.com/trace"], format!("projects/tickets/traces/{TRACE}"));
    assert!(!lines[3].contains_key("logging.googleapis.com/trace"));
}

async fn whoever_takes_keys_or_links_away_is_in_the_log_with_the_event(service: Service) {
    let server = start(&service, &[("LOG_FORMAT", "json")]).await;
    let new = json!({ "name": "office", "role": "organizer", "offline": true });
    let key = server.organizer().post("/api/keys", new).await.is(201);
    let office = server.anonymous().with_key(key["key"].as_str().expect("a new key is shown"));
    for (path, message) in [("manifest", "manifest downloaded"), ("links.csv", "links downloaded")] {
        let reply = office.get(format!("/api/events/default/{path}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let line: Value = serde_json::from_str(&server.process.logged(message).await).expect("a line is JSON");
        assert_members(&line, json!({ "key.id": key["key_id"], "event": "default" }));
    }
}

async fn no_secret_and_no_name_is_logged_whatever_the_level(service: Service) {
    for format in ["json", "text"] {
        let secret = "the-ticket-secret-of-the-test-suite";
        let settings = [("LOG_FORMAT", format), ("RUST_LOG", "trace"), ("TICKET_SECRET", secret)];
        let server = start(&service, &settings).await;
        let mut secrets = an_evening(&server, format).await;
        secrets.extend([ORGANIZER_KEY, secret, "Bearer", "authorization"].map(str::to_owned));
        let environment = service.database.environment();
        secrets
            .extend(environment.iter().filter(|(name, _)| name.ends_with("PASSWORD")).map(|(_, value)| value.clone()));
        let log = server.process.log();
        for secret in secrets {
            assert!(!log.contains(&secret), "`{secret}` is in the log:\n{log}");
        }
        server.is_well().await;
    }
}

/// Uses every part of the service. Returns all that was sent or received and must not be written down.
async fn an_evening(server: &Server, name: &str) -> Vec<String> {
    let organizer = server.organizer();
    let (event, user, other) = (format!("gala-{name}"), format!("ximena.{name}"), format!("quentin.{name}"));
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let full_name = "Ximena Quiñones";
    organizer.post("/api/events", json!({ "slug": event, "name": "Gala of secrets" })).await.is(201);
    for username in [&user, &other] {
        let body = json!({ "username": username, "full_name": full_name, "email": "x.q@example.org" });
        organizer.post("/api/users", body).await.is(201);
    }
    let key = json!({ "name": "back door", "role": "supervisor", "event": event });
    let created = organizer.post("/api/keys", key).await.is(201);
    let enrol = organizer.post(&format!("/api/keys/{}/enrol", text(&created["key_id"])), Value::Null).await.is(200);
    let token = token(&enrol);
    let key = text(&server.anonymous().post("/api/enrol", json!({ "token": token })).await.is(200)["key"]);
    server.anonymous().post("/api/enrol", json!({ "token": token })).await.is(410);
    let gate = server.anonymous().with_key(&key);

    let tickets = format!("/api/events/{event}/tickets");
    organizer
        .post(&tickets, json!([{ "seat": "Row-13", "gate": "Moat" }, { "seat": "Row-14", "gate": "Moat" }]))
        .await
        .is(201);
    organizer.post_csv(&tickets, format!("seat,gate,username\nRow-15,Moat,{user}\n")).await.is(201);
    let form = "seat=Row-13&gate=Moat&event=".to_owned() + &event;
    let first = organizer.post_form(&format!("/api/users/{user}/tickets"), form).await.is(201);
    let reissued =
        organizer.post(&format!("/api/tickets/{}/reissue", text(&first["ticket_id"])), Value::Null).await.is(200);
    let transfer = format!("/api/tickets/{}/transfer", text(&first["ticket_id"]));
    let moved = organizer.post(&transfer, json!({ "username": other })).await.is(200);
    let printed = organizer.post(&transfer.replace("transfer", "print"), Value::Null).await.is(200);
    let printed = text(&printed["printed_code"]);
    gate.post(&format!("/api/events/{event}/scans"), json!({ "code": printed })).await.is(422);
    organizer.get(&transfer.replace("transfer", "link")).await.is(200);
    for (provisioned, status) in [(&first, 404), (&reissued, 404), (&moved, 200)] {
        let page = format!("/t/{}", page_token(provisioned));
        for (path, status) in [("", status), ("/app.webmanifest", status), ("/sesame", 404)] {
            assert_eq!(server.anonymous().get(format!("{page}{path}")).await.status, status, "{path}");
        }
    }
    server.anonymous().get("/t/sesame").await;

    let scans = format!("/api/events/{event}/scans");
    let ticket = Ticket::new(&moved);
    let (scan, wrong) = (scan_now(&ticket), scan_now(&Ticket::new(&first)));
    gate.post(&scans, wrong.clone()).await.is_scan(422, "wrong_code");
    gate.post(&scans, scan.clone()).await.is_scan(200, "accepted");
    gate.post(&format!("/api/scans/{}/undo", text(&scan["scan_id"])), Value::Null).await.is(200);
    let note = "his uncle vouches";
    let manual =
        json!({ "scan_id": uuid::Uuid::now_v7(), "seat": "Row-15", "gate": "Moat", "manual": true, "note": note });
    gate.post(&scans, manual).await.is_scan(200, "accepted");
    let manifest = organizer.get(&format!("/api/events/{event}/manifest?since=0")).await.is(200);

    for path in
        ["tickets?q=quinones", "tickets?q=%00", "tickets?gate=Moat", "tickets.csv", "scans.csv", "links.csv", "stats"]
    {
        organizer.get(&format!("/api/events/{event}/{path}")).await;
    }
    // What goes wrong on its way is not repeated either.
    organizer.post(&scans, json!({ "code": "RT1.unfinished", "seed": "sesame" })).await.is(422);
    organizer.send_as(http::Method::POST, &scans, "application/json", "{\"totp_code\": \"314159").await.is(400);
    server.exchange(b"GET /health HTTP/1.1\r\nhost: l\r\ncookie: session=sesame\r\n\r\n").expect("an answer").is(200);
    server.anonymous().with_key("rtk_sesame").get("/api/keys").await.is(401);
    organizer.bare(http::Method::DELETE, &format!("/api/users/{user}")).await.is(204);
    server.process.logged("DELETE").await;

    let mut secrets =
        vec![key.trim_start_matches("rtk_").to_owned(), user, other, full_name.to_owned(), note.to_owned()];
    secrets.extend([text(&created["key"]), token, printed]);
    secrets.extend(["x.q@example.org", "Row-13", "Moat", "quinones", "since=0", "sesame", "314159"].map(str::to_owned));
    secrets.extend([&scan, &wrong].map(|scan| text(&scan["code"])));
    secrets.push(ticket.code(Millis::now()));
    for provisioned in [&first, &reissued, &moved] {
        secrets.extend([text(&provisioned["provisioning"]["secret"]), page_token(provisioned)]);
    }
    secrets.extend(manifest["tickets"].as_array().expect("a list").iter().map(|entry| text(&entry["key"])));
    secrets
}

/// What a ticket's link ends with.
fn page_token(provisioned: &Value) -> String {
    let url = provisioned["provisioning"]["ticket_url"].as_str().unwrap_or_default();
    url.rsplit_once("/t/").expect("a link leads to a ticket's page").1.to_owned()
}
