//! Lists, out and in. Out: CSV (RFC 4180) with a byte order mark, where each line is a struct and its columns are the
//! fields of the struct, by name. In ([`import`]): whatever format organizers have.

pub mod columns;
mod formula;
pub mod import;
mod text;
mod workbook;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::error::Error;
use crate::model::{Millis, ScanResult, Status, Ticket};
use crate::store::{Attendance, ListedAction, ListedScan};

pub use import::{List, Reading};
pub use text::Encoding;

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
    reference: Option<Harmless<'a>>,
    category: Option<Harmless<'a>>,
    note: Option<Harmless<'a>>,
    valid_from: Option<Millis>,
    valid_until: Option<Millis>,
    mailed_at: Option<Millis>,
    walk_up: bool,
    paid: Option<i64>,
}

impl<'a> TicketLine<'a> {
    /// `bound_to` is the event that the reader's key is bound to.
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
            reference: ticket.reference.as_deref().map(Harmless),
            category: ticket.category.as_deref().map(Harmless),
            note: ticket.note.as_deref().map(Harmless),
            valid_from: ticket.valid_from,
            valid_until: ticket.valid_until,
            mailed_at: ticket.mailed_at,
            walk_up: ticket.walk_up,
            paid: ticket.paid,
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
    /// `bound_to` is the event that the reader's key is bound to.
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
    vouched_by: Option<Uuid>,
    full_name: Option<Harmless<'a>>,
    category: Option<Harmless<'a>>,
    walk_up: Option<bool>,
    key_name: Option<Harmless<'a>>,
    undone_by_name: Option<Harmless<'a>>,
}

impl<'a> ScanLine<'a> {
    pub fn new(listed: &'a ListedScan) -> Self {
        let scan = &listed.scan;
        Self {
            scan_id: scan.scan_id,
            ticket_id: scan.ticket_id,
            seat: listed.seat.as_deref().map(Harmless),
            gate: listed.gate.as_deref().map(Harmless),
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
            vouched_by: scan.vouched_by,
            full_name: listed.full_name.as_deref().map(Harmless),
            category: listed.category.as_deref().map(Harmless),
            walk_up: listed.walk_up,
            key_name: listed.key_name.as_deref().map(Harmless),
            undone_by_name: listed.undone_by_name.as_deref().map(Harmless),
        }
    }
}

/// A line of `inside.csv`.
#[derive(Default, Serialize)]
pub struct InsideLine<'a> {
    full_name: Option<Harmless<'a>>,
    seat: Harmless<'a>,
    gate: Harmless<'a>,
    category: Option<Harmless<'a>>,
    note: Option<Harmless<'a>>,
    inside_since: Option<Millis>,
    came_in_at: Option<Harmless<'a>>,
}

impl<'a> InsideLine<'a> {
    pub fn new(Attendance { ticket, last_gate, .. }: &'a Attendance) -> Self {
        Self {
            full_name: ticket.full_name.as_deref().map(Harmless),
            seat: Harmless(&ticket.seat),
            gate: Harmless(&ticket.gate),
            category: ticket.category.as_deref().map(Harmless),
            note: ticket.note.as_deref().map(Harmless),
            inside_since: ticket.entered_at,
            came_in_at: last_gate.as_deref().map(Harmless),
        }
    }
}

/// A line of `attendance.csv`.
#[derive(Default, Serialize)]
pub struct AttendanceLine<'a> {
    ticket_id: Uuid,
    full_name: Option<Harmless<'a>>,
    username: Option<Harmless<'a>>,
    email: Option<Harmless<'a>>,
    seat: Harmless<'a>,
    gate: Harmless<'a>,
    category: Option<Harmless<'a>>,
    reference: Option<Harmless<'a>>,
    walk_up: bool,
    attendance: &'a str,
    first_entry_at: Option<Millis>,
    first_entry_gate: Option<Harmless<'a>>,
    last_entry_at: Option<Millis>,
    last_entry_gate: Option<Harmless<'a>>,
    inside: bool,
}

impl<'a> AttendanceLine<'a> {
    /// `bound_to` is the event that the reader's key is bound to.
    pub fn new(Attendance { ticket, first_gate, last_gate }: &'a Attendance, bound_to: Option<Uuid>) -> Self {
        let attendance = match (ticket.used_at, ticket.status) {
            (Some(_), _) => "came",
            (None, Status::Revoked) => "revoked",
            (None, Status::Valid | Status::Used) => "no_show",
        };
        Self {
            ticket_id: ticket.ticket_id,
            full_name: ticket.full_name.as_deref().map(Harmless),
            username: ticket.username.as_deref().map(Harmless),
            email: ticket.address.told_to(bound_to).map(Harmless),
            seat: Harmless(&ticket.seat),
            gate: Harmless(&ticket.gate),
            category: ticket.category.as_deref().map(Harmless),
            reference: ticket.reference.as_deref().map(Harmless),
            walk_up: ticket.walk_up,
            attendance,
            first_entry_at: ticket.used_at,
            first_entry_gate: first_gate.as_deref().map(Harmless),
            last_entry_at: ticket.entered_at,
            last_entry_gate: last_gate.as_deref().map(Harmless),
            inside: ticket.inside,
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

/// A text by a person, escaped so that no spreadsheet runs it as a formula.
#[derive(Clone, Copy, Default)]
struct Harmless<'a>(&'a str);

impl Serialize for Harmless<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&formula::harmless(self.0))
    }
}

/// Writes CSV into a buffer that is taken piece by piece.
pub struct Writer(csv::Writer<Vec<u8>>);

impl Writer {
    /// Writes a byte order mark, without which Excel shows `SofÃ­a`, and the header of these lines, even if no line follows.
    pub fn new<Line: Default + Serialize>() -> Self {
        let mut sample = quoting().from_writer(Vec::new());
        // Writing to a vector cannot fail.
        let _ = sample.serialize(Line::default());
        let written = sample.into_inner().unwrap_or_default();
        let header = written.split_inclusive(|&byte| byte == b'\n').next().unwrap_or_default();
        Self(after([b"\xef\xbb\xbf", header].concat()))
    }

    pub fn line(&mut self, line: &impl Serialize) -> Result<(), Error> {
        self.0.serialize(line).map_err(failed)
    }

    /// Returns what was written since the last call.
    pub fn take(&mut self) -> Result<Bytes, Error> {
        let full = std::mem::replace(&mut self.0, after(Vec::new()));
        Ok(full.into_inner().map_err(failed)?.into())
    }
}

/// Continues after `written`, without a header.
fn after(written: Vec<u8>) -> csv::Writer<Vec<u8>> {
    quoting().has_headers(false).from_writer(written)
}

/// Quotes every field, so that its content stays in one cell.
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

    use super::*;
    use crate::model::{Address, Direction, Email, Scan, Seed, Username};

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
            reference: None,
            category: None,
            category_colours: None,
            note: None,
            valid_from: None,
            valid_until: Some(Millis(2)),
            address: Address::default(),
            inside: true,
            last_step: None,
            version: 1,
            created_at: Millis(0),
            registered_at: Some(Millis(1)),
            used_at: None,
            entered_at: None,
            mailed_at: None,
            walk_up: true,
            paid: Some(1_200),
            printed_at: None,
            seeded_at: None,
        }
    }

    /// Splits a text into words.
    fn words(text: &str) -> Vec<&str> {
        text.split(|character: char| !character.is_alphanumeric() && character != '_').collect()
    }

    #[test]
    fn the_columns_of_an_import_are_told_as_they_are() {
        for (file, text) in [
            ("openapi/tickets.toml", include_str!("openapi/tickets.toml").split("csv = ").next().unwrap()),
            ("commands/import.rs", include_str!("commands/import.rs").split("pub struct").nth(1).unwrap()),
            ("docs/api.md", include_str!("../docs/api.md").split("## Issuing tickets").nth(1).unwrap()),
            ("pages/text/en.json", include_str!("pages/text/en.json")),
        ] {
            let words = words(text);
            for column in columns::Field::names() {
                let told = words.contains(&column.as_str()) || words.contains(&format!("column_{column}").as_str());
                assert!(told, "{file} does not name the column {column}");
            }
        }
    }

    #[test]
    fn the_columns_of_each_export_are_described_as_they_are() {
        fn header<Line: Default + Serialize>() -> String {
            written(&Line::default())[0].join(",")
        }
        let described = include_str!("openapi/exports.toml");
        for header in [
            header::<TicketLine>(),
            header::<ScanLine>(),
            header::<InsideLine>(),
            header::<AttendanceLine>(),
            header::<LinkLine>(),
            header::<ActionLine>(),
        ] {
            assert!(described.contains(&format!("`{header}`")), "openapi/exports.toml lacks {header}");
        }
    }

    /// Returns the records written, with the header first.
    fn written<Line: Default + Serialize>(line: &Line) -> Vec<Vec<String>> {
        let mut writer = Writer::new::<Line>();
        writer.line(line).unwrap();
        let bytes = writer.take().unwrap();
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").expect("it begins with a byte order mark");
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text);
        reader.records().map(|record| record.unwrap().iter().map(ToOwned::to_owned).collect()).collect()
    }

    #[test]
    fn no_ticket_that_was_written_is_taken_for_anything_else() {
        for seat in ["Total", "#N/A", "seat"] {
            let mut ticket = ticket(seat, "gate", "");
            (ticket.status, ticket.username, ticket.full_name) = (Status::Valid, None, None);
            let mut writer = Writer::new::<TicketLine>();
            writer.line(&TicketLine::new(&ticket, None)).unwrap();
            let list = List::read(&writer.take().unwrap(), &Reading { most: 9, ..Reading::default() }).unwrap();
            assert!(list.faults.is_empty() && list.rows.len() == 1, "{seat}");
        }
    }

    #[test]
    fn a_ticket_is_one_record_under_its_header() {
        let records = written(&TicketLine::new(&ticket("A,\"1\"", "North\n", "=1+1"), None));
        let header = "ticket_id,seat,gate,status,username,full_name,email,inside,created_at,registered_at,used_at,reference,\
             category,note,valid_from,valid_until,mailed_at,walk_up,paid";
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
                "",
                "",
                "",
                "",
                "1970-01-01T00:00:00.002Z",
                "",
                "true",
                "1200",
            ]
        );
    }

    #[test]
    fn every_field_is_in_quotes() {
        let mut writer = Writer::new::<LinkLine>();
        writer.line(&LinkLine::new(&ticket("A1", "No\"rth", "Ana"), "https://t.example.org/t/x".into(), None)).unwrap();
        let expected = "\u{feff}\"seat\",\"gate\",\"username\",\"full_name\",\"email\",\"ticket_url\"\n\
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
            opens_at: None,
            closed_at: None,
            scanned_at: Millis(1),
            received_at: Millis(2),
            decided_at: Millis(2),
            key_id: None,
            undone_at: Some(Millis(3)),
            undone_by: Some(Uuid::from_u128(4)),
            vouched_by: Some(Uuid::from_u128(5)),
        };
        let text = |text: &str| Some(text.to_owned());
        let listed = ListedScan {
            scan,
            seat: text("=A1"),
            gate: text("North"),
            full_name: text("-Ana"),
            category: text("Adult"),
            walk_up: Some(true),
            key_name: text("@phone"),
            undone_by_name: None,
        };
        let records = written(&ScanLine::new(&listed));
        let header = "scan_id,ticket_id,seat,gate,at_gate,direction,result,offline_result,manual,note,scanned_at,\
                      received_at,key_id,undone_at,undone_by,vouched_by,full_name,category,walk_up,key_name,undone_by_name";
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
                "00000000-0000-0000-0000-000000000005",
                "'-Ana",
                "Adult",
                "true",
                "'@phone",
                "",
            ]
        );
    }

    #[test]
    fn what_was_taken_is_not_written_again() {
        let mut writer = Writer::new::<TicketLine>();
        let header = writer.take().unwrap();
        assert!(
            header.starts_with(b"\xef\xbb\xbf\"ticket_id\",\"seat\",\"gate\",") && header.ends_with(b"\"\n"),
            "{header:?}"
        );
        assert!(writer.take().unwrap().is_empty());
        writer.line(&TicketLine::new(&ticket("A1", "North", "Ana"), None)).unwrap();
        assert!(writer.take().unwrap().starts_with(b"\"00000000-0000-0000-0000-000000000001\",\"A1\",\"North\","));
    }

    /// Generates texts that the service accepts, with many characters of spreadsheets, quotes and separators.
    fn place() -> impl Strategy<Value = String> {
        prop_oneof!["[-=+@＝'\"a][-=+@,;|'\"،a é\u{200b}]{0,8}[-=+'\"a]", "\\PC{1,12}"]
            .prop_filter_map("as the service keeps it", |text| {
                crate::model::Place::try_from(text).ok().map(|place| place.into_string())
            })
    }

    proptest! {
        #[test]
        fn in_no_language_does_a_cell_begin_with_a_formula(text in "[=+@＝,;|\t\r\n\"'،\u{feff}\u{3000}a -]{0,10}") {
            let mut writer = Writer::new::<TicketLine>();
            writer.take().unwrap();
            writer.line(&TicketLine::new(&ticket(&text, "North", "Ana"), None)).unwrap();
            let file = writer.take().unwrap();
            let file = std::str::from_utf8(&file).unwrap();
            prop_assert!(!formula::tests::runs(file), "{file}");
            // Only apostrophes are added.
            let records = written(&TicketLine::new(&ticket(&text, "North", "Ana"), None));
            prop_assert_eq!(records[1][1].replace('\'', ""), text.replace('\'', ""));
        }

        #[test]
        fn what_no_spreadsheet_would_run_stays_as_it_is(text in prop_oneof![
            // No formula, or no character after which a cell may begin.
            "[^=+@＝＋－＠\\pC-]{0,12}",
            "[^=+@＝＋－＠\\pC\\s,;|،؛\"'-][^\\pC,;|،؛\"]{0,12}",
        ]) {
            let records = written(&TicketLine::new(&ticket(&text, "North", "Ana"), None));
            prop_assert_eq!(&records[1][1], &text);
        }

        #[test]
        fn what_is_written_is_read_again(
            seat in place(), gate in place(), name in place(), reference in place(),
            username in "[-A-Za-z0-9._@+]{1,64}", email in "[-=+'A-Za-z0-9ñ.]{1,9}@[a-z0-9]{1,9}[.]example",
        ) {
            let (Ok(username), Ok(email)) = (Username::try_from(username), Email::try_from(email)) else { return Ok(()) };
            let (username, email) = (username.as_str().to_owned(), email.0);
            let mut ticket = ticket(&seat, &gate, &name);
            (ticket.status, ticket.username, ticket.reference) =
                (Status::Valid, Some(username.clone()), Some(reference.clone()));
            ticket.address = Address::of_anybody(&email);
            let mut writer = Writer::new::<TicketLine>();
            writer.line(&TicketLine::new(&ticket, None)).unwrap();
            let list = List::read(&writer.take().unwrap(), &Reading { most: 9, ..Reading::default() }).unwrap();
            prop_assert!(list.faults.is_empty(), "{:?}", list.faults.into_told());
            let row = &list.rows[0];
            let person = row.person.clone().unwrap();
            let read = (row.seat.clone().unwrap().into_string(), row.gate.clone().unwrap().into_string());
            prop_assert_eq!(read, (seat, gate));
            prop_assert_eq!((person.full_name, row.reference.clone()), (Some(name), Some(reference)));
            prop_assert_eq!((person.username, person.email), (Some(username), Some(email)));
        }
    }
}
