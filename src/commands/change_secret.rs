//! `change-secret`: sets another `TICKET_SECRET`, or the first one after tickets were registered without one.

use clap::Args;

use crate::app::App;
use crate::auth::{Caller, random_bytes};
use crate::config::refuse;
use crate::model::Seed;
use crate::store::Reseeded;
use crate::totp::TicketSecret;

/// Events read at a time.
const PAGE: i64 = 500;

#[derive(Args)]
pub struct Arguments {
    /// Confirm that the codes, links and printed tickets that people have stop working
    #[arg(long)]
    yes: bool,
    /// Do it even if an event is running: nobody gets in without their new link
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    let Some(secret) = app.settings.ticket_secret.clone() else {
        let why = "is not set: set it to the new one, such as the output of `openssl rand -hex 32`, and do not store it with backups";
        return Err(refuse("TICKET_SECRET", why).into());
    };
    let secret = TicketSecret::new(Some(secret));
    let reseeded = super::block_on(async {
        let kept = app.in_time(app.store().kept_secrets()).await?;
        anyhow::ensure!(
            kept.secret_fingerprint.as_deref() != Some(secret.fingerprint()),
            "TICKET_SECRET is the one that the database already uses; set it to the new one"
        );
        if !arguments.force {
            refuse_while_running(&app).await?;
        }
        anyhow::ensure!(
            arguments.yes,
            "every ticket that is not used up would get new codes, and the codes, links and printed tickets that people have \
             would stop working; add --yes to confirm"
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

/// Describes what was done, and what to do next.
fn told(reseeded: &Reseeded) -> String {
    let tickets: usize = reseeded.values().map(|event| event.tickets).sum();
    let mut lines = vec![
        format!("{tickets} tickets have new codes, made with the current TICKET_SECRET. Next:"),
        "- Store it, but not with the backups. Restart `serve` with it; with another one it admits nobody.".to_owned(),
        "- Connect offline gates once, to get the new list.".to_owned(),
    ];
    lines.extend(reseeded.iter().filter(|(_, reseeded)| reseeded.held > 0).map(|(event, reseeded)| {
        let held = reseeded.held;
        format!(
            "- Send people their new links: {held} tickets, /api/events/{event}/links.csv; reprint printed tickets."
        )
    }));
    lines.join("\n")
}
