//! URLs for people: of a ticket's page, of its key for an authenticator app, and of a device's enrolment.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::app::App;
use crate::limits::HELD_TICKETS;
use crate::model::Ticket;
use crate::totp::{self, Holder, LinkSecret};

/// Returns the URL that adds a key to an authenticator app.
pub fn otpauth_url(event: &str, ticket: &Ticket, base32: &str) -> String {
    // In the label, the issuer ends at the first colon, so it must not contain one.
    let issuer = event.replace(':', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    let label = format!("{issuer}:{} ({})", ticket.seat, ticket.gate);
    format!(
        "otpauth://totp/{}?secret={base32}&issuer={}&algorithm=SHA1&digits={}&period={}",
        encode(&label),
        encode(&issuer),
        totp::DIGITS,
        totp::PERIOD,
    )
}

/// Returns the URL of a ticket's page.
pub fn ticket_url(app: &App, secret: &LinkSecret, ticket: &Ticket) -> String {
    format!("{}/t/{}", app.settings.public_url, secret.page_token(ticket.ticket_id, ticket.seed))
}

/// Returns the URL of the page with these tickets of one person, made for one mail address. Returns `None` for a single ticket,
/// which has its own page, and for more tickets than one link opens.
pub fn holder_url(app: &App, secret: &LinkSecret, address: &str, tickets: &[Ticket]) -> Option<String> {
    let holder = tickets.first().and_then(|first| Some((first.event_id, first.user_id?)));
    let (event_id, user_id) = holder.filter(|_| (2..=HELD_TICKETS).contains(&tickets.len()))?;
    let seeds = tickets.iter().map(|ticket| (ticket.ticket_id, ticket.seed));
    let token = secret.holder_token(Holder { event_id, user_id, address }, seeds);
    Some(format!("{}/t/{token}", app.settings.public_url))
}

/// Encodes everything except the unreserved characters of RFC 3986.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Returns the URL that enrols a device as a gate. The token is in the fragment, which browsers do not send.
pub fn enrol_url(app: &App, token: &str) -> String {
    format!("{}/gate#enrol={token}", app.settings.public_url)
}
