//! The command line: each subcommand is one call into the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{
    self, backup, change_secret, check, code, demo, export, forget, healthcheck, import, keys, mail, migrate, query,
    restore, serve, smoke,
};

/// Registers tickets to people and validates each one at the gate, exactly once, by a code that changes every 30 seconds.
#[derive(Parser)]
#[command(version, after_help = commands::settings_help())]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Answer requests, on a port or on AWS Lambda; what happens without a subcommand
    Serve,
    /// Serve a temporary database, and print the commands to try it with
    Demo,
    /// Bring the database's schema to this release; SQLite's needs no command
    Migrate,
    /// Make, list and revoke the keys of gates, supervisors and organizers
    #[command(subcommand)]
    Keys(keys::Command),
    /// Create the tickets of a CSV file, all or none
    Import(import::Arguments),
    /// Send an event's tickets to their holders by mail, each person one mail
    Mail(mail::Arguments),
    /// Write an event's tickets or scans as CSV, who is inside, or who came
    Export(export::Arguments),
    /// Forget the people of events that ended so many days ago as their `forget_after_days` says
    Forget(forget::Arguments),
    /// Back up the database while it is used, or rehearse the restoring of a backup
    Backup(backup::Arguments),
    /// Restore a backup where nothing is, and tell what it holds
    Restore(restore::Arguments),
    /// Look whether what is in the database fits together, and tell what does not
    Check,
    /// Answer an SQL statement that changes nothing as a table
    Query(query::Arguments),
    /// Set or change TICKET_SECRET: every ticket that is not used up gets new codes
    ChangeSecret(change_secret::Arguments),
    /// Print what a ticket's holder would show now
    Code(code::Arguments),
    /// Ask the service on this machine whether it answers; for containers
    Healthcheck,
    /// Try a running service from end to end, with a ticket and a person of its own
    Smoke(smoke::Arguments),
}

/// Does what the process's arguments say.
pub fn run() -> ExitCode {
    // A service that starts for a request does not make the help of all subcommands first.
    let command = if std::env::args_os().len() > 1 { CommandLine::parse().command } else { None };
    let outcome = match command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(),
        Command::Demo => demo::run(),
        Command::Migrate => migrate::run(),
        Command::Keys(command) => keys::run(command),
        Command::Import(arguments) => import::run(arguments),
        Command::Mail(arguments) => mail::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Forget(arguments) => forget::run(arguments),
        Command::Backup(arguments) => backup::run(arguments),
        Command::Restore(arguments) => restore::run(arguments),
        Command::Check => check::run(),
        Command::Query(arguments) => query::run(arguments),
        Command::ChangeSecret(arguments) => change_secret::run(arguments),
        Command::Code(arguments) => code::run(&arguments),
        Command::Healthcheck => healthcheck::run(),
        Command::Smoke(arguments) => smoke::run(arguments),
    };
    commands::exit_code(outcome)
}
