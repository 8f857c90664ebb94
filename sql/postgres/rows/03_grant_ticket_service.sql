-- The scan of the ticket that was marked; then the planner knows of all these rows, as after an import.
insert into scans (scan_id, event_id, ticket_id, direction, result, manual, note, scanned_at, received_at, decided_at)
values
    ('00000000-0000-7000-8000-000000000f0f', '00000000-0000-7000-8000-000000000001',
     '00000000-0000-7000-8000-0000000000b9', 'entry', 'accepted', true, 'by hand',
     1777658400000, 1777658400000, 1777658400000);
select fn_analyze_tickets();
