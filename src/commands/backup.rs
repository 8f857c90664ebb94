//! `backup`: copies the database, and `backup verify` proves that a copy can be restored and served.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;

use super::Directory;
use crate::app::App;
use crate::backup::{self, Contents, Format, SecretFit, archive};
use crate::config::{Database, PoolMode, Settings, Tls, postgres_server, refuse};
use crate::serve;

/// How long to wait for the service on the copy, whose own deadline is shorter.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    /// The directory for the backup [default: BACKUP_DIR]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    #[command(flatten)]
    scratch: Scratch,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Rehearse a restore: restore a backup temporarily, check its data, start the service on it and check its health
    Verify {
        /// The backup, .db.gz, .dump.gz or .dump [default: the newest in BACKUP_DIR]
        file: Option<PathBuf>,
        #[command(flatten)]
        scratch: Scratch,
    },
}

#[derive(Args)]
struct Scratch {
    /// The PostgreSQL server for the temporary database, with a login that may create databases; PGPASSWORD is its
    /// password [default: the database's own server, as DB_MIGRATE_USER]
    #[arg(long = "scratch-url", value_name = "URL", value_parser = postgres_url)]
    url: Option<Box<PgConnectOptions>>,
}

fn postgres_url(url: &str) -> Result<Box<PgConnectOptions>, &'static str> {
    postgres_server(url, &Tls::default()).map(Box::new).ok_or("expected a postgres:// URL")
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    super::block_on(async {
        match arguments.command {
            None => take(&*super::app_on_what_is_there()?, arguments.to, arguments.scratch).await,
            Some(Command::Verify { file, scratch }) => verify(&super::app()?, file, scratch).await,
        }
    })
}

async fn take(app: &App, to: Option<PathBuf>, scratch: Scratch) -> anyhow::Result<()> {
    let directory = to.or(app.settings.backup_dir.clone());
    let directory = directory.ok_or_else(|| refuse("BACKUP_DIR", "is not set; set it, or use --to"))?;
    let backup = backup::take(app, &directory, scratch.url.as_deref()).await?;
    say!(
        "{}: {} bytes, {} tickets, {} scans, in {} ms",
        backup.path.display(),
        backup.bytes,
        backup.contents.tickets,
        backup.contents.scans,
        backup.elapsed.as_millis()
    );
    if let Some(warning) = backup.warning() {
        note!("warning: {warning}");
    }
    backup.follow_up(app).await.context("the backup is kept, but")
}

async fn verify(app: &Arc<App>, file: Option<PathBuf>, scratch: Scratch) -> anyhow::Result<()> {
    let file = match file {
        Some(file) => file,
        None => newest(app)?,
    };
    let contents = match backup::format_of(&file)? {
        Format::Sqlite => {
            let directory = Directory::make("verify")?;
            let place = Database::Sqlite(directory.0.join("tickets.db"));
            backup::unless_stopped(rehearse(app, &file, place)).await?
        }
        Format::Postgres => {
            let server = scratch.url.or_else(|| match &app.settings.database {
                Database::Postgres { owner, .. } => Some(owner.clone()),
                Database::Sqlite(_) => None,
            });
            let server = server.context("a backup of PostgreSQL needs a server: use --scratch-url")?;
            backup::in_scratch(&server, async |scratch| {
                let (service, owner) = (Box::new(scratch.clone()), Box::new(scratch));
                rehearse(
                    app,
                    &file,
                    Database::Postgres { service, owner, pool_mode: PoolMode::Session, grant_to: None },
                )
                .await
            })
            .await?
        }
    };
    say!("{} can be restored and served:", file.display());
    say!("{}", contents.describe(app));
    if contents.secret_fit(app) == SecretFit::NotSet {
        note!("not verified: whether codes can be made, as TICKET_SECRET is not set here; set it to verify this, too");
    }
    anyhow::ensure!(contents.secret_fit(app) != SecretFit::Differs, "the backup needs another TICKET_SECRET");
    Ok(())
}

/// Returns the newest backup in `BACKUP_DIR`, of either database.
fn newest(app: &App) -> anyhow::Result<PathBuf> {
    let directory = app.settings.backup_dir.as_deref();
    let directory = directory.ok_or_else(|| refuse("BACKUP_DIR", "is not set; set it, or name a file"))?;
    let of = |ending| archive::newest(directory, ending, app.now());
    let newest = of(archive::SQLITE)?.max(of(archive::POSTGRES)?);
    let (_, path) = newest.with_context(|| format!("{}: there is no backup", directory.display()))?;
    Ok(path)
}

/// Restores a backup into a throwaway database, checks its invariants, and serves it.
async fn rehearse(app: &App, file: &Path, place: Database) -> anyhow::Result<Contents> {
    let app = rehearsal(app.settings.clone(), place);
    let contents = backup::restore(&app, file).await?;
    super::check::check(&app).await.with_context(|| format!("{} as restored", file.display()))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let asked = tokio::task::spawn_blocking(move || full_health(address));
    tokio::select! {
        served = serve::http_until(app, listener, serve::stopped()?) => {
            served?;
            anyhow::bail!("stopped before the service on the copy answered");
        }
        health = asked => health?.with_context(|| format!("the service on {} as restored", file.display()))?,
    }
    Ok(contents)
}

/// Returns the service with these settings, but on the copy.
fn rehearsal(mut settings: Settings, place: Database) -> Arc<App> {
    settings.database = place;
    super::app_of(settings)
}

fn full_health(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET /health?full=1 HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    // `durability` is not checked, because a throwaway server need not be durable.
    let checks: BTreeMap<String, Value> = serde_json::from_str(body).unwrap_or_default();
    let is_ok = |check: &str| checks.get(check).is_some_and(|word| word == "ok");
    anyhow::ensure!(
        ["database", "migrations", "clock", "writable"].into_iter().all(is_ok),
        "answers /health?full=1 with {body}"
    );
    Ok(())
}
