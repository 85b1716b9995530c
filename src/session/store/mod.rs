//! What keeps sessions: the contract, and the stores that come with the crate.

mod caps;
mod contract;
pub(crate) mod devices;
mod fields;
pub(crate) mod memory;
mod record;
pub(crate) mod redis;
pub(crate) mod save;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

pub use caps::Caps;
pub use contract::{BreakerObserver, DamageObserver, PipelinedStore, SessionStore, StoreOperation};
pub(crate) use contract::{cannot_compare_and_set, gone, id_taken, not_a_number};
pub use devices::{Device, EndDevices, LogIn};
pub use fields::Fields;
pub use record::{Lifetimes, Load, Loaded, Login, Record};
pub use save::{Action, Changes, OldId, Remember, Save, Saved};
