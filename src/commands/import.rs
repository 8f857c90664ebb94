//! `import`: imports a list of tickets, as `POST /api/events/{event}/tickets` does, but of any size.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;

use super::Progress;
use crate::auth::Caller;
use crate::endpoints::imports::{self, Columns, How, Imported};
use crate::model::{Existing, Unknown};
use crate::store::DEFAULT_EVENT;

#[derive(Args)]
pub struct Arguments {
    /// CSV or .xlsx with columns seat, row, gate, username, full_name, first_name, last_name, email, reference, order,
    /// order_position, quantity, category, note, valid_from, valid_until or status, or an export of a ticket seller or a
    /// form; `-` is standard input
    file: PathBuf,
    /// The event of the tickets
    #[arg(long, default_value = DEFAULT_EVENT)]
    event: String,
    /// The columns in their order, such as `full_name,email,-,quantity`; `-` skips one [default: recognised by their
    /// names]
    #[arg(long, value_parser = columns)]
    columns: Option<Columns>,
    /// What to do with unknown columns
    #[arg(long, default_value = "refuse", value_parser = words(Unknown::ALL, Unknown::as_str))]
    unknown: Unknown,
    /// What to do with a line whose ticket already exists
    #[arg(long, default_value = "refuse", value_parser = words(Existing::ALL, Existing::as_str))]
    existing: Existing,
    /// The first line is a ticket; no line names the columns
    #[arg(long)]
    no_header: bool,
    /// Show what would be imported, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Returns a parser for the words of an enum.
fn words<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    word: fn(T) -> &'static str,
) -> impl clap::builder::TypedValueParser<Value = T> {
    let of = move |text: String| all.iter().copied().find(|&value| word(value) == text).ok_or("no such word");
    PossibleValuesParser::new(all.iter().map(|&value| word(value))).try_map(of)
}

fn columns(text: &str) -> Result<Columns, String> {
    text.parse().map_err(|fault: crate::fault::Fault| fault.message())
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app()?;
    let name = arguments.file.display().to_string();
    let file = read(&arguments.file)?;
    let how = How::new(arguments.columns, arguments.unknown, arguments.existing, arguments.no_header, usize::MAX);
    let caller = Caller::ENVIRONMENT;
    let imported = super::block_on(async {
        let event = super::find_event(&app, &arguments.event).await?;
        let plan = imports::plan(&app, &caller, &event, file, how, None).await.context(name.clone())?;
        if arguments.dry_run {
            let preview = plan.preview();
            say!("{}", serde_json::to_string_pretty(&preview)?);
            anyhow::ensure!(preview.is_good(), "{name}: has the `errors` above; nothing would be imported");
            return Ok(None);
        }
        let progress = Progress::new(plan.tickets());
        plan.carry_out(&app, &caller, &event, &|done| progress.show(done)).await.context(name).map(Some)
    })?;
    let Some(Imported { counts: created, notices }) = imported else { return Ok(()) };
    say!(
        "{} tickets created in the event {}, {} of them registered; {} new users.",
        created.created,
        arguments.event,
        created.registered,
        created.users_created
    );
    if created.updated + created.skipped > 0 {
        say!("Of the existing tickets, {} were updated and {} left unchanged.", created.updated, created.skipped);
    }
    for notice in notices {
        note!("{}: {}", notice.field, notice.message());
    }
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
