//! The contract of [`SessionStore`] as tests, for ours and for yours.
//!
//! [`store_contract!`](crate::store_contract) makes one `#[test]` for each clause, so that a failure says
//! which sentence of the contract does not hold:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::{Duration, SystemTime};
//! use bottle_session::testing::store_contract::StoreUnderTest;
//! use bottle_session::{MemoryStore, SessionStore};
//!
//! struct Subject {
//!     store: MemoryStore,
//!     now: Arc<Mutex<SystemTime>>,
//! }
//!
//! impl StoreUnderTest for Subject {
//!     fn store(&self) -> &dyn SessionStore {
//!         &self.store
//!     }
//!     fn advance(&self, by: Duration) {
//!         *self.now.lock().unwrap() += by;
//!     }
//! }
//!
//! fn subject() -> Subject {
//!     let now = Arc::new(Mutex::new(SystemTime::now()));
//!     let clock = now.clone();
//!     let store = MemoryStore::with_clock(move || *clock.lock().unwrap());
//!     Subject { store, now }
//! }
//!
//! bottle_session::store_contract!(memory, subject());
//! # fn main() { bottle_session::testing::store_contract::check_contract(&subject()) }
//! ```

mod clauses;
mod recorder;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::SessionStore;

/// A store and its clock.
pub trait StoreUnderTest: Sync {
    /// The store, empty at first.
    fn store(&self) -> &dyn SessionStore;

    /// Lets time pass for the store, by minutes and hours: with a clock of its own, or by making all that it
    /// holds older. The suite never waits.
    fn advance(&self, by: Duration);

    /// What the store can keep. What it cannot, the suite expects it to refuse or to do without.
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }
}

/// What a store can keep beyond the fields. By default all of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The times of creation and of the last save, and with them the absolute limit. A store without refuses such a limit in
    /// [`check`](SessionStore::check).
    pub times: bool,
    /// The session's own idle limit. A store without lets a save set how long the session lives until it is
    /// used next, and no longer.
    pub remember: bool,
    /// A session without fields. In a store without, the removal of the last field ends the session.
    pub empty: bool,
}

impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities { times: true, remember: true, empty: true }
    }
}

impl Capabilities {
    /// Only the fields.
    pub fn fields_only() -> Capabilities {
        Capabilities { times: false, remember: false, empty: false }
    }
}

/// Makes a module of this name with one `#[test]` for each clause of the contract of
/// [`SessionStore`](crate::SessionStore). The expression makes a new
/// [`StoreUnderTest`](crate::testing::store_contract::StoreUnderTest) each time.
#[macro_export]
macro_rules! store_contract {
    ($name:ident, $subject:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::__store_contract_clauses!(__store_contract_tests, $subject);
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_contract_tests {
    ($subject:expr; $($clause:ident)*) => {
        $(
            #[test]
            fn $clause() {
                $crate::testing::store_contract::check_clause(stringify!($clause), &$subject);
            }
        )*
    };
}

/// The one list of clauses.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_contract_clauses {
    ($macro:ident, $subject:expr) => {
        $crate::$macro! { $subject;
            an_unknown_session_is_no_session
            a_created_session_loads_as_it_was_saved
            any_text_is_kept_as_it_is
            an_empty_session_is_kept
            a_creation_never_overwrites
            a_session_ends_after_its_idle_limit
            a_load_does_not_start_the_idle_limit_anew
            a_save_starts_the_idle_limit_anew
            a_failed_load_brings_nothing_back
            nothing_goes_past_the_absolute_limit
            a_shortened_absolute_limit_holds_at_once
            a_remembered_session_has_its_own_idle_limit
            a_session_can_lose_its_own_idle_limit
            a_record_says_how_long_ago_it_was_renewed
            a_save_writes_the_changes_and_nothing_else
            a_cleared_session_holds_only_what_was_set_after
            a_save_never_brings_back_a_destroyed_session
            a_save_never_brings_back_an_expired_session
            a_save_never_brings_back_a_moved_session
            a_save_never_brings_back_an_unknown_session
            destroying_again_is_fine
            a_move_takes_everything_along
            a_move_may_be_repeated
            a_move_never_overwrites
            a_login_goes_with_the_session_until_the_next_one
            who_logs_in_gets_a_session_although_the_old_one_is_gone
            of_two_moves_one_wins
            a_users_devices_are_listed_the_latest_login_first
            a_device_keeps_its_handle_over_a_move
            one_device_ends_and_the_others_stay
            all_devices_but_one_end
            all_devices_end_and_come_back_by_no_save
            a_dead_device_is_not_listed
            beyond_the_most_the_oldest_login_ends
            who_logs_in_while_all_devices_end_is_ended_or_came_later
            a_store_without_logins_says_so
            a_session_that_was_ended_is_known_for_a_minute
            who_ends_an_id_ends_the_session_that_has_moved_away_from_it
            who_ends_an_id_that_was_unlinked_ends_nothing
            an_id_in_its_grace_period_tells_what_was_left_for_its_holder
            a_grace_period_lives_as_long_as_the_session_would
            a_grace_period_that_is_over_is_known_for_an_hour
            devices_that_were_ended_are_known_for_a_minute
            an_increment_returns_the_sum
            an_increment_refuses_what_is_no_number
            increments_at_the_same_time_all_count
            taken_fields_are_gone
            sixty_four_takers_get_one_value
            set_if_absent_sets_once
            sixty_four_setters_set_once
            compare_and_set_sets_where_the_text_is_the_same
            of_those_who_compare_at_the_same_time_one_sets
            a_store_that_cannot_compare_and_set_says_so
            operations_leave_the_idle_limit_as_it_is
            operations_on_a_dead_session_say_so
            saves_of_different_fields_at_the_same_time_both_survive
            a_session_destroyed_during_saves_stays_destroyed
            a_save_during_a_move_is_kept_or_refused
            slices_are_answered_in_order
            one_error_in_a_slice_concerns_no_other
        }
    };
}

macro_rules! dispatch {
    ($subject:expr; $($clause:ident)*) => {
        const CLAUSES: &[&str] = &[$(stringify!($clause)),*];

        /// Checks one clause by its name; [`store_contract!`](crate::store_contract) calls it.
        ///
        /// # Panics
        ///
        /// If the store does not keep the contract, with the calls that show it, or there is no such clause.
        pub fn check_clause(clause: &str, subject: &dyn StoreUnderTest) {
            let recorder = recorder::Recorder::new(subject.store());
            let context = &clauses::Context::new(subject, &recorder);
            let kept = catch_unwind(AssertUnwindSafe(|| match clause {
                $(stringify!($clause) => clauses::$clause(context),)*
                unknown => panic!("the contract has no clause {unknown:?}"),
            }));
            if let Err(panic) = kept {
                let why = panic.downcast_ref::<String>().map(String::as_str);
                let why = why.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
                panic!("{clause} does not hold: {why}\n\nThe last calls:{}", recorder.calls());
            }
        }
    };
}

// The list calls macros of the crate by their path, so the private one goes through this name.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_contract_dispatch {
    ($($tokens:tt)*) => { dispatch! { $($tokens)* } };
}

__store_contract_clauses!(__store_contract_dispatch, ());

/// Checks the whole contract on one store, without a test for each clause.
///
/// # Panics
///
/// If the store does not keep the contract.
pub fn check_contract(subject: &dyn StoreUnderTest) {
    for clause in CLAUSES {
        check_clause(clause, subject);
    }
}
