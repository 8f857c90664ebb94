//! `change-secret`: another `TICKET_SECRET`, or the first one after tickets were registered without.

use clap::Args;

use crate::app::App;
use crate::auth::{Caller, random_bytes};
use crate::config::refuse;
use crate::model::Seed;
use crate::store::Reseeded;
use crate::totp::TicketSecret;

/// Events that are read at a time.
const PAGE: i64 = 500;

#[derive(Args)]
pub struct Arguments {
    /// Yes, the codes, links and printed tickets that people have shall be worth nothing any more
    #[arg(long)]
    yes: bool,
    /// Do it although an event is running: nobody gets in until people have their new links
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    let Some(secret) = app.settings.ticket_secret.clone() else {
        let why = "is not set: set it to the new one, such as `openssl rand -hex 32` makes, and keep that apart from the backups";
        return Err(refuse("TICKET_SECRET", why).into());
    };
    let secret = TicketSecret::new(Some(secret));
    let reseeded = super::block_on(async {
        let kept = app.in_time(app.store().kept_secrets()).await?;
        anyhow::ensure!(
            kept.secret_fingerprint.as_deref() != Some(secret.fingerprint()),
            "TICKET_SECRET is the one that the database is used with already; set it to the new one"
        );
        if !arguments.force {
            refuse_while_running(&app).await?;
        }
        anyhow::ensure!(
            arguments.yes,
            "every ticket that is not used up would get new codes, and the codes, links and printed tickets that people have \
             would be worth nothing: add --yes for that"
        );
        let new_seed = || Ok(Seed(random_bytes()?));
        Ok(app.store().reseed_tickets(secret.fingerprint(), new_seed, Caller::ENVIRONMENT.author(app.now())).await?)
    })?;
    say!("{}", told(&reseeded));
    Ok(())
}

async fn refuse_while_running(app: &App) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let events = app.in_time(app.store().list_events(after, PAGE)).await?;
        if let Some(event) = events.iter().find(|event| event.is_running(app.now())) {
            anyhow::bail!("the event {} is running; wait for its end, or add --force", event.slug);
        }
        after = events.last().map(|event| event.event_id);
        if (events.len() as i64) < PAGE {
            return Ok(());
        }
    }
}

/// What was done, and what is to be done now.
fn told(reseeded: &Reseeded) -> String {
    let tickets: usize = reseeded.values().map(|event| event.tickets).sum();
    let mut lines = vec![
        format!("{tickets} tickets have new codes, under the TICKET_SECRET that is set now. Next:"),
        "- Keep it, apart from the backups. Restart `serve` with it: with another one it admits nobody.".to_owned(),
        "- Gates that work offline must be online once, for the new list.".to_owned(),
    ];
    lines.extend(reseeded.iter().filter(|(_, reseeded)| reseeded.held > 0).map(|(event, reseeded)| {
        let held = reseeded.held;
        format!("- Send people their links again: {held} tickets, /api/events/{event}/links.csv; print again what was printed.")
    }));
    lines.join("\n")
}
