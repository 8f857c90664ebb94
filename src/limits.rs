//! Every limit that people and programs meet, defined once. Errors, the OpenAPI document and the pages take theirs from
//! here. Where a document repeats one, a test compares it. The limits of the decision are in `admission` and `totp`.

use std::time::Duration;

use serde::Serialize;

/// How long after its receipt a scan can be undone.
pub const UNDO_WINDOW: Duration = Duration::from_mins(15);

/// How long a refused code counts as an attempt, and so how long one waits after too many.
pub const ATTEMPTS_WINDOW: Duration = Duration::from_secs(60);
/// Refused codes of a key, for any tickets, from which none of its codes is checked. Those in batches count. One ticket has
/// a limit of its own, `admission::ATTEMPTS`.
pub const KEY_ATTEMPTS: i64 = 60;
/// How long the board shows a key whose codes were refused.
pub const GUESSES_SHOWN: Duration = Duration::from_mins(10);
/// Refused codes from which the board shows a key. A gate meets a screenshot now and then.
pub const GUESSES_NOTED: i64 = 20;

/// How long a scan that admitted somebody vouches for their other tickets.
pub const PARTY_WINDOW: Duration = Duration::from_mins(2);
/// Maximum number of the holder's other tickets listed with an admission.
pub const PARTY: usize = 50;

/// Maximum number of guests found by name.
pub const GUESTS: usize = 10;
/// Minimum number of letters in a search for a guest.
pub const GUEST_LETTERS: usize = 2;

/// Maximum age of a scan in a batch.
pub const OFFLINE_WINDOW: Duration = Duration::from_hours(72);
/// How far the clock of a gate that sends a batch may be ahead.
pub const OFFLINE_AHEAD: Duration = Duration::from_secs(30);
/// Maximum number of scans in a batch.
pub const BATCH_SCANS: usize = 500;

/// How long before the event's start the manifest becomes available, which holds the keys of all codes.
pub const MANIFEST_BEFORE_START: Duration = Duration::from_hours(24);
/// How long after the event's end it remains available.
pub const MANIFEST_AFTER_END: Duration = Duration::from_hours(6);
/// Maximum age of a device's copy of it without contact to the service.
pub const LIST_KEPT: Duration = Duration::from_hours(48);

/// Minimum time between two records that a key's device was heard from.
pub const HEARD_NOTED: Duration = Duration::from_mins(1);
/// Maximum number of unsent scans that a device can report. More are reported as this many.
pub const UNSENT: i64 = 1_000_000;

/// How far ahead the possession of code keys by a device is recorded. One record covers all pages read in the meantime, and
/// the clock of the process that makes a seed may be ahead of ours.
pub const NOTED_AHEAD: Duration = Duration::from_mins(2);

/// How long after its start, and after its newest admission, an event without an end goes on.
pub const EVENT_WITHOUT_END: Duration = Duration::from_hours(24);

/// How long after its event's end a gate's or supervisor's key remains valid.
pub const KEY_AFTER_EVENT: Duration = Duration::from_hours(12);
/// Lifetime of such a key if the event's end is unknown.
pub const KEY_WITHOUT_END: Duration = Duration::from_hours(30 * 24);
/// Lifetime of an organizer's key.
pub const KEY_OF_ORGANIZER: Duration = Duration::from_hours(180 * 24);
/// How long a process may go on trusting a key that another process revoked.
pub const KEY_REMEMBERED: Duration = Duration::from_secs(30);
/// Lifetime of an enrolment token.
pub const ENROLMENT: Duration = Duration::from_mins(15);

/// Maximum number of days that an event may keep personal data after its end.
pub const FORGET_AFTER_DAYS: i64 = 3_650;

/// Days after which `backup::archive` has deleted a daily backup. Until then the backup contains people who were forgotten
/// since.
pub const BACKUP_DAYS: u64 = 35;

/// Maximum difference between the clocks of service and database: well below a code's 30 s.
pub const CLOCKS_APART: Duration = Duration::from_secs(5);

/// Maximum number of tickets mailed by one request.
pub const MAILED_TICKETS: usize = 25;
/// Maximum number of tickets that one link opens, for the person who holds them.
pub const HELD_TICKETS: usize = 50;
/// How long one request waits for the mail server in total. Platforms allow at most 29 s for a response.
pub const MAIL_DEADLINE: Duration = Duration::from_secs(20);
/// How long a request that began to mail a ticket has it reserved. This is longer than any request lasts. One that has not
/// finished by then never will, and the holder needs the ticket.
pub const MAIL_CLAIM: Duration = Duration::from_mins(2);

/// Maximum size of a body in bytes.
pub const BODY: usize = 64 * 1024;
/// Maximum size of a batch, because 500 scans with notes do not fit in an ordinary body.
pub const BATCH_BODY: usize = 512 * 1024;
/// Maximum size of a CSV file.
pub const CSV_BODY: usize = 16 * 1024 * 1024;
/// Maximum size of a body that needs no key.
pub const KEYLESS_BODY: usize = 1024;
/// Maximum number of columns in a list.
pub const COLUMNS: usize = 256;
/// Bytes to which a workbook may unpack. A row of six cells has about 300; in CSV it has an eighth of that.
pub const WORKBOOK_UNPACKED: usize = 8 * CSV_BODY;
/// Maximum number of tickets that one line makes.
pub const QUANTITY: usize = 50;
/// Maximum number of tickets in one imported file. 16 MiB of the shortest lines would be millions, and each takes memory.
pub const IMPORT_TICKETS: usize = 250_000;

/// Concurrent use of a scarce resource of the process: limits in total, for one event and for one key.
#[derive(Clone, Copy)]
pub struct Share {
    pub of_all: usize,
    pub of_one_event: usize,
    pub of_one_key: usize,
}

/// Bytes of bodies that are being received or processed. A key may have two full batches.
pub const BODIES_IN_FLIGHT: Share =
    Share { of_all: 8 * BATCH_BODY, of_one_event: 6 * BATCH_BODY, of_one_key: 2 * BATCH_BODY };
/// Bytes of CSV files that are being received or processed.
pub const FILES_IN_FLIGHT: Share =
    Share { of_all: CSV_BODY + CSV_BODY / 4, of_one_event: CSV_BODY, of_one_key: CSV_BODY };
/// Manifests and exports that are being sent. Each buffers part of the list, about 150 KiB.
pub const LISTS_IN_FLIGHT: Share = Share { of_all: 32, of_one_event: 24, of_one_key: 3 };
/// CSV files whose tickets are being written. An unbound key's files count for their event.
pub const IMPORTS_AT_WORK: Share = Share { of_all: 2, of_one_event: 1, of_one_key: 2 };
/// Requests whose work grows with the event. Those that read all of it, such as exports and searches, and those that change
/// much of it step by step have this share each. Each keeps one of the 5 database connections busy.
pub const LARGE_AT_WORK: Share = Share { of_all: 3, of_one_event: 2, of_one_key: 2 };
/// Tickets and scans of an event from which its statistics are cached. Counting that many takes about 50 ms.
pub const LARGE_EVENT: i64 = 50_000;
/// Minimum time for which statistics are cached.
pub const NUMBERS_KEPT: Duration = Duration::from_secs(1);
/// Multiple of the time that counting took for which statistics are cached.
pub const NUMBERS_KEPT_TIMES: u32 = 10;
/// Requests that talk to the mail server, which may be slow.
pub const MAILS_AT_WORK: Share = Share { of_all: 3, of_one_event: 2, of_one_key: 2 };
/// How long a request waits for a permit. Most requests end within milliseconds.
pub const TURN_WAIT: Duration = Duration::from_secs(1);

/// The minimum speed of a client while the service waits for it: at least `bytes` in every `time`.
#[derive(Clone, Copy)]
pub struct Pace {
    pub bytes: usize,
    pub time: Duration,
}

/// Limits on the service's connections and time that clients may use. Tests set lower ones.
#[derive(Clone, Copy)]
pub struct ClientLimits {
    /// Concurrent connections: below the 1,024 open files that many systems allow, and few enough that the data buffered for
    /// all of them is less than 20 MiB. More are not needed, because silent connections are closed first.
    pub connections: usize,
    /// Concurrent connections from one address (in IPv6, its first 64 bits), unless it is a proxy's.
    pub of_one_address: usize,
    /// How long the head of a request may take to arrive, for each request on a connection.
    pub head: Duration,
    /// The speed at which a body must arrive.
    pub sending: Pace,
    /// The speed at which a response must be read. The period is longer than for a body, because the kernel takes bytes in
    /// large chunks as its buffer empties.
    pub reading: Pace,
    /// How long further input is discarded after a response that was sent before the whole request had arrived. If the
    /// connection closed at once, a client that writes everything before it reads would not see the response.
    pub linger: Duration,
}

impl ClientLimits {
    /// The defaults. They require 2 KiB/s; a phone in the farthest corner of a hall has 5.
    pub const USUAL: Self = Self {
        connections: 400,
        of_one_address: 100,
        head: Duration::from_secs(10),
        sending: Pace { bytes: 20 * 1024, time: Duration::from_secs(10) },
        reading: Pace { bytes: 60 * 1024, time: Duration::from_secs(30) },
        linger: Duration::from_secs(5),
    };
}

/// Maximum capacity of an event, in people.
pub const CAPACITY: i64 = 1_000_000;
/// Maximum price of one ticket in the smallest unit of a currency: a million of most currencies.
pub const PRICE: i64 = 100_000_000;
/// Maximum number of people whom a supervisor admits at once without tickets.
pub const WALK_UPS: i64 = 20;
/// Maximum number of an event's categories that may have a colour, and that are counted separately.
pub const CATEGORIES: usize = 50;

// Maximum lengths of texts, in characters.

/// A seat or a gate.
pub const PLACE: usize = 64;
pub const USERNAME: usize = 64;
/// A seller's own id of a ticket.
pub const REFERENCE: usize = 64;
/// The category of a ticket.
pub const CATEGORY: usize = 40;
/// A note about a ticket for the gate.
pub const TICKET_NOTE: usize = 200;
/// The location of an event.
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
/// The text of a search for tickets.
pub const SEARCH: usize = 200;

/// The limits that a gate's device receives when it enrols and with each manifest.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct GateLimits {
    /// How long after its receipt a scan can be undone.
    undo_seconds: u64,
    /// How long an admission can admit the holder's other tickets.
    party_seconds: u64,
    /// Maximum number of these tickets.
    party_tickets: u64,
    /// Maximum number of guests shown in a search by name.
    guests: u64,
    /// How long after the event's end the manifest is available. After that, the device deletes it.
    manifest_after_end_seconds: u64,
    /// How long after its last refresh the device deletes the manifest.
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

/// Formats a duration in English as a whole number of the largest fitting unit: `15 minutes`, `60 seconds`.
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
