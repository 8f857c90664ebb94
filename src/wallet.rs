//! Google Wallet passes: a link that adds a ticket, signed with the key of the issuer's service account. The phone
//! generates the pass's codes every 30 seconds, as our page does.

use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;
use serde_json::{Value, json};

use crate::config::Issuer;
use crate::error::Error;
use crate::model::Millis;
use crate::store::TicketPage;
use crate::totp::{self, TotpKey};

/// The start of a link, before the token.
const SAVE: &str = "https://pay.google.com/gp/v/save/";
/// Maximum length of a link in characters. Google considers a token of 1,800 safe everywhere; on phones, links of 2,000 open.
pub const LONGEST_LINK: usize = 2_000;
/// The steps that shorten a pass to that length: the maximum length of each text in bytes, and the optional parts that the pass
/// still has.
const SHORTER: [(usize, More); 9] = [
    (60, More::End),
    (60, More::Category),
    (60, More::Venue),
    (36, More::Venue),
    (60, More::Doors),
    (36, More::Doors),
    (60, More::Nothing),
    (36, More::Nothing),
    (16, More::Nothing),
];

/// The optional parts of a pass: this one and those before it.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum More {
    Nothing,
    Doors,
    Venue,
    Category,
    End,
}

/// Returns the link that adds a ticket, with the key of its codes, to the wallet of the person who opens it. Google learns from
/// it everything that the pass shows, and the key. `service` is our public URL, whose host is shown as the issuer's name.
pub fn link(issuer: &Issuer, read: &TicketPage, key: &TotpKey, service: &str, now: Millis) -> Result<String, Error> {
    let pass = Pass { issuer, read, key, service, language: read.language.as_deref().unwrap_or("en") };
    let mut signature = vec![0; issuer.key.public().modulus_len()];
    // The length of the link apart from the signed part: prefix, dot, and the signature in base64.
    let others = SAVE.len() + 1 + signature.len().div_ceil(3) * 4;
    let mut unsigned = String::new();
    for (longest, more) in SHORTER {
        unsigned = pass.unsigned(longest, more, now);
        if others + unsigned.len() <= LONGEST_LINK {
            break;
        }
    }
    issuer
        .key
        .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), unsigned.as_bytes(), &mut signature)
        .map_err(|error| Error::Internal(format!("cannot sign a pass: {error}")))?;
    Ok(format!("{SAVE}{unsigned}.{}", BASE64URL_NOPAD.encode(&signature)))
}

/// A ticket as a pass shows it.
struct Pass<'a> {
    issuer: &'a Issuer,
    read: &'a TicketPage,
    key: &'a TotpKey,
    service: &'a str,
    language: &'a str,
}

impl Pass<'_> {
    /// Returns the header and claims of the token (RFC 7519), in the form in which they are signed.
    fn unsigned(&self, longest: usize, more: More, now: Millis) -> String {
        let claims = json!({
            "iss": self.issuer.email,
            "aud": "google",
            "typ": "savetowallet",
            "iat": now.0 / Millis::SECOND,
            "origins": [],
            "payload": {
                "eventTicketClasses": [self.class(longest, more)],
                "eventTicketObjects": [self.object(longest, more)],
            },
        });
        let encoded = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        format!("{}.{}", encoded(&json!({ "alg": "RS256", "typ": "JWT" })), encoded(&claims))
    }

    /// Returns the id of the event's class. Google keeps the first content of a class, so each version of the event has
    /// its own. The random half of the event's id suffices to distinguish it from the issuer's others.
    fn class_id(&self) -> String {
        let event = BASE64URL_NOPAD.encode(&self.read.ticket.event_id.as_bytes()[8..]);
        format!("{}.{event}-{}", self.issuer.id, self.read.event_version)
    }

    /// Returns the class: the data that all tickets of the event share.
    fn class(&self, longest: usize, more: More) -> Value {
        let read = self.read;
        let host = self.service.split_once("://").map_or(self.service, |(_, host)| host);
        let mut class = json!({
            "id": self.class_id(),
            "issuerName": cut(host, longest),
            "reviewStatus": "UNDER_REVIEW",
            "eventName": self.told(&read.event_name, longest),
        });
        let times = [
            ("start", read.starts_at, true),
            ("doorsOpen", read.opens_at, more >= More::Doors),
            ("end", read.ends_at, more >= More::End),
        ];
        for (name, moment, _) in times.into_iter().filter(|(_, _, wanted)| *wanted) {
            if let Some(time) = self.local(moment) {
                class["dateTime"][name] = time.into();
            }
        }
        // A venue needs a name and an address.
        if let Some(place) = read.location.as_ref().filter(|_| more >= More::Venue) {
            let name = place.split([',', ';']).next().unwrap_or(place);
            class["venue"] = json!({ "name": self.told(name, longest), "address": self.told(place, longest) });
        }
        class
    }

    /// Returns the ticket's object. A new seed makes a new object, because Google keeps the previous one, whose codes are no
    /// longer valid.
    fn object(&self, longest: usize, more: More) -> Value {
        let ticket = &self.read.ticket;
        let id = BASE64URL_NOPAD.encode(ticket.ticket_id.as_bytes());
        let seeded_at = ticket.seeded_at.unwrap_or(ticket.created_at).0;
        let mut object = json!({
            "id": format!("{}.{id}-{seeded_at}", self.issuer.id),
            "classId": self.class_id(),
            "state": "ACTIVE",
            "seatInfo": { "seat": self.told(&ticket.seat, longest), "gate": self.told(&ticket.gate, longest) },
            "rotatingBarcode": {
                "type": "QR_CODE",
                "valuePattern": format!("RT1.{id}.{{totp_value_0}}"),
                "alternateText": cut(&ticket.seat, longest),
                "totpDetails": {
                    // Google's JSON has 64-bit numbers as strings.
                    "periodMillis": (totp::PERIOD * Millis::SECOND).to_string(),
                    "algorithm": "TOTP_SHA1",
                    "parameters": [{ "key": self.key.base16(), "valueLength": totp::DIGITS }],
                },
            },
        });
        if let Some(holder) = ticket.full_name.as_ref().or(ticket.username.as_ref()) {
            object["ticketHolderName"] = cut(holder, longest).into();
        }
        if let Some(category) = ticket.category.as_ref().filter(|_| more >= More::Category) {
            object["ticketType"] = self.told(category, longest);
        }
        object
    }

    /// Returns a text marked with the event's language.
    fn told(&self, text: &str, longest: usize) -> Value {
        json!({ "defaultValue": { "language": self.language, "value": cut(text, longest) } })
    }

    /// Formats a moment in local time with its offset from UTC (ISO 8601).
    fn local(&self, moment: Option<Millis>) -> Option<String> {
        let at = moment?.in_zone(&self.read.time_zone)?;
        Some(at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }
}

/// Truncates a text to at most `longest` bytes, with `…` at the end.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let end = (0..=longest.saturating_sub('…'.len_utf8())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}
