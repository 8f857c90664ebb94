//! The web pages: their templates, their texts in each language, and the files that they load.
//!
//! A template is HTML in which `{{name}}` stands for a value and `{{a.name}}` for a text of `pages/text/*.json`, both
//! escaped; `{{&name}}` is a value that is HTML already; `{{json a b}}` are all texts whose names begin with `a.` or
//! `b.`, as JSON for the page's own module.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// A file that pages load, as `build.rs` made it.
pub struct Asset {
    /// Its path below `/assets/{VERSION}/`.
    pub name: &'static str,
    pub gzip: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/assets.rs"));

impl Asset {
    pub fn find(name: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.name == name)
    }

    pub fn content_type(&self) -> &'static str {
        match self.name.rsplit_once('.').map_or("", |(_, ending)| ending) {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            "png" => "image/png",
            "webmanifest" => "application/manifest+json",
            _ => "application/octet-stream",
        }
    }
}

type Texts = BTreeMap<String, String>;

/// A language that the pages speak.
pub struct Language {
    /// Its tag (BCP 47), as in `<html lang>`.
    pub tag: &'static str,
    texts: LazyLock<Texts>,
}

fn texts(json: &str) -> Texts {
    serde_json::from_str(json).expect("the file is ours, and every test of a page reads it")
}

/// The first is spoken to whoever asks for none of them.
pub static LANGUAGES: [Language; 2] = [
    Language { tag: "en", texts: LazyLock::new(|| texts(include_str!("pages/text/en.json"))) },
    Language { tag: "es", texts: LazyLock::new(|| texts(include_str!("pages/text/es.json"))) },
];

impl Language {
    /// The language that `Accept-Language` (RFC 9110, section 12.5.4) likes best of ours.
    pub fn accepted(header: &str) -> &'static Self {
        let mut best = (&LANGUAGES[0], 0.0);
        for range in header.split(',') {
            let (tag, weight) = range.split_once(';').unwrap_or((range, ""));
            let weight = weight.trim().strip_prefix("q=").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
            let primary = tag.trim().split('-').next().unwrap_or_default();
            let ours = LANGUAGES.iter().find(|language| language.tag.eq_ignore_ascii_case(primary));
            if let Some(language) = ours.filter(|_| weight > best.1) {
                best = (language, weight);
            }
        }
        best.0
    }

    /// A text by its name; the name itself where it is missing, which a test finds.
    pub fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.texts.get(name).map_or(name, String::as_str)
    }

    fn json(&self, groups: &str) -> String {
        let wanted = |name: &str| groups.split(' ').any(|group| name.split('.').next() == Some(group));
        let texts: BTreeMap<&str, &str> =
            self.texts.iter().filter(|(name, _)| wanted(name)).map(|(name, text)| (&**name, &**text)).collect();
        // So that no text can end the element that it stands in.
        serde_json::to_string(&texts).unwrap_or_default().replace('<', "\\u003c")
    }

    fn value<'a>(&'a self, name: &'a str, values: &[(&str, &'a str)]) -> &'a str {
        match name {
            "lang" => self.tag,
            "assets" => ASSETS_PATH,
            _ => values.iter().find(|(known, _)| *known == name).map_or_else(|| self.text(name), |(_, value)| value),
        }
    }

    /// Fills a template.
    pub fn render(&self, template: &str, values: &[(&str, &str)]) -> String {
        let value = |name| self.value(name, values);
        let mut page = String::with_capacity(template.len() * 2);
        let mut rest = template;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            page.push_str(before);
            if let Some(groups) = name.strip_prefix("json ") {
                page.push_str(&self.json(groups));
            } else if let Some(name) = name.strip_prefix('&') {
                page.push_str(value(name));
            } else {
                escape(value(name), &mut page);
            }
            rest = after;
        }
        page.push_str(rest);
        page
    }
}

/// Makes a text safe in HTML, between tags and in quoted attributes.
fn escape(text: &str, page: &mut String) {
    for character in text.chars() {
        match character {
            '&' => page.push_str("&amp;"),
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            other => page.push(other),
        }
    }
}
