//! The schemas of the document, derived from the request and response types. This module adds what the types cannot
//! express: patterns of texts, meanings of words, and the shapes of a body that the service reads as one type.

use std::borrow::Cow;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema, json_schema};
use serde_json::{Map, Value, json};
use strum::{EnumMessage as _, IntoEnumIterator as _};

use super::refusals;
use crate::app::FullHealth;
use crate::endpoints::{
    batches, events, guests, imports, keys, mails, manifest, scans, stats, system, tickets, users, walk_ups,
};
use crate::fault::Fault;
use crate::limits;
use crate::list::{Cursor, Limit, PageQuery};
use crate::model::{
    Action, Capacity, CategoryColours, Colour, Currency, Days, Direction, Email, Event, Existing, Flag, MailList,
    MailResult, Millis, Place, Price, Reentry, Role, ScanResult, Slug, Status, Text, Ticket, TimeZone, Unknown, User,
    Username,
};
use crate::pages::LANGUAGES;
use crate::response::Problem;
use crate::store::{Conflict, Created, Incident, KeyScan, ListedAction, ListedKey, PrintedList, Renewal};

const SCHEMAS: &str = "/components/schemas";

/// Returns a reference to a schema by its name in the document.
pub fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#{SCHEMAS}/{name}") })
}

/// Returns the schemas of all types that the document may name.
pub fn components() -> Map<String, Value> {
    let mut schemas = generated(SchemaSettings::draft2020_12().for_serialize(), |all| {
        add::<(User, Ticket, Event, Created, Problem<'_>, system::Health, FullHealth, stats::EventStats)>(all);
        add::<(tickets::TicketWithProvisioning<'_>, tickets::Link, tickets::PrintedTicket, scans::ScanReply)>(all);
        add::<(ListedAction, ListedKey, keys::KeyWithSecret, keys::Enrolment, keys::OfferedKey, keys::EnrolledKey)>(
            all,
        );
        add::<(KeyScan, Renewal, keys::TakenScans, events::ShownEvent, imports::Preview, imports::Imported)>(all);
        add::<(mails::Outbox, mails::Mailed, PrintedList, Incident, walk_ups::WalkUpReply)>(all);
        // Used in queries and maps.
        add::<(Existing, Flag, MailList, Unknown, Colour)>(all);
        add::<(guests::Guests, batches::BatchReply, manifest::Manifest, ListedTicket, Conflict, ProblemCode, FieldCode)>(
            all,
        );
    });
    let requests = generated(SchemaSettings::draft2020_12().for_deserialize(), |all| {
        add::<(
            users::NewUser,
            users::Registration,
            tickets::Seat,
            NewTickets,
            tickets::Transfer,
            tickets::Changes,
            BatchScan,
        )>(all);
        add::<(events::NewEvent, events::Changes, users::Changes, keys::NewKey, keys::EnrolmentBody)>(all);
        add::<(scans::AttendanceBody, scans::ScanBody, ScanRequest, batches::BatchBody, batches::HandedScans)>(all);
        add::<(mails::MailRequest, walk_ups::WalkUpRequest, Existing, Flag, MailList, Unknown, Colour)>(all);
    });
    for (name, schema) in requests {
        let other = schemas.insert(name.clone(), schema.clone());
        assert!(other.is_none_or(|other| other == schema), "two types are called {name}");
    }
    for (list, members, member) in LISTS {
        schemas.insert((*list).to_owned(), page_of(members, member));
    }
    for shape in SHAPES {
        schemas.insert(shape.name.to_owned(), shape.of(&schemas));
    }
    schemas.remove("ScanBody");
    for (name, member, precise) in precise() {
        let keywords = schemas[name]["properties"][member].as_object_mut().expect("a member has a schema");
        keywords.retain(|keyword, _| keyword == "description" || keyword == "maxItems");
        keywords.extend(precise.as_object().cloned().into_iter().flatten());
    }
    schemas.values_mut().for_each(without_defaults);
    schemas
}

/// Removes defaults: openapi-typescript makes a member with a default required. Descriptions name the defaults instead.
fn without_defaults(schema: &mut Value) {
    for member in members(schema) {
        member.as_object_mut().map(|keywords| keywords.remove("default"));
    }
}

/// Iterates over the schemas of an object's members.
fn members(schema: &mut Value) -> impl Iterator<Item = &mut Value> {
    schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut)
}

/// Returns members whose type is too general: the schema, the member, and its precise keywords.
fn precise() -> [(&'static str, &'static str, Value); 7] {
    let count = json!({ "type": "integer", "format": "int64", "minimum": 0 });
    let refusals = ScanResult::ALL.iter().filter(|result| result.is_kept() && **result != ScanResult::Accepted);
    let counts: Map<_, _> = refusals.map(|result| (result.as_str().to_owned(), count.clone())).collect();
    let entry = json!({ "anyOf": [{ "type": "string", "const": Direction::Entry.as_str() }, { "type": "null" }] });
    [
        ("BatchScanOfParty", "direction", entry.clone()),
        ("ScanOfParty", "direction", entry),
        ("BatchRequest", "scans", json!({ "type": "array", "items": reference("BatchScan") })),
        ("FieldError", "code", reference("FieldCode")),
        ("Manifest", "tickets", json!({ "type": "array", "items": reference("ListedTicket") })),
        ("Problem", "code", reference("ProblemCode")),
        ("Stats", "refused", json!({ "type": "object", "properties": counts, "additionalProperties": false })),
    ]
}

/// Returns the parameters of the queries, by the names of their types.
pub fn queries() -> Map<String, Value> {
    generated(SchemaSettings::draft2020_12().for_deserialize(), |all| {
        add::<(
            PageQuery,
            keys::KeyScansQuery,
            tickets::ListQuery,
            tickets::LinkQuery,
            manifest::ManifestQuery,
            system::HealthQuery,
        )>(all);
        add::<guests::GuestsQuery>(all);
        add::<(users::PeopleQuery, users::UserTicketsQuery, events::DeleteQuery, imports::ImportQuery)>(all);
        add::<mails::MailsQuery>(all);
    })
}

/// Returns the schema of the same body as a form, whose fields have a text or are absent.
pub fn form(schema: &Value) -> Value {
    let mut form = schema.clone();
    members(&mut form).for_each(forbid_null);
    form["description"] = format!("{} As a form.", form["description"].as_str().unwrap_or_default()).into();
    form
}

fn add<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn generated(settings: SchemaSettings, add: impl FnOnce(&mut SchemaGenerator)) -> Map<String, Value> {
    let settings = settings.with(|settings| settings.definitions_path = Cow::Borrowed(SCHEMAS));
    let mut generator = settings.into_generator();
    add(&mut generator);
    let mut schemas = generator.take_definitions(true);
    schemas.values_mut().for_each(close);
    schemas
}

/// Joins lines that were wrapped in the source; keeps paragraphs and lists.
pub fn one_line(text: &str) -> String {
    let marked = text.replace("\n\n", "\u{2}\u{2}").replace("\n- ", "\u{2}- ");
    marked.replace('\n', " ").replace('\u{2}', "\n")
}

/// Completes a schema: its objects have no additional members, and its formats are those of OpenAPI.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.contains_key("properties") {
                members.entry("additionalProperties").or_insert(false.into());
            }
            if let Some(Value::String(about)) = members.get_mut("description") {
                *about = one_line(about);
            }
            if members.contains_key("const") || members.contains_key("enum") {
                members.retain(|keyword, _| !["format", "minimum", "maximum"].contains(&keyword.as_str()));
            }
            match members.get_mut("format") {
                Some(format) if format == "uint64" => *format = "int64".into(),
                Some(format) if format == "uint8" || format == "uint16" => *format = "int32".into(),
                _ => {}
            }
            members.values_mut().for_each(close);
        }
        Value::Array(members) => members.iter_mut().for_each(close),
        _ => {}
    }
}

/// Makes a nullable member not nullable.
pub fn forbid_null(schema: &mut Value) {
    if let Some(types) = schema["type"].as_array() {
        schema["type"] = types.iter().find(|name| *name != "null").cloned().unwrap_or_default();
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let reference = any[0]["$ref"].clone();
        let members = schema.as_object_mut().expect("a schema with members is an object");
        members.remove("anyOf");
        members.insert("$ref".to_owned(), reference);
    }
    schema.as_object_mut().expect("a member's schema is an object").retain(|_, value| !value.is_null());
}

/// The paged lists: schema, the member with the list, and the schema of its items.
const LISTS: &[(&str, &str, &str)] = &[
    ("ActionList", "actions", "Action"),
    ("ConflictList", "conflicts", "Conflict"),
    ("EventList", "events", "Event"),
    ("IncidentList", "incidents", "Incident"),
    ("KeyList", "keys", "Key"),
    ("KeyScanList", "scans", "KeyScan"),
    ("TicketList", "tickets", "Ticket"),
];

fn page_of(members: &str, member: &str) -> Value {
    json!({
        "type": "object",
        "description": format!("A page of {members}."),
        "properties": {
            members: {
                "type": "array",
                "maxItems": Limit::GREATEST,
                "items": reference(member),
                "description": "At most `limit` of them.",
            },
            "next": {
                "type": ["string", "null"],
                "description": "The opaque cursor of the next page, to be sent as `after`; null on the last page.",
            },
        },
        "required": [members, "next"],
        "additionalProperties": false,
    })
}

/// A schema with some members of a type, for one of several kinds of its values.
struct Shape {
    name: &'static str,
    about: &'static str,
    of: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
}

impl Shape {
    fn of(&self, schemas: &Map<String, Value>) -> Value {
        let whole = &schemas[self.of]["properties"];
        let mut properties = Map::new();
        for name in self.required.iter().chain(self.optional) {
            properties.insert((*name).to_owned(), whole[name].clone());
        }
        self.required.iter().for_each(|name| forbid_null(&mut properties[*name]));
        json!({
            "type": "object",
            "description": self.about,
            "properties": properties,
            "required": self.required,
            "additionalProperties": false,
        })
    }
}

const SHAPES: &[Shape] = &[
    Shape {
        name: "ScanByCode",
        about: "A scan by what the ticket's QR code shows.",
        of: "ScanBody",
        required: &["scan_id", "code"],
        optional: &["at_gate", "direction", "scanned_at"],
    },
    Shape {
        name: "ScanBySeat",
        about: "A scan by seat and typed digits.",
        of: "ScanBody",
        required: &["scan_id", "seat", "gate", "totp_code"],
        optional: &["at_gate", "direction", "scanned_at"],
    },
    Shape {
        name: "ScanByHand",
        about: "A scan by hand, without a code. Needs the role `supervisor`.",
        of: "ScanBody",
        required: &["scan_id", "seat", "gate", "manual", "note"],
        optional: &["at_gate", "direction", "scanned_at"],
    },
    Shape {
        name: "ScanOfParty",
        about: "A scan of another ticket of somebody who was just admitted. That admission vouches for it.",
        of: "ScanBody",
        required: &["scan_id", "ticket_id", "vouched_by"],
        optional: &["at_gate", "direction", "scanned_at"],
    },
    Shape {
        name: "BatchScanByCode",
        about: "A scan made offline by what the ticket's QR code shows.",
        of: "ScanBody",
        required: &["scan_id", "code", "scanned_at", "offline_result"],
        optional: &["at_gate", "direction"],
    },
    Shape {
        name: "BatchScanBySeat",
        about: "A scan made offline by seat and typed digits.",
        of: "ScanBody",
        required: &["scan_id", "seat", "gate", "totp_code", "scanned_at", "offline_result"],
        optional: &["at_gate", "direction"],
    },
    Shape {
        name: "BatchScanByHand",
        about: "A scan made offline by hand, without a code. Needs the role `supervisor`.",
        of: "ScanBody",
        required: &["scan_id", "seat", "gate", "manual", "note", "scanned_at", "offline_result"],
        optional: &["at_gate", "direction"],
    },
    Shape {
        name: "BatchScanOfParty",
        about: "A scan made offline of another ticket of somebody who was just admitted. That admission vouches for it.",
        of: "ScanBody",
        required: &["scan_id", "ticket_id", "vouched_by", "scanned_at", "offline_result"],
        optional: &["at_gate", "direction"],
    },
    Shape {
        name: "BatchWalkUp",
        about: "People who were admitted offline without a ticket. Needs the role `supervisor`.",
        of: "ScanBody",
        required: &["scan_id", "walk_up", "scanned_at", "offline_result"],
        optional: &["at_gate", "direction"],
    },
    Shape {
        name: "ManifestOtherTicket",
        about: "A ticket of another gate than the one the key is bound to: only where to send its holder.",
        of: "ManifestTicket",
        required: &["ticket_id", "seat", "gate"],
        optional: &[],
    },
];

/// Declares a type that stands for one of several schemas.
macro_rules! unions {
    ($($name:ident: $about:literal = $schemas:expr;)+) => {
        $(struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "description": $about, "oneOf": $schemas })
            }
        })+
    };
}

unions! {
    NewTickets: "One ticket, or an array of tickets." =
        [reference("NewTicket"), json!({ "type": "array", "minItems": 1, "items": reference("NewTicket") })];
    ScanRequest: "A scan: the QR code, or seat and digits, or a manual admission, or another ticket of somebody who was admitted." =
        ["ScanByCode", "ScanBySeat", "ScanByHand", "ScanOfParty"].map(reference);
    BatchScan: "A scan made offline: the QR code, or seat and digits, or a manual admission, or another ticket of somebody who was \
        admitted, or people without a ticket." =
        ["BatchScanByCode", "BatchScanBySeat", "BatchScanByHand", "BatchScanOfParty", "BatchWalkUp"].map(reference);
    ListedTicket: "A ticket of the manifest." = ["ManifestTicket", "ManifestOtherTicket"].map(reference);
}

/// Returns the schema of an enumeration, with one line for each word.
fn words(about: &str, words: &[(String, String)]) -> Schema {
    let lines = words.iter().map(|(word, meaning)| format!("\n- `{word}`: {meaning}")).collect::<String>();
    let words = words.iter().map(|(word, _)| word).collect::<Vec<_>>();
    json_schema!({ "type": "string", "enum": words, "description": format!("{about}\n{lines}") })
}

macro_rules! named_words {
    ($($words:ident as $name:literal, $note:expr;)+) => {
        $(impl JsonSchema for $words {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let note: fn(&str) -> String = $note;
                let line = |(word, meaning): &(&str, &str)| ((*word).to_owned(), note(word) + meaning.trim());
                words(Self::ABOUT.trim(), &Self::WORDS.iter().map(line).collect::<Vec<_>>())
            }
        })+
    };
}

named_words! {
    Action as "ActionName", |_| String::new();
    Direction as "Direction", |_| String::new();
    Colour as "Colour", |_| String::new();
    Reentry as "Reentry", |_| String::new();
    Existing as "Existing", |_| String::new();
    Unknown as "UnknownColumns", |_| String::new();
    Flag as "Flag", |_| String::new();
    MailList as "MailList", |_| String::new();
    MailResult as "MailResult", |_| String::new();
    Role as "Role", |_| String::new();
    ScanResult as "ScanResult", |word| {
        let result: ScanResult = word.parse().expect("it is one of them");
        format!("With status {}. ", scans::status_of(result).as_u16())
    };
    Status as "TicketStatus", |_| String::new();
}

/// The code of a refusal.
struct ProblemCode;

impl JsonSchema for ProblemCode {
    fn schema_name() -> Cow<'static, str> {
        "ProblemCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let line = |(code, refusal): (String, super::Refusal)| {
            let line = format!("With status {}. {}", refusal.status, refusal.about);
            (code, line)
        };
        words("The stable name of a refusal, for programs.", &refusals().into_iter().map(line).collect::<Vec<_>>())
    }
}

/// The code of a field that is wrong.
struct FieldCode;

impl JsonSchema for FieldCode {
    fn schema_name() -> Cow<'static, str> {
        "FieldCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let line = |fault: Fault| (fault.code().to_owned(), fault.get_message().unwrap_or_default().to_owned());
        let about = "The stable name of what is wrong with a field, for programs. Each has its message, whose placeholders are `params`.";
        words(about, &Fault::iter().map(line).collect::<Vec<_>>())
    }
}

/// At least one visible character, and no control characters.
const PLAIN: &str = r"^[^\x00-\x1f\x7f-\x9f]*[^\x00-\x20\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$";

/// Implements inline schemas for types that are a single value in JSON.
macro_rules! values {
    ($([$($parameter:tt)*] $type:ty: $schema:expr;)+) => {
        $(impl<$($parameter)*> JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                let schema: fn(&SchemaGenerator) -> Schema = $schema;
                schema(generator)
            }
        })+
    };
}

values! {
    // 16 bytes in base64url: the last character encodes 2 bits of them.
    [] Cursor: |_| json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{21}[AQgw]$" });
    [] Capacity: |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": limits::CAPACITY });
    [] Days: |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": limits::FORGET_AFTER_DAYS });
    [] Currency: |_| json_schema!({ "type": "string", "pattern": "^[A-Z]{3}$" });
    [] walk_ups::People: |_| json_schema!({ "type": "integer", "minimum": 1, "maximum": limits::WALK_UPS });
    [] Price: |_| json_schema!({ "type": "integer", "minimum": 0, "maximum": limits::PRICE });
    [] CategoryColours: |_| json_schema!({
        "type": "object", "maxProperties": limits::CATEGORIES,
        "propertyNames": { "minLength": 1, "maxLength": limits::CATEGORY }, "additionalProperties": reference("Colour"),
    });
    [] Email: |_| json_schema!({
        "type": "string", "minLength": 3, "maxLength": limits::EMAIL, "pattern": r"^[^@\s\x00-\x1f\x7f-\x9f]+@[^@\s\x00-\x1f\x7f-\x9f]+$",
    });
    [] Limit: |_| json_schema!({
        "type": "integer", "minimum": 1, "maximum": Limit::GREATEST, "default": Limit::USUAL,
    });
    [] Millis: |generator| if generator.contract().is_serialize() {
        json_schema!({
            "type": "string", "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        })
    } else {
        json_schema!({ "type": "string", "format": "date-time" })
    };
    [] Place: |_| json_schema!({ "type": "string", "minLength": 1, "maxLength": limits::PLACE, "pattern": PLAIN });
    [] events::Tag: |_| {
        let tags: Vec<_> = LANGUAGES.iter().map(|language| language.tag).collect();
        json_schema!({ "type": "string", "enum": tags })
    };
    [] Slug: |_| json_schema!({ "type": "string", "pattern": format!("^[a-z0-9-]{{1,{}}}$", limits::SLUG) });
    [const LONGEST: usize] Text<LONGEST>:
        |_| json_schema!({ "type": "string", "minLength": 1, "maxLength": LONGEST, "pattern": PLAIN });
    [] TimeZone: |_| json_schema!({ "type": "string", "minLength": 1 });
    [] Username: |_| json_schema!({ "type": "string", "pattern": format!("^[A-Za-z0-9._@+-]{{1,{}}}$", limits::USERNAME) });
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;

    /// Returns whether a type's schema accepts a text, and whether its check does.
    fn verdicts<T: JsonSchema + TryFrom<String, Error: Debug>>(text: &str) -> (bool, bool) {
        let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        let schema = generator.subschema_for::<T>().to_value();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        (validator.is_valid(&text.into()), T::try_from(text.to_owned()).is_ok())
    }

    #[test]
    fn the_schema_of_a_text_takes_what_its_check_takes() {
        let long = |letter: &str, length: usize| letter.repeat(length);
        let mut texts: Vec<String> =
            ["", " ", "a", "A", "ñ", "a b", " a", "a ", "a\tb", "a\n", "a\0", "\u{7f}", "a\u{85}b", "座席 一"]
                .into_iter()
                .chain(["a@b", "@", "@b", "a@", "a@b@c", "a b@c", "ñ@ñ", "a.b_c@d+e-f", "a-1", "a_1", "a/b", "👩‍👩‍👧"])
                .map(ToOwned::to_owned)
                .collect();
        texts.extend(
            [64, 65, 100, 101, 200, 201, 500, 501]
                .into_iter()
                .flat_map(|length| [long("a", length), long("ñ", length)]),
        );
        texts.extend([242, 243].map(|length| format!("{}@example.org", long("n", length))));
        for text in &texts {
            for (schema, check) in [
                verdicts::<Place>(text),
                verdicts::<Text<100>>(text),
                verdicts::<Text<200>>(text),
                verdicts::<Text<500>>(text),
                verdicts::<Slug>(text),
                verdicts::<Username>(text),
                verdicts::<Email>(text),
            ] {
                assert_eq!(schema, check, "{text:?}");
            }
        }
    }
}
