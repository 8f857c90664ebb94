//! One scan from reading to writing: decides what was shown, and records the verdict together with the mark on the ticket.

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

/// Maximum number of attempts to decide a scan whose ticket changes concurrently.
const TRIES: usize = 3;

/// A parsed scan request of a device.
pub struct ScanRequest {
    pub scan_id: Uuid,
    pub shown: Shown,
    pub at_gate: Option<String>,
    pub direction: Direction,
    pub scanned_at: Millis,
    /// The verdict of the gate itself, if it decided offline.
    pub offline_result: Option<ScanResult>,
}

/// What was shown at a gate.
pub enum Shown {
    /// The QR code of a ticket.
    Qr(QrCode),
    /// A ticket that a gate recorded without its code.
    Ticket(Uuid),
    /// A seat at a gate with the typed code, or without one if a gate recorded it.
    Seat { seat: String, gate: String, code: Option<Code> },
    /// A seat at a gate whose holder a supervisor admits without a code, and the reason.
    Vouched { seat: String, gate: String, note: String },
    /// Another ticket of a holder who has just been admitted, and the scan that did so.
    OfParty { ticket_id: Uuid, vouched_by: Uuid },
    /// Something that is not one of our codes.
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

    /// Returns whether it names a ticket without any proof.
    fn is_bare(&self) -> bool {
        matches!(self, Self::Ticket(_) | Self::Seat { code: None, .. })
    }

    /// Returns the reason for which a supervisor vouches.
    fn note(&self) -> Option<&str> {
        match self {
            Self::Vouched { note, .. } => Some(note),
            Self::Qr(_) | Self::Ticket(_) | Self::Seat { .. } | Self::OfParty { .. } | Self::Nothing => None,
        }
    }

    /// Returns the scan that should vouch for it.
    fn vouched_by(&self) -> Option<Uuid> {
        match self {
            Self::OfParty { vouched_by, .. } => Some(*vouched_by),
            Self::Qr(_) | Self::Ticket(_) | Self::Seat { .. } | Self::Vouched { .. } | Self::Nothing => None,
        }
    }

    /// Returns an id for the ticket that was shown, by which a retry is recognised if there is no such ticket.
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
    /// Checks that the caller may send this now. Runs after the replay, which any key of the event gets at any time.
    fn check(&self, caller: &Caller, now: Millis) -> Result<(), Error> {
        if self.manual() && !caller.role.holds(Role::Supervisor) {
            return Err(Error::Forbidden("Only a supervisor may admit without a code."));
        }
        if self.shown.is_bare() && !caller.is_agreed() {
            return Err(Error::Forbidden("This scan has no proof of the ticket."));
        }
        check_moment(caller, self.offline().then_some(self.scanned_at), now)
    }

    /// Returns the code to check. If an organizer has agreed, the gate's check counts: its device had the keys of the codes, so
    /// anyone who has it could generate them, and the ticket may have a new key since.
    fn code(&self, caller: &Caller) -> Option<&Code> {
        self.shown.code().filter(|_| !caller.is_agreed())
    }

    /// Returns which refused codes count against this scan. Paper and vouching are not guesses, and scans of offline gates are
    /// not subject to the limit of a ticket.
    fn guesses(&self, caller: &Caller, now: Millis) -> Guesses {
        let since = self.code(caller).is_some_and(Code::is_guessable).then_some(now - ATTEMPTS_WINDOW);
        Guesses {
            of_ticket_since: since.filter(|_| !self.offline()),
            of_key_since: since,
            until: Some(now + CLOCKS_APART),
            key_id: caller.key_id,
        }
    }

    /// Returns whether the scan that vouches for this one, if any, is valid: it must have admitted somebody at this
    /// ticket's gate shortly before. If an organizer has agreed, the gate's check of that counts too.
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

/// Checks that the caller may send a scan made offline at this moment, or made now if `None`.
pub fn check_moment(caller: &Caller, offline_at: Option<Millis>, now: Millis) -> Result<(), Error> {
    let Some(scanned_at) = offline_at else {
        return match caller.ended {
            Some(_) => Err(Error::Forbidden("This key has ended; it can only send what its device decided offline.")),
            None => Ok(()),
        };
    };
    let oldest = if caller.is_agreed() { Millis(i64::MIN) } else { now - OFFLINE_WINDOW };
    // A creation time in the future is from a clock that was ahead; the key evidently exists already.
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

/// Returns the time of a scan by the device's clock. An online gate whose clock is far off still admits, but the time of
/// receipt is recorded instead. Offline, such a scan is rejected.
pub fn made_at(scanned_at: Millis, offline: bool, now: Millis) -> Millis {
    let believed = now - OFFLINE_WINDOW..=now + OFFLINE_AHEAD;
    if offline || believed.contains(&scanned_at) { scanned_at } else { now }
}

/// The verdict on a scan, with its ticket.
pub struct Scanned {
    pub scan: Scan,
    pub ticket: Option<Ticket>,
    /// The holder's other tickets for which this scan may vouch.
    pub party: Vec<Ticket>,
    /// Whether the same scan got this verdict before.
    pub replayed: bool,
}

/// Decides one scan and records it. Reads, decides, and writes only if the ticket is unchanged since; otherwise it starts
/// again.
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
        // Vouching takes the place of the code, so refusals that precede the code do not need it.
        if scan.result.needs_the_code() && !request.is_vouched(caller, &context, scan.decided_at) {
            // The gate let this person in by a scan that was not accepted: record a conflict, as for that scan.
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

/// Returns the holder's other tickets that would admit now without a code.
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

/// Adds the holder's other tickets if this scan may vouch for them now for this caller. Not in a batch, when nobody is waiting
/// at the gate any more.
fn with_party(scanned: Scanned, party: Vec<Ticket>, caller: &Caller, request: &ScanRequest, now: Millis) -> Scanned {
    let Scan { result, direction, vouched_by, key_id, decided_at, .. } = scanned.scan;
    let admits = result == ScanResult::Accepted && direction == Direction::Entry && vouched_by.is_none();
    let speaks = admits && key_id == caller.key_id && now <= decided_at + PARTY_WINDOW && !request.offline();
    if speaks { Scanned { party, ..scanned } } else { scanned }
}

/// Returns the first verdict again if it is the same scan, or `undone` if it has been undone.
fn replay(prior: Scan, event_id: Uuid, ticket: Option<Ticket>, request: &ScanRequest) -> Result<Scanned, Error> {
    let same_ticket = match prior.ticket_id {
        Some(ticket_id) => ticket.as_ref().is_some_and(|ticket| ticket.ticket_id == ticket_id),
        None => prior.presented == Some(request.shown.claimed()),
    };
    if prior.event_id != event_id || prior.direction != request.direction || !same_ticket {
        return Err(Error::ScanIdConflict);
    }
    // A ticket created after the verdict `unknown_ticket` is not part of it.
    let ticket = ticket.filter(|_| prior.ticket_id.is_some());
    Ok(Scanned { scan: prior.as_it_stands(), ticket, party: Vec::new(), replayed: true })
}

/// Turns an unproven scan into `wrong_code`.
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
        // Not for a client that tries the codes of many tickets, nor in a batch, which is all that an ended key may send.
        tells_future: !request.offline() && context.key_refusals < FUTURE_TOLD,
    };
    let mut decision = admission::decide(subject.as_ref(), &presented, as_of);
    // A person whom the gate refused did not come in. Its verdict stands, and nothing is marked.
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

/// Returns the status of a ticket when it was scanned. A ticket that was used, and then revoked and reissued, is valid now but
/// was used then, and what was shown belongs to the ticket as it was.
fn status_then(ticket: &Ticket, context: &ScanContext, request: &ScanRequest) -> Status {
    let reissued = request.offline() && ticket.seeded_at > Some(request.scanned_at);
    match ticket.status {
        Status::Valid if reissued && context.has_admitted => Status::Used,
        status => status,
    }
}
