-- A ticket of which more is known. The same rows as in sql/postgres/rows/05_tell_more_of_tickets.sql.
update tickets
set category = 'Under 12', note = 'Comes with her grandmother'
where ticket_id = x'000000000000700080000000000000b2';

update events
set capacity = 5, category_colours = '{"Under 12":"teal"}'
where event_id = x'000000000000700080000000000000e1';
