//! A service that is being served.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::message::address::ListenAddress;
use crate::pipeline::plugin::Plugin;
use crate::pipeline::service::Service;
use crate::pipeline::shutdown::ShutdownHandle;

/// What is known of the servers of one service.
#[derive(Default)]
pub(crate) struct Servers {
    /// How many serve it now.
    serving: AtomicUsize,
    /// Whether its plugins are closed.
    closed: AtomicBool,
    /// That of the first server, for handlers; each endpoint has it.
    pub(crate) shutdown: Arc<OnceLock<ShutdownHandle>>,
}

impl Servers {
    pub(crate) fn of(shutdown: Arc<OnceLock<ShutdownHandle>>) -> Servers {
        Servers { shutdown, ..Servers::default() }
    }

    /// Closes the plugins, the first time.
    pub(crate) fn close(&self, plugins: &[Arc<dyn Plugin>]) {
        if !self.closed.swap(true, Ordering::SeqCst) {
            plugins.iter().for_each(|plugin| plugin.close());
        }
    }
}

/// A service while a server serves it; what [`Service::serving`] gives. A server drops it when it has ended: the last one
/// closes the plugins, whoever still holds a clone of the service or the stream of an answer.
#[must_use = "the plugins are closed when it is dropped"]
pub struct Serving(Service);

impl Serving {
    pub(crate) fn begin(
        service: &Service,
        address: &ListenAddress,
        shutdown: &ShutdownHandle,
    ) -> Serving {
        service.servers().serving.fetch_add(1, Ordering::SeqCst);
        let _ = service.servers().shutdown.set(shutdown.clone());
        let serving = Serving(service.clone());
        service.plugins().iter().for_each(|plugin| plugin.serving(address));
        serving
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.0.servers().serving.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.servers().close(self.0.plugins());
        }
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Serving").field(&self.0).finish()
    }
}
