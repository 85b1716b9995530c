//! The settings of a store, and what they say of keys and sizes.

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use super::record::Key;
use super::{Layout, id_format};
use crate::lock::read;
use crate::session::id::SessionId;
use crate::session::store::{Caps, DamageObserver, Lifetimes};
use crate::{Error, ErrorKind, Result};

#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) layout: Layout,
    pub(super) former: Option<Layout>,
    pub(super) prefix: Option<String>,
    pub(super) caps: Caps,
    pub(super) in_cluster: bool,
    pub(super) damaged: Damaged,
    /// RESTORE was refused: sessions are created by a script.
    pub(super) creates_by_script: Arc<AtomicBool>,
}

/// Who hears of records that are no sessions.
#[derive(Clone, Default)]
pub(super) struct Damaged(pub(super) Arc<RwLock<Vec<Arc<DamageObserver>>>>);

impl fmt::Debug for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Damaged")
    }
}

impl Settings {
    pub(super) fn prefix_of(&self, layout: Layout) -> &str {
        match (layout, &self.prefix) {
            (layout, Some(prefix)) if layout == self.layout => prefix,
            (Layout::Default, _) => "bottle.session:",
            (Layout::BottleSession, _) => "session:",
        }
    }

    /// How long a record with this idle limit is kept. In bottle-session's layout each load starts it anew, as in Python.
    pub(super) fn kept_for(&self, idle: Duration) -> Duration {
        match self.layout {
            Layout::Default => Lifetimes { idle, absolute: None }.kept_for(None),
            Layout::BottleSession => idle,
        }
    }

    pub(super) fn former_key(&self, id: &SessionId) -> Option<Box<Key>> {
        let former = self.former.filter(|former| id.format() == id_format(*former))?;
        Some(Box::new(Key::new(self, former, id)))
    }

    /// A hash without fields is no key in Redis; the default layout always has its proof.
    pub(super) fn keeps_empty(&self) -> bool {
        self.layout != Layout::BottleSession
    }

    pub(super) fn check_key(&self, key: &str) -> Result<()> {
        if self.layout != Layout::Default || !key.starts_with('\0') {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Session,
            format!("session field {key:?} cannot be stored: a key must not begin with NUL"),
        ))
    }

    pub(super) fn tell_of_damage(&self, damage: &Error) {
        // Not while they are locked: what an observer does is its own affair.
        let observers = read(&self.damaged.0).clone();
        observers.iter().for_each(|observer| observer(damage));
    }
}
