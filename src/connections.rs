//! The connections of the port: which are admitted, which is closed when none is free, and how slow clients are detected.

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

/// Connections above the limit that may still be closing while others are admitted.
const LEAVING: usize = 32;
/// Maximum number of bytes discarded after a response.
const THROWN_AWAY: usize = 1024 * 1024;
/// How soon to try again to admit a connection when all have requests in progress.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All connections of a port.
pub struct Connections {
    limits: ClientLimits,
    places: Mutex<Vec<Arc<Place>>>,
    /// Notified when a connection ends.
    left: Notify,
}

/// An admitted connection. Dropping it frees its slot.
pub struct Seat {
    connections: Arc<Connections>,
    pub place: Arc<Place>,
}

/// The state of a connection.
pub struct Place {
    /// The address for which it is counted; `None` if it is a proxy's.
    origin: Option<IpAddr>,
    state: Mutex<State>,
    cut: Notify,
}

struct State {
    /// Whether a request was read and its response is not finished.
    asked: bool,
    /// Whether it is the client's turn: to send a request, more of a body, or to read more of a response.
    waits: bool,
    /// When bytes last moved in either direction.
    moved: Instant,
    is_cut: bool,
    /// Whether a request was answered before all of it was read.
    left_unread: bool,
}

/// The outcome of an attempt to admit a connection.
enum Room {
    Here(Seat),
    /// The address has its maximum of connections, and none of them is waiting for its client.
    Refused,
    /// No connection can be closed now.
    Later,
}

impl Connections {
    pub fn new(limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self { limits, places: Mutex::default(), left: Notify::new() })
    }

    /// Admits a connection from an address, which may be a proxy's. At the limit, the connection that has been silent longest
    /// is closed, but never one that is not waiting for its client. If the address has its maximum, one of its own is closed;
    /// returns `None` if none of these can be.
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

/// Cuts the connection that has been silent longest among those that wait for their clients, if there is one.
fn cut_longest_silent<'a>(places: impl Iterator<Item = &'a &'a Arc<Place>>) -> bool {
    let waiting = places.filter_map(|place| {
        let state = place.state();
        state.waits.then_some((state.moved, place))
    });
    let longest = waiting.min_by_key(|(moved, _)| *moved);
    longest.is_some_and(|(_, place)| place.cut())
}

/// Returns the address by which connections are counted. In IPv6, it is the network of 64 bits, because a client may use all
/// addresses in its network.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No critical section of these locks can panic halfway.
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

/// A request in progress. Dropping it marks the response as finished.
pub struct Asked(Arc<Place>);

impl Place {
    fn new(origin: Option<IpAddr>) -> Self {
        let state = State { asked: false, waits: true, moved: Instant::now(), is_cut: false, left_unread: false };
        Self { origin, state: Mutex::new(state), cut: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Cuts the connection if it waits for its client.
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

    /// Records that a request was read. Returns `None` if the connection was cut before; the request must then have no effect.
    pub fn ask(self: &Arc<Self>) -> Option<Asked> {
        let mut state = self.state();
        if state.is_cut {
            return None;
        }
        (state.asked, state.waits, state.left_unread) = (true, false, false);
        Some(Asked(Arc::clone(self)))
    }

    /// Returns whether the request was answered before all of it was read.
    pub fn left_unread(&self) -> bool {
        self.state().left_unread
    }

    fn wait(&self) {
        self.state().waits = true;
    }

    /// Records that the client did its part. Returns whether the service may go on.
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

/// The body of a request, which records when the service waits for its client.
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
            // Cutting has woken the connection, which ends.
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

/// A stream that records activity. A client that reads more slowly than the required pace is disconnected.
pub struct Watched<S> {
    stream: S,
    place: Arc<Place>,
    reading: Wait,
    /// Since when the client has read nothing although data is pending.
    stuck: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    linger: Duration,
    /// Bytes that may still be discarded after the shutdown.
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

    /// Discards further input for a limited time and number of bytes.
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use futures_util::future::poll_fn;
    use http_body_util::{BodyExt as _, Empty};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::limits::Pace;

    const LIMITS: ClientLimits = ClientLimits { connections: 4, of_one_address: 2, ..ClientLimits::USUAL };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    async fn admit(connections: &Arc<Connections>, from: &str, is_proxy: bool) -> Option<Seat> {
        connections.admit(address(from), is_proxy).await
    }

    async fn admit_proxied(connections: &Arc<Connections>) -> Seat {
        admit(connections, "127.0.0.1", true).await.unwrap()
    }

    fn is_cut(seat: &Seat) -> bool {
        seat.place.state().is_cut
    }

    #[tokio::test]
    async fn who_has_been_silent_longest_goes_and_nobody_with_a_request_at_work() {
        let connections = Connections::new(LIMITS);
        let mut seats = Vec::new();
        for _ in 0..4 {
            seats.push(admit_proxied(&connections).await);
        }
        let at_work = seats[0].place.ask().unwrap();
        seats[1].place.moved();
        let fifth = admit_proxied(&connections).await;
        assert_eq!(seats.iter().map(is_cut).collect::<Vec<_>>(), [false, false, true, false]);
        // With its response finished, it has been silent longest.
        drop(at_work);
        let _sixth = admit_proxied(&connections).await;
        assert!(is_cut(&seats[0]) && !is_cut(&fifth));
    }

    #[tokio::test]
    async fn where_all_are_at_work_who_comes_waits_until_one_leaves() {
        let connections = Connections::new(LIMITS);
        let mut seats = Vec::new();
        for _ in 0..4 {
            let seat = admit_proxied(&connections).await;
            seats.push((seat.place.ask().unwrap(), seat));
        }
        let mut fifth = Box::pin(admit_proxied(&connections));
        assert!(fifth.as_mut().now_or_never().is_none() && seats.iter().all(|(_, seat)| !is_cut(seat)));
        seats.pop();
        fifth.await;
    }

    #[tokio::test]
    async fn no_more_files_are_open_than_places_and_a_few_that_are_about_to_close() {
        let connections = Connections::new(LIMITS);
        let mut seats = Vec::new();
        // Connections that are cut stay open here.
        for _ in 0..LIMITS.connections + LEAVING {
            seats.push(admit_proxied(&connections).await);
        }
        assert!(admit_proxied(&connections).now_or_never().is_none());
    }

    #[tokio::test]
    async fn an_address_that_has_its_share_makes_room_for_itself() {
        let connections = Connections::new(LIMITS);
        let other = admit(&connections, "198.51.100.1", false).await.unwrap();
        let first = admit(&connections, "203.0.113.1", false).await.unwrap();
        let second = admit(&connections, "::ffff:203.0.113.1", false).await.unwrap();
        let _third = admit(&connections, "203.0.113.1", false).await.unwrap();
        assert!(is_cut(&first) && !is_cut(&second) && !is_cut(&other));
        let _at_work = [second.place.ask().unwrap(), _third.place.ask().unwrap()];
        assert!(admit(&connections, "203.0.113.1", false).await.is_none(), "nothing of its own is left to cut");
        assert!(!is_cut(&other));
    }

    #[test]
    fn of_ipv6_a_network_is_one_address() {
        assert_eq!(block(address("2001:db8:1:2:3:4:5:6")), block(address("2001:db8:1:2::")));
        assert_ne!(block(address("2001:db8:1:2::")), block(address("2001:db8:1:3::")));
        assert_ne!(block(address("203.0.113.1")), block(address("203.0.113.2")));
    }

    #[tokio::test]
    async fn who_waits_for_its_client_can_be_cut_and_then_nothing_goes_on() {
        let place = Arc::new(Place::new(None));
        let asked = place.ask().unwrap();
        assert!(!place.cut(), "it is at work");
        place.wait();
        assert!(place.go_on() && !place.cut(), "the rest of the body came");
        place.wait();
        assert!(place.cut());
        assert!(!place.go_on(), "the rest came too late");
        drop(asked);
        assert!(place.ask().is_none());
        place.is_cut().await;
    }

    #[tokio::test]
    async fn a_body_is_unread_until_its_end_was_seen() {
        let place = Arc::new(Place::new(None));
        let chunked = |end: bool| {
            let frames = (0..2).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a"))));
            let frames = frames.take(if end { 0 } else { 2 });
            Sent::new(http_body_util::StreamBody::new(futures_util::stream::iter(frames)), Arc::clone(&place))
        };
        for (body, unread) in [(chunked(true), true), (chunked(false), true)] {
            drop(body);
            assert_eq!(place.left_unread(), unread);
        }
        chunked(false).collect().await.unwrap();
        assert!(!place.left_unread());
        drop(Sent::new(Empty::<Bytes>::new(), Arc::clone(&place)));
        assert!(!place.left_unread());
    }

    /// Returns a connection with a small buffer, and its client.
    fn pair(limits: &ClientLimits) -> (Watched<DuplexStream>, DuplexStream) {
        let (ours, client) = duplex(1_024);
        (Watched::new(ours, Arc::new(Place::new(None)), limits), client)
    }

    /// Limits that even a moderately slow client exceeds soon.
    const HASTY: ClientLimits =
        ClientLimits { reading: Pace { bytes: 60 * 1024, time: Duration::from_millis(20) }, ..ClientLimits::USUAL };

    #[tokio::test]
    async fn who_reads_nothing_is_cut_off_and_is_known_to_be_waited_for() {
        let (mut connection, _client) = pair(&HASTY);
        let place = Arc::clone(&connection.place);
        let _asked = place.ask().unwrap();
        let started = Instant::now();
        let error = connection.write_all(&[b'a'; 2_000]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() >= HASTY.reading.time);
        assert!(place.state().waits);
    }

    #[tokio::test]
    async fn who_trickles_is_cut_off() {
        let (mut connection, mut client) = pair(&HASTY);
        let sends = tokio::spawn(async move { connection.write_all(&[b'a'; 1024 * 1024]).await });
        while client.read_u8().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sends.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_reads_on_gets_all_and_owes_nothing_between_answers() {
        let (mut connection, mut client) = pair(&ClientLimits::USUAL);
        let mut space = vec![0; 200_000];
        let (written, read) =
            futures_util::join!(connection.write_all(&[b'a'; 200_000]), client.read_exact(&mut space));
        assert!(written.is_ok() && read.is_ok());
        assert!(connection.stuck.is_none(), "from now on no time counts");
    }

    #[tokio::test]
    async fn what_comes_after_an_early_answer_is_thrown_away_for_a_while_and_up_to_so_much() {
        let end = |unread: bool| async move {
            let (mut connection, mut client) = pair(&ClientLimits::USUAL);
            connection.place.state().left_unread = unread;
            let sends = tokio::spawn(async move {
                let mut sent = 0;
                while client.write_all(&[b'a'; 1_024]).await.is_ok() {
                    sent += 1_024;
                }
                sent
            });
            poll_fn(|cx| Pin::new(&mut connection).poll_shutdown(cx)).await.unwrap();
            drop(connection);
            sends.await.unwrap()
        };
        let sent = end(true).await;
        assert!((THROWN_AWAY..THROWN_AWAY + 8_192).contains(&sent), "{sent}");
        assert!(end(false).await <= 2_048);

        let linger = Duration::from_millis(20);
        let (mut connection, _silent) = pair(&ClientLimits { linger, ..ClientLimits::USUAL });
        connection.place.state().left_unread = true;
        let started = Instant::now();
        poll_fn(|cx| Pin::new(&mut connection).poll_shutdown(cx)).await.unwrap();
        assert!(started.elapsed() >= linger);
    }
}
