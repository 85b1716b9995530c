//! The options of a server that speaks TLS, and what becomes of them when it serves.

use std::path::PathBuf;
use std::sync::Arc;

use super::options::Options;
use super::poller::MOST_LISTENERS;
use super::redirects::Redirects;
use super::socket::Listener;
use super::{Native, elsewhere};
use crate::server::ListenAddress;
use crate::server::tls::{RenewalWatcher, Tls};
use crate::{Error, ErrorKind, Result};

/// What is to be done about TLS.
#[derive(Default)]
pub(super) struct Settings {
    tls: Option<Tls>,
    listeners: Vec<(Listener, ListenAddress)>,
    challenges: Option<PathBuf>,
    public_port: Option<u16>,
}

impl Native {
    /// Speaks TLS, with this certificate; see [`server::tls`](crate::server::tls). A unix socket cannot: whatever is in front of
    /// it does.
    #[cfg_attr(docsrs, doc(cfg(feature = "https")))]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Native {
        if let ListenAddress::Tcp(address) = self.address {
            self.address = ListenAddress::Tls(address);
        }
        self.secure.tls = Some(tls);
        self
    }

    /// Listens on this address as well, without TLS, and answers each request there 308 with the same method, host, path
    /// and query at https. The app never sees them. A request for a host that the certificate is not for is a 400.
    ///
    /// It can be said again for further addresses.
    #[cfg_attr(docsrs, doc(cfg(feature = "https")))]
    pub fn redirect_from(mut self, address: &str) -> Result<Native> {
        if self.secure.listeners.len() + 1 >= MOST_LISTENERS {
            let text = format!("{address}: there can be {MOST_LISTENERS} listeners");
            return Err(Error::new(ErrorKind::Config, text));
        }
        let listener = Listener::bind(address)?;
        listener.set_nonblocking()?;
        let bound = listener.address()?;
        self.secure.listeners.push((listener, bound));
        Ok(self)
    }

    /// Answers `/.well-known/acme-challenge/` where [`redirect_from`](Native::redirect_from) listens with the files below
    /// that path in this folder, so that `certbot certonly --webroot --webroot-path` of the folder works, also when there is no
    /// valid certificate yet. None unless set: such requests are redirected like others.
    #[cfg_attr(docsrs, doc(cfg(feature = "https")))]
    #[must_use]
    pub fn acme_folder(mut self, folder: impl Into<PathBuf>) -> Native {
        self.secure.challenges = Some(folder.into());
        self
    }

    /// The port to which [`redirect_from`](Native::redirect_from) sends on: the server's own unless set. Where a router or a
    /// container maps 443 to it, that is the one that visitors know.
    #[cfg_attr(docsrs, doc(cfg(feature = "https")))]
    #[must_use]
    pub fn public_port(mut self, port: u16) -> Native {
        self.secure.public_port = Some(port);
        self
    }

    /// Binds what is behind `https://`.
    pub(super) fn bind_https(address: &str, bare: &str) -> Result<Native> {
        let named = |error: Error| {
            let text = error.to_string().replacen(&format!("{bare:?}"), &format!("{address:?}"), 1);
            Error::new(error.kind(), text).with_source(error)
        };
        let mut native = Native::new(Listener::bind(bare).map_err(named)?)?;
        native.elsewhere = elsewhere(bare, &native.address);
        let listens_at = match native.address {
            ListenAddress::Tcp(address) => ListenAddress::Tls(address),
            ref other => other.clone(),
        };
        let tls = Tls::from_environment(&listens_at)?;
        Ok(native.tls(tls))
    }
}

impl Settings {
    /// Has the connections of a server at this address speak TLS; what renews the certificate as long as it is kept.
    pub(super) fn apply(
        &mut self,
        address: &ListenAddress,
        options: &mut Options,
    ) -> Result<Option<RenewalWatcher>> {
        let refused = |why: String| Err(Error::new(ErrorKind::Config, why));
        if self.listeners.is_empty() && (self.challenges.is_some() || self.public_port.is_some()) {
            return refused(
                "acme_folder and public_port are for requests without TLS; set redirect_from"
                    .to_owned(),
            );
        }
        let Some(tls) = self.tls.take() else {
            return match self.listeners.first() {
                Some((_, from)) => refused(format!(
                    "{from} cannot send on to https, which {address} is not; set tls"
                )),
                None => Ok(None),
            };
        };
        let ListenAddress::Tls(own) = address else {
            return refused(format!(
                "{address} is a unix socket; TLS is for what is in front of it"
            ));
        };
        let (acceptor, renewal) = tls.into_acceptor(address)?;
        let acceptor = Arc::new(acceptor);
        if let Some((_, from)) = self.listeners.first() {
            if !acceptor.knows_names() {
                return refused(format!(
                    "{from} sends on to https only to names of the certificate, and of Tls::config they are not known; set \
                     Tls::names"
                ));
            }
            options.redirects = Some(Arc::new(Redirects {
                acceptor: acceptor.clone(),
                port: self.public_port.unwrap_or(own.port()),
                challenges: self.challenges.take(),
            }));
        }
        options.tls = Some(acceptor);
        Ok(renewal)
    }

    /// The listeners that only redirect, and where they listen.
    pub(super) fn take_listeners(&mut self) -> Vec<(Listener, ListenAddress)> {
        std::mem::take(&mut self.listeners)
    }
}
