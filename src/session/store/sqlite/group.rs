//! Group commit: what comes while a commit runs shares the next one.
//!
//! There is no thread for it. Who finds no leader leads: takes all that waits, commits it as one transaction, lets the
//! first of those who came meanwhile lead, and tells the others what became of theirs.

use std::sync::{Arc, Condvar, Mutex};

use crate::lock::{lock, unpoisoned};

/// Jobs `J` that are carried out together, and their answers `A`.
pub(super) struct Group<J, A> {
    state: Mutex<State<J, A>>,
}

struct State<J, A> {
    /// Whether somebody leads.
    led: bool,
    waiting: Vec<(J, Arc<Follower<A>>)>,
}

/// Who waits for an answer.
struct Follower<A> {
    notice: Mutex<Notice<A>>,
    changed: Condvar,
}

enum Notice<A> {
    Nothing,
    /// To lead.
    Lead,
    Answer(A),
    /// The leader panicked, and whether the job was carried out is not known.
    Abandoned,
}

impl<J, A> Group<J, A> {
    pub(super) fn new() -> Group<J, A> {
        Group { state: Mutex::new(State { led: false, waiting: Vec::new() }) }
    }

    /// Has the job carried out and returns its answer; `None` where its leader panicked. `carry_out` is called by the
    /// leader alone, with all jobs of the round in the order they came, and returns one answer for each.
    pub(super) fn submit(&self, job: J, carry_out: impl FnOnce(&[J]) -> Vec<A>) -> Option<A> {
        let own =
            Arc::new(Follower { notice: Mutex::new(Notice::Nothing), changed: Condvar::new() });
        let led = {
            let mut state = lock(&self.state);
            state.waiting.push((job, own.clone()));
            std::mem::replace(&mut state.led, true)
        };
        if led {
            match own.wait() {
                Notice::Answer(answer) => return Some(answer),
                Notice::Abandoned => return None,
                Notice::Lead | Notice::Nothing => {}
            }
        }
        self.lead(&own, carry_out)
    }

    /// Carries out all that waits, the leader's own job among it.
    fn lead(&self, own: &Arc<Follower<A>>, carry_out: impl FnOnce(&[J]) -> Vec<A>) -> Option<A> {
        let lead = Lead(self);
        let (jobs, followers): (Vec<J>, Vec<_>) =
            std::mem::take(&mut lock(&self.state).waiting).into_iter().unzip();
        let mut round = Round(followers);
        let answers = carry_out(&jobs);
        // The next round begins while the answers of this one are sent.
        drop(lead);
        let mut own_answer = None;
        for (follower, answer) in round.0.drain(..).zip(answers) {
            match Arc::ptr_eq(&follower, own) {
                true => own_answer = Some(answer),
                false => follower.notify(Notice::Answer(answer)),
            }
        }
        own_answer
    }
}

/// The lead, which the first who waits has next, also after a panic.
struct Lead<'a, J, A>(&'a Group<J, A>);

impl<J, A> Drop for Lead<'_, J, A> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        match state.waiting.first() {
            Some((_, next)) => next.notify(Notice::Lead),
            None => state.led = false,
        }
    }
}

/// Who waits for the answers of a round, none of whom waits for ever.
struct Round<A>(Vec<Arc<Follower<A>>>);

impl<A> Drop for Round<A> {
    fn drop(&mut self) {
        self.0.drain(..).for_each(|follower| follower.notify(Notice::Abandoned));
    }
}

impl<A> Follower<A> {
    fn notify(&self, notice: Notice<A>) {
        *lock(&self.notice) = notice;
        self.changed.notify_one();
    }

    fn wait(&self) -> Notice<A> {
        let notice = lock(&self.notice);
        let nothing = |notice: &mut Notice<A>| matches!(notice, Notice::Nothing);
        let notice = self.changed.wait_while(notice, nothing);
        let mut notice = unpoisoned(notice);
        std::mem::replace(&mut notice, Notice::Nothing)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    impl<J, A> Group<J, A> {
        fn until_waiting(&self, count: usize) {
            while lock(&self.state).waiting.len() < count {
                thread::yield_now();
            }
        }
    }

    #[test]
    fn what_comes_while_a_round_runs_shares_the_next_one() {
        let (group, rounds) = (Group::new(), Mutex::new(Vec::new()));
        let carry_out = |jobs: &[usize]| {
            let first = lock(&rounds).is_empty();
            if first {
                group.until_waiting(8);
            }
            lock(&rounds).push(jobs.to_vec());
            jobs.iter().map(|job| job * 10).collect()
        };
        let began = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                let answer = group.submit(100, |jobs: &[usize]| {
                    began.wait();
                    carry_out(jobs)
                });
                assert_eq!(answer, Some(1000));
            });
            began.wait();
            for job in 0..8 {
                let (group, carry_out) = (&group, &carry_out);
                scope.spawn(move || assert_eq!(group.submit(job, carry_out), Some(job * 10)));
            }
        });
        let mut rounds = rounds.into_inner().unwrap();
        rounds[1].sort();
        assert_eq!(rounds, [vec![100], (0..8).collect()]);
        assert_eq!(group.submit(3, |jobs| jobs.to_vec()), Some(3), "nobody leads any more");
    }

    #[test]
    fn who_follows_a_leader_that_panics_hears_of_it_and_the_next_one_leads() {
        let (group, began) = (Group::new(), Barrier::new(2));
        let (group, began) = (&group, &began);
        thread::scope(|scope| {
            let first = scope.spawn(move || {
                group.submit(0, |_: &[usize]| {
                    began.wait();
                    group.until_waiting(2);
                    vec![0]
                })
            });
            began.wait();
            let panics = |jobs: &[usize]| -> Vec<usize> {
                assert_eq!(jobs.len(), 2, "both wait");
                panic!("in the middle of a round")
            };
            let others: Vec<_> = (1..3)
                .map(|job| {
                    scope
                        .spawn(move || catch_unwind(AssertUnwindSafe(|| group.submit(job, panics))))
                })
                .collect();
            assert_eq!(first.join().unwrap(), Some(0));
            let others: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
            assert_eq!(others.iter().filter(|other| other.is_err()).count(), 1);
            assert_eq!(others.iter().filter(|other| matches!(other, Ok(None))).count(), 1);
        });
        assert_eq!(group.submit(7, |jobs| jobs.to_vec()), Some(7));
    }
}
