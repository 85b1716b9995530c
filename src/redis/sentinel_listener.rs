//! The connections to sentinels: one to each for the whole process, and one thread that listens to all of them.
//!
//! Whoever is about to believe a reply of a master reads first what the sentinels have said by then
//! ([`SentinelListener::read_announcements`]), so that it does not matter how late this thread gets its turn.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use ::redis::{ErrorKind as RedisErrorKind, RedisError};

use super::failover::Change;
use super::sentinel::MasterMonitor;
use super::sentinel_connection::{QUERY_INTERVAL, SentinelConnection};
use super::sentinel_poller::{ListenerWaker, SentinelPoller};
use crate::lock::{lock, unpoisoned};
use crate::logging::ThrottledLog;

/// How long connecting waits for the other sentinels once one has answered.
const OTHER_SENTINELS_TIMEOUT: Duration = Duration::from_millis(250);

/// How often a failover in progress is checked.
const HELD_CHECK_INTERVAL: Duration = Duration::from_millis(250);

static LISTENER: Mutex<Option<Arc<SentinelListener>>> = Mutex::new(None);

/// Listens for all pools of this process.
pub(super) struct SentinelListener {
    process: u32,
    links: Mutex<SentinelConnections>,
    /// Notices when a sentinel has answered, or has been lost.
    heard: Condvar,
    waker: ListenerWaker,
    /// Whether its thread runs.
    runs: AtomicBool,
    log: ThrottledLog,
}

#[derive(Default)]
struct SentinelConnections {
    all: BTreeMap<usize, SentinelConnection>,
    next: usize,
}

/// A notification to deliver once no lock is held.
pub(super) enum Notice {
    Changed(Arc<MasterMonitor>, Change),
    Log(ThrottledLog, log::Level, String),
}

pub(super) type Notices = Vec<Notice>;

/// Tells.
pub(super) fn deliver(notices: Notices) {
    for notice in notices {
        match notice {
            Notice::Changed(monitor, change) => monitor.notify(&change),
            Notice::Log(log, level, line) => log.log_throttled(level, level.as_str(), || line),
        }
    }
}

impl SentinelListener {
    fn new() -> SentinelListener {
        SentinelListener {
            process: std::process::id(),
            links: Mutex::default(),
            heard: Condvar::new(),
            waker: ListenerWaker::new(),
            runs: AtomicBool::new(false),
            log: ThrottledLog::default(),
        }
    }

    pub(super) fn of_this_process() -> Arc<SentinelListener> {
        let mut ours = lock(&LISTENER);
        match ours.as_ref().filter(|ours| ours.is_of_this_process()) {
            Some(listener) => listener.clone(),
            None => {
                let listener = Arc::new(SentinelListener::new());
                // That of the parent may be locked by threads that this process does not have.
                std::mem::forget(ours.replace(listener.clone()));
                listener
            }
        }
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    /// Sees to it that the thread runs. Where the system gives none now, it may the next time.
    fn start(
        self: &Arc<SentinelListener>,
        spawn: impl FnOnce(Arc<SentinelListener>) -> io::Result<()>,
    ) {
        if self.runs.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = spawn(self.clone()) {
            self.runs.store(false, Ordering::Release);
            self.log.log_throttled(log::Level::Error, "thread", || {
                format!("no thread to listen to sentinels: {error}")
            });
        }
    }

    /// Listens for this pool, too.
    pub(super) fn register(&self, monitor: &Arc<MasterMonitor>) {
        let mut links = lock(&self.links);
        for (number, node) in monitor.sentinel.nodes.iter().enumerate() {
            let known = links.all.values_mut().find(|link| {
                Arc::ptr_eq(&link.node, node) || link.node.config.is_same_server(&node.config)
            });
            let ours = (Arc::downgrade(monitor), number);
            if let Some(link) = known {
                link.monitors.push(ours);
                continue;
            }
            let next = links.next;
            links.next += 1;
            links.all.insert(next, SentinelConnection::new(node.clone(), ours));
        }
        drop(links);
        self.waker.wake();
    }

    /// Reads what the sentinels of this pool have said by now.
    pub(super) fn read_announcements(&self, monitor: &Arc<MasterMonitor>) -> Notices {
        let (mut notices, mut lost) = (Notices::new(), false);
        let mut links = lock(&self.links);
        for link in links.all.values_mut().filter(|link| link.is_for(monitor)) {
            lost |= !self.read(link, &mut notices);
        }
        drop(links);
        if lost {
            self.waker.wake();
        }
        notices
    }

    /// Asks all sentinels of this pool who the master is and waits for their answers, until then at the longest. Why
    /// none has answered, where that is so.
    pub(super) fn ask(
        self: &Arc<SentinelListener>,
        monitor: &Arc<MasterMonitor>,
        until: Instant,
    ) -> (Notices, Option<RedisError>) {
        self.start(|listener| {
            let thread = std::thread::Builder::new().name("redis-sentinels".to_owned());
            thread.spawn(move || listener.run()).map(drop)
        });
        let (started, mut notices) = (Instant::now(), Notices::new());
        let mut links = lock(&self.links);
        let mut before = BTreeMap::new();
        for (number, link) in links.all.iter_mut().filter(|(_, link)| link.is_for(monitor)) {
            link.ask_at_once(started, &mut notices);
            before.insert(*number, (link.asked.max(link.answered + 1), link.failures));
        }
        self.waker.wake();
        loop {
            let mut answered = false;
            let mut open = Vec::new();
            for (number, (asked, failures)) in &before {
                let Some(link) = links.all.get(number) else { continue };
                match link.answered >= *asked {
                    true => answered = true,
                    false if link.failures > *failures => {}
                    // Who was not there before holds up nobody.
                    false => open.push(link.failed.is_some()),
                }
            }
            let now = Instant::now();
            let enough = answered
                && (open.iter().all(|failed| *failed) || now >= started + OTHER_SENTINELS_TIMEOUT);
            if open.is_empty() || enough || now >= until {
                let ours = before.keys().filter_map(|number| links.all.get(number));
                let refused = { ours }.find_map(|link| link.failed.clone());
                let silent =
                    || RedisError::from((RedisErrorKind::Io, "has sentinels that do not answer"));
                let refused = (!answered).then(|| refused.unwrap_or_else(silent));
                drop(links);
                return (notices, refused);
            }
            let wait = until.min(now + OTHER_SENTINELS_TIMEOUT).saturating_duration_since(now);
            let waited = self.heard.wait_timeout(links, wait);
            links = unpoisoned(waited).0;
            for link in links.all.values_mut().filter(|link| link.is_for(monitor)) {
                self.read(link, &mut notices);
            }
        }
    }

    /// Reads what has come from a sentinel. Whether it is still there.
    fn read(&self, link: &mut SentinelConnection, notices: &mut Notices) -> bool {
        let before = (link.answered, link.failures);
        link.read(notices);
        if (link.answered, link.failures) != before {
            self.heard.notify_all();
        }
        link.failures == before.1
    }

    fn run(&self) {
        let mut poller = self.waker.poller();
        loop {
            let turn = AssertUnwindSafe(|| {
                let (wait, notices) = self.iterate(&mut poller);
                deliver(notices);
                wait
            });
            // A logger or an observer may panic: who listens goes on.
            let wait = catch_unwind(turn).unwrap_or_else(|_| {
                log::error!("listening to sentinels panicked");
                Some(QUERY_INTERVAL)
            });
            poller.wait(wait);
        }
    }

    /// Does what is due, and says when something is next.
    fn iterate(&self, poller: &mut SentinelPoller) -> (Option<Duration>, Notices) {
        let (now, mut notices) = (Instant::now(), Notices::new());
        let mut links = lock(&self.links);
        links.all.retain(|_, link| {
            link.monitors.retain(|(monitor, _)| monitor.strong_count() > 0);
            !link.monitors.is_empty()
        });
        let mut next = None;
        for (number, link) in &mut links.all {
            let before = (link.answered, link.failures);
            let due = link.advance(*number, now, poller, &self.waker, &mut notices);
            next = next.into_iter().chain(due).min();
            if (link.answered, link.failures) != before {
                self.heard.notify_all();
            }
        }
        let mut monitors: Vec<Arc<MasterMonitor>> = Vec::new();
        for (monitor, _) in links.all.values().flat_map(|link| &link.monitors) {
            if let Some(monitor) = monitor.upgrade()
                && !monitors.iter().any(|known| Arc::ptr_eq(known, &monitor))
            {
                monitors.push(monitor);
            }
        }
        drop(links);
        for monitor in monitors {
            notices.extend(monitor.tick().map(|change| Notice::Changed(monitor.clone(), change)));
            if monitor.is_held() {
                next = next.into_iter().chain([now + HELD_CHECK_INTERVAL]).min();
            }
        }
        let wait = next.map(|next| next.saturating_duration_since(Instant::now()));
        (wait, notices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_there_was_not_is_tried_again() {
        let listener = Arc::new(SentinelListener::new());
        let mut tried = 0;
        for (outcome, expected) in [(false, 1), (false, 2), (true, 3), (true, 3)] {
            listener.start(|_| {
                tried += 1;
                if outcome { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
            });
            assert_eq!(tried, expected);
        }
    }
}
