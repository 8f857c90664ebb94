//! A proxy in front of PostgreSQL that records the client's messages: round trips are counted and statements captured
//! rather than assumed.

use std::io::{Read as _, Result, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// A message from the client (PostgreSQL's documentation, "Message Formats"). The first ones have no kind: 0.
struct Message {
    kind: u8,
    body: Vec<u8>,
}

pub struct Proxy {
    pub port: u16,
    seen: Arc<Mutex<Vec<Message>>>,
}

/// What an accepted scan of this ticket sent to the database.
pub struct Capture {
    pub statements: Vec<Statement>,
    pub ticket_id: uuid::Uuid,
}

pub struct Statement {
    pub sql: String,
    pub parameters: Vec<Parameter>,
}

pub struct Parameter {
    pub cast: &'static str,
    /// Whether it is an array with the value as its only element.
    pub is_array: bool,
    /// The value as text; `None` is null.
    pub value: Option<String>,
}

impl Proxy {
    /// Forwards everything to a port, for as long as this program runs.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { port, seen: Arc::clone(&seen) };
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("127.0.0.1", to)).expect("PostgreSQL");
                for stream in [&client, &server] {
                    stream.set_nodelay(true).expect("a TCP option");
                }
                let (mut from, mut back) =
                    (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
                thread::spawn(move || std::io::copy(&mut from, &mut back));
                let seen = Arc::clone(&seen);
                // Ends with an error when the client disconnects.
                thread::spawn(move || pass_on(client, server, &seen));
            }
        });
        proxy
    }

    /// Restarts the count. Keeps the texts of statements, because they are sent only once.
    pub fn forget(&self) {
        self.seen().retain(|message| message.kind == b'P');
    }

    /// Counts the messages that wait for an answer: those without a kind (TLS request and session start), `p` (answer
    /// to a challenge), `Q` (query) and `S` (end of any other batch).
    pub fn round_trips(&self) -> usize {
        self.seen().iter().filter(|message| [0, b'p', b'Q', b'S'].contains(&message.kind)).count()
    }

    fn seen(&self) -> MutexGuard<'_, Vec<Message>> {
        self.seen.lock().expect("no thread panics with the lock")
    }

    /// Returns the executed statements.
    pub fn statements(&self) -> Vec<Statement> {
        let seen = self.seen();
        let of_kind = |kind| seen.iter().filter(move |message: &&Message| message.kind == kind);
        of_kind(b'B')
            .map(|bind| {
                let mut bind = Fields(&bind.body);
                let _portal = bind.text();
                let name = bind.text();
                let (sql, types) = of_kind(b'P')
                    .map(|parse| {
                        let mut parse = Fields(&parse.body);
                        (parse.text(), parse)
                    })
                    .filter(|(parsed, _)| *parsed == name)
                    .map(|(_, mut parse)| (parse.text(), (0..parse.u16()).map(|_| parse.u32()).collect::<Vec<_>>()))
                    .next_back()
                    .expect("a statement is parsed before it is bound");
                for _ in 0..bind.u16() {
                    assert_eq!(bind.u16(), 1, "parameters are binary");
                }
                assert_eq!(usize::from(bind.u16()), types.len());
                let parameters = types.into_iter().map(|type_id| bind.parameter(type_id)).collect();
                Statement { sql, parameters }
            })
            .collect()
    }
}

fn pass_on(mut client: TcpStream, mut server: TcpStream, seen: &Mutex<Vec<Message>>) -> Result<()> {
    let mut begun = false;
    loop {
        let mut kind = [0];
        if begun {
            client.read_exact(&mut kind)?;
        }
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut body)?;
        // A TLS request does not start the session; it has a number in place of the version.
        let begins = !begun && body.starts_with(&[0, 3]);
        let head = if begun { &kind[..] } else { &[] };
        let message = [head, &length, &body].concat();
        begun |= begins;
        seen.lock().expect("no thread panics with the lock").push(Message { kind: kind[0], body });
        server.write_all(&message)?;
    }
}

/// The fields of a message, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, number: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(number);
        self.0 = rest;
        taken
    }

    fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).expect("a text ends with a zero");
        let text = String::from_utf8(self.bytes(end).to_vec()).expect("UTF-8");
        self.bytes(1);
        text
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes(2).try_into().expect("2 bytes"))
    }

    fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes(4).try_into().expect("4 bytes"))
    }

    fn parameter(&mut self, type_id: u32) -> Parameter {
        let value = match self.u32() {
            u32::MAX => None,
            length => Some(self.bytes(length as usize)),
        };
        let (cast, show): (_, fn(&[u8]) -> String) = match type_id {
            16 | 1000 => ("boolean", |value| (value == [1]).to_string()),
            20 | 1016 => ("bigint", |value| i64::from_be_bytes(value.try_into().expect("8 bytes")).to_string()),
            25 | 1009 => ("text", |value| String::from_utf8(value.to_vec()).expect("UTF-8")),
            2950 | 2951 => ("uuid", |value| uuid::Uuid::from_slice(value).expect("16 bytes").to_string()),
            other => panic!("a parameter of type {other}: add it here"),
        };
        let is_array = [1000, 1016, 1009, 2951].contains(&type_id);
        let value = if is_array { value.and_then(|array| Fields(array).only_element()) } else { value };
        Parameter { cast, is_array, value: value.map(show) }
    }

    /// The only element of an array. Before it come dimensions, a null flag, type, length and first index.
    fn only_element(&mut self) -> Option<&'a [u8]> {
        assert_eq!([self.u32(), self.u32() & !1], [1, 0], "one dimension");
        self.u32();
        assert_eq!([self.u32(), self.u32()], [1, 1], "one scan goes alone");
        match self.u32() {
            u32::MAX => None,
            length => Some(self.bytes(length as usize)),
        }
    }
}
