//! Lost devices: which code keys they may have, and the tickets that are renewed because of that.

use std::time::Instant;

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::{BEGIN, Backend, Connection, Db};
use crate::error::Error;
use crate::fold;
use crate::limits::{CLOCKS_APART, NOTED_AHEAD};
use crate::model::{Action, Millis, Seed, Ticket};
use crate::store::{Act, Author, Losses, NewSeed, Renewal, Result};

type QueryAs<'q, O> = sqlx::query::QueryAs<'q, Db, O, <Db as sqlx::Database>::Arguments>;

/// The number of tickets renewed in one transaction: a scan of one of them waits until it ends.
const CHUNK: usize = 100;

/// The tickets whose present seed a lost device may know, and that were not yet renewed for its loss: of the events from
/// `$1` to `$3`, after the ticket `$2`, of the gate with the key `$4` if that is not null, with seeds made up to `$5`.
/// `$6` is the key of the device, and a used ticket that changed since `$7` may be undone. `limit` keeps the inner
/// statement one index lookup per ticket: PostgreSQL would make a join of `not exists`, and as long as it has no
/// statistics of the new actions compare each ticket with each of them.
macro_rules! due_tickets {
    ($columns:literal, $rest:literal) => {
        concat!(
            "select ",
            $columns,
            " from tickets t join events e on e.event_id = t.event_id and ",
            issued_ticket!(),
            " where (t.event_id, t.ticket_id) > ($1, $2) and t.event_id <= $3 and ($4 is null or t.gate_key is null or t.gate_key = $4) \
             and coalesce(t.seeded_at, t.created_at) <= $5 \
             and (t.status = 'valid' or t.status = 'used' and (e.reentry <> 'none' or t.changed_at > $7)) \
             and not coalesce((select true from actions a where a.subject_id = $6 and a.ticket_id = t.ticket_id \
             and a.action in ('renewed', 'phone_lost') limit 1), false) ",
            $rest
        )
    };
}

/// What a lost device may know.
struct Loss {
    key_id: Uuid,
    event_id: Option<Uuid>,
    gate: Option<String>,
    /// It may know seeds made up to this time; none if it never had a manifest.
    until: Option<Millis>,
    undoable_since: Millis,
}

impl Loss {
    async fn read(connection: &mut Connection, key_id: Uuid, undoable_since: Millis) -> Result<Self> {
        type Row = (Option<Uuid>, Option<String>, Option<Millis>, Option<Millis>);
        let (event_id, gate, manifest_at, revoked_at): Row =
            sqlx::query_as("select event_id, gate, manifest_at, revoked_at from keys where key_id = $1")
                .bind(key_id)
                .fetch_optional(connection)
                .await?
                .ok_or(Error::KeyNotFound)?;
        // Nothing was sent after the revocation, but a seed made before it may have a later time, by another process's
        // clock. A time far ahead of the revocation was noted because a wrong clock had dated seeds ahead; then it
        // applies unchanged.
        let revoked_at = revoked_at.ok_or_else(|| Error::Internal("the lost key is not revoked".into()))?;
        let until = manifest_at.map(|at| {
            let noted_as_usual = at <= revoked_at + NOTED_AHEAD + CLOCKS_APART;
            if noted_as_usual { at.min(revoked_at + 2 * CLOCKS_APART) } else { at }
        });
        Ok(Self { key_id, event_id, gate, until, undoable_since })
    }

    /// Prevents others from renewing for the same loss until the end of the transaction.
    async fn lock(&self, connection: &mut Connection) -> Result<()> {
        let lock = sqlx::query("update keys set revoked_at = revoked_at where key_id = $1").bind(self.key_id);
        lock.execute(connection).await?;
        Ok(())
    }

    /// The position before its first ticket.
    fn start(&self) -> (Uuid, Uuid) {
        (self.event_id.unwrap_or_default(), Uuid::nil())
    }

    /// Binds the parameters of [`due_tickets`].
    fn bind<'q, O>(&'q self, query: QueryAs<'q, O>, (event_id, after): (Uuid, Uuid)) -> QueryAs<'q, O> {
        query
            .bind(event_id)
            .bind(after)
            .bind(self.event_id.unwrap_or(Uuid::max()))
            .bind(self.gate.as_deref().map(fold::place))
            .bind(self.until)
            .bind(self.key_id)
            .bind(self.undoable_since)
    }

    async fn count_due(&self, connection: &mut Connection) -> Result<i64> {
        let count = self.bind(sqlx::query_as(due_tickets!("count(*)", "")), self.start());
        let (due,): (i64,) = count.fetch_one(connection).await?;
        Ok(due)
    }

    /// Returns the next tickets that are due, each with its event.
    async fn find_due(&self, backend: &Backend, after: (Uuid, Uuid), limit: usize) -> Result<Vec<(Uuid, Uuid)>> {
        let mut lease = backend.reader().await?;
        let find = sqlx::query_as(due_tickets!("t.event_id, t.ticket_id", "order by t.event_id, t.ticket_id limit $8"));
        // Planned for these values: a generic plan would read and sort all due tickets each time.
        let find = find.persistent(false);
        let outcome = self.bind(find, after).bind(limit as i64).fetch_all(lease.connection()).await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    /// Renews one ticket, unless it got another seed since it was found.
    async fn renew(&self, connection: &mut Connection, ticket_id: Uuid, seed: &Seed, author: Author) -> Result<bool> {
        let event_id: Option<Uuid> = sqlx::query_scalar(
            "update tickets set seed = $2, seeded_at = $3, last_step = null, printed_at = null, mailed_at = null, mailing_at = null, \
             changed_at = $3, version = version + 1 \
             where ticket_id = $1 and coalesce(seeded_at, created_at) <= $4 \
             and not exists (select 1 from actions a where a.subject_id = $5 and a.ticket_id = $1 \
             and a.action in ('renewed', 'phone_lost')) \
             returning event_id",
        )
        .bind(ticket_id)
        .bind(seed.0.as_slice())
        .bind(author.now)
        .bind(self.until)
        .bind(self.key_id)
        .fetch_optional(&mut *connection)
        .await?;
        let Some(event_id) = event_id else { return Ok(false) };
        let act = Act::new(Action::Renewed, event_id).ticket(ticket_id).subject(self.key_id);
        record(connection, author, &act).await?;
        Ok(true)
    }

    /// Renews these tickets in one transaction. Returns the number renewed.
    async fn renew_all(
        &self,
        backend: &Backend,
        due: &[(Uuid, Uuid)],
        new_seed: NewSeed,
        author: Author,
    ) -> Result<i64> {
        let mut lease = backend.writer().await?.begin(BEGIN).await?;
        let locked = Instant::now();
        let outcome = async {
            let connection = lease.connection();
            self.lock(connection).await?;
            let mut renewed = 0;
            for (_, ticket_id) in due {
                renewed += i64::from(self.renew(connection, *ticket_id, &new_seed()?, author).await?);
            }
            Ok(renewed)
        }
        .await;
        let renewed = lease.settle(outcome).await?;
        super::give_way(due.len(), locked.elapsed()).await;
        Ok(renewed)
    }

    /// Records the loss of the device and the number of due tickets, unless it was recorded before.
    async fn report(&self, backend: &Backend, author: Author) -> Result<()> {
        let mut lease = backend.reader().await?;
        let outcome = async {
            let connection = lease.connection();
            if self.is_known(connection).await? { Ok(None) } else { self.count_due(connection).await.map(Some) }
        }
        .await;
        let Some(due) = lease.settle(outcome).await? else { return Ok(()) };
        let mut lease = backend.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            self.lock(connection).await?;
            if self.is_known(connection).await? {
                return Ok(());
            }
            let act = Act::new(Action::PhoneLost, self.event_id).subject(self.key_id);
            record(connection, author, &act.count(usize::try_from(due).unwrap_or_default())).await.map(drop)
        }
        .await;
        lease.settle(outcome).await
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
        // Another process may have noted a later time meanwhile.
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
        most: usize,
        new_seed: NewSeed,
        author: Author,
    ) -> Result<Renewal> {
        let mut lease = self.reader().await?;
        let outcome = Loss::read(lease.connection(), key_id, undoable_since).await;
        let loss = lease.settle(outcome).await?;
        loss.report(self, author).await?;
        let (mut after, mut left, mut renewed) = (loss.start(), most, 0);
        while left > 0 {
            let asked = left.min(CHUNK);
            let due = loss.find_due(self, after, asked).await?;
            renewed += loss.renew_all(self, &due, new_seed, author).await?;
            if due.len() < asked {
                return Ok(Renewal { renewed, remaining: 0 });
            }
            after = due.last().copied().unwrap_or(after);
            left -= asked;
        }
        // Counted once per request, without a lock.
        let mut lease = self.reader().await?;
        let outcome = loss.count_due(lease.connection()).await;
        let remaining = lease.settle(outcome).await?;
        Ok(Renewal { renewed, remaining })
    }

    async fn list_renewed(&self, key_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>> {
        let mut lease = self.long_reader().await?;
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
