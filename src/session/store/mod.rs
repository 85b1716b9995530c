//! What keeps sessions: the contract, and the stores that come with the crate.

mod contract;
mod fields;
pub(crate) mod memory;
pub(crate) mod redis;

pub use contract::{
    Action, BreakerObserver, Caps, Changes, DamageObserver, Lifetimes, Load, Login, PipelinedStore,
    Record, Remember, Save, Saved, SessionStore, StoreOperation,
};
pub(crate) use contract::{gone, not_a_number};
pub use fields::Fields;
