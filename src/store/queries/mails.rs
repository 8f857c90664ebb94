//! Mailing tickets to their holders. A ticket is claimed before its mail is sent, and released after, as mailed or not.
//! If the process dies in between, the claim expires after a while: mailing it twice is better than never.

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::{BEGIN, Backend, json};
use crate::error::Error;
use crate::limits::{CLOCKS_APART, MAIL_CLAIM};
use crate::model::{Action, MailList, Millis, Ticket};
use crate::store::{Act, Addressed, Author, MailCounts, Mails, Result};

/// Whether the ticket `t` of the event `e` can admit somebody, who may need its link.
macro_rules! to_be_told {
    () => {
        "t.user_id is not null and (t.status = 'valid' or t.status = 'used' and e.reentry <> 'none')"
    };
}

/// Whether its holder `u` has an address that a key may know: a key of no event, or of the event `$2`.
macro_rules! has_address {
    () => {
        "(u.email is not null and ($2 is null or coalesce(u.event_id = $2, false)))"
    };
}

macro_rules! list_mails {
    ($condition:expr) => {
        select_tickets!(
            "where e.event_id = $1 and ",
            to_be_told!(),
            " and ",
            $condition,
            " and ($3 is null or (t.user_id, t.ticket_id) > (select a.user_id, a.ticket_id from tickets a where a.ticket_id = $3)) \
             order by t.user_id, t.ticket_id limit $4"
        )
    };
}

#[async_trait]
impl Mails for Backend {
    async fn count_mails(&self, event_id: Uuid, bound_to: Option<Uuid>) -> Result<MailCounts> {
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select count(m.mailed_at) as mailed, \
             count(case when m.mailed_at is null and m.has_address then 1 end) as unmailed, \
             count(distinct case when m.mailed_at is null and m.has_address then m.user_id end) as unmailed_people, \
             count(case when not m.has_address then 1 end) as without_address \
             from (select t.mailed_at, t.user_id, ",
            has_address!(),
            " as has_address from events e join tickets t on t.event_id = e.event_id and ",
            issued_ticket!(),
            " left join users u on u.user_id = t.user_id where e.event_id = $1 and ",
            to_be_told!(),
            ") as m"
        ))
        .bind(event_id)
        .bind(bound_to)
        .fetch_one(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_mails(
        &self,
        event_id: Uuid,
        bound_to: Option<Uuid>,
        list: MailList,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Ticket>> {
        let statement = match list {
            MailList::Unmailed => list_mails!(concat!("t.mailed_at is null and ", has_address!())),
            MailList::WithAddress => list_mails!(has_address!()),
            MailList::WithoutAddress => list_mails!(concat!("not ", has_address!())),
        };
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(statement)
            .bind(event_id)
            .bind(bound_to)
            .bind(after)
            .bind(limit)
            .fetch_all(lease.connection())
            .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn find_addressed(&self, event_id: Uuid, ticket_ids: &[Uuid]) -> Result<Vec<Addressed>> {
        let rows: Vec<_> = ticket_ids.iter().map(|ticket_id| (ticket_id.simple().to_string(),)).collect();
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_tickets_and!(
            ", u.full_name as own_name";
            "where t.event_id = $1 and ",
            among!("t.ticket_id", id_in!("m.value ->> 0"), "$2")
        ))
        .bind(event_id)
        .bind(json(&rows)?)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn claim_mails(&self, tickets: &[&Addressed], author: Author) -> Result<Vec<Uuid>> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let mut claimed = Vec::new();
            for Addressed { ticket, .. } in tickets {
                // With another seed, the link in the mail would be dead. Gates need not know of the claim, so the version
                // stays.
                let update = sqlx::query(
                    "update tickets set mailing_at = $2 where ticket_id = $1 and seed = $3 and status <> 'revoked' \
                     and mailed_at is not distinct from $4 \
                     and (mailing_at is null or mailing_at < $5 or mailing_at > $6)",
                )
                .bind(ticket.ticket_id)
                .bind(author.now)
                .bind(ticket.seed.0.as_slice())
                .bind(ticket.mailed_at)
                .bind(author.now - MAIL_CLAIM)
                .bind(author.now + CLOCKS_APART);
                if update.execute(&mut *connection).await?.rows_affected() == 1 {
                    let act = Act::new(Action::Mailed, ticket.event_id).ticket(ticket.ticket_id);
                    record(connection, author, &act).await?;
                    claimed.push(ticket.ticket_id);
                }
            }
            Ok(claimed)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn settle_mails(&self, ticket_ids: &[Uuid], claimed_at: Millis, mailed: bool) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            for ticket_id in ticket_ids {
                // Later than the previous time, so that a request that read that one and also sends again notices the
                // difference.
                sqlx::query(
                    "update tickets set mailing_at = null, mailed_at = case when not $3 then mailed_at \
                     when mailed_at >= $2 then mailed_at + 1 else $2 end where ticket_id = $1 and mailing_at = $2",
                )
                .bind(ticket_id)
                .bind(claimed_at)
                .bind(mailed)
                .execute(lease.connection())
                .await?;
            }
            Ok(())
        }
        .await;
        lease.settle(outcome).await
    }
}
