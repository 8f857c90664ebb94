//! Refusal codes: each has a text in every language and a line in the documents.

use std::collections::BTreeSet;

use register_ticket_api::error::Error;
use register_ticket_api::fault::Fault;
use register_ticket_api::pages::LANGUAGES;
use serde_json::Value;
use strum::IntoEnumIterator as _;

/// The text between two headings of docs/api.md.
fn section(heading: &str) -> &'static str {
    let document = include_str!("../../docs/api.md");
    let (_, rest) = document.split_once(&format!("# {heading}\n")).unwrap_or_else(|| panic!("no part {heading}"));
    rest.split("\n#").next().unwrap_or_default()
}

/// The values of a schema in the OpenAPI document.
fn described(schema: &str) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(include_str!("../../src/openapi.json")).expect("the document is JSON");
    let words = document["components"]["schemas"][schema]["enum"].as_array().expect("an enum").clone();
    words.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

/// The texts that a language lacks.
fn untold(group: &str, codes: &BTreeSet<&'static str>) -> Vec<String> {
    let names = codes.iter().map(|code| format!("{group}.{code}"));
    let lacking = |name: &String| LANGUAGES.iter().any(|language| language.text(name) == name);
    names.filter(lacking).collect()
}

/// The codes that the first cells of a table lack; in a cell, the words in backticks count.
fn undocumented<'a>(section: &str, codes: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let told = |code: &str| section.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{code}`")));
    codes.iter().copied().filter(|code| !told(code)).collect()
}

#[test]
fn every_code_of_an_error_has_its_words_in_every_language_and_its_line_in_the_documents() {
    let codes: BTreeSet<&str> = Error::iter().map(|error| error.code()).collect();
    assert_eq!(untold("problem", &codes), [""; 0], "there is no text of this name");
    assert_eq!(undocumented(section("Errors"), &codes), [""; 0], "docs/api.md has no line for it");
    assert_eq!(described("ProblemCode"), codes.iter().map(ToString::to_string).collect(), "src/openapi.json");
}

#[test]
fn every_code_of_a_field_has_its_words_in_every_language_and_its_line_in_the_documents() {
    let codes: BTreeSet<&str> = Fault::iter().map(|fault| fault.code()).collect();
    assert_eq!(untold("field", &codes), [""; 0], "there is no text of this name");
    assert_eq!(undocumented(section("Fields"), &codes), [""; 0], "docs/api.md has no line for it");
    assert_eq!(described("FieldCode"), codes.iter().map(ToString::to_string).collect(), "src/openapi.json");
}

#[test]
fn every_param_of_a_field_is_documented_and_no_text_has_a_gap_without_one() {
    for fault in Fault::iter() {
        let (code, params) = (fault.code(), fault.params());
        let line = section("Fields").lines().find(|line| line.contains(&format!("`{code}`"))).unwrap_or_default();
        for name in params.keys() {
            assert!(line.contains(&format!("`{name}`")), "docs/api.md does not tell the `{name}` of {code}: {line}");
        }
        for language in &LANGUAGES {
            let name = format!("field.{code}");
            let text = language.text(&name);
            let gaps = text.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
            for gap in gaps {
                assert!(params.contains_key(gap), "{code} has no `{gap}`: {text}");
            }
        }
    }
}
