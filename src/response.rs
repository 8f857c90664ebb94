//! How an answer is made: JSON, problems (RFC 9457), streams, and the headers that all of them have.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use http::{HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;

use crate::error::{Error, FieldError};

/// A body that hyper streams and `lambda_http` collects.
pub type Body = UnsyncBoxBody<Bytes, Error>;
pub type Response = http::Response<Body>;

pub fn empty_body() -> Body {
    full_body(Bytes::new())
}

fn full_body(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A whole body of any type.
pub fn whole(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(full_body(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub fn json(status: StatusCode, value: &impl Serialize) -> Result<Response, Error> {
    let body = serde_json::to_vec(value).map_err(|error| Error::Internal(error.to_string()))?;
    Ok(whole(status, "application/json", body))
}

pub fn no_content() -> Response {
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

/// An error as RFC 9457 tells it.
pub fn problem(error: &Error) -> Response {
    let status = error.status();
    let problem = Problem {
        r#type: "about:blank",
        title: status.canonical_reason().unwrap_or("Error"),
        status: status.as_u16(),
        detail: error.detail(),
        code: error.code(),
        errors: error.errors(),
    };
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = whole(status, "application/problem+json", body);
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, seconds.into());
    }
    match error {
        Error::MethodNotAllowed(allow) => {
            headers.extend(HeaderValue::from_str(allow).ok().map(|allow| (header::ALLOW, allow)));
        }
        Error::Unauthenticated => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

/// Adds what every response has. What is about tickets is for nobody's cache unless its endpoint says otherwise.
pub fn secure(response: &mut Response) {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A body that is made while it is sent. A failure in the middle is logged and ends the connection, so that nobody
/// takes a part for the whole.
pub fn streamed(
    content_type: &'static str,
    chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> Response {
    let frames = chunks.map_ok(Frame::data).inspect_err(|error| tracing::error!(%error, "a stream broke off"));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Compresses a stream (RFC 1952) as it passes.
pub fn gzipped(
    chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = Some((Box::pin(chunks), encoder));
    stream::try_unfold(state, |state| async {
        let Some((mut chunks, mut encoder)) = state else {
            return Ok(None);
        };
        let broken = |error: std::io::Error| Error::Internal(format!("gzip: {error}"));
        while let Some(chunk) = chunks.try_next().await? {
            encoder.write_all(&chunk).map_err(broken)?;
            if !encoder.get_ref().is_empty() {
                let compressed = std::mem::take(encoder.get_mut());
                return Ok(Some((Bytes::from(compressed), Some((chunks, encoder)))));
            }
        }
        let rest = encoder.finish().map_err(broken)?;
        Ok(Some((Bytes::from(rest), None)))
    })
}
