//! The decision at the gate: a pure function of the ticket, the scan and the time.
//!
//! Only the replay of a `scan_id` comes before it, because a replay needs no decision. The order of the checks is part of
//! the contract. `tests/suite/admission_cases.json` tabulates it, and the gate page is tested against the same table.

use jiff::civil::Date;

use crate::fold;
use crate::model::{Direction, Millis, Reentry, Role, ScanResult, Status};
use crate::totp::Match;

/// Refused codes of a ticket within [`crate::limits::ATTEMPTS_WINDOW`] above which no more of its codes are checked.
pub const ATTEMPTS: i64 = 10;
/// Refusals of the ticket or of the key from which a future code is reported as merely wrong: the distinction would help
/// somebody who guesses.
pub const FUTURE_TOLD: i64 = 3;
/// The local hour at which an event's day begins: an entry after midnight belongs to the evening before.
pub const DAY_TURNS: i8 = 5;

/// The state of a ticket when it is scanned.
pub struct Subject {
    pub gate: String,
    pub status: Status,
    pub registered: bool,
    pub inside: bool,
    /// Whether it was printed, which makes its paper code valid.
    pub printed: bool,
    pub last_step: Option<i64>,
    /// `wrong_code` and `stale_code` within the last [`crate::limits::ATTEMPTS_WINDOW`].
    pub refusals: i64,
    /// The time of the ticket's newest accepted scan, given when a scan is decided late.
    pub newest_accepted_at: Option<Millis>,
    pub reentry: Reentry,
    /// The time of its last admission.
    pub entered_at: Option<Millis>,
    /// The event's time zone, which determines its days.
    pub time_zone: String,
    /// When the event's doors open.
    pub opens_at: Option<Millis>,
    /// When the event's doors close.
    pub closes_at: Option<Millis>,
    /// The start of the ticket's own validity.
    pub valid_from: Option<Millis>,
    /// The end of the ticket's own validity, exclusive.
    pub valid_until: Option<Millis>,
}

/// What was presented at a gate.
pub struct Presented<'a> {
    /// `None` when a supervisor, or the scan that admitted the same holder, vouches, or when codes are no longer checked.
    pub code: Option<ShownCode<'a>>,
    /// Whether a supervisor vouches. Supervisors may admit at any time.
    pub vouched: bool,
    pub at_gate: Option<&'a str>,
    pub direction: Direction,
    /// Whether the gate decided offline. Its attempts are then neither counted nor limited.
    pub offline: bool,
    /// Whether the answer may say that a code is from the future, as long as the ticket has few refusals.
    pub tells_future: bool,
}

/// A code that somebody showed.
#[derive(Clone, Copy)]
pub struct ShownCode<'a> {
    /// Whether it could have been guessed.
    pub guessable: bool,
    /// Checks the code. Called only where the verdict depends on it, so that an earlier refusal tests no code.
    pub proves: &'a dyn Fn() -> Match,
}

/// A verdict with its details for the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub result: ScanResult,
    /// The step to remember when the scan is accepted.
    pub step: Option<i64>,
    /// For `stale_code`: negative when the code is from the past; `None` means "wait for the next code". For `wrong_code`: a
    /// multiple of 15 minutes at which the code would be right, as on a phone whose clock was set by hand to another zone.
    pub seconds_off: Option<i64>,
    /// For `too_early`: the time from which the ticket admits.
    pub opens_at: Option<Millis>,
    /// For `too_late`: the time until which it admitted.
    pub closed_at: Option<Millis>,
}

impl Decision {
    pub(crate) fn refuse(result: ScanResult) -> Self {
        Self { result, step: None, seconds_off: None, opens_at: None, closed_at: None }
    }
}

/// Decides one scan as of `now`. `subject` is `None` when the event has no such ticket.
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
    // This comes before anything that depends on the code, so that one gate's key cannot try codes of another gate's tickets.
    if presented.at_gate.is_some_and(|gate| !fold::same_place(gate, &ticket.gate)) {
        return Decision::refuse(ScanResult::WrongGate);
    }
    // Vouching and paper are not guesses, so they still admit while somebody tries digits.
    let guessable = presented.code.is_some_and(|code| code.guessable);
    if guessable && ticket.refusals > ATTEMPTS && !presented.offline {
        return Decision::refuse(ScanResult::TooManyAttempts);
    }
    let proven = presented.code.map(|code| (code.proves)());
    let is_told = |seconds_off| seconds_off < 0 || (presented.tells_future && ticket.refusals < FUTURE_TOLD);
    let step = match proven {
        None => None,
        Some(Match::Current { step }) => Some(step),
        Some(Match::Paper) if ticket.printed => None,
        Some(Match::Stale { seconds_off }) if is_told(seconds_off) => {
            return Decision { seconds_off: Some(seconds_off), ..Decision::refuse(ScanResult::StaleCode) };
        }
        Some(Match::Zone { seconds_off }) if is_told(seconds_off) => {
            return Decision { seconds_off: Some(seconds_off), ..Decision::refuse(ScanResult::WrongCode) };
        }
        Some(Match::Paper | Match::Stale { .. } | Match::Zone { .. } | Match::None) => {
            return Decision::refuse(ScanResult::WrongCode);
        }
    };
    if presented.direction == Direction::Entry
        && !presented.vouched
        && let Some(untimely) = untimely(ticket, now)
    {
        return untimely;
    }
    let late = ticket.newest_accepted_at.is_some_and(|newest| now < newest);
    match presented.direction {
        Direction::Entry if late || !may_enter(ticket, proven, now) => {
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
    Decision { step, ..Decision::refuse(ScanResult::Accepted) }
}

/// Returns the refusal of an entry before both the event and the ticket have begun, or after either has ended. The end takes
/// precedence, so that nobody who is too late is asked to come back.
fn untimely(ticket: &Subject, now: Millis) -> Option<Decision> {
    let closed_at = [ticket.closes_at, ticket.valid_until].into_iter().flatten().min().filter(|end| now >= *end);
    let opens_at = ticket.opens_at.max(ticket.valid_from).filter(|start| now < *start);
    match (closed_at, opens_at) {
        (Some(_), _) => Some(Decision { closed_at, ..Decision::refuse(ScanResult::TooLate) }),
        (None, Some(_)) => Some(Decision { opens_at, ..Decision::refuse(ScanResult::TooEarly) }),
        (None, None) => None,
    }
}

fn may_enter(ticket: &Subject, proven: Option<Match>, now: Millis) -> bool {
    match (ticket.status, ticket.reentry) {
        (Status::Valid, _) => true,
        // Paper does not re-enter: a copy can stay outside when its holder goes in.
        (Status::Used, Reentry::AfterExit) => !ticket.inside && proven != Some(Match::Paper),
        (Status::Used, Reentry::OnceADay) => is_another_day(ticket, now),
        (Status::Used, Reentry::None) | (Status::Revoked, _) => false,
    }
}

/// Returns whether the day of the ticket's last entry is over; `false` if that day cannot be determined.
fn is_another_day(ticket: &Subject, now: Millis) -> bool {
    let day = |moment| event_day(moment, &ticket.time_zone);
    match (ticket.entered_at.and_then(day), day(now)) {
        (Some(entered), Some(today)) => today > entered,
        _ => false,
    }
}

/// Returns the event day of a moment in the event's time zone. Days begin at [`DAY_TURNS`].
fn event_day(moment: Millis, time_zone: &str) -> Option<Date> {
    let local = moment.in_zone(time_zone)?.datetime();
    if local.hour() < DAY_TURNS { local.date().yesterday().ok() } else { Some(local.date()) }
}

/// How much the answer to a scan discloses about its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Told {
    /// Its id, seat and gate.
    Place,
    /// The same and its holder.
    Holder,
    Everything,
}

/// Returns what an answer with this verdict discloses to a key of this role. A gate sees no name without a right code.
pub const fn told(result: ScanResult, role: Role) -> Told {
    if result.needs_the_code() {
        Told::Everything
    } else if role.holds(Role::Supervisor) {
        Told::Holder
    } else {
        Told::Place
    }
}

/// Returns the English message for a verdict. `turned_at` is the time from which an early ticket admits, or until which a
/// late one admitted.
pub fn message(
    result: ScanResult,
    direction: Direction,
    seconds_off: Option<i64>,
    right_gate: Option<&str>,
    turned_at: Option<Millis>,
) -> String {
    match result {
        ScanResult::Accepted => match direction {
            Direction::Entry => "Admitted.".into(),
            Direction::Exit => "Left; the ticket is outside now.".into(),
        },
        ScanResult::AlreadyUsed => "This ticket has been used already.".into(),
        ScanResult::WrongCode => match seconds_off {
            None => "The code is wrong.".into(),
            Some(off) => {
                let (minutes, when) = (off.abs() / 60, if off < 0 { "ago" } else { "from now" });
                format!(
                    "The code is wrong; it is that of {minutes} min {when}: the phone's clock or its time zone is set wrong."
                )
            }
        },
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
            Some(gate) => format!("The ticket is for another gate: go to {gate}."),
            None => "The ticket is for another gate.".into(),
        },
        ScanResult::TooEarly => match turned_at {
            Some(start) => format!("Too early: the ticket admits from {start} on."),
            None => "Too early for this ticket.".into(),
        },
        ScanResult::TooLate => match turned_at {
            Some(end) => format!("Too late: the ticket admitted until {end}."),
            None => "Too late for this ticket.".into(),
        },
        ScanResult::NotRegistered => "Nobody holds this ticket.".into(),
        ScanResult::NotInside => "This ticket is not inside.".into(),
        ScanResult::Revoked => "This ticket has been revoked.".into(),
        ScanResult::UnknownTicket => "This is not a ticket of this event.".into(),
        ScanResult::TooManyAttempts => "Too many wrong codes for this ticket; wait a minute.".into(),
        ScanResult::Undone => "This scan was undone; scan the ticket again.".into(),
    }
}

#[cfg(test)]
mod enumerated;
#[cfg(kani)]
mod proofs;
#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;
    use crate::totp::{Code, DRIFT, PERIOD, PrintProof, QUARTER, STALE_WINDOW, TotpKey, ZONES, step_at};

    const CASES: &str = include_str!("../tests/suite/admission_cases.json");

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        name: String,
        now: i64,
        ticket: Option<TicketCase>,
        presented: PresentedCase,
        expected: ExpectedCase,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct ExpectedCase {
        result: ScanResult,
        step: Option<i64>,
        seconds_off: Option<i64>,
        opens_at: Option<i64>,
        closed_at: Option<i64>,
    }

    impl ExpectedCase {
        fn decision(&self) -> Decision {
            let Self { result, step, seconds_off, .. } = *self;
            let (opens_at, closed_at) = (self.opens_at.map(Millis), self.closed_at.map(Millis));
            Decision { result, step, seconds_off, opens_at, closed_at }
        }
    }

    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct TicketCase {
        key_base32: String,
        gate: String,
        status: Status,
        registered: bool,
        inside: bool,
        printed: bool,
        last_step: Option<i64>,
        refusals: i64,
        newest_accepted_at: Option<i64>,
        reentry: Reentry,
        entered_at: Option<i64>,
        time_zone: String,
        opens_at: Option<i64>,
        closes_at: Option<i64>,
        valid_from: Option<i64>,
        valid_until: Option<i64>,
    }

    #[derive(Clone, Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct PresentedCase {
        code: Option<CodeCase>,
        vouched: bool,
        at_gate: Option<String>,
        direction: Direction,
        offline: bool,
        tells_future: bool,
    }

    #[derive(Clone, Debug, Deserialize)]
    #[serde(untagged, deny_unknown_fields)]
    enum CodeCase {
        Rotating { digits: String, step_offset: Option<i64> },
        Printed { printed: String },
    }

    impl CodeCase {
        fn code(&self) -> Code {
            match self {
                Self::Rotating { digits, .. } => Code::Rotating(digits.clone()),
                Self::Printed { printed } => {
                    Code::Printed(BASE64URL_NOPAD.decode(printed.as_bytes()).unwrap().try_into().unwrap())
                }
            }
        }
    }

    impl TicketCase {
        fn key(&self) -> TotpKey {
            TotpKey::new(BASE32_NOPAD.decode(self.key_base32.as_bytes()).unwrap().try_into().unwrap())
        }

        fn subject(&self) -> Subject {
            Subject {
                gate: self.gate.clone(),
                status: self.status,
                registered: self.registered,
                inside: self.inside,
                printed: self.printed,
                last_step: self.last_step,
                refusals: self.refusals,
                newest_accepted_at: self.newest_accepted_at.map(Millis),
                reentry: self.reentry,
                entered_at: self.entered_at.map(Millis),
                time_zone: self.time_zone.clone(),
                opens_at: self.opens_at.map(Millis),
                closes_at: self.closes_at.map(Millis),
                valid_from: self.valid_from.map(Millis),
                valid_until: self.valid_until.map(Millis),
            }
        }
    }

    fn decided(ticket: Option<&TicketCase>, scan: &PresentedCase, now: i64) -> Decision {
        let code = scan.code.as_ref().map(CodeCase::code);
        let proves = || {
            ticket.zip(code.as_ref()).map_or(Match::None, |(ticket, code)| ticket.key().recognise(code, Millis(now)))
        };
        let presented = Presented {
            code: code.as_ref().map(|code| ShownCode { guessable: code.is_guessable(), proves: &proves }),
            vouched: scan.vouched,
            at_gate: scan.at_gate.as_deref(),
            direction: scan.direction,
            offline: scan.offline,
            tells_future: scan.tells_future,
        };
        decide(ticket.map(TicketCase::subject).as_ref(), &presented, Millis(now))
    }

    /// Merges a case over the base that all cases share.
    fn over(base: &Value, case: &Value) -> Value {
        match (base, case) {
            (Value::Object(base), Value::Object(case)) => {
                let mut whole = base.clone();
                whole.extend(case.clone());
                whole.into()
            }
            _ => case.clone(),
        }
    }

    fn cases() -> Vec<Case> {
        let table: Value = serde_json::from_str(CASES).unwrap();
        let base = table["base"].as_object().unwrap();
        let whole = |case: &Value| {
            let mut case = case.clone();
            for (name, value) in base {
                case[name] = case.get(name).map_or_else(|| value.clone(), |stated| over(value, stated));
            }
            serde_json::from_value(case).unwrap()
        };
        table["cases"].as_array().unwrap().iter().map(whole).collect()
    }

    #[test]
    fn every_case_of_the_table_is_decided_as_it_says() {
        let mut names = HashSet::new();
        let mut results = HashSet::new();
        for case in cases() {
            let decision = decided(case.ticket.as_ref(), &case.presented, case.now);
            assert_eq!(decision, case.expected.decision(), "{}", case.name);
            results.insert(decision.result);
            assert!(names.insert(case.name.clone()), "two cases: {}", case.name);
        }
        // `undone` is never decided: the stored scan answers with it.
        let decided = ScanResult::ALL.iter().copied().filter(|result| *result != ScanResult::Undone);
        assert_eq!(results, HashSet::from_iter(decided), "every verdict has a case");
    }

    #[test]
    fn the_digits_in_the_table_are_those_of_their_step() {
        for case in cases() {
            let (Some(ticket), Some(CodeCase::Rotating { digits, step_offset })) = (&case.ticket, &case.presented.code)
            else {
                continue;
            };
            let now = Millis(case.now);
            let key = ticket.key();
            match step_offset {
                Some(offset) => assert_eq!(key.code(step_at(now) + offset), *digits, "{}", case.name),
                None => assert_eq!(key.find(digits, now), Match::None, "{}", case.name),
            }
        }
    }

    #[test]
    fn the_message_says_what_to_do() {
        let says = |result, off, gate| message(result, Direction::Entry, off, gate, Some(Millis(0)));
        assert!(says(ScanResult::StaleCode, Some(-95), None).contains("95 s slow"));
        assert!(says(ScanResult::StaleCode, Some(31), None).contains("31 s fast"));
        assert!(says(ScanResult::WrongCode, Some(-3_600), None).contains("60 min ago"));
        assert!(says(ScanResult::WrongCode, Some(19_800), None).contains("330 min from now"));
        assert!(says(ScanResult::StaleCode, None, None).contains("wait for the next code"));
        assert!(says(ScanResult::WrongGate, None, Some("South")).contains("go to South"));
        let entry = says(ScanResult::Accepted, None, None);
        assert_ne!(entry, message(ScanResult::Accepted, Direction::Exit, None, None, None));
        assert!(says(ScanResult::TooEarly, None, None).contains("from 1970-01-01T00:00:00.000Z on"));
        assert!(says(ScanResult::TooLate, None, None).contains("until 1970-01-01T00:00:00.000Z"));
    }

    #[test]
    fn what_an_answer_tells_is_in_the_table() {
        let table: Value = serde_json::from_str(CASES).unwrap();
        for result in ScanResult::ALL.iter().copied() {
            let gate = told(result, Role::Gate);
            let supervisor = told(result, Role::Supervisor);
            let stated = |role: &str| serde_json::from_value(table["told"][result.as_str()][role].clone()).unwrap();
            assert_eq!((gate, supervisor), (stated("gate"), stated("supervisor")), "{result:?}");
            assert_eq!(told(result, Role::Organizer), supervisor, "{result:?}");
        }
    }

    /// A code whose ticket is chosen later.
    #[derive(Clone, Debug)]
    enum AnyCode {
        OfStep(i64),
        Typed(String),
        OfPaper,
        Forged(PrintProof),
    }

    /// Generates tickets and scans of every kind. Half of the codes are of a step near now.
    fn anything() -> impl Strategy<Value = (TicketCase, PresentedCase, i64)> {
        let status = proptest::sample::select(Status::ALL);
        let reentry = proptest::sample::select(Reentry::ALL);
        let direction = proptest::sample::select(Direction::ALL);
        let now = prop_oneof![9 => 1_200_000..4_102_444_800_000_i64, 1 => any::<i64>()];
        let gate = "[NS]";
        let code = prop_oneof![
            4 => (-22..=22_i64).prop_map(AnyCode::OfStep),
            3 => (-DRIFT..=DRIFT).prop_map(AnyCode::OfStep),
            2 => (-ZONES..=ZONES).prop_map(|quarters| AnyCode::OfStep(quarters * QUARTER / PERIOD)),
            2 => Just(AnyCode::OfPaper),
            1 => "[0-9]{6}".prop_map(AnyCode::Typed),
            1 => any::<String>().prop_map(AnyCode::Typed),
            1 => any::<PrintProof>().prop_map(AnyCode::Forged),
        ];
        let steps = proptest::option::of(-3..=3_i64);
        let newest = proptest::option::of(-2..=2_i64);
        let hours = [(); 4].map(|()| proptest::option::weighted(0.2, -2..=2_i64));
        let entered = proptest::option::weighted(0.9, -100_000_000..=1_i64);
        let zone = proptest::sample::select(&["Europe/Madrid", "America/New_York", "nowhere"][..]);
        (
            (
                any::<[u8; 20]>(),
                gate,
                status,
                prop::bool::weighted(0.9),
                any::<bool>(),
                any::<bool>(),
                steps,
                0..14_i64,
                newest,
                reentry,
                (hours, entered, zone),
            ),
            (
                proptest::option::weighted(0.9, code),
                any::<bool>(),
                proptest::option::of(gate),
                direction,
                any::<bool>(),
                any::<bool>(),
            ),
            now,
        )
            .prop_map(|(ticket, presented, now)| {
                let (key, gate, status, registered, inside, printed, last, refusals, newest, reentry, times) = ticket;
                let (code, vouched, at_gate, direction, offline, tells_future) = presented;
                let near = |offset: Option<i64>| offset.map(|offset| now.saturating_add(offset));
                let (hours, entered, zone) = times;
                let [opens_at, closes_at, valid_from, valid_until] = hours.map(near);
                let current = step_at(Millis(now));
                let totp_key = TotpKey::new(key);
                let paper = |proof: PrintProof| CodeCase::Printed { printed: BASE64URL_NOPAD.encode(&proof) };
                let code = code.map(|code| match code {
                    AnyCode::OfStep(offset) => CodeCase::Rotating {
                        digits: totp_key.code((current + offset).max(0)),
                        step_offset: Some(offset),
                    },
                    AnyCode::Typed(digits) => CodeCase::Rotating { digits, step_offset: None },
                    AnyCode::OfPaper => paper(totp_key.print_proof()),
                    AnyCode::Forged(proof) => paper(proof),
                });
                let ticket = TicketCase {
                    key_base32: BASE32_NOPAD.encode(&key),
                    gate,
                    status,
                    registered,
                    inside,
                    printed,
                    last_step: last.map(|offset| current + offset),
                    refusals,
                    newest_accepted_at: near(newest),
                    reentry,
                    entered_at: near(entered),
                    time_zone: zone.to_owned(),
                    opens_at,
                    closes_at,
                    valid_from,
                    valid_until,
                };
                let vouched = vouched && code.is_none();
                (ticket, PresentedCase { code, vouched, at_gate, direction, offline, tells_future }, now)
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn nobody_passes_without_a_reason((ticket, scan, now) in anything()) {
            let decision = decided(Some(&ticket), &scan, now);
            if decision.result != ScanResult::Accepted {
                prop_assert_eq!(decision.step, None, "only an accepted code is remembered");
                return Ok(());
            }
            prop_assert!(ticket.registered);
            prop_assert!(ticket.status != Status::Revoked);
            let guessable = matches!(scan.code, Some(CodeCase::Rotating { .. }));
            prop_assert!(ticket.refusals <= ATTEMPTS || scan.offline || !guessable);
            prop_assert!(scan.at_gate.is_none_or(|gate| fold::same_place(&gate, &ticket.gate)));
            prop_assert!(ticket.newest_accepted_at.is_none_or(|newest| now >= newest));
            match scan.direction {
                Direction::Entry => {
                    let is_new_day = || {
                        let day = |moment| event_day(Millis(moment), &ticket.time_zone);
                        ticket.entered_at.is_some_and(|entered| day(entered).is_some() && day(entered) < day(now))
                    };
                    let may_enter = match ticket.reentry {
                        _ if ticket.status == Status::Valid => true,
                        Reentry::None => false,
                        Reentry::AfterExit => !ticket.inside,
                        Reentry::OnceADay => is_new_day(),
                    };
                    prop_assert!(may_enter);
                    let starts = [ticket.opens_at, ticket.valid_from];
                    let ends = [ticket.closes_at, ticket.valid_until];
                    prop_assert!(scan.vouched || starts.into_iter().flatten().all(|start| start <= now));
                    prop_assert!(scan.vouched || ends.into_iter().flatten().all(|end| now < end));
                }
                Direction::Exit => prop_assert!(ticket.inside),
            }
            match (scan.code.as_ref().map(CodeCase::code), decision.step) {
                (None, None) => {}
                (Some(Code::Printed(proof)), None) => {
                    prop_assert!(ticket.printed);
                    prop_assert_eq!(ticket.key().print_proof(), proof);
                    let is_paper_of_today = ticket.reentry == Reentry::OnceADay;
                    prop_assert!(
                        scan.direction == Direction::Exit || ticket.status == Status::Valid || is_paper_of_today
                    );
                }
                (Some(Code::Rotating(digits)), Some(step)) => {
                    prop_assert!((step - step_at(Millis(now))).abs() <= DRIFT);
                    prop_assert_eq!(ticket.key().code(step), digits);
                    let first_good = ticket.last_step.map(|last| last + i64::from(scan.direction == Direction::Entry));
                    prop_assert!(first_good.is_none_or(|first| step >= first));
                }
                (code, step) => prop_assert!(false, "{:?} was remembered as {:?}", code, step),
            }
        }

        #[test]
        fn seconds_off_are_told_only_of_a_stale_code_or_of_another_zone((ticket, scan, now) in anything()) {
            let decision = decided(Some(&ticket), &scan, now);
            if let Some(seconds_off) = decision.seconds_off {
                let expected = if seconds_off.abs() < QUARTER { ScanResult::StaleCode } else { ScanResult::WrongCode };
                prop_assert_eq!(decision.result, expected);
                prop_assert!(seconds_off < 0 || (scan.tells_future && ticket.refusals < FUTURE_TOLD));
            }
        }

        #[test]
        fn where_the_future_is_not_told_a_code_of_it_is_decided_as_any_wrong_one(
            (ticket, scan, now) in anything(),
            away in prop_oneof![DRIFT + 1..=STALE_WINDOW, (1..=ZONES).prop_map(|quarters| quarters * QUARTER / PERIOD)],
        ) {
            let of = |digits, step_offset| {
                let code = Some(CodeCase::Rotating { digits, step_offset });
                decided(Some(&ticket), &PresentedCase { code, tells_future: false, ..scan.clone() }, now)
            };
            let future = ticket.key().code((step_at(Millis(now)) + away).max(0));
            // By chance, a future code may also be a past or a current one.
            let found = ticket.key().find(&future, Millis(now));
            prop_assume!(matches!(found, Match::Stale { seconds_off: 1.. } | Match::Zone { seconds_off: 1.. }));
            prop_assert_eq!(of(future, Some(away)), of("no code".into(), None));
        }

        #[test]
        fn what_is_refused_before_the_code_is_refused_whatever_the_code(
            (ticket, scan, now) in anything(),
            (_, other, _) in anything(),
        ) {
            let decision = decided(Some(&ticket), &scan, now);
            let before_the_code = [ScanResult::NotRegistered, ScanResult::Revoked, ScanResult::WrongGate];
            let other = PresentedCase { code: other.code, ..scan };
            let with_other = decided(Some(&ticket), &other, now);
            prop_assert_eq!(
                before_the_code.contains(&decision.result).then_some(decision),
                before_the_code.contains(&with_other.result).then_some(with_other)
            );
            prop_assert_eq!(decided(None, &other, now).result, ScanResult::UnknownTicket);
        }

        #[test]
        fn beyond_the_limit_of_attempts_all_digits_are_refused_alike(
            (ticket, scan, now) in anything(),
            digits in "[0-9]{6}",
        ) {
            let digits = CodeCase::Rotating { digits, step_offset: None };
            let scan = PresentedCase { code: Some(digits), offline: false, ..scan };
            let ticket = TicketCase { refusals: ATTEMPTS + 1, ..ticket };
            let result = decided(Some(&ticket), &scan, now).result;
            prop_assert!(!result.needs_the_code() && !result.refuses_the_code(), "{:?}", result);
        }
    }
}
