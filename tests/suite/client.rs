//! Clients of the service. Each has one key or none, and checks its requests and answers against the OpenAPI document.

use std::io::Read;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use register_ticket_api::app::App;
use register_ticket_api::routes;
use serde_json::Value;

use crate::openapi;

#[derive(Clone)]
pub struct Client {
    transport: Transport,
    key: Option<String>,
}

/// How requests reach the service.
#[derive(Clone)]
enum Transport {
    /// By a call, without a socket.
    Call(Arc<App>),
    /// Over HTTP, to a running process.
    Http { agent: ureq::Agent, base_url: String },
}

impl Client {
    pub fn of(app: &Arc<App>) -> Self {
        Self { transport: Transport::Call(Arc::clone(app)), key: None }
    }

    pub fn remote(base_url: &str) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { transport: Transport::Http { agent, base_url: base_url.trim_end_matches('/').to_owned() }, key: None }
    }

    /// The same client with this key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { transport: self.transport.clone(), key: Some(key.to_owned()) }
    }

    pub async fn get(&self, path: impl AsRef<str>) -> Reply {
        self.bare(Method::GET, path).await
    }

    pub async fn delete(&self, path: impl AsRef<str>) -> Reply {
        self.bare(Method::DELETE, path).await
    }

    /// Sends a request without a body.
    pub async fn bare(&self, method: Method, path: impl AsRef<str>) -> Reply {
        self.send(Request::builder().method(method).uri(path.as_ref()), Vec::new()).await
    }

    pub async fn post(&self, path: impl AsRef<str>, body: Value) -> Reply {
        self.send_as(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn patch(&self, path: impl AsRef<str>, body: Value) -> Reply {
        self.send_as(Method::PATCH, path, "application/json", body.to_string()).await
    }

    pub async fn post_csv(&self, path: impl AsRef<str>, body: impl Into<Vec<u8>>) -> Reply {
        self.send_as(Method::POST, path, "text/csv", body).await
    }

    pub async fn post_form(&self, path: impl AsRef<str>, body: impl Into<Vec<u8>>) -> Reply {
        self.send_as(Method::POST, path, "application/x-www-form-urlencoded", body).await
    }

    pub async fn send_as(
        &self,
        method: Method,
        path: impl AsRef<str>,
        media_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Reply {
        self.send(Request::builder().method(method).uri(path.as_ref()).header(header::CONTENT_TYPE, media_type), body)
            .await
    }

    /// Sends any request, with the client's key.
    pub async fn send(&self, request: http::request::Builder, body: impl Into<Vec<u8>>) -> Reply {
        let mut request = request.body(body.into()).expect("the test's request is a request");
        if let Some(key) = &self.key {
            let value = format!("Bearer {key}").parse().expect("a key fits in a header");
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let sent = request.clone();
        let response = match &self.transport {
            Transport::Call(app) => call(app, request).await,
            Transport::Http { agent, base_url } => fetch(agent.clone(), base_url, request).await,
        };
        let (parts, body) = response.into_parts();
        let sent_bytes = body.len();
        let body = match parts.headers.get(header::CONTENT_ENCODING) {
            None => body,
            // The answer to a HEAD request.
            Some(_) if body.is_empty() => body,
            Some(coding) if coding == "br" => plain(brotli::Decompressor::new(body.as_slice(), 4096)),
            Some(coding) => {
                assert_eq!(coding, "gzip");
                plain(flate2::read::GzDecoder::new(body.as_slice()))
            }
        };
        openapi::check(&sent, parts.status, &parts.headers, &body);
        Reply { status: parts.status, headers: parts.headers, body, sent_bytes }
    }
}

async fn call(app: &Arc<App>, request: Request<Vec<u8>>) -> http::Response<Vec<u8>> {
    let (parts, body) = routes::handle(app, request.map(lambda_http::Body::from)).await.into_parts();
    let body = body.collect().await.expect("a response does not break off").to_bytes();
    http::Response::from_parts(parts, body.into())
}

async fn fetch(agent: ureq::Agent, base_url: &str, mut request: Request<Vec<u8>>) -> http::Response<Vec<u8>> {
    *request.uri_mut() = format!("{base_url}{}", request.uri()).parse().expect("BASE_URL and a path make an address");
    let exchange = move || {
        let (parts, mut body) = agent.run(request)?.into_parts();
        Ok::<_, ureq::Error>(http::Response::from_parts(parts, body.read_to_vec()?))
    };
    let exchange = tokio::task::spawn_blocking(exchange).await.expect("the exchange does not panic");
    exchange.expect("the service answers")
}

fn plain(mut body: impl Read) -> Vec<u8> {
    let mut plain = Vec::new();
    body.read_to_end(&mut plain).expect("the body is in the coding that it names");
    plain
}

/// A decompressed answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// The size of the body before decompression.
    pub sent_bytes: usize,
}

impl Reply {
    /// Returns the JSON of an answer, which must have this status.
    #[track_caller]
    pub fn is(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        if self.body.is_empty() { Value::Null } else { serde_json::from_slice(&self.body).expect("the body is JSON") }
    }

    /// Returns the problem of a refusal, which must have this status and code.
    #[track_caller]
    pub fn is_refused(&self, status: u16, code: &str) -> Value {
        let problem = self.is(status);
        assert_eq!(problem["code"], code, "{problem:#}");
        assert_eq!(problem["status"], status);
        problem
    }

    /// Returns the answer to a scan, which must have this status and verdict.
    #[track_caller]
    pub fn is_scan(&self, status: u16, result: &str) -> Value {
        let scan = self.is(status);
        assert_eq!(scan["result"], result, "{scan:#}");
        scan
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns a header's value, empty if it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}
