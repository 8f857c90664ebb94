-- Views for people who look into the database: times as timestamps, and the names behind the ids. They show no seed, no hash of a key,
-- and nothing of people that an event has forgotten.
--
-- They last as long as the session, so no migration depends on them, and after them the session only reads:
--
--     PSQLRC=sql/postgres/views/readable.sql psql "$DATABASE_URL"
--
-- `register-ticket-api query` loads them by itself.

create temp view v_events as
select
    e.event_id,
    e.slug as event,
    e.name,
    e.time_zone,
    to_timestamp(e.starts_at / 1000.0) as starts_at,
    to_timestamp(e.ends_at / 1000.0) as ends_at,
    to_timestamp(e.opens_at / 1000.0) as opens_at,
    to_timestamp(e.closes_at / 1000.0) as closes_at,
    e.reentry,
    e.capacity,
    e.category_colours,
    e.language,
    e.location,
    e.walk_ups,
    e.walk_up_price,
    e.currency,
    e.forget_after_days,
    to_timestamp(e.created_at / 1000.0) as created_at,
    to_timestamp(e.list_printed_at / 1000.0) as list_printed_at,
    to_timestamp(e.deleted_at / 1000.0) as deleted_at,
    to_timestamp(e.forgotten_at / 1000.0) as forgotten_at
from events e;

create temp view v_users as
select
    u.user_id,
    e.slug as event,
    case when e.forgotten_at is null then u.username end as username,
    case when e.forgotten_at is null then u.full_name end as full_name,
    case when e.forgotten_at is null then u.email end as email,
    to_timestamp(u.created_at / 1000.0) as created_at
from users u
left join events e on e.event_id = u.event_id;

create temp view v_tickets as
select
    t.ticket_id,
    e.slug as event,
    t.seat,
    t.gate,
    t.category,
    t.status,
    t.inside,
    u.username,
    case when e.forgotten_at is null then t.holder_name end as holder_name,
    case when e.forgotten_at is null then coalesce(t.holder_name, u.full_name) end as full_name,
    case when e.forgotten_at is null then t.reference end as reference,
    case when e.forgotten_at is null then t.note end as note,
    to_timestamp(t.valid_from / 1000.0) as valid_from,
    to_timestamp(t.valid_until / 1000.0) as valid_until,
    to_timestamp(t.created_at / 1000.0) as created_at,
    to_timestamp(t.changed_at / 1000.0) as changed_at,
    to_timestamp(t.registered_at / 1000.0) as registered_at,
    to_timestamp(t.used_at / 1000.0) as used_at,
    to_timestamp(t.printed_at / 1000.0) as printed_at,
    to_timestamp(t.mailing_at / 1000.0) as mailing_at,
    to_timestamp(t.mailed_at / 1000.0) as mailed_at,
    to_timestamp(t.seeded_at / 1000.0) as seeded_at,
    t.walk_up,
    t.paid,
    u.user_id
from tickets t
join events e on e.event_id = t.event_id
left join users u on u.user_id = t.user_id and e.forgotten_at is null;

create temp view v_keys as
select
    k.key_id,
    k.name,
    k.role,
    e.slug as event,
    k.gate,
    k.offline,
    to_timestamp(k.created_at / 1000.0) as created_at,
    to_timestamp(k.expires_at / 1000.0) as expires_at,
    to_timestamp(k.revoked_at / 1000.0) as revoked_at,
    to_timestamp(k.enrol_expires_at / 1000.0) as enrol_expires_at,
    to_timestamp(k.manifest_at / 1000.0) as manifest_at,
    to_timestamp(k.taken_at / 1000.0) as taken_at,
    to_timestamp(k.heard_at / 1000.0) as heard_at,
    k.unsent,
    k.created_by
from keys k
left join events e on e.event_id = k.event_id;

create temp view v_scans as
select
    s.scan_id,
    e.slug as event,
    t.seat,
    t.gate,
    s.at_gate,
    s.direction,
    s.result,
    s.offline_result,
    s.manual,
    case when e.forgotten_at is null then s.note end as note,
    s.seconds_off,
    to_timestamp(s.first_used_at / 1000.0) as first_used_at,
    s.first_used_gate,
    to_timestamp(s.opens_at / 1000.0) as opens_at,
    to_timestamp(s.closed_at / 1000.0) as closed_at,
    to_timestamp(s.scanned_at / 1000.0) as scanned_at,
    to_timestamp(s.received_at / 1000.0) as received_at,
    to_timestamp(s.decided_at / 1000.0) as decided_at,
    k.name as key,
    to_timestamp(s.undone_at / 1000.0) as undone_at,
    s.ticket_id,
    s.presented,
    s.key_id,
    s.undone_by,
    s.vouched_by
from scans s
join events e on e.event_id = s.event_id
left join tickets t on t.ticket_id = s.ticket_id
left join keys k on k.key_id = s.key_id;

create temp view v_actions as
select
    a.action_id,
    to_timestamp(a.at / 1000.0) as at,
    a.action,
    k.name as key,
    e.slug as event,
    t.seat,
    t.gate,
    a.count,
    a.ticket_id,
    a.key_id,
    a.subject_id
from actions a
left join events e on e.event_id = a.event_id
left join tickets t on t.ticket_id = a.ticket_id
left join keys k on k.key_id = a.key_id;

set default_transaction_read_only = on;
