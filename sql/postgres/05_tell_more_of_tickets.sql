-- What a seller and an organizer say of a ticket besides: what kind it is, what the gate should know, and when it admits; and
-- when its holder was mailed it, or since when somebody is at it. Scans wait while the tables are locked; rather than that it
-- fails, and is run again.
set local lock_timeout = '2s';

-- When the doors of an event open and close. An event of several days may admit each ticket once a day.
alter table events
    add column if not exists opens_at bigint,
    add column if not exists closes_at bigint,
    drop constraint if exists events_reentry_check,
    add constraint events_reentry_check check (reentry in ('none', 'after_exit', 'once_a_day'));

alter table tickets
    add column if not exists category text,
    add column if not exists note text,
    add column if not exists valid_from bigint,
    add column if not exists valid_until bigint,
    add column if not exists mailed_at bigint,
    add column if not exists mailing_at bigint;

-- Of an entry that came too early, from when its ticket admits; of one that came too late, until when it did. `vouched_by` is
-- the scan that spoke for this one in the place of a code: it admitted the same holder with another ticket.
alter table scans
    add column if not exists opens_at bigint,
    add column if not exists closed_at bigint,
    add column if not exists vouched_by uuid;

-- How many people the place holds, as JSON the colours in which gates show categories, in which language people are written to,
-- where there is one, and the place.
alter table events
    add column if not exists capacity bigint,
    add column if not exists category_colours text not null default '{}',
    add column if not exists language text,
    add column if not exists location text;

-- Whoever comes without a ticket and pays at the door, where the event lets them: a ticket that says so, and what was paid for
-- it. Prices are in the smallest unit of `currency` (ISO 4217), so that they add up.
alter table events
    add column if not exists walk_ups boolean not null default false,
    add column if not exists walk_up_price bigint,
    add column if not exists currency text;

alter table tickets
    add column if not exists walk_up boolean not null default false,
    add column if not exists paid bigint;

-- After how many days from its end an event forgets its people, and when it did; and when its list was last printed.
alter table events
    add column if not exists forget_after_days bigint,
    add column if not exists forgotten_at bigint,
    add column if not exists list_printed_at bigint;

-- When the device of a key was last heard of, and how many scans it said it had yet to send.
alter table keys
    add column if not exists heard_at bigint,
    add column if not exists unsent bigint;
