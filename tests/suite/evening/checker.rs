//! Checks that a ticket's history is linearizable: searches for an order of all operations, each taking effect between
//! its request and its answer, in which the model gives the same answers (Wing and Gong's algorithm, with Lowe's
//! memoization).

use std::collections::HashSet;

use super::history::{Operation, Ticket};

/// The number of bits in a set of operations.
pub const MOST: usize = 128;

/// Fails with the longest order found, and the answers that cannot follow it.
pub fn check(start: &Ticket, operations: &[Operation]) -> Result<(), String> {
    assert!(operations.len() <= MOST, "a ticket has {} operations", operations.len());
    let mut search = Search { operations, seen: HashSet::new(), order: Vec::new(), longest: Vec::new() };
    if search.is_explained(0, start) { Ok(()) } else { Err(search.told()) }
}

struct Search<'a> {
    operations: &'a [Operation],
    /// The operations done and the resulting ticket from which the search has failed.
    seen: HashSet<(u128, Ticket)>,
    order: Vec<usize>,
    longest: Vec<usize>,
}

impl Search<'_> {
    fn is_explained(&mut self, done: u128, ticket: &Ticket) -> bool {
        let is_open = |place: &usize| done & (1 << place) == 0;
        let open: Vec<usize> = (0..self.operations.len()).filter(is_open).collect();
        // An operation cannot come after one that was answered before it was sent.
        let Some(first_answer) = open.iter().filter_map(|place| self.operations[*place].returned).min() else {
            return true;
        };
        if !self.seen.insert((done, ticket.clone())) {
            return false;
        }
        for place in open {
            let operation = &self.operations[place];
            if operation.invoked > first_answer {
                continue;
            }
            for after in ticket.after(&operation.act, operation.told) {
                self.order.push(place);
                if self.order.len() > self.longest.len() {
                    self.longest.clone_from(&self.order);
                }
                if self.is_explained(done | 1 << place, &after) {
                    return true;
                }
                self.order.pop();
            }
        }
        false
    }

    fn told(&self) -> String {
        let line = |place: &usize| {
            let Operation { invoked, returned, act, told } = &self.operations[*place];
            let returned = returned.map_or_else(|| "?".to_owned(), |at| at.to_string());
            format!("  #{place} {invoked}..{returned} {act:?} -> {told:?}")
        };
        let rest: Vec<usize> = (0..self.operations.len()).filter(|place| !self.longest.contains(place)).collect();
        let lines = |places: &[usize]| places.iter().map(line).collect::<Vec<_>>().join("\n");
        format!(
            "no order explains what was told. The longest that explains some of it:\n{}\nand the rest:\n{}",
            lines(&self.longest),
            lines(&rest)
        )
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use register_ticket_api::model::{Direction, ScanResult, Status};
    use uuid::Uuid;

    use super::super::history::{Act, Scan, Shown, Told};
    use super::*;

    fn scan(scan_id: Uuid, direction: Direction, shown: Shown) -> Act {
        Act::Scan(Scan { scan_id, direction, shown, offline: false })
    }

    fn entry(random: &mut Rng) -> Act {
        scan(Uuid::from_u128(random.u128(..)), Direction::Entry, Shown::Nothing)
    }

    fn some_act(random: &mut Rng, scans: &[Uuid], seed: u32) -> Act {
        let id = Uuid::from_u128(random.u128(..));
        match random.u8(0..14) {
            0..5 => scan(id, Direction::Entry, Shown::Nothing),
            5..7 => scan(id, Direction::Entry, Shown::Code(random.u32(0..=seed))),
            7 => scan(id, Direction::Exit, Shown::Nothing),
            8 if !scans.is_empty() => Act::Undo { scan_id: scans[random.usize(..scans.len())] },
            9 if !scans.is_empty() => scan(scans[random.usize(..scans.len())], Direction::Entry, Shown::Nothing),
            10 => Act::Transfer { seed: seed + 1 },
            11 => Act::Revoke,
            12 => Act::Reissue { seed: seed + 1 },
            _ => Act::Read,
        }
    }

    /// An answer that may be given when this is done to a ticket, and the ticket afterwards.
    fn told(ticket: &Ticket, act: &Act, random: &mut Rng) -> (Told, Ticket) {
        let states = [Status::Valid, Status::Used, Status::Revoked]
            .into_iter()
            .flat_map(|status| [true, false].map(|inside| Told::State { status, inside }));
        let codes = ["ticket_used", "ticket_revoked", "scan_not_found", "not_undoable"].map(Told::Refused);
        let mut words: Vec<Told> =
            ScanResult::ALL.iter().copied().map(Told::Verdict).chain(codes).chain(states).collect();
        words.push(Told::Done);
        random.shuffle(&mut words);
        let find = |word: Told| ticket.after(act, Some(word)).pop().map(|after| (word, after));
        words.into_iter().find_map(find).expect("every act has an answer")
    }

    /// A history that could have happened: every operation takes effect at one moment between its request and its
    /// answer. At the end the ticket is read.
    fn true_history(random: &mut Rng) -> (Ticket, Vec<Operation>, Ticket) {
        let start = Ticket::new(random.bool());
        let (mut ticket, mut operations, mut scans, mut seed) = (start.clone(), Vec::new(), Vec::new(), 0);
        let length = random.u64(4..24);
        for number in 0..length {
            let act = some_act(random, &scans, seed);
            let (word, after) = told(&ticket, &act, random);
            match &act {
                Act::Scan(Scan { scan_id, .. }) => scans.push(*scan_id),
                Act::Transfer { .. } | Act::Reissue { .. } => seed += 1,
                _ => {}
            }
            // It takes effect at 100 × number, among operations that overlap with it.
            let moment = 1_000 + 100 * number;
            let (invoked, returned) = (moment - random.u64(1..250), moment + random.u64(1..250));
            ticket = after;
            operations.push(Operation { invoked, returned: Some(returned), act, told: Some(word) });
        }
        let (word, _) = told(&ticket, &Act::Read, random);
        let end = 1_000 + 100 * length + 1_000;
        operations.push(Operation { invoked: end, returned: Some(end + 1), act: Act::Read, told: Some(word) });
        random.shuffle(&mut operations);
        (start, operations, ticket)
    }

    /// Answers that are impossible for the ticket as it is after the whole history.
    fn lie(kind: usize, operations: &mut [Operation], ticket: &Ticket, random: &mut Rng) -> Option<Vec<(Act, Told)>> {
        let accepted = Told::Verdict(ScanResult::Accepted);
        let is =
            |status: Status, inside: bool| !ticket.after(&Act::Read, Some(Told::State { status, inside })).is_empty();
        let (used, valid) = (is(Status::Used, true) || is(Status::Used, false), is(Status::Valid, false));
        let by_hand = entry(random);
        let again = operations.iter().find_map(|operation| match (&operation.act, operation.told) {
            (Act::Scan(scan), Some(Told::Verdict(ScanResult::Accepted))) => Some(scan.clone()),
            _ => None,
        });
        let read = |status, inside| vec![(Act::Read, Told::State { status, inside })];
        match kind {
            // A confirmed admission is lost.
            0 if valid => Some([vec![(by_hand, accepted)], read(Status::Valid, false)].concat()),
            // Two people are admitted.
            1 if is(Status::Used, true) => Some(vec![(by_hand, accepted)]),
            2 if valid => Some(vec![(by_hand, accepted), (entry(random), accepted)]),
            // The verdict on a scan changes.
            3 => again.map(|scan| vec![(Act::Scan(scan), Told::Verdict(ScanResult::AlreadyUsed))]),
            // An undone scan is accepted again.
            4 if valid => {
                let Act::Scan(Scan { scan_id, .. }) = by_hand else { return None };
                let undo = (Act::Undo { scan_id }, Told::Done);
                Some(vec![(by_hand.clone(), accepted), undo, (by_hand, accepted)])
            }
            // The previous holder's code admits.
            5 if valid => {
                let old = scan(Uuid::from_u128(random.u128(..)), Direction::Entry, Shown::Code(1_000));
                let transfer = |seed| (Act::Transfer { seed }, Told::Done);
                Some(vec![transfer(1_000), transfer(1_001), (old, accepted)])
            }
            // A revoked ticket admits.
            6 => Some(vec![(Act::Revoke, Told::Done), (by_hand, accepted)]),
            // A read returns a wrong state.
            7 if used => Some(read(Status::Valid, false)),
            // Somebody leaves who is not inside.
            8 if valid => {
                Some(vec![(scan(Uuid::from_u128(random.u128(..)), Direction::Exit, Shown::Nothing), accepted)])
            }
            // The holder is refused, as if somebody had already been admitted.
            9 if valid => Some(vec![(by_hand, Told::Verdict(ScanResult::AlreadyUsed))]),
            _ => None,
        }
    }

    #[test]
    fn of_what_happened_every_history_is_explained() {
        for seed in 0..500 {
            let mut random = Rng::with_seed(seed);
            let (start, mut operations, _) = true_history(&mut random);
            check(&start, &operations).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            // The history also holds if some of its answers were lost.
            for operation in &mut operations {
                if random.u8(..) < 64 && operation.act != Act::Read {
                    (operation.returned, operation.told) = (None, None);
                }
            }
            check(&start, &operations).unwrap_or_else(|why| panic!("seed {seed}, answers lost: {why}"));
        }
    }

    #[test]
    fn of_a_hundred_planted_lies_every_one_is_found() {
        for kind in 0..10 {
            let (mut found, mut seed) = (0, 0);
            while found < 10 {
                seed += 1;
                let mut random = Rng::with_seed(seed * 100 + kind as u64);
                let (start, mut operations, ticket) = true_history(&mut random);
                let Some(planted) = lie(kind, &mut operations, &ticket, &mut random) else { continue };
                let told = planted.into_iter().zip(0..).map(|((act, told), number)| {
                    let invoked = 1_000_000 + 10 * number;
                    Operation { invoked, returned: Some(invoked + 1), act, told: Some(told) }
                });
                operations.extend(told);
                random.shuffle(&mut operations);
                assert!(check(&start, &operations).is_err(), "kind {kind}, seed {seed}: {operations:#?}");
                found += 1;
            }
        }
    }
}
