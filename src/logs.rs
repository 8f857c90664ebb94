//! The log, with one line per request. It never contains a code, key, header, body, name or query: the route is logged as
//! its pattern.

use std::fmt;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::panic::PanicHookInfo;
use std::str::FromStr as _;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};
use tracing_subscriber::filter::Targets;

use crate::auth::Caller;
use crate::config::{LogFormat, Settings};
use crate::error::Error;
use crate::metrics::known_method;
use crate::model::{Millis, ScanResult};

/// Starts logging to standard output, including panics.
pub fn start(settings: &Settings) {
    let filter = Targets::from_str(&settings.log_filter).unwrap_or_default();
    let log = Log { filter, format: settings.log_format, write: |line: &str| io::stdout().write_all(line.as_bytes()) };
    // Fails only when a test has started the log already.
    let _ = tracing::subscriber::set_global_default(log);
    std::panic::set_hook(Box::new(log_panic));
}

/// Logs where a panic occurred, but not its message, which may contain data of a request.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}

/// The address of a request's sender, as the entrance knows it. It is logged only if the key is rejected.
#[derive(Clone, Copy)]
pub struct Sender(pub IpAddr);

/// The facts about a request that are logged.
pub struct RequestLine<'a> {
    pub parts: &'a Parts,
    pub route: &'static str,
    pub status: StatusCode,
    pub elapsed: Duration,
    pub caller: Option<&'a Caller>,
    pub scan: Option<ScanResult>,
    pub error: Option<&'a Error>,
}

impl RequestLine<'_> {
    fn sender(&self) -> Option<IpAddr> {
        let sender = self.parts.extensions.get::<Sender>().filter(|_| self.status == StatusCode::UNAUTHORIZED);
        sender.map(|sender| sender.0)
    }
}

/// Logs a request: a failure of the service at level ERROR with its cause, everything else at level INFO.
pub fn request(settings: &Settings, line: &RequestLine<'_>) {
    macro_rules! log {
        ($level:expr) => {
            tracing::event!(
                target: "request",
                $level,
                method = known_method(&line.parts.method),
                route = line.route,
                status = line.status.as_u16(),
                ms = line.elapsed.as_secs_f64() * 1_000.0,
                key.id = line.caller.and_then(|caller| caller.key_id).map(tracing::field::display),
                scan.result = line.scan.map(ScanResult::as_str),
                error.code = line.error.map(Error::code),
                sender = line.sender().map(tracing::field::display),
                error.cause = line.error.and_then(Error::cause),
                trace = trace(settings, line.parts).as_deref(),
            )
        };
    }
    if line.status.is_server_error() {
        log!(Level::ERROR);
    } else {
        log!(Level::INFO);
    }
}

/// Returns the trace of a request from `traceparent` or `X-Cloud-Trace-Context`, in the form that Cloud Logging links.
fn trace(settings: &Settings, parts: &Parts) -> Option<String> {
    if settings.log_format != LogFormat::Json {
        return None;
    }
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let id = header("traceparent")
        .and_then(|value| value.split('-').nth(1))
        .or_else(|| header("x-cloud-trace-context").and_then(|value| value.split('/').next()))
        .filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    Some(match &settings.google_cloud_project {
        Some(project) => format!("projects/{project}/traces/{id}"),
        None => id.to_owned(),
    })
}

/// A subscriber that writes each event as one line. It records no spans: nothing here uses them, and recording them would slow
/// every request and the start.
struct Log<W> {
    filter: Targets,
    format: LogFormat,
    write: W,
}

impl<W: Fn(&str) -> io::Result<()> + 'static> Subscriber for Log<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.filter.would_enable(metadata.target(), metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filter.iter().map(|(_, level)| level).chain(self.filter.default_level()).max()
    }

    fn event(&self, event: &Event<'_>) {
        // A failure to write the log cannot be reported anywhere.
        let _ = line(self.format, event).map(|line| (self.write)(&line));
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Formats an event as a line.
fn line(format: LogFormat, event: &Event<'_>) -> Result<String, fmt::Error> {
    use fmt::Write as _;

    let mut fields = Fields::default();
    event.record(&mut fields);
    let level = *event.metadata().level();
    let mut line = String::with_capacity(LINE);
    match format {
        LogFormat::Text => {
            write!(line, "{} {level:5} {}", Millis::now(), event.metadata().target())?;
            for (name, value) in &fields.0 {
                match (name.as_str(), value) {
                    ("message", serde_json::Value::String(text)) => write!(line, " {}", text.escape_debug())?,
                    (_, value) => write!(line, " {name}={value}")?,
                }
            }
        }
        LogFormat::Json => {
            let mut all = fields.0;
            all.entry("message").or_insert_with(|| event.metadata().target().into());
            all.insert("severity".into(), severity(level).into());
            all.insert("time".into(), Millis::now().to_string().into());
            all.insert("target".into(), event.metadata().target().into());
            if let Some(trace) = all.remove("trace") {
                all.insert("logging.googleapis.com/trace".into(), trace);
            }
            line.push_str(&serde_json::to_string(&all).map_err(|_| fmt::Error)?);
        }
    }
    line.push('\n');
    Ok(line)
}

/// Initial capacity of a line in bytes.
const LINE: usize = 384;

/// The severities of Cloud Logging.
fn severity(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        _ => "DEBUG",
    }
}

#[derive(Default)]
struct Fields(serde_json::Map<String, serde_json::Value>);

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Milliseconds, rounded to the microsecond: more digits are noise.
        let rounded = (value * 1_000.0).round() / 1_000.0;
        self.0.insert(field.name().into(), rounded.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing::level_filters::STATIC_MAX_LEVEL;
    use uuid::Uuid;

    use super::*;
    use crate::model::Role;

    const TRACE_ID: &str = "105445aa7843bc8bf206b12000100000";

    fn settings(log_format: LogFormat, project: Option<&str>) -> Settings {
        let mut settings = Settings::read(|_| None).unwrap();
        settings.log_format = log_format;
        settings.google_cloud_project = project.map(ToOwned::to_owned);
        settings
    }

    /// Returns what is logged while `work` runs.
    fn logged(format: LogFormat, work: impl FnOnce()) -> String {
        let output = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&output);
        let write = move |line: &str| {
            written.lock().unwrap().push_str(line);
            Ok(())
        };
        let filter = Targets::new().with_default(Level::TRACE);
        tracing::subscriber::with_default(Log { filter, format, write }, work);
        output.lock().unwrap().clone()
    }

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::post("/api/events/fair/scans?q=Ana").body(()).unwrap();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    fn log_a_scan(settings: &Settings, error: Option<&Error>) {
        let caller = Caller {
            key_id: Some(Uuid::from_u128(7)),
            role: Role::Gate,
            event_id: None,
            gate: Some("North".into()),
            offline: false,
            created_at: None,
            expires_at: None,
            ended: None,
            database: None,
        };
        let traceparent = format!("00-{TRACE_ID}-00f067aa00000001-01");
        let line = RequestLine {
            parts: &parts(&[("authorization", "Bearer S3CRET"), ("traceparent", &traceparent)]),
            route: "/api/events/{event}/scans",
            status: error.map_or(StatusCode::OK, Error::status),
            elapsed: Duration::from_micros(1_234),
            caller: Some(&caller),
            scan: error.is_none().then_some(ScanResult::Accepted),
            error,
        };
        request(settings, &line);
    }

    /// Parses a line of JSON, and checks and removes its time.
    fn read(line: &str) -> Value {
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let mut line: Value = serde_json::from_str(line).unwrap();
        let time = line.as_object_mut().unwrap().remove("time").unwrap();
        assert!(Millis::parse(time.as_str().unwrap()).is_some());
        line
    }

    #[test]
    fn a_request_is_one_line_of_json_with_nothing_that_was_sent() {
        let settings = settings(LogFormat::Json, Some("a-project"));
        let line = read(&logged(LogFormat::Json, || log_a_scan(&settings, None)));
        let expected = json!({
            "severity": "INFO",
            "target": "request",
            "message": "request",
            "method": "POST",
            "route": "/api/events/{event}/scans",
            "status": 200,
            "ms": 1.234,
            "key.id": "00000000-0000-0000-0000-000000000007",
            "scan.result": "accepted",
            "logging.googleapis.com/trace": format!("projects/a-project/traces/{TRACE_ID}"),
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn a_failure_is_an_error_with_its_cause() {
        let settings = settings(LogFormat::Json, None);
        let error = Error::DatabaseUnavailable("no route\nto host".into());
        let line = read(&logged(LogFormat::Json, || log_a_scan(&settings, Some(&error))));
        assert_eq!(line["severity"], "ERROR");
        assert_eq!(line["status"], 503);
        assert_eq!(line["error.code"], "database_unavailable");
        assert_eq!(line["error.cause"], "no route\nto host");
        assert_eq!(line.get("scan.result"), None);
    }

    #[test]
    fn a_refusal_is_information() {
        let settings = settings(LogFormat::Json, None);
        let line = read(&logged(LogFormat::Json, || log_a_scan(&settings, Some(&Error::EventNotFound))));
        assert_eq!(line["severity"], "INFO");
        assert_eq!(line["error.code"], "event_not_found");
        assert_eq!(line.get("error.cause"), None);
    }

    #[test]
    fn severities_are_those_of_cloud_logging() {
        for (level, name) in [
            (Level::ERROR, "ERROR"),
            (Level::WARN, "WARNING"),
            (Level::INFO, "INFO"),
            (Level::DEBUG, "DEBUG"),
            (Level::TRACE, "DEBUG"),
        ] {
            assert_eq!(severity(level), name);
        }
    }

    #[test]
    fn a_text_line_has_no_line_break_of_its_own() {
        let settings = settings(LogFormat::Text, None);
        let error = Error::Internal("one\ntwo\r\x1b[31m".into());
        let text = logged(LogFormat::Text, || {
            log_a_scan(&settings, Some(&error));
            tracing::warn!(file = "a\nb", "three\nfour {}", "five\r\x1b[31m");
        });
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(!text.contains(['\r', '\x1b']), "{text:?}");
        assert!(lines[0].contains(" ERROR request ") && lines[0].contains(r#" error.cause="one\ntwo\r"#), "{text}");
        assert!(lines[1].contains(r#" three\nfour five\r"#) && lines[1].contains(r#" file="a\nb""#), "{text}");
        assert!(!text.contains("S3CRET") && !text.contains("Ana") && !text.contains("fair"), "{text}");
    }

    #[test]
    fn the_trace_is_read_from_either_header() {
        let standard = format!("00-{TRACE_ID}-00f067aa00000001-01");
        let google = format!("{TRACE_ID}/1;o=1");
        for (headers, trace_id) in [
            (&[("traceparent", standard.as_str())][..], Some(TRACE_ID)),
            (&[("x-cloud-trace-context", google.as_str())], Some(TRACE_ID)),
            (&[("x-cloud-trace-context", TRACE_ID)], Some(TRACE_ID)),
            (&[("traceparent", "nonsense"), ("x-cloud-trace-context", google.as_str())], Some(TRACE_ID)),
            (&[("traceparent", "00-105445aa-00f067aa00000001-01")], None),
            (&[("traceparent", "00-105445aa7843bc8bf206b1200010\"000-00f067aa00000001-01")], None),
            (&[("x-cloud-trace-context", "")], None),
            (&[], None),
        ] {
            let parts = parts(headers);
            assert_eq!(trace(&settings(LogFormat::Json, None), &parts).as_deref(), trace_id, "{headers:?}");
            assert_eq!(trace(&settings(LogFormat::Text, None), &parts), None);
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        let text = logged(LogFormat::Text, || {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let _ = std::panic::catch_unwind(|| panic!("a code that was sent: 123456"));
            std::panic::set_hook(hook);
        });
        assert!(text.contains("ERROR") && text.contains(file!()) && !text.contains("123456"), "{text}");
    }

    #[test]
    fn nothing_is_logged_at_trace() {
        assert_eq!(STATIC_MAX_LEVEL, LevelFilter::DEBUG, "lambda_runtime logs bodies at TRACE");
    }
}
