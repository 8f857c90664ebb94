//! Converts the bytes of a file to CSV text. Encoding and separator are detected, because files do not declare them.

use std::borrow::Cow;

use encoding_rs::{MACINTOSH, UTF_16BE, UTF_16LE, WINDOWS_1252};
use serde::Serialize;

use super::columns;
use super::workbook;
use crate::fault::{Fault, FieldError};

/// The encoding of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Encoding {
    /// Written by nearly every program.
    #[serde(rename = "utf-8")]
    Utf8,
    /// "Unicode Text" in Excel.
    #[serde(rename = "utf-16")]
    Utf16,
    /// "CSV" in Excel on Windows. Told apart from the next by its letters, so somebody should check them.
    #[serde(rename = "windows-1252")]
    Windows1252,
    /// "CSV" in Excel on a Mac.
    #[serde(rename = "macintosh")]
    Macintosh,
    /// An Excel workbook, which declares its own encoding.
    #[serde(rename = "xlsx")]
    Workbook,
}

/// A file as CSV, and its original format.
pub(super) struct Source<'a> {
    pub text: Cow<'a, str>,
    pub separator: u8,
    pub encoding: Encoding,
    /// The name of the workbook's sheet.
    pub sheet: Option<String>,
    /// The rows of the workbook's sheet that the records come from, in order.
    pub rows: Vec<u32>,
    /// The number of lines before the text.
    pub before: u64,
    /// The number of hidden rows among those of the workbook's sheet.
    pub hidden: usize,
    /// The other visible sheets of the workbook.
    pub other_sheets: Vec<String>,
}

impl<'a> Source<'a> {
    /// Rejects a file that is not a list, and says what it is.
    pub fn read(file: &'a [u8]) -> Result<Self, FieldError> {
        if let Some(fault) = no_list(file) {
            return Err(whole(fault));
        }
        if file.starts_with(ZIP) {
            return workbook::read(file).map_err(whole);
        }
        let (text, encoding) = decode(file).ok_or_else(|| whole(Fault::NotAList))?;
        let (before, told, text) = match separator_line(&text) {
            Some((separator, length)) => (1, Some(separator), cut(text, length)),
            None => (0, None, text),
        };
        let separator = told.unwrap_or_else(|| separator_of(&text));
        let (rows, other_sheets) = (Vec::new(), Vec::new());
        Ok(Self { text, separator, encoding, sheet: None, rows, before, hidden: 0, other_sheets })
    }
}

/// Returns an error about the file as a whole.
fn whole(fault: Fault) -> FieldError {
    FieldError::new("file", fault)
}

/// Returns the first characters of a text, which may be as long as the file.
pub(super) fn start_of(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

const ZIP: &[u8] = b"PK\x03\x04";

/// Detects files that are not lists of lines, by their first bytes.
fn no_list(file: &[u8]) -> Option<Fault> {
    let trimmed = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).trim_ascii_start();
    let begins =
        |start: &str| trimmed.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()));
    let holds = |name: &[u8]| file.windows(name.len()).any(|window| window == name);
    if file.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
        // A workbook with a password has the same container format as the old ones.
        let locked: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        return Some(if holds(&locked) { Fault::LockedWorkbook } else { Fault::OldExcel });
    }
    if file.starts_with(ZIP) {
        return match () {
            () if holds(b"xl/workbook.xml") => None,
            () if holds(b"xl/workbook.bin") => Some(Fault::OldExcel),
            () if holds(b"application/vnd.oasis.opendocument") => Some(Fault::OpenDocument),
            () if holds(b"Index/Document.iwa") || holds(b"Index.zip") => Some(Fault::AppleNumbers),
            () => Some(Fault::NotAList),
        };
    }
    if begins("%PDF") {
        return Some(Fault::Pdf);
    }
    if ["<!doctype html", "<html", "<head", "<script", "<table", "<meta"].iter().any(|start| begins(start)) {
        return Some(Fault::WebPage);
    }
    // Formats for machines and other programs: pictures, archives, JSON, XML.
    let others = ["{", "[{", "<?xml", "{\\rtf", "%!PS", "\u{1f}\u{8b}", "GIF8"];
    (others.iter().any(|start| begins(start)) || file.starts_with(b"\x89PNG") || file.starts_with(b"\xff\xd8\xff"))
        .then_some(Fault::NotAList)
}

/// Decodes the text of a file. `None` if it is not text.
fn decode(file: &[u8]) -> Option<(Cow<'_, str>, Encoding)> {
    let utf16 = |encoding: &'static encoding_rs::Encoding, bytes| {
        let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?;
        Some((text, Encoding::Utf16))
    };
    let (text, encoding) = match file {
        [0xff, 0xfe, rest @ ..] => utf16(UTF_16LE, rest)?,
        [0xfe, 0xff, rest @ ..] => utf16(UTF_16BE, rest)?,
        // No text of another encoding has a zero as its first or second byte.
        [0, second, ..] if *second != 0 => utf16(UTF_16BE, file)?,
        [first, 0, ..] if *first != 0 => utf16(UTF_16LE, file)?,
        _ => of_bytes(file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file)),
    };
    // A text may have a few stray control characters, but not many.
    let is_strange = |character: &char| character.is_control() && !"\t\r\n\u{7f}".contains(*character);
    (text.chars().filter(is_strange).count() <= (text.len() / 64).max(8)).then_some((text, encoding))
}

/// Decodes UTF-8, or an encoding with one byte per character.
fn of_bytes(bytes: &[u8]) -> (Cow<'_, str>, Encoding) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return (text.into(), Encoding::Utf8);
    }
    let windows = WINDOWS_1252.decode_without_bom_handling(bytes).0;
    let mac = MACINTOSH.decode_without_bom_handling(bytes).0;
    if plausibility(&mac) > plausibility(&windows) {
        (mac, Encoding::Macintosh)
    } else {
        (windows, Encoding::Windows1252)
    }
}

/// Scores how well the letters beyond ASCII fit the languages of Western Europe.
fn plausibility(text: &str) -> i64 {
    let mut characters = text.chars().peekable();
    let (mut before, mut sum) = ('\n', 0);
    while let Some(character) = characters.next() {
        let after = characters.peek().copied().unwrap_or('\n');
        if !character.is_ascii() {
            sum += fits(before, character, after);
        }
        before = character;
    }
    sum
}

/// Scores one character: a small letter belongs beside small ones, or at the beginning or end of a word; a capital begins
/// a word or stands among capitals; other characters do not occur within words.
fn fits(before: char, character: char, after: char) -> i64 {
    const USUAL: &str = "áéíóúàèìòùâêîôûäëïöüñçãõåæøßœÁÉÍÓÚÀÈÌÒÙÂÊÎÔÛÄËÏÖÜÑÇÃÕÅÆØŒ";
    let is_in_word = before.is_alphabetic() || after.is_alphabetic();
    match character {
        _ if character.is_lowercase() && USUAL.contains(character) => match (before, after) {
            (a, b) if a.is_uppercase() && b.is_uppercase() => -2,
            (a, b) if a.is_lowercase() && b.is_uppercase() => -2,
            _ if is_in_word => 3,
            _ => 0,
        },
        _ if character.is_uppercase() && USUAL.contains(character) => match (before, after) {
            (a, _) if a.is_lowercase() => -3,
            (a, b) if a.is_uppercase() && b.is_lowercase() => -1,
            _ if is_in_word => 2,
            _ => 0,
        },
        '’' if before.is_alphabetic() && after.is_alphabetic() => 1,
        '‘' | '’' | '“' | '”' | '¿' | '¡' | 'º' | 'ª' | '€' | '°' | '«' | '»' | '–' | '—' | '…' | '\u{a0}' => {
            if before.is_alphabetic() && after.is_alphabetic() {
                -3
            } else {
                1
            }
        }
        'ž' | 'š' | 'Ž' | 'Š' | 'ÿ' | 'ý' | 'Ý' | 'ð' | 'þ' if is_in_word => 0,
        '\u{80}'..='\u{9f}' => -5,
        _ if is_in_word => -3,
        _ => -1,
    }
}

/// Returns the separator named by a first line such as `sep=;`, which Excel reads and others write, and the length of
/// that line. Excel itself also writes it in quotes, followed by the separators of empty cells.
fn separator_line(text: &str) -> Option<(u8, usize)> {
    let line = text.split_inclusive('\n').next()?;
    let told = line.trim_matches(['\r', '\n', ' ']);
    let head = told.get(..told.len().min(5)).unwrap_or_default();
    let rest = if head.eq_ignore_ascii_case("\"sep=") {
        told.get(5..)?
    } else if told.get(..4)?.eq_ignore_ascii_case("sep=") {
        told.get(4..)?
    } else {
        return None;
    };
    let separator = rest.bytes().next().unwrap_or(b'\t');
    let is_one = separator.is_ascii() && !separator.is_ascii_alphanumeric() && separator != b'"';
    let rest_is_empty = rest.bytes().skip(1).all(|byte| byte == separator || byte == b'"' || b",;\t".contains(&byte));
    (is_one && rest_is_empty).then_some((separator, line.len()))
}

fn cut(text: Cow<'_, str>, length: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[length..]),
        Cow::Owned(mut text) => {
            text.drain(..length);
            Cow::Owned(text)
        }
    }
}

/// Detects the separator: the one with which the first line has the most known column names or, failing that, the most columns.
fn separator_of(text: &str) -> u8 {
    // The header may have line breaks in quotes, but its length is limited.
    let mut end = text.len().min(64 * 1024);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let named = |separator: &u8| {
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(*separator)
            .has_headers(false)
            .flexible(true)
            .from_reader(&text.as_bytes()[..end]);
        let first = reader
            .records()
            .find_map(|record| record.ok().filter(|record| record.iter().any(|field| !field.is_empty())));
        let first = first.unwrap_or_default();
        (first.iter().filter(|name| columns::find(name).is_some()).count(), first.len())
    };
    // Among equals, the last one wins.
    *b"\t;,".iter().max_by_key(|separator| named(separator)).unwrap_or(&b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &[u8]) -> (String, u8, Encoding) {
        let source = Source::read(file).unwrap();
        (source.text.into_owned(), source.separator, source.encoding)
    }

    #[test]
    fn the_letters_tell_windows_from_a_mac() {
        for names in [
            "José",
            "Muñoz",
            "Sofía",
            "Müller",
            "Strauß",
            "Zoë",
            "Ångström",
            "Øystein",
            "François",
            "Conceição",
            "Itziar Peña",
            "ÁNGEL NÚÑEZ",
            "Íñigo",
            "Ñoño",
            "Élodie",
            "Ürsel",
            "Òscar Güell",
            "Nicolò D’Angelo",
            "Françoise L’Hôpital",
            "ANDRÉ",
            "Renée",
            "João",
            "Übermut",
            "Niño – Niña",
            "«José»",
            "María José Íñiguez Ávila",
            "Peñíscola, 1º A",
        ] {
            let file = format!("seat,gate,full_name\nA1,North,{names}\n");
            for (encoding, told) in [(WINDOWS_1252, Encoding::Windows1252), (MACINTOSH, Encoding::Macintosh)] {
                let (bytes, _, lossy) = encoding.encode(&file);
                assert!(!lossy, "{names}");
                assert_eq!(read(&bytes), (file.clone(), b',', told), "{names}");
            }
        }
    }

    #[test]
    fn unicode_is_read_with_and_without_its_mark() {
        let file = "seat\tgate\r\nÁ1\tNörd\r\n";
        let le: Vec<u8> = file.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = file.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for (bytes, encoding) in [
            (file.as_bytes().to_vec(), Encoding::Utf8),
            ([b"\xef\xbb\xbf", file.as_bytes()].concat(), Encoding::Utf8),
            ([b"\xff\xfe", &le[..]].concat(), Encoding::Utf16),
            ([b"\xfe\xff", &be[..]].concat(), Encoding::Utf16),
            (le.clone(), Encoding::Utf16),
            (be.clone(), Encoding::Utf16),
        ] {
            assert_eq!(read(&bytes), (file.to_owned(), b'\t', encoding));
        }
    }

    #[test]
    fn a_first_line_may_name_the_separator() {
        for line in ["sep=;\n", "SEP=;\r\n", "\"sep=;\"\n", "\u{feff}sep=;\n", "\u{feff}\"sep=;\"\r\n", "sep=;;;\n"] {
            let file = format!("{line}seat;gate\nA,1;North\n");
            assert_eq!(read(file.as_bytes()), ("seat;gate\nA,1;North\n".to_owned(), b';', Encoding::Utf8), "{line:?}");
            assert_eq!(Source::read(file.as_bytes()).unwrap().before, 1);
        }
        assert_eq!(read(b"sep=|\nseat|gate\n").1, b'|');
        assert_eq!(read(b"sep=\t\nseat\tgate\n").1, b'\t');
        assert_eq!(Source::read(b"separate,gate\n").unwrap().before, 0);
    }

    #[test]
    fn the_separator_is_the_one_that_makes_columns() {
        for (file, separator) in [
            ("seat,gate\n", b','),
            ("seat;gate\n", b';'),
            ("seat\tgate\n", b'\t'),
            ("seat,gate,,\n", b','),
            ("seat;gate;;\n", b';'),
            ("seat,gate;\n", b','),
            ("seat;gate;Name, first\n", b';'),
            ("\"Question, long; with all\",\"Email\",\"Name\"\n", b','),
            ("email\n", b','),
            ("\n\nseat;gate\n", b';'),
            ("\"a\nb,c,d\";seat\n", b';'),
        ] {
            assert_eq!(read(file.as_bytes()).1, separator, "{file:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused_with_what_it_is() {
        let old = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 and more";
        let locked: Vec<u8> = "EncryptedPackage".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (file, code) in [
            (old.to_vec(), "old_excel"),
            ([&old[..], &locked].concat(), "locked_workbook"),
            (b"PK\x03\x04....mimetypeapplication/vnd.oasis.opendocument.spreadsheet".to_vec(), "open_document"),
            (b"PK\x03\x04....Index/Document.iwa".to_vec(), "apple_numbers"),
            (b"PK\x03\x04....word/document.xml".to_vec(), "not_a_list"),
            (b"%PDF-1.7\n".to_vec(), "pdf"),
            (b"\xef\xbb\xbf <!DOCTYPE html><html>".to_vec(), "web_page"),
            (b"<html><table>".to_vec(), "web_page"),
            (b"{\"seat\":1}".to_vec(), "not_a_list"),
            (b"\x89PNG\r\n".to_vec(), "not_a_list"),
            ((0..=255).cycle().take(4096).map(|byte| byte | 1).collect(), "not_a_list"),
        ] {
            let Err(error) = Source::read(&file) else { panic!("{code} is read") };
            let told = serde_json::to_value(error).unwrap();
            assert_eq!((&told["field"], &told["code"]), (&"file".into(), &code.into()));
        }
    }
}
