-- Rows as the procedures write them: one ticket registered, one marked.
call sp_register_ticket_to_user(
    '00000000-0000-7000-8000-0000000000b8', '00000000-0000-7000-8000-0000000000a1', 1777658400000
);
select fn_mark_ticket_as_used('00000000-0000-7000-8000-0000000000b9', 2, null, true, 1777658400000, 1777658400000);
