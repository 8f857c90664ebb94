//! The actions of organizers and supervisors.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Backend, Connection};
use crate::error::Error;
use crate::model::Millis;
use crate::store::{Act, Actions, Author, ListedAction, Result};

/// A statement that selects actions.
macro_rules! select_actions {
    ($rest:literal) => {
        concat!(
            "select a.action_id, a.at, a.action, a.key_id, k.name as key_name, e.slug as event, a.ticket_id, \
             a.subject_id, a.count from actions a left join keys k on k.key_id = a.key_id \
             left join events e on e.event_id = a.event_id where e.deleted_at is null and ",
            $rest
        )
    };
}

macro_rules! insert_action {
    () => {
        "insert into actions (action_id, at, action, key_id, event_id, ticket_id, subject_id, count) "
    };
}

#[async_trait]
impl Actions for Backend {
    async fn record_action(&self, author: Author, act: &Act) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = record(lease.connection(), author, act).await;
        lease.settle(outcome.map(drop)).await
    }

    async fn list_actions(
        &self,
        event_id: Option<Uuid>,
        after: Option<(Millis, Uuid)>,
        limit: i64,
    ) -> Result<Vec<ListedAction>> {
        let statement = match event_id {
            Some(_) => select_actions!(
                "a.event_id = $1 and (a.at, a.action_id) > ($2, $3) order by a.at, a.action_id limit $4"
            ),
            None => {
                select_actions!("$1 is null and (a.at, a.action_id) > ($2, $3) order by a.at, a.action_id limit $4")
            }
        };
        let (after_time, after_id) = after.unwrap_or((Millis(i64::MIN), Uuid::nil()));
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(statement)
            .bind(event_id)
            .bind(after_time)
            .bind(after_id)
            .bind(limit)
            .fetch_all(lease.connection())
            .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_ticket_actions(&self, ticket_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<ListedAction>> {
        let mut lease = self.reader().await?;
        // A new seed for all tickets concerned those created before it whose seed is of that time or later.
        let outcome = sqlx::query_as(select_actions!(
            "a.action_id in (select t.issue_id from tickets t where t.ticket_id = $1 \
             union all select b.action_id from actions b where b.ticket_id = $1 \
             union all select c.action_id from tickets t join actions c on c.event_id = t.event_id \
             and c.ticket_id is null and c.subject_id is null and c.at >= t.created_at \
             and c.action in ('reissued', 'links_exported') and (c.action <> 'reissued' or c.at <= t.seeded_at) \
             where t.ticket_id = $1) \
             and ($2 is null or (a.at, a.action_id) > (select l.at, l.action_id from actions l where l.action_id = $2)) \
             order by a.at, a.action_id limit $3"
        ))
        .bind(ticket_id)
        .bind(after)
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }
}

/// Records an action in the caller's transaction and returns its id. From here to the end of the transaction, the event
/// can neither be deleted nor forget its people: a caller that writes more rows of it records first, and need not check
/// for it again.
pub(super) async fn record(connection: &mut Connection, author: Author, act: &Act) -> Result<Uuid> {
    let action_id = Uuid::now_v7();
    record_as(connection, action_id, author, act).await?;
    Ok(action_id)
}

/// Does the same with an id that is in use already.
pub(super) async fn record_as(connection: &mut Connection, action_id: Uuid, author: Author, act: &Act) -> Result<()> {
    let statement = match act.event_id {
        Some(_) => concat!(
            insert_action!(),
            "select $1, $2, $3, $4, e.event_id, $6, $7, $8 from events e \
             where e.event_id = $5 and e.deleted_at is null and not ($9 and e.forgotten_at is not null)",
            key_share!()
        ),
        None => concat!(insert_action!(), "values ($1, $2, $3, $4, $5, $6, $7, $8)"),
    };
    let query = sqlx::query(statement)
        .bind(action_id)
        .bind(author.now)
        .bind(act.action)
        .bind(author.key_id)
        .bind(act.event_id)
        .bind(act.ticket_id)
        .bind(act.subject_id)
        .bind(act.count);
    let query = if act.event_id.is_some() { query.bind(act.action.brings_people()) } else { query };
    let written = query.execute(&mut *connection).await?;
    if written.rows_affected() == 1 {
        return Ok(());
    }
    let forgotten: Option<Option<Millis>> =
        sqlx::query_scalar("select forgotten_at from events where event_id = $1 and deleted_at is null")
            .bind(act.event_id)
            .fetch_optional(connection)
            .await?;
    Err(if forgotten.is_some() { Error::EventForgotten } else { Error::EventNotFound })
}
