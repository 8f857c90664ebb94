//! `register-ticket-api check`: the invariants of the data. Every test of the suite runs it at its end, which shows
//! that it finds nothing wrong in sound data.

use std::collections::BTreeSet;
use std::path::Path;

use register_ticket_api::store;
use serde_json::json;
use uuid::Uuid;

use crate::commands::{Directory, Run, on};
use crate::database::Kind;
use crate::service::{Service, settings};

on_both_databases! {
    each_breach_of_an_invariant_is_found,
    what_is_whole_is_told_to_be_so,
    a_backup_of_broken_data_is_not_verified,
}

/// Seats A1 (holder inside), A2 (holder outside) and A3 (no holder), and another event.
async fn fill(service: &Service) {
    let (inside, _) = (service.ticket("A1").await, service.ticket("A2").await);
    service.seat("default", "A3", "North").await;
    service.event(json!({ "slug": "other", "name": "Other" })).await;
    service.organizer.post("/api/events/default/scans", service.scan(&inside)).await.is_scan(200, "accepted");
}

/// SQL for another scan of A1, with a version that is this much later.
fn scan_again(kind: Kind, versions_later: i64) -> String {
    let id = match kind {
        Kind::Sqlite => format!("x'{}'", Uuid::now_v7().simple()),
        Kind::Postgres => format!("'{}'", Uuid::now_v7()),
    };
    let columns = "event_id, ticket_id, direction, result, scanned_at, received_at, decided_at";
    format!(
        "insert into scans (scan_id, {columns}, ticket_version) \
         select {id}, {columns}, ticket_version + {versions_later} from scans"
    )
}

/// SQL that breaks each invariant.
fn breaches(kind: Kind) -> Vec<(&'static str, String)> {
    let set = |what: &str, seat: &str| format!("update tickets set {what} where seat = '{seat}'");
    let without_foreign_keys = match kind {
        Kind::Sqlite => "pragma foreign_keys = off",
        Kind::Postgres => "alter table tickets drop constraint tickets_user_id_fkey",
    };
    let other = "event_id = (select event_id from events where slug = 'other')";
    vec![
        ("used_without_admission", set("status = 'used', used_at = 1", "A2")),
        ("admission_without_mark", set("status = 'valid', used_at = null, inside = false", "A1")),
        ("one_version_accepted_twice", scan_again(kind, 0)),
        ("admitted_twice", format!("{}; {}", scan_again(kind, 1), set("version = version + 1", "A1"))),
        ("version_behind", set("version = 1", "A1")),
        ("first_use_differs", set("used_at = used_at + 1", "A1")),
        ("inside_without_entry", set("inside = true", "A2")),
        ("outside_after_entry", set("inside = false", "A1")),
        ("accepted_without_ticket", "update scans set ticket_id = null".to_owned()),
        ("undone_without_admission", "update scans set result = 'already_used', undone_at = 1".to_owned()),
        ("scan_of_another_event", format!("update scans set {other}")),
        ("used_without_holder", set("user_id = null, registered_at = null", "A1")),
        ("held_without_registration", set("registered_at = null", "A2")),
        ("registered_without_holder", set("user_id = null", "A2")),
        ("sent_without_registration", set("mailed_at = 1", "A3")),
        ("holder_of_another_event", format!("update users set {other} where username like '%A2%'")),
        ("walk_up_unused", set("paid = 1", "A2")),
        ("issued_by_nobody", "delete from actions where action = 'issued'".to_owned()),
        ("counts_differ", set("used_at = 1", "A2")),
        ("orphan", format!("{without_foreign_keys}; delete from users where username like '%A2%'")),
    ]
}

async fn each_breach_of_an_invariant_is_found(service: Service) {
    let kind = service.database.kind;
    let mut names = BTreeSet::new();
    for (name, breach) in breaches(kind) {
        let service = Service::start(kind).await;
        service.database.is_broken_on_purpose();
        fill(&service).await;
        let store = store::open(&settings(&service.database, &[]));
        let checked = store.check().await.expect("a database can be checked");
        assert!(checked.iter().all(|checked| checked.breach().is_none()), "{checked:#?}");
        names = checked.into_iter().map(|checked| checked.name).collect();
        service.database.execute(&breach).await.unwrap_or_else(|error| panic!("{breach}: {error}"));
        let checked = store.check().await.expect("a database can be checked");
        let found = checked.iter().find(|checked| checked.name == name).expect("each breach is of an invariant");
        assert!(found.broken > 0 && !found.ids.is_empty(), "{name}: {checked:#?}");
    }
    let planted: BTreeSet<_> = breaches(kind).into_iter().map(|(name, _)| name).collect();
    assert_eq!(planted, names);
}

async fn what_is_whole_is_told_to_be_so(service: Service) {
    let directory = Directory::new();
    fill(&service).await;
    let check = || Run::of(&mut on(&service.database, &directory, &["check"]));
    let said = check().printed();
    assert!(said.starts_with("All ") && said.ends_with(" invariants of the data hold.\n"), "{said}");

    service.database.is_broken_on_purpose();
    let ticket = "select cast(count(*) as text) from tickets where used_at is null";
    assert_eq!(service.database.text(ticket, ticket).await, "2");
    service.database.execute("update tickets set inside = true where used_at is null").await.expect("two are outside");
    let said = check().failed(1);
    let broken: Vec<_> = said.lines().collect();
    assert!(broken.len() == 2 && broken[1].starts_with("inside_without_entry: 2. A ticket counts as inside"), "{said}");
}

async fn a_backup_of_broken_data_is_not_verified(service: Service) {
    let directory = Directory::new();
    fill(&service).await;
    let backup =
        |arguments: &[&str]| Run::of(&mut on(&service.database, &directory, &[&["backup"], arguments].concat()));
    backup(&["--to", "whole"]).printed();
    service.database.is_broken_on_purpose();
    service.database.execute("update tickets set inside = false").await.expect("one is inside");
    backup(&["--to", "broken"]).printed();
    let verify = |folder: &str| {
        let name = directory.names(folder).remove(0);
        backup(&["verify", Path::new(folder).join(name).to_str().expect("the test's own name")])
    };
    assert!(verify("whole").printed().contains("invariants of the data hold"));
    let said = verify("broken").failed(1);
    assert!(said.contains("as restored") && said.contains("outside_after_entry: 1."), "{said}");
}

#[test]
fn a_file_that_is_missing_is_not_made_to_be_checked() {
    let directory = Directory::new();
    let mut check = directory.program(&["check"]);
    let said = Run::of(check.env("DATABASE_URL", "sqlite:some/tickets.db")).failed(1);
    let place = directory.0.join("some/tickets.db");
    assert!(said.contains(&*place.to_string_lossy()), "{said}");
    assert!(!directory.0.join("some").exists());
}
