//! The sessions of one user. Each shard knows those that it holds; who looks at all of them, or ends them, locks all shards
//! at once, so that no session moves from one to another meanwhile.

use std::sync::MutexGuard;

use super::MemoryStore;
use super::shard::Shard;
use crate::Result;
use crate::lock::lock;
use crate::session::id::SessionId;
use crate::session::store::devices::{
    Device, EndDevices, LogIn, beyond, newest_first, no_such_device,
};

impl MemoryStore {
    pub(super) fn list(&self, user: &str, this: Option<&SessionId>) -> Vec<Device> {
        let (shards, now) = (self.all_shards(), self.now());
        let stored = shards.iter().flat_map(|shard| shard.of_user(user, now));
        let mut devices: Vec<_> = stored.filter_map(|stored| stored.device(this)).collect();
        newest_first(&mut devices);
        devices
    }

    pub(super) fn end_of(&self, user: &str, which: EndDevices<'_>) -> Result<usize> {
        let (mut shards, now) = (self.all_shards(), self.now());
        let ends = |id: &SessionId, handle: Option<&str>| match which {
            EndDevices::All => true,
            EndDevices::AllBut(stays) => id != stays,
            EndDevices::One(ends) => handle == Some(ends),
        };
        let is_there = |stays: &SessionId| {
            shards.iter().any(|shard| shard.of_user(user, now).any(|stored| stored.id == *stays))
        };
        if let EndDevices::AllBut(stays) = which
            && !is_there(stays)
        {
            return Err(no_such_device());
        }
        let mut count = 0;
        for shard in &mut shards {
            let stored =
                shard.of_user(user, now).filter(|stored| ends(&stored.id, stored.handle()));
            let ids: Vec<_> = stored.map(|stored| stored.id.clone()).collect();
            count += ids.len();
            for id in &ids {
                shard.destroy(id, now);
            }
        }
        Ok(count)
    }

    /// Ends the oldest sessions of a user who has just logged in into this one, beyond as many as there may be.
    pub(super) fn end_oldest(&self, login: Option<LogIn<'_>>, id: &SessionId) {
        let Some(LogIn { user, max_sessions: Some(max_sessions), .. }) = login else { return };
        for handle in beyond(Some(max_sessions), &self.list(user, Some(id))) {
            // It may be gone by itself, and that is all that can go wrong.
            let _ = self.end_of(user, EndDevices::One(&handle));
        }
    }

    fn all_shards(&self) -> Vec<MutexGuard<'_, Shard>> {
        // In the order of all who lock more than one.
        self.shards.iter().map(lock).collect()
    }
}
