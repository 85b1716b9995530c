//! Which plugins an app has, and which of them go together.

use std::panic::Location;
use std::sync::Arc;

use super::App;
use crate::pipeline::plugin::{self, Installed, Plugin, Provision};
use crate::{Error, ErrorKind, Result};

#[derive(Clone)]
pub(crate) struct InstalledPlugin {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) name: String,
    pub(crate) provision: Option<Provision>,
    pub(crate) location: &'static Location<'static>,
}

/// What an app can [install](App::install): every [`Plugin`], and [`LoginPlugin`](crate::LoginPlugin). There is nothing to
/// implement.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a plugin",
    label = "expected what implements `bottle_session::Plugin`"
)]
pub trait Installation {
    /// Adds it to the app; errors name this place. [`App::install`] calls it.
    fn install(self, app: &mut App, location: &'static Location<'static>) -> Result<()>;
}

#[diagnostic::do_not_recommend]
impl<P: Plugin> Installation for P {
    fn install(self, app: &mut App, location: &'static Location<'static>) -> Result<()> {
        app.install_plugin(self, location)
    }
}

impl App {
    /// Installs a plugin for all routes of this app, those registered before included.
    ///
    /// Fails where the plugin refuses, or where another one has its keyword.
    #[track_caller]
    pub fn install(&mut self, plugin: impl Installation) -> Result<&mut App> {
        let location = Location::caller();
        plugin.install(self, location)?;
        Ok(self)
    }

    fn install_plugin(
        &mut self,
        plugin: impl Plugin,
        location: &'static Location<'static>,
    ) -> Result<()> {
        let unique = |name: &str, provision: Option<&Provision>| {
            self.plugins.iter().try_for_each(|other| compatible(name, provision, other))
        };
        let installed = prepared(plugin, &self.plugins, &[], unique, location);
        let installed = installed.map_err(|error| error.at(location))?;
        self.plugins.push(installed);
        Ok(())
    }

    /// The installed plugins of this type, outermost first: for what a plugin tells of itself, such as its counters.
    ///
    /// ```
    /// use bottle_session::{App, Session, SessionPlugin, TestClient};
    ///
    /// let mut app = App::new();
    /// app.install(SessionPlugin::new().in_memory())?;
    /// app.get("/", |session: &mut Session| session.set("name", "Ada"));
    /// let counters: Vec<_> = app.installed().map(SessionPlugin::counters).collect();
    ///
    /// TestClient::new(app)?.get("/").send();
    /// assert_eq!(counters[0].snapshot().created, 1);
    /// # Ok::<(), bottle_session::Error>(())
    /// ```
    pub fn installed<P: Plugin>(&self) -> impl Iterator<Item = &P> {
        self.plugins.iter().filter_map(|installed| plugin::as_type(&*installed.plugin))
    }

    /// Uninstalls and closes all plugins of this name, and says how many there were. A provider goes by its keyword.
    pub fn uninstall(&mut self, name: &str) -> usize {
        self.uninstall_where(|installed| installed.name == name) + self.withdraw(name)
    }

    /// Uninstalls and closes the plugin, or the provider, of this keyword, and says whether there was one.
    pub fn uninstall_keyword(&mut self, keyword: &str) -> bool {
        let of_keyword = |installed: &InstalledPlugin| installed.keyword() == Some(keyword);
        self.uninstall_where(of_keyword) + self.withdraw(keyword) > 0
    }

    fn withdraw(&mut self, keyword: &str) -> usize {
        let before = self.providers.len();
        self.providers.retain(|provider| provider.keyword != keyword);
        before - self.providers.len()
    }

    fn uninstall_where(&mut self, goes: impl Fn(&InstalledPlugin) -> bool) -> usize {
        let before = self.plugins.len();
        self.plugins.retain(|installed| {
            let goes = goes(installed);
            if goes {
                installed.plugin.close();
            }
            !goes
        });
        before - self.plugins.len()
    }
}

impl InstalledPlugin {
    pub(crate) fn keyword(&self) -> Option<&str> {
        self.provision.as_ref().map(Provision::keyword)
    }
}

/// Sets a plugin up among those that are there already, if `compatible` lets it.
pub(super) fn prepared(
    mut plugin: impl Plugin,
    outer: &[InstalledPlugin],
    inner: &[InstalledPlugin],
    compatible: impl FnOnce(&str, Option<&Provision>) -> Result<()>,
    location: &'static Location<'static>,
) -> Result<InstalledPlugin> {
    let provision = plugin.provides();
    let name = plugin.name().to_owned();
    compatible(&name, provision.as_ref())?;
    let others: Vec<_> = outer
        .iter()
        .chain(inner)
        .map(|other| (other.name.clone(), other.provision.clone()))
        .collect();
    plugin.setup(&Installed { plugins: &others })?;
    Ok(InstalledPlugin { plugin: Arc::new(plugin), name, provision, location })
}

/// Whether a plugin of this name and provision can be where another one is.
pub(crate) fn compatible(
    name: &str,
    provision: Option<&Provision>,
    other: &InstalledPlugin,
) -> Result<()> {
    let (Some(provision), Some(theirs)) = (provision, &other.provision) else { return Ok(()) };
    let (keyword, other) = (&provision.keyword, &other.name);
    let refused = |text: String| Err(Error::new(ErrorKind::Plugin, text));
    if *keyword == theirs.keyword {
        return refused(format!(
            "plugin {name:?} cannot have keyword {keyword:?}, which plugin {other:?} has; give one of them \
             another with keyword(…)"
        ));
    }
    match &provision.claim {
        Some(claim) if theirs.claim.as_ref() == Some(claim) => refused(format!(
            "plugin {name:?} cannot have {claim}, which plugin {other:?} with keyword {:?} has; give one of \
             them another",
            theirs.keyword
        )),
        _ => Ok(()),
    }
}
