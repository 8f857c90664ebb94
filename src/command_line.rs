//! The command line. Each subcommand is one call into the library.

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
    /// Answer requests on a port or on AWS Lambda; the default without a subcommand
    Serve,
    /// Serve a temporary database, and print commands to try it with
    Demo,
    /// Migrate the database's schema to this release; SQLite does not need it
    Migrate,
    /// Create, list and revoke the keys of gates, supervisors and organizers
    #[command(subcommand)]
    Keys(keys::Command),
    /// Create the tickets of a CSV or .xlsx file, all or none
    Import(import::Arguments),
    /// Mail an event's tickets to their holders, one mail to each person
    Mail(mail::Arguments),
    /// Export an event's tickets, scans, attendance or who is inside as CSV
    Export(export::Arguments),
    /// Forget the people of events whose `forget_after_days` have passed since their end
    Forget(forget::Arguments),
    /// Back up the database while it is in use, or rehearse the restore of a backup
    Backup(backup::Arguments),
    /// Restore a backup into an empty database, and describe its contents
    Restore(restore::Arguments),
    /// Check that the data is consistent, and report what is not
    Check,
    /// Run a read-only SQL statement, and print its result as a table
    Query(query::Arguments),
    /// Set or change TICKET_SECRET: every ticket that is not used up gets new codes
    ChangeSecret(change_secret::Arguments),
    /// Print the code that a ticket's holder would show now
    Code(code::Arguments),
    /// Check that the service on this machine answers; for containers
    Healthcheck,
    /// Test a running service from end to end, with a ticket and a person of its own
    Smoke(smoke::Arguments),
}

/// Runs the subcommand that the process's arguments name.
pub fn run() -> ExitCode {
    // Without arguments, skip clap: building the help of all subcommands would delay a cold start.
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
