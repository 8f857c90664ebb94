-- A migration that is not shipped: how to change a CHECK on PostgreSQL (docs/development.md). tests/suite/migrations.rs
-- applies it after the newest one while an old process scans.

-- While this waits for its lock, scans wait too. So it rather fails soon, and is run again.
set local lock_timeout = '2s';

alter table tickets
    drop constraint if exists tickets_status_check,
    add constraint tickets_status_check check (status in ('valid', 'used', 'revoked', 'held'));
