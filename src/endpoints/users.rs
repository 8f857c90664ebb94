//! People, and the tickets they hold.

use http::StatusCode;
use serde::Deserialize;
use uuid::Uuid;

use super::tickets::with_provisioning;
use crate::error::Error;
use crate::limits::NAME;
use crate::list::{self, Cursor, Limit};
use crate::model::{Email, Place, Slug, Text, User, Username};
use crate::request::{Call, present};
use crate::response::{self, Response};
use crate::store::{DEFAULT_EVENT, PersonName, UserChange, UserDetails};

/// Whose people a username belongs to. For a key bound to an event, always that event's own people.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PeopleQuery {
    /// The slug of the event whose own people are meant. When absent: for a key bound to an event, that event; for
    /// another key, the whole installation.
    event: Option<Slug>,
}

impl PeopleQuery {
    /// Returns the event whose own people are meant; none for those of the installation.
    pub(crate) async fn of(&self, call: &Call<'_>) -> Result<Option<Uuid>, Error> {
        let caller = call.caller()?;
        match &self.event {
            Some(slug) => Ok(Some(caller.open_event(call.app.store().find_event(&slug.0).await?)?.event_id)),
            None => Ok(caller.event_id),
        }
    }
}

/// A user to create.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NewUser {
    /// Unique among these people, case-insensitive. `attendance` is reserved.
    username: Username,
    /// The person's name.
    full_name: Option<Text<NAME>>,
    /// The person's e-mail address.
    email: Option<Email>,
}

/// `POST /api/users`.
pub async fn create_user(call: Call<'_>) -> Result<Response, Error> {
    let people: PeopleQuery = call.query()?;
    let new: NewUser = call.json_or_form()?;
    let person = PersonName { username: new.username.as_str().to_owned(), event_id: people.of(&call).await? };
    let details = UserDetails { full_name: new.full_name.map(|name| name.0), email: new.email.map(|email| email.0) };
    let user = call.app.store().insert_user(&person, &details, call.author()?).await?;
    response::json(StatusCode::CREATED, &user)
}

/// `GET /api/users/{username}`.
pub async fn show_user(call: Call<'_>) -> Result<Response, Error> {
    let people: PeopleQuery = call.query()?;
    response::json(StatusCode::OK, &find_user(&call, &people).await?)
}

/// The changes to a user. An absent member does not change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "UserChange"))]
pub(crate) struct Changes {
    /// The person's name; null clears it. A name imported with a ticket stays with that ticket.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Text<NAME>>"))]
    full_name: Option<Option<Text<NAME>>>,
    /// The person's e-mail address; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Email>"))]
    email: Option<Option<Email>>,
}

/// `PATCH /api/users/{username}`.
pub async fn change_user(call: Call<'_>) -> Result<Response, Error> {
    let people: PeopleQuery = call.query()?;
    let changes: Changes = call.json()?;
    let change = UserChange {
        full_name: changes.full_name.map(|name| name.map(|name| name.0)),
        email: changes.email.map(|email| email.map(|email| email.0)),
    };
    let person = person(&call, &people).await?;
    response::json(StatusCode::OK, &call.app.store().change_user(&person, &change, call.author()?).await?)
}

/// `DELETE /api/users/{username}`: erases the person, revokes their tickets, and keeps the counts.
pub async fn erase_user(call: Call<'_>) -> Result<Response, Error> {
    let people: PeopleQuery = call.query()?;
    call.app.store().erase_user(&person(&call, &people).await?, call.author()?).await?;
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
    /// The slug of the ticket's event; `default` when absent.
    event: Option<Slug>,
}

/// `POST /api/users/{username}/tickets`: registers a ticket to a person. Only this answer contains its secret.
pub async fn register_ticket(call: Call<'_>) -> Result<Response, Error> {
    let people: PeopleQuery = call.query()?;
    let person = person(&call, &people).await?;
    let body: Registration = call.json_or_form()?;
    let slug = body.event.as_ref().map_or(DEFAULT_EVENT, |slug| slug.0.as_str());
    let store = call.app.store();
    let event = call.caller()?.open_event(store.find_event(slug).await?)?;
    let secret = call.app.claimed_links().await?;
    let ticket =
        store.register_ticket(&person, event.event_id, body.seat.as_str(), body.gate.as_str(), call.author()?).await?;
    response::json(StatusCode::CREATED, &with_provisioning(call.app, secret, &event, &ticket))
}

/// Which page of a user's tickets to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UserTicketsQuery {
    /// The slug of the event whose own people are meant, as for the user.
    event: Option<Slug>,
    /// Maximum number of entries in a page.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the previous page.
    after: Option<Cursor>,
}

/// `GET /api/users/{username}/tickets`.
pub async fn list_tickets(call: Call<'_>) -> Result<Response, Error> {
    let UserTicketsQuery { event, limit, after } = call.query()?;
    let user = find_user(&call, &PeopleQuery { event }).await?;
    let after = after.map(|cursor| cursor.0);
    let tickets = call.app.store().list_user_tickets(user.user_id, after, limit.to_read()).await?;
    list::respond("tickets", tickets, limit, |ticket| ticket.ticket_id)
}

/// Returns the person in the path. An invalid username names nobody.
async fn person(call: &Call<'_>, people: &PeopleQuery) -> Result<PersonName, Error> {
    let username = call.params.get("username").unwrap_or_default().to_owned();
    let event_id = people.of(call).await?;
    Username::try_from(username.clone()).map_err(|_| Error::UserNotFound)?;
    Ok(PersonName { username, event_id })
}

async fn find_user(call: &Call<'_>, people: &PeopleQuery) -> Result<User, Error> {
    call.app.store().find_user(&person(call, people).await?).await?.ok_or(Error::UserNotFound)
}
