-- Views for people who look into the database: times in RFC 3339, ids as text, and the names behind the ids. They show no seed, no hash
-- of a key, and nothing of people that an event has forgotten.
--
-- They last as long as the session, so no migration depends on them:
--
--     sqlite3 -readonly -box -init sql/sqlite/views/readable.sql data/tickets.db
--
-- `register-ticket-api query` loads them by itself.

create temp view v_events as
select
    lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(e.event_id), substr(hex(e.event_id), 9), substr(hex(e.event_id), 13), substr(hex(e.event_id), 17), substr(hex(e.event_id), 21))) as event_id,
    e.slug as event,
    e.name,
    e.time_zone,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.starts_at / 1000.0, 'unixepoch') as starts_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.ends_at / 1000.0, 'unixepoch') as ends_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.opens_at / 1000.0, 'unixepoch') as opens_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.closes_at / 1000.0, 'unixepoch') as closes_at,
    e.reentry,
    e.capacity,
    e.category_colours,
    e.language,
    e.location,
    e.walk_ups,
    e.walk_up_price,
    e.currency,
    e.forget_after_days,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.created_at / 1000.0, 'unixepoch') as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.list_printed_at / 1000.0, 'unixepoch') as list_printed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.deleted_at / 1000.0, 'unixepoch') as deleted_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.forgotten_at / 1000.0, 'unixepoch') as forgotten_at
from events e;

create temp view v_users as
select
    lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(u.user_id), substr(hex(u.user_id), 9), substr(hex(u.user_id), 13), substr(hex(u.user_id), 17), substr(hex(u.user_id), 21))) as user_id,
    e.slug as event,
    case when e.forgotten_at is null then u.username end as username,
    case when e.forgotten_at is null then u.full_name end as full_name,
    case when e.forgotten_at is null then u.email end as email,
    strftime('%Y-%m-%dT%H:%M:%fZ', u.created_at / 1000.0, 'unixepoch') as created_at
from users u
left join events e on e.event_id = u.event_id;

create temp view v_tickets as
select
    lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(t.ticket_id), substr(hex(t.ticket_id), 9), substr(hex(t.ticket_id), 13), substr(hex(t.ticket_id), 17), substr(hex(t.ticket_id), 21))) as ticket_id,
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
    strftime('%Y-%m-%dT%H:%M:%fZ', t.valid_from / 1000.0, 'unixepoch') as valid_from,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.valid_until / 1000.0, 'unixepoch') as valid_until,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.created_at / 1000.0, 'unixepoch') as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.changed_at / 1000.0, 'unixepoch') as changed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.registered_at / 1000.0, 'unixepoch') as registered_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.used_at / 1000.0, 'unixepoch') as used_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.printed_at / 1000.0, 'unixepoch') as printed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.mailing_at / 1000.0, 'unixepoch') as mailing_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.mailed_at / 1000.0, 'unixepoch') as mailed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', t.seeded_at / 1000.0, 'unixepoch') as seeded_at,
    t.walk_up,
    t.paid,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(u.user_id), substr(hex(u.user_id), 9), substr(hex(u.user_id), 13), substr(hex(u.user_id), 17), substr(hex(u.user_id), 21))), '----') as user_id
from tickets t
join events e on e.event_id = t.event_id
left join users u on u.user_id = t.user_id and e.forgotten_at is null;

create temp view v_keys as
select
    lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(k.key_id), substr(hex(k.key_id), 9), substr(hex(k.key_id), 13), substr(hex(k.key_id), 17), substr(hex(k.key_id), 21))) as key_id,
    k.name,
    k.role,
    e.slug as event,
    k.gate,
    k.offline,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.created_at / 1000.0, 'unixepoch') as created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.expires_at / 1000.0, 'unixepoch') as expires_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.revoked_at / 1000.0, 'unixepoch') as revoked_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.enrol_expires_at / 1000.0, 'unixepoch') as enrol_expires_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.manifest_at / 1000.0, 'unixepoch') as manifest_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.taken_at / 1000.0, 'unixepoch') as taken_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', k.heard_at / 1000.0, 'unixepoch') as heard_at,
    k.unsent,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(k.created_by), substr(hex(k.created_by), 9), substr(hex(k.created_by), 13), substr(hex(k.created_by), 17), substr(hex(k.created_by), 21))), '----') as created_by
from keys k
left join events e on e.event_id = k.event_id;

create temp view v_scans as
select
    lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(s.scan_id), substr(hex(s.scan_id), 9), substr(hex(s.scan_id), 13), substr(hex(s.scan_id), 17), substr(hex(s.scan_id), 21))) as scan_id,
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
    strftime('%Y-%m-%dT%H:%M:%fZ', s.first_used_at / 1000.0, 'unixepoch') as first_used_at,
    s.first_used_gate,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.opens_at / 1000.0, 'unixepoch') as opens_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.closed_at / 1000.0, 'unixepoch') as closed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.scanned_at / 1000.0, 'unixepoch') as scanned_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.received_at / 1000.0, 'unixepoch') as received_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.decided_at / 1000.0, 'unixepoch') as decided_at,
    k.name as key,
    strftime('%Y-%m-%dT%H:%M:%fZ', s.undone_at / 1000.0, 'unixepoch') as undone_at,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(s.ticket_id), substr(hex(s.ticket_id), 9), substr(hex(s.ticket_id), 13), substr(hex(s.ticket_id), 17), substr(hex(s.ticket_id), 21))), '----') as ticket_id,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(s.presented), substr(hex(s.presented), 9), substr(hex(s.presented), 13), substr(hex(s.presented), 17), substr(hex(s.presented), 21))), '----') as presented,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(s.key_id), substr(hex(s.key_id), 9), substr(hex(s.key_id), 13), substr(hex(s.key_id), 17), substr(hex(s.key_id), 21))), '----') as key_id,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(s.undone_by), substr(hex(s.undone_by), 9), substr(hex(s.undone_by), 13), substr(hex(s.undone_by), 17), substr(hex(s.undone_by), 21))), '----') as undone_by,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(s.vouched_by), substr(hex(s.vouched_by), 9), substr(hex(s.vouched_by), 13), substr(hex(s.vouched_by), 17), substr(hex(s.vouched_by), 21))), '----') as vouched_by
from scans s
join events e on e.event_id = s.event_id
left join tickets t on t.ticket_id = s.ticket_id
left join keys k on k.key_id = s.key_id;

create temp view v_actions as
select
    lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(a.action_id), substr(hex(a.action_id), 9), substr(hex(a.action_id), 13), substr(hex(a.action_id), 17), substr(hex(a.action_id), 21))) as action_id,
    strftime('%Y-%m-%dT%H:%M:%fZ', a.at / 1000.0, 'unixepoch') as at,
    a.action,
    k.name as key,
    e.slug as event,
    t.seat,
    t.gate,
    a.count,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(a.ticket_id), substr(hex(a.ticket_id), 9), substr(hex(a.ticket_id), 13), substr(hex(a.ticket_id), 17), substr(hex(a.ticket_id), 21))), '----') as ticket_id,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(a.key_id), substr(hex(a.key_id), 9), substr(hex(a.key_id), 13), substr(hex(a.key_id), 17), substr(hex(a.key_id), 21))), '----') as key_id,
    nullif(lower(printf('%.8s-%.4s-%.4s-%.4s-%s', hex(a.subject_id), substr(hex(a.subject_id), 9), substr(hex(a.subject_id), 13), substr(hex(a.subject_id), 17), substr(hex(a.subject_id), 21))), '----') as subject_id
from actions a
left join events e on e.event_id = a.event_id
left join tickets t on t.ticket_id = a.ticket_id
left join keys k on k.key_id = a.key_id;
