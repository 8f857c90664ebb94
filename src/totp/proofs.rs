//! Kani proofs for all texts and moments, run by `.github/workflows/proofs.yml`.

use super::*;

/// Returns any text of at most `LONGEST` bytes, or `None` if the bytes are not UTF-8.
fn any_text<const LONGEST: usize>(bytes: &[u8; LONGEST]) -> Option<&str> {
    let length: usize = kani::any();
    kani::assume(length <= LONGEST);
    std::str::from_utf8(&bytes[..length]).ok()
}

#[kani::proof]
#[kani::unwind(9)]
fn a_code_is_six_digits_and_nothing_else() {
    let bytes = kani::any::<[u8; 8]>();
    let Some(text) = any_text(&bytes) else { return };
    let is_code = text.len() == 6 && text.bytes().all(|byte| (b'0'..=b'9').contains(&byte));
    assert!(rotating(text).is_some() == is_code);
}

#[kani::proof]
#[kani::unwind(18)]
fn reading_a_qr_never_panics() {
    let bytes = kani::any::<[u8; 8]>();
    if let Some(text) = any_text(&bytes) {
        // The shortest QR code has 33 characters.
        assert!(QrCode::parse(text).is_none());
    }
}

#[kani::proof]
fn every_moment_has_a_step() {
    let now = Millis(kani::any());
    let begins = i128::from(step_at(now)) * i128::from(PERIOD * Millis::SECOND);
    assert!((begins..begins + i128::from(PERIOD * Millis::SECOND)).contains(&i128::from(now.0)));
}

#[kani::proof]
fn a_stale_code_is_told_with_its_distance() {
    let now = Millis(kani::any());
    let away: i64 = kani::any();
    kani::assume((-STALE_WINDOW..=STALE_WINDOW).contains(&away) && away.abs() > DRIFT);
    let off = seconds_off(step_at(now) + away, now);
    assert!((off < 0) == (away < 0));
    assert!(((away.abs() - 1) * PERIOD..=(away.abs() + 1) * PERIOD).contains(&off.abs()));
}
