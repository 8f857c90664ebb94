//! The mail to a person: all of their tickets, as plain text and HTML, and the event for their calendar.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart};
use lettre::{Address, Message};
use uuid::Uuid;

use crate::error::Error;
use crate::model::{Event, Millis, Ticket};
use crate::pages::{LANGUAGES, Language, escape};

/// The content of a mail. Everything that people wrote is on one line, so that it cannot add lines of its own.
pub struct Letter<'a> {
    event: &'a Event,
    language: &'static Language,
    /// The holder's own name, if known.
    name: Option<String>,
    tickets: Vec<Enclosed>,
    /// The link that opens all tickets of this person, if there are several.
    all: Option<String>,
    /// Whether somebody may have a Google Wallet pass that one of these links replaces.
    replaces_pass: bool,
}

struct Enclosed {
    /// Its seat and gate, and what else distinguishes it from the others.
    told: String,
    url: String,
}

/// Puts a text on one line.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

impl<'a> Letter<'a> {
    /// Creates a letter to a person of this name about these tickets, each with its link, and with the link to `all` of them.
    pub fn new<'t>(
        event: &'a Event,
        own_name: Option<&str>,
        tickets: impl Iterator<Item = (&'t Ticket, String)>,
        all: Option<String>,
        replaces_pass: bool,
    ) -> Self {
        let language = event.language.as_deref().and_then(Language::by_tag).unwrap_or(&LANGUAGES[0]);
        let enclosed = |(ticket, url): (&Ticket, String)| {
            let place = language.text("mail.place");
            let place = place.replace("{seat}", &one_line(&ticket.seat)).replace("{gate}", &one_line(&ticket.gate));
            let other_name = ticket.full_name.as_deref().filter(|name| Some(*name) != own_name);
            let more = [ticket.category.as_deref(), other_name].into_iter().flatten().map(one_line);
            Enclosed { told: std::iter::once(place).chain(more).collect::<Vec<_>>().join(" · "), url }
        };
        Self {
            event,
            language,
            name: own_name.map(one_line),
            tickets: tickets.map(enclosed).collect(),
            all,
            replaces_pass,
        }
    }

    /// Returns the text for one ticket, or for this number of them.
    fn counted(&self, one: &'static str, many: &'static str) -> String {
        let text = self.language.text(if self.tickets.len() == 1 { one } else { many });
        text.replace("{count}", &self.tickets.len().to_string()).replace("{event}", &one_line(&self.event.name))
    }

    pub fn subject(&self) -> String {
        self.counted("mail.subject_one", "mail.subject_other")
    }

    fn here(&self) -> String {
        self.counted("mail.here_one", "mail.here_other")
    }

    fn hello(&self) -> String {
        match &self.name {
            Some(name) => self.language.text("mail.hello").replace("{name}", name),
            None => self.language.text("mail.hello_nobody").to_owned(),
        }
    }

    /// Returns the time and the location, as far as known.
    fn when_and_where(&self) -> Vec<String> {
        let when = self.language.moment(self.event.starts_at, &self.event.time_zone);
        let place = self.event.location.as_deref().map(one_line).unwrap_or_default();
        [when, place].into_iter().filter(|line| !line.is_empty()).collect()
    }

    fn advice(&self) -> Vec<String> {
        let mut advice = vec![
            self.counted("mail.open_one", "mail.open_other"),
            self.counted("mail.secret_one", "mail.secret_other"),
        ];
        advice.extend(self.replaces_pass.then(|| self.language.text("gone.wallet").to_owned()));
        advice
    }

    pub fn text(&self) -> String {
        let mut paragraphs = vec![self.hello(), self.here(), self.when_and_where().join("\n")];
        paragraphs.extend(self.all.iter().map(|url| format!("{}\n{url}", self.language.text("mail.all"))));
        paragraphs.extend(self.tickets.iter().map(|Enclosed { told, url }| format!("{told}\n{url}")));
        paragraphs.extend(self.advice());
        paragraphs.retain(|paragraph| !paragraph.is_empty());
        paragraphs.join("\n\n") + "\n"
    }

    fn html(&self) -> String {
        let safe = |text: &str| {
            let mut safe = String::new();
            escape(text, &mut safe);
            safe
        };
        let paragraph = |lines: &[String]| format!("<p dir=\"auto\">{}</p>\n", lines.join("<br>\n"));
        let mut html = format!(
            "<!doctype html>\n<html lang=\"{}\">\n<head>\n<meta charset=\"utf-8\">\n<title>{}</title>\n</head>\n\
             <body style=\"font-family: sans-serif; line-height: 1.5; max-width: 34em\">\n",
            self.language.tag,
            safe(&self.subject())
        );
        html += &paragraph(&[safe(&self.hello())]);
        html += &paragraph(&[safe(&self.here())]);
        let facts: Vec<String> = self.when_and_where().iter().map(|line| format!("<b>{}</b>", safe(line))).collect();
        if !facts.is_empty() {
            html += &paragraph(&facts);
        }
        let link = |url: &str, name| format!("<a href=\"{}\">{}</a>", safe(url), safe(self.language.text(name)));
        if let Some(url) = &self.all {
            html += &paragraph(&[safe(self.language.text("mail.all")), link(url, "mail.all_link")]);
        }
        for Enclosed { told, url } in &self.tickets {
            html += &paragraph(&[safe(told), link(url, "mail.link")]);
        }
        self.advice().iter().for_each(|advice| html += &paragraph(&[safe(advice)]));
        html + "</body>\n</html>\n"
    }

    /// Returns the event for a calendar (RFC 5545) if its start is known. Has no links, because calendars are shared.
    fn calendar(&self, domain: &str, now: Millis) -> Option<String> {
        let event = self.event;
        let mut lines = vec![
            "BEGIN:VCALENDAR".to_owned(),
            "VERSION:2.0".to_owned(),
            "PRODID:-//register-ticket-api//EN".to_owned(),
            "METHOD:PUBLISH".to_owned(),
            "BEGIN:VEVENT".to_owned(),
            format!("UID:{}@{domain}", event.event_id),
            format!("SEQUENCE:{}", event.version),
            format!("DTSTAMP:{}", utc(now)?),
            format!("DTSTART:{}", utc(event.starts_at?)?),
        ];
        lines.extend(event.ends_at.and_then(utc).map(|end| format!("DTEND:{end}")));
        lines.push(format!("SUMMARY:{}", calendar_text(&event.name)));
        lines.extend(event.location.as_deref().map(|place| format!("LOCATION:{}", calendar_text(place))));
        lines.extend(["END:VEVENT".to_owned(), "END:VCALENDAR".to_owned()]);
        Some(lines.iter().map(|line| folded(line)).collect())
    }

    /// Builds the mail.
    pub fn message(&self, from: &Mailbox, to: Address, now: Millis) -> Result<Message, Error> {
        let internal = |error: &dyn std::fmt::Display| Error::Internal(format!("cannot build a mail: {error}"));
        let domain = from.email.domain();
        let mut body = MultiPart::alternative_plain_html(self.text(), self.html());
        if let Some(calendar) = self.calendar(domain, now) {
            let kind = ContentType::parse("text/calendar; charset=utf-8; method=PUBLISH").map_err(|e| internal(&e))?;
            let attached = Attachment::new("event.ics".to_owned()).body(calendar, kind);
            body = MultiPart::mixed().multipart(body).singlepart(attached);
        }
        let mut message = Message::builder()
            .from(from.clone())
            .to(Mailbox::new(self.name.clone(), to))
            .subject(self.subject())
            .date(UNIX_EPOCH + Duration::from_millis(now.0.unsigned_abs()))
            .message_id(Some(format!("<{}@{domain}>", Uuid::new_v4())))
            .multipart(body)
            .map_err(|error| internal(&error))?;
        // Suppresses automatic replies such as vacation notices (RFC 3834).
        let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
        message.headers_mut().insert_raw(HeaderValue::new(automatic, "auto-generated".to_owned()));
        Ok(message)
    }
}

/// Parses an address by the rules of mail servers, which are stricter than those for lists.
pub fn address(text: &str) -> Option<Address> {
    let address: Address = text.parse().ok()?;
    // The library accepts some that it cannot parse in a header, such as `a@[192.0.2.1]`.
    let read: Mailbox = address.to_string().parse().ok()?;
    (read.email == address).then_some(address)
}

fn utc(moment: Millis) -> Option<String> {
    let moment = jiff::Timestamp::from_millisecond(moment.0).ok()?;
    Some(moment.strftime("%Y%m%dT%H%M%SZ").to_string())
}

fn calendar_text(text: &str) -> String {
    let mut escaped = String::new();
    for character in one_line(text).chars() {
        if [',', ';', '\\'].contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Folds a line of a calendar to at most 75 bytes per line, with continuation lines after a space, and without splitting
/// characters.
fn folded(line: &str) -> String {
    let (mut folded, mut length) = (String::new(), 0);
    for character in line.chars() {
        if length + character.len_utf8() > 75 {
            folded.push_str("\r\n ");
            length = 1;
        }
        length += character.len_utf8();
        folded.push(character);
    }
    folded + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CategoryColours, Reentry};

    fn event(name: &str, location: &str, language: &str) -> Event {
        Event {
            event_id: Uuid::from_u128(1),
            slug: "gala".into(),
            name: name.into(),
            time_zone: "Europe/Madrid".into(),
            starts_at: Some(Millis(1_777_658_400_000)),
            ends_at: None,
            opens_at: None,
            closes_at: None,
            walk_ups: false,
            walk_up_price: None,
            currency: None,
            reentry: Reentry::None,
            capacity: None,
            category_colours: CategoryColours::default(),
            language: Some(language.into()),
            location: Some(location.into()),
            forget_after_days: None,
            forgotten_at: None,
            version: 3,
        }
    }

    fn letter<'a>(event: &'a Event, name: &str, tickets: usize) -> Letter<'a> {
        let mut letter = Letter::new(event, Some(name), std::iter::empty(), None, true);
        let enclosed =
            |place| Enclosed { told: format!("A-{place} · <North>"), url: format!("https://t.example.org/t/{place}") };
        letter.tickets.extend((0..tickets).map(enclosed));
        letter
    }

    fn sent(letter: &Letter<'_>) -> String {
        let from = "Gala <gala@example.org>".parse().unwrap();
        let message = letter.message(&from, "ana@example.org".parse().unwrap(), Millis(0)).unwrap();
        String::from_utf8(message.formatted()).unwrap()
    }

    #[test]
    fn what_people_wrote_becomes_no_header() {
        let hostile = "Ana\r\nBcc: eve@example.org\r\n\r\nBody <eve@example.org>, \"Ñ\" \u{0}";
        let event = event(hostile, hostile, "en");
        let sent = sent(&letter(&event, hostile, 1));
        let (head, _) = sent.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let ours = ["From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type", "Auto-Submitted"];
        assert_eq!(names.len(), ours.len(), "{head}");
        assert!(ours.iter().all(|name| names.contains(name)), "{head}");
        assert!(sent.is_ascii(), "any mail server accepts it");
        let calendar = letter(&event, hostile, 1).calendar("example.org", Millis(0)).unwrap();
        assert!(!calendar.contains("\r\nBcc") && calendar.matches("\r\nSUMMARY:").count() == 1, "{calendar}");
    }

    #[test]
    fn a_letter_is_whole_in_every_language() {
        for language in &LANGUAGES {
            let event = event("Spring & Gala", "Hall <1>", language.tag);
            for tickets in [1, 2] {
                let mut letter = letter(&event, "Ana", tickets);
                letter.all = (tickets > 1).then(|| "https://t.example.org/t/all".to_owned());
                let (subject, text, html) = (letter.subject(), letter.text(), letter.html());
                for told in [&subject, &text, &html] {
                    assert!(!told.contains(['{', '}']) && !told.contains("mail."), "{}: {told}", language.tag);
                }
                assert!(text.contains("Spring & Gala") && text.contains("\nHall <1>\n"), "{text}");
                assert!(html.contains("Spring &amp; Gala") && html.contains("<b>Hall &lt;1&gt;</b>"), "{html}");
                assert!(html.contains("A-0 · &lt;North&gt;<br>\n<a href=\"https://t.example.org/t/0\">"), "{html}");
                let links = if tickets > 1 { tickets + 1 } else { 1 };
                assert_eq!(text.matches("https://").count(), links, "{text}");
                assert_eq!(html.matches("<a href=\"https://t.example.org/t/").count(), links, "{html}");
            }
        }
    }

    #[test]
    fn a_line_of_a_calendar_is_short_and_tears_no_letter() {
        let event = event(&"Ñandú ".repeat(30), "x", "en");
        let calendar = letter(&event, "Ana", 1).calendar("example.org", Millis(0)).unwrap();
        assert!(calendar.split("\r\n").all(|line| line.len() <= 75), "{calendar}");
        assert!(calendar.replace("\r\n ", "").contains(&format!("SUMMARY:{}", "Ñandú ".repeat(30))), "{calendar}");
        assert_eq!(calendar.matches("Ñ").count(), 30);
    }
}
