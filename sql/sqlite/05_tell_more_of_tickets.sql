-- What a seller and an organizer say of a ticket besides: what kind it is, and what the gate should know.
alter table tickets add column category text;
alter table tickets add column note text;
