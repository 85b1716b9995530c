//! Where the user of a session is logged in.

use super::saving::CookieAction;
use super::state::{DestroyState, IncomingId};
use super::store::{Device, EndDevices};
use super::view::Session;
use crate::Result;

/// The devices of the user who is logged in. Each of these acts in the store at once, after what has changed so far is
/// saved; where nobody is logged in, there are none.
///
/// ```
/// use bottle_session::{App, Json, Result, Session, SessionPlugin, TestClient};
///
/// let mut app = App::new();
/// app.install(SessionPlugin::new().in_memory())?;
/// app.post("/login", |session: &mut Session| session.log_in("ada"));
/// app.get("/devices", |session: &mut Session| session.devices().map(Json));
/// app.post("/devices/<handle>/end", |session: &mut Session, handle: &str| -> Result<String> {
///     Ok(if session.end_device(handle)? { "ended" } else { "there is no such device" }.to_owned())
/// });
/// app.post("/elsewhere/end", |session: &mut Session| -> Result<String> {
///     Ok(format!("{} ended", session.end_other_devices()?))
/// });
///
/// let laptop = TestClient::new(app)?;
/// let phone = TestClient::of(laptop.service().clone());
/// laptop.post("/login").send();
/// phone.post("/login").send();
/// assert_eq!(phone.get("/devices").send().text().matches("handle").count(), 2);
/// assert_eq!(phone.post("/elsewhere/end").send().text(), "1 ended");
/// assert_eq!(laptop.get("/devices").send().text(), "[]");
/// # Ok::<(), bottle_session::Error>(())
/// ```
impl Session {
    /// Where the user is logged in: this session and all others, the latest login first.
    pub fn devices(&mut self) -> Result<Vec<Device>> {
        match self.user_and_store()? {
            Some(user) => self.context.store.devices(&user, self.id()),
            None => Ok(Vec::new()),
        }
    }

    /// Ends the device with this [handle](Device::handle), and says whether it was there. A handle that is none of this user's
    /// ends nothing. Where it is this session, it is [destroyed](Session::destroy).
    pub fn end_device(&mut self, handle: &str) -> Result<bool> {
        let Some(user) = self.user_and_store()? else { return Ok(false) };
        let devices = self.context.store.devices(&user, self.id())?;
        let is_this = devices.iter().any(|device| device.is_this && device.handle == handle);
        let ended = self.context.store.end_devices(&user, EndDevices::One(handle))?;
        if is_this {
            self.ended_by_user();
        }
        Ok(ended > 0)
    }

    /// Ends all devices of the user but this session, and says how many there were: "log out everywhere else", and what
    /// belongs behind a change of the password.
    ///
    /// Kind [`Gone`](crate::ErrorKind::Gone): this session has ended or got a new id meanwhile, and none was ended.
    pub fn end_other_devices(&mut self) -> Result<usize> {
        match (self.user_and_store()?, self.id()) {
            (Some(user), Some(id)) => self.context.store.end_devices(&user, EndDevices::AllBut(id)),
            _ => Ok(0),
        }
    }

    /// Ends all devices of the user, this session included, and says how many there were. Once it has returned, none of
    /// them is ever loaded again; see [`SessionStore::end_devices`](crate::SessionStore::end_devices), which does the same
    /// for any user, outside of requests.
    pub fn end_all_devices(&mut self) -> Result<usize> {
        let Some(user) = self.user_and_store()? else { return Ok(0) };
        let ended = self.context.store.end_devices(&user, EndDevices::All)?;
        self.ended_by_user();
        Ok(ended)
    }

    /// Takes note that the store has ended this session.
    fn ended_by_user(&mut self) {
        self.destroy();
        self.destroy_state = DestroyState::Destroyed;
        if self.incoming_id != IncomingId::Nothing {
            self.cookie = CookieAction::Remove;
        }
    }

    /// The user, once the store has the session as it is here: a login counts from its save on.
    fn user_and_store(&mut self) -> Result<Option<String>> {
        self.used.set(true);
        if self.user_id().is_some() {
            self.commit()?;
            self.catch_up()?;
        }
        Ok(self.user_id().map(str::to_owned))
    }
}
