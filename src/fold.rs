//! Text as people read it: comparison, search and sort order.
//!
//! `src/pages/shared/fold.js` implements [`place`] too. Both are tested against `tests/suite/fold_cases.json`.

use std::cmp::Ordering;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Normalizes a text for storage: composed (NFC), with each run of white space as one space, and none at the ends.
pub fn tidy(text: &str) -> String {
    let composed: String = text.nfc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the text by which seats and gates are compared: equal for texts that differ only in case, accents, width, spaces
/// or dashes. In a word of one or two letters, accents count: row Ñ is not row N.
pub fn place(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    let mut word = String::new();
    for character in plain(text) {
        if character.is_alphabetic() || is_combining_mark(character) {
            word.push(character);
        } else {
            push_word(&mut folded, &word);
            word.clear();
            folded.push(character);
        }
    }
    push_word(&mut folded, &word);
    if folded.chars().count() > LONGEST_PLACE {
        return tidy(text);
    }
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Maximum length in characters of the text by which seats and gates are compared: one character can unfold to 18, and an
/// index has a limit. Where it would be longer, the tidied text is compared.
const LONGEST_PLACE: usize = 200;

/// Returns whether people read both texts as the same seat or gate.
pub fn same_place(one: &str, other: &str) -> bool {
    one == other || place(one) == place(other)
}

/// Returns the words of a text for search: in lower case, without accents.
pub fn words(text: &str) -> Vec<String> {
    let unmarked: String = plain(text).filter(|character| !is_apostrophe(*character)).nfd().collect();
    let folded = unaccented(&unmarked);
    let words = folded.split(is_separator).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// Compares seats, gates or names in the order in which people look for them: alphabetically without case and accents, and
/// with A2 before A10.
pub fn order(one: &str, other: &str) -> Ordering {
    let by_alphabet =
        natural(&unaccented(&plain(one).collect::<String>()), &unaccented(&plain(other).collect::<String>()));
    by_alphabet.then_with(|| one.cmp(other))
}

/// Returns the characters of a text, decomposed (NFKD) and in lower case, without invisible ones, and with one kind of dash
/// and apostrophe. The second decomposition reorders marks that became adjacent (Unicode Standard Annex 15, section 1.3).
fn plain(text: &str) -> impl Iterator<Item = char> {
    let seen = text.nfkd().filter(|character| !is_invisible(*character)).flat_map(char::to_lowercase);
    let plain = seen.flat_map(|character| {
        let (first, second) = match character {
            '\u{2010}'..='\u{2015}' | '\u{2212}' => ('-', None),
            '\u{2018}' | '\u{2019}' | '\u{2bc}' => ('\'', None),
            'ς' => ('σ', None),
            'ß' => ('s', Some('s')),
            other => (other, None),
        };
        [Some(first), second].into_iter().flatten()
    });
    plain.nfd()
}

fn push_word(folded: &mut String, word: &str) {
    let letters = word.chars().filter(|character| !is_combining_mark(*character)).count();
    if letters > 2 { folded.push_str(&unaccented(word)) } else { folded.push_str(word) }
}

/// Removes accents, also from letters that do not decompose, such as ø.
fn unaccented(plain: &str) -> String {
    let mut letters = String::with_capacity(plain.len());
    for character in plain.chars().filter(|character| !is_accent(*character)) {
        match character {
            'ø' => letters.push('o'),
            'ł' => letters.push('l'),
            'đ' | 'ð' => letters.push('d'),
            'ħ' => letters.push('h'),
            'ı' => letters.push('i'),
            'æ' => letters.push_str("ae"),
            'œ' => letters.push_str("oe"),
            'þ' => letters.push_str("th"),
            other => letters.push(other),
        }
    }
    letters
}

/// Returns whether a character is an accent of the Latin, Greek, Cyrillic, Hebrew or Arabic script. In other scripts, marks
/// are vowels or make other letters.
fn is_accent(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{670}')
}

/// Returns whether a character is invisible: a soft hyphen, joiner, direction or variation selector.
pub fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

fn is_apostrophe(character: char) -> bool {
    matches!(character, '\'' | '`' | '\u{b4}')
}

/// Returns whether a character separates words.
fn is_separator(character: char) -> bool {
    character.is_whitespace()
        || character.is_control()
        || character.is_ascii_punctuation()
        || matches!(character, '«' | '»' | '¡' | '¿' | '·' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}')
}

fn natural(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    while !one.is_empty() && !other.is_empty() {
        let (first, second) = (digits(one), digits(other));
        let (taken, order) = if first > 0 && second > 0 {
            let number = |text: &str, end: usize| text[..end].trim_start_matches('0').to_owned();
            let (a, b) = (number(one, first), number(other, second));
            ((first, second), a.len().cmp(&b.len()).then_with(|| a.cmp(&b)))
        } else {
            let next = |text: &str| text.chars().next().unwrap_or_default();
            let (a, b) = (next(one), next(other));
            ((a.len_utf8(), b.len_utf8()), a.cmp(&b))
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = (&one[taken.0..], &other[taken.1..]);
    }
    one.len().cmp(&other.len())
}

/// Returns the number of leading digits.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Cases {
        #[expect(dead_code, reason = "for people")]
        about: Vec<String>,
        place: Vec<(String, String)>,
        words: Vec<(String, Vec<String>)>,
        tidy: Vec<(String, String)>,
        order: Vec<String>,
    }

    fn cases() -> Cases {
        serde_json::from_str(include_str!("../tests/suite/fold_cases.json")).unwrap()
    }

    #[test]
    fn every_case_of_the_table_is_folded_as_it_says() {
        for (text, folded) in cases().place {
            assert_eq!(place(&text), folded, "{text:?}");
        }
        for (text, found) in cases().words {
            assert_eq!(words(&text), found, "{text:?}");
        }
        for (text, kept) in cases().tidy {
            assert_eq!(tidy(&text), kept, "{text:?}");
        }
    }

    #[test]
    fn people_find_a_place_in_their_order() {
        let expected = cases().order;
        let mut sorted = expected.clone();
        sorted.reverse();
        sorted.sort_by(|one, other| order(one, other));
        assert_eq!(sorted, expected);
    }

    proptest! {
        #[test]
        fn what_is_folded_stays_as_it_is(text in "\\PC{0,40}") {
            let (once, kept) = (place(&text), tidy(&text));
            prop_assert_eq!(place(&once), once.clone());
            prop_assert_eq!(place(&kept), once);
            prop_assert_eq!(tidy(&kept), kept);
            for word in words(&text) {
                prop_assert_eq!(words(&word), vec![word.clone()]);
            }
        }

        #[test]
        fn case_and_composition_change_no_place(text in "[a-zA-Z0-9 áéíñöüçßΣςйЙがÅ–-]{0,30}") {
            let decomposed: String = text.nfd().collect();
            prop_assert!(same_place(&text, &decomposed));
            prop_assert!(same_place(&text, &text.to_lowercase()));
            prop_assert!(same_place(&text, &text.to_uppercase()));
        }

        #[test]
        fn the_order_is_one(texts in proptest::collection::vec("[aAáb0-9 ]{0,6}", 3)) {
            let [a, b, c] = [&texts[0], &texts[1], &texts[2]];
            prop_assert_eq!(order(a, b), order(b, a).reverse());
            if order(a, b).is_le() && order(b, c).is_le() {
                prop_assert!(order(a, c).is_le());
            }
        }
    }
}
