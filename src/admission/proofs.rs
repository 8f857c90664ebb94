//! Kani proofs of properties of the decision for all numbers, including those that the enumeration leaves out. Run by
//! `.github/workflows/proofs.yml`.

use super::*;

fn one_of<T: Copy>(all: &[T]) -> T {
    let at: usize = kani::any();
    kani::assume(at < all.len());
    all[at]
}

fn any_moment() -> Option<Millis> {
    kani::any::<Option<i64>>().map(Millis)
}

fn any_subject() -> Subject {
    Subject {
        gate: String::new(),
        status: one_of(Status::ALL),
        registered: kani::any(),
        inside: kani::any(),
        printed: kani::any(),
        last_step: kani::any(),
        refusals: kani::any(),
        newest_accepted_at: any_moment(),
        reentry: one_of(Reentry::ALL),
        entered_at: any_moment(),
        time_zone: String::new(),
        opens_at: any_moment(),
        closes_at: any_moment(),
        valid_from: any_moment(),
        valid_until: any_moment(),
    }
}

fn any_match() -> Match {
    match kani::any::<u8>() {
        0 => Match::Current { step: kani::any() },
        1 => Match::Paper,
        2 => Match::Stale { seconds_off: kani::any() },
        3 => Match::Zone { seconds_off: kani::any() },
        _ => Match::None,
    }
}

/// Stands for the comparison of gates. The proofs must hold whichever way it, and the comparison of days, turns out.
fn any_place(_: &str, _: &str) -> bool {
    kani::any()
}

fn any_day(_: &Subject, _: Millis) -> bool {
    kani::any()
}

#[kani::proof]
#[kani::stub(crate::fold::same_place, any_place)]
#[kani::stub(super::is_another_day, any_day)]
#[kani::unwind(4)]
fn who_is_accepted_may_come() {
    let ticket = any_subject();
    let now = Millis(kani::any());
    let (shows, guessable, found) = (kani::any(), kani::any(), any_match());
    let proves = || found;
    let presented = Presented {
        code: if shows { Some(ShownCode { guessable, proves: &proves }) } else { None },
        vouched: kani::any(),
        at_gate: if kani::any() { Some("") } else { None },
        direction: one_of(Direction::ALL),
        offline: kani::any(),
        tells_future: kani::any(),
    };
    let decision = decide(Some(&ticket), &presented, now);
    let entry = presented.direction == Direction::Entry;
    if decision.result != ScanResult::Accepted {
        assert!(decision.step.is_none());
        return;
    }
    assert!(ticket.registered && ticket.status != Status::Revoked);
    assert!(ticket.newest_accepted_at.is_none_or(|newest| newest <= now));
    assert!(!shows || !guessable || presented.offline || ticket.refusals <= ATTEMPTS);
    if shows {
        match found {
            Match::Current { step } => {
                assert!(decision.step == Some(step));
                assert!(ticket.last_step.is_none_or(|last| step > last || !entry && step == last));
            }
            Match::Paper => assert!(ticket.printed && decision.step.is_none()),
            Match::Stale { .. } | Match::Zone { .. } | Match::None => unreachable!(),
        }
    }
    if !entry {
        assert!(ticket.inside);
        return;
    }
    let is_paper = shows && found == Match::Paper;
    assert!(match (ticket.status, ticket.reentry) {
        (Status::Valid, _) | (Status::Used, Reentry::OnceADay) => true,
        (Status::Used, Reentry::AfterExit) => !ticket.inside && !is_paper,
        (Status::Used, Reentry::None) | (Status::Revoked, _) => false,
    });
    let has_begun = |start: Option<Millis>| start.is_none_or(|start| start <= now);
    let has_not_ended = |end: Option<Millis>| end.is_none_or(|end| now < end);
    assert!(presented.vouched || has_begun(ticket.opens_at) && has_begun(ticket.valid_from));
    assert!(presented.vouched || has_not_ended(ticket.closes_at) && has_not_ended(ticket.valid_until));
}

#[kani::proof]
#[kani::stub(crate::fold::same_place, any_place)]
#[kani::stub(super::is_another_day, any_day)]
#[kani::unwind(4)]
fn what_a_code_proves_is_not_asked_of_who_is_refused_before() {
    let ticket = any_subject();
    kani::assume(!ticket.registered || ticket.status == Status::Revoked || ticket.refusals > ATTEMPTS);
    let proves = || -> Match { unreachable!() };
    let presented = Presented {
        code: Some(ShownCode { guessable: true, proves: &proves }),
        vouched: kani::any(),
        at_gate: None,
        direction: one_of(Direction::ALL),
        offline: false,
        tells_future: kani::any(),
    };
    assert!(decide(Some(&ticket), &presented, Millis(kani::any())).result != ScanResult::Accepted);
}
