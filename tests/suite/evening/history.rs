//! The requests about one ticket and their answers, and a sequential model of a ticket without a database: the answers
//! it allows.

use std::collections::BTreeMap;

use register_ticket_api::model::{Direction, ScanResult, Status};
use uuid::Uuid;

/// A request as its client saw it. A retry is a separate one.
#[derive(Clone, Debug)]
pub struct Operation {
    /// When it was sent.
    pub invoked: u64,
    /// When its answer came; `None` if it is unknown whether it was, is being or will be done.
    pub returned: Option<u64>,
    pub act: Act,
    /// `None` if there was no answer.
    pub told: Option<Told>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    Scan(Scan),
    Undo {
        scan_id: Uuid,
    },
    /// Gives the ticket to another person, with another seed.
    Transfer {
        seed: u32,
    },
    Revoke,
    Reissue {
        seed: u32,
    },
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    pub scan_id: Uuid,
    pub direction: Direction,
    pub shown: Shown,
    /// Whether the gate admitted offline and sent the scan in a batch.
    pub offline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A code made from this seed.
    Code(u32),
    /// No code: a supervisor vouches.
    Nothing,
    /// No code: a scan of another ticket vouches.
    Voucher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Verdict(ScanResult),
    Done,
    /// It was refused with this code, and nothing was done.
    Refused(&'static str),
    State {
        status: Status,
        inside: bool,
    },
}

/// A ticket's state in the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Whether a holder who left may be admitted again.
    reentry: bool,
    status: Status,
    inside: bool,
    seed: u32,
    /// The accepted scans of its present use that were not undone, in order, each with whether it is an entry.
    standing: Vec<(Uuid, bool)>,
    /// Whether it was used before it was reissued.
    was_used: bool,
    /// The verdict on each scan, and whether it was undone.
    verdicts: BTreeMap<Uuid, (&'static str, bool)>,
}

impl Ticket {
    /// A ticket that has a holder and no scans.
    pub fn new(reentry: bool) -> Self {
        Self {
            reentry,
            status: Status::Valid,
            inside: false,
            seed: 0,
            standing: Vec::new(),
            was_used: false,
            verdicts: BTreeMap::new(),
        }
    }

    /// Returns the states that it may be in after this act with this answer; none if the answer is impossible. Without
    /// an answer: the states if it was done at all.
    pub fn after(&self, act: &Act, told: Option<Told>) -> Vec<Self> {
        let same = || vec![self.clone()];
        // Refused for a reason outside the ticket's state, such as three tries that each met another change.
        if told == Some(Told::Refused("scan_contended")) {
            return same();
        }
        match act {
            Act::Scan(scan) => self.after_scan(scan, told),
            Act::Undo { scan_id } => self.after_undo(*scan_id, told),
            Act::Transfer { seed } => self.after_change(told, || Self { seed: *seed, ..self.clone() }, false),
            Act::Reissue { seed } => self.after_change(told, || self.reissued(*seed), true),
            Act::Revoke => match told {
                None | Some(Told::Done) => vec![Self { status: Status::Revoked, ..self.clone() }],
                Some(_) => Vec::new(),
            },
            Act::Read => match told {
                None => same(),
                Some(told) if told == (Told::State { status: self.status, inside: self.inside }) => same(),
                Some(_) => Vec::new(),
            },
        }
    }

    fn reissued(&self, seed: u32) -> Self {
        let was_used = self.was_used || !self.standing.is_empty();
        let verdicts = self.verdicts.clone();
        Self { seed, was_used, verdicts, ..Self::new(self.reentry) }
    }

    /// After a change that is refused for a used ticket, and unless `of_revoked` for a revoked one.
    fn after_change(&self, told: Option<Told>, changed: impl Fn() -> Self, of_revoked: bool) -> Vec<Self> {
        let refusal = match self.status {
            Status::Used => Some("ticket_used"),
            Status::Revoked if !of_revoked => Some("ticket_revoked"),
            Status::Revoked | Status::Valid => None,
        };
        match (refusal, told) {
            (None, None | Some(Told::Done)) => vec![changed()],
            (Some(code), Some(Told::Refused(told))) if code == told => vec![self.clone()],
            _ => Vec::new(),
        }
    }

    fn after_scan(&self, scan: &Scan, told: Option<Told>) -> Vec<Self> {
        if let Some((verdict, undone)) = self.verdicts.get(&scan.scan_id) {
            let again = if *undone { ScanResult::Undone.as_str() } else { verdict };
            return match told {
                Some(Told::Verdict(told)) if told.as_str() != again => Vec::new(),
                Some(Told::Verdict(_)) => vec![self.clone()],
                // A replay changes nothing.
                _ => Vec::new(),
            };
        }
        match told {
            None => self.verdicts_on(scan).into_iter().map(|verdict| self.scanned(scan, verdict)).collect(),
            Some(Told::Verdict(verdict)) if self.verdicts_on(scan).contains(&verdict) => {
                vec![self.scanned(scan, verdict)]
            }
            // Nothing vouches for it, or the server's clock is too far from the gate's.
            Some(Told::Refused("invalid_payload")) if scan.offline || scan.shown == Shown::Voucher => {
                vec![self.clone()]
            }
            Some(_) => Vec::new(),
        }
    }

    /// The verdicts that a new scan may get. Clocks differ and are stepped, so a code of the current seed may always be
    /// too old.
    fn verdicts_on(&self, scan: &Scan) -> Vec<ScanResult> {
        let is_used = self.status == Status::Used;
        if self.status == Status::Revoked {
            return vec![ScanResult::Revoked];
        }
        let mut verdicts = match scan.shown {
            Shown::Code(seed) if seed != self.seed => return vec![ScanResult::WrongCode],
            Shown::Code(_) => vec![ScanResult::WrongCode, ScanResult::StaleCode],
            Shown::Nothing | Shown::Voucher => Vec::new(),
        };
        let (refusal, is_accepted) = match scan.direction {
            Direction::Entry => (ScanResult::AlreadyUsed, !is_used || self.reentry && !self.inside),
            Direction::Exit => (ScanResult::NotInside, self.inside),
        };
        // A late scan is refused if a later one was accepted before it, or if its ticket was reissued since.
        let may_be_late = scan.offline && (is_used || self.was_used);
        if is_accepted {
            verdicts.push(ScanResult::Accepted);
        }
        if !is_accepted || may_be_late {
            verdicts.push(refusal);
        }
        verdicts
    }

    fn scanned(&self, scan: &Scan, verdict: ScanResult) -> Self {
        let mut after = self.clone();
        after.verdicts.insert(scan.scan_id, (verdict.as_str(), false));
        if verdict == ScanResult::Accepted {
            after.status = Status::Used;
            after.inside = scan.direction == Direction::Entry;
            after.standing.push((scan.scan_id, after.inside));
        }
        after
    }

    fn after_undo(&self, scan_id: Uuid, told: Option<Told>) -> Vec<Self> {
        let known = self.verdicts.get(&scan_id);
        let newest = self.standing.last().is_some_and(|(newest, _)| *newest == scan_id);
        let undone = known.is_some_and(|(_, undone)| *undone);
        let is_right = match told {
            None => return if newest { vec![self.taken_back()] } else { Vec::new() },
            Some(Told::Done) if newest => return vec![self.taken_back()],
            Some(Told::Done) => undone,
            Some(Told::Refused("scan_not_found")) => known.is_none(),
            Some(Told::Refused("not_undoable")) => known.is_some() && !undone && !newest,
            // The server's clock is too far from that of the scan.
            Some(Told::Refused("undo_expired")) => newest,
            Some(_) => false,
        };
        if is_right { vec![self.clone()] } else { Vec::new() }
    }

    fn taken_back(&self) -> Self {
        let mut before = self.clone();
        let Some((scan_id, was_entry)) = before.standing.pop() else { return before };
        before.verdicts.entry(scan_id).and_modify(|(_, undone)| *undone = true);
        before.inside = !was_entry;
        if before.status == Status::Used && before.standing.is_empty() {
            before.status = Status::Valid;
        }
        before
    }
}
