//! The event loops, the threads that run them, and the monitor of both.

mod monitor;
mod requests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::thread::Thread;

use super::connection::Connection;
use super::event_loop::EventLoop;
use super::event_loops::EventLoops;
use super::options::Options;
use super::run_loop::Worker;
use super::threads::Threads;
use crate::logging::ThrottledLog;
use crate::pipeline::expiring_flag::ExpiringFlag;
use crate::pipeline::service::Service;
use crate::server::ShutdownStage;
use crate::{Error, ErrorKind, Result};

pub(super) struct Engine {
    pub(super) service: Service,
    options: Arc<Options>,
    pub(super) event_loops: EventLoops,
    pub(super) threads: Arc<Threads>,
    /// Of their own: a storm of handshakes must take no thread that handlers wait for.
    #[cfg(feature = "https")]
    handshakes: Arc<Threads>,
    stage: AtomicU8,
    /// Whether plugins that hardly ever block when they acquire did a moment ago.
    pub(super) acquire_blocks: ExpiringFlag,
    /// Requests that are handled while their bodies still arrive.
    receiving: AtomicUsize,
    /// Event loops that still run.
    running: AtomicUsize,
    /// Up to how many event loops are active.
    cores: usize,
    monitor: Thread,
    monitor_sleeps: AtomicBool,
    /// Requests that were cut when their event loops ended.
    cut: AtomicUsize,
    /// Requests refused for want of threads.
    refused: ThrottledLog,
}

impl Engine {
    /// An engine whose monitor is the current thread.
    pub(super) fn new(
        service: Service,
        options: Arc<Options>,
        event_loops: EventLoops,
        cores: usize,
    ) -> Engine {
        Engine {
            service,
            threads: Threads::new(options.max_threads, options.max_queue),
            #[cfg(feature = "https")]
            handshakes: Threads::new(cores, usize::MAX),
            options,
            stage: AtomicU8::new(0),
            acquire_blocks: ExpiringFlag::default(),
            receiving: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            cores,
            event_loops,
            monitor: std::thread::current(),
            monitor_sleeps: AtomicBool::new(false),
            cut: AtomicUsize::new(0),
            refused: ThrottledLog::default(),
        }
    }

    /// Takes note of a shutdown.
    pub(super) fn enter(&self, stage: ShutdownStage) {
        self.stage.fetch_max(stage as u8, Ordering::SeqCst);
        self.event_loops.all().iter().for_each(|event_loop| event_loop.wake());
        self.monitor.unpark();
    }

    pub(super) fn stage(&self) -> ShutdownStage {
        match self.stage.load(Ordering::SeqCst) {
            0 => ShutdownStage::Running,
            1 => ShutdownStage::Graceful,
            _ => ShutdownStage::Immediate,
        }
    }

    /// Whether a shutdown has come so far that what has not fully arrived is not waited for.
    pub(super) fn is_cut_off(&self) -> bool {
        self.options.cut_off.load(Ordering::SeqCst)
    }

    fn cut_off(&self) {
        self.options.cut_off.store(true, Ordering::SeqCst);
        self.event_loops.all().iter().for_each(|event_loop| event_loop.wake());
    }

    /// An event loop has ended, and has cut so many requests.
    pub(super) fn ended(&self, cut: usize) {
        self.cut.fetch_add(cut, Ordering::SeqCst);
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.monitor.unpark();
    }

    /// Serves until a shutdown has come to its end.
    pub(super) fn serve(self: &Arc<Engine>) -> Result<()> {
        for event_loop in self.event_loops.all() {
            self.open(event_loop);
        }
        if self.threads.is_empty() {
            return Err(Error::new(ErrorKind::Io, "cannot serve: the system gives no thread"));
        }
        self.monitor();
        match self.cut.load(Ordering::SeqCst) {
            0 => {}
            1 => log::warn!("ended with 1 request unfinished, which is cut"),
            cut => log::warn!("ended with {cut} requests unfinished, which are cut"),
        }
        self.threads.stop();
        #[cfg(feature = "https")]
        self.handshakes.stop();
        Ok(())
    }

    /// Lets a new event loop run.
    fn open(self: &Arc<Engine>, event_loop: Arc<EventLoop>) {
        self.running.fetch_add(1, Ordering::SeqCst);
        self.start(event_loop, 0);
    }

    fn start(self: &Arc<Engine>, event_loop: Arc<EventLoop>, epoch: u64) {
        let engine = self.clone();
        self.threads.run_now(Box::new(move || {
            let worker = Worker { engine: &engine, event_loop: &event_loop, epoch };
            // A loop that nobody runs would be lost with all its connections.
            while catch_panic(|| worker.run()).is_none() {
                log::error!("the worker of an event loop panicked; it goes on");
                if !event_loop.ownership.finish(epoch) {
                    return engine.threads.unblocked();
                }
            }
        }));
    }

    /// Gives accepted connections to the active event loops.
    pub(super) fn distribute(&self, event_loop: &EventLoop, accepted: Vec<Connection>) {
        for mut connection in accepted {
            let turned_away = self.options.turned_away.count();
            let is_full =
                self.event_loops.connections() >= self.options.max_connections + turned_away;
            if !is_full || connection.turn_away() {
                self.event_loops.assign(Box::new(connection), event_loop);
            }
        }
    }
}

/// Keeps a panic that gets past the service, of a `drop` or a logger of the application's, from the thread:
/// an event loop that nobody runs would be lost with all its connections.
pub(super) fn catch_panic<T>(step: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(step)).ok()
}
