//! `ringvault api`: the calls of the server, described.

use std::process::ExitCode;

use crate::error::{Error, IoContext, Result};
use crate::http::{api, describe};

/// Print a description of all REST calls
#[derive(clap::Args, Debug)]
pub struct Args {
    /// For whom: people, or programs (OpenAPI 3.1 in JSON)
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    format: Format,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Format {
    Markdown,
    Openapi,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    use std::io::Write;
    let router = api::router();
    let text = match args.format {
        Format::Markdown => describe::markdown(&router),
        Format::Openapi => {
            let document = serde_json::to_string_pretty(&describe::openapi(&router));
            document.map_err(|e| Error::invalid("the description is no JSON").with_source(e))? + "\n"
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).io_context(|| "write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
