//! The web pages and the files that they load.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::error::Error;
use crate::pages::{ASSETS_PATH, Asset, Language};
use crate::request::Call;
use crate::response::{self, Response};

/// Everything a page may do: load from here, ask here, show pictures that it made itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
    connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
/// A file's address changes with it, so it is kept for as long as caches keep anything.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// `GET /`.
pub async fn show_home(call: Call<'_>) -> Result<Response, Error> {
    Ok(page(&call, StatusCode::OK, include_str!("../pages/home.html"), &[]))
}

/// `GET /gate`.
pub async fn show_gate(call: Call<'_>) -> Result<Response, Error> {
    Ok(page(&call, StatusCode::OK, include_str!("../pages/gate.html"), &[]))
}

/// `GET /organizer`.
pub async fn show_organizer(call: Call<'_>) -> Result<Response, Error> {
    Ok(page(&call, StatusCode::OK, include_str!("../pages/organizer.html"), &[]))
}

/// `GET /worker.js`: one service worker for the pages that work without a network.
pub async fn show_worker(_: Call<'_>) -> Result<Response, Error> {
    let mut response =
        response::whole(StatusCode::OK, "text/javascript; charset=utf-8", include_str!("../pages/worker.js"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// `GET /assets/{version}/{*file}`.
pub async fn show_asset(call: Call<'_>) -> Result<Response, Error> {
    let asset = call.parts.uri.path().strip_prefix(ASSETS_PATH).and_then(|path| Asset::find(path.strip_prefix('/')?));
    let asset = asset.ok_or(Error::NotFound)?;
    let mut response = compressed(&call, asset.content_type(), asset.gzip)?;
    response.headers_mut().insert(header::CACHE_CONTROL, IMMUTABLE);
    Ok(response)
}

/// A body that we keep compressed, for those who take it so, and for the others.
fn compressed(call: &Call<'_>, content_type: &'static str, gzip: &'static [u8]) -> Result<Response, Error> {
    let mut response = if call.accepts_gzip() {
        let mut response = response::whole(StatusCode::OK, content_type, Bytes::from_static(gzip));
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        let mut bytes = Vec::new();
        GzDecoder::new(gzip).read_to_end(&mut bytes).map_err(|error| Error::Internal(format!("gzip: {error}")))?;
        response::whole(StatusCode::OK, content_type, bytes)
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

/// A page in the language of whoever asks.
fn page(call: &Call<'_>, status: StatusCode, template: &str, values: &[(&str, &str)]) -> Response {
    let accepted = call.parts.headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
    let language = Language::accepted(accepted.unwrap_or_default());
    let html = language.render(template, values);
    let mut response = response::whole(status, "text/html; charset=utf-8", html);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag));
    headers.insert(header::VARY, HeaderValue::from_static("accept-language, accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}
