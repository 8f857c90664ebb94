//! One scan from reading to writing: what was shown is decided on, and the verdict is written down with the mark on the
//! ticket.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::admission::{self, Decision, FUTURE_TOLD, Presented, ShownCode, Subject};
use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::fault::Fault;
use crate::fold;
use crate::limits::{ATTEMPTS_WINDOW, CLOCKS_APART, KEY_ATTEMPTS, OFFLINE_AHEAD, OFFLINE_WINDOW, PARTY_WINDOW};
use crate::model::{Direction, Millis, Role, Scan, ScanResult, Status, Ticket};
use crate::store::{Guesses, Mark, Recorded, ScanContext, TicketName, Voucher};
use crate::totp::{Code, Match, QrCode, TicketSecret};

/// How often a scan whose ticket changed under it is decided again.
const TRIES: usize = 3;

/// A scan that a device asks for, understood.
pub struct ScanRequest {
    pub scan_id: Uuid,
    pub shown: Shown,
    pub at_gate: Option<String>,
    pub direction: Direction,
    pub scanned_at: Millis,
    /// What the gate decided by itself, while it was offline.
    pub offline_result: Option<ScanResult>,
}

/// What was shown at a gate.
pub enum Shown {
    /// The QR code of a ticket.
    Qr(QrCode),
    /// A ticket, as a gate wrote it down without its code.
    Ticket(Uuid),
    /// A seat at a gate, with the code that was typed, unless it is what a gate wrote down.
    Seat { seat: String, gate: String, code: Option<Code> },
    /// A seat at a gate, whose holder a supervisor admits without a code, and why.
    Vouched { seat: String, gate: String, note: String },
    /// A ticket of somebody who was admitted with another one just now, and the scan that did it.
    OfParty { ticket_id: Uuid, vouched_by: Uuid },
    /// Something that is no code of ours.
    Nothing,
}

impl Shown {
    fn ticket(&self) -> TicketName<'_> {
        match self {
            Self::Qr(qr) => TicketName::Id(qr.ticket_id),
            Self::Ticket(ticket_id) => TicketName::Id(*ticket_id),
            Self::Seat { seat, gate, .. } | Self::Vouched { seat, gate, .. } => TicketName::Seat { seat, gate },
            &Self::OfParty { ticket_id, vouched_by } => TicketName::OfParty { ticket_id, vouched_by },
            Self::Nothing => TicketName::None,
        }
    }

    fn code(&self) -> Option<&Code> {
        match self {
            Self::Qr(QrCode { code, .. }) => Some(code),
            Self::Seat { code, .. } => code.as_ref(),
            Self::Ticket(_) | Self::Vouched { .. } | Self::OfParty { .. } | Self::Nothing => None,
        }
    }

    /// Whether it names a ticket and nothing that speaks for it.
    fn is_bare(&self) -> bool {
        matches!(self, Self::Ticket(_) | Self::Seat { code: None, .. })
    }

    /// Why a supervisor vouches.
    fn note(&self) -> Option<&str> {
        match self {
            Self::Vouched { note, .. } => Some(note),
            Self::Qr(_) | Self::Ticket(_) | Self::Seat { .. } | Self::OfParty { .. } | Self::Nothing => None,
        }
    }

    /// The scan that is to speak for it.
    fn vouched_by(&self) -> Option<Uuid> {
        match self {
            Self::OfParty { vouched_by, .. } => Some(*vouched_by),
            Self::Qr(_) | Self::Ticket(_) | Self::Seat { .. } | Self::Vouched { .. } | Self::Nothing => None,
        }
    }

    /// A name for the ticket that was shown, by which a retry is recognised when there is no such ticket.
    fn claimed(&self) -> Uuid {
        match self.ticket() {
            TicketName::Id(ticket_id) | TicketName::OfParty { ticket_id, .. } => ticket_id,
            TicketName::Seat { seat, gate } => {
                let digest = Sha256::new().chain_update(seat).chain_update([0]).chain_update(gate).finalize();
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&digest[..16]);
                Uuid::from_bytes(bytes)
            }
            TicketName::None => Uuid::nil(),
        }
    }
}

impl ScanRequest {
    /// Whether this caller may send this now. Asked after the replay, which any key of the event gets at any time.
    fn check(&self, caller: &Caller, now: Millis) -> Result<(), Error> {
        if self.manual() && !caller.role.holds(Role::Supervisor) {
            return Err(Error::Forbidden("Only a supervisor may admit without a code."));
        }
        if self.shown.is_bare() && !caller.is_agreed() {
            return Err(Error::Forbidden("Nothing speaks for this scan."));
        }
        check_moment(caller, self.offline().then_some(self.scanned_at), now)
    }

    /// The code that is looked at. Where an organizer has agreed, the gate has looked at it: its device knew the keys of the
    /// codes, so whoever has it could make them, and the ticket may have got another key since.
    fn code(&self, caller: &Caller) -> Option<&Code> {
        self.shown.code().filter(|_| !caller.is_agreed())
    }

    /// Which refused codes count against this scan. Whoever shows paper, vouches or is vouched for guesses nothing; and scans of
    /// offline gates do not meet the limit of a ticket.
    fn guesses(&self, caller: &Caller, now: Millis) -> Guesses {
        let since = self.code(caller).is_some_and(Code::is_guessable).then_some(now - ATTEMPTS_WINDOW);
        Guesses {
            of_ticket_since: since.filter(|_| !self.offline()),
            of_key_since: since,
            until: Some(now + CLOCKS_APART),
            key_id: caller.key_id,
        }
    }

    /// Whether nothing is wrong with what speaks for it, if that is another scan: it admitted somebody at this ticket's gate a short
    /// while before. Where an organizer has agreed, the gate has looked at that too.
    fn is_vouched(&self, caller: &Caller, context: &ScanContext, as_of: Millis) -> bool {
        if self.shown.vouched_by().is_none() || caller.is_agreed() {
            return true;
        }
        let gate = context.ticket.as_ref().map(|ticket| ticket.gate.as_str());
        context.voucher.as_ref().zip(gate).is_some_and(|(Voucher { decided_at, gate: other, admitted }, gate)| {
            let window = *decided_at - CLOCKS_APART..=*decided_at + PARTY_WINDOW;
            *admitted && fold::same_place(other, gate) && window.contains(&as_of)
        })
    }

    fn manual(&self) -> bool {
        self.shown.note().is_some()
    }

    fn offline(&self) -> bool {
        self.offline_result.is_some()
    }
}

/// Whether this caller may send what was made at this moment; none for what is made now.
pub fn check_moment(caller: &Caller, offline_at: Option<Millis>, now: Millis) -> Result<(), Error> {
    let Some(scanned_at) = offline_at else {
        return match caller.ended {
            Some(_) => Err(Error::Forbidden("Nothing speaks for this scan.")),
            None => Ok(()),
        };
    };
    let oldest = if caller.is_agreed() { Millis(i64::MIN) } else { now - OFFLINE_WINDOW };
    // A key that was made in the future was made by a clock that was ahead: who has it proves that it is there.
    let made = caller.created_at.filter(|&at| at <= now);
    let oldest = oldest.max(made.unwrap_or(oldest));
    let latest = now + OFFLINE_AHEAD;
    let latest = caller.ended.map_or(latest, |ended| latest.min(ended.until));
    if (oldest..=latest).contains(&scanned_at) {
        return Ok(());
    }
    let (hours, seconds) = (OFFLINE_WINDOW.as_secs() / 3_600, OFFLINE_AHEAD.as_secs());
    Err(Error::field("scanned_at", Fault::OutsideWindow { hours, seconds }))
}

/// When the device made a scan, by its own clock. An online gate whose clock is far off admits all the same, but what its clock
/// says is not kept: then it is when the scan was received. Offline such a scan is refused.
pub fn made_at(scanned_at: Millis, offline: bool, now: Millis) -> Millis {
    let believed = now - OFFLINE_WINDOW..=now + OFFLINE_AHEAD;
    if offline || believed.contains(&scanned_at) { scanned_at } else { now }
}

/// The verdict on a scan, and the ticket it is about.
pub struct Scanned {
    pub scan: Scan,
    pub ticket: Option<Ticket>,
    /// The holder's other tickets that this scan may speak for.
    pub party: Vec<Ticket>,
    /// Whether it was given before, to the same scan.
    pub replayed: bool,
}

/// Decides one scan and writes it down. Reads, decides, writes only if the ticket is still what was read; otherwise
/// once more from the start.
pub async fn scan(
    app: &App,
    caller: &Caller,
    event: &str,
    request: &ScanRequest,
    now: Millis,
) -> Result<Scanned, Error> {
    let guesses = request.guesses(caller, now);
    for _ in 0..TRIES {
        let context = app.store().read_scan(event, &request.shown.ticket(), request.scan_id, &guesses).await?;
        let mut context = caller.open_event(context)?;
        let party = company(&mut context, request, now);
        if let Some(prior) = context.prior {
            let scanned = replay(prior, context.event_id, context.ticket, request)?;
            return Ok(with_party(scanned, party, caller, request, now));
        }
        request.check(caller, now)?;
        if context.key_refusals >= KEY_ATTEMPTS {
            return Err(Error::TooManyWrongCodes);
        }
        let secret = app.checked_secret(context.secret_fingerprint.as_deref())?;
        let (mut scan, mut mark) = decide(secret, caller, &context, request, now);
        // In the place of the code: what comes before it needs none.
        if scan.result.needs_the_code() && !request.is_vouched(caller, &context, scan.decided_at) {
            // Whom a gate let in by a scan that does not stand has come in: a conflict, like that scan.
            if context.voucher.is_none() || request.offline_result != Some(ScanResult::Accepted) {
                return Err(Error::field("vouched_by", Fault::NotVouched { seconds: PARTY_WINDOW.as_secs() }));
            }
            (scan, mark) = (without_code(scan), None);
        }
        let mut ticket = context.ticket;
        if !scan.result.is_kept() || app.store().record_scan(&scan, mark.as_ref(), &guesses).await? == Recorded::Done {
            app.metrics.count_scan(scan.result);
            if let (Some(mark), Some(ticket)) = (mark, &mut ticket) {
                ticket.status = Status::Used;
                ticket.inside = mark.inside;
                ticket.used_at = ticket.used_at.or(Some(scan.decided_at));
                if mark.inside {
                    ticket.entered_at = Some(scan.decided_at);
                }
            }
            let scanned = Scanned { scan, ticket, party: Vec::new(), replayed: false };
            return Ok(with_party(scanned, party, caller, request, now));
        }
    }
    Err(Error::ScanContended)
}

/// Which of the holder's other tickets would admit now without a code.
fn company(context: &mut ScanContext, request: &ScanRequest, now: Millis) -> Vec<Ticket> {
    let direction = Direction::Entry;
    let presented =
        Presented { code: None, vouched: false, at_gate: None, direction, offline: false, tells_future: false };
    let mut party = std::mem::take(&mut context.party);
    party.retain(|ticket| {
        let subject = subject(ticket, context, request);
        admission::decide(Some(&subject), &presented, now).result == ScanResult::Accepted
    });
    party
}

/// The same with the holder's other tickets, if this scan may speak for them now, for whoever asks. In a batch nobody waits at the
/// gate any more.
fn with_party(scanned: Scanned, party: Vec<Ticket>, caller: &Caller, request: &ScanRequest, now: Millis) -> Scanned {
    let Scan { result, direction, vouched_by, key_id, decided_at, .. } = scanned.scan;
    let admits = result == ScanResult::Accepted && direction == Direction::Entry && vouched_by.is_none();
    let speaks = admits && key_id == caller.key_id && now <= decided_at + PARTY_WINDOW && !request.offline();
    if speaks { Scanned { party, ..scanned } } else { scanned }
}

/// The first verdict again, when it is the same scan; or, once it was undone, that.
fn replay(prior: Scan, event_id: Uuid, ticket: Option<Ticket>, request: &ScanRequest) -> Result<Scanned, Error> {
    let same_ticket = match prior.ticket_id {
        Some(ticket_id) => ticket.as_ref().is_some_and(|ticket| ticket.ticket_id == ticket_id),
        None => prior.presented == Some(request.shown.claimed()),
    };
    if prior.event_id != event_id || prior.direction != request.direction || !same_ticket {
        return Err(Error::ScanIdConflict);
    }
    // A ticket that came into being after it was unknown is not part of that verdict.
    let ticket = ticket.filter(|_| prior.ticket_id.is_some());
    Ok(Scanned { scan: prior.as_it_stands(), ticket, party: Vec::new(), replayed: true })
}

/// A scan for which nothing spoke.
fn without_code(scan: Scan) -> Scan {
    Scan {
        result: ScanResult::WrongCode,
        seconds_off: None,
        first_used_at: None,
        first_used_gate: None,
        opens_at: None,
        closed_at: None,
        ..scan
    }
}

fn decide(
    secret: &TicketSecret,
    caller: &Caller,
    context: &ScanContext,
    request: &ScanRequest,
    now: Millis,
) -> (Scan, Option<Mark>) {
    let ticket = context.ticket.as_ref();
    let as_of = if request.offline() { request.scanned_at } else { now };
    let at_gate = caller.gate.as_ref().or(request.at_gate.as_ref());
    let subject = ticket.map(|ticket| subject(ticket, context, request));
    let code = request.code(caller);
    let proves = || match ticket.zip(code) {
        Some((ticket, code)) => secret.key_of(ticket.ticket_id, ticket.seed).recognise(code, as_of),
        None => Match::None,
    };
    let presented = Presented {
        code: code.map(|code| ShownCode { guessable: code.is_guessable(), proves: &proves }),
        vouched: request.manual(),
        at_gate: at_gate.map(String::as_str),
        direction: request.direction,
        offline: request.offline(),
        // Who tries the codes of many tickets, or sends many at once, is told no more. A key that has ended sends batches only.
        tells_future: !request.offline() && context.key_refusals < FUTURE_TOLD,
    };
    let mut decision = admission::decide(subject.as_ref(), &presented, as_of);
    // Whom the gate refused did not come in, so nothing is marked: its verdict stands.
    if let (ScanResult::Accepted, Some(own)) = (decision.result, request.offline_result)
        && own != ScanResult::Accepted
    {
        decision = Decision::refuse(own);
    }
    let used_before = ticket.filter(|_| decision.result == ScanResult::AlreadyUsed);
    let mark = ticket.filter(|_| decision.result == ScanResult::Accepted).map(|ticket| Mark {
        version: ticket.version,
        step: decision.step,
        inside: request.direction == Direction::Entry,
    });
    let scan = Scan {
        scan_id: request.scan_id,
        event_id: context.event_id,
        ticket_id: ticket.map(|ticket| ticket.ticket_id),
        presented: if ticket.is_none() { Some(request.shown.claimed()) } else { None },
        at_gate: at_gate.cloned(),
        direction: request.direction,
        result: decision.result,
        offline_result: request.offline_result,
        manual: request.manual(),
        note: request.shown.note().map(str::to_owned),
        vouched_by: request.shown.vouched_by(),
        seconds_off: decision.seconds_off,
        first_used_at: used_before.and_then(|ticket| ticket.admitted_at(context.reentry)),
        first_used_gate: used_before.and(context.first_used_gate.clone()),
        opens_at: decision.opens_at,
        closed_at: decision.closed_at,
        scanned_at: made_at(request.scanned_at, request.offline(), now),
        received_at: now,
        decided_at: as_of,
        key_id: caller.key_id,
        undone_at: None,
        undone_by: None,
    };
    (scan, mark)
}

fn subject(ticket: &Ticket, context: &ScanContext, request: &ScanRequest) -> Subject {
    Subject {
        gate: ticket.gate.clone(),
        status: status_then(ticket, context, request),
        registered: ticket.user_id.is_some(),
        inside: ticket.inside,
        printed: ticket.printed_at.is_some(),
        last_step: ticket.last_step,
        refusals: context.refusals,
        newest_accepted_at: context.newest_accepted_at.filter(|_| request.offline()),
        reentry: context.reentry,
        entered_at: ticket.entered_at,
        time_zone: context.time_zone.clone(),
        opens_at: context.opens_at,
        closes_at: context.closes_at,
        valid_from: ticket.valid_from,
        valid_until: ticket.valid_until,
    }
}

/// The state of a ticket when it was scanned. One that has been used, revoked and reissued since is unused now, and was used
/// then: what was shown belongs to the ticket that it was.
fn status_then(ticket: &Ticket, context: &ScanContext, request: &ScanRequest) -> Status {
    let reissued = request.offline() && ticket.seeded_at > Some(request.scanned_at);
    match ticket.status {
        Status::Valid if reissued && context.has_admitted => Status::Used,
        status => status,
    }
}
