//! `forget`: the people of events whose time for it has come, as `serve` forgets them every day where it runs for days.

use clap::Args;

use crate::forgetting::forget_due;
use crate::store::Forgotten;

#[derive(Args)]
pub struct Arguments {
    /// Tell whom it would forget, and change nothing
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
        anyhow::ensure!(left == 0, "events that are not done: {left}; run it again");
        Ok(())
    })
}

fn told(Forgotten { tickets, people }: Forgotten, dry_run: bool) -> String {
    let (ticket, tell) = if tickets == 1 { ("ticket", "tells") } else { ("tickets", "tell") };
    let (people, was) = match people {
        1 => ("1 person".to_owned(), "was"),
        many => (format!("{many} people"), "were"),
    };
    match dry_run {
        true => format!("{people} would be forgotten, with what {tickets} {ticket} {tell} of somebody"),
        false => format!("{people} {was} forgotten, with what {tickets} {ticket} told of somebody"),
    }
}
