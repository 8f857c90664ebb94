//! Text as people read it: what is the same text to them, what finds it, and in which order they look for it.
//!
//! `src/pages/shared/fold.js` has [`place`] too; `tests/suite/fold_cases.json` is run against both.

use std::cmp::Ordering;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// A text as it is kept: composed (NFC), each run of white space one space, none at the ends.
pub fn tidy(text: &str) -> String {
    let composed: String = text.nfc().collect();
    composed.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a seat or a gate is compared by: the same for texts that differ in their case, accents, width, spaces or dashes
/// only. In a word of one or two letters an accent counts: row Ñ is not row N.
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

/// Characters of what a place is compared by at most: there are some that stand for 18 others, and an index has a limit.
/// Longer ones are compared as they are kept.
const LONGEST_PLACE: usize = 200;

/// Whether people read the same seat or gate.
pub fn same_place(one: &str, other: &str) -> bool {
    one == other || place(one) == place(other)
}

/// The words of a text, by which it is found: in lower case, without accents.
pub fn words(text: &str) -> Vec<String> {
    let unmarked: String = plain(text).filter(|character| !is_apostrophe(*character)).nfd().collect();
    let folded = unaccented(&unmarked);
    let words = folded.split(is_separator).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

/// The order in which people look for a seat, a gate or a name: by the alphabet without case and accents, A2 before A10.
pub fn order(one: &str, other: &str) -> Ordering {
    let by_alphabet =
        natural(&unaccented(&plain(one).collect::<String>()), &unaccented(&plain(other).collect::<String>()));
    by_alphabet.then_with(|| one.cmp(other))
}

/// The letters of a text, decomposed (NFKD) and in lower case, without what cannot be seen, with one kind of dashes and of
/// apostrophes. Marks that come together so are in their order again (Unicode Standard Annex 15, section 1.3).
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

/// Letters without their accents, and those whose accent is a part of them.
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

/// Accents of the Latin, Greek, Cyrillic, Hebrew and Arabic scripts. Other scripts write vowels, or other letters, with their
/// marks.
fn is_accent(character: char) -> bool {
    matches!(character,
        '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{670}')
}

/// What text has for computers: soft hyphens, joiners, directions, variants.
pub fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

fn is_apostrophe(character: char) -> bool {
    matches!(character, '\'' | '`' | '\u{b4}')
}

/// What is between words.
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

/// How many digits a text begins with.
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
