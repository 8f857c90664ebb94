//! Reading an imported list of tickets: the meaning of each column, and the tickets of each line. The API, the command
//! line and the organizer's page share this reader.

use std::collections::{BTreeSet, HashMap};
use std::io::Cursor;

use csv::StringRecord;
use data_encoding::HEXLOWER;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use strum::IntoEnumIterator as _;

use super::columns::{self, Field, Known, Standing, fold};
use super::formula;
use super::text::{Encoding, Source, start_of};
use crate::admission::DAY_TURNS;
use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::limits::{CATEGORY, COLUMNS, NAME, QUANTITY, REFERENCE, TICKET_NOTE, USERNAME};
use crate::model::{Email, Millis, Place, Text, Username, check_order};

/// The maximum number of faults reported for one file: enough to see what is wrong, short enough to read.
pub const ERRORS_TOLD: usize = 100;
/// The number of lines shown as they were read.
const SAMPLE: usize = 5;
/// The maximum number of characters shown of a cell.
const SHOWN: usize = 200;
/// The maximum number of bytes of a cell that is analyzed: more than any field may have.
const LONGEST_CELL: usize = 4_096;
/// The number of bytes of a line's texts that count as one more ticket: the memory of a list is that of its texts.
const LIGHT: usize = 256;
/// The number of lines searched for the header: there may be a title above it.
const TITLES: usize = 15;
/// The maximum number of column names reported for a file, and of characters of each.
const NAMES_TOLD: usize = 20;
const NAME_TOLD: usize = 60;

/// How to read a file.
#[derive(Clone, Default)]
pub struct Reading {
    /// The field of each column in order, if the names do not tell; `None` ignores the column.
    pub columns: Option<Vec<Option<Field>>>,
    /// Whether to ignore unknown columns instead of rejecting them, and to accept tickets with an unknown status.
    pub ignore_unknown: bool,
    /// Whether the first line is a ticket, so that there is no header.
    pub no_header: bool,
    /// The maximum number of tickets.
    pub most: usize,
    /// The time zone of times without an offset: the event's, or UTC if none is given.
    pub time_zone: Option<TimeZone>,
}

/// A column of a file, and the field it was recognised as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "SheetColumn"))]
pub struct Column {
    /// Its name in the file.
    name: String,
    /// The field it holds; null when it is ignored.
    #[serde(serialize_with = "field_name")]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    field: Option<Field>,
    /// Whether the name is known. An unknown column stops the import unless it is mapped or ignored.
    known: bool,
}

fn field_name<S: serde::Serializer>(field: &Option<Field>, serializer: S) -> Result<S::Ok, S::Error> {
    field.map(Field::name).serialize(serializer)
}

/// A file that was read.
pub struct List {
    pub encoding: Encoding,
    pub separator: Option<char>,
    pub sheet: Option<String>,
    pub columns: Vec<Column>,
    /// The first lines, field by field.
    pub sample: Vec<Vec<String>>,
    /// The number of lines that are not empty, without the header.
    pub lines: usize,
    /// The number of lines that are no tickets by their status, such as those of cancelled orders.
    pub left_out: usize,
    pub rows: Vec<TicketRow>,
    pub faults: Faults,
    /// Notices about the file as a whole that are not errors.
    pub notices: Vec<Fault>,
}

/// One ticket of a line.
#[derive(Clone, Debug)]
pub struct TicketRow {
    /// Counted from 1 including the header, as editors show it.
    pub line: u64,
    pub seat: Option<Place>,
    pub gate: Option<Place>,
    pub person: Option<Person>,
    pub reference: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    pub valid_from: Option<Millis>,
    pub valid_until: Option<Millis>,
    /// Whether the line's status says that it is no ticket.
    pub is_void: bool,
}

impl TicketRow {
    /// Returns the number of tickets this one counts as, by its memory.
    fn weight(&self) -> usize {
        let place = |place: &Option<Place>| place.as_ref().map_or(0, |place| place.as_str().len());
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let person = self.person.as_ref();
        let person = person.map_or(0, |it| text(&it.username) + text(&it.full_name) + text(&it.email));
        let own = text(&self.reference) + text(&self.category) + text(&self.note);
        1 + (place(&self.seat) + place(&self.gate) + own + person) / LIGHT
    }
}

/// The holder of a ticket. At least one of the texts is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// From the line; else the address, or a name derived from it.
    pub username: Option<String>,
    pub full_name: Option<String>,
    pub email: Option<String>,
    /// Whether the line has only the name.
    pub is_name_only: bool,
}

/// The faults of a file: some of them, and the number of all.
#[derive(Default)]
pub struct Faults {
    told: Vec<(u64, FieldError)>,
    count: usize,
}

impl Faults {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// `line` determines the position in the report.
    pub fn add(&mut self, line: u64, error: FieldError) {
        self.count += 1;
        if self.told.len() < 2 * ERRORS_TOLD {
            self.told.push((line, error));
        }
    }

    fn line(&mut self, line: u64, fault: Fault) {
        self.add(line, FieldError::line(line, fault));
    }

    /// Returns the first faults in the order of their lines, and the number of the others.
    pub fn into_told(mut self) -> Vec<FieldError> {
        self.told.sort_by_key(|(line, _)| *line);
        let mut told: Vec<FieldError> = self.told.into_iter().take(ERRORS_TOLD).map(|(_, error)| error).collect();
        if let Some(more) = self.count.checked_sub(told.len()).filter(|&more| more > 0) {
            told.push(FieldError::new("file", Fault::MoreFaults { more }));
        }
        told
    }
}

impl List {
    /// Reads a file to its end, whatever is wrong with its lines. Rejects a file that is not a list.
    pub fn read(file: &[u8], how: &Reading) -> Result<Self, Error> {
        let source = Source::read(file).map_err(|error| Error::InvalidPayload(vec![error]))?;
        if source.text.trim().is_empty() {
            return Err(Error::field("file", Fault::EmptyFile));
        }
        let mut list = Self {
            encoding: source.encoding,
            separator: (source.encoding != Encoding::Workbook).then_some(char::from(source.separator)),
            sheet: source.sheet.clone(),
            columns: Vec::new(),
            sample: Vec::new(),
            lines: 0,
            left_out: 0,
            rows: Vec::new(),
            faults: Faults::default(),
            notices: notices_of(&source),
        };
        let (header_at, header) = if how.no_header { no_header(&source) } else { header_of(&source) };
        if header.len() > COLUMNS {
            let many = FieldError::line(header_at, Fault::TooManyColumns { most: COLUMNS });
            return Err(Error::InvalidPayload(vec![many]));
        }
        list.read_columns(header_at, &header, how);
        list.read_lines(&source, header_at, &header, how);
        if list.lines == 0 && list.faults.is_empty() {
            list.faults.line(header_at.max(1), Fault::NoTickets);
        }
        Ok(list)
    }

    fn read_columns(&mut self, line: u64, header: &StringRecord, how: &Reading) {
        let line = line.max(1);
        let names: Vec<&str> = header.iter().collect();
        self.columns = match &how.columns {
            Some(fields) => mapped(&names, fields),
            None => recognised(&names),
        };
        let width = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
        let is_nameless = width == 0 && !names.is_empty();
        if let Some(fields) = &how.columns
            && !(width..=names.len()).contains(&fields.len())
        {
            let count = Fault::WrongFieldCount { expected: width, found: fields.len() };
            self.faults.add(0, FieldError::new("columns", count));
        }
        for field in Field::names() {
            if self.columns.iter().filter(|column| column.field.is_some_and(|known| known.name() == field)).count() > 1
            {
                self.faults.line(line, Fault::ColumnTwice { column: field });
            }
        }
        let unknown = self.columns.iter().filter(|column| !column.known).take(NAMES_TOLD);
        let columns: Vec<String> = unknown.map(|column| start_of(&column.name, NAME_TOLD)).collect();
        let (known, is_told) = (Field::names(), !columns.is_empty());
        let unknown = Fault::UnknownColumn { columns, known: known.clone() };
        if is_told && how.ignore_unknown {
            self.notices.push(unknown);
        } else if is_told {
            self.faults.line(line, unknown);
            return;
        }
        if !self.columns.iter().any(|column| column.field.is_some_and(|field| field != Field::Status)) {
            let fault = if is_nameless { Fault::NoHeader } else { Fault::NoColumn { known } };
            self.faults.line(line, fault);
        }
    }

    fn read_lines(&mut self, source: &Source<'_>, header_at: u64, header: &StringRecord, how: &Reading) {
        let most = how.most;
        let is_ours = is_our_export(header);
        let broken = unclosed_quote(source);
        let mut reader = LineReader::new(&self.columns, header.len(), is_ours, how.time_zone.clone());
        let (mut seen, mut made) = (Seen::default(), 0);
        let (mut rows, mut faults) = (Vec::new(), std::mem::take(&mut self.faults));
        for (line, record) in Records::of(source) {
            // Joined lists repeat their headers.
            if line <= header_at || record == *header {
                continue;
            }
            if let Some((_, quote)) = broken.filter(|(record, _)| line >= *record) {
                faults.line(quote, Fault::UnclosedQuote);
                self.lines += 1;
                break;
            }
            let record =
                if is_ours { record.iter().map(|field| formula::undone(field).into_owned()).collect() } else { record };
            self.lines += 1;
            if self.sample.len() < SAMPLE {
                self.sample.push(record.iter().take(COLUMNS).map(|text| start_of(text, SHOWN)).collect());
            }
            match reader.read(line, &record, &mut faults) {
                Line::Tickets(tickets) => {
                    made += tickets.iter().map(TicketRow::weight).sum::<usize>();
                    if made > most {
                        faults.line(line, Fault::TooManyTickets { most });
                        break;
                    }
                    tickets.iter().for_each(|row| seen.meet(row, &mut faults));
                    rows.extend(tickets);
                }
                Line::Void(tickets) => {
                    self.left_out += 1;
                    // These are only reported, so their number is limited to that of a list.
                    let left = most.saturating_sub(rows.len());
                    rows.extend(tickets.into_iter().take(left));
                }
                Line::Sum | Line::Wrong => {}
            }
        }
        let unknown = reader.unknown_statuses();
        if let Some(unknown) = unknown.clone().filter(|_| !how.ignore_unknown) {
            faults.line(header_at.max(1), unknown);
        }
        self.notices.extend(unknown.filter(|_| how.ignore_unknown));
        let has_seats = rows.iter().any(|row: &TicketRow| row.seat.is_some());
        self.notices.extend(reader.notices(has_seats));
        if self.left_out > 0 {
            self.notices.push(Fault::LinesLeftOut { count: self.left_out });
        }
        (self.rows, self.faults) = (rows, faults);
    }
}

/// Returns notices about a file that do not depend on its lines.
fn notices_of(source: &Source<'_>) -> Vec<Fault> {
    let mut notices = Vec::new();
    if matches!(source.encoding, Encoding::Windows1252 | Encoding::Macintosh) {
        notices.push(Fault::GuessedLetters);
    }
    if is_mangled(&source.text) {
        notices.push(Fault::MangledLetters);
    }
    if !source.other_sheets.is_empty() {
        notices.push(Fault::OtherSheets { sheets: source.other_sheets.clone() });
    }
    if source.hidden > 0 {
        notices.push(Fault::HiddenRows { count: source.hidden });
    }
    notices
}

/// Whether UTF-8 was misread as another encoding before the file was saved: `SofÃ­a`.
fn is_mangled(text: &str) -> bool {
    text.match_indices('Ã')
        .any(|(at, sign)| text[at + sign.len()..].starts_with(|next| ('\u{a0}'..='\u{bf}').contains(&next)))
}

/// Returns the columns as mapped by the caller.
fn mapped(names: &[&str], fields: &[Option<Field>]) -> Vec<Column> {
    let field = |index: usize| fields.get(index).copied().flatten();
    names
        .iter()
        .enumerate()
        .map(|(index, name)| Column { name: start_of(name, SHOWN), field: field(index), known: true })
        .collect()
}

/// Returns the columns as recognised by their names. Of several columns for one field, those of the lowest rank are used.
fn recognised(names: &[&str]) -> Vec<Column> {
    let found: Vec<Option<Known>> = names.iter().map(|name| columns::find(name)).collect();
    let best = |field| found.iter().filter_map(|known| rank_of(*known, field)).min();
    let column = |(name, known): (&&str, &Option<Known>)| {
        let field = match known {
            Some(Known::Field(field, rank)) if best(*field) == Some(*rank) => Some(*field),
            _ => None,
        };
        Column { name: start_of(name, SHOWN), field, known: known.is_some() || name.is_empty() }
    };
    names.iter().zip(&found).map(column).collect()
}

fn rank_of(known: Option<Known>, wanted: Field) -> Option<usize> {
    match known {
        Some(Known::Field(field, rank)) if field == wanted => Some(rank),
        _ => None,
    }
}

/// Whether the service exported the file: then it has apostrophes before whatever a spreadsheet would run.
fn is_our_export(header: &StringRecord) -> bool {
    let has = |column: &str| header.iter().any(|name| name == column);
    has("seat") && has("gate") && (has("ticket_id") || has("ticket_url"))
}

/// The records of a file that are not empty, with their line numbers.
struct Records<'a> {
    records: csv::StringRecordsIntoIter<Cursor<&'a str>>,
    lines: Lines<'a>,
}

impl<'a> Records<'a> {
    fn of(source: &'a Source<'_>) -> Self {
        let mut reader = csv::ReaderBuilder::new();
        reader.delimiter(source.separator).has_headers(false).trim(csv::Trim::All).flexible(true);
        let file = source.text.as_bytes();
        let rows = (source.encoding == Encoding::Workbook).then(|| source.rows.iter());
        let lines = Lines { file, counted: 0, line: 1 + source.before, rows };
        Self { records: reader.from_reader(Cursor::new(&*source.text)).into_records(), lines }
    }
}

impl Iterator for Records<'_> {
    type Item = (u64, StringRecord);

    fn next(&mut self) -> Option<Self::Item> {
        // Any text can be parsed as CSV.
        self.records.by_ref().map_while(Result::ok).find_map(|record| {
            let line = self.lines.of(&record);
            record.iter().any(|field| !field.is_empty()).then_some((line, record))
        })
    }
}

/// Returns the header and its line number: the first line with two known names, else the first with one, else the first
/// line. Above it there may be a title. If the line found has no known name but an address, there is no header.
fn header_of(source: &Source<'_>) -> (u64, StringRecord) {
    let named =
        |record: &StringRecord| record.iter().take(COLUMNS).filter(|name| columns::find(name).is_some()).count().min(2);
    let first: Vec<(u64, StringRecord)> = Records::of(source).take(TITLES).collect();
    // Among equals the last one wins, so the order is reversed.
    let (line, record) = first.into_iter().rev().max_by_key(|(_, record)| named(record)).unwrap_or_default();
    let is_ticket = named(&record) == 0 && record.iter().any(|text| Email::try_from(text.to_owned()).is_ok());
    if is_ticket { no_header(source) } else { (line, record) }
}

/// Returns an empty header above the first line, as wide as the widest of the first lines.
fn no_header(source: &Source<'_>) -> (u64, StringRecord) {
    let width = Records::of(source).take(TITLES).map(|(_, record)| record.len()).max();
    (0, vec![""; width.unwrap_or_default()].into())
}

/// Finds the line numbers of successive records. The reader's own position lags: where it says that a record begins,
/// there may still be the rest of a line break, and empty lines.
struct Lines<'a> {
    file: &'a [u8],
    counted: usize,
    line: u64,
    /// The row numbers of a workbook, whose cells may contain line breaks.
    rows: Option<std::slice::Iter<'a, u32>>,
}

impl Lines<'_> {
    fn of(&mut self, record: &StringRecord) -> u64 {
        if let Some(rows) = &mut self.rows {
            return rows.next().map_or(self.line, |&row| row.into());
        }
        let reached = record.position().map_or(self.counted, |position| position.byte() as usize);
        let breaks = self.file[reached..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
        self.line += breaks_in(&self.file[self.counted..reached + breaks]);
        self.counted = reached + breaks;
        self.line
    }
}

/// Counts line breaks: `\n`, `\r\n`, or `\r` as old Macs write it.
fn breaks_in(text: &[u8]) -> u64 {
    let feeds = text.iter().filter(|&&byte| byte == b'\n').count();
    let returns =
        text.iter().enumerate().filter(|&(at, &byte)| byte == b'\r' && text.get(at + 1) != Some(&b'\n')).count();
    (feeds + returns) as u64
}

/// Returns the line of the last record and the line where its last quote begins, if that is never closed: it then
/// contains the rest of the file.
fn unclosed_quote(source: &Source<'_>) -> Option<(u64, u64)> {
    let text = source.text.as_bytes();
    let mut records = Records::of(source);
    let (mut at, mut first) = (0, 1);
    for (line, record) in records.by_ref() {
        (at, first) = (record.position().map_or(at, |position| position.byte() as usize), line);
    }
    let (mut open, mut may_begin) = (None, true);
    for (index, &byte) in text.iter().enumerate().skip(at) {
        match (byte, open) {
            (b'"', None) if may_begin => open = Some(index),
            // A second quote directly after it is an escaped quote, and reopens it.
            (b'"', Some(_)) => open = None,
            (b'"', None) if index > 0 && text[index - 1] == b'"' => open = Some(index),
            _ => {}
        }
        may_begin = open.is_none() && (byte == source.separator || byte == b'\n' || byte == b'\r');
    }
    let skipped = text[at..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
    open.map(|quote| (first, first + breaks_in(&text[(at + skipped).min(quote)..quote])))
}

/// The result of reading a line.
enum Line {
    Tickets(Vec<TicketRow>),
    /// No tickets by its status, with those that it would have.
    Void(Vec<TicketRow>),
    Sum,
    Wrong,
}

/// Reads lines by their columns.
struct LineReader<'a> {
    columns: &'a [Column],
    width: usize,
    /// Whether the service exported the file: then each line is a ticket, whatever it contains.
    is_ours: bool,
    time_zone: TimeZone,
    /// The seller's orders so far, with the number of tickets of each.
    orders: HashMap<String, usize>,
    /// Some of the unknown statuses.
    statuses: BTreeSet<String>,
    /// Some of the lines that are sums.
    sums: Vec<u64>,
    /// Some of the lines whose seat looks like a date.
    dates: Vec<u64>,
    /// Some of the lines without a seat.
    unseated: Vec<u64>,
    /// Some of the lines whose category is too long.
    cut: Vec<u64>,
}

/// The line being read, and everything that is wrong with it.
struct Cells<'a> {
    line: u64,
    record: &'a StringRecord,
    columns: &'a [Column],
    faults: Vec<FieldError>,
}

impl<'a> Cells<'a> {
    /// Returns the text of a column; `None` if it is empty or the column does not exist.
    fn text(&self, field: Field) -> Option<&'a str> {
        let index = self.columns.iter().position(|column| column.field == Some(field))?;
        self.record.get(index).filter(|text| !text.is_empty())
    }

    fn fault(&mut self, field: Field, fault: Fault) {
        let named = self.columns.iter().find(|column| column.field == Some(field)).map(|column| column.name.as_str());
        let named = named.filter(|name| !name.is_empty()).map(|name| start_of(name, NAME_TOLD));
        self.faults.push(FieldError::column(self.line, field.name(), named.as_deref().unwrap_or(field.name()), fault));
    }

    fn checked<T: TryFrom<String, Error = Fault>>(&mut self, field: Field) -> Option<T> {
        let text = self.text(field)?.to_owned();
        self.check(field, text)
    }

    fn check<T: TryFrom<String, Error = Fault>>(&mut self, field: Field, text: String) -> Option<T> {
        T::try_from(text).map_err(|fault| self.fault(field, fault)).ok()
    }

    fn refused(self, faults: &mut Faults) -> Line {
        self.faults.into_iter().for_each(|fault| faults.add(self.line, fault));
        Line::Wrong
    }

    /// Returns the seat, prefixed by its row if that has a column of its own.
    fn seat(&mut self) -> Option<Place> {
        let has_row = self.columns.iter().any(|column| column.field == Some(Field::Row));
        match (self.text(Field::Row), self.text(Field::Seat)) {
            (Some(row), Some(seat)) => self.check(Field::Seat, format!("{row}-{seat}")),
            (None, Some(seat)) if !has_row => self.check(Field::Seat, seat.to_owned()),
            (None, None) => None,
            // Half of a seat's name would be another seat.
            (row, _) => {
                self.fault(if row.is_some() { Field::Seat } else { Field::Row }, Fault::Empty);
                None
            }
        }
    }
}

impl<'a> LineReader<'a> {
    fn new(columns: &'a [Column], width: usize, is_ours: bool, time_zone: Option<TimeZone>) -> Self {
        let time_zone = time_zone.unwrap_or(TimeZone::UTC);
        let (orders, statuses) = (HashMap::new(), BTreeSet::new());
        let (sums, dates, unseated, cut) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { columns, width, is_ours, time_zone, orders, statuses, sums, dates, unseated, cut }
    }

    fn unknown_statuses(&self) -> Option<Fault> {
        let words: Vec<String> = self.statuses.iter().cloned().collect();
        (!words.is_empty()).then_some(Fault::UnknownStatus { words })
    }

    /// Returns notices about the lines read.
    fn notices(self, has_seats: bool) -> impl Iterator<Item = Fault> {
        let notices = [
            (!self.sums.is_empty(), Fault::SumsLeftOut { lines: self.sums }),
            (!self.dates.is_empty(), Fault::SeatsLikeDates { lines: self.dates }),
            (!self.unseated.is_empty() && has_seats, Fault::SeatsNumbered { lines: self.unseated }),
            (!self.cut.is_empty(), Fault::CategoriesCut { most: CATEGORY, lines: self.cut }),
        ];
        notices.into_iter().filter_map(|(is_so, notice)| is_so.then_some(notice))
    }

    fn read(&mut self, line: u64, record: &StringRecord, faults: &mut Faults) -> Line {
        // Without any known column, the header is reported instead.
        if !self.columns.iter().any(|column| column.field.is_some()) {
            return Line::Wrong;
        }
        let mut cells = Cells { line, record, columns: self.columns, faults: Vec::new() };
        self.check(&mut cells);
        if !cells.faults.is_empty() {
            return cells.refused(faults);
        }
        if !self.is_ours && is_sum(&cells) {
            note(&mut self.sums, line);
            return Line::Sum;
        }
        let is_void = self.is_void(&cells);
        let tickets = self.read_tickets(&mut cells, is_void);
        match cells.faults.is_empty() {
            true if is_void => Line::Void(tickets),
            true => Line::Tickets(tickets),
            // Faults of a line that is no ticket do not matter.
            false if is_void => Line::Void(Vec::new()),
            false => cells.refused(faults),
        }
    }

    /// Rejects a line with more fields than the header, and cells that no field can hold. Fewer fields are accepted:
    /// Excel leaves out empty cells at the end of a line.
    fn check(&self, cells: &mut Cells<'_>) {
        if cells.record.iter().skip(self.width).any(|text| !text.is_empty()) {
            let fault = Fault::WrongFieldCount { expected: self.width, found: cells.record.len() };
            cells.faults.push(FieldError::line(cells.line, fault));
        }
        for field in Field::iter() {
            match cells.text(field) {
                Some(text) if text.len() > LONGEST_CELL => cells.fault(field, Fault::TooLong { most: NAME }),
                Some(text) if !self.is_ours && is_failed_formula(text) => cells.fault(field, Fault::FailedFormula),
                _ => {}
            }
        }
    }

    /// Whether the line's status says that it is no ticket.
    fn is_void(&mut self, cells: &Cells<'_>) -> bool {
        let Some(word) = cells.text(Field::Status) else { return false };
        let standing = columns::standing(word);
        if standing == Standing::Unknown && self.statuses.len() < NAMES_TOLD {
            self.statuses.insert(start_of(word, NAME_TOLD));
        }
        standing == Standing::Void
    }

    fn read_tickets(&mut self, cells: &mut Cells<'_>, is_void: bool) -> Vec<TicketRow> {
        let (line, seat) = (cells.line, cells.seat());
        let gate: Option<Place> = cells.checked(Field::Gate);
        let person = read_person(cells);
        let quantity = read_quantity(cells);
        let reference = self.read_reference(cells);
        let (category, for_the_gate) = (self.read_category(cells), read_note(cells));
        let (valid_from, valid_until) = self.read_times(cells);
        let names_nothing =
            seat.is_none() && person.is_none() && reference.is_none() && cells.text(Field::Quantity).is_none();
        if names_nothing && gate.is_none() && category.is_none() && cells.faults.is_empty() {
            cells.faults.push(FieldError::line(line, Fault::Empty));
        }
        match &seat {
            _ if is_void || names_nothing => {}
            None => note(&mut self.unseated, line),
            Some(seat) if is_like_a_date(seat.as_str()) => note(&mut self.dates, line),
            Some(_) => {}
        }
        let numbered = |number: usize| {
            reference.as_ref().map(|(reference, before)| match before + number {
                1 => reference.clone(),
                number => format!("{reference}-{number}"),
            })
        };
        let ticket = |number| TicketRow {
            line,
            seat: seat.clone(),
            gate: gate.clone(),
            person: person.clone(),
            reference: numbered(number),
            category: category.clone(),
            note: for_the_gate.clone(),
            valid_from,
            valid_until,
            is_void,
        };
        (1..=quantity).map(ticket).collect()
    }

    /// Returns the category, shortened if it is too long, as names of products can be.
    fn read_category(&mut self, cells: &mut Cells<'_>) -> Option<String> {
        let text = one_line(cells.text(Field::Category)?);
        let shown = match text.char_indices().nth(CATEGORY) {
            Some(_) => {
                note(&mut self.cut, cells.line);
                format!("{}…", text.chars().take(CATEGORY - 1).collect::<String>().trim_end())
            }
            None => text,
        };
        cells.check::<Text<CATEGORY>>(Field::Category, shown).map(|category| category.0)
    }

    /// Returns when the ticket begins and ceases to admit. A date without a time is a day of the event.
    fn read_times(&self, cells: &mut Cells<'_>) -> (Option<Millis>, Option<Millis>) {
        let mut time = |field, days| {
            let time = moment_of(cells.text(field)?, days, &self.time_zone);
            if time.is_none() {
                cells.fault(field, Fault::NotADate);
            }
            time
        };
        let (from, until) = (time(Field::ValidFrom, 0), time(Field::ValidUntil, 1));
        if let Err(fault) = check_order(from, until) {
            cells.fault(Field::ValidUntil, fault);
        }
        (from, until)
    }

    /// Returns the ticket's reference, and the number of earlier tickets of its order.
    fn read_reference(&mut self, cells: &mut Cells<'_>) -> Option<(String, usize)> {
        if cells.text(Field::Reference).is_some() {
            let reference: Text<REFERENCE> = cells.checked(Field::Reference)?;
            return Some((reference.0, 0));
        }
        let order: Text<REFERENCE> = cells.checked(Field::Order)?;
        if let Some(position) = cells.text(Field::OrderPosition) {
            let reference = format!("{}-{position}", order.0);
            let checked = Text::<REFERENCE>::try_from(reference);
            return checked.map_err(|fault| cells.fault(Field::OrderPosition, fault)).ok().map(|text| (text.0, 0));
        }
        let quantity = cells.text(Field::Quantity).and_then(whole_number).unwrap_or(1).min(QUANTITY);
        let tickets = self.orders.entry(order.0.clone()).or_default();
        let before = *tickets;
        *tickets += quantity;
        Some((order.0, before))
    }
}

/// Adds a line to those that a notice names, up to a maximum.
pub fn note(lines: &mut Vec<u64>, line: u64) {
    if lines.len() < NAMES_TOLD {
        lines.push(line);
    }
}

/// Whether the line is the sum of the others: all its texts say so. A person with such a name would also have a seat or
/// an address.
fn is_sum(cells: &Cells<'_>) -> bool {
    let naming = Field::iter().filter(|field| ![Field::Quantity, Field::Status].contains(field));
    let mut named = naming.filter_map(|field| cells.text(field)).peekable();
    named.peek().is_some() && named.all(columns::is_sum)
}

/// Whether this is what spreadsheets write for a formula without a value.
fn is_failed_formula(text: &str) -> bool {
    ["#N/A", "#REF!", "#VALUE!", "#NAME?", "#DIV/0!", "#NULL!", "#NUM!", "#SPILL!", "#CALC!"].contains(&text)
}

/// Whether this is what spreadsheets turn `1-2` into: a date of a workbook, `02-Jan`, `2. Jan`, `Jan-02`.
fn is_like_a_date(text: &str) -> bool {
    const MONTHS: [&str; 26] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "ene", "abr", "ago", "dic",
        "mrz", "mär", "mai", "okt", "dez", "gen", "mag", "giu", "lug", "set",
    ];
    let parts: Vec<String> =
        text.split(|part: char| "-./ ".contains(part)).filter(|part| !part.is_empty()).map(str::to_lowercase).collect();
    let is_number =
        |text: &str, lengths: &[usize]| lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    match parts.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [one, two, three] => {
            let is_date = [one, two, three].into_iter().all(|part| is_number(part, &[1, 2, 4]));
            is_date && (one.len() == 4) != (three.len() == 4) && two.len() <= 2
        }
        [one, other] => {
            (MONTHS.contains(one) && is_number(other, &[1, 2])) || (MONTHS.contains(other) && is_number(one, &[1, 2]))
        }
        _ => false,
    }
}

fn read_quantity(cells: &mut Cells<'_>) -> usize {
    let Some(text) = cells.text(Field::Quantity) else { return 1 };
    let has_seat = cells.text(Field::Seat).is_some();
    match whole_number(text) {
        Some(1) => 1,
        Some(quantity) if has_seat && quantity > 1 => {
            cells.fault(Field::Quantity, Fault::SeatIsOneTicket);
            1
        }
        Some(quantity) if (1..=QUANTITY).contains(&quantity) => quantity,
        _ => {
            cells.fault(Field::Quantity, Fault::OutOfRange { least: 1, most: QUANTITY });
            1
        }
    }
}

/// Parses an integer as forms and spreadsheets write it: `2`, but also `2.0` and `2,00`.
fn whole_number(text: &str) -> Option<usize> {
    let digits = match text.split_once(['.', ',']) {
        Some((whole, behind)) if !behind.is_empty() && behind.bytes().all(|byte| byte == b'0') => whole,
        _ => text,
    };
    digits.parse().ok()
}

fn read_person(cells: &mut Cells<'_>) -> Option<Person> {
    let (named, email) = read_email(cells);
    let username: Option<Username> = cells.checked(Field::Username);
    let full_name = read_name(cells).or(named);
    let username = username.map(|name| name.as_str().to_owned()).or_else(|| email.as_deref().map(username_of_email));
    let is_name_only = username.is_none() && full_name.is_some();
    let person = Person { username, full_name, email, is_name_only };
    (person != Person::default()).then_some(person)
}

/// Returns the name from one column or two. What many lists call the name is half of it if the other half is in the next
/// column: `Nombre` and `Apellidos`, `Vorname` and `Name`.
fn read_name(cells: &mut Cells<'_>) -> Option<String> {
    let fields = [Field::FirstName, Field::FullName, Field::LastName];
    let [first, full, last] = fields.map(|field| cells.text(field));
    let holds = |name: &str, part: &str| {
        let words = crate::fold::words(name);
        crate::fold::words(part).iter().all(|word| words.contains(word))
    };
    let is_half = |name: &str| match (first, last) {
        (Some(half), None) | (None, Some(half)) => !holds(name, half),
        _ => false,
    };
    let parts = if full.is_some_and(|name| !is_half(name)) { [None, full, None] } else { [first, full, last] };
    let field = fields.into_iter().zip(parts).find_map(|(field, part)| part.map(|_| field))?;
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
    Text::<NAME>::try_from(one_line(&text)).map_err(|fault| cells.fault(field, fault)).ok().map(|name| name.0)
}

/// Returns the note for the gate.
fn read_note(cells: &mut Cells<'_>) -> Option<String> {
    let text = one_line(cells.text(Field::Note)?);
    cells.check::<Text<TICKET_NOTE>>(Field::Note, text).map(|note| note.0)
}

/// Parses a time in RFC 3339 or as spreadsheets write it. A date without a time is the beginning of the event's day that
/// many days later: a day ends when the next one begins.
fn moment_of(text: &str, days: i64, time_zone: &TimeZone) -> Option<Millis> {
    if let Some(moment) = Millis::parse(text) {
        return Some(moment);
    }
    let text = year_first(text);
    let pieces = Pieces::parse(&text).ok()?;
    // A text with an offset or a time zone that is not RFC 3339 is not supported.
    if pieces.offset().is_some() || pieces.time_zone_annotation().is_some() {
        return None;
    }
    let local = match pieces.time() {
        Some(time) => pieces.date().to_datetime(time),
        None => pieces.date().checked_add(jiff::Span::new().days(days)).ok()?.at(DAY_TURNS, 0, 0, 0),
    };
    Millis::writable(local.to_zoned(time_zone.clone()).ok()?.timestamp())
}

/// Rewrites `1.5.2026 18:00` as `2026-05-01 18:00`: with dots, the day always comes first. With slashes, that is uncertain.
fn year_first(text: &str) -> String {
    let (date, time) = text.find([' ', ',']).map_or((text, ""), |end| text.split_at(end));
    match date.split('.').collect::<Vec<_>>().as_slice() {
        [day, month, year] => format!("{year}-{month:0>2}-{day:0>2}{}", time.trim_start_matches(',')),
        _ => text.to_owned(),
    }
}

/// Joins a text that was typed on several lines of a cell.
fn one_line(text: &str) -> String {
    match text.contains(['\n', '\r', '\t']) {
        true => text.split_whitespace().collect::<Vec<_>>().join(" "),
        false => text.to_owned(),
    }
}

/// Returns the name beside the address, if any, and the address, as in `Ana Roe <ana@example.org>`.
fn read_email(cells: &mut Cells<'_>) -> (Option<String>, Option<String>) {
    let Some(text) = cells.text(Field::Email).filter(|text| !columns::is_nobody(text)) else { return (None, None) };
    match address_of(text) {
        Ok((name, email)) => (name.filter(|name| Text::<NAME>::try_from(name.clone()).is_ok()), Some(email.0)),
        Err(fault) => {
            cells.fault(Field::Email, fault);
            (None, None)
        }
    }
}

/// Parses an address as people paste it.
fn address_of(text: &str) -> Result<(Option<String>, Email), Fault> {
    let bare = |text: &str| -> String {
        let text = text.trim_matches(|end: char| {
            end.is_whitespace() || matches!(end, ';' | ',' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
        });
        let text = match text.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case("mailto:") => text[7..].split('?').next().unwrap_or_default(),
            _ => text,
        };
        text.to_owned()
    };
    let (name, address) =
        match text.trim_end_matches([' ', ';', ',']).strip_suffix('>').and_then(|text| text.rsplit_once('<')) {
            Some((name, address)) => (Some(name.trim().trim_matches(['"', '\'']).trim().to_owned()), bare(address)),
            None => (None, bare(text)),
        };
    let has_several = |text: &str| {
        let parts = text.split(|part: char| part.is_whitespace() || ",;/|<>".contains(part));
        parts.filter(|part| part.trim_matches('@').contains('@')).count() > 1
    };
    if has_several(text) {
        return Err(Fault::TwoEmails);
    }
    Ok((name.filter(|name| !name.is_empty() && !name.contains('@')), Email::try_from(address)?))
}

/// Returns a username for an address: the address itself if it is valid as one.
fn username_of_email(email: &str) -> String {
    if Username::try_from(email.to_owned()).is_ok() {
        return email.to_owned();
    }
    let plain = email.chars().filter(|&character| character.is_ascii_alphanumeric() || "._@+-".contains(character));
    let most = USERNAME - 1 - FINGERPRINT;
    format!("{}-{}", plain.take(most).collect::<String>(), fingerprint(&[email.to_lowercase().as_bytes()]))
}

/// Returns a username for a person of whom only the name is known: readable, and the same for the same name in the same
/// `scope`, such as an event. `number` counts the people of a list with this name, from 1.
pub fn username_of_name(name: &str, scope: &[u8], number: usize) -> String {
    let words = name
        .split_whitespace()
        .map(fold)
        .map(|word| word.chars().filter(char::is_ascii_alphanumeric).collect::<String>());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    let mut readable: String = words.join(".").chars().take(40).collect();
    if readable.is_empty() {
        readable.push_str("guest");
    }
    let mark = fingerprint(&[scope, as_read(name).as_bytes()]);
    if number == 1 { format!("{readable}-{mark}") } else { format!("{readable}-{mark}-{number}") }
}

const FINGERPRINT: usize = 8;

fn fingerprint(parts: &[&[u8]]) -> String {
    let hash = parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize();
    HEXLOWER.encode(&hash[..FINGERPRINT / 2])
}

/// Normalizes a name as people read it: differences in case, spaces and the encoding of accents do not count.
pub fn as_read(name: &str) -> String {
    crate::fold::tidy(name).to_lowercase()
}

/// The values that may occur only once in a file.
#[derive(Default)]
struct Seen {
    references: HashMap<String, u64>,
    addresses: HashMap<String, String>,
}

impl Seen {
    fn meet(&mut self, row: &TicketRow, faults: &mut Faults) {
        if let Some(reference) = &row.reference
            && let Some(first) = self.references.insert(reference.clone(), row.line)
        {
            faults.line(row.line, Fault::ReferenceTwice { line: first });
        }
        if let Some(Person { username: Some(username), email: Some(email), .. }) = &row.person {
            let known = self.addresses.entry(username.to_ascii_lowercase()).or_insert_with(|| email.clone());
            if known.to_lowercase() != email.to_lowercase() {
                faults.line(row.line, Fault::PersonDiffers);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const ALL: Reading =
        Reading { columns: None, ignore_unknown: false, no_header: false, most: usize::MAX, time_zone: None };

    fn list(file: impl AsRef<[u8]>) -> List {
        List::read(file.as_ref(), &ALL).unwrap()
    }

    fn tickets(list: &List) -> usize {
        list.rows.iter().filter(|row| !row.is_void).count()
    }

    /// Returns each fault as `field: message`.
    fn faults(file: impl AsRef<[u8]>) -> Vec<String> {
        match List::read(file.as_ref(), &ALL) {
            Ok(list) => {
                list.faults.into_told().iter().map(|error| format!("{}: {}", error.field, error.message())).collect()
            }
            Err(error) => error.errors().iter().map(|error| format!("{}: {}", error.field, error.message())).collect(),
        }
    }

    /// Returns line, seat and gate.
    fn places(file: impl AsRef<[u8]>) -> Vec<(u64, String, String)> {
        let file = file.as_ref();
        assert_eq!(faults(file), [""; 0], "{}", String::from_utf8_lossy(file));
        let text = |place: Option<Place>| place.map(Place::into_string).unwrap_or_default();
        list(file).rows.into_iter().map(|row| (row.line, text(row.seat), text(row.gate))).collect()
    }

    /// Returns the person of the only row.
    fn person(header: &str, row: &str) -> (Option<String>, Option<String>, Option<String>) {
        let file = format!("{header}\n{row}\n");
        assert_eq!(faults(&file), [""; 0], "{row}");
        let Person { username, full_name, email, .. } = list(&file).rows.remove(0).person.unwrap();
        (username, full_name, email)
    }

    #[test]
    fn every_usual_form_of_a_file_is_read() {
        let rows = vec![(2, "A1".into(), "North".into()), (3, "A2".into(), "South".into())];
        for file in [
            "seat,gate\nA1,North\nA2,South\n",
            "seat,gate\nA1,North\nA2,South",
            "seat,gate\r\nA1,North\r\nA2,South\r\n",
            "seat,gate\rA1,North\rA2,South\r",
            "seat;gate\nA1;North\nA2;South\n",
            "seat\tgate\nA1\tNorth\nA2\tSouth\n",
            "\u{feff}seat,gate\nA1,North\nA2,South\n",
            "\u{feff}seat;gate\r\nA1;North\r\nA2;South",
            "gate,seat\nNorth,A1\nSouth,A2\n",
            " Seat , GATE \n A1 ,\tNorth\n A2 , South \n",
            "\"seat\",\"gate\"\n\"A1\",\"North\"\n\"A2\",South\n",
            "seat,gate,username\nA1,North,\nA2,South,\"\"\n",
            "seat,gate,username\nA1,North\nA2,South\n",
            "seat,gate\nA1,North\nA2,South\n\n\r\n",
            "seat,gate,,\nA1,North,,\nA2,South,,\n,,,\n",
            "seat,gate,,\nA1,North\nA2,South,\n",
            "Asiento;Puerta\nA1;North\nA2;South\n",
            "Sitzplatz;Eingang\nA1;North\nA2;South\n",
        ] {
            assert_eq!(places(file), rows, "{file:?}");
        }
        let moved = vec![(3, "A1".into(), "North".into()), (4, "A2".into(), "South".into())];
        for file in [
            "sep=;\nseat;gate\nA1;North\nA2;South\n",
            "\u{feff}\"sep=,\"\r\nseat,gate\r\nA1,North\r\nA2,South\r\n",
            "Guests of the gala,\nseat,gate\nA1,North\nA2,South\n",
            ",,\nseat,gate,\nA1,North,\nA2,South,\n",
        ] {
            assert_eq!(places(file), moved, "{file:?}");
        }
    }

    #[test]
    fn a_list_of_more_columns_than_anybody_needs_is_refused_at_once() {
        let header = |columns: usize| format!("seat{}\n", ",".repeat(columns - 1));
        assert_eq!(places(format!("{}A1", header(COLUMNS))).len(), 1);
        let refused = List::read(format!("{}A1", header(COLUMNS + 1)).as_bytes(), &ALL).err();
        assert!(refused.is_some_and(|error| error.to_string().contains("more than 256 columns")));
    }

    #[test]
    fn a_holder_may_come_with_the_ticket() {
        let header = "email,seat,full_name,gate,username";
        let some = |text: &str| Some(text.to_owned());
        let ana = person(header, "ana@example.org,A1,\"Roe, \"\"Ana\"\"\",North,ana");
        assert_eq!(ana, (some("ana"), some("Roe, \"Ana\""), some("ana@example.org")));
        assert_eq!(person(header, ",A2,,North,bo"), (some("bo"), None, None));
        assert_eq!(person("first name,last name", "Ana,Roe"), (None, some("Ana Roe"), None));
        assert_eq!(person("Nachname;Vorname", "Roe;"), (None, some("Roe"), None));
        assert_eq!(person("name", "\"Ana\nRoe\""), (None, some("Ana Roe"), None));
        for (header, line) in [
            ("Nombre;Apellidos", "Ana;Roe"),
            ("Vorname;Name", "Ana;Roe"),
            ("Nom;Pr\u{e9}nom", "Roe;Ana"),
            ("Name;Last name", "Ana Roe;ROE"),
            ("name;first_name;last_name", "Ana Roe;Anna;Row"),
        ] {
            assert_eq!(person(header, line), (None, some("Ana Roe"), None), "{header}");
        }
        assert_eq!(person("email,name", "anonymous,Ana"), (None, some("Ana"), None));
    }

    #[test]
    fn an_address_is_read_as_people_write_it() {
        for (cell, email) in [
            ("ana@example.org", "ana@example.org"),
            ("ana+gala@example.org", "ana+gala@example.org"),
            ("ana@mail.box.example.co.uk", "ana@mail.box.example.co.uk"),
            ("Ana.Roe@Example.ORG", "Ana.Roe@Example.ORG"),
            (" ana@example.org \u{a0}", "ana@example.org"),
            ("ana@example.org;", "ana@example.org"),
            ("\u{200b}ana@example.org", "ana@example.org"),
            ("mailto:ana@example.org", "ana@example.org"),
            ("MAILTO:ana@example.org?subject=Gala", "ana@example.org"),
            ("<ana@example.org>", "ana@example.org"),
        ] {
            assert_eq!(
                person("email", &format!("\"{cell}\"")),
                (Some(email.into()), None, Some(email.into())),
                "{cell}"
            );
        }
        for (cell, email, begins) in [
            ("o'brien@example.org", "o'brien@example.org", "obrien@example.org-"),
            ("ana@münchen.example", "ana@münchen.example", "ana@mnchen.example-"),
            ("ana/b=c@example.org", "ana/b=c@example.org", "anabc@example.org-"),
        ] {
            let (username, _, found) = person("email", cell);
            let username = username.unwrap();
            assert_eq!(found.as_deref(), Some(email));
            assert!(username.starts_with(begins) && username.len() == begins.len() + FINGERPRINT, "{username}");
            assert_eq!(
                person("email", &cell.to_uppercase()).0.unwrap().split('-').next_back(),
                username.split('-').next_back()
            );
        }
        let long = format!("{}@example.org", "a".repeat(60));
        assert_eq!(person("email", &long).0.unwrap().len(), USERNAME);
        let named = |cell: &str| person("email", &format!("\"{}\"", cell.replace('"', "\"\""))).1;
        assert_eq!(named("Ana Roe <ana@example.org>").as_deref(), Some("Ana Roe"));
        assert_eq!(named("\"Roe, Ana\" <mailto:ana@example.org>").as_deref(), Some("Roe, Ana"));
        assert_eq!(person("email,name", "Ana R <ana@example.org>,Ana Roe").1.as_deref(), Some("Ana Roe"));
        for cell in [
            "a@example.org, b@example.org",
            "a@example.org;b@example.org",
            "a@example.org b@example.org",
            "a@x.org/b@x.org",
        ] {
            assert_eq!(
                faults(format!("email\n\"{cell}\"\n")),
                ["line 2: email must be one e-mail address, not several"]
            );
        }
        for cell in ["nowhere", "@example.org", "ana@", "a b@example.org", "ana@@example.org"] {
            assert_eq!(
                faults(format!("email\n\"{cell}\"\n")),
                ["line 2: email must be an e-mail address of at most 254 characters"]
            );
        }
    }

    #[test]
    fn a_name_alone_makes_a_username_that_stays() {
        let made = |name: &str, number| username_of_name(name, b"gala", number);
        assert!(made("Sofía de la Peña", 1).starts_with("sofia.de.la.pena-"));
        assert_eq!(made("Sofía", 1), made("sofi\u{301}a ", 1), "as people read it");
        assert_ne!(made("Sofía", 1), made("Sofia", 1));
        assert_ne!(made("Sofía", 1), username_of_name("Sofía", b"another", 1));
        assert_eq!(made("Sofía", 2), format!("{}-2", made("Sofía", 1)));
        for name in ["王小明", "!!!", &"Long ".repeat(40)] {
            assert!(Username::try_from(made(name, 250_000)).is_ok(), "{}", made(name, 250_000));
        }
        assert!(made("王小明", 1).starts_with("guest-"));
    }

    #[test]
    fn the_exports_of_sellers_and_forms_are_understood() {
        // seat, full name, email, reference
        for (file, expected) in [
            (
                "Order code,Attendee name,Attendee name: Given name,Attendee name: Family name,Product,Price,Checked in,Checked out,Automatically checked in,Secret,E-mail,Company,Voucher code,Order date,Requires special attention,Comment,Seat ID,Seat name,Seat zone,Seat row,Seat number\n\
                 ABCDE,Ana Roe,Ana,Roe,Ticket,10.00,,,No,x,ana@example.org,,,2026-05-01,No,,S1,\"Row 1, Seat 2\",Main,1,2\n",
                json!(["Row 1, Seat 2", "Ana Roe", "ana@example.org", "ABCDE"]),
            ),
            (
                "Event slug;Event name;Order code;Position ID;Status;Email;Phone number;Order date;Product;Attendee name;Attendee email;Ticket secret\n\
                 gala;Gala;ABCDE;2;Paid;buyer@example.org;;2026-05-01;Ticket;Ana Roe;ana@example.org;x\n",
                json!(["", "Ana Roe", "ana@example.org", "ABCDE-2"]),
            ),
            (
                "Number,Ticket Created Date,Ticket,Ticket Full Name,Ticket First Name,Ticket Last Name,Ticket Email,Ticket Company Name,Event,Void Status,Price,Ticket Reference,Tags,Unique Ticket URL,Order Reference,Order Name,Order Email\n\
                 1,2026-05-01,Early,Ana Roe,Ana,Roe,ana@example.org,,Gala,,10,VXQM-1,,https://t.example.org,VXQM,Buyer,buyer@example.org\n",
                json!(["", "Ana Roe", "ana@example.org", "VXQM-1"]),
            ),
            (
                "api_id,name,first_name,last_name,email,phone_number,created_at,approval_status,checked_in_at,qr_code_url,ticket_type_id,ticket_name\n\
                 gst-1,Ana Roe,Ana,Roe,ana@example.org,,2026-05-01T00:00:00Z,approved,,https://x,tt-1,Standard\n\
                 gst-2,Ben Roe,Ben,Roe,ben@example.org,,2026-05-01T00:00:00Z,declined,,https://x,tt-1,Standard\n",
                json!(["", "Ana Roe", "ana@example.org", "gst-1"]),
            ),
            (
                "Order #,Order Date,First Name,Last Name,Email,Quantity,Price Tier,Ticket Type,Attendee #,Group,Order Type,Currency,Total Paid,Fees Paid,Eventbrite Fees,Eventbrite Payment Processing,Attendee Status,Buyer Last Name,Buyer First Name,Buyer Email\n\
                 77,2026-05-01,Ana,Roe,ana@example.org,1,,GA,9001,,Free Order,EUR,0,0,0,0,Attending,Poe,Bo,bo@example.org\n\
                 77,2026-05-01,Ben,Roe,ben@example.org,1,,GA,9002,,Free Order,EUR,0,0,0,0,Not Attending,Poe,Bo,bo@example.org\n",
                json!(["", "Ana Roe", "ana@example.org", "9001"]),
            ),
            (
                "order_id,order_number,order_date,paid_date,status,order_total,customer_email,billing_first_name,billing_last_name,billing_phone,customer_note\n\
                 7,700,2026-05-01,2026-05-01,completed,20,ana@example.org,Ana,Roe,600,\n\
                 8,701,2026-05-01,,on-hold,20,ben@example.org,Ben,Roe,600,\n",
                json!(["", "Ana Roe", "ana@example.org", "700"]),
            ),
            (
                "Marca temporal,Dirección de correo electrónico,¿Cuál es tu nombre?,¿Cuántas entradas?\n\
                 01/05/2026 10:00:00,ana@example.org,Ana Roe,1\n",
                json!(["", "Ana Roe", "ana@example.org", null]),
            ),
            (
                "ID\tStart time\tCompletion time\tEmail\tName\tYour name\tYour email address\n\
                 1\t46143.4\t46143.5\tanonymous\t\tAna Roe\tana@example.org\n",
                json!(["", "Ana Roe", "ana@example.org", null]),
            ),
        ] {
            assert_eq!(faults(file), [""; 0], "{file}");
            let read = list(file);
            assert_eq!((tickets(&read), read.lines - read.left_out), (1, 1), "{file}");
            let row = &read.rows[0];
            let person = row.person.clone().unwrap();
            let seat = row.seat.clone().map(Place::into_string).unwrap_or_default();
            assert_eq!(json!([seat, person.full_name, person.email, row.reference]), expected, "{file}");
        }
    }

    #[test]
    fn a_quantity_is_so_many_tickets_each_with_a_reference_of_its_own() {
        let references = |file: &str| -> Vec<Value> {
            assert_eq!(faults(file), [""; 0], "{file}");
            list(file).rows.iter().map(|row| json!(row.reference)).collect()
        };
        assert_eq!(references("name,quantity\nAna,3\n"), [Value::Null, Value::Null, Value::Null]);
        assert_eq!(references("reference,quantity\nX,2\nY,1.0\n"), ["X", "X-2", "Y"]);
        assert_eq!(references("order,name\nX,Ana\nX,Ben\nY,Cy\nX,Dee\n"), ["X", "X-2", "Y", "X-3"]);
        assert_eq!(references("order,quantity\nX,2\nX,2\n"), ["X", "X-2", "X-3", "X-4"]);
        for quantity in ["0", "51", "-1", "two", "1.5", "99999999999999999999"] {
            assert_eq!(
                faults(format!("quantity\n{quantity}\n")),
                ["line 2: quantity must be a number from 1 to 50"],
                "{quantity}"
            );
        }
        assert_eq!(references("name,quantity\nAna,\"2,00\"\n").len(), 2);
        assert_eq!(faults("seat,quantity\nA1,2\n"), ["line 2: quantity must be 1, because the line names a seat"]);
        assert_eq!(faults("reference\nX\nX\n"), ["line 3: has the same reference as line 2"]);
    }

    #[test]
    fn columns_are_what_somebody_says_they_are() {
        let how = |columns: &str, ignore_unknown| {
            let field = |name: &str| name.parse().ok();
            Reading { columns: Some(columns.split(',').map(field).collect()), ignore_unknown, most: 9, ..ALL }
        };
        let file = "Wer?,Wo?,seat\nAna,North,x\n";
        let list = List::read(file.as_bytes(), &how("full_name,gate,", false)).unwrap();
        assert!(list.faults.is_empty());
        let row = &list.rows[0];
        assert_eq!((row.seat.is_none(), row.gate.as_ref().map(Place::as_str)), (true, Some("North")));
        let list = List::read(file.as_bytes(), &how("full_name,gate", false)).unwrap();
        assert_eq!(list.faults.into_told()[0].field, "columns");
        let list = List::read(file.as_bytes(), &Reading { ignore_unknown: true, ..ALL }).unwrap();
        assert!(list.faults.is_empty());
        assert_eq!(
            serde_json::to_value(&list.columns).unwrap()[0],
            json!({ "name": "Wer?", "field": null, "known": false })
        );
        let list = List::read(b"Wer?\nAna\n", &Reading { ignore_unknown: true, ..ALL }).unwrap();
        assert_eq!(list.faults.into_told()[0].code(), "no_column");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        const CHARACTERS: &str = "must have no control characters";
        let known = Field::names().join(", ");
        let (none, unknown) = (format!("line 1: names none of the columns {known}"), |columns: &str| {
            format!("line 1: has unknown columns: {columns}. Known columns are {known}; map or ignore the others")
        });
        let email = |line: u64| format!("line {line}: email must be an e-mail address of at most 254 characters");
        for (file, errors) in [
            ("", vec!["file: is empty"]),
            ("\u{feff} \r\n", vec!["file: is empty"]),
            ("what,else\n", vec![&unknown("what, else")]),
            ("inside\ntrue\n", vec![&none]),
            ("seat,inside\nA1,true\n,true\n", vec!["line 3: must not be empty"]),
            ("seat,gate", vec!["line 1: must hold at least one ticket"]),
            ("seat,gate\r\n\r\n", vec!["line 1: must hold at least one ticket"]),
            ("seat,gate,shoe,Why?\nA1,North,1,\n", vec![&unknown("shoe, Why?")]),
            ("A1,North\nA2,North\n", vec![&unknown("A1, North")]),
            ("seat,gate,Seat\nA1,North,A1\n", vec!["line 1: names the column seat twice"]),
            ("seat,gate\nA2,North,x\n", vec!["line 2: must have 2 fields, as the header has, not 3"]),
            ("Asiento,Correo\nA1,x\n", vec!["line 2: Correo must be an e-mail address of at most 254 characters"]),
            (
                "seat,email\n#REF!,#N/A\n",
                vec![
                    "line 2: seat is a formula that failed, or was never calculated; open the file in a spreadsheet and save it again",
                    "line 2: email is a formula that failed, or was never calculated; open the file in a spreadsheet and save it again",
                ],
            ),
            ("seat,gate,username\nA1,North,Attendance\n", vec!["line 2: username is a reserved name"]),
            ("seat,gate\n\"A\0\",North\n", vec![&format!("line 2: seat {CHARACTERS}")]),
            // Lines as an editor counts them, whatever the line breaks and the content of fields.
            ("seat,email\r\nA1,\r\nA2,x\r\n", vec![&email(3)]),
            ("seat,email\n\n\nA1,\n\r\n\nA2,x\n", vec![&email(7)]),
            ("seat,email\rA1,\r\rA2,x\r", vec![&email(4)]),
            ("sep=;\nseat;email\nA1;x\n", vec![&email(3)]),
            (
                "seat,email\n\"A\n1\",x@y\r\n\"A\r\n2\",\nA3,x\n",
                vec![&format!("line 2: seat {CHARACTERS}"), &format!("line 4: seat {CHARACTERS}"), &email(6)],
            ),
            // Everything that is wrong with a line, at once.
            (
                "seat,gate,username,email,quantity\n\"A\0\",N,a b,x,70\n",
                vec![
                    &format!("line 2: seat {CHARACTERS}"),
                    "line 2: email must be an e-mail address of at most 254 characters",
                    "line 2: username must have 1 to 64 of the characters A-Z a-z 0-9 . _ @ + -",
                    "line 2: quantity must be 1, because the line names a seat",
                ],
            ),
            // A quote that nothing ends takes the rest of the file with it.
            ("seat,gate\nA1,North\n\"A2,North\nA3,North\n", vec!["line 3: has a quote that is never closed"]),
            ("seat,gate\nA1,North\nA2,\"Nor\"\"th\nA3,North\n", vec!["line 3: has a quote that is never closed"]),
            ("seat,gate\n\"A\n1\",\"North\nA3,North\n", vec!["line 3: has a quote that is never closed"]),
        ] {
            assert_eq!(faults(file), errors, "{file:?}");
        }
    }

    #[test]
    fn a_line_is_refused_by_a_code_with_its_column() {
        let long = "n".repeat(65);
        let told = |file: &str| -> Value {
            let list = List::read(file.as_bytes(), &Reading { most: 3, ..Reading::default() }).unwrap();
            let mut told = serde_json::to_value(list.faults.into_told()).unwrap();
            for error in told.as_array_mut().unwrap() {
                error.as_object_mut().unwrap().remove("message");
            }
            told
        };
        for (file, line, code, params) in [
            (
                format!("seat,gate\nA1,{long}\n").as_str(),
                2,
                "too_long",
                json!({ "column": "gate", "named": "gate", "most": 64 }),
            ),
            ("seat,Tor\n\nA1,\"a\nb\"\n", 3, "bad_characters", json!({ "column": "gate", "named": "Tor" })),
            (
                "seat,gate,User\nA1,N,a b\n",
                2,
                "not_a_username",
                json!({ "column": "username", "named": "User", "most": 64 }),
            ),
            (
                "seat,gate,username\nA1,N,attendance\n",
                2,
                "reserved",
                json!({ "column": "username", "named": "username" }),
            ),
            (
                "seat,gate,username,Mail\nA1,N,a,b\n",
                2,
                "not_an_email",
                json!({ "column": "email", "named": "Mail", "most": 254 }),
            ),
            ("reference\nX\nY\nX\n", 4, "reference_twice", json!({ "line": 2 })),
            ("seat,gate\nA1,N\nA2,N\nA3,N\nA4,N\n", 5, "too_many_tickets", json!({ "most": 3 })),
            ("gate,quantity\nN,4\n", 2, "too_many_tickets", json!({ "most": 3 })),
            ("seat,gate\nA1,N,O\n", 2, "wrong_field_count", json!({ "expected": 2, "found": 3 })),
            ("seat,gate,shoe\nA1,N,\n", 1, "unknown_column", json!({ "columns": ["shoe"], "known": Field::names() })),
            ("seat,status\nA1,vip\nA2,void\n", 1, "unknown_status", json!({ "words": ["vip"] })),
            ("ana@example.org,Ana\n", 1, "no_header", json!({})),
            ("gate,GATE\nN,N\n", 1, "column_twice", json!({ "column": "gate" })),
            ("seat,gate\n", 1, "no_tickets", json!({})),
        ] {
            assert_eq!(
                told(file),
                json!([{ "field": format!("line {line}"), "code": code, "params": params }]),
                "{file:?}"
            );
        }
    }

    #[test]
    fn so_many_faults_are_told_and_how_many_there_are_besides() {
        let file = format!("email\n{}", "nowhere\n".repeat(ERRORS_TOLD + 1_050));
        let told = faults(file);
        assert_eq!(told.len(), ERRORS_TOLD + 1);
        assert!(told[ERRORS_TOLD - 1].starts_with(&format!("line {}: ", ERRORS_TOLD + 1)));
        assert_eq!(told[ERRORS_TOLD], "file: and 1050 more faults");
    }

    #[test]
    fn no_error_repeats_a_field_of_the_file() {
        let file = "seat,gate,username,full_name,email,quantity\nS3CRET\x07,G,,,,\nS,S3CRET\x07,,,,\nS1,G,S3CRET!,,,\n\
                    S2,G,u,S3CRET\x07,,\nS3,G,u,,S3CRET,\nS4,G,u,,,S3CRET\n";
        let errors = faults(file);
        assert_eq!(errors.len(), 6);
        assert!(!errors.concat().contains("S3CRET"), "{errors:?}");
    }

    #[test]
    fn what_says_itself_that_it_is_no_ticket_is_left_out() {
        let read = list("name,status\nAna,valid\nBen,revoked\nCy,used\nDee,Cancelled\n");
        assert_eq!((tickets(&read), read.left_out, read.lines), (2, 2, 4));
        assert_eq!(read.notices, [Fault::LinesLeftOut { count: 2 }]);
        let unknown = "name,status\nAna,vip\n";
        assert_eq!(faults(unknown).len(), 1);
        let read = List::read(unknown.as_bytes(), &Reading { ignore_unknown: true, ..ALL }).unwrap();
        assert_eq!((read.rows.len(), read.faults.is_empty()), (1, true));
    }

    #[test]
    fn a_list_loses_nobody_for_want_of_a_header() {
        let columns = Some(vec![Some(Field::FullName), Some(Field::Email)]);
        let file = "Ana Roe,ana@example.org\nBen Roe,ben@example.org\n";
        let read = List::read(file.as_bytes(), &Reading { columns: columns.clone(), ..ALL }).unwrap();
        assert_eq!(read.rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 2]);
        assert!(read.faults.is_empty());
        let names = "Ana Roe\nBen Roe\n";
        for (no_header, lines) in [(true, vec![1, 2]), (false, vec![2])] {
            let columns = Some(vec![Some(Field::FullName)]);
            let read = List::read(names.as_bytes(), &Reading { columns, no_header, ..ALL }).unwrap();
            assert_eq!(read.rows.iter().map(|row| row.line).collect::<Vec<_>>(), lines);
        }
        // The question of a form may contain an address.
        assert!(faults("Questions? help@example.org,What\nAna,A1\n")[0].contains("unknown columns: Questions? help"));
    }

    #[test]
    fn sums_and_headers_that_come_again_are_nobody() {
        let read = list("name,seat,quantity\nAna,,1\nname,seat,quantity\nBen,,2\nTOTAL:,,3\n,Summe,3\n");
        assert_eq!((read.rows.len(), read.lines), (3, 4));
        assert_eq!(read.notices, [Fault::SumsLeftOut { lines: vec![5, 6] }]);
        // Somebody may have this name.
        for line in ["Total,,total@example.org,", "Suma,P\u{e9}rez,,", "Total,,,A1"] {
            assert_eq!(list(format!("first name,last name,email,seat\n{line}\n")).rows.len(), 1, "{line}");
        }
    }

    #[test]
    fn what_excel_leaves_out_at_the_end_of_a_line_is_empty() {
        assert_eq!(places("name,seat,gate\nAna,A1,North\nBen,A2\nCy\n").len(), 3);
    }

    #[test]
    fn letters_that_were_mangled_before_are_told() {
        assert_eq!(list("name\nSofÃ\u{ad}a MuÃ±oz\n").notices, [Fault::MangledLetters]);
        assert_eq!(list("name\nSÃO JOÃO, Ãngela\n").notices, []);
    }

    #[test]
    fn a_row_and_a_seat_are_one_seat() {
        assert_eq!(
            faults("Row,Seat,Name\n3,,Ana\n,7,Ben\n"),
            ["line 2: Seat must not be empty", "line 3: Row must not be empty",]
        );
        assert_eq!(
            places("Fila;Asiento;Puerta\n3;12;N\n;;N\n"),
            [(2, "3-12".into(), "N".into()), (3, String::new(), "N".into())]
        );
    }

    #[test]
    fn nothing_is_looked_for_in_what_no_field_can_hold() {
        let many = (0..600_000).map(|number| format!("{number:06} ")).collect::<String>();
        for (columns, cell) in
            [("name,first name", &many), ("status,name", &"\u{fdfa}".repeat(300_000)), ("email,name", &many)]
        {
            let told = faults(format!("{columns}\n{cell},{cell}\n"));
            assert!(told[0].contains("must have at most 200 characters"), "{columns}: {told:?}");
        }
        assert_eq!(faults(format!("order,quantity\n{0}X,{1}\n{0}X,1\n", "", usize::MAX)).len(), 1);
        let read = list(format!("name,{}\n{}\n", "?".repeat(9_000), "Ana,") + &"x".repeat(9_000));
        assert!(read.sample.concat().iter().chain([&read.columns[1].name]).all(|text| text.len() <= SHOWN));
    }

    #[test]
    fn long_texts_count_for_several_tickets() {
        let made = |name: &str| {
            let reading = Reading { most: 50, ..ALL };
            List::read(format!("name,quantity\n{name},50\n").as_bytes(), &reading).unwrap().faults.is_empty()
        };
        assert!(made("Ana Roe") && !made(&"é".repeat(190)));
    }

    #[test]
    fn a_seat_that_looks_like_a_date_is_told() {
        for seat in ["2026-02-01", "01/02/2026", "1.2.2026", "01-Feb", "1. Feb", "Feb-01", "02-ene", "3-Mai"] {
            assert_eq!(list(format!("seat\n{seat}\n")).notices, [Fault::SeatsLikeDates { lines: vec![2] }], "{seat}");
        }
        for seat in ["1-2", "A-01", "Mai 123", "MAR", "12-34-56", "Row 3"] {
            assert_eq!(list(format!("seat\n{seat}\n")).notices, [], "{seat}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(file: Vec<u8>) {
            let _ = List::read(&file, &ALL);
        }

        #[test]
        fn reading_what_looks_like_a_list_never_panics(lines in "(\u{feff})?(sep=;\n)?seat[,;]email(\r?\n[\"',;A1é\r\n \0=@]{0,12}){0,8}") {
            let count = breaks_in(lines.as_bytes());
            if let Ok(read) = List::read(lines.as_bytes(), &ALL) {
                prop_assert!(read.rows.iter().all(|row| (2..=count + 1).contains(&row.line)), "{:?}", read.rows);
                prop_assert!(!read.rows.is_empty() || !read.faults.is_empty());
            }
        }
    }
}
