//! What systemd is told: ready, alive, stopping (sd_notify(3)). Without it all of this does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything is up.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reading the configuration again; [`ready`] says that it is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd could not be told"),
    }
}

/// A sign of life.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// On the way down.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("waiting for running sessions")]);
}

/// Within which time systemd wants a sign of life, if at all.
pub fn watchdog_period() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
