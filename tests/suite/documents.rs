//! The figures in the documents are those in the code.

use std::time::Duration;

use register_ticket_api::admission::ATTEMPTS;
use register_ticket_api::limits::{
    ATTEMPTS_WINDOW, BATCH_BODY, BATCH_SCANS, BODIES_IN_FLIGHT, BODY, CLOCKS_APART, CSV_BODY, ClientLimits, ENROLMENT,
    EVENT_WITHOUT_END, FILES_IN_FLIGHT, GUESSES_NOTED, GUESSES_SHOWN, GUEST_LETTERS, GUESTS, HELD_TICKETS,
    IMPORT_TICKETS, IMPORTS_AT_WORK, KEY_AFTER_EVENT, KEY_ATTEMPTS, KEY_OF_ORGANIZER, KEY_REMEMBERED, KEY_WITHOUT_END,
    KEYLESS_BODY, LARGE_AT_WORK, LIST_KEPT, LISTS_IN_FLIGHT, MAIL_CLAIM, MAIL_DEADLINE, MAILED_TICKETS, MAILS_AT_WORK,
    MANIFEST_AFTER_END, MANIFEST_BEFORE_START, OFFLINE_AHEAD, OFFLINE_WINDOW, PARTY, PARTY_WINDOW, PLACE, SLUG, Share,
    TURN_WAIT, UNDO_WINDOW, USERNAME, WALK_UPS, WORKBOOK_UNPACKED, told,
};
use register_ticket_api::list::Limit;
use register_ticket_api::model::{Direction, Role, ScanResult};
use register_ticket_api::pages::LANGUAGES;
use register_ticket_api::totp::{DRIFT, FORMS, PERIOD, STALE_WINDOW};

fn read(document: &str) -> String {
    let path = format!("{}/docs/{document}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // A sentence may continue on the next line.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn says(document: &str, sentences: &[String]) {
    let text = read(document);
    for sentence in sentences {
        assert!(text.contains(sentence), "docs/{document} does not say: {sentence}");
    }
}

/// A number of bytes as the documents write it.
fn size(bytes: usize) -> String {
    const MIB: usize = 1024 * 1024;
    if bytes.is_multiple_of(MIB) { format!("{} MiB", bytes / MIB) } else { format!("{} KiB", bytes / 1024) }
}

const CLIENTS: ClientLimits = ClientLimits::USUAL;

/// The shares of all keys together, of one event's keys and of one key.
fn shares(share: Share, told: impl Fn(usize) -> String, whose: &str) -> String {
    let [all, event, key] = [share.of_all, share.of_one_event, share.of_one_key].map(told);
    format!("{all}, {event} {whose} one event's keys, {key} {whose} one key")
}

#[test]
fn the_interface_repeats_each_limit_as_it_is() {
    says(
        "api.md",
        &[
            format!("`?limit=` (1 to {}, default {})", Limit::GREATEST, Limit::USUAL),
            format!("A seat and a gate have 1 to {PLACE} characters"),
            format!("`[A-Za-z0-9._@+-]{{1,{USERNAME}}}`"),
            format!("an event's slug is `[a-z0-9-]{{1,{SLUG}}}`"),
            format!("ends {} after its event, or after {}", told(KEY_AFTER_EVENT), told(KEY_WITHOUT_END)),
            format!("of an organizer after {}", told(KEY_OF_ORGANIZER)),
            format!("until {} after its start and its newest admission", told(EVENT_WITHOUT_END)),
            format!("the process that revoked them, and within {} by others", told(KEY_REMEMBERED)),
            format!("A token works once, for {}", told(ENROLMENT)),
            format!("a new one every {PERIOD} seconds"),
            format!(
                "more than {ATTEMPTS} wrong or stale codes of this ticket within {} seconds",
                ATTEMPTS_WINDOW.as_secs()
            ),
            format!("{KEY_ATTEMPTS} codes sent with one key were refused within {} seconds", ATTEMPTS_WINDOW.as_secs()),
            format!("{GUESSES_NOTED} codes or more were refused within the last {}", told(GUESSES_SHOWN)),
            format!("needs at least {GUEST_LETTERS} letters or digits and returns at most {GUESTS} guests"),
            format!("could be admitted now, at most {PARTY}"),
            format!("`count` (1 to {WALK_UPS} people)"),
            format!("at most {} before and not undone", told(PARTY_WINDOW)),
            format!("up to {STALE_WINDOW} steps away"),
            format!("within {} of its receipt", told(UNDO_WINDOW)),
            format!("from {} before the event's start", told(MANIFEST_BEFORE_START)),
            format!("to {} after its end", told(MANIFEST_AFTER_END)),
            format!("until {} after its end", told(MANIFEST_AFTER_END)),
            format!("reports at most {BATCH_SCANS} scans"),
            format!("within the last {} and at most {} ahead", told(OFFLINE_WINDOW), told(OFFLINE_AHEAD)),
            format!("more than {} ago or {} ahead", told(OFFLINE_WINDOW), told(OFFLINE_AHEAD)),
            format!(
                "({}; a batch {}, CSV {}; without a key {})",
                size(BODY),
                size(BATCH_BODY),
                size(CSV_BODY),
                size(KEYLESS_BODY)
            ),
            format!("to their holders, at most {MAILED_TICKETS} per request"),
            format!("more than one ticket of the event, up to {HELD_TICKETS}, gets one link"),
            format!("broke off within the last {}", told(MAIL_CLAIM)),
            format!("after {} at the latest", told(MAIL_CLAIM)),
            format!("does not answer, not within {}", told(MAIL_DEADLINE)),
            format!("more slowly than {}/s", size(CLIENTS.sending.bytes / CLIENTS.sending.time.as_secs() as usize)),
        ],
    );
}

#[test]
fn the_manuals_repeat_each_limit_as_it_is() {
    says(
        "pages.md",
        &[
            format!("works once, for {}", told(ENROLMENT)),
            format!("{} after the last refresh", told(LIST_KEPT)),
            format!("undo a scan, for {}", told(UNDO_WINDOW)),
            format!("The code changes every {PERIOD} seconds"),
        ],
    );
    let thousands = format!("{},{:03}", IMPORT_TICKETS / 1_000, IMPORT_TICKETS % 1_000);
    says(
        "operation.md",
        &[
            format!("may trust a revoked key for {} more", told(KEY_REMEMBERED)),
            format!("(at most {} apart)", told(CLOCKS_APART)),
            format!(
                "a batch {}; a list of tickets {}, {thousands} tickets, and a workbook no more than {} unpacked",
                size(BATCH_BODY),
                size(CSV_BODY),
                size(WORKBOOK_UNPACKED)
            ),
            format!("Without a key {}.", size(KEYLESS_BODY)),
            format!("{} at a time, {} from one address", CLIENTS.connections, CLIENTS.of_one_address),
            format!("request head | 16 KiB, {} s", CLIENTS.head.as_secs()),
            format!("{} per {} s of waiting", size(CLIENTS.sending.bytes), CLIENTS.sending.time.as_secs()),
            format!("reading an answer | {} per {} s", size(CLIENTS.reading.bytes), CLIENTS.reading.time.as_secs()),
            format!("bodies in flight | {}", shares(BODIES_IN_FLIGHT, size, "from")),
            format!("manifests and exports in flight | {}", shares(LISTS_IN_FLIGHT, |number| number.to_string(), "to")),
            format!(
                "running CSV imports | {}, {} into one event",
                IMPORTS_AT_WORK.of_all, IMPORTS_AT_WORK.of_one_event
            ),
            format!(
                "other lists | {}, {} for one event's keys, {} for one key; the next one waits up to {} s",
                LARGE_AT_WORK.of_all,
                LARGE_AT_WORK.of_one_event,
                LARGE_AT_WORK.of_one_key,
                TURN_WAIT.as_secs()
            ),
            format!(
                "requests that send mail | {}, {} for one event's keys, {} for one key; each {MAILED_TICKETS} tickets, and {} s",
                MAILS_AT_WORK.of_all,
                MAILS_AT_WORK.of_one_event,
                MAILS_AT_WORK.of_one_key,
                MAIL_DEADLINE.as_secs()
            ),
            format!(
                "CSV files in flight | {}, {} from one event's keys",
                size(FILES_IN_FLIGHT.of_all),
                size(FILES_IN_FLIGHT.of_one_event)
            ),
        ],
    );
    says(
        "security.md",
        &[
            format!("at most {} where no key is required", size(KEYLESS_BODY)),
            format!("more than {ATTEMPTS} wrong codes a minute"),
            format!("a key that sends more than {KEY_ATTEMPTS} is refused"),
            format!("and {} after the last refresh", told(LIST_KEPT)),
            format!("expires after {}", told(KEY_OF_ORGANIZER)),
            format!("A code is valid for at most {} seconds", (1 + 2 * DRIFT) * PERIOD),
        ],
    );
    says(
        "runbook.md",
        &[
            format!("Within {} a supervisor can undo", told(UNDO_WINDOW)),
            format!("Undo a mistake within {}", told(UNDO_WINDOW)),
            format!("Undo what is wrong, within {}", told(UNDO_WINDOW)),
            format!("gate keys expire {} after the event's end", told(KEY_AFTER_EVENT)),
            format!("works once, for {}", told(ENROLMENT)),
            format!("may trust it for {} more", told(KEY_REMEMBERED)),
        ],
    );
}

#[test]
fn the_languages_are_those_of_the_pages() {
    let tags: Vec<String> = LANGUAGES.iter().map(|language| format!("`{}`", language.tag)).collect();
    let tags = tags.join(", ");
    says("api.md", &[format!("in the language ({tags})")]);
    says("pages.md", &[format!("in the browser's language ({tags})")]);
}

#[test]
fn the_interface_and_the_runbook_have_a_line_for_each_word() {
    let text = read("api.md");
    for result in ScanResult::ALL {
        assert!(
            text.contains(&format!("| `{}` |", result.as_str())),
            "docs/api.md has no line for {}",
            result.as_str()
        );
    }
    let runbook = read("runbook.md");
    let (_, table) = runbook.split_once("| result | what the person at the gate does |").unwrap();
    let (table, _) = table.split_once("###").unwrap();
    for result in ScanResult::ALL {
        let word = format!("`{}`", result.as_str());
        assert!(table.contains(&word), "docs/runbook.md does not say what the person at the gate does at {word}");
    }
    for (form, _) in FORMS {
        assert!(text.contains(&format!("{form}.<ticket_id")), "docs/api.md does not say what follows {form}");
    }
    for role in Role::ALL {
        assert!(text.contains(&format!("| `{}` |", role.as_str())), "docs/api.md has no line for {}", role.as_str());
    }
    for direction in Direction::ALL {
        assert!(
            text.contains(&format!("`{}`", direction.as_str())),
            "docs/api.md does not name {}",
            direction.as_str()
        );
    }
}

#[test]
fn a_length_of_time_is_told_in_its_largest_unit() {
    for (length, words) in [
        (Duration::from_secs(30), "30 seconds"),
        (Duration::from_secs(60), "60 seconds"),
        (Duration::from_mins(15), "15 minutes"),
        (Duration::from_mins(60), "60 minutes"),
        (Duration::from_hours(24), "24 hours"),
        (Duration::from_hours(72), "72 hours"),
        (Duration::from_hours(30 * 24), "30 days"),
    ] {
        assert_eq!(told(length), words);
    }
}
