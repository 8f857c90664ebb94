//! CSV (RFC 4180), in and out.

use std::collections::HashMap;

use bytes::Bytes;

use crate::error::{Error, FieldError};
use crate::model::{Email, Place, Scan, Text, Ticket, Username};
use crate::store::NewUser;

/// Errors of one file that are told at most: enough to see what is wrong, short enough to read.
pub const ERRORS_TOLD: usize = 100;

/// One line of an imported file.
#[derive(Clone)]
pub struct TicketRow {
    /// Counted from 1, the header included, as an editor shows it.
    pub line: u64,
    pub seat: Place,
    pub gate: Place,
    pub holder: Option<NewUser>,
}

const COLUMNS: [&str; 5] = ["seat", "gate", "username", "full_name", "email"];

/// Reads `seat,gate[,username,full_name,email]`, columns in any order, separated by `,` or `;`, with or without a byte
/// order mark. Tells every line that is wrong, up to [`ERRORS_TOLD`].
pub fn read_tickets(file: &[u8]) -> Result<Vec<TicketRow>, Error> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    if let Err(error) = std::str::from_utf8(file) {
        let line = 1 + file[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        return Err(Error::field(format!("line {line}"), "is not UTF-8"));
    }
    let header = file.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let delimiter = if header.contains(&b';') && !header.contains(&b',') { b';' } else { b',' };
    let mut reader =
        csv::ReaderBuilder::new().delimiter(delimiter).trim(csv::Trim::All).flexible(true).from_reader(file);
    let places = column_places(reader.headers().map_err(unreadable)?)?;

    let mut rows = Vec::new();
    let mut errors = Vec::new();
    let mut seen = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let line = record.position().map_or(0, |position| line_of(file, position));
        match read_row(&record, &places, line) {
            Ok(row) => match seen.insert((row.seat.clone(), row.gate.clone()), line) {
                Some(first) => errors.push(wrong(line, format!("names the same seat and gate as line {first}"))),
                None => rows.push(row),
            },
            Err(error) => errors.push(error),
        }
        if errors.len() == ERRORS_TOLD {
            break;
        }
    }
    if !errors.is_empty() {
        return Err(Error::InvalidPayload(errors));
    }
    if rows.is_empty() {
        return Err(Error::field("line 1", "is followed by no tickets"));
    }
    Ok(rows)
}

/// The line of a record. Its position lies before the line feed of a CRLF, and before blank lines, which are skipped.
fn line_of(file: &[u8], position: &csv::Position) -> u64 {
    let rest = usize::try_from(position.byte()).ok().and_then(|start| file.get(start..)).unwrap_or_default();
    let skipped = rest.iter().take_while(|byte| b"\r\n".contains(byte)).filter(|&&byte| byte == b'\n').count();
    position.line() + skipped as u64
}

fn wrong(line: u64, message: impl Into<String>) -> FieldError {
    FieldError::new(format!("line {line}"), message)
}

fn unreadable(error: csv::Error) -> Error {
    let line = error.position().map_or(0, csv::Position::line);
    Error::InvalidPayload(vec![wrong(line, "cannot be read as CSV")])
}

/// Where in a record each of [`COLUMNS`] is.
type Places = [Option<usize>; COLUMNS.len()];

fn column_places(header: &csv::StringRecord) -> Result<Places, Error> {
    let mut places = Places::default();
    for (place, name) in header.iter().enumerate() {
        let known = COLUMNS.iter().position(|column| column.eq_ignore_ascii_case(name));
        let Some(column) = known else {
            return Err(Error::field("line 1", format!("has a column that is not one of {}", COLUMNS.join(", "))));
        };
        if places[column].replace(place).is_some() {
            return Err(Error::field("line 1", format!("names the column {} twice", COLUMNS[column])));
        }
    }
    match places {
        [Some(_), Some(_), ..] => Ok(places),
        _ => Err(Error::field("line 1", "must name the columns seat and gate")),
    }
}

fn read_row(record: &csv::StringRecord, places: &Places, line: u64) -> Result<TicketRow, FieldError> {
    let columns = places.iter().flatten().count();
    if record.len() != columns {
        return Err(wrong(line, format!("has {} fields where the header has {columns}", record.len())));
    }
    let field = |column: usize| places[column].and_then(|place| record.get(place)).unwrap_or_default();
    let seat = checked::<Place>(field(0), "seat", line)?;
    let gate = checked::<Place>(field(1), "gate", line)?;
    let optional = |column: usize| Some(field(column)).filter(|text| !text.is_empty());
    let full_name = optional(3).map(|text| checked::<Text<200>>(text, "full_name", line)).transpose()?;
    let email = optional(4).map(|text| checked::<Email>(text, "email", line)).transpose()?;
    let holder = match optional(2) {
        Some(username) => Some(NewUser {
            username: checked::<Username>(username, "username", line)?.as_str().to_owned(),
            full_name: full_name.map(|name| name.0),
            email: email.map(|email| email.0),
        }),
        None if full_name.is_some() || email.is_some() => {
            return Err(wrong(line, "has a full_name or email but no username"));
        }
        None => None,
    };
    Ok(TicketRow { line, seat, gate, holder })
}

fn checked<T>(text: &str, column: &str, line: u64) -> Result<T, FieldError>
where
    T: TryFrom<String>,
    T::Error: std::fmt::Display,
{
    T::try_from(text.to_owned()).map_err(|error| wrong(line, format!("{column} {error}")))
}

pub const TICKET_COLUMNS: &[&str] = &[
    "ticket_id",
    "seat",
    "gate",
    "status",
    "username",
    "full_name",
    "email",
    "inside",
    "created_at",
    "registered_at",
    "used_at",
];
pub const SCAN_COLUMNS: &[&str] = &[
    "scan_id",
    "ticket_id",
    "seat",
    "gate",
    "at_gate",
    "direction",
    "result",
    "offline_result",
    "manual",
    "note",
    "scanned_at",
    "received_at",
    "key_id",
    "undone_at",
    "undone_by",
];

/// Writes CSV into a buffer that is taken away piece by piece.
pub struct Writer(csv::Writer<Vec<u8>>);

impl Writer {
    pub fn new(columns: &[&str]) -> Self {
        let mut writer = csv::Writer::from_writer(Vec::new());
        // Writing to a vector cannot fail, and a header is never of another length than itself.
        let _ = writer.write_record(columns);
        Self(writer)
    }

    pub fn ticket(&mut self, ticket: &Ticket) -> Result<(), Error> {
        self.record([
            ticket.ticket_id.to_string(),
            harmless(&ticket.seat),
            harmless(&ticket.gate),
            ticket.status.as_str().to_owned(),
            optional(ticket.username.as_deref()),
            optional(ticket.full_name.as_deref()),
            optional(ticket.email.as_deref()),
            ticket.inside.to_string(),
            ticket.created_at.to_string(),
            shown(ticket.registered_at),
            shown(ticket.used_at),
        ])
    }

    pub fn scan(&mut self, scan: &Scan, place: Option<&(String, String)>) -> Result<(), Error> {
        self.record([
            scan.scan_id.to_string(),
            shown(scan.ticket_id),
            optional(place.map(|(seat, _)| seat.as_str())),
            optional(place.map(|(_, gate)| gate.as_str())),
            optional(scan.at_gate.as_deref()),
            scan.direction.as_str().to_owned(),
            scan.result.as_str().to_owned(),
            optional(scan.offline_result.as_deref()),
            scan.manual.to_string(),
            optional(scan.note.as_deref()),
            scan.scanned_at.to_string(),
            scan.received_at.to_string(),
            shown(scan.key_id),
            shown(scan.undone_at),
            shown(scan.undone_by),
        ])
    }

    fn record<const FIELDS: usize>(&mut self, fields: [String; FIELDS]) -> Result<(), Error> {
        self.0.write_record(fields).map_err(|error| Error::Internal(format!("csv: {error}")))
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Result<Bytes, Error> {
        let columns = csv::WriterBuilder::new().from_writer(Vec::new());
        let full = std::mem::replace(&mut self.0, columns);
        let bytes = full.into_inner().map_err(|error| Error::Internal(format!("csv: {error}")))?;
        Ok(bytes.into())
    }
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn optional(text: Option<&str>) -> String {
    text.map_or_else(String::new, harmless)
}

/// A text that a spreadsheet would run as a formula gets an apostrophe before it, which the spreadsheet shows as text.
fn harmless(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() }
}
