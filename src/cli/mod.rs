//! The command line: one file a subcommand. Each turns its arguments into a call of the library and prints what came of it.

use std::process::ExitCode;

use clap::Parser;

pub mod acl;
mod admin;
pub mod api;
pub mod backup;
pub mod bench;
mod client;
pub mod config;
pub mod datastore;
mod follow;
pub mod gc;
pub mod history;
pub mod inspect;
mod job;
pub mod namespace;
pub mod prune;
pub mod repair;
pub mod restore;
pub mod serve;
pub mod snapshots;
pub mod task;
pub mod token;
pub mod user;
pub mod verify;

/// A backup server for hosts with limited I/O, and a small client for it
#[derive(Parser, Debug)]
#[command(name = "ringvault", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand, Debug)]
enum Command {
    Serve(serve::Args),
    Config(config::Args),
    Datastore(datastore::Args),
    Namespace(namespace::Args),
    Gc(gc::Args),
    Verify(verify::Args),
    Prune(prune::Args),
    History(history::Args),
    Task(task::Args),
    Inspect(inspect::Args),
    Repair(repair::Args),
    User(user::Args),
    Token(token::Args),
    Acl(acl::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Snapshots(snapshots::Args),
    Api(api::Args),
    Bench(bench::Args),
}

/// Runs what the process's arguments ask for. The last line on standard error says why it failed.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(args),
        Command::Config(args) => config::run(args),
        Command::Datastore(args) => datastore::run(args),
        Command::Namespace(args) => namespace::run(args),
        Command::Gc(args) => gc::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Prune(args) => prune::run(args),
        Command::History(args) => history::run(args),
        Command::Task(args) => task::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Repair(args) => repair::run(args),
        Command::User(args) => user::run(args),
        Command::Token(args) => token::run(args),
        Command::Acl(args) => acl::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Restore(args) => restore::run(args),
        Command::Snapshots(args) => snapshots::run(args),
        Command::Api(args) => api::run(args),
        Command::Bench(args) => bench::run(args),
    };
    done.unwrap_or_else(|e| {
        eprintln!("error: {e}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_consistent_and_explained() {
        use clap::CommandFactory;
        let command = Cli::command();
        command.clone().debug_assert();
        fn explained(command: &clap::Command) {
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{}", sub.get_name());
                explained(sub);
            }
        }
        explained(&command);
    }
}
