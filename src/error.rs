//! Every way in which a request can be rejected or fail. A rejected *scan* is not an error but a verdict: see `admission`.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use sha2::{Digest as _, Sha256};
use strum::{EnumIter, IntoStaticStr};

use crate::fault::{Fault, FieldError};
use crate::limits::{ATTEMPTS_WINDOW, ENROLMENT, MANIFEST_AFTER_END, MANIFEST_BEFORE_START, UNDO_WINDOW, told};

/// The identity of a database, which it shares with its backups and their restored copies, but with no other database. It
/// discloses no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatabaseId(u64);

/// Derives the identity from the database's salt for links, 32 random bytes.
impl From<Vec<u8>> for DatabaseId {
    fn from(link_salt: Vec<u8>) -> Self {
        let digest = Sha256::new().chain_update("which database\n").chain_update(link_salt).finalize();
        Self(digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
}

impl fmt::Display for DatabaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Why a request did not succeed. `status` and `code` are stable; the texts are for people. A variant's name is its code, and
/// its doc comment goes into the OpenAPI document.
#[derive(Debug, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename_all = "snake_case"))]
pub enum Error {
    /// The body is not JSON; `detail` has line and column.
    // Holds the position of the error.
    MalformedJson(String),
    /// There is no key, or it is unknown, expired or revoked.
    // Holds the database that does not know it, if one was queried.
    Unauthenticated(Option<DatabaseId>),
    /// The key may not do this, or not for this event.
    Forbidden(&'static str),
    /// It is too early or too late for the manifest. Has the code `forbidden`.
    #[strum(serialize = "forbidden")]
    #[cfg_attr(test, schemars(skip))]
    // Holds the time until it is available, if it is too early.
    ManifestClosed(Option<Duration>),
    /// There is nothing at this path.
    NotFound,
    /// There is no such event.
    EventNotFound,
    /// There is no such user.
    UserNotFound,
    /// There is no such ticket: no such id or link, or no such seat at this gate of the event.
    TicketNotFound,
    /// There is no such link. Has the code `ticket_not_found`.
    #[strum(serialize = "ticket_not_found")]
    #[cfg_attr(test, schemars(skip))]
    // Holds the database that does not know it.
    DeadLink(Option<DatabaseId>),
    /// There is no such scan.
    ScanNotFound,
    /// There is no such key.
    KeyNotFound,
    /// The key is revoked, expired or an organizer's.
    KeyNotEnrollable,
    /// The key is an organizer's, so no device is lost with it.
    KeyNotOfDevice,
    /// The token is unknown, used, older than [`crate::limits::ENROLMENT`] or replaced by a newer one, or its key is
    /// revoked or expired.
    EnrolmentExpired,
    /// The path exists, but not with this method; `Allow` lists the allowed methods.
    // Holds these methods.
    MethodNotAllowed(String),
    /// The request took too long to arrive.
    RequestTimeout,
    /// The body is larger than this path allows.
    PayloadTooLarge(usize),
    /// Only on AWS Lambda: the response would be larger than 5 MB.
    ResponseTooLarge,
    /// The body's `Content-Type` is not one of those listed.
    UnsupportedMediaType(&'static str),
    /// A field of the body is missing, unknown, given twice, of the wrong type or out of bounds, or a parameter of the query
    /// is invalid; `errors` lists them.
    InvalidPayload(Vec<FieldError>),
    /// Another user has this name. Upper and lower case are not distinguished.
    UsernameTaken,
    /// Another event has this slug.
    EventExists,
    /// It is the event `default`; it is running; it is not over and has admitted somebody or given its list to a device; or
    /// another request is changing it at this moment.
    EventInUse,
    /// The event has forgotten its people, and accepts no more tickets or people.
    EventForgotten,
    /// The event already has one of these seats at this gate. Nothing was created.
    SeatTaken(Vec<FieldError>),
    /// Somebody already holds the ticket, perhaps this user.
    TicketAlreadyRegistered,
    /// Nobody holds the ticket.
    TicketNotRegistered,
    /// The ticket is revoked.
    TicketRevoked,
    /// The ticket has admitted its holder.
    TicketUsed,
    /// The event admits nobody without a ticket: its `walk_ups` is false.
    WalkUpsNotAllowed,
    /// This `scan_id` was used before for a different scan.
    ScanIdConflict,
    /// The scan was received more than [`crate::limits::UNDO_WINDOW`] ago.
    UndoExpired,
    /// The scan was refused, or is not the ticket's newest accepted scan.
    NotUndoable,
    /// The service has no mail server: SMTP_URL and MAIL_FROM are not set.
    MailNotConfigured,
    /// A conflicting import is running, or a person named in this one was erased in the meantime. Nothing was changed.
    ImportInProgress,
    /// The key, its event or all keys together have reached a limit of concurrent requests: of bodies, of manifests and
    /// exports, or of work on whole events.
    // Holds which of them, for the log only.
    Busy(&'static str),
    /// [`crate::limits::KEY_ATTEMPTS`] codes that this key sent were refused within [`crate::limits::ATTEMPTS_WINDOW`]. No
    /// more of its codes are checked until then. The scans that a batch has recorded are replayed when the whole batch is
    /// sent again.
    TooManyWrongCodes,
    /// The ticket kept changing at the same time; nothing was changed.
    ScanContended,
    /// The service's ticket secret is not the one with which the database's tickets were made.
    TicketSecretMismatch,
    /// The database did not answer in time, or could not work. A change may have been made or not: read before repeating it.
    /// A scan may be sent again with the same `scan_id`.
    // Holds the cause, for the log only.
    DatabaseUnavailable(String),
    /// A fault of the service. Its cause is in the log only.
    #[strum(serialize = "internal_error")]
    #[cfg_attr(test, schemars(rename = "internal_error"))]
    // Holds the cause, for the log only.
    Internal(String),
}

impl Error {
    /// Returns the error of one invalid field.
    pub fn field(field: impl Into<String>, fault: Fault) -> Self {
        Self::InvalidPayload(vec![FieldError::new(field, fault)])
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::MalformedJson(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) | Self::ManifestClosed(_) => StatusCode::FORBIDDEN,
            Self::NotFound
            | Self::EventNotFound
            | Self::UserNotFound
            | Self::TicketNotFound
            | Self::DeadLink(_)
            | Self::ScanNotFound
            | Self::KeyNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::PayloadTooLarge(_) | Self::ResponseTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InvalidPayload(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UsernameTaken
            | Self::EventExists
            | Self::EventInUse
            | Self::EventForgotten
            | Self::SeatTaken(_)
            | Self::TicketAlreadyRegistered
            | Self::TicketNotRegistered
            | Self::TicketRevoked
            | Self::TicketUsed
            | Self::WalkUpsNotAllowed
            | Self::ScanIdConflict
            | Self::UndoExpired
            | Self::NotUndoable
            | Self::KeyNotEnrollable
            | Self::KeyNotOfDevice
            | Self::MailNotConfigured => StatusCode::CONFLICT,
            Self::EnrolmentExpired => StatusCode::GONE,
            Self::ImportInProgress | Self::TooManyWrongCodes => StatusCode::TOO_MANY_REQUESTS,
            Self::ScanContended | Self::TicketSecretMismatch | Self::DatabaseUnavailable(_) | Self::Busy(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub fn code(&self) -> &'static str {
        self.into()
    }

    /// Returns what was wrong and what to do, for the client. Never contains an internal cause.
    pub fn detail(&self) -> String {
        match self {
            Self::MalformedJson(place) => format!("The body is not valid JSON: {place}."),
            Self::Unauthenticated(_) => {
                "Send a valid key as `Authorization: Bearer <key>`; this one is missing, unknown, expired or revoked."
                    .into()
            }
            Self::Forbidden(why) => (*why).into(),
            Self::ManifestClosed(_) => format!(
                "The manifest is available from {} before the event's start to {} after its end.",
                told(MANIFEST_BEFORE_START),
                told(MANIFEST_AFTER_END)
            ),
            Self::NotFound => "There is nothing at this path; see /openapi.json.".into(),
            Self::EventNotFound => "There is no such event.".into(),
            Self::UserNotFound => "There is no such user.".into(),
            Self::TicketNotFound | Self::DeadLink(_) => "There is no such ticket.".into(),
            Self::ScanNotFound => "There is no such scan.".into(),
            Self::KeyNotFound => "There is no such key.".into(),
            Self::KeyNotEnrollable => {
                "Only a gate's or supervisor's key that is neither revoked nor expired can be given to a device.".into()
            }
            Self::KeyNotOfDevice => {
                "Only a gate's or supervisor's device can be lost; revoke an organizer's key instead.".into()
            }
            Self::EnrolmentExpired => {
                let most = told(ENROLMENT);
                format!("This code was used, is older than {most}, or is not the newest; ask for a new one.")
            }
            Self::MethodNotAllowed(allow) => format!("This path allows {allow}."),
            Self::RequestTimeout => "The request took too long to arrive; send it again.".into(),
            Self::PayloadTooLarge(limit) => format!("The body may have at most {limit} bytes."),
            Self::ResponseTooLarge => {
                "The response is too large for AWS Lambda; request less, or use the command line.".into()
            }
            Self::UnsupportedMediaType(wanted) => format!("Send the body as {wanted}."),
            Self::InvalidPayload(errors) => match errors.as_slice() {
                [one] => format!("{}: {}", one.field, one.message()),
                many => format!("{} things are wrong; see `errors`.", many.len()),
            },
            Self::UsernameTaken => "Another user has this username (upper and lower case count as the same).".into(),
            Self::EventExists => "Another event has this slug.".into(),
            Self::EventInUse => format!(
                "The event `default` cannot be deleted. No event can be while it runs or, if it admitted somebody or a \
                 device has its list, until {} after its end.",
                told(MANIFEST_AFTER_END)
            ),
            Self::EventForgotten => {
                "The event has forgotten its people, and accepts no more tickets or people; create another event.".into()
            }
            Self::SeatTaken(_) => "There are such tickets already; nothing was created.".into(),
            Self::TicketAlreadyRegistered => "The ticket has a holder already; transfer it instead.".into(),
            Self::TicketNotRegistered => "Nobody holds this ticket; register it first.".into(),
            Self::TicketRevoked => "The ticket is revoked; reissue it first.".into(),
            Self::TicketUsed => "The ticket has been used.".into(),
            Self::WalkUpsNotAllowed => "This event lets nobody in without a ticket.".into(),
            Self::ScanIdConflict => "This scan_id belongs to another scan; generate a new one for each scan.".into(),
            Self::UndoExpired => format!("A scan can be undone for {}.", told(UNDO_WINDOW)),
            Self::NotUndoable => "Only the newest accepted scan of a ticket can be undone.".into(),
            Self::MailNotConfigured => {
                "The service cannot send mail: its operator must set SMTP_URL and MAIL_FROM.".into()
            }
            Self::ImportInProgress => {
                "A conflicting import is running, or a person named in this one was erased in the meantime; send it again."
                    .into()
            }
            Self::Busy(_) => "Too much is being sent or read at once; try again in a few seconds.".into(),
            Self::TooManyWrongCodes => {
                "This key has sent too many wrong codes; wait a minute, then send the same request again. Printed codes \
                 and manual admissions need not wait."
                    .into()
            }
            Self::ScanContended => "The ticket changed while it was scanned; scan again.".into(),
            Self::TicketSecretMismatch => {
                "The service's TICKET_SECRET is not the one with which this database's tickets were made."
                    .into()
            }
            Self::DatabaseUnavailable(_) => {
                "The database cannot work now; try again. Until it can, nobody is admitted.".into()
            }
            Self::Internal(_) => "The service failed; its log says why.".into(),
        }
    }

    /// Returns the invalid fields.
    pub fn errors(&self) -> &[FieldError] {
        match self {
            Self::InvalidPayload(errors) | Self::SeatTaken(errors) => errors,
            _ => &[],
        }
    }

    /// Returns the seconds after which to retry, for `Retry-After`.
    pub fn retry_after(&self) -> Option<u32> {
        match self {
            Self::DatabaseUnavailable(_) | Self::ScanContended => Some(1),
            Self::ImportInProgress | Self::Busy(_) => Some(5),
            Self::TicketSecretMismatch => Some(60),
            Self::TooManyWrongCodes => u32::try_from(ATTEMPTS_WINDOW.as_secs()).ok(),
            Self::ManifestClosed(opens_in) => {
                opens_in.map(|wait| u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX))
            }
            _ => None,
        }
    }

    /// Returns the database that permanently rejects a key or link. A client of another database must not take it as final.
    pub fn database(&self) -> Option<DatabaseId> {
        match self {
            Self::Unauthenticated(database) | Self::DeadLink(database) => *database,
            _ => None,
        }
    }

    /// Returns the cause, for the log only.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => Some(cause),
            Self::Busy(who) => Some(who),
            Self::TicketSecretMismatch => Some("TICKET_SECRET differs from the one this database was used with"),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    /// Writes the text for the log and the command line: the cause, which their reader may see, or the error of each line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DatabaseUnavailable(cause) | Self::Internal(cause) => return f.write_str(cause),
            Self::InvalidPayload(errors) if errors.len() > 1 => write!(f, "{} things are wrong:", errors.len())?,
            Self::InvalidPayload(_) => return f.write_str(&self.detail()),
            _ => f.write_str(&self.detail())?,
        }
        for error in self.errors() {
            write!(f, "\n  {}: {}", error.field, error.message())?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;

    const CAUSE: &str = "a cause from inside";

    /// Returns one of each, with its status and its code.
    pub(crate) fn every_error() -> Vec<(Error, u16, &'static str)> {
        let fields = || vec![FieldError::line(2, Fault::Empty), FieldError::line(3, Fault::Empty)];
        vec![
            (Error::MalformedJson("line 1, column 2".into()), 400, "malformed_json"),
            (Error::Unauthenticated(None), 401, "unauthenticated"),
            (Error::Forbidden("No."), 403, "forbidden"),
            (Error::NotFound, 404, "not_found"),
            (Error::EventNotFound, 404, "event_not_found"),
            (Error::UserNotFound, 404, "user_not_found"),
            (Error::TicketNotFound, 404, "ticket_not_found"),
            (Error::ScanNotFound, 404, "scan_not_found"),
            (Error::KeyNotFound, 404, "key_not_found"),
            (Error::KeyNotEnrollable, 409, "key_not_enrollable"),
            (Error::KeyNotOfDevice, 409, "key_not_of_device"),
            (Error::EnrolmentExpired, 410, "enrolment_expired"),
            (Error::MethodNotAllowed("GET, HEAD".into()), 405, "method_not_allowed"),
            (Error::RequestTimeout, 408, "request_timeout"),
            (Error::PayloadTooLarge(65_536), 413, "payload_too_large"),
            (Error::ResponseTooLarge, 413, "response_too_large"),
            (Error::UnsupportedMediaType("application/json"), 415, "unsupported_media_type"),
            (Error::InvalidPayload(fields()), 422, "invalid_payload"),
            (Error::UsernameTaken, 409, "username_taken"),
            (Error::EventExists, 409, "event_exists"),
            (Error::EventInUse, 409, "event_in_use"),
            (Error::EventForgotten, 409, "event_forgotten"),
            (Error::SeatTaken(fields()), 409, "seat_taken"),
            (Error::TicketAlreadyRegistered, 409, "ticket_already_registered"),
            (Error::TicketNotRegistered, 409, "ticket_not_registered"),
            (Error::TicketRevoked, 409, "ticket_revoked"),
            (Error::TicketUsed, 409, "ticket_used"),
            (Error::WalkUpsNotAllowed, 409, "walk_ups_not_allowed"),
            (Error::ScanIdConflict, 409, "scan_id_conflict"),
            (Error::UndoExpired, 409, "undo_expired"),
            (Error::NotUndoable, 409, "not_undoable"),
            (Error::MailNotConfigured, 409, "mail_not_configured"),
            (Error::ImportInProgress, 429, "import_in_progress"),
            (Error::Busy(CAUSE), 503, "busy"),
            (Error::TooManyWrongCodes, 429, "too_many_wrong_codes"),
            (Error::ScanContended, 503, "scan_contended"),
            (Error::TicketSecretMismatch, 503, "ticket_secret_mismatch"),
            (Error::DatabaseUnavailable(CAUSE.into()), 503, "database_unavailable"),
            (Error::Internal(CAUSE.into()), 500, "internal_error"),
        ]
    }

    #[test]
    fn every_error_has_its_status_and_its_own_code() {
        let mut codes = HashSet::new();
        for (error, status, code) in every_error() {
            assert_eq!(error.status().as_u16(), status, "{code}");
            assert_eq!(error.code(), code);
            assert!(codes.insert(code), "{code} is used twice");
        }
    }

    #[test]
    fn a_cause_is_for_the_log_alone() {
        for (error, _, code) in every_error() {
            assert!(!error.detail().contains(CAUSE), "{code}");
            let may_have_one = error.status().is_server_error() && code != "scan_contended";
            assert_eq!(error.cause().is_some(), may_have_one, "{code}");
        }
    }

    #[test]
    fn what_passes_says_when_to_try_again() {
        for (error, status, code) in every_error() {
            assert_eq!(error.retry_after().is_some(), status == 503 || status == 429, "{code}");
        }
    }

    #[test]
    fn the_detail_of_one_wrong_field_names_it() {
        assert_eq!(Error::field("seat", Fault::Required).detail(), "seat: is required");
        let two = Error::InvalidPayload(vec![FieldError::line(2, Fault::Empty), FieldError::line(3, Fault::Empty)]);
        assert_eq!(two.detail(), "2 things are wrong; see `errors`.");
    }

    #[test]
    fn the_command_line_shows_every_line_once_and_the_cause() {
        let lines = |error: Error| error.to_string().lines().map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(Error::field("line 2", Fault::NotUtf8)), ["line 2: is not UTF-8"]);
        let taken = Error::SeatTaken(vec![FieldError::line(3, Fault::SeatTaken)]);
        assert_eq!(lines(taken)[1..], ["  line 3: this seat at this gate has a ticket already"]);
        let unavailable = Error::DatabaseUnavailable(CAUSE.into());
        assert_eq!(unavailable.to_string(), CAUSE);
    }
}
