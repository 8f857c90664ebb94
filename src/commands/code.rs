//! `code`: prints the code that the phone of a ticket's holder would show. Needs no database.

use std::io::Read as _;

use anyhow::Context as _;
use clap::Args;
use data_encoding::BASE32_NOPAD;
use serde::Deserialize;
use uuid::Uuid;

use crate::model::Millis;
use crate::totp::{Code, QrCode, TotpKey, step_at};

#[derive(Args)]
pub struct Arguments {
    /// The secret in base32, its otpauth:// URL, or the JSON response to a registration
    #[arg(
        default_value = "-",
        hide_default_value = true,
        long_help = "\
        The secret in base32, its otpauth:// URL, or the JSON response to a registration. If absent or `-`, it is \
        read from standard input, where other users of the machine do not see it"
    )]
    secret: String,
    /// Print the content of the ticket's QR code instead of the six digits
    #[arg(long)]
    qr: bool,
    /// The ticket, for --qr without a JSON response
    #[arg(long, requires = "qr")]
    ticket_id: Option<Uuid>,
    /// The time, such as 2026-05-01T18:00:00Z [default: now]
    #[arg(long, value_parser = super::keys::time)]
    at: Option<Millis>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let secret = if arguments.secret == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("standard input")?;
        Secret::read(&text)?
    } else {
        Secret::read(&arguments.secret)?
    };
    let code = secret.key.code(step_at(arguments.at.unwrap_or_else(Millis::now)));
    if arguments.qr {
        let ticket_id = arguments.ticket_id.or(secret.ticket_id).context("--qr needs --ticket-id")?;
        say!("{}", QrCode { ticket_id, code: Code::Rotating(code) });
    } else {
        say!("{code}");
    }
    Ok(())
}

struct Secret {
    key: TotpKey,
    ticket_id: Option<Uuid>,
}

/// The parts of a registration's response that are used.
#[derive(Deserialize)]
struct Registration {
    ticket_id: Uuid,
    provisioning: Provisioning,
}

#[derive(Deserialize)]
struct Provisioning {
    secret: String,
}

/// The response to a rejected registration.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl Secret {
    /// Parses any of the forms of a secret. No error repeats it.
    fn read(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            if let Ok(problem) = serde_json::from_str::<Problem>(text) {
                anyhow::bail!("the registration was refused, {}: {}", problem.code, problem.detail);
            }
            let answer: Registration = serde_json::from_str(text)
                .map_err(|_| anyhow::anyhow!("this JSON is not the answer of a registration, reissue or transfer"))?;
            return Ok(Self { key: key(&answer.provisioning.secret)?, ticket_id: Some(answer.ticket_id) });
        }
        if let Some(url) = text.strip_prefix("otpauth://totp/") {
            let query = url.split_once('?').map_or("", |(_, query)| query);
            let fields: Vec<(String, String)> = serde_urlencoded::from_str(query).context("the otpauth:// URL")?;
            let secret =
                fields.iter().find(|(name, _)| name == "secret").context("the otpauth:// URL has no secret")?;
            return Ok(Self { key: key(&secret.1)?, ticket_id: None });
        }
        Ok(Self { key: key(text)?, ticket_id: None })
    }
}

/// Parses a secret as people type it: in any case, in groups, with or without padding.
pub(super) fn key(base32: &str) -> anyhow::Result<TotpKey> {
    let plain: String = base32.chars().filter(|character| !matches!(character, ' ' | '-' | '=')).collect();
    let bytes = BASE32_NOPAD.decode(plain.to_ascii_uppercase().as_bytes()).ok();
    let bytes = bytes.and_then(|bytes| <[u8; 20]>::try_from(bytes).ok());
    bytes.map(TotpKey::new).context("a ticket's secret is 32 characters of base32 (A-Z and 2-7)")
}
