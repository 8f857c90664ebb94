//! A way to the database that can break.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Connections reach the database.
    Forward,
    /// The open ones are closed and new ones refused.
    Refuse,
    /// All connections, open and new, take what is sent and never answer.
    Swallow,
}

#[derive(Clone, Copy)]
struct State {
    mode: Mode,
    /// How often the connections that were open ceased to lead anywhere.
    losses: u32,
}

/// Listens on a port of its own and passes on what comes, until it is dropped.
pub struct Proxy {
    pub address: SocketAddr,
    state: watch::Sender<State>,
}

impl Proxy {
    pub async fn start(database: SocketAddr, mode: Mode) -> Self {
        let state = watch::Sender::new(State { mode, losses: 0 });
        let listener = listen().await;
        let address = listener.local_addr().expect("a listener has an address");
        tokio::spawn(accept(listener, address, database, state.subscribe()));
        Self { address, state }
    }

    pub fn switch(&self, mode: Mode) {
        self.state
            .send_modify(|state| *state = State { mode, losses: state.losses + u32::from(mode == Mode::Swallow) });
    }

    /// Lets the open connections lead nowhere and tells neither side, as a firewall does that forgets them.
    pub fn lose_open_connections(&self) {
        self.state.send_modify(|state| state.losses += 1);
    }
}

/// Takes a port below those of outgoing connections, so that it is still free when it is opened again.
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
    let State { mode, losses } = *state.borrow_and_update();
    let mut refused = state.clone();
    let pass = async {
        // Held to the end: the database is not told either.
        let mut server = None;
        if mode == Mode::Forward {
            let server = server.insert(TcpStream::connect(database).await.expect("the database itself is there"));
            tokio::select! {
                // Looks at this first: what is sent after the loss does not slip through.
                biased;
                _ = state.wait_for(|state| state.losses != losses) => {}
                _ = tokio::io::copy_bidirectional(&mut client, server) => return,
            }
        }
        let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
    };
    tokio::select! {
        biased;
        _ = refused.wait_for(|state| state.mode == Mode::Refuse) => {}
        () = pass => {}
    }
}
