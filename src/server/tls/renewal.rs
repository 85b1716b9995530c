//! A certificate in files that others renew: noticed, checked, and taken without a cut.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use signal_hook::SigId;
use signal_hook::consts::SIGHUP;

use super::CurrentCertificate;
use super::certificate::{Called, Certificate, End};
use crate::{Error, ErrorKind, Result};

/// How often the files are looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is said that the certificate in use is about to end.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The files of a certificate with its chain, and of its key.
#[derive(Clone, Debug)]
pub(super) struct Files {
    chain: PathBuf,
    key: PathBuf,
}

/// By which it is told whether a file is another than before: device, inode, size, and when it was last changed. Of both
/// files, links followed.
type Stamps = [Option<(u64, u64, u64, i64, i64)>; 2];

/// What files held, and how they looked before they were read.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) certificate: Certificate,
    stamps: Stamps,
}

impl Files {
    pub(super) fn new(chain: &Path, key: &Path) -> Files {
        Files { chain: chain.to_owned(), key: key.to_owned() }
    }

    /// Reads both, and warns of what is served all the same.
    pub(super) fn load(&self) -> Result<Loaded> {
        let stamps = self.stamps();
        let (chain, key) = (format!("{:?}", self.chain), format!("{:?}", self.key));
        let called = Called { chain: &chain, key: &key };
        let certificate = Certificate::from_pem(&read(&self.chain)?, &read(&self.key)?, called)?;
        let end = certificate.end(SystemTime::now());
        if end != End::Far {
            log::warn!("the certificate in {chain} {end}");
        }
        if std::fs::metadata(&self.key).is_ok_and(|found| found.mode() & 0o004 != 0) {
            log::warn!(
                "every user of this machine may read the key in {key}; chmod o-r takes that away"
            );
        }
        Ok(Loaded { certificate, stamps })
    }

    /// The paths are followed as they were given, each time: certbot replaces links.
    fn stamps(&self) -> Stamps {
        [&self.chain, &self.key].map(|path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| {
        let would_do = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; this process's user may not (what certbot writes, only root may read)"
            }
            io::ErrorKind::NotFound => {
                "; a certificate with its chain and its key are to be there, such as certbot's fullchain.pem and \
                 privkey.pem"
            }
            _ => "",
        };
        let text = format!("cannot read {path:?}: {error}{would_do}");
        Error::new(ErrorKind::Config, text).with_source(error)
    })
}

/// Looks after the certificate in use.
pub(super) struct Renewal {
    files: Files,
    current: Arc<CurrentCertificate>,
    loaded: Loaded,
    /// Why the files could not be used the last time, and how they looked then: told once.
    broken: Option<(Stamps, String)>,
    /// When it was last said that the certificate in use is about to end.
    alarmed: Option<SystemTime>,
}

/// What a look has shown that somebody should hear of.
#[derive(Debug, PartialEq)]
pub(super) enum Inspection {
    Nothing,
    Renewed,
    /// The files hold nothing that can be used.
    Broken(String),
    /// The certificate in use is about to end, or has, and there is no other one. Why, where it is known.
    Ending(End, Option<String>),
}

impl Renewal {
    pub(super) fn new(files: Files, loaded: Loaded, current: Arc<CurrentCertificate>) -> Renewal {
        Renewal { files, current, loaded, broken: None, alarmed: None }
    }

    /// Looks whether there is another certificate, and takes it where it is whole.
    pub(super) fn inspect(&mut self, now: SystemTime) -> Inspection {
        let stamps = self.files.stamps();
        if stamps == self.loaded.stamps {
            self.broken = None;
            return self.ending(now);
        }
        match self.files.load() {
            // Somebody is still writing, perhaps.
            Ok(loaded) if loaded.stamps != self.files.stamps() => Inspection::Nothing,
            Ok(loaded) => {
                let is_new = loaded.certificate.key.cert != self.loaded.certificate.key.cert;
                self.current.replace(&loaded.certificate);
                (self.loaded, self.broken, self.alarmed) = (loaded, None, None);
                if is_new { Inspection::Renewed } else { Inspection::Nothing }
            }
            Err(error) => {
                let broken = (stamps, error.to_string());
                if self.broken.as_ref() == Some(&broken) {
                    return self.ending(now);
                }
                let text = broken.1.clone();
                self.broken = Some(broken);
                Inspection::Broken(text)
            }
        }
    }

    /// Says once a day that the end is near.
    fn ending(&mut self, now: SystemTime) -> Inspection {
        let end = self.loaded.certificate.end(now);
        let told =
            self.alarmed.is_some_and(|told| now.duration_since(told).unwrap_or_default() < DAY);
        if end == End::Far || told {
            return Inspection::Nothing;
        }
        self.alarmed = Some(now);
        Inspection::Ending(end, self.broken.as_ref().map(|broken| broken.1.clone()))
    }

    fn look_and_tell(&mut self) {
        match self.inspect(SystemTime::now()) {
            Inspection::Nothing => {}
            Inspection::Renewed => {
                log::info!("the certificate in {:?} is new, and in use", self.files.chain)
            }
            Inspection::Broken(why) => {
                log::warn!("a new certificate cannot be used, and the one in use stays: {why}");
            }
            Inspection::Ending(end, Some(why)) => {
                log::error!("the certificate in use {end}, and a new one cannot be used: {why}");
            }
            Inspection::Ending(end, None) => {
                log::error!(
                    "the certificate in use {end}, and {:?} holds no other",
                    self.files.chain
                );
            }
        }
    }
}

/// A thread that looks every ten seconds, and at once where SIGHUP comes, until this is dropped.
pub(crate) struct RenewalWatcher {
    wake: UnixStream,
    signal: Option<SigId>,
    thread: Option<JoinHandle<()>>,
}

impl RenewalWatcher {
    pub(super) fn start(mut renewal: Renewal) -> io::Result<RenewalWatcher> {
        let (mut woken, wake) = UnixStream::pair()?;
        woken.set_read_timeout(Some(CHECK_INTERVAL))?;
        let signal = signal_hook::low_level::pipe::register(SIGHUP, wake.try_clone()?);
        let signal =
            signal.inspect_err(|error| log::warn!("SIGHUP cannot be listened to: {error}")).ok();
        let thread =
            std::thread::Builder::new().name("certificate".to_owned()).spawn(move || {
                loop {
                    match woken.read(&mut [0; 16]) {
                        Ok(0) => return,
                        Ok(_) => renewal.look_and_tell(),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        // The time is over.
                        Err(_) => renewal.look_and_tell(),
                    }
                }
            })?;
        Ok(RenewalWatcher { wake, signal, thread: Some(thread) })
    }
}

impl Drop for RenewalWatcher {
    fn drop(&mut self) {
        if let Some(signal) = self.signal.take() {
            signal_hook::low_level::unregister(signal);
        }
        let _ = self.wake.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Pair(PathBuf);

    impl Pair {
        fn new(name: &str) -> Pair {
            let folder =
                std::env::temp_dir().join(format!("bs-renewal-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            Pair(folder)
        }

        fn files(&self) -> Files {
            Files::new(&self.0.join("cert.pem"), &self.0.join("key.pem"))
        }

        /// Puts a certificate there that ends then; its key, for which there is a place only later.
        fn write(&self, ends: SystemTime) -> impl FnOnce() {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
            (params.not_before, params.not_after) = ((ends - 400 * DAY).into(), ends.into());
            let pem = params.self_signed(&key).unwrap().pem();
            std::fs::write(self.0.join("cert.pem"), pem).unwrap();
            let path = self.0.join("key.pem");
            move || {
                std::fs::write(&path, key.serialize_pem()).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }

    impl Drop for Pair {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_certificate_that_nobody_renews_is_an_error_each_day_of_its_last_fourteen() {
        let (pair, now) = (Pair::new("ending"), SystemTime::now());
        pair.write(now + 20 * DAY)();
        let files = pair.files();
        let loaded = files.load().unwrap();
        let current = Arc::new(CurrentCertificate::new(&loaded.certificate));
        let mut renewal = Renewal::new(files, loaded, current.clone());
        let first = current.get();
        assert_eq!(renewal.inspect(now), Inspection::Nothing);
        assert_eq!(renewal.inspect(now + 5 * DAY), Inspection::Nothing);

        // As for a service that may not read what certbot has renewed.
        let renewed = pair.write(now + 100 * DAY);
        let Inspection::Broken(why) = renewal.inspect(now + 5 * DAY) else {
            panic!("it is noticed")
        };
        assert!(why.contains("is not that of the certificate"), "{why}");
        assert_eq!(renewal.inspect(now + 5 * DAY), Inspection::Nothing, "once");
        let second = Duration::from_secs(1);
        let at = now + 6 * DAY + second;
        let alarm = |days| Inspection::Ending(End::Near(days), Some(why.clone()));
        for (at, expected) in [
            (at, alarm(13)),
            (at + second, Inspection::Nothing),
            (at + DAY - second, Inspection::Nothing),
            (at + DAY, alarm(12)),
            (at + 12 * DAY, alarm(1)),
            (at + 14 * DAY, Inspection::Ending(End::Past(0), Some(why.clone()))),
            (at + 15 * DAY, Inspection::Ending(End::Past(1), Some(why.clone()))),
        ] {
            assert_eq!(renewal.inspect(at), expected);
        }
        assert!(Arc::ptr_eq(&first, &current.get()), "the old one serves on");

        renewed();
        assert_eq!(renewal.inspect(at + 15 * DAY), Inspection::Renewed);
        assert!(!Arc::ptr_eq(&first, &current.get()));
        assert_eq!(renewal.inspect(at + 15 * DAY), Inspection::Nothing);
    }

    #[test]
    fn files_that_are_as_they_were_again_are_nothing_to_speak_of() {
        let (pair, now) = (Pair::new("again"), SystemTime::now());
        pair.write(now + 100 * DAY)();
        let files = pair.files();
        let loaded = files.load().unwrap();
        let current = Arc::new(CurrentCertificate::new(&loaded.certificate));
        let mut renewal = Renewal::new(files, loaded, current);
        let (key, aside) = (pair.0.join("key.pem"), pair.0.join("aside"));
        for _ in 0..2 {
            std::fs::rename(&key, &aside).unwrap();
            assert!(matches!(renewal.inspect(now), Inspection::Broken(_)));
            assert_eq!(renewal.inspect(now), Inspection::Nothing);
            std::fs::rename(&aside, &key).unwrap();
            assert_eq!(renewal.inspect(now), Inspection::Nothing);
        }
    }
}
