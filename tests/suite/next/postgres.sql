-- A migration that is not shipped: how a CHECK is changed on PostgreSQL (docs/development.md). tests/suite/migrations.rs
-- applies it after the newest one while an old process scans.

-- Scans wait while this one waits for its lock. Rather than that it fails, and is run again.
set local lock_timeout = '2s';

alter table tickets
    drop constraint if exists tickets_status_check,
    add constraint tickets_status_check check (status in ('valid', 'used', 'revoked', 'held'));
