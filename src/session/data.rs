//! A part of the session as a value of the app's own type.

use std::any::type_name;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::state::DestroyState;
use super::view::Session;
use crate::message::http_error::HttpError;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::provider::{Asked, public_name};
use crate::{Error, ErrorKind, Provided, Result};

/// What the session holds under one key, as a value of a type that serde reads and writes: a handler's
/// `&mut Data<Cart>` or `&Data<Cart>` argument, once [`App::provide_data`](crate::App::provide_data) has said which key.
///
/// It is used as what is in it. What a handler changes is saved behind it, as JSON, and only where the text has become
/// another one; what it only reads writes nothing.
pub struct Data<T> {
    value: T,
    /// The text that it was read from.
    stored: Option<String>,
    /// Somebody may have changed it.
    touched: bool,
    key: Arc<str>,
    /// The session that it is of.
    session: Asked<Session>,
}

impl<T: Send + 'static> Provided for Data<T> {}

impl<T> Deref for Data<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Data<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.touched = true;
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Data<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Data").field(&self.value).finish()
    }
}

impl<T: Serialize + DeserializeOwned + Default> Data<T> {
    /// The value under this key of the session, or the default where there is none.
    pub(crate) fn load(
        exchange: &mut Exchange,
        asked: Asked<Session>,
        key: &Arc<str>,
    ) -> Result<Data<T>, HttpError> {
        let stored = exchange.asked(&asked)?.get(key).map(str::to_owned);
        let value = match &stored {
            None => T::default(),
            Some(text) => serde_json::from_str(text).map_err(|error| {
                let name = public_name(type_name::<T>());
                let text =
                    format!("session key {key:?} holds no {name}: {}", without_values(&error));
                Error::new(ErrorKind::Session, text)
            })?,
        };
        Ok(Data { value, stored, touched: false, key: key.clone(), session: asked })
    }

    /// Puts the value into the session that it is of, if it has changed.
    pub(crate) fn save(&self, exchange: &mut Exchange) -> Result<()> {
        // After a panic there is no session, as nothing of it is saved.
        let there = exchange.value_at(self.session.place);
        let session = there.and_then(|value| value.downcast_mut::<Session>());
        let Some(session) = session.filter(|_| self.touched) else { return Ok(()) };
        // What the handler has done to the session itself stands: a value that it removed, or ended with the session, is
        // not to come back in the next one.
        if session.destroy_state != DestroyState::None
            || session.get(&self.key) != self.stored.as_deref()
        {
            return Ok(());
        }
        let text = json(&self.value, &self.key)?;
        let same = match &self.stored {
            Some(stored) => *stored == text,
            // A default is not worth a session.
            None => text == json(&T::default(), &self.key)?,
        };
        if same {
            return Ok(());
        }
        session.try_set(&*self.key, text)?;
        session.seal_before_save();
        Ok(())
    }
}

fn json<T: Serialize>(value: &T, key: &str) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        let name = public_name(type_name::<T>());
        let text = format!("session key {key:?}: the {name} cannot be JSON");
        Error::new(ErrorKind::Session, text).with_source(error)
    })
}

/// What serde says is wrong, without the values that it quotes: no log shows what a session holds.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // What is no JSON at all is told by its place.
    if !error.is_data() {
        return text;
    }
    let (line, column) = (error.line(), error.column());
    let what = text.split(" at line ").next().unwrap_or_default();
    if what.starts_with("missing field") {
        return format!("{what} at line {line} column {column}");
    }
    match what.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected} at line {line} column {column}"),
        None => format!("what stands at line {line} column {column} does not fit"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_without_what_the_session_holds() {
        #[derive(serde::Deserialize)]
        #[allow(dead_code)]
        struct Cart {
            items: Vec<u32>,
        }

        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}

        let wrong = |text: &str| without_values(&serde_json::from_str::<Cart>(text).err().unwrap());
        assert_eq!(wrong("{}"), "missing field `items` at line 1 column 2");
        assert_eq!(wrong(r#"{"items":["secret"]}"#), "expected u32 at line 1 column 18");
        assert_eq!(wrong("secret"), "expected value at line 1 column 1");
        let unknown = serde_json::from_str::<Nothing>(r#"{"secret":1}"#).err().unwrap();
        assert_eq!(without_values(&unknown), "what stands at line 1 column 9 does not fit");
    }
}
