//! `keys`: manages keys.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::export;
use crate::app::{App, within};
use crate::auth::Caller;
use crate::endpoints::keys::{self, NewKey};
use crate::fault::Fault;
use crate::limits::{KEY_AFTER_EVENT, KEY_NAME, KEY_OF_ORGANIZER, KEY_REMEMBERED, KEY_WITHOUT_END, told};
use crate::model::{Key, Millis, Place, Role, Slug, Text};

/// Deadline for renewing a hundred tickets, each of which takes two round trips.
const RENEWAL: Duration = Duration::from_mins(1);

/// Keys or scans read at a time.
const PAGE: i64 = 500;

#[derive(Subcommand)]
pub enum Command {
    /// Create a key and print it, only this once
    Create(NewKeyArguments),
    /// List the keys, without their secrets
    List,
    /// Revoke a key permanently, and the keys that it created
    Revoke {
        /// The id that `keys list` shows
        key_id: Uuid,
    },
    /// Report a gate's phone lost: revoke its key, renew every ticket whose codes it may generate, and list the new links
    Lost(LostArguments),
}

#[derive(Args)]
pub struct LostArguments {
    /// The id that `keys list` shows
    key_id: Uuid,
    /// Also list what was scanned with it since a time, such as 2026-05-01T18:00:00Z
    #[arg(long, value_parser = time)]
    scanned_since: Option<Millis>,
    /// A CSV file for the links to send again [default: standard output]
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Args)]
pub struct NewKeyArguments {
    /// A name that tells people whose key it is
    #[arg(long, value_parser = checked::<Text<KEY_NAME>>)]
    name: Text<KEY_NAME>,
    #[arg(long, value_parser = checked::<Role>, help = roles())]
    role: Role,
    /// The only event for which the key is valid
    #[arg(long, value_parser = checked::<Slug>)]
    event: Option<Slug>,
    /// The gate of all scans with the key
    #[arg(long, value_parser = checked::<Place>, requires = "event")]
    gate: Option<Place>,
    /// Allow it to download the manifest and to send batches
    #[arg(long)]
    offline: bool,
    #[arg(long, value_parser = time, help = expires_at_help())]
    expires_at: Option<Millis>,
}

fn roles() -> String {
    let roles: Vec<&str> = Role::ALL.iter().map(|role| role.as_str()).collect();
    format!("One of {}", roles.join(", "))
}

fn expires_at_help() -> String {
    format!(
        "When it expires, such as 2026-05-02T06:00:00Z [default: for an organizer {} from now; otherwise {} after the \
         event's end, or {} from now]",
        told(KEY_OF_ORGANIZER),
        told(KEY_AFTER_EVENT),
        told(KEY_WITHOUT_END)
    )
}

/// Parses an argument with the rules of the domain type.
pub(super) fn checked<T: TryFrom<String, Error = Fault>>(text: &str) -> Result<T, String> {
    text.to_owned().try_into().map_err(|fault: Fault| fault.message())
}

/// Parses a time on the command line.
pub(super) fn time(text: &str) -> Result<Millis, String> {
    Millis::parse(text).ok_or_else(|| Fault::NotATime.message())
}

pub fn run(command: Command) -> anyhow::Result<()> {
    let app = super::app_on_what_is_there()?;
    super::block_on(async {
        match command {
            Command::Create(arguments) => create(&app, arguments).await,
            Command::List => list(&app).await,
            Command::Revoke { key_id } => {
                let revoked = app.in_time(keys::revoke(&app, &Caller::ENVIRONMENT, key_id, app.now())).await?;
                say!("Revoked: {revoked}. A running service may trust them for {} more.", told(KEY_REMEMBERED));
                Ok(())
            }
            Command::Lost(arguments) => lose(app, arguments).await,
        }
    })
}

/// Only the links go to standard output. If interrupted, the next run continues where this one stopped.
async fn lose(app: Arc<App>, arguments: LostArguments) -> anyhow::Result<()> {
    let LostArguments { key_id, scanned_since, output } = arguments;
    let mut renewed = 0;
    loop {
        let done = within(RENEWAL, keys::lose(&app, &Caller::ENVIRONMENT, key_id, app.now())).await?;
        renewed += done.renewed;
        note!("Renewed {renewed} tickets, {} left", done.remaining);
        if done.remaining == 0 {
            break;
        }
    }
    note!("The key is revoked. A running service may let it scan for {} more.", told(KEY_REMEMBERED));
    let key = keys::find_key(&app, &Caller::ENVIRONMENT, key_id).await?;
    if let Some(since) = scanned_since {
        list_scans(&app, &key, since).await?;
    }
    let address = &app.settings.public_url;
    note!("The links begin with {address} (PUBLIC_URL). If people use another address, set it and run this again.");
    let links = keys::changed_links(Arc::clone(&app), key_id, None).await?;
    export::write(&app, &keys::changed_links_exported(&key), links, output.as_deref()).await
}

async fn list_scans(app: &App, key: &Key, since: Millis) -> anyhow::Result<()> {
    let mut after = None;
    loop {
        let page = app.in_time(app.store().list_key_scans(key, since, after, PAGE)).await?;
        for scan in &page {
            let [seat, gate] = [&scan.seat, &scan.gate].map(|place| place.as_deref().unwrap_or("-"));
            let undone = if scan.undone_at.is_some() { "  undone" } else { "" };
            let (scan_id, result, at) = (scan.scan_id, scan.result.as_str(), scan.received_at);
            note!("{at}  {scan_id}  {}  {result}  {seat}  {gate}{undone}", scan.direction.as_str());
        }
        after = page.last().map(|scan| scan.scan_id);
        if (page.len() as i64) < PAGE {
            return Ok(());
        }
    }
}

/// Only the key goes to standard output, so that a script can capture it.
async fn create(app: &App, arguments: NewKeyArguments) -> anyhow::Result<()> {
    let NewKeyArguments { name, role, event, gate, offline, expires_at } = arguments;
    let new = NewKey { name, role, event, gate, offline, expires_at };
    let made = app.in_time(keys::create(app, &Caller::ENVIRONMENT, new, app.now())).await?;
    note!("{}", describe(&made.details));
    note!("The key, shown only now:");
    say!("{}", made.key);
    Ok(())
}

async fn list(app: &App) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    let mut after = None;
    loop {
        let page = app.in_time(app.store().list_keys(None, after, PAGE)).await?;
        for listed in &page {
            writeln!(output, "{}", describe(&listed.key))?;
        }
        after = page.last().map(|listed| listed.key.key_id);
        if (page.len() as i64) < PAGE {
            return Ok(());
        }
    }
}

fn describe(key: &Key) -> String {
    let mut line = format!("{}  {:10}  {}", key.key_id, key.role.as_str(), key.name);
    let facts = [
        key.event.as_ref().map(|event| format!("event {event}")),
        key.gate.as_ref().map(|gate| format!("gate {gate}")),
        key.offline.then(|| "offline".to_owned()),
        key.created_by.map(|maker| format!("made by {maker}")),
        key.expires_at.map(|at| format!("expires {at}")),
        key.revoked_at.map(|at| format!("revoked {at}")),
    ];
    for fact in facts.into_iter().flatten() {
        line.push_str("  ");
        line.push_str(&fact);
    }
    line
}
