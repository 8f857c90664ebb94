//! Tests the decision exhaustively: every combination of its inputs is decided, the meaning of each verdict is asserted,
//! and the gate's page decides the same (`tests/pages/enumerated.test.mjs`).
//!
//! `tests/suite/decisions.json` has a table for each group of dependent inputs: each input with the names of its values,
//! from which both sides build tickets and scans. Beside each value is a checksum of the verdicts on all combinations with
//! it. If one verdict differs, so does the checksum of one value of each input, and these identify the combination.
//! To rewrite the file, run
//!
//!     UPDATE_DECISIONS=1 cargo test --lib enumerated

use serde_json::Value;

use super::*;
use crate::totp::{Code, DRIFT, PERIOD, TotpKey, step_at};

const COMMITTED: &str = include_str!("../../tests/suite/decisions.json");

/// The time of every decision except those about days, in the middle of a step.
const NOW: Millis = Millis(1_782_936_015_000);
const HOUR: i64 = 3_600_000;

const YES: &[&str] = &["yes", "no"];

/// The name of an input and of its possible values.
type Input = (&'static str, &'static [&'static str]);

const DECISION: [Input; 13] = [
    ("registered", YES),
    ("status", &["valid", "used", "revoked"]),
    (
        "code",
        &[
            "none",
            "paper",
            "forged paper",
            "wrong digits",
            "stale, past",
            "stale, future",
            "zone, past",
            "zone, future",
            "current, the first",
            "current, of a later step than the last",
            "current, of the same step",
            "current, of an earlier step",
        ],
    ),
    ("refusals", &["2", "3", "10", "11"]),
    ("offline", YES),
    ("vouched", YES),
    ("tells_future", YES),
    ("direction", &["entry", "exit"]),
    ("printed", YES),
    ("inside", YES),
    ("reentry", &["none", "after_exit", "once_a_day, never in", "once_a_day, in today", "once_a_day, in yesterday"]),
    ("newest_accepted", &["none", "now", "later"]),
    ("time", &["good", "early", "late"]),
];

const GATES: [Input; 8] = [
    ("registered", YES),
    ("status", &["valid", "used", "revoked"]),
    ("at_gate", &["none", "its own", "its own, as people read it", "another", "another, longer"]),
    ("code", &["none", "paper", "forged paper", "wrong digits", "stale, past", "zone, past"]),
    ("refusals", &["2", "11"]),
    ("direction", &["entry", "exit"]),
    ("vouched", YES),
    ("offline", YES),
];

/// Milliseconds from now.
const TIMES: &[&str] = &["none", "-2000", "-1", "0", "1", "2000"];

const HOURS: [Input; 8] = [
    ("direction", &["entry", "exit"]),
    ("vouched", YES),
    ("code", &["none", "wrong digits", "current"]),
    ("status", &["valid", "used"]),
    ("opens_at", TIMES),
    ("closes_at", TIMES),
    ("valid_from", TIMES),
    ("valid_until", TIMES),
];

/// Moments around the hour at which a day begins: in summer and winter, at changes of the clock, and at the end of a year.
const MOMENTS: &[&str] = &[
    "2025-03-30T00:59:59.999Z",
    "2025-03-30T01:00:00.000Z",
    "2025-03-30T02:59:59.999Z",
    "2025-03-30T03:00:00.000Z",
    "2025-03-30T04:00:00.000Z",
    "2025-03-30T05:00:00.000Z",
    "2025-07-01T02:59:59.999Z",
    "2025-07-01T03:00:00.000Z",
    "2025-07-01T08:59:59.999Z",
    "2025-07-01T09:00:00.000Z",
    "2025-07-01T23:14:59.999Z",
    "2025-07-01T23:15:00.000Z",
    "2025-07-02T02:59:59.999Z",
    "2025-07-02T03:00:00.000Z",
    "2025-10-26T00:00:00.000Z",
    "2025-10-26T01:00:00.000Z",
    "2025-10-26T03:59:59.999Z",
    "2025-10-26T04:00:00.000Z",
    "2025-12-31T18:29:59.999Z",
    "2025-12-31T18:30:00.000Z",
    "2025-12-31T23:59:59.999Z",
    "2026-01-01T03:59:59.999Z",
    "2026-01-01T04:00:00.000Z",
    "2026-01-01T05:00:00.000Z",
    "2026-01-01T09:59:59.999Z",
    "2026-01-01T10:00:00.000Z",
];

const DAYS: [Input; 3] = [
    (
        "time_zone",
        &[
            "UTC",
            "Europe/Madrid",
            "America/New_York",
            "Asia/Kathmandu",
            "Australia/Lord_Howe",
            "Pacific/Apia",
            "Atlantic/Azores",
        ],
    ),
    ("entered_at", MOMENTS),
    ("now", MOMENTS),
];

/// Keys and moments are drawn from these seeds. A number is the distance in steps of the code's step from the current one.
const CODES: [Input; 2] = [
    (
        "seed",
        &[
            "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18",
            "19", "20", "21", "22", "23",
        ],
    ),
    (
        "code",
        &[
            "-1681",
            "-1680",
            "-691",
            "-62",
            "-29",
            "-21",
            "-20",
            "-2",
            "-1",
            "0",
            "1",
            "2",
            "20",
            "21",
            "29",
            "120",
            "1681",
            "1682",
            "any digits",
            "of another key",
            "paper",
            "forged paper",
        ],
    ),
];

/// FNV-1a, 32 bits.
fn checksum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A cache of the checksums of decisions.
#[derive(Default)]
struct Checksums(Vec<(Decision, u32)>);

impl Checksums {
    fn of(&mut self, decision: Decision) -> u32 {
        if let Some((_, sum)) = self.0.iter().find(|(known, _)| *known == decision) {
            return *sum;
        }
        let sum = checksum(&text_of(decision));
        self.0.push((decision, sum));
        sum
    }
}

/// Tries all combinations of values, varying the last input fastest, and returns the table. The checksum of a value is the
/// sum over all combinations with it. Each verdict is mixed with its combination's number, so that swapped verdicts show.
fn table<const N: usize>(name: &str, inputs: &[Input; N], mut verdict: impl FnMut([usize; N]) -> u32) -> String {
    let mut sums = inputs.map(|(_, values)| vec![0_u32; values.len()]);
    let mut at = [0; N];
    let mut number = 0_u32;
    loop {
        let mut mixed = (verdict(at) ^ number).wrapping_mul(0x9e37_79b1);
        mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca77);
        mixed ^= mixed >> 13;
        for (sums, value) in sums.iter_mut().zip(at) {
            sums[value] = sums[value].wrapping_add(mixed);
        }
        number += 1;
        let Some(turning) = (0..N).rev().find(|&input| at[input] + 1 < inputs[input].1.len()) else { break };
        at[turning] += 1;
        at[turning + 1..].fill(0);
    }
    let line = |((input, values), sums): (&Input, &Vec<u32>)| {
        let values = values.iter().zip(sums).map(|(value, sum)| format!("[\"{value}\", {sum}]"));
        format!("        [\"{input}\", [{}]]", values.collect::<Vec<_>>().join(", "))
    };
    let lines: Vec<_> = inputs.iter().zip(&sums).map(line).collect();
    format!(
        "    \"{name}\": {{\n      \"combinations\": {number},\n      \"inputs\": [\n{}\n      ]\n    }}",
        lines.join(",\n")
    )
}

fn text_of(decision: Decision) -> String {
    let told = |number: Option<i64>| number.map_or_else(|| "null".into(), |number| number.to_string());
    let Decision { result, step, seconds_off, opens_at, closed_at } = decision;
    let [opens_at, closed_at] = [opens_at, closed_at].map(|time| told(time.map(|time| time.0)));
    format!("{} {} {} {opens_at} {closed_at}", result.as_str(), told(step), told(seconds_off))
}

/// Returns a valid ticket with a holder, for an event without opening hours.
fn subject() -> Subject {
    Subject {
        gate: "North".into(),
        status: Status::Valid,
        registered: true,
        inside: false,
        printed: false,
        last_step: None,
        refusals: 0,
        newest_accepted_at: None,
        reentry: Reentry::None,
        entered_at: None,
        time_zone: "UTC".into(),
        opens_at: None,
        closes_at: None,
        valid_from: None,
        valid_until: None,
    }
}

/// Decides a scan with this code, or without one, when somebody vouches.
fn decided(subject: &Subject, proven: Option<(bool, Match)>, presented: Presented<'_>, now: Millis) -> Decision {
    let proves = || proven.map_or(Match::None, |(_, proven)| proven);
    let code = proven.map(|(guessable, _)| ShownCode { guessable, proves: &proves });
    decide(Some(subject), &Presented { code, ..presented }, now)
}

fn decision() -> String {
    let step = step_at(NOW);
    let current = Some((true, Match::Current { step }));
    let last = Some(step + 1);
    let codes = [
        (None, last),
        (Some((false, Match::Paper)), last),
        (Some((false, Match::None)), last),
        (Some((true, Match::None)), last),
        (Some((true, Match::Stale { seconds_off: -95 })), last),
        (Some((true, Match::Stale { seconds_off: 95 })), last),
        (Some((true, Match::Zone { seconds_off: -3_600 })), last),
        (Some((true, Match::Zone { seconds_off: 3_600 })), last),
        (current, None),
        (current, Some(step - 1)),
        (current, Some(step)),
        (current, last),
    ];
    let (never, today, yesterday) = (None, Some(NOW), Some(Millis(NOW.0 - 24 * HOUR)));
    let reentries = [
        (Reentry::None, yesterday),
        (Reentry::AfterExit, yesterday),
        (Reentry::OnceADay, never),
        (Reentry::OnceADay, today),
        (Reentry::OnceADay, yesterday),
    ];
    let later = Some(Millis(NOW.0 + 1));
    let mut checksums = Checksums::default();
    let mut ticket = subject();
    table("decision", &DECISION, |at| {
        let [registered, status, code, refusals, offline, vouched, ..] = at;
        let [.., tells_future, direction, printed, inside, reentry, newest, time] = at;
        let proven;
        ticket.registered = registered == 0;
        ticket.status = [Status::Valid, Status::Used, Status::Revoked][status];
        ticket.printed = printed == 0;
        ticket.inside = inside == 0;
        (proven, ticket.last_step) = codes[code];
        ticket.refusals = [2, 3, 10, 11][refusals];
        ticket.newest_accepted_at = [None, Some(NOW), later][newest];
        (ticket.reentry, ticket.entered_at) = reentries[reentry];
        (ticket.opens_at, ticket.closes_at) = [(Some(NOW), later), (later, None), (None, Some(NOW))][time];
        let presented = Presented {
            code: None,
            vouched: vouched == 0,
            at_gate: Some("North"),
            direction: [Direction::Entry, Direction::Exit][direction],
            offline: offline == 0,
            tells_future: tells_future == 0,
        };
        let decision = decided(&ticket, proven, presented, NOW);
        assert!(
            is_meant(at, decision),
            "{decision:?} on {:?}",
            DECISION.iter().zip(at).map(|((_, v), at)| v[at]).collect::<Vec<_>>()
        );
        checksums.of(decision)
    })
}

/// Returns whether a verdict is right for a combination, by its meaning, independently of the implementation.
fn is_meant(at: [usize; 13], decision: Decision) -> bool {
    let value = |input: usize| DECISION[input].1[at[input]];
    let [registered, status, code, refusals, offline, vouched, ..] = std::array::from_fn::<_, 13, _>(value);
    let [.., tells_future, direction, printed, inside, reentry, newest, time] = std::array::from_fn::<_, 13, _>(value);
    let entry = direction == "entry";

    let held = registered == "yes" && status != "revoked";
    let current = code.starts_with("current");
    let digits = !matches!(code, "none" | "paper" | "forged paper");
    let tried = held && (!digits || refusals != "11" || offline == "yes");
    let proven = tried && (code == "none" || current || code == "paper" && printed == "yes");
    let timely = !entry || vouched == "yes" || time == "good";
    let may_enter = status == "valid"
        || reentry == "after_exit" && inside == "no" && code != "paper"
        || reentry == "once_a_day, in yesterday";
    let may_pass = newest != "later" && if entry { may_enter } else { inside == "yes" };
    let fresh = code != "current, of an earlier step" && (!entry || code != "current, of the same step");
    let meant = match decision.result {
        ScanResult::Accepted => proven && timely && may_pass && fresh,
        ScanResult::NotRegistered => registered == "no",
        ScanResult::Revoked => status == "revoked",
        ScanResult::TooManyAttempts => held && digits && refusals == "11" && offline == "no",
        ScanResult::WrongCode => tried && !proven && code != "stale, past",
        ScanResult::StaleCode if decision.seconds_off.is_some() => tried && code.starts_with("stale"),
        ScanResult::StaleCode => proven && timely && may_pass && !fresh,
        ScanResult::TooEarly | ScanResult::TooLate => proven && entry && !timely,
        ScanResult::AlreadyUsed => proven && entry && timely && !may_pass,
        ScanResult::NotInside => proven && !entry && !may_pass,
        ScanResult::UnknownTicket | ScanResult::WrongGate | ScanResult::Undone => false,
    };

    let tells_future = tells_future == "yes" && refusals == "2";
    let seconds_off = match decision.seconds_off {
        None => true,
        Some(-95) => code == "stale, past",
        Some(-3_600) => code == "zone, past",
        Some(95) => code == "stale, future" && tells_future,
        Some(3_600) => code == "zone, future" && tells_future,
        Some(_) => false,
    };
    let step = (decision.result == ScanResult::Accepted && current).then_some(step_at(NOW));
    let opens_at = (decision.result == ScanResult::TooEarly).then_some(Millis(NOW.0 + 1));
    let closed_at = (decision.result == ScanResult::TooLate).then_some(NOW);
    meant && seconds_off && (step, opens_at, closed_at) == (decision.step, decision.opens_at, decision.closed_at)
}

fn gates() -> String {
    let codes = [
        None,
        Some((false, Match::Paper)),
        Some((false, Match::None)),
        Some((true, Match::None)),
        Some((true, Match::Stale { seconds_off: -95 })),
        Some((true, Match::Zone { seconds_off: -3_600 })),
    ];
    let mut checksums = Checksums::default();
    table("gates", &GATES, |[registered, status, at_gate, code, refusals, direction, vouched, offline]| {
        let ticket = Subject {
            registered: registered == 0,
            status: [Status::Valid, Status::Used, Status::Revoked][status],
            printed: true,
            refusals: [2, 11][refusals],
            ..subject()
        };
        let presented = Presented {
            code: None,
            vouched: vouched == 0,
            at_gate: [None, Some("North"), Some(" NÓRTH\u{3000}"), Some("South"), Some("North 2")][at_gate],
            direction: [Direction::Entry, Direction::Exit][direction],
            offline: offline == 0,
            tells_future: true,
        };
        let decision = decided(&ticket, codes[code], presented, NOW);
        let is_held = registered == 0 && status != 2;
        assert_eq!(decision.result == ScanResult::WrongGate, is_held && at_gate > 2, "{decision:?} at {at_gate}");
        checksums.of(decision)
    })
}

fn hours() -> String {
    let codes = [None, Some((true, Match::None)), Some((true, Match::Current { step: step_at(NOW) }))];
    let moments = [None, Some(-2_000), Some(-1), Some(0), Some(1), Some(2_000)]
        .map(|from_now| from_now.map(|away: i64| Millis(NOW.0 + away)));
    let mut checksums = Checksums::default();
    let mut ticket = subject();
    table("hours", &HOURS, |at| {
        let [direction, vouched, code, status, opens_at, closes_at, valid_from, valid_until] = at;
        ticket.status = [Status::Valid, Status::Used][status];
        ticket.inside = status == 1;
        [ticket.opens_at, ticket.closes_at, ticket.valid_from, ticket.valid_until] =
            [opens_at, closes_at, valid_from, valid_until].map(|moment| moments[moment]);
        let direction = [Direction::Entry, Direction::Exit][direction];
        let presented = Presented {
            code: None,
            vouched: vouched == 0,
            at_gate: None,
            direction,
            offline: false,
            tells_future: true,
        };
        let decision = decided(&ticket, codes[code], presented, NOW);
        let within = [ticket.opens_at, ticket.valid_from].iter().flatten().all(|start| *start <= NOW)
            && [ticket.closes_at, ticket.valid_until].iter().flatten().all(|end| NOW < *end);
        let at_a_wrong_time = matches!(decision.result, ScanResult::TooEarly | ScanResult::TooLate);
        let asked = code != 1 && vouched == 1 && direction == Direction::Entry;
        assert_eq!(at_a_wrong_time, asked && !within, "{decision:?} on {at:?}");
        checksums.of(decision)
    })
}

fn days() -> String {
    let moments: Vec<Millis> =
        MOMENTS.iter().map(|moment| Millis(moment.parse::<jiff::Timestamp>().unwrap().as_millisecond())).collect();
    let mut checksums = Checksums::default();
    table("days", &DAYS, |[zone, entered_at, now]| {
        let ticket = Subject {
            status: Status::Used,
            reentry: Reentry::OnceADay,
            entered_at: Some(moments[entered_at]),
            time_zone: DAYS[0].1[zone].into(),
            ..subject()
        };
        let direction = Direction::Entry;
        let presented =
            Presented { code: None, vouched: false, at_gate: None, direction, offline: false, tells_future: true };
        let decision = decided(&ticket, None, presented, moments[now]);
        assert!(entered_at < now || decision.result == ScanResult::AlreadyUsed, "before it: {decision:?}");
        checksums.of(decision)
    })
}

/// The pseudorandom generator mulberry32, which both sides implement.
struct Draw(u32);

impl Draw {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x6d2b_79f5);
        let mixed = (self.0 ^ (self.0 >> 15)).wrapping_mul(1 | self.0);
        let mixed = mixed.wrapping_add((mixed ^ (mixed >> 7)).wrapping_mul(61 | mixed)) ^ mixed;
        mixed ^ (mixed >> 14)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [(); N].map(|()| (self.next() & 0xff) as u8)
    }
}

fn codes() -> String {
    table("codes", &CODES, |[seed, code]| {
        let mut draw = Draw(seed as u32);
        let key: [u8; 20] = draw.bytes();
        let now = Millis(i64::from(draw.next()) * 900 + i64::from(draw.next() % 900));
        let digits = format!("{:06}", draw.next() % 1_000_000);
        let forged = draw.bytes();
        let (other, key) = (TotpKey::new(key.map(|byte| byte ^ 1)), TotpKey::new(key));
        let code = match CODES[1].1[code] {
            "any digits" => Code::Rotating(digits),
            "of another key" => Code::Rotating(other.code(step_at(now))),
            "paper" => Code::Printed(key.print_proof()),
            "forged paper" => Code::Printed(forged),
            away => Code::Rotating(key.code(step_at(now) + away.parse::<i64>().unwrap())),
        };
        let text = match key.recognise(&code, now) {
            Match::Current { step } => {
                assert!((step - step_at(now)).abs() <= DRIFT && now.0 / 1_000 / PERIOD == step_at(now));
                format!("current {step}")
            }
            Match::Paper => "paper".into(),
            Match::Stale { seconds_off } => format!("stale {seconds_off}"),
            Match::Zone { seconds_off } => format!("zone {seconds_off}"),
            Match::None => "none".into(),
        };
        checksum(&text)
    })
}

/// Returns the values whose checksums differ between two versions of the tables, each with its table and input.
fn differing(made: &str, committed: &str) -> Vec<String> {
    let read = |text| serde_json::from_str::<Value>(text).unwrap();
    let values = |file: &Value| -> Vec<(String, Value)> {
        let inputs =
            file["tables"].as_object().into_iter().flatten().flat_map(|(table, told)| {
                told["inputs"].as_array().into_iter().flatten().map(move |input| (table, input))
            });
        inputs
            .flat_map(|(table, input)| {
                let values = input[1].as_array().into_iter().flatten();
                values.map(move |value| (format!("{table}: {} is {}", input[0], value[0]), value[1].clone()))
            })
            .collect()
    };
    let committed = values(&read(committed));
    values(&read(made)).into_iter().filter(|value| !committed.contains(value)).map(|(name, _)| name).collect()
}

#[test]
fn every_combination_is_decided_as_it_is_meant_and_as_the_page_decides_it() {
    let about = "What src/admission/enumerated.rs and tests/pages/enumerated.test.mjs try, and checksums of the verdicts. Written by UPDATE_DECISIONS=1 cargo test --lib enumerated.";
    let tables = std::thread::scope(|scope| {
        let rest = scope.spawn(|| [gates(), hours(), days(), codes()].join(",\n"));
        [decision(), rest.join().unwrap()].join(",\n")
    });
    let made = format!("{{\n  \"about\": \"{about}\",\n  \"now\": {},\n  \"tables\": {{\n{tables}\n  }}\n}}\n", NOW.0);
    if std::env::var_os("UPDATE_DECISIONS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/decisions.json"), made).unwrap();
        return;
    }
    assert!(
        made == COMMITTED,
        "the verdicts differ from tests/suite/decisions.json, where\n{}\nIf this is intended, rewrite the file: UPDATE_DECISIONS=1 cargo test --lib enumerated",
        differing(&made, COMMITTED).join("\n")
    );
}
