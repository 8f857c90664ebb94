//! The rules of the service, each proven on SQLite and on PostgreSQL. A test calls `App::handle` like any entry point,
//! has its own database, sets the clock, and never writes a row behind the service's back.

#[macro_use]
mod macros {
    /// Turns each rule, an `async fn(Service)`, into one test per database: `sqlite::rule` and `postgres::rule`. A rule
    /// that is not listed is an unused function, which the lints reject.
    macro_rules! on_both_databases {
        ($($rule:ident),+ $(,)?) => {
            mod sqlite {
                use $crate::{database::Kind, service::Service};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $rule() {
                        super::$rule(Service::start(Kind::Sqlite).await).await;
                    }
                )+
            }
            mod postgres {
                use $crate::{database::Kind, service::Service};
                $(
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $rule() {
                        super::$rule(Service::start(Kind::Postgres).await).await;
                    }
                )+
            }
        };
    }
}

mod client;
mod database;
mod openapi;
mod process;
mod proxy;
mod service;

mod actions;
mod attempts;
mod backups;
mod batches;
mod bodies;
mod check;
mod commands;
mod conflicts;
mod connections;
mod deletions;
mod documents;
mod durability;
mod enrolment;
mod evening;
mod events;
mod exports;
mod failures;
mod faults;
mod fixtures;
mod forgetting;
mod fuzz;
mod guests;
mod hostile;
mod imports;
mod incidents;
mod issues;
mod keys;
mod lambda;
mod links;
mod log;
mod losses;
mod mails;
mod manifest;
mod migrations;
mod model;
mod once;
mod pages;
mod party;
mod printed;
mod printed_list;
mod privileges;
mod races;
mod reentry;
mod refusals;
mod registration;
mod remote;
mod replays;
mod requests;
mod roles;
mod scans;
mod search;
mod secret;
mod servers;
mod sides;
mod slow;
mod smoke;
mod sql_files;
mod stats;
mod stopping;
mod stranded;
mod system;
mod tickets;
mod times;
mod told;
mod transport;
mod undo;
mod users;
mod walk_ups;
mod wallet;
