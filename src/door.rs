//! Walk-ups: people without a ticket whom a supervisor admits. One transaction records their tickets, scans and payments.

use sha1::{Digest as _, Sha1};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, random_bytes};
use crate::error::Error;
use crate::fault::Fault;
use crate::fold;
use crate::gate::{Scanned, check_moment, made_at};
use crate::limits::WALK_UPS;
use crate::model::{Event, Millis, Role, Scan, ScanResult, Seed, Ticket};
use crate::store::{ENTRANCE, GateSeats, Guarded, WalkUps};

/// Maximum number of attempts when others take a seat or the `scan_id` in the meantime.
const TRIES: usize = 5;

/// A request to admit people who have no ticket.
pub struct WalkUp {
    /// The id of the first person's scan. [`scan_ids`] derives the others.
    pub scan_id: Uuid,
    /// The gate, unless the key is bound to one.
    pub gate: Option<String>,
    /// The number of people, from 1 to [`WALK_UPS`].
    pub count: usize,
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    /// The amount that each person paid, in the smallest unit of the event's currency. Defaults to the event's price.
    pub paid: Option<i64>,
    pub scanned_at: Millis,
    /// Whether the gate decided it offline.
    pub offline: bool,
}

/// Returns the ids of all scans that one walk-up can have: its own `scan_id`, then the UUIDs (version 5) of the names `2`,
/// `3`, … with the `scan_id` as namespace.
pub fn scan_ids(scan_id: Uuid) -> Vec<Uuid> {
    let derived = |number: i64| {
        let digest = Sha1::new().chain_update(scan_id.as_bytes()).chain_update(number.to_string()).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_sha1_bytes(bytes).into_uuid()
    };
    std::iter::once(scan_id).chain((2..=WALK_UPS).map(derived)).collect()
}

/// Admits the people, or returns the result of the same earlier request: one scan with its ticket for each person.
pub async fn admit(
    app: &App,
    caller: &Caller,
    event: &Event,
    request: &WalkUp,
    now: Millis,
) -> Result<Vec<Scanned>, Error> {
    // A device's file names its event itself.
    caller.open_event(Some(Guarded::new(event.event_id, ())))?;
    let store = app.store();
    let ids = scan_ids(request.scan_id);
    for _ in 0..TRIES {
        let prior = store.find_walk_ups(&ids).await?;
        if !prior.is_empty() {
            return replay(prior, caller, event, request);
        }
        request.check(caller, event, now)?;
        let walk_ups = request.plan(caller, event, &store.list_gates(event.event_id).await?, &ids, now)?;
        match store.admit_walk_ups(&walk_ups, caller.author(now)).await {
            Ok(()) => {
                (0..request.count).for_each(|_| app.metrics.count_scan(ScanResult::Accepted));
                let admitted = store.find_walk_ups(&ids).await?;
                return Ok(admitted.into_iter().map(|(scan, ticket)| scanned(scan, ticket, false)).collect());
            }
            // Another request was faster, with the same id or the same seat.
            Err(Error::ScanIdConflict | Error::ScanContended) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::ScanContended)
}

impl WalkUp {
    /// Checks that the caller may make this request now. Runs after the replay, which any key of the event gets at any time.
    fn check(&self, caller: &Caller, event: &Event, now: Millis) -> Result<(), Error> {
        if !caller.role.holds(Role::Supervisor) {
            return Err(Error::Forbidden("Only a supervisor may admit people without a ticket."));
        }
        check_moment(caller, self.offline.then_some(self.scanned_at), now)?;
        if !event.walk_ups {
            return Err(Error::WalkUpsNotAllowed);
        }
        if self.paid.is_some() && event.currency.is_none() {
            return Err(Error::field("paid", Fault::CurrencyMissing));
        }
        Ok(())
    }

    fn plan(
        &self,
        caller: &Caller,
        event: &Event,
        gates: &[GateSeats],
        ids: &[Uuid],
        now: Millis,
    ) -> Result<WalkUps, Error> {
        let gate = gate_of(caller.gate.as_deref().or(self.gate.as_deref()), gates)?;
        let same = gates.iter().filter(|one| fold::same_place(&one.gate, &gate));
        Ok(WalkUps {
            event_id: event.event_id,
            last_number: same.filter_map(|one| one.last_number).max().unwrap_or(0),
            gate,
            scan_ids: ids[..self.count].to_vec(),
            seeds: (0..self.count).map(|_| Ok(Seed(random_bytes()?))).collect::<Result<_, Error>>()?,
            full_name: self.full_name.clone(),
            category: self.category.clone(),
            note: self.note.clone(),
            paid: self.paid.or(event.walk_up_price),
            scanned_at: made_at(self.scanned_at, self.offline, now),
            decided_at: if self.offline { self.scanned_at } else { now },
            offline_result: self.offline.then_some(ScanResult::Accepted),
        })
    }

    /// Returns whether this request can have made this ticket. Fields that the request lacks are not compared, because a
    /// device that writes it to a file leaves out the name.
    fn has_made(&self, ticket: &Ticket, caller: &Caller, event: &Event) -> bool {
        // The gate in a request with a key that is bound to a gate has no meaning.
        let gate = self.gate.as_deref().filter(|_| caller.gate.is_none());
        let texts =
            [(&self.full_name, &ticket.full_name), (&self.category, &ticket.category), (&self.note, &ticket.note)];
        ticket.walk_up
            && gate.is_none_or(|gate| fold::same_place(gate, &ticket.gate))
            && self.paid.is_none_or(|paid| ticket.paid == Some(paid))
            && texts.into_iter().all(|(asked, made)| asked.is_none() || asked == made || event.forgotten_at.is_some())
    }
}

/// Returns the named gate as the event's tickets spell it, or else the only gate.
fn gate_of(named: Option<&str>, gates: &[GateSeats]) -> Result<String, Error> {
    if let Some(named) = named {
        let known = gates.iter().find(|one| fold::same_place(&one.gate, named));
        return Ok(known.map_or(named, |one| one.gate.as_str()).to_owned());
    }
    let Some((first, others)) = gates.split_first() else {
        return Ok(ENTRANCE.to_owned());
    };
    if others.iter().all(|other| fold::same_place(&other.gate, &first.gate)) {
        return Ok(first.gate.clone());
    }
    Err(Error::field("gate", Fault::Required))
}

/// Returns the first result again if it is the same request.
fn replay(
    prior: Vec<(Scan, Option<Ticket>)>,
    caller: &Caller,
    event: &Event,
    request: &WalkUp,
) -> Result<Vec<Scanned>, Error> {
    let is_same = |(scan, ticket): &(Scan, Option<Ticket>)| {
        scan.event_id == event.event_id && ticket.as_ref().is_some_and(|ticket| request.has_made(ticket, caller, event))
    };
    let is_first = |scan: &Scan| scan.scan_id == request.scan_id && scan.vouched_by.is_none();
    let is_whole = prior.len() == request.count && prior.first().is_some_and(|(scan, _)| is_first(scan));
    if !is_whole || !prior.iter().all(is_same) {
        return Err(Error::ScanIdConflict);
    }
    Ok(prior.into_iter().map(|(scan, ticket)| scanned(scan, ticket, true)).collect())
}

fn scanned(scan: Scan, ticket: Option<Ticket>, replayed: bool) -> Scanned {
    Scanned { scan: scan.as_it_stands(), ticket, party: Vec::new(), replayed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gates(names: &[&str]) -> Vec<GateSeats> {
        let gate = |name: &&str| GateSeats { gate: (*name).to_owned(), last_number: None, standing: 1 };
        names.iter().map(gate).collect()
    }

    #[test]
    fn the_scans_of_a_walk_up_have_ids_that_everybody_can_work_out() {
        let ids = scan_ids(Uuid::NAMESPACE_DNS);
        assert_eq!((ids.len(), ids[0]), (20, Uuid::NAMESPACE_DNS));
        // Python: uuid.uuid5(uuid.NAMESPACE_DNS, "2")
        assert_eq!(ids[1].to_string(), "4b166dbe-d99d-5091-abdd-95b83330ed3a");
        assert_eq!(ids[19].to_string(), "66e549b7-01e2-5d07-98d5-430f74d8d3b2");
    }

    #[test]
    fn a_walk_up_that_names_no_gate_is_at_the_only_one() {
        assert_eq!(gate_of(None, &[]).unwrap(), ENTRANCE);
        assert_eq!(gate_of(None, &gates(&["Nord", "NORD"])).unwrap(), "Nord");
        assert_eq!(gate_of(Some("north"), &gates(&["South", "North"])).unwrap(), "North");
        assert_eq!(gate_of(Some("West"), &gates(&["North"])).unwrap(), "West");
        assert!(gate_of(None, &gates(&["North", "South"])).is_err());
    }
}
