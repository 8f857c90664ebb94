//! `import`: the tickets of a CSV file, as `POST /api/events/{event}/tickets` takes them, but of any size.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::auth::Caller;
use crate::endpoints::tickets;
use crate::sheet;
use crate::store::DEFAULT_EVENT;

/// Tickets from one line of progress to the next, elsewhere than on a terminal.
const LINE: usize = 10_000;

#[derive(Args)]
pub struct Arguments {
    /// Columns seat, gate and, to register too, username, full_name, email; `-` is standard input
    file: PathBuf,
    /// The event the tickets admit to
    #[arg(long, default_value = DEFAULT_EVENT)]
    event: String,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app()?;
    let name = arguments.file.display().to_string();
    let rows = sheet::read_tickets(&read(&arguments.file)?, usize::MAX).context(name.clone())?;
    let progress = Progress::new(rows.len());
    let created = super::block_on(async {
        let event = super::find_event(&app, &arguments.event).await?;
        tickets::import(&app, &Caller::ENVIRONMENT, &event, rows, &|done| progress.show(done)).await.context(name)
    })?;
    drop(progress);
    println!(
        "{} tickets created in the event {}, {} of them registered; {} new users.",
        created.created, arguments.event, created.registered, created.users_created
    );
    Ok(())
}

fn read(file: &PathBuf) -> anyhow::Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).context("standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).with_context(|| file.display().to_string())
}

/// A bar on a terminal, a line now and then elsewhere; on standard error.
struct Progress {
    tickets: usize,
    told: AtomicUsize,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(tickets: usize) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} tickets, {eta} left");
        let bar = std::io::stderr().is_terminal().then(|| {
            ProgressBar::new(tickets as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { tickets, told: AtomicUsize::new(0), bar }
    }

    fn show(&self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None => {
                let told = self.told.swap(done, Ordering::Relaxed);
                if done == self.tickets || done / LINE > told / LINE {
                    eprintln!("{done} of {} tickets", self.tickets);
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
