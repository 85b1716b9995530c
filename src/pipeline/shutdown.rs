//! How a server is told to stop, and all that it runs.

use std::fmt;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use crate::Result;
use crate::lock::{lock, unpoisoned};

/// Tells a server to stop. Clones tell the same server.
///
/// A handler that takes `&ShutdownHandle` has that of the server that runs it, so that what it streams can end when the
/// server is to stop:
///
/// ```
/// use std::time::Duration;
/// use bottle_session::server::ShutdownStage;
/// use bottle_session::{App, Response, ShutdownHandle};
///
/// let mut app = App::new();
/// app.get("/clock", |shutdown: &ShutdownHandle| {
///     let shutdown = shutdown.clone();
///     Response::chunks(std::iter::from_fn(move || {
///         let stage = shutdown.wait_timeout(Duration::from_secs(1));
///         (stage == ShutdownStage::Running).then_some("tick\n")
///     }))
/// });
/// # app.build()?;
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ShutdownHandle(Arc<State>);

#[derive(Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
}

type Listener = Arc<dyn Fn(ShutdownStage) + Send + Sync>;

#[derive(Default)]
struct Progress {
    stage: ShutdownStage,
    listeners: Vec<Listener>,
}

/// How far a shutdown has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShutdownStage {
    /// Nobody asked for one.
    #[default]
    Running,
    /// No new requests; those that run are finished.
    Graceful,
    /// Everything ends now.
    Immediate,
}

impl ShutdownHandle {
    /// A handle that has not been used.
    pub fn new() -> ShutdownHandle {
        ShutdownHandle::default()
    }

    /// Stops the server once the running requests are finished.
    pub fn shutdown(&self) {
        self.advance(ShutdownStage::Graceful);
    }

    /// Stops the server now.
    pub fn shutdown_now(&self) {
        self.advance(ShutdownStage::Immediate);
    }

    /// How far the shutdown has come.
    pub fn stage(&self) -> ShutdownStage {
        self.progress().stage
    }

    /// Waits until someone asks for a shutdown.
    pub fn wait(&self) {
        let mut progress = self.progress();
        while progress.stage == ShutdownStage::Running {
            progress = self.0.changed.wait(progress).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Waits until someone asks for a shutdown or the time is over, and says how far the shutdown has come then: for
    /// streams that have nothing to send meanwhile.
    pub fn wait_timeout(&self, time: Duration) -> ShutdownStage {
        let running = |progress: &mut Progress| progress.stage == ShutdownStage::Running;
        let waited = self.0.changed.wait_timeout_while(self.progress(), time, running);
        unpoisoned(waited).0.stage
    }

    /// The handle of an app that no server serves: it never stops.
    pub(crate) fn of_nobody() -> &'static ShutdownHandle {
        static NOBODY: LazyLock<ShutdownHandle> = LazyLock::new(ShutdownHandle::new);
        &NOBODY
    }

    /// Calls `listener` at each further stage, and at once if there has been one: how a server that waits
    /// on sockets is woken. Where two threads ask for a shutdown at the same time, it can hear of the later
    /// stage first, and of one stage twice.
    pub fn on_change(&self, listener: impl Fn(ShutdownStage) + Send + Sync + 'static) {
        let listener: Listener = Arc::new(listener);
        let mut progress = self.progress();
        progress.listeners.push(listener.clone());
        let stage = progress.stage;
        drop(progress);
        if stage != ShutdownStage::Running {
            listener(stage);
        }
    }

    /// Makes SIGINT and SIGTERM ask for a shutdown; a second one ends the process at once.
    #[cfg(unix)]
    pub fn on_signals(&self) -> Result<()> {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let handle = self.clone();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                match handle.stage() {
                    ShutdownStage::Running => {
                        log::info!("signal {signal}: finishing the running requests");
                        handle.shutdown();
                    }
                    _ => {
                        log::warn!("signal {signal} again: ending at once");
                        // What shells report for a process that a signal ended. Not by way of the server: an
                        // end in good order says 0.
                        std::process::exit(128 + signal);
                    }
                }
            }
        })?;
        Ok(())
    }

    /// Signals are a matter of unix; elsewhere the process ends at once.
    #[cfg(not(unix))]
    pub fn on_signals(&self) -> Result<()> {
        Ok(())
    }

    fn advance(&self, stage: ShutdownStage) {
        let mut progress = self.progress();
        if stage <= progress.stage {
            return;
        }
        progress.stage = stage;
        self.0.changed.notify_all();
        // A listener may use the handle itself.
        let listeners = progress.listeners.clone();
        drop(progress);
        listeners.iter().for_each(|listener| listener(stage));
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.0.progress)
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShutdownHandle({:?})", self.stage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_hear_of_each_stage_and_may_use_the_handle() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shutdown = ShutdownHandle::new();
        let listen = || {
            let (handle, heard) = (shutdown.clone(), heard.clone());
            shutdown.on_change(move |stage| heard.lock().unwrap().push((stage, handle.stage())));
        };
        listen();
        shutdown.shutdown();
        shutdown.shutdown();
        listen();
        shutdown.shutdown_now();
        shutdown.shutdown();
        use ShutdownStage::{Graceful, Immediate};
        let (first, second) = ((Graceful, Graceful), (Immediate, Immediate));
        assert_eq!(*heard.lock().unwrap(), [first, first, second, second]);
    }
}
