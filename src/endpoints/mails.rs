//! Mails to the people who hold tickets.

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
    /// The `next` of the page before.
    after: Option<Cursor>,
}

/// What there is to mail.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Outbox {
    /// Who the mails are from; null where the service has no mail server.
    from: Option<String>,
    #[serde(flatten)]
    counts: MailCounts,
    /// A page of the list, in the order of their holders: as many as one request mails, and somebody's are not torn apart unless
    /// they are more.
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

/// A page of a list, and after which ticket the next one begins.
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
    let whole = tickets.iter().position(|ticket| ticket.user_id == first_of_next).filter(|&place| place > 0);
    tickets.truncate(whole.unwrap_or(MAILED_TICKETS));
    let last = tickets.last().map(|ticket| ticket.ticket_id);
    Ok((tickets, last))
}

/// Tickets to mail to their holders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct MailRequest {
    /// Their ids. All of them that one person holds are in one mail.
    #[cfg_attr(test, schemars(length(min = 1, max = MAILED_TICKETS)))]
    tickets: Vec<Uuid>,
    /// Whether holders are mailed who were already.
    #[serde(default)]
    again: bool,
    /// Whether nothing is sent, and the first mail is shown.
    #[serde(default)]
    dry_run: bool,
}

/// What became of the mails.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mailed {
    /// One for each ticket, in the order in which they were first named.
    pub results: Vec<TicketResult>,
    /// The first mail of a `dry_run`, if there is one.
    pub preview: Option<Preview>,
}

/// What became of the mail with one ticket.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "MailedTicket"))]
pub struct TicketResult {
    /// The ticket's id.
    pub ticket_id: Uuid,
    pub result: MailResult,
    /// The mail server's reply, such as 550, where it refused. Null otherwise.
    #[cfg_attr(test, schemars(range(min = 400, max = 599)))]
    pub smtp_code: Option<u16>,
    /// Its enhanced status, such as `5.1.1` (RFC 3463), where it told one. Null otherwise.
    pub smtp_status: Option<String>,
}

/// A mail as it would be sent, but for its links, which are secret.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "MailPreview"))]
pub struct Preview {
    /// The address that it would go to.
    pub to: String,
    /// Its subject.
    pub subject: String,
    /// Its plain text.
    pub text: String,
}

/// `POST /api/events/{event}/mails`: sent before the answer, never after it.
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

/// How tickets are mailed.
#[derive(Clone, Copy)]
pub struct How {
    pub again: bool,
    pub dry_run: bool,
}

/// What becomes of a mail, and why it is refused.
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

/// Mails an event's tickets to their holders. The command line does the same.
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

/// What keeps a ticket from being mailed by a key that is bound to this event, or to none.
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

/// Their holder's address, which was found to be good.
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

/// Whether passes of Google Wallet may be about whose codes are good no more: of tickets whose seed is not their first.
fn replaces_pass(app: &App, held: &[&Addressed]) -> bool {
    app.settings.wallet.is_some() && held.iter().any(|known| known.ticket.seeded_at.is_some())
}

/// All tickets of the event that this person holds and may still have to show, those of other mails too.
async fn all_held(app: &App, event: &Event, held: &[&Addressed]) -> Result<Vec<Ticket>, Error> {
    let Some(user_id) = held.first().and_then(|known| known.ticket.user_id) else { return Ok(Vec::new()) };
    let pages = match app.store().read_held_pages(event.event_id, user_id).await {
        // Somebody has taken them away meanwhile.
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
        // Whoever has sent it meanwhile says so next time.
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
