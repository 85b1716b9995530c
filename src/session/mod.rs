//! Sessions: the plugin, its options, the view that handlers get, and the stores.

mod atomic;
mod context;
pub(crate) mod cookie;
pub(crate) mod csrf;
pub(crate) mod data;
mod devices;
mod env;
pub(crate) mod events;
pub(crate) mod flash;
mod forms;
pub(crate) mod id;
mod login;
mod options;
mod plugin;
pub(crate) mod reserved;
mod rotation;
mod saving;
mod sealing;
mod state;
pub(crate) mod store;
pub(crate) mod view;

pub use options::SessionPlugin;
