//! Threads, as many as there is to do at once and no more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::engine::contained;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Runs tasks on threads that are made on demand and end when they are not needed.
#[derive(Clone)]
pub(super) struct Threads(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    max_threads: usize,
    /// Threads in a task of the queue, and those that are blocked in an urgent one.
    limited: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// Tasks that the server itself cannot go on without: they get a thread whatever the limit.
    urgent: VecDeque<Task>,
    queue: VecDeque<Task>,
    threads: usize,
    idle: usize,
    stopped: bool,
}

impl Threads {
    pub(super) fn new(max_threads: usize) -> Threads {
        Threads(Arc::new(Inner {
            state: Mutex::default(),
            changed: Condvar::new(),
            max_threads,
            limited: AtomicUsize::new(0),
        }))
    }

    /// Runs the task at once, on a thread beyond the limit if need be.
    pub(super) fn run_now(&self, task: Task) {
        let mut state = self.0.state();
        state.urgent.push_back(task);
        self.start_worker(state);
    }

    /// Runs the task once a thread is free.
    pub(super) fn run(&self, task: Task) {
        let mut state = self.0.state();
        state.queue.push_back(task);
        self.start_worker(state);
    }

    /// Whether as many threads are in tasks of the queue, or blocked, as may.
    pub(super) fn is_full(&self) -> bool {
        self.0.room() == 0
    }

    /// A thread is blocked in an urgent task, as by one of the queue: it counts as such.
    pub(super) fn blocked(&self) {
        self.0.limited.fetch_add(1, Ordering::SeqCst);
    }

    /// The current thread is blocked no more; it must end its urgent task and look for another one.
    pub(super) fn unblocked(&self) {
        self.0.limited.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether there is no thread at all, and so none that could begin.
    pub(super) fn is_empty(&self) -> bool {
        self.0.state().threads == 0
    }

    /// How many tasks wait for a thread.
    pub(super) fn waiting(&self) -> usize {
        self.0.state().queue.len()
    }

    /// Lets the threads end; those that are in a task end after it.
    pub(super) fn stop(&self) {
        let mut state = self.0.state();
        state.stopped = true;
        state.queue.clear();
        self.0.changed.notify_all();
    }

    /// Wakes or makes a thread for a task that has just come.
    fn start_worker(&self, mut state: MutexGuard<'_, State>) {
        let needed = state.urgent.len() + state.queue.len().min(self.0.room());
        if state.idle >= needed {
            self.0.changed.notify_one();
        } else {
            state.threads += 1;
            let number = state.threads;
            drop(state);
            self.spawn(number);
        }
    }

    fn spawn(&self, number: usize) {
        let inner = self.0.clone();
        let thread = std::thread::Builder::new().name(format!("worker-{number}"));
        if let Err(error) = thread.spawn(move || inner.work()) {
            // The task waits for one of the threads that there are.
            log::error!("no thread for another request: {error}");
            self.0.state().threads -= 1;
        }
    }
}

impl Inner {
    /// How many more threads may be in tasks of the queue.
    fn room(&self) -> usize {
        self.max_threads.saturating_sub(self.limited.load(Ordering::SeqCst))
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(task) = state.urgent.pop_front() {
                drop(state);
                contained(task);
                state = self.state();
                continue;
            }
            if self.room() > 0
                && let Some(task) = state.queue.pop_front()
            {
                self.limited.fetch_add(1, Ordering::SeqCst);
                drop(state);
                contained(task);
                state = self.state();
                self.limited.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            if state.stopped {
                break;
            }
            state.idle += 1;
            let waited = self.changed.wait_timeout(state, IDLE);
            let (next, timeout) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.urgent.is_empty() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn blocked_tasks_do_not_keep_others_waiting_until_the_limit_which_the_server_itself_passes() {
        let threads = Threads::new(3);
        let (done, results) = mpsc::channel();
        let mut release = Vec::new();
        for number in 0..4 {
            let (let_go, gate) = mpsc::channel::<()>();
            let done = done.clone();
            threads.run(Box::new(move || {
                done.send((number, "started")).unwrap();
                let _ = gate.recv();
            }));
            release.push(let_go);
        }
        let mut started: Vec<_> = (0..3).map(|_| results.recv().unwrap().0).collect();
        started.sort_unstable();
        assert_eq!((started, threads.waiting()), (vec![0, 1, 2], 1));
        let urgent = done.clone();
        threads.run_now(Box::new(move || urgent.send((9, "urgent")).unwrap()));
        assert_eq!(results.recv().unwrap().0, 9);
        drop(release.remove(0));
        assert_eq!(results.recv().unwrap().0, 3);
        drop(release);
        threads.stop();
    }
}
