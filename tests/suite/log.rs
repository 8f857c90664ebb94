//! What the service logs, and what it must never log.

use register_ticket_api::model::Millis;
use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::enrolment::token;
use crate::once::scan_now;
use crate::process::{Server, head};
use crate::service::{ORGANIZER_KEY, Service, Ticket, assert_members};

on_both_databases! {
    a_request_is_one_line_of_json,
    a_refused_key_is_logged_with_its_senders_address_and_counted,
    whoever_takes_keys_or_links_away_is_in_the_log_with_the_event,
    no_secret_and_no_name_is_logged_whatever_the_level,
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn start(service: &Service, settings: &[(&str, &str)]) -> Server {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Server::start(service.database.environment().into_iter().chain(settings)).await
}

/// The log lines of requests so far, except health checks.
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

async fn a_refused_key_is_logged_with_its_senders_address_and_counted(service: Service) {
    let proxied = |server: &Server, key: &str| {
        let from = "x-forwarded-for: 10.9.9.9, 203.0.113.7\r\n";
        let request = format!("GET /api/keys HTTP/1.1\r\nhost: l\r\n{from}authorization: Bearer {key}\r\n\r\n");
        server.exchange(request.as_bytes()).expect("an answer")
    };
    for (trusted, sender) in [("", "203.0.113.7"), ("192.0.2.1", "127.0.0.1")] {
        let server = start(&service, &[("LOG_FORMAT", "json"), ("TRUSTED_PROXIES", trusted)]).await;
        proxied(&server, ORGANIZER_KEY).is(200);
        proxied(&server, "rtk_nobodys").is_refused(401, "unauthenticated");
        proxied(&server, "rtk_nobodys").is_refused(401, "unauthenticated");
        let metrics = server.organizer().get("/metrics").await.text();
        let counted = "http_requests_total{method=\"GET\",route=\"/api/keys\",status=\"401\"} 2\n";
        assert!(metrics.contains(counted), "{metrics}");
        server.process.logged("/metrics").await;
        let lines = requests(&server);
        let told: Vec<_> = lines.iter().map(|line| (line["status"].as_u64(), line.get("sender").cloned())).collect();
        let (known, refused) = ((Some(200), None), (Some(401), Some(json!(sender))));
        assert_eq!(told, [known.clone(), refused.clone(), refused, known]);
    }
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

/// Uses every part of the service. Returns everything sent or received that must not be logged.
async fn an_evening(server: &Server, name: &str) -> Vec<String> {
    let mut evening = Evening::of(server, name);
    evening.an_event_and_two_people().await;
    let gate = evening.a_device_is_enrolled().await;
    let tickets = evening.a_ticket_gets_three_secrets(&gate).await;
    evening.links_are_opened(&tickets).await;
    evening.people_come_to_the_gate(&gate, &tickets).await;
    evening.lists_are_read().await;
    evening.requests_go_wrong_on_their_way().await;
    evening.a_person_is_erased().await;
    evening.secrets
}

/// The people of an evening, and what must not be logged of it.
struct Evening<'a> {
    server: &'a Server,
    organizer: Client,
    event: String,
    holder: String,
    heir: String,
    secrets: Vec<String>,
}

/// One ticket as it was provisioned each time.
struct Provisioned {
    registered: Value,
    reissued: Value,
    transferred: Value,
}

impl<'a> Evening<'a> {
    fn of(server: &'a Server, name: &str) -> Self {
        let (holder, heir) = (format!("ximena.{name}"), format!("quentin.{name}"));
        let secrets = vec![holder.clone(), heir.clone()];
        Self { server, organizer: server.organizer(), event: format!("gala-{name}"), holder, heir, secrets }
    }

    /// A path of the event.
    fn path(&self, rest: &str) -> String {
        format!("/api/events/{}/{rest}", self.event)
    }

    fn keeps_secret(&mut self, words: &[&str]) {
        self.secrets.extend(words.iter().map(|word| (*word).to_owned()));
    }

    async fn an_event_and_two_people(&mut self) {
        let (full_name, email) = ("Ximena Quiñones", "x.q@example.org");
        self.organizer.post("/api/events", json!({ "slug": self.event, "name": "Gala of secrets" })).await.is(201);
        for username in [&self.holder, &self.heir] {
            let body = json!({ "username": username, "full_name": full_name, "email": email });
            self.organizer.post("/api/users", body).await.is(201);
        }
        self.keeps_secret(&[full_name, email]);
    }

    async fn a_device_is_enrolled(&mut self) -> Client {
        let key = json!({ "name": "back door", "role": "supervisor", "event": self.event });
        let created = self.organizer.post("/api/keys", key).await.is(201);
        let enrol = format!("/api/keys/{}/enrol", text(&created["key_id"]));
        let token = token(&self.organizer.post(enrol, Value::Null).await.is(200));
        let anonymous = self.server.anonymous();
        let key = text(&anonymous.post("/api/enrol", json!({ "token": token })).await.is(200)["key"]);
        anonymous.post("/api/enrol", json!({ "token": token })).await.is(410);
        self.keeps_secret(&[&text(&created["key"]), key.trim_start_matches("rtk_"), &token]);
        anonymous.with_key(&key)
    }

    /// Registers, reissues and transfers a ticket. Also shows its paper in a request without a `scan_id`, which has no
    /// effect.
    async fn a_ticket_gets_three_secrets(&mut self, gate: &Client) -> Provisioned {
        let tickets = self.path("tickets");
        let seats = json!([{ "seat": "Row-13", "gate": "Moat" }, { "seat": "Row-14", "gate": "Moat" }]);
        self.organizer.post(&tickets, seats).await.is(201);
        let file = format!("seat,gate,username\nRow-15,Moat,{}\n", self.holder);
        self.organizer.post_csv(&tickets, file).await.is(201);

        let form = format!("seat=Row-13&gate=Moat&event={}", self.event);
        let registration = format!("/api/users/{}/tickets", self.holder);
        let registered = self.organizer.post_form(registration, form).await.is(201);
        let ticket = format!("/api/tickets/{}", text(&registered["ticket_id"]));
        let reissued = self.organizer.post(format!("{ticket}/reissue"), Value::Null).await.is(200);
        let heir = json!({ "username": self.heir });
        let transferred = self.organizer.post(format!("{ticket}/transfer"), heir).await.is(200);
        for provisioned in [&registered, &reissued, &transferred] {
            self.keeps_secret(&[&text(&provisioned["provisioning"]["secret"]), &page_token(provisioned)]);
        }

        let printed = self.organizer.post(format!("{ticket}/print"), Value::Null).await.is(200);
        let printed = text(&printed["printed_code"]);
        gate.post(self.path("scans"), json!({ "code": printed })).await.is(422);
        self.organizer.get(format!("{ticket}/link")).await.is(200);
        self.keeps_secret(&["Row-13", "Moat", &printed]);
        Provisioned { registered, reissued, transferred }
    }

    async fn links_are_opened(&mut self, tickets: &Provisioned) {
        let anonymous = self.server.anonymous();
        for (provisioned, status) in [(&tickets.registered, 404), (&tickets.reissued, 404), (&tickets.transferred, 200)]
        {
            let page = format!("/t/{}", page_token(provisioned));
            for (path, status) in [("", status), ("/app.webmanifest", status), ("/sesame", 404)] {
                assert_eq!(anonymous.get(format!("{page}{path}")).await.status, status, "{path}");
            }
        }
        anonymous.get("/t/sesame").await;
        self.keeps_secret(&["sesame"]);
    }

    async fn people_come_to_the_gate(&mut self, gate: &Client, tickets: &Provisioned) {
        let scans = self.path("scans");
        let ticket = Ticket::new(&tickets.transferred);
        let (scan, wrong) = (scan_now(&ticket), scan_now(&Ticket::new(&tickets.registered)));
        gate.post(&scans, wrong.clone()).await.is_scan(422, "wrong_code");
        gate.post(&scans, scan.clone()).await.is_scan(200, "accepted");
        gate.post(format!("/api/scans/{}/undo", text(&scan["scan_id"])), Value::Null).await.is(200);
        let note = "his uncle vouches";
        let manual = json!({
            "scan_id": uuid::Uuid::now_v7(), "seat": "Row-15", "gate": "Moat", "manual": true, "note": note,
        });
        gate.post(&scans, manual).await.is_scan(200, "accepted");
        self.keeps_secret(&[&text(&scan["code"]), &text(&wrong["code"]), &ticket.code(Millis::now()), note]);
    }

    async fn lists_are_read(&mut self) {
        let manifest = self.organizer.get(self.path("manifest?since=0")).await.is(200);
        let entries = manifest["tickets"].as_array().expect("a list").iter();
        self.secrets.extend(entries.filter_map(|entry| entry["key"].as_str()).map(str::to_owned));
        for list in [
            "tickets?q=quinones",
            "tickets?q=%00",
            "tickets?gate=Moat",
            "tickets.csv",
            "scans.csv",
            "links.csv",
            "stats",
        ] {
            self.organizer.get(self.path(list)).await;
        }
        self.keeps_secret(&["quinones", "since=0"]);
    }

    async fn requests_go_wrong_on_their_way(&mut self) {
        let (scans, server) = (self.path("scans"), self.server);
        self.organizer.post(&scans, json!({ "code": "RT1.unfinished", "seed": "sesame" })).await.is(422);
        let unfinished = "{\"totp_code\": \"314159";
        self.organizer.send_as(http::Method::POST, &scans, "application/json", unfinished).await.is(400);
        let cookie = b"GET /health HTTP/1.1\r\nhost: l\r\ncookie: session=sesame\r\n\r\n";
        server.exchange(cookie).expect("an answer").is(200);
        server.anonymous().with_key("rtk_sesame").get("/api/keys").await.is(401);
        let slipped = b"RT1.sesame.271828 /health HTTP/1.1\r\nhost: l\r\n\r\n";
        server.exchange(slipped).expect("an answer").is(405);
        self.keeps_secret(&["314159", "271828"]);
    }

    /// Sends the last request of an evening; once it is in the log, all are.
    async fn a_person_is_erased(&mut self) {
        self.organizer.bare(http::Method::DELETE, format!("/api/users/{}", self.holder)).await.is(204);
        self.server.process.logged("DELETE").await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// The token in a ticket's link.
fn page_token(provisioned: &Value) -> String {
    let url = provisioned["provisioning"]["ticket_url"].as_str().unwrap_or_default();
    url.rsplit_once("/t/").expect("a link leads to a ticket's page").1.to_owned()
}
