//! Events.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::fault::Fault;
use crate::limits::{LOCATION, NAME};
use crate::list::{self, PageQuery};
use crate::model::{Capacity, CategoryColours, Currency, Days, Event, Millis, Price, Reentry, Slug, Text, TimeZone};
use crate::pages::{LANGUAGES, Language};
use crate::request::{Call, present};
use crate::response::{self, Response};
use crate::store::{EventChange, PrintedList};

/// An event to create.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct NewEvent {
    /// Its name in paths, unique; it never changes.
    slug: Slug,
    /// Its name as people read it.
    name: Text<NAME>,
    /// The IANA time zone in which people read the event's times; `UTC` when absent.
    time_zone: Option<TimeZone>,
    /// When it starts.
    starts_at: Option<Millis>,
    /// When it ends, after its start.
    ends_at: Option<Millis>,
    /// When its doors open: an earlier entry is `too_early`.
    opens_at: Option<Millis>,
    /// When its doors close, after they open: an entry from then on is `too_late`.
    closes_at: Option<Millis>,
    /// `none` when absent.
    reentry: Option<Reentry>,
    /// How many people the venue holds.
    capacity: Option<Capacity>,
    /// The colours in which gates show categories, by category.
    category_colours: Option<CategoryColours>,
    /// The language of the mails to its people; English when absent.
    language: Option<Tag>,
    /// Where it takes place.
    location: Option<Text<LOCATION>>,
    /// How many days after its end its people are forgotten; never when absent.
    forget_after_days: Option<Days>,
    /// Whether supervisors may admit people without a ticket; `false` when absent.
    walk_ups: Option<bool>,
    /// What each of them pays, in the smallest unit of `currency`.
    walk_up_price: Option<Price>,
    /// The currency of payments at the door (ISO 4217). A price needs one.
    currency: Option<Currency>,
}

/// The tag of one of the pages' languages.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Tag(String);

impl TryFrom<String> for Tag {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        match Language::by_tag(&text) {
            Some(_) => Ok(Self(text)),
            None => Err(Fault::NotOneOf { words: LANGUAGES.iter().map(|language| language.tag.to_owned()).collect() }),
        }
    }
}

/// `POST /api/events`.
pub async fn create_event(call: Call<'_>) -> Result<Response, Error> {
    call.caller()?.must_be_unbound()?;
    let new: NewEvent = call.json()?;
    let event = Event {
        event_id: Uuid::now_v7(),
        slug: new.slug.0,
        name: new.name.0,
        time_zone: new.time_zone.map_or_else(|| "UTC".to_owned(), |zone| zone.0),
        starts_at: new.starts_at,
        ends_at: new.ends_at,
        opens_at: new.opens_at,
        closes_at: new.closes_at,
        reentry: new.reentry.unwrap_or(Reentry::None),
        capacity: new.capacity.map(|capacity| capacity.0),
        category_colours: new.category_colours.unwrap_or_default(),
        language: new.language.map(|Tag(tag)| tag),
        location: new.location.map(|location| location.0),
        forget_after_days: new.forget_after_days.map(|days| days.0),
        forgotten_at: None,
        walk_ups: new.walk_ups.unwrap_or(false),
        walk_up_price: new.walk_up_price.map(|price| price.0),
        currency: new.currency.map(|currency| currency.0),
        version: 1,
    };
    event.check_times()?;
    event.check_price()?;
    call.app.store().insert_event(&event, call.author()?).await?;
    response::json(StatusCode::CREATED, &event)
}

/// `GET /api/events`.
pub async fn list_events(call: Call<'_>) -> Result<Response, Error> {
    call.caller()?.must_be_unbound()?;
    let query: PageQuery = call.query()?;
    let after = query.after.map(|cursor| cursor.0);
    let events = call.app.store().list_events(after, query.limit.to_read()).await?;
    list::respond("events", events, query.limit, |event| event.event_id)
}

/// An event, and what its organizers must know about the service.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ShownEvent {
    #[serde(flatten)]
    event: Event,
    /// Whether TICKET_SECRET is set. Without it a copy of the database is enough to generate codes.
    ticket_secret_set: bool,
}

/// `GET /api/events/{event}`.
pub async fn show_event(call: Call<'_>) -> Result<Response, Error> {
    let ticket_secret_set = call.app.settings.ticket_secret.is_some();
    response::json(StatusCode::OK, &ShownEvent { event: call.event().await?, ticket_secret_set })
}

/// The changes to an event. An absent member does not change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "EventChange"))]
pub(crate) struct Changes {
    /// Its name as people read it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Text<NAME>"))]
    name: Option<Text<NAME>>,
    /// The IANA time zone in which people read the event's times.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "TimeZone"))]
    time_zone: Option<TimeZone>,
    /// When it starts; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Millis>"))]
    starts_at: Option<Option<Millis>>,
    /// When it ends, after its start; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Millis>"))]
    ends_at: Option<Option<Millis>>,
    /// When its doors open; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Millis>"))]
    opens_at: Option<Option<Millis>>,
    /// When its doors close, after they open; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Millis>"))]
    closes_at: Option<Option<Millis>>,
    /// Whether and when somebody who was admitted may come in again.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Reentry"))]
    reentry: Option<Reentry>,
    /// How many people the venue holds; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Capacity>"))]
    capacity: Option<Option<Capacity>>,
    /// The colours in which gates show categories, by category; replaces all of them.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "CategoryColours"))]
    category_colours: Option<CategoryColours>,
    /// The language of the mails to its people; null is English.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Tag>"))]
    language: Option<Option<Tag>>,
    /// Where it takes place; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Text<LOCATION>>"))]
    location: Option<Option<Text<LOCATION>>>,
    /// How many days after its end its people are forgotten; null for never. People already forgotten stay forgotten.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Days>"))]
    forget_after_days: Option<Option<Days>>,
    /// Whether supervisors may admit people without a ticket.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "bool"))]
    walk_ups: Option<bool>,
    /// What each of them pays, in the smallest unit of `currency`; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Price>"))]
    walk_up_price: Option<Option<Price>>,
    /// The currency of payments at the door (ISO 4217); null clears it. It cannot change after the first payment.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Currency>"))]
    currency: Option<Option<Currency>>,
}

/// `PATCH /api/events/{event}`.
pub async fn change_event(call: Call<'_>) -> Result<Response, Error> {
    let changes: Changes = call.json()?;
    let event = call.event().await?;
    let change = EventChange {
        name: changes.name.map(|name| name.0),
        time_zone: changes.time_zone.map(|zone| zone.0),
        starts_at: changes.starts_at,
        ends_at: changes.ends_at,
        opens_at: changes.opens_at,
        closes_at: changes.closes_at,
        reentry: changes.reentry,
        capacity: changes.capacity.map(|capacity| capacity.map(|capacity| capacity.0)),
        category_colours: changes.category_colours,
        language: changes.language.map(|language| language.map(|Tag(tag)| tag)),
        location: changes.location.map(|location| location.map(|location| location.0)),
        forget_after_days: changes.forget_after_days.map(|days| days.map(|days| days.0)),
        walk_ups: changes.walk_ups,
        walk_up_price: changes.walk_up_price.map(|price| price.map(|price| price.0)),
        currency: changes.currency.map(|currency| currency.map(|currency| currency.0)),
    };
    response::json(StatusCode::OK, &call.app.store().change_event(event.event_id, &change, call.author()?).await?)
}

/// The confirmation that an event is to be deleted.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct DeleteQuery {
    /// The event's slug again. Required unless the event has no tickets.
    #[cfg_attr(test, schemars(with = "Option<Slug>"))]
    confirm: Option<String>,
}

/// `DELETE /api/events/{event}`: deletes the event with its tickets, scans, people and keys.
pub async fn delete_event(call: Call<'_>) -> Result<Response, Error> {
    let query: DeleteQuery = call.query()?;
    let event = call.event().await?;
    let author = call.author()?;
    call.app.store().delete_event(event.event_id, query.confirm.as_deref(), author).await?;
    call.app.keys.forget(|key| key.event_id == Some(event.event_id));
    call.app.store().clear_event(event.event_id, author.now).await?;
    Ok(response::no_content())
}

/// `GET /api/events/{event}/printed`.
pub async fn show_printed_list(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    response::json(StatusCode::OK, &call.app.store().printed_list(event.event_id).await?)
}

/// `POST /api/events/{event}/printed`: records that the caller is about to read the tickets to print them.
pub async fn note_list_printed(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    call.app.store().note_list_printed(event.event_id, call.author()?).await?;
    response::json(StatusCode::OK, &PrintedList { printed_at: Some(call.now), changes: 0 })
}
