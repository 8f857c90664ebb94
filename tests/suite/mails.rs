//! Sending tickets by mail, with an external mail server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use data_encoding::BASE64URL_NOPAD;
use register_ticket_api::limits::{MAIL_CLAIM, MAIL_DEADLINE, MAILED_TICKETS};
use register_ticket_api::model::Millis;
use serde_json::{Value, json};

use crate::client::Client;
use crate::commands::{Directory, Run, on};
use crate::database::Kind;
use crate::process::{PATIENCE, Server, within};
use crate::service::{Service, assert_members};
use crate::smoke::certificates;

on_both_databases! {
    a_person_gets_one_mail_with_all_of_their_tickets,
    one_link_of_a_mail_opens_all_that_its_holder_has,
    a_ticket_vanishes_from_the_link_of_who_has_it_no_more,
    nobody_makes_a_link_to_all_from_what_they_have,
    a_mail_is_in_the_language_of_the_event_and_brings_it_for_the_calendar,
    nothing_is_sent_twice_when_a_request_is_repeated,
    nothing_is_sent_twice_by_requests_at_once,
    whom_the_mail_server_refuses_is_told_ticket_by_ticket,
    nothing_is_marked_while_the_mail_server_is_away,
    a_mail_that_may_have_been_lost_is_sent_again,
    a_ticket_that_somebody_gave_up_mailing_is_mailed_by_the_next,
    what_cannot_be_mailed_is_told_ticket_by_ticket,
    a_ticket_with_a_new_link_was_not_mailed,
    those_to_mail_are_listed_person_by_person,
    a_dry_run_shows_a_mail_without_its_links_and_sends_nothing,
    a_bound_key_mails_the_people_of_its_event_alone,
    the_command_mails_everybody_once,
}

const MAILS: &str = "/api/events/gala/mails";
const FROM: (&str, &str) = ("MAIL_FROM", "Gala <gala@tickets.example.org>");

/// The mail server of `tests/pages/mail-server.mjs`, in its own process.
pub struct MailServer {
    process: Child,
    pub directory: Directory,
    port: u16,
}

impl MailServer {
    pub fn start() -> Self {
        Self::with(json!({}))
    }

    /// With TLS, a certificate for localhost, and a user with a password.
    fn safe(tls: &str) -> Self {
        Self::with(json!({ "tls": tls, "login": ["gala@example.org", "the password"] }))
    }

    fn with(mut options: Value) -> Self {
        let directory = Directory::new();
        let path = |name: &str| directory.0.join(name);
        options["file"] = json!(directory.file("mails", ""));
        if options["tls"].is_string() {
            certificates(&directory.0);
            (options["key"], options["cert"]) = (json!(path("service.key")), json!(path("service.pem")));
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pages/mail-server.mjs");
        let mut command = Command::new("node");
        command.args([script, &options.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process =
            command.spawn().expect("this test needs Node, and the packages of tests/pages: run ./scripts/test");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).expect("it prints its port");
        let port = line.trim().parse().expect("it starts where the packages of tests/pages are: run ./scripts/test");
        Self { process, directory, port }
    }

    /// Its URL for the service.
    pub fn url(&self) -> String {
        format!("smtp://localhost:{}", self.port)
    }

    /// The URL with login and TLS.
    fn safe_url(&self, scheme: &str) -> String {
        let authority: PathBuf = self.directory.0.join("authority.pem");
        let tls = if scheme == "smtp" { "tls=required&" } else { "" };
        let login = "gala%40example.org:the%20password";
        format!("{scheme}://{login}@localhost:{}?{tls}sslrootcert={}", self.port, authority.display())
    }

    /// Everything it received, in order.
    fn heard(&self) -> Vec<Value> {
        let file = std::fs::read_to_string(self.directory.0.join("mails")).expect("it is there");
        file.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// The mails that it accepted.
    pub fn mails(&self) -> Vec<Value> {
        self.heard().into_iter().filter(|heard| heard["recipients"].is_array()).collect()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A service with a mail server, and an event.
struct Office {
    server: MailServer,
    service: Service,
    organizer: Client,
}

impl Office {
    async fn open(service: Service) -> Self {
        let server = MailServer::start();
        let service = service.another(&[("SMTP_URL", server.url().as_str()), FROM]);
        let starts = service.time(3 * Millis::HOUR);
        service.event(json!({ "slug": "gala", "name": "Spring Gala", "starts_at": starts })).await;
        let organizer = service.organizer.clone();
        Self { server, service, organizer }
    }

    /// Imports tickets and returns their ids in the order of the lines.
    async fn import(&self, lines: &[&str]) -> Vec<String> {
        let list = format!("seat,gate,username,full_name,email,category\n{}\n", lines.join("\n"));
        self.organizer.post_csv("/api/events/gala/tickets", list).await.is(201);
        let all = self.organizer.get("/api/events/gala/tickets?limit=500").await.is(200);
        let ids = all["tickets"].as_array().expect("a list").iter();
        let ids: Vec<String> = ids.map(|ticket| text(&ticket["ticket_id"])).collect();
        ids[ids.len() - lines.len()..].to_vec()
    }

    /// Mails tickets and returns the result of each.
    async fn mail(&self, ids: &[String]) -> Vec<String> {
        results(&self.organizer.post(MAILS, json!({ "tickets": ids })).await.is(200))
    }

    async fn again(&self, ids: &[String]) -> Vec<String> {
        results(&self.organizer.post(MAILS, json!({ "tickets": ids, "again": true })).await.is(200))
    }

    async fn ticket(&self, id: &str) -> Value {
        self.organizer.get(format!("/api/tickets/{id}")).await.is(200)
    }

    async fn link(&self, id: &str) -> String {
        text(&self.organizer.get(format!("/api/tickets/{id}/link")).await.is(200)["ticket_url"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn results(mailed: &Value) -> Vec<String> {
    mailed["results"].as_array().expect("a list").iter().map(|each| text(&each["result"])).collect()
}

/// Two tickets of Ana, one of them under another name, and one of Ben.
const GUESTS: &[&str] = &[
    "A-1,North,ana,Ana Ruiz,ana@example.org,Adult",
    "B-1,South,ben,,ben@example.org,",
    "A-2,North,ana,Bea Ruiz,ana@example.org,",
];

async fn a_person_gets_one_mail_with_all_of_their_tickets(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    assert_eq!(office.mail(&ids).await, ["sent", "sent", "sent"]);
    let mails = office.server.mails();
    let [ana, ben] = &mails[..] else { panic!("{mails:#?}") };
    assert_members(
        ana,
        json!({
            "recipients": ["ana@example.org"],
            "from": { "name": "Gala", "address": "gala@tickets.example.org" },
            "to": [{ "name": "Ana Ruiz", "address": "ana@example.org" }],
            "subject": "Your 2 tickets for Spring Gala",
        }),
    );
    let (first, second) = (office.link(&ids[0]).await, office.link(&ids[2]).await);
    for told in ["Hello Ana Ruiz,", "A-1 · gate North · Adult", "A-2 · gate North · Bea Ruiz", "Fri 1 May 2026, 21:00"]
    {
        assert!(text(&ana["text"]).contains(told) && text(&ana["html"]).contains(told), "{told}: {ana:#}");
    }
    for link in [&first, &second] {
        assert!(text(&ana["text"]).contains(link), "{ana:#}");
        assert!(text(&ana["html"]).contains(&format!("href=\"{link}\"")), "{ana:#}");
    }
    assert!(!text(&ana["text"]).contains("B-1"), "{ana:#}");
    assert_members(ben, json!({ "recipients": ["ben@example.org"], "subject": "Your ticket for Spring Gala" }));
    assert!(text(&ben["text"]).starts_with("Hello,\n"), "{ben:#}");
    for id in &ids {
        assert_eq!(office.ticket(id).await["mailed_at"], office.service.time(0));
    }
    let actions = office.organizer.get(format!("/api/tickets/{}/actions", ids[0])).await.is(200);
    assert_eq!(actions["actions"].as_array().expect("a list").last().expect("one")["action"], "link_shown");
    let mailed = actions["actions"].as_array().expect("a list").iter().filter(|action| action["action"] == "mailed");
    assert_eq!(mailed.count(), 1);
    let csv = office.organizer.get("/api/events/gala/tickets.csv").await.text();
    assert_eq!(csv.matches(&office.service.time(0)).count(), 9, "made, registered and mailed: {csv}");
}

/// The path of a mail's link to all tickets.
fn link_to_all(mail: &Value) -> String {
    let text = text(&mail["text"]);
    let (_, rest) = text.split_once("Keep this link to yourself:\n").unwrap_or_else(|| panic!("{text}"));
    path_of(rest.lines().next().expect("a link"))
}

fn path_of(link: &str) -> String {
    link.strip_prefix("http://localhost:8080").expect("it is on this service").to_owned()
}

/// The seats on a page, each checked to have its ticket's code.
async fn seats(office: &Office, path: &str) -> Vec<String> {
    let reply = office.service.anonymous.get(path).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("cache-control"), "no-store");
    assert_eq!(reply.header("referrer-policy"), "no-referrer");
    let page = reply.text();
    let tickets: Vec<&str> = page.split("<div class=\"ticket\"").skip(1).collect();
    let seat = |ticket: &&str| {
        assert!(!ticket.contains("data-key=\"\"") && ticket.contains("class=\"qr\""), "no code in {ticket}");
        let seat = ticket.split_once("data-field=\"seat\">").and_then(|(_, rest)| rest.split_once('<'));
        seat.expect("a seat").0.to_owned()
    };
    tickets.iter().map(seat).collect()
}

async fn is_dead(office: &Office, path: &str) {
    let reply = office.service.anonymous.get(path).await;
    assert_eq!((reply.status.as_u16(), reply.text().contains("data-key")), (404, false), "{}", reply.text());
}

async fn one_link_of_a_mail_opens_all_that_its_holder_has(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    assert_eq!(office.mail(&ids[..2]).await, ["sent", "sent"]);
    let mails = office.server.mails();
    let [ana, ben] = &mails[..] else { panic!("{mails:#?}") };
    // This mail is about one of her tickets, and she has two.
    let all = link_to_all(ana);
    assert!(text(&ana["html"]).contains(&format!("href=\"http://localhost:8080{all}\"")), "{ana:#}");
    assert_eq!(seats(&office, &all).await, ["A-1", "A-2"]);
    for (id, seat) in ids.iter().zip(["A-1", "B-1", "A-2"]) {
        assert_eq!(
            seats(&office, &path_of(&office.link(id).await)).await,
            [seat],
            "a ticket's own link opens it alone"
        );
    }
    assert_eq!(text(&ben["text"]).matches("http").count(), 1, "{ben:#}");
    let manifest = office.service.anonymous.get(format!("{all}/app.webmanifest")).await.is(200);
    assert_members(&manifest, json!({ "start_url": all, "name": "Spring Gala" }));
    // The same person's ticket for another event has its own link.
    office.service.event(json!({ "slug": "fair", "name": "Fair" })).await;
    let list = "seat,gate,username,email\nZ-1,North,ana,ana@example.org\n";
    office.organizer.post_csv("/api/events/fair/tickets", list).await.is(201);
    assert_eq!(seats(&office, &all).await, ["A-1", "A-2"]);
    // A later ticket is in the next mail's link, not in the earlier one.
    let later = office.import(&["A-3,North,ana,,ana@example.org,"]).await;
    assert_eq!(office.mail(&later).await, ["sent"]);
    assert_eq!(seats(&office, &link_to_all(&office.server.mails()[2])).await, ["A-1", "A-2", "A-3"]);
    assert_eq!(seats(&office, &all).await, ["A-1", "A-2"]);
}

async fn a_ticket_vanishes_from_the_link_of_who_has_it_no_more(service: Service) {
    let office = Office::open(service).await;
    let rows = ["A-1", "A-2", "A-3", "A-4", "A-5"].map(|seat| format!("{seat},North,ana,,ana@example.org,"));
    let ids = office.import(&rows.each_ref().map(|row| &**row)).await;
    assert_eq!(office.mail(&ids).await, ["sent"; 5]);
    let all = link_to_all(&office.server.mails()[0]);
    assert_eq!(seats(&office, &all).await, ["A-1", "A-2", "A-3", "A-4", "A-5"]);
    let change = |id: &str, what| format!("/api/tickets/{id}/{what}");
    office.service.user("luis").await;
    office.organizer.post(change(&ids[0], "transfer"), json!({ "username": "luis" })).await.is(200);
    assert_eq!(seats(&office, &all).await, ["A-2", "A-3", "A-4", "A-5"]);
    // Back with her, it does not return to the link.
    office.organizer.post(change(&ids[0], "transfer"), json!({ "username": "ana" })).await.is(200);
    assert_eq!(seats(&office, &all).await, ["A-2", "A-3", "A-4", "A-5"]);
    office.organizer.post(change(&ids[1], "reissue"), json!({})).await.is(200);
    assert_eq!(seats(&office, &all).await, ["A-3", "A-4", "A-5"]);
    office.organizer.post(change(&ids[2], "revoke"), json!({})).await.is(200);
    assert_eq!(seats(&office, &all).await, ["A-4", "A-5"]);
    // A reader at a wrong address loses access when the address is corrected.
    office.organizer.patch("/api/users/ana", json!({ "email": "ana.ruiz@example.org" })).await.is(200);
    is_dead(&office, &all).await;
    office.organizer.patch("/api/users/ana", json!({ "email": "ana@example.org" })).await.is(200);
    assert_eq!(seats(&office, &all).await, ["A-4", "A-5"]);
    for id in &ids[3..] {
        office.organizer.post(change(id, "revoke"), json!({})).await.is(200);
    }
    is_dead(&office, &all).await;
    office.organizer.delete("/api/users/ana").await.is(204);
    is_dead(&office, &all).await;
}

async fn nobody_makes_a_link_to_all_from_what_they_have(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    assert_eq!(office.mail(&ids).await, ["sent"; 3]);
    let all = link_to_all(&office.server.mails()[0]);
    let bytes = BASE64URL_NOPAD.decode(all.trim_start_matches("/t/").as_bytes()).expect("base64url");
    assert_eq!(bytes.len(), 16 * 3 + 4 * 2);
    let path = |bytes: &[u8]| format!("/t/{}", BASE64URL_NOPAD.encode(bytes));
    assert_eq!(path(&bytes), all);
    for place in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        is_dead(&office, &path(&altered)).await;
    }
    // Fewer or more tickets than the link was made for.
    is_dead(&office, &path(&bytes[..bytes.len() - 4])).await;
    is_dead(&office, &path(&[&bytes[..], &bytes[48..52]].concat())).await;
    is_dead(&office, &path(&[&bytes[..48], &bytes[48..52].repeat(60)].concat())).await;
    // One ticket's link combined with its holder's id, which an organizer knows.
    let single = office.link(&ids[0]).await;
    let single = BASE64URL_NOPAD.decode(path_of(&single).trim_start_matches("/t/").as_bytes()).expect("base64url");
    is_dead(&office, &path(&[&bytes[..32], &single[16..], &bytes[48..]].concat())).await;
    is_dead(&office, &path(&bytes[..32])).await;
}

async fn a_mail_is_in_the_language_of_the_event_and_brings_it_for_the_calendar(service: Service) {
    let office = Office::open(service).await;
    let place = "Teatro Principal; Plaza Mayor, 1";
    let change = json!({
        "language": "es", "location": place, "time_zone": "Europe/Madrid", "ends_at": office.service.time(6 * Millis::HOUR),
    });
    assert_members(
        &office.organizer.patch("/api/events/gala", change).await.is(200),
        json!({ "language": "es", "location": place }),
    );
    let ids = office.import(&["Á-1,Norte,ana,Ana Ruiz,ana@example.org,"]).await;
    assert_eq!(office.mail(&ids).await, ["sent"]);
    let mail = office.server.mails().remove(0);
    assert_eq!(mail["subject"], "Su entrada para Spring Gala");
    for told in ["Hola, Ana Ruiz:", "vie 1 may 2026, 23:00", place, "Á-1 · puerta Norte"] {
        assert!(text(&mail["text"]).contains(told), "{told}: {mail:#}");
    }
    let [calendar] = &mail["attachments"].as_array().expect("a list")[..] else { panic!("{mail:#}") };
    assert_members(calendar, json!({ "filename": "event.ics", "mimeType": "text/calendar" }));
    let content = text(&calendar["content"]);
    let lines: Vec<&str> = content.lines().collect();
    for line in [
        "DTSTART:20260501T210000Z",
        "DTEND:20260502T000000Z",
        "SUMMARY:Spring Gala",
        "LOCATION:Teatro Principal\\; Plaza Mayor\\, 1",
    ] {
        assert!(lines.contains(&line), "{line}: {content}");
    }
    assert!(!content.contains("/t/"), "calendars are shared: {content}");
    // Without a start there is no calendar entry.
    office.organizer.patch("/api/events/gala", json!({ "starts_at": null, "ends_at": null })).await.is(200);
    assert_eq!(office.again(&ids).await, ["sent"]);
    assert_eq!(office.server.mails()[1]["attachments"], json!([]));
}

async fn nothing_is_sent_twice_when_a_request_is_repeated(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    assert_eq!(office.mail(&ids[..1]).await, ["sent"]);
    assert_eq!(office.mail(&ids).await, ["mailed_already", "sent", "sent"]);
    assert_eq!(office.mail(&ids).await, ["mailed_already"; 3]);
    let twice = [ids[0].clone(), ids[0].clone()];
    assert_eq!(office.mail(&twice).await, ["mailed_already"], "it is named once");
    let mails = office.server.mails();
    assert_eq!(mails.len(), 3);
    assert!(text(&mails[2]["text"]).contains("A-2") && !text(&mails[2]["text"]).contains("A-1"), "{mails:#?}");
    office.service.clock.advance(1_000);
    assert_eq!(office.again(&ids).await, ["sent"; 3]);
    assert_eq!(office.server.mails().len(), 5);
    assert_eq!(office.ticket(&ids[0]).await["mailed_at"], office.service.time(0));
}

async fn nothing_is_sent_twice_by_requests_at_once(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    let other = office.service.another(&[("SMTP_URL", office.server.url().as_str()), FROM]).organizer;
    let at_once = [&office.organizer, &other, &office.organizer, &other];
    let answers = at_once.map(|client| client.post(MAILS, json!({ "tickets": ids })));
    let answers = futures_util::future::join_all(answers).await;
    let answers: Vec<Vec<String>> = answers.iter().map(|answer| results(&answer.is(200))).collect();
    for place in 0..ids.len() {
        let of_ticket: Vec<&str> = answers.iter().map(|results| results[place].as_str()).collect();
        let others = |result: &&&str| ["mailed_already", "in_progress"].contains(*result);
        assert_eq!(of_ticket.iter().filter(|result| **result == "sent").count(), 1, "{of_ticket:?}");
        assert_eq!(of_ticket.iter().filter(others).count(), answers.len() - 1, "{of_ticket:?}");
    }
    let sent: usize = office.server.mails().iter().map(|mail| text(&mail["text"]).matches("/t/").count()).sum();
    // Ana has two tickets, and a link to both.
    assert_eq!(sent, ids.len() + 1, "each link once");
}

async fn whom_the_mail_server_refuses_is_told_ticket_by_ticket(service: Service) {
    let office = Office::open(service).await;
    let ids = office
        .import(&[
            "A-1,North,ana,,nobody@example.org,",
            "A-2,North,ben,,busy@example.org,",
            "A-3,North,cleo,,cleo@example.org,",
            "A-4,North,ana,,nobody@example.org,",
        ])
        .await;
    let mailed = office.organizer.post(MAILS, json!({ "tickets": ids })).await.is(200);
    let told = |place: usize| {
        let each = &mailed["results"][place];
        (each["result"].clone(), each["smtp_code"].clone(), each["smtp_status"].clone())
    };
    let refused = |code: u16, status: &str| (json!("refused"), json!(code), json!(status));
    assert_eq!(told(0), refused(550, "5.1.1"));
    assert_eq!(told(1), refused(451, "4.3.2"));
    assert_eq!(told(2), (json!("sent"), Value::Null, Value::Null));
    assert_eq!(told(3), refused(550, "5.1.1"));
    assert!(!mailed.to_string().contains("no such user"), "{mailed}");
    for (id, mailed_at) in ids.iter().zip([Value::Null, Value::Null, json!(office.service.time(0)), Value::Null]) {
        assert_eq!(office.ticket(id).await["mailed_at"], mailed_at);
    }
    office.organizer.patch("/api/users/ana", json!({ "email": "ana@example.org" })).await.is(200);
    assert_eq!(office.mail(&ids).await, ["sent", "refused", "mailed_already", "sent"]);
}

async fn nothing_is_marked_while_the_mail_server_is_away(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let away = format!("smtp://localhost:{nowhere}");
    let away = office.service.another(&[("SMTP_URL", away.as_str()), FROM]).organizer;
    let mailed = away.post(MAILS, json!({ "tickets": ids })).await.is(200);
    assert_eq!(results(&mailed), ["unreachable"; 3]);
    for id in &ids {
        assert_eq!(office.ticket(id).await["mailed_at"], Value::Null);
    }
    assert_eq!(office.mail(&ids).await, ["sent"; 3], "at once");
}

async fn a_mail_that_may_have_been_lost_is_sent_again(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(&["A-1,North,ana,,lost@example.org,", "A-2,North,ben,,ben@example.org,"]).await;
    assert_eq!(office.mail(&ids).await, ["unreachable", "sent"]);
    assert_eq!(office.ticket(&ids[0]).await["mailed_at"], Value::Null);
    office.organizer.patch("/api/users/ana", json!({ "email": "ana@example.org" })).await.is(200);
    assert_eq!(office.mail(&ids).await, ["sent", "mailed_already"], "sent twice rather than never");
    assert_eq!(office.server.mails().len(), 3);
}

async fn a_ticket_that_somebody_gave_up_mailing_is_mailed_by_the_next(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(&["A-1,North,ana,,slow@example.org,"]).await;
    let (client, body) = (office.organizer.clone(), json!({ "tickets": ids }));
    let waiting = tokio::spawn(async move { client.post(MAILS, body).await });
    let taken = "select count(*) from tickets where mailing_at is not null";
    within(PATIENCE, "the ticket is taken", async || (office.service.database.count(taken).await == 1).then_some(()))
        .await;
    // The client has gone, or the process that it asked.
    waiting.abort();
    waiting.await.expect_err("it is given up");
    office.organizer.patch("/api/users/ana", json!({ "email": "ana@example.org" })).await.is(200);
    assert_eq!(office.mail(&ids).await, ["in_progress"]);
    let claim = i64::try_from(MAIL_CLAIM.as_millis()).expect("it is short");
    office.service.clock.advance(claim);
    assert_eq!(office.mail(&ids).await, ["in_progress"]);
    office.service.clock.advance(1);
    assert_eq!(office.mail(&ids).await, ["sent"]);
    assert_eq!(office.service.database.count(taken).await, 0);
}

async fn what_cannot_be_mailed_is_told_ticket_by_ticket(service: Service) {
    let office = Office::open(service).await;
    let mut ids = office
        .import(&[
            "A-1,North,,,,",
            "A-2,North,ana,Ana,,",
            "A-3,North,ben,,ben@example.org,",
            "A-4,North,cleo,,cleo@example.org,",
            "A-5,North,dora,,dora..lopez@example.org,",
            "A-6,North,eva,,eva@[192.0.2.1],",
        ])
        .await;
    office.organizer.bare(http::Method::POST, format!("/api/tickets/{}/revoke", ids[2])).await.is(200);
    let by_hand = json!({
        "scan_id": uuid::Uuid::now_v7(), "seat": "A-4", "gate": "North", "manual": true, "note": "seen",
    });
    office.organizer.post("/api/events/gala/scans", by_hand).await.is_scan(200, "accepted");
    ids.push(office.service.seat("default", "Z-1", "North").await);
    let told =
        ["not_registered", "no_address", "revoked", "used", "wrong_address", "wrong_address", "ticket_not_found"];
    let reply = office.service.unchanged(office.organizer.post(MAILS, json!({ "tickets": ids }))).await;
    assert_eq!(results(&reply.is(200)), told);
    // Holders who may come back need it.
    office.organizer.patch("/api/events/gala", json!({ "reentry": "after_exit" })).await.is(200);
    assert_eq!(office.mail(&ids[3..4]).await, ["sent"]);
    office.organizer.post(MAILS, json!({ "tickets": [] })).await.is_refused(422, "invalid_payload");
    let many: Vec<_> = (0..=MAILED_TICKETS).map(|_| uuid::Uuid::now_v7()).collect();
    office.organizer.post(MAILS, json!({ "tickets": many })).await.is_refused(422, "invalid_payload");
    let all = office.organizer.post(MAILS, json!({ "tickets": many[1..] })).await.is(200);
    assert_eq!(results(&all), ["ticket_not_found"; MAILED_TICKETS]);
}

async fn a_ticket_with_a_new_link_was_not_mailed(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    let phone = json!({ "name": "phone", "role": "gate", "event": "gala", "offline": true });
    let phone = office.organizer.post("/api/keys", phone).await.is(201);
    let device = office.service.anonymous.with_key(phone["key"].as_str().expect("a key"));
    device.get("/api/events/gala/manifest").await.is(200);
    for change in ["reissue", "transfer", "lost", "secret"] {
        assert!(office.again(&ids).await.iter().all(|result| result == "sent"), "{change}");
        let path = format!("/api/tickets/{}/{change}", ids[0]);
        match change {
            "reissue" => office.organizer.bare(http::Method::POST, path).await.is(200),
            "transfer" => office.organizer.post(path, json!({ "username": "ben" })).await.is(200),
            "lost" => {
                let path = format!("/api/keys/{}/lost", text(&phone["key_id"]));
                let lost = office.organizer.bare(http::Method::POST, path).await.is(200);
                assert_eq!(lost["remaining"], 0);
                lost
            }
            _ => {
                let secret = [("TICKET_SECRET", "the first secret of the test suite")];
                crate::secret::change_secret(&office.service, &secret, &["--yes"]).printed();
                Value::Null
            }
        };
        let count = "select count(*) from tickets where mailed_at is null and seat = 'A-1'";
        assert_eq!(office.service.database.count(count).await, 1, "{change}");
    }
}

async fn those_to_mail_are_listed_person_by_person(service: Service) {
    let office = Office::open(service).await;
    // Fourteen people in turn, three tickets each.
    let lines: Vec<String> = (0..42)
        .map(|place| format!("{place},North,guest-{0},,guest-{0}@example.org,", place % 14))
        .chain(["X-1,North,xeno,Xeno,,".to_owned(), "X-2,North,,,,".to_owned()])
        .collect();
    office.import(&lines.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let first = office.organizer.get(MAILS).await.is(200);
    assert_members(
        &first,
        json!({
            "from": "Gala <gala@tickets.example.org>", "mailed": 0, "unmailed": 42, "unmailed_people": 14, "without_address": 1,
        }),
    );
    let holders = |page: &Value| -> Vec<String> {
        page["tickets"].as_array().expect("a list").iter().map(|ticket| text(&ticket["username"])).collect()
    };
    let second = office.organizer.get(format!("{MAILS}?after={}", text(&first["next"]))).await.is(200);
    assert_eq!((holders(&first).len(), holders(&second).len(), &second["next"]), (24, 18, &Value::Null));
    assert!(holders(&first).iter().all(|holder| !holders(&second).contains(holder)), "nobody is torn apart");
    assert!(holders(&first).chunks(3).all(|three| three.iter().all(|holder| *holder == three[0])));
    let ids: Vec<String> =
        first["tickets"].as_array().expect("a list").iter().map(|ticket| text(&ticket["ticket_id"])).collect();
    office.mail(&ids).await;
    assert_eq!(office.server.mails().len(), 8);
    let counts = json!({ "mailed": 24, "unmailed": 18, "unmailed_people": 6, "without_address": 1 });
    assert_members(&office.organizer.get(MAILS).await.is(200), counts);
    let without = office.organizer.get(format!("{MAILS}?list=without_address")).await.is(200);
    assert_eq!(holders(&without), ["xeno"]);
    // Somebody with more tickets than one request mails is not skipped.
    let many: Vec<String> = (0..30).map(|place| format!("M-{place},North,mona,,mona@example.org,")).collect();
    office.import(&many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = office.organizer.get(format!("{MAILS}?list=with_address{after}")).await.is(200);
        assert!(holders(&page).len() <= MAILED_TICKETS);
        listed.extend(holders(&page));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((listed.len(), listed.iter().filter(|holder| *holder == "mona").count()), (72, 30));
}

async fn a_dry_run_shows_a_mail_without_its_links_and_sends_nothing(service: Service) {
    let office = Office::open(service).await;
    let ids = office.import(GUESTS).await;
    let request = office.organizer.post(MAILS, json!({ "tickets": ids, "dry_run": true }));
    let shown = office.service.unchanged(request).await.is(200);
    assert_eq!(results(&shown), ["ready"; 3]);
    let preview = &shown["preview"];
    assert_members(preview, json!({ "to": "ana@example.org", "subject": "Your 2 tickets for Spring Gala" }));
    let told = text(&preview["text"]);
    assert!(told.contains("A-2 · gate North · Bea Ruiz\n") && told.contains("/t/…"), "{told}");
    for id in &ids {
        assert!(!told.contains(&office.link(id).await));
    }
    assert!(office.server.heard().is_empty());
    let nothing =
        office.organizer.post(MAILS, json!({ "tickets": [uuid::Uuid::nil()], "dry_run": true })).await.is(200);
    assert_eq!(nothing["preview"], Value::Null);
}

async fn a_bound_key_mails_the_people_of_its_event_alone(service: Service) {
    let office = Office::open(service).await;
    let of_all = office.import(&["A-1,North,ana,Ana Ruiz,ana@example.org,"]).await;
    let bound = office.service.key(json!({ "name": "gala", "role": "organizer", "event": "gala" })).await;
    let list = "seat,gate,username,email\nB-1,North,ben,ben@example.org\n";
    bound.post_csv("/api/events/gala/tickets", list).await.is(201);
    let listed = bound.get(MAILS).await.is(200);
    assert_members(&listed, json!({ "unmailed": 1, "unmailed_people": 1, "without_address": 1 }));
    let own = text(&listed["tickets"][0]["ticket_id"]);
    let told = bound.post(MAILS, json!({ "tickets": [of_all[0], own] })).await.is(200);
    assert_eq!(results(&told), ["no_address", "sent"]);
    office.service.event(json!({ "slug": "ball", "name": "Ball" })).await;
    let other = office.service.seat("ball", "C-1", "North").await;
    assert_eq!(results(&bound.post(MAILS, json!({ "tickets": [other] })).await.is(200)), ["ticket_not_found"]);
    for path in ["/api/events/ball/mails", "/api/events/default/mails"] {
        bound.get(path).await.is_refused(403, "forbidden");
        bound.post(path, json!({ "tickets": [own] })).await.is_refused(403, "forbidden");
    }
    assert_eq!(office.server.mails().len(), 1);
}

async fn the_command_mails_everybody_once(service: Service) {
    let office = Office::open(service).await;
    office.import(GUESTS).await;
    office.import(&["N-1,North,nobody,,nobody@example.org,", "X-1,North,xeno,Xeno,,"]).await;
    let directory = Directory::new();
    let run = |arguments: &[&str]| {
        let arguments = [&["mail", "--event", "gala"], arguments].concat();
        Run::of(
            on(&office.service.database, &directory, &arguments)
                .envs([("SMTP_URL", office.server.url().as_str()), FROM]),
        )
    };
    let shown = run(&["--dry-run"]).printed();
    assert!(shown.contains("To: ") && shown.ends_with("4 of 4 tickets would be sent.\n"), "{shown}");
    assert!(office.server.mails().is_empty());
    let sent = run(&[]);
    assert_eq!((sent.code, sent.output.as_str()), (Some(1), "3 of 4 tickets sent.\n"), "{sent:?}");
    assert!(sent.errors.contains("N-1, North: refused 550 5.1.1"), "{sent:?}");
    assert!(!sent.errors.contains("example.org"), "{sent:?}");
    assert_eq!(office.server.mails().len(), 2);
    office.organizer.patch("/api/users/nobody", json!({ "email": "noel@example.org" })).await.is(200);
    assert_eq!(run(&[]).printed(), "1 of 1 tickets sent.\n");
    assert_eq!(run(&[]).printed(), "0 of 0 tickets sent.\n");
    assert_eq!(run(&["--again"]).printed(), "4 of 4 tickets sent.\n");
    assert_eq!(office.server.mails().len(), 6);
    let none = Run::of(&mut on(&office.service.database, &directory, &["mail", "--event", "gala"]));
    assert!(none.failed(1).contains("SMTP_URL and MAIL_FROM"));
}

#[tokio::test]
async fn without_a_mail_server_nothing_is_mailed() {
    let service = Service::start(Kind::Sqlite).await;
    let ticket = service.ticket("A-1").await;
    let path = "/api/events/default/mails";
    let request = service.organizer.post(path, json!({ "tickets": [ticket.ticket_id] }));
    service.unchanged(request).await.is_refused(409, "mail_not_configured");
    assert_eq!(service.organizer.get(path).await.is(200)["from"], Value::Null);
}

/// Mails a ticket from a service with this mail server URL.
async fn mailed_by(url: &str) -> String {
    let service = Service::start(Kind::Sqlite).await.another(&[("SMTP_URL", url), FROM]);
    let list = "seat,gate,username,email\nA-1,North,ana,ana@example.org\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    let listed = service.organizer.get("/api/events/default/mails").await.is(200);
    let body = json!({ "tickets": [listed["tickets"][0]["ticket_id"]] });
    let mailed = service.organizer.post("/api/events/default/mails", body).await.is(200);
    let each = &mailed["results"][0];
    [&each["result"], &each["smtp_code"], &each["smtp_status"]].map(|told| told.to_string().replace('"', "")).join(" ")
}

#[tokio::test]
async fn the_way_to_the_mail_server_is_encrypted_and_login_and_mail_go_no_other() {
    for (tls, scheme) in [("starttls", "smtp"), ("implicit", "smtps")] {
        let server = MailServer::safe(tls);
        assert_eq!(mailed_by(&server.safe_url(scheme)).await, "sent null null", "{tls}");
        let heard = server.heard();
        assert_eq!(heard.len(), 2, "{heard:#?}");
        assert_members(&heard[0], json!({ "login": "gala@example.org", "secure": true }));
        assert_eq!(heard[1]["secure"], true);
        // With a wrong password nothing is sent.
        let wrong = server.safe_url(scheme).replace("the%20password", "another");
        assert_eq!(mailed_by(&wrong).await, "refused 535 5.7.8", "{tls}");
        // Nor if nobody vouches for the server's certificate,
        let url = server.safe_url(scheme);
        let unknown = url.split("sslrootcert").next().expect("it has a beginning").trim_end_matches(['?', '&']);
        assert_eq!(mailed_by(unknown).await, "unreachable null null", "{tls}");
        // or if it is for another server.
        let elsewhere = server.safe_url(scheme).replace("@localhost", "@127.0.0.1");
        assert_eq!(mailed_by(&elsewhere).await, "unreachable null null", "{tls}");
        assert_eq!(server.mails().len(), 1);
        assert_eq!(server.heard().len(), 3, "no password came without TLS");
    }
    let open = MailServer::with(json!({ "tls": "none", "login": ["gala@example.org", "the password"] }));
    assert_eq!(mailed_by(&open.safe_url("smtp")).await, "unreachable null null");
    assert!(open.heard().is_empty(), "a server without STARTTLS hears nothing: {:?}", open.heard());
}

/// A local server that runs `converse` with every connection. Returns its port.
fn impostor(converse: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(converse(stream))));
    port
}

#[tokio::test]
async fn a_mail_server_that_talks_without_end_takes_nobodys_time_and_no_memory() {
    for words in ["220-hello\r\n", "2"] {
        let port = impostor(move |mut stream| {
            loop {
                stream.write_all(words.repeat(1000).as_bytes())?;
            }
        });
        let begun = std::time::Instant::now();
        assert_eq!(mailed_by(&format!("smtp://localhost:{port}")).await, "unreachable null null", "{words}");
        assert!(begun.elapsed() < MAIL_DEADLINE / 2, "{words}: {:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn the_log_has_nothing_of_mails() {
    let service = Service::start(Kind::Sqlite).await;
    let mail_server = MailServer::safe("starttls");
    let environment = |url: String| {
        let own = [("SMTP_URL", url.as_str()), FROM, ("RUST_LOG", "debug")];
        let own: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        service.database.environment().into_iter().chain(own)
    };
    let list = "seat,gate,username,full_name,email\nA-1,North,ana,Ana Ruiz,ana@example.org\nN-1,North,nil,,nobody@example.org\n";
    service.organizer.post_csv("/api/events/default/tickets", list).await.is(201);
    // It echoes the login in place of a reply.
    let echo = impostor(|mut stream| {
        stream.write_all(b"220 here\r\n")?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        lines.next().transpose()?;
        stream.write_all(b"250-here\r\n250 AUTH PLAIN\r\n")?;
        let login = lines.next().transpose()?.unwrap_or_default();
        stream.write_all(format!("oops {login}\r\n").as_bytes())
    });
    for (url, results_are) in [
        (mail_server.safe_url("smtp").replace("the%20password", "another"), ["refused", "refused"]),
        (mail_server.safe_url("smtp"), ["sent", "refused"]),
        ("smtp://gala:hunter2@localhost:1".to_owned(), ["mailed_already", "unreachable"]),
        (format!("smtp://gala:hunter2@localhost:{echo}?tls=none"), ["mailed_already", "unreachable"]),
    ] {
        let server = Server::start(environment(url)).await;
        let all = server.organizer().get("/api/events/default/tickets").await.is(200);
        let ids: Vec<&Value> =
            all["tickets"].as_array().expect("a list").iter().map(|ticket| &ticket["ticket_id"]).collect();
        let mailed = server.organizer().post("/api/events/default/mails", json!({ "tickets": ids })).await.is(200);
        assert_eq!(results(&mailed), results_are);
        let log = server.process.log();
        assert!(log.contains("/api/events/{event}/mails"), "{log}");
        for secret in [
            "ana@",
            "Ana",
            "nobody@",
            "no such user",
            "password",
            "another",
            "hunter2",
            "AGdhbGEAaHVudGVyMg",
            "gala",
            "/t/",
        ] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
    }
}
