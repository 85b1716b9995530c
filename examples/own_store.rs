//! A store of your own: one JSON file for each session, in a folder.
//!
//! ```text
//! cargo run --example own_store
//! curl -c jar -b jar localhost:8888/
//! ls target/sessions
//! ```
//!
//! It keeps the whole contract of `SessionStore`, and the suite at the end checks that it does:
//!
//! - A step is atomic because it holds its session's lock, and because a file is replaced by renaming another
//!   onto it: whoever reads finds the old record or the new one, also after a crash.
//! - When a session ends is its file's modification time, so that what has ended is found without reading any file.
//! - The file's name is a digest of the id, so that whoever sees the folder can open no session.
//!
//! The locks are in this process, so one process at a time may use a folder.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind as IoError, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bottle_session::{
    Action, App, Changes, Error, ErrorKind, Lifetimes, Load, Loaded, Record, Remember, Result,
    Save, Saved, Session, SessionId, SessionPlugin, SessionStore,
};
use serde::{Deserialize, Serialize};

/// How often the folder is searched for sessions that have ended.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);

/// A longer lifetime is kept as this one: file systems cannot write any year.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

struct FileStore {
    folder: PathBuf,
    /// Each session has one of these, by the first byte of its key.
    locks: [Mutex<()>; 256],
    next_sweep: Mutex<SystemTime>,
    clock: Box<dyn Fn() -> SystemTime + Send + Sync>,
}

/// What a file holds.
#[derive(Deserialize, Serialize)]
struct Kept {
    fields: BTreeMap<String, String>,
    created: SystemTime,
    saved: SystemTime,
    /// When the idle limit last began anew together with the cookie.
    renewed: SystemTime,
    remember: Option<Duration>,
}

impl FileStore {
    fn open(folder: impl Into<PathBuf>) -> Result<FileStore> {
        FileStore::with_clock(folder, SystemTime::now)
    }

    fn with_clock(
        folder: impl Into<PathBuf>,
        clock: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Result<FileStore> {
        let folder = folder.into();
        create_private(&folder).map_err(|error| failed("cannot create", &folder, error))?;
        let store = FileStore {
            folder,
            locks: [const { Mutex::new(()) }; 256],
            next_sweep: Mutex::new(clock()),
            clock: Box::new(clock),
        };
        store.sweep_when_due()?;
        Ok(store)
    }

    fn path(&self, id: &SessionId) -> PathBuf {
        self.folder.join(id.key()).with_extension("json")
    }

    /// Locks these files, in one order for everybody, so that two moves never wait for each other.
    fn lock(&self, paths: &[&Path]) -> Vec<MutexGuard<'_, ()>> {
        let mut places: Vec<_> = paths.iter().map(|path| place(path)).collect();
        places.sort_unstable();
        places.dedup();
        // The lock guards files and no value, which a panic could have left half done.
        places
            .into_iter()
            .map(|at| self.locks[at].lock().unwrap_or_else(|e| e.into_inner()))
            .collect()
    }

    /// The live session in this file. Call with its lock.
    fn live(&self, path: &Path, lifetimes: &Lifetimes) -> Result<Option<Kept>> {
        let ends = match fs::metadata(path).and_then(|found| found.modified()) {
            Ok(ends) => ends,
            Err(error) if error.kind() == IoError::NotFound => return Ok(None),
            Err(error) => return Err(failed("cannot look at", path, error)),
        };
        let text = fs::read(path).map_err(|error| failed("cannot read", path, error))?;
        // A damaged record is no session. Neither is one that has ended; the absolute limit may have been
        // shortened since it was last used.
        let kept = serde_json::from_slice::<Kept>(&text).ok().filter(|kept| {
            let now = (self.clock)();
            now < ends && lifetimes.absolute_end(kept.created).is_none_or(|end| now < end)
        });
        if kept.is_none() {
            remove(path)?;
        }
        Ok(kept)
    }

    /// Writes the session, saved just now: that starts its idle limit anew. Call with its lock.
    fn write(&self, path: &Path, mut kept: Kept, lifetimes: &Lifetimes) -> Result<()> {
        kept.saved = (self.clock)();
        rewrite(path, &kept, lifetimes)
    }

    fn changed(&self, mut kept: Kept, save: &Save<'_>) -> Kept {
        apply(&mut kept.fields, save.changes);
        if let Remember::To(limit) = save.remember {
            kept.remember = limit;
        }
        if save.renewed_ago.is_none() {
            kept.renewed = (self.clock)();
        }
        kept
    }

    fn create(&self, save: &Save<'_>) -> Result<Saved> {
        self.sweep_when_due()?;
        let path = self.path(save.id);
        let _lock = self.lock(&[&path]);
        if self.live(&path, &save.lifetimes)?.is_some() {
            let text = "there is a session of this id already, nothing was written";
            return Err(Error::new(ErrorKind::Session, text));
        }
        let now = (self.clock)();
        let fields = BTreeMap::new();
        let remember = save.remember.limit();
        let mut kept = Kept { fields, created: now, saved: now, renewed: now, remember };
        apply(&mut kept.fields, save.changes);
        self.write(&path, kept, &save.lifetimes)?;
        Ok(Saved::Stored)
    }

    fn update(&self, save: &Save<'_>) -> Result<Saved> {
        let path = self.path(save.id);
        let _lock = self.lock(&[&path]);
        let Some(kept) = self.live(&path, &save.lifetimes)? else { return Ok(Saved::Gone) };
        self.write(&path, self.changed(kept, save), &save.lifetimes)?;
        Ok(Saved::Stored)
    }

    fn rotate(&self, save: &Save<'_>, to: &SessionId) -> Result<Saved> {
        let (from, to) = (self.path(save.id), self.path(to));
        let _locks = self.lock(&[&from, &to]);
        let taken = self.live(&to, &save.lifetimes)?.is_some();
        let Some(kept) = self.live(&from, &save.lifetimes)? else {
            // Nobody but this move knows the new id, so a record under it is what the move wrote.
            return Ok(if taken { Saved::Stored } else { Saved::Gone });
        };
        if taken {
            let text = "there is a session of the new id already, nothing was written";
            return Err(Error::new(ErrorKind::Session, text));
        }
        // The changes first: the move is the rename, after which the old id is dead.
        self.write(&from, self.changed(kept, save), &save.lifetimes)?;
        fs::rename(&from, &to).map_err(|error| failed("cannot move", &from, error))?;
        Ok(Saved::Stored)
    }

    fn destroy(&self, save: &Save<'_>) -> Result<Saved> {
        let path = self.path(save.id);
        let _lock = self.lock(&[&path]);
        remove(&path)?;
        Ok(Saved::Stored)
    }

    /// Lets `act` work on the fields of a live session, whose idle limit stays as it is.
    fn operate<T>(
        &self,
        load: &Load<'_>,
        act: impl FnOnce(&mut BTreeMap<String, String>) -> Result<T>,
    ) -> Result<T> {
        let path = self.path(load.id);
        let _lock = self.lock(&[&path]);
        let Some(mut kept) = self.live(&path, &load.lifetimes)? else {
            let text = "the session was destroyed, renewed or expired, nothing was written";
            return Err(Error::new(ErrorKind::Gone, text));
        };
        let answer = act(&mut kept.fields)?;
        rewrite(&path, &kept, &load.lifetimes)?;
        Ok(answer)
    }

    /// Removes what has ended, and what a crash left half written.
    fn sweep_when_due(&self) -> Result<()> {
        let now = (self.clock)();
        {
            let mut due = self.next_sweep.lock().unwrap_or_else(|e| e.into_inner());
            if now < *due {
                return Ok(());
            }
            *due = now + SWEEP_EVERY;
        }
        let cannot = |error| failed("cannot list", &self.folder, error);
        for entry in fs::read_dir(&self.folder).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if !matches!(extension, Some("json" | "new")) {
                continue;
            }
            let _lock = self.lock(&[&path]);
            let ends = fs::metadata(&path).and_then(|found| found.modified());
            if extension == Some("new") || ends.is_ok_and(|ends| ends <= now) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

impl SessionStore for FileStore {
    fn load(&self, load: &Load<'_>) -> Result<Loaded> {
        let path = self.path(load.id);
        let _lock = self.lock(&[&path]);
        let Some(kept) = self.live(&path, &load.lifetimes)? else { return Ok(Loaded::Unknown) };
        Ok(Loaded::Session(Record {
            created: Some(kept.created),
            renewed_ago: Some((self.clock)().duration_since(kept.renewed).unwrap_or_default()),
            remember: kept.remember,
            login: None,
            fields: kept.fields.into_iter().collect(),
        }))
    }

    fn save(&self, save: &Save<'_>) -> Result<Saved> {
        match save.action {
            Action::Create => self.create(save),
            Action::Update => self.update(save),
            Action::Rotate { to } => self.rotate(save, to),
            Action::Destroy => self.destroy(save),
            // Asked only of stores that keep tombstones.
            Action::ExtendGrace | Action::EndGrace(_) => Ok(Saved::Gone),
        }
    }

    fn increment(&self, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
        self.operate(load, |fields| {
            let held = fields.get(key).map_or(Some(0), |text| {
                // Only what an increment writes: no sign or zero too many.
                text.parse::<i64>().ok().filter(|number| number.to_string() == *text)
            });
            let sum = held.and_then(|held| held.checked_add(by)).ok_or_else(|| {
                let text = format!("session field {key:?}: it, or the sum, is no 64-bit integer");
                Error::new(ErrorKind::Session, text)
            })?;
            fields.insert(key.to_owned(), sum.to_string());
            Ok(sum)
        })
    }

    fn take(&self, load: &Load<'_>, keys: &[&str]) -> Result<Vec<Option<String>>> {
        self.operate(load, |fields| Ok(keys.iter().map(|key| fields.remove(*key)).collect()))
    }

    fn set_if_absent(&self, load: &Load<'_>, key: &str, value: &str) -> Result<bool> {
        self.operate(load, |fields| {
            let absent = !fields.contains_key(key);
            if absent {
                fields.insert(key.to_owned(), value.to_owned());
            }
            Ok(absent)
        })
    }
}

/// The lock of a file, by the first byte of its name, which is a digest in hexadecimal.
fn place(path: &Path) -> usize {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.get(..2).and_then(|byte| usize::from_str_radix(byte, 16).ok()).unwrap_or_default()
}

fn rewrite(path: &Path, kept: &Kept, lifetimes: &Lifetimes) -> Result<()> {
    let new = path.with_extension("new");
    let longest = kept.saved + LONGEST;
    let end = lifetimes.end(kept.remember, kept.created, kept.saved);
    let written = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.set_modified(end.map_or(longest, |end| end.min(longest)))?;
        // Or a crash of the machine could leave an empty file under the name.
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|error| failed("cannot write", path, error))
}

fn apply(fields: &mut BTreeMap<String, String>, changes: &Changes) {
    if changes.cleared {
        fields.retain(|key, _| key.starts_with('\u{1}'));
    }
    for (key, value) in &changes.fields {
        match value {
            Some(value) => fields.insert(key.clone(), value.clone()),
            None => fields.remove(key),
        };
    }
}

/// The folder, for this user only.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != IoError::NotFound => {
            Err(failed("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

/// A full disk may be emptied: another try later can help.
fn failed(what: &str, path: &Path, error: io::Error) -> Error {
    // The name of a file opens no session.
    Error::new(ErrorKind::Unavailable, format!("{what} {}", path.display())).with_source(error)
}

fn main() -> Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let folder = std::env::var("SESSIONS").unwrap_or("target/sessions".to_owned());
    let address = std::env::var("LISTEN").unwrap_or("127.0.0.1:8888".to_owned());
    println!("Sessions are files in {folder}. Listening on http://{address}");
    app(FileStore::open(folder)?)?.run(&address)
}

fn app(store: FileStore) -> Result<App> {
    let mut app = App::new();
    app.install(SessionPlugin::new().store(store))?;
    app.get("/", |session: &mut Session| {
        let visits = session.parse("visits").unwrap_or(0) + 1;
        session.set("visits", visits);
        format!("This is your visit number {visits}.\n")
    });
    Ok(app)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use bottle_session::TestClient;
    use bottle_session::testing::store_contract::StoreUnderTest;

    use super::*;

    /// A folder that goes when the test ends.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static NUMBER: AtomicU64 = AtomicU64::new(0);
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let name = format!("own_store-{}-{number}", std::process::id());
            Folder(std::env::temp_dir().join(name))
        }

        fn files(&self) -> Vec<PathBuf> {
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    struct Subject {
        store: FileStore,
        now: Arc<Mutex<SystemTime>>,
        folder: Folder,
    }

    impl StoreUnderTest for Subject {
        fn store(&self) -> &dyn SessionStore {
            &self.store
        }

        fn advance(&self, by: Duration) {
            *self.now.lock().unwrap() += by;
        }
    }

    fn subject() -> Subject {
        let (folder, now) = (Folder::new(), Arc::new(Mutex::new(SystemTime::now())));
        let clock = now.clone();
        let store = FileStore::with_clock(&folder.0, move || *clock.lock().unwrap()).unwrap();
        Subject { store, now, folder }
    }

    bottle_session::store_contract!(contract, subject());

    #[test]
    fn sessions_outlive_the_process() {
        let folder = Folder::new();
        let first = TestClient::new(app(FileStore::open(&folder.0).unwrap()).unwrap()).unwrap();
        assert_eq!(first.get("/").send().text(), "This is your visit number 1.\n");
        let id = first.cookie("bottle.session").unwrap();
        drop(first);
        assert!(!folder.files()[0].to_string_lossy().contains(&id));
        let second = TestClient::new(app(FileStore::open(&folder.0).unwrap()).unwrap()).unwrap();
        second.set_cookie("bottle.session", &id);
        assert_eq!(second.get("/").send().text(), "This is your visit number 2.\n");
    }

    #[test]
    fn a_damaged_file_is_no_session() {
        let folder = Folder::new();
        let client = TestClient::new(app(FileStore::open(&folder.0).unwrap()).unwrap()).unwrap();
        client.get("/").send();
        let ends = SystemTime::now() + Duration::from_secs(60);
        let file = File::create(&folder.files()[0]).unwrap();
        file.set_modified(ends).unwrap();
        assert_eq!(client.get("/").send().text(), "This is your visit number 1.\n");
        assert_eq!(folder.files().len(), 1);
    }

    #[test]
    fn files_of_ended_sessions_go() {
        let subject = subject();
        let now = subject.now.clone();
        let store = FileStore::with_clock(&subject.folder.0, move || *now.lock().unwrap()).unwrap();
        let client = TestClient::new(app(store).unwrap()).unwrap();
        client.get("/").send();
        subject.advance(Duration::from_secs(24 * 60 * 60));
        fs::write(subject.folder.0.join("half written.new"), "{").unwrap();
        client.forget_cookies();
        client.get("/").send();
        assert_eq!(subject.folder.files().len(), 1);
    }
}
