//! Entry control for small events: tickets are registered to people, and each is validated once at the gate by a code
//! that changes every 30 seconds.
//!
//! # Map
//!
//! A request comes in through one of two entrances ([`serve`]) and goes through one function, [`app::App::handle`],
//! which finds its line in the route table, checks the key ([`auth`]) and calls one endpoint ([`endpoints`]). The
//! endpoint asks the database ([`store`]). The decision at the gate is a pure function ([`admission`]) of what the
//! database knows and of the code that was shown ([`totp`]).
//!
//! Around that: [`config`] (every setting), [`model`] (the words of the domain), [`request`], [`response`] and [`page`]
//! (bodies, answers, lists), [`sheet`] (CSV), [`error`] (every refusal), [`logs`], [`metrics`], [`backup`], and
//! [`commands`], the command line.
//!
//! # Invariants
//!
//! - A ticket is marked only if it is still at the version that the decision was made on.
//! - The mark and the row of the scan are committed together, and before the response.
//! - Nothing runs after the response.
//! - A request is decided by one reading of the clock, [`app::App::now`]; what it calls is told the time.
//! - No secret is in a log line, an error, or a `Debug` output.

pub mod admission;
pub mod app;
pub mod auth;
pub mod backup;
pub mod commands;
pub mod config;
pub mod endpoints;
pub mod error;
pub mod logs;
pub mod metrics;
pub mod model;
pub mod page;
pub mod pages;
pub mod request;
pub mod response;
pub mod serve;
pub mod sheet;
pub mod store;
pub mod totp;
