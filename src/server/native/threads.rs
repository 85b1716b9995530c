//! Threads, as many as there is to do at once and no more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::Builder;
use std::time::Duration;

use super::engine::contained;
use crate::lock::{lock, unpoisoned};
use crate::logging::ThrottledLog;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// One thread of so many, and at least one where there are two, is for tasks that do not wait for the outside.
const RESERVED: usize = 8;

pub(super) type Task = Box<dyn FnOnce() + Send>;

/// Runs tasks on threads that are made on demand and end when they are not needed.
#[derive(Clone)]
pub(super) struct Threads(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
    /// What makes the thread of this number.
    thread: fn(usize) -> Builder,
    max_threads: usize,
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
    patient: VecDeque<Patient>,
    /// The number of the next task of these two.
    next: u64,
    threads: usize,
    idle: usize,
    stopped: bool,
}

struct Patient {
    number: u64,
    /// The connection that it is for: the number of the event loop and the slot there.
    of: (usize, usize),
    task: Task,
}

impl Threads {
    pub(super) fn new(max_threads: usize) -> Threads {
        Threads::of(max_threads, |number| Builder::new().name(format!("worker-{number}")))
    }

    fn of(max_threads: usize, thread: fn(usize) -> Builder) -> Threads {
        Threads(Arc::new(Inner {
            thread,
            state: Mutex::default(),
            changed: Condvar::new(),
            max_threads,
            reserve: max_threads.div_ceil(RESERVED).min(max_threads - 1),
            limited: AtomicUsize::new(0),
            failed: ThrottledLog::default(),
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
        let number = state.number();
        state.queue.push_back((number, task));
        self.start_worker(state);
    }

    /// Runs a task that waits for the outside, once more threads are free than are kept for others; gives it back where
    /// so many wait for that already.
    pub(super) fn run_patiently(
        &self,
        of: (usize, usize),
        task: Task,
        max_queue: usize,
    ) -> Result<(), Task> {
        let mut state = self.0.state();
        if self.0.is_overrun(&state, max_queue) {
            return Err(task);
        }
        let number = state.number();
        state.patient.push_back(Patient { number, of, task });
        self.start_worker(state);
        Ok(())
    }

    /// Whether so many tasks that wait for the outside wait for a thread.
    pub(super) fn is_overrun(&self, max_queue: usize) -> bool {
        self.0.is_overrun(&self.0.state(), max_queue)
    }

    /// Takes those back that wait for the outside, have no thread yet, and are for connections in these slots of an
    /// event loop.
    pub(super) fn take_back(&self, event_loop: usize, mut slots: Vec<usize>) -> Vec<(usize, Task)> {
        slots.sort_unstable();
        let is_one = |of: (usize, usize)| of.0 == event_loop && slots.binary_search(&of.1).is_ok();
        let mut state = self.0.state();
        if !state.patient.iter().any(|patient| is_one(patient.of)) {
            return Vec::new();
        }
        let patient = std::mem::take(&mut state.patient).into_iter();
        let (taken, left): (Vec<_>, _) = patient.partition(|patient| is_one(patient.of));
        state.patient = left.into();
        taken.into_iter().map(|patient| (patient.of.1, patient.task)).collect()
    }

    /// Whether as many threads are in tasks of the queue, or blocked, as may.
    pub(super) fn is_full(&self) -> bool {
        self.0.room() == 0
    }

    /// Counts the current thread, in an urgent task, as one of those that wait for the outside, unless no more threads
    /// are free than are kept for others.
    pub(super) fn begin_waiting(&self) -> bool {
        self.0.begin_waiting()
    }

    /// The current thread waits no more, and goes on with its urgent task.
    pub(super) fn end_waiting(&self) {
        self.unblocked();
        let state = self.0.state();
        if self.0.startable(&state) > 0 {
            self.start_worker(state);
        }
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
        state.patient.clear();
        self.0.changed.notify_all();
    }

    /// Wakes or makes a thread for a task that has just come.
    fn start_worker(&self, mut state: MutexGuard<'_, State>) {
        let needed = state.urgent.len() + self.0.startable(&state);
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
        if let Err(error) = (self.0.thread)(number).spawn(move || inner.work()) {
            self.0.failed.log_throttled(log::Level::Error, "", || {
                format!("no thread for another request: {error}")
            });
            let mut state = self.0.state();
            state.threads -= 1;
            // The task waits for one of the threads that there are. Where there are none, nobody else would come.
            if state.threads == 0 {
                drop(self.0.run_queued(state));
            }
        }
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

impl Inner {
    /// How many more threads may be in tasks of the queue.
    fn room(&self) -> usize {
        self.max_threads.saturating_sub(self.limited.load(Ordering::SeqCst))
    }

    /// How many tasks of the queues may have a thread now.
    fn startable(&self, state: &State) -> usize {
        let patient = state.patient.len().min(self.patient_room());
        (state.queue.len() + patient).min(self.room())
    }

    /// How many more threads may be in tasks that wait for the outside.
    fn patient_room(&self) -> usize {
        self.room().saturating_sub(self.reserve)
    }

    fn is_overrun(&self, state: &State, max_queue: usize) -> bool {
        state.patient.len() >= self.patient_room().saturating_add(max_queue)
    }

    fn begin_waiting(&self) -> bool {
        let most = self.max_threads - self.reserve;
        let one_more = |limited| (limited < most).then_some(limited + 1);
        self.limited.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// The task that has waited longest of those that may have a thread, which is counted.
    fn next(&self, state: &mut State) -> Option<Task> {
        let quick = state.queue.front().map(|(number, _)| *number).filter(|_| self.room() > 0);
        let is_next = |patient: &Patient| quick.is_none_or(|quick| patient.number < quick);
        if state.patient.front().is_some_and(is_next) && self.begin_waiting() {
            return state.patient.pop_front().map(|patient| patient.task);
        }
        quick?;
        self.limited.fetch_add(1, Ordering::SeqCst);
        state.queue.pop_front().map(|(_, task)| task)
    }

    /// Runs the tasks of the queues that may have a thread, on this one.
    fn run_queued<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while let Some(task) = self.next(&mut state) {
            drop(state);
            contained(task);
            state = self.state();
            self.limited.fetch_sub(1, Ordering::SeqCst);
        }
        state
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
            if let Some(task) = self.next(&mut state) {
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
            let (next, timeout) = unpoisoned(waited);
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn tasks_that_wait_for_the_outside_leave_threads_to_others_and_take_turns_with_them() {
        for (max, patient) in [(1, 1), (2, 1), (8, 7), (16, 14), (512, 448)] {
            let threads = Threads::new(max);
            assert_eq!(max - threads.0.reserve, patient, "{max}");
        }
        let threads = Threads::new(3);
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
            assert!(threads.run_patiently((0, 0), task, 1).is_ok());
            gates.push(gate);
        }
        let mut started = [results.recv().unwrap(), results.recv().unwrap()];
        started.sort_unstable();
        assert_eq!(started, ["stream 1", "stream 2"]);
        assert!(!threads.begin_waiting() && !threads.is_full());
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
        let threads = Threads::new(2);
        let (done, results) = mpsc::channel();
        let (let_go, gate) = mpsc::channel::<()>();
        let first = done.clone();
        let first: Task = Box::new(move || {
            first.send(0).unwrap();
            let _ = gate.recv();
        });
        assert!(threads.run_patiently((0, 0), first, 3).is_ok());
        assert_eq!(results.recv().unwrap(), 0);
        let numbered = |number: usize| -> Task {
            let done = done.clone();
            Box::new(move || done.send(number).unwrap())
        };
        for number in 1..=3 {
            assert!(!threads.is_overrun(3));
            assert!(threads.run_patiently((number % 2, number), numbered(number), 3).is_ok());
        }
        assert!(threads.is_overrun(3) && threads.run_patiently((0, 4), numbered(4), 3).is_err());
        // Who has left makes room: only what has no thread yet, and of this event loop.
        let taken = threads.take_back(1, vec![3, 2, 0]);
        assert_eq!(taken.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [3]);
        drop(taken);
        assert!(threads.take_back(0, vec![0]).is_empty());
        assert!(threads.run_patiently((0, 5), numbered(5), 3).is_ok());
        drop(let_go);
        let ran = [0; 3].map(|_| results.recv().unwrap());
        assert_eq!(ran, [1, 2, 5]);
        threads.stop();
    }

    #[test]
    fn where_the_system_gives_no_thread_and_there_is_none_tasks_run_on_that_of_who_brings_them() {
        let threads = Threads::of(2, |_| Builder::new().stack_size(1 << 60));
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
