//! Forgets the people of events some days after their end: in `forget`, and daily in a continuously running `serve`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::model::Event;
use crate::store::Forgotten;

/// Delay after the start, which leaves the machine to the first requests.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How often to check whether a day has passed: the machine may have slept, or its clock may have been set.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
const DAY: Duration = Duration::from_hours(24);

/// Forgets the people of all events that are due, or with `dry_run` only counts them. Returns the events from which
/// something was erased, or would be, and those that failed, with the error. The next run retries these.
pub async fn forget_due(app: &App, dry_run: bool) -> Result<Vec<(Event, Result<Forgotten, Error>)>, Error> {
    let store = app.store();
    let mut events = Vec::new();
    for event in app.in_time(store.list_due(app.now())).await? {
        let forgotten = if dry_run {
            store.count_people(event.event_id).await
        } else {
            store.forget_event(event.event_id, Caller::ENVIRONMENT.author(app.now())).await
        };
        let is_new = event.forgotten_at.is_none();
        match &forgotten {
            Ok(forgotten) if !is_new && *forgotten == Forgotten::default() => continue,
            Ok(Forgotten { tickets, people }) if !dry_run => {
                tracing::info!(event = event.slug, tickets, people, "an event has forgotten its people");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(event = event.slug, %error, "an event has not yet forgotten all of its people")
            }
        }
        events.push((event, forgotten));
    }
    Ok(events)
}

/// Forgets the people of due events daily for as long as the service runs.
pub async fn run(app: Arc<App>) {
    let (mut rest, mut due) = (FIRST_LOOK, app.now());
    loop {
        tokio::time::sleep(rest).await;
        rest = LOOK_AGAIN;
        // Before the first request there may be no database file.
        let has_database = app.settings.sqlite_file().is_none_or(Path::exists);
        if app.now() < due || !has_database {
            continue;
        }
        match forget_due(&app, false).await {
            Ok(events) if events.iter().all(|(_, forgotten)| forgotten.is_ok()) => due = app.now() + DAY,
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot forget people; trying again later"),
        }
    }
}
