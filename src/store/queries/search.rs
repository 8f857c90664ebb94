//! The folded texts by which tickets are found, stored beside their originals: written when tickets are issued, cleared
//! by the database when a holder changes, and rebuilt before the next search. So are those of tickets from a release that
//! does not know them.

use std::time::Instant;

use uuid::Uuid;

use super::issues::CHUNK;
use super::{BEGIN, Backend, Connection, write_folds};
use crate::error::Error;
use crate::fold;
use crate::store::{NewTicket, Result};

/// The maximum length of a ticket's words in bytes: an entry of PostgreSQL's index is limited.
const LONGEST: usize = 1_600;

/// Finds a ticket that is not folded yet. It selects a column that is in no index of all tickets: otherwise SQLite would
/// scan such an index instead of using the one of unfolded tickets.
pub(in crate::store) const FIND_UNFOLDED: &str = "select version from tickets where event_id between $1 and $1 and search is null order by event_id, ticket_id limit 1";

/// The texts of a ticket that people search for.
#[derive(sqlx::FromRow)]
struct Texts {
    ticket_id: Uuid,
    seat: String,
    gate: String,
    username: Option<String>,
    /// The name on the ticket.
    full_name: Option<String>,
    email: Option<String>,
    /// Whether the holder is one of the event's own people, whose address everyone who lists its tickets may know.
    own: bool,
}

/// The folded texts of a ticket.
pub(in crate::store) struct Folded {
    pub ticket_id: Uuid,
    /// Its words, and after a `|` those of an address that keys of one event may not know.
    pub search: String,
    pub seat_key: String,
    pub gate_key: String,
}

impl Folded {
    fn new(texts: &Texts) -> Self {
        let words =
            |texts: &[Option<&str>]| texts.iter().flatten().flat_map(|text| fold::words(text)).collect::<Vec<_>>();
        let names = [Some(texts.seat.as_str()), texts.full_name.as_deref(), texts.username.as_deref()];
        let own_address = texts.email.as_deref().filter(|_| texts.own);
        let address = texts.email.as_deref().filter(|_| !texts.own);
        let mut search = words(&[&names[..], &[own_address]].concat()).join(" ");
        cut(&mut search, LONGEST / 2);
        search.push('|');
        search.push_str(&words(&[address]).join(" "));
        cut(&mut search, LONGEST);
        let (seat_key, gate_key) = (fold::place(&texts.seat), fold::place(&texts.gate));
        Self { ticket_id: texts.ticket_id, search, seat_key, gate_key }
    }

    /// Folds a ticket to be created, with its holder, who is one of an event's own people if `own`.
    pub fn of_new(ticket: &NewTicket, own: bool) -> Self {
        let holder = ticket.holder.as_ref();
        Self::new(&Texts {
            ticket_id: ticket.ticket_id,
            seat: ticket.seat.clone(),
            gate: ticket.gate.clone(),
            username: holder.map(|holder| holder.username.clone()),
            full_name: holder.and_then(|holder| holder.full_name.clone()),
            email: holder.and_then(|holder| holder.email.clone()),
            own,
        })
    }
}

fn cut(text: &mut String, most: usize) {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
}

/// Gives the tickets of an event the keys by which seats are compared, if an older release created some without them.
/// Search texts are left to the next search.
pub(super) async fn fold_places(backend: &Backend, event_id: Uuid) -> Result<()> {
    let mut lease = backend.reader().await?;
    let outcome: std::result::Result<Option<i32>, _> = sqlx::query_scalar(
        "select 1 from tickets where event_id between $1 and $1 and search is null and seat_key is null \
         order by event_id, ticket_id limit 1",
    )
    .bind(event_id)
    .fetch_optional(lease.connection())
    .await;
    match lease.settle(outcome.map_err(Error::from)).await? {
        Some(_) => fold_event(backend, event_id).await,
        None => Ok(()),
    }
}

/// Folds the tickets of an event that are not folded yet. If the caller gives up meanwhile, the next one has less to do.
pub(super) async fn fold_event(backend: &Backend, event_id: Uuid) -> Result<()> {
    loop {
        let mut lease = backend.reader().await?;
        let outcome: std::result::Result<Option<i64>, _> =
            sqlx::query_scalar(FIND_UNFOLDED).bind(event_id).fetch_optional(lease.connection()).await;
        if lease.settle(outcome.map_err(Error::from)).await?.is_none() {
            return Ok(());
        }
        let mut lease = backend.writer().await?.begin(BEGIN).await?;
        let locked = Instant::now();
        let outcome = fold_some(lease.connection(), event_id, event_id).await;
        lease.settle(outcome).await?;
        super::give_way(CHUNK, locked.elapsed()).await;
    }
}

/// Folds some tickets of the events from one to another, in the caller's transaction. Returns their number.
pub(in crate::store) async fn fold_some(
    connection: &mut Connection,
    first_event: Uuid,
    last_event: Uuid,
) -> Result<usize> {
    // Locked, so that no holder changes before the texts are written.
    let texts: Vec<Texts> = sqlx::query_as(concat!(
        "select t.ticket_id, t.seat, t.gate, u.username, coalesce(t.holder_name, u.full_name) as full_name, u.email, \
         u.event_id is not null as own from tickets t left join users u on u.user_id = t.user_id \
         where t.search is null and t.event_id between $1 and $2 order by t.event_id, t.ticket_id limit $3",
        lock_tickets!()
    ))
    .bind(first_event)
    .bind(last_event)
    .bind(CHUNK as i64)
    .fetch_all(&mut *connection)
    .await?;
    let folds: Vec<Folded> = texts.iter().map(Folded::new).collect();
    write_folds(connection, &folds).await?;
    Ok(folds.len())
}
