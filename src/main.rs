use std::process::ExitCode;

fn main() -> ExitCode {
    register_ticket_api::command_line::run()
}
