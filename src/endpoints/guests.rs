//! Guests by their names: whom a supervisor looks for at the door, because no code speaks for them.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scans::ScannedTicket;
#[cfg(test)]
use super::tickets::PRINTABLE;
use super::tickets::Search;
use crate::admission::Told;
use crate::error::Error;
use crate::fault::Fault;
use crate::fold;
#[cfg(test)]
use crate::limits::SEARCH;
use crate::limits::{GUEST_LETTERS, GUESTS};
use crate::list::PAGE;
use crate::model::Ticket;
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::TicketFilter;

/// Whom to look for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GuestsQuery {
    /// Only tickets where each of these words is a part of the seat, the name or the username, whatever their order, case and
    /// accents. At least [`crate::limits::GUEST_LETTERS`] letters or digits.
    #[cfg_attr(test, schemars(with = "String", length(min = 1, max = SEARCH), regex(pattern = PRINTABLE)))]
    q: Sought,
}

/// What is looked for, and the words of it.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Sought {
    text: String,
    words: Vec<String>,
}

impl TryFrom<String> for Sought {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        let Search(text) = text.try_into()?;
        let words = fold::words(&text);
        if words.iter().map(|word| word.chars().count()).sum::<usize>() < GUEST_LETTERS {
            return Err(Fault::TooShort { least: GUEST_LETTERS });
        }
        Ok(Self { text, words })
    }
}

impl Sought {
    /// Whether a ticket is that of somebody who is looked for. Addresses find nobody here: supervisors are not told them.
    fn is_held_by(&self, ticket: &Ticket) -> bool {
        let Some(username) = &ticket.username else { return false };
        let texts = [Some(&ticket.seat), ticket.full_name.as_ref(), Some(username)];
        let told: Vec<String> = texts.into_iter().flatten().flat_map(|text| fold::words(text)).collect();
        let told = told.join(" ");
        self.words.iter().all(|word| told.contains(word))
    }
}

/// Those who were found.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Guests {
    /// The first [`crate::limits::GUESTS`] of them, those at the key's gate before the others, of whom no more is told than where they belong and
    /// who they are. Whoever is not among so many is found by more letters.
    #[cfg_attr(test, schemars(length(max = GUESTS)))]
    guests: Vec<ScannedTicket>,
}

/// `GET /api/events/{event}/guests`.
pub async fn find_guests(call: Call<'_>) -> Result<Response, Error> {
    let query: GuestsQuery = call.query()?;
    let event_id = call.event().await?.event_id;
    let caller = call.caller()?;
    let gate = caller.gate.as_deref();
    let mut found = Vec::new();
    if gate.is_some() {
        found = find(&call, event_id, &query.q, gate, GUESTS, |_| true).await?;
    }
    let is_elsewhere = |ticket: &Ticket| gate.is_none_or(|gate| !fold::same_place(gate, &ticket.gate));
    found.extend(find(&call, event_id, &query.q, None, GUESTS - found.len(), is_elsewhere).await?);
    let told = |ticket: Ticket| {
        let told = if caller.stands_at(&ticket.gate) { Told::Everything } else { Told::Holder };
        ScannedTicket::new(ticket, told)
    };
    response::json(StatusCode::OK, &Guests { guests: found.into_iter().map(told).collect() })
}

/// The first so many tickets at a gate, or at all gates, of those who are looked for and that are meant.
async fn find(
    call: &Call<'_>,
    event_id: Uuid,
    sought: &Sought,
    gate: Option<&str>,
    most: usize,
    is_meant: impl Fn(&Ticket) -> bool,
) -> Result<Vec<Ticket>, Error> {
    let mut found = Vec::new();
    let mut filter = TicketFilter {
        gate: gate.map(str::to_owned),
        search: Some(sought.text.clone()),
        without_addresses: true,
        ..TicketFilter::default()
    };
    while found.len() < most {
        let page = call.app.store().list_tickets(event_id, &filter, PAGE).await?;
        let is_last = page.len() < PAGE as usize;
        filter.after = page.last().map(|ticket| ticket.ticket_id);
        let meant = page.into_iter().filter(|ticket| sought.is_held_by(ticket) && is_meant(ticket));
        found.extend(meant.take(most - found.len()));
        if is_last {
            break;
        }
    }
    Ok(found)
}
