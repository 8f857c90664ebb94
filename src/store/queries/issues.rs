//! Issuing tickets, all of them or none: a few in one transaction; many in short ones, between which others can write.
//!
//! The rows of the short transactions are hidden from every statement until the last transaction shows them: they are
//! hidden while their `issue_id` equals the event's `issuing`. `issuing_since` is the time of the issue's last write;
//! each transaction compares it, so that an issue never has two owners. An interrupted issue is not resumed: the next
//! request that meets it takes it over and deletes its rows.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record_as;
use super::events::clear_stopped;
use super::lists::{correct, find_references};
use super::search::fold_places;
use super::{BEGIN, BEGIN_BRIEF, Backend, Connection, LOCK_EVENT, unless_held};
use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::limits::CLOCKS_APART;
use crate::model::{Action, Millis};
use crate::store::{Act, Author, Created, Issuance, Issues, NewTicket, NewUser, PersonName, Result};

/// The number of tickets in one transaction. With more tickets, each transaction begins with this size, and `give_way`
/// adjusts it.
pub(in crate::store) const CHUNK: usize = 1_000;

/// The maximum number of tickets in one statement when nobody waits for it.
pub(in crate::store) const LARGE_CHUNK: usize = 5_000;

/// The number of new people in one transaction from which on the planner needs new statistics before it looks for them:
/// otherwise it may compare each row with each person.
const MANY_PEOPLE: usize = 100;

/// An issue without a write for this long was interrupted: a transaction that waits for a lock gives up much earlier
/// (`BEGIN_BRIEF`).
const ABANDONED: Duration = Duration::from_secs(30);

/// The rows of a table that belong to one issue or event, in the order of their ids: how to find some of them, and how to
/// delete those or erase what is personal in them.
pub(in crate::store) struct RowsOf {
    pub find: &'static str,
    pub delete: &'static str,
}

/// All rows of a table, visible or hidden, by the column of their owner.
macro_rules! rows_of {
    ($owner:literal, $table:literal, $id:literal) => {
        RowsOf {
            find: concat!(
                "select ",
                $id,
                " from ",
                $table,
                " where ",
                $owner,
                " = $1 and ",
                $id,
                " > $2 order by ",
                $id,
                " limit $3"
            ),
            delete: concat!("delete from ", $table, " where ", $owner, " = $1 and ", $id, " > $2 and ", $id, " <= $3"),
        }
    };
}

#[async_trait]
impl Issues for Backend {
    async fn create_tickets(
        &self,
        event_id: Uuid,
        people_of: Option<Uuid>,
        list: &Issuance,
        author: Author,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Created> {
        let tickets = list.tickets.as_slice();
        clear_abandoned(self, Met::In(event_id), author.now).await?;
        fold_places(self, event_id).await?;
        let (issue_id, started) = (Uuid::now_v7(), Instant::now());
        let mut issue = Issue { event_id, people_of, issue_id, author, started, wrote: author.now };
        let outcome = if tickets.len() > CHUNK {
            issue.in_chunks(self, list, progress).await
        } else {
            issue.at_once(self, list).await
        };
        match outcome {
            Ok(users_created) => {
                progress(tickets.len());
                let new = tickets.iter().filter(|ticket| ticket.holder.is_some()).count();
                let given = list.corrections.iter().filter(|correction| correction.username.is_some()).count();
                let (created, updated) = (tickets.len() as u64, list.corrections.len() as u64);
                Ok(Created { created, registered: (new + given) as u64, users_created, updated, skipped: 0 })
            }
            // Writing without a check first is faster; the check for taken seats follows if there is one.
            Err(Error::SeatTaken(_)) => Err(taken_seats(self, event_id, tickets).await?),
            Err(Error::ImportInProgress) if people_of.is_none() => {
                clear_abandoned(self, Met::MakingPeople, author.now).await?;
                Err(Error::ImportInProgress)
            }
            Err(error) => Err(error),
        }
    }
}

/// The tickets of one request or command, which become visible together.
struct Issue {
    event_id: Uuid,
    people_of: Option<Uuid>,
    /// The id of the action, which marks the rows as those of this issue.
    issue_id: Uuid,
    author: Author,
    started: Instant,
    /// The value of `issuing_since` as long as the issue is ours.
    wrote: Millis,
}

/// Rows to write.
#[derive(Clone, Copy)]
enum Rows<'a> {
    People(&'a [NewUser]),
    Tickets(&'a [NewTicket]),
}

impl Rows<'_> {
    fn len(&self) -> usize {
        match self {
            Self::People(people) => people.len(),
            Self::Tickets(tickets) => tickets.len(),
        }
    }

    /// Returns the first `size` of them, and the rest.
    fn split(self, size: usize) -> (Self, Self) {
        let size = size.min(self.len());
        match self {
            Self::People(people) => (Self::People(&people[..size]), Self::People(&people[size..])),
            Self::Tickets(tickets) => (Self::Tickets(&tickets[..size]), Self::Tickets(&tickets[size..])),
        }
    }
}

impl Issue {
    fn now(&self) -> Millis {
        self.author.now + self.started.elapsed()
    }

    /// Writes the issue in one transaction. Returns the number of people created.
    async fn at_once(&self, backend: &Backend, list: &Issuance) -> Result<u64> {
        let Issuance { people, tickets, .. } = list;
        let mut lease = backend.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(LOCK_EVENT).bind(self.event_id).execute(&mut *connection).await?;
            if !tickets.is_empty() || list.corrections.is_empty() {
                self.record(connection, tickets.len(), self.author.now).await?;
            }
            let users_created = self.write(connection, Rows::People(people)).await?;
            if people.len() >= MANY_PEOPLE {
                super::analyze(connection).await?;
            }
            self.refuse_other_people(connection, tickets).await?;
            self.write(connection, Rows::Tickets(tickets)).await?;
            correct(connection, self.event_id, self.people_of, list, self.author).await?;
            Ok(users_created)
        }
        .await;
        lease.settle(outcome).await
    }

    /// Writes the issue in many transactions. Returns the number of people created.
    async fn in_chunks(
        &mut self,
        backend: &Backend,
        list: &Issuance,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<u64> {
        let Issuance { people, tickets, .. } = list;
        clear_stopped(backend, self.author.now).await;
        self.begin(backend).await?;
        let outcome = async {
            let users_created = self.write_hidden(backend, Rows::People(people), &|_| {}).await?;
            let mut lease = backend.writer().await?;
            let analyzed = super::analyze(lease.connection()).await;
            lease.settle(analyzed).await?;
            let mut lease = backend.reader().await?;
            let others = self.refuse_other_people(lease.connection(), tickets).await;
            lease.settle(others).await?;
            self.write_hidden(backend, Rows::Tickets(tickets), progress).await?;
            self.appear(backend, list).await?;
            Ok(users_created)
        }
        .await;
        if outcome.is_err()
            && let Err(error) = take_back(backend, self.event_id, self.issue_id, None).await
        {
            tracing::warn!(%error, "the rows of a failed import stay hidden until the next import deletes them");
        }
        outcome
    }

    /// Reserves the event for this issue.
    async fn begin(&self, backend: &Backend) -> Result<()> {
        let mut lease = backend.writer().await?;
        let outcome = sqlx::query(
            "update events set issuing = $2, issuing_since = $3 \
             where event_id = $1 and issuing is null and deleted_at is null",
        )
        .bind(self.event_id)
        .bind(self.issue_id)
        .bind(self.wrote)
        .execute(lease.connection())
        .await;
        // If the event was deleted just now, the retry finds that.
        let events = lease.settle(outcome.map_err(Error::from)).await?.rows_affected();
        if events == 1 { Ok(()) } else { Err(Error::ImportInProgress) }
    }

    /// Writes hidden rows, and lets others write in between. Returns the number of rows that were new.
    async fn write_hidden(
        &mut self,
        backend: &Backend,
        rows: Rows<'_>,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<u64> {
        let (mut rest, mut size, mut written) = (rows, CHUNK, 0);
        while rest.len() > 0 {
            let (chunk, after) = rest.split(size);
            let mut lease = backend.writer().await?.begin(BEGIN_BRIEF).await?;
            let (locked, now) = (Instant::now(), self.now());
            let outcome = self.write_ours(lease.connection(), chunk, now).await;
            written += lease.settle(outcome).await?;
            (self.wrote, rest) = (now, after);
            progress(rows.len() - rest.len());
            size = super::give_way(size, locked.elapsed()).await;
        }
        Ok(written)
    }

    /// Writes rows if the issue is still ours.
    async fn write_ours(&self, connection: &mut Connection, rows: Rows<'_>, now: Millis) -> Result<u64> {
        let ours = sqlx::query(
            "update events set issuing_since = $4 where event_id = $1 and issuing = $2 and issuing_since = $3",
        );
        let ours = ours.bind(self.event_id).bind(self.issue_id).bind(self.wrote).bind(now);
        self.must_be_ours(ours.execute(&mut *connection).await?.rows_affected())?;
        self.write(connection, rows).await
    }

    /// Returns the number of rows that were new: people who exist already are not.
    async fn write(&self, connection: &mut Connection, rows: Rows<'_>) -> Result<u64> {
        let Self { event_id, people_of, issue_id, author: Author { now, .. }, .. } = *self;
        match rows {
            Rows::People([]) => Ok(0),
            Rows::People(people) => super::insert_people(connection, people_of, people, issue_id, now).await,
            Rows::Tickets(tickets) => {
                let written = super::insert_tickets(connection, event_id, people_of, tickets, issue_id, now).await;
                written.map_err(refused)?;
                // No constraint checks this: pairs of such seats may exist since 0.1.0.
                if super::find_taken(connection, event_id, tickets, true).await?.is_empty() {
                    Ok(tickets.len() as u64)
                } else {
                    Err(Error::SeatTaken(Vec::new()))
                }
            }
        }
    }

    /// Rejects tickets whose holders are known with another address than theirs. Checked once the holders exist, so that
    /// nobody else can create one of them meanwhile.
    async fn refuse_other_people(&self, connection: &mut Connection, tickets: &[NewTicket]) -> Result<()> {
        let mut errors = Vec::new();
        for (number, chunk) in tickets.chunks(LARGE_CHUNK).enumerate() {
            let written = super::find_other_people(connection, self.people_of, chunk, self.issue_id).await?;
            let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
            let others =
                written.into_iter().filter(|(_, new, known)| !known.as_deref().is_some_and(|known| same(new, known)));
            let index = |(index, ..): (i64, _, _)| (number * LARGE_CHUNK) as i64 + index;
            errors.extend(others.map(|other| FieldError::new(index(other).to_string(), Fault::PersonDiffers)));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidPayload(errors)) }
    }

    /// Makes all written rows visible at once, together with the corrections.
    async fn appear(&self, backend: &Backend, list: &Issuance) -> Result<()> {
        let mut lease = backend.writer().await?.begin(BEGIN_BRIEF).await?;
        let outcome = async {
            let connection = lease.connection();
            super::analyze(connection).await?;
            let ours = sqlx::query(
                "update events set issuing = null, issuing_since = null \
                 where event_id = $1 and issuing = $2 and issuing_since = $3",
            );
            let ours = ours.bind(self.event_id).bind(self.issue_id).bind(self.wrote);
            self.must_be_ours(ours.execute(&mut *connection).await?.rows_affected())?;
            self.record(connection, list.tickets.len(), self.now()).await?;
            correct(connection, self.event_id, self.people_of, list, Author { now: self.now(), ..self.author }).await
        }
        .await;
        lease.settle(outcome).await
    }

    fn must_be_ours(&self, events: u64) -> Result<()> {
        let lost = || Error::DatabaseUnavailable("the import stalled, and another request has rolled it back".into());
        if events == 1 { Ok(()) } else { Err(lost()) }
    }

    async fn record(&self, connection: &mut Connection, tickets: usize, at: Millis) -> Result<()> {
        let act = Act::new(Action::Issued, self.event_id).count(tickets);
        record_as(connection, self.issue_id, Author { now: at, ..self.author }, &act).await
    }
}

/// Translates the error of a failed insert of tickets.
fn refused(error: sqlx::Error) -> Error {
    match error.as_database_error() {
        Some(refusal) if refusal.is_unique_violation() => Error::SeatTaken(Vec::new()),
        // The holder was erased after being created or found, or another import is creating them.
        Some(refusal) if refusal.is_foreign_key_violation() => Error::ImportInProgress,
        _ => unless_held(error, Error::ImportInProgress),
    }
}

/// The issues that a request meets, and no others: a key of one event must not cause work on another event.
pub(super) enum Met<'a> {
    /// The issue in this event.
    In(Uuid),
    /// The issue that is creating this person.
    Making(&'a PersonName),
    /// The issues that are creating people of the installation.
    MakingPeople,
    /// The issues that are creating tickets for this person.
    IssuingTo(Uuid),
}

macro_rules! select_issues {
    ($which:literal) => {
        concat!("select e.event_id, e.issuing, e.issuing_since from events e where e.issuing is not null and ", $which)
    };
}

/// Deletes the rows of interrupted issues. Returns the number of issues in progress.
pub(super) async fn clear_abandoned(backend: &Backend, met: Met<'_>, now: Millis) -> Result<usize> {
    let find = match met {
        Met::In(event_id) => sqlx::query_as(select_issues!("e.event_id = $1")).bind(event_id),
        Met::Making(person) => sqlx::query_as(select_issues!(
            "e.issuing = (select u.issue_id from users u \
             where lower(u.username) = lower($1) and u.event_id is not distinct from $2)"
        ))
        .bind(&person.username)
        .bind(person.event_id),
        // People of an issue are created after it, and so have greater ids.
        Met::MakingPeople => sqlx::query_as(select_issues!(
            "exists (select 1 from users u where u.user_id > e.issuing and u.issue_id = e.issuing and u.event_id is null)"
        )),
        Met::IssuingTo(user_id) => sqlx::query_as(select_issues!(
            "exists (select 1 from tickets t where t.user_id = $1 and t.event_id = e.event_id and t.issue_id = e.issuing)"
        ))
        .bind(user_id),
    };
    let mut lease = backend.reader().await?;
    let outcome = find.fetch_all(lease.connection()).await;
    let issues: Vec<(Uuid, Uuid, Millis)> = lease.settle(outcome.map_err(Error::from)).await?;
    let mut at_work = 0;
    for (event_id, issue_id, wrote) in issues {
        if now - ABANDONED < wrote && wrote <= now + CLOCKS_APART {
            at_work += 1;
        } else {
            take_back(backend, event_id, issue_id, Some(wrote)).await?;
        }
    }
    Ok(at_work)
}

/// Deletes the rows of an issue, and then frees its event. Takes the issue over first, so that it can neither go on nor
/// become visible; if it is visible already, or another request has taken it over, there is nothing to delete.
async fn take_back(backend: &Backend, event_id: Uuid, issue_id: Uuid, wrote: Option<Millis>) -> Result<()> {
    let mut lease = backend.writer().await?;
    let outcome = sqlx::query(
        "update events set issuing_since = issuing_since + 1 \
         where event_id = $1 and issuing = $2 and ($3 is null or issuing_since = $3)",
    )
    .bind(event_id)
    .bind(issue_id)
    .bind(wrote)
    .execute(lease.connection())
    .await;
    if lease.settle(outcome.map_err(Error::from)).await?.rows_affected() == 0 {
        return Ok(());
    }
    // Tickets first, because they refer to their holders. They are searched in their event; people, among those created
    // since the issue began, by their ids.
    for rows in [
        RowsOf {
            find: "select ticket_id from tickets where event_id = (select e.event_id from events e where e.issuing = $1) \
                   and issue_id = $1 and ticket_id > $2 order by ticket_id limit $3",
            delete: "delete from tickets where issue_id = $1 and ticket_id > $2 and ticket_id <= $3",
        },
        RowsOf {
            find: "select user_id from users where issue_id = $1 and user_id > $1 and user_id > $2 \
                   order by user_id limit $3",
            delete: "delete from users where issue_id = $1 and user_id > $2 and user_id <= $3",
        },
    ] {
        delete_in_chunks(backend, issue_id, &rows).await?;
    }
    let mut lease = backend.writer().await?;
    let outcome = sqlx::query("update events set issuing = null, issuing_since = null where issuing = $1")
        .bind(issue_id)
        .execute(lease.connection())
        .await;
    lease.settle(outcome.map_err(Error::from)).await.map(drop)
}

/// Finds the next rows without a lock, because many others may precede them, and then deletes them. Returns the number deleted.
pub(super) async fn delete_in_chunks(backend: &Backend, owner: Uuid, rows: &RowsOf) -> Result<i64> {
    let (mut after, mut size, mut deleted) = (Uuid::nil(), CHUNK, 0);
    loop {
        let mut lease = backend.reader().await?;
        let find = sqlx::query_scalar(rows.find).bind(owner).bind(after).bind(size as i64);
        let outcome = find.fetch_all(lease.connection()).await;
        let found: Vec<Uuid> = lease.settle(outcome.map_err(Error::from)).await?;
        let Some(&last) = found.last() else { return Ok(deleted) };
        let mut lease = backend.writer().await?.begin(BEGIN).await?;
        let locked = Instant::now();
        let delete = sqlx::query(rows.delete).bind(owner).bind(after).bind(last);
        let outcome = delete.execute(lease.connection()).await;
        deleted += lease.settle(outcome.map_err(Error::from)).await?.rows_affected() as i64;
        size = super::give_way(size, locked.elapsed()).await;
        after = last;
    }
}

/// Returns the error that names the tickets whose seats or references are taken.
async fn taken_seats(backend: &Backend, event_id: Uuid, tickets: &[NewTicket]) -> Result<Error> {
    let mut lease = backend.reader().await?;
    let outcome = super::find_taken(lease.connection(), event_id, tickets, false).await;
    let seats = lease.settle(outcome.map_err(Error::from)).await?;
    let references = find_references(backend, event_id, tickets).await?;
    if seats.is_empty() && references.is_empty() {
        // Another import has taken them, and may yet release them.
        return Ok(Error::ImportInProgress);
    }
    let taken = |index: i64| FieldError::new(index.to_string(), Fault::SeatTaken);
    let referred = |index: usize| FieldError::new(index.to_string(), Fault::ReferenceTaken);
    Ok(Error::SeatTaken(seats.into_iter().map(taken).chain(references.into_iter().map(referred)).collect()))
}
