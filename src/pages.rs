//! The web pages: their templates, their texts in each language, and the files that they load.
//!
//! A template is HTML in which `{{name}}` stands for a value and `{{a.name}}` for a text of `pages/text/*.json`, both
//! escaped; `{{&name}}` is a value that is HTML already; `{{json a b.name}}` are all texts whose names begin with `a.`, and
//! `b.name`, as JSON for the page's own module. `{{limit.name}}`, and in a text `{limit.name}`, is one of the limits.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::sync::LazyLock;

use flate2::read::GzDecoder;
use http::{HeaderMap, header};
use qrcodegen::{QrCode, QrCodeEcc};

use crate::admission::DAY_TURNS;
use crate::limits::{
    BACKUP_DAYS, CAPACITY, CATEGORY, CLOCKS_APART, CSV_BODY, EMAIL, ENROLMENT, FORGET_AFTER_DAYS, GUESSES_SHOWN,
    GUEST_LETTERS, GUESTS, KEY_NAME, LIST_KEPT, LOCATION, MANIFEST_AFTER_END, MANIFEST_BEFORE_START, NAME, NOTE, PLACE,
    SEARCH, SLUG, TICKET_NOTE, USERNAME, WALK_UPS,
};
use crate::model::Millis;
use crate::totp::PERIOD;

/// A file that pages load, as `build.rs` made it.
pub struct Asset {
    /// Its path below `/assets/{VERSION}/`.
    pub name: &'static str,
    pub gzip: &'static [u8],
    pub brotli: &'static [u8],
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
            _ => "text/plain; charset=utf-8",
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

fn texts(gzip: &[u8]) -> Texts {
    let mut json = String::new();
    GzDecoder::new(gzip).read_to_string(&mut json).expect("build.rs compressed it");
    let texts: Texts = serde_json::from_str(&json).expect("the file is ours, and every test of a page reads it");
    texts.into_iter().map(|(name, text)| (name, with_limits(&text))).collect()
}

/// A limit as people read it: a number of characters, or of what its name says.
fn limit(name: &str) -> Option<u64> {
    Some(match name.strip_prefix("limit.")? {
        "place" => PLACE as u64,
        "username" => USERNAME as u64,
        "slug" => SLUG as u64,
        "name" => NAME as u64,
        "key_name" => KEY_NAME as u64,
        "email" => EMAIL as u64,
        "location" => LOCATION as u64,
        "note" => NOTE as u64,
        "category" => CATEGORY as u64,
        "ticket_note" => TICKET_NOTE as u64,
        "search" => SEARCH as u64,
        "capacity" => CAPACITY.unsigned_abs(),
        "guests" => GUESTS as u64,
        "guest_letters" => GUEST_LETTERS as u64,
        "walk_ups" => WALK_UPS as u64,
        "enrolment_minutes" => ENROLMENT.as_secs() / 60,
        "guesses_minutes" => GUESSES_SHOWN.as_secs() / 60,
        "manifest_hours" => MANIFEST_BEFORE_START.as_secs() / 3_600,
        "after_end_hours" => MANIFEST_AFTER_END.as_secs() / 3_600,
        "list_hours" => LIST_KEPT.as_secs() / 3_600,
        "clock_seconds" => CLOCKS_APART.as_secs(),
        "csv_mib" => CSV_BODY as u64 / (1024 * 1024),
        "period" => PERIOD.unsigned_abs(),
        "forget_days" => FORGET_AFTER_DAYS.unsigned_abs(),
        "backup_days" => BACKUP_DAYS,
        "day_turns" => DAY_TURNS.unsigned_abs().into(),
        _ => return None,
    })
}

/// A text with the limits that it names.
fn with_limits(text: &str) -> String {
    let mut parts = text.split("{limit.");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once('}').unwrap_or((part, ""));
        match limit(&format!("limit.{name}")) {
            Some(limit) => whole.push_str(&limit.to_string()),
            None => whole.push_str(&format!("{{limit.{name}}}")),
        }
        whole.push_str(rest);
    }
    whole
}

impl Language {
    const fn new(tag: &'static str, texts: fn() -> Texts) -> Self {
        Self { tag, texts: LazyLock::new(texts) }
    }

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

    /// One of ours, by its tag.
    pub fn by_tag(tag: &str) -> Option<&'static Self> {
        LANGUAGES.iter().find(|language| language.tag == tag)
    }

    /// A text by its name; the name itself where it is missing, which a test finds.
    pub fn text<'a>(&'a self, name: &'a str) -> &'a str {
        self.texts.get(name).map_or(name, String::as_str)
    }

    /// A moment as people say it, where they are. Empty where there is none.
    pub fn moment(&self, moment: Option<Millis>, time_zone: &str) -> String {
        let Some(local) = moment.and_then(|moment| moment.in_zone(time_zone)) else { return String::new() };
        let word = |name, place: i8| self.text(name).split(' ').nth(place.unsigned_abs().into()).unwrap_or_default();
        self.text("time.moment")
            .replace("{weekday}", word("time.weekdays", local.weekday().to_monday_zero_offset()))
            .replace("{day}", &local.day().to_string())
            .replace("{month}", word("time.months", local.month() - 1))
            .replace("{year}", &local.year().to_string())
            .replace("{time}", &format!("{:02}:{:02}", local.hour(), local.minute()))
    }

    /// A text whose `{time}` is that moment, by the time alone where it is on the day of `day`. Empty where there is no moment.
    pub fn with_time(&self, name: &str, moment: Option<Millis>, day: Option<Millis>, time_zone: &str) -> String {
        let Some(at) = moment.and_then(|moment| moment.in_zone(time_zone)) else { return String::new() };
        let time = match day.and_then(|day| day.in_zone(time_zone)) {
            Some(day) if day.date() == at.date() => format!("{:02}:{:02}", at.hour(), at.minute()),
            _ => self.moment(moment, time_zone),
        };
        self.text(name).replace("{time}", &time)
    }

    fn json(&self, groups: &str) -> String {
        let wanted = |name: &str| groups.split(' ').any(|group| name == group || name.split('.').next() == Some(group));
        let texts: BTreeMap<&str, &str> =
            self.texts.iter().filter(|(name, _)| wanted(name)).map(|(name, text)| (&**name, &**text)).collect();
        // So that no text can end the element that it stands in.
        serde_json::to_string(&texts).unwrap_or_default().replace('<', "\\u003c")
    }

    fn value<'a>(&'a self, name: &'a str, values: &'a [(&str, String)]) -> Cow<'a, str> {
        match name {
            "lang" => self.tag.into(),
            "assets" => ASSETS_PATH.into(),
            "languages" => LANGUAGES.each_ref().map(|language| language.tag).join(" ").into(),
            _ => match (limit(name), values.iter().find(|(known, _)| *known == name)) {
                (Some(limit), _) => limit.to_string().into(),
                (None, Some((_, value))) => value.into(),
                (None, None) => self.text(name).into(),
            },
        }
    }

    /// Fills a template in which what stands between `<!--each-->` and `<!--/each-->` comes once for each of these.
    pub fn render_each(&self, template: &str, values: &[(&str, String)], each: &[Vec<(&str, String)>]) -> String {
        let (before, rest) = template.split_once("<!--each-->").unwrap_or((template, ""));
        let (part, after) = rest.split_once("<!--/each-->").unwrap_or(("", rest));
        let parts: String = each.iter().map(|values| self.render(part, values)).collect();
        [self.render(before, values), parts, self.render(after, values)].concat()
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
                page.push_str(&value(name));
            } else {
                escape(&value(name), &mut page);
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

/// A QR code as SVG, black on a white ground of its own, with the quiet zone of four modules that scanners need. Empty where the text is too long for one.
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
    let ground = format!("<rect width=\"{size}\" height=\"{size}\" fill=\"#fff\"/>");
    format!(
        "<svg class=\"qr\" viewBox=\"0 0 {size} {size}\" shape-rendering=\"crispEdges\">{ground}<path d=\"{path}\" fill=\"#000\"/></svg>"
    )
}

/// Makes a text safe in HTML, between tags and in quoted attributes.
pub fn escape(text: &str, page: &mut String) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::limits::{ATTEMPTS_WINDOW, KEY_ATTEMPTS};
    use crate::model::{Action, Colour, Direction, MailResult, Reentry, Role, ScanResult};
    use crate::response::{DATABASE, MARK};

    /// What `endpoints::pages` gives a template besides what each has.
    const PASSED: &[(&str, &[&str])] = &[
        ("away.html", &["retry"]),
        ("refused.html", &["detail", "status", "title", "why"]),
        (
            "ticket.html",
            &[
                "alone",
                "category",
                "code",
                "colour",
                "database",
                "doors",
                "event",
                "gate",
                "holder",
                "inside",
                "key",
                "location",
                "manifest",
                "otpauth",
                "otpauth_qr",
                "qr",
                "reentry",
                "refresh",
                "seat",
                "starts",
                "status",
                "ticket",
                "time_zone",
                "title",
                "used_at",
                "used_gate",
                "used_when",
                "validity",
                "wallet",
            ],
        ),
    ];

    /// Every file with one of these endings below a folder of the sources, with its name.
    fn sources(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            if path.is_dir() {
                found.extend(sources(&format!("{folder}/{name}"), endings));
            } else if endings.contains(&ending) {
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
        found
    }

    /// What stands between `{` and `}` in a text, or between `{{` and `}}` in a template.
    fn named<'a>(text: &'a str, open: &str, close: &str) -> BTreeSet<&'a str> {
        text.split(open).skip(1).filter_map(|rest| Some(rest.split_once(close)?.0)).collect()
    }

    #[test]
    fn a_template_names_what_there_is_and_uses_what_it_gets() {
        for (file, template) in sources("src/pages", &["html"]) {
            let passed = PASSED.iter().find(|(name, _)| *name == file).map_or(&[][..], |(_, values)| values);
            let names = named(&template, "{{", "}}");
            for value in passed {
                assert!(
                    names.iter().any(|name| name.trim_start_matches('&') == *value),
                    "{file} does not use `{value}`"
                );
            }
            for name in names {
                for language in &LANGUAGES {
                    let is_text = |name: &str| language.texts.contains_key(name);
                    let known = match name.strip_prefix("json ") {
                        Some(groups) => groups.split(' ').all(|group| {
                            let in_group = |name: &String| name.split_once('.').is_some_and(|(of, _)| of == group);
                            is_text(group) || language.texts.keys().any(in_group)
                        }),
                        None => {
                            let name = name.trim_start_matches('&');
                            ["lang", "assets", "languages"].contains(&name)
                                || passed.contains(&name)
                                || is_text(name)
                                || limit(name).is_some()
                        }
                    };
                    assert!(known, "{file} names `{name}`, which is not there in `{}`", language.tag);
                }
            }
        }
    }

    /// What the files say, before their limits are filled in.
    fn raw_texts() -> Vec<(String, Texts)> {
        let files = sources("src/pages/text", &["json"]).into_iter();
        files.map(|(file, json)| (file, serde_json::from_str(&json).unwrap())).collect()
    }

    #[test]
    fn every_file_of_texts_is_a_language() {
        let files: BTreeSet<String> = raw_texts().into_iter().map(|(file, _)| file).collect();
        let languages: BTreeSet<String> = LANGUAGES.iter().map(|language| format!("{}.json", language.tag)).collect();
        assert_eq!(files, languages);
    }

    #[test]
    fn a_text_names_its_limits_and_has_no_figure_of_its_own() {
        for (file, texts) in raw_texts() {
            for (name, text) in texts {
                // This one is a name.
                let text = text.replace("UTF-8", "");
                assert!(!text.contains(|character: char| character.is_ascii_digit()), "{file}: {name}");
                assert!(!with_limits(&text).contains("{limit."), "{file}: {name} names a limit that is not there");
            }
        }
        assert_eq!(with_limits("{n} of {limit.period}, {limit.none}"), format!("{{n}} of {PERIOD}, {{limit.none}}"));
    }

    #[test]
    fn the_length_of_a_field_is_a_limit() {
        for (file, template) in sources("src/pages", &["html"]) {
            for length in template.split("maxlength=\"").skip(1) {
                assert!(length.starts_with("{{limit."), "{file}: {}", length.split('"').next().unwrap());
            }
        }
    }

    #[test]
    fn every_word_that_people_meet_has_its_text() {
        let results = ScanResult::ALL.iter().map(|result| format!("result.{}", result.as_str()));
        let roles = Role::ALL.iter().flat_map(|role| {
            let device = role.is_of_a_device().then(|| format!("gate.role_{}", role.as_str()));
            [Some(format!("organizer.role_{}", role.as_str())), device]
        });
        let directions = Direction::ALL.iter().map(|direction| format!("gate.{}", direction.as_str()));
        let actions = Action::ALL.iter().map(|action| format!("organizer.action_{}", action.as_str()));
        let reentry = Reentry::ALL.iter().map(|reentry| format!("organizer.reentry_{}", reentry.as_str()));
        let unsent = MailResult::ALL.iter().filter(|result| !matches!(result, MailResult::Sent | MailResult::Ready));
        let mails = unsent.map(|result| format!("organizer.mail_{}", result.as_str()));
        for name in results.chain(roles.flatten()).chain(directions).chain(actions).chain(reentry).chain(mails) {
            for language in &LANGUAGES {
                assert!(language.texts.contains_key(&name), "`{}` lacks `{name}`", language.tag);
            }
        }
    }

    #[test]
    fn the_pages_know_each_role_as_it_is() {
        let devices = || Role::ALL.iter().filter(|role| role.is_of_a_device());
        let list = |name, roles: Vec<&str>| format!("const {name} = [\"{}\"];", roles.join("\", \""));
        let of_devices = list("DEVICES", devices().map(|role| role.as_str()).collect());
        assert!(include_str!("pages/organizer/devices.js").contains(&of_devices), "devices.js lacks {of_devices}");
        let supervise = devices().filter(|role| role.holds(Role::Supervisor)).map(|role| role.as_str());
        let supervise = list("SUPERVISORS", supervise.collect());
        assert!(include_str!("pages/gate/core.js").contains(&supervise), "core.js lacks {supervise}");
        let form = include_str!("pages/organizer/organizer.html");
        for role in devices().map(|role| role.as_str()) {
            let choice = format!("<option value=\"{role}\">{{{{organizer.role_{role}_long}}}}</option>");
            assert!(form.contains(&choice), "organizer.html lacks {choice}");
        }
    }

    #[test]
    fn the_board_offers_each_colour() {
        let colours: Vec<&str> = Colour::ALL.iter().map(|colour| colour.as_str()).collect();
        let list = format!("const COLOURS = [\"{}\"];", colours.join("\", \""));
        assert!(include_str!("pages/organizer/board.js").contains(&list), "board.js lacks {list}");
        for colour in colours {
            assert!(include_str!("pages/shared/base.css").contains(&format!("[data-colour=\"{colour}\"]")), "{colour}");
        }
    }

    #[test]
    fn the_organizer_sees_all_that_is_told_of_a_ticket() {
        let page = include_str!("pages/organizer/ticket.js");
        let schema = schemars::schema_for!(crate::model::Ticket);
        let told = schema.get("properties").and_then(serde_json::Value::as_object).unwrap().keys();
        // When a ticket was made is of no use at a door.
        for name in told.filter(|name| *name != "created_at") {
            let is_word = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric() || next == '_');
            assert!(page.split(name.as_str()).skip(1).any(is_word), "pages/organizer/ticket.js shows no `{name}`");
        }
    }

    #[test]
    fn every_verdict_has_its_look_at_the_gate() {
        let table = include_str!("pages/gate/verdict.js");
        for result in ScanResult::ALL {
            assert!(table.contains(&format!("\n  {}: \"", result.as_str())), "{}", result.as_str());
        }
    }

    #[test]
    fn the_gates_queue_leaves_wrong_codes_to_those_who_stand_there_and_cuts_no_ticket() {
        let script = include_str!("pages/gate/core.js");
        let number = |before: &str| -> i64 {
            let (_, rest) = script.split_once(before).unwrap_or_else(|| panic!("core.js lacks `{before}`"));
            rest.split([',', ';']).next().and_then(|number| number.trim().replace('_', "").parse().ok()).unwrap()
        };
        assert!(number("wrong:") * 2 <= KEY_ATTEMPTS);
        assert_eq!(number("MINUTE ="), ATTEMPTS_WINDOW.as_secs() as i64);
        let longest = crate::totp::Code::Printed([0; 10]);
        let longest = crate::totp::QrCode { ticket_id: uuid::Uuid::nil(), code: longest }.to_string();
        assert!(number("LONGEST_CODE =") > longest.len() as i64, "and so nothing that is cut becomes one");
    }

    #[test]
    fn every_language_has_the_same_texts_with_the_same_gaps() {
        let [english, others @ ..] = &LANGUAGES;
        for other in others {
            let names = |language: &Language| language.texts.keys().cloned().collect::<BTreeSet<_>>();
            let differ: Vec<String> = names(english).symmetric_difference(&names(other)).cloned().collect();
            assert_eq!(differ, [""; 0], "only in `{}` or only in `{}`", english.tag, other.tag);
            for (name, text) in english.texts.iter() {
                let gaps = |text| named(text, "{", "}").into_iter().map(str::to_owned).collect::<Vec<_>>();
                assert_eq!(gaps(text), gaps(&other.texts[name]), "{name}");
                assert!(!other.texts[name].trim().is_empty(), "{name} is empty");
            }
        }
    }

    /// What another language says as English does.
    const SHARED: &[&str] = &[
        "Actions (CSV)",
        "Downloads",
        "E-mail",
        "Event",
        "Events",
        "Link",
        "Name",
        "Offline",
        "Online",
        "Service",
        "Status",
        "Ticket",
        "Tickets",
        "Violet",
        "installation",
    ];

    #[test]
    fn no_text_was_left_in_english() {
        let [english, others @ ..] = &LANGUAGES;
        let mut met = BTreeSet::new();
        for other in others {
            for (name, text) in english.texts.iter().filter(|(name, text)| other.texts[*name] == **text) {
                let has_words = text.split(['{', '}']).step_by(2).any(|part| part.contains(char::is_alphabetic));
                assert!(!has_words || SHARED.contains(&&**text), "`{}` has `{name}` as English has it", other.tag);
                met.insert(&**text);
            }
        }
        let unused: Vec<_> = SHARED.iter().filter(|text| !met.contains(*text)).collect();
        assert!(unused.is_empty(), "no language shares {unused:?}");
    }

    #[test]
    fn a_number_of_one_is_told_too_because_in_french_none_is_as_one() {
        for language in &LANGUAGES {
            // A mail is about one at least.
            for (name, many) in language.texts.iter().filter(|(name, _)| !name.starts_with("mail.")) {
                let one = name.strip_suffix("_other").and_then(|name| language.texts.get(&format!("{name}_one")));
                let told = |text: &String| text.contains("{count}");
                assert!(one.is_none_or(|one| told(one) && told(many)), "`{}`: {name}", language.tag);
            }
        }
    }

    #[test]
    fn no_line_begins_with_a_mark_that_ends_something() {
        for language in &LANGUAGES {
            for (name, text) in language.texts.iter() {
                let broken = [" :", " ;", " !", " ?", " »", "« "].iter().any(|mark| text.contains(mark));
                assert!(!broken, "{}: {name}: it needs a space that does not break", language.tag);
            }
        }
    }

    #[test]
    fn pages_and_worker_know_the_mark_of_the_service_and_every_page_has_it() {
        let known = [format!("const MARK = \"{MARK}\";"), format!("const DATABASE = \"{DATABASE}\";")];
        for (file, script) in
            [("api.js", include_str!("pages/shared/api.js")), ("worker.js", include_str!("pages/worker.js"))]
        {
            known.iter().for_each(|known| assert!(script.contains(known), "{file} lacks {known}"));
        }
        for (file, template) in sources("src/pages", &["html"]) {
            let kind = file.trim_end_matches(".html");
            let mark = format!("<head>\n<meta charset=\"utf-8\">\n<meta name=\"{MARK}\" content=\"{kind}\">\n");
            assert!(template.contains(&mark), "{file} lacks {mark}");
            assert!(template.ends_with("</html>\n"), "{file}: how else would anybody know that it is whole?");
        }
    }

    /// Every source that may name a text.
    fn users() -> Vec<(String, String)> {
        let mut users = sources("src/pages", &["html", "js"]);
        users.extend(["src/pages.rs", "src/endpoints/pages.rs", "src/mail/letter.rs"].map(|path| {
            let code = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
            (path.to_owned(), code.split("#[cfg(test)]").next().unwrap_or_default().to_owned())
        }));
        users
    }

    #[test]
    fn every_text_is_used() {
        let sources: String = users().into_iter().map(|(_, source)| source + "\n").collect();
        let whole = |name: &str| {
            let part_of_name = |character: char| character.is_alphanumeric() || character == '_' || character == '.';
            sources.split(name).skip(1).any(|rest| !rest.starts_with(part_of_name))
        };
        // `result.${verdict}` uses every text whose name begins so.
        let by_prefix = |name: &str| {
            let ends = name.char_indices().filter(|(_, character)| "._".contains(*character));
            ends.into_iter().any(|(end, _)| sources.contains(&format!("{}${{", &name[..=end])))
        };
        let unused: Vec<&String> = LANGUAGES[0].texts.keys().filter(|name| !whole(name) && !by_prefix(name)).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn every_text_that_a_script_asks_for_is_there() {
        for (file, source) in users().into_iter().filter(|(file, _)| file.ends_with(".js")) {
            // A canvas has a context, which is no text.
            for name in named(&source.replace("getContext(", ""), "text(\"", "\"") {
                assert!(LANGUAGES[0].texts.contains_key(name), "{file} asks for `{name}`");
            }
        }
    }

    /// `qaa` and `qab` are nobody's, for private use: we shall not speak them either.
    #[test]
    fn the_language_is_the_one_that_is_liked_best() {
        for (header, tag) in [
            ("", "en"),
            ("es", "es"),
            ("ES", "es"),
            ("es-419", "es"),
            ("es-419,es;q=0.9,en;q=0.8", "es"),
            ("en-GB,en;q=0.9,es;q=0.8", "en"),
            ("en;q=0.5, es;q=0.6", "es"),
            ("en;q=0.5,es;Q=0.50", "en"),
            ("es,en", "es"),
            ("qaa-QM, qaa;q=0.9, es;q=0.3, en;q=0.2", "es"),
            ("es;q=0.1, es-MX;q=0.9, en;q=0.5", "es"),
            ("qaa, qab", "en"),
            ("*", "en"),
            ("es, *", "es"),
            ("pt-BR,pt;q=0.9,en-US;q=0.8", "pt"),
            ("pt-PT, es;q=0.9", "pt"),
            ("gsw, de-CH;q=0.9, fr-CH;q=0.8, it-CH;q=0.7, en;q=0.6", "de"),
            ("fr-CA, en;q=0.5", "fr"),
            ("it", "it"),
            ("*, es;q=0.5", "en"),
            ("en;q=0, *", LANGUAGES[1].tag),
            ("en;q=0, es;q=0.001", "es"),
            ("es;q=0", "en"),
            ("en;q=0, es;q=0", "en"),
            ("est, esperanto", "en"),
            ("es;q=2, en;q=0.1", "en"),
            ("es;q=NaN, es;q=-1, es;q=, es;level=1, ;q=1, ;, -, =", "en"),
            ("\t es ;\tq=1 ,", "es"),
        ] {
            assert_eq!(Language::accepted(header).tag, tag, "{header}");
        }
    }

    #[test]
    fn several_headers_count_as_one() {
        let mut headers = HeaderMap::new();
        headers.append(header::ACCEPT_LANGUAGE, "en;q=0.5".parse().unwrap());
        headers.append(header::ACCEPT_LANGUAGE, http::HeaderValue::from_bytes(b"\xff").unwrap());
        headers.append(header::ACCEPT_LANGUAGE, "es".parse().unwrap());
        assert_eq!(Language::of(&headers).tag, "es");
    }

    #[test]
    fn a_moment_is_told_where_people_are() {
        let evening = Millis::parse("2026-05-01T22:05:59.999Z");
        let told = |language, zone| Language::accepted(language).moment(evening, zone);
        assert_eq!(told("en", "UTC"), "Fri 1 May 2026, 22:05");
        assert_eq!(told("es", "UTC"), "vie 1 may 2026, 22:05");
        assert_eq!(told("en", "Europe/Madrid"), "Sat 2 May 2026, 00:05");
        assert_eq!(told("es", "Europe/Madrid"), "sáb 2 may 2026, 00:05");
        assert_eq!(told("en", "America/Bogota"), "Fri 1 May 2026, 17:05");
        assert_eq!(told("es", "America/Bogota"), "vie 1 may 2026, 17:05");
        assert_eq!(told("de", "Europe/Berlin"), "Sa., 2. Mai 2026, 00:05");
        assert_eq!(told("fr", "America/Montreal"), "ven. 1 mai 2026, 18:05");
        assert_eq!(told("it", "Europe/Rome"), "sab 2 mag 2026, 00:05");
        assert_eq!(told("pt", "America/Sao_Paulo"), "sex., 1 de mai. de 2026, 19:05");
        let spanish = Language::accepted("es");
        for (month, name) in (1..).zip(spanish.text("time.months").split(' ')) {
            let day = Millis::parse(&format!("2026-{month:02}-07T12:00:00Z"));
            assert!(spanish.moment(day, "UTC").contains(&format!(" 7 {name} 2026")), "{name}");
        }
        for language in &LANGUAGES {
            let words = |name| language.text(name).split(' ').count();
            assert_eq!((words("time.months"), words("time.weekdays")), (12, 7), "{}", language.tag);
        }
        assert_eq!(LANGUAGES[0].moment(None, "UTC"), "");
    }

    #[test]
    fn a_value_is_text_and_nothing_else() {
        let hostile = r#"<img src=x onerror="alert('1')">&amp;{{key}}"#;
        let values = [("name", hostile.to_owned()), ("key", "secret".to_owned())];
        let page = LANGUAGES[0].render("<p title='{{name}}'>{{name}}</p>", &values);
        let text = "&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;amp;{{key}}";
        assert_eq!(page, format!("<p title='{text}'>{text}</p>"));
        assert_eq!(LANGUAGES[0].render("{{&name}}", &values), hostile);
    }

    #[test]
    fn a_script_gets_the_texts_of_its_groups() {
        let page = LANGUAGES[1].render("{{json gone field.empty time}}", &[]);
        let texts: BTreeMap<String, String> = serde_json::from_str(&page).unwrap();
        assert_eq!(texts["gone.title"], LANGUAGES[1].text("gone.title"));
        let wanted = |name: &String| name.starts_with("gone.") || name.starts_with("time.") || name == "field.empty";
        assert!(texts.keys().all(wanted) && texts.contains_key("field.empty"), "{texts:?}");
        assert!(!page.contains('<'));
    }

    #[test]
    fn a_qr_is_one_path_on_its_own_white_ground_with_four_modules_around() {
        let svg = qr("RT1.ABEiM0RVZneImaq7zN3u_w.050471");
        assert!(svg.starts_with(r#"<svg class="qr" viewBox="0 0 37 37" "#), "{svg}");
        assert!(svg.contains(r##"<rect width="37" height="37" fill="#fff"/>"##), "{svg}");
        // The first row of the first finder pattern.
        assert!(svg.contains(r#"<path d="M4 4h7v1h-7z"#), "{svg}");
        assert_eq!(svg.matches('<').count(), 4, "{svg}");
        assert_eq!(qr(&"é".repeat(3_000)), "", "there is no QR code so large");
    }
}
