//! Excel workbooks (.xlsx, ECMA-376): the first sheet with rows, as CSV, with each cell as people see it. A workbook is
//! read piece by piece, and rejected if it unpacks to much more than a list of people does: a few KiB can unpack to GiB.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufReader, Read};
use std::ops::Range;

use flate2::read::DeflateDecoder;
use quick_xml::events::{BytesStart, Event};

use super::text::{Encoding, Source, start_of};
use crate::fault::Fault;
use crate::limits::{COLUMNS, WORKBOOK_UNPACKED};

/// The maximum length of a number format in bytes; Excel allows 255 characters.
const LONGEST_FORMAT: usize = 1_000;
/// The maximum number of other sheets that are reported, and of characters of a sheet's name, as in Excel.
const SHEETS_TOLD: usize = 20;
const SHEET_NAME: usize = 31;
/// The maximum number of rows of a sheet, as in Excel.
const ROWS: u32 = 1 << 20;
/// Replaces a formula without a value, as Excel shows one that it cannot calculate.
const NOT_WORKED_OUT: &str = "#CALC!";
/// The maximum number of merged areas.
const MERGED: usize = 1 << 16;
/// The maximum number of bytes between two tags.
const BETWEEN_TAGS: usize = 512 * 1024;
/// The maximum number of bytes of a cell: in Excel it has 32,767 characters.
const LONGEST_CELL: usize = 4 * 32_767;
/// The maximum number of decimals, as in Excel.
const DECIMALS: usize = 30;
/// The maximum number of nested tags. Those of a workbook are ten deep.
const DEPTH: usize = 100;

type Result<T> = std::result::Result<T, Fault>;

pub(super) fn read(file: &[u8]) -> Result<Source<'static>> {
    read_within(file, WORKBOOK_UNPACKED)
}

/// `most` is the maximum number of bytes unpacked. Texts may be an eighth of that.
fn read_within(file: &[u8], most: usize) -> Result<Source<'static>> {
    let mut archive = Archive::open(file, most).ok_or(Fault::BrokenWorkbook)?;
    let book = Book::read(&mut archive)?;
    for (name, part) in &book.sheets {
        let Filled { csv, rows, hidden } = book.sheet(&mut archive, part)?;
        if !rows.is_empty() {
            let text = String::from_utf8(csv).map_err(|_| Fault::BrokenWorkbook)?.into();
            let (sheet, encoding) = (Some(start_of(name, SHEET_NAME)), Encoding::Workbook);
            let others = book.sheets.iter().filter(|(_, other)| other != part).take(SHEETS_TOLD);
            let other_sheets = others.map(|(name, _)| start_of(name, SHEET_NAME)).collect();
            return Ok(Source { text, separator: b',', encoding, sheet, rows, before: 0, hidden, other_sheets });
        }
    }
    Err(Fault::NoTickets)
}

/// A file in the archive: how it is packed, and where.
struct Part {
    is_deflated: bool,
    packed: Range<usize>,
}

/// The archive (PKWARE's APPNOTE, without encryption, split archives and 64-bit sizes, which no workbook of this size needs).
struct Archive<'a> {
    file: &'a [u8],
    parts: HashMap<String, Part>,
    /// The number of bytes that may still be unpacked.
    left: usize,
    /// The maximum number of bytes of all texts, and of the sheet as CSV.
    texts: usize,
}

impl<'a> Archive<'a> {
    /// Reads the directory at the end of the file. `None` if there is none.
    fn open(file: &'a [u8], most: usize) -> Option<Self> {
        let number = |at: usize, bytes: usize| -> Option<usize> {
            let bytes = file.get(at..at.checked_add(bytes)?)?;
            Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
        };
        let last = file.len().checked_sub(22)?;
        let end = (last.saturating_sub(0xffff)..=last).rev().find(|&at| file[at..].starts_with(b"PK\x05\x06"))?;
        let (count, mut at) = (number(end + 10, 2)?, number(end + 16, 4)?);
        let mut parts = HashMap::new();
        for _ in 0..count {
            let (method, length, local) = (number(at + 10, 2)?, number(at + 20, 4)?, number(at + 42, 4)?);
            let (name, extra, comment) = (number(at + 28, 2)?, number(at + 30, 2)?, number(at + 32, 2)?);
            let path = String::from_utf8_lossy(file.get(at + 46..at + 46 + name)?).into_owned();
            let start = local + 30 + number(local + 26, 2)? + number(local + 28, 2)?;
            let packed = start..start.checked_add(length)?;
            file.get(packed.clone())?;
            parts.insert(path, Part { is_deflated: method == 8, packed });
            at += 46 + name + extra + comment;
        }
        Some(Self { file, parts, left: most, texts: most / 8 })
    }

    /// Calls `meet` with each event of an XML part. A missing part has none.
    fn events(&mut self, path: &str, mut meet: impl FnMut(Event<'_>) -> Result<()>) -> Result<()> {
        let Some(part) = self.parts.get(path) else { return Ok(()) };
        let packed = &self.file[part.packed.clone()];
        let unpacked: Box<dyn Read + '_> =
            if part.is_deflated { Box::new(DeflateDecoder::new(packed)) } else { Box::new(packed) };
        let bounded = Bounded { unpacked, left: &mut self.left, since_tag: 0 };
        let mut reader = quick_xml::Reader::from_reader(BufReader::new(bounded));
        let (mut buffer, mut depth) = (Vec::new(), 0);
        loop {
            let event = reader.read_event_into(&mut buffer).map_err(|error| match error {
                quick_xml::Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => Fault::LargeWorkbook,
                _ => Fault::BrokenWorkbook,
            })?;
            match event {
                Event::Eof => return Ok(()),
                Event::Start(_) if depth == DEPTH => return Err(Fault::BrokenWorkbook),
                Event::Start(_) => depth += 1,
                Event::End(_) => depth -= 1,
                _ => {}
            }
            meet(event)?;
            buffer.clear();
        }
    }
}

/// Fails when a workbook exceeds its limit, in total or between two tags.
struct Bounded<'a> {
    unpacked: Box<dyn Read + 'a>,
    left: &'a mut usize,
    since_tag: usize,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.unpacked.read(buffer)?;
        self.since_tag = match buffer[..read].iter().rposition(|&byte| byte == b'<') {
            Some(tag) => read - tag,
            None => self.since_tag + read,
        };
        match self.left.checked_sub(read) {
            Some(left) if self.since_tag <= BETWEEN_TAGS => {
                *self.left = left;
                Ok(read)
            }
            _ => Err(io::ErrorKind::FileTooLarge.into()),
        }
    }
}

/// Limits what is stored of a part: a few packed or often repeated bytes may stand for as much as there is memory.
struct Kept {
    bytes: usize,
    most: usize,
}

impl Kept {
    /// The number of bytes an entry takes besides its texts.
    const ENTRY: usize = 16;

    fn at_most(most: usize) -> Self {
        Self { bytes: 0, most }
    }

    fn add(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        if self.bytes > self.most { Err(Fault::LargeWorkbook) } else { Ok(()) }
    }

    fn entry(&mut self, texts: &[&str]) -> Result<()> {
        self.add(texts.iter().map(|text| text.len()).sum::<usize>() + Self::ENTRY)
    }
}

/// The parts of a workbook that concern all its sheets.
#[derive(Default)]
struct Book {
    /// Names and parts of the visible sheets.
    sheets: Vec<(String, String)>,
    /// All texts concatenated, and the end of each.
    texts: String,
    ends: Vec<usize>,
    /// How numbers are shown, by cell style.
    formats: Vec<Shown>,
    /// Whether days are counted from 1904.
    since_1904: bool,
}

impl Book {
    fn read(archive: &mut Archive<'_>) -> Result<Self> {
        let mut book = Self::default();
        let mut targets = HashMap::new();
        let mut kept = Kept::at_most(archive.texts);
        archive.events("xl/_rels/workbook.xml.rels", |event| {
            if let Event::Start(tag) | Event::Empty(tag) = event
                && let (Some(id), Some(target)) = (attribute(&tag, "Id"), attribute(&tag, "Target"))
            {
                let inside = target.strip_prefix('/').map_or_else(|| format!("xl/{target}"), ToOwned::to_owned);
                kept.entry(&[&id, &inside])?;
                targets.insert(id, inside);
            }
            Ok(())
        })?;
        archive.events("xl/workbook.xml", |event| {
            let (Event::Start(tag) | Event::Empty(tag)) = event else { return Ok(()) };
            match tag.local_name().as_ref() {
                "workbookPr" => {
                    book.since_1904 = matches!(attribute(&tag, "date1904").as_deref(), Some("1" | "true"));
                }
                "sheet" if attribute(&tag, "state").is_none_or(|state| state == "visible") => {
                    let target = attribute(&tag, "id").and_then(|id| targets.get(&id));
                    if let (Some(name), Some(target)) = (attribute(&tag, "name"), target) {
                        kept.entry(&[&name, target])?;
                        book.sheets.push((name, target.clone()));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        book.read_formats(archive)?;
        book.read_texts(archive)?;
        Ok(book)
    }

    fn read_formats(&mut self, archive: &mut Archive<'_>) -> Result<()> {
        let (mut codes, mut is_of_cells) = (HashMap::new(), false);
        let (formats, mut kept) = (&mut self.formats, Kept::at_most(archive.texts));
        archive.events("xl/styles.xml", |event| {
            match event {
                Event::Start(tag) | Event::Empty(tag) => match tag.local_name().as_ref() {
                    "numFmt" => {
                        if let (Some(id), Some(code)) = (attribute(&tag, "numFmtId"), attribute(&tag, "formatCode")) {
                            kept.entry(&[&id])?;
                            codes.insert(id, Shown::by(&code));
                        }
                    }
                    "cellXfs" => is_of_cells = true,
                    "xf" if is_of_cells => {
                        let id = attribute(&tag, "numFmtId").unwrap_or_default();
                        kept.entry(&[])?;
                        formats.push(codes.get(&id).copied().unwrap_or_else(|| Shown::built_in(&id)));
                    }
                    _ => {}
                },
                Event::End(tag) if tag.local_name().as_ref() == "cellXfs" => is_of_cells = false,
                _ => {}
            }
            Ok(())
        })
    }

    fn read_texts(&mut self, archive: &mut Archive<'_>) -> Result<()> {
        let (mut is_text, mut is_phonetic, mut kept) = (false, false, Kept::at_most(archive.texts));
        archive.events("xl/sharedStrings.xml", |event| {
            let before = self.texts.len();
            match &event {
                Event::Start(tag) if tag.local_name().as_ref() == "t" => is_text = !is_phonetic,
                Event::Start(tag) if tag.local_name().as_ref() == "rPh" => is_phonetic = true,
                Event::End(tag) => match tag.local_name().as_ref() {
                    "t" => is_text = false,
                    "rPh" => is_phonetic = false,
                    "si" => {
                        kept.entry(&[])?;
                        self.ends.push(before);
                    }
                    _ => {}
                },
                Event::Empty(tag) if tag.local_name().as_ref() == "si" => {
                    kept.entry(&[])?;
                    self.ends.push(before);
                }
                _ if is_text => append(&event, &mut self.texts)?,
                _ => {}
            }
            kept.add(self.texts.len() - before)
        })
    }

    fn text(&self, number: &str) -> Option<&str> {
        let number: usize = number.parse().ok()?;
        let start = number.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.texts.get(start..*self.ends.get(number)?)
    }

    /// Reads a sheet.
    fn sheet(&self, archive: &mut Archive<'_>, part: &str) -> Result<Filled> {
        let mut sheet = Sheet {
            book: self,
            most: archive.texts,
            csv: writer(),
            rows: Vec::new(),
            hidden: 0,
            row: 0,
            is_hidden: false,
            cells: Vec::new(),
            kept: Kept::at_most(archive.texts),
            cell: Cell::default(),
            merged: Vec::new(),
        };
        archive.events(part, |event| sheet.meet(&event))?;
        let Sheet { csv, rows, hidden, mut merged, .. } = sheet;
        let csv = csv.into_inner().map_err(|_| Fault::BrokenWorkbook)?;
        if merged.is_empty() {
            return Ok(Filled { csv, rows, hidden });
        }
        merged.sort_unstable_by_key(|area| (area.rows.start, area.column));
        Ok(Filled { csv: fill(&csv, &rows, &merged, archive.texts)?, rows, hidden })
    }
}

/// A sheet as CSV, the number of each row that is not empty, and how many of these are hidden.
struct Filled {
    csv: Vec<u8>,
    rows: Vec<u32>,
    hidden: usize,
}

fn writer() -> csv::Writer<Vec<u8>> {
    csv::WriterBuilder::new().flexible(true).from_writer(Vec::new())
}

/// A merged area of several rows. Only its first cell has the value that people see.
#[derive(Debug, PartialEq)]
struct Merged {
    rows: Range<u32>,
    column: usize,
}

impl Merged {
    /// Parses a reference such as `C3:C7`. `None` if it is within one row.
    fn read(reference: &str) -> Option<Self> {
        let (first, last) = reference.split_once(':')?;
        let row = |cell: &str| cell.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).parse::<u32>().ok();
        let rows = row(first)?..row(last)?.checked_add(1)?;
        let column = column_of(first).filter(|&column| column < COLUMNS)?;
        (rows.len() > 1).then_some(Self { rows, column })
    }
}

/// Copies the value of merged areas into each of their rows. `merged` is sorted by first rows.
fn fill(csv: &[u8], rows: &[u32], merged: &[Merged], most: usize) -> Result<Vec<u8>> {
    let mut records = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv).into_records();
    let (mut filled, mut next) = (writer(), merged.iter().peekable());
    // The areas that include the present row, by column, with their values.
    let mut open: BTreeMap<usize, (&Merged, String)> = BTreeMap::new();
    for &row in rows {
        let record = records.next().and_then(std::result::Result::ok).ok_or(Fault::BrokenWorkbook)?;
        let mut cells: Vec<String> = record.iter().map(ToOwned::to_owned).collect();
        open.retain(|_, (area, _)| area.rows.end > row);
        for (&column, (_, shown)) in &open {
            cells.resize(cells.len().max(column + 1), String::new());
            if cells[column].is_empty() {
                cells[column].clone_from(shown);
            }
        }
        while let Some(area) = next.next_if(|area| area.rows.start <= row) {
            let shown = cells.get(area.column).filter(|text| area.rows.start == row && !text.is_empty());
            if let Some(shown) = shown
                && open.insert(area.column, (area, shown.clone())).is_some()
            {
                // Merged areas do not overlap.
                return Err(Fault::BrokenWorkbook);
            }
        }
        filled.write_record(&cells).map_err(|_| Fault::BrokenWorkbook)?;
        if filled.get_ref().len() > most {
            return Err(Fault::LargeWorkbook);
        }
    }
    filled.into_inner().map_err(|_| Fault::BrokenWorkbook)
}

struct Sheet<'a> {
    book: &'a Book,
    /// The maximum number of bytes of CSV.
    most: usize,
    csv: csv::Writer<Vec<u8>>,
    rows: Vec<u32>,
    hidden: usize,
    row: u32,
    is_hidden: bool,
    /// The cells of the row so far.
    cells: Vec<String>,
    /// Limits all texts read, including those of cells that are overwritten and of rows that are left out as blank.
    kept: Kept,
    cell: Cell,
    merged: Vec<Merged>,
}

/// The cell being read.
#[derive(Default)]
struct Cell {
    column: usize,
    kind: String,
    style: usize,
    is_formula: bool,
    is_value: bool,
    is_phonetic: bool,
    value: Option<String>,
}

impl Sheet<'_> {
    fn meet(&mut self, event: &Event<'_>) -> Result<()> {
        match event {
            Event::Start(tag) => self.begin(tag),
            Event::Empty(tag) => {
                self.begin(tag)?;
                self.end(tag.local_name().as_ref())
            }
            Event::End(tag) => self.end(tag.local_name().as_ref()),
            _ if self.cell.is_value && !self.cell.is_phonetic => {
                let value = self.cell.value.get_or_insert_default();
                append(event, value)?;
                if value.len() > LONGEST_CELL { Err(Fault::LargeWorkbook) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, tag: &BytesStart<'_>) -> Result<()> {
        match tag.local_name().as_ref() {
            "row" => {
                let told = attribute(tag, "r").and_then(|row| row.parse().ok());
                // A row number that does not increase is replaced by the next one.
                self.row = told.filter(|&row| row > self.row).unwrap_or(self.row + 1);
                if self.row > ROWS {
                    return Err(Fault::LargeWorkbook);
                }
                self.is_hidden = matches!(attribute(tag, "hidden").as_deref(), Some("1" | "true"));
                self.cells.clear();
            }
            "mergeCell" => {
                self.merged.extend(attribute(tag, "ref").and_then(|area| Merged::read(&area)));
                if self.merged.len() > MERGED {
                    return Err(Fault::LargeWorkbook);
                }
            }
            "c" => {
                let column = attribute(tag, "r").and_then(|cell| column_of(&cell)).unwrap_or(self.cells.len());
                if column >= COLUMNS {
                    return Err(Fault::LargeWorkbook);
                }
                let style = attribute(tag, "s").and_then(|style| style.parse().ok()).unwrap_or(0);
                self.cell = Cell { column, style, kind: attribute(tag, "t").unwrap_or_default(), ..Cell::default() };
            }
            "f" => self.cell.is_formula = true,
            "v" | "t" => {
                self.cell.is_value = true;
                // The value of a formula may be an empty text.
                if self.cell.kind == "str" || !self.cell.is_formula {
                    self.cell.value.get_or_insert_default();
                }
            }
            "rPh" => self.cell.is_phonetic = true,
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &str) -> Result<()> {
        match name {
            "v" | "t" => self.cell.is_value = false,
            "rPh" => self.cell.is_phonetic = false,
            "c" => {
                let cell = std::mem::take(&mut self.cell);
                let text = self.shown(&cell)?;
                if text.len() > LONGEST_CELL {
                    return Err(Fault::LargeWorkbook);
                }
                if !text.is_empty() {
                    self.kept.add(text.len())?;
                    self.cells.resize((cell.column + 1).max(self.cells.len()), String::new());
                    self.cells[cell.column] = text;
                }
            }
            "row" if self.cells.iter().any(|cell| !cell.trim().is_empty()) => {
                self.csv.write_record(&self.cells).map_err(|_| Fault::BrokenWorkbook)?;
                self.rows.push(self.row);
                self.hidden += usize::from(self.is_hidden);
                if self.csv.get_ref().len() > self.most {
                    return Err(Fault::LargeWorkbook);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn shown(&self, cell: &Cell) -> Result<String> {
        let Some(value) = &cell.value else {
            // The program that wrote the formula did not calculate it.
            return Ok(if cell.is_formula { NOT_WORKED_OUT.to_owned() } else { String::new() });
        };
        Ok(match cell.kind.as_str() {
            "s" => unescaped(self.book.text(value.trim()).ok_or(Fault::BrokenWorkbook)?),
            "inlineStr" | "str" => unescaped(value),
            "b" => if value.trim() == "1" { "TRUE" } else { "FALSE" }.to_owned(),
            "e" | "d" => value.clone(),
            _ => {
                let shown = self.book.formats.get(cell.style).copied().unwrap_or(Shown::Plain);
                shown.number(value.trim(), self.book.since_1904)
            }
        })
    }
}

/// How a number is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Plain,
    /// Padded with zeros to this number of digits.
    Digits(usize),
    /// With this number of decimals.
    Decimals(usize),
    Moment,
}

impl Shown {
    /// The formats that every workbook has without defining them (ECMA-376, part 1, 18.8.30).
    fn built_in(id: &str) -> Self {
        match id.parse::<u32>() {
            Ok(14..=22 | 27..=36 | 45..=47 | 50..=58) => Self::Moment,
            Ok(2 | 4 | 39 | 40) => Self::Decimals(2),
            Ok(1 | 3 | 37 | 38) => Self::Decimals(0),
            _ => Self::Plain,
        }
    }

    fn by(code: &str) -> Self {
        if code.len() > LONGEST_FORMAT {
            return Self::Plain;
        }
        let (mut plain, mut rest) = (String::new(), code.split(';').next().unwrap_or_default().chars());
        while let Some(character) = rest.next() {
            match character {
                '"' => rest.by_ref().take_while(|&end| end != '"').for_each(drop),
                '[' => rest.by_ref().take_while(|&end| end != ']').for_each(drop),
                '\\' | '_' | '*' => drop(rest.next()),
                _ => plain.push(character),
            }
        }
        let plain = plain.trim().to_ascii_lowercase();
        let is_number = |text: &str| text.chars().all(|character| "#0,.".contains(character));
        match plain.split_once('.') {
            _ if plain.contains("general") => Self::Plain,
            _ if plain.contains(['d', 'm', 'y', 'h', 's']) => Self::Moment,
            None if !plain.is_empty() && plain.chars().all(|digit| digit == '0') => {
                Self::Digits(plain.len().min(DECIMALS))
            }
            Some((_, behind)) if is_number(&plain) && !behind.contains('#') => {
                Self::Decimals(behind.len().min(DECIMALS))
            }
            None if is_number(&plain) && plain.ends_with('0') => Self::Decimals(0),
            _ => Self::Plain,
        }
    }

    fn number(self, value: &str, since_1904: bool) -> String {
        let Some(number) = value.parse::<f64>().ok().filter(|number| number.is_finite()) else {
            return value.to_owned();
        };
        match self {
            Self::Moment => moment(number, since_1904).unwrap_or_else(|| value.to_owned()),
            Self::Digits(digits) if number >= 0.0 => format!("{number:0digits$.0}"),
            Self::Decimals(decimals) => format!("{number:.decimals$}"),
            // Without an exponent, and with 15 digits as in Excel.
            _ if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}"),
            _ => {
                let digits = format!("{number:.14e}").parse::<f64>().unwrap_or(number);
                format!("{digits}")
            }
        }
    }
}

/// Converts a count of days to a date, with the time of day if there is one. Excel counts a day in 1900 that did not exist.
fn moment(days: f64, since_1904: bool) -> Option<String> {
    let minutes = (days * 1_440.0).round() as i64;
    let (whole, minute) = (minutes.div_euclid(1_440), minutes.rem_euclid(1_440));
    let clock = format!("{:02}:{:02}", minute / 60, minute % 60);
    if whole == 0 && minute > 0 {
        return Some(clock);
    }
    let first = match whole {
        _ if since_1904 => jiff::civil::date(1904, 1, 1),
        ..60 => jiff::civil::date(1899, 12, 31),
        _ => jiff::civil::date(1899, 12, 30),
    };
    let day = first.checked_add(jiff::Span::new().try_days(whole).ok()?).ok()?;
    Some(if minute > 0 { format!("{day} {clock}") } else { day.to_string() })
}

/// Returns the column of a cell reference such as `AB12`, counted from 0.
fn column_of(cell: &str) -> Option<usize> {
    let letters = cell.bytes().take_while(u8::is_ascii_alphabetic).take(4);
    let number = letters.fold(0, |number, letter| number * 26 + usize::from(letter.to_ascii_uppercase() - b'A') + 1);
    number.checked_sub(1)
}

/// Returns an attribute by its local name.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let found = tag.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == name)?;
    quick_xml::escape::unescape(&found.value).ok().map(Into::into)
}

/// Appends the text of an event.
fn append(event: &Event<'_>, text: &mut String) -> Result<()> {
    match event {
        Event::Text(part) => text.push_str(part),
        Event::CData(part) => text.push_str(part),
        Event::GeneralRef(name) => {
            let entity = format!("&{};", &**name);
            text.push_str(&quick_xml::escape::unescape(&entity).map_err(|_| Fault::BrokenWorkbook)?);
        }
        _ => {}
    }
    Ok(())
}

/// Decodes the escapes for characters that XML cannot contain, such as `_x000D_` for a carriage return.
fn unescaped(text: &str) -> String {
    let (mut plain, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("_x") {
        let code = rest.get(at + 2..at + 6).filter(|_| rest.get(at + 6..at + 7) == Some("_"));
        let character = code.and_then(|code| u32::from_str_radix(code, 16).ok()).and_then(char::from_u32);
        plain.push_str(&rest[..at]);
        plain.push(character.unwrap_or('_'));
        rest = &rest[at + if character.is_some() { 7 } else { 1 }..];
    }
    plain + rest
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// Returns an archive of these parts, deflated.
    fn archive(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        let size = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
        for (name, content) in parts {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(content).unwrap();
            let packed = encoder.finish().unwrap();
            let start = size(file.len());
            let about =
                [&[20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &size(packed.len()), &size(content.len())].concat();
            let name_length = u16::try_from(name.len()).unwrap().to_le_bytes();
            file.extend([b"PK\x03\x04", &about[..], &name_length, &[0, 0], name.as_bytes(), &packed].concat());
            directory
                .extend([b"PK\x01\x02\x14\x00", &about[..], &name_length, &[0; 12], &start, name.as_bytes()].concat());
        }
        let count = u16::try_from(parts.len()).unwrap().to_le_bytes();
        let (start, length) = (size(file.len()), size(directory.len()));
        file.extend([&directory[..], b"PK\x05\x06\0\0\0\0", &count, &count, &length, &start, &[0, 0]].concat());
        file
    }

    /// Returns a workbook with one sheet of these rows, and with these texts and formats.
    fn workbook(rows: &str, texts: &str, formats: &str) -> Vec<u8> {
        let xml = |text: String| format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}").into_bytes();
        let sheet = xml(
            format!("<x:worksheet xmlns:x=\"m\"><x:sheetData>{rows}</x:sheetData></x:worksheet>").replace("x:", "")
        );
        archive(&[
            (
                "xl/workbook.xml",
                xml("<workbook><sheets><sheet name=\"A &amp; B\" r:id=\"r1\"/></sheets></workbook>".into()),
            ),
            (
                "xl/_rels/workbook.xml.rels",
                xml("<Relationships><Relationship Id=\"r1\" Target=\"/xl/one.xml\"/></Relationships>".into()),
            ),
            ("xl/styles.xml", xml(format!("<styleSheet>{formats}</styleSheet>"))),
            ("xl/sharedStrings.xml", xml(format!("<sst>{texts}</sst>"))),
            ("xl/one.xml", sheet),
        ])
    }

    fn lines(file: &[u8]) -> Vec<String> {
        read(file).unwrap().text.lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn merged_cells_are_in_each_of_their_rows() {
        let cell = |place: &str, text: &str| format!("<c r=\"{place}\" t=\"inlineStr\"><is><t>{text}</t></is></c>");
        let row = |number: usize, cells: &[(&str, &str)]| {
            let cells = cells.iter().map(|(column, text)| cell(&format!("{column}{number}"), text)).collect::<String>();
            format!("<row r=\"{number}\">{cells}</row>")
        };
        let rows = [
            row(1, &[("A", "name"), ("B", "seat"), ("C", "gate")]),
            row(2, &[("A", "Ana"), ("B", "A1"), ("C", "North")]),
            row(3, &[("B", "A2")]),
            row(5, &[("A", "Ben"), ("B", "A3")]),
            row(6, &[("A", "Cy"), ("B", "A4")]),
        ];
        let merges = |areas: &[&str]| -> String {
            let areas: String = areas.iter().map(|area| format!("<mergeCell ref=\"{area}\"/>")).collect();
            format!("{}</sheetData><mergeCells>{areas}</mergeCells><sheetData>", rows.concat())
        };
        let file = workbook(&merges(&["C2:C5", "A2:A3", "A1:C1", "E7:E9", "A:B"]), "", "");
        let filled = ["name,seat,gate", "Ana,A1,North", "Ana,A2,North", "Ben,A3,North", "Cy,A4"];
        assert_eq!(lines(&file), filled);
        for areas in [vec!["A2:A1048577"; 2], vec!["A8:A9"; MERGED + 1]] {
            assert!(read(&workbook(&merges(&areas), "", "")).is_err());
        }
    }

    #[test]
    fn what_takes_more_than_it_is_worth_is_refused() {
        let text = |length: usize| format!("<si><t>{}</t></si>", " ".repeat(length));
        let blank = "<row><c t=\"s\"><v>0</v></c></row>".repeat(1_000);
        assert_eq!(read(&workbook(&blank, &text(100_000), "")).err(), Some(Fault::LargeWorkbook));
        let one = "<row><c t=\"s\"><v>0</v></c></row>";
        assert_eq!(read(&workbook(one, &text(LONGEST_CELL + 1), "")).err(), Some(Fault::LargeWorkbook));
        let pieces = format!("<row><c><v>{}</v></c></row>", "<![CDATA[xxxxxxxxxx]]>".repeat(LONGEST_CELL / 10 + 1));
        assert_eq!(read(&workbook(&pieces, "", "")).err(), Some(Fault::LargeWorkbook));
        assert_eq!(read(&workbook(&"<a>".repeat(DEPTH), "", "")).err(), Some(Fault::BrokenWorkbook));
        let decimals = format!("<numFmts><numFmt numFmtId=\"200\" formatCode=\"0.{}\"/></numFmts>", "0".repeat(900));
        let formats = format!("{decimals}<cellXfs><xf numFmtId=\"200\"/></cellXfs>");
        let shown = lines(&workbook("<row><c s=\"0\"><v>1</v></c></row>", "", &formats));
        assert_eq!(shown[0].len(), 2 + DECIMALS);
    }

    #[test]
    fn hidden_rows_and_other_sheets_are_told() {
        let rows = "<row><c t=\"str\"><v>seat</v></c></row><row hidden=\"1\"><c t=\"str\"><v>A1</v></c></row>\
                    <row hidden=\"true\"/><row hidden=\"0\"><c t=\"str\"><v>A2</v></c></row>";
        let read = read(&workbook(rows, "", "")).map(|source| (source.hidden, source.other_sheets.len()));
        assert_eq!(read.unwrap(), (1, 0));
    }

    #[test]
    fn a_cell_is_read_as_people_see_it() {
        let formats = "<numFmts><numFmt numFmtId=\"200\" formatCode=\"00000\"/><numFmt numFmtId=\"201\" formatCode=\"yyyy\\-mm\\-dd\"/>\
                       <numFmt numFmtId=\"202\" formatCode=\"&quot;days&quot; 0\"/></numFmts><cellStyleXfs><xf numFmtId=\"14\"/></cellStyleXfs>\
                       <cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"200\"/><xf numFmtId=\"201\"/><xf numFmtId=\"22\"/><xf numFmtId=\"2\"/>\
                       <xf numFmtId=\"202\"/></cellXfs>";
        let texts = "<si><t>Ana &amp; Bo</t></si><si><r><t>So</t></r><r><t xml:space=\"preserve\">fía </t></r><rPh><t>x</t></rPh></si>\
                     <si/><si><t>a_x000D_b_x005F_x0041_</t></si>";
        for (cell, shown) in [
            ("<c r=\"A1\"><v>12</v></c>", "12"),
            ("<c r=\"A1\"><v>12.0</v></c>", "12"),
            ("<c r=\"A1\"><v>1.25</v></c>", "1.25"),
            ("<c r=\"A1\"><v>0.30000000000000004</v></c>", "0.3"),
            ("<c r=\"A1\"><v>3.4600111222E10</v></c>", "34600111222"),
            ("<c r=\"A1\" s=\"1\"><v>123</v></c>", "00123"),
            ("<c r=\"A1\" s=\"2\"><v>46143</v></c>", "2026-05-01"),
            ("<c r=\"A1\" s=\"3\"><v>46143.75</v></c>", "2026-05-01 18:00"),
            ("<c r=\"A1\" s=\"2\"><v>59</v></c>", "1900-02-28"),
            ("<c r=\"A1\" s=\"4\"><v>12.5</v></c>", "12.50"),
            ("<c r=\"A1\" s=\"5\"><v>3</v></c>", "3"),
            ("<c r=\"A1\" t=\"s\"><v>0</v></c>", "Ana & Bo"),
            ("<c r=\"A1\" t=\"s\"><v>1</v></c>", "Sofía "),
            ("<c r=\"A1\" t=\"s\"><v>3</v></c>", "\"a\rb_x0041_\""),
            ("<c r=\"A1\" t=\"inlineStr\"><is><t>Zoë</t></is></c>", "Zoë"),
            ("<c r=\"A1\" t=\"str\"><f>A2&amp;A3</f><v>worked out</v></c>", "worked out"),
            ("<c r=\"A1\" t=\"str\"><f>IF(A2,1,\"\")</f><v></v></c><c r=\"B1\"><v>1</v></c>", ",1"),
            ("<c r=\"A1\" t=\"str\"><f>A2</f><v/></c><c r=\"B1\"><v>1</v></c>", ",1"),
            ("<c r=\"A1\" t=\"b\"><v>1</v></c>", "TRUE"),
            ("<c r=\"C1\"><v>3</v></c>", ",,3"),
            ("<c><v>1</v></c><c><v>2</v></c>", "1,2"),
        ] {
            let file = workbook(&format!("<row r=\"1\">{cell}</row>"), texts, formats);
            assert_eq!(read(&file).unwrap().text.trim_end_matches('\n'), shown, "{cell}");
        }
        let source =
            read(&workbook("<row r=\"3\"/><row r=\"7\"><c><v>1</v></c></row><row><c><v>2</v></c></row>", "", ""))
                .unwrap();
        assert_eq!((source.rows, source.sheet.as_deref()), (vec![7, 8], Some("A & B")));
        let twice =
            read(&workbook("<row r=\"1\"><c><v>1</v></c></row><row r=\"1\"><c><v>2</v></c></row>", "", "")).unwrap();
        assert_eq!((twice.rows, twice.text.lines().count()), (vec![1, 2], 2), "no row is lost");
    }

    #[test]
    fn a_number_is_shown_whatever_its_format_says() {
        assert_eq!(Shown::by(&"0".repeat(LONGEST_FORMAT)).number("7", false).len(), DECIMALS);
        assert_eq!(Shown::by(&"0".repeat(400_000)).number("7", false), "7");
    }

    #[test]
    fn what_is_no_workbook_or_too_much_is_refused() {
        let cell = |content: &str| workbook(&format!("<row r=\"1\">{content}</row>"), "<si><t>x</t></si>", "");
        let good = cell("<c r=\"A1\"><v>1</v></c>");
        assert_eq!(lines(&good), ["1"]);
        assert_eq!(
            lines(&cell("<c><f>A2</f></c><c><f>A2</f><v/></c><c t=\"str\"><f>A2</f><v/></c>")),
            ["#CALC!,#CALC!"]
        );
        let bomb = |name: &str, start: &str, length: usize, piece: &str| {
            let content = [start, &piece.repeat(length / piece.len())].concat().into_bytes();
            archive(&[
                ("xl/workbook.xml", b"<workbook><sheets><sheet name=\"A\" r:id=\"r1\"/></sheets></workbook>".to_vec()),
                ("xl/_rels/workbook.xml.rels", b"<R><Relationship Id=\"r1\" Target=\"one.xml\"/></R>".to_vec()),
                (name, content),
            ])
        };
        let told_again = |cell: &str| {
            let text = format!("<si><t>{}</t></si>", "x".repeat(1_000));
            workbook(&format!("<row r=\"1\">{}</row>", cell.repeat(200)), &text, "")
        };
        let many_sheets = archive(&[
            (
                "xl/workbook.xml",
                format!("<workbook><sheets>{}</sheets></workbook>", "<sheet name=\"A\" r:id=\"r1\"/>".repeat(200))
                    .into_bytes(),
            ),
            (
                "xl/_rels/workbook.xml.rels",
                format!("<R><Relationship Id=\"r1\" Target=\"{}\"/></R>", "x".repeat(1_000)).into_bytes(),
            ),
        ]);
        for (file, fault) in [
            (good[..good.len() - 30].to_vec(), Fault::BrokenWorkbook),
            (cell("<c t=\"s\"><v>1</v></c>"), Fault::BrokenWorkbook),
            (cell("<c r=\"ZZ1\"><v>1</v></c>"), Fault::LargeWorkbook),
            // One text in many cells, and repeatedly in one cell.
            (told_again("<c t=\"s\"><v>0</v></c>"), Fault::LargeWorkbook),
            (told_again("<c r=\"A1\" t=\"s\"><v>0</v></c>"), Fault::LargeWorkbook),
            (bomb("xl/styles.xml", "<styleSheet><cellXfs>", 900 << 10, "<xf/>"), Fault::LargeWorkbook),
            (bomb("xl/sharedStrings.xml", "<sst>", 900 << 10, "<si/>"), Fault::LargeWorkbook),
            (many_sheets, Fault::LargeWorkbook),
            (workbook("<row r=\"4294967295\"/><row><c><v>1</v></c></row>", "", ""), Fault::LargeWorkbook),
            (cell(""), Fault::NoTickets),
            (bomb("xl/one.xml", "<row>", 2 << 20, "<c/>"), Fault::LargeWorkbook),
            (bomb("xl/one.xml", "<row><c><v>", 1 << 20, "1"), Fault::LargeWorkbook),
            (
                bomb(
                    "xl/one.xml",
                    "",
                    900 << 10,
                    "<row><c t=\"str\"><v>0123456789</v></c><c t=\"str\"><v>0123456789</v></c></row>",
                ),
                Fault::LargeWorkbook,
            ),
            (
                bomb("xl/sharedStrings.xml", "<sst>", 900 << 10, "<si><t>0123456789012345</t></si>"),
                Fault::LargeWorkbook,
            ),
        ] {
            assert!(file.len() < 64 << 10, "it is small before it is unpacked");
            assert_eq!(read_within(&file, 1 << 20).err(), Some(fault));
        }
    }

    proptest! {
        #[test]
        fn a_damaged_workbook_never_panics(at in 0_usize..1_000, byte: u8, cut in 0_usize..1_000) {
            let mut file = workbook("<row r=\"1\"><c r=\"A1\" t=\"s\"><v>0</v></c></row>", "<si><t>x</t></si>", "");
            let length = file.len();
            file[at % length] = byte;
            let _ = read(&file);
            let _ = read(&file[..cut % length]);
        }
    }
}
