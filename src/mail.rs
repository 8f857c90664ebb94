//! The way to the mail server: one conversation for all mails of a request, and none after its deadline.

pub mod letter;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead as _, AsyncWrite as _};

use lettre::Message;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
#[expect(deprecated, reason = "it is the only way to both kinds of TLS that lets us read what is sent")]
use lettre::transport::smtp::client::AsyncNetworkStream;
use lettre::transport::smtp::client::{AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};

use crate::config::{Encryption, Mail};
use crate::limits::MAIL_DEADLINE;

/// Why a mail was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// By the mail server, whose words are told to nobody: they may have the address, or more.
    Refused {
        code: u16,
        status: Option<String>,
    },
    /// The address is in letters that the mail server cannot send to.
    WrongAddress,
    Unreachable,
}

impl Failure {
    fn of(error: &SmtpError) -> Self {
        match error.status() {
            Some(code) => {
                let words = error.source().map(ToString::to_string).unwrap_or_default();
                Self::Refused { code: code.into(), status: enhanced_status(&words).map(str::to_owned) }
            }
            None => Self::Unreachable,
        }
    }
}

/// The status with which the words of a mail server may begin (RFC 3463), such as `5.1.1`.
fn enhanced_status(words: &str) -> Option<&str> {
    let status = words.split_whitespace().next()?;
    let parts: Vec<&str> = status.split('.').collect();
    let is_number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (parts.len() == 3 && ["2", "4", "5"].contains(&parts[0]) && parts.iter().all(is_number)).then_some(status)
}

/// A conversation with the mail server, which begins with the first mail.
pub struct Post<'a> {
    server: &'a Mail,
    deadline: Instant,
    connection: Option<AsyncSmtpConnection>,
    /// What keeps every mail from being sent.
    failed: Option<Failure>,
}

impl<'a> Post<'a> {
    pub fn new(server: &'a Mail) -> Self {
        Self { server, deadline: Instant::now() + MAIL_DEADLINE, connection: None, failed: None }
    }

    /// Hands a mail to the server, which has taken it then.
    pub async fn send(&mut self, message: &Message) -> Result<(), Failure> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let outcome = timeout_at(self.deadline, self.hand_over(message)).await;
        outcome.unwrap_or_else(|_| {
            tracing::warn!("the mail server is too slow");
            self.connection = None;
            Err(self.failed.insert(Failure::Unreachable).clone())
        })
    }

    async fn hand_over(&mut self, message: &Message) -> Result<(), Failure> {
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && !connection.test_connected().await
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => connect(self.server).await.map_err(|failure| self.failed.insert(failure).clone())?,
        };
        let envelope = message.envelope();
        let is_ascii = envelope.to().iter().all(|address| AsRef::<str>::as_ref(address).is_ascii());
        match connection.send(envelope, &message.formatted()).await {
            Ok(_) => {
                self.connection = Some(connection);
                Ok(())
            }
            // Before anything was told to the server.
            Err(error) if error.is_client() && !is_ascii => {
                self.connection = Some(connection);
                Err(Failure::WrongAddress)
            }
            // It is closed; the next mail opens another.
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Ends the conversation as one should; what was taken stays so also where this fails.
    pub async fn end(mut self) {
        if let Some(connection) = &mut self.connection {
            let _ = timeout_at(self.deadline, connection.quit()).await;
        }
    }
}

/// Opens a conversation that is as safe as it has to be. What fails here concerns every mail, so the log has it: no address
/// was told yet.
async fn connect(server: &Mail) -> Result<AsyncSmtpConnection, Failure> {
    converse(server).await.map_err(|error| {
        let failure = Failure::of(&error);
        match &failure {
            Failure::Refused { code, status } => {
                tracing::warn!(
                    smtp.code = code,
                    smtp.status = status.as_deref(),
                    "the mail server refuses the service"
                );
            }
            // Its words, when they are no reply, may be ours, and those hold the password.
            _ if error.is_response() => tracing::warn!("the mail server does not speak SMTP"),
            _ => tracing::warn!(cause = %error, "the mail server is not reachable"),
        }
        failure
    })
}

async fn converse(server: &Mail) -> Result<AsyncSmtpConnection, SmtpError> {
    let hello = ClientId::Domain(server.from.email.domain().to_owned());
    let tls = match server.encryption {
        Encryption::None => None,
        Encryption::Tls | Encryption::StartTls => Some(tls(server)?),
    };
    let at_once = tls.clone().filter(|_| server.encryption == Encryption::Tls);
    let place = (server.host.as_str(), server.port);
    let way = Way::to(place, at_once).await?;
    let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(way), &hello).await?;
    if server.encryption == Encryption::StartTls
        && let Some(tls) = tls
    {
        connection.starttls(tls, &hello).await?;
    }
    if let Some((user, password)) = &server.login {
        let login = Credentials::new(user.clone(), password.clone());
        connection.auth(DEFAULT_MECHANISMS, &login).await?;
    }
    Ok(connection)
}

/// The way that a conversation takes. It ends where the server talks on and on: lettre reads a line to its end and a reply from its
/// beginning with each line, so that whoever sends without end would have all memory and a worker for itself.
#[derive(Debug)]
struct Way {
    #[expect(deprecated, reason = "see above")]
    stream: AsyncNetworkStream,
    /// Bytes that the server has sent since it was told something.
    read: usize,
    /// Whether others had their turn since.
    rested: bool,
}

/// What a server may send at once, in bytes: a reply, or its certificates.
const LONGEST_REPLY: usize = 16 * 1024;
/// What is read of it before others have their turn, and the deadline its say.
const PART: usize = 512;

impl Way {
    /// Opens it, with TLS from the beginning where there are parameters of it.
    async fn to(place: (&str, u16), tls: Option<TlsParameters>) -> Result<Self, SmtpError> {
        #[expect(deprecated, reason = "see above")]
        let stream = AsyncNetworkStream::connect_tokio1(place, None, tls, None).await?;
        Ok(Self { stream, read: 0, rested: false })
    }
}

impl AsyncRead for Way {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read > LONGEST_REPLY {
            return Poll::Ready(Err(io::Error::other("a reply without end")));
        }
        if !std::mem::replace(&mut self.rested, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let part = to.initialize_unfilled_to(to.remaining().min(PART));
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, part))?;
        to.advance(read);
        self.read += read;
        self.rested = false;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Way {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.read = 0;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}

impl AsyncTokioStream for Way {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

/// What the server's certificate is held against.
fn tls(server: &Mail) -> Result<TlsParameters, SmtpError> {
    let mut builder = TlsParameters::builder(server.host.clone());
    if let Some(file) = &server.root_cert {
        let authorities = std::fs::read(file).unwrap_or_default();
        builder = builder.add_root_certificate(Certificate::from_pem(&authorities)?);
    }
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_mail_servers_words_the_status_alone_is_told() {
        for (words, status) in [
            ("5.1.1 <ana@example.org>: no such user", Some("5.1.1")),
            ("4.7.650", Some("4.7.650")),
            ("no such user ana@example.org", None),
            ("5.1 x", None),
            ("5.1.1.1 x", None),
            ("3.1.1 x", None),
            ("5.1.a x", None),
            ("", None),
        ] {
            assert_eq!(enhanced_status(words), status, "{words}");
        }
    }
}
