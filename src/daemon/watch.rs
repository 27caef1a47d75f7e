//! Looks whether the daemon is alive, and tells systemd so.

use std::time::Duration;

use crate::error::Error;
use crate::http::Running;
use crate::systemd;

/// How often to look when systemd does not ask for signs of life.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// The shortest watchdog period that is kept to: a beat has to fall between two looks.
const PERIOD_MIN: Duration = Duration::from_secs(2);

/// Gives signs of life for as long as the accept loop beats and the runtime has time for this; a daemon without them is ended by
/// systemd. Returns, with the reason, only when the accept loop is gone.
pub(super) async fn watch(running: &Running) -> Error {
    let asked = systemd::watchdog_period();
    // Twice per period, as sd_watchdog_enabled(3) advises; the loop beats four times a second.
    let mut looks = tokio::time::interval(asked.map_or(LOOK_INTERVAL, |period| period.max(PERIOD_MIN) / 2));
    let mut seen = None;
    loop {
        looks.tick().await;
        if running.is_dead() {
            return Error::closed("the accept loop has ended");
        }
        let beats = running.heartbeat();
        if seen == Some(beats) {
            tracing::error!("the accept loop stands still");
        } else if asked.is_some() {
            systemd::alive();
        }
        seen = Some(beats);
    }
}
