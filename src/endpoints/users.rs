//! People, and the tickets they hold.

use http::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

use super::tickets::with_provisioning;
use crate::error::Error;
use crate::limits::NAME;
use crate::list::{self, PageQuery};
use crate::model::{Email, Place, Slug, Text, User, Username};
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::DEFAULT_EVENT;

/// A user to create.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NewUser {
    /// Unique, whatever the case of its letters. `attendance` is reserved.
    username: Username,
    /// The person's name.
    full_name: Option<Text<NAME>>,
    /// The person's e-mail address.
    email: Option<Email>,
}

/// `POST /api/users`.
pub async fn create_user(call: Call<'_>) -> Result<Response, Error> {
    let new: NewUser = call.json_or_form()?;
    let user = User {
        user_id: Uuid::now_v7(),
        username: new.username.as_str().to_owned(),
        full_name: new.full_name.map(|name| name.0),
        email: new.email.map(|email| email.0),
        created_at: call.now,
    };
    call.app.store().insert_user(&user, call.author()?).await?;
    response::json(StatusCode::CREATED, &user)
}

/// `GET /api/users/{username}`.
pub async fn show_user(call: Call<'_>) -> Result<Response, Error> {
    response::json(StatusCode::OK, &find_user(&call).await?)
}

/// `DELETE /api/users/{username}`: erases the person; their tickets are revoked, the counts stay.
pub async fn erase_user(call: Call<'_>) -> Result<Response, Error> {
    let only_event = call.caller()?.event_id;
    call.app.store().erase_user(username(&call)?, only_event, call.author()?).await?;
    Ok(response::no_content())
}

/// The ticket to register to the user of the path.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Registration {
    /// The seat.
    seat: Place,
    /// The gate on the ticket.
    gate: Place,
    /// The slug of the ticket's event, `default` when absent.
    event: Option<Slug>,
}

/// `POST /api/users/{username}/tickets`: gives a ticket to a person. The only answer that shows its secret.
pub async fn register_ticket(call: Call<'_>) -> Result<Response, Error> {
    let username = username(&call)?;
    let body: Registration = call.json_or_form()?;
    let slug = body.event.as_ref().map_or(DEFAULT_EVENT, |slug| slug.0.as_str());
    let store = call.app.store();
    let event = call.caller()?.open_event(store.find_event(slug).await?)?;
    let secret = call.app.claimed_links().await?;
    let ticket =
        store.register_ticket(username, event.event_id, body.seat.as_str(), body.gate.as_str(), call.author()?).await?;
    response::json(StatusCode::CREATED, &with_provisioning(call.app, secret, &event, &ticket))
}

/// `GET /api/users/{username}/tickets`.
pub async fn list_tickets(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let user = find_user(&call).await?;
    let only_event = call.caller()?.event_id;
    let after = query.after.map(|cursor| cursor.0);
    let tickets = call.app.store().list_user_tickets(user.user_id, only_event, after, query.limit.to_read()).await?;
    list::respond("tickets", tickets, query.limit, |ticket| ticket.ticket_id)
}

/// The name in the path. What cannot be a username names nobody.
fn username<'a>(call: &'a Call<'_>) -> Result<&'a str, Error> {
    let name = call.params.get("username").unwrap_or_default();
    match Username::try_from(name.to_owned()) {
        Ok(_) => Ok(name),
        Err(_) => Err(Error::UserNotFound),
    }
}

async fn find_user(call: &Call<'_>) -> Result<User, Error> {
    call.app.store().find_user(username(call)?).await?.ok_or(Error::UserNotFound)
}
