//! What can be wrong with a field of a request or a line of a file: a stable code, with parameters for its text. Never
//! includes what was sent, which may be a secret.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::{EnumIter, EnumMessage, IntoStaticStr};

/// An error in a field, or a notice about a list. The message is English, follows the field's name, and has a placeholder for
/// each member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, EnumIter, EnumMessage, IntoStaticStr)]
#[serde(tag = "code", content = "params", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Fault {
    #[strum(message = "is required")]
    Required,
    #[strum(message = "is given twice")]
    GivenTwice,
    /// A field with a name other than these.
    #[strum(message = "is not known, {known}")]
    Unknown { known: Vec<String> },
    /// A value of another JSON type.
    #[strum(message = "expected {expected}")]
    WrongType { expected: String },
    /// Any other reason why a value cannot be read.
    #[strum(message = "cannot be read")]
    Unreadable,
    #[strum(message = "must not be empty")]
    Empty,
    #[strum(message = "must have at most {most} characters")]
    TooLong { most: usize },
    #[strum(message = "must have at least {least} letters or digits")]
    TooShort { least: usize },
    #[strum(message = "must have no control characters")]
    BadCharacters,
    #[strum(message = "must be a number from {least} to {most}")]
    OutOfRange { least: usize, most: usize },
    #[strum(message = "must name at most {most} categories")]
    TooManyCategories { most: usize },
    #[strum(message = "expected one of {words}")]
    NotOneOf { words: Vec<String> },
    #[strum(message = "expected a time such as 2026-05-01T18:00:00Z (RFC 3339), no later than the year 9998")]
    NotATime,
    /// The same in a list, where dates and times have the forms of spreadsheets.
    #[strum(message = "must be a date, or a date and a time, such as 2026-05-01 18:00")]
    NotADate,
    #[strum(message = "expected a UUID")]
    NotAUuid,
    #[strum(message = "must have 1 to {most} of the characters A-Z a-z 0-9 . _ @ + -")]
    NotAUsername { most: usize },
    /// A username that is also a path.
    #[strum(message = "is a reserved name")]
    Reserved,
    #[strum(message = "must be an e-mail address of at most {most} characters")]
    NotAnEmail { most: usize },
    #[strum(message = "must have 1 to {most} of the characters a-z 0-9 -")]
    NotASlug { most: usize },
    #[strum(message = "must be an IANA time zone such as Europe/Madrid")]
    NotATimeZone,
    #[strum(message = "must be a currency code of three letters (ISO 4217), such as EUR")]
    NotACurrency,
    /// An amount in an event that has no currency.
    #[strum(message = "needs the event's `currency`, which is not set")]
    CurrencyMissing,
    /// The currency of an event with payments.
    #[strum(message = "cannot be changed, because something was paid in it already")]
    PaidInIt,
    #[strum(message = "must be the `next` of a list")]
    NotACursor,
    #[strum(message = "must be the `as_of` of a manifest")]
    NotAnAsOf,
    /// The end of an event, of its doors, or of a ticket.
    #[strum(message = "must be after the start")]
    EndsBeforeStart,
    #[strum(message = "must be in the future")]
    NotInFuture,
    /// An organizer's key would outlive the key that creates it.
    #[strum(message = "must not be after the end of your own key")]
    AfterYourKey,
    /// The time of an event that is in use.
    #[strum(
        message = "would end or postpone the event, or withdraw its list, while its gates are in use; keep its start, and an end in the future"
    )]
    GatesAtWork,
    #[strum(message = "must be the event's slug, to confirm its deletion with its tickets")]
    NotTheSlug,
    #[strum(message = "is required for a key that is bound to a gate")]
    EventMissing,
    /// None of the ways to identify a ticket, or several.
    #[strum(
        message = "send either `code`, or `seat`, `gate` and `totp_code`, or `seat`, `gate`, `manual` and `note`, or `ticket_id` and \
                   `vouched_by`"
    )]
    NotAScan,
    /// The scan that should vouch for a ticket instead of a code.
    #[strum(
        message = "must be a scan with this key that admitted the same holder at the same gate by a code or by hand, at most \
                   {seconds} seconds ago"
    )]
    NotVouched { seconds: u64 },
    #[strum(message = "is required for a manual admission, and only for that")]
    NoteIfManual,
    #[strum(message = "is allowed in batches only")]
    BatchOnly,
    #[strum(message = "must hold at most {most} scans")]
    TooManyScans { most: usize },
    /// The time of a scan in a batch.
    #[strum(
        message = "must lie after the key's creation, within the last {hours} hours and at most {seconds} seconds ahead"
    )]
    OutsideWindow { hours: u64, seconds: u64 },
    /// A scan in a device's file.
    #[strum(
        message = "does not prove that a device with this key scanned this for this event; upload the file as it was saved"
    )]
    NotOfThisKey,
    #[strum(message = "is not UTF-8")]
    NotUtf8,
    #[strum(message = "is not a form")]
    NotAForm,
    /// The body ended too soon.
    #[strum(message = "is incomplete")]
    BrokeOff,
    #[strum(message = "must hold at least one ticket")]
    NoTickets,
    #[strum(message = "exceeds the limit of {most} tickets at once")]
    TooManyTickets { most: usize },
    #[strum(message = "this seat at this gate has a ticket already")]
    SeatTaken,
    #[strum(message = "names the same seat and gate as line {line}")]
    SeatTwice { line: u64 },
    /// The same in an array.
    #[strum(message = "names the same seat and gate as an earlier ticket")]
    SeatRepeated,
    #[strum(message = "has the same reference as an earlier ticket")]
    ReferenceRepeated,
    /// Only here does a message repeat what was sent: without the names, the columns could not be found.
    #[strum(message = "has unknown columns: {columns}. Known columns are {known}; map or ignore the others")]
    UnknownColumn { columns: Vec<String>, known: Vec<String> },
    #[strum(message = "names the column {column} twice")]
    ColumnTwice { column: String },
    #[strum(message = "names none of the columns {known}")]
    NoColumn { known: Vec<String> },
    /// No line names the columns.
    #[strum(message = "is a ticket, and no line names the columns; specify them")]
    NoHeader,
    /// Words that say neither that a line is a ticket nor that it is not.
    #[strum(
        message = "has unknown words for a status: {words}. Map the column to nothing, or ignore the unknown, to import them \
                       as tickets"
    )]
    UnknownStatus { words: Vec<String> },
    #[strum(message = "must be 1, because the line names a seat")]
    SeatIsOneTicket,
    /// An error such as `#N/A`, or a formula from a program that cannot calculate.
    #[strum(
        message = "is a formula that failed, or was never calculated; open the file in a spreadsheet and save it again"
    )]
    FailedFormula,
    #[strum(message = "is empty")]
    EmptyFile,
    #[strum(message = "must have {expected} fields, as the header has, not {found}")]
    WrongFieldCount { expected: usize, found: usize },
    #[strum(message = "has a quote that is never closed")]
    UnclosedQuote,
    #[strum(message = "must be one e-mail address, not several")]
    TwoEmails,
    /// The person named in a line is registered with another address, or with none, or has another in an earlier line.
    #[strum(message = "names a person who is known with another email, or with none")]
    PersonDiffers,
    #[strum(message = "has the same reference as line {line}")]
    ReferenceTwice { line: u64 },
    #[strum(message = "this reference has a ticket already")]
    ReferenceTaken,
    /// Without a seat and a reference, a second ticket cannot be distinguished from the first one, sent again.
    #[strum(message = "names a person who has a ticket already; give the new one a seat or a reference")]
    HasTicket,
    #[strum(message = "is another person's ticket; transfer it")]
    OtherHolder,
    #[strum(message = "has the reference of a ticket at another seat or gate")]
    OtherSeat,
    #[strum(message = "has a seat whose ticket has another reference")]
    OtherReference,
    #[strum(message = "and {more} more faults")]
    MoreFaults { more: usize },
    #[strum(message = "is an old Excel workbook; save it as .xlsx or as CSV")]
    OldExcel,
    #[strum(message = "is a password-protected workbook; save it without a password, or as CSV")]
    LockedWorkbook,
    #[strum(message = "is an OpenDocument file; save it as .xlsx or as CSV")]
    OpenDocument,
    #[strum(message = "is a Numbers file; export it as CSV or for Excel")]
    AppleNumbers,
    #[strum(message = "is a PDF; export the list as CSV or .xlsx where it comes from")]
    Pdf,
    #[strum(message = "is a web page; download the list itself as CSV or .xlsx")]
    WebPage,
    #[strum(message = "is not a list; save it as CSV or .xlsx")]
    NotAList,
    #[strum(message = "is a damaged workbook; open it, and save it again or as CSV")]
    BrokenWorkbook,
    #[strum(message = "is too large; save only the sheet, as CSV")]
    LargeWorkbook,
    #[strum(message = "has more than {most} columns; delete those that are not needed")]
    TooManyColumns { most: usize },

    // Notices about a list, which are no errors.
    #[strum(message = "lines skipped, because their status says that they are not tickets: {count}")]
    LinesLeftOut { count: usize },
    #[strum(message = "lines skipped, because they are sums: {lines}")]
    SumsLeftOut { lines: Vec<u64> },
    #[strum(
        message = "tickets that remain valid, although a skipped line says that they are not: {count}. Revoke them by hand"
    )]
    StillGood { count: usize },
    #[strum(message = "hidden or filtered rows of the workbook, which are read as well: {count}")]
    HiddenRows { count: usize },
    #[strum(message = "other sheets of the workbook, which are not read: {sheets}")]
    OtherSheets { sheets: Vec<String> },
    #[strum(message = "is not Unicode, so its letters are guessed; check the names, or save it as CSV UTF-8")]
    GuessedLetters,
    #[strum(message = "has letters such as `Ã±`: UTF-8 was misread before it was saved. Export the list again")]
    MangledLetters,
    #[strum(message = "seats that look like dates, into which Excel turns 1-2: lines {lines}")]
    SeatsLikeDates { lines: Vec<u64> },
    #[strum(message = "tickets of the event that are not in the list, and remain valid: {count}")]
    NotInList { count: u64 },
    #[strum(message = "tickets left unchanged, although the list has another person, reference or seat: lines {lines}")]
    NotAsInList { lines: Vec<u64> },
    #[strum(message = "tickets whose name changes, while their holder, links and codes stay: lines {lines}")]
    Renamed { lines: Vec<u64> },
    #[strum(message = "revoked tickets, which stay revoked: lines {lines}")]
    StillRevoked { lines: Vec<u64> },
    #[strum(message = "no seat, in a list that has seats; they get the next free number: lines {lines}")]
    SeatsNumbered { lines: Vec<u64> },
    /// A seller's product names can be long.
    #[strum(message = "categories of more than {most} characters, which are shortened: lines {lines}")]
    CategoriesCut { most: usize, lines: Vec<u64> },
}

impl Fault {
    /// Returns its stable code.
    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// Returns the parameters of its text, by name.
    pub fn params(&self) -> Map<String, Value> {
        match serde_json::to_value(self).map(|told| told["params"].clone()) {
            Ok(Value::Object(params)) => params,
            _ => Map::new(),
        }
    }

    /// Returns the English message, which follows the field's name.
    pub fn message(&self) -> String {
        let message = self.get_message().unwrap_or_default();
        match self {
            Self::Unknown { known } => message.replace("{known}", &expected(known)),
            Self::WrongType { expected } => message.replace("{expected}", &with_article(expected)),
            _ => self.params().iter().fold(message.to_owned(), |message, (name, value)| {
                message.replace(&format!("{{{name}}}"), &plain(value))
            }),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Writes the fault as JSON, which [`Fault::of_serde`] reads again: serde passes only a text from where a value is read
/// to where its field is known. [`Fault::message`] is for people.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl std::error::Error for Fault {}

/// A parsed serde error: the fault, and the field if serde names it.
pub struct Told<'a> {
    pub field: Option<&'a str>,
    pub fault: Fault,
}

impl Fault {
    /// Parses the text of a serde error: a fault of ours, or serde's own wording. No other code depends on that wording.
    pub fn of_serde(words: &str) -> Told<'_> {
        let named = |field, fault| Told { field: Some(field), fault };
        let unnamed = |fault| Told { field: None, fault };
        if let Ok(fault) = serde_json::from_str(words) {
            return unnamed(fault);
        }
        if let Some(field) = words.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            return named(field, Self::Required);
        }
        if let Some(field) = words.strip_prefix("duplicate field `").and_then(|rest| rest.strip_suffix('`')) {
            return named(field, Self::GivenTwice);
        }
        // The sent name comes first, and may itself contain the words that follow it.
        if let Some(rest) = words.strip_prefix("unknown field `") {
            let (field, known) = rest.rsplit_once("`, expected ").or(rest.rsplit_once("`, ")).unwrap_or((rest, ""));
            let known = known.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
            return named(field, Self::Unknown { known });
        }
        match words.rsplit_once(", expected ") {
            Some((_, "a formatted UUID string")) => unnamed(Self::NotAUuid),
            Some((_, expected)) => unnamed(Self::WrongType { expected: json_type(expected).to_owned() }),
            None if words.starts_with("UUID parsing failed") => unnamed(Self::NotAUuid),
            None => unnamed(Self::Unreadable),
        }
    }
}

/// Translates a type named by serde into the terms of JSON Schema.
fn json_type(expected: &str) -> &str {
    match expected.trim_start_matches("a ").trim_start_matches("an ") {
        "sequence" => "array",
        "map" => "object",
        "i64" | "u64" => "integer",
        other => other,
    }
}

fn with_article(word: &str) -> String {
    let article = if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {word}")
}

fn expected(known: &[String]) -> String {
    match known {
        [] => "there are no fields".to_owned(),
        [one] => format!("expected `{one}`"),
        [one, other] => format!("expected `{one}` or `{other}`"),
        many => format!("expected one of `{}`", many.join("`, `")),
    }
}

/// An error in one field, or in one line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FieldError {
    /// The field's name; `line 12` for the twelfth line of a CSV import, `[3]` for the fourth ticket of an array.
    pub field: String,
    /// The stable code of the error, for programs.
    code: &'static str,
    /// Parameters for a text: numbers, words, lists of words. `column` is the invalid column of the line, and `named` its
    /// name in the file.
    params: Map<String, Value>,
    /// The same in English, for people. Its wording may change.
    message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, fault: Fault) -> Self {
        Self { field: field.into(), code: fault.code(), params: fault.params(), message: fault.message() }
    }

    /// Returns the error of a line of a file, counted from 1.
    pub fn line(line: u64, fault: Fault) -> Self {
        Self::new(format!("line {line}"), fault)
    }

    /// Returns the error of one column of a line, which the file calls `named`.
    pub fn column(line: u64, column: &str, named: &str, fault: Fault) -> Self {
        let mut error = Self::line(line, fault);
        error.params.insert("column".to_owned(), column.into());
        error.params.insert("named".to_owned(), named.into());
        error.message = format!("{named} {}", error.message);
        error
    }

    /// Returns the stable code of the error.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Returns the English message, which follows the field's name.
    pub fn message(&self) -> &str {
        &self.message
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use strum::IntoEnumIterator as _;

    use super::*;

    #[test]
    fn a_fault_comes_through_serde_as_it_went_in() {
        for fault in Fault::iter() {
            let words = fault.to_string();
            let told = Fault::of_serde(&words);
            assert_eq!((told.field, &told.fault), (None, &fault));
            assert_eq!(serde_json::from_str::<Value>(&words).unwrap()["code"], fault.code());
        }
    }

    #[test]
    fn every_fault_has_a_message_whose_gaps_are_its_params() {
        for fault in Fault::iter() {
            let (message, params) = (fault.get_message().unwrap_or_default(), fault.params());
            let gaps: Vec<&str> = message.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0)).collect();
            assert!(!message.is_empty() && gaps.iter().all(|gap| params.contains_key(*gap)), "{message}: {params:?}");
            assert_eq!(params.len(), gaps.len(), "{message}: {params:?}");
            assert!(!fault.message().contains('{'), "{}", fault.message());
        }
        let window = Fault::OutsideWindow { hours: 72, seconds: 30 };
        let told = "must lie after the key's creation, within the last 72 hours and at most 30 seconds ahead";
        assert_eq!(window.message(), told);
        let words = ["entry", "exit"].map(ToOwned::to_owned).to_vec();
        assert_eq!(Fault::NotOneOf { words }.message(), "expected one of entry, exit");
    }

    #[test]
    fn what_serde_says_is_read_in_one_place() {
        let known = |names: &[&str]| Fault::Unknown { known: names.iter().map(ToString::to_string).collect() };
        let wrong_type = |expected: &str| Fault::WrongType { expected: expected.to_owned() };
        for (words, field, fault, message) in [
            ("missing field `gate`", Some("gate"), Fault::Required, "is required"),
            ("duplicate field `gate`", Some("gate"), Fault::GivenTwice, "is given twice"),
            ("unknown field `x`, there are no fields", Some("x"), known(&[]), "is not known, there are no fields"),
            ("unknown field `x`, expected `a`", Some("x"), known(&["a"]), "is not known, expected `a`"),
            (
                "unknown field `x`, expected `a` or `b`",
                Some("x"),
                known(&["a", "b"]),
                "is not known, expected `a` or `b`",
            ),
            (
                "unknown field `x`, expected one of `a`, `b`, `c`",
                Some("x"),
                known(&["a", "b", "c"]),
                "is not known, expected one of `a`, `b`, `c`",
            ),
            (
                "unknown field `x`, expected `y`, expected `a`",
                Some("x`, expected `y"),
                known(&["a"]),
                "is not known, expected `a`",
            ),
            (
                "invalid type: string \"x, expected y\", expected i64",
                None,
                wrong_type("integer"),
                "expected an integer",
            ),
            ("invalid type: null, expected a boolean", None, wrong_type("boolean"), "expected a boolean"),
            ("invalid type: map, expected a sequence", None, wrong_type("array"), "expected an array"),
            ("invalid type: sequence, expected an object", None, wrong_type("object"), "expected an object"),
            ("invalid type: integer `1`, expected a formatted UUID string", None, Fault::NotAUuid, "expected a UUID"),
            ("UUID parsing failed: invalid character", None, Fault::NotAUuid, "expected a UUID"),
            ("whatever comes with serde 2", None, Fault::Unreadable, "cannot be read"),
        ] {
            let told = Fault::of_serde(words);
            assert_eq!((told.field, &told.fault), (field, &fault), "{words}");
            assert_eq!(told.fault.message(), message, "{words}");
        }
    }

    #[test]
    fn a_field_is_told_by_its_code_and_what_the_text_needs() {
        let told = serde_json::to_value(FieldError::new("name", Fault::TooLong { most: 200 })).unwrap();
        let message = "must have at most 200 characters";
        assert_eq!(told, json!({ "field": "name", "code": "too_long", "params": { "most": 200 }, "message": message }));
        let told = serde_json::to_value(FieldError::column(12, "gate", "Puerta", Fault::Empty)).unwrap();
        let (message, params) = ("Puerta must not be empty", json!({ "column": "gate", "named": "Puerta" }));
        assert_eq!(told, json!({ "field": "line 12", "code": "empty", "params": params, "message": message }));
        let told = serde_json::to_value(FieldError::line(2, Fault::NotUtf8)).unwrap();
        assert_eq!(told, json!({ "field": "line 2", "code": "not_utf8", "params": {}, "message": "is not UTF-8" }));
    }
}
