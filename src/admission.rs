//! The decision at the gate: a pure function of what is known and of the moment.
//!
//! Before it comes only the replay of a `scan_id`, which needs no decision. The order of the checks is part of the
//! contract; `tests/suite/admission_cases.json` holds it as a table, which the gate page runs too.

use crate::model::{Direction, Millis, Reentry, ScanResult, Status};
use crate::totp::{Match, TotpKey};

/// Refusals for its code on record within [`ATTEMPTS_WINDOW`] beyond which a ticket's codes are not looked at.
pub const ATTEMPTS: i64 = 10;
/// The time that refused codes count for, in milliseconds, and so the longest wait.
pub const ATTEMPTS_WINDOW: i64 = 60 * Millis::SECOND;
/// Refusals on record from which a code of the future is called wrong: telling would help somebody who guesses.
pub const FUTURE_TOLD: i64 = 3;

/// What is known of a ticket when it is scanned.
pub struct Subject {
    pub key: TotpKey,
    pub gate: String,
    pub status: Status,
    pub registered: bool,
    pub inside: bool,
    pub last_step: Option<i64>,
    /// `wrong_code` and `stale_code` within the last [`ATTEMPTS_WINDOW`].
    pub refusals: i64,
    /// For a scan that is decided late: when the ticket's newest accepted scan was.
    pub newest_accepted_at: Option<Millis>,
    pub reentry: Reentry,
}

/// What somebody showed at a gate, and where.
pub struct Presented<'a> {
    /// The six digits, or `None` when a supervisor vouches.
    pub code: Option<&'a str>,
    pub at_gate: Option<&'a str>,
    pub direction: Direction,
    /// Whether the gate decided offline, so that its attempts neither count nor are limited.
    pub offline: bool,
}

/// The decision, with what the gate should tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub result: ScanResult,
    /// The step to remember when the scan is accepted.
    pub step: Option<i64>,
    /// For `stale_code`: negative when the code is from the past. `None` means "wait for the next code".
    pub seconds_off: Option<i64>,
}

impl Decision {
    fn refuse(result: ScanResult) -> Self {
        Self { result, step: None, seconds_off: None }
    }
}

/// Decides one scan as of `now`. `subject` is `None` when there is no such ticket in this event.
pub fn decide(subject: Option<&Subject>, presented: &Presented<'_>, now: Millis) -> Decision {
    let Some(ticket) = subject else {
        return Decision::refuse(ScanResult::UnknownTicket);
    };
    if !ticket.registered {
        return Decision::refuse(ScanResult::NotRegistered);
    }
    if ticket.status == Status::Revoked {
        return Decision::refuse(ScanResult::Revoked);
    }
    if ticket.refusals > ATTEMPTS && !presented.offline {
        return Decision::refuse(ScanResult::TooManyAttempts);
    }
    let step = match presented.code.map(|code| ticket.key.find(code, now)) {
        None => None,
        Some(Match::Current { step }) => Some(step),
        Some(Match::Stale { seconds_off }) if seconds_off < 0 || ticket.refusals < FUTURE_TOLD => {
            return Decision { seconds_off: Some(seconds_off), ..Decision::refuse(ScanResult::StaleCode) };
        }
        Some(Match::Stale { .. } | Match::None) => return Decision::refuse(ScanResult::WrongCode),
    };
    if presented.at_gate.is_some_and(|gate| gate != ticket.gate) {
        return Decision::refuse(ScanResult::WrongGate);
    }
    let late = ticket.newest_accepted_at.is_some_and(|newest| now < newest);
    match presented.direction {
        Direction::Entry if late || !may_enter(ticket) => {
            return Decision::refuse(ScanResult::AlreadyUsed);
        }
        Direction::Exit if late || !ticket.inside => {
            return Decision::refuse(ScanResult::NotInside);
        }
        Direction::Entry | Direction::Exit => {}
    }
    if let (Some(step), Some(last)) = (step, ticket.last_step) {
        let fresh = match presented.direction {
            Direction::Entry => step > last,
            Direction::Exit => step >= last,
        };
        if !fresh {
            return Decision::refuse(ScanResult::StaleCode);
        }
    }
    Decision { result: ScanResult::Accepted, step, seconds_off: None }
}

fn may_enter(ticket: &Subject) -> bool {
    match ticket.status {
        Status::Valid => true,
        Status::Used => ticket.reentry == Reentry::AfterExit && !ticket.inside,
        Status::Revoked => false,
    }
}

/// What the gate tells a person, for every verdict.
pub fn message(result: ScanResult, direction: Direction, seconds_off: Option<i64>, right_gate: Option<&str>) -> String {
    match result {
        ScanResult::Accepted => match direction {
            Direction::Entry => "Admitted.".into(),
            Direction::Exit => "Left; the ticket is outside now.".into(),
        },
        ScanResult::AlreadyUsed => "This ticket has been used already.".into(),
        ScanResult::WrongCode => "The code is wrong.".into(),
        ScanResult::StaleCode => match seconds_off {
            None => "This code has been used; wait for the next code.".into(),
            Some(past @ ..0) => {
                format!("The code is {0} s old: a screenshot, or the phone's clock is {0} s slow.", -past)
            }
            Some(future) => {
                format!("The code is from the future: the phone's clock is {future} s fast.")
            }
        },
        ScanResult::WrongGate => match right_gate {
            Some(gate) => format!("Right ticket, wrong gate: go to {gate}."),
            None => "Right ticket, wrong gate.".into(),
        },
        ScanResult::NotRegistered => "Nobody holds this ticket.".into(),
        ScanResult::NotInside => "This ticket is not inside.".into(),
        ScanResult::Revoked => "This ticket has been revoked.".into(),
        ScanResult::UnknownTicket => "This is not a ticket of this event.".into(),
        ScanResult::TooManyAttempts => "Too many wrong codes for this ticket; wait a minute.".into(),
    }
}
