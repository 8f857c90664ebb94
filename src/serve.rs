//! The two entrances: hyper on a port, and AWS Lambda. Both call [`routes::handle`].

use std::convert::Infallible;
use std::future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use lambda_http::request::LambdaRequest;
use lambda_http::{LambdaEvent, RequestExt as _, Service as _};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::Settings;
use crate::connections::{Connections, Place, Seat, Sent, Watched};
use crate::error::Error;
use crate::logs::Sender;
use crate::response::{self, Response};
use crate::routes;

/// The backlog of connections not yet accepted. With the usual 128, clients in a rush would retry only after seconds.
const WAITING: u32 = 1_024;
/// The size of the kernel's send buffer in bytes, which it doubles. By default it would buffer megabytes for a client, and
/// the progress of a slow one would become visible only after minutes.
const SEND_BUFFER: usize = 64 * 1024;
/// How long data may stay unacknowledged, or unsent because the client does not read, before the kernel ends the connection.
#[cfg(target_os = "linux")]
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// EAFNOSUPPORT, which has no `io::ErrorKind`.
const AFNOSUPPORT: i32 = if cfg!(target_os = "linux") { 97 } else { 47 };
/// Maximum size of a request's head in bytes. hyper reads no more than this ahead.
const HEADER_LIMIT: usize = 16 * 1024;
/// Time for requests in flight after SIGTERM. Cloud Run kills the process after 10 s.
const GRACE: Duration = Duration::from_millis(9_500);

/// Listens on the configured address.
pub fn listener(settings: &Settings) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::new(settings.host, settings.port);
    let listener = match listen(address) {
        // The machine has no IPv6.
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_family(&error) => {
            listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        outcome => outcome,
    };
    listener.map_err(|error| {
        let setting = if error.kind() == io::ErrorKind::AddrNotAvailable { "HOST" } else { "PORT" };
        anyhow::Error::new(error).context(format!("{setting}: cannot listen on {address}"))
    })
}

/// Returns a future that resolves at SIGTERM or SIGINT. Call it before the first output: a signal that arrives while
/// tokio installs its handler is lost, and the sender may react to that output.
pub fn stopped() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves HTTP/1.1 until `stop` resolves, then finishes the requests in flight.
pub async fn http_until(app: Arc<App>, listener: TcpListener, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");
    let mut stop = pin!(stop);
    let connections = Connections::new(app.clients);
    let graceful = GracefulShutdown::new();
    loop {
        let accept = async {
            let (stream, peer) = listener.accept().await?;
            // On a listener for both families, an IPv4 client has an address such as `::ffff:192.0.2.7`.
            let peer = peer.ip().to_canonical();
            let is_proxy = app.settings.trusted_proxies.connects_from(peer);
            Ok((stream, peer, connections.admit(peer, is_proxy).await))
        };
        let accepted: io::Result<_> = tokio::select! {
            accepted = accept => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer, Some(seat))) => {
                tokio::spawn(converse(Arc::clone(&app), tuned(stream), peer, seat, graceful.watcher()));
            }
            Ok((_, _, None)) => {}
            Err(error) => {
                // No file descriptors, or a client that disconnected at once: neither ends the service.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    drop(listener);
    tracing::info!("stopping");
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not finish in time");
    }
    Ok(())
}

/// Serves one connection until the client closes it or it is cut to make room.
async fn converse(app: Arc<App>, stream: TcpStream, peer: IpAddr, seat: Seat, watcher: Watcher) {
    let mut server = http1::Builder::new();
    // With `half_close`, a client that disconnects does not cancel its request, whose writes may already be committed, nor drop
    // the database connection in use.
    server.timer(TokioTimer::new()).header_read_timeout(app.clients.head).max_buf_size(HEADER_LIMIT).half_close(true);
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&seat.place), &app.clients));
    let place = &seat.place;
    // Boxed, so that it exists only during a request: hyper would reserve space for it on every idle connection.
    let service = service_fn(|request| Box::pin(answer(Arc::clone(&app), request, peer, Arc::clone(place))));
    let connection = watcher.watch(server.serve_connection(io, service));
    tokio::select! {
        biased;
        () = place.is_cut() => {}
        // An error here means that the client disconnected or did not speak HTTP. A request logs its own failures.
        _ = connection => {}
    }
}

async fn answer(
    app: Arc<App>,
    request: http::Request<Incoming>,
    peer: IpAddr,
    place: Arc<Place>,
) -> Result<Response, Infallible> {
    let Some(asked) = place.ask() else { return future::pending().await };
    let sender = Sender(app.settings.trusted_proxies.sender(peer, request.headers()));
    let mut request = request.map(|body| Sent::new(body, Arc::clone(&place)));
    request.extensions_mut().insert(sender);
    let mut response = routes::handle(&app, request).await;
    if place.left_unread() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response::holding(response, asked))
}

/// Returns whether an error means that the machine lacks the address family.
fn lacks_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(AFNOSUPPORT)
}

/// Listens on an address. On `::`, also listens for IPv4 regardless of the system's default.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket2::SockRef::from(&socket).set_only_v6(false)?;
    }
    // As `TcpListener::bind` does, so that a restart need not wait for old connections in TIME-WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

fn tuned(stream: TcpStream) -> TcpStream {
    // Otherwise a small response may wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_TIMEOUT));
    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    stream
}

/// Maximum size of a response on Lambda in bytes, as the runtime sends it. The platform rejects more than 6 MB.
const LAMBDA_RESPONSE_LIMIT: usize = 5 * 1024 * 1024;

/// Serves AWS Lambda's runtime API, one event at a time.
pub async fn lambda(app: Arc<App>) -> anyhow::Result<()> {
    let invoked = lambda_http::service_fn(move |event| answer_event(Arc::clone(&app), event));
    lambda_http::lambda_runtime::run(invoked).await.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Answers an event of the platform. An error fails the invocation.
pub async fn answer_event(
    app: Arc<App>,
    LambdaEvent { payload, context }: LambdaEvent<Box<RawValue>>,
) -> Result<impl Serialize, lambda_http::Error> {
    let Some(event) = read_event(&payload)? else {
        tracing::info!(status = 400, "an event is not a request");
        return Ok(Answer::Refused { status_code: 400 });
    };
    let handler = lambda_http::service_fn(move |event: lambda_http::Request| {
        let app = Arc::clone(&app);
        async move {
            let mut request = without_stage(event);
            if let Some(sender) = sender(&app, &request) {
                request.extensions_mut().insert(sender);
            }
            Ok::<_, Infallible>(routes::handle_and(&app, request, collected).await)
        }
    });
    let answer = lambda_http::Adapter::from(handler).call(LambdaEvent::new(event, context)).await?;
    Ok(Answer::Of(answer))
}

/// The response to the platform.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer<T> {
    Of(T),
    /// Rejects an event that is not a request, as hyper rejects what is not HTTP.
    #[serde(rename_all = "camelCase")]
    Refused {
        status_code: u16,
    },
}

/// Reads an event of API Gateway or a function URL. Returns `None` if it is not a valid request, on which `lambda_http` would
/// panic and the platform answer 502. Events of other kinds are errors.
fn read_event(event: &RawValue) -> Result<Option<LambdaRequest>, lambda_http::Error> {
    #[derive(Deserialize)]
    struct Kind {
        version: String,
    }
    let is_request = |kind: Kind| kind.version == "2.0";
    match serde_json::from_str(event.get()) {
        Ok(LambdaRequest::ApiGatewayV2(mut event)) => {
            // The path suffices. A URL would be built from these two, which the client controls.
            event.headers.remove(header::HOST);
            event.request_context.domain_name = None;
            Ok(is_understood(&event).then_some(LambdaRequest::ApiGatewayV2(event)))
        }
        Err(_) if serde_json::from_str(event.get()).is_ok_and(is_request) => Ok(None),
        Ok(_) => Err("the event is of an unsupported kind".into()),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether an event can be converted to a request.
fn is_understood(event: &ApiGatewayV2httpRequest) -> bool {
    let path = event.raw_path.as_deref().unwrap_or_default();
    let query = event.raw_query_string.as_deref().unwrap_or_default();
    let stage = event.request_context.stage.as_deref().unwrap_or_default();
    let body = event.body.as_deref().filter(|_| event.is_base64_encoded).unwrap_or_default();
    // The same limit as at the other entrance; escapes make it at most three times as long.
    path.len() + query.len() + stage.len() <= HEADER_LIMIT
        && (path.is_empty() || path.starts_with('/'))
        && format!("/?{query}").parse::<PathAndQuery>().is_ok()
        // This decoder accepts padding in the middle, but that of `lambda_http` does not.
        && !body.trim_end_matches('=').contains('=')
        && BASE64.decode(body.as_bytes()).is_ok()
}

/// Removes the API's stage from the path, where `lambda_http` leaves it or adds it.
fn without_stage(event: lambda_http::Request) -> lambda_http::Request {
    let stage = match event.request_context_ref() {
        Some(lambda_http::request::RequestContext::ApiGatewayV2(context)) => context.stage.clone(),
        _ => None,
    };
    let Some(stage) = stage.filter(|stage| stage != "$default") else {
        return event;
    };
    let (mut parts, body) = event.into_parts();
    let path_and_query = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let stripped = path_and_query.strip_prefix('/').and_then(|path| path.strip_prefix(stage.as_str()));
    if let Some(uri) = stripped.filter(|path| path.starts_with('/')).and_then(|path| path.parse().ok()) {
        parts.uri = uri;
    }
    http::Request::from_parts(parts, body)
}

/// Returns the sender of a request, as the platform knows it.
fn sender(app: &App, event: &lambda_http::Request) -> Option<Sender> {
    let peer = match event.request_context_ref() {
        Some(lambda_http::request::RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref()?,
        _ => return None,
    };
    Some(Sender(app.settings.trusted_proxies.sender(peer.parse().ok()?, event.headers())))
}

/// Collects a response, because Lambda needs it whole, and checks its size.
async fn collected(response: Response) -> Result<Response, Error> {
    let (head, body) = response.into_parts();
    match Limited::new(body, LAMBDA_RESPONSE_LIMIT).collect().await.map(|body| body.to_bytes()) {
        Ok(body) if sent_length(&head.headers, &body) <= LAMBDA_RESPONSE_LIMIT => {
            Ok(http::Response::from_parts(head, response::full_body(body)))
        }
        Err(error) if !error.is::<LengthLimitError>() => Err(Error::Internal("a streamed response failed".into())),
        _ => Err(Error::ResponseTooLarge),
    }
}

/// Returns the length of a body as sent: the runtime wraps it in JSON, compressed data as base64, which adds a third, and text
/// with escapes.
fn sent_length(headers: &HeaderMap, body: &[u8]) -> usize {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return body.len().div_ceil(3) * 4;
    }
    body.len() + body.iter().filter(|&&byte| byte == b'"' || byte == b'\\' || byte < b' ').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// Returns a request as API Gateway sends it.
    fn event() -> Value {
        serde_json::from_str(include_str!("../tests/suite/lambda/post_json.json")).unwrap()
    }

    /// Converts an event to a request, if it is one. Must not panic.
    fn request_of(event: &Value) -> Result<Option<lambda_http::Request>, String> {
        let event = serde_json::value::to_raw_value(event).unwrap();
        read_event(&event).map(|event| event.map(Into::into)).map_err(|error| error.to_string())
    }

    /// Generates text that may break a URL, a header or base64.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["\\PC{0,12}", "[ \"<>%#?/\\\\:@=&,\u{0}-\u{1f}a-z0-9]{0,24}", "[A-Za-z0-9+/=]{0,9}"]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text().prop_map(Value::from),
        ];
        leaf.prop_recursive(2, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map(text(), inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The fields of an event that a client, or a mistake in the gateway's settings, controls.
    const PLACES: &[&str] = &[
        "/rawPath",
        "/rawQueryString",
        "/body",
        "/isBase64Encoded",
        "/headers",
        "/headers/host",
        "/headers/x-forwarded-proto",
        "/headers/content-type",
        "/cookies",
        "/queryStringParameters",
        "/requestContext",
        "/requestContext/stage",
        "/requestContext/domainName",
        "/requestContext/http",
        "/requestContext/http/method",
        "/requestContext/http/sourceIp",
        "/version",
    ];

    fn put(event: &mut Value, place: &str, value: Value) {
        let (parent, name) = place.rsplit_once('/').unwrap();
        if let Some(parent) = event.pointer_mut(parent).and_then(Value::as_object_mut) {
            parent.insert(name.into(), value);
        }
    }

    #[test]
    fn what_lambda_http_would_panic_at_is_no_request() {
        let long = format!("/{}", "a".repeat(70_000));
        for (place, value) in [
            ("/rawQueryString", json!("q=a b")),
            ("/rawQueryString", json!("q=\"")),
            ("/rawQueryString", json!("q=<")),
            ("/rawQueryString", json!("q=\u{1}")),
            ("/rawQueryString", json!(long)),
            ("/rawPath", json!(long)),
            ("/rawPath", json!("@:x")),
            ("/headers", json!({ "x": "a\nb" })),
            ("/requestContext/http/method", json!("NO GET")),
        ] {
            let mut event = event();
            put(&mut event, place, value);
            assert!(matches!(request_of(&event), Ok(None)), "{place}");
        }
        for body in ["=", "a", "aa==aa==", "*", "aa=", "ab=="] {
            let event = {
                let mut event = event();
                put(&mut event, "/isBase64Encoded", json!(true));
                put(&mut event, "/body", json!(body));
                event
            };
            assert!(matches!(request_of(&event), Ok(None)), "{body}");
        }
    }

    #[test]
    fn what_proxies_and_clients_write_beside_the_path_leads_nowhere_else() {
        for (place, value) in [
            ("/headers/x-forwarded-proto", json!("https,http")),
            ("/headers/host", json!("a b")),
            ("/headers/host", json!("example.org/other?")),
            ("/requestContext/domainName", json!(":")),
        ] {
            let mut event = event();
            put(&mut event, place, value);
            let request = request_of(&event).unwrap().unwrap();
            assert_eq!(request.uri().path(), "/api/users", "{place}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_event_panics(
            changes in prop::collection::vec((prop::sample::select(PLACES), prop_oneof![text().prop_map(Value::from), any_value()]), 1..4)
        ) {
            let mut event = event();
            for (place, value) in changes {
                put(&mut event, place, value);
            }
            let _ = request_of(&event);
        }

        #[test]
        fn nothing_panics_that_is_no_event_at_all(value in any_value()) {
            let _ = request_of(&value);
        }
    }
}
