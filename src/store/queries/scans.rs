//! Recorded scans: reading them, and undoing the newest of a ticket.

use async_trait::async_trait;
use sqlx::FromRow;
use uuid::Uuid;

use super::actions::record;
use super::tickets::{lock_ticket, optional_ticket};
use super::{BEGIN, Backend, Connection, Row, json};
use crate::error::Error;
use crate::limits::CLOCKS_APART;
use crate::model::{Action, Direction, Key, Millis, Scan, Status, Ticket};
use crate::store::{
    Act, Attendance, Author, Conflict, Guarded, Incident, KeyScan, ListedScan, Result, Scans, TracedScan,
};

macro_rules! scan_columns {
    () => {
        "s.scan_id, s.event_id, s.ticket_id, s.presented, s.at_gate, s.direction, s.result, s.offline_result, \
         s.manual, s.note, s.vouched_by, s.seconds_off, s.first_used_at, s.first_used_gate, s.opens_at, s.closed_at, \
         s.scanned_at, s.received_at, s.decided_at, s.key_id, s.undone_at, s.undone_by"
    };
}

/// A statement that selects scans of the event `$1` as [`TracedScan`] has them, with some more columns.
macro_rules! select_traced {
    ($more:literal, $rest:literal) => {
        concat!(
            "select s.scan_id, s.at_gate, s.direction, s.result, s.scanned_at, s.received_at, s.key_id, k.name as key_name, \
             s.first_used_at, s.first_used_gate, ",
            $more,
            ", ",
            first_key_name!(),
            ", ",
            ticket_columns!(),
            " from scans s join events e on e.event_id = s.event_id and e.deleted_at is null \
             left join tickets t on t.ticket_id = s.ticket_id left join users u on u.user_id = t.user_id \
             left join keys k on k.key_id = s.key_id where s.event_id = $1 and ",
            $rest
        )
    };
}

#[async_trait]
impl Scans for Backend {
    async fn get_scan(&self, scan_id: Uuid) -> Result<Option<Guarded<Scan>>> {
        let mut lease = self.reader().await?;
        let outcome = get_scan(lease.connection(), scan_id).await;
        let scan = lease.settle(outcome).await?;
        Ok(scan.map(|scan| Guarded::new(scan.event_id, scan)))
    }

    async fn undo_scan(&self, scan_id: Uuid, not_before: Millis, author: Author) -> Result<Scan> {
        let Author { key_id: by, now } = author;
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let scan = get_scan(connection, scan_id).await?.ok_or(Error::ScanNotFound)?;
            let ticket = lock_ticket(connection, scan.ticket_id.ok_or(Error::NotUndoable)?).await?;
            // Read again under the lock: another undo may have come first.
            let scan = get_scan(connection, scan_id).await?.ok_or(Error::ScanNotFound)?;
            if scan.undone_at.is_some() {
                return Ok(scan);
            }
            if newest_accepted(connection, ticket.ticket_id).await? != Some(scan_id) {
                return Err(Error::NotUndoable);
            }
            if !(not_before..=now + CLOCKS_APART).contains(&scan.received_at) {
                return Err(Error::UndoExpired);
            }
            sqlx::query("update scans set undone_at = $2, undone_by = $3 where scan_id = $1")
                .bind(scan_id)
                .bind(now)
                .bind(by)
                .execute(&mut *connection)
                .await?;
            take_back(connection, &ticket, now).await?;
            let act = Act::new(Action::Undone, scan.event_id).ticket(ticket.ticket_id).subject(scan_id);
            record(connection, author, &act).await?;
            Ok(Scan { undone_at: Some(now), undone_by: by, ..scan })
        }
        .await;
        lease.settle(outcome).await
    }

    async fn list_scans(&self, event_id: Uuid, after: Option<(Millis, Uuid)>, limit: i64) -> Result<Vec<ListedScan>> {
        let (after_time, after_id) = after.unwrap_or((Millis(i64::MIN), Uuid::nil()));
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select ",
            scan_columns!(),
            ", t.seat, t.gate, coalesce(t.holder_name, u.full_name) as full_name, t.category, t.walk_up, \
             k.name as key_name, b.name as undone_by_name from scans s left join tickets t on t.ticket_id = s.ticket_id \
             left join users u on u.user_id = t.user_id left join keys k on k.key_id = s.key_id \
             left join keys b on b.key_id = s.undone_by \
             where s.event_id = $1 and (s.received_at, s.scan_id) > ($2, $3) and ",
            kept_scan!(),
            " order by s.received_at, s.scan_id limit $4"
        ))
        .bind(event_id)
        .bind(after_time)
        .bind(after_id)
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_attendance(
        &self,
        event_id: Uuid,
        inside: bool,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Attendance>> {
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select ",
            ticket_columns!(),
            ", ",
            gate_of_entry!("a.ticket_version nulls first, a.decided_at"),
            " as first_gate, ",
            gate_of_entry!(newest_first!()),
            " as last_gate from events e cross join tickets t left join users u on u.user_id = t.user_id \
             where e.event_id = $1 and ",
            issued_ticket!(),
            " and ",
            in_order!(),
            " and (t.inside or not $3 and (t.registered_at is not null or t.used_at is not null)) \
             order by t.event_id, t.ticket_id limit $4"
        ))
        .bind(event_id)
        .bind(after.unwrap_or_default())
        .bind(inside)
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_key_scans(&self, key: &Key, since: Millis, after: Option<Uuid>, limit: i64) -> Result<Vec<KeyScan>> {
        // As in `list_keys`, a range over events, so that their index serves one event as well as all.
        let (first_event, last_event) =
            key.event_id.map_or((Uuid::nil(), Uuid::max()), |event_id| (event_id, event_id));
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select s.scan_id, s.ticket_id, t.seat, t.gate, s.direction, s.result, s.scanned_at, s.received_at, \
             s.undone_at from scans s left join tickets t on t.ticket_id = s.ticket_id \
             where s.event_id between $1 and $2 and s.key_id = $3 and s.received_at >= $4 \
             and ($5 is null or (s.received_at, s.scan_id) > \
             (select l.received_at, l.scan_id from scans l where l.scan_id = $5)) and ",
            kept_scan!(),
            " order by s.received_at, s.scan_id limit $6"
        ))
        .bind(first_event)
        .bind(last_event)
        .bind(key.key_id)
        .bind(since)
        .bind(after)
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_incidents(&self, event_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Incident>> {
        let statement = select_traced!(
            "s.undone_at, s.undone_by, (select b.name from keys b where b.key_id = s.undone_by) as undone_key_name",
            "(s.result = 'already_used' or s.undone_at is not null) \
             and ($2 is null or (coalesce(s.undone_at, s.received_at), s.scan_id) < \
             (select coalesce(l.undone_at, l.received_at), l.scan_id from scans l where l.scan_id = $2)) \
             order by coalesce(s.undone_at, s.received_at) desc, s.scan_id desc limit $3"
        );
        self.list_traced(statement, event_id, after, limit).await
    }

    async fn list_conflicts(&self, event_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Conflict>> {
        let statement = select_traced!(
            "s.offline_result",
            "s.offline_result = 'accepted' and s.result <> 'accepted' \
             and ($2 is null or (s.received_at, s.scan_id) < \
             (select l.received_at, l.scan_id from scans l where l.scan_id = $2)) \
             order by s.received_at desc, s.scan_id desc limit $3"
        );
        self.list_traced(statement, event_id, after, limit).await
    }
}

impl Backend {
    /// Runs one of the statements above.
    async fn list_traced<T>(
        &self,
        statement: &'static str,
        event_id: Uuid,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<T>>
    where
        T: for<'r> FromRow<'r, Row> + AsMut<TracedScan>,
    {
        let mut lease = self.long_reader().await?;
        let query = sqlx::query(statement).bind(event_id).bind(after).bind(limit);
        let outcome = query.fetch_all(lease.connection()).await;
        let traced = |row: &Row| -> std::result::Result<T, sqlx::Error> {
            let mut scan = T::from_row(row)?;
            scan.as_mut().ticket = optional_ticket(row)?;
            Ok(scan)
        };
        let outcome = outcome.and_then(|rows| rows.iter().map(traced).collect());
        lease.settle(outcome.map_err(Error::from)).await
    }
}

async fn get_scan(connection: &mut Connection, scan_id: Uuid) -> Result<Option<Scan>> {
    let scan =
        sqlx::query_as(concat!("select ", scan_columns!(), " from scans s where s.scan_id = $1 and ", kept_scan!()))
            .bind(scan_id)
            .fetch_optional(connection)
            .await?;
    Ok(scan)
}

/// Does the same, also for an event that is being deleted: as long as the row exists, its id is taken.
pub(super) async fn get_any_scan(connection: &mut Connection, scan_id: Uuid) -> Result<Option<Scan>> {
    let scan = sqlx::query_as(concat!("select ", scan_columns!(), " from scans s where s.scan_id = $1"))
        .bind(scan_id)
        .fetch_optional(connection)
        .await?;
    Ok(scan)
}

/// Returns the scans with these ids, of any event.
pub(super) async fn find_scans(connection: &mut Connection, scan_ids: &[Uuid]) -> Result<Vec<Scan>> {
    let scans = sqlx::query_as(concat!(
        "select ",
        scan_columns!(),
        " from scans s where ",
        among!("s.scan_id", id_in!("m.value ->> 0"), "$1")
    ))
    .bind(json(&ids(scan_ids))?)
    .fetch_all(connection)
    .await?;
    Ok(scans)
}

/// Returns ids as [`among!`] reads them.
pub(super) fn ids(ids: &[Uuid]) -> Vec<[String; 1]> {
    ids.iter().map(|id| [id.simple().to_string()]).collect()
}

/// Returns the newest accepted scan of a ticket's present use.
async fn newest_accepted(connection: &mut Connection, ticket_id: Uuid) -> Result<Option<Uuid>> {
    let newest = sqlx::query_scalar(concat!(
        "select a.scan_id from scans a join tickets t on t.ticket_id = a.ticket_id where a.ticket_id = $1 \
         and a.result = 'accepted' and a.undone_at is null and ",
        of_this_use!(),
        " order by ",
        newest_first!(),
        " limit 1"
    ))
    .bind(ticket_id)
    .fetch_optional(connection)
    .await?;
    Ok(newest)
}

/// Restores the state of a ticket before its newest accepted scan, which is already marked as undone.
async fn take_back(connection: &mut Connection, ticket: &Ticket, now: Millis) -> Result<()> {
    let before: Vec<Direction> = sqlx::query_scalar(concat!(
        "select a.direction from scans a join tickets t on t.ticket_id = a.ticket_id where a.ticket_id = $1 \
         and a.result = 'accepted' and a.undone_at is null and ",
        of_this_use!(),
        " order by ",
        newest_first!()
    ))
    .bind(ticket.ticket_id)
    .fetch_all(&mut *connection)
    .await?;
    let unused = !before.contains(&Direction::Entry);
    let status = match ticket.status {
        // Nobody has this ticket, so nobody can use it again.
        Status::Used if unused && ticket.walk_up => Status::Revoked,
        Status::Used if unused => Status::Valid,
        status => status,
    };
    sqlx::query(
        "update tickets set status = $2, inside = $3, used_at = $4, changed_at = $5, version = version + 1 \
         where ticket_id = $1",
    )
    .bind(ticket.ticket_id)
    .bind(status)
    // A holder who entered again without leaving, as on another day, is still inside.
    .bind(before.first() == Some(&Direction::Entry))
    .bind(if unused { None } else { ticket.used_at })
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}
