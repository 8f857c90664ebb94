//! Codes, and the tokens of links: pure functions without clock or I/O.
//!
//! A code is TOTP (RFC 6238) with HMAC-SHA-1, 6 digits and 30-second steps, which authenticator apps support.

use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use totp_rs::{Algorithm, Builder, Secret, Totp};
use uuid::Uuid;

use crate::limits::HELD_TICKETS;
use crate::model::{Millis, Seed};

/// Length of a step in seconds (RFC 6238, section 4.1: X).
pub const PERIOD: i64 = 30;
/// Steps by which a phone's clock may be off, each way, and its code still be accepted (RFC 6238, section 5.2).
pub const DRIFT: i64 = 1;
/// Steps, each way, in which a refused code is searched for, to distinguish a stale code from a wrong one.
pub const STALE_WINDOW: i64 = 20;
/// Quarters of an hour, each way, at which a wrong code is searched for: the greatest offset between time zones, and so of a
/// phone whose clock was set by hand in the wrong zone.
pub const ZONES: i64 = 56;
/// A quarter of an hour in seconds.
pub const QUARTER: i64 = 900;
/// Digits of a code (RFC 4226, section 5.3).
pub const DIGITS: u8 = 6;

/// Returns the step of a moment: RFC 6238's T, with T0 = 0.
pub fn step_at(now: Millis) -> i64 {
    now.0.div_euclid(PERIOD * Millis::SECOND)
}

/// The key of one ticket's codes.
pub struct TotpKey([u8; 20]);

/// What a code proves about the ticket for which it was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// A phone's code that is valid now. Its step is at most [`DRIFT`] away.
    Current { step: i64 },
    /// The proof on the printed ticket.
    Paper,
    /// The code of a step farther away. `seconds_off` is the distance between now and that step's 30 seconds: negative
    /// when the code is from the past, positive when it is from the future.
    Stale { seconds_off: i64 },
    /// A wrong code that would be right `seconds_off` away, a multiple of [`QUARTER`]: negative when in the past.
    Zone { seconds_off: i64 },
    /// Not a code of this ticket at any of these steps.
    None,
}

impl TotpKey {
    pub fn new(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    fn totp(&self) -> Totp {
        // 160 bits, 6 digits and HMAC-SHA-1 satisfy RFC 4226, so there is nothing to validate.
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS)
            .with_step_duration(PERIOD as u64)
            .with_secret(Secret::new_stack(self.0))
            .build_noncompliant()
    }

    /// Returns the six digits of a step.
    pub fn code(&self, step: i64) -> String {
        code_of(&self.totp(), step)
    }

    /// Checks a code against this key as of `now`.
    pub fn recognise(&self, code: &Code, now: Millis) -> Match {
        match code {
            Code::Rotating(digits) => self.find(digits, now),
            Code::Printed(proof) if self.made(proof) => Match::Paper,
            Code::Printed(_) => Match::None,
        }
    }

    /// Searches the steps around `now` for a phone's digits. Comparisons take constant time.
    pub fn find(&self, code: &str, now: Millis) -> Match {
        let totp = self.totp();
        let current = step_at(now);
        let is_code_of = |step: i64| step >= 0 && bool::from(code_of(&totp, step).as_bytes().ct_eq(code.as_bytes()));

        // Nearest first (0, -1, +1, -2, +2, …), so that a code that is valid now is never taken for a stale one.
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
        let zones = (1..=ZONES).flat_map(|quarters| [-quarters, quarters]).map(|quarters| quarters * QUARTER);
        let is_of_zone = |seconds_off: &i64| {
            let there = current + seconds_off / PERIOD;
            (there - DRIFT..=there + DRIFT).any(is_code_of)
        };
        zones.into_iter().find(is_of_zone).map_or(Match::None, |seconds_off| Match::Zone { seconds_off })
    }

    /// Returns the key in base32 without padding (RFC 4648, section 6), for authenticator apps.
    pub fn base32(&self) -> String {
        BASE32_NOPAD.encode(&self.0)
    }

    /// Returns the key in hexadecimal (RFC 4648, section 8), for Google Wallet.
    pub fn base16(&self) -> String {
        HEXUPPER.encode(&self.0)
    }

    /// Returns whether this key made the proof of a printed ticket, in constant time.
    fn made(&self, proof: &PrintProof) -> bool {
        self.print_proof().ct_eq(proof).into()
    }

    /// Returns the proof that paper shows instead of six digits: HKDF-SHA256(the key, no salt, info: "print"). A gate
    /// can therefore check it with the key alone.
    pub fn print_proof(&self) -> PrintProof {
        hkdf(&self.0, None, b"print")
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

/// HKDF-SHA256 (RFC 5869).
fn hkdf<const LENGTH: usize>(key: &[u8], salt: Option<&[u8]>, info: &[u8]) -> [u8; LENGTH] {
    let mut derived = [0; LENGTH];
    hkdf::Hkdf::<Sha256>::new(salt, key)
        .expand(info, &mut derived)
        .expect("HKDF-SHA256 yields up to 8160 bytes, and at most 20 are requested");
    derived
}

/// `TICKET_SECRET`. With it, a stolen copy of the database alone cannot generate codes. Without it, the seed is the key.
pub struct TicketSecret {
    secret: Option<String>,
    fingerprint: [u8; 32],
}

impl TicketSecret {
    pub fn new(secret: Option<String>) -> Self {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_deref().unwrap_or_default().as_bytes())
            .expect("HMAC accepts keys of any length");
        mac.update(b"register-ticket-api TICKET_SECRET");
        Self { secret, fingerprint: mac.finalize().into_bytes().into() }
    }

    /// Returns the key of a ticket's codes: HKDF-SHA256(seed, salt: the secret, info: the ticket's 16 bytes), or the seed
    /// itself without a secret.
    pub fn key_of(&self, ticket_id: Uuid, seed: Seed) -> TotpKey {
        match &self.secret {
            None => TotpKey(seed.0),
            Some(secret) => TotpKey(hkdf(&seed.0, Some(secret.as_bytes()), ticket_id.as_bytes())),
        }
    }

    /// Returns the fingerprint by which the database recognises the secret: HMAC-SHA256 (RFC 2104) of a constant. The
    /// absence of a secret has one too, so that setting a secret later does not silently make every code wrong.
    pub fn fingerprint(&self) -> &[u8] {
        &self.fingerprint
    }
}

/// Returns the mark of a secret in a database, which `/health?full=1` shows to everybody: 8 bytes of HMAC-SHA256 (RFC 2104) of the
/// secret's fingerprint, with the database's own random salt as the key. So nobody without the database or a backup can
/// test a guess of a secret that a person made up, nor see that two services have the same one or that one has none. Whoever has
/// a backup has the whole fingerprint anyway.
pub fn secret_mark(fingerprint: &[u8], link_salt: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(link_salt).expect("HMAC accepts keys of any length");
    mac.update(b"mark of TICKET_SECRET");
    mac.update(fingerprint);
    HEXLOWER.encode(&mac.finalize().into_bytes()[..8])
}

/// The secret that makes links of ticket pages. A manifest discloses only the seeds, and those only without `TICKET_SECRET`.
pub struct LinkSecret {
    /// The secret that makes the keys of codes.
    pub codes: Arc<TicketSecret>,
    /// The database's own 32 random bytes, followed by `TICKET_SECRET`, if there is one.
    salt: Vec<u8>,
}

impl LinkSecret {
    pub fn new(codes: Arc<TicketSecret>, link_salt: [u8; 32]) -> Self {
        let salt = [&link_salt, codes.secret.as_deref().unwrap_or_default().as_bytes()].concat();
        Self { codes, salt }
    }

    /// Returns the token of a ticket's page: base64url of the ticket's id and a proof. A new seed invalidates the link. It
    /// cannot be derived from the key of the ticket's codes nor, with `TICKET_SECRET`, from a copy of the database.
    pub fn page_token(&self, ticket_id: Uuid, seed: Seed) -> String {
        BASE64URL_NOPAD.encode(&[*ticket_id.as_bytes(), self.proof_of(ticket_id, seed)].concat())
    }

    /// Returns whether a token opens the page of its ticket, which has this seed, in constant time.
    pub fn opens(&self, token: &PageToken, seed: Seed) -> bool {
        token.proof.ct_eq(&self.proof_of(token.ticket_id, seed)).into()
    }

    /// Returns the token of the page with one person's tickets for an event, made for one mail address: base64url of event
    /// and person, a proof, and a mark for each ticket. A new seed removes its ticket from the page; another address
    /// invalidates the token. It cannot be derived from the link of one ticket.
    pub fn holder_token(&self, holder: Holder<'_>, tickets: impl IntoIterator<Item = (Uuid, Seed)>) -> String {
        let marks: Vec<Mark> = tickets.into_iter().map(|(id, seed)| self.mark_of(holder.user_id, id, seed)).collect();
        let proof = self.proof_of_all(holder, &marks);
        let ids = [*holder.event_id.as_bytes(), *holder.user_id.as_bytes()].concat();
        BASE64URL_NOPAD.encode(&[&ids, &proof[..], &marks.concat()].concat())
    }

    /// Returns whether a token was made for the person it names, at this address, in constant time.
    pub fn opens_all(&self, token: &HolderToken, address: &str) -> bool {
        let holder = Holder { event_id: token.event_id, user_id: token.user_id, address };
        token.proof.ct_eq(&self.proof_of_all(holder, &token.marks)).into()
    }

    /// Returns whether a valid token includes this ticket with this seed.
    pub fn names(&self, token: &HolderToken, ticket_id: Uuid, seed: Seed) -> bool {
        token.marks.contains(&self.mark_of(token.user_id, ticket_id, seed))
    }

    /// HKDF-SHA256(seed, the salt, info: "mark", the person's and the ticket's 16 bytes).
    fn mark_of(&self, user_id: Uuid, ticket_id: Uuid, seed: Seed) -> Mark {
        hkdf(&seed.0, Some(&self.salt), &[b"mark", &user_id.as_bytes()[..], ticket_id.as_bytes()].concat())
    }

    /// HKDF-SHA256(the salt, no salt, info: "holder", event, person, the marks and the address).
    fn proof_of_all(&self, Holder { event_id, user_id, address }: Holder<'_>, marks: &[Mark]) -> [u8; 16] {
        // Mail addresses are compared without case.
        let address = address.to_lowercase();
        let told = [b"holder", &event_id.as_bytes()[..], user_id.as_bytes(), &marks.concat(), address.as_bytes()];
        hkdf(&self.salt, None, &told.concat())
    }

    /// HKDF-SHA256(seed, the salt, info: "link" and the ticket's 16 bytes).
    fn proof_of(&self, ticket_id: Uuid, seed: Seed) -> [u8; 16] {
        hkdf(&seed.0, Some(&self.salt), &[b"link", &ticket_id.as_bytes()[..]].concat())
    }
}

/// The code on a ticket's paper, derived from its key: it does not change, and is too long to be guessed or typed.
pub type PrintProof = [u8; 10];

/// A code shown for a ticket. Hidden in `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub enum Code {
    /// The six digits that a phone shows, or any text typed instead.
    Rotating(String),
    /// The proof printed on paper.
    Printed(PrintProof),
}

impl Code {
    /// Returns whether the code could have been guessed. The 10 bytes on paper cannot.
    pub fn is_guessable(&self) -> bool {
        match self {
            Self::Rotating(_) => true,
            Self::Printed(_) => false,
        }
    }

    /// Reads digits typed by a person, without white space: authenticator apps show them with a gap.
    pub fn typed(text: &str) -> Self {
        Self::Rotating(text.split_whitespace().collect())
    }
}

/// Reads the last part of a QR code; returns `None` if it is malformed.
pub type ReadCode = fn(&str) -> Option<Code>;

/// The forms of a ticket's QR code: the prefix, and the function that reads the last part.
pub const FORMS: [(&str, ReadCode); 2] = [("RT1", rotating), ("RP1", printed)];

fn rotating(digits: &str) -> Option<Code> {
    let is_code = digits.len() == usize::from(DIGITS) && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_code.then(|| Code::Rotating(digits.to_owned()))
}

fn printed(proof: &str) -> Option<Code> {
    Some(Code::Printed(BASE64URL_NOPAD.decode(proof.as_bytes()).ok()?.try_into().ok()?))
}

/// Strips what scanners add around a text: white space, and the byte order mark that some send first.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}')
}

/// The content of a ticket's QR code: on a phone `RT1.<ticket_id, base64url>.<six digits>`, on paper
/// `RP1.<ticket_id, base64url>.<proof, base64url>`. `Debug` output hides the code.
#[derive(Clone, PartialEq, Eq)]
pub struct QrCode {
    pub ticket_id: Uuid,
    pub code: Code,
}

impl QrCode {
    /// Parses the text of a scanner; returns `None` if it has neither form.
    pub fn parse(text: &str) -> Option<Self> {
        let (form, rest) = trimmed(text).split_once('.')?;
        let (id, code) = rest.split_once('.')?;
        let ticket_id = Uuid::from_slice(&BASE64URL_NOPAD.decode(id.as_bytes()).ok()?).ok()?;
        let (_, read) = FORMS.iter().find(|(name, _)| *name == form)?;
        Some(Self { ticket_id, code: read(code)? })
    }
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Code(hidden)")
    }
}

impl std::fmt::Debug for QrCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QrCode({})", self.ticket_id)
    }
}

impl std::fmt::Display for QrCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = BASE64URL_NOPAD.encode(self.ticket_id.as_bytes());
        match &self.code {
            Code::Rotating(digits) => write!(f, "RT1.{id}.{digits}"),
            Code::Printed(proof) => write!(f, "RP1.{id}.{}", BASE64URL_NOPAD.encode(proof)),
        }
    }
}

/// The person for whom a link to several tickets is made.
#[derive(Clone, Copy)]
pub struct Holder<'a> {
    pub event_id: Uuid,
    pub user_id: Uuid,
    /// The mail address to which it is sent.
    pub address: &'a str,
}

/// The mark of a ticket in a link to several. Four bytes suffice, because the link's proof covers all marks.
type Mark = [u8; 4];

/// The token at the end of a link to several tickets of one person. Unverified until [`LinkSecret::opens_all`].
pub struct HolderToken {
    pub event_id: Uuid,
    pub user_id: Uuid,
    proof: [u8; 16],
    marks: Vec<Mark>,
}

impl HolderToken {
    /// Parses a token; returns `None` if it is malformed or does not have 2 to [`HELD_TICKETS`] marks.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (ids, marks) = bytes.split_at_checked(48)?;
        let ([event, user, proof], []) = ids.as_chunks::<16>() else { return None };
        let (marks, []) = marks.as_chunks::<4>() else { return None };
        (2..=HELD_TICKETS).contains(&marks.len()).then(|| Self {
            event_id: Uuid::from_bytes(*event),
            user_id: Uuid::from_bytes(*user),
            proof: *proof,
            marks: marks.to_vec(),
        })
    }
}

/// The token at the end of the link of a ticket's page. Unverified until [`LinkSecret::opens`].
pub struct PageToken {
    pub ticket_id: Uuid,
    proof: [u8; 16],
}

impl PageToken {
    /// Parses a token; returns `None` if it is malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()?;
        let (ticket_id, proof) = bytes.split_at(16);
        Some(Self { ticket_id: Uuid::from_slice(ticket_id).ok()?, proof: proof.try_into().ok()? })
    }
}

#[cfg(kani)]
mod proofs;
#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use std::time::Duration;

    use super::*;

    /// The key of the test vectors in RFC 4226 (appendix D) and RFC 6238 (appendix B).
    const RFC_KEY: [u8; 20] = *b"12345678901234567890";
    const TICKET_ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    const SECRET: &str = "a-secret-that-is-only-in-a-test.";
    /// A step in whose neighbourhood no code occurs twice, as happens by chance elsewhere.
    const STEP: i64 = 37_037_037;

    fn rfc_key() -> TotpKey {
        TotpKey::new(RFC_KEY)
    }

    fn secret() -> TicketSecret {
        TicketSecret::new(Some(SECRET.to_owned()))
    }

    /// Returns the first and the last millisecond of a step.
    fn edges(step: i64) -> [Millis; 2] {
        let begins = Millis(step * PERIOD * Millis::SECOND);
        [begins, Millis(begins.0 + PERIOD * Millis::SECOND - 1)]
    }

    #[test]
    fn codes_are_those_of_rfc_4226_appendix_d() {
        let codes =
            ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"];
        for (counter, code) in (0..).zip(codes) {
            assert_eq!(rfc_key().code(counter), code, "counter {counter}");
        }
    }

    /// The RFC's codes have eight digits; ours are the last six of them.
    #[test]
    fn codes_are_those_of_rfc_6238_appendix_b() {
        for (seconds, code) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            assert_eq!(rfc_key().code(step_at(Millis(seconds * Millis::SECOND))), code[2..], "{seconds} s");
        }
    }

    #[test]
    fn codes_are_those_of_oathtool() {
        let key = secret().key_of(TICKET_ID, Seed(RFC_KEY));
        for now in [Millis(0), Millis(29_999), Millis(30_000), Millis(1_777_651_200_000), Millis(4_102_444_799_999)] {
            let oathtool = Command::new("oathtool")
                .args(["--totp", "--base32", &key.base32(), &format!("--now=@{}", now.0 / Millis::SECOND)])
                .output()
                .expect("this test needs the program oathtool, from the package of the same name");
            assert!(oathtool.status.success(), "{}", String::from_utf8_lossy(&oathtool.stderr));
            let code = String::from_utf8(oathtool.stdout).unwrap();
            assert_eq!(key.find(code.trim(), now), Match::Current { step: step_at(now) }, "at {now}");
        }
    }

    #[test]
    fn a_code_is_good_from_one_step_before_to_one_step_after() {
        for now in edges(STEP) {
            for offset in -DRIFT..=DRIFT {
                let step = STEP + offset;
                assert_eq!(rfc_key().find(&rfc_key().code(step), now), Match::Current { step }, "{offset} at {now}");
            }
        }
    }

    #[test]
    fn a_stale_code_is_told_with_the_seconds_between_its_step_and_now() {
        let [begins, ends] = edges(STEP);
        let told = |offset, now| match rfc_key().find(&rfc_key().code(STEP + offset), now) {
            Match::Stale { seconds_off } => seconds_off,
            other => panic!("{offset} at {now}: {other:?}"),
        };
        assert_eq!(told(-2, begins), -30);
        assert_eq!(told(-2, begins + Duration::from_millis(999)), -30);
        assert_eq!(told(-2, begins + Duration::from_millis(1_000)), -31);
        assert_eq!(told(-2, ends), -59);
        assert_eq!(told(2, begins), 60);
        assert_eq!(told(2, begins + Duration::from_millis(1_000)), 59);
        assert_eq!(told(2, ends), 31);
        assert_eq!(told(-20, begins), -570);
        assert_eq!(told(-20, ends), -599);
        assert_eq!(told(20, begins), 600);
        assert_eq!(told(20, ends), 571);
    }

    #[test]
    fn a_code_that_is_good_some_quarters_of_an_hour_away_says_how_many() {
        for now in edges(STEP) {
            for seconds_off in (1..=ZONES).flat_map(|quarters| [-quarters * QUARTER, quarters * QUARTER]) {
                for drift in -DRIFT..=DRIFT {
                    let code = rfc_key().code(STEP + seconds_off / PERIOD + drift);
                    assert_eq!(rfc_key().find(&code, now), Match::Zone { seconds_off }, "{drift} at {now}");
                }
            }
        }
    }

    #[test]
    fn a_code_of_no_step_near_and_of_no_zone_is_just_wrong() {
        for now in edges(STEP) {
            for offset in [-21, 21, -28, 28, -32, 32, -135, 135, -57 * 30, 57 * 30] {
                assert_eq!(rfc_key().find(&rfc_key().code(STEP + offset), now), Match::None, "{offset} at {now}");
            }
        }
    }

    /// Found by search: with this key, these nearby steps have the same code.
    #[test]
    fn a_code_of_several_steps_counts_for_the_nearest() {
        let during = |now: i64, steps: [i64; 2]| {
            let code = rfc_key().code(steps[0]);
            assert_eq!(code, rfc_key().code(steps[1]));
            let [first, last] = edges(now).map(|now| rfc_key().find(&code, now));
            assert_eq!(first, last);
            first
        };
        assert_eq!(during(37_451_273, [37_451_272, 37_451_275]), Match::Current { step: 37_451_272 });
        assert_eq!(during(37_451_274, [37_451_272, 37_451_275]), Match::Current { step: 37_451_275 });
        assert_eq!(during(37_353_815, [37_353_814, 37_353_816]), Match::Current { step: 37_353_814 });
    }

    #[test]
    fn what_is_not_six_ascii_digits_is_no_code() {
        let code = rfc_key().code(STEP);
        assert_eq!(code, "050471");
        for text in ["", "50471", "050471 ", " 050471", "0050471", "050 471", "+50471", "٠٥٠٤٧١", "050471\0"] {
            assert_eq!(rfc_key().find(text, edges(STEP)[0]), Match::None, "{text:?}");
        }
    }

    #[test]
    fn a_clock_near_or_before_the_epoch_does_no_harm() {
        assert_eq!(step_at(Millis(-1)), -1);
        for now in [Millis(i64::MIN), Millis(-30_001), Millis(-1), Millis(0), Millis(i64::MAX)] {
            rfc_key().find("755224", now);
        }
        assert_eq!(rfc_key().find("755224", Millis(-1)), Match::Current { step: 0 });
        assert_eq!(rfc_key().find("755224", Millis(-30_001)), Match::Stale { seconds_off: 31 });
        // Step -1 has no code, in particular not that of step 1.
        assert_eq!(rfc_key().find("287082", Millis(-60_000)), Match::Stale { seconds_off: 90 });
    }

    #[test]
    fn without_a_secret_the_seed_is_the_key() {
        assert_eq!(
            TicketSecret::new(None).key_of(TICKET_ID, Seed(RFC_KEY)).base32(),
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
        );
    }

    /// Computed with Python's `hmac`: `prk = hmac(salt, seed)`, then the first bytes of `hmac(prk, info + b"\1")`, all
    /// with SHA-256; the salt is the secret, the info the ticket's id.
    #[test]
    fn with_a_secret_the_key_is_derived_from_it_and_the_seed_and_the_ticket() {
        let key = secret().key_of(TICKET_ID, Seed(RFC_KEY));
        assert_eq!(data_encoding::HEXLOWER.encode(&key.0), "9ba41b2dae7a2c55a123d110411c29c0b8f1e821");
        for other in [
            TicketSecret::new(Some(format!("{SECRET}."))).key_of(TICKET_ID, Seed(RFC_KEY)),
            secret().key_of(Uuid::nil(), Seed(RFC_KEY)),
            secret().key_of(TICKET_ID, Seed([0; 20])),
        ] {
            assert_ne!(other.0, key.0);
        }
    }

    /// Computed with Python's `hmac`.
    #[test]
    fn each_secret_has_its_fingerprint_and_so_has_none() {
        let fingerprint = |secret: &TicketSecret| data_encoding::HEXLOWER.encode(secret.fingerprint());
        let with = "81acc8ef6299288c9de8ba81f22fbaeb7cf0fa3a115f47196a2b33153f4a4e25";
        let without = "4ee1f28301561e0fdb3792f5e20e19b05c91ee65a91d99db07b753c4e0e2c63e";
        assert_eq!(fingerprint(&secret()), with);
        assert_eq!(fingerprint(&TicketSecret::new(None)), without);
    }

    fn links(secret: Option<&str>, salt: u8) -> LinkSecret {
        LinkSecret::new(Arc::new(TicketSecret::new(secret.map(str::to_owned))), [salt; 32])
    }

    fn token() -> String {
        links(None, 7).page_token(TICKET_ID, Seed(RFC_KEY))
    }

    /// Computed with Python's `hmac` as above: the salt is 32 bytes and the secret, the info `link` and the ticket's id.
    #[test]
    fn the_token_of_a_page_holds_the_ticket_and_a_proof_of_its_seed_and_the_secret_and_the_salt() {
        assert_eq!(token(), "ABEiM0RVZneImaq7zN3u_9OY_vRkwAtyqNBkt-tpcpU");
        let with_secret = links(Some(SECRET), 7).page_token(TICKET_ID, Seed(RFC_KEY));
        assert_eq!(with_secret, "ABEiM0RVZneImaq7zN3u_-bR5H3GTirAR0j1tDkispQ");
    }

    #[test]
    fn the_token_of_a_page_opens_it_with_the_seed_the_secret_and_the_salt_that_made_it() {
        let token = PageToken::parse(&token()).unwrap();
        assert_eq!(token.ticket_id, TICKET_ID);
        assert!(links(None, 7).opens(&token, Seed(RFC_KEY)));
        assert!(!links(None, 7).opens(&token, Seed([0; 20])));
        assert!(!links(None, 8).opens(&token, Seed(RFC_KEY)));
        assert!(!links(Some(SECRET), 7).opens(&token, Seed(RFC_KEY)));
    }

    #[test]
    fn one_text_is_the_token_and_nothing_like_it() {
        let token = token();
        // The last character has two unused bits.
        let twin = token.trim_end_matches('U').to_owned() + "V";
        let (short, long, padded) = (&token[..42], format!("{token}A"), format!("{token}="));
        for text in ["", "attendance", short, &long, &padded, &twin, &token.replace('-', "+"), &format!(" {token}")] {
            assert!(PageToken::parse(text).is_none() || text == token, "{text}");
        }
    }

    #[test]
    fn a_qr_is_our_mark_and_the_ticket_and_six_digits() {
        let text = "RT1.ABEiM0RVZneImaq7zN3u_w.050471";
        let qr = QrCode { ticket_id: TICKET_ID, code: Code::Rotating("050471".into()) };
        assert_eq!(qr.to_string(), text);
        assert_eq!(QrCode::parse(text).as_ref(), Some(&qr));
    }

    /// Computed with Python's `hmac` as above, with the info `print`.
    #[test]
    fn a_printed_qr_is_its_own_mark_and_the_ticket_and_a_proof_of_its_key() {
        let text = "RP1.ABEiM0RVZneImaq7zN3u_w.w0xILhNKkY2UbQ";
        let qr = QrCode { ticket_id: TICKET_ID, code: Code::Printed(rfc_key().print_proof()) };
        assert_eq!(qr.to_string(), text);
        assert_eq!(QrCode::parse(text), Some(qr));
    }

    #[test]
    fn a_proof_is_of_one_key_alone() {
        let proof = rfc_key().print_proof();
        assert!(rfc_key().made(&proof));
        assert!(!TotpKey::new([0; 20]).made(&proof));
        for bit in 0..80 {
            let mut other = proof;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!rfc_key().made(&other), "bit {bit}");
        }
    }

    #[test]
    fn no_code_is_in_debug_output() {
        let proof = rfc_key().print_proof();
        for code in [Code::Rotating("050471".into()), Code::Printed(proof)] {
            let debug = format!("{:?} {:?}", code.clone(), QrCode { ticket_id: TICKET_ID, code });
            assert_eq!(debug, format!("Code(hidden) QrCode({TICKET_ID})"));
        }
    }

    #[test]
    fn every_form_has_a_qr_in_the_table_that_the_gates_page_reads_too() {
        let table: serde_json::Value =
            serde_json::from_str(include_str!("../tests/suite/admission_cases.json")).unwrap();
        let table = table["qr"].as_object().unwrap();
        for (form, _) in FORMS {
            assert!(table.keys().any(|text| text.starts_with(&format!("{form}."))), "no `qr` begins with {form}");
        }
        for (text, code) in table {
            let read = QrCode::parse(text).unwrap_or_else(|| panic!("no QR: {text}"));
            assert_eq!(read.ticket_id, TICKET_ID);
            match read.code {
                Code::Rotating(digits) => assert_eq!(*code, serde_json::json!({ "digits": digits })),
                Code::Printed(proof) => {
                    assert_eq!(*code, serde_json::json!({ "printed": BASE64URL_NOPAD.encode(&proof) }));
                }
            }
        }
    }

    #[test]
    fn what_is_not_of_our_form_is_no_qr() {
        let table: serde_json::Value =
            serde_json::from_str(include_str!("../tests/suite/admission_cases.json")).unwrap();
        for text in table["no_qr"].as_array().unwrap() {
            assert_eq!(QrCode::parse(text.as_str().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn what_scanners_send_around_a_qr_is_taken_off() {
        let table: serde_json::Value =
            serde_json::from_str(include_str!("../tests/suite/admission_cases.json")).unwrap();
        let texts = |name: &str| serde_json::from_value::<Vec<String>>(table[name].clone()).unwrap();
        for code in table["qr"].as_object().unwrap().keys() {
            let shown = QrCode::parse(code);
            for around in texts("around_a_qr") {
                assert_eq!(QrCode::parse(&format!("{around}{code}{around}")), shown, "{around:?}");
            }
            for other in texts("not_around_a_qr") {
                assert_eq!(QrCode::parse(&format!("{other}{code}")), None, "{other:?} before it");
                assert_eq!(QrCode::parse(&format!("{code}{other}")), None, "{other:?} after it");
            }
        }
    }

    proptest! {
        #[test]
        fn what_a_qr_shows_is_read_again(ticket_id: u128, code in prop_oneof![
            "[0-9]{6}".prop_map(Code::Rotating),
            any::<PrintProof>().prop_map(Code::Printed),
        ]) {
            let qr = QrCode { ticket_id: Uuid::from_u128(ticket_id), code };
            prop_assert_eq!(QrCode::parse(&qr.to_string()), Some(qr));
        }

        #[test]
        fn reading_a_qr_never_panics_and_accepts_one_spelling(text in prop_oneof![
            any::<String>(),
            "R[TP]1\\.\\PC{0,30}",
            "R[TP]1\\.[A-Za-z0-9_-]{22}\\.([0-9]{6}|[A-Za-z0-9_-]{14})",
        ]) {
            if let Some(qr) = QrCode::parse(&text) {
                prop_assert_eq!(qr.to_string(), trimmed(&text));
            }
        }

        #[test]
        fn a_good_code_is_never_called_stale(key: [u8; 20], now in 60_000..4_102_444_800_000_i64, offset in -DRIFT..=DRIFT) {
            let key = TotpKey::new(key);
            let found = key.find(&key.code(step_at(Millis(now)) + offset), Millis(now));
            prop_assert!(matches!(found, Match::Current { .. }), "{:?}", found);
        }

        #[test]
        fn a_code_is_told_with_its_distance(key: [u8; 20], now in 0..4_102_444_800_000_i64, code in "[0-9]{6}") {
            match TotpKey::new(key).find(&code, Millis(now)) {
                Match::Current { step } => prop_assert!((step - step_at(Millis(now))).abs() <= DRIFT),
                Match::Stale { seconds_off } => prop_assert!((30..=600).contains(&seconds_off.abs())),
                Match::Zone { seconds_off } => {
                    prop_assert!(seconds_off % QUARTER == 0 && (1..=ZONES).contains(&(seconds_off.abs() / QUARTER)));
                }
                Match::None => {}
                Match::Paper => prop_assert!(false, "digits are no paper"),
            }
        }
    }
}
