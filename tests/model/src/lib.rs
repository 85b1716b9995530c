//! Who runs an event loop, in every order of the threads' steps (loom): up to three workers, the monitor, two tasks. The code is
//! the server's own file; what surrounds it is as in `run_loop.rs`, and no more of it than the list at its head is about.

#![cfg(test)]

#[path = "../../../src/server/native/ownership.rs"]
mod ownership;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};
}

mod lock {
    use super::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().expect("no thread of the model panics")
    }
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use self::ownership::Ownership;
use self::sync::{AtomicU64, Ordering};

const TASKS: usize = 2;

/// How often the monitor tries to hand the loop off.
const HAND_OFFS: usize = 2;

struct Work {
    tasks: Vec<usize>,
    ran: Vec<usize>,
    /// What the worker is in.
    doing: Option<usize>,
}

struct EventLoop {
    ownership: Ownership<Work>,
    /// What only one thread may touch at a time; loom fails a test in which two do.
    poller: UnsafeCell<u32>,
    connections: [UnsafeCell<u32>; TASKS],
    begun: [AtomicU64; TASKS],
    /// The heartbeat of each task.
    heartbeats: [AtomicU64; TASKS],
    answered: [AtomicU64; TASKS],
    /// Workers that the monitor has counted as blocked, and that have not uncounted themselves.
    blocked: AtomicU64,
}

fn touch(cell: &UnsafeCell<u32>) {
    cell.with_mut(|value| unsafe { *value += 1 });
}

/// One iteration of a worker; false where its epoch has passed meanwhile.
fn iterate(event_loop: &EventLoop, epoch: u64) -> bool {
    let ownership = &event_loop.ownership;
    touch(&event_loop.poller);
    drop(ownership.begin());
    loop {
        let task = {
            let Some(mut work) = ownership.lock_as(epoch) else { return false };
            let Some(task) = work.tasks.pop() else { break };
            work.doing = Some(task);
            ownership.record_heartbeat();
            event_loop.heartbeats[task].store(ownership.heartbeat(), Ordering::Relaxed);
            task
        };
        let before = event_loop.begun[task].fetch_add(1, Ordering::Relaxed);
        assert_eq!(before, 0, "a task is begun once");
        touch(&event_loop.connections[task]);
        let mut work = ownership.lock();
        work.ran.push(task);
        if !work.is_owned_by(epoch) {
            return false;
        }
        work.doing = None;
    }
    loop {
        let task = {
            let Some(mut work) = ownership.lock_as(epoch) else { return false };
            let Some(task) = work.ran.pop() else { break };
            task
        };
        touch(&event_loop.connections[task]);
        event_loop.answered[task].fetch_add(1, Ordering::Relaxed);
    }
    ownership.finish(epoch)
}

fn worker(event_loop: &EventLoop, epoch: u64) {
    if iterate(event_loop, epoch) {
        // It goes on with the next iteration.
        return touch(&event_loop.poller);
    }
    let before = event_loop.blocked.fetch_sub(1, Ordering::Relaxed);
    assert!(before > 0, "it was counted before it could find out");
}

/// What the monitor does where it has seen this heartbeat twice.
fn hand_off(event_loop: &EventLoop, heartbeat: u64) -> Option<u64> {
    let (epoch, mut work) = event_loop.ownership.hand_off(heartbeat)?;
    event_loop.blocked.fetch_add(1, Ordering::Relaxed);
    if let Some(task) = work.doing.take() {
        let its = event_loop.heartbeats[task].load(Ordering::Relaxed);
        assert_eq!(its, heartbeat, "what it blocks in is what the monitor saw");
    }
    Some(epoch)
}

#[test]
fn one_worker_runs_a_loop_and_each_task_is_begun_and_answered_once() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let work = Work { tasks: (0..TASKS).collect(), ran: Vec::new(), doing: None };
        let event_loop = Arc::new(EventLoop {
            ownership: Ownership::new(work),
            poller: UnsafeCell::new(0),
            connections: std::array::from_fn(|_| UnsafeCell::new(0)),
            begun: std::array::from_fn(|_| AtomicU64::new(0)),
            heartbeats: std::array::from_fn(|_| AtomicU64::new(0)),
            answered: std::array::from_fn(|_| AtomicU64::new(0)),
            blocked: AtomicU64::new(0),
        });
        let start = |epoch| {
            let event_loop = event_loop.clone();
            thread::spawn(move || worker(&event_loop, epoch))
        };
        let mut workers = vec![start(0)];
        for _ in 0..HAND_OFFS {
            let heartbeat = event_loop.ownership.heartbeat();
            workers.extend(hand_off(&event_loop, heartbeat).map(start));
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(
            event_loop.blocked.load(Ordering::Relaxed),
            0,
            "who is blocked no more is not counted"
        );
        let work = event_loop.ownership.lock();
        assert!(!work.is_busy() && work.tasks.is_empty());
        for task in 0..TASKS {
            assert_eq!(event_loop.begun[task].load(Ordering::Relaxed), 1);
            // What the first worker was in when it lost the loop waits for the next iteration of the second one.
            let waits = work.ran.iter().filter(|ran| **ran == task).count() as u64;
            assert_eq!(
                event_loop.answered[task].load(Ordering::Relaxed) + waits,
                1,
                "nothing gets lost"
            );
        }
    });
}
