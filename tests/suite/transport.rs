//! The connection to PostgreSQL: with TLS, the service and PostgreSQL's programs talk only to the intended server.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::commands::{Directory, Run, on};
use crate::database::Kind;
use crate::process::{PATIENCE, Process, Server};
use crate::service::Service;
use crate::smoke::certificates;

/// What a client sends first to request TLS: the message length and a number (PostgreSQL's manual, 55.2.10).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Listens like a PostgreSQL with TLS, with a certificate for `localhost`, in front of one without.
async fn with_tls(database: SocketAddr, tls: Arc<rustls::ServerConfig>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
    let port = listener.local_addr().expect("a listener has an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let tls = rustls::ServerConnection::new(Arc::clone(&tls)).expect("the certificate fits its key");
            // A client that does not trust us hangs up.
            tokio::spawn(async move { pass_on(client, database, tls).await.ok() });
        }
    });
    port
}

async fn pass_on(mut client: TcpStream, database: SocketAddr, mut tls: rustls::ServerConnection) -> io::Result<()> {
    let mut asked = [0; SSL_REQUEST.len()];
    client.read_exact(&mut asked).await?;
    if asked != SSL_REQUEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    client.write_all(b"S").await?;
    let mut server = TcpStream::connect(database).await?;
    let (mut encrypted, mut plain) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        while tls.wants_write() {
            let mut records = Vec::new();
            tls.write_tls(&mut records)?;
            client.write_all(&records).await?;
        }
        tokio::select! {
            read = client.read(&mut encrypted) => {
                let mut records = &encrypted[..read?];
                if records.is_empty() {
                    return Ok(());
                }
                while !records.is_empty() {
                    tls.read_tls(&mut records)?;
                    let state = tls.process_new_packets().map_err(io::Error::other)?;
                    let mut text = vec![0; state.plaintext_bytes_to_read()];
                    tls.reader().read_exact(&mut text)?;
                    server.write_all(&text).await?;
                }
            }
            read = server.read(&mut plain) => match read? {
                0 => return Ok(()),
                length => tls.writer().write_all(&plain[..length])?,
            },
        }
    }
}

/// A service's database behind TLS, and the file of the authority that signed its certificate.
struct Secured {
    service: Service,
    directory: Directory,
    port: u16,
}

impl Secured {
    async fn start() -> Self {
        let service = Service::start(Kind::Postgres).await;
        let directory = Directory::new();
        let tls = certificates(&directory.0);
        let url = service.database.url();
        let database = url.split(['@', '/']).nth(3).and_then(|address| address.parse().ok()).expect("an address");
        let port = with_tls(database, tls).await;
        Self { service, directory, port }
    }

    /// The database's URL with this host name and these TLS parameters.
    fn url(&self, host: &str, query: &str) -> String {
        let url = self.service.database.url();
        let (login, place) = url.split_once('@').expect("a login");
        let name = place.split_once('/').expect("a database").1;
        let query = query.replace("OURS", self.directory.0.join("authority.pem").to_str().expect("UTF-8"));
        format!("{login}@{host}:{}/{name}?{query}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_server_that_is_meant_is_spoken_to() {
    let secured = Secured::start().await;
    let health =
        async |url: String| secured.service.another(&[("DATABASE_URL", &url)]).organizer.get("/api/events").await;
    let trusted = "sslmode=verify-full&sslrootcert=OURS";
    health(secured.url("localhost", trusted)).await.is(200);
    // A name other than the certificate's, and an authority that was not configured.
    health(secured.url("127.0.0.1", trusted)).await.is_refused(503, "database_unavailable");
    health(secured.url("localhost", "sslmode=verify-full")).await.is_refused(503, "database_unavailable");
    // A weaker mode checks less.
    health(secured.url("127.0.0.1", "sslmode=require")).await.is(200);
    // A server without TLS is not used either, and the settings have the same effect as the URL.
    let plain = [("DATABASE_URL", &*secured.service.database.url()), ("DB_SSLMODE", "verify-full")];
    secured.service.another(&plain).organizer.get("/api/events").await.is_refused(503, "database_unavailable");
    let authority = secured.directory.0.join("authority.pem");
    let url = secured.url("localhost", "");
    let by_settings = [
        ("DATABASE_URL", &*url),
        ("DB_SSLMODE", "verify-full"),
        ("DB_SSLROOTCERT", authority.to_str().expect("UTF-8")),
    ];
    secured.service.another(&by_settings).organizer.get("/api/events").await.is(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_says_why_a_server_is_not_spoken_to() {
    let secured = Secured::start().await;
    for (host, query, cause) in [
        ("127.0.0.1", "sslmode=verify-full&sslrootcert=OURS", "certificate not valid for name"),
        ("localhost", "sslmode=verify-full", "UnknownIssuer"),
    ] {
        let environment = [("DATABASE_URL".to_owned(), secured.url(host, query))];
        let server = Server::start(environment).await;
        server.organizer().get("/api/events").await.is_refused(503, "database_unavailable");
        let line = server.process.logged("database_unavailable").await;
        assert!(line.contains(cause), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_programs_of_postgresql_speak_to_no_other_server_either() {
    let secured = Secured::start().await;
    secured.service.ticket("A1").await;
    let backup = |host: &str, query: &str| {
        let mut command = on(&secured.service.database, &secured.directory, &["backup", "--to", "backups"]);
        // PGSSLMODE, which pg_dump would read, does not override the setting.
        Run::of(command.env("DATABASE_URL", secured.url(host, query)).env("PGSSLMODE", "disable"))
    };
    let said = tokio::task::block_in_place(|| backup("127.0.0.1", "sslmode=verify-full&sslrootcert=OURS")).failed(1);
    assert!(said.contains("does not match host name"), "{said}");
    let said = tokio::task::block_in_place(|| backup("localhost", "sslmode=verify-full")).failed(1);
    assert!(said.contains("certificate"), "{said}");
    let said = tokio::task::block_in_place(|| backup("localhost", "sslmode=verify-full&sslrootcert=OURS")).printed();
    assert!(said.contains("1 tickets"), "{said}");
}

#[tokio::test]
async fn a_weak_way_over_a_network_is_told_at_the_start() {
    const WARNING: &str = "set DB_SSLMODE, or sslmode in DATABASE_URL, to verify-full";
    let start = async |url: &str| {
        let settings = [("DATABASE_URL", url), ("HOST", "127.0.0.1"), ("PORT", "0")];
        let mut process = Process::start(settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
        process.logged("listening").await;
        process.terminate();
        process.ended(PATIENCE).await;
        process.log()
    };
    let log = start("postgres://somebody:a-password@192.0.2.1/tickets?sslmode=require").await;
    let line = log.lines().find(|line| line.contains(WARNING)).expect("it is said");
    assert!(line.contains("WARN") && line.contains("sslmode=\"require\""), "{line}");
    assert!(!log.contains("a-password"), "{log}");
    for url in ["postgres://somebody@192.0.2.1/tickets", "postgres://somebody@127.0.0.1:9/tickets?sslmode=disable"] {
        let log = start(url).await;
        assert!(!log.contains(WARNING), "{url}: {log}");
    }
}
