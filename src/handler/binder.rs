//! Settling, when the app is built, what each argument of a handler asks for.

use std::any::{TypeId, type_name};

use super::argument::Argument;
use crate::pipeline::plugin::{Ask, Provided};
use crate::routing::Accepts;
use crate::{Error, ErrorKind};

/// A plugin as the binder sees it.
pub(crate) struct Provider {
    pub(crate) plugin: String,
    pub(crate) keyword: String,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) slot: usize,
    /// The route asked to do without this plugin.
    pub(crate) skipped: bool,
}

/// The wildcards of a route, gathered over its rules.
#[derive(Debug, Default)]
pub(crate) struct Wildcards {
    pub(crate) names: Vec<String>,
    /// Which of them can be numbers with a point.
    pub(crate) floats: Vec<bool>,
    /// For each rule its text, and for each wildcard its place in that rule.
    pub(crate) rules: Vec<(String, Vec<Option<usize>>)>,
}

/// Settles what the arguments of one handler ask for; see [`Argument::plan`].
pub struct Binder<'a> {
    route: String,
    providers: &'a [Provider],
    wildcards: &'a Wildcards,
    names: Option<&'static [&'static str]>,
    position: usize,
    next_wildcard: usize,
    /// The response's head is taken.
    has_head: bool,
    /// Which argument takes the body, and as what.
    body: Option<(String, &'static str)>,
    asks: Vec<Ask>,
    fits: Vec<(usize, Accepts)>,
    errors: Vec<Error>,
}

/// What was settled.
pub(crate) struct Bound {
    pub(crate) asks: Vec<Ask>,
    pub(crate) fits: Vec<(usize, Accepts)>,
    pub(crate) errors: Vec<Error>,
}

impl<'a> Binder<'a> {
    pub(crate) fn new(
        route: String,
        providers: &'a [Provider],
        wildcards: &'a Wildcards,
    ) -> Binder<'a> {
        Binder {
            route,
            providers,
            wildcards,
            names: None,
            position: 0,
            next_wildcard: 0,
            has_head: false,
            body: None,
            asks: Vec::new(),
            fits: Vec::new(),
            errors: Vec::new(),
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
        let text = format!("{}: {}", self.route, message.as_ref());
        self.errors.push(Error::new(ErrorKind::Route, text));
    }

    fn argument(&self) -> String {
        match self.name() {
            Some(name) => format!("argument {name:?}"),
            None => format!("argument {}", self.position + 1),
        }
    }

    /// The slot of the plugin that provides `T` to this argument.
    pub(crate) fn slot<T: Provided>(&mut self, required: bool) -> Option<usize> {
        let wanted = TypeId::of::<T>();
        let found = match self.name() {
            Some(name) => self.provider_by_keyword(name, wanted, type_name::<T>()),
            None => self.provider_by_type(wanted, type_name::<T>()),
        };
        let provider = match found {
            Ok(index) => &self.providers[index],
            Err(message) => {
                self.error(message);
                return None;
            }
        };
        let (slot, keyword) = (provider.slot, provider.keyword.clone());
        if self.asks.iter().any(|ask| ask.slot == slot) {
            let argument = self.argument();
            self.error(format!(
                "{argument} asks a second time for keyword {keyword:?}; a handler borrows it once"
            ));
            return None;
        }
        self.asks.push(Ask { slot, required });
        Some(slot)
    }

    /// The response's head, for one argument: what a second one set would take the place of what the first
    /// did.
    pub(crate) fn head(&mut self) -> Option<()> {
        if std::mem::replace(&mut self.has_head, true) {
            let argument = self.argument();
            self.error(format!(
                "{argument} asks a second time for &mut ResponseHead; a handler borrows it once"
            ));
            return None;
        }
        Some(())
    }

    /// The request's body, which is of one kind: "a form", "JSON".
    pub(crate) fn body(&mut self, kind: &'static str) -> Option<()> {
        let argument = self.argument();
        match &self.body {
            None => self.body = Some((argument, kind)),
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

    fn provider_by_type(&self, wanted: TypeId, type_name: &str) -> Result<usize, String> {
        let argument = self.argument();
        let of_type = self.providers.iter().enumerate().filter(|(_, p)| p.type_id == wanted);
        let candidates: Vec<_> = of_type.clone().filter(|(_, p)| !p.skipped).collect();
        match candidates.as_slice() {
            [(index, _)] => Ok(*index),
            [] => Err(match of_type.clone().next() {
                Some((_, skipped)) => format!(
                    "{argument} asks for {type_name}, but the route skips plugin {:?} (keyword {:?}) \
                     that provides it",
                    skipped.plugin, skipped.keyword
                ),
                None => format!(
                    "{argument} asks for {type_name}, which no installed plugin provides; install one \
                     before the app is built{}",
                    self.known_keywords()
                ),
            }),
            several => {
                let keywords: Vec<_> =
                    several.iter().map(|(_, p)| format!("{:?}", p.keyword)).collect();
                Err(format!(
                    "{argument} asks for {type_name}, which keywords {} provide; say which with \
                     named!(|{}: &mut …, …| …)",
                    keywords.join(" and "),
                    several[0].1.keyword
                ))
            }
        }
    }

    fn provider_by_keyword(
        &self,
        name: &str,
        wanted: TypeId,
        type_name: &str,
    ) -> Result<usize, String> {
        let of_keyword = || self.providers.iter().enumerate().filter(|(_, p)| p.keyword == name);
        // A plugin of the route's own may stand in for one that it skips.
        let found = of_keyword().find(|(_, p)| !p.skipped).or_else(|| of_keyword().next());
        match found {
            Some((_, provider)) if provider.skipped => Err(format!(
                "argument {name:?} asks for a keyword of plugin {:?}, which the route skips",
                provider.plugin
            )),
            Some((index, provider)) if provider.type_id == wanted => Ok(index),
            Some((_, provider)) => Err(format!(
                "argument {name:?} is {type_name}, but keyword {name:?} of plugin {:?} provides {}",
                provider.plugin, provider.type_name
            )),
            None => Err(format!(
                "argument {name:?} asks for {type_name}, but no installed plugin has keyword \
                 {name:?}{}",
                self.known_keywords()
            )),
        }
    }

    fn known_keywords(&self) -> String {
        let keywords: Vec<_> = self.providers.iter().map(|p| p.keyword.as_str()).collect();
        match keywords.as_slice() {
            [] => "; no plugin that provides anything is installed".to_owned(),
            known => format!("; known keywords: {}", known.join(", ")),
        }
    }

    /// The wildcard of this argument: by name in a [`named!`](crate::named) handler, else the next one of
    /// the rule. Values that do not fit do not match the rule.
    pub fn wildcard(&mut self, optional: bool, fits: fn(&str) -> bool) -> Option<usize> {
        let found = match self.name() {
            Some(name) => self.wildcards.names.iter().position(|known| known == name),
            None => {
                self.next_wildcard += 1;
                let next = self.next_wildcard - 1;
                (next < self.wildcards.names.len()).then_some(next)
            }
        };
        let argument = self.argument();
        let Some(index) = found else {
            self.error(match (self.name(), self.wildcards.names.len()) {
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
        if self.wildcards.floats[index] && !fits("0.5") {
            let name = &self.wildcards.names[index];
            let message = format!(
                "{argument} takes wildcard <{name}>, whose filter is float, and reads no number with a point; \
                 make it an f64, or write <{name}:int>"
            );
            self.error(message);
            return None;
        }
        if !optional {
            let name = &self.wildcards.names[index];
            let without = self.wildcards.rules.iter().find(|rule| rule.1[index].is_none());
            if let Some((rule, _)) = without {
                let message = format!(
                    "{argument} takes wildcard <{name}>, which rule {rule:?} lacks; make it an Option"
                );
                self.error(message);
                return None;
            }
        }
        self.fits.push((index, fits));
        Some(index)
    }

    fn known_wildcards(&self) -> String {
        match self.wildcards.names.as_slice() {
            [] => "none".to_owned(),
            names => names.iter().map(|n| format!("<{n}>")).collect::<Vec<_>>().join(", "),
        }
    }

    pub(crate) fn finish(mut self) -> Bound {
        let (taken, known) = (self.next_wildcard, self.wildcards.names.len());
        if self.names.is_none()
            && taken > 0
            && let Some((rule, _)) = self.wildcards.rules.iter().find(|rule| disordered(&rule.1))
        {
            let text = format!(
                "rule {rule:?} has its wildcards in another order than the route's other rules, so \
                 which argument is which its type does not say; use named!"
            );
            self.error(text);
        }
        if self.names.is_none() && taken > 0 && taken < known && self.errors.is_empty() {
            self.error(format!(
                "the handler takes {taken} of the rule's {known} wildcards ({}), and which ones its \
                 types do not say; take them all, or use named!",
                self.known_wildcards()
            ));
        }
        Bound { asks: self.asks, fits: self.fits, errors: self.errors }
    }
}

fn disordered(places: &[Option<usize>]) -> bool {
    !places.iter().flatten().is_sorted()
}
