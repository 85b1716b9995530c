//! Whether the file can be written, told to whoever wants to know.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lock::lock;
use crate::logging::{OneLine, ThrottledLog};
use crate::session::store::BreakerObserver;
use crate::{Error, ErrorKind};

#[derive(Default)]
pub(super) struct Health {
    failed: AtomicBool,
    observers: Mutex<Vec<BreakerObserver>>,
    loud: ThrottledLog,
}

impl Health {
    pub(super) fn observe(&self, observer: BreakerObserver) {
        lock(&self.observers).push(observer);
    }

    /// Whether the last save has failed for what passes.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// How a save ended.
    pub(super) fn hear(&self, path: &Path, error: Option<&Error>) {
        match error {
            None if !self.failed.load(Ordering::Relaxed) => {}
            None => {
                if self.failed.swap(false, Ordering::Relaxed) {
                    log::info!("the session file {} can be written again", path.display());
                    self.notify_observers(None);
                }
            }
            Some(error) if error.kind() == ErrorKind::Unavailable => {
                if !self.failed.swap(true, Ordering::Relaxed) {
                    log::error!("{}; changes of sessions fail until it can be", OneLine(error));
                    self.notify_observers(Some(error));
                }
            }
            Some(error) => self.is_loud(error),
        }
    }

    /// Says in the log what does not pass by itself.
    pub(super) fn is_loud(&self, error: &Error) {
        if error.kind() == ErrorKind::Config {
            self.loud.log_throttled(log::Level::Error, "file", || {
                format!("sessions in a file: {}", OneLine(error))
            });
        }
    }

    fn notify_observers(&self, error: Option<&Error>) {
        lock(&self.observers).iter().for_each(|observer| observer(error));
    }
}
