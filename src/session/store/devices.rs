//! Where a user is logged in: what goes with a login, and what a store lists and ends of a user's sessions.

use std::fmt;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::session::id::{SessionId, base64url};
use crate::{Error, ErrorKind};

/// How many bytes a store keeps of a browser's `User-Agent`.
const MAX_AGENT_BYTES: usize = 256;

/// How many characters a handle has: 168 bits.
const HANDLE: usize = 28;

/// Who logs in, with a [`Save`](crate::Save), and from where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogIn<'a> {
    /// The app's own name for the user.
    pub user: &'a str,
    /// What the browser says it is (`User-Agent`), or nothing: at most 256 bytes without control characters.
    pub agent: &'a str,
    /// Where it is, shortened, or nothing: `203.0.113.0/24`.
    pub address: &'a str,
    /// In how many sessions the user may be logged in, this one included: the oldest logins beyond that end.
    pub max_sessions: Option<usize>,
}

impl<'a> LogIn<'a> {
    /// The login of this user, from nowhere in particular.
    pub fn new(user: &'a str) -> LogIn<'a> {
        LogIn { user, agent: "", address: "", max_sessions: None }
    }
}

/// Does not show who.
impl fmt::Debug for LogIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogIn").field("max_sessions", &self.max_sessions).finish_non_exhaustive()
    }
}

/// A live session of a user who is logged in: a browser, or a program that keeps its cookie.
///
/// As JSON it is an object of these fields; times are whole seconds since 1970.
///
/// ```
/// use bottle_session::{App, Device, Result, Session, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.post("/login", |session: &mut Session| session.log_in("ada"));
/// app.get("/devices", |session: &mut Session| -> Result<String> {
///     let devices: Vec<Device> = session.devices()?;
///     Ok(devices.iter().map(|device| format!("{}, this one: {}", device.agent, device.is_this)).collect())
/// });
/// let browser = TestClient::new(app)?;
/// browser.post("/login").header("user-agent", "Netscape").send();
/// assert_eq!(browser.get("/devices").send().text(), "Netscape, this one: true");
/// # Ok::<(), bottle_session::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is [ended](crate::Session::end_device) by. It stays the same when the session gets a new id, opens no session,
    /// and means nothing but in the list of its user.
    pub handle: String,
    /// When the user logged in, by the store's clock.
    pub logged_in: SystemTime,
    /// When it was last used, by the store's clock: not earlier than a tenth of the idle limit before its last request.
    pub last_seen: SystemTime,
    /// The `User-Agent` that it logged in with, at most 256 bytes, or nothing.
    pub agent: String,
    /// The address that it logged in from, shortened to the network (`203.0.113.0/24`, `2001:db8:1::/48`), or nothing.
    pub address: String,
    /// Whether it is the session that asks.
    pub is_this: bool,
}

impl Serialize for Device {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut fields = serializer.serialize_struct("Device", 6)?;
        fields.serialize_field("handle", &self.handle)?;
        fields.serialize_field("logged_in", &seconds(self.logged_in))?;
        fields.serialize_field("last_seen", &seconds(self.last_seen))?;
        fields.serialize_field("agent", &self.agent)?;
        fields.serialize_field("address", &self.address)?;
        fields.serialize_field("is_this", &self.is_this)?;
        fields.end()
    }
}

/// Which of a user's sessions are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndDevices<'a> {
    /// All of them.
    All,
    /// All but the one with this id. Where that is none of them, nothing ends: an error of kind
    /// [`Gone`](ErrorKind::Gone). One that has expired may count as there.
    AllBut(&'a SessionId),
    /// The one with this [handle](Device::handle).
    One(&'a str),
}

/// The handle of a login into the session of this id.
pub(crate) fn handle_of(id: &SessionId) -> String {
    base64url(&id.digest())[..HANDLE].iter().copied().map(char::from).collect()
}

/// The handles of the oldest of these logins, beyond so many.
pub(crate) fn beyond(max_sessions: Option<usize>, devices: &[Device]) -> Vec<String> {
    let mut devices: Vec<_> = devices.iter().collect();
    newest_first(&mut devices);
    let oldest = devices.into_iter().skip(max_sessions.unwrap_or(usize::MAX).max(1));
    oldest.map(|device| device.handle.clone()).collect()
}

/// Sorts logins as stores list them; of two at the same moment, this one is the later one.
pub(crate) fn newest_first<D: std::borrow::Borrow<Device>>(devices: &mut [D]) {
    devices.sort_by(|one, other| {
        let key = |device: &D| {
            let Device { logged_in, is_this, handle, .. } = device.borrow();
            (*logged_in, *is_this, handle.clone())
        };
        key(other).cmp(&key(one))
    });
}

/// What is kept of a `User-Agent`.
pub(crate) fn agent_of(header: &[u8]) -> String {
    let text = String::from_utf8_lossy(header);
    let mut agent = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if agent.len() + character.len_utf8() > MAX_AGENT_BYTES {
            break;
        }
        agent.push(character);
    }
    agent
}

/// The network that an address is in: what tells a user where a login came from, and no more.
pub(crate) fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [one, two, three, _] = address.octets();
            format!("{one}.{two}.{three}.0/24")
        }
        IpAddr::V6(address) => {
            let [one, two, three, ..] = address.segments();
            let network = std::net::Ipv6Addr::new(one, two, three, 0, 0, 0, 0, 0);
            format!("{network}/48")
        }
    }
}

/// The error of a store that keeps no index of its users' sessions.
pub(crate) fn no_index() -> Error {
    Error::new(
        ErrorKind::Config,
        "the store of these sessions does not keep who is logged in, so it cannot list or end a user's sessions; \
         take MemoryStore, SqliteStore, or RedisStore in its default layout",
    )
}

/// The error of ending all sessions but one that is not there.
pub(crate) fn no_such_device() -> Error {
    Error::new(
        ErrorKind::Gone,
        "the session that was to stay has ended or got a new id meanwhile; none of its user's sessions was ended",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shortened_to_its_network() {
        for (address, network) in [
            ("203.0.113.77", "203.0.113.0/24"),
            ("::ffff:203.0.113.77", "203.0.113.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
            ("::1", "::/48"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network);
        }
    }

    #[test]
    fn an_agent_is_cut_to_256_bytes_of_text() {
        assert_eq!(agent_of(b"Mozilla/5.0 (X11)\x07"), "Mozilla/5.0 (X11)");
        assert_eq!(agent_of(b"caf\xe9"), "caf\u{fffd}");
        assert_eq!(agent_of("é".repeat(200).as_bytes()), "é".repeat(128));
        assert_eq!(agent_of(("a".to_owned() + &"é".repeat(200)).as_bytes()).len(), 255);
    }
}
