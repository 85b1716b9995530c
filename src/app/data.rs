//! Parts of the session as values of the app's own types.

use std::any::{TypeId, type_name};
use std::panic::Location;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::App;
use crate::handler::{BindProvider, Binder, ProviderDefinition};
use crate::message::http_error::HttpError;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::provider::{Asked, Finish, Value, keyword_of};
use crate::session::data::Data;
use crate::session::view::Session;

/// Typed session data.
impl App {
    /// Keeps a value of this type in each visitor's session, under this key: handlers ask for it as
    /// [`&mut Data<T>`](Data) or `&Data<T>`, and so do guards, error pages, hooks and providers.
    ///
    /// Once a request, and only where somebody asks, it is read from the session: the default where the key is not there.
    /// A value that is no `T` any more answers 500, and the log names the key and what is missing; `#[serde(default)]` on
    /// the type or its fields takes what earlier versions of the app have stored. Behind the handler a changed value is
    /// put into the session, as JSON, before that is saved; also where the handler failed, as with what it
    /// [sets](Session::set), and not where it panicked. A value that the session [cannot hold](Session::try_set) is a 500.
    ///
    /// Two requests of one visitor that change it at the same time do not see each other: the later one counts. What must
    /// add up is a key of its own, with [`Session::incr`].
    ///
    /// As a provider it goes by its keyword: the name of the type, `cart` for `Cart`, unless
    /// [set](DataOptions::keyword).
    ///
    /// ```
    /// use bottle_session::{App, Data, SessionPlugin, TestClient};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Default, Deserialize, Serialize)]
    /// struct Cart {
    ///     items: Vec<String>,
    /// }
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.provide_data::<Cart>("cart");
    /// app.post("/cart/<item>", |cart: &mut Data<Cart>, item: String| cart.items.push(item));
    /// app.get("/cart", |cart: &Data<Cart>| cart.items.join(", "));
    ///
    /// let client = TestClient::new(app)?;
    /// client.post("/cart/tea").send();
    /// client.post("/cart/cups").send();
    /// assert_eq!(client.get("/cart").send().text(), "tea, cups");
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    #[track_caller]
    pub fn provide_data<T>(&mut self, key: impl Into<String>) -> DataOptions<'_>
    where
        T: Serialize + DeserializeOwned + Default + Send + 'static,
    {
        let key = key.into();
        let (bind, finish) = parts::<T>(&key, None);
        self.providers.push(ProviderDefinition {
            number: 0,
            keyword: keyword_of(type_name::<T>()),
            type_id: TypeId::of::<Data<T>>(),
            type_name: type_name::<Data<T>>(),
            bind,
            finish: Some(finish),
            location: Location::caller(),
        });
        DataOptions { app: self, key, parts: parts::<T> }
    }
}

/// What typed session data takes besides its key; returned by [`App::provide_data`].
pub struct DataOptions<'a> {
    app: &'a mut App,
    key: String,
    parts: fn(&str, Option<String>) -> (BindProvider, Finish),
}

impl DataOptions<'_> {
    fn definition(&mut self) -> &mut ProviderDefinition {
        self.app.last_provider()
    }

    /// The keyword, which is the name of the argument in [`named!`](crate::named).
    pub fn keyword(mut self, keyword: impl Into<String>) -> Self {
        self.definition().keyword = keyword.into();
        self
    }

    /// The keyword of the session that holds it, where there are several.
    pub fn session(mut self, keyword: impl Into<String>) -> Self {
        let (bind, finish) = (self.parts)(&self.key, Some(keyword.into()));
        let definition = self.definition();
        (definition.bind, definition.finish) = (bind, Some(finish));
        self
    }
}

/// What reads the value when it is asked for, and what saves it in the end.
fn parts<T>(key: &str, session: Option<String>) -> (BindProvider, Finish)
where
    T: Serialize + DeserializeOwned + Default + Send + 'static,
{
    let key: Arc<str> = key.into();
    let bind: BindProvider = Arc::new(move |binder: &mut Binder<'_>| {
        let asked: Asked<Session> = match &session {
            Some(keyword) => binder.ask_keyword(keyword)?,
            None => binder.ask()?,
        };
        let key = key.clone();
        Some(Arc::new(move |exchange: &mut Exchange| {
            Ok(Box::new(Data::<T>::load(exchange, asked, &key)?) as Value)
        }))
    });
    let finish: Finish = Arc::new(|value, _, exchange| match value.downcast::<Data<T>>() {
        Ok(data) => data.save(exchange).map_err(HttpError::from),
        Err(_) => unreachable!("made by the provider of this type"),
    });
    (bind, finish)
}
