//! The two entrances: hyper on a port, and AWS Lambda. Both call [`routes::handle`].

use std::convert::Infallible;
use std::future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use lambda_http::RequestExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::connections::{Connections, Place, Seat, Sent, Watched};
use crate::error::Error;
use crate::logs::Sender;
use crate::response::{self, Response};
use crate::routes;

/// Connections that wait to be accepted. With the usual 128, those of a crowd that comes at once try again after seconds.
const WAITING: u32 = 1_024;
/// Bytes that the kernel keeps of what was sent and not yet read, doubled by it. It would keep megabytes for a client, and
/// then tell only after minutes that a slow one read on.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a client may leave what we sent unread before the kernel ends its connection.
#[cfg(target_os = "linux")]
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a request's head at most; hyper reads no more than this ahead.
const HEADER_LIMIT: usize = 16 * 1024;
/// What is left for requests in flight after SIGTERM: Cloud Run kills after 10 s.
const GRACE: Duration = Duration::from_millis(9_500);

/// Serves HTTP/1.1 where the settings say.
pub async fn http(app: Arc<App>) -> anyhow::Result<()> {
    let address = SocketAddr::new(app.settings.host, app.settings.port);
    let listener = listen(address).with_context(|| format!("PORT: cannot listen on {address}"))?;
    http_on(app, listener).await
}

/// Serves HTTP/1.1 until SIGTERM or SIGINT, then finishes what is in flight.
pub async fn http_on(app: Arc<App>, listener: TcpListener) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    http_until(app, listener, stop).await
}

/// Serves HTTP/1.1 until it shall stop, then finishes what is in flight.
pub async fn http_until(app: Arc<App>, listener: TcpListener, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "listening");
    let mut stop = pin!(stop);
    let connections = Connections::new(app.clients);
    let graceful = GracefulShutdown::new();
    loop {
        let accept = async {
            let (stream, peer) = listener.accept().await?;
            let is_proxy = app.settings.trusted_proxies.connects_from(peer.ip());
            Ok((stream, peer.ip(), connections.admit(peer.ip(), is_proxy).await))
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
                // Out of file descriptors, or a client that was gone at once: neither ends the service.
                tracing::warn!(%error, "accept");
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

/// Answers what one client asks, until it goes, or is cut off to make room.
async fn converse(app: Arc<App>, stream: TcpStream, peer: IpAddr, seat: Seat, watcher: Watcher) {
    let mut server = http1::Builder::new();
    // With `half_close` a client that hangs up does not cancel its request, whose writes may be committed already, nor
    // the connection to the database that it was using.
    server.timer(TokioTimer::new()).header_read_timeout(app.clients.head).max_buf_size(HEADER_LIMIT).half_close(true);
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&seat.place), &app.clients));
    let place = &seat.place;
    // In a box, which is there while a request is: hyper keeps room for it from the beginning, for every idle client.
    let service = service_fn(|request| Box::pin(answer(Arc::clone(&app), request, peer, Arc::clone(place))));
    let connection = watcher.watch(server.serve_connection(io, service));
    tokio::select! {
        biased;
        () = place.is_cut() => {}
        // An error here is a client that went away or never spoke HTTP; a request's own failures are logged by it.
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

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As `TcpListener::bind` does: a restart need not wait for what is left of the old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

fn tuned(stream: TcpStream) -> TcpStream {
    // Without it a small response may wait for the client's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(SEND_TIMEOUT));
    let _ = socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    stream
}

/// Bytes of a response on Lambda at most, as the runtime sends them; the platform refuses more than 6 MB.
const LAMBDA_RESPONSE_LIMIT: usize = 5 * 1024 * 1024;

/// Serves AWS Lambda's runtime API, one event at a time.
pub async fn lambda(app: Arc<App>) -> anyhow::Result<()> {
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
    lambda_http::run(handler).await.map_err(|error| anyhow::anyhow!("{error}"))
}

/// The API's stage is not part of our paths, but `lambda_http` leaves it in, or puts it there.
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

/// Who called the API, as the platform knows it.
fn sender(app: &App, event: &lambda_http::Request) -> Option<Sender> {
    let peer = match event.request_context_ref() {
        Some(lambda_http::request::RequestContext::ApiGatewayV2(context)) => context.http.source_ip.as_deref()?,
        _ => return None,
    };
    Some(Sender(app.settings.trusted_proxies.sender(peer.parse().ok()?, event.headers())))
}

/// Lambda takes a response whole, and only so large.
async fn collected(response: Response) -> Result<Response, Error> {
    let (head, body) = response.into_parts();
    match Limited::new(body, LAMBDA_RESPONSE_LIMIT).collect().await.map(|body| body.to_bytes()) {
        Ok(body) if sent_length(&head.headers, &body) <= LAMBDA_RESPONSE_LIMIT => {
            Ok(http::Response::from_parts(head, response::full_body(body)))
        }
        Err(error) if !error.is::<LengthLimitError>() => Err(Error::Internal("a stream broke off".into())),
        _ => Err(Error::ResponseTooLarge),
    }
}

/// The runtime wraps a body in JSON: what is compressed as base64, which adds a third, and text with its escapes.
fn sent_length(headers: &HeaderMap, body: &[u8]) -> usize {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return body.len().div_ceil(3) * 4;
    }
    body.len() + body.iter().filter(|&&byte| byte == b'"' || byte == b'\\' || byte < b' ').count()
}
