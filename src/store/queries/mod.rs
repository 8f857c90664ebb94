//! Every statement that both PostgreSQL and SQLite understand, one file per resource.
//!
//! This directory is compiled twice, once inside each database's module, which provides the items imported here: `Db`,
//! `Backend` and the operations that differ. If it were generic over `sqlx::Database`, each query would need bounds for
//! the encoding and decoding of each of its parameters and columns, some twenty per function; and sqlx's own `Any` has no
//! UUIDs and copies each row into types of its own.

use async_trait::async_trait;

use super::{
    BEGIN, BEGIN_BRIEF, Backend, Db, FIND, LOCK_EVENT, LOCK_TICKET, LOCK_USER, Lease, Pool, ROWS_OF_AN_EVENT, analyze,
    bind_asked, find_other_people, find_taken, give_way, insert_people, insert_tickets, json, lock_guesses, overwrite,
    record_accepted, record_many, register, take_event, update_seeds, write_folds,
};
use crate::error::Error;
use crate::store::{Health, KeptSecrets, Result, Store};

type Connection = <Db as sqlx::Database>::Connection;
type Row = <Db as sqlx::Database>::Row;

/// Whether the ticket `t` of the event `e` is visible: an import in progress hides its rows (`issues`), and a deleted
/// event those that are left (`events`). PostgreSQL cannot estimate `coalesce`, and assumes half of the tickets. For `is
/// not true` it assumed that next to none are left, and sorted all tickets of an event for one page.
macro_rules! issued_ticket {
    () => {
        "not coalesce(t.issue_id = e.issuing or e.deleted_at is not null, false)"
    };
}

/// Whether the ticket `t` is one of the event `$1` after `$2`, in the order of event and ticket. The condition on the
/// event is a range, not an equality, so that only the index in this order fits: with an index of the tickets' ids alone,
/// PostgreSQL might read the tickets of a hundred other events.
macro_rules! in_order {
    () => {
        "(t.event_id, t.ticket_id) > ($1, $2) and t.event_id <= $1"
    };
}

/// The deleted events, which may still have rows.
macro_rules! deleted_events {
    () => {
        "(select d.event_id from events d where d.deleted_at is not null)"
    };
}

/// Whether the user `u` is visible. The holder of a visible ticket always is. `limit` keeps the inner statement one index
/// lookup: for `not exists`, PostgreSQL may read the whole table into a hash. `coalesce` is as in [`issued_ticket!`].
macro_rules! issued_user {
    () => {
        concat!(
            "not coalesce((select true from events w where w.issuing = u.issue_id limit 1), false) \
             and not coalesce(u.event_id in ",
            deleted_events!(),
            ", false)"
        )
    };
}

/// Whether the state of a ticket of the event `e` that has a holder allows its admission without a code.
macro_rules! may_be_admitted {
    ($ticket:literal) => {
        concat!(
            "(",
            $ticket,
            ".status = 'valid' or ",
            $ticket,
            ".status = 'used' and (e.reentry = 'once_a_day' or e.reentry = 'after_exit' and not ",
            $ticket,
            ".inside))"
        )
    };
}

/// Whether the scan `s` is visible.
macro_rules! kept_scan {
    () => {
        concat!("s.event_id not in ", deleted_events!())
    };
}

/// Whether the accepted scan `a` of the ticket `t` belongs to its present use: a reissued ticket is unused, and earlier
/// scans belong to the ticket before the reissue. Scans of 0.1.0 have no version, so their time decides.
macro_rules! of_this_use {
    () => {
        "case when a.ticket_version is not null then a.ticket_version > coalesce(t.reissued_version, 0) \
         else t.reissued_version is null and a.decided_at >= t.used_at end"
    };
}

/// When the ticket `t` of the event `e` last admitted its holder. Without re-entry that is when it first did, and no scan
/// is read.
macro_rules! last_entry {
    () => {
        concat!(
            "case when e.reentry = 'none' or t.used_at is null then t.used_at else \
             (select max(a.decided_at) from scans a where a.ticket_id = t.ticket_id and a.result = 'accepted' \
             and a.direction = 'entry' and a.undone_at is null and ",
            of_this_use!(),
            ") end as entered_at"
        )
    };
}

/// A value with personal data of a ticket of the event `e`: null from the moment at which the event begins to forget its
/// people, even if that was interrupted.
macro_rules! of_people {
    ($value:literal) => {
        concat!("case when e.forgotten_at is null then ", $value, " end")
    };
}

/// What is cleared on a ticket whose holder is erased. Its reference stays, so that a repeated import recognises it.
macro_rules! without_holder {
    () => {
        "user_id = null, holder_name = null, note = null"
    };
}

/// The columns of a ticket except `entered_at`, which reads scans.
macro_rules! own_ticket_columns {
    () => {
        concat!(
            "t.ticket_id, t.event_id, e.slug as event, ",
            of_people!("t.user_id"),
            " as user_id, t.seat, t.gate, t.seed, t.status, ",
            of_people!("u.username"),
            " as username, case when u.event_id is not null then e.slug end as holder_event, u.event_id as holder_event_id, ",
            of_people!("u.email"),
            " as email, ",
            of_people!("coalesce(t.holder_name, u.full_name)"),
            " as full_name, ",
            of_people!("t.reference"),
            " as reference, t.category, case when t.category is not null then e.category_colours end as category_colours, ",
            of_people!("t.note"),
            " as note, t.valid_from, t.valid_until, t.inside, t.last_step, t.version, t.created_at, t.registered_at, t.used_at, \
             t.printed_at, t.mailed_at, t.seeded_at, t.walk_up, t.paid"
        )
    };
}

/// The columns of a ticket, for `admissions` and `tickets`: a macro is only known after its definition.
macro_rules! ticket_columns {
    () => {
        concat!(own_ticket_columns!(), ", ", last_entry!())
    };
}

/// The order in which scans of the same ticket were accepted, newest first; those of 0.1.0 came before all others.
macro_rules! newest_first {
    () => {
        "a.ticket_version desc nulls last, a.decided_at desc, a.received_at desc, a.scan_id desc"
    };
}

/// The name of the key that admitted the holder of a scan's ticket before.
macro_rules! first_key_name {
    () => {
        concat!(
            "(select f.name from scans a left join keys f on f.key_id = a.key_id where a.ticket_id = s.ticket_id \
             and a.result = 'accepted' and a.direction = 'entry' and a.decided_at = s.first_used_at order by ",
            newest_first!(),
            " limit 1) as first_key_name"
        )
    };
}

/// The search text of a new ticket, or null if more is known of its holder `u` than came with it: then the text is made
/// by the next search.
macro_rules! search_unless_more_is_known {
    ($full_name:literal, $email:literal, $search:literal) => {
        concat!(
            "case when ",
            $full_name,
            " is null and u.full_name is not null or ",
            $email,
            " is null and u.email is not null then null else ",
            $search,
            " end"
        )
    };
}

/// The gate of one of the entries `a` of the ticket `t`, the first in this order.
macro_rules! gate_of_entry {
    ($order:expr) => {
        concat!(
            "(select coalesce(a.at_gate, t.gate) from scans a where a.ticket_id = t.ticket_id \
             and a.result = 'accepted' and a.direction = 'entry' and a.undone_at is null and ",
            of_this_use!(),
            " order by ",
            $order,
            " limit 1)"
        )
    };
}

/// The gate where the ticket `t` of the event `e` was first used; if it admits once a day, last used.
macro_rules! first_use {
    () => {
        concat!(
            "case when e.reentry = 'once_a_day' then ",
            gate_of_entry!(newest_first!()),
            " else ",
            gate_of_entry!("a.ticket_version nulls first, a.decided_at"),
            " end as first_used_gate"
        )
    };
}

/// The database's fingerprint of its `TICKET_SECRET`.
macro_rules! fingerprint {
    () => {
        "(select s.value from settings s where s.name = 'ticket_secret') as secret_fingerprint"
    };
}

/// The database's salt for links of ticket pages, which also identifies the database.
macro_rules! link_salt {
    () => {
        "(select s.value from settings s where s.name = 'link_salt') as link_salt"
    };
}

/// The columns of [`KeptSecrets`](crate::store::KeptSecrets).
macro_rules! kept_secrets {
    () => {
        concat!(fingerprint!(), ", ", link_salt!())
    };
}

mod actions;
#[macro_use]
pub mod admissions;
#[macro_use]
mod events;
#[macro_use]
pub mod issues;
mod forgetting;
mod invariants;
mod keys;
mod lists;
pub mod search;
#[macro_use]
pub mod tickets;
mod losses;
mod mails;
mod scans;
mod users;

#[async_trait]
impl Store for Backend {
    async fn health(&self) -> Result<Health> {
        let mut lease = self.reader().await?;
        let outcome = super::health(lease.connection()).await;
        lease.settle(outcome).await
    }

    async fn kept_secrets(&self) -> Result<KeptSecrets> {
        let mut lease = self.reader().await?;
        let outcome = kept_secrets(lease.connection()).await;
        lease.settle(outcome).await
    }

    async fn claim_secret(&self, fingerprint: &[u8]) -> Result<KeptSecrets> {
        let mut lease = self.writer().await?;
        let outcome = async {
            sqlx::query("insert into settings (name, value) values ('ticket_secret', $1) on conflict do nothing")
                .bind(fingerprint)
                .execute(lease.connection())
                .await?;
            kept_secrets(lease.connection()).await
        }
        .await;
        lease.settle(outcome).await
    }
}

async fn kept_secrets(connection: &mut Connection) -> Result<KeptSecrets> {
    Ok(sqlx::query_as(concat!("select ", kept_secrets!())).fetch_one(connection).await?)
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

fn is_foreign_key_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_foreign_key_violation())
}

/// Whether PostgreSQL rolled back a transaction because of concurrent ones (by SQLSTATE), so that it may be retried.
fn is_serialization_failure(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| ["40001", "40P01"].contains(&&*code))
}

fn unless_unique(error: sqlx::Error, taken: Error) -> Error {
    if is_unique_violation(&error) { taken } else { error.into() }
}

/// Translates a lock timeout (PostgreSQL's SQLSTATE) to `held`.
fn unless_held(error: sqlx::Error, held: Error) -> Error {
    let is_held = error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("55P03"));
    if is_held { held } else { error.into() }
}
