//! Search for guests by name, for a supervisor at the door when a guest has no code.

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

/// Which guests to find.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct GuestsQuery {
    /// Only tickets where each of these words is part of the seat, the name or the username, ignoring order, case and accents.
    /// At least [`crate::limits::GUEST_LETTERS`] letters or digits.
    #[cfg_attr(test, schemars(with = "String", length(min = 1, max = SEARCH), regex(pattern = PRINTABLE)))]
    q: Sought,
}

/// A search text and its words.
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
    /// Returns whether the ticket's holder matches. Addresses are not searched, because supervisors may not see them.
    fn is_held_by(&self, ticket: &Ticket) -> bool {
        let Some(username) = &ticket.username else { return false };
        let texts = [Some(&ticket.seat), ticket.full_name.as_ref(), Some(username)];
        let text: Vec<String> = texts.into_iter().flatten().flat_map(|text| fold::words(text)).collect();
        let text = text.join(" ");
        self.words.iter().all(|word| text.contains(word))
    }
}

/// The guests found.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Guests {
    /// The first [`crate::limits::GUESTS`] matches, those of the key's gate first. Tickets of other gates show only the
    /// gate, seat and holder. More letters narrow the search.
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
    let shown = |ticket: Ticket| {
        let told = if caller.stands_at(&ticket.gate) { Told::Everything } else { Told::Holder };
        ScannedTicket::new(ticket, told)
    };
    response::json(StatusCode::OK, &Guests { guests: found.into_iter().map(shown).collect() })
}

/// Returns the first `most` matching tickets, at one gate or at all, for which `is_meant` holds.
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
