//! Events whose people are forgotten, so many days after their end: by `forget`, and by `serve` every day where it has time of its
//! own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::model::Event;
use crate::store::Forgotten;

/// The first requests go first.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether a day has passed: a machine may have slept, or its clock been set.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
const DAY: Duration = Duration::from_hours(24);

/// Forgets all who are to be forgotten by now, or with `dry_run` tells whom. Returns the events of which anything was erased, or would
/// be; of each that cannot be gone over now, why: it waits for the next time.
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
                tracing::warn!(event = event.slug, %error, "an event has not forgotten all of its people yet")
            }
        }
        events.push((event, forgotten));
    }
    Ok(events)
}

/// Forgets every day, for as long as the service runs.
pub async fn run(app: Arc<App>) {
    let (mut rest, mut due) = (FIRST_LOOK, app.now());
    loop {
        tokio::time::sleep(rest).await;
        rest = LOOK_AGAIN;
        // Before the first request there is no file yet.
        let has_database = app.settings.sqlite_file().is_none_or(Path::exists);
        if app.now() < due || !has_database {
            continue;
        }
        match forget_due(&app, false).await {
            Ok(events) if events.iter().all(|(_, forgotten)| forgotten.is_ok()) => due = app.now() + DAY,
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "nobody is forgotten until the next look"),
        }
    }
}
