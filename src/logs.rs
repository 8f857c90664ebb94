//! The log: one line a request. No code, key, header, body, name or query ever gets into it: the route is logged as its
//! pattern.

use std::fmt;
use std::panic::PanicHookInfo;
use std::str::FromStr as _;
use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::auth::Caller;
use crate::config::{LogFormat, Settings};
use crate::error::Error;
use crate::model::{Millis, ScanResult};

/// Sends log lines to standard output, and panics among them.
pub fn start(settings: &Settings) {
    let filter = capped(&Targets::from_str(&settings.log_filter).unwrap_or_default());
    let layer = tracing_subscriber::fmt::layer().event_format(Line(settings.log_format)).with_ansi(false);
    // Fails only when a test has started the log already.
    let _ = tracing_subscriber::registry().with(layer).with(filter).try_init();
    std::panic::set_hook(Box::new(log_panic));
}

/// Logs where a panic was, not its message, which may hold what a request sent.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(place, "panic");
}

/// The filter without `trace`, at which `lambda_runtime` logs whole events, keys and bodies included.
fn capped(filter: &Targets) -> Targets {
    let cap = |level: LevelFilter| level.min(LevelFilter::DEBUG);
    let default = filter.default_level().map_or(LevelFilter::OFF, cap);
    filter.iter().map(|(target, level)| (target, cap(level))).collect::<Targets>().with_default(default)
}

/// What is told of a request.
pub struct RequestLine<'a> {
    pub parts: &'a Parts,
    pub route: &'static str,
    pub status: StatusCode,
    pub elapsed: Duration,
    pub caller: Option<&'a Caller>,
    pub scan: Option<ScanResult>,
    pub error: Option<&'a Error>,
}

/// Logs a request: a failure of the service as an error with its cause, everything else as information.
pub fn request(settings: &Settings, line: &RequestLine<'_>) {
    macro_rules! log {
        ($level:expr) => {
            tracing::event!(
                target: "request",
                $level,
                method = line.parts.method.as_str(),
                route = line.route,
                status = line.status.as_u16(),
                ms = line.elapsed.as_secs_f64() * 1_000.0,
                key.id = line.caller.and_then(|caller| caller.key_id).map(tracing::field::display),
                scan.result = line.scan.map(ScanResult::as_str),
                error.code = line.error.map(Error::code),
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

/// The trace of a request, in the form that Cloud Logging links: from `traceparent` or `X-Cloud-Trace-Context`.
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

/// One event as one line.
struct Line(LogFormat);

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = *event.metadata().level();
        match self.0 {
            LogFormat::Text => {
                write!(writer, "{} {level:5} {}", Millis::now(), event.metadata().target())?;
                for (name, value) in &fields.0 {
                    match (name.as_str(), value) {
                        ("message", serde_json::Value::String(text)) => write!(writer, " {}", text.escape_debug())?,
                        (_, value) => write!(writer, " {name}={value}")?,
                    }
                }
            }
            LogFormat::Json => {
                let mut line = fields.0;
                line.entry("message").or_insert_with(|| event.metadata().target().into());
                line.insert("severity".into(), severity(level).into());
                line.insert("time".into(), Millis::now().to_string().into());
                line.insert("target".into(), event.metadata().target().into());
                if let Some(trace) = line.remove("trace") {
                    line.insert("logging.googleapis.com/trace".into(), trace);
                }
                writer.write_str(&serde_json::to_string(&line).map_err(|_| fmt::Error)?)?;
            }
        }
        writeln!(writer)
    }
}

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
        // Milliseconds to the microsecond: more digits are noise.
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
    use std::io::Read as _;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_message() {
        let (mut log, writer) = std::io::pipe().expect("a pipe");
        let layer = tracing_subscriber::fmt::layer().event_format(Line(LogFormat::Text)).with_writer(Arc::new(writer));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let hook = std::panic::take_hook();
            std::panic::set_hook(Box::new(log_panic));
            let _ = std::panic::catch_unwind(|| panic!("a code that was sent: 123456"));
            std::panic::set_hook(hook);
        });
        let mut line = String::new();
        log.read_to_string(&mut line).expect("the log is text");
        assert!(line.contains("ERROR") && line.contains(file!()) && !line.contains("123456"), "{line}");
    }
}
