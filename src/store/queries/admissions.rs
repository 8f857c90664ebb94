//! The reads and writes of a decision at the gate. It writes the scan, and the mark on its ticket.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use sqlx::Row as _;
use uuid::Uuid;

use super::actions::record_as;
use super::scans::{find_scans, get_any_scan, ids};
use super::search::fold_places;
use super::tickets::{find_read_at, find_tickets, list_party, optional_ticket};
use super::{
    BEGIN, Backend, Connection, Db, LOCK_EVENT, Lease, Pool, Row, bind_asked, is_foreign_key_violation,
    is_serialization_failure, is_unique_violation, json, record_accepted, record_many, unless_unique,
};
use crate::admission::{ATTEMPTS, FUTURE_TOLD};
use crate::error::Error;
use crate::limits::KEY_ATTEMPTS;
use crate::model::{Action, Direction, Millis, Scan, ScanResult, Seed, Status, Ticket};
use crate::store::together::Together;
use crate::store::{
    Act, Admissions, Author, Guarded, Guesses, Mark, NewTicket, Recorded, Result, ScanContext, TicketName, Voucher,
    WalkUps,
};

/// Counts the codes of a ticket that were refused since a moment, except those of offline gates. Counts none if `$since`
/// is null.
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

/// Counts the codes of a key that were refused since a moment, those of offline gates included. Counts none if `$since`
/// is null.
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

/// Whether few enough codes of the ticket and of the key were refused for a scan to be written. Without arguments, takes
/// the parameters of [`bind_scan`].
macro_rules! few_refusals {
    () => {
        few_refusals!("$3", "$22", "$23", "$18", "$24", "$25", "$26")
    };
    ($ticket:literal, $ticket_since:literal, $of_ticket:literal, $key:literal, $key_since:literal, $of_key:literal,
     $until:literal) => {
        concat!(
            count_refusals!($ticket, $ticket_since, $until),
            " <= ",
            $of_ticket,
            " and ",
            count_refusals_of_key!($key, $key_since, $until),
            " < ",
            $of_key
        )
    };
}

/// Reads what a decision needs. There is no row if there is no such event. A ticket named by seat and gate matches exactly.
/// `$scanned` are the columns that come from the ticket's scans and its voucher, `$joins` the joins for them.
macro_rules! select_contexts {
    ($scanned:expr, $joins:expr, $place:literal, $from:literal, $event:literal, $scan_id:literal, $key_id:literal,
     $of_key_since:literal, $until:literal, $ticket_id:literal, $seat:literal, $gate:literal) => {
        concat!(
            "select ",
            $place,
            " as place, e.event_id as of_event_id, e.time_zone, e.opens_at, e.closes_at, e.reentry, ",
            own_ticket_columns!(),
            ", ",
            $scanned,
            ", ",
            count_refusals_of_key!($key_id, $of_key_since, $until),
            " as key_refusals, ",
            fingerprint!(),
            ", (select p.scan_id from scans p where p.scan_id = ",
            $scan_id,
            ") is not null as is_known, (select p.ticket_id from tickets p where p.user_id = t.user_id \
             and p.event_id = t.event_id and p.ticket_id <> t.ticket_id and ",
            may_be_admitted!("p"),
            " limit 1) is not null as in_company from ",
            $from,
            " left join tickets t on t.event_id = e.event_id and ",
            issued_ticket!(),
            " and t.ticket_id = coalesce(",
            $ticket_id,
            ", (select i.ticket_id from tickets i where i.event_id = e.event_id and i.seat = ",
            $seat,
            " and i.gate = ",
            $gate,
            "))",
            $joins,
            " left join users u on u.user_id = t.user_id where e.slug = ",
            $event,
            " and e.deleted_at is null"
        )
    };
}

/// Reads all that a decision needs of a ticket that was never scanned, as most are, and whether it was. PostgreSQL
/// prepares each of a statement's subqueries for each execution, whether it reads a row or not.
macro_rules! select_fresh_contexts {
    ($of_ticket_since:literal, $vouched_by:literal, $($parameters:literal),+) => {
        select_contexts!(
            "(select a.scan_id from scans a where a.ticket_id = t.ticket_id limit 1) is not null as is_scanned, \
             case when e.reentry = 'none' then t.used_at end as entered_at, cast(0 as bigint) as refusals, \
             cast(null as bigint) as newest_accepted_at, false as has_admitted, cast(null as text) as first_used_gate, \
             cast(null as bigint) as vouched_at, cast(null as text) as vouched_gate, false as voucher_admitted",
            "",
            $($parameters),+
        )
    };
}

/// Reads all that a decision needs. The scan that is to vouch for the ticket, `v`, must be of the same key and of another
/// ticket of the same holder. A scan that was vouched for itself cannot vouch: every chain of admissions begins with a
/// code or a supervisor.
macro_rules! select_scanned_contexts {
    ($of_ticket_since:literal, $vouched_by:literal, $place:literal, $from:literal, $event:literal, $scan_id:literal,
     $key_id:literal, $of_key_since:literal, $until:literal, $($ticket:literal),+) => {
        select_contexts!(
            concat!(
                last_entry!(),
                ", ",
                count_refusals!("t.ticket_id", $of_ticket_since, $until),
                " as refusals, (select max(a.decided_at) from scans a where a.ticket_id = t.ticket_id \
                 and a.result = 'accepted' and a.undone_at is null and ",
                of_this_use!(),
                ") as newest_accepted_at, (select a.scan_id from scans a where a.ticket_id = t.ticket_id \
                 and a.result = 'accepted' and a.undone_at is null limit 1) is not null as has_admitted, ",
                first_use!(),
                ", v.decided_at as vouched_at, w.gate as vouched_gate, coalesce(v.result = 'accepted' \
                 and v.direction = 'entry' and v.undone_at is null and v.vouched_by is null, false) as voucher_admitted"
            ),
            concat!(
                " left join scans v on v.scan_id = ",
                $vouched_by,
                " and v.event_id = e.event_id and ",
                key_or_environment!("v.key_id"),
                " = ",
                key_or_environment!($key_id),
                " left join tickets w on w.ticket_id = v.ticket_id and w.user_id = t.user_id and w.ticket_id <> t.ticket_id"
            ),
            $place, $from, $event, $scan_id, $key_id, $of_key_since, $until, $($ticket),+
        )
    };
}

/// A statement for one question, which [`bind_one`] binds, and the same for each of the `asked`.
struct ForOneAndMany(&'static str, &'static str);

macro_rules! for_one_and_many {
    ($select:ident) => {
        ForOneAndMany(
            $select!("$3", "$10", "cast(0 as bigint)", "events e", "$1", "$2", "$4", "$5", "$6", "$7", "$8", "$9"),
            concat!(
                "with ",
                asked!(),
                " ",
                $select!(
                    "n.of_ticket_since",
                    "n.vouched_by",
                    "n.place",
                    "n cross join events e",
                    "n.event",
                    "n.scan_id",
                    "n.key_id",
                    "n.of_key_since",
                    "n.until",
                    "n.ticket_id",
                    "n.seat",
                    "n.gate"
                )
            ),
        )
    };
}

const SELECT_FRESH_CONTEXTS: ForOneAndMany = for_one_and_many!(select_fresh_contexts);
const SELECT_SCANNED_CONTEXTS: ForOneAndMany = for_one_and_many!(select_scanned_contexts);

/// The question of one decision.
pub struct Asked {
    pub event: String,
    pub scan_id: Uuid,
    pub guesses: Guesses,
    pub ticket_id: Option<Uuid>,
    /// Seat and gate, for a ticket that is not named by its id.
    pub seat: Option<(String, String)>,
    pub vouched_by: Option<Uuid>,
}

impl Asked {
    fn new(event: &str, ticket: &TicketName<'_>, scan_id: Uuid, guesses: &Guesses) -> Self {
        let (ticket_id, seat, vouched_by) = match *ticket {
            TicketName::Id(ticket_id) => (Some(ticket_id), None, None),
            TicketName::Seat { seat, gate } => (None, Some((seat.to_owned(), gate.to_owned())), None),
            TicketName::OfParty { ticket_id, vouched_by } => (Some(ticket_id), None, Some(vouched_by)),
            TicketName::None => (None, None, None),
        };
        Self { event: event.to_owned(), scan_id, guesses: *guesses, ticket_id, seat, vouched_by }
    }
}

/// The answer for one decision, and whether there is more to read for it.
pub struct Found {
    context: ScanContext,
    /// Whether a scan with this `scan_id` exists.
    is_known: bool,
    /// Whether the ticket's holder has other tickets that might be admitted.
    in_company: bool,
}

/// Whether an admission waits for another transaction's lock on its ticket or event, or skips it. On SQLite there is no
/// such lock after `begin immediate`.
pub enum Locked {
    Wait,
    Skip,
}

/// An admission to be written.
pub struct Admitted {
    pub scan: Scan,
    pub mark: Mark,
    pub guesses: Guesses,
}

impl Admitted {
    /// A batch writes one admission of each ticket. Of two with the same id, the second has to learn that the id is taken.
    fn apart(&self, other: &Self) -> bool {
        self.scan.scan_id == other.scan.scan_id || self.scan.ticket_id == other.scan.ticket_id
    }
}

/// The reads and writes of scans, each batched with others that arrive at the same time.
pub struct Scanning {
    reading: Together<Asked, Result<Option<Found>>>,
    writing: Together<Admitted, Result<()>>,
}

impl Scanning {
    pub fn new(readers: &Pool<Db>, writer: &Pool<Db>) -> Self {
        let (readers, writer) = (readers.clone(), writer.clone());
        let read = move |asked: Vec<Asked>| {
            let readers = readers.clone();
            async move {
                let found = async { read_all(readers.lease().await?, &asked).await }.await;
                shared(found.map(|found| found.into_iter().map(Some)), asked.len())
            }
            .boxed()
        };
        let write = move |admitted: Vec<Admitted>| {
            let writer = writer.clone();
            async move {
                let written = async { write_all(writer.lease().await?, &admitted).await }.await;
                shared(written, admitted.len())
            }
            .boxed()
        };
        Self {
            reading: Together::new(|_, _| false, Box::new(read)),
            writing: Together::new(Admitted::apart, Box::new(write)),
        }
    }
}

/// Distributes the outcome of a batch. That the database is unavailable concerns all callers; any other error may be the
/// fault of one question, so each is tried alone.
fn shared<T>(outcome: Result<impl IntoIterator<Item = Option<T>>>, count: usize) -> Vec<Option<Result<T>>> {
    match outcome {
        Ok(answers) => answers.into_iter().map(|answer| answer.map(Ok)).collect(),
        Err(Error::DatabaseUnavailable(why)) => {
            (0..count).map(|_| Some(Err(Error::DatabaseUnavailable(why.clone())))).collect()
        }
        Err(_) => Vec::new(),
    }
}

/// Reads what each decision needs: `None` if there is no such event.
async fn read_all(mut lease: Lease<Db>, asked: &[Asked]) -> Result<Vec<Option<Found>>> {
    let outcome = read_contexts(lease.connection(), asked).await;
    lease.settle(outcome.map_err(Error::from)).await
}

/// Writes admissions. One that is not written, because its ticket has changed or is locked by another transaction, has to
/// be tried alone.
async fn write_all(mut lease: Lease<Db>, admitted: &[Admitted]) -> Result<Vec<Option<()>>> {
    let connection = lease.connection();
    let outcome = match admitted {
        [Admitted { scan, mark, guesses }] => {
            match record_accepted(connection, scan, mark, guesses, Locked::Skip).await {
                Ok(0) => Ok(Vec::new()),
                outcome => outcome.map(|_| vec![scan.scan_id]),
            }
        }
        many => record_many(connection, many).await,
    };
    let written = match outcome {
        // One of them caused it.
        Err(error)
            if is_unique_violation(&error) || is_foreign_key_violation(&error) || is_serialization_failure(&error) =>
        {
            lease.settle(Err(Error::ScanContended)).await
        }
        outcome => lease.settle(outcome.map_err(Error::from)).await,
    }?;
    Ok(admitted.iter().map(|one| written.contains(&one.scan.scan_id).then_some(())).collect())
}

/// The beginning of every statement that writes a scan, with the values that [`bind_scan`] binds as `$1` to `$21`. It
/// writes no scan of an event that was deleted meanwhile, and no note, which may be about a person, to an event that has
/// forgotten its people.
macro_rules! insert_scan {
    ($lock:expr) => {
        concat!(
            "insert into scans (scan_id, event_id, ticket_id, presented, at_gate, direction, result, offline_result, \
             manual, note, vouched_by, seconds_off, first_used_at, first_used_gate, scanned_at, received_at, decided_at, key_id, \
             ticket_version, opens_at, closed_at) \
             select $1, e.event_id, $3, $4, $5, $6, $7, $8, $9, case when e.forgotten_at is null then $10 end, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21 \
             from (select event_id, forgotten_at from events where event_id = $2 and deleted_at is null",
            $lock,
            ") as e"
        )
    };
}

/// Writes a scan unless too many codes were refused.
const INSERT_SCAN: &str = concat!(insert_scan!(key_share!()), " where ", few_refusals!());

/// [`few_refusals!`] for an admission `n`, whose code is not of the future, with the limits of the ticket and of the key.
macro_rules! few_refusals_of_admitted {
    ($of_ticket:literal, $of_key:literal) => {
        few_refusals!("n.ticket_id", "n.of_ticket_since", $of_ticket, "n.key_id", "n.of_key_since", $of_key, "n.until")
    };
}

/// The beginning of a statement that writes the scans of admissions `n`. `$forgotten_at` is the column with the time at
/// which the event of each forgot its people, if it did.
macro_rules! insert_admitted {
    ($forgotten_at:literal) => {
        concat!(
            "insert into scans (scan_id, event_id, ticket_id, presented, at_gate, direction, result, offline_result, \
             manual, note, vouched_by, scanned_at, received_at, decided_at, key_id, ticket_version) \
             select n.scan_id, n.event_id, n.ticket_id, n.presented, n.at_gate, n.direction, 'accepted', n.offline_result, \
             n.manual, case when ",
            $forgotten_at,
            " is null then n.note end, n.vouched_by, n.scanned_at, n.received_at, n.decided_at, n.key_id, n.version + 1"
        )
    };
}

/// Binds the values of a scan, and after them since when refused codes count and how many are allowed: `$22` and `$23` of
/// the ticket, `$24` and `$25` of the key; and until when they count, `$26`.
pub fn bind_scan<'q>(
    query: sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>,
    scan: &'q Scan,
    ticket_version: Option<i64>,
    guesses: &Guesses,
) -> sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments> {
    // Scans sent all at once must not learn more often that a code is of the future than scans sent one by one.
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
        let mut found = self.read_one(event, ticket, scan_id, guesses).await?;
        // If no ticket has exactly this seat and gate, try the only one whose seat and gate people read the same.
        if let (
            Some(Found { context: ScanContext { ticket: None, event_id, .. }, .. }),
            TicketName::Seat { seat, gate },
        ) = (&found, ticket)
            && let Some(ticket_id) = self.read_at(*event_id, seat, gate).await?
        {
            found = self.read_one(event, &TicketName::Id(ticket_id), scan_id, guesses).await?;
        }
        let Some(Found { mut context, is_known, in_company }) = found else { return Ok(None) };
        if is_known || in_company {
            let mut lease = self.reader().await?;
            let outcome = read_more(lease.connection(), &mut context, is_known.then_some(scan_id), in_company).await;
            lease.settle(outcome).await?;
        }
        Ok(Some(Guarded::new(context.event_id, context)))
    }

    async fn record_scan(&self, scan: &Scan, mark: Option<&Mark>, guesses: &Guesses) -> Result<Recorded> {
        if let Some(mark) = mark {
            let admitted = Admitted { scan: scan.clone(), mark: *mark, guesses: *guesses };
            if let Some(written) = self.scanning().await?.writing.ask(admitted).await {
                return written.map(|()| Recorded::Done);
            }
        }
        let mut lease = self.writer().await?;
        let outcome = match mark {
            Some(mark) => record_accepted(lease.connection(), scan, mark, guesses, Locked::Wait).await,
            None if scan.result.refuses_the_code() => {
                lease = lease.begin(BEGIN).await?;
                super::lock_guesses(lease.connection(), scan).await?;
                record_refused(lease.connection(), scan, guesses).await
            }
            None if scan.result.needs_the_code() => record_refused(lease.connection(), scan, guesses).await,
            // A scan that is refused before its code is checked has no limit.
            None => record_refused(lease.connection(), scan, &Guesses::default()).await,
        };
        let outcome = match outcome {
            Ok(0) => Ok(Recorded::Outdated),
            Ok(_) => Ok(Recorded::Done),
            Err(error) if is_unique_violation(&error) => Ok(Recorded::ScanIdTaken),
            // The event was deleted, and its ticket with it: a retry finds that.
            Err(error) if is_foreign_key_violation(&error) => Ok(Recorded::Outdated),
            Err(error) if is_serialization_failure(&error) => Ok(Recorded::Outdated),
            Err(error) => Err(Error::from(error)),
        };
        lease.settle(outcome).await
    }

    async fn admit_walk_ups(&self, walk_ups: &WalkUps, author: Author) -> Result<()> {
        // Seats are compared by their keys, which those of an older release lack.
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

impl Backend {
    /// Reads what one decision needs, in a batch with others.
    async fn read_one(
        &self,
        event: &str,
        ticket: &TicketName<'_>,
        scan_id: Uuid,
        guesses: &Guesses,
    ) -> Result<Option<Found>> {
        let asked = || Asked::new(event, ticket, scan_id, guesses);
        match self.scanning().await?.reading.ask(asked()).await {
            Some(found) => found,
            None => Ok(read_all(self.reader().await?, &[asked()]).await?.pop().flatten()),
        }
    }

    async fn read_at(&self, event_id: Uuid, seat: &str, gate: &str) -> Result<Option<Uuid>> {
        let mut lease = self.reader().await?;
        let outcome = find_read_at(lease.connection(), event_id, seat, gate).await;
        lease.settle(outcome).await
    }
}

/// The version of a ticket that was created and marked in the same transaction.
const NEWLY_MARKED: i64 = 2;

/// Returns tickets for walk-ups, at free seats. Under the event's lock, only an import in progress can take one of these.
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
        let Some(index) = taken.last() else { return Ok(tickets) };
        last += index + 1;
    }
}

/// Marks new tickets as those of walk-ups, who are inside.
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

/// Returns the scan that admits a walk-up with a new ticket. The first one vouches for the others.
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

/// Reads what each decision needs, in their order.
async fn read_contexts(
    connection: &mut Connection,
    asked: &[Asked],
) -> std::result::Result<Vec<Option<Found>>, sqlx::Error> {
    let mut all: Vec<Option<Found>> = asked.iter().map(|_| None).collect();
    let (mut scanned, fresh): (Vec<_>, _) = (0..asked.len()).partition(|place| asked[*place].vouched_by.is_some());
    for (place, row) in select(connection, &SELECT_FRESH_CONTEXTS, asked, &fresh).await? {
        if row.try_get("is_scanned")? {
            scanned.push(place);
        } else {
            all[place] = Some(found(&row, &asked[place])?);
        }
    }
    for (place, row) in select(connection, &SELECT_SCANNED_CONTEXTS, asked, &scanned).await? {
        all[place] = Some(found(&row, &asked[place])?);
    }
    Ok(all)
}

/// Returns the rows that answer the questions at these places, each with its place.
async fn select(
    connection: &mut Connection,
    statements: &ForOneAndMany,
    asked: &[Asked],
    places: &[usize],
) -> std::result::Result<Vec<(usize, Row)>, sqlx::Error> {
    let chosen: Vec<&Asked> = places.iter().map(|place| &asked[*place]).collect();
    let rows = match chosen[..] {
        [] => return Ok(Vec::new()),
        [one] => bind_one(sqlx::query(statements.0), one).fetch_all(connection).await?,
        _ => bind_asked(sqlx::query(statements.1), &chosen)?.fetch_all(connection).await?,
    };
    let placed = |row: Row| {
        let index: i64 = row.try_get("place")?;
        let index = usize::try_from(index).map_err(|error| sqlx::Error::Decode(error.into()))?;
        Ok((places[index], row))
    };
    rows.into_iter().map(placed).collect()
}

fn found(row: &Row, asked: &Asked) -> std::result::Result<Found, sqlx::Error> {
    Ok(Found {
        context: scan_context(row)?,
        is_known: row.try_get("is_known")?,
        in_company: asked.vouched_by.is_none() && row.try_get("in_company")?,
    })
}

/// Binds the values of one question.
fn bind_one<'q>(
    query: sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>,
    asked: &'q Asked,
) -> sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments> {
    let Asked { event, scan_id, guesses, ticket_id, seat, vouched_by } = asked;
    let (seat, gate) = seat.as_ref().map(|(seat, gate)| (seat.as_str(), gate.as_str())).unzip();
    query
        .bind(event)
        .bind(scan_id)
        .bind(guesses.of_ticket_since)
        .bind(guesses.key_id)
        .bind(guesses.of_key_since)
        .bind(guesses.until)
        .bind(ticket_id)
        .bind(seat)
        .bind(gate)
        .bind(vouched_by)
}

/// Reads what few decisions need: the scan that already has this id, and the holder's other tickets.
async fn read_more(
    connection: &mut Connection,
    context: &mut ScanContext,
    known: Option<Uuid>,
    in_company: bool,
) -> Result<()> {
    if let Some(scan_id) = known {
        context.prior = get_any_scan(connection, scan_id).await?;
    }
    if let (true, Some(ticket)) = (in_company, &context.ticket) {
        context.party = list_party(connection, ticket).await?;
    }
    Ok(())
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
        voucher: voucher(row)?,
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

/// Writes a scan that admits nobody. Returns the number of rows written.
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
