-- A ticket of which more is known. The same rows as in sql/sqlite/rows/05_tell_more_of_tickets.sql.
update tickets
set category = 'Under 12', note = 'Comes with her grandmother'
where ticket_id = '00000000-0000-7000-8000-0000000000b2';

update events
set capacity = 5, category_colours = '{"Under 12":"teal"}'
where event_id = '00000000-0000-7000-8000-0000000000e1';
