//! Values that an app's closures make of other values, and where an exchange keeps them.

use std::any::{Any, type_name};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use http::StatusCode;
use smallvec::SmallVec;

use crate::message::http_error::{HttpError, IntoHttpError};
use crate::message::into_response::IntoResponse;
use crate::message::response::Response;
use crate::pipeline::exchange::Exchange;
use crate::pipeline::plugin::Provided;

/// A value of a type from another crate, so that it can be [`Provided`]: `&mut Own<Connection>`.
///
/// It is used as what is in it.
///
/// ```
/// use bottle_session::{App, Own, TestClient};
/// use std::collections::BTreeMap;
///
/// let mut app = App::new();
/// app.state(Own(BTreeMap::from([("ada", 1815u16)])));
/// app.get("/<name>", |born: &Own<BTreeMap<&'static str, u16>>, name: &str| {
///     born.get(name).map(|year| year.to_string())
/// });
/// assert_eq!(TestClient::new(app)?.get("/ada").send().text(), "1815");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own<T>(pub T);

impl<T: Send + 'static> Provided for Own<T> {}

impl<T> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Own<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// What a [provider](crate::App::provide) may give: a `T` that is [`Provided`], or a `Result` of one, whose error is the
/// answer to the request.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be what a provider gives",
    label = "this provider gives `{Self}`",
    note = "a provider gives a `T` or a `Result<T, E>`, where `impl bottle_session::Provided for T {{}}` says so of a type of your own",
    note = "a type of another crate goes into `Own`: `Ok(Own(connection))`, and must be `Send` and `'static`, which the guard of a lock is not",
    note = "`E` is `HttpError`, `Redirect`, `Response`, or any type that is `std::error::Error + Send + Sync`"
)]
pub trait ProviderOutcome {
    /// What handlers get.
    type Value: Provided;

    /// The value, or the answer in its place.
    fn into_value(self) -> Result<Self::Value, HttpError>;
}

#[diagnostic::do_not_recommend]
impl<T: Provided> ProviderOutcome for T {
    type Value = T;

    fn into_value(self) -> Result<T, HttpError> {
        Ok(self)
    }
}

#[diagnostic::do_not_recommend]
impl<T: Provided, E: IntoHttpError> ProviderOutcome for Result<T, E> {
    type Value = T;

    fn into_value(self) -> Result<T, HttpError> {
        self.map_err(IntoHttpError::into_http_error)
    }
}

/// Where the value of an argument comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueSource {
    /// In the slot of a plugin.
    Plugin(usize),
    /// Made by the provider of this number on the route.
    Provider(usize),
    /// None: its plugin is skipped here, and who asks for it can do without; or its provider is one that nobody asks
    /// for here.
    None,
}

/// A value of another plugin or provider that an [`Argument`](crate::Argument) asked for when the app was built.
pub struct Asked<T> {
    pub(crate) place: ValueSource,
    pub(crate) of: PhantomData<fn() -> T>,
}

impl<T> Clone for Asked<T> {
    fn clone(&self) -> Asked<T> {
        *self
    }
}

impl<T> Copy for Asked<T> {}

impl<T> fmt::Debug for Asked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked<{}>", public_name(type_name::<T>()))
    }
}

pub(crate) type Value = Box<dyn Any + Send>;
pub(crate) type Create = Arc<dyn Fn(&mut Exchange) -> Result<Value, HttpError> + Send + Sync>;
/// Ends a value. What the exchange holds otherwise is there still.
pub(crate) type Finish =
    Arc<dyn Fn(Value, &Response, &mut Exchange) -> Result<(), HttpError> + Send + Sync>;

/// A provider as a route knows it.
pub(crate) struct BoundProvider {
    pub(crate) keyword: String,
    pub(crate) create: Create,
    pub(crate) finish: Option<Finish>,
}

/// What has become of the value of one provider.
#[derive(Debug)]
enum Made {
    NotYet,
    /// Being made; after a panic of the provider, for good.
    Underway,
    Here(Value),
    Lent,
    /// The answer in its place.
    Refused(HttpError),
    Finished,
}

/// What an exchange holds of the values that providers have made for it.
#[derive(Debug, Default)]
pub(crate) struct Values {
    made: Vec<Made>,
    /// In the order of their creation.
    order: SmallVec<[usize; 4]>,
    /// All is finished: nothing is made any more.
    closed: bool,
}

impl Values {
    pub(crate) fn of(providers: usize) -> Values {
        let mut values = Values::default();
        values.made.resize_with(providers, || Made::NotYet);
        values
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The error of the server that the provider of this place has answered with.
    pub(crate) fn failure(&self, place: ValueSource) -> Option<&HttpError> {
        let ValueSource::Provider(number) = place else { return None };
        match self.made.get(number)? {
            Made::Refused(error) if error.status().is_server_error() => Some(error),
            _ => None,
        }
    }
}

impl Exchange {
    /// The value that an argument has asked for with [`Binder::ask`](crate::Binder::ask); a provider makes it now,
    /// unless it has made it already. The error is the answer where there is none: what the provider answers in its
    /// place.
    ///
    /// For [`Argument::take`](crate::Argument::take): while the handler runs, its arguments hold their values.
    pub fn asked<T: Provided>(&mut self, asked: &Asked<T>) -> Result<&mut T, HttpError> {
        if let Some(refused) = self.refusal_at(asked.place, type_name::<T>()) {
            return Err(refused);
        }
        let name = type_name::<T>();
        self.value_at(asked.place)
            .and_then(|value| value.downcast_mut())
            .ok_or_else(|| missing_value(name))
    }

    /// Makes the value of this place, where it is one of a provider and not made yet. Says whether the provider has run.
    pub(crate) fn make(&mut self, place: ValueSource) -> bool {
        let ValueSource::Provider(number) = place else { return false };
        let values = self.values();
        if values.closed || !matches!(values.made.get(number), Some(Made::NotYet)) {
            return false;
        }
        let Some(endpoint) = self.endpoint().cloned() else { return false };
        self.values().made[number] = Made::Underway;
        let made = (endpoint.providers[number].create)(self);
        let values = self.values();
        values.made[number] = match made {
            Ok(value) => {
                values.order.push(number);
                Made::Here(value)
            }
            Err(answer) => Made::Refused(answer),
        };
        true
    }

    /// Why there is no value at this place, after an attempt to make it.
    pub(crate) fn refusal_at(&mut self, place: ValueSource, type_name: &str) -> Option<HttpError> {
        self.make(place);
        match place {
            ValueSource::Plugin(slot) => (!self.holds(slot)).then(|| missing_value(type_name)),
            ValueSource::None => Some(unavailable(type_name, "the route skips what provides it")),
            ValueSource::Provider(number) => {
                let values = self.values();
                let closed = values.closed;
                match values.made.get_mut(number)? {
                    Made::Here(_) => None,
                    Made::Refused(answer) => Some(answer.hand_out()),
                    Made::Underway => Some(unavailable(type_name, "its provider has panicked")),
                    Made::NotYet if closed => {
                        Some(unavailable(type_name, "the request is finished"))
                    }
                    Made::NotYet | Made::Lent => Some(unavailable(type_name, "it is in use")),
                    Made::Finished => Some(unavailable(type_name, "it is finished")),
                }
            }
        }
    }

    /// Why who can do without does not go on without, once it was tried to make the value: an error of the server is not
    /// to pass for the absence of a value.
    pub(crate) fn failure_at(&mut self, place: ValueSource) -> Option<HttpError> {
        let ValueSource::Provider(number) = place else { return None };
        match self.values().made.get_mut(number)? {
            Made::Refused(error) if error.status().is_server_error() => Some(error.hand_out()),
            _ => None,
        }
    }

    pub(crate) fn value_at(&mut self, place: ValueSource) -> Option<&mut (dyn Any + Send)> {
        match place {
            ValueSource::Plugin(slot) => self.slot(slot)?.as_deref_mut(),
            ValueSource::Provider(number) => match self.values().made.get_mut(number)? {
                Made::Here(value) => Some(&mut **value),
                _ => None,
            },
            ValueSource::None => None,
        }
    }

    /// Moves a value out, for as long as a function borrows it.
    pub(crate) fn lend_value(&mut self, place: ValueSource) -> Option<Value> {
        match place {
            ValueSource::Plugin(slot) => self.slot(slot)?.take(),
            ValueSource::Provider(number) => {
                let made = self.values().made.get_mut(number)?;
                match std::mem::replace(made, Made::Lent) {
                    Made::Here(value) => Some(value),
                    other => {
                        *made = other;
                        None
                    }
                }
            }
            ValueSource::None => None,
        }
    }

    pub(crate) fn return_value(&mut self, place: ValueSource, value: Option<Value>) {
        let Some(value) = value else { return };
        match place {
            ValueSource::Plugin(slot) => {
                if let Some(place) = self.slot(slot) {
                    *place = Some(value);
                }
            }
            ValueSource::Provider(number) => {
                if let Some(made) = self.values().made.get_mut(number) {
                    *made = Made::Here(value);
                }
            }
            ValueSource::None => {}
        }
    }

    /// Finishes the values of the providers, the last made first. From then on none is made.
    pub(crate) fn finish_values(&mut self) {
        while let Some(number) = self.values().order.pop() {
            let made = std::mem::replace(&mut self.values().made[number], Made::Finished);
            let (Made::Here(value), Some(endpoint)) = (made, self.endpoint().cloned()) else {
                continue;
            };
            let mut answer = self
                .take_response()
                .unwrap_or_else(|| Response::new(StatusCode::INTERNAL_SERVER_ERROR));
            if self.has_failed() {
                answer.set_after_error();
            }
            let provider = &endpoint.providers[number];
            let finished = catch_unwind(AssertUnwindSafe(|| match &provider.finish {
                Some(finish) => finish(value, &answer, self),
                None => {
                    drop(value);
                    Ok(())
                }
            }));
            let answer = match finished {
                Ok(Ok(())) => answer,
                Ok(Err(error)) => error.into_response(),
                Err(panic) => {
                    self.drop_provided();
                    let who = format!("the end of keyword {:?}", provider.keyword);
                    let error = super::service::panicked(&who, panic.as_ref());
                    HttpError::new(StatusCode::INTERNAL_SERVER_ERROR)
                        .with_source(error)
                        .into_response()
                }
            };
            self.answer(answer);
        }
        self.values().closed = true;
    }
}

/// A plugin has not kept its word.
pub(crate) fn missing_value(type_name: &str) -> HttpError {
    HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(format!(
        "a plugin promised {} and put none into the exchange",
        public_name(type_name)
    ))
}

fn unavailable(type_name: &str, why: &str) -> HttpError {
    let text = format!("no {} can be had: {why}", public_name(type_name));
    HttpError::new(StatusCode::INTERNAL_SERVER_ERROR).with_source(text)
}

/// The name of a type as users write it: those of this crate are exported at its top.
pub(crate) fn public_name(type_name: &str) -> String {
    const OURS: &str = concat!(env!("CARGO_CRATE_NAME"), "::");
    let (mut name, mut rest) = (String::new(), type_name);
    while let Some(at) = rest.find(OURS) {
        let (before, ours) = rest.split_at(at);
        name.push_str(before);
        name.push_str(OURS);
        rest = &ours[OURS.len()..];
        while rest.starts_with(|c: char| c.is_ascii_lowercase())
            && let Some((module, inner)) = rest.split_once("::")
            && module.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        {
            rest = inner;
        }
    }
    name + rest
}

/// The keyword of a type that was given none: its name as the name of an argument, `NewUser` as `new_user`. What is in
/// an [`Own`] goes by the name of that.
pub(crate) fn keyword_of(type_name: &str) -> String {
    let own = format!("{}<", type_name_of_own());
    let inner = type_name.strip_prefix(&own).unwrap_or(type_name);
    let plain = inner.split('<').next().unwrap_or(inner);
    let last = plain.rsplit("::").next().unwrap_or(plain);
    let mut keyword = String::new();
    for character in last.chars().filter(|c| c.is_alphanumeric() || *c == '_') {
        if character.is_uppercase() && !keyword.is_empty() {
            keyword.push('_');
        }
        keyword.extend(character.to_lowercase());
    }
    keyword
}

fn type_name_of_own() -> &'static str {
    type_name::<Own<()>>().split('<').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_crate_are_those_that_it_exports() {
        for (name, public) in [
            (type_name::<Exchange>(), "bottle_session::Exchange"),
            (
                type_name::<Own<Vec<Exchange>>>(),
                "bottle_session::Own<alloc::vec::Vec<bottle_session::Exchange>>",
            ),
            ("shop::session::data::Session", "shop::session::data::Session"),
            ("u8", "u8"),
        ] {
            assert_eq!(public_name(name), public);
        }
    }

    #[test]
    fn a_type_without_a_keyword_goes_by_its_name() {
        for (name, keyword) in [
            ("shop::users::User", "user"),
            ("shop::NewUser<alloc::string::String>", "new_user"),
            (type_name::<Own<std::collections::BTreeMap<u8, u8>>>(), "b_tree_map"),
        ] {
            assert_eq!(keyword_of(name), keyword);
        }
    }
}
