//! Binds the arguments of a function to their sources when the app is built.

mod sources;

use std::any::{TypeId, type_name};
use std::marker::PhantomData;
use std::panic::Location;

use super::argument::Argument;
use super::provided::Shared;
use super::resolver::{Asks, BuildProblem, Kind, Resolver, add_ask};
use crate::pipeline::debug::ArgumentInfo;
use crate::pipeline::plugin::Provided;
use crate::pipeline::provider::{Asked, ValueSource};
use crate::{Error, ErrorKind};

/// What a function is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Handler,
    Guard,
    Provider,
    ErrorPage,
    AfterHook,
}

impl Role {
    /// Whether it comes with a part of an app, whatever its routes skip.
    fn is_ambient(self) -> bool {
        matches!(self, Role::ErrorPage | Role::AfterHook)
    }
}

/// A function as messages name it.
pub(crate) struct Function {
    pub(crate) role: Role,
    /// Empty for a handler, which goes by its route.
    pub(crate) title: String,
    pub(crate) location: Option<&'static Location<'static>>,
}

impl Function {
    pub(crate) fn handler() -> Function {
        Function { role: Role::Handler, title: String::new(), location: None }
    }

    pub(crate) fn titled(
        role: Role,
        title: impl Into<String>,
        location: &'static Location<'static>,
    ) -> Function {
        Function { role, title: title.into(), location: Some(location) }
    }
}

/// Settles what the arguments of one function ask for; see [`Argument::plan`].
pub struct Binder<'a> {
    resolver: &'a mut Resolver,
    function: Function,
    names: Option<&'static [&'static str]>,
    position: usize,
    next_wildcard: usize,
    /// What is there once for all arguments, and taken.
    taken: Vec<&'static str>,
    /// What arguments borrow, which each value is once.
    borrowed: Vec<ValueSource>,
    asks: Asks,
    refused: bool,
}

impl<'a> Binder<'a> {
    pub(crate) fn new(resolver: &'a mut Resolver, function: Function) -> Binder<'a> {
        Binder {
            resolver,
            function,
            names: None,
            position: 0,
            next_wildcard: 0,
            taken: Vec::new(),
            borrowed: Vec::new(),
            asks: Asks::default(),
            refused: false,
        }
    }

    pub(crate) fn use_names(&mut self, names: &'static [&'static str]) {
        self.names = Some(names);
    }

    pub(crate) fn count(&mut self, arguments: usize) {
        if let Some(names) = self.names
            && names.len() != arguments
        {
            self.error(format!(
                "named! lists {} names for a function of {arguments} arguments; list one for each",
                names.len()
            ));
        }
    }

    pub(crate) fn next<A: Argument>(&mut self) -> Option<A::Plan> {
        if self.function.role == Role::Handler {
            let info = ArgumentInfo { name: self.name(), type_name: type_name::<A>() };
            self.resolver.arguments.push(info);
        }
        let plan = A::plan(self);
        self.position += 1;
        plan
    }

    /// The argument's name, in a [`named!`](crate::named) handler.
    pub fn name(&self) -> Option<&'static str> {
        self.names?.get(self.position).copied()
    }

    /// Refuses the argument; the app then does not build.
    pub fn error(&mut self, message: impl AsRef<str>) {
        self.refused = true;
        let (message, resolver) = (message.as_ref(), &mut *self.resolver);
        let route = &resolver.title;
        let (key, text, location) = match self.function.role {
            Role::Handler => {
                let text = format!("{route}: {message}");
                (format!("{text} {:?}", resolver.location), text, resolver.location)
            }
            _ => {
                let text = format!("{}: {message}", self.function.title);
                let asker = match resolver.location {
                    Some(at) => format!("; it is for {route} at {}:{}", at.file(), at.line()),
                    None => String::new(),
                };
                let key = format!("{text} {:?}", self.function.location);
                (key, text + &asker, self.function.location)
            }
        };
        let mut error = Error::new(ErrorKind::Route, text);
        if let Some(location) = location {
            error = error.at(location);
        }
        resolver.problems.push(BuildProblem { key, error });
    }

    fn argument(&self) -> String {
        match self.name() {
            Some(name) => format!("argument {name:?}"),
            None => format!("argument {}", self.position + 1),
        }
    }

    /// Asks for what a plugin or a provider provides of this type, for an argument that only looks at it in
    /// [`Argument::take`]: it is found with [`Exchange::asked`](crate::Exchange::asked), and other arguments may borrow
    /// it. Where several provide it, [`ask_keyword`](Binder::ask_keyword) says which.
    pub fn ask<T: Provided>(&mut self) -> Option<Asked<T>> {
        let found = self.source_by_type(TypeId::of::<T>(), type_name::<T>(), false);
        self.asked(found)
    }

    /// The same for what has this keyword.
    pub fn ask_keyword<T: Provided>(&mut self, keyword: &str) -> Option<Asked<T>> {
        let found = self.source_by_keyword(keyword, TypeId::of::<T>(), type_name::<T>());
        self.asked(found)
    }

    fn asked<T>(&mut self, found: Result<usize, String>) -> Option<Asked<T>> {
        let index = self.or_error(found)?;
        Some(Asked { place: self.place(index, true)?, of: PhantomData })
    }

    fn or_error<T>(&mut self, found: Result<T, String>) -> Option<T> {
        found.map_err(|message| self.error(message)).ok()
    }

    /// The place of this source; what it asks of plugins is asked for.
    fn place(&mut self, index: usize, required: bool) -> Option<ValueSource> {
        let Some((place, asks)) = self.resolver.place(index, required) else {
            // Whoever could not be bound has said why.
            self.refused = true;
            return None;
        };
        self.asks.any = true;
        asks.into_iter().for_each(|ask| add_ask(&mut self.asks.plugins, ask));
        Some(place)
    }

    /// Whether a value that a provider fails to make counts as none for who can do without: what shows or sees an error
    /// must not fail for another one.
    pub(crate) fn is_lenient(&self) -> bool {
        self.function.role.is_ambient()
    }

    /// The place of what provides `T` to this argument, which borrows it.
    pub(crate) fn borrow<T: Provided>(&mut self, required: bool) -> Option<ValueSource> {
        let found = self.source::<T>(required, false);
        match self.or_error(found)? {
            None => Some(ValueSource::None),
            Some(index) => self.borrow_source(index, required),
        }
    }

    /// Where a shared reference to a `T` leads.
    pub(crate) fn share<T: Provided>(&mut self, required: bool) -> Option<Shared> {
        let found = self.source::<T>(required, true);
        let Some(index) = self.or_error(found)? else {
            return Some(Shared::Value(ValueSource::None));
        };
        match &self.resolver.sources[index].kind {
            Kind::State(state) => Some(Shared::State(state.clone())),
            Kind::Plugin { .. } | Kind::Provider(_) => {
                self.borrow_source(index, required).map(Shared::Value)
            }
        }
    }

    fn borrow_source(&mut self, index: usize, required: bool) -> Option<ValueSource> {
        let place = self.place(index, required)?;
        if self.borrowed.contains(&place) {
            let (argument, keyword) = (self.argument(), &self.resolver.sources[index].keyword);
            let message = format!(
                "{argument} asks a second time for keyword {keyword:?}; a handler borrows it once"
            );
            self.error(message);
            return None;
        }
        self.borrowed.push(place);
        Some(place)
    }

    /// What there is once, for one argument: what a second one set would take the place of what the first did.
    pub(crate) fn once(&mut self, what: &'static str) -> Option<()> {
        if self.taken.contains(&what) {
            let argument = self.argument();
            self.error(format!(
                "{argument} asks a second time for {what}; a handler borrows it once"
            ));
            return None;
        }
        self.taken.push(what);
        Some(())
    }

    /// What only functions of this role can ask for.
    pub(crate) fn only_in(&mut self, role: Role, what: &str) -> Option<()> {
        if self.function.role == role {
            return Some(());
        }
        let whose = match role {
            Role::ErrorPage => "error pages, as in app.error(404, …),",
            _ => "after-request hooks, as in app.after_request(…),",
        };
        let argument = self.argument();
        self.error(format!("{argument} asks for {what}, which {whose} have alone"));
        None
    }

    /// The request's body, which is of one kind: "a form", "JSON".
    pub(crate) fn body(&mut self, kind: &'static str) -> Option<()> {
        let argument = match self.function.role {
            Role::Handler => self.argument(),
            _ => format!("{} of {}", self.argument(), self.function.title),
        };
        match &self.resolver.body {
            None => self.resolver.body = Some((argument, kind)),
            Some((_, other)) if *other == kind => {}
            Some((first, other)) => {
                let message = format!(
                    "{argument} takes the body as {kind}, which {first} takes as {other}; a body is one of them: \
                     register a route for each, or take &Request and look at its content_type()"
                );
                self.error(message);
                return None;
            }
        }
        Some(())
    }

    /// The wildcard of this argument: by name in a [`named!`](crate::named) handler, else the next one of
    /// the rule. Values that do not fit do not match the rule.
    pub fn wildcard(&mut self, optional: bool, accepts: fn(&str) -> bool) -> Option<usize> {
        if self.resolver.wildcards.unknown {
            return Some(0);
        }
        let found = match self.name() {
            Some(name) => self.resolver.wildcards.names.iter().position(|known| known == name),
            None => {
                self.next_wildcard += 1;
                let next = self.next_wildcard - 1;
                (next < self.resolver.wildcards.names.len()).then_some(next)
            }
        };
        let argument = self.argument();
        let Some(index) = found else {
            self.error(match (self.name(), self.resolver.wildcards.names.len()) {
                (Some(name), _) => format!(
                    "{argument} takes a wildcard, but the rule has none named <{name}>; its \
                     wildcards: {}",
                    self.known_wildcards()
                ),
                (None, count) => format!(
                    "{argument} takes wildcard number {} of the rule, which has {count}",
                    self.next_wildcard
                ),
            });
            return None;
        };
        if self.resolver.wildcards.floats[index] && !accepts("0.5") {
            let name = &self.resolver.wildcards.names[index];
            let message = format!(
                "{argument} takes wildcard <{name}>, whose filter is float, and reads no number with a point; \
                 make it an f64, or write <{name}:int>"
            );
            self.error(message);
            return None;
        }
        if !optional {
            let name = &self.resolver.wildcards.names[index];
            let without = self.resolver.wildcards.rules.iter().find(|rule| rule.1[index].is_none());
            if let Some((rule, _)) = without {
                let message = format!(
                    "{argument} takes wildcard <{name}>, which rule {rule:?} lacks; make it an Option"
                );
                self.error(message);
                return None;
            }
        }
        self.resolver.accepts.push((index, accepts));
        Some(index)
    }

    fn known_wildcards(&self) -> String {
        match self.resolver.wildcards.names.as_slice() {
            [] => "none".to_owned(),
            names => names.iter().map(|n| format!("<{n}>")).collect::<Vec<_>>().join(", "),
        }
    }

    /// What the function asks for, once all its arguments have.
    pub(crate) fn finish(mut self) -> Asks {
        let wildcards = &self.resolver.wildcards;
        let (taken, known) = (self.next_wildcard, wildcards.names.len());
        if self.names.is_none()
            && taken > 0
            && let Some((rule, _)) = wildcards.rules.iter().find(|rule| disordered(&rule.1))
        {
            let text = format!(
                "rule {rule:?} has its wildcards in another order than the route's other rules, so \
                 which argument is which its type does not say; use named!"
            );
            self.error(text);
        }
        if self.names.is_none() && taken > 0 && taken < known && !self.refused {
            self.error(format!(
                "the handler takes {taken} of the rule's {known} wildcards ({}), and which ones its \
                 types do not say; take them all, or use named!",
                self.known_wildcards()
            ));
        }
        self.asks
    }
}

fn disordered(places: &[Option<usize>]) -> bool {
    !places.iter().flatten().is_sorted()
}
