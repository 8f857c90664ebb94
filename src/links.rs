//! The addresses that people get: a ticket's page, its key for an authenticator app, a device's enrolment.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::app::App;
use crate::limits::HELD_TICKETS;
use crate::model::Ticket;
use crate::totp::{self, Holder, LinkSecret};

/// The address with which an authenticator app takes a key.
pub fn otpauth_url(event: &str, ticket: &Ticket, base32: &str) -> String {
    // The label begins with the issuer, up to its first colon.
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

/// The address of a ticket's page.
pub fn ticket_url(app: &App, secret: &LinkSecret, ticket: &Ticket) -> String {
    format!("{}/t/{}", app.settings.public_url, secret.page_token(ticket.ticket_id, ticket.seed))
}

/// The address of the page with these tickets of one person, made for whoever reads mail at this address; none where one ticket's
/// page is all that it would be, or where they are more than one link opens.
pub fn holder_url(app: &App, secret: &LinkSecret, address: &str, tickets: &[Ticket]) -> Option<String> {
    let holder = tickets.first().and_then(|first| Some((first.event_id, first.user_id?)));
    let (event_id, user_id) = holder.filter(|_| (2..=HELD_TICKETS).contains(&tickets.len()))?;
    let seeds = tickets.iter().map(|ticket| (ticket.ticket_id, ticket.seed));
    let token = secret.holder_token(Holder { event_id, user_id, address }, seeds);
    Some(format!("{}/t/{token}", app.settings.public_url))
}

/// What RFC 3986 calls unreserved stays, everything else is encoded.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn encode(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// The address that makes a device a gate. The token is in the fragment, which a browser sends to nobody.
pub fn enrol_url(app: &App, token: &str) -> String {
    format!("{}/gate#enrol={token}", app.settings.public_url)
}
