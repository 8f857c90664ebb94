//! CSV (RFC 4180), in and out: a line is a struct, and its columns are the fields of the struct, by their names.

use std::collections::HashMap;

use bytes::Bytes;
use csv::StringRecord;
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::limits::NAME;
use crate::model::{Email, Millis, Place, Scan, ScanResult, Text, Ticket, Username};
use crate::store::{ListedAction, NewUser};

/// Errors of one file that are told at most: enough to see what is wrong, short enough to read.
pub const ERRORS_TOLD: usize = 100;

/// A line of an imported file, as it stands there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportLine<'a> {
    seat: &'a str,
    gate: &'a str,
    username: Option<&'a str>,
    full_name: Option<&'a str>,
    email: Option<&'a str>,
}

/// A line of an imported file, read.
#[derive(Clone)]
pub struct TicketRow {
    /// Counted from 1, the header included, as an editor shows it.
    pub line: u64,
    pub seat: Place,
    pub gate: Place,
    pub holder: Option<NewUser>,
}

/// Reads a file with the columns of [`ImportLine`] in any order, their names in upper or lower case, separated by `,` or
/// `;`, with or without a byte order mark, which the reader takes away. Tells every line that is wrong, up to
/// [`ERRORS_TOLD`].
pub fn read_tickets(file: &[u8], most: usize) -> Result<Vec<TicketRow>, Error> {
    check_utf8(file)?;
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter(file)).trim(csv::Trim::All).flexible(true).from_reader(file);
    let columns = read_columns(reader.headers().map_err(unreadable)?)?;

    let mut rows = Vec::new();
    let mut errors = Vec::new();
    let mut seen = HashMap::new();
    let mut addresses = HashMap::new();
    let mut lines = Lines { file, counted: 0, line: 1 };
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let line = lines.of(&record);
        if rows.len() == most {
            return Err(Error::InvalidPayload(vec![FieldError::line(line, Fault::TooManyTickets { most })]));
        }
        match read_row(&record, &columns, line) {
            Ok(row) => match seen.insert((row.seat.clone(), row.gate.clone()), line) {
                Some(first) => errors.push(FieldError::line(line, Fault::SeatTwice { line: first })),
                None if !agrees(&row, &mut addresses) => errors.push(FieldError::line(line, Fault::PersonDiffers)),
                None => rows.push(row),
            },
            Err(error) => errors.push(error),
        }
        if errors.len() == ERRORS_TOLD {
            break;
        }
    }
    if rows.is_empty() && errors.is_empty() {
        errors.push(FieldError::line(1, Fault::NoTickets));
    }
    if errors.is_empty() { Ok(rows) } else { Err(Error::InvalidPayload(errors)) }
}

/// Whether no earlier line gives the person of this row another address. `addresses` has those of the lines so far.
fn agrees(row: &TicketRow, addresses: &mut HashMap<String, String>) -> bool {
    let Some(NewUser { username, email: Some(email), .. }) = &row.holder else { return true };
    let known = addresses.entry(username.to_ascii_lowercase()).or_insert_with(|| email.clone());
    known.eq_ignore_ascii_case(email)
}

fn check_utf8(file: &[u8]) -> Result<(), Error> {
    std::str::from_utf8(file).map(drop).map_err(|error| {
        let breaks = file[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        Error::InvalidPayload(vec![FieldError::line(1 + breaks as u64, Fault::NotUtf8)])
    })
}

fn delimiter(file: &[u8]) -> u8 {
    let header = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
    if header.contains(&b';') && !header.contains(&b',') { b';' } else { b',' }
}

/// Finds the lines of records, one after the other. The reader's own count is behind: where it says that a record
/// begins, there may be the rest of a line break yet, and empty lines.
struct Lines<'a> {
    file: &'a [u8],
    counted: usize,
    line: u64,
}

impl Lines<'_> {
    fn of(&mut self, record: &csv::StringRecord) -> u64 {
        let reached = record.position().map_or(self.counted, |position| position.byte() as usize);
        let breaks = self.file[reached..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let passed = &self.file[self.counted..reached + breaks];
        self.counted = reached + breaks;
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count() as u64;
        self.line
    }
}

fn unreadable(error: csv::Error) -> Error {
    let line = error.position().map_or(0, csv::Position::line);
    Error::InvalidPayload(vec![FieldError::line(line, Fault::NotCsv)])
}

/// The names of the columns in lower case, if they are those of an [`ImportLine`]. It is serde that says so: the header is
/// read as if it were a line under itself.
fn read_columns(header: &StringRecord) -> Result<StringRecord, Error> {
    let columns: StringRecord = header.iter().map(str::to_ascii_lowercase).collect();
    let Err(error) = columns.deserialize::<ImportLine>(Some(&columns)) else { return Ok(columns) };
    let words = match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.kind().to_string(),
        other => format!("{other:?}"),
    };
    let told = Fault::of_serde(&words);
    let column = told.field.unwrap_or_default().to_owned();
    let fault = match told.fault {
        Fault::Required => Fault::ColumnMissing { column },
        Fault::GivenTwice => Fault::ColumnTwice { column },
        Fault::Unknown { known } => Fault::UnknownColumn { known },
        other => other,
    };
    Err(Error::InvalidPayload(vec![FieldError::line(1, fault)]))
}

fn read_row(record: &StringRecord, columns: &StringRecord, line: u64) -> Result<TicketRow, FieldError> {
    let (expected, found) = (columns.len(), record.len());
    if found != expected {
        return Err(FieldError::line(line, Fault::WrongFieldCount { expected, found }));
    }
    let told: ImportLine = record.deserialize(Some(columns)).map_err(|_| FieldError::line(line, Fault::Unreadable))?;
    let seat: Place = checked(told.seat, "seat", line)?;
    let gate: Place = checked(told.gate, "gate", line)?;
    let full_name: Option<Text<NAME>> = told.full_name.map(|text| checked(text, "full_name", line)).transpose()?;
    let email: Option<Email> = told.email.map(|text| checked(text, "email", line)).transpose()?;
    let holder = match told.username {
        Some(username) => Some(NewUser {
            username: checked::<Username>(username, "username", line)?.as_str().to_owned(),
            full_name: full_name.map(|name| name.0),
            email: email.map(|email| email.0),
        }),
        None if full_name.is_some() || email.is_some() => {
            return Err(FieldError::line(line, Fault::UsernameMissing));
        }
        None => None,
    };
    Ok(TicketRow { line, seat, gate, holder })
}

fn checked<T: TryFrom<String, Error = Fault>>(text: &str, column: &'static str, line: u64) -> Result<T, FieldError> {
    T::try_from(text.to_owned()).map_err(|fault| FieldError::column(line, column, fault))
}

/// A line of `tickets.csv`.
#[derive(Default, Serialize)]
pub struct TicketLine<'a> {
    ticket_id: Uuid,
    seat: Harmless<'a>,
    gate: Harmless<'a>,
    status: &'a str,
    username: Option<Harmless<'a>>,
    full_name: Option<Harmless<'a>>,
    email: Option<Harmless<'a>>,
    inside: bool,
    created_at: Millis,
    registered_at: Option<Millis>,
    used_at: Option<Millis>,
}

impl<'a> TicketLine<'a> {
    /// `bound_to` is the event that the key of whoever reads it is bound to.
    pub fn new(ticket: &'a Ticket, bound_to: Option<Uuid>) -> Self {
        Self {
            ticket_id: ticket.ticket_id,
            seat: Harmless(&ticket.seat),
            gate: Harmless(&ticket.gate),
            status: ticket.status.as_str(),
            username: ticket.username.as_deref().map(Harmless),
            full_name: ticket.full_name.as_deref().map(Harmless),
            email: ticket.address.told_to(bound_to).map(Harmless),
            inside: ticket.inside,
            created_at: ticket.created_at,
            registered_at: ticket.registered_at,
            used_at: ticket.used_at,
        }
    }
}

/// A line of `links.csv`.
#[derive(Default, Serialize)]
pub struct LinkLine<'a> {
    seat: Harmless<'a>,
    gate: Harmless<'a>,
    username: Option<Harmless<'a>>,
    full_name: Option<Harmless<'a>>,
    email: Option<Harmless<'a>>,
    ticket_url: String,
}

impl<'a> LinkLine<'a> {
    /// `bound_to` is the event that the key of whoever reads it is bound to.
    pub fn new(ticket: &'a Ticket, ticket_url: String, bound_to: Option<Uuid>) -> Self {
        Self {
            seat: Harmless(&ticket.seat),
            gate: Harmless(&ticket.gate),
            username: ticket.username.as_deref().map(Harmless),
            full_name: ticket.full_name.as_deref().map(Harmless),
            email: ticket.address.told_to(bound_to).map(Harmless),
            ticket_url,
        }
    }
}

/// A line of `scans.csv`.
#[derive(Default, Serialize)]
pub struct ScanLine<'a> {
    scan_id: Uuid,
    ticket_id: Option<Uuid>,
    seat: Option<Harmless<'a>>,
    gate: Option<Harmless<'a>>,
    at_gate: Option<Harmless<'a>>,
    direction: &'a str,
    result: &'a str,
    offline_result: Option<&'a str>,
    manual: bool,
    note: Option<Harmless<'a>>,
    scanned_at: Millis,
    received_at: Millis,
    key_id: Option<Uuid>,
    undone_at: Option<Millis>,
    undone_by: Option<Uuid>,
}

impl<'a> ScanLine<'a> {
    /// `place` is the seat and the gate of its ticket.
    pub fn new(scan: &'a Scan, place: Option<&'a (String, String)>) -> Self {
        Self {
            scan_id: scan.scan_id,
            ticket_id: scan.ticket_id,
            seat: place.map(|(seat, _)| Harmless(seat)),
            gate: place.map(|(_, gate)| Harmless(gate)),
            at_gate: scan.at_gate.as_deref().map(Harmless),
            direction: scan.direction.as_str(),
            result: scan.result.as_str(),
            offline_result: scan.offline_result.map(ScanResult::as_str),
            manual: scan.manual,
            note: scan.note.as_deref().map(Harmless),
            scanned_at: scan.scanned_at,
            received_at: scan.received_at,
            key_id: scan.key_id,
            undone_at: scan.undone_at,
            undone_by: scan.undone_by,
        }
    }
}

/// A line of `actions.csv`.
#[derive(Default, Serialize)]
pub struct ActionLine<'a> {
    action_id: Uuid,
    at: Millis,
    action: &'a str,
    key_id: Option<Uuid>,
    key_name: Option<Harmless<'a>>,
    event: Option<&'a str>,
    ticket_id: Option<Uuid>,
    subject_id: Option<Uuid>,
    count: Option<i64>,
}

impl<'a> ActionLine<'a> {
    pub fn new(action: &'a ListedAction) -> Self {
        Self {
            action_id: action.action_id,
            at: action.at,
            action: action.action.as_str(),
            key_id: action.key_id,
            key_name: action.key_name.as_deref().map(Harmless),
            event: action.event.as_deref(),
            ticket_id: action.ticket_id,
            subject_id: action.subject_id,
            count: action.count,
        }
    }
}

/// A text that a person wrote. What a spreadsheet would run as a formula gets an apostrophe before it, which the spreadsheet
/// shows as text: at the start, and wherever a spreadsheet of another language may begin a cell. One that splits at `;` takes
/// the whole line up to the first `;` for one cell, and our quotes within it for text.
#[derive(Clone, Copy, Default)]
struct Harmless<'a>(&'a str);

/// What begins a formula, also as East Asian keyboards write it.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// After what a cell may begin: the separators of all languages, line breaks, and the quotes around a cell.
const SEPARATORS: [char; 9] = [',', ';', '\t', '|', '،', '؛', '\r', '\n', '"'];

/// What spreadsheets pass over at the start of a cell.
fn is_passed_over(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

impl Serialize for Harmless<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.0.contains(FORMULA) && !self.0.starts_with(['\t', '\r', '\n']) {
            return serializer.serialize_str(self.0);
        }
        let mut harmless = String::with_capacity(self.0.len() + 1);
        // A tab or a line break at the start is taken away by some, and with it what we know of the rest.
        if self.0.starts_with(['\t', '\r', '\n']) {
            harmless.push('\'');
        }
        let mut may_begin = true;
        for character in self.0.chars() {
            if may_begin && FORMULA.contains(&character) {
                harmless.push('\'');
            }
            may_begin = SEPARATORS.contains(&character) || (may_begin && is_passed_over(character));
            harmless.push(character);
        }
        serializer.serialize_str(&harmless)
    }
}

/// Writes CSV into a buffer that is taken away piece by piece.
pub struct Writer(csv::Writer<Vec<u8>>);

impl Writer {
    /// Begins with the header of these lines, which is there also where no line follows.
    pub fn new<Line: Default + Serialize>() -> Self {
        let mut sample = quoting().from_writer(Vec::new());
        // Writing to a vector cannot fail.
        let _ = sample.serialize(Line::default());
        let written = sample.into_inner().unwrap_or_default();
        let header = written.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
        Self(after(header.to_vec()))
    }

    pub fn line(&mut self, line: &impl Serialize) -> Result<(), Error> {
        self.0.serialize(line).map_err(failed)
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Result<Bytes, Error> {
        let full = std::mem::replace(&mut self.0, after(Vec::new()));
        Ok(full.into_inner().map_err(failed)?.into())
    }
}

/// Writes after what is there, with no header of its own.
fn after(written: Vec<u8>) -> csv::Writer<Vec<u8>> {
    quoting().has_headers(false).from_writer(written)
}

/// With every field in quotes, so that what is in one stays in one.
fn quoting() -> csv::WriterBuilder {
    let mut builder = csv::WriterBuilder::new();
    builder.quote_style(csv::QuoteStyle::Always);
    builder
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Internal(format!("csv: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::model::{Address, Direction, Seed, Status};

    /// Line, seat, gate and username.
    type Row = (u64, String, String, Option<String>);

    /// Every row, or the errors as `field: message`.
    fn read(file: impl AsRef<[u8]>) -> Result<Vec<Row>, Vec<String>> {
        match read_tickets(file.as_ref(), usize::MAX) {
            Ok(rows) => Ok(rows.into_iter().map(plain).collect()),
            Err(error) => {
                Err(error.errors().iter().map(|error| format!("{}: {}", error.field, error.message())).collect())
            }
        }
    }

    fn plain(row: TicketRow) -> Row {
        (row.line, row.seat.into_string(), row.gate.into_string(), row.holder.map(|holder| holder.username))
    }

    #[test]
    fn every_usual_form_of_a_file_is_read() {
        let rows = Ok(vec![(2, "A1".into(), "North".into(), None), (3, "A2".into(), "South".into(), None)]);
        for file in [
            "seat,gate\nA1,North\nA2,South\n",
            "seat,gate\nA1,North\nA2,South",
            "seat,gate\r\nA1,North\r\nA2,South\r\n",
            "seat;gate\nA1;North\nA2;South\n",
            "\u{feff}seat,gate\nA1,North\nA2,South\n",
            "\u{feff}seat;gate\r\nA1;North\r\nA2;South",
            "gate,seat\nNorth,A1\nSouth,A2\n",
            " Seat , GATE \n A1 ,\tNorth\n A2 , South \n",
            "\"seat\",\"gate\"\n\"A1\",\"North\"\n\"A2\",South\n",
            "seat,gate,username\nA1,North,\nA2,South,\"\"\n",
            "seat,gate\nA1,North\nA2,South\n\n\r\n",
        ] {
            assert_eq!(read(file), rows, "{file:?}");
        }
    }

    #[test]
    fn a_holder_may_come_with_the_ticket() {
        let file =
            "email,seat,full_name,gate,username\nana@example.org,A1,\"Roe, \"\"Ana\"\"\",North,ana\n,A2,,North,bo\n";
        let rows = read_tickets(file.as_bytes(), usize::MAX).unwrap();
        let holder = rows[0].holder.as_ref().unwrap();
        assert_eq!(holder.username, "ana");
        assert_eq!(holder.full_name.as_deref(), Some("Roe, \"Ana\""));
        assert_eq!(holder.email.as_deref(), Some("ana@example.org"));
        let holder = rows[1].holder.as_ref().unwrap();
        assert_eq!(holder.username, "bo");
        assert_eq!(holder.full_name, None);
        assert_eq!(holder.email, None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        const EMPTY: &str = "must not be empty";
        const CHARACTERS: &str = "must have no control characters";
        for (file, errors) in [
            ("", &["line 1: must name the column seat"][..]),
            ("\u{feff}", &["line 1: must name the column seat"]),
            ("seat,gate", &["line 1: must hold at least one ticket"]),
            ("seat,gate\r\n\r\n", &["line 1: must hold at least one ticket"]),
            ("seat\nA1\n", &["line 1: must name the column gate"]),
            ("Gate,username\nNorth,ana\n", &["line 1: must name the column seat"]),
            ("seat,gate,row\n", &["line 1: has a column that is not one of seat, gate, username, full_name, email"]),
            ("seat,gate,\n", &["line 1: has a column that is not one of seat, gate, username, full_name, email"]),
            ("seat,gate,Seat\n", &["line 1: names the column seat twice"]),
            (
                "seat,gate\nA1\nA2,North,x\n",
                &[
                    "line 2: must have 2 fields, as the header has, not 1",
                    "line 3: must have 2 fields, as the header has, not 3",
                ],
            ),
            ("seat,gate\nA1,North\nA2,North\nA1,North\n", &["line 4: names the same seat and gate as line 2"]),
            ("seat,gate,full_name\nA1,North,Ana\n", &["line 2: has a full_name or email but no username"]),
            ("seat,gate,email\nA1,North,a@example.org\n", &["line 2: has a full_name or email but no username"]),
            ("seat,gate,username\nA1,North,Attendance\n", &["line 2: username is a reserved name"]),
            (
                "seat,gate,username,email\nA1,North,ana,nowhere\n",
                &["line 2: email must be an e-mail address of at most 254 characters"],
            ),
            ("seat,gate\n\"A\0\",North\n", &[&format!("line 2: seat {CHARACTERS}")]),
            // The lines of the file, as an editor counts them, whatever the line breaks and the fields contain.
            ("seat,gate\r\nA1,North\r\n,North\r\n", &[&format!("line 3: seat {EMPTY}")]),
            ("seat,gate\n\n\nA1,North\n\r\n\n,North\n", &[&format!("line 7: seat {EMPTY}")]),
            (
                "seat,gate\n\"A\n1\",North\r\n\"A\r\n2\",North\n,North\n",
                &[
                    &format!("line 2: seat {CHARACTERS}"),
                    &format!("line 4: seat {CHARACTERS}"),
                    &format!("line 6: seat {EMPTY}"),
                ],
            ),
            (
                "\u{feff}seat;gate;username\r\nA1;North;\"an\r\na\"\r\nA2;;\r\n",
                &[
                    "line 2: username must have 1 to 64 of the characters A-Z a-z 0-9 . _ @ + -",
                    &format!("line 4: gate {EMPTY}"),
                ],
            ),
        ] {
            assert_eq!(read(file), Err(errors.iter().map(ToString::to_string).collect()), "{file:?}");
        }
        assert_eq!(read(b"seat,gate\nA1,North\nA\xff,North\n"), Err(vec!["line 3: is not UTF-8".into()]));
        let utf16: Vec<u8> = "\u{feff}seat,gate\nA1,North\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(read(utf16), Err(vec!["line 1: is not UTF-8".into()]));
    }

    /// What is told in JSON: the line, the code and its params.
    fn told(file: &str, most: usize) -> serde_json::Value {
        let Err(error) = read_tickets(file.as_bytes(), most) else { panic!("{file:?} has nothing wrong") };
        let mut told = serde_json::to_value(error.errors()).unwrap();
        for error in told.as_array_mut().unwrap() {
            error.as_object_mut().unwrap().remove("message");
        }
        told
    }

    #[test]
    fn a_line_is_refused_by_a_code_with_its_column() {
        let long = "n".repeat(65);
        let columns = ["seat", "gate", "username", "full_name", "email"];
        for (file, line, code, params) in [
            ("seat,gate\n,North\n", 2, "empty", json!({ "column": "seat" })),
            (&format!("seat,gate\nA1,{long}\n"), 2, "too_long", json!({ "column": "gate", "most": 64 })),
            ("seat,gate\n\nA1,\"a\nb\"\n", 3, "bad_characters", json!({ "column": "gate" })),
            ("seat,gate,username\nA1,N,a b\n", 2, "not_a_username", json!({ "column": "username", "most": 64 })),
            ("seat,gate,username\nA1,N,attendance\n", 2, "reserved", json!({ "column": "username" })),
            ("seat,gate,username,email\nA1,N,a,b\n", 2, "not_an_email", json!({ "column": "email", "most": 254 })),
            ("seat,gate,email\nA1,N,a@b\n", 2, "username_missing", json!({})),
            ("seat,gate\nA1,N\nA2,N\nA1,N\n", 4, "seat_twice", json!({ "line": 2 })),
            ("seat,gate\nA1,N\nA2,N\nA3,N\nA4,N\n", 5, "too_many_tickets", json!({ "most": 3 })),
            ("seat,gate\nA1\n", 2, "wrong_field_count", json!({ "expected": 2, "found": 1 })),
            ("seat,gate,row\n", 1, "unknown_column", json!({ "known": columns })),
            ("gate,GATE\n", 1, "column_twice", json!({ "column": "gate" })),
            ("gate\n", 1, "column_missing", json!({ "column": "seat" })),
            ("seat,gate\n", 1, "no_tickets", json!({})),
        ] {
            let expected = json!([{ "field": format!("line {line}"), "code": code, "params": params }]);
            assert_eq!(told(file, 3), expected, "{file:?}");
        }
    }

    #[test]
    fn so_many_errors_are_told_and_no_more() {
        let file = format!("seat,gate\n{}", ",North\n".repeat(ERRORS_TOLD + 50));
        let errors = read(file).unwrap_err();
        assert_eq!(errors.len(), ERRORS_TOLD);
        assert!(errors[ERRORS_TOLD - 1].starts_with(&format!("line {}: ", ERRORS_TOLD + 1)));
    }

    #[test]
    fn no_error_repeats_a_field_of_the_file() {
        let file = "seat,gate,username,full_name,email\nS3CRET\x07,G,,,\nS,S3CRET\x07,,,\nS,G,S3CRET!,,\nS,G,u,S3CRET\x07,\nS,G,u,,S3CRET\n";
        let errors = read(file).unwrap_err();
        assert_eq!(errors.len(), 5);
        assert!(!errors.concat().contains("S3CRET"), "{errors:?}");
    }

    fn ticket(seat: &str, gate: &str, full_name: &str) -> Ticket {
        Ticket {
            ticket_id: Uuid::from_u128(1),
            event_id: Uuid::from_u128(2),
            event: "default".into(),
            user_id: Some(Uuid::from_u128(3)),
            seat: seat.into(),
            gate: gate.into(),
            seed: Seed([0; 20]),
            status: Status::Used,
            username: Some("-ana".into()),
            holder_event: None,
            full_name: Some(full_name.into()),
            address: Address::default(),
            inside: true,
            last_step: None,
            version: 1,
            created_at: Millis(0),
            registered_at: Some(Millis(1)),
            used_at: None,
            printed_at: None,
            seeded_at: None,
        }
    }

    /// A text as a list of words.
    fn words(text: &str) -> Vec<&str> {
        text.split(|character: char| !character.is_alphanumeric() && character != '_').collect()
    }

    #[test]
    fn the_columns_of_an_import_are_told_as_they_are() {
        let refused = read_columns(&StringRecord::from(vec!["nonsense"])).unwrap_err();
        let known = json!(refused.errors())[0]["params"]["known"].clone();
        let known: Vec<&str> = known.as_array().unwrap().iter().filter_map(|column| column.as_str()).collect();
        let list = format!("const COLUMNS = [\"{}\"];", known.join("\", \""));
        assert!(include_str!("pages/organizer/import.js").contains(&list), "organizer/import.js lacks {list}");
        let header = format!("{}\n", known.join(","));
        for (file, text) in [
            ("organizer.html", include_str!("pages/organizer/organizer.html")),
            ("tickets.toml", include_str!("openapi/tickets.toml")),
        ] {
            assert!(text.contains(&header), "{file} has no example with the columns {header}");
        }
        for (file, text) in [
            ("openapi/tickets.toml", include_str!("openapi/tickets.toml").split("csv = ").next().unwrap()),
            ("commands/import.rs", include_str!("commands/import.rs").split("pub struct").nth(1).unwrap()),
            ("docs/api.md", include_str!("../docs/api.md").split("## Issuing tickets").nth(1).unwrap()),
        ] {
            let words = words(text);
            for column in &known {
                assert!(words.contains(column), "{file} does not name the column {column}");
            }
        }
    }

    #[test]
    fn the_columns_of_each_export_are_described_as_they_are() {
        fn header<Line: Default + Serialize>() -> String {
            written(&Line::default())[0].join(",")
        }
        let described = include_str!("openapi/exports.toml");
        for header in [header::<TicketLine>(), header::<ScanLine>(), header::<LinkLine>(), header::<ActionLine>()] {
            assert!(described.contains(&format!("`{header}`")), "openapi/exports.toml lacks {header}");
        }
    }

    /// The records of what was written, with the header as the first.
    fn written<Line: Default + Serialize>(line: &Line) -> Vec<Vec<String>> {
        let mut writer = Writer::new::<Line>();
        writer.line(line).unwrap();
        let bytes = writer.take().unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes.as_ref());
        reader.records().map(|record| record.unwrap().iter().map(ToOwned::to_owned).collect()).collect()
    }

    #[test]
    fn a_ticket_is_one_record_under_its_header() {
        let records = written(&TicketLine::new(&ticket("A,\"1\"", "North\n", "=1+1"), None));
        let header = "ticket_id,seat,gate,status,username,full_name,email,inside,created_at,registered_at,used_at";
        assert_eq!(records[0].join(","), header);
        assert_eq!(
            records[1],
            [
                "00000000-0000-0000-0000-000000000001",
                "A,\"1\"",
                "North\n",
                "used",
                "'-ana",
                "'=1+1",
                "",
                "true",
                "1970-01-01T00:00:00.000Z",
                "1970-01-01T00:00:00.001Z",
                "",
            ]
        );
    }

    #[test]
    fn a_formula_gets_an_apostrophe_wherever_a_cell_may_begin() {
        for (text, harmless) in [
            ("=1+1", "'=1+1"),
            ("-1", "'-1"),
            ("＝1", "'＝1"),
            ("A;=1", "A;'=1"),
            ("A,+1", "A,'+1"),
            ("A\t@x", "A\t'@x"),
            ("A|-1", "A|'-1"),
            ("A\r\n=1", "A\r\n'=1"),
            ("A\"=1", "A\"'=1"),
            (" =1", " '=1"),
            ("A; \u{a0}\"=1", "A; \u{a0}\"'=1"),
            ("\u{feff}=1", "\u{feff}'=1"),
            ("\tA", "'\tA"),
            ("\rA", "'\rA"),
            // Names as they are.
            ("1-1", "1-1"),
            ("Ruiz-Roe, Ana", "Ruiz-Roe, Ana"),
            ("ana@example.org; luis@example.org", "ana@example.org; luis@example.org"),
            ("'=1", "'=1"),
        ] {
            let records = written(&TicketLine::new(&ticket(text, "North", "Ana"), None));
            assert_eq!(records[1][1], harmless, "{text:?}");
        }
    }

    #[test]
    fn every_field_is_in_quotes() {
        let mut writer = Writer::new::<LinkLine>();
        writer.line(&LinkLine::new(&ticket("A1", "No\"rth", "Ana"), "https://t.example.org/t/x".into(), None)).unwrap();
        let expected = "\"seat\",\"gate\",\"username\",\"full_name\",\"email\",\"ticket_url\"\n\
                        \"A1\",\"No\"\"rth\",\"'-ana\",\"Ana\",\"\",\"https://t.example.org/t/x\"\n";
        assert_eq!(writer.take().unwrap(), expected);
    }

    #[test]
    fn a_link_is_one_record_under_its_header() {
        let url = "https://tickets.example.org/t/x".to_owned();
        let records = written(&LinkLine::new(&ticket("@A1", "-N", "+1"), url.clone(), None));
        assert_eq!(records[0].join(","), "seat,gate,username,full_name,email,ticket_url");
        assert_eq!(records[1], ["'@A1", "'-N", "'-ana", "'+1", "", &url]);
    }

    #[test]
    fn a_scan_is_one_record_under_its_header() {
        let scan = Scan {
            scan_id: Uuid::from_u128(1),
            event_id: Uuid::from_u128(2),
            ticket_id: Some(Uuid::from_u128(3)),
            presented: None,
            at_gate: Some("+North".into()),
            direction: Direction::Entry,
            result: ScanResult::Accepted,
            offline_result: Some(ScanResult::WrongCode),
            manual: true,
            note: Some("@desk".into()),
            seconds_off: None,
            first_used_at: None,
            first_used_gate: None,
            scanned_at: Millis(1),
            received_at: Millis(2),
            decided_at: Millis(2),
            key_id: None,
            undone_at: Some(Millis(3)),
            undone_by: Some(Uuid::from_u128(4)),
        };
        let place = ("=A1".to_owned(), "North".to_owned());
        let records = written(&ScanLine::new(&scan, Some(&place)));
        let header = "scan_id,ticket_id,seat,gate,at_gate,direction,result,offline_result,manual,note,scanned_at,\
                      received_at,key_id,undone_at,undone_by";
        assert_eq!(records[0].join(","), header);
        assert_eq!(
            records[1],
            [
                "00000000-0000-0000-0000-000000000001",
                "00000000-0000-0000-0000-000000000003",
                "'=A1",
                "North",
                "'+North",
                "entry",
                "accepted",
                "wrong_code",
                "true",
                "'@desk",
                "1970-01-01T00:00:00.001Z",
                "1970-01-01T00:00:00.002Z",
                "",
                "1970-01-01T00:00:00.003Z",
                "00000000-0000-0000-0000-000000000004",
            ]
        );
    }

    #[test]
    fn what_was_taken_is_not_written_again() {
        let mut writer = Writer::new::<TicketLine>();
        let header = writer.take().unwrap();
        assert!(
            header.starts_with(b"\"ticket_id\",\"seat\",\"gate\",") && header.ends_with(b",\"used_at\"\n"),
            "{header:?}"
        );
        assert!(writer.take().unwrap().is_empty());
        writer.line(&TicketLine::new(&ticket("A1", "North", "Ana"), None)).unwrap();
        assert!(writer.take().unwrap().starts_with(b"\"00000000-0000-0000-0000-000000000001\",\"A1\",\"North\","));
    }

    proptest! {
        #[test]
        fn reading_never_panics(file: Vec<u8>) {
            let _ = read_tickets(&file, usize::MAX);
        }

        #[test]
        fn reading_what_looks_like_a_sheet_never_panics(lines in "(\u{feff})?seat[,;]gate(\r?\n[\"',;A1é\r\n \0=]{0,12}){0,8}") {
            let count = lines.bytes().filter(|&byte| byte == b'\n').count() as u64;
            match read_tickets(lines.as_bytes(), usize::MAX) {
                Ok(rows) => prop_assert!(rows.iter().all(|row| (2..=count + 1).contains(&row.line))),
                Err(error) => prop_assert!(!error.errors().is_empty()),
            }
        }

        #[test]
        fn in_no_language_does_a_cell_begin_with_a_formula(text in "[=+@＝,;|\t\r\n\"'،\u{feff}\u{3000}a -]{0,10}") {
            let mut writer = Writer::new::<TicketLine>();
            writer.line(&TicketLine::new(&ticket(&text, "North", "Ana"), None)).unwrap();
            let file = writer.take().unwrap();
            let file = std::str::from_utf8(&file).unwrap();
            for separator in SEPARATORS {
                for cell in file.split(separator) {
                    let cell = cell.trim_start_matches(|character| character == '"' || is_passed_over(character));
                    prop_assert!(!cell.starts_with(FORMULA), "{separator:?}: {cell:?}");
                }
            }
            // Nothing but apostrophes is added.
            let records = written(&TicketLine::new(&ticket(&text, "North", "Ana"), None));
            prop_assert_eq!(records[1][1].replace('\'', ""), text.replace('\'', ""));
        }

        #[test]
        fn what_no_spreadsheet_would_run_stays_as_it_is(text in prop_oneof![
            // No formula, or nothing after which a cell may begin.
            "[^=+@＝＋－＠\\pC-]{0,12}",
            "[^=+@＝＋－＠\\pC\\s,;|،؛\"-][^\\pC,;|،؛\"]{0,12}",
        ]) {
            let records = written(&TicketLine::new(&ticket(&text, "North", "Ana"), None));
            prop_assert_eq!(&records[1][1], &text);
        }

        #[test]
        fn what_is_written_is_read_again(seat in "[^=+@\\pC\\s-](\\PC{0,20}[^\\pC\\s])?", gate in "[^=+@\\pC\\s-](\\PC{0,20}[^\\pC\\s])?") {
            let records = written(&TicketLine::new(&ticket(&seat, &gate, "Ana"), None));
            let mut writer = quoting().from_writer(Vec::new());
            writer.write_record(["seat", "gate"]).unwrap();
            writer.write_record(&records[1][1..3]).unwrap();
            let rows = read(writer.into_inner().unwrap());
            prop_assert_eq!(rows, Ok(vec![(2, crate::fold::tidy(&records[1][1]), crate::fold::tidy(&records[1][2]), None)]));
        }
    }
}
