//! Imports of ticket lists: the preview of a list, and its import. The command line and the organizer's page use the same
//! functions.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, random_bytes};
use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::fold;
use crate::limits::IMPORT_TICKETS;
use crate::model::{Event, Existing, Flag, Place, Seed, Status, Unknown, check_order};
use crate::quota::Held;
use crate::request::Call;
use crate::sheet::columns::Field;
use crate::sheet::import::{Column, Faults, Person, TicketRow, as_read, note, username_of_name};
use crate::sheet::{Encoding, List, Reading};
use crate::store::{
    Correction, Created, ENTRANCE, GateSeats, Issuance, Issued, KnownPerson, NewTicket, NewUser, Wanted,
};

/// How to read a list, and what to do with it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ImportQuery {
    /// Whether to return what would happen without doing it. For lists only.
    dry_run: Option<Flag>,
    /// The field of each column of the list, in order, separated by commas; an empty one or `-` ignores the column. When
    /// absent, columns are recognised by their names.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    columns: Option<Columns>,
    /// What to do about unknown columns; `refuse` when absent.
    unknown: Option<Unknown>,
    /// What to do with a line whose ticket exists already; `refuse` when absent.
    existing: Option<Existing>,
    /// `false` if no line names the columns and the first line is a ticket. Detected when absent.
    header: Option<Flag>,
}

/// The field of each column; `None` ignores the column.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Columns(Vec<Option<Field>>);

impl TryFrom<String> for Columns {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        text.parse()
    }
}

impl std::str::FromStr for Columns {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let field = |name: &str| match name.trim() {
            "" | "-" => Ok(None),
            name => name.parse().map(Some).map_err(|_| Fault::NotOneOf { words: Field::names() }),
        };
        text.split(',').map(field).collect::<Result<_, _>>().map(Self)
    }
}

/// How to read a list, and what to do with tickets that exist already.
#[derive(Clone)]
pub struct How {
    pub reading: Reading,
    pub existing: Existing,
}

impl How {
    pub fn new(columns: Option<Columns>, unknown: Unknown, existing: Existing, no_header: bool, most: usize) -> Self {
        let (columns, ignore_unknown) = (columns.map(|columns| columns.0), unknown == Unknown::Ignore);
        Self { reading: Reading { columns, ignore_unknown, no_header, most, time_zone: None }, existing }
    }
}

/// What a list would do to an event.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ImportPreview"))]
pub struct Preview {
    /// The encoding of the file.
    encoding: Encoding,
    /// The character between its fields; null for a workbook.
    separator: Option<char>,
    /// The sheet that was read; null unless the file is a workbook.
    sheet: Option<String>,
    /// Its columns, in order.
    columns: Vec<Column>,
    /// All fields that a column can have.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    fields: Vec<String>,
    /// The first lines as they were read, field by field.
    rows: Vec<Vec<String>>,
    /// The number of lines, without the header and empty lines.
    lines: usize,
    /// Skipped lines that mark themselves as no tickets, such as those of cancelled orders.
    left_out: usize,
    /// Tickets without a seat, which would get the next free numbers.
    numbered: usize,
    /// What would be created if nothing is wrong.
    counts: Created,
    /// The number of errors.
    wrong: usize,
    /// The errors, as in a refusal.
    errors: Vec<FieldError>,
    /// What is correct but worth knowing.
    notices: Vec<FieldError>,
}

impl Preview {
    /// Returns whether the list can be imported.
    pub fn is_good(&self) -> bool {
        self.wrong == 0
    }
}

/// What an import did.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ImportCounts"))]
pub struct Imported {
    #[serde(flatten)]
    pub counts: Created,
    /// What is correct but worth knowing. Absent when there is nothing, and when the request was not a list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<FieldError>,
}

/// A list compared with the tickets and people that exist.
pub struct Plan {
    /// The list as it was read, without its rows.
    list: List,
    numbered: usize,
    skipped: u64,
    users_created: u64,
    issuance: Issuance,
    /// The line of each new ticket.
    ticket_lines: Vec<u64>,
}

impl Plan {
    /// Returns the number of tickets to create.
    pub fn tickets(&self) -> usize {
        self.issuance.tickets.len()
    }

    /// Returns what the list would do.
    pub fn preview(self) -> Preview {
        let counts = self.counts();
        let List { encoding, separator, sheet, columns, sample, lines, left_out, faults, notices, .. } = self.list;
        Preview {
            encoding,
            separator,
            sheet,
            columns,
            fields: Field::names(),
            rows: sample,
            lines,
            left_out,
            numbered: self.numbered,
            counts,
            wrong: faults.count(),
            errors: faults.into_told(),
            notices: file_notices(notices),
        }
    }

    fn counts(&self) -> Created {
        let Issuance { tickets, corrections, .. } = &self.issuance;
        let new = tickets.iter().filter(|ticket| ticket.holder.is_some()).count();
        let given = corrections.iter().filter(|correction| correction.username.is_some()).count();
        Created {
            created: tickets.len() as u64,
            registered: (new + given) as u64,
            users_created: self.users_created,
            updated: corrections.len() as u64,
            skipped: self.skipped,
        }
    }

    /// Imports the list, all of it or nothing.
    pub async fn carry_out(
        self,
        app: &App,
        caller: &Caller,
        event: &Event,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Imported, Error> {
        let counts = self.counts();
        let Self { issuance, ticket_lines, list: List { faults, notices, .. }, skipped, .. } = self;
        let notices = file_notices(notices);
        if !faults.is_empty() {
            let errors = faults.into_told();
            let is_there = |error: &FieldError| {
                ["seat_taken", "reference_taken", "has_ticket", "more_faults"].contains(&error.code())
            };
            return Err(if errors.iter().all(is_there) {
                Error::SeatTaken(errors)
            } else {
                Error::InvalidPayload(errors)
            });
        }
        if issuance.tickets.is_empty() && issuance.corrections.is_empty() && issuance.details.is_empty() {
            return Ok(Imported { counts, notices });
        }
        if counts.registered > 0 {
            app.in_time(app.claimed_secret()).await?;
        }
        let author = caller.author(app.now());
        let created = app.store().create_tickets(event.event_id, caller.event_id, &issuance, author, progress).await;
        let name = |index: usize| format!("line {}", ticket_lines[index]);
        let created = created.map_err(|error| super::tickets::name_fields(error, name))?;
        Ok(Imported { counts: Created { skipped, ..created }, notices })
    }
}

fn file_notices(notices: Vec<Fault>) -> Vec<FieldError> {
    notices.into_iter().map(|notice| FieldError::new("file", notice)).collect()
}

/// `POST /api/events/{event}/tickets` with a list: imports it, or previews it for a dry run.
pub(super) async fn import(call: &Call<'_>, event: &Event) -> Result<Result<Imported, Preview>, Error> {
    let query: ImportQuery = call.query()?;
    let caller = call.caller()?;
    // Not before the body was read: a slow upload must not block other imports.
    let share = call.app.imports.open_for(caller, Some(event.event_id));
    let permit = Arc::new(share.with(1).map_err(|_| Error::ImportInProgress)?);
    let (unknown, existing) = (query.unknown.unwrap_or(Unknown::Refuse), query.existing.unwrap_or(Existing::Refuse));
    let how = How::new(query.columns, unknown, existing, query.header == Some(Flag::No), IMPORT_TICKETS);
    let plan = plan(call.app, caller, event, call.body.clone(), how, Some(&permit)).await?;
    if query.dry_run == Some(Flag::Yes) {
        return Ok(Err(plan.preview()));
    }
    plan.carry_out(call.app, caller, event, &|_| {}).await.map(Ok)
}

/// Reads a list and compares it with what exists. `permit` is the request's import permit.
pub async fn plan(
    app: &Arc<App>,
    caller: &Caller,
    event: &Event,
    file: impl AsRef<[u8]> + Send + 'static,
    how: How,
    permit: Option<&Arc<Held>>,
) -> Result<Plan, Error> {
    let How { reading, existing } = how;
    let reading = Reading { time_zone: TimeZone::get(&event.time_zone).ok(), ..reading };
    let list = off_the_workers(permit, move || List::read(file.as_ref(), &reading)).await?;
    let (event_id, people_of, store) = (event.event_id, caller.event_id, app.store());
    let gates = app.in_time(store.list_gates(event_id)).await?;
    let draft = off_the_workers(permit, move || Ok(Draft::new(list, gates, event_id, existing))).await?;
    let issued = store.find_issued(event_id, &draft.wanted()).await?;
    let held = store.find_held(event_id, people_of, &draft.unseated()).await?;
    let known = store.find_people(people_of, &draft.usernames).await?;
    off_the_workers(permit, move || draft.compare(people_of, issued, held, &known)).await
}

/// Runs CPU-bound work on a blocking thread, so that no scan waits behind it. The work continues when the request is dropped,
/// and holds its permit until it ends.
async fn off_the_workers<T: Send + 'static>(
    permit: Option<&Arc<Held>>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let permit = permit.cloned();
    let work = move || {
        let done = work();
        drop(permit);
        done
    };
    // The panic's message may contain what was sent, so it is dropped; the panic hook has logged the location.
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Internal("reading an import panicked".into()))?
}

/// A list in which each ticket has a gate and each person a username.
struct Draft {
    list: List,
    existing: Existing,
    /// The greatest numeric seat at each gate.
    numbers: HashMap<String, i64>,
    /// The number of the event's tickets that are neither revoked nor issued at the door.
    standing: u64,
    /// The usernames of the people in the list, each once, as the list writes them.
    usernames: Vec<String>,
    /// The index of each lowercase username in `usernames`.
    indexes: HashMap<String, usize>,
}

impl Draft {
    fn new(mut list: List, gates: Vec<GateSeats>, event_id: Uuid, existing: Existing) -> Self {
        let gate = only_gate(&list.rows, &gates);
        let (mut numbers, mut standing): (HashMap<String, i64>, u64) = (HashMap::new(), 0);
        for gate in gates {
            let last = numbers.entry(fold::place(&gate.gate)).or_default();
            *last = gate.last_number.unwrap_or(0).max(*last);
            standing += gate.standing.unsigned_abs();
        }
        let (mut usernames, mut indexes, mut namesakes) = (Vec::new(), HashMap::new(), HashMap::new());
        let (mut seats, mut line_before) = (HashMap::new(), (0, String::new()));
        for row in &mut list.rows {
            let gate = fold::place(row.gate.get_or_insert_with(|| gate.clone()).as_str());
            if let Some(seat) = row.seat.as_ref().filter(|_| !row.is_void) {
                if let Some(number) = plain_number(seat.as_str()) {
                    let last = numbers.entry(gate.clone()).or_default();
                    *last = number.max(*last);
                }
                if let Some(line) = seats.insert((fold::place(seat.as_str()), gate), row.line) {
                    list.faults.add(row.line, FieldError::line(row.line, Fault::SeatTwice { line }));
                }
            }
            let Some(person) = &mut row.person else { continue };
            if person.username.is_none() {
                // The tickets of one line belong to one person; another line with the same name is another person.
                if line_before.0 != row.line {
                    let name = person.full_name.as_deref().unwrap_or_default();
                    let number = namesakes.entry(as_read(name)).and_modify(|number| *number += 1).or_insert(1);
                    line_before = (row.line, username_of_name(name, event_id.as_bytes(), *number));
                }
                person.username = Some(line_before.1.clone());
            }
            let username = person.username.clone().unwrap_or_default();
            indexes.entry(username.to_ascii_lowercase()).or_insert_with(|| {
                usernames.push(username);
                usernames.len() - 1
            });
        }
        // If two rows name one ticket, the store matches the later one. Void rows come first, so that the match is never void.
        list.rows.sort_by_key(|row| !row.is_void);
        Self { list, existing, numbers, standing, usernames, indexes }
    }

    /// Returns what to look for in the store: the reference and the seat of each row.
    fn wanted(&self) -> Vec<Wanted> {
        let place = |row: &TicketRow| Some((row.seat.clone()?.into_string(), row.gate.clone()?.into_string()));
        let rows = self.list.rows.iter();
        rows.map(|row| Wanted { reference: row.reference.clone(), place: place(row) }).collect()
    }

    /// Returns the people with rows that only the person identifies.
    fn unseated(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let people = self.list.rows.iter().filter(|row| is_unseated(row)).filter_map(|row| username_of(row));
        people.filter(|username| seen.insert(username.to_ascii_lowercase())).map(ToOwned::to_owned).collect()
    }

    fn index_of(&self, username: &str) -> Option<usize> {
        self.indexes.get(&username.to_ascii_lowercase()).copied()
    }

    fn compare(
        mut self,
        people_of: Option<Uuid>,
        issued: Vec<Issued>,
        held: Vec<Issued>,
        known: &[KnownPerson],
    ) -> Result<Plan, Error> {
        let rows = std::mem::take(&mut self.list.rows);
        let mut people: Vec<Option<&KnownPerson>> = vec![None; self.usernames.len()];
        for person in known {
            if let Some(index) = self.index_of(&person.username) {
                people[index] = Some(person);
            }
        }
        let mut comparison = Comparison {
            existing: self.existing,
            people_of,
            there: There::new(rows.len(), issued, held),
            people,
            new: vec![None; self.usernames.len()],
            issuance: Issuance::default(),
            ticket_lines: Vec::new(),
            numbered: 0,
            skipped: 0,
            matched: HashSet::new(),
            others: Vec::new(),
            renamed: Vec::new(),
            revoked: Vec::new(),
            faults: std::mem::take(&mut self.list.faults),
        };
        let (void, tickets): (Vec<_>, Vec<_>) = rows.into_iter().enumerate().partition(|(_, row)| row.is_void);
        for (index, row) in tickets {
            let person = username_of(&row).and_then(|username| self.index_of(username));
            comparison.meet(index, row, person, &mut self.numbers)?;
        }
        // The tickets of void rows that no other row has matched.
        let void = void.iter().flat_map(|(index, row)| comparison.there.of(*index, row));
        let good: HashSet<Uuid> = void.filter(|it| it.status == Status::Valid).map(|it| it.ticket_id).collect();
        let Comparison { mut issuance, ticket_lines, skipped, numbered, faults, people, new, .. } = comparison;
        let Comparison { matched, others, renamed, revoked, .. } = comparison;
        let still_good = good.difference(&matched).count();
        let missing = self.standing.saturating_sub(matched.union(&good).count() as u64);
        let is_new = people.iter().zip(&new).filter(|(known, new)| known.is_none() && new.is_some());
        let users_created = is_new.count() as u64;
        issuance.people = new.into_iter().flatten().collect();
        self.list.faults = faults;
        let notices = [
            (still_good > 0, Fault::StillGood { count: still_good }),
            (missing > 0 && self.existing != Existing::Refuse, Fault::NotInList { count: missing }),
            (!others.is_empty(), Fault::NotAsInList { lines: others }),
            (!renamed.is_empty(), Fault::Renamed { lines: renamed }),
            (!revoked.is_empty(), Fault::StillRevoked { lines: revoked }),
        ];
        self.list.notices.extend(notices.into_iter().filter_map(|(is_so, notice)| is_so.then_some(notice)));
        Ok(Plan { list: self.list, numbered, skipped, users_created, issuance, ticket_lines })
    }
}

/// Returns whether only its person identifies the ticket of a row.
fn is_unseated(row: &TicketRow) -> bool {
    row.seat.is_none() && row.reference.is_none()
}

fn username_of(row: &TicketRow) -> Option<&str> {
    row.person.as_ref()?.username.as_deref()
}

/// The maximum digits of a numeric seat, here and where the store looks for the greatest.
const NUMBER: usize = 15;

fn plain_number(seat: &str) -> Option<i64> {
    let is_number = seat.len() <= NUMBER && seat.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| seat.parse().ok()).flatten()
}

/// Returns the gate of tickets that name none: the only gate of the event and the list, or else [`ENTRANCE`].
fn only_gate(rows: &[TicketRow], gates: &[GateSeats]) -> Place {
    let named = rows.iter().filter_map(|row| row.gate.as_ref()).map(Place::as_str);
    let all: HashSet<&str> = named.chain(gates.iter().map(|gate| gate.gate.as_str())).collect();
    let mut all = all.into_iter();
    let only = all.next().filter(|_| all.next().is_none()).unwrap_or(ENTRANCE);
    // Gates that exist and `ENTRANCE` are valid names.
    Place::try_from(only.to_owned()).unwrap_or_else(|_| unreachable!("{ENTRANCE} is a valid gate"))
}

/// The tickets that exist, by what identifies them.
struct There {
    /// The tickets with a row's reference or seat, by the row's index.
    named: HashMap<usize, Vec<Issued>>,
    /// The tickets of a person at a gate, oldest first, by lowercase username and gate.
    held: HashMap<(String, String), VecDeque<Issued>>,
    taken: HashSet<Uuid>,
    rows: usize,
}

impl There {
    fn new(rows: usize, issued: Vec<Issued>, held: Vec<Issued>) -> Self {
        let mut there = Self { named: HashMap::new(), held: HashMap::new(), taken: HashSet::new(), rows };
        for ticket in issued {
            there.taken.insert(ticket.ticket_id);
            let named = there.named.entry(ticket.place).or_default();
            if named.iter().all(|other| other.ticket_id != ticket.ticket_id) {
                named.push(ticket);
            }
        }
        for ticket in held {
            let holder = ticket.username.as_deref().unwrap_or_default().to_ascii_lowercase();
            there.held.entry((holder, fold::place(&ticket.gate))).or_default().push_back(ticket);
        }
        there
    }

    /// Returns the tickets that a row names. A row without a seat or reference takes the next ticket of its person at its gate.
    fn of(&mut self, index: usize, row: &TicketRow) -> Vec<Issued> {
        debug_assert!(index < self.rows);
        if !is_unseated(row) {
            return self.named.remove(&index).unwrap_or_default();
        }
        let (Some(username), Some(gate)) = (username_of(row), &row.gate) else { return Vec::new() };
        let Some(held) = self.held.get_mut(&(username.to_ascii_lowercase(), fold::place(gate.as_str()))) else {
            return Vec::new();
        };
        while let Some(ticket) = held.pop_front() {
            if self.taken.insert(ticket.ticket_id) {
                return vec![ticket];
            }
        }
        Vec::new()
    }
}

/// The comparison of the rows, one after the other, with what exists.
struct Comparison<'a> {
    existing: Existing,
    people_of: Option<Uuid>,
    there: There,
    /// Each person of the list, if known.
    people: Vec<Option<&'a KnownPerson>>,
    /// What the list says about each person who gets a ticket.
    new: Vec<Option<NewUser>>,
    issuance: Issuance,
    ticket_lines: Vec<u64>,
    numbered: usize,
    skipped: u64,
    /// The tickets that lines name, except revoked ones and those issued at the door.
    matched: HashSet<Uuid>,
    /// The lines that differ from their skipped ticket.
    others: Vec<u64>,
    /// The lines that change the name on their ticket and identify its person by name only.
    renamed: Vec<u64>,
    /// The lines whose ticket stays revoked.
    revoked: Vec<u64>,
    faults: Faults,
}

impl Comparison<'_> {
    fn meet(
        &mut self,
        index: usize,
        mut row: TicketRow,
        person: Option<usize>,
        numbers: &mut HashMap<String, i64>,
    ) -> Result<(), Error> {
        let there = self.there.of(index, &row);
        let line = row.line;
        let standing = there.iter().filter(|ticket| ticket.status != Status::Revoked && !ticket.walk_up);
        self.matched.extend(standing.map(|ticket| ticket.ticket_id));
        if let Err(fault) = self.check_person(&mut row, person) {
            self.faults.add(line, FieldError::line(line, fault));
            return Ok(());
        }
        if there.iter().any(|ticket| ticket.status == Status::Revoked) {
            note(&mut self.revoked, line);
        }
        match there.as_slice() {
            [] => self.make(row, person, numbers)?,
            [ticket] => match self.existing {
                Existing::Refuse => self.faults.add(line, FieldError::line(line, is_there(&row, ticket))),
                Existing::Skip => {
                    self.skipped += 1;
                    if !matches!(self.correction(&row, ticket), Ok(None)) {
                        note(&mut self.others, line);
                    }
                }
                Existing::Update => match self.correction(&row, ticket) {
                    Err(fault) => self.faults.add(line, FieldError::line(line, fault)),
                    Ok(None) => self.skipped += 1,
                    Ok(Some(correction)) => {
                        if correction.username.is_some() {
                            self.remember(&row, person);
                        }
                        if correction.holder_name.is_some() && row.person.as_ref().is_some_and(|it| it.is_name_only) {
                            note(&mut self.renamed, line);
                        }
                        self.issuance.corrections.push(correction);
                    }
                },
            },
            // The reference is that of one ticket, the seat that of another.
            _ => self.faults.add(line, FieldError::line(line, Fault::OtherReference)),
        }
        Ok(())
    }

    /// Checks that the row's person is the one known by that username, and adds details that an update may add.
    fn check_person(&mut self, row: &mut TicketRow, index: Option<usize>) -> Result<(), Fault> {
        let (Some(person), Some(known)) = (&mut row.person, index.and_then(|index| self.people[index])) else {
            return Ok(());
        };
        let differs = person.email.as_deref().is_some_and(|email| {
            known.email.as_deref().is_none_or(|known| known.to_lowercase() != email.to_lowercase())
        });
        if differs && (self.existing != Existing::Update || known.email.is_some()) {
            return Err(Fault::PersonDiffers);
        }
        let adds_name = self.existing == Existing::Update && known.full_name.is_none() && person.full_name.is_some();
        if differs || adds_name {
            let full_name = person.full_name.clone().filter(|_| known.full_name.is_none());
            let username = person.username.clone().unwrap_or_default();
            self.issuance.details.push(NewUser { username, full_name, email: person.email.take() });
        }
        Ok(())
    }

    fn make(&mut self, row: TicketRow, person: Option<usize>, numbers: &mut HashMap<String, i64>) -> Result<(), Error> {
        self.remember(&row, person);
        let gate = row.gate.map(Place::into_string).unwrap_or_default();
        let seat = match row.seat {
            Some(seat) => seat.into_string(),
            None => {
                let number = numbers.entry(fold::place(&gate)).or_default();
                *number += 1;
                self.numbered += 1;
                number.to_string()
            }
        };
        let own = person.and_then(|index| self.own_name(index));
        let holder = row.person.map(|person| {
            let Person { username, full_name, email, .. } = person;
            // A name that reads the same as the holder's own name is that name, not another one for the ticket.
            let on_ticket = |name: String| own.filter(|own| as_read(own) == as_read(&name)).unwrap_or(name);
            NewUser { username: username.unwrap_or_default(), full_name: full_name.map(on_ticket), email }
        });
        let (ticket_id, seed) = (Uuid::now_v7(), Seed(random_bytes()?));
        let TicketRow { reference, category, note, valid_from, valid_until, .. } = row;
        self.issuance.tickets.push(NewTicket {
            ticket_id,
            seat,
            gate,
            seed,
            holder,
            reference,
            category,
            note,
            valid_from,
            valid_until,
        });
        self.ticket_lines.push(row.line);
        Ok(())
    }

    /// Returns the name that the holder will be known by.
    fn own_name(&self, index: usize) -> Option<String> {
        let known = self.people[index].map(|known| known.full_name.clone());
        known.unwrap_or_else(|| self.new[index].as_ref().and_then(|new| new.full_name.clone()))
    }

    /// Records the holder, with the first name and the first address that the list gives them.
    fn remember(&mut self, row: &TicketRow, index: Option<usize>) {
        let (Some(index), Some(person)) = (index, &row.person) else { return };
        let username = person.username.clone().unwrap_or_default();
        let new = self.new[index].get_or_insert(NewUser { username, full_name: None, email: None });
        new.full_name = new.full_name.take().or_else(|| person.full_name.clone());
        new.email = new.email.take().or_else(|| person.email.clone());
    }

    /// Returns the changes to an existing ticket. Its seat, codes and status never change.
    fn correction(&self, row: &TicketRow, ticket: &Issued) -> Result<Option<Correction>, Fault> {
        let moves = |place: &Option<Place>, there: &str| {
            place.as_ref().is_some_and(|place| !fold::same_place(place.as_str(), there))
        };
        if moves(&row.seat, &ticket.seat) || (row.seat.is_some() && moves(&row.gate, &ticket.gate)) {
            return Err(Fault::OtherSeat);
        }
        let reference = row.reference.clone().filter(|reference| ticket.reference.as_ref() != Some(reference));
        if reference.is_some() && ticket.reference.is_some() {
            return Err(Fault::OtherReference);
        }
        // Only a reissue makes a revoked ticket valid again.
        if ticket.status == Status::Revoked {
            return Ok(None);
        }
        let (mut holder_name, mut username) = (None, None);
        if let Some(person) = &row.person {
            match &ticket.username {
                None => username = person.username.clone().filter(|_| ticket.status == Status::Valid),
                Some(holder) if !self.is_holder(person, holder, ticket) => return Err(Fault::OtherHolder),
                Some(_) => {}
            }
            let name = person.full_name.as_ref().filter(|name| ticket.full_name.as_ref() != Some(name));
            let is_own = |name: &String| ticket.own_name.as_ref() == Some(name);
            holder_name = name.map(|name| Some(name.clone()).filter(|name| !is_own(name)));
        }
        let category = row.category.clone().filter(|category| ticket.category.as_ref() != Some(category));
        let note = row.note.clone().filter(|note| ticket.note.as_ref() != Some(note));
        let valid_from = row.valid_from.filter(|_| ticket.valid_from != row.valid_from);
        let valid_until = row.valid_until.filter(|_| ticket.valid_until != row.valid_until);
        check_order(row.valid_from.or(ticket.valid_from), row.valid_until.or(ticket.valid_until))?;
        let ticket_id = ticket.ticket_id;
        let correction =
            Correction { ticket_id, reference, holder_name, username, category, note, valid_from, valid_until };
        Ok((!correction.is_empty()).then_some(correction))
    }

    /// Returns whether a row names the ticket's holder. A person identified by name only is taken for the holder: the
    /// name may be what the row corrects.
    fn is_holder(&self, person: &Person, holder: &str, ticket: &Issued) -> bool {
        let is_same = person.username.as_ref().is_some_and(|username| username.eq_ignore_ascii_case(holder));
        person.is_name_only || (is_same && ticket.holder_event_id == self.people_of)
    }
}

/// Returns why a row cannot become a new ticket.
fn is_there(row: &TicketRow, ticket: &Issued) -> Fault {
    match row {
        row if is_unseated(row) => Fault::HasTicket,
        row if row.reference.is_some() && row.reference == ticket.reference => Fault::ReferenceTaken,
        _ => Fault::SeatTaken,
    }
}
