//! The connections of the port: who has a place, who gives it up when there is none left, and how a client is watched.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::FutureExt as _;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use crate::limits::ClientLimits;
use crate::request::Wait;

/// Connections that may be about to close while others come already.
const LEAVING: usize = 32;
/// Bytes that are thrown away at most of what comes after an answer.
const THROWN_AWAY: usize = 1024 * 1024;
/// How soon it is looked again for a place when all are at work.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All connections of a port.
pub struct Connections {
    limits: ClientLimits,
    places: Mutex<Vec<Arc<Place>>>,
    /// Told when one has left.
    left: Notify,
}

/// A connection's place, until this is dropped.
pub struct Seat {
    connections: Arc<Connections>,
    pub place: Arc<Place>,
}

/// What is known of a connection.
pub struct Place {
    /// Whom it is counted for; nobody, where it is a proxy's.
    origin: Option<IpAddr>,
    state: Mutex<State>,
    cut: Notify,
}

struct State {
    /// Whether a request was read whose answer has not ended.
    asked: bool,
    /// Whether it is the client's turn: to ask, to send more of a body, to read more of an answer.
    waits: bool,
    /// When bytes went either way.
    moved: Instant,
    is_cut: bool,
    /// Whether a request was answered before all of it was here.
    left_unread: bool,
}

/// What comes of asking for a place.
enum Room {
    Here(Seat),
    /// One address has all that it may have, and all of them are at work.
    Refused,
    /// All places are at work.
    Later,
}

impl Connections {
    pub fn new(limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self { limits, places: Mutex::default(), left: Notify::new() })
    }

    /// A place for a connection from an address, which may be a proxy's. Where there is none left, the connection goes
    /// that has been silent longest, but none with a request at work; where the address has its share, one of its own
    /// goes. `None` when it has its share at work.
    pub async fn admit(self: &Arc<Self>, address: IpAddr, is_proxy: bool) -> Option<Seat> {
        let origin = (!is_proxy).then(|| block(address));
        loop {
            match self.look(origin) {
                Room::Here(seat) => return Some(seat),
                Room::Refused => return None,
                Room::Later => {
                    let _ = tokio::time::timeout(LOOK_AGAIN, self.left.notified()).await;
                }
            }
        }
    }

    fn look(self: &Arc<Self>, origin: Option<IpAddr>) -> Room {
        let mut places = lock(&self.places);
        let staying: Vec<&Arc<Place>> = places.iter().filter(|place| !place.state().is_cut).collect();
        let own = || staying.iter().filter(|place| origin.is_some() && place.origin == origin);
        if own().count() >= self.limits.of_one_address {
            if !cut_longest_silent(own()) {
                return Room::Refused;
            }
        } else if staying.len() >= self.limits.connections && !cut_longest_silent(staying.iter()) {
            return Room::Later;
        }
        if places.len() >= self.limits.connections + LEAVING {
            return Room::Later;
        }
        let place = Arc::new(Place::new(origin));
        places.push(Arc::clone(&place));
        Room::Here(Seat { connections: Arc::clone(self), place })
    }
}

/// Cuts the connection that has been silent longest of those whose clients are waited for, if there is one.
fn cut_longest_silent<'a>(places: impl Iterator<Item = &'a &'a Arc<Place>>) -> bool {
    let waiting = places.filter_map(|place| {
        let state = place.state();
        state.waits.then_some((state.moved, place))
    });
    let longest = waiting.min_by_key(|(moved, _)| *moved);
    longest.is_some_and(|(_, place)| place.cut())
}

/// Of IPv6 a network has 64 bits, and whoever has one has them all.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that is done under these locks can panic in the middle.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = lock(&self.connections.places);
        if let Some(at) = places.iter().position(|place| Arc::ptr_eq(place, &self.place)) {
            places.swap_remove(at);
        }
        drop(places);
        self.connections.left.notify_one();
    }
}

/// A request that was read, until its answer has ended.
pub struct Asked(Arc<Place>);

impl Place {
    fn new(origin: Option<IpAddr>) -> Self {
        let state = State { asked: false, waits: true, moved: Instant::now(), is_cut: false, left_unread: false };
        Self { origin, state: Mutex::new(state), cut: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Cuts the connection, unless there is work on it.
    fn cut(&self) -> bool {
        let mut state = self.state();
        if !state.waits {
            return false;
        }
        state.is_cut = true;
        self.cut.notify_one();
        true
    }

    /// Waits until the connection is cut.
    pub async fn is_cut(&self) {
        self.cut.notified().await;
    }

    /// A request was read. `None` when the connection was cut before, and nothing may come of it.
    pub fn ask(self: &Arc<Self>) -> Option<Asked> {
        let mut state = self.state();
        if state.is_cut {
            return None;
        }
        (state.asked, state.waits, state.left_unread) = (true, false, false);
        Some(Asked(Arc::clone(self)))
    }

    /// Whether the request was answered before all of it was here.
    pub fn left_unread(&self) -> bool {
        self.state().left_unread
    }

    fn wait(&self) {
        self.state().waits = true;
    }

    /// The client did its part. Whether the service may do its own.
    fn go_on(&self) -> bool {
        let mut state = self.state();
        if !state.is_cut {
            state.waits = !state.asked;
        }
        !state.is_cut
    }

    fn moved(&self) {
        self.state().moved = Instant::now();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut state = self.0.state();
        (state.asked, state.waits) = (false, true);
    }
}

/// The body of a request, of which it is known when its client is waited for.
pub struct Sent<B: Body> {
    body: B,
    place: Arc<Place>,
    is_read: bool,
}

impl<B: Body> Sent<B> {
    pub fn new(body: B, place: Arc<Place>) -> Self {
        Self { is_read: body.is_end_stream(), body, place }
    }
}

impl<B: Body + Unpin> Body for Sent<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_pending() {
            self.place.wait();
        } else if !self.place.go_on() {
            // Whoever cuts wakes the connection, which ends.
            return Poll::Pending;
        }
        self.is_read |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> Drop for Sent<B> {
    fn drop(&mut self) {
        self.place.state().left_unread = !self.is_read && !self.body.is_end_stream();
    }
}

/// A connection as it is read and written: whoever does not read what was written, at the pace that must be kept, is cut
/// off.
pub struct Watched<S> {
    stream: S,
    place: Arc<Place>,
    reading: Wait,
    /// Since when the client has read nothing, though there is something for it.
    stuck: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    linger: Duration,
    /// Bytes that are still thrown away, once it has been shut down.
    lingers: Option<usize>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Watched<S> {
    pub fn new(stream: S, place: Arc<Place>, limits: &ClientLimits) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        let reading = Wait::new(limits.reading);
        Self { stream, place, reading, stuck: None, timer, linger: limits.linger, lingers: None }
    }

    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => {
                if self.stuck.is_none() {
                    let now = Instant::now();
                    self.stuck = Some(now);
                    self.timer.as_mut().reset(now + self.reading.left());
                }
                self.place.wait();
                ready!(self.timer.poll_unpin(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Ready(Ok(bytes)) => {
                let waited = self.stuck.take().map(|since| since.elapsed());
                self.reading.moved(bytes, waited.unwrap_or_default());
                self.place.moved();
                self.place.go_on();
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }

    /// Throws away what still comes, for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>, mut left: usize) -> Poll<()> {
        let mut space = [0; 4 * 1024];
        while left > 0 && self.timer.poll_unpin(cx).is_pending() {
            let mut space = ReadBuf::new(&mut space);
            let read = Pin::new(&mut self.stream).poll_read(cx, &mut space);
            let length = space.filled().len();
            match read {
                Poll::Ready(Ok(())) if length > 0 => left = left.saturating_sub(length),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    self.lingers = Some(left);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = space.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, space);
        if space.filled().len() > before {
            self.place.moved();
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let left = match self.lingers {
            Some(left) => left,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                if !self.place.left_unread() {
                    return Poll::Ready(Ok(()));
                }
                let end = Instant::now() + self.linger;
                self.timer.as_mut().reset(end);
                THROWN_AWAY
            }
        };
        self.poll_linger(cx, left).map(Ok)
    }
}
