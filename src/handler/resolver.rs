//! Resolves what the functions of a route ask for: to plugins, to state, and to providers and what these need themselves.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::panic::Location;
use std::sync::Arc;

use super::binder::{Binder, Function, Role};
use super::function::BindProvider;
use crate::pipeline::debug::ArgumentInfo;
use crate::pipeline::provider::{BoundProvider, Finish, ValueSource, public_name};
use crate::pipeline::route::Ask;
use crate::routing::Accepts;
use crate::{Error, ErrorKind};

/// A source of argument values: a plugin, a provider or the app's state.
#[derive(Clone)]
pub(crate) struct Source {
    /// The plugin's name.
    pub(crate) name: String,
    pub(crate) keyword: String,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) kind: Kind,
    /// The route asked to do without it.
    pub(crate) skipped: bool,
    pub(crate) location: &'static Location<'static>,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Plugin { slot: usize },
    Provider(Arc<ProviderDefinition>),
    State(Arc<dyn Any + Send + Sync>),
}

impl Source {
    fn provider(&self) -> Option<usize> {
        match &self.kind {
            Kind::Provider(provider) => Some(provider.number),
            _ => None,
        }
    }
}

/// A provider before it is bound to a route.
pub(crate) struct ProviderDefinition {
    /// A unique number, given when the app is built.
    pub(crate) number: usize,
    pub(crate) keyword: String,
    pub(crate) type_id: TypeId,
    pub(crate) type_name: &'static str,
    pub(crate) bind: BindProvider,
    pub(crate) finish: Option<Finish>,
    pub(crate) location: &'static Location<'static>,
}

/// The wildcards in all rules of a route.
#[derive(Debug, Default)]
pub(crate) struct Wildcards {
    pub(crate) names: Vec<String>,
    /// Which of them can be numbers with a point.
    pub(crate) floats: Vec<bool>,
    /// For each rule its text, and for each wildcard its place in that rule.
    pub(crate) rules: Vec<(String, Vec<Option<usize>>)>,
    /// They are unknown, as this is for requests without a route.
    pub(crate) unknown: bool,
}

/// Something in an app that cannot work.
pub(crate) struct BuildProblem {
    /// Problems with the same key are reported once.
    pub(crate) key: String,
    pub(crate) error: Error,
}

/// Resolves what the functions of one route ask for. They share values.
pub(crate) struct Resolver {
    /// The route, or what stands in for one, as messages name it.
    pub(crate) title: String,
    pub(crate) location: Option<&'static Location<'static>>,
    pub(crate) sources: Vec<Source>,
    pub(crate) wildcards: Wildcards,
    /// The providers that are needed, each behind those that it needs itself.
    pub(crate) providers: Vec<BoundProvider>,
    pub(crate) accepts: Vec<(usize, Accepts)>,
    pub(crate) problems: Vec<BuildProblem>,
    /// The handler's arguments.
    pub(crate) arguments: Vec<ArgumentInfo>,
    /// Which argument takes the body, and as what.
    pub(crate) body: Option<(String, &'static str)>,
    resolved: HashMap<usize, Option<Resolved>>,
    /// The sources that are being resolved, each for the one before it; to detect cycles.
    resolving: Vec<usize>,
}

#[derive(Clone)]
struct Resolved {
    number: usize,
    asks: Vec<Ask>,
}

impl Resolver {
    pub(crate) fn new(
        title: String,
        location: Option<&'static Location<'static>>,
        sources: Vec<Source>,
        wildcards: Wildcards,
    ) -> Resolver {
        Resolver {
            title,
            location,
            sources,
            wildcards,
            providers: Vec::new(),
            accepts: Vec::new(),
            problems: Vec::new(),
            arguments: Vec::new(),
            body: None,
            resolved: HashMap::new(),
            resolving: Vec::new(),
        }
    }

    /// Binds a function, and says what it asks of plugins, itself or through providers, and whether it asks for
    /// anything that is made for each request.
    pub(crate) fn bind<T>(
        &mut self,
        function: Function,
        bind: impl FnOnce(&mut Binder<'_>) -> Option<T>,
    ) -> (Option<T>, Asks) {
        let mut binder = Binder::new(self, function);
        let bound = bind(&mut binder);
        (bound, binder.finish())
    }

    /// Where the value of this source is, and what that asks of plugins.
    pub(crate) fn place(
        &mut self,
        index: usize,
        required: bool,
    ) -> Option<(ValueSource, Vec<Ask>)> {
        match self.sources[index].kind.clone() {
            Kind::Plugin { slot } => {
                Some((ValueSource::Plugin(slot), vec![Ask { slot, required }]))
            }
            Kind::Provider(definition) => {
                let resolved = self.provider(index, &definition)?;
                Some((ValueSource::Provider(resolved.number), resolved.asks))
            }
            Kind::State(_) => None,
        }
    }

    fn provider(&mut self, index: usize, definition: &ProviderDefinition) -> Option<Resolved> {
        if let Some(resolved) = self.resolved.get(&index) {
            return resolved.clone();
        }
        if let Some(begin) = self.resolving.iter().position(|other| *other == index) {
            self.report_cycle(begin);
            return None;
        }
        self.resolving.push(index);
        let title = format!(
            "the provider of {} (keyword {:?})",
            public_name(definition.type_name),
            definition.keyword
        );
        let function = Function::titled(Role::Provider, title, definition.location);
        let (create, asks) = self.bind(function, |binder| (definition.bind)(binder));
        self.resolving.pop();
        let resolved = create.map(|create| {
            let (keyword, finish) = (definition.keyword.clone(), definition.finish.clone());
            self.providers.push(BoundProvider { keyword, create, finish });
            Resolved { number: self.providers.len() - 1, asks: asks.plugins }
        });
        self.resolved.insert(index, resolved.clone());
        resolved
    }

    /// Says that providers need each other.
    fn report_cycle(&mut self, begin: usize) {
        let mut cycle: Vec<usize> = self.resolving[begin..].to_vec();
        // Wherever it was entered, it is told in the same words.
        let place = |index: &usize| {
            let location = self.sources[*index].location;
            (location.file(), location.line())
        };
        let first = cycle.iter().enumerate().min_by_key(|(_, index)| place(index));
        let first = first.map_or(0, |(at, _)| at);
        cycle.rotate_left(first);
        cycle.push(cycle[0]);
        let named = |index: &usize| {
            let source = &self.sources[*index];
            format!(
                "{} (keyword {:?}, at {}:{})",
                public_name(source.type_name),
                source.keyword,
                source.location.file(),
                source.location.line()
            )
        };
        let chain: Vec<_> = cycle.iter().map(named).collect();
        let text = format!("providers need each other: {}", chain.join(" asks for "));
        let error = Error::new(ErrorKind::Route, text.clone()).at(self.sources[cycle[0]].location);
        self.problems.push(BuildProblem { key: text, error });
    }

    /// The numbers of the providers that somebody has asked for.
    pub(crate) fn resolved_providers(&self) -> impl Iterator<Item = usize> {
        self.resolved.keys().filter_map(|index| self.sources[*index].provider())
    }

    /// Has the provider of this number find what it needs.
    pub(crate) fn resolve_provider(&mut self, number: usize) {
        let index = self.sources.iter().position(|source| source.provider() == Some(number));
        if let Some(index) = index {
            self.place(index, false);
        }
    }

    /// What there is, by its keyword; a provider that nobody has asked for is nowhere.
    pub(crate) fn keywords(&self) -> Vec<(String, ValueSource)> {
        let found = self.sources.iter().enumerate().filter(|(_, source)| !source.skipped);
        let place = |(index, source): (usize, &Source)| match source.kind {
            Kind::Plugin { slot } => Some((source.keyword.clone(), ValueSource::Plugin(slot))),
            Kind::Provider(_) => {
                let resolved = self.resolved.get(&index).and_then(Option::as_ref);
                let place =
                    resolved.map_or(ValueSource::None, |found| ValueSource::Provider(found.number));
                Some((source.keyword.clone(), place))
            }
            Kind::State(_) => None,
        };
        found.filter_map(place).collect()
    }

    /// Has the value of this keyword made ready for a plugin that uses it; `None` where nobody has that keyword.
    pub(crate) fn use_keyword(&mut self, keyword: &str) -> Option<Vec<Ask>> {
        let has = |source: &Source| {
            !source.skipped && source.keyword == keyword && !matches!(source.kind, Kind::State(_))
        };
        let index = self.sources.iter().position(has)?;
        // What cannot be bound has said so.
        Some(self.place(index, true).map_or(Vec::new(), |(_, asks)| asks))
    }
}

/// What a function asks for, itself or through providers.
#[derive(Default)]
pub(crate) struct Asks {
    pub(crate) plugins: Vec<Ask>,
    /// Whether it asks for a value of a plugin or a provider.
    pub(crate) any: bool,
}

/// Adds an ask to others: what one of them requires is required.
pub(crate) fn add_ask(asks: &mut Vec<Ask>, ask: Ask) {
    match asks.iter_mut().find(|other| other.slot == ask.slot) {
        Some(other) => other.required |= ask.required,
        None => asks.push(ask),
    }
}
