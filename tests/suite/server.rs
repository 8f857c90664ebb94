//! The real program on a loopback port, for what only a process can show.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use register_ticket_api::config::SETTINGS;
use serde_json::Value;

use crate::client::Client;
use crate::database::TestDatabase;
use crate::service::ORGANIZER_KEY;

/// A running server, which is stopped when this is dropped.
pub struct Server {
    process: Child,
    pub base_url: String,
}

impl Server {
    /// Starts a server on a database and waits until it listens.
    pub fn start(database: &TestDatabase, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_register-ticket-api"));
        for setting in SETTINGS {
            command.env_remove(setting.variable);
        }
        command
            .envs(database.environment())
            .envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("LOG_FORMAT", "json"), ("ORGANIZER_KEY", ORGANIZER_KEY)])
            .envs(settings.iter().copied());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program starts");

        let mut log = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let address = log.by_ref().map_while(Result::ok).find_map(|line| {
            let line: Value = serde_json::from_str(&line).ok()?;
            if line["message"] == "listening" { Some(line["address"].as_str()?.to_owned()) } else { None }
        });
        let base_url = format!("http://{}", address.expect("the server says where it listens before it ends"));
        // A full pipe would stop the server.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, base_url }
    }

    pub fn client(&self) -> Client {
        Client::remote(&self.base_url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, as a platform stops it, so that a coverage run hears of it too.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
