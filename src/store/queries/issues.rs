//! Issuing tickets, all of them or none: a few in one transaction; many in short ones, between which others write too.
//!
//! What the short ones write is hidden from every statement until a last one makes it appear: its `issue_id` is the
//! event's `issuing`. `issuing_since` is when whoever issues wrote last; each transaction compares it, so that an issue
//! is never in two hands. Nobody who was stopped comes back to it: the next who meets it takes it over, and deletes what
//! it has written so far.

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

/// Tickets that are written by one transaction; of more, each has so many at first, and then what `give_way` says.
pub(in crate::store) const CHUNK: usize = 1_000;

/// Tickets that one statement may be about where nobody waits for it.
pub(in crate::store) const LARGE_CHUNK: usize = 5_000;

/// New people of one transaction from whose number on the planner must know of them before it looks for them: else it may
/// compare each line with each person.
const MANY_PEOPLE: usize = 100;

/// Who has not written for so long was stopped: a transaction that waits for others gives up long before (`BEGIN_BRIEF`).
const ABANDONED: Duration = Duration::from_secs(30);

/// The rows of a table that belong to one issue or event, in the order of their ids: how to find some, how to delete those, or what of
/// them is to go.
pub(in crate::store) struct RowsOf {
    pub find: &'static str,
    pub delete: &'static str,
}

/// All rows of a table, the seen and the hidden, by the column that says to what they belong.
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
            // To write without asking first is faster; which seats are taken is asked when one is.
            Err(Error::SeatTaken(_)) => Err(taken_seats(self, event_id, tickets).await?),
            Err(Error::ImportInProgress) if people_of.is_none() => {
                clear_abandoned(self, Met::MakingPeople, author.now).await?;
                Err(Error::ImportInProgress)
            }
            Err(error) => Err(error),
        }
    }
}

/// The tickets that one request or one command makes, which appear together.
struct Issue {
    event_id: Uuid,
    people_of: Option<Uuid>,
    /// The action, by which the rows are known as this issue's.
    issue_id: Uuid,
    author: Author,
    started: Instant,
    /// What `issuing_since` is as long as the issue is ours.
    wrote: Millis,
}

/// What an issue writes.
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

    /// The first of them, and the rest.
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

    /// Returns how many people were made.
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

    /// Returns how many people were made.
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
            tracing::warn!(%error, "what an import had written stays hidden until the next one deletes it");
        }
        outcome
    }

    /// Takes the event for this issue.
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
        // An event that was deleted just now is told by the next try.
        let events = lease.settle(outcome.map_err(Error::from)).await?.rows_affected();
        if events == 1 { Ok(()) } else { Err(Error::ImportInProgress) }
    }

    /// Writes rows that nobody sees yet, and lets others write in between. Returns how many there were to write.
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

    /// Returns how many there were to write: a person who is there already is not.
    async fn write(&self, connection: &mut Connection, rows: Rows<'_>) -> Result<u64> {
        let Self { event_id, people_of, issue_id, author: Author { now, .. }, .. } = *self;
        match rows {
            Rows::People([]) => Ok(0),
            Rows::People(people) => super::insert_people(connection, people_of, people, issue_id, now).await,
            Rows::Tickets(tickets) => {
                let written = super::insert_tickets(connection, event_id, people_of, tickets, issue_id, now).await;
                written.map_err(refused)?;
                // No constraint tells: there may be such pairs since 0.1.0.
                if super::find_taken(connection, event_id, tickets, true).await?.is_empty() {
                    Ok(tickets.len() as u64)
                } else {
                    Err(Error::SeatTaken(Vec::new()))
                }
            }
        }
    }

    /// Refuses tickets whose holders are known with another address than they come with. Asked when the holders are
    /// there, so that nobody else can make one of them meanwhile.
    async fn refuse_other_people(&self, connection: &mut Connection, tickets: &[NewTicket]) -> Result<()> {
        let mut errors = Vec::new();
        for (number, chunk) in tickets.chunks(LARGE_CHUNK).enumerate() {
            let written = super::find_other_people(connection, self.people_of, chunk, self.issue_id).await?;
            let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
            let others =
                written.into_iter().filter(|(_, new, known)| !known.as_deref().is_some_and(|known| same(new, known)));
            let place = |(place, ..): (i64, _, _)| (number * LARGE_CHUNK) as i64 + place;
            errors.extend(others.map(|other| FieldError::new(place(other).to_string(), Fault::PersonDiffers)));
        }
        if errors.is_empty() { Ok(()) } else { Err(Error::InvalidPayload(errors)) }
    }

    /// Makes all that was written appear, at once, and what is corrected with it.
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
        let lost =
            || Error::DatabaseUnavailable("the import stood still, and another request has taken it back".into());
        if events == 1 { Ok(()) } else { Err(lost()) }
    }

    async fn record(&self, connection: &mut Connection, tickets: usize, at: Millis) -> Result<()> {
        let act = Act::new(Action::Issued, self.event_id).count(tickets);
        record_as(connection, self.issue_id, Author { now: at, ..self.author }, &act).await
    }
}

/// Why tickets could not be written.
fn refused(error: sqlx::Error) -> Error {
    match error.as_database_error() {
        Some(refusal) if refusal.is_unique_violation() => Error::SeatTaken(Vec::new()),
        // The holder was erased since they were made or found, or is one whom another import is making.
        Some(refusal) if refusal.is_foreign_key_violation() => Error::ImportInProgress,
        _ => unless_held(error, Error::ImportInProgress),
    }
}

/// The issues that a request meets, and no others: what a key of one event sends is no reason to work for another.
pub(super) enum Met<'a> {
    /// Those in this event.
    In(Uuid),
    /// The one that is making this person.
    Making(&'a PersonName),
    /// Those that are making people of the whole installation.
    MakingPeople,
    /// Those that are making tickets of this person.
    IssuingTo(Uuid),
}

macro_rules! select_issues {
    ($which:literal) => {
        concat!("select e.event_id, e.issuing, e.issuing_since from events e where e.issuing is not null and ", $which)
    };
}

/// Deletes what the issues have written that were stopped. Returns how many are at work.
pub(super) async fn clear_abandoned(backend: &Backend, met: Met<'_>, now: Millis) -> Result<usize> {
    let find = match met {
        Met::In(event_id) => sqlx::query_as(select_issues!("e.event_id = $1")).bind(event_id),
        Met::Making(person) => sqlx::query_as(select_issues!(
            "e.issuing = (select u.issue_id from users u \
             where lower(u.username) = lower($1) and u.event_id is not distinct from $2)"
        ))
        .bind(&person.username)
        .bind(person.event_id),
        // An issue's people are made after it, and so are their ids.
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

/// Deletes what an issue has written, and then frees its event. Takes the issue over first, so that it neither goes on
/// nor appears; when it has appeared already, or is another's by now, there is nothing to delete.
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
    // The tickets first: they name their holders. They are found among their event's, and the people among those who were
    // made since the issue began, as their ids tell.
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

/// Looks for the next rows without a lock, for there may be many others before them, and then deletes them. Returns how many.
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

/// Which of these tickets are there already.
async fn taken_seats(backend: &Backend, event_id: Uuid, tickets: &[NewTicket]) -> Result<Error> {
    let mut lease = backend.reader().await?;
    let outcome = super::find_taken(lease.connection(), event_id, tickets, false).await;
    let places = lease.settle(outcome.map_err(Error::from)).await?;
    let references = find_references(backend, event_id, tickets).await?;
    if places.is_empty() && references.is_empty() {
        // Another import has taken them, and may yet give them back.
        return Ok(Error::ImportInProgress);
    }
    let taken = |place: i64| FieldError::new(place.to_string(), Fault::SeatTaken);
    let referred = |place: usize| FieldError::new(place.to_string(), Fault::ReferenceTaken);
    Ok(Error::SeatTaken(places.into_iter().map(taken).chain(references.into_iter().map(referred)).collect()))
}
