//! The web pages: their templates, their texts in each language, and the files that they load.
//!
//! A template is HTML in which `{{name}}` stands for a value and `{{a.name}}` for a text of `pages/text/*.json`, both
//! escaped; `{{&name}}` is a value that is HTML already; `{{json a b}}` are all texts whose names begin with `a.` or
//! `b.`, as JSON for the page's own module.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use http::{HeaderMap, header};
use qrcodegen::{QrCode, QrCodeEcc};

use crate::model::Millis;

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
    /// The language that whoever sent these headers likes best of ours.
    pub fn of(headers: &HeaderMap) -> &'static Self {
        let sent: Vec<&str> =
            headers.get_all(header::ACCEPT_LANGUAGE).iter().filter_map(|value| value.to_str().ok()).collect();
        Self::accepted(&sent.join(","))
    }

    /// Reads `Accept-Language` (RFC 9110, section 12.5.4). `es-419` asks for Spanish as `es` does, and `*` for whatever is
    /// not named. What comes first wins among equals; what is not understood is passed over.
    fn accepted(header: &str) -> &'static Self {
        let ranges: Vec<(&str, u16)> = header.split(',').filter_map(weighted).collect();
        let liked = |name: &str| {
            let named = ranges.iter().zip(0..).filter(|((range, _), _)| range.eq_ignore_ascii_case(name));
            named.map(|((_, weight), place)| (*weight, Reverse(place))).max()
        };
        let wanted = |language: &&Self| liked(language.tag).or_else(|| liked("*")).filter(|(weight, _)| *weight > 0);
        // Backwards, because of equals the last is taken.
        let best = LANGUAGES.iter().rev().filter(|language| wanted(language).is_some()).max_by_key(wanted);
        best.unwrap_or(&LANGUAGES[0])
    }

    /// A text by its name; the name itself where it is missing, which a test finds.
    pub fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.texts.get(name).map_or(name, String::as_str)
    }

    /// A moment as people say it, where they are. Empty where there is none.
    pub fn moment(&self, moment: Option<Millis>, time_zone: &str) -> String {
        let local = moment.and_then(|moment| jiff::Timestamp::from_millisecond(moment.0).ok()?.in_tz(time_zone).ok());
        let Some(local) = local else { return String::new() };
        let word = |name, place: i8| self.text(name).split(' ').nth(place.unsigned_abs().into()).unwrap_or_default();
        self.text("time.moment")
            .replace("{weekday}", word("time.weekdays", local.weekday().to_monday_zero_offset()))
            .replace("{day}", &local.day().to_string())
            .replace("{month}", word("time.months", local.month() - 1))
            .replace("{year}", &local.year().to_string())
            .replace("{time}", &format!("{:02}:{:02}", local.hour(), local.minute()))
    }

    fn json(&self, groups: &str) -> String {
        let wanted = |name: &str| groups.split(' ').any(|group| name.split('.').next() == Some(group));
        let texts: BTreeMap<&str, &str> =
            self.texts.iter().filter(|(name, _)| wanted(name)).map(|(name, text)| (&**name, &**text)).collect();
        // So that no text can end the element that it stands in.
        serde_json::to_string(&texts).unwrap_or_default().replace('<', "\\u003c")
    }

    fn value<'a>(&'a self, name: &'a str, values: &'a [(&str, String)]) -> &'a str {
        match name {
            "lang" => self.tag,
            "assets" => ASSETS_PATH,
            _ => values.iter().find(|(known, _)| *known == name).map_or_else(|| self.text(name), |(_, value)| value),
        }
    }

    /// Fills a template.
    pub fn render(&self, template: &str, values: &[(&str, String)]) -> String {
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

/// One range of `Accept-Language` without its regions, and how much it is liked, in thousandths.
fn weighted(range: &str) -> Option<(&str, u16)> {
    let (tag, weight) = range.split_once(';').unwrap_or((range, "q=1"));
    let weight = weight.trim().strip_prefix(['q', 'Q'])?.strip_prefix('=')?;
    let weight: f32 = weight.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    Some((tag.trim().split('-').next()?, (weight * 1_000.0) as u16))
}

/// A QR code as SVG, with the quiet zone of four modules that scanners need. Empty where the text is too long for one.
pub fn qr(text: &str) -> String {
    const QUIET: i32 = 4;
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Medium) else { return String::new() };
    let mut path = String::new();
    for y in 0..code.size() {
        let mut x = 0;
        while x < code.size() {
            let run = (x..code.size()).take_while(|&x| code.get_module(x, y)).count() as i32;
            if run > 0 {
                write!(path, "M{} {}h{run}v1h-{run}z", x + QUIET, y + QUIET).expect("a string grows");
            }
            x += run.max(1);
        }
    }
    let size = code.size() + 2 * QUIET;
    format!("<svg class=\"qr\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\"><path d=\"{path}\"/></svg>")
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
