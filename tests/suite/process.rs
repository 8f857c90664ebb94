//! The service as it runs in production: the binary in its own process, and plain sockets to send it any bytes.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};

use crate::client::{Client, Reply};
use crate::service::ORGANIZER_KEY;

/// Long enough for anything that happens at all, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The interval between two checks of an awaited condition.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Repeats `ask` until it returns something; fails if that takes longer than `deadline`.
pub async fn within<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let answer = tokio::time::timeout(deadline, answer).await;
    answer.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"))
}

/// The running binary. It gets only the given environment, and is stopped on drop.
pub struct Process {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it without arguments: it serves.
    pub fn start(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::command(&[], environment)
    }

    pub fn command(arguments: &[&str], environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::through(&[], arguments, environment)
    }

    /// Runs it through another program, which becomes it: `through` is that program and its first arguments.
    fn through(through: &[&str], arguments: &[&str], environment: impl IntoIterator<Item = (String, String)>) -> Self {
        // What the coverage report needs, and where programs are found.
        let ours = ["LLVM_PROFILE_FILE", "PATH"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let words = [through, &[env!("CARGO_BIN_EXE_register-ticket-api")], arguments].concat();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env_clear()
            .envs(ours)
            .env("ORGANIZER_KEY", ORGANIZER_KEY)
            .envs(environment.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value))))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", words[0]));
        let log = Arc::default();
        let (output, errors) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![keep_lines(output, Arc::clone(&log)), keep_lines(errors, Arc::clone(&log))];
        Self { child, log, readers }
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no reader panics").clone()
    }

    /// Waits for a log line that contains `part`.
    pub async fn logged(&self, part: &str) -> String {
        let find = async || self.log().lines().find(|line| line.contains(part)).map(str::to_owned);
        within(PATIENCE, &format!("`{part}` in the log"), find).await
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", "kill -$0 \"$1\"", name, &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} is sent");
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Waits for the end of the process and of its log.
    pub async fn ended(&mut self, deadline: Duration) -> ExitStatus {
        let ask = async || self.child.try_wait().expect("a child can be asked");
        let status = within(deadline, "the end of the process", ask).await;
        self.readers.drain(..).for_each(|reader| reader.join().expect("no reader panics"));
        status
    }

    /// Its resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        let ps = Command::new("ps").args(["-o", "rss=", "-p", &self.id().to_string()]).output().expect("ps runs");
        let kibibytes: u64 = String::from_utf8_lossy(&ps.stdout).trim().parse().expect("a number");
        kibibytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.terminate(); // Not killed, so that it writes what the coverage report needs.
            let end = Instant::now() + Duration::from_secs(1);
            while self.is_running() && Instant::now() < end {
                std::thread::sleep(LOOK_AGAIN);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("The end of the service's log:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

fn keep_lines(output: impl io::Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = log.lock().expect("no reader panics");
            log.push_str(&line);
            log.push('\n');
        }
    })
}

/// The service on its own port.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
}

impl Server {
    /// Starts it and waits until it listens.
    pub async fn start(environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self::through(&[], environment).await
    }

    /// The same through another program, which becomes it.
    pub async fn through(through: &[&str], environment: impl IntoIterator<Item = (String, String)>) -> Self {
        let listen = [("HOST", "127.0.0.1"), ("PORT", "0")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut process = Process::through(through, &[], environment.into_iter().chain(listen));
        // The service chooses the port and logs it, so that nobody can take it meanwhile.
        let address = within(PATIENCE, "the service listens", async || {
            assert!(process.is_running(), "the service ended");
            let log = process.log();
            let port = log.lines().find(|line| line.contains("listening"))?.split("127.0.0.1:").nth(1)?;
            let digits = port.split(|character: char| !character.is_ascii_digit()).next()?;
            Some(SocketAddr::from(([127, 0, 0, 1], digits.parse().ok()?)))
        });
        let address = address.await;
        let server = Self { process, address };
        server.is_well().await;
        server
    }

    /// A client without a key.
    pub fn anonymous(&self) -> Client {
        Client::remote(&format!("http://{}", self.address))
    }

    /// A client with `ORGANIZER_KEY`.
    pub fn organizer(&self) -> Client {
        self.anonymous().with_key(ORGANIZER_KEY)
    }

    /// Asserts that it answers and that no endpoint panicked.
    pub async fn is_well(&self) {
        self.anonymous().get("/health").await.is(200);
        assert!(!self.process.log().contains("panic"), "{}", self.process.log());
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address).expect("the service takes connections")
    }

    /// Sends bytes on a new connection and reads one answer; `None` if the connection is closed without one.
    pub fn exchange(&self, bytes: &[u8]) -> Option<Reply> {
        let mut connection = self.connect();
        connection.send(bytes);
        connection.reply("GET")
    }
}

/// A connection that can send any bytes.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).map(Self::of)
    }

    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket can be set");
        stream.set_nodelay(true).expect("a socket can be set");
        Self(BufReader::new(stream))
    }

    /// Sends bytes. Returns whether the service accepted all: it may answer and close earlier.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).is_ok()
    }

    /// Reads the answer to a request with this method; `None` if the connection ends without a complete one.
    pub fn reply(&mut self, method: &str) -> Option<Reply> {
        match self.read_reply(method) {
            Ok(reply) => Some(reply),
            Err(error) if is_timeout(&error) => panic!("neither an answer nor an end within {PATIENCE:?}"),
            Err(_) => None,
        }
    }

    /// The same with a time limit: `None` also if it is exceeded.
    pub fn reply_within(&mut self, patience: Duration, method: &str) -> Option<Reply> {
        self.0.get_ref().set_read_timeout(Some(patience)).expect("a socket can be set");
        self.read_reply(method).ok()
    }

    /// Waits until the service asks for the body of a request with `Expect: 100-continue`.
    pub fn is_told_to_continue(&mut self) {
        let (start, _) = read_head(&mut self.0).expect("an interim answer");
        assert_eq!(start, "HTTP/1.1 100 Continue");
    }

    /// Waits for the end of the connection and returns the bytes before it.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Err(error) if is_timeout(&error) => panic!("no end within {PATIENCE:?}"),
            _ => rest,
        }
    }

    fn read_reply(&mut self, method: &str) -> io::Result<Reply> {
        let (start, headers) = read_head(&mut self.0)?;
        let status = start.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status: StatusCode = status.ok_or(io::ErrorKind::InvalidData)?;
        let without_body = method == "HEAD" || status == 204 || status == 304;
        let body = if without_body { Vec::new() } else { read_body(&mut self.0, &headers)? };
        let sent_bytes = body.len();
        Ok(Reply { status, headers, body, sent_bytes })
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The bytes of a complete request by the organizer.
pub fn request(method: &str, path: &str, media_type: &str, body: &str) -> Vec<u8> {
    format!("{}content-length: {}\r\n\r\n{body}", head(method, path, media_type), body.len()).into_bytes()
}

/// The head of a request by the organizer, without its end.
pub fn head(method: &str, path: &str, media_type: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {ORGANIZER_KEY}\r\n\
         content-type: {media_type}\r\n"
    )
}

/// Reads the first line of a message and its headers.
pub fn read_head(stream: &mut impl BufRead) -> io::Result<(String, HeaderMap)> {
    let start = read_line(stream)?;
    let mut headers = HeaderMap::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            return Ok((start, headers));
        }
        let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
        let name: http::HeaderName = name.parse().map_err(io::Error::other)?;
        headers.append(name, value.trim().parse().map_err(io::Error::other)?);
    }
}

/// Reads the body that the headers announce, or everything if they announce none.
pub fn read_body(stream: &mut impl BufRead, headers: &HeaderMap) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers.contains_key(TRANSFER_ENCODING) {
        loop {
            let length = usize::from_str_radix(&read_line(stream)?, 16).map_err(io::Error::other)?;
            let start = body.len();
            body.resize(start + length, 0);
            stream.read_exact(&mut body[start..])?;
            read_line(stream)?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
    match headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()) {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None => {
            stream.read_to_end(&mut body)?;
        }
    }
    Ok(body)
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match stream.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
