//! The domain types, as they are stored and as they are sent.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::error::Error;
use crate::fault::Fault;
use crate::fold;
use crate::limits::{
    CAPACITY, CATEGORIES, CATEGORY, EMAIL, EVENT_WITHOUT_END, FORGET_AFTER_DAYS, MANIFEST_AFTER_END,
    MANIFEST_BEFORE_START, PLACE, PRICE, SLUG, USERNAME,
};

/// A time in milliseconds since 1970-01-01T00:00:00Z. In JSON an RFC 3339 string in UTC, in a database the number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Millis(pub i64);

impl Millis {
    pub const SECOND: i64 = 1_000;
    pub const MINUTE: i64 = 60 * Self::SECOND;
    pub const HOUR: i64 = 60 * Self::MINUTE;
    pub const DAY: i64 = 24 * Self::HOUR;

    /// Returns the current time of the machine's clock.
    pub fn now() -> Self {
        let since_epoch = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    /// The years 0 to 9998. RFC 3339 can represent them, and times some days later.
    const WRITABLE: std::ops::Range<i64> = -62_167_219_200_000..253_370_764_800_000;

    /// Parses RFC 3339 with any offset, and truncates to milliseconds.
    pub fn parse(text: &str) -> Option<Self> {
        Self::writable(text.parse().ok()?)
    }

    /// Returns the time if RFC 3339 can represent it.
    pub fn writable(moment: jiff::Timestamp) -> Option<Self> {
        let time = moment.as_millisecond();
        Self::WRITABLE.contains(&time).then_some(Self(time))
    }

    /// Converts to an IANA time zone. `None` if the zone is unknown or the time out of range.
    pub fn in_zone(self, time_zone: &str) -> Option<jiff::Zoned> {
        jiff::Timestamp::from_millisecond(self.0).ok()?.in_tz(time_zone).ok()
    }
}

/// Adds a duration, saturating.
impl Add<Duration> for Millis {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(milliseconds(length)))
    }
}

/// Subtracts a duration, saturating.
impl Sub<Duration> for Millis {
    type Output = Self;

    fn sub(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(milliseconds(length)))
    }
}

fn milliseconds(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom(Fault::NotATime))
    }
}

/// The 20 random bytes from which a ticket's codes are derived. Never shown, not even in debug output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 20]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(hidden)")
    }
}

impl TryFrom<Vec<u8>> for Seed {
    type Error = &'static str;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        bytes.try_into().map(Self).map_err(|_| "a seed has 20 bytes")
    }
}

/// Declares an enum whose values are lower-case words in JSON, in a database and in the logs.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident {
        $($(#[doc = $variant_doc:literal])* $variant:ident = $word:literal),+ $(,)?
    }) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name { $($(#[doc = $variant_doc])* #[serde(rename = $word)] $variant),+ }

        /// The documentation of the type and of each word, for the OpenAPI document.
        #[cfg(test)]
        impl $name {
            pub(crate) const ABOUT: &'static str = concat!($($doc),*);
            pub(crate) const WORDS: &'static [(&'static str, &'static str)] = &[$(($word, concat!($($variant_doc),*))),+];
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the word, as it is stored and sent.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = Fault;

            fn from_str(text: &str) -> Result<Self, Fault> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| Fault::NotOneOf {
                    words: Self::ALL.iter().map(|value| value.as_str().to_owned()).collect(),
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = Fault;

            fn try_from(text: String) -> Result<Self, Fault> {
                text.parse()
            }
        }

        impl<Db: sqlx::Database> sqlx::Type<Db> for $name
        where
            str: sqlx::Type<Db>,
        {
            fn type_info() -> Db::TypeInfo {
                <str as sqlx::Type<Db>>::type_info()
            }

            fn compatible(info: &Db::TypeInfo) -> bool {
                <str as sqlx::Type<Db>>::compatible(info)
            }
        }

        impl<'row, Db: sqlx::Database> sqlx::Decode<'row, Db> for $name
        where
            &'row str: sqlx::Decode<'row, Db>,
        {
            fn decode(value: Db::ValueRef<'row>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<&str as sqlx::Decode<'row, Db>>::decode(value)?.parse()?)
            }
        }

        impl<'query, Db: sqlx::Database> sqlx::Encode<'query, Db> for $name
        where
            &'query str: sqlx::Encode<'query, Db>,
        {
            fn encode_by_ref(
                &self,
                buffer: &mut Db::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                <&str as sqlx::Encode<'query, Db>>::encode(self.as_str(), buffer)
            }
        }
    };
}

words! {
    /// The state of a ticket.
    Status {
        /// Has not admitted anybody yet.
        Valid = "valid",
        /// Has admitted its holder.
        Used = "used",
        /// Admits nobody.
        Revoked = "revoked",
    }
}

words! {
    /// Whether a person who left may enter again.
    Reentry {
        /// Each ticket admits once.
        None = "none",
        /// A holder who left through a scan with direction `exit` may enter again.
        AfterExit = "after_exit",
        /// Each ticket admits once on each day, which begins at 05:00 in the event's time zone, whether or not its holder
        /// left through a scan.
        OnceADay = "once_a_day",
    }
}

words! {
    /// A colour in which gates show a category. Colours can be told apart from each other and from those of the verdicts.
    Colour {
        /// Blue.
        Blue = "blue",
        /// Violet.
        Violet = "violet",
        /// Pink.
        Pink = "pink",
        /// Brown.
        Brown = "brown",
        /// Teal.
        Teal = "teal",
        /// Grey.
        Grey = "grey",
        /// Black.
        Black = "black",
        /// White.
        White = "white",
    }
}

words! {
    /// The treatment of a ticket that exists already, by an import.
    Existing {
        /// Nothing is imported.
        Refuse = "refuse",
        /// The ticket stays unchanged.
        Skip = "skip",
        /// Its name, reference, category, note and times are corrected, and missing details of its holder are added. Its
        /// seat, codes and state stay.
        Update = "update",
    }
}

words! {
    /// The treatment of unknown columns, by an import.
    Unknown {
        /// Nothing is imported.
        Refuse = "refuse",
        /// They are ignored.
        Ignore = "ignore",
    }
}

words! {
    /// A boolean in a query.
    Flag {
        /// Yes.
        Yes = "true",
        /// No.
        No = "false",
    }
}

words! {
    /// The direction in which a person passes the gate.
    Direction {
        /// The person comes in.
        Entry = "entry",
        /// The person goes out.
        Exit = "exit",
    }
}

words! {
    /// The role of a key, which determines what it may do.
    Role {
        /// Everything.
        Organizer = "organizer",
        /// Whatever a gate may do, undo, and manual admission.
        Supervisor = "supervisor",
        /// Scan, manifest and statistics.
        Gate = "gate",
    }
}

impl Role {
    /// Whether this role may do whatever `needed` may.
    pub const fn holds(self, needed: Self) -> bool {
        match self {
            Self::Organizer => true,
            Self::Supervisor => matches!(needed, Self::Supervisor | Self::Gate),
            Self::Gate => matches!(needed, Self::Gate),
        }
    }

    /// Whether keys of this role are for devices: a device can enrol with them, and they expire with their event.
    pub const fn is_of_a_device(self) -> bool {
        match self {
            Self::Supervisor | Self::Gate => true,
            Self::Organizer => false,
        }
    }
}

words! {
    /// An action of an organizer or a supervisor.
    Action {
        /// Created tickets.
        Issued = "issued",
        /// Gave a ticket to a person.
        Registered = "registered",
        /// Gave a ticket a new secret.
        Reissued = "reissued",
        /// Gave a ticket a new secret because a phone that had the old one is lost.
        Renewed = "renewed",
        /// Gave a ticket to another person.
        Transferred = "transferred",
        /// Corrected the details of a ticket; or, by a repeated import, the name on it, its reference or its holder.
        Corrected = "corrected",
        /// Read what to print for a ticket, which made its paper valid.
        Printed = "printed",
        /// Revoked a ticket.
        Revoked = "revoked",
        /// Read the address of a ticket's page.
        LinkShown = "link_shown",
        /// Gave a ticket's link to the mail server, for its holder. No action records whether the server accepted it.
        Mailed = "mailed",
        /// Undid a scan.
        Undone = "undone",
        /// Created a user.
        UserCreated = "user_created",
        /// Changed the name or the address of a user.
        UserChanged = "user_changed",
        /// Erased a user: one action for the user, and one for each ticket that was revoked with it.
        UserErased = "user_erased",
        /// Read the export of an event's tickets.
        TicketsExported = "tickets_exported",
        /// Read the export of an event's scans.
        ScansExported = "scans_exported",
        /// Read the list of people inside.
        InsideExported = "inside_exported",
        /// Read the list of attendance and no-shows.
        AttendanceExported = "attendance_exported",
        /// Read the links of an event's tickets.
        LinksExported = "links_exported",
        /// Read the export of actions.
        ActionsExported = "actions_exported",
        /// Read an event's tickets to print its list.
        ListPrinted = "list_printed",
        /// Created a key.
        KeyMade = "key_made",
        /// Requested an address with which a device enrols with a key.
        KeyOffered = "key_offered",
        /// Enrolled with a key, which is both the author and the object.
        KeyEnrolled = "key_enrolled",
        /// Revoked a key.
        KeyRevoked = "key_revoked",
        /// Accepted the unsent scans of devices that no longer have a key.
        ScansTaken = "scans_taken",
        /// Uploaded a file with scans of a key.
        ScansHandedIn = "scans_handed_in",
        /// Reported the phone of a key as lost.
        PhoneLost = "phone_lost",
        /// Created an event.
        EventCreated = "event_created",
        /// Changed an event.
        EventChanged = "event_changed",
        /// Deleted an event.
        EventDeleted = "event_deleted",
        /// Forgot an event's people, because that was due.
        EventForgotten = "event_forgotten",
    }
}

impl Action {
    /// Whether the action gives an event a person or a ticket, or reveals a ticket's secret: an event that has forgotten
    /// its people rejects it.
    pub const fn brings_people(self) -> bool {
        match self {
            Self::Issued
            | Self::Registered
            | Self::Reissued
            | Self::Transferred
            | Self::Corrected
            | Self::Printed
            | Self::LinkShown
            | Self::Mailed
            | Self::UserCreated
            | Self::UserChanged => true,
            Self::Renewed
            | Self::Revoked
            | Self::Undone
            | Self::UserErased
            | Self::ListPrinted
            | Self::TicketsExported
            | Self::ScansExported
            | Self::InsideExported
            | Self::AttendanceExported
            | Self::LinksExported
            | Self::ActionsExported
            | Self::KeyMade
            | Self::KeyOffered
            | Self::KeyEnrolled
            | Self::KeyRevoked
            | Self::ScansTaken
            | Self::ScansHandedIn
            | Self::PhoneLost
            | Self::EventCreated
            | Self::EventChanged
            | Self::EventDeleted
            | Self::EventForgotten => false,
        }
    }
}

words! {
    /// The outcome of a ticket's mail.
    MailResult {
        /// The mail server accepted it.
        Sent = "sent",
        /// It would be sent, but for `dry_run`.
        Ready = "ready",
        /// The holder already got it; `again` sends it once more.
        MailedAlready = "mailed_already",
        /// Another request is sending it, or was interrupted: try again later.
        InProgress = "in_progress",
        /// Nobody holds the ticket.
        NotRegistered = "not_registered",
        /// The ticket is revoked.
        Revoked = "revoked",
        /// The ticket has admitted its holder, and does not admit again.
        Used = "used",
        /// The holder has no e-mail address, or none that this key may know.
        NoAddress = "no_address",
        /// Mail cannot be sent to the holder's address.
        WrongAddress = "wrong_address",
        /// The mail server rejected it: `smtp_code` and `smtp_status` say why.
        Refused = "refused",
        /// The mail server did not answer, not in time, or not with the required encryption.
        Unreachable = "unreachable",
        /// The event has no such ticket.
        TicketNotFound = "ticket_not_found",
    }
}

words! {
    /// A selection of tickets for mailing.
    MailList {
        /// Tickets whose holder has an address but was not mailed.
        Unmailed = "unmailed",
        /// Tickets whose holder has an address, mailed or not.
        WithAddress = "with_address",
        /// Tickets whose holder has no address, or none that the key may know.
        WithoutAddress = "without_address",
    }
}

words! {
    /// The verdict on one scan.
    ScanResult {
        /// Admitted; for an exit, let out.
        Accepted = "accepted",
        /// The ticket has already admitted its holder.
        AlreadyUsed = "already_used",
        /// The code does not belong to any time near this one.
        WrongCode = "wrong_code",
        /// The correct code at the wrong time.
        StaleCode = "stale_code",
        /// The ticket is for another gate.
        WrongGate = "wrong_gate",
        /// Before the event's doors open, or before the ticket is valid.
        TooEarly = "too_early",
        /// After the event's doors have closed, or after the ticket's validity.
        TooLate = "too_late",
        /// Nobody holds this ticket.
        NotRegistered = "not_registered",
        /// An exit without an entry.
        NotInside = "not_inside",
        /// The ticket was revoked.
        Revoked = "revoked",
        /// Not a ticket of this event.
        UnknownTicket = "unknown_ticket",
        /// Too many codes of this ticket were refused just now. This is not a verdict: it is neither stored nor replayed,
        /// so the same `scan_id` may be sent again.
        TooManyAttempts = "too_many_attempts",
        /// This scan was accepted and then undone. Every repetition of its `scan_id` gets this answer.
        Undone = "undone",
    }
}

impl ScanResult {
    /// Whether the verdict refuses the code, as it would refuse a guess, and so counts towards `admission::ATTEMPTS` and
    /// `limits::KEY_ATTEMPTS`.
    pub const fn refuses_the_code(self) -> bool {
        match self {
            Self::WrongCode | Self::StaleCode => true,
            Self::Accepted
            | Self::AlreadyUsed
            | Self::WrongGate
            | Self::TooEarly
            | Self::TooLate
            | Self::NotRegistered
            | Self::NotInside
            | Self::Revoked
            | Self::UnknownTicket
            | Self::TooManyAttempts
            | Self::Undone => false,
        }
    }

    /// Whether a scan gets this far only with the correct code, perhaps at the wrong time, or with somebody who vouches.
    /// Then the response may tell whose ticket it is: see `admission::told`.
    pub const fn needs_the_code(self) -> bool {
        match self {
            Self::Accepted
            | Self::AlreadyUsed
            | Self::NotInside
            | Self::StaleCode
            | Self::TooEarly
            | Self::TooLate
            | Self::Undone => true,
            Self::WrongCode
            | Self::WrongGate
            | Self::NotRegistered
            | Self::Revoked
            | Self::UnknownTicket
            | Self::TooManyAttempts => false,
        }
    }

    /// Whether scans are stored with this verdict, and so a gate can have decided it.
    pub const fn is_kept(self) -> bool {
        match self {
            // The first comes before a verdict, the second after it.
            Self::TooManyAttempts | Self::Undone => false,
            Self::Accepted
            | Self::AlreadyUsed
            | Self::WrongCode
            | Self::StaleCode
            | Self::WrongGate
            | Self::TooEarly
            | Self::TooLate
            | Self::NotRegistered
            | Self::NotInside
            | Self::Revoked
            | Self::UnknownTicket => true,
        }
    }
}

/// An occasion to which tickets admit.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// The event's id, a UUID (version 7) made by the service.
    pub event_id: Uuid,
    /// Its name in paths: `[a-z0-9-]{1,64}`.
    #[cfg_attr(test, schemars(with = "Slug"))]
    pub slug: String,
    /// Its name for people.
    #[cfg_attr(test, schemars(with = "Text<{ crate::limits::NAME }>"))]
    pub name: String,
    /// An IANA time zone, for people; the service itself calculates in UTC.
    #[cfg_attr(test, schemars(with = "TimeZone"))]
    pub time_zone: String,
    /// When it starts; null when not set.
    pub starts_at: Option<Millis>,
    /// When it ends, after its start; null when not set.
    pub ends_at: Option<Millis>,
    /// When its doors open: an earlier entry is `too_early`. Null when they are open until they close.
    pub opens_at: Option<Millis>,
    /// When its doors close: an entry at this time or later is `too_late`. Null when they stay open.
    pub closes_at: Option<Millis>,
    pub reentry: Reentry,
    /// The capacity of the venue, in people; null when not set. Pages warn when it is reached; no ticket is rejected for it.
    #[cfg_attr(test, schemars(with = "Option<Capacity>"))]
    pub capacity: Option<i64>,
    /// The colours in which gates show categories, by the category.
    #[sqlx(try_from = "String")]
    pub category_colours: CategoryColours,
    /// The language of mails to its people, one of those of the pages; null for English.
    pub language: Option<String>,
    /// Where it takes place, for people; null when not set.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::LOCATION }>>"))]
    pub location: Option<String>,
    /// Its people are forgotten this many days after the last of its end (its start, if it has no end), its `closes_at` and the
    /// `valid_until` of its tickets. Null for never, which is also the case if there is none of these.
    #[cfg_attr(test, schemars(with = "Option<Days>"))]
    pub forget_after_days: Option<i64>,
    /// When its people were forgotten: from then on it admits nobody and accepts no ticket. Null when they were not.
    pub forgotten_at: Option<Millis>,
    /// Whether supervisors may admit people without a ticket.
    pub walk_ups: bool,
    /// What each of them pays, in the smallest unit of `currency`; null when not set.
    #[cfg_attr(test, schemars(with = "Option<Price>"))]
    pub walk_up_price: Option<i64>,
    /// The currency of payments at the door (ISO 4217); null when not set.
    #[cfg_attr(test, schemars(with = "Option<Currency>"))]
    pub currency: Option<String>,
    /// Incremented by every change.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub version: i64,
}

/// The colours in which gates show categories, by the category: at most [`CATEGORIES`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Colour>")]
pub struct CategoryColours(BTreeMap<String, Colour>);

impl CategoryColours {
    /// Returns the colour of a category, ignoring case and accents.
    pub fn of(&self, category: &str) -> Option<Colour> {
        let same = |name: &str| fold::same_place(name, category);
        self.0.iter().find(|(name, _)| same(name)).map(|(_, colour)| *colour)
    }

    /// Returns the JSON that a database stores.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl TryFrom<BTreeMap<String, Colour>> for CategoryColours {
    type Error = Fault;

    fn try_from(colours: BTreeMap<String, Colour>) -> Result<Self, Fault> {
        if colours.len() > CATEGORIES {
            return Err(Fault::TooManyCategories { most: CATEGORIES });
        }
        let tidy = |(category, colour): (String, Colour)| Ok((read_text(&category, CATEGORY)?, colour));
        colours.into_iter().map(tidy).collect::<Result<_, _>>().map(Self)
    }
}

/// Parses the JSON that a database stores.
impl TryFrom<String> for CategoryColours {
    type Error = serde_json::Error;

    fn try_from(json: String) -> Result<Self, serde_json::Error> {
        serde_json::from_str(&json)
    }
}

/// An integer as JSON has it: `12.0` equals `12`.
pub struct Whole(pub i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Whole;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("i64")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Whole, E> {
                Ok(Whole(number))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Whole, E> {
                // A number too large for `i64` is out of any range.
                Ok(Whole(number.try_into().unwrap_or(i64::MAX)))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Whole, E> {
                match number.fract() == 0.0 {
                    // The cast saturates.
                    true => Ok(Whole(number as i64)),
                    false => Err(E::invalid_type(Unexpected::Float(number), &self)),
                }
            }
        }

        deserializer.deserialize_i64(Number)
    }
}

/// A number of people, from 1 to [`CAPACITY`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Whole")]
pub struct Capacity(pub i64);

impl TryFrom<Whole> for Capacity {
    type Error = Fault;

    fn try_from(Whole(people): Whole) -> Result<Self, Fault> {
        let is_possible = (1..=CAPACITY).contains(&people);
        is_possible.then_some(Self(people)).ok_or(Fault::OutOfRange { least: 1, most: CAPACITY as usize })
    }
}

/// A number of days, from 1 to [`FORGET_AFTER_DAYS`].
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Whole")]
pub struct Days(pub i64);

impl TryFrom<Whole> for Days {
    type Error = Fault;

    fn try_from(Whole(days): Whole) -> Result<Self, Fault> {
        let is_possible = (1..=FORGET_AFTER_DAYS).contains(&days);
        is_possible.then_some(Self(days)).ok_or(Fault::OutOfRange { least: 1, most: FORGET_AFTER_DAYS as usize })
    }
}

/// The price of one ticket, from 0 to [`PRICE`], in the smallest unit of a currency.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Whole")]
pub struct Price(pub i64);

impl TryFrom<Whole> for Price {
    type Error = Fault;

    fn try_from(Whole(price): Whole) -> Result<Self, Fault> {
        let is_possible = (0..=PRICE).contains(&price);
        is_possible.then_some(Self(price)).ok_or(Fault::OutOfRange { least: 0, most: PRICE as usize })
    }
}

/// A currency by its three letters of ISO 4217, such as `EUR`. The list of currencies changes, so any three letters are
/// accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Currency(pub String);

impl TryFrom<String> for Currency {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        let is_one = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_uppercase());
        is_one.then_some(Self(text)).ok_or(Fault::NotACurrency)
    }
}

/// The activity in an event that determines, together with its times, whether it is in use.
pub struct Use {
    /// When the newest admission that was not undone was received.
    pub admitted_at: Option<Millis>,
    /// Whether a device has, or may get, the keys of its tickets: with a valid key of the event, or of all events.
    pub is_listed: bool,
}

impl Event {
    /// Refuses an event that ends before it starts, or whose doors close before they open.
    pub fn check_times(&self) -> Result<(), Error> {
        check_order(self.starts_at, self.ends_at).map_err(|fault| Error::field("ends_at", fault))?;
        check_order(self.opens_at, self.closes_at).map_err(|fault| Error::field("closes_at", fault))
    }

    /// Refuses a price without a currency.
    pub fn check_price(&self) -> Result<(), Error> {
        match (self.walk_up_price, &self.currency) {
            (Some(_), None) => Err(Error::field("walk_up_price", Fault::CurrencyMissing)),
            _ => Ok(()),
        }
    }

    /// Whether it has started and not ended.
    pub fn is_running(&self, now: Millis) -> bool {
        let ends = |start| self.ends_at.unwrap_or(start + EVENT_WITHOUT_END);
        self.starts_at.is_some_and(|start| start <= now && now <= ends(start))
    }

    /// Whether its manifest is available.
    pub fn has_manifest(&self, now: Millis) -> bool {
        self.starts_at.is_none_or(|start| start - MANIFEST_BEFORE_START <= now)
            && self.ends_at.is_none_or(|end| now <= end + MANIFEST_AFTER_END)
    }

    /// Returns the time until its manifest becomes available, if that is in the future.
    pub fn manifest_opens_in(&self, now: Millis) -> Option<Duration> {
        let opens = self.starts_at? - MANIFEST_BEFORE_START;
        (now < opens).then(|| Duration::from_millis(opens.0.abs_diff(now.0)))
    }

    /// Whether it is running, a device may have its manifest, or somebody was admitted and gates may still be at work: as
    /// long after its end, and after the newest admission, as the manifest is available.
    pub fn is_in_use(&self, used: &Use, now: Millis) -> bool {
        let is_listed = used.is_listed && self.has_manifest(now);
        let admits = used.admitted_at.is_some_and(|admitted| match self.ends_at {
            Some(end) => now <= end.max(admitted) + MANIFEST_AFTER_END,
            None => now < admitted + EVENT_WITHOUT_END,
        });
        self.is_running(now) || is_listed || admits
    }

    /// Returns when its people are to be forgotten, if ever.
    pub fn forgets_at(&self) -> Option<Millis> {
        let end = self.ends_at.or(self.starts_at).max(self.closes_at)?;
        let days = self.forget_after_days?;
        Some(end + Duration::from_millis(days.saturating_mul(Millis::DAY).unsigned_abs()))
    }

    /// Rejects a change of times that would take the event from gates at work, or allow its deletion while they are: a
    /// new end must not be in the past.
    pub fn check_change(&self, changed: &Self, used: &Use, now: Millis) -> Result<(), Error> {
        let is_in_use = self.is_in_use(used, now);
        let stops = self.is_running(now) && !changed.is_running(now);
        let ends = is_in_use && changed.ends_at != self.ends_at && changed.ends_at.is_some_and(|end| end < now);
        let frees = is_in_use && !changed.is_in_use(used, now);
        let closes = used.is_listed && self.has_manifest(now) && !changed.has_manifest(now);
        if !(stops || ends || frees || closes) {
            return Ok(());
        }
        let is_start = changed.starts_at != self.starts_at && changed.starts_at.is_none_or(|start| now < start);
        Err(Error::field(if is_start && !ends { "starts_at" } else { "ends_at" }, Fault::GatesAtWork))
    }
}

/// Rejects an end that is not after the start.
pub fn check_order(start: Option<Millis>, end: Option<Millis>) -> Result<(), Fault> {
    match (start, end) {
        (Some(start), Some(end)) if end <= start => Err(Fault::EndsBeforeStart),
        _ => Ok(()),
    }
}

/// A person who holds tickets: of the whole installation, or of one event.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct User {
    /// The user's id, a UUID (version 7) made by the service.
    pub user_id: Uuid,
    #[serde(skip)]
    pub event_id: Option<Uuid>,
    /// The slug of the event that the person belongs to; null for a person of the whole installation.
    #[cfg_attr(test, schemars(with = "Option<Slug>"))]
    pub event: Option<String>,
    /// Unique among the people of the event, or of the installation, ignoring case.
    #[cfg_attr(test, schemars(with = "Username"))]
    pub username: String,
    /// The person's name, when it is known.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::NAME }>>"))]
    pub full_name: Option<String>,
    /// The person's e-mail address, when it is known.
    #[cfg_attr(test, schemars(with = "Option<Email>"))]
    pub email: Option<String>,
    /// When the user was made.
    pub created_at: Millis,
}

/// A seat at a gate of an event, and its holder once it is registered. Its serialized form contains no secret.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ticket {
    /// The ticket's id, a UUID (version 7) made by the service.
    pub ticket_id: Uuid,
    #[serde(skip)]
    pub event_id: Uuid,
    /// The slug of its event.
    #[cfg_attr(test, schemars(with = "Slug"))]
    pub event: String,
    #[serde(skip)]
    pub user_id: Option<Uuid>,
    /// The seat, unique at its gate within the event.
    #[cfg_attr(test, schemars(with = "Place"))]
    pub seat: String,
    /// The only gate that admits this ticket.
    #[cfg_attr(test, schemars(with = "Place"))]
    pub gate: String,
    #[serde(skip)]
    #[sqlx(try_from = "Vec<u8>")]
    pub seed: Seed,
    pub status: Status,
    /// The holder's username; null when nobody holds the ticket.
    #[cfg_attr(test, schemars(with = "Option<Username>"))]
    pub username: Option<String>,
    /// The slug of the event that the holder belongs to; null for a person of the whole installation, and when nobody
    /// holds the ticket.
    #[cfg_attr(test, schemars(with = "Option<Slug>"))]
    pub holder_event: Option<String>,
    /// The name on the ticket: the one imported with it, else the holder's, when known.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::NAME }>>"))]
    pub full_name: Option<String>,
    /// The seller's id of the ticket, unique in its event; null when it has none.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::REFERENCE }>>"))]
    pub reference: Option<String>,
    /// The kind of ticket, such as `Under 12`; null when it has none.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::CATEGORY }>>"))]
    pub category: Option<String>,
    /// The colours of its event's categories, as JSON; none if it has no category.
    #[serde(skip)]
    pub category_colours: Option<String>,
    /// A note that the gate is shown with the verdict; null when there is none.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::TICKET_NOTE }>>"))]
    pub note: Option<String>,
    /// When it begins to admit; null when only the event's doors decide.
    pub valid_from: Option<Millis>,
    /// When it ceases to admit, after its `valid_from`; null when only the event's doors decide.
    pub valid_until: Option<Millis>,
    #[serde(skip)]
    #[sqlx(flatten)]
    pub address: Address,
    /// Whether the holder is inside now: entered and has not left.
    pub inside: bool,
    /// The TOTP step of the newest accepted code: codes of this or an earlier step do not admit again.
    #[serde(skip)]
    pub last_step: Option<i64>,
    /// Incremented by every change of the row.
    #[serde(skip)]
    pub version: i64,
    /// When the ticket was made.
    pub created_at: Millis,
    /// When the ticket was registered to a person; null when it never was. It stays when the person is erased.
    pub registered_at: Option<Millis>,
    /// When the ticket first admitted its holder; null when it has not.
    pub used_at: Option<Millis>,
    /// When it last did so.
    pub entered_at: Option<Millis>,
    /// Whether it was created for a person admitted at the door without a ticket. Then nobody holds it.
    pub walk_up: bool,
    /// What was paid for it at the door, in the smallest unit of the event's currency; null when nothing was recorded.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub paid: Option<i64>,
    /// When the mail server accepted the mail with its link, for its holder; null when it never did, or the link has
    /// become invalid since.
    pub mailed_at: Option<Millis>,
    #[serde(skip)]
    pub printed_at: Option<Millis>,
    /// When its present seed was made; none if with the ticket.
    #[serde(skip)]
    pub seeded_at: Option<Millis>,
}

impl Ticket {
    /// Returns the colour in which gates show its category.
    pub fn category_colour(&self) -> Option<Colour> {
        let colours = CategoryColours::try_from(self.category_colours.clone()?).ok()?;
        colours.of(self.category.as_deref()?)
    }

    /// Returns when it admitted its holder: last if it admits once a day, otherwise first.
    pub fn admitted_at(&self, reentry: Reentry) -> Option<Millis> {
        match reentry {
            Reentry::OnceADay => self.entered_at,
            Reentry::None | Reentry::AfterExit => self.used_at,
        }
    }
}

/// The e-mail address of a ticket's holder. To get it, the caller has to say which event the key is bound to.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub struct Address {
    email: Option<String>,
    /// The event whose own person the holder is.
    holder_event_id: Option<Uuid>,
}

impl Address {
    #[cfg(test)]
    pub fn of_anybody(email: &str) -> Self {
        Self { email: Some(email.to_owned()), holder_event_id: None }
    }

    /// Returns the address, for a key that is bound to this event or to none. A bound key gets only addresses of that
    /// event's own people.
    pub fn told_to(&self, bound_to: Option<Uuid>) -> Option<&str> {
        let may_know = bound_to.is_none() || bound_to == self.holder_event_id;
        self.email.as_deref().filter(|_| may_know)
    }
}

/// One scan as it is stored, whatever its verdict.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Scan {
    pub scan_id: Uuid,
    pub event_id: Uuid,
    pub ticket_id: Option<Uuid>,
    /// The id of a ticket that does not exist, as presented, so that a retry of the same scan is recognised.
    pub presented: Option<Uuid>,
    pub at_gate: Option<String>,
    pub direction: Direction,
    pub result: ScanResult,
    /// What the gate decided offline, for a scan from a batch.
    pub offline_result: Option<ScanResult>,
    pub manual: bool,
    pub note: Option<String>,
    /// The scan that vouched for this one, which replaces a code.
    pub vouched_by: Option<Uuid>,
    pub seconds_off: Option<i64>,
    pub first_used_at: Option<Millis>,
    pub first_used_gate: Option<String>,
    /// For `too_early`: when the ticket begins to admit.
    pub opens_at: Option<Millis>,
    /// For `too_late`: when it ceased to admit.
    pub closed_at: Option<Millis>,
    /// By the device's clock.
    pub scanned_at: Millis,
    /// By the service's clock.
    pub received_at: Millis,
    /// The time to which the verdict applies: `received_at`, or in a batch `scanned_at`.
    pub decided_at: Millis,
    /// The key that scanned; none for the key of the environment.
    pub key_id: Option<Uuid>,
    pub undone_at: Option<Millis>,
    pub undone_by: Option<Uuid>,
}

impl Scan {
    /// Returns the scan with the verdict that a repetition gets: `undone` once it was undone.
    pub fn as_it_stands(self) -> Self {
        let result = if self.undone_at.is_some() { ScanResult::Undone } else { self.result };
        Self { result, ..self }
    }
}

/// A key, without its secret.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Key {
    /// The key's id, a UUID (version 7) made by the service. It is no secret.
    pub key_id: Uuid,
    /// What the key is for.
    #[cfg_attr(test, schemars(with = "Text<{ crate::limits::KEY_NAME }>"))]
    pub name: String,
    pub role: Role,
    #[serde(skip)]
    pub event_id: Option<Uuid>,
    /// The slug of the only event where the key has its role; null when it is bound to none.
    #[cfg_attr(test, schemars(with = "Option<Slug>"))]
    pub event: Option<String>,
    /// The gate the key is bound to, which takes precedence over `at_gate`; null when it is bound to none.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    pub gate: Option<String>,
    /// Whether it may download the manifest and send batches.
    pub offline: bool,
    /// When the key was made.
    pub created_at: Millis,
    /// The key that created this one, and whose revocation revokes this one; null when it was created with the key of the
    /// environment or on the command line, or when that is unknown.
    pub created_by: Option<Uuid>,
    /// When the key stops working; null when it does not expire.
    pub expires_at: Option<Millis>,
    /// When the key was revoked; null when it was not.
    pub revoked_at: Option<Millis>,
    /// When an organizer last accepted the unsent scans of devices that no longer have this key; null when none did.
    pub taken_at: Option<Millis>,
}

/// A seat or a gate: a text of 1 to [`PLACE`] characters, stored as [`fold::tidy`] normalizes it. Two texts that people
/// read as the same are equal, by [`fold::same_place`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Place(String);

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        fold::same_place(&self.0, &other.0)
    }
}

impl Eq for Place {}

impl std::hash::Hash for Place {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        fold::place(&self.0).hash(state);
    }
}

impl Place {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for Place {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        read_text(&text, PLACE).map(Self)
    }
}

/// A text for people of 1 to `LONGEST` characters, stored as [`fold::tidy`] normalizes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Text<const LONGEST: usize>(pub String);

impl<const LONGEST: usize> TryFrom<String> for Text<LONGEST> {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        read_text(&text, LONGEST).map(Self)
    }
}

/// Reads a text for people and normalizes it. Rejects control characters, and a text without visible characters.
fn read_text(text: &str, most: usize) -> Result<String, Fault> {
    // Checked before normalization, which takes time.
    if text.len() > most * LONGEST_CHARACTER {
        return Err(Fault::TooLong { most });
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::BadCharacters);
    }
    let text = fold::tidy(text);
    if fold::place(&text).is_empty() {
        return Err(Fault::Empty);
    }
    if text.chars().count() > most {
        return Err(Fault::TooLong { most });
    }
    Ok(text)
}

/// The maximum number of bytes of a character as it is sent: a letter with its accents.
const LONGEST_CHARACTER: usize = 16;

/// A username: 1 to [`USERNAME`] of `[A-Za-z0-9._@+-]`, but not `attendance`, `.` or `..`, which are paths of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Username(String);

impl Username {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Username {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte);
        if !(1..=USERNAME).contains(&text.len()) || !text.bytes().all(plain) {
            return Err(Fault::NotAUsername { most: USERNAME });
        }
        // Browsers remove the last two from a path, encoded or not.
        if ["attendance", ".", ".."].iter().any(|reserved| text.eq_ignore_ascii_case(reserved)) {
            return Err(Fault::Reserved);
        }
        Ok(Self(text))
    }
}

/// An e-mail address, of which only the form is checked: at most [`EMAIL`] characters, one `@` with something on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Email(pub String);

impl TryFrom<String> for Email {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        let sides = text.split_once('@');
        let plain = !text.chars().any(|character| character.is_control() || character.is_whitespace());
        match sides {
            Some((local, domain))
                if plain
                    && !local.is_empty()
                    && !domain.is_empty()
                    && !domain.contains('@')
                    && text.chars().count() <= EMAIL =>
            {
                Ok(Self(text))
            }
            _ => Err(Fault::NotAnEmail { most: EMAIL }),
        }
    }
}

/// The name of an event in paths: 1 to [`SLUG`] of `[a-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Slug(pub String);

impl TryFrom<String> for Slug {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=SLUG).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text))
        } else {
            Err(Fault::NotASlug { most: SLUG })
        }
    }
}

/// A time zone by its IANA name, such as `Europe/Madrid`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TimeZone(pub String);

impl TryFrom<String> for TimeZone {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        match jiff::tz::TimeZone::get(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(Fault::NotATimeZone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    fn good<T: TryFrom<String>>(text: &str) -> bool {
        T::try_from(text.to_owned()).is_ok()
    }

    #[test]
    fn an_integer_is_one_however_its_number_is_written() {
        let read = |json: &str| serde_json::from_str(json).map(|Capacity(people)| people);
        for json in ["12", "12.0", "1.2e1"] {
            assert_eq!(read(json).ok(), Some(12), "{json}");
        }
        let refused = |json: &str| read(json).expect_err(json).to_string();
        for json in ["12.5", "\"12\"", "true", "null"] {
            assert!(refused(json).contains("expected i64"), "{json}");
        }
        let too_large = ["0", "-1.0", "1000001", "1e300", "-1e300", "18446744073709551615", "99999999999999999999"];
        for json in too_large {
            assert!(!refused(json).contains("expected i64"), "{json}");
        }
    }

    #[test]
    fn a_time_is_read_with_any_offset_and_written_in_utc() {
        for (text, written) in [
            ("2026-05-01T18:00:00Z", "2026-05-01T18:00:00.000Z"),
            ("2026-05-01T18:00:00.5+02:00", "2026-05-01T16:00:00.500Z"),
            ("2026-05-01t18:00:00.1239z", "2026-05-01T18:00:00.123Z"),
            ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"),
            ("9998-12-31T23:59:59.999Z", "9998-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Millis::parse(text).map(|time| time.to_string()).as_deref(), Some(written), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_no_time() {
        for text in [
            "",
            "now",
            "1777658400",
            "2026-05-01",
            "2026-05-01T18:00:00",
            "2026-02-30T18:00:00Z",
            "2026-05-01T25:00:00Z",
            " 2026-05-01T18:00:00Z",
            "-000001-12-31T23:59:59Z",
            "9999-01-01T00:00:00Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert_eq!(Millis::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_message_of_a_refused_time_names_the_last_year_that_is_accepted() {
        let last = Millis(Millis::WRITABLE.end - 1).to_string();
        let (year, _) = last.split_once('-').unwrap();
        let message = Fault::NotATime.message();
        assert!(message.contains(&format!("no later than the year {year}")), "{message}");
    }

    #[test]
    fn reckoning_with_times_never_overflows() {
        assert_eq!(Millis(i64::MAX) + Duration::from_millis(1), Millis(i64::MAX));
        assert_eq!(Millis(i64::MIN) - Duration::from_millis(1), Millis(i64::MIN));
        assert_eq!(Millis(i64::MAX).to_string(), "9223372036854775807 ms");
    }

    #[test]
    fn texts_for_people_have_their_length_and_no_control_characters() {
        let longest = "ñ".repeat(64);
        let too_long = "n".repeat(65);
        for (text, is_good) in [
            ("A1", true),
            ("Fila 3, asiento 7", true),
            ("=1+1", true),
            ("座席 一", true),
            ("👩‍👩‍👧", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            (" ", false),
            ("\u{200b}\u{2028}", false),
            (" A1", true),
            ("A1\u{a0}", true),
            ("A\t1", false),
            ("A\n1", false),
            ("A\r1", false),
            ("A\0", false),
            ("A\u{7f}", false),
            ("A\u{85}1", false),
        ] {
            assert_eq!(good::<Place>(text), is_good, "{text:?}");
            assert_eq!(good::<Text<64>>(text), is_good, "{text:?}");
        }
        assert!(!good::<Place>(&"A".repeat(5_000)));
        assert!(good::<Text<200>>(&"ñ".repeat(200)) && !good::<Text<200>>(&"ñ".repeat(201)));
    }

    #[test]
    fn texts_for_people_are_kept_as_people_read_them() {
        for (text, kept) in [(" A  1\u{a0}", "A 1"), ("Cafe\u{301}", "Café"), ("ñ", "ñ")] {
            assert_eq!(Place::try_from(text.to_owned()).unwrap().as_str(), kept);
            assert_eq!(Text::<64>::try_from(text.to_owned()).unwrap().0, kept);
        }
        // The length is that of the normalized text.
        assert!(good::<Text<64>>(&format!("  {} ", "n\u{303}".repeat(64))));
    }

    #[test]
    fn a_username_fits_in_a_path() {
        let longest = "n".repeat(64);
        let too_long = "n".repeat(65);
        for (text, is_good) in [
            ("ana", true),
            ("Ana.B_c@example.org+1-2", true),
            ("attendances", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("a b", false),
            ("a/b", false),
            ("a%2Fb", false),
            ("añ", false),
            ("a\0", false),
            ("attendance", false),
            (".", false),
            ("..", false),
            ("...", true),
            ("Attendance", false),
        ] {
            assert_eq!(good::<Username>(text), is_good, "{text:?}");
        }
    }

    #[test]
    fn an_email_has_one_at_sign_with_something_around_it() {
        let longest = format!("{}@example.org", "n".repeat(242));
        let too_long = format!("n{longest}");
        for (text, is_good) in [
            ("a@b", true),
            ("ana+tickets@example.org", true),
            ("ñandú@correo.example", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("@", false),
            ("ana", false),
            ("@example.org", false),
            ("ana@", false),
            ("a@b@c", false),
            ("a b@example.org", false),
            ("ana@example.org\n", false),
            ("ana@exam\0ple.org", false),
        ] {
            assert_eq!(good::<Email>(text), is_good, "{text:?}");
        }
        assert_eq!(longest.len(), 254);
    }

    #[test]
    fn a_slug_fits_in_a_path() {
        let longest = "n".repeat(64);
        let too_long = "n".repeat(65);
        for (text, is_good) in [
            ("default", true),
            ("fair-2026", true),
            (longest.as_str(), true),
            (too_long.as_str(), false),
            ("", false),
            ("Fair", false),
            ("fair_2026", false),
            ("fair/2026", false),
            ("férian", false),
        ] {
            assert_eq!(good::<Slug>(text), is_good, "{text:?}");
        }
    }

    #[test]
    fn a_time_zone_is_known_to_iana() {
        for (text, is_good) in [("UTC", true), ("America/Bogota", true), ("Europe/Atlantis", false), ("", false)] {
            assert_eq!(good::<TimeZone>(text), is_good, "{text:?}");
        }
    }

    #[test]
    fn a_word_is_read_as_it_is_written() {
        fn check<T: Copy + Debug + PartialEq + Serialize + for<'de> Deserialize<'de> + std::str::FromStr>(
            all: &[T],
            as_str: fn(T) -> &'static str,
        ) {
            for &value in all {
                let json = serde_json::to_value(value).unwrap();
                assert_eq!(json, as_str(value));
                assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
                assert_eq!(as_str(value).parse::<T>().ok(), Some(value));
            }
            assert!("Nonsense".parse::<T>().is_err());
        }
        check(Status::ALL, Status::as_str);
        check(Reentry::ALL, Reentry::as_str);
        check(Direction::ALL, Direction::as_str);
        check(Role::ALL, Role::as_str);
        check(ScanResult::ALL, ScanResult::as_str);
        assert_eq!("x".parse::<Direction>(), Err(Fault::NotOneOf { words: vec!["entry".into(), "exit".into()] }));
    }

    #[test]
    fn each_role_holds_the_lesser_ones() {
        let held = [
            (Role::Organizer, &[Role::Organizer, Role::Supervisor, Role::Gate][..]),
            (Role::Supervisor, &[Role::Supervisor, Role::Gate]),
            (Role::Gate, &[Role::Gate]),
        ];
        assert_eq!(held.map(|(role, _)| role), Role::ALL, "every role is here");
        for (role, held) in held {
            let holds: Vec<Role> = Role::ALL.iter().copied().filter(|needed| role.holds(*needed)).collect();
            assert_eq!(holds, held, "{role:?}");
        }
    }

    fn event(starts_at: Option<Millis>, ends_at: Option<Millis>) -> Event {
        Event {
            event_id: Uuid::nil(),
            slug: "fair".into(),
            name: "Fair".into(),
            time_zone: "UTC".into(),
            starts_at,
            ends_at,
            opens_at: starts_at,
            closes_at: None,
            reentry: Reentry::None,
            capacity: None,
            category_colours: CategoryColours::default(),
            language: None,
            location: None,
            forget_after_days: None,
            forgotten_at: None,
            walk_ups: false,
            walk_up_price: None,
            currency: None,
            version: 1,
        }
    }

    #[test]
    fn an_event_ends_after_it_starts() {
        let doors = |opens_at, closes_at| Event { opens_at, closes_at, ..event(None, None) };
        for (start, end, is_good) in [
            (None, None, true),
            (Some(Millis(5)), None, true),
            (None, Some(Millis(5)), true),
            (Some(Millis(5)), Some(Millis(6)), true),
            (Some(Millis(5)), Some(Millis(5)), false),
            (Some(Millis(6)), Some(Millis(5)), false),
        ] {
            assert_eq!(event(start, end).check_times().is_ok(), is_good, "{start:?} {end:?}");
            assert_eq!(doors(start, end).check_times().is_ok(), is_good, "{start:?} {end:?}");
        }
    }

    #[test]
    fn people_are_forgotten_so_many_days_after_the_end_or_the_start() {
        let at = |days| Some(Millis(days * Millis::DAY));
        for (starts_at, ends_at, days, forgets_at) in [
            (at(10), at(12), Some(30), at(42)),
            (at(10), None, Some(1), at(11)),
            (None, at(12), Some(3_650), at(3_662)),
            (None, None, Some(30), None),
            (at(10), at(12), None, None),
        ] {
            let event = Event { forget_after_days: days, ..event(starts_at, ends_at) };
            assert_eq!(event.forgets_at(), forgets_at, "{event:?}");
        }
        let open = Event { forget_after_days: Some(1), closes_at: at(14), ..event(at(10), at(12)) };
        assert_eq!(open.forgets_at(), at(15), "its doors are open for longer");
    }

    #[test]
    fn a_seed_is_not_shown() {
        assert_eq!(format!("{:?}", Seed([7; 20])), "Seed(hidden)");
        assert!(Seed::try_from(vec![0; 20]).is_ok());
        assert!(Seed::try_from(vec![0; 19]).is_err());
    }

    proptest! {
        #[test]
        fn a_time_that_is_written_is_read_again(time in Millis::WRITABLE) {
            prop_assert_eq!(Millis::parse(&Millis(time).to_string()), Some(Millis(time)));
        }

        #[test]
        fn reading_a_time_never_panics(text in "[0-9TZ:.+ -]{0,30}") {
            let _ = Millis::parse(&text);
        }
    }
}
