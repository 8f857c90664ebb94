//! The PostgreSQL that `scripts/bench` started: databases in it, and pgbench.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::wire::Capture;

pub struct Database {
    name: String,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("scripts/bench sets {name}"))
}

/// The PostgreSQL server's main process, if it runs on this machine and not in a container.
pub fn postmaster() -> Option<u32> {
    std::env::var("BENCH_POSTMASTER").ok()?.parse().ok()
}

/// Runs psql, or a program beside it, with this standard input.
fn run(program: &str, arguments: &str, input: &str) -> String {
    let psql = variable("TEST_PSQL");
    let path = psql.strip_suffix("psql").expect("TEST_PSQL ends with psql");
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {path}{program} {arguments}")])
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("a program that reads");
    let output = child.wait_with_output().expect("a program that ends");
    assert!(output.status.success(), "{program} {arguments}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

impl Database {
    /// Creates a database with the service's schema, from the same files that an operator applies with psql.
    pub fn create(name: &str) -> Self {
        let owners = variable("TEST_DATABASE_URL");
        run("psql", &format!("-Xq '{owners}' -v ON_ERROR_STOP=1"), &format!("create database {name}"));
        let database = Self { name: name.to_owned() };
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/sql/postgres");
        let entries = std::fs::read_dir(directory).expect("sql/postgres").flatten().map(|entry| entry.path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|end| end == "sql")).collect();
        files.sort();
        for file in files {
            let sql = std::fs::read_to_string(file).expect("an SQL file");
            database.psql(&format!("begin;\n{sql}\ncommit;")); // as `psql -1` does
        }
        database.psql(&format!("grant ticket_service to {}", variable("TEST_SERVICE_USER")));
        database
    }

    pub fn psql(&self, sql: &str) -> String {
        run("psql", &format!("-XqAt '{}' -v ON_ERROR_STOP=1", self.url_of_owner()), sql)
    }

    fn url_of_owner(&self) -> String {
        let url = variable("TEST_DATABASE_URL");
        format!("{}/{}", url.rsplit_once('/').expect("a URL with a database").0, self.name)
    }

    /// The URL with the service's login: over TCP, with SCRAM.
    pub fn url(&self) -> String {
        let owners = self.url_of_owner();
        let (_, place) = owners.split_once('@').expect("a URL with a login");
        format!("postgres://{}:{}@{place}", variable("TEST_SERVICE_USER"), variable("TEST_SERVICE_PASSWORD"))
    }

    /// The same, through a local port.
    pub fn url_through(&self, port: u16) -> String {
        let url = self.url();
        let (login, place) = url.split_once('@').expect("a URL with a login");
        format!("{login}@127.0.0.1:{port}/{}", place.split_once('/').expect("a URL with a database").1)
    }

    pub fn port(&self) -> u16 {
        let url = self.url();
        let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).map(|(port, _)| port);
        port.and_then(|port| port.parse().ok()).expect("a URL with a port")
    }
}

/// pgbench's event, so that neither it nor the service uses up the other's tickets.
pub const EVENT: &str = "pgbench";

/// Runs the statements of an accepted scan, as captured on the wire, with pgbench.
pub struct Pgbench<'a> {
    database: &'a Database,
    script: String,
    constants: String,
    tickets: u64,
    first: u64,
    scans: u64,
}

impl<'a> Pgbench<'a> {
    /// Copies the tickets of the event `default` into pgbench's, with numbers as ids, because pgbench's variables are
    /// numbers.
    pub fn prepare(database: &'a Database, scan: &Capture) -> Self {
        let counts = database.psql(
            "insert into tickets \
             (ticket_id, event_id, user_id, seat, gate, seed, version, created_at, changed_at, registered_at) \
             select lpad((row_number() over ())::text, 32, '0')::uuid, copy.event_id, t.user_id, t.seat || ' copy', t.gate, \
             t.seed, t.version, t.created_at, t.changed_at, t.registered_at \
             from events copy, tickets t join events e on e.event_id = t.event_id \
             where e.slug = 'default' and copy.slug = 'pgbench'; \
             select count(*) from tickets where seat like '% copy'; select count(*) from scans",
        );
        let mut counts = counts.lines().map(|count| count.parse().expect("a count"));
        let (tickets, scans) = (counts.next().unwrap_or(0), counts.next().unwrap_or(0));
        let mut script = String::from(
            "\\set turn :turn + 1\n\
             \\set ticket 1 + permute(:first + :turn * :clients + :client_id, :tickets, 42)\n\
             \\set scan random(1, 9000000000000000000)\n",
        );
        let mut constants = String::new();
        for number in 0..scan.statements.len() {
            script += &with_variables(number, scan, &mut constants);
        }
        Self { database, script, constants, tickets, first: 0, scans }
    }

    pub fn script(&self) -> &str {
        &self.script
    }

    /// Runs pgbench and returns the transactions per second.
    pub fn run(&mut self, clients: usize, seconds: u64) -> f64 {
        let arguments = format!(
            "-n -M prepared -c {clients} -j 1 -T {seconds} -f - -D turn=-1 -D clients={clients} -D first={} -D tickets={} {} '{}'",
            self.first,
            self.tickets,
            self.constants,
            self.database.url()
        );
        let report = run("pgbench", &arguments, &self.script);
        let number = |before: &str| {
            let rest = report.split_once(before).unwrap_or_else(|| panic!("{report}")).1;
            let number = rest.split(|character: char| !character.is_ascii_digit() && character != '.').next();
            number.and_then(|number| number.parse::<f64>().ok()).unwrap_or_else(|| panic!("{report}"))
        };
        let transactions = number("actually processed: ") as u64;
        // No client does 50 % more than the average, so from here on all tickets are unused.
        self.first += transactions * 3 / 2;
        assert!(self.first < self.tickets, "pgbench has used up its tickets");
        self.scans += transactions;
        // Every transaction must have done what an accepted scan does, or the comparison is void.
        let scans = "select count(*) from scans s join events e on e.event_id = s.event_id where e.slug = 'pgbench'";
        assert_eq!(self.database.psql(scans).trim(), self.scans.to_string(), "scans that pgbench has written");
        number("tps = ")
    }
}

/// A statement with pgbench's variables in place of its parameters.
fn with_variables(number: usize, scan: &Capture, constants: &mut String) -> String {
    // The first statement looks the scan up by its id.
    let scan_id = &scan.statements[0].parameters[1].value;
    let ticket_id = Some(scan.ticket_id.to_string());
    let statement = &scan.statements[number];
    let mut sql = statement.sql.clone();
    for (place, parameter) in statement.parameters.iter().enumerate().rev() {
        let cast = parameter.cast;
        let variable = match &parameter.value {
            None => format!("null::{cast}"),
            value if value == scan_id => "lpad(:scan::text, 32, '0')::uuid".to_owned(),
            value if *value == ticket_id => "lpad(:ticket::text, 32, '0')::uuid".to_owned(),
            Some(value) => {
                let name = format!("constant_{number}_{place}");
                *constants += &format!("-D {name}='{value}' ");
                format!(":{name}::{cast}")
            }
        };
        let variable = if parameter.is_array { format!("array[{variable}]") } else { variable };
        sql = sql.replace(&format!("${}", place + 1), &variable);
    }
    sql + ";\n"
}
