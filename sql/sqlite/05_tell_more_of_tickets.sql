-- What a seller and an organizer say of a ticket besides: what kind it is, and what the gate should know.
alter table tickets add column category text;
alter table tickets add column note text;

-- How many people the place holds, and as JSON the colours in which gates show categories.
alter table events add column capacity bigint;
alter table events add column category_colours text not null default '{}';
