//! `export`: the same CSV as `GET /api/events/{event}/tickets.csv`, `scans.csv`, `inside.csv` and `attendance.csv`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::{Stream, TryStreamExt as _};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::endpoints::{attendance, scans, tickets};
use crate::error::Error;
use crate::model::Action;
use crate::store::{Act, DEFAULT_EVENT, beside};

#[derive(Args)]
pub struct Arguments {
    what: What,
    /// The event to export
    #[arg(long, default_value = DEFAULT_EVENT)]
    event: String,
    /// A file, which appears only once it is complete [default: standard output]
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Tickets,
    Scans,
    /// Who is inside now
    Inside,
    /// Who came, and who did not
    Attendance,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    super::block_on(async {
        let event = super::find_event(&app, &arguments.event).await?;
        let output = arguments.output.as_deref();
        let act = |action| Act::new(action, event.event_id);
        match arguments.what {
            What::Tickets => {
                let rows = tickets::ticket_rows(Arc::clone(&app), event.event_id, None);
                write(&app, &act(Action::TicketsExported), rows, output).await
            }
            What::Inside => {
                let rows = attendance::inside_rows(Arc::clone(&app), event.event_id);
                write(&app, &act(Action::InsideExported), rows, output).await
            }
            What::Attendance => {
                let rows = attendance::attendance_rows(Arc::clone(&app), event.event_id, None);
                write(&app, &act(Action::AttendanceExported), rows, output).await
            }
            What::Scans => {
                let rows = scans::scan_rows(Arc::clone(&app), event.event_id);
                write(&app, &act(Action::ScansExported), rows, output).await
            }
        }
    })
}

/// Writes a whole list, after recording the export.
pub(super) async fn write(
    app: &App,
    act: &Act,
    rows: impl Stream<Item = Result<Bytes, Error>>,
    output: Option<&Path>,
) -> anyhow::Result<()> {
    if let (Some(output), Some(database)) = (output, app.settings.sqlite_file()) {
        anyhow::ensure!(
            !is_part_of(database, output),
            "{} is the database itself: name another file",
            output.display()
        );
    }
    app.in_time(app.store().record_action(Caller::ENVIRONMENT.author(app.now()), act)).await?;
    match output {
        None => copy(rows, &mut std::io::stdout().lock()).await,
        Some(path) => write_file(rows, path).await,
    }
}

/// Returns whether a file is the database, or one of the files beside it that belong to it.
fn is_part_of(database: &Path, file: &Path) -> bool {
    let identity = |file: &Path| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    let parts = ["", "-wal", "-shm"].map(|ending| identity(&beside(database, ending)));
    identity(file).is_some_and(|file| parts.contains(&Some(file)))
}

/// Writes under another name, and renames the file once everything is on the disk.
async fn write_file(rows: impl Stream<Item = Result<Bytes, Error>>, path: &Path) -> anyhow::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}", Uuid::new_v4()));
    let written: anyhow::Result<()> = async {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        copy(rows, &mut file).await?;
        file.sync_all()?;
        Ok(std::fs::rename(&unfinished, path)?)
    }
    .await;
    if written.is_err() {
        // It may not even have been created; report the first error.
        let _ = std::fs::remove_file(&unfinished);
    }
    written.with_context(|| path.display().to_string())
}

async fn copy(rows: impl Stream<Item = Result<Bytes, Error>>, output: &mut impl Write) -> anyhow::Result<()> {
    let mut rows = pin!(rows);
    while let Some(chunk) = rows.try_next().await? {
        output.write_all(&chunk)?;
    }
    Ok(output.flush()?)
}
