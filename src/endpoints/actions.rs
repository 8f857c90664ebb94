//! Actions of organizers and supervisors: the history of a ticket, and the exports.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use uuid::Uuid;

use super::tickets::find_ticket;
use crate::error::Error;
use crate::list::{self, PAGE, PageQuery};
use crate::model::Action;
use crate::request::Call;
use crate::response::{self, Response, attachment};
use crate::sheet::{self, ActionLine};
use crate::store::{Act, ListedAction};

/// `GET /api/tickets/{ticket_id}/actions`: what was done to the ticket, oldest first.
pub async fn list_ticket_actions(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let ticket = find_ticket(&call).await?;
    let after = query.after.map(|cursor| cursor.0);
    let actions = call.app.store().list_ticket_actions(ticket.ticket_id, after, query.limit.to_read()).await?;
    list::respond("actions", actions, query.limit, |action| action.action_id)
}

/// `GET /api/events/{event}/actions.csv`.
pub async fn export_event_actions(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let rows = action_rows(&call, Some(event.event_id));
    let act = Act::new(Action::ActionsExported, event.event_id);
    export(&call, act, rows, &format!("actions-{}.csv", event.slug)).await
}

/// `GET /api/actions.csv`: the actions of all events and of the whole installation.
pub async fn export_all_actions(call: Call<'_>) -> Result<Response, Error> {
    call.caller()?.must_be_unbound()?;
    export(&call, Act::new(Action::ActionsExported, None), action_rows(&call, None), "actions.csv").await
}

/// Sends a whole list as CSV, after recording who exported it.
pub(super) async fn export(
    call: &Call<'_>,
    act: Act,
    rows: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    file: &str,
) -> Result<Response, Error> {
    call.app.store().record_action(call.author()?, &act).await?;
    Ok(attachment(response::streamed("text/csv; charset=utf-8", rows), file))
}

fn action_rows(call: &Call<'_>, event_id: Option<Uuid>) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
    let app = Arc::clone(call.app);
    let read = move |after| {
        let app = Arc::clone(&app);
        async move { app.in_time(app.store().list_actions(event_id, after, PAGE)).await }
    };
    let mut writer = sheet::Writer::new::<ActionLine>();
    list::pages(read, |action: &ListedAction| (action.at, action.action_id)).map(move |actions| {
        for action in &actions? {
            writer.line(&ActionLine::new(action))?;
        }
        writer.take()
    })
}
