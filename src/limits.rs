//! Every limit that people and programs meet, once. Errors, the OpenAPI document and the pages get theirs from here; where
//! a document repeats one, a test compares it. The limits of the decision itself stand beside it, in `admission` and `totp`.

use std::time::Duration;

use serde::Serialize;

/// How long after its receipt a scan can be undone.
pub const UNDO_WINDOW: Duration = Duration::from_mins(15);

/// How long a refused code counts as an attempt, and so how long whoever made too many waits.
pub const ATTEMPTS_WINDOW: Duration = Duration::from_secs(60);
/// Refused codes of a key, of whichever tickets, from which on none of its codes is looked at. Those of batches count.
/// Those of one ticket have a limit of their own, `admission::ATTEMPTS`.
pub const KEY_ATTEMPTS: i64 = 60;
/// How long the board shows a key whose codes were refused,
pub const GUESSES_SHOWN: Duration = Duration::from_mins(10);
/// and from how many of them on. A gate meets a screenshot now and then.
pub const GUESSES_NOTED: i64 = 20;

/// How long a scan that admitted somebody vouches for their other tickets.
pub const PARTY_WINDOW: Duration = Duration::from_mins(2);
/// Tickets of a holder that are told with an admission.
pub const PARTY: usize = 50;

/// Guests that are told of those who are looked for by name,
pub const GUESTS: usize = 10;
/// and letters that it needs at least.
pub const GUEST_LETTERS: usize = 2;

/// How old a scan in a batch may be.
pub const OFFLINE_WINDOW: Duration = Duration::from_hours(72);
/// How far the clock of a gate that sends a batch may be ahead.
pub const OFFLINE_AHEAD: Duration = Duration::from_secs(30);
/// Scans in a batch at most.
pub const BATCH_SCANS: usize = 500;

/// The manifest holds the keys of all codes: it can be had from this long before the event's start,
pub const MANIFEST_BEFORE_START: Duration = Duration::from_hours(24);
/// to this long after its end.
pub const MANIFEST_AFTER_END: Duration = Duration::from_hours(6);
/// How old the list that a device keeps of it gets at most, without a word from the service.
pub const LIST_KEPT: Duration = Duration::from_hours(48);

/// How often it is noted at most that a key's device was heard of.
pub const HEARD_NOTED: Duration = Duration::from_mins(1);
/// Unsent scans that a device can say it has: more are told as so many.
pub const UNSENT: i64 = 1_000_000;

/// How far ahead it is noted that a device has keys of codes: one note serves for all pages that are read in the meantime,
/// and the clock of the process that makes a seed may be ahead of ours.
pub const NOTED_AHEAD: Duration = Duration::from_mins(2);

/// How long after its start, and after its newest admission, an event without an end goes on.
pub const EVENT_WITHOUT_END: Duration = Duration::from_hours(24);

/// How long after its event's end the key of a gate or a supervisor lives,
pub const KEY_AFTER_EVENT: Duration = Duration::from_hours(12);
/// and how long when the event's end is not known.
pub const KEY_WITHOUT_END: Duration = Duration::from_hours(30 * 24);
/// How long the key of an organizer lives.
pub const KEY_OF_ORGANIZER: Duration = Duration::from_hours(180 * 24);
/// How long a process may go on trusting a key that another process revoked.
pub const KEY_REMEMBERED: Duration = Duration::from_secs(30);
/// How long the token of an enrolment is good.
pub const ENROLMENT: Duration = Duration::from_mins(15);

/// Days after its end that an event may keep its people, at most.
pub const FORGET_AFTER_DAYS: i64 = 3_650;

/// Days after which a backup is gone where one is taken every day, by what `backup::archive` keeps; until then it knows whoever was
/// forgotten since.
pub const BACKUP_DAYS: u64 = 35;

/// How far the clocks of service and database may be apart: well inside a code's 30 s.
pub const CLOCKS_APART: Duration = Duration::from_secs(5);

/// Tickets that are mailed by one request at most.
pub const MAILED_TICKETS: usize = 25;
/// Tickets that one link opens at most, for the person who holds them.
pub const HELD_TICKETS: usize = 50;
/// How long one request waits for the mail server in all: platforms give an answer no more than 29 s.
pub const MAIL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a ticket that somebody began to mail is left to them. Longer than any request lasts: whoever has not ended by then
/// never will, and its holder needs the ticket.
pub const MAIL_CLAIM: Duration = Duration::from_mins(2);

/// Bytes of a body at most,
pub const BODY: usize = 64 * 1024;
/// of a batch, because 500 scans with notes do not fit in an ordinary body,
pub const BATCH_BODY: usize = 512 * 1024;
/// and of a CSV file.
pub const CSV_BODY: usize = 16 * 1024 * 1024;
/// Bytes of a body at most where no key is asked for.
pub const KEYLESS_BODY: usize = 1024;
/// Columns of a list.
pub const COLUMNS: usize = 256;
/// Bytes that a workbook may unpack to. A row of six cells has about 300; the same as CSV has an eighth.
pub const WORKBOOK_UNPACKED: usize = 8 * CSV_BODY;
/// Tickets that one line makes at most.
pub const QUANTITY: usize = 50;
/// Tickets in one imported file at most. The shortest lines would make 16 MiB millions, and each takes memory.
pub const IMPORT_TICKETS: usize = 250_000;

/// How much of something that the process has little of is in use at once, at most.
#[derive(Clone, Copy)]
pub struct Share {
    pub of_all: usize,
    pub of_one_event: usize,
    pub of_one_key: usize,
}

/// Bytes of bodies that are on their way or at work. Two full batches of one key.
pub const BODIES_IN_FLIGHT: Share =
    Share { of_all: 8 * BATCH_BODY, of_one_event: 6 * BATCH_BODY, of_one_key: 2 * BATCH_BODY };
/// Bytes of CSV files that are on their way or at work.
pub const FILES_IN_FLIGHT: Share =
    Share { of_all: CSV_BODY + CSV_BODY / 4, of_one_event: CSV_BODY, of_one_key: CSV_BODY };
/// Manifests and exports that are being sent. Each holds a part of the list, about 150 KiB.
pub const LISTS_IN_FLIGHT: Share = Share { of_all: 32, of_one_event: 24, of_one_key: 3 };
/// CSV files whose tickets are being written. An unbound key's count for the event that they are for.
pub const IMPORTS_AT_WORK: Share = Share { of_all: 2, of_one_event: 1, of_one_key: 2 };
/// Requests whose work grows with the event: those that read all of it, such as exports and searches, and apart from
/// them those that change much of it piece by piece. Each keeps a connection to the database busy, of which there are 5.
pub const LARGE_AT_WORK: Share = Share { of_all: 3, of_one_event: 2, of_one_key: 2 };
/// Tickets and scans of an event from which on its numbers are told again for a while. To count them takes about 50 ms.
pub const LARGE_EVENT: i64 = 50_000;
/// How old they get, at least,
pub const NUMBERS_KEPT: Duration = Duration::from_secs(1);
/// and so many times as old as it took to count them.
pub const NUMBERS_KEPT_TIMES: u32 = 10;
/// Requests that talk to the mail server, which may be slow.
pub const MAILS_AT_WORK: Share = Share { of_all: 3, of_one_event: 2, of_one_key: 2 };
/// How long one of them waits for its turn: most have ended within milliseconds.
pub const TURN_WAIT: Duration = Duration::from_secs(1);

/// The slowest that a client may be: while the service waits for it, so many bytes in each such time.
#[derive(Clone, Copy)]
pub struct Pace {
    pub bytes: usize,
    pub time: Duration,
}

/// What clients may take of the service's connections and of its time. A test may give less.
#[derive(Clone, Copy)]
pub struct ClientLimits {
    /// Connections at once: below the 1,024 open files that many systems allow, and few enough that whatever waits on all of
    /// them is less than 20 MiB. More need not be at work at once: those that are silent give way.
    pub connections: usize,
    /// Those of one address (of IPv6 the first 64 bits), unless it is a proxy's.
    pub of_one_address: usize,
    /// How long the head of a request may take to arrive, the first and the next on the same connection.
    pub head: Duration,
    /// How fast a body must come.
    pub sending: Pace,
    /// How fast an answer must be read. Longer than for a body: the kernel takes bytes in lumps, as its buffer empties.
    pub reading: Pace,
    /// How long what still comes is thrown away after an answer that was given before all of it was here. A client that
    /// writes all before it reads would not see the answer of a connection that is closed at once.
    pub linger: Duration,
}

impl ClientLimits {
    /// 2 KiB/s: a phone in the last corner of a hall has 5.
    pub const USUAL: Self = Self {
        connections: 400,
        of_one_address: 100,
        head: Duration::from_secs(10),
        sending: Pace { bytes: 20 * 1024, time: Duration::from_secs(10) },
        reading: Pace { bytes: 60 * 1024, time: Duration::from_secs(30) },
        linger: Duration::from_secs(5),
    };
}

/// People that a place holds at most, as an event may say.
pub const CAPACITY: i64 = 1_000_000;
/// What somebody pays for one ticket at most, in the smallest unit of a currency: a million of most.
pub const PRICE: i64 = 100_000_000;
/// People whom a supervisor admits without tickets at once, at most.
pub const WALK_UPS: i64 = 20;
/// Categories of an event that may have a colour, and that are counted each by itself.
pub const CATEGORIES: usize = 50;

// The longest texts, in characters.

/// A seat or a gate.
pub const PLACE: usize = 64;
pub const USERNAME: usize = 64;
/// A seller's own id of a ticket.
pub const REFERENCE: usize = 64;
/// What kind a ticket is.
pub const CATEGORY: usize = 40;
/// What the gate should know of a ticket.
pub const TICKET_NOTE: usize = 200;
/// Where an event takes place.
pub const LOCATION: usize = 200;
/// The name of an event in paths.
pub const SLUG: usize = 64;
/// The name of an event, and of a person.
pub const NAME: usize = 200;
pub const KEY_NAME: usize = 100;
/// RFC 5321, section 4.5.3.1.3: a path of 256 octets, of which two are its brackets.
pub const EMAIL: usize = 254;
/// Why a supervisor admits without a code.
pub const NOTE: usize = 500;
/// What tickets are searched for.
pub const SEARCH: usize = 200;

/// The limits that the device of a gate is told when it enrols and with each manifest. In seconds.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GateLimits {
    /// How long after its receipt a scan can be undone.
    undo_seconds: u64,
    /// How long after an admission the holder's other tickets can be admitted by it.
    party_seconds: u64,
    /// So many of them at most.
    party_tickets: u64,
    /// Guests that are shown of those who are looked for by name.
    guests: u64,
    /// How long after the event's end the manifest can be had; from then on the device forgets it.
    manifest_after_end_seconds: u64,
    /// How long after its last refresh the device forgets the manifest.
    list_kept_seconds: u64,
}

impl GateLimits {
    pub const TOLD: Self = Self {
        undo_seconds: UNDO_WINDOW.as_secs(),
        party_seconds: PARTY_WINDOW.as_secs(),
        party_tickets: PARTY as u64,
        guests: GUESTS as u64,
        manifest_after_end_seconds: MANIFEST_AFTER_END.as_secs(),
        list_kept_seconds: LIST_KEPT.as_secs(),
    };
}

/// A length of time in English, in the largest unit that it is some whole number of: `15 minutes`, `60 seconds`.
pub fn told(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    let (number, unit) = match seconds {
        _ if seconds >= 7 * DAY && seconds.is_multiple_of(DAY) => (seconds / DAY, "days"),
        _ if seconds > 3_600 && seconds.is_multiple_of(3_600) => (seconds / 3_600, "hours"),
        _ if seconds > 60 && seconds.is_multiple_of(60) => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("{number} {unit}")
}
