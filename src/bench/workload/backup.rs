//! backup: first backups of images, each of another group, by `numjobs` clients at once.

use std::path::PathBuf;

use super::counting::Counting;
use super::served::{self, Served};
use super::{Ground, Stage, Told};
use crate::bench::turn::Turn;
use crate::engine::Engine;
use crate::error::Result;
use crate::types::FIXED_CHUNK_BYTES;

/// A daemon with an empty datastore.
pub struct Backup {
    ground: Ground,
    served: Served,
}

impl Backup {
    /// Makes the datastore and starts the daemon.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let scratch = ground.scratch()?;
        scratch.lay_out("backup 1", || served::make_store(ground, scratch))?;
        scratch.spoil()?;
        let served = Served::start(ground, served::switches(ground.job.checks))?;
        Ok(Self { ground: ground.clone(), served })
    }

    fn image(&self, turn: &Turn) -> Result<PathBuf> {
        Ok(self.ground.work()?.path().join(format!("image-{}", turn.number)))
    }
}

impl Stage for Backup {
    fn ios(&self) -> Option<u64> {
        Some(self.ground.job.size.div_ceil(u64::from(FIXED_CHUNK_BYTES)))
    }

    /// An image that no client and no round before had.
    fn before(&self, turn: &Turn, round: u64) -> Result<()> {
        served::write_image(&self.ground, &self.image(turn)?, u64::from(turn.number) << 32 | round)
    }

    fn round(&self, turn: &Turn, round: u64) -> Result<()> {
        let spec = format!("disk.img:{}", self.image(turn)?.display());
        let group = format!("bench-{}-{round}", turn.number);
        self.served.back_up(turn, &group, 0, &spec, Counting::new(turn)).map(drop)
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.served.engine())
    }

    fn found(&self) -> bool {
        false
    }

    fn tell(&self, told: &mut Told) {
        served::tell_checks(served::switches(self.ground.job.checks), told);
    }
}
