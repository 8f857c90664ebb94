//! Devices that are lost: which keys of codes they may have, and the tickets that are renewed because of it.

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::{BEGIN, Backend, Connection, Db};
use crate::error::Error;
use crate::limits::CLOCKS_APART;
use crate::model::{Action, Millis, Seed, Ticket};
use crate::store::{Act, Author, Losses, Renewal, Result};

type QueryScalar<'q, O> = sqlx::query::QueryScalar<'q, Db, O, <Db as sqlx::Database>::Arguments>;

/// The tickets whose present seed a lost device may know, and which are not renewed for its loss yet: of the events from `$1`
/// to `$2` and the gate `$3`, if it is one, seeds made until `$4`; `$5` is the key, and a used ticket that changed since `$6`
/// may be undone.
macro_rules! due_tickets {
    ($columns:literal, $rest:literal) => {
        concat!(
            "select ",
            $columns,
            " from tickets t join events e on e.event_id = t.event_id and ",
            issued_ticket!(),
            " where t.event_id between $1 and $2 and ($3 is null or t.gate = $3) \
             and coalesce(t.seeded_at, t.created_at) <= $4 \
             and (t.status = 'valid' or t.status = 'used' and (e.reentry <> 'none' or t.changed_at > $6)) \
             and not exists (select 1 from actions a where a.subject_id = $5 and a.ticket_id = t.ticket_id \
             and a.action in ('renewed', 'phone_lost')) ",
            $rest
        )
    };
}

/// What a lost device may know.
struct Loss {
    key_id: Uuid,
    event_id: Option<Uuid>,
    gate: Option<String>,
    /// Seeds that were made until then; none when it never had a manifest.
    until: Option<Millis>,
    undoable_since: Millis,
}

impl Loss {
    /// Reads it and keeps others from renewing for the same loss until the end of the transaction.
    async fn lock(connection: &mut Connection, key_id: Uuid, undoable_since: Millis) -> Result<Self> {
        sqlx::query("update keys set revoked_at = revoked_at where key_id = $1")
            .bind(key_id)
            .execute(&mut *connection)
            .await?;
        type Row = (Option<Uuid>, Option<String>, Option<Millis>, Option<Millis>);
        let (event_id, gate, manifest_at, revoked_at): Row =
            sqlx::query_as("select event_id, gate, manifest_at, revoked_at from keys where key_id = $1")
                .bind(key_id)
                .fetch_optional(connection)
                .await?
                .ok_or(Error::KeyNotFound)?;
        // After the revocation nothing was sent; but whoever made a seed before it may have stamped it later.
        let revoked_at = revoked_at.ok_or_else(|| Error::Internal("a key that is good is not lost".into()))?;
        let until = manifest_at.map(|at| at.min(revoked_at + 2 * CLOCKS_APART));
        Ok(Self { key_id, event_id, gate, until, undoable_since })
    }

    /// Gives a statement with [`due_tickets`] its values.
    fn bind<'q, O>(&'q self, query: QueryScalar<'q, O>) -> QueryScalar<'q, O> {
        let (first, last) = self.event_id.map_or((Uuid::nil(), Uuid::max()), |event_id| (event_id, event_id));
        query
            .bind(first)
            .bind(last)
            .bind(self.gate.as_deref())
            .bind(self.until)
            .bind(self.key_id)
            .bind(self.undoable_since)
    }

    /// Renews one ticket; it may have got another seed since it was found to be due.
    async fn renew(&self, connection: &mut Connection, ticket_id: Uuid, seed: &Seed, author: Author) -> Result<bool> {
        let event_id: Option<Uuid> = sqlx::query_scalar(
            "update tickets set seed = $2, seeded_at = $3, last_step = null, printed_at = null, changed_at = $3, version = version + 1 \
             where ticket_id = $1 and coalesce(seeded_at, created_at) <= $4 returning event_id",
        )
        .bind(ticket_id)
        .bind(seed.0.as_slice())
        .bind(author.now)
        .bind(self.until)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(event_id) = event_id else { return Ok(false) };
        let act = Act::new(Action::Renewed, event_id).ticket(ticket_id).subject(self.key_id);
        record(connection, author, &act).await?;
        Ok(true)
    }

    /// Whether the loss was reported before.
    async fn is_known(&self, connection: &mut Connection) -> Result<bool> {
        let reports: i64 = sqlx::query_scalar(
            "select count(*) from actions where subject_id = $1 and ticket_id is null \
             and action in ('renewed', 'phone_lost')",
        )
        .bind(self.key_id)
        .fetch_one(connection)
        .await?;
        Ok(reports > 0)
    }
}

#[async_trait]
impl Losses for Backend {
    async fn note_manifest(&self, key_id: Uuid, least: Millis, until: Millis) -> Result<bool> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_scalar("select manifest_at from keys where key_id = $1 and revoked_at is null")
            .bind(key_id)
            .fetch_optional(lease.connection())
            .await;
        let noted: Option<Option<Millis>> = lease.settle(outcome.map_err(Error::from)).await?;
        match noted {
            None => return Ok(false),
            Some(noted) if noted.is_some_and(|noted| noted >= least) => return Ok(true),
            Some(_) => {}
        }
        let mut lease = self.writer().await?;
        // Another process may have noted more meanwhile.
        let outcome = sqlx::query(
            "update keys set manifest_at = case when manifest_at > $2 then manifest_at else $2 end \
             where key_id = $1 and revoked_at is null",
        )
        .bind(key_id)
        .bind(until)
        .execute(lease.connection())
        .await;
        let noted = lease.settle(outcome.map_err(Error::from)).await?;
        Ok(noted.rows_affected() > 0)
    }

    async fn renew_tickets(
        &self,
        key_id: Uuid,
        undoable_since: Millis,
        seeds: &[Seed],
        author: Author,
    ) -> Result<Renewal> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let loss = Loss::lock(connection, key_id, undoable_since).await?;
            let due = sqlx::query_scalar(due_tickets!("t.ticket_id", "order by t.ticket_id limit $7"));
            let due: Vec<Uuid> = loss.bind(due).bind(seeds.len() as i64).fetch_all(&mut *connection).await?;
            let mut renewed = 0;
            for (ticket_id, seed) in due.iter().zip(seeds) {
                renewed += i64::from(loss.renew(connection, *ticket_id, seed, author).await?);
            }
            let left = sqlx::query_scalar(due_tickets!("count(*)", ""));
            let remaining = loss.bind(left).fetch_one(&mut *connection).await?;
            if !loss.is_known(connection).await? {
                let count = usize::try_from(renewed + remaining).unwrap_or_default();
                let act = Act::new(Action::PhoneLost, loss.event_id).subject(key_id).count(count);
                record(connection, author, &act).await?;
            }
            Ok(Renewal { renewed, remaining })
        }
        .await;
        lease.settle(outcome).await
    }

    async fn list_renewed(&self, key_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_tickets!(
            "where t.ticket_id in (select a.ticket_id from actions a where a.subject_id = $1 \
             and a.action in ('renewed', 'phone_lost') and a.ticket_id > $2) \
             and t.user_id is not null and t.status <> 'revoked' order by t.ticket_id limit $3"
        ))
        .bind(key_id)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }
}
