//! Entry control for small events: tickets are registered to people, and each is validated once at the gate by a code
//! that changes every 30 seconds.
//!
//! # Map
//!
//! A request comes in through one of two entrances ([`serve`], with its table of [`connections`]) and goes through one
//! function, [`routes::handle`], which finds its line in the route table, checks the key ([`auth`]), reads the body and
//! calls one endpoint ([`endpoints`]). The endpoint asks the database ([`store`]). A scan goes from reading to writing in [`gate`], whoever comes without a ticket
//! in [`door`]; the decision in it is a pure
//! function ([`admission`]) of what the database knows and of the code that was shown ([`totp`]).
//!
//! Around that: [`config`] (every setting), [`model`] (the words of the domain), [`request`], [`response`] and [`list`]
//! (bodies, answers, lists), [`sheet`] (lists in, CSV out), [`error`] and [`fault`] (every refusal, of a request and of a field),
//! [`fold`] (text as people read it), [`mail`] (what is sent to people, and the way there),
//! [`logs`], [`metrics`], [`quota`] (what one key may take), [`numbers`] (what is counted, and how often), [`backup`], [`forgetting`], and [`commands`] and [`command_line`].
//!
//! # Rooms
//!
//! They lie one above the other: no file imports one that stands higher, or in its own line before it. A test reads this
//! list.
//!
//! ```text
//! main command_line commands                       the command line
//! openapi                                          what the interface looks like, made in tests
//! serve connections                                the two entrances; who has a place at the first
//! routes                                           the route table, limits, handle(): who may call what
//! endpoints                                        one file a resource: parse, ask, answer
//! door gate mail links wallet backup forgetting    one scan from reading to writing; letters; addresses; passes; backups; who is forgotten
//! request logs                                     what an endpoint gets, what is logged of it
//! app                                              the state a request needs
//! numbers quota auth sheet store pages             what is counted; shares; keys; lists; the database; templates and texts
//! admission totp                                   the decision and the codes, pure
//! list response metrics model error                the ground
//! fault config limits fold
//! ```
//!
//! # Invariants
//!
//! - A ticket is marked only if it is still at the version that the decision was made on.
//! - The mark and the row of the scan are committed together, and before the response.
//! - Nothing runs after the response.
//! - A request is decided by one reading of the clock, [`app::App::now`]; what it calls is told the time. (Its key is looked
//!   at once more before, when its body is still on its way.)
//! - No secret is in a log line, an error, or a `Debug` output.

// They panic where nobody reads them: `say!` and `note!` in commands.rs do not.
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

    /// The rooms of the list above, from the top to the ground.
    fn rooms() -> Vec<&'static str> {
        let list = include_str!("lib.rs").split("//! ```").nth(1).expect("the list of rooms");
        let lines = list.lines().skip(1).filter_map(|line| line.strip_prefix("//! ")?.split("  ").next());
        lines.flat_map(str::split_whitespace).collect()
    }

    /// Every source file, with the room that it is in.
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

    /// The rooms in what follows a `crate::`: one, or several in braces.
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
            let own = place(room).unwrap_or_else(|| panic!("the list names no room {room}"));
            for name in source.split("crate::").skip(1).flat_map(named) {
                assert!(place(name).is_none_or(|place| own <= place), "{room} imports {name}, which stands above it");
            }
        }
    }
}
