//! Escapes formulas: whatever a spreadsheet would run gets an apostrophe before it, so that it shows it as text. This
//! applies at the start of a field, and wherever a spreadsheet of another language may begin a cell: one that splits at
//! `;` takes the whole line up to the first `;` for one cell, and our quotes within it for text. The escape is reversible
//! for any text: an existing apostrophe gets another one.

use std::borrow::Cow;

use crate::fold;

/// The characters that begin a formula, also as East Asian keyboards write them.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];
/// The characters after which a cell may begin: separators of all languages, line breaks, and the quotes around a cell.
const SEPARATORS: [char; 9] = [',', ';', '\t', '|', '،', '؛', '\r', '\n', '"'];
/// Characters that some spreadsheets remove at the start, which may expose a formula.
const TAKEN_AWAY: [char; 3] = ['\t', '\r', '\n'];

/// Whether spreadsheets skip this character at the start of a cell.
fn is_passed_over(character: char) -> bool {
    character.is_whitespace() || fold::is_invisible(character)
}

/// Escapes a text so that no spreadsheet runs it.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    rewritten(text, |apostrophes| apostrophes + 1)
}

/// Reverses [`harmless`].
pub(super) fn undone(text: &str) -> Cow<'_, str> {
    rewritten(text, |apostrophes: usize| apostrophes.saturating_sub(1))
}

/// Changes the number of apostrophes before each formula where a cell may begin.
fn rewritten(text: &str, number: impl Fn(usize) -> usize) -> Cow<'_, str> {
    if !text.contains(FORMULA) && !text.contains(TAKEN_AWAY) {
        return text.into();
    }
    let mut written = String::with_capacity(text.len() + 1);
    let (mut may_begin, mut is_start, mut apostrophes) = (true, true, 0);
    for character in text.chars() {
        if may_begin && character == '\'' {
            apostrophes += 1;
            continue;
        }
        let is_marked = may_begin && FORMULA.contains(&character) || is_start && TAKEN_AWAY.contains(&character);
        let count = if is_marked { number(apostrophes) } else { apostrophes };
        written.extend(std::iter::repeat_n('\'', count));
        may_begin = SEPARATORS.contains(&character) || (may_begin && apostrophes == 0 && is_passed_over(character));
        (is_start, apostrophes) = (false, 0);
        written.push(character);
    }
    written.extend(std::iter::repeat_n('\'', apostrophes));
    written.into()
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether a spreadsheet of any language would run a part of a file.
    pub(in crate::sheet) fn runs(file: &str) -> bool {
        let begins = |cell: &str| cell.trim_start_matches(|at| at == '"' || is_passed_over(at)).starts_with(FORMULA);
        SEPARATORS.iter().any(|&separator| file.split(separator).any(begins))
    }

    #[test]
    fn a_formula_gets_an_apostrophe_wherever_a_cell_may_begin() {
        for (text, expected) in [
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
            // So that it is read back unchanged.
            ("'=1", "''=1"),
            ("'\tA", "''\tA"),
            // Names stay unchanged.
            ("1-1", "1-1"),
            ("Ruiz-Roe, Ana", "Ruiz-Roe, Ana"),
            ("ana@example.org; luis@example.org", "ana@example.org; luis@example.org"),
            ("'t Hooft", "'t Hooft"),
        ] {
            assert_eq!(harmless(text), expected, "{text:?}");
            assert_eq!(undone(expected), text, "{expected:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_made_harmless_is_read_as_it_was(text in "[=+@＝,;|\t\r\n\"'،\u{feff}\u{3000}a -]{0,12}") {
            let harmless = harmless(&text);
            prop_assert_eq!(undone(&harmless), text.as_str());
            prop_assert!(!runs(&harmless), "{harmless:?}");
        }
    }
}
