//! What an endpoint gets, and how it reads it: path, query, and bodies as JSON or as a form.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::model::{Event, Millis};
use crate::store::DEFAULT_EVENT;

/// One request, found and authorised.
pub struct Call<'a> {
    pub app: &'a Arc<App>,
    pub parts: &'a Parts,
    pub params: Params,
    pub body: &'a [u8],
    /// Always there on a route that asks for a key.
    pub caller: Option<Caller>,
    pub now: Millis,
}

impl Call<'_> {
    pub fn caller(&self) -> Result<&Caller, Error> {
        self.caller.as_ref().ok_or(Error::Unauthenticated)
    }

    /// The event that the path names, when the caller may see it.
    pub async fn event(&self) -> Result<Event, Error> {
        let slug = self.params.get("event").unwrap_or(DEFAULT_EVENT);
        self.caller()?.found(self.app.store().find_event(slug).await?)
    }

    /// An id in the path. What is not an id names nothing.
    pub fn id(&self, name: &str, not_found: Error) -> Result<Uuid, Error> {
        self.params.get(name).and_then(|text| text.parse().ok()).ok_or(not_found)
    }

    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match media_type(&self.parts.headers).as_str() {
            "application/json" => parse_json(self.body),
            _ => Err(Error::UnsupportedMediaType("application/json")),
        }
    }

    /// The body as JSON or as a form.
    pub fn json_or_form<T: DeserializeOwned>(&self) -> Result<T, Error> {
        match media_type(&self.parts.headers).as_str() {
            "application/json" => parse_json(self.body),
            "application/x-www-form-urlencoded" => from_value(parse_form(self.body)?),
            _ => Err(Error::UnsupportedMediaType("application/json or application/x-www-form-urlencoded")),
        }
    }

    /// The query string. Its values are texts.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, Error> {
        from_value(parse_form(self.parts.uri.query().unwrap_or_default().as_bytes())?)
    }
}

/// The media type of a body, in lower case and without parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let inner = error.inner();
        match inner.classify() {
            serde_json::error::Category::Data => invalid(&error.path().to_string(), &words_of(inner)),
            _ => malformed(inner),
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::MalformedJson(format!("line {}, column {}", error.line(), error.column()))
}

/// Reads a value that is JSON already.
pub fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Error> {
    serde_path_to_error::deserialize(value)
        .map_err(|error| invalid(&error.path().to_string(), &words_of(error.inner())))
}

/// A form as a JSON object of strings. A field that comes twice is refused, as it is in JSON.
fn parse_form(body: &[u8]) -> Result<serde_json::Value, Error> {
    let fields: Vec<(String, String)> =
        serde_urlencoded::from_bytes(body).map_err(|_| Error::field("body", "is not a form"))?;
    let mut object = serde_json::Map::new();
    for (name, value) in fields {
        if object.insert(name.clone(), value.into()).is_some() {
            return Err(Error::field(name, "is given twice"));
        }
    }
    Ok(object.into())
}

/// What serde says, without the place in the text: the field tells where.
fn words_of(error: &serde_json::Error) -> String {
    let words = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    words.strip_suffix(&place).unwrap_or(&words).to_owned()
}

/// Turns serde's words into a field and a message. What was sent is never repeated: it may be a code.
fn invalid(path: &str, message: &str) -> Error {
    let named = ["missing field `", "unknown field `", "duplicate field `"].into_iter().find_map(|start| {
        let (name, rest) = message.strip_prefix(start)?.split_once('`')?;
        Some((name, rest))
    });
    let parent = path.trim_start_matches('.');
    if let Some((name, rest)) = named {
        let what = match message.split(' ').next() {
            Some("missing") => "is required".to_owned(),
            Some("duplicate") => "is given twice".to_owned(),
            _ => format!("is not known{rest}"),
        };
        let inside = parent.strip_suffix(name).unwrap_or(parent).trim_end_matches('.');
        let field = if inside.is_empty() { name.to_owned() } else { format!("{inside}.{name}") };
        return Error::field(field, what);
    }
    // The value comes first and may itself say ", expected ".
    let message = match message.rsplit_once(", expected ") {
        Some((_, expected)) if expected.starts_with("struct ") => "expected an object".to_owned(),
        Some((_, expected)) => format!("expected {expected}"),
        None if message.starts_with("UUID parsing failed") => "expected a UUID".to_owned(),
        None => message.to_owned(),
    };
    Error::field(if parent.is_empty() { "body" } else { parent }, message)
}

/// The parts of the path that the route leaves open, decoded.
#[derive(Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Undoes percent-encoding once, after the match: an encoded slash is part of a name, never of the path. What is not
    /// UTF-8, or has a control character (PostgreSQL takes no NUL), is no name of anything, like the empty one it becomes.
    pub fn decode(params: &matchit::Params<'_, '_>) -> Self {
        let decode = |value| {
            let value = percent_decode_str(value).decode_utf8().ok()?;
            (!value.contains(char::is_control)).then(|| value.into_owned())
        };
        Self(params.iter().map(|(name, value)| (name.to_owned(), decode(value).unwrap_or_default())).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
