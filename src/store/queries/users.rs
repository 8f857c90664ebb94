//! Users: creating, changing, erasing.

use std::time::Instant;

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::issues::{CHUNK, Met, clear_abandoned};
use super::{BEGIN, Backend, Connection, LOCK_USER, unless_unique};
use crate::error::Error;
use crate::model::{Action, Millis, User};
use crate::store::{Act, Author, PersonName, Result, UserChange, UserDetails, Users};

#[async_trait]
impl Users for Backend {
    async fn insert_user(&self, person: &PersonName, details: &UserDetails, author: Author) -> Result<User> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let user_id = Uuid::now_v7();
            record(connection, author, &Act::new(Action::UserCreated, person.event_id).subject(user_id)).await?;
            sqlx::query(
                "insert into users (user_id, event_id, username, full_name, email, created_at) \
                 values ($1, $2, $3, $4, $5, $6)",
            )
            .bind(user_id)
            .bind(person.event_id)
            .bind(&person.username)
            .bind(details.full_name.as_deref())
            .bind(details.email.as_deref())
            .bind(author.now)
            .execute(&mut *connection)
            .await
            .map_err(|error| unless_unique(error, Error::UsernameTaken))?;
            find_user(connection, person).await?.ok_or(Error::UserNotFound)
        }
        .await;
        match lease.settle(outcome).await {
            Err(Error::UsernameTaken) if self.find_user(person).await?.is_none() => {
                // An import is creating a person with this username, or was interrupted after it did.
                clear_abandoned(self, Met::Making(person), author.now).await?;
                Err(Error::ImportInProgress)
            }
            outcome => outcome,
        }
    }

    async fn find_user(&self, person: &PersonName) -> Result<Option<User>> {
        let mut lease = self.reader().await?;
        let outcome = find_user(lease.connection(), person).await;
        lease.settle(outcome).await
    }

    async fn change_user(&self, person: &PersonName, change: &UserChange, author: Author) -> Result<User> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let known = lock_user(connection, person).await?;
            let mut user = known.clone();
            user.full_name = change.full_name.clone().unwrap_or(user.full_name);
            user.email = change.email.clone().unwrap_or(user.email);
            if (&user.full_name, &user.email) != (&known.full_name, &known.email) {
                sqlx::query("update users set full_name = $2, email = $3 where user_id = $1")
                    .bind(user.user_id)
                    .bind(user.full_name.as_deref())
                    .bind(user.email.as_deref())
                    .execute(&mut *connection)
                    .await?;
                record(connection, author, &Act::new(Action::UserChanged, user.event_id).subject(user.user_id)).await?;
            }
            // Even if the name is unchanged: an interrupted call is repeated.
            let told = match (&change.full_name, &change.email) {
                (None, None) => None,
                _ => tell_gates(connection, user.user_id, Uuid::nil(), CHUNK, author.now).await?,
            };
            Ok((user, told))
        }
        .await;
        let (user, mut told) = lease.settle(outcome).await?;
        let mut size = CHUNK;
        while let Some(after) = told {
            let mut lease = self.writer().await?.begin(BEGIN).await?;
            let locked = Instant::now();
            let outcome = tell_gates(lease.connection(), user.user_id, after, size, author.now).await;
            told = lease.settle(outcome).await?;
            size = super::give_way(size, locked.elapsed()).await;
        }
        Ok(user)
    }

    async fn erase_user(&self, person: &PersonName, author: Author) -> Result<()> {
        let user = self.find_user(person).await?.ok_or(Error::UserNotFound)?;
        // Checked again for each chunk of tickets; checked here first, so that a rejected call changes nothing.
        if clear_abandoned(self, Met::IssuingTo(user.user_id), author.now).await? > 0 {
            return Err(Error::ImportInProgress);
        }
        let (mut after, mut size) = (Uuid::nil(), CHUNK);
        loop {
            let mut lease = self.writer().await?.begin(BEGIN).await?;
            let locked = Instant::now();
            let outcome = erase_some(lease.connection(), (person, user.user_id), (after, size), author).await;
            let Some(last) = lease.settle(outcome).await? else { return Ok(()) };
            size = super::give_way(size, locked.elapsed()).await;
            after = last;
        }
    }
}

/// Makes a name known to gates that ask for changes of their list, and to searches, for some of the person's tickets.
/// Returns the last of them if there may be more.
async fn tell_gates(
    connection: &mut Connection,
    user_id: Uuid,
    after: Uuid,
    size: usize,
    now: Millis,
) -> Result<Option<Uuid>> {
    let last = end_of_chunk(connection, user_id, after, size).await?;
    sqlx::query(
        "update tickets set search = null, changed_at = $4, version = version + 1 \
         where user_id = $1 and ticket_id > $2 and ticket_id <= $3",
    )
    .bind(user_id)
    .bind(after)
    .bind(last.unwrap_or(Uuid::max()))
    .bind(now)
    .execute(connection)
    .await?;
    Ok(last)
}

/// Returns the last of this person's next `size` tickets, if there are that many.
async fn end_of_chunk(connection: &mut Connection, user_id: Uuid, after: Uuid, size: usize) -> Result<Option<Uuid>> {
    let last = sqlx::query_scalar(
        "select ticket_id from tickets where user_id = $1 and ticket_id > $2 order by ticket_id limit 1 offset $3",
    );
    Ok(last.bind(user_id).bind(after).bind(size as i64 - 1).fetch_optional(connection).await?)
}

/// Revokes the person's next tickets, removes them as the holder, and returns the last of these tickets; or, if there are
/// fewer, does so for all remaining tickets and erases the person. Each ticket is handled as a whole, so an interrupted
/// call can be repeated.
async fn erase_some(
    connection: &mut Connection,
    (person, user_id): (&PersonName, Uuid),
    (after, size): (Uuid, usize),
    author: Author,
) -> Result<Option<Uuid>> {
    let user = lock_user(connection, person).await?;
    if user.user_id != user_id {
        // Another request has erased the person, and the username was taken again.
        return Err(Error::UserNotFound);
    }
    let last = end_of_chunk(connection, user.user_id, after, size).await?;
    // The last chunk takes all tickets: one may have been registered to the person meanwhile.
    let (after, until) = last.map_or((Uuid::nil(), Uuid::max()), |last| (after, last));
    refuse_while_issued_to(connection, user.user_id, after, until).await?;
    // Tickets first: every scan and undo waits for their locks, so no note can be written after this.
    let tickets: Vec<(Uuid, Uuid)> = sqlx::query_as(concat!(
        "update tickets set status = 'revoked', changed_at = $4, version = version + 1 \
         where user_id = $1 and ticket_id > $2 and ticket_id <= $3 and event_id not in ",
        deleted_events!(),
        " returning ticket_id, event_id"
    ))
    .bind(user.user_id)
    .bind(after)
    .bind(until)
    .bind(author.now)
    .fetch_all(&mut *connection)
    .await?;
    for (ticket_id, event_id) in tickets {
        let act = Act::new(Action::UserErased, event_id).ticket(ticket_id).subject(user.user_id);
        record(connection, author, &act).await?;
    }
    for statement in [
        "update scans set note = null where note is not null \
         and ticket_id in (select ticket_id from tickets where user_id = $1 and ticket_id > $2 and ticket_id <= $3)",
        concat!("update tickets set ", without_holder!(), " where user_id = $1 and ticket_id > $2 and ticket_id <= $3"),
    ] {
        sqlx::query(statement).bind(user.user_id).bind(after).bind(until).execute(&mut *connection).await?;
    }
    if last.is_none() {
        sqlx::query("delete from users where user_id = $1").bind(user.user_id).execute(&mut *connection).await?;
        record(connection, author, &Act::new(Action::UserErased, user.event_id).subject(user.user_id)).await?;
    }
    Ok(last)
}

/// Rejects the call while an import is creating tickets of this user within the chunk, which will become theirs.
async fn refuse_while_issued_to(connection: &mut Connection, user_id: Uuid, after: Uuid, until: Uuid) -> Result<()> {
    let hidden: i64 = sqlx::query_scalar(
        "select count(*) from tickets t join events e on e.event_id = t.event_id \
         where t.user_id = $1 and t.ticket_id > $2 and t.ticket_id <= $3 and t.issue_id = e.issuing",
    )
    .bind(user_id)
    .bind(after)
    .bind(until)
    .fetch_one(connection)
    .await?;
    if hidden == 0 { Ok(()) } else { Err(Error::ImportInProgress) }
}

async fn find_user(connection: &mut Connection, person: &PersonName) -> Result<Option<User>> {
    let user = sqlx::query_as(concat!(
        "select u.user_id, u.event_id, e.slug as event, u.username, u.full_name, u.email, u.created_at \
         from users u left join events e on e.event_id = u.event_id \
         where lower(u.username) = lower($1) and u.event_id is not distinct from $2 and ",
        issued_user!()
    ))
    .bind(&person.username)
    .bind(person.event_id)
    .fetch_optional(connection)
    .await?;
    Ok(user)
}

/// Returns the person if they may hold a ticket of this event: an event's own people hold tickets of no other event.
pub(super) async fn find_holder(connection: &mut Connection, person: &PersonName, event_id: Uuid) -> Result<User> {
    let user = find_user(connection, person).await?;
    user.filter(|user| user.event_id.is_none_or(|own| own == event_id)).ok_or(Error::UserNotFound)
}

/// Locks the person for the rest of the transaction.
async fn lock_user(connection: &mut Connection, person: &PersonName) -> Result<User> {
    sqlx::query(LOCK_USER).bind(&person.username).bind(person.event_id).fetch_optional(&mut *connection).await?;
    find_user(connection, person).await?.ok_or(Error::UserNotFound)
}
