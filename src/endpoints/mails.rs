//! Mails to ticket holders.

use std::collections::HashMap;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::fault::Fault;
use crate::limits::MAILED_TICKETS;
use crate::links::{holder_url, ticket_url};
use crate::list::{self, Cursor};
use crate::mail::letter::{self, Letter};
use crate::mail::{Failure, Post};
use crate::model::{Event, MailList, MailResult, Millis, Reentry, Status, Ticket};
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::{Addressed, MailCounts};

/// Which tickets to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct MailsQuery {
    /// `unmailed` when absent.
    list: Option<MailList>,
    /// The `next` of the previous page.
    after: Option<Cursor>,
}

/// The tickets to mail.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Outbox {
    /// The sender of the mails; null when the service has no mail server.
    from: Option<String>,
    #[serde(flatten)]
    counts: MailCounts,
    /// A page of the list, ordered by holder: at most as many as one request mails. One person's tickets are split only if they
    /// exceed a page.
    #[cfg_attr(test, schemars(length(max = MAILED_TICKETS)))]
    pub(crate) tickets: Vec<Ticket>,
    /// The opaque cursor of the next page, to be sent as `after`; null on the last page.
    next: Option<String>,
}

/// `GET /api/events/{event}/mails`.
pub async fn list_mails(call: Call<'_>) -> Result<Response, Error> {
    let query: MailsQuery = call.query()?;
    let event = call.event().await?;
    let (bound_to, store) = (call.caller()?.event_id, call.app.store());
    let counts = store.count_mails(event.event_id, bound_to).await?;
    let after = query.after.map(|cursor| cursor.0);
    let list = query.list.unwrap_or(MailList::Unmailed);
    let (tickets, next) = page(call.app, &event, bound_to, list, after).await?;
    let from = call.app.settings.mail.as_ref().map(|mail| mail.from.to_string());
    response::json(StatusCode::OK, &Outbox { from, counts, tickets, next: next.map(list::encode) })
}

/// Returns a page of a list, and the ticket after which the next page begins.
pub async fn page(
    app: &App,
    event: &Event,
    bound_to: Option<Uuid>,
    list: MailList,
    after: Option<Uuid>,
) -> Result<(Vec<Ticket>, Option<Uuid>), Error> {
    let limit = MAILED_TICKETS as i64 + 1;
    let mut tickets = app.store().list_mails(event.event_id, bound_to, list, after, limit).await?;
    let Some(first_of_next) = tickets.get(MAILED_TICKETS).map(|ticket| ticket.user_id) else {
        return Ok((tickets, None));
    };
    let whole = tickets.iter().position(|ticket| ticket.user_id == first_of_next).filter(|&index| index > 0);
    tickets.truncate(whole.unwrap_or(MAILED_TICKETS));
    let last = tickets.last().map(|ticket| ticket.ticket_id);
    Ok((tickets, last))
}

/// Tickets to mail to their holders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct MailRequest {
    /// Their ids. One mail has all of them that one person holds.
    #[cfg_attr(test, schemars(length(min = 1, max = MAILED_TICKETS)))]
    tickets: Vec<Uuid>,
    /// Whether to mail tickets that were mailed already.
    #[serde(default)]
    again: bool,
    /// Whether to return the first mail and send nothing.
    #[serde(default)]
    dry_run: bool,
}

/// The results of the mails.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mailed {
    /// One result for each ticket, in the order in which the request first names them.
    pub results: Vec<TicketResult>,
    /// The first mail of a `dry_run`, if there is one.
    pub preview: Option<Preview>,
}

/// The result of the mail with one ticket.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "MailedTicket"))]
pub struct TicketResult {
    /// The ticket's id.
    pub ticket_id: Uuid,
    pub result: MailResult,
    /// The mail server's reply code, such as 550, if it refused. Null otherwise.
    #[cfg_attr(test, schemars(range(min = 400, max = 599)))]
    pub smtp_code: Option<u16>,
    /// Its enhanced status code, such as `5.1.1` (RFC 3463), if it sent one. Null otherwise.
    pub smtp_status: Option<String>,
}

/// A mail as it would be sent, without its links, which are secret.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "MailPreview"))]
pub struct Preview {
    /// The address that it would be sent to.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
}

/// `POST /api/events/{event}/mails`: sends the mails before the answer, never after it.
pub async fn send_mails(call: Call<'_>) -> Result<Response, Error> {
    let MailRequest { tickets, again, dry_run } = call.json()?;
    if tickets.is_empty() {
        return Err(Error::field("tickets", Fault::NoTickets));
    }
    if tickets.len() > MAILED_TICKETS {
        let too_many = Fault::TooManyTickets { most: MAILED_TICKETS };
        return Err(Error::field(format!("tickets[{MAILED_TICKETS}]"), too_many));
    }
    let event = call.event().await?;
    let how = How { again, dry_run };
    response::json(StatusCode::OK, &send(call.app, call.caller()?, &event, &tickets, how, call.now).await?)
}

/// How to mail tickets.
#[derive(Clone, Copy)]
pub struct How {
    pub again: bool,
    pub dry_run: bool,
}

/// The result of a mail, and why it failed.
#[derive(Clone)]
struct Outcome(MailResult, Option<Failure>);

impl From<MailResult> for Outcome {
    fn from(result: MailResult) -> Self {
        Self(result, None)
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        let result = match failure {
            Failure::Refused { .. } => MailResult::Refused,
            Failure::WrongAddress => MailResult::WrongAddress,
            Failure::Unreachable => MailResult::Unreachable,
        };
        Self(result, Some(failure))
    }
}

/// Mails an event's tickets to their holders. The command line calls it too.
pub async fn send(
    app: &App,
    caller: &Caller,
    event: &Event,
    ticket_ids: &[Uuid],
    how: How,
    now: Millis,
) -> Result<Mailed, Error> {
    if app.settings.mail.is_none() {
        return Err(Error::MailNotConfigured);
    }
    let found = app.store().find_addressed(event.event_id, ticket_ids).await?;
    let mut outcomes: HashMap<Uuid, Outcome> = HashMap::new();
    let mut people: Vec<Vec<&Addressed>> = Vec::new();
    for ticket_id in ticket_ids {
        let known = found.iter().find(|found| found.ticket.ticket_id == *ticket_id);
        let hindered = known.map_or(Some(MailResult::TicketNotFound), |known| {
            hindrance(known, caller.event_id, event.reentry, how.again)
        });
        let is_new = outcomes.insert(*ticket_id, hindered.unwrap_or(MailResult::Ready).into()).is_none();
        if let (true, None, Some(known)) = (is_new, hindered, known) {
            match people.iter_mut().find(|held| held[0].ticket.user_id == known.ticket.user_id) {
                Some(held) => held.push(known),
                None => people.push(vec![known]),
            }
        }
    }
    let mut preview = None;
    if how.dry_run {
        if let Some(held) = people.first() {
            preview = Some(shown(app, caller, event, held).await?);
        }
    } else {
        deliver(app, caller, event, &people, now, &mut outcomes).await?;
    }
    let mut results: Vec<TicketResult> = Vec::new();
    for ticket_id in ticket_ids {
        if let Some(Outcome(result, failure)) = outcomes.remove(ticket_id) {
            let (smtp_code, smtp_status) = match failure {
                Some(Failure::Refused { code, status }) => (Some(code), status),
                _ => (None, None),
            };
            results.push(TicketResult { ticket_id: *ticket_id, result, smtp_code, smtp_status });
        }
    }
    Ok(Mailed { results, preview })
}

/// Returns why a key bound to this event, or to none, cannot mail a ticket.
fn hindrance(known: &Addressed, bound_to: Option<Uuid>, reentry: Reentry, again: bool) -> Option<MailResult> {
    let ticket = &known.ticket;
    let address = ticket.address.told_to(bound_to);
    Some(match ticket.status {
        Status::Revoked => MailResult::Revoked,
        _ if ticket.user_id.is_none() => MailResult::NotRegistered,
        Status::Used if reentry == Reentry::None => MailResult::Used,
        _ if address.is_none() => MailResult::NoAddress,
        _ if address.is_some_and(|address| letter::address(address).is_none()) => MailResult::WrongAddress,
        _ if ticket.mailed_at.is_some() && !again => MailResult::MailedAlready,
        _ => return None,
    })
}

/// Returns the holder's address, which `hindrance` has checked.
fn address_of<'a>(held: &[&'a Addressed], bound_to: Option<Uuid>) -> &'a str {
    held.first().and_then(|known| known.ticket.address.told_to(bound_to)).unwrap_or_default()
}

async fn shown(app: &App, caller: &Caller, event: &Event, held: &[&Addressed]) -> Result<Preview, Error> {
    let hidden = format!("{}/t/…", app.settings.public_url);
    let tickets = held.iter().map(|known| (&known.ticket, hidden.clone()));
    let all = (all_held(app, event, held).await?.len() > 1).then(|| hidden.clone());
    let letter = Letter::new(event, held[0].own_name.as_deref(), tickets, all, replaces_pass(app, held));
    Ok(Preview { to: address_of(held, caller.event_id).to_owned(), subject: letter.subject(), text: letter.text() })
}

/// Returns whether holders may have Google Wallet passes with outdated codes: for tickets whose seed is not their first.
fn replaces_pass(app: &App, held: &[&Addressed]) -> bool {
    app.settings.wallet.is_some() && held.iter().any(|known| known.ticket.seeded_at.is_some())
}

/// Returns all tickets of the event that this person holds and may still need, including those of other mails.
async fn all_held(app: &App, event: &Event, held: &[&Addressed]) -> Result<Vec<Ticket>, Error> {
    let Some(user_id) = held.first().and_then(|known| known.ticket.user_id) else { return Ok(Vec::new()) };
    let pages = match app.store().read_held_pages(event.event_id, user_id).await {
        // The person holds no tickets any more.
        Err(Error::DeadLink(_)) => Vec::new(),
        pages => pages?,
    };
    let is_over = |ticket: &Ticket| ticket.status == Status::Used && event.reentry == Reentry::None;
    Ok(pages.into_iter().map(|page| page.ticket).filter(|ticket| !is_over(ticket)).collect())
}

/// Sends each person one mail.
async fn deliver(
    app: &App,
    caller: &Caller,
    event: &Event,
    people: &[Vec<&Addressed>],
    now: Millis,
    outcomes: &mut HashMap<Uuid, Outcome>,
) -> Result<(), Error> {
    let (Some(server), secret) = (&app.settings.mail, app.claimed_links().await?) else { return Ok(()) };
    let mut post = Post::new(server);
    for held in people {
        let claimed = app.store().claim_mails(held, caller.author(now)).await?;
        let (ours, others): (Vec<&Addressed>, Vec<&Addressed>) =
            held.iter().partition(|known| claimed.contains(&known.ticket.ticket_id));
        // Another request is sending these; a later request will report how that ended.
        for known in others {
            outcomes.insert(known.ticket.ticket_id, MailResult::InProgress.into());
        }
        if ours.is_empty() {
            continue;
        }
        let address = address_of(held, caller.event_id);
        let tickets = ours.iter().map(|known| (&known.ticket, ticket_url(app, secret, &known.ticket)));
        let all = holder_url(app, secret, address, &all_held(app, event, held).await?);
        let letter = Letter::new(event, held[0].own_name.as_deref(), tickets, all, replaces_pass(app, &ours));
        let sent = match letter::address(address).map(|to| letter.message(&server.from, to, now)) {
            Some(message) => post.send(&message?).await,
            None => Err(Failure::WrongAddress),
        };
        app.store().settle_mails(&claimed, now, sent.is_ok()).await?;
        let outcome = sent.map_or_else(Outcome::from, |()| MailResult::Sent.into());
        outcomes.extend(claimed.into_iter().map(|ticket_id| (ticket_id, outcome.clone())));
    }
    post.end().await;
    Ok(())
}
