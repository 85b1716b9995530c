//! Inheritance between apps: plugins, providers, state and options of an app, and those inherited from the apps around it.

use std::sync::Arc;

use super::App;
use super::plugins::{InstalledPlugin, compatible};
use super::route::Skip;
use crate::handler::{Kind, ProviderDefinition, Resolver, Source, Wildcards};
use crate::message::body::DEFAULT_BODY_LIMIT;
use crate::pipeline::error_converters::Converters;
use crate::pipeline::provider::public_name;
use crate::{Error, ErrorKind, Result};

/// What an app has: its own plugins, providers, state and options, and the inherited ones.
#[derive(Clone, Default)]
pub(super) struct Inherited {
    /// The scope of the app that an app mounted here inherits from.
    pub(super) parent: Option<usize>,
    /// How many apps are around.
    pub(super) level: usize,
    /// Outermost first, each with its slot.
    pub(super) plugins: Vec<(InstalledPlugin, usize)>,
    /// Each with the scope that it is of.
    providers: Vec<(Arc<ProviderDefinition>, usize)>,
    states: Vec<Source>,
    pub(super) body_limit: Option<u64>,
    /// What errors are answered with, by the innermost app first.
    pub(super) converters: Converters,
    /// Whether JSON errors are of RFC 9457.
    pub(super) problem_json: Option<bool>,
}

impl Inherited {
    /// The same for an app that inherits nothing.
    pub(super) fn isolated(&self) -> Inherited {
        let body_limit = Some(DEFAULT_BODY_LIMIT);
        Inherited { level: self.level, body_limit, ..Inherited::default() }
    }

    /// Adds what this app has itself.
    pub(super) fn with(
        mut self,
        app: &mut App,
        scope: usize,
        first_slot: usize,
        first_provider: usize,
        errors: &mut Vec<Error>,
    ) -> Inherited {
        let mut providers = std::mem::take(&mut app.providers);
        for (provider, number) in providers.iter_mut().zip(first_provider..) {
            provider.number = number;
        }
        errors.extend(keyword_conflicts(&app.plugins, &providers));
        let has_keyword = |keyword: Option<&str>| {
            keyword.is_some_and(|keyword| {
                app.plugins.iter().any(|own| own.keyword() == Some(keyword))
                    || providers.iter().any(|own| own.keyword == keyword)
            })
        };
        let has_name = |plugin: &InstalledPlugin| {
            let same = |own: &InstalledPlugin| own.keyword().is_none() && own.name == plugin.name;
            plugin.keyword().is_none() && app.plugins.iter().any(same)
        };
        self.plugins.retain(|(other, _)| !has_keyword(other.keyword()) && !has_name(other));
        self.providers.retain(|(other, _)| !has_keyword(Some(&other.keyword)));
        self.states.retain(|other| !app.states.iter().any(|own| own.type_id == other.type_id));
        for own in &app.plugins {
            let fits = self
                .plugins
                .iter()
                .try_for_each(|(other, _)| compatible(&own.name, own.provision.as_ref(), other));
            errors.extend(fits.err().map(|error| error.at(own.location)));
        }
        self.plugins.extend(app.plugins.iter().cloned().zip(first_slot..));
        self.providers.extend(providers.into_iter().map(|provider| (Arc::new(provider), scope)));
        self.states.append(&mut app.states);
        self.body_limit = app.body_limit.or(self.body_limit);
        self.converters = self.converters.inside(std::mem::take(&mut app.converters));
        self.problem_json = app.problem_json.or(self.problem_json);
        (self.parent, self.level) = (Some(scope), self.level + 1);
        self
    }

    /// Name and keyword of each plugin and provider that a route can skip.
    pub(super) fn named(&self) -> Vec<(&str, Option<&str>)> {
        let plugins = self.plugins.iter().map(|(plugin, _)| (&*plugin.name, plugin.keyword()));
        let keywords = self.providers.iter().map(|(provider, _)| &*provider.keyword);
        plugins.chain(keywords.map(|keyword| (keyword, Some(keyword)))).collect()
    }

    /// Fails if a provider that the route does not skip has the keyword of this plugin of the route's own.
    pub(super) fn check_keyword(&self, plugin: &InstalledPlugin, skip: &Skip) -> Result<()> {
        let taken = |(other, _): &&(Arc<ProviderDefinition>, usize)| {
            plugin.keyword() == Some(&other.keyword)
                && !skip.skips(&other.keyword, Some(&other.keyword))
        };
        match self.providers.iter().find(taken) {
            None => Ok(()),
            Some((other, _)) => Err(taken_keyword(&plugin.name, &other.keyword, other)),
        }
    }

    /// The sources of arguments on a route with these plugins of its own.
    pub(super) fn sources<'a>(
        &'a self,
        own: impl Iterator<Item = (&'a InstalledPlugin, usize)>,
        skip: &Skip,
    ) -> Vec<Source> {
        let plugin = |plugin: &InstalledPlugin, slot: usize, skipped: bool| {
            let provision = plugin.provision.as_ref()?;
            Some(Source {
                name: plugin.name.clone(),
                keyword: provision.keyword.clone(),
                type_id: provision.type_id,
                type_name: provision.type_name,
                kind: Kind::Plugin { slot },
                skipped,
                location: plugin.location,
            })
        };
        let skipped = |other: &InstalledPlugin| skip.skips(&other.name, other.keyword());
        let plugins = self
            .plugins
            .iter()
            .filter_map(|(other, slot)| plugin(other, *slot, skipped(other)))
            .chain(own.filter_map(|(own, slot)| plugin(own, slot, false)));
        let providers = self.providers.iter().map(|(provider, _)| Source {
            name: provider.keyword.clone(),
            keyword: provider.keyword.clone(),
            type_id: provider.type_id,
            type_name: provider.type_name,
            kind: Kind::Provider(provider.clone()),
            skipped: skip.skips(&provider.keyword, Some(&provider.keyword)),
            location: provider.location,
        });
        plugins.chain(providers).chain(self.states.iter().cloned()).collect()
    }

    /// A resolver for the pages and hooks that run when no route is found.
    pub(super) fn resolver(&self, wildcards: Wildcards) -> Resolver {
        let sources = self.sources(std::iter::empty(), &Skip::default());
        Resolver::new("what no route answers".to_owned(), None, sources, wildcards)
    }

    /// The numbers of the providers of this scope.
    pub(super) fn own_providers(&self, scope: usize) -> impl Iterator<Item = usize> {
        let own = self.providers.iter().filter(move |(_, of)| *of == scope);
        own.map(|(provider, _)| provider.number)
    }
}

fn taken_keyword(who: &str, keyword: &str, other: &ProviderDefinition) -> Error {
    let text = format!(
        "{who:?} cannot have keyword {keyword:?}, which the provider of {} at {}:{} has; give one of them another \
         with keyword(…)",
        public_name(other.type_name),
        other.location.file(),
        other.location.line()
    );
    Error::new(ErrorKind::Plugin, text)
}

/// Providers that have the keyword of something else in the same app.
fn keyword_conflicts(plugins: &[InstalledPlugin], providers: &[ProviderDefinition]) -> Vec<Error> {
    let mut errors = Vec::new();
    for (number, provider) in providers.iter().enumerate() {
        let keyword = &provider.keyword;
        let plugin = plugins.iter().find(|plugin| plugin.keyword() == Some(keyword));
        if let Some(plugin) = plugin {
            errors.push(taken_keyword(&plugin.name, keyword, provider).at(plugin.location));
        }
        if let Some(other) = providers[..number].iter().find(|other| other.keyword == *keyword) {
            let who = format!("the provider of {}", public_name(provider.type_name));
            errors.push(taken_keyword(&who, keyword, other).at(provider.location));
        }
    }
    errors
}
