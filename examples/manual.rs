//! Generates man pages and completions for bash, zsh and fish from the clap command line, into a directory.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap_complete::Shell;
use register_ticket_api::command_line::CommandLine;

fn main() -> std::io::Result<()> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).expect("the directory is the argument");
    std::fs::create_dir_all(&directory)?;
    let mut command = CommandLine::command();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, env!("CARGO_PKG_NAME"), &directory)?;
    }
    clap_mangen::generate_to(command, &directory)
}
