//! The `ringvault` program; everything is in the library.

fn main() -> std::process::ExitCode {
    ringvault::cli::main()
}
