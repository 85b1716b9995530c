//! What is done for several sessions of one request, as one operation.

use std::time::SystemTime;

use smallvec::SmallVec;

use super::record::RecordError;
use super::{desync, explained};
use crate::Error;
use crate::pipeline::operation::{Answer, Operation, Progress, Round};
use crate::redis::{Replies, copy};
use crate::session::store::StoreOperation;

/// What is done for one session. It may take several round trips.
pub(super) trait Step: Send + 'static {
    /// What it ends with.
    type Outcome: 'static;

    fn is_over(&self) -> bool;

    /// Writes the commands of the next round trip.
    fn request(&mut self, round: &mut Round<'_>) -> Request;

    /// Reads the replies to these.
    fn answer(&mut self, replies: &mut Replies<'_>, now: SystemTime) -> Result<(), RecordError>;

    fn fail(&mut self, error: Error);

    fn into_outcome(self) -> Self::Outcome;
}

/// What is known of a request before it is answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// Whether twice is as good as once.
    pub(super) repeatable: bool,
    /// Whether it changes nothing.
    pub(super) read_only: bool,
    /// How many bytes the replies have at most.
    pub(super) max_reply_bytes: usize,
}

/// The steps of one request. Those that are not over go together, and one by one in a cluster, where each may be at
/// another node.
pub(super) struct Steps<S> {
    steps: SmallVec<[S; 1]>,
    /// How many of those that were not over the last request had.
    sent: usize,
}

impl<S: Step> Steps<S> {
    pub(super) fn new(steps: impl IntoIterator<Item = S>) -> Steps<S> {
        Steps { steps: steps.into_iter().collect(), sent: 0 }
    }

    fn open(&mut self) -> impl Iterator<Item = &mut S> {
        self.steps.iter_mut().filter(|step| !step.is_over())
    }

    pub(super) fn is_over(&self) -> bool {
        self.steps.iter().all(Step::is_over)
    }

    pub(super) fn into_outcomes(self) -> impl Iterator<Item = S::Outcome> {
        self.steps.into_iter().map(Step::into_outcome)
    }
}

impl<S: Step> Operation for Steps<S> {
    fn request(&mut self, round: &mut Round<'_>) {
        let most = if round.is_for_one_key() { 1 } else { usize::MAX };
        let (mut repeatable, mut read_only, mut longest, mut sent) = (true, true, 0usize, 0);
        for step in self.open().take(most) {
            let request = step.request(round);
            repeatable &= request.repeatable;
            read_only &= request.read_only;
            longest = longest.saturating_add(request.max_reply_bytes);
            sent += 1;
        }
        self.sent = sent;
        round.at_most(longest);
        if repeatable {
            round.repeatable();
        }
        if read_only {
            round.read_only();
        }
    }

    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        let (mut replies, sent, now) = (answer.replies(), self.sent, answer.now());
        let mut fit = Ok(());
        for step in self.open().take(sent) {
            // One reply that is none to its question means that no later one can be trusted.
            match if fit == Err(RecordError::Desync) { fit } else { step.answer(&mut replies, now) }
            {
                Ok(()) => {}
                Err(record_error) => {
                    step.fail(desync());
                    fit = Err(record_error);
                }
            }
        }
        match fit {
            Ok(()) if replies.is_empty() && self.is_over() => Progress::Done,
            Ok(()) if replies.is_empty() => Progress::Again,
            _ => {
                self.open().for_each(|step| step.fail(desync()));
                Progress::Desync
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let error = explained(error);
        self.open().for_each(|step| step.fail(copy(&error)));
    }
}

impl<S: Step> StoreOperation<S::Outcome> for Steps<S> {
    fn into_answers(self: Box<Self>) -> Vec<S::Outcome> {
        self.into_outcomes().collect()
    }
}
