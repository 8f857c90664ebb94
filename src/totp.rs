//! Codes: pure functions, no clock, no I/O.
//!
//! A code is TOTP (RFC 6238) with HMAC-SHA-1, 6 digits and 30-second steps, what authenticator apps support.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use totp_rs::{Algorithm, Builder, Secret, Totp};
use uuid::Uuid;

use crate::model::{Millis, Seed};

/// Length of a step in seconds (RFC 6238, section 4.1: X).
pub const PERIOD: i64 = 30;
/// Steps that a phone's clock may be off, each way, and still be admitted (RFC 6238, section 5.2).
pub const DRIFT: i64 = 1;
/// Steps around a refused code in which it is looked for, to tell a stale code from a wrong one.
pub const STALE_WINDOW: i64 = 20;
/// Digits of a code (RFC 4226, section 5.3).
pub const DIGITS: u8 = 6;

/// The step of a moment: RFC 6238's T, with T0 = 0.
pub fn step_at(now: Millis) -> i64 {
    now.0.div_euclid(PERIOD * Millis::SECOND)
}

/// The key of one ticket's codes.
pub struct TotpKey([u8; 20]);

/// Where a code was found among the steps around now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Good now: its step, at most [`DRIFT`] away.
    Current { step: i64 },
    /// The code of a step farther away. `seconds_off` is the distance of now from that step's 30 seconds: negative
    /// when the code is from the past, positive when it is from the future.
    Stale { seconds_off: i64 },
    /// No code of any step near.
    None,
}

impl TotpKey {
    pub fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    fn totp(&self) -> Totp {
        // 160 bits, 6 digits and HMAC-SHA-1 are what RFC 4226 asks for; there is nothing left to validate.
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_step_duration(PERIOD as u64)
            .with_secret(Secret::new_stack(self.0))
            .build_noncompliant()
    }

    /// The code of a step: six digits.
    pub fn code(&self, step: i64) -> String {
        code_of(&self.totp(), step)
    }

    /// Looks for a code in the steps around `now`. Each comparison takes the same time whatever the digits.
    pub fn find(&self, code: &str, now: Millis) -> Match {
        let totp = self.totp();
        let current = step_at(now);
        let is_code_of = |step: i64| step >= 0 && bool::from(code_of(&totp, step).as_bytes().ct_eq(code.as_bytes()));

        // Nearest first: 0, -1, +1, -2, +2, … A code that is good now must never be taken for a stale one.
        for offset in (0..=STALE_WINDOW).flat_map(|away| [-away, away]) {
            let step = current + offset;
            if is_code_of(step) {
                return if offset.abs() <= DRIFT {
                    Match::Current { step }
                } else {
                    Match::Stale { seconds_off: seconds_off(step, now) }
                };
            }
        }
        Match::None
    }

    /// The key as authenticator apps take it: base32 without padding (RFC 4648, section 6).
    pub fn base32(&self) -> String {
        BASE32_NOPAD.encode(&self.0)
    }

    /// HKDF-SHA256 (RFC 5869) of this key, without salt: the keys of links and printed tickets.
    pub fn derive<const LENGTH: usize>(&self, info: &str) -> [u8; LENGTH] {
        hkdf(&self.0, None, info.as_bytes())
    }
}

fn code_of(totp: &Totp, step: i64) -> String {
    totp.generate(step.unsigned_abs() * PERIOD as u64).to_string()
}

fn seconds_off(step: i64, now: Millis) -> i64 {
    let now = now.0.div_euclid(Millis::SECOND);
    let begins = step * PERIOD;
    let ends = begins + PERIOD;
    if now >= ends { ends - now } else { begins - now }
}

fn hkdf<const LENGTH: usize>(key: &[u8], salt: Option<&[u8]>, info: &[u8]) -> [u8; LENGTH] {
    let mut derived = [0; LENGTH];
    hkdf::Hkdf::<Sha256>::new(salt, key)
        .expand(info, &mut derived)
        .expect("HKDF-SHA256 gives up to 8160 bytes, and we ask for at most 20");
    derived
}

/// `TICKET_SECRET`: with it, a stolen copy of the database alone makes no codes. Without it the seed is the key.
pub struct TicketSecret {
    secret: Option<String>,
    fingerprint: [u8; 32],
}

impl TicketSecret {
    pub fn new(secret: Option<String>) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_deref().unwrap_or_default().as_bytes())
            .expect("HMAC takes a key of any length");
        mac.update(b"register-ticket-api TICKET_SECRET");
        Self { secret, fingerprint: mac.finalize().into_bytes().into() }
    }

    /// The key of a ticket's codes: the seed itself, or HKDF-SHA256(seed, salt: the secret, info: the ticket's 16 bytes).
    pub fn key_of(&self, ticket_id: Uuid, seed: Seed) -> TotpKey {
        match &self.secret {
            None => TotpKey(seed.0),
            Some(secret) => TotpKey(hkdf(&seed.0, Some(secret.as_bytes()), ticket_id.as_bytes())),
        }
    }

    /// What the database keeps to recognise the secret: HMAC-SHA256 (RFC 2104) of a constant. No secret has one too,
    /// so that setting one later does not silently make every code wrong.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }
}

/// What the QR of a ticket shows: `RT1.<ticket_id, base64url>.<code>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QrCode {
    pub ticket_id: Uuid,
    pub code: String,
}

impl QrCode {
    /// Reads what a scanner saw. `None` is what is not of our form.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, code) = text.trim().strip_prefix("RT1.")?.split_once('.')?;
        let id = BASE64URL_NOPAD.decode(id.as_bytes()).ok()?;
        let ticket_id = Uuid::from_slice(&id).ok()?;
        let six_digits = code.len() == usize::from(DIGITS) && code.bytes().all(|byte| byte.is_ascii_digit());
        six_digits.then(|| Self { ticket_id, code: code.to_owned() })
    }
}

impl std::fmt::Display for QrCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RT1.{}.{}", BASE64URL_NOPAD.encode(self.ticket_id.as_bytes()), self.code)
    }
}

/// The token of a ticket's page: base64url of the ticket's id and 16 bytes derived from its key, so that a new seed
/// kills the link, and a copy of the database alone makes none.
pub fn page_token(ticket_id: Uuid, key: &TotpKey) -> String {
    let proof: [u8; 16] = key.derive("page");
    BASE64URL_NOPAD.encode(&[ticket_id.as_bytes().as_slice(), &proof].concat())
}
