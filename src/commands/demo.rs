//! `demo`: serves a temporary database, and prints commands to try it with.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::app::App;
use crate::auth::{Caller, NewSecret};
use crate::config::Settings;
use crate::endpoints::imports;
use crate::endpoints::keys::{self, NewKey};
use crate::limits::{ENROLMENT, told};
use crate::model::{Event, Existing, Role, Slug, Text, Unknown};
use crate::store::{DEFAULT_EVENT, TicketFilter};
use crate::{links, logs, serve};

/// Two people with a ticket each, and two tickets without a holder.
const TICKETS: &str = "\
seat,gate,username,full_name
A-1,North,ana,Ana Ruiz
A-2,North,,
B-1,South,ben,Ben Okoye
B-2,South,,
";
/// Ports to try if the default one is in use.
const OTHER_PORTS: u16 = 100;

pub fn run() -> anyhow::Result<()> {
    let directory = super::Directory::make("demo")?;
    let key = NewSecret::random()?.text;
    let of_environment = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
    let fixed_port = of_environment("PORT").is_some();
    let mut settings = Settings::read(|variable| match variable {
        "DATABASE_URL" => Some(format!("sqlite:{}", directory.0.join("tickets.db").display())),
        "ORGANIZER_KEY" => Some(key.clone()),
        "RUST_LOG" => Some(of_environment(variable).unwrap_or_else(|| "warn".into())),
        "PORT" | "LOG_FORMAT" => of_environment(variable),
        _ => None,
    })?;
    super::block_on(async {
        let listener = listen(settings.port, fixed_port).await?;
        settings.port = listener.local_addr()?.port();
        settings.public_url = format!("http://127.0.0.1:{}", settings.port);
        logs::start(&settings);
        let app = super::app_of(settings);
        let event = super::find_event(&app, DEFAULT_EVENT).await?;
        let how = imports::How::new(None, Unknown::Refuse, Existing::Refuse, false, usize::MAX);
        let plan = imports::plan(&app, &Caller::ENVIRONMENT, &event, TICKETS, how, None).await?;
        plan.carry_out(&app, &Caller::ENVIRONMENT, &event, &|_| {}).await?;
        let stopped = serve::stopped()?;
        say!("{}", introduction(&Places::of(&app, &event).await?, &key));
        serve::http_until(app, listener, stopped).await
    })
}

async fn listen(port: u16, fixed: bool) -> anyhow::Result<TcpListener> {
    let last = if fixed { port } else { port.saturating_add(OTHER_PORTS) };
    for port in port..last {
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            bound => return bound.with_context(|| format!("PORT: cannot listen on {port}")),
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, last)).await.with_context(|| format!("PORT: cannot listen on {last}"))
}

/// Addresses for a browser.
struct Places {
    url: String,
    ticket: String,
    gate: String,
}

impl Places {
    async fn of(app: &App, event: &Event) -> anyhow::Result<Self> {
        let now = app.now();
        let ana = TicketFilter { search: Some("ana".into()), ..TicketFilter::default() };
        let tickets = app.store().list_tickets(event.event_id, &ana, 1).await?;
        let ticket = tickets.first().context("Ana has a ticket")?;
        let gate = NewKey {
            name: Text(ticket.gate.clone()),
            role: Role::Supervisor,
            event: Some(Slug(event.slug.clone())),
            gate: Some(ticket.gate.clone().try_into().map_err(anyhow::Error::msg)?),
            offline: true,
            expires_at: None,
        };
        let gate = keys::create(app, &Caller::ENVIRONMENT, gate, now).await?;
        Ok(Self {
            url: app.settings.public_url.clone(),
            ticket: links::ticket_url(app, app.claimed_links().await?, ticket),
            gate: keys::offer(app, &gate.details, Caller::ENVIRONMENT.author(now)).await?.enrol_url,
        })
    }
}

/// Returns the printed text: a few words, and commands for bash. The comments avoid characters that are special to a shell,
/// because zsh runs pasted comments as commands.
fn introduction(Places { url, ticket, gate }: &Places, key: &str) -> String {
    let program = shell_word(&std::env::args().next().unwrap_or_default());
    let enrolment = told(ENROLMENT);
    let curl = r#"curl -sS -w '\n' -H "Authorization: Bearer $key""#;
    let scan = format!(
        r#"{curl} -d seat=A-2 -d gate=North -d totp_code="$({program} code <<< "$ticket")" $api/users/attendance"#
    );
    format!(
        r#"The demo answers at {url} until Ctrl-C, which deletes its database.
There are two people, ana and ben, with a ticket each, and two tickets without a holder, A-2 (North) and B-2 (South).

Open these in a browser, each in its own window:

  Ana's ticket       {ticket}
  the gate North     {gate} (once, within {enrolment})
  the organizer      {url}/organizer, with the key {key}

At the gate, scan Ana's code, or type her seat, A-1, and the six digits.

Paste these commands, which need curl, into another terminal, in the same directory:

api={url}/api
key={key}

# Register: ana gets the ticket for seat A-2 at gate North. The response contains the secret of its codes.
ticket=$({curl} -d seat=A-2 -d gate=North $api/users/ana/tickets); echo "$ticket"

# The code that her phone shows now.
{program} code <<< "$ticket"

# Admit her with the current code.
{scan}

# The same ticket again is refused.
{scan}

# The statistics of the event.
{curl} $api/events/{DEFAULT_EVENT}/stats
"#
    )
}

/// Quotes a text as one shell word.
fn shell_word(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
