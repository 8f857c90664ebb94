//! The endpoints, one file per resource. An endpoint reads straight down: parse, authorise, call the store, respond.

pub mod actions;
pub mod attendance;
pub mod batches;
pub mod events;
pub mod guests;
pub mod imports;
pub mod keys;
pub mod mails;
pub mod manifest;
pub mod pages;
pub mod scans;
pub mod stats;
pub mod system;
pub mod tickets;
pub mod users;
pub mod walk_ups;
