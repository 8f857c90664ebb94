//! The scan protocol, checked in every order in which requests can interleave: what each reads, decides and writes,
//! stopped after any step, and sent again while the first may still be in progress.
//!
//! The decision is the service's own, `admission::decide`. Around it the model does what src/gate.rs and the SQL of
//! src/store do, one step per transaction, because nothing can interleave within one. A process that crashed, or whose
//! answer was lost, takes no further step; the client sends the same `scan_id` to another server, whose clock differs.
//!
//! Each rule that the protocol relies on can be disabled, and then the checker finds what goes wrong.

use register_ticket_api::admission::{self, Presented, ShownCode, Subject};
use register_ticket_api::model::{Direction, Millis, Reentry, ScanResult, Status};
use register_ticket_api::totp::{DRIFT, Match, PERIOD};
use stateright::{Checker, HasDiscoveries, Model, Property};

/// A request, sent while others send different ones. Times are counted in steps of 30 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    Scan(Scan),
    Undo { scan_id: u8 },
    Revoke,
    Transfer,
    Reissue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Scan {
    scan_id: u8,
    /// Which of a holder's two tickets.
    ticket: usize,
    direction: Direction,
    shown: Shown,
    /// When an offline gate admitted, if it did.
    offline_at: Option<i64>,
    /// The clock of the server that is asked first, and of the one asked again.
    clocks: [i64; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shown {
    /// The code of a step, made with the ticket's first seed.
    Code { step: i64 },
    /// No code: a supervisor vouches,
    Vouched,
    /// or another scan does.
    OfParty { vouched_by: u8 },
}

const ENTRY: Scan = Scan {
    scan_id: 1,
    ticket: 0,
    direction: Direction::Entry,
    shown: Shown::Code { step: 100 },
    offline_at: None,
    clocks: [101, 99],
};
/// A copy of the same code, at another gate's device.
const COPY: Scan = Scan { scan_id: 2, clocks: [99, 101], ..ENTRY };
const NEXT_CODE: Scan = Scan { scan_id: 3, shown: Shown::Code { step: 101 }, clocks: [100, 102], ..ENTRY };
const EXIT: Scan = Scan { scan_id: 4, direction: Direction::Exit, clocks: [99, 101], ..ENTRY };
const OFFLINE: Scan =
    Scan { scan_id: 5, shown: Shown::Code { step: 99 }, offline_at: Some(99), clocks: [103, 102], ..ENTRY };
const VOUCHED: Scan = Scan { scan_id: 6, shown: Shown::Vouched, clocks: [100, 102], ..ENTRY };
const TOMORROW: Scan =
    Scan { scan_id: 7, shown: Shown::Code { step: 100 + DAY }, clocks: [101 + DAY, 99 + DAY], ..ENTRY };
const OF_PARTY: Scan =
    Scan { scan_id: 8, ticket: 1, shown: Shown::OfParty { vouched_by: 1 }, clocks: [101, 102], ..ENTRY };
const OTHER: Scan = Scan { scan_id: 9, ticket: 1, ..ENTRY };

/// The first is part of every combination.
const REQUESTS: [Request; 16] = [
    Request::Scan(ENTRY),
    Request::Scan(COPY),
    Request::Scan(NEXT_CODE),
    Request::Scan(EXIT),
    Request::Scan(OFFLINE),
    Request::Scan(VOUCHED),
    Request::Scan(TOMORROW),
    Request::Scan(OF_PARTY),
    Request::Scan(OTHER),
    Request::Undo { scan_id: ENTRY.scan_id },
    Request::Undo { scan_id: NEXT_CODE.scan_id },
    Request::Undo { scan_id: EXIT.scan_id },
    Request::Undo { scan_id: TOMORROW.scan_id },
    Request::Revoke,
    Request::Transfer,
    Request::Reissue,
];

const DAY: i64 = 24 * 3_600 / PERIOD;
/// The time of a step, at noon so that no day turns near it.
const fn moment(step: i64) -> Millis {
    Millis((step + 20_000 * DAY + DAY / 2) * PERIOD * Millis::SECOND)
}
/// When organizers change tickets.
const CHANGED: i64 = 100;
/// As in src/gate.rs.
const TRIES: u8 = 3;
/// How long an admission may vouch for others, in steps: two minutes.
const PARTY: i64 = 4;

/// The rules that the protocol relies on.
#[derive(Clone, Copy)]
struct Protocol {
    reentry: Reentry,
    /// How many requests interleave, and how often a scan other than the first is sent; the first is sent twice.
    together: usize,
    sent: usize,
    checks_version: bool,
    scan_ids_are_unique: bool,
    answers_when_written: bool,
    undoes_by_version: bool,
}

const PROTOCOL: Protocol = Protocol {
    reentry: Reentry::None,
    together: 3,
    sent: 2,
    checks_version: true,
    scan_ids_are_unique: true,
    answers_when_written: true,
    undoes_by_version: true,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    processes: Vec<Process>,
    tickets: [Ticket; 2],
    /// Accepted ones in the order in which they were written.
    rows: Vec<Row>,
    /// All verdicts ever returned for each scan.
    answers: Vec<(u8, ScanResult)>,
}

/// One attempt to send a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    request: Request,
    /// The first or the second attempt.
    sending: usize,
    at: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Waiting { tries: u8 },
    Decided { tries: u8, plan: Plan },
    Over,
}

/// What a process is about to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Plan {
    result: ScanResult,
    decided_at: i64,
    version: i64,
    step: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ticket {
    status: Status,
    inside: bool,
    last_step: Option<i64>,
    version: i64,
    used_at: Option<i64>,
    /// How often it got a new seed, and when it last did.
    seeds: u8,
    seeded_at: Option<i64>,
    reissued_version: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    scan_id: u8,
    ticket: usize,
    direction: Direction,
    result: ScanResult,
    /// If accepted: the ticket's version after it was marked.
    version: Option<i64>,
    decided_at: i64,
    undone: bool,
    /// How many new seeds the ticket had got by then.
    seeds: u8,
}

impl Row {
    fn stands(&self) -> bool {
        self.result == ScanResult::Accepted && !self.undone
    }
}

impl State {
    fn row(&self, scan_id: u8) -> Option<&Row> {
        self.rows.iter().find(|row| row.scan_id == scan_id)
    }

    /// A ticket's accepted scans since its last reissue that were not undone, in the order in which they were written.
    fn standing(&self, ticket: usize) -> impl DoubleEndedIterator<Item = &Row> {
        let since = self.tickets[ticket].reissued_version;
        self.rows.iter().filter(move |row| row.ticket == ticket && row.stands() && row.version > Some(since))
    }

    fn tell(&mut self, scan_id: u8, result: ScanResult) {
        if !self.answers.contains(&(scan_id, result)) {
            self.answers.push((scan_id, result));
            self.answers.sort_by_key(|(scan_id, result)| (*scan_id, result.as_str()));
        }
    }

    fn write(&mut self, row: Row) {
        self.rows.push(row);
        // The order of refused scans does not matter.
        self.rows.sort_by_key(|row| if row.result == ScanResult::Accepted { 0 } else { row.scan_id });
    }
}

impl Protocol {
    /// Reads the state and decides, or returns the earlier verdict: `gate::scan` up to `record_scan`.
    fn read(&self, state: &mut State, scan: &Scan, process: usize) {
        let Step::Waiting { tries } = state.processes[process].at else { return };
        state.processes[process].at = Step::Over;
        if let Some(prior) = state.row(scan.scan_id) {
            let result = if prior.undone { ScanResult::Undone } else { prior.result };
            return state.tell(scan.scan_id, result);
        }
        let now = scan.offline_at.unwrap_or(scan.clocks[state.processes[process].sending]);
        let plan = self.decide(state, scan, now);
        if !self.answers_when_written {
            state.tell(scan.scan_id, plan.result);
        }
        if !plan.result.needs_the_code() || is_vouched(state, scan, now) {
            state.processes[process].at = Step::Decided { tries, plan };
        }
    }

    fn decide(&self, state: &State, scan: &Scan, now: i64) -> Plan {
        let ticket = &state.tickets[scan.ticket];
        let offline = scan.offline_at.is_some();
        let newest = state.standing(scan.ticket).map(|row| row.decided_at).max();
        let last_entry =
            state.standing(scan.ticket).filter(|row| row.direction == Direction::Entry).map(|row| row.decided_at).max();
        let reissued = offline && ticket.seeded_at > Some(now);
        let has_admitted = state.rows.iter().any(|row| row.ticket == scan.ticket && row.stands());
        let subject = Subject {
            gate: "North".into(),
            status: match ticket.status {
                Status::Valid if reissued && has_admitted => Status::Used,
                status => status,
            },
            registered: true,
            inside: ticket.inside,
            printed: false,
            last_step: ticket.last_step,
            refusals: 0,
            newest_accepted_at: newest.filter(|_| offline).map(moment),
            reentry: self.reentry,
            entered_at: if self.reentry == Reentry::None { ticket.used_at } else { last_entry }.map(moment),
            time_zone: "UTC".into(),
            opens_at: None,
            closes_at: None,
            valid_from: None,
            valid_until: None,
        };
        let proves = || match scan.shown {
            Shown::Code { .. } if ticket.seeds > 0 => Match::None,
            Shown::Code { step } if (step - now).abs() <= DRIFT => Match::Current { step },
            Shown::Code { step } => Match::Stale { seconds_off: (step - now) * PERIOD },
            Shown::Vouched | Shown::OfParty { .. } => Match::None,
        };
        let presented = Presented {
            code: matches!(scan.shown, Shown::Code { .. }).then_some(ShownCode { guessable: true, proves: &proves }),
            vouched: scan.shown == Shown::Vouched,
            at_gate: Some("North"),
            direction: scan.direction,
            offline,
            tells_future: !offline,
        };
        let decision = admission::decide(Some(&subject), &presented, moment(now));
        Plan { result: decision.result, decided_at: now, version: ticket.version, step: decision.step }
    }

    /// One transaction: marks the ticket if it is unchanged, and writes the scan if its id is free: `record_scan`.
    fn record(&self, state: &mut State, scan: &Scan, process: usize) {
        let Step::Decided { tries, plan } = state.processes[process].at else { return };
        let ticket = &state.tickets[scan.ticket];
        let accepted = plan.result == ScanResult::Accepted;
        let is_outdated =
            accepted && (ticket.status == Status::Revoked || self.checks_version && ticket.version != plan.version);
        let is_taken = self.scan_ids_are_unique && state.row(scan.scan_id).is_some();
        if is_outdated || is_taken {
            let again = Step::Waiting { tries: tries + 1 };
            state.processes[process].at = if tries + 1 < TRIES { again } else { Step::Over };
            return;
        }
        let ticket = &mut state.tickets[scan.ticket];
        if accepted {
            ticket.status = Status::Used;
            ticket.inside = scan.direction == Direction::Entry;
            ticket.last_step = ticket.last_step.max(plan.step);
            ticket.used_at = ticket.used_at.or(Some(plan.decided_at));
            ticket.version += 1;
        }
        let row = Row {
            scan_id: scan.scan_id,
            ticket: scan.ticket,
            direction: scan.direction,
            result: plan.result,
            version: accepted.then_some(plan.version + 1),
            decided_at: plan.decided_at,
            undone: false,
            seeds: ticket.seeds,
        };
        state.write(row);
        state.tell(scan.scan_id, plan.result);
        state.processes[process].at = Step::Over;
    }

    /// One transaction, under the ticket's lock: `undo_scan`.
    fn undo(&self, state: &mut State, scan_id: u8) {
        let Some(scan) = state.row(scan_id).filter(|row| row.stands()).cloned() else { return };
        let newest = if self.undoes_by_version {
            state.standing(scan.ticket).max_by_key(|row| row.version)
        } else {
            state.standing(scan.ticket).max_by_key(|row| row.decided_at)
        };
        if newest.is_none_or(|newest| newest.scan_id != scan_id) {
            return;
        }
        for row in &mut state.rows {
            row.undone |= row.scan_id == scan_id;
        }
        let used = state.standing(scan.ticket).any(|row| row.direction == Direction::Entry);
        let inside = state.standing(scan.ticket).next_back().is_some_and(|row| row.direction == Direction::Entry);
        let ticket = &mut state.tickets[scan.ticket];
        if !used {
            ticket.used_at = None;
            if ticket.status == Status::Used {
                ticket.status = Status::Valid;
            }
        }
        ticket.inside = inside;
        ticket.version += 1;
    }
}

/// Whether the voucher of a scan, if it has one, admitted somebody a short while before: `ScanRequest::is_vouched`.
fn is_vouched(state: &State, scan: &Scan, now: i64) -> bool {
    let Shown::OfParty { vouched_by } = scan.shown else { return true };
    state
        .row(vouched_by)
        .is_some_and(|voucher| voucher.stands() && (voucher.decided_at..=voucher.decided_at + PARTY).contains(&now))
}

/// An organizer's change to the first ticket, in one transaction: `is_due` and `write_change`.
fn change(ticket: &mut Ticket, request: Request) {
    match (request, ticket.status) {
        (Request::Revoke, Status::Valid | Status::Used) => ticket.status = Status::Revoked,
        (Request::Transfer, Status::Valid) => {}
        (Request::Reissue, Status::Valid | Status::Revoked) => {
            (ticket.status, ticket.inside, ticket.used_at) = (Status::Valid, false, None);
            ticket.reissued_version = ticket.version + 1;
        }
        _ => return,
    }
    if request != Request::Revoke {
        ticket.seeds += 1;
        (ticket.seeded_at, ticket.last_step) = (Some(CHANGED), None);
    }
    ticket.version += 1;
}

/// Whether a ticket admitted no more often than the event's re-entry rule allows.
fn admits_once(protocol: &Protocol, state: &State, ticket: usize) -> bool {
    let standing: Vec<&Row> = state.standing(ticket).collect();
    let entries = || standing.iter().filter(|row| row.direction == Direction::Entry);
    match protocol.reentry {
        Reentry::None => entries().count() <= 1,
        Reentry::AfterExit => standing.windows(2).all(|two| two[0].direction != two[1].direction),
        Reentry::OnceADay => {
            let days: Vec<i64> = entries().map(|row| row.decided_at / DAY).collect();
            days.windows(2).all(|two| two[0] < two[1])
        }
    }
}

/// Whether the order of the accepted scans is possible: nobody leaves who was not inside.
fn follows(state: &State, ticket: usize) -> bool {
    let mut before = None;
    state.standing(ticket).all(|row| {
        let may_follow = row.direction == Direction::Entry || before == Some(Direction::Entry);
        before = Some(row.direction);
        may_follow
    })
}

/// Whether a ticket's state agrees with its scans.
fn is_what_its_scans_say(state: &State, ticket: usize) -> bool {
    let Ticket { status, inside, used_at, .. } = state.tickets[ticket];
    let last = state.standing(ticket).next_back();
    let used = state.standing(ticket).any(|row| row.direction == Direction::Entry);
    let inside_last = last.is_some_and(|row| row.direction == Direction::Entry);
    inside == inside_last
        && used_at.is_some() == used
        && (status == Status::Revoked || (status == Status::Used) == used)
}

impl Model for Protocol {
    type State = State;
    /// The process that takes its next step, with its number.
    type Action = (usize, Process);

    fn init_states(&self) -> Vec<State> {
        let new = Ticket {
            status: Status::Valid,
            inside: false,
            last_step: None,
            version: 1,
            used_at: None,
            seeds: 0,
            seeded_at: None,
            reissued_version: 0,
        };
        let met = |met: &Vec<Request>| State {
            processes: met.iter().flat_map(|request| self.sendings(*request)).collect(),
            tickets: [new.clone(), new.clone()],
            rows: Vec::new(),
            answers: Vec::new(),
        };
        some_of(&REQUESTS[1..], self.together - 1).iter().map(met).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<(usize, Process)>) {
        let may_step = |(number, process): &(usize, &Process)| {
            // Nobody resends what was never sent.
            let unsent = |first: &Process| first.at == Step::Waiting { tries: 0 };
            process.at != Step::Over && !(process.sending == 1 && unsent(&state.processes[number - 1]))
        };
        actions.extend(
            state.processes.iter().enumerate().filter(may_step).map(|(number, process)| (number, process.clone())),
        );
    }

    fn next_state(&self, last: &State, (number, Process { request, at, .. }): (usize, Process)) -> Option<State> {
        let mut state = last.clone();
        match (request, at) {
            (_, Step::Over) => return None,
            (Request::Scan(scan), Step::Waiting { .. }) => self.read(&mut state, &scan, number),
            (Request::Scan(scan), Step::Decided { .. }) => self.record(&mut state, &scan, number),
            (request, _) => {
                match request {
                    Request::Undo { scan_id } => self.undo(&mut state, scan_id),
                    request => change(&mut state.tickets[0], request),
                }
                state.processes[number].at = Step::Over;
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("each ticket admits once a stay", |protocol: &Self, state: &State| {
                (0..2).all(|ticket| admits_once(protocol, state, ticket))
            }),
            Property::always("nobody goes out who did not come in", |_, state: &State| {
                (0..2).all(|ticket| follows(state, ticket))
            }),
            Property::always("a ticket is what its scans say", |_, state: &State| {
                (0..2).all(|ticket| is_what_its_scans_say(state, ticket))
            }),
            Property::always("each scan has one verdict", |_, state: &State| {
                let verdicts = |scan_id: u8| {
                    let told = state.answers.iter().filter(|(of, _)| *of == scan_id).map(|(_, result)| *result);
                    told.filter(|result| *result != ScanResult::Undone).count()
                };
                let rows = |scan_id: u8| state.rows.iter().filter(|row| row.scan_id == scan_id).count();
                (1..=9).all(|scan_id| verdicts(scan_id) <= 1 && rows(scan_id) <= 1)
            }),
            Property::always("nothing that was told is lost", |_, state: &State| {
                state.answers.iter().all(|(scan_id, told)| {
                    state.row(*scan_id).is_some_and(|row| {
                        *told == if row.undone && *told != row.result { ScanResult::Undone } else { row.result }
                    })
                })
            }),
            Property::always("nobody comes in with what a ticket was before", |_, state: &State| {
                let of_code = |row: &&Row| ![VOUCHED.scan_id, OF_PARTY.scan_id].contains(&row.scan_id);
                state
                    .rows
                    .iter()
                    .filter(|row| row.result == ScanResult::Accepted)
                    .filter(of_code)
                    .all(|row| row.seeds == 0)
            }),
            Property::sometimes("somebody gets in", |_, state: &State| {
                state.answers.iter().any(|(_, told)| *told == ScanResult::Accepted)
            }),
            Property::sometimes("a copy is refused", |_, state: &State| {
                state.answers.contains(&(COPY.scan_id, ScanResult::AlreadyUsed))
            }),
            Property::sometimes("a party gets in", |_, state: &State| {
                state.answers.contains(&(OF_PARTY.scan_id, ScanResult::Accepted))
            }),
            Property::sometimes("an offline gate is overruled", |_, state: &State| {
                state.answers.contains(&(OFFLINE.scan_id, ScanResult::AlreadyUsed))
            }),
            Property::sometimes("a scan is told that it was undone", |_, state: &State| {
                state.answers.contains(&(ENTRY.scan_id, ScanResult::Undone))
            }),
            Property::sometimes("a scan is decided again", |_, state: &State| {
                state.processes.iter().any(|process| matches!(process.at, Step::Decided { tries: 1.., .. }))
            }),
        ]
    }
}

impl Protocol {
    fn sendings(&self, request: Request) -> Vec<Process> {
        let times = match request {
            Request::Scan(ENTRY) => 2,
            Request::Scan(_) => self.sent,
            _ => 1,
        };
        (0..times).map(|sending| Process { request, sending, at: Step::Waiting { tries: 0 } }).collect()
    }
}

/// All combinations of the first request with this many of the others.
fn some_of(others: &[Request], count: usize) -> Vec<Vec<Request>> {
    if count == 0 {
        return vec![vec![REQUESTS[0]]];
    }
    let with = |(place, request): (usize, &Request)| {
        let mut selections = some_of(&others[place + 1..], count - 1);
        selections.iter_mut().for_each(|selection| selection.push(*request));
        selections
    };
    others.iter().enumerate().flat_map(with).collect()
}

/// Explores every state; fails with the steps that lead to a violation.
fn holds(protocol: Protocol) {
    let checker = protocol.checker().threads(2).spawn_dfs().join();
    println!("{:?}: {} states, {} steps", protocol.reentry, checker.unique_state_count(), checker.state_count());
    checker.assert_properties();
}

/// Asserts that the checker finds this rule broken.
fn breaks(protocol: Protocol, rule: &'static str) {
    let checker = protocol.checker().threads(2).finish_when(HasDiscoveries::AnyOf([rule].into())).spawn_bfs().join();
    checker.assert_any_discovery(rule);
}

#[test]
fn a_ticket_admits_once_whoever_is_asked_twice_in_whatever_order() {
    holds(PROTOCOL);
}

#[test]
fn whoever_left_comes_in_once_again_whoever_of_four_is_first() {
    holds(Protocol { reentry: Reentry::AfterExit, together: 4, sent: 1, ..PROTOCOL });
}

#[test]
fn whoever_left_comes_in_once_again() {
    holds(Protocol { reentry: Reentry::AfterExit, ..PROTOCOL });
}

#[test]
fn a_ticket_admits_once_a_day() {
    holds(Protocol { reentry: Reentry::OnceADay, ..PROTOCOL });
}

#[test]
fn without_the_version_two_get_in() {
    breaks(Protocol { checks_version: false, ..PROTOCOL }, "each ticket admits once a stay");
}

#[test]
fn without_the_version_somebody_gets_in_with_what_was_taken_away() {
    breaks(Protocol { checks_version: false, ..PROTOCOL }, "nobody comes in with what a ticket was before");
}

#[test]
fn without_unique_scan_ids_a_scan_has_two_verdicts() {
    breaks(Protocol { scan_ids_are_unique: false, ..PROTOCOL }, "each scan has one verdict");
}

#[test]
fn an_answer_before_it_is_written_may_be_lost() {
    breaks(Protocol { answers_when_written: false, ..PROTOCOL }, "nothing that was told is lost");
}

#[test]
fn an_undo_by_clocks_takes_back_the_wrong_scan() {
    let protocol = Protocol { reentry: Reentry::AfterExit, undoes_by_version: false, ..PROTOCOL };
    breaks(protocol, "nobody goes out who did not come in");
}
