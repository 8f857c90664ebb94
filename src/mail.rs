//! The connection to the mail server: one SMTP session for all mails of a request, with one deadline.

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

/// Why a mail was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The mail server rejected it. Its text is not passed on, because it may contain the address, or more.
    Refused {
        code: u16,
        status: Option<String>,
    },
    /// The address has characters that the mail server does not support.
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

/// Returns the enhanced status (RFC 3463) at the start of a mail server's text, such as `5.1.1`.
fn enhanced_status(words: &str) -> Option<&str> {
    let status = words.split_whitespace().next()?;
    let parts: Vec<&str> = status.split('.').collect();
    let is_number = |part: &&str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    (parts.len() == 3 && ["2", "4", "5"].contains(&parts[0]) && parts.iter().all(is_number)).then_some(status)
}

/// A session with the mail server, which begins with the first mail.
pub struct Post<'a> {
    server: &'a Mail,
    deadline: Instant,
    connection: Option<AsyncSmtpConnection>,
    /// A failure that applies to every mail.
    failed: Option<Failure>,
}

impl<'a> Post<'a> {
    pub fn new(server: &'a Mail) -> Self {
        Self { server, deadline: Instant::now() + MAIL_DEADLINE, connection: None, failed: None }
    }

    /// Sends a mail. If it succeeds, the server has accepted the mail.
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
            // Nothing has been sent to the server yet.
            Err(error) if error.is_client() && !is_ascii => {
                self.connection = Some(connection);
                Err(Failure::WrongAddress)
            }
            // The session is closed; the next mail opens another.
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Ends the session properly. Mails that were accepted stay so even if this fails.
    pub async fn end(mut self) {
        if let Some(connection) = &mut self.connection {
            let _ = timeout_at(self.deadline, connection.quit()).await;
        }
    }
}

/// Opens a session with the required encryption. A failure here affects every mail, and is logged, since no address has been
/// sent yet.
async fn connect(server: &Mail) -> Result<AsyncSmtpConnection, Failure> {
    converse(server).await.map_err(|error| {
        let failure = Failure::of(&error);
        match &failure {
            Failure::Refused { code, status } => {
                tracing::warn!(
                    smtp.code = code,
                    smtp.status = status.as_deref(),
                    "the mail server rejects the service"
                );
            }
            // Text that is not a valid reply may echo ours, which includes the password.
            _ if error.is_response() => tracing::warn!("the mail server does not speak SMTP"),
            _ => tracing::warn!(cause = %error, "the mail server cannot be reached"),
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

/// The transport of a session, which fails on an endless reply. lettre reads whole lines, and parses a reply from its beginning
/// for each line, so a server that never stops sending would take all memory and a worker.
#[derive(Debug)]
struct Way {
    #[expect(deprecated, reason = "see above")]
    stream: AsyncNetworkStream,
    /// Bytes received since the last write.
    read: usize,
    /// Whether it has yielded since the last read.
    rested: bool,
}

/// Maximum number of bytes that a server may send in a row: a reply, or its certificates.
const LONGEST_REPLY: usize = 16 * 1024;
/// Bytes read before yielding to other tasks and to the deadline.
const PART: usize = 512;

impl Way {
    /// Connects, with TLS from the start if there are parameters for it.
    async fn to(place: (&str, u16), tls: Option<TlsParameters>) -> Result<Self, SmtpError> {
        #[expect(deprecated, reason = "see above")]
        let stream = AsyncNetworkStream::connect_tokio1(place, None, tls, None).await?;
        Ok(Self { stream, read: 0, rested: false })
    }
}

impl AsyncRead for Way {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read > LONGEST_REPLY {
            return Poll::Ready(Err(io::Error::other("endless reply")));
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

/// Returns the parameters for verifying the server's certificate.
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
