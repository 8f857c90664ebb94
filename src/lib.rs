//! Entry control for small events: tickets are registered to people, and each is validated once at the gate by a code
//! that changes every 30 seconds.
//!
//! # Map
//!
//! A request enters through one of two entrances ([`serve`], with its table of [`connections`]) and one function,
//! [`routes::handle`], which finds its route, checks the key ([`auth`]), reads the body and calls one endpoint
//! ([`endpoints`]). The endpoint queries the database ([`store`]). [`gate`] takes a scan from reading to writing, and [`door`]
//! admits people without a ticket. The decision is a pure function ([`admission`]) of the database's data and of the code
//! that was shown ([`totp`]).
//!
//! Around that: [`config`] (all settings), [`model`] (the domain types), [`request`], [`response`] and [`list`] (bodies,
//! responses, pages of lists), [`sheet`] (lists in, CSV out), [`error`] and [`fault`] (all errors, of a request and of a
//! field), [`fold`] (text as people read it), [`mail`] (letters and their transport), [`logs`], [`metrics`], [`quota`]
//! (limits per key and event), [`numbers`] (cached statistics), [`backup`], [`forgetting`], [`commands`] and [`command_line`].
//!
//! # Layers
//!
//! No file imports a file of a higher layer, or one that precedes it in its own layer. A test reads this list.
//!
//! ```text
//! main command_line commands                       the command line
//! openapi                                          the OpenAPI document, generated in tests
//! serve connections                                the two entrances; the connections of the port
//! routes                                           the route table, limits, handle(): who may call what
//! endpoints                                        one file per resource: parse, query, respond
//! door gate mail links wallet backup forgetting    walk-ups; scans; letters; addresses; passes; backups; erasure
//! request logs                                     the input of an endpoint; its log line
//! app                                              the state that all requests share
//! numbers quota auth sheet store pages             statistics; quotas; keys; lists; the database; templates and texts
//! admission totp                                   the decision and the codes, pure
//! list response metrics model error                the foundation
//! fault config limits fold
//! ```
//!
//! # Invariants
//!
//! - A ticket is marked only if it still has the version on which the decision is based.
//! - The mark and the row of the scan are committed together, before the response.
//! - Nothing runs after the response.
//! - A request reads the clock once, [`app::App::now`], and passes the time on. (Its key is also checked once before, while
//!   its body is still arriving.)
//! - No secret appears in a log line, an error, or `Debug` output.

// These panic if nobody reads the output; `say!` and `note!` in commands.rs do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod admission;
pub mod app;
pub mod auth;
pub mod backup;
pub mod command_line;
pub mod commands;
pub mod config;
pub mod connections;
pub mod door;
pub mod endpoints;
pub mod error;
pub mod fault;
pub mod fold;
pub mod forgetting;
pub mod gate;
pub mod limits;
pub mod links;
pub mod list;
pub mod logs;
pub mod mail;
pub mod metrics;
pub mod model;
pub mod numbers;
#[cfg(test)]
mod openapi;
pub mod pages;
pub mod quota;
pub mod request;
pub mod response;
pub mod routes;
pub mod serve;
pub mod sheet;
pub mod store;
pub mod totp;
pub mod wallet;

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Returns the modules of the list above, from the top layer to the bottom.
    fn rooms() -> Vec<&'static str> {
        let list = include_str!("lib.rs").split("//! ```").nth(1).expect("the list of rooms");
        let lines = list.lines().skip(1).filter_map(|line| line.strip_prefix("//! ")?.split("  ").next());
        lines.flat_map(str::split_whitespace).collect()
    }

    /// Returns all source files, with the top-level module of each.
    fn sources(folder: &Path, room: Option<&str>) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let read = |path: std::path::PathBuf| {
            let room = room.unwrap_or(path.file_stem().unwrap().to_str().unwrap()).to_owned();
            match path.extension() {
                None if path.is_dir() => sources(&path, Some(&room)),
                Some(ending) if ending == "rs" => vec![(room, std::fs::read_to_string(path).unwrap())],
                _ => Vec::new(),
            }
        };
        entries.flat_map(read).collect()
    }

    /// Returns the modules in the text after a `crate::`: one, or several in braces.
    fn named(path: &str) -> impl Iterator<Item = &str> {
        let names = match path.strip_prefix('{') {
            Some(group) => group.split('}').next(),
            None => path.split(|end: char| !end.is_ascii_lowercase()).next(),
        };
        names.unwrap_or_default().split(", ").filter_map(|name| name.split("::").next())
    }

    #[test]
    fn no_file_imports_one_that_stands_above_it() {
        let rooms = rooms();
        let place = |name: &str| rooms.iter().position(|room| *room == name);
        let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None);
        for (room, source) in sources.iter().filter(|(room, _)| room != "lib") {
            let own = place(room).unwrap_or_else(|| panic!("the list lacks the module {room}"));
            for name in source.split("crate::").skip(1).flat_map(named) {
                assert!(place(name).is_none_or(|place| own <= place), "{room} imports {name}, which is above it");
            }
        }
    }
}
