//! The record of actions: who did what and when, among organizers and supervisors, written in the change's own
//! transaction.

use http::Method;
use register_ticket_api::model::Action;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::database::{Kind, Obstacle};
use crate::mails::MailServer;
use crate::service::{Service, Ticket, assert_members, walk, with};
use crate::stranded::{handed, written};

on_both_databases! {
    every_action_is_recorded_once_with_its_author,
    what_cannot_be_recorded_is_not_done,
    what_is_refused_or_changes_nothing_is_not_recorded,
    a_ticket_has_its_history_and_no_other_tickets,
    what_is_shown_again_is_recorded_again,
    a_persons_erasure_is_in_the_history_of_each_ticket,
    what_is_done_to_all_tickets_at_once_is_in_the_history_of_each,
    actions_are_told_in_the_order_of_their_times,
    actions_are_exported_without_personal_data,
    the_actions_of_an_event_are_for_its_organizers,
    actions_go_with_their_event_alone,
}

const GALA: &str = "/api/events/gala";

/// A request that performs one action; everything it needs already exists.
struct Deed {
    client: Client,
    method: Method,
    path: String,
    body: Value,
    /// The server that receives the mail, if there is one.
    _mail_server: Option<MailServer>,
}

impl Deed {
    async fn done(&self) -> Reply {
        match &self.body {
            Value::Null => self.client.bare(self.method.clone(), &self.path).await,
            Value::String(list) => self.client.post_csv(&self.path, list.as_str()).await,
            body => self.client.send_as(self.method.clone(), &self.path, "application/json", body.to_string()).await,
        }
    }
}

/// An event, a ticket with a holder, and an organizer with a separate key.
struct Office {
    service: Service,
    organizer: Client,
    key: Value,
    key_id: Value,
    ticket: Ticket,
}

impl Office {
    async fn open(service: Service) -> Self {
        service.event(json!({ "slug": "gala", "name": "Gala" })).await;
        service.user("ana").await;
        let ticket = service.ticket_of("gala", "A-1", "North").await;
        let key = service.organizer.post("/api/keys", json!({ "name": "Office", "role": "organizer" })).await.is(201);
        let organizer = service.anonymous.with_key(key["key"].as_str().expect("a new key is shown"));
        Self { service, organizer, key: key["key"].clone(), key_id: key["key_id"].clone(), ticket }
    }

    /// Creates a device's key and returns its id.
    async fn device(&self) -> String {
        let body = json!({ "name": "North door", "role": "gate", "event": "gala", "gate": "North" });
        let made = self.service.organizer.post("/api/keys", body).await.is(201);
        made["key_id"].as_str().expect("a key has an id").to_owned()
    }

    /// Prepares what an action needs and returns the request that performs it.
    async fn deed(&self, action: Action) -> Deed {
        let of_ticket = |what: &str| format!("/api/tickets/{}/{what}", self.ticket.ticket_id);
        let (method, path, body) = match action {
            Action::Issued => (Method::POST, format!("{GALA}/tickets"), json!([{ "seat": "B-1", "gate": "North" }])),
            Action::Registered => {
                self.service.seat("gala", "C-1", "North").await;
                let body = json!({ "event": "gala", "seat": "C-1", "gate": "North" });
                (Method::POST, "/api/users/ana/tickets".to_owned(), body)
            }
            Action::Reissued => (Method::POST, of_ticket("reissue"), Value::Null),
            Action::Transferred => (Method::POST, of_ticket("transfer"), json!({ "username": "ana" })),
            Action::Corrected => {
                let list = "seat,gate,reference\nA-1,North,R-1\n";
                (Method::POST, format!("{GALA}/tickets?existing=update"), list.into())
            }
            Action::Printed => (Method::POST, of_ticket("print"), Value::Null),
            Action::Revoked => (Method::POST, of_ticket("revoke"), Value::Null),
            Action::LinkShown => (Method::GET, of_ticket("link"), Value::Null),
            Action::Mailed => {
                let address = json!({ "email": "ana@example.org" });
                self.service.organizer.patch(format!("/api/users/{}", self.ticket.username), address).await.is(200);
                (Method::POST, format!("{GALA}/mails"), json!({ "tickets": [self.ticket.ticket_id] }))
            }
            Action::Undone => {
                let scan = self.service.scan(&self.ticket);
                self.service.organizer.post(format!("{GALA}/scans"), scan.clone()).await.is_scan(200, "accepted");
                let scan_id = scan["scan_id"].as_str().expect("a scan has an id");
                (Method::POST, format!("/api/scans/{scan_id}/undo"), Value::Null)
            }
            Action::UserCreated => (Method::POST, "/api/users".to_owned(), json!({ "username": "ben" })),
            Action::UserChanged => (Method::PATCH, "/api/users/ana".to_owned(), json!({ "full_name": "Ana Ruiz" })),
            Action::UserErased => (Method::DELETE, "/api/users/ana".to_owned(), Value::Null),
            Action::TicketsExported => (Method::GET, format!("{GALA}/tickets.csv"), Value::Null),
            Action::ScansExported => (Method::GET, format!("{GALA}/scans.csv"), Value::Null),
            Action::InsideExported => (Method::GET, format!("{GALA}/inside.csv"), Value::Null),
            Action::AttendanceExported => (Method::GET, format!("{GALA}/attendance.csv"), Value::Null),
            Action::LinksExported => (Method::GET, format!("{GALA}/links.csv"), Value::Null),
            Action::ActionsExported => (Method::GET, format!("{GALA}/actions.csv"), Value::Null),
            Action::ListPrinted => (Method::POST, format!("{GALA}/printed"), Value::Null),
            Action::KeyMade => {
                let body = json!({ "name": "South door", "role": "gate", "event": "gala" });
                (Method::POST, "/api/keys".to_owned(), body)
            }
            Action::KeyOffered => (Method::POST, format!("/api/keys/{}/enrol", self.device().await), Value::Null),
            Action::KeyEnrolled => {
                let offer = format!("/api/keys/{}/enrol", self.device().await);
                let offer = self.service.organizer.bare(Method::POST, offer).await.is(200);
                let (_, token) = offer["enrol_url"].as_str().and_then(|url| url.split_once('=')).expect("a token");
                (Method::POST, "/api/enrol".to_owned(), json!({ "token": token }))
            }
            Action::KeyRevoked => (Method::DELETE, format!("/api/keys/{}", self.device().await), Value::Null),
            Action::ScansTaken => (Method::POST, format!("/api/keys/{}/take", self.device().await), Value::Null),
            Action::ScansHandedIn => {
                let body = json!({ "name": "North door", "role": "gate", "event": "gala", "offline": true });
                let made = self.service.organizer.post("/api/keys", body).await.is(201);
                let scans = vec![written(&self.service, &self.ticket, 0)];
                let path = format!("/api/keys/{}/scans", made["key_id"].as_str().expect("a key has an id"));
                (Method::POST, path, handed(&made, "gala", &scans))
            }
            Action::PhoneLost | Action::Renewed => {
                let body = json!({ "name": "North door", "role": "gate", "event": "gala", "offline": true });
                let made = self.service.organizer.post("/api/keys", body).await.is(201);
                let phone = self.service.anonymous.with_key(made["key"].as_str().expect("a new key is shown"));
                phone.get(format!("{GALA}/manifest")).await.is(200);
                let key_id = made["key_id"].as_str().expect("a key has an id");
                (Method::POST, format!("/api/keys/{key_id}/lost"), Value::Null)
            }
            Action::EventCreated => (Method::POST, "/api/events".to_owned(), json!({ "slug": "ball", "name": "Ball" })),
            Action::EventChanged => (Method::PATCH, GALA.to_owned(), json!({ "name": "Spring gala" })),
            Action::EventDeleted => (Method::DELETE, format!("{GALA}?confirm=gala"), Value::Null),
            Action::EventForgotten => unreachable!("no request does it: `forgetting` proves it"),
        };
        let client = if action == Action::KeyEnrolled { &self.service.anonymous } else { &self.organizer };
        let deed = Deed { client: client.clone(), method, path, body, _mail_server: None };
        if action != Action::Mailed {
            return deed;
        }
        let mail_server = MailServer::start();
        let from = ("MAIL_FROM", "gala@example.org");
        let mailing = self.service.another(&[("SMTP_URL", mail_server.url().as_str()), from]);
        let key = self.key.as_str().expect("a new key is shown");
        Deed { client: mailing.anonymous.with_key(key), _mail_server: Some(mail_server), ..deed }
    }

    /// All actions, oldest first.
    async fn actions(&self) -> Vec<Value> {
        let csv = self.service.organizer.get("/api/actions.csv").await;
        rows(&csv.text())
    }
}

/// The actions that a request can perform.
fn of_requests() -> impl Iterator<Item = Action> {
    Action::ALL.iter().copied().filter(|action| *action != Action::EventForgotten)
}

/// Parses CSV into objects; an empty field becomes null.
fn rows(csv: &str) -> Vec<Value> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let columns = reader.headers().expect("there is a header").clone();
    let object = |record: csv::StringRecord| {
        let value = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        columns.iter().zip(&record).map(|(column, text)| (column.to_owned(), value(text))).collect()
    };
    reader.records().map(|record| Value::Object(object(record.expect("a record")))).collect()
}

async fn every_action_is_recorded_once_with_its_author(service: Service) {
    let kind = service.database.kind;
    drop(service);
    for action in of_requests() {
        let office = Office::open(Service::start(kind).await).await;
        let deed = office.deed(action).await;
        let before = office.actions().await;
        let now = office.service.time(0);
        let answered = deed.done().await;
        assert!((200..300).contains(&answered.status.as_u16()), "{action:?}: {}", answered.text());
        let after = office.actions().await;
        let mut new: Vec<&Value> = after.iter().filter(|action| !before.contains(action)).collect();
        if let Action::PhoneLost | Action::Renewed = action {
            let words: Vec<&str> = new.iter().filter_map(|action| action["action"].as_str()).collect();
            assert_eq!(words, ["key_revoked", "phone_lost", "renewed", "actions_exported"], "all that a report does");
            new.retain(|new| [action.as_str(), "actions_exported"].iter().any(|word| new["action"] == *word));
        }
        let [recorded, reading] = new[..] else { panic!("{action:?}: {new:#?}") };
        assert_members(reading, json!({ "action": "actions_exported", "event": null }));
        assert_members(recorded, json!({ "action": action.as_str(), "at": now }));
        match action {
            Action::KeyEnrolled => assert_eq!(recorded["key_id"], recorded["subject_id"], "the device took it"),
            _ => assert_members(recorded, json!({ "key_id": office.key_id, "key_name": "Office" })),
        }
    }
}

async fn what_cannot_be_recorded_is_not_done(service: Service) {
    let kind = service.database.kind;
    drop(service);
    for action in of_requests() {
        let office = Office::open(Service::start(kind).await).await;
        let deed = office.deed(action).await;
        office.service.database.obstruct("insert on actions", Obstacle::Fails("no room")).await;
        let answer = office.service.unchanged(deed.done()).await;
        assert!(answer.status.is_server_error(), "{action:?}: {}", answer.text());
    }
}

async fn what_is_refused_or_changes_nothing_is_not_recorded(service: Service) {
    let office = Office::open(service).await;
    let revoke = office.deed(Action::Revoked).await;
    revoke.done().await.is(200);
    let count = "select count(*) from actions";
    let before = office.service.database.count(count).await;
    revoke.done().await.is(200);
    office.deed(Action::Printed).await.done().await.is_refused(409, "ticket_revoked");
    office.organizer.post("/api/users", json!({ "username": "ana" })).await.is_refused(409, "username_taken");
    let twice = json!([{ "seat": "A-1", "gate": "North" }]);
    office.organizer.post(format!("{GALA}/tickets"), twice).await.is_refused(409, "seat_taken");
    assert_eq!(office.service.database.count(count).await, before);
}

async fn a_ticket_has_its_history_and_no_other_tickets(service: Service) {
    let office = Office::open(service).await;
    for action in [Action::Issued, Action::Printed, Action::Reissued] {
        office.service.clock.advance(1_000);
        let answer = office.deed(action).await.done().await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }
    let path = format!("/api/tickets/{}/actions", office.ticket.ticket_id);
    let history = walk(&office.organizer, &path, "actions").await;
    let words: Vec<&str> = history.iter().filter_map(|action| action["action"].as_str()).collect();
    assert_eq!(words, ["issued", "registered", "printed", "reissued"]);
    assert_members(&history[2], json!({ "key_name": "Office", "at": office.service.time(-1_000), "event": "gala" }));
}

/// A ticket's history, in order.
async fn history(organizer: &Client, ticket_id: Uuid) -> Vec<Value> {
    let path = format!("/api/tickets/{ticket_id}/actions");
    let history = organizer.get(&path).await.is(200);
    assert_eq!(walk(organizer, &path, "actions").await, *history["actions"].as_array().expect("a list"));
    history["actions"].as_array().expect("a list").clone()
}

fn words(actions: &[Value]) -> Vec<&str> {
    actions.iter().filter_map(|action| action["action"].as_str()).collect()
}

async fn what_is_shown_again_is_recorded_again(service: Service) {
    let office = Office::open(service).await;
    for action in [Action::Printed, Action::Printed, Action::LinkShown, Action::LinkShown] {
        office.deed(action).await.done().await.is(200);
    }
    let history = history(&office.organizer, office.ticket.ticket_id).await;
    assert_eq!(words(&history), ["issued", "registered", "printed", "printed", "link_shown", "link_shown"]);
}

async fn a_persons_erasure_is_in_the_history_of_each_ticket(service: Service) {
    let office = Office::open(service).await;
    let ana = office.service.organizer.get(format!("/api/users/{}", office.ticket.username)).await.is(200);
    office.service.event(json!({ "slug": "ball", "name": "Ball" })).await;
    office.service.seat("ball", "B-1", "North").await;
    let tickets = format!("/api/users/{}/tickets", office.ticket.username);
    let second =
        office.service.organizer.post(&tickets, json!({ "event": "ball", "seat": "B-1", "gate": "North" })).await;
    let second = Ticket::new(&second.is(201));
    office.organizer.delete(format!("/api/users/{}", office.ticket.username)).await.is(204);
    for (ticket, event) in [(&office.ticket, "gala"), (&second, "ball")] {
        let history = history(&office.organizer, ticket.ticket_id).await;
        assert_eq!(words(&history), ["issued", "registered", "user_erased"]);
        assert_members(&history[2], json!({ "key_name": "Office", "subject_id": ana["user_id"] }));
        let csv = rows(&office.service.organizer.get(format!("/api/events/{event}/actions.csv")).await.text());
        let erased: Vec<&Value> = csv.iter().filter(|action| action["action"] == "user_erased").collect();
        let [erased] = erased[..] else { panic!("{erased:#?}") };
        assert_eq!(erased["ticket_id"], json!(ticket.ticket_id));
    }
}

async fn what_is_done_to_all_tickets_at_once_is_in_the_history_of_each(service: Service) {
    let office = Office::open(service).await;
    let service = &office.service;
    let used = service.ticket_of("gala", "U-1", "North").await;
    for direction in ["entry", "exit"] {
        let scan = with(service.scan(&used), json!({ "direction": direction }));
        service.organizer.post(format!("{GALA}/scans"), scan).await.is_scan(200, "accepted");
    }
    service.event(json!({ "slug": "ball", "name": "Ball" })).await;
    let other = service.ticket_of("ball", "B-1", "North").await;
    office.deed(Action::LinksExported).await.done().await;
    let phone = office.device().await;
    office.organizer.bare(Method::POST, format!("/api/keys/{phone}/lost")).await.is(200);
    // Only the phone's tickets, of which there are none.
    office.organizer.get(format!("/api/keys/{phone}/links.csv")).await;
    let secret = [("TICKET_SECRET", "the first secret of the test suite")];
    let later = crate::secret::change_secret(service, &secret, &["--yes"]);
    assert!(later.printed().starts_with("2 tickets have new codes"), "those of gala and of ball that are not used up");
    let after = service.another(&secret).organizer;
    service.clock.advance(1_000);
    let new = service.another(&secret).ticket_of("gala", "N-1", "North").await;

    let recorded = ["issued", "registered", "links_exported", "reissued"];
    let history_of = async |ticket: &Ticket| history(&after, ticket.ticket_id).await;
    let [own, used, other, new] =
        [history_of(&office.ticket).await, history_of(&used).await, history_of(&other).await, history_of(&new).await];
    assert_eq!(words(&own), recorded);
    assert_eq!(words(&used), recorded[..3], "a used ticket keeps its secret");
    assert_eq!(words(&other), ["issued", "registered", "reissued"], "the links of another event were exported");
    assert_members(&own[3], json!({ "count": 1, "ticket_id": null, "key_id": null }));
    assert_eq!(words(&new), ["issued", "registered"], "it came afterwards");
    let rows = "select count(*) from actions where action = 'reissued'";
    assert_eq!(service.database.count(rows).await, 2, "one for each event");
}

async fn actions_are_told_in_the_order_of_their_times(service: Service) {
    let office = Office::open(service).await;
    // Like an import's, an id may be older than earlier actions, and several may have the same time.
    for age in [3_000, 1_000, 2_000, 1_000, 4_000, 1_000] {
        office.service.clock.advance(-age);
        office.deed(Action::LinkShown).await.done().await.is(200);
        office.service.clock.advance(age);
    }
    let by_time = |actions: &[Value]| {
        let place = |action: &Value| (action["at"].to_string(), action["action_id"].to_string());
        let places: Vec<_> = actions.iter().map(place).collect();
        assert!(places.is_sorted() && places.len() > 6, "{places:#?}");
        let ids = actions.iter().map(|action| action["action_id"].to_string());
        assert!(!ids.collect::<Vec<_>>().is_sorted(), "the ids alone would be in order");
    };
    by_time(&history(&office.organizer, office.ticket.ticket_id).await);
    by_time(&office.actions().await);
    by_time(&rows(&office.organizer.get(format!("{GALA}/actions.csv")).await.text()));
}

async fn actions_are_exported_without_personal_data(service: Service) {
    let office = Office::open(service).await;
    let person = json!({ "username": "cleo", "full_name": "Cleo Vidal", "email": "cleo@example.org" });
    office.organizer.post("/api/users", person).await.is(201);
    let csv = "seat,gate,username,full_name,email\nD-1,North,dora,Dora Pons,dora@example.org\n";
    office.organizer.post_csv(format!("{GALA}/tickets"), csv).await.is(201);
    office.organizer.delete("/api/users/cleo").await.is(204);
    for path in ["/api/actions.csv".to_owned(), format!("{GALA}/actions.csv")] {
        let exported = office.organizer.get(&path).await.text();
        assert!(exported.contains("issued"), "{exported}");
        for personal in ["cleo", "Cleo", "dora", "Dora", "example.org"] {
            assert!(!exported.contains(personal), "{personal} in {exported}");
        }
    }
}

async fn the_actions_of_an_event_are_for_its_organizers(service: Service) {
    service.event(json!({ "slug": "ball", "name": "Ball" })).await;
    let office = Office::open(service).await;
    let of_ball = office.service.key(json!({ "name": "b", "role": "organizer", "event": "ball" })).await;
    let of_gala = office.service.key(json!({ "name": "g", "role": "organizer", "event": "gala" })).await;
    let history = format!("/api/tickets/{}/actions", office.ticket.ticket_id);
    for path in [&format!("{GALA}/actions.csv"), &history] {
        of_ball.get(path).await.is_refused(403, "forbidden");
        of_gala.get(path).await;
        office.service.supervisor().await.get(path).await.is_refused(403, "forbidden");
    }
    of_gala.get("/api/actions.csv").await.is_refused(403, "forbidden");
    let own = rows(&of_gala.get(format!("{GALA}/actions.csv")).await.text());
    assert!(!own.is_empty() && own.iter().all(|action| action["event"] == "gala"), "{own:#?}");
}

async fn actions_go_with_their_event_alone(service: Service) {
    let office = Office::open(service).await;
    office.organizer.delete("/api/users/ana").await.is(204);
    let of_gala = office.actions().await.iter().filter(|action| action["event"] == "gala").count();
    assert!(of_gala > 2, "{of_gala}");
    office.deed(Action::EventDeleted).await.done().await.is(204);
    let left = office.actions().await;
    assert!(left.iter().all(|action| action["event"] != "gala"), "{left:#?}");
    let words: Vec<&str> = left.iter().filter_map(|action| action["action"].as_str()).collect();
    assert!(words.contains(&"event_deleted") && words.contains(&"user_erased"), "{words:?}");
}

#[tokio::test]
async fn the_service_cannot_change_what_was_done() {
    let service = Service::start(Kind::Postgres).await;
    let mut rows = crate::database::Rows::open(&service.database.url()).await;
    for statement in ["update actions set at = 0", "delete from actions"] {
        let refused = rows.execute(statement).await.expect_err("it may only add");
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{statement}");
    }
}
