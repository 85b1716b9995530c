//! What a store should hold, and the rules of the contract.

use std::collections::BTreeMap;

use bottle_session::{Changes, ErrorKind, Loaded, Saved};

/// Time in the model, in minutes.
pub type Minutes = u64;

/// One session in the model.
#[derive(Clone, Debug)]
pub struct Session {
    pub fields: BTreeMap<String, String>,
    created: Minutes,
    /// When its idle limit last began anew together with the cookie.
    pub renewed: Minutes,
    /// The idle limit that the request which saved it took it to have.
    pub saved_for: Minutes,
    pub remember: Option<Minutes>,
    pub login: Option<(&'static str, Minutes)>,
    /// The id under which the user has logged in: its handle stays that of this login.
    pub login_id: usize,
    expires: Minutes,
}

/// What becomes of an id that a session moves away from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Old {
    Linked,
    Unlinked,
    InGrace,
}

#[derive(Clone, Copy, Debug)]
pub struct Left {
    old: Old,
    /// Where the session has moved.
    to: usize,
    /// When the grace period ends.
    ends: Option<Minutes>,
    until: Minutes,
}

/// For how long a tombstone is known, and the end of a grace period.
const TOMBSTONE: Minutes = 1;
const PAST_GRACE: Minutes = 60;

/// What the store should hold, and the rules of the contract, in so many words.
#[derive(Default)]
pub struct Model {
    pub live: BTreeMap<usize, Session>,
    /// What sessions have left under ids that are theirs no more, as long as it is known.
    pub left: BTreeMap<usize, Left>,
    pub now: Minutes,
    pub idle: Minutes,
    pub absolute: Option<Minutes>,
    /// Whether it can say when it was last saved; where not, loads start the idle limit anew.
    pub keeps_times: bool,
    pub keeps_remember: bool,
    pub keeps_empty: bool,
    pub keeps_tombstones: bool,
}

/// A change of a session in the model.
#[derive(Clone, Debug, Default)]
pub struct Write {
    pub changes: Changes,
    /// A limit of its own, or none any more.
    pub remember: Option<Option<Minutes>>,
    pub renewed_ago: Option<Minutes>,
    pub login: Option<&'static str>,
}

impl Model {
    pub fn pass(&mut self, time: Minutes) {
        self.now += time;
        self.live.retain(|_, session| session.expires > self.now);
        self.left.retain(|_, left| left.until > self.now);
    }

    pub fn touch(&mut self, id: usize, once: Option<Minutes>) {
        let (now, idle, absolute, more) = (self.now, self.idle, self.absolute, self.keeps_times);
        let Some(session) = self.live.get_mut(&id) else { return };
        let idle = once.or(session.remember).unwrap_or(idle);
        // A tenth longer than promised; all idle limits are of tens of minutes.
        session.expires = now + idle + if more { idle / 10 } else { 0 };
        if let Some(absolute) = absolute {
            session.expires = session.expires.min(session.created + absolute);
        }
        if session.fields.is_empty() && !self.keeps_empty {
            self.live.remove(&id);
        }
    }

    pub fn write(&mut self, id: usize, write: &Write) {
        let (now, keeps_remember, idle) = (self.now, self.keeps_remember, self.idle);
        let Some(session) = self.live.get_mut(&id) else { return };
        if write.changes.cleared {
            session.fields.clear();
        }
        for (key, value) in &write.changes.fields {
            match value {
                Some(value) => session.fields.insert(key.clone(), value.clone()),
                None => session.fields.remove(key),
            };
        }
        if let Some(user) = write.login {
            (session.login, session.login_id) = (Some((user, now)), id);
        }
        if write.renewed_ago.is_none() {
            session.renewed = now;
        }
        session.saved_for = write.remember.flatten().unwrap_or(idle);
        if keeps_remember {
            session.remember = write.remember.unwrap_or(session.remember);
        }
        self.touch(id, write.remember.flatten());
    }

    pub fn load(&mut self, id: usize) -> Option<Session> {
        if !self.keeps_times {
            self.touch(id, None);
        }
        self.live.get(&id).cloned()
    }

    /// `None` where the store has to answer with an error.
    pub fn create(&mut self, id: usize, write: &Write) -> Option<Saved> {
        let session = Session {
            fields: BTreeMap::new(),
            created: self.now,
            renewed: self.now,
            saved_for: 0,
            remember: None,
            login: None,
            login_id: 0,
            expires: 0,
        };
        if let Some(there) = self.live.get(&id) {
            let set = write.changes.fields.iter().filter_map(|(k, v)| Some((k, v.as_ref()?)));
            return there.fields.iter().eq(set).then_some(Saved::Stored);
        }
        self.left.remove(&id);
        self.live.insert(id, session);
        self.write(id, write);
        Some(Saved::Stored)
    }

    pub fn update(&mut self, id: usize, write: &Write) -> Option<Saved> {
        if !self.live.contains_key(&id) {
            return Some(Saved::Gone);
        }
        self.write(id, write);
        Some(Saved::Stored)
    }

    pub fn rotate(&mut self, id: usize, to: usize, old: Old, write: &Write) -> Option<Saved> {
        match (self.live.contains_key(&id), self.live.contains_key(&to)) {
            (false, false) if write.login.is_some() && !self.has_next(id) => self.create(to, write),
            (false, false) => Some(Saved::Gone),
            (false, true) => Some(Saved::Stored),
            (true, true) => None,
            (true, false) => {
                let session = self.live.remove(&id)?;
                self.left.remove(&to);
                self.live.insert(to, session);
                self.write(to, write);
                let expires = self.live.get(&to).map_or(0, |session| session.expires);
                let until = if old == Old::InGrace { expires } else { self.now + TOMBSTONE };
                self.leave(id, Left { old, to, ends: None, until });
                Some(Saved::Stored)
            }
        }
    }

    fn leave(&mut self, id: usize, left: Left) {
        if self.keeps_tombstones {
            self.left.insert(id, left);
        }
    }

    /// What a load answers under an id that is no session's.
    pub fn found(&self, id: usize) -> Loaded {
        match self.left.get(&id) {
            None => Loaded::Unknown,
            Some(Left { old: Old::InGrace, to, ends, .. }) => match ends {
                None => Loaded::InGrace(to.to_string()),
                Some(ends) if *ends <= self.now => Loaded::PastGrace {
                    left: to.to_string(),
                    since: super::minutes(self.now - ends),
                },
                Some(_) => Loaded::GraceEnding(to.to_string()),
            },
            Some(_) => Loaded::Ended,
        }
    }

    fn has_next(&self, id: usize) -> bool {
        !matches!(self.found(id), Loaded::Unknown | Loaded::Ended)
    }

    pub fn is_in_grace(&self, id: usize) -> bool {
        matches!(self.found(id), Loaded::InGrace(_) | Loaded::GraceEnding(_))
    }

    /// The ids whose grace period is open and not to end.
    pub fn in_open_grace(&self) -> Vec<usize> {
        let is_open = |left: &Left| left.old == Old::InGrace && left.ends.is_none();
        self.left.iter().filter(|(_, left)| is_open(left)).map(|(id, _)| *id).collect()
    }

    pub fn extend_grace(&mut self, id: usize) -> Option<Saved> {
        let idle = self.idle + self.idle / 10;
        let until = self.now + self.absolute.map_or(idle, |absolute| idle.min(absolute));
        self.change_grace(id, |left| {
            if left.ends.is_none() {
                left.until = until;
            }
        })
    }

    pub fn end_grace(&mut self, id: usize, after: Minutes) -> Option<Saved> {
        let at = self.now + after;
        self.change_grace(id, |left| {
            let ends = left.ends.map_or(at, |ends| ends.min(at));
            (left.ends, left.until) = (Some(ends), ends + PAST_GRACE);
        })
    }

    fn change_grace(&mut self, id: usize, change: impl FnOnce(&mut Left)) -> Option<Saved> {
        if !self.is_in_grace(id) {
            return Some(Saved::Gone);
        }
        self.left.get_mut(&id).map(change);
        Some(Saved::Stored)
    }

    /// The sessions in which this user is logged in.
    pub fn devices(&self, user: &str) -> Vec<usize> {
        let is_theirs = |session: &Session| session.login.is_some_and(|login| login.0 == user);
        self.live.iter().filter(|(_, session)| is_theirs(session)).map(|(id, _)| *id).collect()
    }

    pub fn destroy(&mut self, id: usize) -> Option<Saved> {
        let mut at = id;
        while !self.live.contains_key(&at) {
            match self.left.get(&at) {
                Some(left)
                    if left.old != Old::Unlinked
                        && !matches!(self.found(at), Loaded::PastGrace { .. }) =>
                {
                    at = left.to;
                }
                _ => return Some(Saved::Gone),
            }
        }
        self.end(at);
        Some(Saved::Stored)
    }

    pub fn end(&mut self, id: usize) {
        self.live.remove(&id);
        let until = self.now + TOMBSTONE;
        self.leave(id, Left { old: Old::Unlinked, to: id, ends: None, until });
    }

    /// Lets an operation act on the fields; an error of its kind leaves them as they were.
    pub fn operate<T>(
        &mut self,
        id: usize,
        act: impl FnOnce(&mut BTreeMap<String, String>) -> Result<T, ErrorKind>,
    ) -> Result<T, ErrorKind> {
        let session = self.live.get_mut(&id).ok_or(ErrorKind::Gone)?;
        let answer = act(&mut session.fields);
        if session.fields.is_empty() && !self.keeps_empty {
            self.live.remove(&id);
        }
        answer
    }
}
