//! Finds the source of a provided argument, by type or by keyword.

use std::any::{TypeId, type_name};

use super::Binder;
use crate::handler::resolver::{Kind, Source};
use crate::pipeline::plugin::Provided;
use crate::pipeline::provider::{ValueSource, public_name};

impl Binder<'_> {
    /// The keywords of what provides this type, and what the route does not skip.
    pub(crate) fn keywords_of<T: Provided>(&self) -> Vec<String> {
        let wanted = TypeId::of::<T>();
        let of_type = |source: &&Source| source.type_id == wanted && !source.skipped;
        let sources = self.resolver.sources.iter().filter(of_type);
        sources.map(|source| source.keyword.clone()).collect()
    }

    /// Whether some function of the route, of those bound so far, asks for what a provider of this keyword makes.
    pub(crate) fn is_asked_for(&self, keyword: &str) -> bool {
        let places = self.resolver.keywords();
        places.iter().any(|(known, place)| known == keyword && *place != ValueSource::None)
    }

    /// The source for this argument; none where it can do without and the route skips it.
    pub(super) fn source<T: Provided>(
        &self,
        required: bool,
        shared: bool,
    ) -> Result<Option<usize>, String> {
        let (wanted, type_name) = (TypeId::of::<T>(), type_name::<T>());
        let found = match self.name() {
            None => self.source_by_type(wanted, type_name, shared),
            Some(name) => {
                let state = |source: &Source| {
                    matches!(source.kind, Kind::State(_)) && source.type_id == wanted
                };
                let named = self.source_by_keyword(name, wanted, type_name);
                // Of one type there is one state, whatever the argument's name.
                match named.is_err() && shared {
                    true => self.resolver.sources.iter().position(state).map_or(named, Ok),
                    false => named,
                }
            }
        };
        let skipped = |source: &Source| source.skipped && source.type_id == wanted;
        match found {
            Ok(index) => Ok(Some(index)),
            Err(_)
                if !required
                    && self.function.role.is_ambient()
                    && self.resolver.sources.iter().any(skipped) =>
            {
                Ok(None)
            }
            Err(message) => Err(message),
        }
    }

    pub(super) fn source_by_type(
        &self,
        wanted: TypeId,
        type_name: &str,
        shared: bool,
    ) -> Result<usize, String> {
        let (argument, type_name) = (self.argument(), public_name(type_name));
        let sources = self.resolver.sources.iter().enumerate();
        let of_type: Vec<_> = sources.filter(|(_, source)| source.type_id == wanted).collect();
        let is_state = |source: &Source| matches!(source.kind, Kind::State(_));
        let fits =
            |(_, source): &&(usize, &Source)| !source.skipped && (shared || !is_state(source));
        let candidates: Vec<_> = of_type.iter().filter(fits).collect();
        match candidates.as_slice() {
            [(index, _)] => Ok(*index),
            [] => Err(match of_type.first() {
                Some((_, state)) if is_state(state) => format!(
                    "{argument} asks for &mut {type_name}, which is state of the app, and shared: ask for \
                     &{type_name}"
                ),
                Some((_, skipped)) => format!(
                    "{argument} asks for {type_name}, but the route skips plugin {:?} (keyword {:?}) \
                     that provides it{}",
                    skipped.name,
                    skipped.keyword,
                    self.instead()
                ),
                None => format!(
                    "{argument} asks for {type_name}, which no installed plugin, provider or state provides; \
                     install one before the app is built{}",
                    self.known_keywords()
                ),
            }),
            several => {
                let keywords: Vec<_> =
                    several.iter().map(|(_, p)| format!("{:?}", p.keyword)).collect();
                let places: Vec<_> = several
                    .iter()
                    .map(|(_, p)| format!("{}:{}", p.location.file(), p.location.line()))
                    .collect();
                Err(format!(
                    "{argument} asks for {type_name}, which keywords {} provide (at {}); say which with \
                     named!(|{}: &mut …, …| …)",
                    keywords.join(" and "),
                    places.join(" and "),
                    several[0].1.keyword
                ))
            }
        }
    }

    pub(super) fn instead(&self) -> &'static str {
        match self.function.role.is_ambient() {
            true => "; with Option it does without there",
            false => "",
        }
    }

    pub(super) fn source_by_keyword(
        &self,
        name: &str,
        wanted: TypeId,
        type_name: &str,
    ) -> Result<usize, String> {
        let type_name = public_name(type_name);
        let sources = || self.resolver.sources.iter().enumerate();
        let of_keyword =
            || sources().filter(|(_, p)| p.keyword == name && !matches!(p.kind, Kind::State(_)));
        // A plugin of the route's own may stand in for one that it skips.
        let found = of_keyword().find(|(_, p)| !p.skipped).or_else(|| of_keyword().next());
        match found {
            Some((_, source)) if source.skipped => Err(format!(
                "argument {name:?} asks for a keyword of plugin {:?}, which the route skips{}",
                source.name,
                self.instead()
            )),
            Some((index, source)) if source.type_id == wanted => Ok(index),
            Some((_, source)) => Err(format!(
                "argument {name:?} is {type_name}, but keyword {name:?} of plugin {:?} provides {}",
                source.name,
                public_name(source.type_name)
            )),
            None => Err(format!(
                "argument {name:?} asks for {type_name}, but no installed plugin has keyword \
                 {name:?}{}",
                self.known_keywords()
            )),
        }
    }

    pub(super) fn known_keywords(&self) -> String {
        let (states, others): (Vec<_>, Vec<_>) =
            self.resolver.sources.iter().partition(|source| matches!(source.kind, Kind::State(_)));
        let keywords: Vec<_> = others.iter().map(|source| source.keyword.as_str()).collect();
        let mut known = match keywords.as_slice() {
            [] => "; no plugin that provides anything is installed".to_owned(),
            known => format!("; known keywords: {}", known.join(", ")),
        };
        if !states.is_empty() {
            let types: Vec<_> = states.iter().map(|state| public_name(state.type_name)).collect();
            known.push_str(&format!("; state: {}", types.join(", ")));
        }
        known
    }
}
