//! What a sealed session does in the store at once.

use std::thread::sleep;
use std::time::Duration;

use super::{KEY, Sealing};
use crate::session::context::SessionContext;
use crate::session::events::Event;
use crate::session::store::memory::integer;
use crate::session::store::{Load, gone, not_a_number};
use crate::session::view::Session;
use crate::{Error, ErrorKind, Result};

/// How often an addition is tried while others change the same number.
const ATTEMPTS: u32 = 250;

/// How often without a pause.
const IMMEDIATE: u32 = 8;

impl Session {
    pub(in crate::session) fn add_at_once(&mut self, key: &str, by: i64) -> Result<i64> {
        let context = self.context.clone();
        match self.sealing {
            Sealing::Plain => self.at_once(|load| context.store.increment(load, key, by)),
            _ => self.at_once(|load| add(&context, load, key, by)),
        }
    }

    pub(in crate::session) fn take_at_once(
        &mut self,
        keys: &[&str],
    ) -> Result<Vec<Option<String>>> {
        let context = self.context.clone();
        let taken = self.at_once(|load| context.store.take(load, keys))?;
        let open = |(key, text): (&&str, Option<String>)| {
            text.map(|text| self.sealing.open_value(key, text)).transpose()
        };
        let values: Result<_> = keys.iter().zip(taken).map(open).collect();
        values.inspect_err(|error| context.emit(Event::Damaged(error)))
    }

    pub(in crate::session) fn set_if_absent_at_once(
        &mut self,
        key: &str,
        value: &str,
    ) -> Result<bool> {
        let context = self.context.clone();
        let sealed = self.sealing.seal(key, value, &context.generator)?;
        self.at_once(|load| context.store.set_if_absent(load, key, &sealed))
    }
}

/// Adds to a sealed number.
fn add(context: &SessionContext, load: &Load<'_>, key: &str, by: i64) -> Result<i64> {
    let heard = |error: &Error| context.emit(Event::Damaged(error));
    for attempt in 0..ATTEMPTS {
        if attempt >= IMMEDIATE {
            sleep(Duration::from_millis(1));
        }
        let record = context.store.load(load)?.session().ok_or_else(gone)?;
        let sealing = Sealing::of_record(context, load.id, record.fields.get(KEY));
        let sealing = sealing.inspect_err(heard)?;
        let held = record.fields.get(key);
        let value = held.map(|text| sealing.open_value(key, text.to_owned())).transpose();
        let value = value.inspect_err(heard)?;
        let number = value.map_or(Some(0), |value| integer(&value));
        let sum = number.and_then(|number| number.checked_add(by));
        let sum = sum.ok_or_else(|| not_a_number(key))?;
        let new = sealing.seal(key, &sum.to_string(), &context.generator)?;
        if context.store.compare_and_set(load, key, held, &[(key, &new)])? {
            return Ok(sum);
        }
    }
    let text = format!(
        "session key {key:?} was changed by others {ATTEMPTS} times while it was to be added to"
    );
    Err(Error::new(ErrorKind::Unavailable, text))
}
