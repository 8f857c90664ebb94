-- Rows that use what is new: a person of one event beside one of the same name, a ticket with a history, a key that another
-- one made. The same rows as in sql/sqlite/rows/04_scope_people_and_keep_actions.sql.
insert into users (user_id, username, full_name, email, event_id, created_at, issue_id)
values
    ('00000000-0000-7000-8000-0000000000a3', 'Ana', 'Ana Gil', 'gil@example.org', '00000000-0000-7000-8000-0000000000e1', 1777572000000, '00000000-0000-7000-8000-0000000000d1');

update tickets
set user_id = '00000000-0000-7000-8000-0000000000a3', holder_name = 'Ana''s mother', reference = 'ABC-1', issue_id = '00000000-0000-7000-8000-0000000000d1', seeded_at = 1777572001000
where ticket_id = '00000000-0000-7000-8000-0000000000b2';

update tickets
set search = '2 anas mother ana|', seat_key = lower(seat), gate_key = lower(gate)
where ticket_id = '00000000-0000-7000-8000-0000000000b2';

update keys
set created_by = '00000000-0000-7000-8000-0000000000c1', manifest_at = 1777657800000, taken_at = 1777657900000
where key_id = '00000000-0000-7000-8000-0000000000c3';

insert into former_secrets (secret_hash, key_id, ended_at)
values ('\xf0', '00000000-0000-7000-8000-0000000000c3', 1777657850000);

insert into actions (action_id, at, action, key_id, event_id, ticket_id, subject_id, count)
values
    ('00000000-0000-7000-8000-0000000000d1', 1777572000000, 'issued', '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-0000000000e1', null, null, 5),
    ('00000000-0000-7000-8000-0000000000d2', 1777572001000, 'reissued', '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-0000000000e1', '00000000-0000-7000-8000-0000000000b2', null, null),
    ('00000000-0000-7000-8000-0000000000d3', 1777572002000, 'user_created', null, null, null, '00000000-0000-7000-8000-0000000000a1', null),
    ('00000000-0000-7000-8000-0000000000d4', 1777572003000, 'key_made', '00000000-0000-7000-8000-0000000000c1', '00000000-0000-7000-8000-0000000000e1', null, '00000000-0000-7000-8000-0000000000c3', null);
