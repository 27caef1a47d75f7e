//! A slow store for everybody: a FUSE passthrough with a delay per metadata request, a delay per data request and a server
//! width, with counters. `cargo run --release --example slowstore -- --help`; how it is used: `benches/limited/README.md`.
//!
//! SIGUSR1 writes the counters to `--counts`, SIGUSR2 sets them to zero; SIGINT and SIGTERM unmount, write them and end.

#[path = "../../tests/it/support/slowfs.rs"]
#[allow(
    dead_code,
    missing_docs,
    clippy::disallowed_methods,
    reason = "a tool of the tests, of which this needs a part"
)]
mod slowfs;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::{Map, Value, json};
use slowfs::{Behaviour, Class, Mounting, Op, SlowFs};
use tokio::signal::unix::{SignalKind, signal};

/// How often it looks whether somebody has unmounted the store.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows a directory at another place, slowly, and counts the requests.
#[derive(Debug, Parser)]
#[command(name = "slowstore")]
struct Args {
    /// The directory whose contents are shown.
    #[arg(long, value_name = "DIR")]
    backing: PathBuf,
    /// An empty directory where they are shown.
    #[arg(long, value_name = "DIR")]
    mount: PathBuf,
    /// How long a metadata request takes: lookup, getattr, setattr, open, create, readdir, rename, ... (`2ms`, `500us`, `1s`).
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = duration)]
    metadata_delay: Duration,
    /// How long a data request takes: read, write, fsync.
    #[arg(long, value_name = "TIME", default_value = "2ms", value_parser = duration)]
    data_delay: Duration,
    /// How many requests are served at the same time; the rest wait in line. 0 is any number.
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    width: usize,
    /// How long the kernel may believe names and attributes; 0 makes each question a request.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    ttl: Duration,
    /// Listings bring the attributes of their entries with them (readdirplus).
    #[arg(long)]
    readdirplus: bool,
    /// Where the counters go as JSON: on SIGUSR1, and at the end.
    #[arg(long, value_name = "FILE")]
    counts: Option<PathBuf>,
}

/// `2ms`, `500us`, `1s`; a number alone would not say what it means.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("'{text}' does not begin with a whole number"))?;
    match unit {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "" if number == 0 => Ok(Duration::ZERO),
        _ => Err(format!("'{text}' has no unit: say us, ms or s")),
    }
}

/// The counters of now.
fn report(fs: &SlowFs, args: &Args) -> Value {
    let requests: Map<String, Value> = Op::ALL.iter().map(|op| (op.name().to_owned(), fs.total(*op).into())).collect();
    let of = |class| Op::ALL.iter().filter(|op| op.class() == class).map(|op| fs.total(*op)).sum::<u64>();
    let (read_bytes, written_bytes) = fs.bytes();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "requests": requests,
        "metadata": of(Class::Metadata),
        "data": of(Class::Data),
        "read_bytes": read_bytes,
        "written_bytes": written_bytes,
        "in_service_max": fs.waiting_max(),
        "in_line_max": fs.in_line_max(),
        "metadata_delay_us": micros(args.metadata_delay),
        "data_delay_us": micros(args.data_delay),
        "width": args.width,
        "ttl_us": micros(args.ttl),
    })
}

/// The file is replaced whole, so that a reader never sees half of it.
#[allow(clippy::disallowed_methods, reason = "no datastore's file")]
fn write_counts(fs: &SlowFs, args: &Args) -> io::Result<()> {
    let text = format!("{:#}\n", report(fs, args));
    let Some(path) = &args.counts else {
        print!("{text}");
        return Ok(());
    };
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, path)
}

fn checked(args: &Args) -> Result<(), String> {
    let absolute = |path: &Path| path.canonicalize().map_err(|e| format!("{}: {e}", path.display()));
    let (backing, mount) = (absolute(&args.backing)?, absolute(&args.mount)?);
    if backing.starts_with(&mount) || mount.starts_with(&backing) {
        return Err("--backing and --mount lie in each other: choose two directories beside each other".into());
    }
    match std::fs::read_dir(&mount).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("--mount {} is not empty: choose an empty directory", mount.display())),
        Err(e) => Err(format!("--mount {}: {e}", mount.display())),
    }
}

async fn run(args: &Args) -> io::Result<()> {
    // Before the mount: a signal that comes early must not end the process with the store mounted.
    let (mut show, mut zero) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    let (mut interrupt, mut end) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let behaviour =
        Behaviour { delay: args.metadata_delay, data_delay: args.data_delay, ttl: args.ttl, ..Behaviour::default() };
    let mounting = Mounting { lists_attributes: args.readdirplus, width: args.width, counts_names: false };
    let fs = SlowFs::mount_as(&args.backing.canonicalize()?, &args.mount.canonicalize()?, behaviour, mounting)?;
    println!("mounted: {} shows {}", args.mount.display(), args.backing.display());
    loop {
        tokio::select! {
            _ = show.recv() => write_counts(&fs, args)?,
            _ = zero.recv() => fs.reset_counts(),
            _ = interrupt.recv() => break,
            _ = end.recv() => break,
            () = tokio::time::sleep(LOOK_EVERY) => if fs.has_ended() { break },
        }
    }
    write_counts(&fs, args)
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(fault) = checked(&args) {
        eprintln!("slowstore: {fault}");
        return ExitCode::from(2);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(&args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("slowstore: {e} (it needs /dev/fuse, and root or fusermount3)");
            ExitCode::FAILURE
        }
    }
}
