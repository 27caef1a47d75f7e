//! restore: one image, by `numjobs` clients at once, to nowhere.

use std::path::Path;
use std::sync::Arc;

use super::counting::Counting;
use super::served::{self, Served};
use super::{Ground, Stage};
use crate::bench::turn::Turn;
use crate::client::{TargetPath, restore};
use crate::engine::Engine;
use crate::error::{Error, IoContext, Result};
use crate::types::{FIXED_CHUNK_BYTES, Namespace};

const GROUP: &str = "bench";

/// Everything is restored to here: what the target's disk takes is not the datastore's doing.
const TARGET: &str = "/dev/null";

/// A daemon with a snapshot.
pub struct Restore {
    ground: Ground,
    served: Served,
    found: bool,
}

impl Restore {
    /// Makes an image and backs it up.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let (job, scratch) = (&ground.job, ground.scratch()?);
        if usize::try_from(job.iodepth).is_ok_and(|depth| depth > restore::CHUNKS_IN_FLIGHT_MAX) {
            return Err(Error::invalid(format!(
                "iodepth={} is more than a restore asks for at a time: 1 to {}",
                job.iodepth,
                restore::CHUNKS_IN_FLIGHT_MAX
            )));
        }
        let stamp = format!(
            "restore 1 size={} randseed={} buffer_compress_percentage={}",
            job.size, job.randseed, job.compress_percentage
        );
        let found = scratch.lay_out(&stamp, || {
            served::make_store(ground, scratch)?;
            let image = ground.work()?.path().join("image");
            served::write_image(ground, &image, 0)?;
            let served = Served::start(ground, served::switches(true))?;
            let turn = Turn::new(Arc::clone(job), 0, ground.stop.clone());
            let spec = format!("disk.img:{}", image.display());
            let done = served.back_up(&turn, GROUP, 0, &spec, Counting::nothing())?;
            done.ok_or_else(|| Error::closed("interrupted"))?;
            std::fs::remove_file(&image).io_context(|| format!("cannot remove {image:?}"))
        })?;
        let served = Served::start(ground, served::switches(job.checks))?;
        Ok(Self { ground: ground.clone(), served, found })
    }
}

impl Stage for Restore {
    fn ios(&self) -> Option<u64> {
        Some(self.ground.job.size.div_ceil(u64::from(FIXED_CHUNK_BYTES)))
    }

    fn round(&self, turn: &Turn, _: u64) -> Result<()> {
        let client = self.served.client()?;
        let options = restore::Options {
            snapshot: served::snapshot(GROUP, 0)?,
            namespace: Namespace::root(),
            archive: "disk.img".to_owned(),
            target: TargetPath::from_argument(Path::new(TARGET)),
            force: true,
            chunks_in_flight: usize::try_from(turn.job.iodepth).expect("32 bits"),
        };
        self.ground.runtime.block_on(async {
            tokio::select! {
                report = restore::run(&client, &options, Arc::new(Counting::new(turn))) => report.map(drop),
                () = turn.over() => Ok(()),
            }
        })
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.served.engine())
    }

    fn found(&self) -> bool {
        self.found
    }
}
