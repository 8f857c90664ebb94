//! Users, and how they are erased.

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::{BEGIN, Backend, Connection, LOCK_USER, unless_unique};
use crate::error::Error;
use crate::model::{Action, User};
use crate::store::{Act, Author, Result, Users};

#[async_trait]
impl Users for Backend {
    async fn insert_user(&self, user: &User, author: Author) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(
                "insert into users (user_id, username, full_name, email, created_at) values ($1, $2, $3, $4, $5)",
            )
            .bind(user.user_id)
            .bind(&user.username)
            .bind(user.full_name.as_deref())
            .bind(user.email.as_deref())
            .bind(user.created_at)
            .execute(&mut *connection)
            .await
            .map_err(|error| unless_unique(error, Error::UsernameTaken))?;
            record(connection, author, &Act::new(Action::UserCreated, None).subject(user.user_id)).await
        }
        .await;
        lease.settle(outcome.map(drop)).await
    }

    async fn find_user(&self, username: &str) -> Result<Option<User>> {
        let mut lease = self.reader().await?;
        let outcome = find_user(lease.connection(), username).await;
        lease.settle(outcome).await
    }

    async fn erase_user(&self, username: &str, only_event: Option<Uuid>, author: Author) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(LOCK_USER).bind(username).fetch_optional(&mut *connection).await?;
            let user = find_user(connection, username).await?.ok_or(Error::UserNotFound)?;
            if let Some(event_id) = only_event {
                let elsewhere: i64 =
                    sqlx::query_scalar("select count(*) from tickets where user_id = $1 and event_id <> $2")
                        .bind(user.user_id)
                        .bind(event_id)
                        .fetch_one(&mut *connection)
                        .await?;
                if elsewhere > 0 {
                    return Err(Error::Forbidden("This user holds tickets of another event than your key's."));
                }
            }
            // First the tickets, whose locks every scan and undo waits for, so that no note is written behind us.
            sqlx::query(
                "update tickets set status = 'revoked', changed_at = $2, version = version + 1 where user_id = $1",
            )
            .bind(user.user_id)
            .bind(author.now)
            .execute(&mut *connection)
            .await?;
            for statement in [
                "update scans set note = null \
                 where note is not null and ticket_id in (select ticket_id from tickets where user_id = $1)",
                "update tickets set user_id = null where user_id = $1",
                "delete from users where user_id = $1",
            ] {
                sqlx::query(statement).bind(user.user_id).execute(&mut *connection).await?;
            }
            record(connection, author, &Act::new(Action::UserErased, only_event).subject(user.user_id)).await
        }
        .await;
        lease.settle(outcome.map(drop)).await
    }
}

pub(super) async fn find_user(connection: &mut Connection, username: &str) -> Result<Option<User>> {
    let user = sqlx::query_as(
        "select user_id, username, full_name, email, created_at from users where lower(username) = lower($1)",
    )
    .bind(username)
    .fetch_optional(connection)
    .await?;
    Ok(user)
}
