//! What a decision at the gate reads, and what it writes: the scan, and the mark on its ticket.

use async_trait::async_trait;
use sqlx::Row as _;
use uuid::Uuid;

use super::actions::record_as;
use super::scans::{find_scans, get_any_scan, ids};
use super::search::fold_places;
use super::tickets::{find_read_at, find_tickets, list_party, optional_ticket};
use super::{
    BEGIN, Backend, Connection, Db, LOCK_EVENT, Row, is_foreign_key_violation, is_serialization_failure,
    is_unique_violation, json, unless_unique,
};
use crate::admission::{ATTEMPTS, FUTURE_TOLD};
use crate::error::Error;
use crate::limits::KEY_ATTEMPTS;
use crate::model::{Action, Direction, Millis, Scan, ScanResult, Seed, Status, Ticket};
use crate::store::{
    Act, Admissions, Author, Guarded, Guesses, Mark, NewTicket, Recorded, Result, ScanContext, TicketName, Voucher,
    WalkUps,
};

/// How many codes of a ticket were refused since a moment, those of offline gates apart; since null, none.
macro_rules! count_refusals {
    ($ticket:literal, $since:literal, $until:literal) => {
        concat!(
            "(select count(*) from scans r where r.ticket_id = ",
            $ticket,
            " and r.received_at > ",
            $since,
            " and r.received_at <= ",
            $until,
            " and r.result in ('wrong_code', 'stale_code') and r.offline_result is null)"
        )
    };
}

/// How many codes of a key were refused since a moment, those of offline gates among them; since null, none.
macro_rules! count_refusals_of_key {
    ($key:literal, $since:literal, $until:literal) => {
        concat!(
            "(select count(*) from scans r where ",
            key_or_environment!("r.key_id"),
            " = ",
            key_or_environment!($key),
            " and r.received_at > ",
            $since,
            " and r.received_at <= ",
            $until,
            " and r.result in ('wrong_code', 'stale_code'))"
        )
    };
}

/// Whether so few codes were refused that a scan is written, as [`bind_scan`] says.
macro_rules! few_refusals {
    () => {
        concat!(
            count_refusals!("$3", "$22", "$26"),
            " <= $23 and ",
            count_refusals_of_key!("$18", "$24", "$26"),
            " < $25"
        )
    };
}

/// All that a decision needs; `$ticket` says by what the ticket is found.
macro_rules! select_scan_context {
    ($ticket:literal) => {
        select_scan_context!(
            $ticket,
            concat!(
                ", (select p.ticket_id from tickets p where p.user_id = t.user_id \
                 and p.event_id = t.event_id and p.ticket_id <> t.ticket_id and ",
                may_be_admitted!("p"),
                " limit 1) is not null as in_company"
            ),
            ""
        )
    };
    // Where a scan has to speak for it, `$joins` finds that.
    ($ticket:literal, $columns:expr, $joins:expr) => {
        concat!(
            "select e.event_id as of_event_id, e.time_zone, e.opens_at, e.closes_at, e.reentry, ",
            ticket_columns!(),
            ", ",
            count_refusals!("t.ticket_id", "$3", "$6"),
            " as refusals, ",
            count_refusals_of_key!("$4", "$5", "$6"),
            " as key_refusals",
            ", (select max(a.decided_at) from scans a where a.ticket_id = t.ticket_id and a.result = 'accepted' ",
            "and a.undone_at is null and ",
            of_this_use!(),
            ") as newest_accepted_at, (select a.scan_id from scans a where a.ticket_id = t.ticket_id ",
            "and a.result = 'accepted' and a.undone_at is null limit 1) is not null as has_admitted",
            ", ",
            first_use!(),
            ", ",
            fingerprint!(),
            ", (select count(*) from scans p where p.scan_id = $2) as prior",
            $columns,
            " from events e left join tickets t on t.event_id = e.event_id and ",
            issued_ticket!(),
            " and ",
            $ticket,
            $joins,
            " left join users u on u.user_id = t.user_id where e.slug = $1 and e.deleted_at is null"
        )
    };
}

/// The scan `$8` as `v`, if it is one of the key `$4`, of another ticket of the holder of the ticket `t`.
macro_rules! join_voucher {
    () => {
        concat!(
            " left join scans v on v.scan_id = $8 and v.event_id = e.event_id and ",
            key_or_environment!("v.key_id"),
            " = ",
            key_or_environment!("$4"),
            " left join tickets w on w.ticket_id = v.ticket_id and w.user_id = t.user_id and w.ticket_id <> t.ticket_id"
        )
    };
}

/// One for which another spoke speaks for none: a code, or a supervisor, is at the beginning of each admission.
const SELECT_OF_PARTY: &str = select_scan_context!(
    "t.ticket_id = $7",
    ", v.decided_at as vouched_at, w.gate as vouched_gate, coalesce(v.result = 'accepted' and v.direction = 'entry' \
     and v.undone_at is null and v.vouched_by is null, false) as voucher_admitted",
    join_voucher!()
);

/// The beginning of every statement that writes a scan, whose values [`bind_scan`] gives as `$1` to `$21`. Of an event that
/// was deleted meanwhile none is written, and to one that has forgotten its people no note, which may tell of somebody.
macro_rules! insert_scan {
    () => {
        concat!(
            "insert into scans (scan_id, event_id, ticket_id, presented, at_gate, direction, result, offline_result, \
             manual, note, vouched_by, seconds_off, first_used_at, first_used_gate, scanned_at, received_at, decided_at, key_id, \
             ticket_version, opens_at, closed_at) \
             select $1, e.event_id, $3, $4, $5, $6, $7, $8, $9, case when e.forgotten_at is null then $10 end, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21 \
             from (select event_id, forgotten_at from events where event_id = $2 and deleted_at is null",
            key_share!(),
            ") as e"
        )
    };
}

/// Writes a scan unless too many codes were refused.
const INSERT_SCAN: &str = concat!(insert_scan!(), " where ", few_refusals!());

/// Gives a statement the values of a scan, and after them since when refused codes count and how many are let pass: `$22`
/// and `$23` of the ticket, `$24` and `$25` of the key; and until when, `$26`.
pub fn bind_scan<'q>(
    query: sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>,
    scan: &'q Scan,
    ticket_version: Option<i64>,
    guesses: &Guesses,
) -> sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments> {
    // Of those sent at once no more are told that a code is one of the future than of those sent one by one.
    let tells_future = scan.seconds_off > Some(0);
    let (of_ticket, of_key) = if tells_future { (FUTURE_TOLD - 1, FUTURE_TOLD) } else { (ATTEMPTS, KEY_ATTEMPTS) };
    query
        .bind(scan.scan_id)
        .bind(scan.event_id)
        .bind(scan.ticket_id)
        .bind(scan.presented)
        .bind(scan.at_gate.as_deref())
        .bind(scan.direction)
        .bind(scan.result)
        .bind(scan.offline_result)
        .bind(scan.manual)
        .bind(scan.note.as_deref())
        .bind(scan.vouched_by)
        .bind(scan.seconds_off)
        .bind(scan.first_used_at)
        .bind(scan.first_used_gate.as_deref())
        .bind(scan.scanned_at)
        .bind(scan.received_at)
        .bind(scan.decided_at)
        .bind(scan.key_id)
        .bind(ticket_version)
        .bind(scan.opens_at)
        .bind(scan.closed_at)
        .bind(guesses.of_ticket_since)
        .bind(of_ticket)
        .bind(guesses.of_key_since)
        .bind(of_key)
        .bind(guesses.until)
}

#[async_trait]
impl Admissions for Backend {
    async fn read_scan(
        &self,
        event: &str,
        ticket: &TicketName<'_>,
        scan_id: Uuid,
        guesses: &Guesses,
    ) -> Result<Option<Guarded<ScanContext>>> {
        let mut lease = self.reader().await?;
        let outcome = async {
            let connection = lease.connection();
            let mut context = read_context(connection, event, ticket, scan_id, guesses).await?;
            // Where no ticket has exactly this seat and gate, the only one that people read so.
            if let (Some(ScanContext { ticket: None, event_id, .. }), TicketName::Seat { seat, gate }) =
                (&context, ticket)
                && let Some(ticket_id) = find_read_at(connection, *event_id, seat, gate).await?
            {
                context = read_context(connection, event, &TicketName::Id(ticket_id), scan_id, guesses).await?;
            }
            Ok(context.map(|context| Guarded::new(context.event_id, context)))
        }
        .await;
        lease.settle(outcome).await
    }

    async fn record_scan(&self, scan: &Scan, mark: Option<&Mark>, guesses: &Guesses) -> Result<Recorded> {
        let mut lease = self.writer().await?;
        let outcome = match mark {
            Some(mark) => super::record_accepted(lease.connection(), scan, mark, guesses).await,
            None if scan.result.refuses_the_code() => {
                lease = lease.begin(BEGIN).await?;
                super::lock_guesses(lease.connection(), scan).await?;
                record_refused(lease.connection(), scan, guesses).await
            }
            None if scan.result.needs_the_code() => record_refused(lease.connection(), scan, guesses).await,
            // What is refused before its code is looked at has no limit.
            None => record_refused(lease.connection(), scan, &Guesses::default()).await,
        };
        let outcome = match outcome {
            Ok(0) => Ok(Recorded::Outdated),
            Ok(_) => Ok(Recorded::Done),
            Err(error) if is_unique_violation(&error) => Ok(Recorded::ScanIdTaken),
            // Its event is deleted, and its ticket with it: whoever reads again finds that.
            Err(error) if is_foreign_key_violation(&error) => Ok(Recorded::Outdated),
            Err(error) if is_serialization_failure(&error) => Ok(Recorded::Outdated),
            Err(error) => Err(Error::from(error)),
        };
        lease.settle(outcome).await
    }

    async fn admit_walk_ups(&self, walk_ups: &WalkUps, author: Author) -> Result<()> {
        // What other seats are compared by.
        fold_places(self, walk_ups.event_id).await?;
        let issue_id = Uuid::now_v7();
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(LOCK_EVENT).bind(walk_ups.event_id).execute(&mut *connection).await?;
            let act = Act::new(Action::Issued, walk_ups.event_id).count(walk_ups.scan_ids.len());
            record_as(connection, issue_id, author, &act).await?;
            let tickets = free_tickets(connection, walk_ups).await?;
            super::insert_tickets(connection, walk_ups.event_id, None, &tickets, issue_id, author.now)
                .await
                .map_err(|error| unless_unique(error, Error::ScanContended))?;
            mark_walk_ups(connection, walk_ups, &tickets, author.now).await?;
            for (scan_id, ticket) in walk_ups.scan_ids.iter().zip(&tickets) {
                let scan = walk_up_scan(walk_ups, *scan_id, ticket, author);
                bind_scan(sqlx::query(INSERT_SCAN), &scan, Some(NEWLY_MARKED), &Guesses::default())
                    .execute(&mut *connection)
                    .await
                    .map_err(|error| unless_unique(error, Error::ScanIdConflict))?;
            }
            Ok(())
        }
        .await;
        lease.settle(outcome).await
    }

    async fn find_walk_ups(&self, scan_ids: &[Uuid]) -> Result<Vec<(Scan, Option<Ticket>)>> {
        let mut lease = self.reader().await?;
        let outcome = async {
            let connection = lease.connection();
            let mut scans = find_scans(connection, scan_ids).await?;
            scans.sort_by_key(|scan| scan_ids.iter().position(|id| *id == scan.scan_id));
            let ticket_ids: Vec<Uuid> = scans.iter().filter_map(|scan| scan.ticket_id).collect();
            let tickets = find_tickets(connection, &ticket_ids).await?;
            let with_ticket = |scan: Scan| {
                let ticket = tickets.iter().find(|ticket| Some(ticket.ticket_id) == scan.ticket_id);
                (scan, ticket.cloned())
            };
            Ok(scans.into_iter().map(with_ticket).collect())
        }
        .await;
        lease.settle(outcome).await
    }
}

/// The version of a ticket that was made and marked in the same breath.
const NEWLY_MARKED: i64 = 2;

/// The tickets of people who came without one, at seats that nobody has: behind the event's lock only an import that is being
/// written takes any.
async fn free_tickets(connection: &mut Connection, walk_ups: &WalkUps) -> Result<Vec<NewTicket>> {
    let mut last = walk_ups.last_number;
    loop {
        let new = |(number, seed): (i64, &Seed)| NewTicket {
            ticket_id: Uuid::now_v7(),
            seat: number.to_string(),
            gate: walk_ups.gate.clone(),
            seed: *seed,
            holder: None,
            reference: None,
            category: walk_ups.category.clone(),
            note: walk_ups.note.clone(),
            valid_from: None,
            valid_until: None,
        };
        let tickets: Vec<NewTicket> = (last + 1..).zip(&walk_ups.seeds).map(new).collect();
        let taken = super::find_taken(connection, walk_ups.event_id, &tickets, true).await?;
        let Some(place) = taken.last() else { return Ok(tickets) };
        last += place + 1;
    }
}

/// Marks tickets that were made just now as those of people who came without one, and are inside.
async fn mark_walk_ups(
    connection: &mut Connection,
    walk_ups: &WalkUps,
    tickets: &[NewTicket],
    now: Millis,
) -> Result<()> {
    let ticket_ids: Vec<Uuid> = tickets.iter().map(|ticket| ticket.ticket_id).collect();
    sqlx::query(concat!(
        "update tickets set walk_up = $2, inside = $2, status = $3, paid = $4, holder_name = $5, used_at = $6, changed_at = $7, \
         version = version + 1 where ",
        among!("ticket_id", id_in!("m.value ->> 0"), "$1")
    ))
    .bind(json(&ids(&ticket_ids))?)
    .bind(true)
    .bind(Status::Used)
    .bind(walk_ups.paid)
    .bind(&walk_ups.full_name)
    .bind(walk_ups.decided_at)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The scan that admits somebody with a new ticket. The first one speaks for the others.
fn walk_up_scan(walk_ups: &WalkUps, scan_id: Uuid, ticket: &NewTicket, author: Author) -> Scan {
    let first = walk_ups.scan_ids.first().copied();
    Scan {
        scan_id,
        event_id: walk_ups.event_id,
        ticket_id: Some(ticket.ticket_id),
        presented: None,
        at_gate: Some(walk_ups.gate.clone()),
        direction: Direction::Entry,
        result: ScanResult::Accepted,
        offline_result: walk_ups.offline_result,
        manual: true,
        note: None,
        vouched_by: first.filter(|first| *first != scan_id),
        seconds_off: None,
        first_used_at: None,
        first_used_gate: None,
        opens_at: None,
        closed_at: None,
        scanned_at: walk_ups.scanned_at,
        received_at: author.now,
        decided_at: walk_ups.decided_at,
        key_id: author.key_id,
        undone_at: None,
        undone_by: None,
    }
}

async fn read_context(
    connection: &mut Connection,
    event: &str,
    ticket: &TicketName<'_>,
    scan_id: Uuid,
    guesses: &Guesses,
) -> Result<Option<ScanContext>> {
    let query = match ticket {
        TicketName::Id(_) => sqlx::query(select_scan_context!("t.ticket_id = $7")),
        TicketName::Seat { .. } => sqlx::query(select_scan_context!("t.seat = $7 and t.gate = $8")),
        TicketName::OfParty { .. } => sqlx::query(SELECT_OF_PARTY),
        TicketName::None => sqlx::query(select_scan_context!("t.ticket_id is null")),
    };
    let query = query.bind(event).bind(scan_id).bind(guesses.of_ticket_since);
    let query = query.bind(guesses.key_id).bind(guesses.of_key_since).bind(guesses.until);
    let query = match ticket {
        TicketName::Id(ticket_id) => query.bind(ticket_id),
        TicketName::Seat { seat, gate } => query.bind(*seat).bind(*gate),
        TicketName::OfParty { ticket_id, vouched_by } => query.bind(ticket_id).bind(vouched_by),
        TicketName::None => query,
    };
    let Some(row) = query.fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let mut context = scan_context(&row)?;
    if row.try_get::<i64, _>("prior")? > 0 {
        context.prior = get_any_scan(connection, scan_id).await?;
    }
    if matches!(ticket, TicketName::OfParty { .. }) {
        context.voucher = voucher(&row)?;
    } else if let (true, Some(ticket)) = (row.try_get("in_company")?, &context.ticket) {
        context.party = list_party(connection, ticket).await?;
    }
    Ok(Some(context))
}

fn scan_context(row: &Row) -> std::result::Result<ScanContext, sqlx::Error> {
    Ok(ScanContext {
        event_id: row.try_get("of_event_id")?,
        time_zone: row.try_get("time_zone")?,
        opens_at: row.try_get("opens_at")?,
        closes_at: row.try_get("closes_at")?,
        reentry: row.try_get("reentry")?,
        ticket: optional_ticket(row)?,
        party: Vec::new(),
        voucher: None,
        prior: None,
        refusals: row.try_get("refusals")?,
        key_refusals: row.try_get("key_refusals")?,
        newest_accepted_at: row.try_get("newest_accepted_at")?,
        has_admitted: row.try_get("has_admitted")?,
        first_used_gate: row.try_get("first_used_gate")?,
        secret_fingerprint: row.try_get("secret_fingerprint")?,
    })
}

fn voucher(row: &Row) -> std::result::Result<Option<Voucher>, sqlx::Error> {
    let decided_at: Option<Millis> = row.try_get("vouched_at")?;
    let gate: Option<String> = row.try_get("vouched_gate")?;
    let admitted = row.try_get("voucher_admitted")?;
    Ok(decided_at.zip(gate).map(|(decided_at, gate)| Voucher { decided_at, gate, admitted }))
}

/// Returns how many rows were written.
async fn record_refused(
    connection: &mut Connection,
    scan: &Scan,
    guesses: &Guesses,
) -> std::result::Result<u64, sqlx::Error> {
    let written = bind_scan(sqlx::query(INSERT_SCAN), scan, None, guesses).execute(connection).await?;
    Ok(written.rows_affected())
}

#[cfg(test)]
mod tests {
    use crate::model::ScanResult;

    #[test]
    fn the_refusals_that_are_counted_are_those_that_refuse_the_code() {
        for counted in [count_refusals!("$1", "$2", "$3"), count_refusals_of_key!("$1", "$2", "$3")] {
            for result in ScanResult::ALL {
                assert_eq!(
                    counted.contains(&format!("'{}'", result.as_str())),
                    result.refuses_the_code(),
                    "{result:?}"
                );
            }
        }
    }
}
