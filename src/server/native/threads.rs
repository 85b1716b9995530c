//! Threads, as many as there is to do at once and no more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::Duration;

use super::engine::catch_panic;
use crate::lock::{lock, unpoisoned};
use crate::logging::ThrottledLog;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// One thread of so many, and at least one where there are two, is for tasks that do not wait for the outside.
const RESERVED: usize = 8;

pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Runs tasks on threads that are made on demand and end when they are not needed.
pub(super) struct Threads {
    state: Mutex<State>,
    changed: Condvar,
    /// What makes the thread of this number.
    thread: fn(usize) -> Builder,
    max_threads: usize,
    max_queue: usize,
    /// How many of these are not for what waits for the outside.
    reserve: usize,
    /// Threads in a task of the queue, and those that are blocked in an urgent one.
    limited: AtomicUsize,
    /// The system gave no thread.
    failed: ThrottledLog,
}

#[derive(Default)]
struct State {
    /// Tasks that the server itself cannot go on without: they get a thread whatever the limit.
    urgent: VecDeque<Task>,
    queue: VecDeque<(u64, Task)>,
    /// Tasks that are likely to block for as long as somebody outside likes.
    streams: VecDeque<StreamTask>,
    /// The number of the next task of these two.
    next: u64,
    threads: usize,
    idle: usize,
    stopped: bool,
}

struct StreamTask {
    number: u64,
    /// The connection that it is for: the number of the event loop and the slot there.
    of: (usize, usize),
    task: Task,
}

impl Threads {
    /// So many threads at most, and so many tasks of each queue that may wait for one.
    pub(super) fn new(max_threads: usize, max_queue: usize) -> Arc<Threads> {
        let thread = |number| Builder::new().name(format!("worker-{number}"));
        Threads::of(max_threads, max_queue, thread)
    }

    fn of(max_threads: usize, max_queue: usize, thread: fn(usize) -> Builder) -> Arc<Threads> {
        Arc::new(Threads {
            thread,
            state: Mutex::default(),
            changed: Condvar::new(),
            max_threads,
            max_queue,
            reserve: max_threads.div_ceil(RESERVED).min(max_threads - 1),
            limited: AtomicUsize::new(0),
            failed: ThrottledLog::default(),
        })
    }

    /// Runs the task at once, on a thread beyond the limit if need be.
    pub(super) fn run_now(self: &Arc<Threads>, task: Task) {
        let mut state = self.state();
        state.urgent.push_back(task);
        self.start_worker(state);
    }

    /// Runs the task once a thread is free.
    pub(super) fn run(self: &Arc<Threads>, task: Task) {
        let mut state = self.state();
        let number = state.number();
        state.queue.push_back((number, task));
        self.start_worker(state);
    }

    /// Runs a task that waits for the outside, once more threads are free than are kept for others; gives it back where
    /// so many wait for that already.
    pub(super) fn run_stream(
        self: &Arc<Threads>,
        of: (usize, usize),
        task: Task,
    ) -> Result<(), Task> {
        let mut state = self.state();
        if self.exceeds_queue(&state) {
            return Err(task);
        }
        let number = state.number();
        state.streams.push_back(StreamTask { number, of, task });
        self.start_worker(state);
        Ok(())
    }

    /// Whether as many tasks that wait for the outside as may wait for a thread.
    pub(super) fn stream_queue_is_full(&self) -> bool {
        self.exceeds_queue(&self.state())
    }

    /// Takes those back that wait for the outside, have no thread yet, and are for connections in these slots of an
    /// event loop.
    pub(super) fn take_back(&self, event_loop: usize, mut slots: Vec<usize>) -> Vec<(usize, Task)> {
        slots.sort_unstable();
        let is_one = |of: (usize, usize)| of.0 == event_loop && slots.binary_search(&of.1).is_ok();
        let mut state = self.state();
        if !state.streams.iter().any(|stream| is_one(stream.of)) {
            return Vec::new();
        }
        let streams = std::mem::take(&mut state.streams).into_iter();
        let (taken, left): (Vec<_>, _) = streams.partition(|stream| is_one(stream.of));
        state.streams = left.into();
        taken.into_iter().map(|stream| (stream.of.1, stream.task)).collect()
    }

    /// Whether as many threads are in tasks of the queue, or blocked, as may.
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// A thread is blocked in an urgent task, as by one of the queue: it counts as such.
    pub(super) fn blocked(&self) {
        self.limited.fetch_add(1, Ordering::SeqCst);
    }

    /// The current thread is blocked no more; it must end its urgent task and look for another one.
    pub(super) fn unblocked(&self) {
        self.limited.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether there is no thread at all, and so none that could begin.
    pub(super) fn is_empty(&self) -> bool {
        self.state().threads == 0
    }

    /// Whether as many tasks as may wait for a thread.
    pub(super) fn queue_is_full(&self) -> bool {
        self.is_full() && self.state().queue.len() >= self.max_queue
    }

    /// Lets the threads end; those that are in a task end after it.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.queue.clear();
        state.streams.clear();
        self.changed.notify_all();
    }

    /// Wakes or makes a thread for a task that has just come.
    fn start_worker(self: &Arc<Threads>, mut state: MutexGuard<'_, State>) {
        let needed = state.urgent.len() + self.startable(&state);
        if state.idle >= needed {
            return self.changed.notify_one();
        }
        state.threads += 1;
        let number = state.threads;
        drop(state);
        let threads = self.clone();
        if let Err(error) = (self.thread)(number).spawn(move || threads.work()) {
            self.failed.log_throttled(log::Level::Error, "", || {
                format!("no thread for another request: {error}")
            });
            let mut state = self.state();
            state.threads -= 1;
            // The task waits for one of the threads that there are. Where there are none, nobody else would come.
            if state.threads == 0 {
                drop(self.run_queued(state));
            }
        }
    }

    /// How many more threads may be in tasks of the queue.
    fn room(&self) -> usize {
        self.max_threads.saturating_sub(self.limited.load(Ordering::SeqCst))
    }

    /// How many more threads may be in tasks that wait for the outside.
    fn stream_room(&self) -> usize {
        self.room().saturating_sub(self.reserve)
    }

    /// How many tasks of the queues may have a thread now.
    fn startable(&self, state: &State) -> usize {
        let streams = state.streams.len().min(self.stream_room());
        (state.queue.len() + streams).min(self.room())
    }

    fn exceeds_queue(&self, state: &State) -> bool {
        state.streams.len() >= self.stream_room().saturating_add(self.max_queue)
    }

    /// The task that has waited longest of those that may have a thread, which is counted.
    fn next(&self, state: &mut State) -> Option<Task> {
        let quick = state.queue.front().map(|(number, _)| *number).filter(|_| self.room() > 0);
        let is_next = |stream: &StreamTask| quick.is_none_or(|quick| stream.number < quick);
        if state.streams.front().is_some_and(is_next) && self.stream_room() > 0 {
            self.blocked();
            return state.streams.pop_front().map(|stream| stream.task);
        }
        quick?;
        self.blocked();
        state.queue.pop_front().map(|(_, task)| task)
    }

    /// Runs the tasks of the queues that may have a thread, on this one, until one is urgent.
    fn run_queued<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(task) = self.next(&mut state) {
            drop(state);
            catch_panic(task);
            state = self.state();
            self.unblocked();
            if !state.urgent.is_empty() {
                break;
            }
        }
        state
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(task) = state.urgent.pop_front() {
                drop(state);
                catch_panic(task);
                state = self.state();
                continue;
            }
            state = self.run_queued(state);
            if !state.urgent.is_empty() {
                continue;
            }
            if state.stopped {
                break;
            }
            state.idle += 1;
            let (next, timeout) = unpoisoned(self.changed.wait_timeout(state, IDLE));
            state = next;
            state.idle -= 1;
            if timeout.timed_out() && state.urgent.is_empty() && self.startable(&state) == 0 {
                break;
            }
        }
        state.threads -= 1;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_that_wait_for_the_outside_leave_threads_to_others_and_take_turns_with_them() {
        for (max, streams) in [(1, 1), (2, 1), (8, 7), (16, 14), (512, 448)] {
            let threads = Threads::new(max, 1);
            assert_eq!(max - threads.reserve, streams, "{max}");
        }
        let threads = Threads::new(3, 1);
        let (done, results) = mpsc::channel();
        let gated = |name: &'static str| -> (mpsc::Sender<()>, Task) {
            let ((let_go, gate), done) = (mpsc::channel::<()>(), done.clone());
            let task = move || {
                done.send(name).unwrap();
                let _ = gate.recv();
            };
            (let_go, Box::new(task))
        };
        let mut gates = Vec::new();
        for name in ["stream 1", "stream 2", "stream 3"] {
            let (gate, task) = gated(name);
            assert!(threads.run_stream((0, 0), task).is_ok());
            gates.push(gate);
        }
        let mut started = [results.recv().unwrap(), results.recv().unwrap()];
        started.sort_unstable();
        assert_eq!(started, ["stream 1", "stream 2"]);
        assert!(threads.stream_room() == 0 && !threads.is_full());
        // One after the other, they pass who waits.
        for name in ["quick 1", "quick 2"] {
            let (gate, task) = gated(name);
            threads.run(task);
            assert_eq!(results.recv().unwrap(), name);
            drop(gate);
        }
        let (last, task) = gated("quick 3");
        threads.run(task);
        assert_eq!(results.recv().unwrap(), "quick 3");
        assert!(threads.is_full());
        drop(gates.remove(0));
        drop(last);
        assert_eq!(results.recv().unwrap(), "stream 3");
        drop(gates);
        threads.stop();
    }

    #[test]
    fn of_tasks_that_wait_for_the_outside_no_more_than_the_limit_wait_for_a_thread() {
        let threads = Threads::new(2, 3);
        let (done, results) = mpsc::channel();
        let (let_go, gate) = mpsc::channel::<()>();
        let first = done.clone();
        let first: Task = Box::new(move || {
            first.send(0).unwrap();
            let _ = gate.recv();
        });
        assert!(threads.run_stream((0, 0), first).is_ok());
        assert_eq!(results.recv().unwrap(), 0);
        let numbered = |number: usize| -> Task {
            let done = done.clone();
            Box::new(move || done.send(number).unwrap())
        };
        for number in 1..=3 {
            assert!(!threads.stream_queue_is_full());
            assert!(threads.run_stream((number % 2, number), numbered(number)).is_ok());
        }
        assert!(threads.stream_queue_is_full() && threads.run_stream((0, 4), numbered(4)).is_err());
        // Who has left makes room: only what has no thread yet, and of this event loop.
        let taken = threads.take_back(1, vec![3, 2, 0]);
        assert_eq!(taken.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [3]);
        drop(taken);
        assert!(threads.take_back(0, vec![0]).is_empty());
        assert!(threads.run_stream((0, 5), numbered(5)).is_ok());
        drop(let_go);
        let ran = [0; 3].map(|_| results.recv().unwrap());
        assert_eq!(ran, [1, 2, 5]);
        threads.stop();
    }

    #[test]
    fn where_the_system_gives_no_thread_and_there_is_none_tasks_run_on_that_of_who_brings_them() {
        let threads = Threads::of(2, 1, |_| Builder::new().stack_size(1 << 60));
        let (done, results) = mpsc::channel();
        for number in 0..3 {
            let done = done.clone();
            threads.run(Box::new(move || done.send(number).unwrap()));
            assert_eq!(results.try_recv(), Ok(number));
        }
        assert!(threads.is_empty() && !threads.is_full());
    }

    #[test]
    fn blocked_tasks_do_not_keep_others_waiting_until_the_limit_which_the_server_itself_passes() {
        let threads = Threads::new(3, 1);
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
        assert_eq!(started, [0, 1, 2]);
        assert!(threads.queue_is_full());
        let urgent = done.clone();
        threads.run_now(Box::new(move || urgent.send((9, "urgent")).unwrap()));
        assert_eq!(results.recv().unwrap().0, 9);
        drop(release.remove(0));
        assert_eq!(results.recv().unwrap().0, 3);
        drop(release);
        threads.stop();
    }
}
