//! Keys.

use async_trait::async_trait;
use uuid::Uuid;

use super::Backend;
use crate::error::Error;
use crate::model::{Key, Millis};
use crate::store::{Keys, Result};

/// A statement that selects keys.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "select k.key_id, k.name, k.role, k.event_id, e.slug as event, k.gate, k.offline, k.created_at, ",
            "k.expires_at, k.revoked_at from keys k left join events e on e.event_id = k.event_id ",
            $rest
        )
    };
}

#[async_trait]
impl Keys for Backend {
    async fn find_key(&self, secret_hash: &[u8]) -> Result<Option<Key>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_keys!("where k.secret_hash = $1"))
            .bind(secret_hash)
            .fetch_optional(lease.connection())
            .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn insert_key(&self, key: &Key, secret_hash: &[u8]) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query(
            "insert into keys (key_id, name, role, event_id, gate, offline, secret_hash, created_at, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(key.key_id)
        .bind(&key.name)
        .bind(key.role.as_str())
        .bind(key.event_id)
        .bind(key.gate.as_deref())
        .bind(key.offline)
        .bind(secret_hash)
        .bind(key.created_at)
        .bind(key.expires_at)
        .execute(lease.connection())
        .await;
        lease.settle(outcome.map(drop).map_err(Error::from)).await
    }

    async fn list_keys(&self, event_id: Option<Uuid>, after: Option<Uuid>, limit: i64) -> Result<Vec<Key>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_keys!(
            "where ($1 is null or k.event_id = $1) and k.key_id > $2 order by k.key_id limit $3"
        ))
        .bind(event_id)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn get_key(&self, key_id: Uuid) -> Result<Option<Key>> {
        let mut lease = self.reader().await?;
        let outcome =
            sqlx::query_as(select_keys!("where k.key_id = $1")).bind(key_id).fetch_optional(lease.connection()).await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn revoke_key(&self, key_id: Uuid, now: Millis) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query("update keys set revoked_at = $2 where key_id = $1 and revoked_at is null")
            .bind(key_id)
            .bind(now)
            .execute(lease.connection())
            .await;
        lease.settle(outcome.map(drop).map_err(Error::from)).await
    }
}
