//! Sealed values: what the store holds of them is unreadable without the session's id, which only its visitor has.
//!
//! Each value is encrypted and authenticated under the session's *data key*, bound to the name of its field. The data key is
//! random, made with the record; it lies in the record, in the field [`KEY`], encrypted under a key that is derived from
//! the id. All of this is above the stores: they see names and texts as ever.
//!
//! # Requests at the same time
//!
//! No value may come into a record under a key that this does not hold. So:
//!
//! - **Creation**: nobody else knows the id. The key goes with the first values.
//! - **Update**: while a record has an id, its data key never changes. An update that finds no record under its id is lost,
//!   or follows a rotation.
//! - **Rotation, `regenerate`**: the data key stays and is encrypted anew under the new id, in the same atomic step. Updates
//!   before it move along, one after a rotation [follows](super::rotation), and all are under the same data key.
//! - **`log_in`**: a new data key. What others have written before the move is not known to the request that logs in, and
//!   moves along under the former data key: so [`KEY`] holds that, too, for reading, and earlier ones as long as values are
//!   under them. Nothing is written under them again. Values stay as they are: to write what the request did not
//!   change would bring back what another one has taken meanwhile. Only what is under the ninth last data key is encrypted anew.
//! - **The first seal of a record that has no key**: who writes to one does so under a key that all find by themselves, as
//!   it is derived from the id. One [compare-and-set](super::store::SessionStore::compare_and_set), for which [`KEY`] must
//!   not be there, encrypts the values that are there and writes [`KEY`]: on the handler's thread, before the next save,
//!   once in a session's life. Until then a value that does not open is taken as it is; afterwards it is damage. A save may
//!   come to pass without it (what changed the session ran outside of the handler, or the store did not answer): then its
//!   changes are under the derived key, and a later request seals the record. Only such a change can be lost, to another
//!   request that seals the record in the same moment; and plain text that a program without the option writes in
//!   that moment is damage.
//!
//! A value that does not open with the record's keys, or a key that does not with the id, makes the record damaged, and it is
//! no session: part of a session may be as good as the rights of somebody else. All of this is against who reads the store,
//! not who writes it: who does can remove fields, or put back an older record whole.

#[cfg(not(feature = "sealed"))]
#[path = "sealing/cipher_disabled.rs"]
mod cipher;
#[cfg(feature = "sealed")]
mod cipher;
mod operations;

use self::cipher::DataKey;
use super::context::SessionContext;
use super::id::{IdGenerator, SessionId};
use super::reserved::{self, ReservedFields, is_reserved};
use super::state::{IdChange, LoginState, Renewal, SessionState};
use super::store::{Caps, Changes, Fields, Load, Remember};
use super::view::Session;
use crate::{Error, ErrorKind, Result};

/// The session's data key, and former ones, encrypted under its id.
const KEY: &str = "\u{1}k";

const WRAPPING: &[u8] = b"bottle-session data key\0";
const IN_PLACE: &[u8] = b"bottle-session data key of a record that had none\0";

/// How many former data keys a record holds at most.
const FORMER_KEYS: usize = 8;

/// How many bytes a value is longer, besides a third of its own.
const LONGER: usize = 55;

/// How the values of a session are kept.
#[derive(Clone, Default)]
pub(super) enum Sealing {
    /// As they are.
    #[default]
    Plain,
    /// Some or all as they are yet, as the record was made without: these. What is written is sealed.
    Open { key: DataKey, plain: Fields },
    /// Sealed, the fields of these names with a former key, of this number.
    Sealed { keys: Keys, formerly: Vec<(String, usize)> },
}

/// The data keys of a record.
#[derive(Clone)]
pub(super) struct Keys {
    now: DataKey,
    /// The latest first.
    former: Vec<DataKey>,
}

impl Keys {
    fn of(now: DataKey) -> Keys {
        Keys { now, former: Vec::new() }
    }

    /// Puts a new one in the place of the present one.
    fn renew(&mut self, generator: &IdGenerator) -> Result<()> {
        let former = std::mem::replace(&mut self.now, DataKey::random(generator)?);
        self.former.insert(0, former);
        Ok(())
    }

    /// What [`KEY`] is to hold under this id.
    fn wrap(&self, id: &SessionId, generator: &IdGenerator) -> Result<String> {
        let keys = std::iter::once(&self.now).chain(&self.former);
        let bits: Vec<u8> = keys.flat_map(|key| *key.bits()).collect();
        DataKey::derived(id, WRAPPING)?.encrypt(KEY, &bits, generator)
    }

    fn unwrap(id: &SessionId, text: &str) -> Result<Keys> {
        let damaged = || damaged("the data key of a session does not open with its id");
        let bits = DataKey::derived(id, WRAPPING)?.decrypt(KEY, text).ok_or_else(damaged)?;
        let mut keys = bits.as_chunks().0.iter().map(DataKey::of_bits);
        let now = keys.next().ok_or_else(damaged)??;
        Ok(Keys { now, former: keys.collect::<Result<_>>()? })
    }

    /// The value, and which former key opened it, if one did.
    fn open(&self, name: &str, text: &str) -> Result<(String, Option<usize>)> {
        if let Some(value) = opened(&self.now, name, text) {
            return Ok((value, None));
        }
        let mut former = self.former.iter().enumerate();
        match former.find_map(|(number, key)| Some((opened(key, name, text)?, Some(number)))) {
            Some(found) => Ok(found),
            None => Err(damaged(&format!(
                "session field {name:?} holds what was not sealed for it with the session's data key"
            ))),
        }
    }
}

fn opened(key: &DataKey, name: &str, text: &str) -> Option<String> {
    String::from_utf8(key.decrypt(name, text)?).ok()
}

fn damaged(what: &str) -> Error {
    Error::new(
        ErrorKind::Session,
        format!("{what}: the record was changed, or is another session's"),
    )
}

impl Sealing {
    /// Takes the keys out of a record and opens its values.
    ///
    /// # Errors
    ///
    /// Of kind [`Session`](ErrorKind::Session) where the record is damaged, [`Config`](ErrorKind::Config) where this program cannot
    /// open it.
    pub(super) fn open(
        context: &SessionContext,
        id: &SessionId,
        reserved: &mut ReservedFields,
        fields: &mut Fields,
    ) -> Result<Sealing> {
        let sealing = Sealing::of_record(context, id, reserved.take(KEY).as_deref())?;
        match sealing {
            Sealing::Plain => Ok(sealing),
            Sealing::Open { key, .. } => {
                let mut plain = Fields::new();
                let open = |(name, text): (&str, &str)| {
                    let value = opened(&key, name, text).unwrap_or_else(|| {
                        plain.insert(name, text);
                        text.to_owned()
                    });
                    (name.to_owned(), value)
                };
                *fields = fields.iter().map(open).collect();
                Ok(Sealing::Open { key, plain })
            }
            Sealing::Sealed { keys, mut formerly } => {
                let open = |(name, text): (&str, &str)| {
                    let (value, former) = keys.open(name, text)?;
                    formerly.extend(former.map(|number| (name.to_owned(), number)));
                    Ok((name.to_owned(), value))
                };
                *fields = fields.iter().map(open).collect::<Result<_>>()?;
                Ok(Sealing::Sealed { keys, formerly })
            }
        }
    }

    /// How a record is kept whose [`KEY`] holds this.
    fn of_record(context: &SessionContext, id: &SessionId, key: Option<&str>) -> Result<Sealing> {
        Ok(match key {
            Some(text) => Sealing::Sealed { keys: Keys::unwrap(id, text)?, formerly: Vec::new() },
            None if context.seals => {
                Sealing::Open { key: DataKey::derived(id, IN_PLACE)?, plain: Fields::new() }
            }
            None => Sealing::Plain,
        })
    }

    /// Whether the record is to be sealed yet.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Sealing::Open { .. })
    }

    fn seal(&self, name: &str, value: &str, generator: &IdGenerator) -> Result<String> {
        match self {
            Sealing::Plain => Ok(value.to_owned()),
            Sealing::Open { key, .. } => key.encrypt(name, value.as_bytes(), generator),
            Sealing::Sealed { keys, .. } => keys.now.encrypt(name, value.as_bytes(), generator),
        }
    }

    fn open_value(&self, name: &str, text: String) -> Result<String> {
        match self {
            Sealing::Plain => Ok(text),
            Sealing::Open { key, .. } => Ok(opened(key, name, &text).unwrap_or(text)),
            Sealing::Sealed { keys, .. } => keys.open(name, &text).map(|(value, _)| value),
        }
    }

    fn seal_changes(&self, changes: &mut Changes, generator: &IdGenerator) -> Result<()> {
        if matches!(self, Sealing::Plain) {
            return Ok(());
        }
        for (name, value) in &mut changes.fields {
            if let Some(value) = value.as_mut().filter(|_| !is_reserved(name)) {
                *value = self.seal(name, value, generator)?;
            }
        }
        Ok(())
    }

    /// The keys go with these changes, for a record of this id.
    fn write_keys(
        &self,
        id: &SessionId,
        changes: &mut Changes,
        generator: &IdGenerator,
    ) -> Result<()> {
        if let Sealing::Sealed { keys, .. } = self {
            changes.fields.insert(KEY.to_owned(), Some(keys.wrap(id, generator)?));
        }
        Ok(())
    }
}

/// What is saved.
impl Session {
    /// Seals what a record is created of.
    pub(super) fn seal_creation(&mut self, id: &SessionId, changes: &mut Changes) -> Result<()> {
        let generator = &self.context.generator;
        self.sealing = match self.context.seals {
            true => Sealing::Sealed {
                keys: Keys::of(DataKey::random(generator)?),
                formerly: Vec::new(),
            },
            false => Sealing::Plain,
        };
        self.sealing.seal_changes(changes, generator)?;
        self.sealing.write_keys(id, changes, generator)
    }

    /// Seals what goes with a move to this id.
    pub(super) fn seal_move(
        &mut self,
        to: &SessionId,
        logs_in: bool,
        changes: &mut Changes,
    ) -> Result<()> {
        let generator = &self.context.generator;
        let mut anew: Vec<String> = Vec::new();
        let (mut keys, mut formerly) = match &self.sealing {
            Sealing::Plain => return Ok(()),
            Sealing::Open { key, plain } => {
                anew.extend(plain.iter().map(|(name, _)| name.to_owned()));
                (Keys::of(key.clone()), Vec::new())
            }
            Sealing::Sealed { keys, formerly } => (keys.clone(), formerly.clone()),
        };
        if logs_in {
            keys.renew(generator)?;
            formerly.iter_mut().for_each(|(_, number)| *number += 1);
            let is_former = |name: &str| formerly.iter().any(|(known, _)| known == name);
            let names = self.fields.iter().map(|(name, _)| name).filter(|name| !is_former(name));
            let latest: Vec<_> = names.map(|name| (name.to_owned(), 0)).collect();
            formerly.extend(latest);
            let too_old = formerly.extract_if(.., |(_, number)| *number >= FORMER_KEYS);
            anew.extend(too_old.map(|(name, _)| name));
            // The key before this one may be of what others have written meanwhile, earlier ones only of what is here.
            let used = formerly.iter().map(|(_, number)| number + 1).max().unwrap_or(1);
            keys.former.truncate(used.max(1));
        }
        for name in anew.into_iter().filter(|_| !changes.cleared) {
            if let Some(value) = self.fields.get(&name) {
                changes.fields.entry(name).or_insert_with(|| Some(value.to_owned()));
            }
        }
        formerly.retain(|(name, _)| !changes.fields.contains_key(name));
        self.sealing = Sealing::Sealed { keys, formerly };
        self.sealing.seal_changes(changes, generator)?;
        self.sealing.write_keys(to, changes, generator)
    }

    /// Seals the changes of a record that has this id.
    pub(super) fn seal_update(&mut self, id: &SessionId, changes: &mut Changes) -> Result<()> {
        let generator = &self.context.generator;
        if let (Sealing::Open { key, .. }, true) = (&self.sealing, changes.cleared) {
            self.sealing = Sealing::Sealed { keys: Keys::of(key.clone()), formerly: Vec::new() };
        }
        self.sealing.seal_changes(changes, generator)?;
        match changes.cleared {
            true => self.sealing.write_keys(id, changes, generator),
            false => Ok(()),
        }
    }

    /// Seals a record that was made without, if something is to be saved in it; waits for the store.
    pub(super) fn seal_before_save(&mut self) {
        let is_moved = matches!(&self.state, SessionState::Stored { next: IdChange::New(_), .. });
        let is_saved = is_moved
            || !self.changes.is_empty()
            || matches!(self.renewal, Renewal::Due)
            || matches!(self.remember, Remember::To(_))
            || matches!(self.login, LoginState::In { .. });
        if is_saved && self.failure.is_none() {
            // The save itself says whether the store answers; a later request seals the record.
            let _ = self.seal_stored();
        }
    }

    /// Seals a record that was made without; waits for the store.
    pub(super) fn seal_stored(&mut self) -> Result<()> {
        let (Sealing::Open { key, plain }, SessionState::Stored { id, .. }) =
            (&self.sealing, &self.state)
        else {
            return Ok(());
        };
        let (context, keys) = (&self.context, Keys::of(key.clone()));
        let wrapped = keys.wrap(id, &context.generator)?;
        let seal = |(name, value)| self.sealing.seal(name, value, &context.generator);
        let sealed = plain.iter().map(seal).collect::<Result<Vec<_>>>()?;
        let names = plain.iter().map(|(name, _)| name);
        let mut fields: Vec<_> = names.zip(sealed.iter().map(String::as_str)).collect();
        fields.push((KEY, &wrapped));
        let load = Load { id, lifetimes: self.lifetimes() };
        match context.store.compare_and_set(&load, KEY, None, &fields) {
            // Or another request was first, with the same key.
            Ok(_) => self.sealing = Sealing::Sealed { keys, formerly: Vec::new() },
            // The save finds out whether it was ended or rotated. What the store has no room for stays as it is; what is
            // set from now on is sealed with the key that all find.
            Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::Session) => {}
            Err(error) => {
                context.emit_error(&error);
                return Err(error);
            }
        }
        Ok(())
    }
}

/// How much a store must hold for sessions that hold so much, sealed.
pub(super) fn sealed_size(plain: Caps) -> Caps {
    let longer = plain.fields.saturating_mul(LONGER).saturating_add(reserved::MAX_BYTES);
    let bytes = plain.bytes.saturating_add(plain.bytes.div_ceil(3)).saturating_add(longer);
    Caps { fields: plain.fields.saturating_add(reserved::MAX_FIELDS), bytes }
}

/// How much a session of so many fields may hold where a store holds so much, sealed.
pub(super) fn plain_size(sealed: Caps, fields: usize) -> Caps {
    let fields = fields.min(sealed.fields.saturating_sub(reserved::MAX_FIELDS));
    let longer = fields.saturating_mul(LONGER).saturating_add(reserved::MAX_BYTES);
    let left = sealed.bytes.saturating_sub(longer);
    Caps { fields, bytes: left / 4 * 3 + left % 4 * 3 / 4 }
}

#[cfg(all(test, not(feature = "sealed")))]
#[test]
fn without_the_feature_a_sealed_session_is_an_error_and_no_plain_text() {
    use super::store::memory::MemoryStore;
    use super::store::{Action, Lifetimes, Save, SessionStore};
    use crate::{App, SessionPlugin, TestClient};

    let store = std::sync::Arc::new(MemoryStore::new());
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store.clone())).unwrap();
    app.get("/set", |s: &mut Session| s.set("a", 1));
    app.get("/", |s: &mut Session| s.get("a").unwrap_or("-").to_owned());
    let client = TestClient::new(app).unwrap();
    client.get("/set").send();
    let id =
        SessionId::parse(&client.cookie("bottle.session").unwrap(), Default::default()).unwrap();
    let mut changes = Changes::default();
    changes.fields.insert(KEY.to_owned(), Some("A".repeat(96)));
    let lifetimes = Lifetimes { idle: std::time::Duration::from_secs(60), absolute: None };
    store.save(&Save::new(&id, Action::Update, &changes, lifetimes)).unwrap();
    let answer = client.get("/").send();
    assert_eq!(answer.status(), 500);
    let error = Keys::unwrap(&id, "").map(drop).unwrap_err();
    assert!(error.to_string().contains("the feature `sealed`"), "{error}");
}
