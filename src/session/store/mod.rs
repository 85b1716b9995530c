//! What keeps sessions: the contract, and the stores that come with the crate.

mod contract;
pub(crate) mod memory;
pub(crate) mod redis;

pub use contract::{
    Action, BreakerObserver, Changes, DamageObserver, Lifetimes, Load, Record, Save, Saved,
    SessionStore,
};
pub(crate) use contract::{Caps, gone, not_a_number};
