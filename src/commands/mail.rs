//! `mail`: sends an event's tickets to their holders, as `POST /api/events/{event}/mails` does, but all of them.

use std::collections::BTreeMap;

use clap::Args;
use uuid::Uuid;

use super::Progress;
use crate::app::App;
use crate::auth::Caller;
use crate::endpoints::mails::{self, How, TicketResult};
use crate::error::Error;
use crate::model::{Event, MailList, MailResult, Ticket};
use crate::store::DEFAULT_EVENT;

#[derive(Args)]
pub struct Arguments {
    /// The event of the tickets
    #[arg(long, default_value = DEFAULT_EVENT)]
    event: String,
    /// Also send tickets that were sent before
    #[arg(long)]
    again: bool,
    /// Show the first mail without its links, and the number of tickets; send nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    let Arguments { again, dry_run, .. } = arguments;
    super::block_on(async {
        let event = super::find_event(&app, &arguments.event).await?;
        anyhow::ensure!(app.settings.mail.is_some(), "{}", Error::MailNotConfigured.detail());
        let list = if again { MailList::WithAddress } else { MailList::Unmailed };
        let batches = read(&app, &event, list).await?;
        let tickets: usize = batches.iter().map(Vec::len).sum();
        let how = How { again, dry_run };
        let progress = (!dry_run).then(|| Progress::new(tickets));
        let (mut counts, mut done, mut shown) = (BTreeMap::<&str, usize>::new(), 0, false);
        for batch in batches {
            let ids: Vec<Uuid> = batch.iter().map(|ticket| ticket.ticket_id).collect();
            let mailed = mails::send(&app, &Caller::ENVIRONMENT, &event, &ids, how, app.now()).await?;
            if let Some(preview) = mailed.preview.filter(|_| !std::mem::replace(&mut shown, true)) {
                say!("To: {}\nSubject: {}\n\n{}", preview.to, preview.subject, preview.text);
            }
            done += ids.len();
            progress.iter().for_each(|progress| progress.show(done));
            for (ticket, outcome) in batch.iter().zip(&mailed.results) {
                *counts.entry(outcome.result.as_str()).or_default() += 1;
                if !matches!(outcome.result, MailResult::Sent | MailResult::Ready) {
                    note!("{}, {}: {}", ticket.seat, ticket.gate, told(outcome));
                }
            }
            // The remaining batches would only wait for the same server.
            if mailed.results.iter().any(|outcome| outcome.result == MailResult::Unreachable) {
                break;
            }
        }
        drop(progress);
        let count = |result: MailResult| counts.get(result.as_str()).copied().unwrap_or_default();
        if dry_run {
            say!("{} of {tickets} tickets would be sent.", count(MailResult::Ready));
            return Ok(());
        }
        let sent = count(MailResult::Sent);
        say!("{sent} of {tickets} tickets sent.");
        anyhow::ensure!(sent == tickets, "not sent: {}; run it again for these", tickets - sent);
        Ok(())
    })
}

/// Describes the outcome for a ticket without naming the person.
fn told(TicketResult { result, smtp_code, smtp_status, .. }: &TicketResult) -> String {
    let code = smtp_code.map(|code| code.to_string());
    let words = [Some(result.as_str().to_owned()), code, smtp_status.clone()];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Reads the tickets of a list in batches of the size mailed at once.
async fn read(app: &App, event: &Event, list: MailList) -> Result<Vec<Vec<Ticket>>, Error> {
    let (mut batches, mut after) = (Vec::new(), None);
    loop {
        let (tickets, next) = app.in_time(mails::page(app, event, None, list, after)).await?;
        if !tickets.is_empty() {
            batches.push(tickets);
        }
        after = match next {
            Some(_) => next,
            None => return Ok(batches),
        };
    }
}
