//! A TCP proxy in front of the database that can break.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards connections to the database.
    Forward,
    /// Closes open connections and refuses new ones.
    Refuse,
    /// Accepts what open and new connections send, and never answers.
    Swallow,
    /// Forwards connections and delays each message in either direction by this long.
    Delay(Duration),
}

impl Mode {
    fn delay(self) -> Option<Duration> {
        match self {
            Self::Forward => Some(Duration::ZERO),
            Self::Delay(delay) => Some(delay),
            Self::Refuse | Self::Swallow => None,
        }
    }
}

#[derive(Clone, Copy)]
struct State {
    mode: Mode,
    /// How often the open connections were lost.
    losses: u32,
    /// How often answers were lost, and after how many that still arrive.
    lost_answers: (u32, u32),
}

/// Listens on its own port and forwards, until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    pub async fn start(database: SocketAddr, mode: Mode) -> Self {
        let state = watch::Sender::new(State { mode, losses: 0, lost_answers: (0, 0) });
        let listener = listen().await;
        let address = listener.local_addr().expect("a listener has an address");
        tokio::spawn(accept(listener, address, database, state.subscribe()));
        Self { address, state }
    }

    pub fn switch(&self, mode: Mode) {
        self.state.send_modify(|state| {
            state.mode = mode;
            state.losses += u32::from(mode == Mode::Swallow);
        });
    }

    /// Makes each open connection lose an answer, after this many that still arrive, and then closes it: the request
    /// was executed, but its sender does not know.
    pub fn lose_an_answer(&self, after: u32) {
        self.state.send_modify(|state| state.lost_answers = (state.lost_answers.0 + 1, after));
    }

    /// Makes the open connections lead nowhere without notifying either side, like a firewall that forgets them.
    pub fn lose_open_connections(&self) {
        self.state.send_modify(|state| state.losses += 1);
    }
}

/// Takes a port below the range of outgoing connections, so that it is still free when reopened.
async fn listen() -> TcpListener {
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("the system has random bytes");
        let port = 20_000 + u16::from_ne_bytes(random) % 12_000;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
            return listener;
        }
    }
}

/// Returns, with an error, when the proxy is dropped.
async fn accept(
    mut listener: TcpListener,
    address: SocketAddr,
    database: SocketAddr,
    mut state: watch::Receiver<State>,
) -> Result<(), watch::error::RecvError> {
    loop {
        if state.borrow_and_update().mode == Mode::Refuse {
            drop(listener);
            state.wait_for(|state| state.mode != Mode::Refuse).await?;
            listener = TcpListener::bind(address).await.expect("nobody else takes the port");
        }
        tokio::select! {
            changed = state.changed() => changed?,
            accepted = listener.accept() => {
                let (client, _) = accepted.expect("a connection can be accepted");
                tokio::spawn(serve(client, database, state.clone()));
            }
        }
    }
}

async fn serve(mut client: TcpStream, database: SocketAddr, mut state: watch::Receiver<State>) {
    let State { mode, losses, .. } = *state.borrow_and_update();
    let mut refused = state.clone();
    let pass = async {
        // Held until the end, so that the database is not notified either.
        let mut server = None;
        // The database itself may be away.
        if mode.delay().is_some()
            && let Ok(connected) = TcpStream::connect(database).await
        {
            let server = server.insert(connected);
            let rest = state.clone();
            tokio::select! {
                // Checked first, so that nothing sent after the loss slips through.
                biased;
                _ = state.wait_for(|state| state.losses != losses) => {}
                () = pass_on(&mut client, server, rest) => return,
            }
        } else if mode.delay().is_some() {
            return;
        }
        let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
    };
    tokio::select! {
        biased;
        _ = refused.wait_for(|state| state.mode == Mode::Refuse) => {}
        () = pass => {}
    }
}

/// Forwards both directions until one side ends or an answer is lost.
async fn pass_on(client: &mut TcpStream, server: &mut TcpStream, state: watch::Receiver<State>) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let (mut of_answers, mut seen) = (state.clone(), state.borrow().lost_answers.0);
    let mut left = None;
    let is_lost = || {
        let (times, after) = of_answers.borrow_and_update().lost_answers;
        if times != seen {
            (seen, left) = (times, Some(after));
        }
        let is_lost = left == Some(0);
        left = left.map(|left: u32| left.saturating_sub(1));
        is_lost
    };
    tokio::select! {
        () = copy(&mut from_client, &mut to_server, &state, || false) => {}
        () = copy(&mut from_server, &mut to_client, &state, is_lost) => {}
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    state: &watch::Receiver<State>,
    mut is_lost: impl FnMut() -> bool,
) {
    let mut message = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut message).await {
        if is_lost() {
            return;
        }
        let delay = state.borrow().mode.delay().unwrap_or_default();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&message[..length]).await.is_err() {
            return;
        }
    }
}
