//! `forget`: forgets the people of events that are due, as a continuously running `serve` does every day.

use clap::Args;

use crate::forgetting::forget_due;
use crate::store::Forgotten;

#[derive(Args)]
pub struct Arguments {
    /// Show what would be forgotten, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub fn run(Arguments { dry_run }: Arguments) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    super::block_on(async {
        let events = forget_due(&app, dry_run).await?;
        for (event, forgotten) in &events {
            match forgotten {
                Ok(forgotten) => say!("{}: {}", event.slug, told(*forgotten, dry_run)),
                Err(error) => note!("{}: {}", event.slug, error.detail()),
            }
        }
        if events.is_empty() {
            say!("No event has anybody to forget.");
        }
        let left = events.iter().filter(|(_, forgotten)| forgotten.is_err()).count();
        anyhow::ensure!(left == 0, "unfinished events: {left}; run it again");
        Ok(())
    })
}

fn told(Forgotten { tickets, people }: Forgotten, dry_run: bool) -> String {
    let ticket = if tickets == 1 { "ticket" } else { "tickets" };
    let (people, was) = match people {
        1 => ("1 person".to_owned(), "was"),
        many => (format!("{many} people"), "were"),
    };
    match dry_run {
        true => format!("{people} would be forgotten, with the personal data of {tickets} {ticket}"),
        false => format!("{people} {was} forgotten, with the personal data of {tickets} {ticket}"),
    }
}
