//! Short words for sessions in a store.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bottle_session::{
    Action, Changes, IdFormat, Lifetimes, Load, Loaded, Record, Result, Save, Saved, SessionId,
    SessionStore,
};

use super::logs::collect_logs;

pub const IDLE: Lifetimes = Lifetimes { idle: Duration::from_secs(3600), absolute: None };

/// An id that no test has had before.
pub fn fresh_id(format: IdFormat) -> SessionId {
    collect_logs();
    static NEXT: AtomicU64 = AtomicU64::new(1_000_000_007);
    let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = match format {
        IdFormat::Uuid => format!("{number:032x}"),
        _ => format!("{number:x>42}A"),
    };
    SessionId::parse(&text, format).expect("this is how ids are written")
}

pub fn set(pairs: &[(&str, &str)]) -> Changes {
    let pairs = pairs.iter().map(|(key, value)| (key.to_string(), Some(value.to_string())));
    Changes { cleared: false, fields: pairs.collect() }
}

pub fn save(
    store: &dyn SessionStore,
    id: &SessionId,
    action: Action<'_>,
    pairs: &[(&str, &str)],
) -> Result<Saved> {
    let changes = &set(pairs);
    store.save(&Save::new(id, action, changes, IDLE))
}

pub fn create(store: &dyn SessionStore, pairs: &[(&str, &str)]) -> SessionId {
    let id = fresh_id(store.id_format());
    assert_eq!(save(store, &id, Action::Create, pairs).unwrap(), Saved::Stored);
    id
}

pub fn load(store: &dyn SessionStore, id: &SessionId) -> Result<Option<Record>> {
    store.load(&Load { id, lifetimes: IDLE }).map(Loaded::session)
}

/// The fields that a session holds, sorted; `None` where there is no session.
pub fn fields(store: &dyn SessionStore, id: &SessionId) -> Option<Vec<(String, String)>> {
    Some(load(store, id).unwrap()?.fields.into_iter().collect())
}

pub fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Runs both at the same time.
pub fn together<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| {
            start.wait();
            one()
        });
        start.wait();
        let other = other();
        (one.join().expect("neither panics"), other)
    })
}
