//! Responses: JSON, problems (RFC 9457), streams, and the headers that all of them have.

use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde::Serialize;

use crate::error::{DatabaseId, Error};
use crate::fault::FieldError;
use crate::model::{Millis, ScanResult};

/// The header on every response of the service, but not on those of a proxy or a captive portal. The pages act only on
/// responses with it, and take the time from it, in milliseconds since 1970, because proxies write their own `Date`. The
/// `<meta>` element that states the kind of a page has the same name.
pub const MARK: &str = "register-ticket-api";

/// The header that names the database that accepted or rejected the key of a request, or rejected a ticket's link. The pages
/// delete their data only if their own database rejects them: an operator may have started another one by mistake.
pub const DATABASE: &str = "register-ticket-database";
const DATABASE_NAME: HeaderName = HeaderName::from_static(DATABASE);

/// A body that hyper streams and `lambda_http` collects.
pub type Body = UnsyncBoxBody<Bytes, Error>;
pub type Response = http::Response<Body>;

pub fn empty_body() -> Body {
    full_body(Bytes::new())
}

pub fn full_body(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Returns a response with a complete body.
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

/// Returns a response with a compressed body, uncompressed with `plain` for a client that does not accept gzip.
pub fn compressed(
    asked: &HeaderMap,
    status: StatusCode,
    content_type: &'static str,
    gzip: Bytes,
    plain: impl FnOnce(&[u8]) -> Result<Bytes, Error>,
) -> Result<Response, Error> {
    Ok(if accepts(asked, header::ACCEPT_ENCODING, GZIP) {
        encoded(status, content_type, gzip, Some(GZIP))
    } else {
        encoded(status, content_type, plain(&gzip)?, None)
    })
}

/// Returns a response with a body in the negotiated content coding.
pub fn encoded(status: StatusCode, content_type: &'static str, body: Bytes, coding: Option<&'static str>) -> Response {
    let mut response = whole(status, content_type, body);
    if let Some(coding) = coding {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response
}

/// Compresses a body (RFC 1952).
pub fn gzip(bytes: &[u8]) -> Result<Bytes, Error> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map(Bytes::from).map_err(broken)
}

/// Decompresses a body (RFC 1952).
pub fn gunzip(gzip: &[u8]) -> Result<Bytes, Error> {
    let mut bytes = Vec::new();
    GzDecoder::new(gzip).read_to_end(&mut bytes).map(|_| bytes.into()).map_err(broken)
}

fn broken(error: std::io::Error) -> Error {
    Error::Internal(format!("gzip: {error}"))
}

pub fn no_content() -> Response {
    let mut response = Response::new(empty_body());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// An error as RFC 9457 describes it. Responses with a status of 500 or more never contain a cause.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Problem<'a> {
    /// Always `about:blank`: `code` distinguishes the errors.
    #[cfg_attr(test, schemars(extend("const" = "about:blank")))]
    r#type: &'static str,
    /// The phrase of the HTTP status.
    title: &'a str,
    /// The HTTP status.
    #[cfg_attr(test, schemars(range(min = 400, max = 599)))]
    status: u16,
    /// What happened, for people. Its wording may change.
    detail: String,
    /// The stable code of the error, for programs.
    code: &'static str,
    /// One entry for each invalid field or line. Absent if there is none.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    errors: &'a [FieldError],
}

/// Returns the response for an error (RFC 9457).
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
        Error::Unauthenticated(_) => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    response
}

/// Adds the headers of every response. No cache stores it unless its endpoint allows that, and no other site may load it. A
/// browser that used HTTPS once uses only HTTPS for a year.
pub fn secure(response: &mut Response, https: bool, now: Millis) {
    let headers = response.headers_mut();
    headers.insert(MARK, HeaderValue::from(now.0));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if https {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
}

/// Adds the header that names the database.
pub fn name_database(response: &mut Response, database: DatabaseId) {
    response.headers_mut().extend(HeaderValue::try_from(database.to_string()).ok().map(|id| (DATABASE_NAME, id)));
}

/// Content codings (RFC 9110, section 8.4.1, and RFC 7932).
pub const GZIP: &str = "gzip";
pub const BROTLI: &str = "br";

/// Returns whether a header such as `Accept-Encoding` or `Accept` accepts a value (RFC 9110, sections 12.5.3 and 12.5.1).
pub fn accepts(headers: &HeaderMap, header: HeaderName, name: &str) -> bool {
    let sent = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|list| list.split(',')).any(|accepted| {
        let mut parts = accepted.split(';').map(str::trim);
        let is_zero = |weight: &str| {
            let value = weight.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("q"));
            value.and_then(|(_, value)| value.parse::<f32>().ok()).is_some_and(|value| value <= 0.0)
        };
        parts.next().is_some_and(|part| part.eq_ignore_ascii_case(name)) && !parts.any(is_zero)
    })
}

/// Returns a response whose body is generated while it is sent. A failure midway is logged and ends the connection, so that no
/// client takes a part for the whole.
pub fn streamed(
    content_type: &'static str,
    chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> Response {
    let frames = chunks.map_ok(Frame::data).inspect_err(|error| tracing::error!(%error, "a streamed response failed"));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Compresses a stream (RFC 1952).
pub fn gzipped(
    chunks: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let state = Some((Box::pin(chunks), encoder));
    stream::try_unfold(state, |state| async {
        let Some((mut chunks, mut encoder)) = state else {
            return Ok(None);
        };
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

/// Makes a browser save the response as a file.
pub fn attachment(mut response: Response, name: &str) -> Response {
    // Cannot fail: a slug has only characters that are valid in a header.
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        response.headers_mut().insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// Keeps a value until the body has been sent or dropped.
pub fn holding(response: Response, held: impl Send + Unpin + 'static) -> Response {
    response.map(|body| Holding { body, _held: held }.boxed_unsync())
}

struct Holding<H> {
    body: Body,
    _held: H,
}

impl<H: Unpin> http_body::Body for Holding<H> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Attaches the verdict of a scan to its response, for the log.
pub fn with_scan(mut response: Response, result: ScanResult) -> Response {
    response.extensions_mut().insert(result);
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fault::Fault;

    async fn bytes(response: Response) -> Result<Bytes, Error> {
        response.into_body().collect().await.map(http_body_util::Collected::to_bytes)
    }

    async fn zipped(chunks: Vec<Result<Bytes, Error>>) -> Result<Bytes, Error> {
        bytes(streamed("text/plain", gzipped(stream::iter(chunks)))).await
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn what_is_zipped_is_unzipped_again(chunks: Vec<Vec<u8>>, repeated in 1..2_000_usize) {
            let mut chunks = chunks;
            chunks.extend(std::iter::repeat_n(b"{\"ticket_id\":".to_vec(), repeated));
            let zipped = block_on(zipped(chunks.iter().map(|chunk| Ok(chunk.clone().into())).collect())).unwrap();
            let mut unzipped = Vec::new();
            GzDecoder::new(zipped.as_ref()).read_to_end(&mut unzipped).unwrap();
            prop_assert_eq!(unzipped, chunks.concat());
        }
    }

    #[tokio::test]
    async fn nothing_zipped_is_still_a_whole_gzip() {
        let zipped = zipped(Vec::new()).await.unwrap();
        let mut unzipped = Vec::new();
        GzDecoder::new(zipped.as_ref()).read_to_end(&mut unzipped).unwrap();
        assert!(unzipped.is_empty());
    }

    #[test]
    fn an_answer_that_holds_something_still_tells_its_length_and_lets_go_in_the_end() {
        let held = std::sync::Arc::new(());
        let response = holding(whole(StatusCode::OK, "text/plain", "four"), std::sync::Arc::clone(&held));
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(4));
        assert!(http_body::Body::is_end_stream(holding(no_content(), ()).body()));
        assert_eq!(std::sync::Arc::strong_count(&held), 2);
        drop(response);
        assert_eq!(std::sync::Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_not_ended_as_if_it_were_whole() {
        let chunks = || vec![Ok(Bytes::from_static(b"a part")), Err(Error::Internal("broken".into()))];
        assert!(bytes(streamed("text/plain", stream::iter(chunks()))).await.is_err());
        assert!(zipped(chunks()).await.is_err());
    }

    #[tokio::test]
    async fn a_problem_tells_code_and_detail_and_fields() {
        let response = problem(&Error::field("seat", Fault::Required));
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        let body: serde_json::Value = serde_json::from_slice(&bytes(response).await.unwrap()).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank",
            "title": "Unprocessable Entity",
            "status": 422,
            "detail": "seat: is required",
            "code": "invalid_payload",
            "errors": [{ "field": "seat", "code": "required", "params": {}, "message": "is required" }],
        });
        assert_eq!(body, expected);
    }

    #[tokio::test]
    async fn a_failure_sends_no_cause() {
        let response = problem(&Error::DatabaseUnavailable("connection refused by 10.0.0.7".into()));
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let body: serde_json::Value = serde_json::from_slice(&bytes(response).await.unwrap()).unwrap();
        let members: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["code", "detail", "status", "title", "type"]);
        assert!(!body.to_string().contains("10.0.0.7"));
    }

    #[test]
    fn refusals_have_the_headers_of_their_status() {
        let refused = problem(&Error::MethodNotAllowed("GET, HEAD".into()));
        assert_eq!(refused.headers()[header::ALLOW], "GET, HEAD");
        let refused = problem(&Error::Unauthenticated(None));
        assert_eq!(refused.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn no_cache_keeps_what_its_endpoint_does_not_offer() {
        let mut response = no_content();
        secure(&mut response, false, Millis(1_777_651_200_123));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(response.headers()[MARK], "1777651200123");

        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        secure(&mut response, false, Millis(1_777_651_200_123));
        assert_eq!(response.headers()[header::CACHE_CONTROL], "private, no-cache");
    }
}
