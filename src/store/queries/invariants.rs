//! The invariants of the data, each as a query for the rows that violate it. A statement sees one moment, so concurrent
//! writes cause no false alarm. For deleted events and imports in progress, the only check is whether the parents of
//! their rows exist.

use async_trait::async_trait;
use uuid::Uuid;

use super::Backend;
use crate::store::{Checked, Invariants, Result};

/// One invariant.
struct Invariant {
    name: &'static str,
    meaning: &'static str,
    /// Finds the `id` of each row that violates it.
    find: &'static str,
}

/// A statement that returns the number of rows that violate an invariant, and the ids of some.
macro_rules! find {
    ($($select:expr),+ $(,)?) => {
        concat!(
            "with found as (",
            $($select,)+
            ") select f.id, (select count(*) from found) as count from found f order by f.id limit 5"
        )
    };
}

/// The visible tickets.
macro_rules! tickets {
    () => {
        concat!("from events e join tickets t on t.event_id = e.event_id and ", issued_ticket!())
    };
}

/// Whether the scan `a` of the ticket `t` is still valid: accepted, and neither undone nor followed by a reissue.
macro_rules! stands {
    () => {
        concat!("a.result = 'accepted' and a.undone_at is null and ", of_this_use!())
    };
}

/// The valid entries of the ticket `t`.
macro_rules! standing_entries {
    ($columns:literal) => {
        concat!(
            "select ",
            $columns,
            " from scans a where a.ticket_id = t.ticket_id and a.direction = 'entry' and ",
            stands!()
        )
    };
}

/// The direction of the newest valid scan of the ticket `t`.
macro_rules! newest_direction {
    () => {
        concat!(
            "(select a.direction from scans a where a.ticket_id = t.ticket_id and ",
            stands!(),
            " order by ",
            newest_first!(),
            " limit 1)"
        )
    };
}

/// The rows of a table that refer to a missing row of another.
macro_rules! orphans {
    ($table:literal, $id:literal, $column:literal, $parents:literal) => {
        concat!(
            "select o.",
            $id,
            " as id from ",
            $table,
            " o where o.",
            $column,
            " is not null and not exists (select 1 from ",
            $parents,
            " p where p.",
            $column,
            " = o.",
            $column,
            ")"
        )
    };
}

const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "used_without_admission",
        meaning: "A ticket counts as used, but no valid scan has admitted anybody with it: its holder would be turned \
                  away. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where (t.status = 'used' or t.used_at is not null) and not exists (",
            standing_entries!("1"),
            ")"
        ),
    },
    Invariant {
        name: "admission_without_mark",
        meaning: "A scan has admitted somebody, but its ticket is not marked: it would admit again. Ids are of scans.",
        // Before 0.2 a reissue left no trace, so scans without a version may or may not belong to the present use.
        find: find!(
            "select a.scan_id as id ",
            tickets!(),
            " join scans a on a.ticket_id = t.ticket_id where a.ticket_version is not null and (t.used_at is null \
             or t.status = 'valid') and ",
            stands!()
        ),
    },
    Invariant {
        name: "one_version_accepted_twice",
        meaning: "Two scans of a ticket were accepted at the same version, which only one may be: one admission too \
                  many. Ids are of scans.",
        find: find!(
            "select a.scan_id as id ",
            tickets!(),
            " join scans a on a.ticket_id = t.ticket_id and a.result = 'accepted' where exists (select 1 from scans b \
             where b.ticket_id = a.ticket_id and b.result = 'accepted' and b.ticket_version = a.ticket_version \
             and b.scan_id <> a.scan_id)"
        ),
    },
    Invariant {
        name: "admitted_twice",
        meaning: "A ticket has admitted somebody while its holder was inside: two people entered with it. Ids are of \
                  the later scans.",
        // With an admission each day, nobody has to leave. Whether an event was such is unknown once it was changed; a
        // minute is more than clocks differ.
        find: find!(
            "select n.scan_id as id ",
            tickets!(),
            " join scans n on n.ticket_id = t.ticket_id and n.result = 'accepted' and n.undone_at is null \
             and n.direction = 'entry' and n.ticket_version > coalesce(t.reissued_version, 0) \
             where e.reentry <> 'once_a_day' and (select a.direction from scans a where a.ticket_id = t.ticket_id \
             and (a.ticket_version is null or a.ticket_version < n.ticket_version) and ",
            stands!(),
            " order by ",
            newest_first!(),
            " limit 1) = 'entry' and not exists (select 1 from actions c where c.event_id = e.event_id \
             and c.action = 'event_changed' and c.at > n.received_at - 60000)"
        ),
    },
    Invariant {
        name: "version_behind",
        meaning: "A ticket has an older version than its scans imply, as if its row came from a backup and its scans \
                  did not: a stale change may be accepted. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.version < coalesce(t.reissued_version, 1) or t.version < coalesce((select max(a.ticket_version) \
             from scans a where a.ticket_id = t.ticket_id), 1) or t.version <= (select count(*) + count(a.undone_at) \
             from scans a where a.ticket_id = t.ticket_id and a.ticket_version is not null)"
        ),
    },
    Invariant {
        name: "first_use_differs",
        meaning: "The time since when a ticket counts as used is not that of its first admission: gates show the wrong \
                  time. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.used_at <> (",
            standing_entries!("a.decided_at"),
            " order by a.ticket_version nulls first, a.decided_at limit 1)"
        ),
    },
    Invariant {
        name: "inside_without_entry",
        meaning: "A ticket counts as inside, but its newest valid scan is not an entry: the evacuation list has a \
                  person too many. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.inside and coalesce(",
            newest_direction!(),
            ", 'exit') <> 'entry'"
        ),
    },
    Invariant {
        name: "outside_after_entry",
        meaning: "A ticket counts as outside, but its newest valid scan is an entry: the evacuation list lacks a \
                  person. Ids are of tickets.",
        // With an admission each day, undoing an entry leaves a holder from the day before outside.
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where not t.inside and ",
            newest_direction!(),
            " = 'entry' and not exists (select 1 from scans u where u.ticket_id = t.ticket_id and u.undone_at is not null)"
        ),
    },
    Invariant {
        name: "accepted_without_ticket",
        meaning: "A scan without a ticket was accepted: somebody was admitted with nothing. Ids are of scans.",
        find: find!(
            "select s.scan_id as id from scans s where s.result = 'accepted' and s.ticket_id is null and ",
            kept_scan!()
        ),
    },
    Invariant {
        name: "undone_without_admission",
        meaning: "A scan counts as undone but was never accepted: there was nothing to undo. Ids are of scans.",
        find: find!(
            "select s.scan_id as id from scans s where s.result <> 'accepted' and s.undone_at is not null and ",
            kept_scan!()
        ),
    },
    Invariant {
        name: "scan_of_another_event",
        meaning: "A scan belongs to another event than its ticket: one of the events counts a person of the other. Ids \
                  are of scans.",
        find: find!(
            "select s.scan_id as id ",
            tickets!(),
            " join scans s on s.ticket_id = t.ticket_id where s.event_id <> t.event_id"
        ),
    },
    Invariant {
        name: "used_without_holder",
        meaning: "A ticket counts as used but was never registered: only tickets sold at the door have no holder. Ids \
                  are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where (t.status = 'used' or t.used_at is not null) and t.registered_at is null and not t.walk_up"
        ),
    },
    Invariant {
        name: "held_without_registration",
        meaning: "A ticket has a holder but was never registered: the board does not count it. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.user_id is not null and t.registered_at is null"
        ),
    },
    Invariant {
        name: "registered_without_holder",
        meaning: "A valid ticket counts as registered but has no holder, although its event has not forgotten its \
                  people: its holder cannot get in. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.user_id is null and t.registered_at is not null and t.status <> 'revoked' and e.forgotten_at is null"
        ),
    },
    Invariant {
        name: "sent_without_registration",
        meaning: "A ticket counts as mailed or printed but was never registered: nobody can have received it. Ids are \
                  of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.registered_at is null and (t.mailed_at is not null or t.mailing_at is not null \
             or t.printed_at is not null)"
        ),
    },
    Invariant {
        name: "holder_of_another_event",
        meaning: "The holder of a ticket belongs to another event, and so is hidden from its organizers. Ids are of \
                  tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " join users u on u.user_id = t.user_id where u.event_id <> t.event_id"
        ),
    },
    Invariant {
        name: "walk_up_unused",
        meaning: "A ticket sold at the door could still admit, or another ticket has a price paid at the door: the \
                  cash does not add up. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.walk_up and t.status = 'valid' or not t.walk_up and t.paid is not null"
        ),
    },
    Invariant {
        name: "issued_by_nobody",
        meaning: "A ticket belongs to an import that neither finished nor is in progress: it should not exist. Ids are \
                  of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.issue_id is not null and not exists (select 1 from actions c where c.action_id = t.issue_id \
             and c.action = 'issued')"
        ),
    },
    Invariant {
        name: "counts_differ",
        meaning: "The number of used tickets of an event differs from the number that its scans admitted: the board is \
                  wrong. Ids are of events.",
        find: find!(
            "select e.event_id as id from events e where e.deleted_at is null and (select count(*) from tickets t \
             where t.event_id = e.event_id and t.used_at is not null and ",
            issued_ticket!(),
            ") <> (select count(distinct a.ticket_id) from scans a join tickets t on t.ticket_id = a.ticket_id \
             where a.event_id = e.event_id and a.direction = 'entry' and ",
            stands!(),
            ")"
        ),
    },
    Invariant {
        name: "orphan",
        meaning: "A row refers to an event, ticket, person or key that does not exist, as after another program \
                  deleted it. Ids are of people, keys, tickets, scans and actions.",
        find: find!(
            orphans!("users", "user_id", "event_id", "events"),
            " union all ",
            orphans!("keys", "key_id", "event_id", "events"),
            " union all ",
            orphans!("actions", "action_id", "event_id", "events"),
            " union all ",
            orphans!("tickets", "ticket_id", "event_id", "events"),
            " union all ",
            orphans!("tickets", "ticket_id", "user_id", "users"),
            " union all ",
            orphans!("scans", "scan_id", "event_id", "events"),
            " union all ",
            orphans!("scans", "scan_id", "ticket_id", "tickets"),
            " union all ",
            orphans!("former_secrets", "key_id", "key_id", "keys")
        ),
    },
];

#[async_trait]
impl Invariants for Backend {
    async fn check(&self) -> Result<Vec<Checked>> {
        let mut lease = self.long_reader().await?;
        let outcome = async {
            let mut checked = Vec::new();
            for Invariant { name, meaning, find } in INVARIANTS {
                let found: Vec<(Uuid, i64)> = sqlx::query_as(*find).fetch_all(lease.connection()).await?;
                let broken = found.first().map_or(0, |(_, count)| *count);
                checked.push(Checked { name, meaning, broken, ids: found.into_iter().map(|(id, _)| id).collect() });
            }
            Ok(checked)
        }
        .await;
        lease.settle(outcome).await
    }
}
