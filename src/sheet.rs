//! CSV (RFC 4180), in and out.

use std::collections::HashMap;

use bytes::Bytes;

use crate::error::{Error, FieldError};
use crate::limits::NAME;
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
/// order mark, which the reader takes away. Tells every line that is wrong, up to [`ERRORS_TOLD`].
pub fn read_tickets(file: &[u8], most: usize) -> Result<Vec<TicketRow>, Error> {
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
    let mut lines = Lines { file, counted: 0, line: 1 };
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let line = lines.of(&record);
        if rows.len() == most {
            return Err(Error::field(
                format!("line {line}"),
                format!("is one ticket too many: at most {most} at once"),
            ));
        }
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
        return Err(wrong(line, format!("must have {columns} fields, as the header has, not {}", record.len())));
    }
    let field = |column: usize| places[column].and_then(|place| record.get(place)).unwrap_or_default();
    let seat = checked::<Place>(field(0), "seat", line)?;
    let gate = checked::<Place>(field(1), "gate", line)?;
    let optional = |column: usize| Some(field(column)).filter(|text| !text.is_empty());
    let full_name = optional(3).map(|text| checked::<Text<NAME>>(text, "full_name", line)).transpose()?;
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
pub const LINK_COLUMNS: &[&str] = &["seat", "gate", "username", "full_name", "email", "ticket_url"];
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

    pub fn link(&mut self, ticket: &Ticket, ticket_url: String) -> Result<(), Error> {
        self.record([
            harmless(&ticket.seat),
            harmless(&ticket.gate),
            optional(ticket.username.as_deref()),
            optional(ticket.full_name.as_deref()),
            optional(ticket.email.as_deref()),
            ticket_url,
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
            scan.offline_result.map_or_else(String::new, |result| result.as_str().to_owned()),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::model::{Direction, Millis, ScanResult, Seed, Status};

    /// Line, seat, gate and username.
    type Row = (u64, String, String, Option<String>);

    /// Every row, or the errors as `field: message`.
    fn read(file: impl AsRef<[u8]>) -> Result<Vec<Row>, Vec<String>> {
        match read_tickets(file.as_ref(), usize::MAX) {
            Ok(rows) => Ok(rows.into_iter().map(plain).collect()),
            Err(error) => {
                Err(error.errors().iter().map(|error| format!("{}: {}", error.field, error.message)).collect())
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
        const PLACE: &str = "must have 1 to 64 characters, no control characters and no space at either end";
        for (file, errors) in [
            ("", &["line 1: must name the columns seat and gate"][..]),
            ("\u{feff}", &["line 1: must name the columns seat and gate"]),
            ("seat,gate", &["line 1: is followed by no tickets"]),
            ("seat,gate\r\n\r\n", &["line 1: is followed by no tickets"]),
            ("seat\nA1\n", &["line 1: must name the columns seat and gate"]),
            ("seat,gate,row\n", &["line 1: has a column that is not one of seat, gate, username, full_name, email"]),
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
            ("seat,gate\n\"A\0\",North\n", &[&format!("line 2: seat {PLACE}")]),
            // The lines of the file, as an editor counts them, whatever the line breaks and the fields contain.
            ("seat,gate\r\nA1,North\r\n,North\r\n", &[&format!("line 3: seat {PLACE}")]),
            ("seat,gate\n\n\nA1,North\n\r\n\n,North\n", &[&format!("line 7: seat {PLACE}")]),
            (
                "seat,gate\n\"A\n1\",North\r\n\"A\r\n2\",North\n,North\n",
                &[&format!("line 2: seat {PLACE}"), &format!("line 4: seat {PLACE}"), &format!("line 6: seat {PLACE}")],
            ),
            (
                "\u{feff}seat;gate;username\r\nA1;North;\"an\r\na\"\r\nA2;;\r\n",
                &[
                    "line 2: username must have 1 to 64 of the characters A-Z a-z 0-9 . _ @ + -",
                    &format!("line 4: gate {PLACE}"),
                ],
            ),
        ] {
            assert_eq!(read(file), Err(errors.iter().map(ToString::to_string).collect()), "{file:?}");
        }
        assert_eq!(read(b"seat,gate\nA1,North\nA\xff,North\n"), Err(vec!["line 3: is not UTF-8".into()]));
        let utf16: Vec<u8> = "\u{feff}seat,gate\nA1,North\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(read(utf16), Err(vec!["line 1: is not UTF-8".into()]));
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
            full_name: Some(full_name.into()),
            email: None,
            inside: true,
            last_step: None,
            version: 1,
            created_at: Millis(0),
            registered_at: Some(Millis(1)),
            used_at: None,
            printed_at: None,
        }
    }

    /// The records of what was written, with the header as the first.
    fn written(write: impl FnOnce(&mut Writer), columns: &[&str]) -> Vec<Vec<String>> {
        let mut writer = Writer::new(columns);
        write(&mut writer);
        let bytes = writer.take().unwrap();
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes.as_ref());
        reader.records().map(|record| record.unwrap().iter().map(ToOwned::to_owned).collect()).collect()
    }

    #[test]
    fn a_ticket_is_one_record_under_its_header() {
        let records = written(|writer| writer.ticket(&ticket("A,\"1\"", "North\n", "=1+1")).unwrap(), TICKET_COLUMNS);
        assert_eq!(records[0], TICKET_COLUMNS);
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
    fn a_link_is_one_record_under_its_header() {
        let url = "https://tickets.example.org/t/x".to_owned();
        let records = written(|writer| writer.link(&ticket("@A1", "-N", "+1"), url.clone()).unwrap(), LINK_COLUMNS);
        assert_eq!(records[0], LINK_COLUMNS);
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
        let records = written(|writer| writer.scan(&scan, Some(&place)).unwrap(), SCAN_COLUMNS);
        assert_eq!(records[0], SCAN_COLUMNS);
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
        let mut writer = Writer::new(TICKET_COLUMNS);
        assert!(writer.take().unwrap().starts_with(b"ticket_id,seat,gate,"));
        assert!(writer.take().unwrap().is_empty());
        writer.ticket(&ticket("A1", "North", "Ana")).unwrap();
        assert!(writer.take().unwrap().starts_with(b"00000000-0000-0000-0000-000000000001,A1,North,"));
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
        fn exactly_what_a_spreadsheet_would_run_gets_an_apostrophe(text in "[=+@\t\ra'\" -]?\\PC{0,8}") {
            let dangerous = text.bytes().next().is_some_and(|first| b"=+-@\t\r".contains(&first));
            let expected = if dangerous { format!("'{text}") } else { text.clone() };
            let records = written(|writer| writer.ticket(&ticket(&text, "North", "Ana")).unwrap(), TICKET_COLUMNS);
            prop_assert_eq!(&records[1][1], &expected);
        }

        #[test]
        fn what_is_written_is_read_again(seat in "[^=+@\\pC\\s-](\\PC{0,20}[^\\pC\\s])?", gate in "[^=+@\\pC\\s-](\\PC{0,20}[^\\pC\\s])?") {
            let records = written(|writer| writer.ticket(&ticket(&seat, &gate, "Ana")).unwrap(), TICKET_COLUMNS);
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["seat", "gate"]).unwrap();
            writer.write_record(&records[1][1..3]).unwrap();
            let rows = read(writer.into_inner().unwrap());
            prop_assert_eq!(rows, Ok(vec![(2, seat, gate, None)]));
        }
    }
}
