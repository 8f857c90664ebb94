//! What holds of the data whatever happens, each as a query that finds the rows for which it does not. A statement sees one
//! moment, so that it finds nothing while others write, either. Of events that are deleted and of imports that are still being
//! written nothing is looked at but whether what a row belongs to is there.

use async_trait::async_trait;
use uuid::Uuid;

use super::Backend;
use crate::store::{Checked, Invariants, Result};

/// One invariant.
struct Invariant {
    name: &'static str,
    meaning: &'static str,
    /// Finds the `id` of each row for which it does not hold.
    find: &'static str,
}

/// A statement that finds how many rows break an invariant, and the ids of some.
macro_rules! find {
    ($($select:expr),+ $(,)?) => {
        concat!(
            "with found as (",
            $($select,)+
            ") select f.id, (select count(*) from found) as count from found f order by f.id limit 5"
        )
    };
}

/// The tickets that are there.
macro_rules! tickets {
    () => {
        concat!("from events e join tickets t on t.event_id = e.event_id and ", issued_ticket!())
    };
}

/// Whether the scan `a` of the ticket `t` stands: it was accepted, and neither undone nor followed by a reissue.
macro_rules! stands {
    () => {
        concat!("a.result = 'accepted' and a.undone_at is null and ", of_this_use!())
    };
}

/// The scans of the ticket `t` by which somebody came in.
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

/// Where the ticket `t` went by its newest scan that stands.
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

/// The rows of a table that belong to a row of another one which is not there.
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
        meaning: "A ticket counts as used, and no scan that stands has admitted anybody with it: its holder is turned away \
                  unseen. Ids are of tickets.",
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
        meaning: "A scan has admitted somebody, and its ticket does not show it: it would admit once more. Ids are of scans.",
        // Before 0.2 a reissue left no trace, so of scans without a version nobody knows whether they are of this use.
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
        meaning: "Two scans of a ticket were accepted on the same state of it: of what should happen once one was too many. \
                  Ids are of scans.",
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
        meaning: "A ticket has admitted somebody while it was inside: two people came in with it. Ids are of the later scans.",
        // Where each day admits, nobody has to leave. Whether an event was one of these, nobody knows once it was changed; a
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
        meaning: "A ticket is of an earlier version than what has happened with it, as if its row had come from a backup and its \
                  scans had not: the next change may be taken for one that was made before. Ids are of tickets.",
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
        meaning: "The moment since when a ticket counts as used is not that of its first admission: gates tell people the wrong \
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
        meaning: "A ticket counts as inside, and the newest scan of it that stands is no entry: the list for an evacuation has \
                  somebody too many. Ids are of tickets.",
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
        meaning: "A ticket counts as outside, and the newest scan of it is an entry: the list for an evacuation lacks somebody. \
                  Ids are of tickets.",
        // Where each day admits, an entry that is undone leaves whoever came the day before outside.
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
        meaning: "A scan was accepted and has no ticket: somebody was let in with nothing. Ids are of scans.",
        find: find!(
            "select s.scan_id as id from scans s where s.result = 'accepted' and s.ticket_id is null and ",
            kept_scan!()
        ),
    },
    Invariant {
        name: "undone_without_admission",
        meaning: "A scan that was refused counts as undone: there was nothing to take back. Ids are of scans.",
        find: find!(
            "select s.scan_id as id from scans s where s.result <> 'accepted' and s.undone_at is not null and ",
            kept_scan!()
        ),
    },
    Invariant {
        name: "scan_of_another_event",
        meaning: "A scan belongs to another event than its ticket: one of the two counts somebody who is at the other. Ids are of \
                  scans.",
        find: find!(
            "select s.scan_id as id ",
            tickets!(),
            " join scans s on s.ticket_id = t.ticket_id where s.event_id <> t.event_id"
        ),
    },
    Invariant {
        name: "used_without_holder",
        meaning: "A ticket counts as used, and nobody ever held it: only a ticket that is sold at the door needs no holder. Ids \
                  are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where (t.status = 'used' or t.used_at is not null) and t.registered_at is null and not t.walk_up"
        ),
    },
    Invariant {
        name: "held_without_registration",
        meaning: "A ticket has a holder and was never registered: the counts of the board lack it. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.user_id is not null and t.registered_at is null"
        ),
    },
    Invariant {
        name: "registered_without_holder",
        meaning: "A ticket that is good counts as registered and has no holder, and its event has forgotten nobody: its holder \
                  cannot get in. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.user_id is null and t.registered_at is not null and t.status <> 'revoked' and e.forgotten_at is null"
        ),
    },
    Invariant {
        name: "sent_without_registration",
        meaning: "A ticket counts as mailed or printed and was never registered: nobody can have got it. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.registered_at is null and (t.mailed_at is not null or t.mailing_at is not null \
             or t.printed_at is not null)"
        ),
    },
    Invariant {
        name: "holder_of_another_event",
        meaning: "A ticket is held by a person of another event, whom its organizers may not see. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " join users u on u.user_id = t.user_id where u.event_id <> t.event_id"
        ),
    },
    Invariant {
        name: "walk_up_unused",
        meaning: "A ticket that was sold at the door could admit, or one that was not says what was paid for it there: the cash \
                  does not add up. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.walk_up and t.status = 'valid' or not t.walk_up and t.paid is not null"
        ),
    },
    Invariant {
        name: "issued_by_nobody",
        meaning: "A ticket was made by an import that has not ended and is not at work: it should not be there. Ids are of tickets.",
        find: find!(
            "select t.ticket_id as id ",
            tickets!(),
            " where t.issue_id is not null and not exists (select 1 from actions c where c.action_id = t.issue_id \
             and c.action = 'issued')"
        ),
    },
    Invariant {
        name: "counts_differ",
        meaning: "As many tickets of an event count as used as its scans have admitted: here they do not, so the board is wrong. \
                  Ids are of events.",
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
        meaning: "A row belongs to an event, a ticket, a person or a key that is not there, as after another program has deleted \
                  it. Ids are of events' people, keys, tickets, scans and actions.",
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
