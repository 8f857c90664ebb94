-- What a seller and an organizer say of a ticket besides: what kind it is, and what the gate should know. Scans wait while
-- the table is locked; rather than that it fails, and is run again.
set local lock_timeout = '2s';

alter table tickets
    add column if not exists category text,
    add column if not exists note text;

-- How many people the place holds, and as JSON the colours in which gates show categories.
alter table events
    add column if not exists capacity bigint,
    add column if not exists category_colours text not null default '{}';
